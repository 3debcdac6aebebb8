/* A session begins, is named, sleeps, runs out of time and ends. */
#include "broker/session/session_internal.h"

#include <stdlib.h>

#include "broker/config.h"
#include "broker/log.h"
#include "broker/router/address.h"
#include "broker/router/resumable.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"
#include "core/xml/writer.h"

/* --- beginning and end -------------------------------------------------------------------------------------------- */

static void on_deadline(struct shard *shard, struct shard_timer *timer);
static void on_pacer(struct shard *shard, struct shard_timer *timer);

struct session *session_new(struct shard *shard, struct link *link)
{
    struct sessions *sessions = shard->sessions;
    struct session *session = calloc(1, sizeof(*session));
    if (session == NULL)
        return NULL;
    session->shard = shard;
    session->state = SESSION_OPENING;
    session->link = link;
    session->deadline.fn = on_deadline;
    session->pacer.fn = on_pacer;
    session->last_input_us = xy_now_us(shard->env);
    xy_list_init(&session->dirty);
    xy_sm_queue_init(&session->queue, &sessions->chunks);
    xy_sm_queue_init(&session->limbo, &sessions->chunks);
    if (!session_slot_take(sessions, session)) {
        free(session);
        return NULL;
    }
    sessions->open++;
    return session;
}

void session_set_jid(struct session *session, struct xy_jid jid)
{
    struct xy_buf escaped = { 0 };
    struct xy_bytes *old = session->jid_bytes; /* `jid` may point into it */
    xy_xml_escape(&escaped, xy_jid_full(jid));
    xy_bytes_unref(&session->to);
    session->to = xy_buf_failed(&escaped) ? NULL : xy_bytes_new(xy_buf_view(&escaped));
    session->jid_bytes = xy_bytes_new(xy_jid_full(jid));
    session->jid = (struct xy_jid){ 0 };
    if (session->jid_bytes)
        session->jid = xy_jid_canonical(xy_bytes_view(session->jid_bytes));
    xy_bytes_unref(&old);
    xy_buf_free(&escaped);
}

void session_drop_link(struct session *session)
{
    struct link *link = session->link;
    session->link = NULL;
    if (link)
        link->calls->close(link);
}

void session_bury_stream(struct session *session)
{
    struct sessions *sessions = session->shard->sessions;
    if (sessions->buried_count == sessions->buried_cap) {
        size_t cap = sessions->buried_cap ? 2 * sessions->buried_cap : 16;
        struct xy_stream **buried = realloc(sessions->buried, cap * sizeof(struct xy_stream *));
        xy_assert(buried != NULL);
        sessions->buried = buried;
        sessions->buried_cap = cap;
    }
    sessions->buried[sessions->buried_count++] = session->stream;
    session->stream = NULL;
}

/* The memory goes at the end of the turn: somebody further up the stack may still look at the session. */
void session_end(struct session *session)
{
    struct shard *shard = session->shard;
    if (session->state == SESSION_ENDED)
        return;
    enum session_state was = session->state;
    session->state = SESSION_ENDED;
    session_drop_link(session);
    shard_timer_cancel(shard, &session->deadline);
    shard_timer_cancel(shard, &session->pacer);
    xy_list_remove(&session->dirty);
    bool suspended = shard->sessions->stopping && was != SESSION_UNBOUND && session->sm && session->sm->kept;
    if (suspended) {
        proof_record(session, false);
        sent_record(session, true);
    }
    claims_tell(session);
    claims_release(session);
    if (session->waiting)
        waiting_end(session);
    outbox_return_all(session);
    if (was == SESSION_BOUND || was == SESSION_DETACHED) {
        if (suspended)
            address_suspend(shard, session->ref, xy_jid_bare(session->jid));
        else
            address_unbind(shard, session->ref, xy_jid_bare(session->jid));
        stat_sub(shard, sessions, 1);
    }
    if (was == SESSION_DETACHED)
        stat_sub(shard, sessions_detached, 1);
    session_slot_give(shard->sessions, session);
    xy_list_append(&shard->sessions->ended, &session->dirty);
}

void session_fail(struct session *session, enum xy_stream_error error, const char *text)
{
    if (session->state == SESSION_ENDED)
        return;
    if (session->stream && session->link) {
        if (session->sm)
            session->sm->ack_due = true;
        outbox_flush(session);
        xy_stream_fail(session->stream, error, text);
        outbox_flush(session);
    }
    session_end(session);
}

/* --- time --------------------------------------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t after_ms(uint64_t since_us, uint64_t timeout_ms)
{
    return timeout_ms == 0 || timeout_ms >= UINT64_MAX / 1000 ? UINT64_MAX : since_us + timeout_ms * 1000;
}

/* When something is to happen to a bound session by time alone. */
static uint64_t bound_deadline(const struct session *session)
{
    const struct config_limits *limits = &session->shard->config->limits;
    uint64_t due_us = after_ms(session->last_input_us, limits->idle_timeout_ms);
    if (session->blocked_us != 0)
        due_us = earlier(due_us, after_ms(session->blocked_us, limits->stalled_timeout_ms));
    if (!session->asleep)
        due_us = earlier(due_us, session->last_input_us + SESSION_SLEEP_US);
    return due_us;
}

void session_deadline_update(struct session *session)
{
    struct shard *shard = session->shard;
    uint64_t due_us = UINT64_MAX;
    if (session->state == SESSION_BOUND)
        due_us = bound_deadline(session);
    if (due_us == UINT64_MAX)
        shard_timer_cancel(shard, &session->deadline);
    else
        shard_timer_set(shard, &session->deadline, due_us);
}

static void session_sleep(struct session *session)
{
    if (session->sm && session->sm->kept)
        proof_record(session, false); /* so that its rows may go */
    xy_stream_sleep(session->stream);
    session->link->calls->sleep(session->link);
    session->asleep = true;
}

static void on_bound_deadline(struct session *session, uint64_t now_us)
{
    const struct config_limits *limits = &session->shard->config->limits;
    if (now_us >= after_ms(session->last_input_us, limits->idle_timeout_ms)) {
        if (session->sm && session->sm->resumable)
            resume_detach(session);
        else
            session_fail(session, XY_STREAM_CONNECTION_TIMEOUT, "nothing was received for too long");
        return;
    }
    if (session->blocked_us != 0 && now_us >= after_ms(session->blocked_us, limits->stalled_timeout_ms)) {
        log_info(session->shard->log, "session stalled", LOG_STR("jid", xy_jid_full(session->jid)));
        if (session->sm && session->sm->resumable)
            resume_detach(session);
        else
            session_end(session);
        return;
    }
    if (!session->asleep && now_us >= session->last_input_us + SESSION_SLEEP_US)
        session_sleep(session);
    session_deadline_update(session);
}

static void on_deadline(struct shard *shard, struct shard_timer *timer)
{
    struct session *session = xy_container_of(timer, struct session, deadline);
    if (session->state == SESSION_BOUND)
        on_bound_deadline(session, xy_now_us(shard->env));
    else if (session->state == SESSION_DETACHED)
        resume_expire(session);
    else
        session_fail(session, XY_STREAM_CONNECTION_TIMEOUT, "logging in took too long");
}

static void on_pacer(struct shard *shard, struct shard_timer *timer)
{
    (void)shard;
    outbox_pace(xy_container_of(timer, struct session, pacer));
}
