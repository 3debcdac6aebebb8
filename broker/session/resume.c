/* XEP-0198 resumption: a session that lost its connection waits, detached, on its shard; a new connection that proves it
 * knows the session's id takes its place. Who has the id is asked at the owner of the account (broker/router/resumable.h),
 * which knows also the sessions that a restart interrupted (restore.c).
 *
 * A session that lives stays where it is, so that nobody who refers to it need learn anything; the connection moves. When
 * it came in on another shard, link and stream are packed up and mailed:
 *
 *     new connection's shard     owner of the account       session's shard
 *     <resume previd h/>
 *     address_resume ----------> same account, same id?
 *       <----------------------- there it is / refused
 *     detach link and stream
 *     bring ----------------------------------------------> attach, settle up to h, <resumed/>, send the rest again */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/config.h"
#include "broker/log.h"
#include "broker/router/address.h"
#include "broker/router/resumable.h"
#include "broker/session/session_internal.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

/* --- enable ------------------------------------------------------------------------------------------------------- */

static struct xy_str id_text(const struct session_sm *sm, char text[2 * SESSION_ID_BYTES])
{
    xy_hex_encode(text, sm->id, SESSION_ID_BYTES);
    return xy_str_n(text, 2 * SESSION_ID_BYTES);
}

static void enable(struct session *session, struct session_sm *sm)
{
    char text[2 * SESSION_ID_BYTES];
    struct xy_str location = session->shard->config->sm.location;
    session->sm = sm;
    xy_sm_queue_keep(&session->queue, true);
    if (session->stream)
        xy_stream_sm_enabled(session->stream, sm->resumable ? id_text(sm, text) : XY_STR_NONE,
                             sm->resumable ? (uint32_t)(sm->max_us / 1000000) : 0,
                             sm->resumable ? location : XY_STR_NONE);
    address_set_sm(session->shard, session->ref, xy_jid_bare(session->jid), true);
}

/* What a resumption after a restart needs is on disk before the client hears of it. */
void resume_on_enable(struct session *session, const struct xy_stream_event *event)
{
    struct shard *shard = session->shard;
    if (session->sm != NULL) {
        xy_stream_sm_failed(session->stream, XY_UNEXPECTED_REQUEST, NULL);
        return;
    }
    struct session_sm *sm = calloc(1, sizeof(*sm));
    if (sm == NULL) {
        xy_stream_sm_failed(session->stream, XY_RESOURCE_CONSTRAINT, NULL);
        return;
    }
    xy_sm_init(&sm->counters);
    xy_random(shard->env, sm->id, sizeof(sm->id));
    sm->max_us = shard->config->sm.max_ms * 1000;
    if (event->max_seconds != 0 && event->max_seconds * UINT64_C(1000000) < sm->max_us)
        sm->max_us = event->max_seconds * UINT64_C(1000000);
    sm->resumable = event->resume && sm->max_us >= 1000000; /* what is told is whole seconds */
    if (!sm->resumable) {
        enable(session, sm);
        return;
    }
    session->sm_asked = sm;
    address_keep(shard, session->ref, xy_jid_bare(session->jid), sm->id, sm->max_us);
}

/* `kept` false: there is no room on disk, and the session may be resumed as long as the broker lives. */
void resume_kept(struct session *session, bool kept)
{
    struct session_sm *sm = session->sm_asked;
    session->sm_asked = NULL;
    sm->kept = kept;
    enable(session, sm);
    session_pump(session);
}

/* --- detach ------------------------------------------------------------------------------------------------------- */

static void not_asked(struct session_sm *sm)
{
    sm->asked = sm->ack_due = sm->request_open = sm->resuming = false;
    sm->asked_first_us = sm->asked_last_us = sm->request_due_us = sm->telling = 0;
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
    address_set_detached(shard, session->ref, xy_jid_bare(session->jid), true);
    if (session->sm->kept)
        sent_record(session, false);
    stat_add(shard, sessions_detached, 1);
    log_debug(shard->log, "session detached", LOG_STR("jid", xy_jid_full(session->jid)));
}

/* Nobody came in time. */
void resume_expire(struct session *session)
{
    struct session_sm *sm = session->sm;
    struct session_expiry expiry = { .handled = sm->counters.in_h,
                                     .acked = sm->counters.out_acked,
                                     .resumed = sm->held.resumed };
    xy_assert(session->state == SESSION_DETACHED);
    stat_add(session->shard, sessions_expired, 1);
    if (sm->kept) {
        sent_answers(session, &expiry.answers);
        address_expire(session->shard, session->ref, xy_jid_bare(session->jid), &expiry);
    }
    session_end(session);
}

/* --- resume: ask -------------------------------------------------------------------------------------------------- */

struct parcel {
    struct session_ref session;
    struct link *link;
    struct xy_stream *stream;
    struct xy_bytes *bare; /* whose */
    uint32_t h;
};

/* `h`: what is known to be handled of a session whose time is over; NULL: nothing is. */
static void refuse(struct session *asker, const uint32_t *h)
{
    if (asker == NULL || asker->state != SESSION_UNBOUND)
        return;
    shard_timer_set(asker->shard, &asker->deadline,
                    xy_now_us(asker->shard->env) +
                        asker->shard->config->limits.unauthenticated_timeout_ms * 1000);
    xy_stream_sm_failed(asker->stream, XY_ITEM_NOT_FOUND, h);
    session_pump(asker);
}

void resume_on_resume(struct session *session, const struct xy_stream_event *event)
{
    uint8_t id[SESSION_ID_BYTES];
    if (event->sm_id.len != 2 * SESSION_ID_BYTES || !xy_hex_decode(id, event->sm_id)) {
        xy_stream_sm_failed(session->stream, XY_ITEM_NOT_FOUND, NULL);
        return;
    }
    session->resuming = true;
    session->resuming_h = event->h;
    shard_timer_cancel(session->shard, &session->deadline);
    address_resume(session->shard, session->ref, xy_jid_bare(session->jid), id, event->h);
}

/* The answer may still make a session of it, which waits then for the next connection. */
void resume_asker_gone(struct session *session)
{
    session_drop_link(session);
    session_bury_stream(session);
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
    session_set_jid(session, xy_jid_canonical(xy_bytes_view(parcel->bare)));
    refuse(session, NULL);
}

/* The old connection may still stand, half-open (hostile input 59). */
static void displace(struct session *session)
{
    if (session->state == SESSION_DETACHED) {
        session->state = SESSION_BOUND;
        address_set_detached(session->shard, session->ref, xy_jid_bare(session->jid), false);
        stat_sub(session->shard, sessions_detached, 1);
        return;
    }
    xy_stream_fail(session->stream, XY_STREAM_CONFLICT, "the session was resumed on another connection");
    outbox_flush(session);
    session_drop_link(session);
    session_bury_stream(session);
    outbox_return_limbo(session);
}

static void on_recorded(struct shard *shard, void *payload)
{
    struct session *session = session_find(shard, *(struct session_ref *)payload);
    if (session == NULL || session->sm == NULL)
        return;
    session->sm->recording = false;
    if (session->sm->resuming)
        resume_handled(session);
}

void resume_when_recorded(struct session *session, uint64_t ticket)
{
    session->sm->recording = true;
    shard_when_committed(session->shard, ticket, on_recorded, &session->ref, sizeof(session->ref));
}

/* A <failed/> ends before the first answer that did not arrive, but not before what a <resumed/> told. So while there are
 * such answers, what it is about to tell goes to disk first, and a crash does not forget it. */
static bool told_for_good(struct session *session, uint64_t h)
{
    struct session_sm *sm = session->sm;
    if (!sm->kept || sm->proof.answers_pending == 0 || h <= sm->held.resumed || h <= sm->telling)
        return true;
    sm->telling = h;
    resume_when_recorded(session, sent_resume(session));
    return false;
}

/* What came on the old stream has to be handled first: its sender sends again what the h of <resumed/> does not cover,
 * and would be counted twice. */
void resume_handled(struct session *session)
{
    struct session_sm *sm = session->sm;
    char text[2 * SESSION_ID_BYTES];
    uint64_t h = held_limit(session);
    if (sm->recording || sm->counters.in_h != sm->counters.in_tail || !told_for_good(session, h) ||
        proof_h(session) < h)
        return;
    sm->resuming = false;
    sm->since_request = 0;
    xy_stream_sm_resumed(session->stream, id_text(sm, text), (uint32_t)held_resume(sm, h), sm->restored);
    sm->restored = false;
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
    proof_go_on(session);
}

static void on_bring(struct shard *shard, void *payload)
{
    struct parcel *parcel = payload;
    bring(shard, parcel);
    xy_bytes_unref(&parcel->bare);
}

/* On the shard of the new connection: hand over its link and stream, and nothing remains of the asking session. */
static void move(struct session *asker, struct session_ref to)
{
    outbox_flush(asker);
    if (asker->link == NULL || asker->blocked_us != 0) {
        session_end(asker); /* a peer that does not read the few bytes of a login */
        return;
    }
    struct parcel parcel = { .session = to,
                             .link = asker->link,
                             .stream = asker->stream,
                             .bare = xy_bytes_ref(asker->jid_bytes),
                             .h = asker->resuming_h };
    asker->link->calls->detach(asker->link);
    asker->link = NULL;
    asker->stream = NULL;
    shard_mail(asker->shard, to.shard, on_bring, &parcel, sizeof(parcel));
    session_end(asker);
}

void resume_answer(struct shard *shard, struct session_ref ref, struct session_resumption *resumption)
{
    struct session *asker = session_find(shard, ref);
    struct session_past *past = resumption->past;
    if (asker == NULL || !asker->resuming) { /* it was ended in the meantime */
        if (past)
            address_suspend(shard, ref, xy_jid_bare(xy_jid_canonical(xy_bytes_view(past->jid))));
        return;
    }
    asker->resuming = false;
    if (past)
        restore_session(asker, past);
    else if (asker->link == NULL)
        session_end(asker);
    else if (session_ref_present(resumption->live))
        move(asker, resumption->live);
    else
        refuse(asker, resumption->expired ? &resumption->h : NULL);
}
