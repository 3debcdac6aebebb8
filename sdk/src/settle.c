/* What the application says about its messages, and what of that the broker hears, and when.
 *
 * At the end of each turn what was handled goes to disk first, with state_dir, and only then the broker is told: by XEP-0198's h
 * (ack by stream), by a receipt, or by an explicit <ack/> (docs/protocol.md). So a message that comes again is recognised.
 * A verdict with a completion goes as a request; what the broker answers decides, and only then it counts as handled. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"
#include "sdk/src/position.h"

#define VERDICT_BYTES_MAX 4096u /* of one message to the service; the next begins beyond */

/* --- messages --- */

void xy_msg_free(struct xylem_msg *msg)
{
    xy_list_remove(&msg->link);
    if (msg->counted)
        msg->client->inflight--;
    free(msg);
}

/* The hold is given back once positions are on disk: see xy_subs_flush. Room for it was made when it was taken. */
static void release_later(struct xylem_client *c, struct xy_hold *hold)
{
    xy_assert(c->releases_count < c->releases_cap);
    c->releases[c->releases_count++] = hold;
}

bool xy_msg_reserve(struct xylem_client *c)
{
    size_t wanted = c->releases_count + c->holds + 1;
    if (wanted <= c->releases_cap)
        return true;
    size_t cap = c->releases_cap ? c->releases_cap * 2 : 64;
    struct xy_hold **grown = realloc(c->releases, cap * sizeof(struct xy_hold *));
    if (!grown)
        return false;
    c->releases = grown;
    c->releases_cap = cap;
    return true;
}

void xy_msg_done(struct xylem_client *c, struct xylem_msg *msg)
{
    c->holds--;
    release_later(c, msg->hold);
    xy_msg_free(msg);
}

/* By stream: everything at the front that was acknowledged is handled, and what is missing between does not come any more.
 * What was acknowledged out of order is remembered as such, if there is memory for it. */
static void advance(struct xylem_client *c, struct xy_position *position, const struct xylem_msg *acked)
{
    if (position->pending.next != &acked->link && xy_ranges_reserve(&position->handled, XY_RANGES_MAX + 2)) {
        xy_ranges_add(&position->handled, xy_msg_first(acked), acked->seq);
        xy_position_moved(c->positions, position);
    }
    while (!xy_list_empty(&position->pending)) {
        struct xylem_msg *msg = xy_container_of(position->pending.next, struct xylem_msg, link);
        if (!msg->acked)
            break;
        xy_ranges_fill(&position->handled, msg->seq);
        xy_position_moved(c->positions, position);
        xy_msg_done(c, msg);
    }
}

static void uncount(struct xylem_msg *msg)
{
    if (msg->counted)
        msg->client->inflight--;
    msg->counted = false;
}

/* --- what the broker is told explicitly --- */

static const char *const verdict_names[] = {
    [XYLEM_ACK] = "ack", [XYLEM_NACK] = "nack", [XYLEM_TERM] = "term", [XYLEM_WORKING] = "working"
};

static void write_verdict(struct xy_buf *out, const struct xy_verdict *v)
{
    xy_buf_printf(out, "<%s xmlns='" NS_XYLEM_DELIVERY "'", verdict_names[v->verdict]);
    xy_xml_attr(out, "node", v->node);
    xy_xml_attr(out, "subid", v->subid);
    xy_xml_attr(out, "epoch", v->epoch);
    xy_buf_printf(out, " seq='%llu'", (unsigned long long)v->seq);
    if (v->verdict == XYLEM_NACK && v->delay_s > 0)
        xy_buf_printf(out, " delay='%u'", v->delay_s);
    xy_buf_lit(out, "/>");
}

/* Waits for xy_subs_flush. A NUL, which no XML holds, ends what goes into one message. */
static void tell_later(struct xylem_client *c, const struct xy_verdict *v)
{
    struct xy_buf *out = &c->verdicts;
    if (xy_str_present(v->receipt)) {
        if (out->len > c->verdicts_open)
            xy_buf_char(out, '\0');
        xy_buf_lit(out, "<received xmlns='" NS_RECEIPTS "'");
        xy_xml_attr(out, "id", v->receipt);
        xy_buf_lit(out, "/>");
        xy_buf_char(out, '\0');
        c->verdicts_open = out->len;
        return;
    }
    write_verdict(out, v);
    if (out->len - c->verdicts_open < VERDICT_BYTES_MAX)
        return;
    xy_buf_char(out, '\0');
    c->verdicts_open = out->len;
}

struct xy_verdict xy_verdict_of(const struct xy_stanza *stanza, enum xylem_ack_way way,
                                enum xylem_verdict verdict, uint64_t seq)
{
    const struct xy_elem *event = xy_elem_child(stanza->elem, "event", NS_PUBSUB_EVENT);
    const struct xy_elem *stamp = xy_elem_child(stanza->elem, "delivery", NS_XYLEM_DELIVERY);
    struct xy_verdict v = { .verdict = verdict, .seq = seq };
    const struct xy_elem *of_node =
        event ? xy_elem_first(event) : xy_elem_child(stanza->elem, "gap", NS_XYLEM_DELIVERY);
    v.node = xy_elem_attr(of_node, "node");
    v.subid = xy_elem_attr(stamp, "subid");
    v.epoch = xy_elem_attr(stamp, "epoch");
    if (way == XYLEM_ACK_BY_RECEIPT)
        v.receipt = stanza->id;
    return v;
}

static struct xy_verdict verdict_about(const struct xylem_msg *msg, enum xylem_verdict verdict)
{
    return xy_verdict_of(&msg->hold->stanza, msg->ack, verdict, msg->seq);
}

void xy_verdict_tell(struct xylem_client *c, const struct xy_verdict *v)
{
    tell_later(c, v);
    xy_client_wake(c);
}

static bool send_verdicts(struct xylem_client *c)
{
    struct xy_buf *all = &c->verdicts;
    bool ok = !xy_buf_failed(all);
    for (size_t at = 0; ok && at < all->len;) {
        const char *from = all->data + at, *end = memchr(from, '\0', all->len - at);
        size_t len = end ? (size_t)(end - from) : all->len - at;
        struct xy_buf out = { 0 };
        xy_buf_lit(&out, "<message");
        xy_xml_attr(&out, "to", xy_str(c->service));
        xy_buf_char(&out, '>');
        xy_buf_add(&out, from, len);
        xy_buf_lit(&out, "</message>");
        struct xy_bytes *bytes = xy_buf_failed(&out) ? NULL : xy_bytes_new(xy_buf_view(&out));
        xy_buf_free(&out);
        ok = bytes && xy_session_send(c, bytes, true);
        at += len + 1;
    }
    xy_buf_reset(all);
    c->verdicts_open = 0;
    return ok;
}

/* --- what the application says --- */

/* Handled: remembered as such, and told to the broker in the way of its subscription. */
void xy_msg_acknowledge(struct xylem_client *c, struct xylem_msg *msg)
{
    xy_assert(!msg->acked);
    msg->acked = true;
    uncount(msg);
    if (!msg->position) {
        xy_msg_done(c, msg);
    } else if (msg->ack == XYLEM_ACK_BY_STREAM) {
        advance(c, msg->position, msg);
    } else {
        struct xy_verdict v = verdict_about(msg, XYLEM_ACK);
        tell_later(c, &v);
        xy_ranges_add(&msg->position->handled, xy_msg_first(msg), msg->seq);
        xy_position_moved(c->positions, msg->position);
        xy_msg_done(c, msg);
    }
}

static bool is_explicit(struct xylem_client *c, const struct xylem_msg *msg, enum xylem_verdict verdict)
{
    if (msg->ack == XYLEM_ACK_EXPLICITLY)
        return true;
    xy_client_error(
        c, "%s: only messages of a subscription with ack = XYLEM_ACK_EXPLICITLY, or of a queue, know that",
        verdict_names[verdict]);
    return false;
}

/* An answer to a verdict that was asked for: of an ack it decides whether the item counts as handled. */
struct asked {
    xylem_done_fn *done;
    void *ctx;
    struct xy_position *position; /* NULL: not an ack */
    uint64_t first, seq;
    char epoch[XY_POSITION_EPOCH_MAX + 1];
};

static void answered(struct xylem_client *c, const struct xy_reply *reply, void *owner)
{
    struct asked *a = owner;
    if (reply->status == XYLEM_OK && a->position && strcmp(a->epoch, a->position->epoch) == 0) {
        xy_ranges_add(&a->position->handled, a->first, a->seq);
        xy_position_moved(c->positions, a->position);
    }
    struct xylem_result result = { .status = reply->status,
                                   .text = reply->text,
                                   .condition = reply->condition };
    a->done(c, &result, a->ctx);
    free(a);
}

static enum xylem_status ask(struct xylem_client *c, const struct xylem_msg *msg, const struct xy_verdict *v,
                             xylem_done_fn *done, void *ctx)
{
    struct asked *a = calloc(1, sizeof *a);
    struct xy_buf out = { 0 };
    write_verdict(&out, v);
    enum xylem_status status = XYLEM_NO_MEMORY;
    if (a && !xy_buf_failed(&out)) {
        *a = (struct asked){ .done = done, .ctx = ctx, .first = xy_msg_first(msg), .seq = msg->seq };
        a->position = v->verdict == XYLEM_ACK ? msg->position : NULL;
        snprintf(a->epoch, sizeof a->epoch, "%.*s", XY_ARG(v->epoch));
        struct xy_request_spec spec = {
            .flags = XY_REQUEST_SET | XY_REQUEST_SERVICE | XY_REQUEST_OWNED,
            .payload = xy_buf_view(&out),
            .on_reply = answered,
            .owner = a,
            .timeout_ms = c->config.o.reply_timeout_ms,
        };
        status = xy_request(c, &spec);
    }
    if (status != XYLEM_OK)
        free(a);
    xy_buf_free(&out);
    return status;
}

/* No longer the application's; whether it comes again is for the broker to say. */
static void give_back(struct xylem_client *c, struct xylem_msg *msg)
{
    uncount(msg);
    xy_msg_done(c, msg);
}

enum xylem_status xylem_settle(struct xylem_msg **handle, enum xylem_verdict verdict, uint32_t delay_s,
                               xylem_done_fn *done, void *ctx)
{
    struct xylem_msg *msg = *handle;
    if (!msg || msg->acked || (unsigned)verdict > XYLEM_WORKING)
        return XYLEM_INVALID;
    struct xylem_client *c = msg->client;
    if ((done || verdict != XYLEM_ACK) && !is_explicit(c, msg, verdict))
        return XYLEM_INVALID;
    if (done && !msg->position) {
        xy_client_error(c, "the broker does not wait for a verdict about this message: leave `done` out");
        return XYLEM_INVALID;
    }
    if (msg->position && (done || verdict != XYLEM_ACK)) {
        struct xy_verdict v = verdict_about(msg, verdict);
        v.delay_s = delay_s;
        enum xylem_status status = done ? ask(c, msg, &v, done, ctx) : XYLEM_OK;
        if (status != XYLEM_OK)
            return status;
        if (!done)
            tell_later(c, &v);
    }
    if (verdict != XYLEM_WORKING) {
        *handle = NULL;
        if (verdict == XYLEM_ACK && !done)
            xy_msg_acknowledge(c, msg);
        else
            give_back(c, msg);
    }
    xy_client_wake(c);
    return XYLEM_OK;
}

enum xylem_status xylem_ack(struct xylem_msg **msg)
{
    enum xylem_status status = xylem_settle(msg, XYLEM_ACK, 0, NULL, NULL);
    *msg = NULL;
    return status;
}

enum xylem_status xylem_nack(struct xylem_msg **msg, uint32_t delay_s)
{
    return xylem_settle(msg, XYLEM_NACK, delay_s, NULL, NULL);
}

enum xylem_status xylem_term(struct xylem_msg **msg)
{
    return xylem_settle(msg, XYLEM_TERM, 0, NULL, NULL);
}

enum xylem_status xylem_working(struct xylem_msg *msg)
{
    return xylem_settle(&msg, XYLEM_WORKING, 0, NULL, NULL);
}

/* --- the end of a turn --- */

static void never_count(struct xylem_client *c)
{
    size_t count = c->releases_count;
    for (size_t i = 0; i < count; i++)
        c->releases[i]->generation = 0;
    c->releases_count = 0;
    for (size_t i = 0; i < count; i++)
        xy_hold_unref(c, c->releases[i]);
    xy_buf_reset(&c->verdicts);
    c->verdicts_open = 0;
}

void xy_subs_flush(struct xylem_client *c)
{
    if (c->releases_count == 0 && c->verdicts.len == 0 && !xy_buf_failed(&c->verdicts))
        return;
    enum xylem_status why = XYLEM_OK;
    if (!xy_positions_sync(c->positions)) {
        xy_client_error(c, "state_dir %s cannot be written: nothing more is acknowledged",
                        c->config.o.state_dir);
        why = XYLEM_STORAGE;
    } else if (!send_verdicts(c)) {
        xy_client_error(c, "out of memory");
        why = XYLEM_NO_MEMORY;
    }
    if (why != XYLEM_OK) {
        never_count(c);
        if (c->state != XYLEM_STATE_STOPPED)
            xy_client_give_up(c, why);
        return;
    }
    for (size_t i = 0; i < c->releases_count; i++)
        xy_hold_unref(c, c->releases[i]);
    c->releases_count = 0;
}
