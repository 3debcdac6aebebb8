/* What each account has at this service, over all nodes: nodes it created, the items and bytes these retain, and its own
 * subscriptions.
 *
 * The nodes of one account are spread over all shards, so this is the one thing of broker/pubsub that shards share. An
 * account is looked up under a lock: when a node is made or deleted, when somebody subscribes or leaves, and, where items
 * are counted, when a node comes into memory. A publish looks nothing up and takes no lock: its node points to the
 * account, whose items and bytes are atomic. An account is there while it has a node or a subscription. Any thread. */
#pragma once

#include <stdatomic.h>

#include "core/base/str.h"

struct quota_book;

struct quota_account {
    atomic_uint_fast64_t items, bytes;
    uint64_t nodes, subscriptions; /* of the book's lock */
    struct xy_str bare;
    char text[];
};

enum quota_verdict { QUOTA_TAKEN, QUOTA_FULL, QUOTA_NO_MEMORY };

struct quota_book *book_new(unsigned shards, uint64_t hash_seed); /* NULL: memory is short */
struct quota_book *book_ref(struct quota_book *book); /* while shards are made and freed: one thread */
void book_unref(struct quota_book **book);

/* Every shard has counted what was there at the start. Nobody counts nodes for an account before. */
bool book_nodes_counted(struct quota_book *book);
bool book_shard_counted(struct quota_book *book); /* that is one shard; true: it was the last */

/* One more unless there are `max`; *account stays valid until the node is dropped. */
enum quota_verdict book_add_node(struct quota_book *book, struct xy_str bare, uint64_t max,
                                 struct quota_account **account);
enum quota_verdict book_add_subscription(struct quota_book *book, struct xy_str bare, uint64_t max);
void book_drop_node(struct quota_book *book, struct xy_str bare);
void book_drop_subscription(struct quota_book *book, struct xy_str bare);
struct quota_account *book_find(struct quota_book *book, struct xy_str bare); /* of a node that was added */

/* So much more, if both fit; what is 0 always does. `max` UINT64_MAX: unlimited. */
bool account_take(struct quota_account *account, uint64_t items, uint64_t items_max, uint64_t bytes,
                  uint64_t bytes_max);
/* It holds what it did not before, or no longer what it did, whatever the limits say. */
void account_change(struct quota_account *account, uint64_t items_before, uint64_t items_now,
                    uint64_t bytes_before, uint64_t bytes_now);
