/* What a node retains, and what has to leave: the oldest first. See retention.h. */
#include "broker/pubsub/node/retention.h"

#include "broker/config.h"
#include "broker/pubsub/queue/queue.h"

static uint64_t lesser(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t retention_items_max(const struct node *node)
{
    return lesser(node->config.max_items, node->pubsub->shard->config->limits.items_per_node);
}

uint64_t retention_bytes_max(const struct node *node)
{
    return lesser(node->config.max_bytes, node->pubsub->shard->config->limits.bytes_per_node);
}

bool retention_over(const struct node *node, uint64_t coming, uint64_t coming_bytes)
{
    uint64_t bytes_max = retention_bytes_max(node);
    return node->items.retained_count + coming > retention_items_max(node) ||
           (bytes_max != OPTION_COUNT_MAX && node->items.retained_bytes + coming_bytes > bytes_max);
}

bool retention_evict(struct node *node, struct item *item, struct evicted *evicted)
{
    if (evicted->removed_count == EVICTED_MAX || evicted->unretained_count == EVICTED_MAX)
        return false;
    uint64_t seq = item->seq;
    if (index_unretain(&node->items, item))
        evicted->removed[evicted->removed_count++] = seq;
    else
        evicted->unretained[evicted->unretained_count++] = seq;
    return true;
}

void retention_make_room(struct node *node, uint64_t bytes, struct evicted *evicted)
{
    while (node->items.retained_count > 0 && retention_over(node, 1, bytes))
        if (!retention_evict(node, index_oldest(&node->items), evicted))
            return;
}

static bool too_much(const struct node *node)
{
    return node->items.retained_count > 0 && (!node->config.persist_items || retention_over(node, 0, 0));
}

void retention_trim(struct node *node)
{
    if (node->queue != NULL)
        return; /* does so by itself, and not with what consumers have */
    while (too_much(node)) {
        struct evicted evicted;
        evicted.removed_count = evicted.unretained_count = 0;
        while (too_much(node) && retention_evict(node, index_oldest(&node->items), &evicted))
            ;
        record_evicted(node, &evicted);
    }
}
