/* Queues that make room by themselves: with overflow=drop-oldest the oldest item that nobody has leaves for what is
 * published (docs/protocol.md 9.1), to the dead letters or, where there is no node for them, for good. What consumers have
 * stays. Called by publish.c, and by queue.c when a configuration allows less than there is. */
#include "broker/pubsub/queue/queue.h"

#include "broker/shard/stats.h"
#include "core/base/assert.h"

static bool has_letters(const struct queue *queue)
{
    return queue->node->config.dead_letter.len > 0;
}

static bool is_dying(const struct queue_entry *entry)
{
    return entry != NULL && entry->reason == DEAD_OVERFLOW + 1;
}

bool queue_drops(const struct queue *queue)
{
    return queue->node->config.overflow == OVERFLOW_DROP_OLDEST;
}

bool queue_may_drop(const struct queue *queue, const struct item *item)
{
    const struct queue_entry *entry = queue_find(queue->engine, item->seq);
    bool letters = has_letters(queue);
    if (letters && item->seq > queue->node->delivered_seq)
        return false; /* no letter of what is not on disk */
    if (entry == NULL)
        return true;
    switch ((enum queue_state)entry->state) {
    case QUEUE_READY:
    case QUEUE_BLOCKED:
    case QUEUE_DELAYED:
        return true;
    case QUEUE_PENDING:
        return !letters;
    case QUEUE_PARKED: /* with letters it waits for a node that refused it, else it may be on its way elsewhere */
        return !letters && xy_list_linked(&entry->held_link);
    case QUEUE_LOCKED:
        break;
    }
    return false;
}

/* What there would be with so much more, but for what is leaving, is too much by …; 0: it is not. */
struct excess {
    uint64_t items, bytes;
};

static uint64_t above(uint64_t value, uint64_t bound)
{
    return value > bound ? value - bound : 0;
}

static struct excess excess_of(const struct queue *queue, uint64_t items, uint64_t bytes)
{
    const struct item_index *index = &queue->node->items;
    return (struct excess){
        above(index->retained_count - queue->leaving.items + items, retention_items_max(queue->node)),
        above(index->retained_bytes - queue->leaving.bytes + bytes, retention_bytes_max(queue->node)),
    };
}

static bool is_too_much(struct excess excess)
{
    return excess.items > 0 || excess.bytes > 0;
}

bool queue_has_room(const struct queue *queue, uint64_t items, uint64_t bytes)
{
    struct excess excess = excess_of(queue, items, bytes);
    uint64_t letters = queue->leaving.items;
    const struct node *node = queue->node;
    const struct item *item = index_oldest(&node->items);
    for (unsigned looks = 0; item != NULL && looks < QUEUE_LOOKS_MAX && is_too_much(excess);
         looks++, item = index_next_retained(&node->items, item)) {
        if (!queue_may_drop(queue, item))
            continue;
        if (has_letters(queue) && ++letters > QUEUE_LEAVING_MAX)
            return false;
        excess.items -= excess.items > 0;
        excess.bytes = above(excess.bytes, item->bytes);
    }
    return !is_too_much(excess);
}

/* false: not now, `evicted` is full or memory is short. */
static bool drop(struct queue *queue, struct item *item, struct evicted *evicted)
{
    if (!has_letters(queue)) {
        if (!retention_evict(queue->node, item, evicted))
            return false;
        queue->figures.dropped++;
        stat_add(queue->node->pubsub->shard, queue_dropped, 1);
        return true;
    }
    struct queue_entry *entry =
        queue->leaving.items < QUEUE_LEAVING_MAX ? queue_entry_of(queue, item->seq) : NULL;
    if (entry == NULL)
        return false;
    queue->leaving.items++;
    queue->leaving.bytes += item->bytes;
    queue_bury(queue, entry, DEAD_OVERFLOW);
    return true;
}

/* What does not fit into `evicted` goes later: the queue has too much until then. */
void queue_make_room(struct queue *queue, uint64_t items, uint64_t bytes, struct evicted *evicted)
{
    struct node *node = queue->node;
    struct item *item = index_oldest(&node->items), *next;
    for (unsigned looks = 0; item != NULL && looks < QUEUE_LOOKS_MAX; looks++, item = next) {
        if (!is_too_much(excess_of(queue, items, bytes)))
            return;
        next = index_next_retained(&node->items, item);
        if (queue_may_drop(queue, item) && !drop(queue, item, evicted))
            return;
    }
}

bool queue_trim(struct queue *queue)
{
    struct evicted evicted;
    if (!queue_drops(queue) || !is_too_much(excess_of(queue, 0, 0)))
        return false;
    evicted.removed_count = evicted.unretained_count = 0;
    queue_make_room(queue, 0, 0, &evicted);
    bool more = evicted.removed_count == EVICTED_MAX;
    record_evicted(queue->node, &evicted);
    return more;
}

void queue_leaves_no_more(struct queue *queue, const struct queue_entry *entry, const struct item *item)
{
    if (!is_dying(entry))
        return;
    xy_assert(queue->leaving.items > 0 && queue->leaving.bytes >= item->bytes);
    queue->leaving.items--;
    queue->leaving.bytes -= item->bytes;
}
