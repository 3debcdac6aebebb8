/* The outbox of a session: everything that waits to be sent, then waits to be acknowledged, in one queue.
 *
 * Entries point at shared bytes; only when the link takes them are they rendered, one copy into the shard's scratch
 * buffer, and written with whatever else gathered in the turn. With XEP-0198 an entry settles when <a/> covers it;
 * without, when the kernel has taken its bytes. */
#include "broker/config.h"
#include "broker/log.h"
#include "broker/router/address.h"
#include "broker/session/session_internal.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"
#include "core/namespaces.h"
#include "core/time.h"

#define ACKED_BATCH 64

bool outbox_full(const struct session *session)
{
    const struct config *config = session->shard->config;
    return session->queue.bytes_unsent + session->queue.bytes_kept >= config->limits.outbox ||
           session->queue.tail - session->queue.acked >= config->sm.queue;
}

bool outbox_unacked_full(const struct session *session)
{
    const struct config *config = session->shard->config;
    return session->queue.bytes_kept > config->limits.outbox ||
           session->queue.sent - session->queue.acked > config->sm.queue;
}

bool outbox_twice_full(const struct session *session)
{
    const struct config *config = session->shard->config;
    return session->queue.bytes_unsent + session->queue.bytes_kept > 2 * config->limits.outbox ||
           session->queue.tail - session->queue.acked > 2 * config->sm.queue;
}

void outbox_touch(struct session *session)
{
    if (session->link && session->state != SESSION_ENDED && !xy_list_linked(&session->dirty))
        xy_list_append(&session->shard->sessions->dirty, &session->dirty);
}

bool outbox_push(struct session *session, struct xy_bytes **bytes, enum entry_kind kind, uint64_t claim,
                 uint64_t seq)
{
    xy_assert(*bytes != NULL && seq <= ENTRY_SEQ_MASK);
    if (session->inactive && session->waiting && kind != ENTRY_STANZA)
        waiting_presence_first(session);
    struct xy_sm_entry entry = { .bytes = *bytes,
                                 .claim = claim,
                                 .aux = (uint64_t)kind << ENTRY_KIND_SHIFT | seq };
    if (!xy_sm_push(&session->queue, entry))
        return false;
    *bytes = NULL;
    outbox_touch(session);
    return true;
}

/* --- rendering ---------------------------------------------------------------------------------------------------- */

static void render_delivery(struct xy_buf *out, const struct session *session,
                            const struct xy_sm_entry *entry, const struct event *event)
{
    const struct claim *claim = &session->claims[entry->claim & ENTRY_NO_CLAIM];
    uint64_t attempt = entry->claim >> 32;
    xy_buf_lit(out, "<delivery xmlns='" NS_XYLEM_DELIVERY "' epoch='");
    char digits[16];
    uint64_t epoch = event->epoch;
    unsigned char bytes[8];
    for (int i = 7; i >= 0; i--, epoch >>= 8)
        bytes[i] = (unsigned char)epoch;
    xy_hex_encode(digits, bytes, sizeof(bytes));
    xy_buf_add(out, digits, sizeof(digits));
    xy_buf_lit(out, "' seq='");
    xy_buf_u64(out, event->seq);
    xy_buf_lit(out, "' attempt='");
    xy_buf_u64(out, attempt);
    xy_buf_lit(out, "' subid='");
    xy_buf_add(out, claim->subid, claim->subid_len);
    xy_buf_lit(out, "'/>");
}

static void render_delay(struct xy_buf *out, const struct event *event)
{
    char stamp[XY_TIME_LEN];
    xy_time_format(event->delay_us, stamp);
    xy_buf_lit(out, "<delay xmlns='" NS_DELAY "' from='");
    xy_buf_str(out, event_service(event));
    xy_buf_lit(out, "' stamp='");
    xy_buf_str(out, xy_str(stamp));
    xy_buf_lit(out, "'/>");
}

static bool is_claimed(const struct xy_sm_entry *entry)
{
    return entry_kind(entry) == ENTRY_EVENT && (entry->claim & ENTRY_NO_CLAIM) != ENTRY_NO_CLAIM;
}

/* The same each time the item is delivered. One that is to come back in a receipt says which subscription is meant. */
static void render_id(struct xy_buf *out, const struct claim *claim, uint64_t seq)
{
    xy_buf_lit(out, "' id='");
    xy_buf_add(out, claim->subid, claim->subid_len);
    xy_buf_char(out, '-');
    xy_buf_u64(out, seq);
    if (claim->flags & CLAIM_RECEIPTS) {
        xy_buf_char(out, '-');
        xy_buf_u64(out, claim->key.node);
        xy_buf_char(out, '-');
        xy_buf_u64(out, claim->key.subscription);
    }
}

/* The envelope is the subscriber's own, the body is everybody's. */
static void render_event(struct xy_buf *out, const struct session *session, const struct xy_sm_entry *entry)
{
    const struct event *event = event_of(entry->bytes);
    const struct claim *claim = is_claimed(entry) ? &session->claims[entry->claim & ENTRY_NO_CLAIM] : NULL;
    xy_buf_lit(out, "<message from='");
    xy_buf_str(out, event_service(event));
    xy_buf_lit(out, "' to='");
    xy_buf_str(out, xy_bytes_view(session->to));
    if (claim != NULL)
        render_id(out, claim, event->seq);
    else if (event->headline)
        xy_buf_lit(out, "' type='headline");
    xy_buf_lit(out, "'>");
    xy_buf_str(out, event_body(event));
    if (claim != NULL)
        render_delivery(out, session, entry, event);
    if (claim != NULL && (claim->flags & CLAIM_RECEIPTS))
        xy_buf_lit(out, "<request xmlns='" NS_RECEIPTS "'/>");
    if (event->delay_us != 0)
        render_delay(out, event);
    xy_buf_lit(out, "</message>");
}

static void render(struct xy_buf *out, const struct session *session, const struct xy_sm_entry *entry)
{
    if (entry_kind(entry) == ENTRY_EVENT)
        render_event(out, session, entry);
    else
        xy_buf_str(out, xy_bytes_view(entry->bytes));
}

/* --- settling ----------------------------------------------------------------------------------------------------- */

struct settling {
    struct session *session;
    uint64_t seq[ACKED_BATCH];
    size_t count;
};

static void settling_flush(struct settling *settling)
{
    struct session *session = settling->session;
    if (settling->count > 0)
        address_acked(session->shard, xy_jid_bare(session->jid), settling->seq, settling->count);
    settling->count = 0;
}

static void settle(struct xy_sm_entry *entry, bool sent, void *ctx)
{
    struct settling *settling = ctx;
    (void)sent;
    if (entry_kind(entry) == ENTRY_MAILBOX) {
        settling->seq[settling->count++] = entry_seq(entry);
        if (settling->count == ACKED_BATCH)
            settling_flush(settling);
    } else if (is_claimed(entry)) {
        claims_acked(settling->session, (uint32_t)entry->claim, entry_seq(entry));
    } else if (entry_kind(entry) == ENTRY_ANSWER) {
        proof_answer_acked(&settling->session->sm->proof, entry_seq(entry));
    } else if (entry_kind(entry) == ENTRY_HELD) {
        held_arrived(settling->session->sm, entry_seq(entry));
    }
}

/* Something is unacknowledged: it may need an <r/>. */
static void ask_soon(struct session *session)
{
    struct session_sm *sm = session->sm;
    if (sm->request_due_us == 0)
        sm->request_due_us = xy_now_us(session->shard->env) + SESSION_PACE_US;
    outbox_pace_by(session, sm->request_due_us);
}

void outbox_acked(struct session *session, uint32_t h)
{
    struct session_sm *sm = session->sm;
    struct settling settling = { .session = session };
    if (sm == NULL)
        return;
    sm->request_open = false;
    if (xy_sm_queue_ack(&session->queue, &sm->counters, h, settle, &settling) == XY_SM_ACK_TOO_HIGH) {
        xy_stream_fail_ack(session->stream, h, xy_sm_send_count(&sm->counters));
        outbox_flush(session);
        session_end(session);
        return;
    }
    settling_flush(&settling);
    if (sm->kept && sm->proof.proven < sm->counters.in_h)
        proof_go_on(session); /* it may have been held */
    claims_tell(session);
    claims_room(session);
    if (session->waiting)
        waiting_room(session);
    if (xy_sm_unacked(&sm->counters) > 0) /* sent since our <r/>: it may need another */
        ask_soon(session);
}

/* Without XEP-0198: the kernel has it all. */
static void limbo_settle(struct session *session)
{
    struct settling settling = { .session = session };
    if (xy_sm_queue_empty(&session->limbo))
        return;
    xy_sm_queue_drain(&session->limbo, settle, &settling);
    settling_flush(&settling);
}

/* What was not handed over goes back where it came from; claims are released as a whole (claims_release). */
static void give_back(struct xy_sm_entry *entry, bool sent, void *ctx)
{
    struct session *session = ctx;
    (void)sent;
    if (entry_kind(entry) == ENTRY_MESSAGE)
        address_returned(session->shard, xy_jid_bare(session->jid), session->ref, 0, &entry->bytes);
    else if (entry_kind(entry) == ENTRY_MAILBOX)
        address_returned(session->shard, xy_jid_bare(session->jid), session->ref, entry_seq(entry),
                         &entry->bytes);
    else if (is_claimed(entry))
        claims_dropped(session, (uint32_t)entry->claim);
}

void outbox_return_limbo(struct session *session)
{
    xy_sm_queue_drain(&session->limbo, give_back, session);
}

void outbox_return_all(struct session *session)
{
    outbox_return_limbo(session);
    xy_sm_queue_drain(&session->queue, give_back, session);
}

/* --- flushing ----------------------------------------------------------------------------------------------------- */

static bool must_settle(const struct xy_sm_entry *entry)
{
    return entry_kind(entry) == ENTRY_MESSAGE || entry_kind(entry) == ENTRY_MAILBOX || is_claimed(entry);
}

static void gather_control(struct session *session, struct xy_buf *out)
{
    struct xy_str output = xy_stream_output(session->stream);
    if (output.len > 0) {
        xy_buf_str(out, output);
        xy_stream_sent(session->stream, output.len);
    }
}

/* After the answers to what it covers; what some of them are still to be sent for, it covers next time. */
static void gather_ack(struct session *session, struct xy_buf *out)
{
    struct session_sm *sm = session->sm;
    if (!sm || !sm->ack_due || sm->resuming)
        return;
    uint64_t h = held_unsent_limit(session, proof_h(session));
    sm->ack_due = h < proof_h(session);
    sm->held.told = h;
    xy_buf_lit(out, "<a xmlns='" NS_SM "' h='");
    xy_buf_u64(out, (uint32_t)h);
    xy_buf_lit(out, "'/>");
}

static void gather_entries(struct session *session, struct xy_buf *out)
{
    struct session_sm *sm = session->sm;
    struct xy_sm_entry entry;
    uint64_t count = 0;
    while (out->len < SESSION_FLUSH_BYTES &&
           xy_sm_next_unsent(&session->queue, sm ? &sm->counters : NULL, &entry)) {
        render(out, session, &entry);
        count++;
        if (sm == NULL && must_settle(&entry) && xy_sm_push(&session->limbo, entry))
            continue; /* the limbo holds the reference now */
        if (sm == NULL && is_claimed(&entry))
            claims_dropped(session, (uint32_t)entry.claim);
        xy_bytes_unref(&entry.bytes);
    }
    stat_add(session->shard, stanzas_out, count);
    if (sm == NULL || count == 0)
        return;
    sm->since_request += (uint32_t)count;
    if (sm->since_request < SESSION_REQUEST_EVERY)
        return;
    xy_buf_lit(out, "<r xmlns='" NS_SM "'/>");
    sm->since_request = 0;
    sm->request_open = true;
}

/* One write. Returns false when there is nothing more to do now. */
static bool flush_once(struct session *session, struct xy_buf *out)
{
    xy_buf_reset(out);
    gather_control(session, out);
    if (xy_stream_is_bound(session->stream))
        gather_entries(session, out);
    gather_ack(session, out);
    if (xy_buf_failed(out)) {
        log_error(session->shard->log, "no memory to write with", LOG_STR("jid", xy_jid_full(session->jid)));
        session_drop_link(session);
        session_end(session);
        return false;
    }
    if (out->len == 0)
        return false;
    if (session->link->calls->write(session->link, xy_buf_view(out))) {
        limbo_settle(session);
        return true;
    }
    if (session->blocked_us == 0) {
        session->blocked_us = xy_now_us(session->shard->env);
        session_deadline_update(session);
    }
    return false;
}

static void flush_all(struct session *session)
{
    struct xy_buf *out = &session->shard->sessions->scratch;
    size_t written = 0;
    while (session->link && session->blocked_us == 0 && flush_once(session, out)) {
        written += out->len;
        if (written >= SESSION_FLUSH_TURN_BYTES) {
            outbox_touch(session); /* go on next turn */
            break;
        }
    }
}

void outbox_flush(struct session *session)
{
    if (session->link == NULL || session->stream == NULL)
        return;
    flush_all(session);
    if (session->state != SESSION_BOUND)
        return;
    if (session->sm && xy_sm_unacked(&session->sm->counters) > 0) {
        ask_soon(session);
        sent_changed(session);
    }
    if (session->claims_waiting > 0)
        claims_room(session);
    if (session->waiting)
        waiting_room(session);
    if (session->held)
        session_input_resume(session);
}

void outbox_writable(struct session *session)
{
    if (session->state == SESSION_ENDED)
        return;
    limbo_settle(session);
    outbox_touch(session);
}

/* --- XEP-0198 traffic that waits for time -------------------------------------------------------------------------- */

void outbox_pace_by(struct session *session, uint64_t due_us)
{
    if (session->state == SESSION_BOUND &&
        (!shard_timer_is_set(&session->pacer) || due_us < session->pacer.due_us))
        shard_timer_set(session->shard, &session->pacer, due_us);
}

void outbox_pace(struct session *session)
{
    struct session_sm *sm = session->sm;
    struct shard *shard = session->shard;
    if (sm == NULL || session->state != SESSION_BOUND || sm->resuming)
        return;
    uint64_t now_us = xy_now_us(shard->env);
    sent_pace(session, now_us);
    if (sm->asked_first_us != 0 && now_us >= sm->asked_first_us + SESSION_ACK_DELAY_US) {
        sm->ack_due = true; /* the h reached so far; `asked` stays, so that progress is told unasked */
        sm->asked_first = sm->asked_last;
        sm->asked_first_us = sm->asked_last_us = 0;
    }
    bool due = sm->request_due_us != 0 && now_us >= sm->request_due_us;
    bool unacked = xy_sm_unacked(&sm->counters) > 0;
    if (due)
        sm->request_due_us = 0;
    else if (sm->request_due_us != 0)
        outbox_pace_by(session, sm->request_due_us);
    if (due && unacked && !sm->request_open && session->blocked_us == 0) {
        struct xy_bytes *request = xy_bytes_new(XY_STR("<r xmlns='" NS_SM "'/>"));
        struct xy_sm_entry entry = { .bytes = request, .claim = ENTRY_NO_CLAIM, .aux = XY_SM_UNCOUNTED };
        if (request && !xy_sm_push(&session->queue, entry))
            xy_bytes_unref(&request);
        sm->request_open = true;
        sm->since_request = 0;
    }
    if (sm->asked_first_us != 0)
        outbox_pace_by(session, sm->asked_first_us + SESSION_ACK_DELAY_US);
    outbox_touch(session);
}
