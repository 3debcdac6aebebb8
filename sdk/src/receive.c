/* Items as they come: whose they are, whether they came before, and what the application is shown.
 *
 * A durable item carries (epoch, seq) (docs/protocol.md, delivery). Its position remembers what was handled, and which items
 * the application still has. So one that comes again is one of three: handled (dropped, and acknowledged once more), still
 * with the application (its acknowledgement now also covers the new copy), or new. dispatch.c calls this; settle.c is the
 * way back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"
#include "sdk/src/position.h"

bool xy_subs_full(const struct xylem_client *c)
{
    return c->inflight >= c->config.o.max_inflight;
}

static void show(struct xylem_client *c, struct xylem_msg *msg)
{
    struct xylem_sub *sub = msg->sub;
    c->stats.received++;
    if (sub->manual_ack) {
        msg->counted = true;
        c->inflight++;
        sub->on_message(sub, msg, sub->ctx);
        return;
    }
    sub->on_message(sub, msg, sub->ctx);
    xy_msg_acknowledge(c, msg);
}

/* --- events --- */

struct stamp { /* <delivery xmlns='urn:xylem:delivery:0'/> */
    bool present;
    struct xy_str epoch, subid;
    uint64_t seq, gap_first;
    uint32_t attempt;
};

static struct stamp read_stamp(const struct xy_stanza *stanza)
{
    struct stamp stamp = { .attempt = 1 };
    const struct xy_elem *e = xy_elem_child(stanza->elem, "delivery", NS_XYLEM_DELIVERY);
    if (!e)
        return stamp;
    stamp.epoch = xy_elem_attr(e, "epoch");
    stamp.subid = xy_elem_attr(e, "subid");
    xy_str_u32(xy_elem_attr(e, "attempt"), &stamp.attempt);
    stamp.present = xy_str_u64(xy_elem_attr(e, "seq"), &stamp.seq) && stamp.seq > 0 && stamp.epoch.len > 0 &&
                    stamp.epoch.len <= XY_POSITION_EPOCH_MAX;
    return stamp;
}

static struct xylem_sub *find_sub(struct xylem_client *c, struct xy_str node, bool durable)
{
    struct xylem_sub *other = NULL;
    xy_list_each (entry, &c->subs) {
        struct xylem_sub *sub = xy_container_of(entry, struct xylem_sub, link);
        if (!xy_str_is(node, sub->node))
            continue;
        if (sub->durable == durable)
            return sub;
        other = sub;
    }
    return durable ? NULL : other;
}

/* What the application kept itself: taken in once per subscription of the broker. */
static bool take_given(struct xylem_client *c, const struct xylem_sub *sub, struct xy_position *position)
{
    if (position->given || !sub->position)
        return true;
    struct xy_str text = xy_str(sub->position);
    const char *space = memchr(text.data, ' ', text.len);
    struct xy_str epoch = xy_str_n(text.data, space ? (size_t)(space - text.data) : text.len);
    position->given = true;
    if (position->epoch[0] && !xy_str_is(epoch, position->epoch))
        return true; /* of a node that was deleted and made anew since */
    struct xy_ranges given = { 0 };
    bool ok = xy_ranges_reserve(&position->handled, XY_RANGES_MAX + 2) &&
              xy_ranges_read(&given, xy_str(space ? space + 1 : ""));
    for (size_t i = 0; ok && i < given.count; i++) {
        const struct xy_range *range = &given.list[i];
        if (range->first == 0)
            xy_ranges_fill(&position->handled, range->last);
        else
            xy_ranges_add(&position->handled, range->first, range->last);
    }
    if (ok) {
        memcpy(position->epoch, epoch.data, epoch.len);
        position->epoch[epoch.len] = '\0';
        xy_position_moved(c->positions, position);
    }
    xy_ranges_free(&given);
    return ok;
}

static struct xy_position *position_of(struct xylem_client *c, struct xy_str node, struct xy_str subid)
{
    struct xy_buf key = { 0 };
    xy_buf_printf(&key, "%s\n%.*s\n%.*s\n%.*s", c->service, XY_ARG(xy_jid_full(c->full)), XY_ARG(node),
                  XY_ARG(subid));
    struct xy_position *position =
        xy_buf_failed(&key) ? NULL : xy_position_get(c->positions, xy_buf_view(&key));
    xy_buf_free(&key);
    return position;
}

/* The node was made anew, or the store restored: its numbers start over. What the application still has of the old one
 * is acknowledged without a position. */
static void begin_epoch(struct xylem_client *c, struct xy_position *position, struct xy_str epoch)
{
    if (xy_str_is(epoch, position->epoch))
        return;
    xy_list_each (entry, &position->pending) {
        struct xylem_msg *msg = xy_container_of(entry, struct xylem_msg, link);
        xy_list_remove(entry);
        msg->position = NULL;
        xy_list_append(&c->loose, entry);
        if (msg->acked)
            xy_msg_done(c, msg);
    }
    memcpy(position->epoch, epoch.data, epoch.len);
    position->epoch[epoch.len] = '\0';
    xy_ranges_clear(&position->handled);
}

/* true: it came before, and the new copy is taken care of. */
static bool is_duplicate(struct xylem_client *c, const struct xylem_sub *sub, struct xy_position *position,
                         const struct stamp *stamp, struct xy_hold *hold)
{
    uint64_t seq = stamp->seq;
    if (xy_ranges_has(&position->handled, seq)) {
        c->stats.duplicates++;
        if (sub->ack != XYLEM_ACK_BY_STREAM) {
            struct xy_verdict v = xy_verdict_of(&hold->stanza, sub->ack, XYLEM_ACK, seq);
            xy_verdict_tell(c, &v);
        }
        return true;
    }
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what is freed has left its list */
    xy_list_each (entry, &position->pending) {
        struct xylem_msg *msg = xy_container_of(entry, struct xylem_msg, link);
        if (msg->seq != seq || msg->gap_first != stamp->gap_first)
            continue; /* a gap may end with an item that the application has: it is told of both */
        /* The old copy's session is over, so its number is void: from now on the message speaks for this one. The old
         * stanza stays for the view; both go when the application is done. */
        c->stats.duplicates++;
        if (msg->hold->generation != hold->generation) {
            msg->hold->number = hold->number;
            msg->hold->generation = hold->generation;
            hold->generation = 0;
        }
        return true;
    }
    return false;
}

static struct xylem_msg *msg_make(struct xylem_client *c, struct xylem_sub *sub, struct xy_hold *hold)
{
    struct xylem_msg *msg = xy_msg_reserve(c) ? calloc(1, sizeof *msg) : NULL;
    if (!msg)
        return NULL;
    *msg = (struct xylem_msg){ .client = c, .sub = sub, .hold = hold, .attempt = 1, .ack = sub->ack };
    hold->refs++;
    c->holds++;
    xy_list_append(&c->loose, &msg->link);
    return msg;
}

static void place(struct xylem_msg *msg, struct xy_position *position, const struct stamp *stamp)
{
    msg->position = position;
    msg->seq = stamp->seq;
    msg->attempt = stamp->attempt;
    struct xy_list *before = &position->pending;
    while (before->prev != &position->pending &&
           xy_container_of(before->prev, struct xylem_msg, link)->seq > stamp->seq)
        before = before->prev;
    xy_list_remove(&msg->link);
    xy_list_append(before, &msg->link);
}

static void no_memory(struct xylem_client *c)
{
    /* Not counted as handled, and the stream ends: the broker gives it again. */
    xy_client_error(c, "out of memory");
    xy_client_give_up(c, XYLEM_NO_MEMORY);
}

static void durable_event(struct xylem_client *c, struct xylem_sub *sub, struct xy_hold *hold,
                          struct xy_str node, const struct stamp *stamp, struct xy_elem *item,
                          enum xylem_event kind)
{
    struct xy_position *position = position_of(c, node, stamp->subid);
    size_t ranges = sub->ack == XYLEM_ACK_BY_STREAM ? 1 : XY_RANGES_MAX + 2;
    if (!position || !xy_ranges_reserve(&position->handled, ranges) || !take_given(c, sub, position)) {
        hold->generation = 0;
        no_memory(c);
        return;
    }
    if (sub->ack != XYLEM_ACK_BY_STREAM) { /* h says only that it came */
        xy_session_handled(c, hold->number, hold->generation);
        hold->generation = 0;
    }
    begin_epoch(c, position, stamp->epoch);
    if (is_duplicate(c, sub, position, stamp, hold) || sub->cancelled)
        return;
    struct xylem_msg *msg = msg_make(c, sub, hold);
    if (!msg) {
        hold->generation = 0;
        no_memory(c);
        return;
    }
    msg->elem = item;
    msg->event = kind;
    msg->gap_first = stamp->gap_first;
    place(msg, position, stamp);
    show(c, msg);
}

static void unclaimed(struct xylem_client *c, struct xy_hold *hold, struct xy_str node)
{
    hold->generation = 0; /* not handled: it stays at the broker */
    xy_client_error(
        c,
        "the broker keeps items of node '%.*s' for %s, and this client does not subscribe to it durably: "
        "subscribe to it as well, end that subscription, or use another resource",
        XY_ARG(node), xylem_client_jid(c));
    xy_client_give_up(c, XYLEM_UNCLAIMED);
}

static void one_change(struct xylem_client *c, struct xy_hold *hold, struct xy_str node, struct xy_elem *elem,
                       enum xylem_event kind)
{
    struct stamp stamp = read_stamp(&hold->stanza);
    struct xylem_sub *sub = find_sub(c, node, stamp.present);
    if (stamp.present && !sub) {
        unclaimed(c, hold, node);
    } else if (stamp.present) {
        durable_event(c, sub, hold, node, &stamp, elem, kind);
    } else if (sub && !sub->cancelled) {
        struct xylem_msg *msg = msg_make(c, sub, hold);
        if (!msg)
            return; /* at most once: as if it had never come */
        msg->elem = elem;
        msg->event = kind;
        show(c, msg);
    }
}

bool xy_subs_event(struct xylem_client *c, struct xy_hold *hold, const struct xy_elem *event)
{
    static const struct {
        const char *name;
        enum xylem_event kind;
    } whole[] = { { "purge", XYLEM_EVENT_PURGE }, { "delete", XYLEM_EVENT_DELETE } };
    struct xy_elem *first = xy_elem_first(event);
    if (!first)
        return false;
    struct xy_str node = xy_elem_attr(first, "node");
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        if (xy_elem_is(first, whole[i].name, NS_PUBSUB_EVENT)) {
            one_change(c, hold, node, first, whole[i].kind);
            return true;
        }
    }
    if (!xy_elem_is(first, "items", NS_PUBSUB_EVENT))
        return false; /* configuration, subscription, collection: for the application's stanza handler */
    /* The broker sends one item per event; other services may send several, without delivery stamps. */
    for (struct xy_elem *e = xy_elem_first(first); e && c->link && !c->doomed; e = xy_elem_next(e)) {
        enum xylem_event kind = XYLEM_EVENT_ITEM;
        if (xy_elem_is(e, "retract", NS_PUBSUB_EVENT))
            kind = XYLEM_EVENT_RETRACT;
        else if (xy_elem_is(e, "unlock", NS_QUEUEING))
            kind = XYLEM_EVENT_UNLOCK;
        one_change(c, hold, node, e, kind);
    }
    return true;
}

/* <gap/>: a message of its own, owed and acknowledged like an item. */
bool xy_subs_gap(struct xylem_client *c, struct xy_hold *hold, struct xy_elem *gap)
{
    struct stamp stamp = read_stamp(&hold->stanza);
    struct xy_str node = xy_elem_attr(gap, "node");
    struct xylem_sub *sub = find_sub(c, node, true);
    if (!stamp.present || !xy_str_u64(xy_elem_attr(gap, "first"), &stamp.gap_first) || stamp.gap_first == 0 ||
        stamp.gap_first > stamp.seq)
        return false; /* none of ours */
    if (sub)
        durable_event(c, sub, hold, node, &stamp, gap, XYLEM_EVENT_GAP);
    else
        unclaimed(c, hold, node);
    return true;
}
