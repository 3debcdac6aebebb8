/* What links and other rooms call: the two tables through which everything comes to a session. */
#include "broker/session/session_internal.h"

#include "broker/config.h"
#include "broker/router/address.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

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

const struct link_events session_link_events = {
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

const struct session_calls session_room_calls = {
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
