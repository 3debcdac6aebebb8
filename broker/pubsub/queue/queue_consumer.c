/* Consumers of a queue: the claims by which sessions get items (struct claim_ops), and what becomes of an item that a
 * consumer has. Which session a consumer is, is claim.c's affair; called by it, by queue.c and by requests. */
#include "broker/pubsub/queue/queue.h"

#include <stdlib.h>

#include "broker/pubsub/call.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

static struct queue *queue_of(const struct subscription *subscription)
{
    return subscription->subscriber->node->queue;
}

static struct queue_consumer *consumer_of(const struct subscription *subscription)
{
    return &subscription->worker->consumer;
}

struct subscription *queue_holder(const struct queue_entry *entry)
{
    return entry->consumer == NULL
               ? NULL
               : xy_container_of(entry->consumer, struct queue_worker, consumer)->subscription;
}

static void set_able(struct subscription *subscription, bool able)
{
    struct queue_consumer *consumer = consumer_of(subscription);
    queue_consumer_set(queue_of(subscription)->engine, consumer,
                       (uint32_t)subscription->options.queue_requests, able);
}

/* --- items that are not done --------------------------------------------------------------------------------------- */

void queue_give_back(struct queue *queue, struct queue_entry *entry, enum queue_back why, uint64_t delay_s)
{
    uint64_t now_us = queue_now_us(queue);
    if (entry->attempts >= queue->node->config.max_deliver) {
        queue_bury(queue, entry, DEAD_MAX_DELIVER);
        return;
    }
    if (delay_s == QUEUE_DELAY_DEFAULT)
        delay_s = why == QUEUE_BACK_LOST ? 0 : backoff_s(&queue->backoff, entry->attempts);
    stat_add(queue->node->pubsub->shard, queue_returned, 1);
    queue_return(queue->engine, entry, delay_s != 0 ? now_us + delay_s * 1000000u : 0, now_us);
    queue_dirty(queue, entry);
    queue_touch(queue);
}

void queue_take(struct queue *queue, struct item *item)
{
    const struct queue_entry *entry = queue_find(queue->engine, item->seq);
    bool done = entry != NULL && entry->state == QUEUE_LOCKED;
    queue->figures.acknowledged += done;
    stat_add(queue->node->pubsub->shard, queue_acknowledged, done);
    index_remove(&queue->node->items, item); /* and with it the entry */
}

/* --- claims -------------------------------------------------------------------------------------------------------- */

static void queue_op_attached(struct subscription *subscription)
{
    xy_assert(consumer_of(subscription)->held_count == 0);
}

/* What it gets is decided by the engine, together with all others. */
static void queue_op_send(struct subscription *subscription)
{
    claim_set_state(subscription, CLAIM_WAITING);
    set_able(subscription, true);
    queue_touch(queue_of(subscription));
}

/* Sent in order, so nothing behind the first that was not taken was taken either. */
static void queue_op_stalled(struct subscription *subscription, uint64_t unsent)
{
    struct queue *queue = queue_of(subscription);
    struct queue_consumer *consumer = consumer_of(subscription);
    const struct queue_entry *first = queue_find(queue->engine, unsent);
    set_able(subscription, false);
    if (first == NULL || first->consumer != consumer)
        return; /* that one went meanwhile: the locks of those behind it end by themselves */
    for (bool more = true; more;) {
        struct queue_entry *last = queue_consumer_last(consumer);
        more = last != first;
        queue_unsend(queue->engine, last, queue_now_us(queue));
        queue_dirty(queue, last);
    }
    queue_touch(queue);
}

/* An item is done when the consumer says so, not when it has arrived. */
static void queue_op_received(struct subscription *subscription, uint64_t seq)
{
    (void)subscription;
    (void)seq;
}

static bool queue_op_in_flight(const struct subscription *subscription)
{
    return consumer_of(subscription)->held_count > 0;
}

/* --- one item at a time, as settle.c has it -------------------------------------------------------------------------- */

/* NULL: this consumer does not have it. */
static struct queue_entry *held(const struct subscription *subscription, uint64_t seq)
{
    struct queue_entry *entry = queue_find(queue_of(subscription)->engine, seq);
    return entry != NULL && entry->consumer == consumer_of(subscription) ? entry : NULL;
}

static uint64_t queue_op_seq_of(const struct subscription *subscription, struct xy_str id)
{
    const struct item *item = index_find_id(&subscription->subscriber->node->items, id);
    return item != NULL && held(subscription, item->seq) != NULL ? item->seq : 0;
}

static void acknowledge(struct queue *queue, uint64_t seq)
{
    xy_buf_add(&queue->taken, &seq, sizeof(seq));
    queue_take(queue, index_find(&queue->node->items, seq));
}

static enum claim_verdict queue_op_ack(struct subscription *subscription, uint64_t seq, bool cumulative)
{
    struct queue *queue = queue_of(subscription);
    struct queue_consumer *consumer = consumer_of(subscription);
    bool any = held(subscription, seq) != NULL;
    if (any)
        acknowledge(queue, seq);
    struct xy_list *end = &consumer->held;
    for (struct xy_list *link = end->next, *next; cumulative && link != end; link = next) {
        next = link->next;
        uint64_t other = xy_container_of(link, struct queue_entry, held_link)->seq;
        if (other > seq)
            continue;
        acknowledge(queue, other);
        any = true;
    }
    if (xy_buf_failed(&queue->taken))
        return CLAIM_NO_ROOM;
    return any ? CLAIM_DONE : CLAIM_UNKNOWN;
}

static enum claim_verdict queue_op_nack(struct subscription *subscription, uint64_t seq,
                                        const uint64_t *delay_us)
{
    struct queue_entry *entry = held(subscription, seq);
    if (entry == NULL)
        return CLAIM_UNKNOWN;
    queue_give_back(queue_of(subscription), entry, QUEUE_BACK_NACK,
                    delay_us != NULL ? *delay_us / 1000000u : QUEUE_DELAY_DEFAULT);
    return CLAIM_DONE;
}

static enum claim_verdict queue_op_term(struct subscription *subscription, uint64_t seq)
{
    struct queue_entry *entry = held(subscription, seq);
    if (entry == NULL)
        return CLAIM_UNKNOWN;
    queue_bury(queue_of(subscription), entry, DEAD_TERM);
    return CLAIM_DONE;
}

static enum claim_verdict queue_op_working(struct subscription *subscription, uint64_t seq)
{
    struct queue *queue = queue_of(subscription);
    struct queue_entry *entry = held(subscription, seq);
    if (entry == NULL)
        return CLAIM_UNKNOWN;
    queue_extend(queue->engine, entry, queue_now_us(queue) + queue->node->config.lock_timeout_s * 1000000u);
    queue_touch(queue);
    return CLAIM_DONE;
}

static bool queue_op_record(struct subscription *subscription, bool lazy)
{
    queue_record_taken(queue_of(subscription), lazy);
    return true;
}

/* --- consumers that go ----------------------------------------------------------------------------------------------- */

struct absence {
    uint64_t node;
    uint32_t number;
};

/* on_unavailable=unsubscribe: no session took its place. */
static void on_absent(struct shard *shard, void *payload)
{
    const struct absence *absence = payload;
    struct node *node = shard->pubsub != NULL ? node_by_number(shard->pubsub, absence->node) : NULL;
    struct subscription *subscription = node != NULL ? node_subscription(node, absence->number) : NULL;
    if (subscription != NULL && subscription->worker != NULL && subscription->claim.state == CLAIM_DETACHED &&
        subscription->options.deliver && subscription->options.on_unavailable == ON_UNAVAILABLE_UNSUBSCRIBE)
        subscription_end(node, subscription, true);
}

static void queue_op_lost(struct subscription *subscription)
{
    struct queue *queue = queue_of(subscription);
    struct shard *shard = queue->node->pubsub->shard;
    struct queue_consumer *consumer = consumer_of(subscription);
    set_able(subscription, false);
    for (struct queue_entry *entry; (entry = queue_consumer_first(consumer)) != NULL;)
        queue_give_back(queue, entry, QUEUE_BACK_LOST, QUEUE_DELAY_DEFAULT);
    struct absence absence = { queue->node->number, subscription->number };
    if (subscription->options.on_unavailable == ON_UNAVAILABLE_UNSUBSCRIBE)
        shard_mail(shard, shard->index, on_absent, &absence, sizeof(absence));
}

static void queue_op_skip(struct subscription *subscription, uint64_t first, uint64_t last)
{
    (void)first;
    queue_op_received(subscription, last); /* a consumer has no backlog of its own */
}

static void queue_op_forget(struct subscription *subscription)
{
    queue_consumer_end(queue_of(subscription)->engine, consumer_of(subscription));
    free(subscription->worker);
    subscription->worker = NULL;
}

const struct claim_ops queue_ops = {
    .notices = true,
    .flags = CLAIM_EXPLICIT,
    .lost = queue_op_lost,
    .attached = queue_op_attached,
    .send = queue_op_send,
    .stalled = queue_op_stalled,
    .received = queue_op_received,
    .in_flight = queue_op_in_flight,
    .skip = queue_op_skip,
    .forget = queue_op_forget,
    .record = queue_op_record,
    .seq_of = queue_op_seq_of,
    .ack = queue_op_ack,
    .nack = queue_op_nack,
    .term = queue_op_term,
    .working = queue_op_working,
};

/* --- beginning ----------------------------------------------------------------------------------------------------- */

bool queue_join(struct subscription *subscription)
{
    struct queue_worker *worker = calloc(1, sizeof(*worker));
    xy_assert(subscription->claim.ops == NULL && subscription->worker == NULL);
    if (worker == NULL ||
        !queue_consumer_begin(queue_of(subscription)->engine, &worker->consumer, subscription->number,
                              (uint32_t)subscription->options.queue_requests)) {
        free(worker);
        return false;
    }
    worker->subscription = subscription;
    subscription->worker = worker;
    subscription->claim = (struct claim){ .ops = &queue_ops };
    return true;
}

void queue_worker_changed(struct subscription *subscription)
{
    set_able(subscription, consumer_of(subscription)->able);
    queue_touch(queue_of(subscription));
}

/* --- telling ------------------------------------------------------------------------------------------------------- */

struct telling {
    struct session_ref session;
    struct event *event;
};

static void on_told(struct shard *shard, void *payload)
{
    struct telling *telling = payload;
    delivery_notify(shard, telling->session, telling->event);
}

void queue_tell(struct queue *queue, const struct subscription *consumer, struct event **event)
{
    struct telling telling = { consumer->claim.session, *event };
    *event = NULL;
    if (telling.event == NULL)
        return;
    if (consumer->claim.state == CLAIM_DETACHED)
        event_unref(&telling.event);
    else
        shard_when_committed(queue->node->pubsub->shard, queue->node->ticket, on_told, &telling,
                             sizeof(telling));
}
