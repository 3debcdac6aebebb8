/* Bounds on what may be owed to one subscription: bytes and age (docs/protocol.md 1.2). A subscription that exceeds its
 * bounds skips forward; what it skipped is logged and counted. Looked at now and then by a timer, so that publishing
 * does not depend on the number of subscribers. Started by pubsub_init. */
#include "broker/pubsub/node.h"

#include "broker/log.h"
#include "core/base/assert.h"

#define BACKLOG_PERIOD_US (5ull * 1000 * 1000)

/* Is this, the oldest item owed, one too many? */
static bool beyond(const struct node *node, const struct subscription *subscription, const struct item *item,
                   uint64_t now_us)
{
    const struct subscription_options *options = &subscription->options;
    uint64_t bytes = node->items.added_bytes - item->before_bytes;
    uint64_t age_s = now_us > item->time_us ? (now_us - item->time_us) / 1000000 : 0;
    return bytes > options->max_backlog_bytes || age_s > options->max_backlog_age_s;
}

static void bound(struct node *node, struct subscription *subscription, uint64_t now_us)
{
    uint64_t first = 0, skip_to = 0;
    const struct item *item = index_after(&node->items, subscription->claim.cursor);
    while (item != NULL && item->seq <= node->delivered_seq && beyond(node, subscription, item, now_us)) {
        first = first != 0 ? first : item->seq;
        skip_to = item->seq;
        item = index_after(&node->items, item->seq);
    }
    if (skip_to == 0)
        return;
    log_warning(node->pubsub->shard->log, "backlog exceeded: subscription skips", LOG_STR("node", node->name),
                LOG_STR("jid", subscription->jid), LOG_NUM("first", first), LOG_NUM("last", skip_to));
    node->pubsub->stats.skipped += skip_to - first + 1;
    durable_skip(subscription, skip_to);
}

static void on_timer(struct shard *shard, struct shard_timer *timer)
{
    struct pubsub *pubsub = shard->pubsub;
    uint64_t now_us = xy_wall_us(shard->env);
    size_t position = 0;
    for (struct node *node; (node = xy_table_next(pubsub->nodes, &position, NULL)) != NULL;) {
        size_t at = 0;
        for (struct subscription *s;
             node->durable_count > 0 && (s = node_next_subscription(node, &at)) != NULL;)
            if (subscription_durable(s))
                bound(node, s, now_us);
    }
    shard_timer_set(shard, timer, xy_now_us(shard->env) + BACKLOG_PERIOD_US);
}

void backlog_start(struct pubsub *pubsub)
{
    pubsub->backlog_timer.fn = on_timer;
    shard_timer_set(pubsub->shard, &pubsub->backlog_timer, xy_now_us(pubsub->shard->env) + BACKLOG_PERIOD_US);
}
