/* Slots, beginning and end of sessions, and the tables that links and other rooms call through. */
#include "broker/session/session_internal.h"

#include <stdlib.h>

#include "broker/config.h"
#include "broker/log.h"
#include "broker/router/address.h"
#include "broker/router/resumable.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"
#include "core/xml/writer.h"

/* --- slots -------------------------------------------------------------------------------------------------------- */

struct session *session_find(struct shard *shard, struct session_ref ref)
{
    const struct sessions *sessions = shard->sessions;
    if (ref.index >= sessions->slots_count || ref.shard != shard->index)
        return NULL;
    const struct slot *slot = &sessions->slots[ref.index];
    return slot->generation == ref.generation ? slot->session : NULL;
}

static bool slots_grow(struct sessions *sessions)
{
    uint32_t cap = sessions->slots_cap ? 2 * sessions->slots_cap : 256;
    struct slot *slots = realloc(sessions->slots, cap * sizeof(struct slot));
    if (slots == NULL)
        return false;
    sessions->slots = slots;
    sessions->slots_cap = cap;
    return true;
}

static bool slot_take(struct sessions *sessions, struct session *session)
{
    uint32_t index;
    if (sessions->free_first != 0) {
        index = sessions->free_first - 1;
        sessions->free_first = sessions->slots[index].next_free;
    } else {
        if (sessions->slots_count == sessions->slots_cap && !slots_grow(sessions))
            return false;
        index = sessions->slots_count++;
        sessions->slots[index].generation = 1;
    }
    sessions->slots[index].session = session;
    session->ref = (struct session_ref){ index, sessions->slots[index].generation, session->shard->index };
    return true;
}

static void slot_give(struct sessions *sessions, struct session *session)
{
    struct slot *slot = &sessions->slots[session->ref.index];
    xy_assert(slot->session == session);
    slot->session = NULL;
    slot->generation = slot->generation == UINT32_MAX ? 1 : slot->generation + 1;
    slot->next_free = sessions->free_first;
    sessions->free_first = session->ref.index + 1;
}

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
    if (!slot_take(sessions, session)) {
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
    slot_give(shard->sessions, session);
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

static void ended_free(struct shard *shard)
{
    struct sessions *sessions = shard->sessions;
    while (sessions->buried_count > 0)
        xy_stream_free(&sessions->buried[--sessions->buried_count]);
    xy_list_each (entry, &sessions->ended) {
        struct session *session = xy_container_of(entry, struct session, dirty);
        xy_list_remove(entry);
        xy_stream_free(&session->stream);
        xy_bytes_unref(&session->jid_bytes);
        xy_bytes_unref(&session->to);
        free(session->claims);
        proof_free(session->sm);
        free(session->sm);
        free(session->sm_asked);
        free(session);
        sessions->open--;
    }
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
        session_end(session);
    else
        session_fail(session, XY_STREAM_CONNECTION_TIMEOUT, "logging in took too long");
}

static void on_pacer(struct shard *shard, struct shard_timer *timer)
{
    (void)shard;
    outbox_pace(xy_container_of(timer, struct session, pacer));
}

/* --- links call --------------------------------------------------------------------------------------------------- */

static void link_opened(struct link *link)
{
    struct shard *shard = link->shard;
    struct sessions *sessions = shard->sessions;
    struct session *session = session_new(shard, link);
    if (session == NULL) {
        link->calls->close(link);
        return;
    }
    session->stream = xy_stream_server_new(&sessions->stream_options);
    if (session->stream == NULL) {
        session_end(session);
        return;
    }
    link->owner = session;
    shard_timer_set(shard, &session->deadline,
                    session->last_input_us + shard->config->limits.unauthenticated_timeout_ms * 1000);
}

static void link_input(struct link *link, const void *bytes, size_t len)
{
    struct session *session = link->owner;
    session->last_input_us = xy_now_us(session->shard->env);
    if (session->asleep) {
        session->asleep = false;
        session_deadline_update(session);
    }
    if (session->shard->sessions->quiescing)
        return;
    struct xy_stream *stream = session->stream; /* even if the session ends: it is freed with the turn */
    xy_stream_lend(stream, bytes, len);
    session_pump(session);
    xy_stream_keep(stream);
}

static void link_writable(struct link *link)
{
    struct session *session = link->owner;
    if (session == NULL)
        return;
    session->blocked_us = 0;
    outbox_writable(session);
}

static void link_secured(struct link *link, const struct xy_sasl_binding *bindings, size_t count)
{
    struct session *session = link->owner;
    xy_stream_tls_started(session->stream, bindings, count);
    session_pump(session);
}

static void link_gone(struct link *link)
{
    struct session *session = link->owner;
    if (session->resuming)
        resume_asker_gone(session);
    else if (session->state == SESSION_BOUND && session->sm && session->sm->resumable)
        resume_detach(session);
    else
        session_end(session);
}

static const struct link_events events_of_links = {
    .opened = link_opened,
    .input = link_input,
    .writable = link_writable,
    .secured = link_secured,
    .gone = link_gone,
};

/* --- other rooms call --------------------------------------------------------------------------------------------- */

/* A session whose outbox is twice full does not read: what comes is lost, and counted. One that reads and never acknowledges
 * would keep it in our memory for ever: it ends. */
static bool send_room(struct session *session)
{
    if (session == NULL || session->state < SESSION_BOUND)
        return false;
    if (session->inactive && session->waiting)
        waiting_presence_first(session);
    if (outbox_twice_full(session))
        outbox_flush(session);
    if (session->state == SESSION_ENDED)
        return false;
    if (!outbox_twice_full(session))
        return true;
    stat_add(session->shard, outbox_full, 1);
    if (session->link && outbox_unacked_full(session))
        session_fail(session, XY_STREAM_POLICY_VIOLATION, "too much was sent that is not acknowledged");
    return false;
}

static void call_send(struct shard *shard, struct session_ref ref, struct xy_bytes **stanza)
{
    struct session *session = session_find(shard, ref);
    if (send_room(session))
        outbox_push(session, stanza, ENTRY_STANZA, ENTRY_NO_CLAIM, 0);
}

static void call_send_message(struct shard *shard, struct session_ref ref, struct xy_str bare,
                              struct xy_bytes **stanza, uint64_t mailbox_seq)
{
    struct session *session = session_find(shard, ref);
    enum entry_kind kind = mailbox_seq ? ENTRY_MAILBOX : ENTRY_MESSAGE;
    if (session && session->state >= SESSION_BOUND && !outbox_full(session) &&
        outbox_push(session, stanza, kind, ENTRY_NO_CLAIM, mailbox_seq))
        return;
    if (session)
        stat_add(shard, outbox_full, 1);
    address_returned(shard, bare, ref, mailbox_seq, stanza);
}

static void call_send_presence(struct shard *shard, struct session_ref ref, struct xy_bytes **stanza)
{
    struct session *session = session_find(shard, ref);
    if (session == NULL || session->state < SESSION_BOUND)
        return;
    if ((session->inactive || outbox_full(session)) && waiting_presence(session, stanza))
        return;
    call_send(shard, ref, stanza);
}

static enum session_verdict call_offer(struct shard *shard, struct session_ref ref,
                                       struct session_offer *offer)
{
    struct session *session = session_find(shard, ref);
    if (session == NULL || session->state < SESSION_BOUND)
        return SESSION_GONE;
    if (session->inactive && session->waiting)
        waiting_presence_first(session);
    bool full = outbox_full(session) || waiting_brakes(session);
    if (!full && outbox_push(session, &offer->stanza, ENTRY_STANZA, ENTRY_NO_CLAIM, 0))
        return SESSION_TOOK;
    if (full && offer->patient && !shard->sessions->quiescing &&
        waiting_offer(session, &offer->stanza, offer->done, offer->ctx))
        return SESSION_WAITS;
    stat_add(shard, outbox_full, 1);
    return SESSION_FULL;
}

static void call_bound(struct shard *shard, struct session_ref ref, struct xy_jid jid,
                       const struct xy_error *error)
{
    struct session *session = session_find(shard, ref);
    if (session && session->state == SESSION_UNBOUND)
        login_bound(session, jid, error);
    else if (xy_jid_present(jid))
        address_unbind(shard, ref, xy_jid_bare(jid)); /* it ended while its resource was being bound */
}

static void call_close(struct shard *shard, struct session_ref ref, enum xy_stream_error error,
                       const char *text)
{
    struct session *session = session_find(shard, ref);
    if (session == NULL)
        return;
    session_fail(session, error, text);
}

static void session_handled_one(struct session *session, struct session_inbound inbound)
{
    xy_assert(session->inflight > 0 && session->inflight_bytes >= inbound.bytes);
    session->inflight--;
    session->inflight_bytes -= inbound.bytes;
    if (inbound.number != 0 && session->sm != NULL)
        proof_handled(session, inbound);
    if (session->held)
        session_input_resume(session);
}

static void call_handled(struct shard *shard, struct session_ref ref, struct session_inbound inbound)
{
    struct session *session = session_find(shard, ref);
    if (session)
        session_handled_one(session, inbound);
}

/* An h that covers a stanza whose answer cannot be sent would be a lie: the session ends instead. */
static void send_answer(struct session *session, struct xy_bytes **stanza,
                        const struct session_inbound *inbound)
{
    enum entry_kind kind = proof_answer(session, inbound, *stanza);
    uint64_t number = kind == ENTRY_STANZA ? 0 : inbound->number;
    bool pushed = send_room(session) && outbox_push(session, stanza, kind, ENTRY_NO_CLAIM, number);
    if (pushed && kind == ENTRY_ANSWER)
        session->sm->proof.answers_pending++;
    else if (pushed && kind == ENTRY_HELD)
        held_pushed(session, inbound);
    else if (!pushed && kind != ENTRY_STANZA && session->state != SESSION_ENDED)
        session_fail(session, XY_STREAM_POLICY_VIOLATION, "too many answers wait to be read");
}

static void call_answer(struct shard *shard, struct session_ref ref, struct xy_bytes **stanza,
                        struct session_inbound inbound)
{
    struct session *session = session_find(shard, ref);
    if (session && session->state >= SESSION_BOUND)
        send_answer(session, stanza, &inbound);
    if (session && session->state != SESSION_ENDED)
        session_handled_one(session, inbound);
}

static void call_kept(struct shard *shard, struct session_ref ref, bool kept)
{
    struct session *session = session_find(shard, ref);
    if (session && session->state == SESSION_BOUND && session->sm_asked)
        resume_kept(session, kept);
    else if (session && session->state >= SESSION_BOUND && session->sm && !kept)
        proof_end(session);
}

static void call_copied(struct shard *shard, struct session_ref ref, bool copied)
{
    struct session *session = session_find(shard, ref);
    if (session)
        session->copied = copied;
}

static const struct session_calls calls_of_rooms = {
    .send = call_send,
    .send_message = call_send_message,
    .send_presence = call_send_presence,
    .offer = call_offer,
    .bound = call_bound,
    .close = call_close,
    .handled = call_handled,
    .answer = call_answer,
    .kept = call_kept,
    .resumption = resume_answer,
    .copied = call_copied,
    .publish = claims_publish,
    .notify = claims_notify,
    .attach = claims_attach,
    .one = claims_one,
    .detach = claims_detach,
};

/* --- the room ----------------------------------------------------------------------------------------------------- */

/* Last thing of a turn: everything that gathered for a session leaves in one write. */
static void on_turn_end(struct shard *shard, void *ctx)
{
    struct sessions *sessions = ctx;
    struct xy_list now;
    xy_list_init(&now);
    while (
        !xy_list_empty(&sessions->dirty)) { /* flushing may make others dirty: those are of the next turn */
        struct xy_list *entry = sessions->dirty.next;
        xy_list_remove(entry);
        xy_list_append(&now, entry);
    }
    while (!xy_list_empty(&now)) {
        struct session *session = xy_container_of(now.next, struct session, dirty);
        xy_list_remove(now.next);
        outbox_flush(session);
    }
    if (!xy_list_empty(&sessions->dirty))
        shard_again(shard);
    ended_free(shard);
}

bool sessions_init(struct shard *shard)
{
    struct sessions *sessions = calloc(1, sizeof(*sessions));
    if (sessions == NULL)
        return false;
    shard->sessions = sessions;
    xy_list_init(&sessions->dirty);
    xy_list_init(&sessions->ended);
    sessions->chunks.spare_max = 1024;
    const struct config *config = shard->config;
    sessions->stream_options = (struct xy_stream_options){
        .env = shard->env,
        .arenas = shard->arenas,
        .spans = shard->spans,
        .stanza_bytes_max = config->limits.stanza_size,
        .idle_seconds = (uint32_t)(config->limits.idle_timeout_ms / 1000),
        .auth_tries_max = (unsigned)config->limits.auth_failures,
        .sasl_secret = shard->secret,
    };
    shard->link_events = &events_of_links;
    session_set_calls(shard, &calls_of_rooms);
    shard_at_turn_end(shard, on_turn_end, sessions);
    return true;
}

void sessions_reload(struct shard *shard)
{
    const struct config *config = shard->config;
    struct xy_stream_options *options = &shard->sessions->stream_options;
    options->stanza_bytes_max = config->limits.stanza_size;
    options->idle_seconds = (uint32_t)(config->limits.idle_timeout_ms / 1000);
    options->auth_tries_max = (unsigned)config->limits.auth_failures;
}

void sessions_quiesce(struct shard *shard)
{
    struct sessions *sessions = shard->sessions;
    sessions->quiescing = true;
    for (uint32_t i = 0; i < sessions->slots_count; i++) {
        struct session *session = sessions->slots[i].session;
        if (session && session->link)
            session->link->calls->read_pause(session->link, true);
        if (session && session->waiting)
            waiting_give_up(session);
    }
}

bool sessions_quiet(struct shard *shard)
{
    const struct sessions *sessions = shard->sessions;
    bool quiet = true;
    for (uint32_t i = 0; i < sessions->slots_count; i++) {
        struct session *session = sessions->slots[i].session;
        if (session && (session->inflight > 0 || !proof_complete(session)))
            quiet = false;
    }
    return quiet;
}

void sessions_shutdown(struct shard *shard)
{
    struct sessions *sessions = shard->sessions;
    sessions->stopping = true;
    for (uint32_t i = 0; i < sessions->slots_count; i++) {
        if (sessions->slots[i].session)
            session_fail(sessions->slots[i].session, XY_STREAM_SYSTEM_SHUTDOWN, "the broker is stopping");
    }
}

void sessions_end_all(struct shard *shard)
{
    struct sessions *sessions = shard->sessions;
    for (uint32_t i = 0; i < sessions->slots_count; i++) {
        if (sessions->slots[i].session)
            session_end(sessions->slots[i].session);
    }
}

void sessions_free(struct shard *shard)
{
    struct sessions *sessions = shard->sessions;
    if (sessions == NULL)
        return;
    sessions_end_all(shard);
    ended_free(shard);
    xy_assert(sessions->open == 0);
    xy_sm_pool_free(&sessions->chunks);
    xy_buf_free(&sessions->scratch);
    xy_buf_free(&sessions->runs);
    free(sessions->buried);
    free(sessions->slots);
    free(sessions);
    shard->sessions = NULL;
}
