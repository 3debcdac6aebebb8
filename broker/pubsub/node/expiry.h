/* What ends by itself: items past pubsub#item_expire, and what is owed past max_backlog_age (docs/protocol.md 1.6, 3.1).
 *
 * A node in memory has a timer for its oldest item. For nodes that are not, the store keeps one row per node that has
 * something to end (STORE_EXPIRY): the second at which the node has to be looked at, never later than the first thing
 * due and a little earlier or later than exact is harmless, because a node comes from the store without what has
 * expired. A shard sleeps until its first row, looks at the nodes that are due, and moves their rows. So nothing walks
 * over nodes or items. Private to broker/pubsub. */
#pragma once

#include "broker/pubsub/node/node.h"

void expiry_start(struct pubsub *pubsub);
void expiry_stop(struct pubsub *pubsub);

void expiry_init(struct node *node); /* a new one */
void expiry_load(struct node *node); /* one from the store: before expiry_look */
bool expiry_passed(const struct node *node, uint64_t time_us,
                   uint64_t now_us); /* published then, is it over? */
bool expiry_over(const struct node *node, const struct item *item,
                 uint64_t now_us); /* not to be shown any more */
/* Something was published, configured or loaded: what is due leaves, and whoever has to know when to look is told. */
void expiry_look(struct node *node);
void expiry_published(struct node *node); /* the same after a publish, at no cost where nothing changed */
void expiry_forget(struct node *node);    /* the node is about to be deleted: before its NodeRemove */
