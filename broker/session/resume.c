/* XEP-0198 resumption: a session that lost its connection waits, detached, on its shard; a new connection that proves it
 * knows the session's id takes its place.
 *
 * The session stays where it is, so that nobody who refers to it need learn anything; the connection moves. When it came
 * in on another shard, link and stream are packed up and mailed:
 *
 *     new connection's shard              session's shard
 *     <resume previd h/>
 *     ask  ------------------------------> known, same account, secret right?
 *       <---------------------- go / refuse
 *     detach link and stream
 *     bring -----------------------------> attach, settle up to h, <resumed/>, send the rest again */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/config.h"
#include "broker/log.h"
#include "broker/router/address.h"
#include "broker/session/session_internal.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

/* --- enable ------------------------------------------------------------------------------------------------------- */

/* shard-slot-secret: where to look, and the 128 bits that grant it. */
static struct xy_str resumption_id(const struct session *session, char out[64])
{
    int len = snprintf(out, 64, "%x-%x-%s", session->ref.shard, session->ref.index, session->sm->secret);
    xy_assert(len > 0 && len < 64);
    return xy_str_n(out, (size_t)len);
}

void resume_on_enable(struct session *session, const struct xy_stream_event *event)
{
    struct shard *shard = session->shard;
    if (session->sm != NULL) {
        xy_stream_sm_failed(session->stream, XY_UNEXPECTED_REQUEST, NULL);
        return;
    }
    session->sm = calloc(1, sizeof(*session->sm));
    if (session->sm == NULL) {
        xy_stream_sm_failed(session->stream, XY_RESOURCE_CONSTRAINT, NULL);
        return;
    }
    struct session_sm *sm = session->sm;
    char id[64];
    xy_sm_init(&sm->counters);
    xy_random_id(shard->env, sm->secret);
    sm->max_us = shard->config->sm.max_ms * 1000;
    if (event->max_seconds != 0 && event->max_seconds * UINT64_C(1000000) < sm->max_us)
        sm->max_us = event->max_seconds * UINT64_C(1000000);
    sm->resumable = event->resume && sm->max_us >= 1000000; /* what is told is whole seconds */
    xy_sm_queue_keep(&session->queue, true);
    xy_stream_sm_enabled(session->stream, sm->resumable ? resumption_id(session, id) : XY_STR_NONE,
                         sm->resumable ? (uint32_t)(sm->max_us / 1000000) : 0, XY_STR_NONE);
    address_set_sm(shard, session->ref, xy_jid_bare(session->jid), true);
}

/* --- detach ------------------------------------------------------------------------------------------------------- */

static void not_asked(struct session_sm *sm)
{
    sm->asked = sm->ack_due = sm->request_open = sm->resuming = false;
    sm->asked_first_us = sm->asked_last_us = 0;
}

/* The connection is gone, the session waits. */
void resume_detach(struct session *session)
{
    struct shard *shard = session->shard;
    xy_assert(session->state == SESSION_BOUND && session->sm && session->sm->resumable);
    session_drop_link(session);
    session_bury_stream(session);
    session->state = SESSION_DETACHED;
    session->held = false;
    session->blocked_us = 0;
    not_asked(session->sm);
    outbox_return_limbo(session);
    xy_list_remove(&session->dirty);
    shard_timer_cancel(shard, &session->pacer);
    shard_timer_set(shard, &session->deadline, xy_now_us(shard->env) + session->sm->max_us);
    stat_add(shard, sessions_detached, 1);
    log_debug(shard->log, "session detached", LOG_STR("jid", xy_jid_full(session->jid)));
}

/* --- resume: ask -------------------------------------------------------------------------------------------------- */

struct ask {
    struct session_ref asker;
    uint32_t index;
    uint32_t h;
    char secret[XY_ID_LEN];
    struct xy_bytes *bare;
};

struct answer {
    struct session_ref asker;
    struct session_ref session; /* SESSION_NONE: refused */
    uint32_t h;
};

struct parcel {
    struct session_ref session;
    struct link *link;
    struct xy_stream *stream;
    struct xy_bytes *bare; /* whose */
    uint32_t h;
};

static void refuse(struct session *asker)
{
    if (asker == NULL || asker->state != SESSION_UNBOUND)
        return;
    xy_stream_sm_failed(asker->stream, XY_ITEM_NOT_FOUND, NULL);
    session_pump(asker);
}

/* Hexadecimal up to a dash, as resumption_id writes it. */
static bool id_number(struct xy_str *rest, uint32_t *number)
{
    static const char digits[16] = "0123456789abcdef";
    uint32_t value = 0;
    size_t len = 0;
    for (const char *digit; len < rest->len && len < 2 * sizeof(value); len++) {
        digit = memchr(digits, rest->data[len], sizeof(digits));
        if (digit == NULL)
            break;
        value = value << 4 | (uint32_t)(digit - digits);
    }
    if (len == 0 || len == rest->len || rest->data[len] != '-')
        return false;
    *number = value;
    *rest = xy_str_n(rest->data + len + 1, rest->len - len - 1);
    return true;
}

/* "shard-slot-secret"; false: not one of our ids. */
static bool id_parse(struct xy_str id, const struct shard *shard, uint32_t *to, struct ask *ask)
{
    if (!id_number(&id, to) || !id_number(&id, &ask->index) || id.len != XY_ID_LEN)
        return false;
    memcpy(ask->secret, id.data, XY_ID_LEN);
    return *to < shard_count(shard);
}

static void on_answer(struct shard *shard, void *payload);

static void on_ask(struct shard *shard, void *payload)
{
    struct ask *ask = payload;
    const struct sessions *sessions = shard->sessions;
    struct session *session = ask->index < sessions->slots_count ? sessions->slots[ask->index].session : NULL;
    struct answer answer = { .asker = ask->asker, .session = SESSION_NONE, .h = ask->h };
    if (session && session->state >= SESSION_BOUND && session->sm && session->sm->resumable &&
        xy_str_eq_secret(xy_str_n(session->sm->secret, XY_ID_LEN), xy_str_n(ask->secret, XY_ID_LEN)) &&
        xy_str_eq(xy_jid_bare(session->jid), xy_bytes_view(ask->bare)))
        answer.session = session->ref;
    xy_bytes_unref(&ask->bare);
    shard_mail(shard, ask->asker.shard, on_answer, &answer, sizeof(answer));
}

void resume_on_resume(struct session *session, const struct xy_stream_event *event)
{
    struct shard *shard = session->shard;
    struct ask ask = { .asker = session->ref, .h = event->h };
    uint32_t to = 0;
    bool known = id_parse(event->sm_id, shard, &to, &ask);
    ask.bare = known ? xy_bytes_new(xy_jid_bare(session->jid)) : NULL;
    if (ask.bare)
        shard_mail(shard, to, on_ask, &ask, sizeof(ask));
    else
        xy_stream_sm_failed(session->stream, XY_ITEM_NOT_FOUND, NULL);
}

/* --- resume: bring ------------------------------------------------------------------------------------------------ */

/* It ended between ask and bring: the newcomer may bind a resource instead. */
static void bring_too_late(struct shard *shard, struct parcel *parcel)
{
    struct link *link = parcel->link;
    struct session *session = session_new(shard, link);
    if (!link->calls->attach(link, shard, session)) {
        xy_stream_free(&parcel->stream);
        if (session) {
            session->link = NULL;
            session_end(session);
        }
        return;
    }
    if (session == NULL) {
        xy_stream_free(&parcel->stream);
        link->calls->close(link);
        return;
    }
    session->stream = parcel->stream;
    session->state = SESSION_UNBOUND;
    xy_stream_adopt(session->stream, &shard->sessions->stream_options);
    shard_timer_set(shard, &session->deadline,
                    xy_now_us(shard->env) + shard->config->limits.unauthenticated_timeout_ms * 1000);
    session_set_jid(session, xy_jid_canonical(xy_bytes_view(parcel->bare)));
    refuse(session);
}

/* The old connection may still stand, half-open (hostile input 59). */
static void displace(struct session *session)
{
    if (session->state == SESSION_DETACHED) {
        session->state = SESSION_BOUND;
        stat_sub(session->shard, sessions_detached, 1);
        return;
    }
    xy_stream_fail(session->stream, XY_STREAM_CONFLICT, "the session was resumed on another connection");
    outbox_flush(session);
    session_drop_link(session);
    session_bury_stream(session);
    outbox_return_limbo(session);
}

/* What came on the old stream has to be handled first: its sender sends again what the h of <resumed/> does not cover,
 * and would be counted twice. */
void resume_handled(struct session *session)
{
    struct session_sm *sm = session->sm;
    char id[64];
    if (sm->counters.in_h != sm->counters.in_tail)
        return;
    sm->resuming = false;
    sm->since_request = 0;
    xy_stream_sm_resumed(session->stream, resumption_id(session, id), xy_sm_h(&sm->counters));
    xy_sm_queue_rewind(&session->queue, &sm->counters);
    stat_add(session->shard, sessions_resumed, 1);
    outbox_touch(session);
    session_pump(session);
}

static void bring(struct shard *shard, struct parcel *parcel)
{
    struct session *session = session_find(shard, parcel->session);
    if (session == NULL || session->state < SESSION_BOUND) {
        bring_too_late(shard, parcel);
        return;
    }
    displace(session);
    if (!parcel->link->calls->attach(parcel->link, shard, session)) {
        xy_stream_free(&parcel->stream);
        resume_detach(session);
        return;
    }
    session->link = parcel->link;
    session->stream = parcel->stream;
    session->asleep = session->held = session->inactive = false; /* XEP-0352 5.2 */
    session->blocked_us = 0;
    session->last_input_us = xy_now_us(shard->env);
    not_asked(session->sm);
    xy_stream_adopt(session->stream, &shard->sessions->stream_options);
    outbox_acked(session, parcel->h);
    if (session->state == SESSION_ENDED)
        return;
    session->sm->resuming = true;
    session_deadline_update(session);
    resume_handled(session);
}

static void on_bring(struct shard *shard, void *payload)
{
    struct parcel *parcel = payload;
    bring(shard, parcel);
    xy_bytes_unref(&parcel->bare);
}

/* On the shard of the new connection: hand over its link and stream, and nothing remains of the asking session. */
static void on_answer(struct shard *shard, void *payload)
{
    struct answer *answer = payload;
    struct session *asker = session_find(shard, answer->asker);
    if (asker == NULL || asker->state != SESSION_UNBOUND)
        return; /* it left in the meantime */
    if (!session_ref_present(answer->session)) {
        refuse(asker);
        return;
    }
    outbox_flush(asker);
    if (asker->link == NULL || asker->blocked_us != 0) {
        session_end(asker); /* a peer that does not read the few bytes of a login */
        return;
    }
    struct parcel parcel = { .session = answer->session,
                             .link = asker->link,
                             .stream = asker->stream,
                             .bare = xy_bytes_ref(asker->jid_bytes),
                             .h = answer->h };
    asker->link->calls->detach(asker->link);
    asker->link = NULL;
    asker->stream = NULL;
    shard_mail(shard, answer->session.shard, on_bring, &parcel, sizeof(parcel));
    session_end(asker);
}
