/* The publish-subscribe service (XEP-0060) as the rest of the broker sees it.
 *
 * pubsub_init registers the service's domain with the router, itself as the owner of claims with delivery, and as the
 * consumer of address watches. Everything else happens through those. */
#pragma once

#include "broker/shard/shard.h"

bool pubsub_init(struct shard *shard);
void pubsub_free(struct shard *shard);
void pubsub_reload(struct shard *shard); /* shard->config is another one */
/* The broker stops: from now on sessions end one after the other, and what one had to acknowledge or to do is not sent to the
 * next one, which is about to end too. Before any session is ended, on every shard. */
void pubsub_quiesce(struct shard *shard);

struct pubsub_stats {
    uint64_t node_bytes; /* what nodes in memory take, about */
    uint64_t nodes, subscriptions, items, delivered_live, redelivered, damaged,
        memory_bytes;  /* of items of nodes with durability=memory */
    uint64_t counting; /* 1: what accounts have is being counted (quota/quota.h) */
    /* of all queues in memory; made up when asked for */
    uint64_t queues, queue_depth, queue_in_flight, queue_delayed, queue_blocked, queue_parked;
    uint64_t queue_oldest_age; /* seconds; of the queue whose oldest item is the oldest */
};
void pubsub_stats(const struct shard *shard, struct pubsub_stats *out);
