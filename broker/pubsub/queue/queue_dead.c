/* Items of a queue that are given up: sent too often, refused by a consumer for good, expired. They are parked, and where
 * the queue has a node for dead letters move there (deadletter.h), which may take a while or be refused; then it is tried
 * again. Called by queue.c and queue_consumer.c. */
#include "broker/pubsub/queue/queue.h"

#include "broker/shard/stats.h"
#include "core/base/assert.h"

static bool has_letters(const struct queue *queue)
{
    return queue->node->config.dead_letter.len > 0;
}

static void retry_later(struct queue *queue)
{
    queue->bury_us = queue_now_us(queue) + QUEUE_BURY_US;
    queue_touch(queue); /* the timer is set there */
}

/* The item is on disk at the other node, or was refused there. */
static void on_buried(struct node *node, uint32_t subscription, uint64_t seq, bool moved)
{
    struct queue *queue = node->queue;
    struct queue_entry *entry = queue != NULL ? queue_find(queue->engine, seq) : NULL;
    (void)subscription;
    if (entry == NULL)
        return; /* retracted meanwhile, or the node is no queue any more */
    xy_assert(entry->state == QUEUE_PARKED);
    if (!moved) {
        queue_park(queue->engine, entry, queue_now_us(queue));
        retry_later(queue);
        return;
    }
    queue->figures.dead_lettered++;
    index_remove(&node->items, index_find(&node->items, seq));
    record_items_removed(node, &seq, 1);
}

/* After a restart nobody remembers why: it follows from what is stored. */
static enum dead_reason reason_of(const struct queue *queue, const struct queue_entry *entry)
{
    if (entry->reason != 0)
        return (enum dead_reason)(entry->reason - 1);
    if (entry->attempts >= queue->node->config.max_deliver)
        return DEAD_MAX_DELIVER;
    if (entry->expires_us <= queue_now_us(queue))
        return DEAD_EXPIRED;
    return entry->attempts > 0 ? DEAD_TERM : DEAD_OVERFLOW; /* nobody gives up what he never had */
}

/* false: not now. */
static bool send_letter(struct queue *queue, struct queue_entry *entry, struct item *item)
{
    struct node *node = queue->node;
    struct dead_letter letter = { .to = node->config.dead_letter,
                                  .account = xy_jid_canonical(node->creator),
                                  .attempts = entry->attempts,
                                  .reason = reason_of(queue, entry),
                                  .done = on_buried };
    if (!deadletter_send(node, item, &letter))
        return false;
    queue_hide(queue->engine, entry);
    return true;
}

void queue_bury(struct queue *queue, struct queue_entry *entry, enum dead_reason reason)
{
    entry->reason = (uint8_t)(reason + 1);
    stat_add(queue->node->pubsub->shard, queue_parked, 1);
    queue_park(queue->engine, entry, queue_now_us(queue));
    queue_dirty(queue, entry);
    queue_touch(queue); /* who had it has room for another one */
    if (!has_letters(queue))
        return;
    queue_record(queue,
                 false); /* no later on disk than the letter: after a crash it is not handed out again */
    if (!send_letter(queue, entry, index_find(&queue->node->items, entry->seq)))
        retry_later(queue);
}

void queue_bury_parked(struct queue *queue)
{
    size_t parked = queue_count(queue->engine, QUEUE_PARKED);
    queue->bury_us = QUEUE_NEVER;
    if (!has_letters(queue))
        return;
    for (size_t i = 0; i < parked; i++) {
        struct queue_entry *entry = queue_parked(queue->engine);
        struct item *item = entry != NULL ? index_find(&queue->node->items, entry->seq) : NULL;
        if (item == NULL)
            return; /* all are on their way */
        if (i == QUEUE_BURY_MAX) {
            retry_later(queue);
            return;
        }
        if (item->damaged) { /* nobody can read it: it stays, behind the others */
            queue_hide(queue->engine, entry);
            queue_park(queue->engine, entry, queue_now_us(queue));
        } else if (!send_letter(queue, entry, item)) {
            retry_later(queue);
            return;
        }
    }
}
