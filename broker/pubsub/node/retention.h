/* What a node retains: by number, by bytes, by age. An item that leaves is gone, unless somebody is still owed it; the
 * caller writes the record. docs/protocol.md 1.6 and 3; called by publish, configure and expiry. Private to
 * broker/pubsub. */
#pragma once

#include "broker/pubsub/node/node.h"

#define EVICTED_MAX 256u /* items that leave together */

struct evicted {
    uint64_t removed[EVICTED_MAX], unretained[EVICTED_MAX];
    size_t removed_count, unretained_count;
};

/* The lesser of what the node's owner and what the service allows; OPTION_COUNT_MAX: unlimited. */
uint64_t retention_items_max(const struct node *node);
uint64_t retention_bytes_max(const struct node *node);
bool retention_over(const struct node *node, uint64_t coming, uint64_t coming_bytes);

bool retention_evict(struct node *node, struct item *item, struct evicted *evicted); /* false: it is full */
/* The oldest leave until one of `bytes` has room. What does not fit into `evicted` goes with a later one. */
void retention_make_room(struct node *node, uint64_t bytes, struct evicted *evicted);
/* The configuration allows less than before: what is too much leaves, with its records. */
void retention_trim(struct node *node);
