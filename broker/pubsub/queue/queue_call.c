/* Requests about items of a queue, XEP-0254 2.3 and 2.4: done (retract) and not done (unlock). Who may is decided for
 * every item of a request before the first is touched. docs/protocol.md 9.5 lists the errors; called through the table of
 * pubsub.c. */
#include "broker/pubsub/call.h"
#include "broker/pubsub/queue/queue.h"

#include "core/base/assert.h"

/* --- who asks ------------------------------------------------------------------------------------------------------ */

/* Does the sender speak for this consumer? For a bare JID all sessions of the account do. */
static bool speaks_for(const struct call *call, const struct subscription *consumer)
{
    return xy_str_eq(consumer->subscriber->bare, call->who) &&
           (consumer->jid.len == call->who.len ||
            xy_str_eq(consumer->jid, xy_jid_full((*call->request)->stanza.from)));
}

static bool had_it(const struct call *call, const struct queue_entry *entry)
{
    const struct subscription *consumer =
        entry != NULL && entry->holder != 0 ? node_subscription(call->node, entry->holder) : NULL;
    return consumer != NULL && speaks_for(call, consumer);
}

enum verdict { HAS_IT, OTHER_HAS_IT, HAD_IT, NEVER_HAD_IT };

static enum verdict judge(const struct call *call, const struct item *item)
{
    const struct queue_entry *entry = queue_find(call->node->queue->engine, item->seq);
    const struct subscription *holder = entry != NULL ? queue_holder(entry) : NULL;
    if (holder != NULL)
        return speaks_for(call, holder) ? HAS_IT : OTHER_HAS_IT;
    return had_it(call, entry) ? HAD_IT : NEVER_HAD_IT;
}

/* Who is told that an item is not theirs leaves it to somebody else. So none of this may be granted after a crash, when
 * nobody has the item and the request comes again: nobody would do it. */
static void refuse(struct call *call, enum verdict verdict)
{
    switch (verdict) {
    case OTHER_HAS_IT:
        call_fail_finally(call, XY_CONFLICT, XY_ERROR_CANCEL, "another consumer has that item");
        return;
    case HAD_IT:
        call_fail_finally(call, XY_UNEXPECTED_REQUEST, XY_ERROR_WAIT,
                          "your lock on that item is over; it comes again");
        return;
    case NEVER_HAD_IT:
        call_fail_finally(call, XY_FORBIDDEN, XY_ERROR_AUTH, "you did not receive that item");
        return;
    case HAS_IT:
        break;
    }
    xy_assert(false);
}

/* The owner, and the publisher of an item, may take it out; one that a consumer has only if they do not compete for it. */
static bool may_remove(const struct call *call, const struct item *item, enum verdict verdict)
{
    bool owns = call_is_owner(call) || xy_str_eq(item_publisher(item), call->who);
    if (!owns || call_affiliation(call) == AFFILIATION_OUTCAST)
        return false;
    return verdict != OTHER_HAS_IT || node_subscriber(call->node, call->who) == NULL;
}

/* --- which items --------------------------------------------------------------------------------------------------- */

struct chosen {
    struct item *items[PUBLISH_ITEMS_MAX];
    size_t count;
};

static bool choose(struct call *call, struct item *item, bool removing, struct chosen *chosen)
{
    if (item == NULL || item->seq > call->node->delivered_seq) {
        call_fail_finally(call, XY_ITEM_NOT_FOUND, XY_ERROR_CANCEL, "there is no such item in the queue");
        return false;
    }
    for (size_t i = 0; i < chosen->count; i++) {
        if (chosen->items[i] == item) {
            call_fail(call, XY_BAD_REQUEST, NULL, "an item is named twice");
            return false;
        }
    }
    enum verdict verdict = judge(call, item);
    if (verdict != HAS_IT && !(removing && may_remove(call, item, verdict))) {
        refuse(call, verdict);
        return false;
    }
    chosen->items[chosen->count++] = item;
    return true;
}

static bool choose_all(struct call *call, bool removing, struct chosen *chosen)
{
    chosen->count = 0;
    for (const struct xy_elem *e = xy_elem_first(call->action); e != NULL; e = xy_elem_next(e)) {
        struct xy_str id = xy_str_is(e->name, "item") ? xy_elem_attr(e, "id") : XY_STR_NONE;
        if (id.len == 0 || chosen->count == PUBLISH_ITEMS_MAX) {
            chosen->count = 0;
            break;
        }
        if (!choose(call, index_find_id(&call->node->items, id), removing, chosen))
            return false;
    }
    if (chosen->count > 0)
        return true;
    call_fail(call, XY_BAD_REQUEST, "item-required", "say which items, 256 at most: <item id='…'/>");
    return false;
}

/* --- the requests -------------------------------------------------------------------------------------------------- */

/* The consumers that had the items, and nobody else, learn what became of them. */
struct notices {
    struct subscription *consumer[PUBLISH_ITEMS_MAX]; /* NULL: nobody had it */
    struct event *event[PUBLISH_ITEMS_MAX];
};

static void notices_make(struct notices *notices, struct queue *queue, const struct chosen *chosen,
                         struct event *(*make)(struct node *node, struct xy_str id))
{
    for (size_t i = 0; i < chosen->count; i++) {
        const struct queue_entry *entry = queue_find(queue->engine, chosen->items[i]->seq);
        notices->consumer[i] = entry != NULL ? queue_holder(entry) : NULL;
        notices->event[i] =
            notices->consumer[i] != NULL ? make(queue->node, item_id(chosen->items[i])) : NULL;
    }
}

/* After what they are about was recorded. Then a consumer that waited for this may move to another session. */
static void notices_send(struct notices *notices, struct queue *queue, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (notices->consumer[i] != NULL)
            queue_tell(queue, notices->consumer[i], &notices->event[i]);
    for (size_t i = 0; i < count; i++)
        if (notices->consumer[i] != NULL)
            claim_settled(notices->consumer[i]);
}

void queue_retract(struct call *call)
{
    struct node *node = call->node;
    struct queue *queue = node->queue;
    struct chosen chosen;
    struct notices notices;
    uint64_t seqs[PUBLISH_ITEMS_MAX];
    if (!choose_all(call, true, &chosen))
        return;
    notices_make(&notices, queue, &chosen, event_for_retract);
    for (size_t i = 0; i < chosen.count; i++) {
        seqs[i] = chosen.items[i]->seq;
        queue_take(queue, chosen.items[i]);
    }
    record_items_removed(node, seqs, chosen.count);
    notices_send(&notices, queue, chosen.count);
    call_reply(call, NULL);
}

/* XEP-0254 shows it as a get. */
void queue_retract_get(struct call *call)
{
    if (call->node->queue != NULL)
        queue_retract(call);
    else
        call_fail(call, XY_BAD_REQUEST, NULL, "items are retracted by an IQ of type set");
}

static bool read_delay(struct xy_str text, uint64_t *delay_s)
{
    *delay_s = QUEUE_DELAY_DEFAULT;
    return text.data == NULL || (xy_str_u64(xy_str_trim(text), delay_s) && *delay_s <= HEADER_SECONDS_MAX);
}

void queue_unlock(struct call *call)
{
    struct queue *queue = call->node->queue;
    struct chosen chosen;
    struct notices notices;
    uint64_t delay_s;
    if (queue == NULL) {
        call_fail(call, XY_BAD_REQUEST, NULL, "this node is no queue");
        return;
    }
    if (!read_delay(xy_elem_attr(call->action, "delay"), &delay_s)) {
        call_fail(call, XY_BAD_REQUEST, NULL, "delay is a number of seconds, 315360000 at most");
        return;
    }
    if (!choose_all(call, false, &chosen))
        return;
    notices_make(&notices, queue, &chosen, event_for_unlock);
    for (size_t i = 0; i < chosen.count; i++)
        queue_give_back(queue, queue_find(queue->engine, chosen.items[i]->seq), QUEUE_BACK_NACK, delay_s);
    queue_record(queue, false);
    notices_send(&notices, queue, chosen.count);
    call_reply(call, NULL);
}
