/* A publish request between its checks (publish_check.c) and what it does (publish.c). Private to broker/pubsub. */
#pragma once

#include "broker/pubsub/call.h"
#include "broker/pubsub/node/headers.h"

/* One publish request on its way through the checks. */
struct publication {
    struct xy_elem **items;
    struct xy_str *ids;         /* where the node has a dedup_window: of those */
    struct item_traits *traits; /* of a queue's items; NULL: it is none */
    struct xy_str *bytes;       /* each as subscribers will see it: <item>…</item> */
    size_t count;
    struct xy_str publish_id; /* absent: none */
    struct store_dedup dedup;
    uint64_t now_us;
};

/* Everything that can be wrong with it, before anything is changed; makes a node that is not there. false: refused, or
 * it waits until nodes are counted (quota/quota.h). */
bool publication_check(struct call *call, struct publication *publication);
/* A queue: what the headers of the items say, in publication->traits. false: refused. */
bool publication_traits(struct call *call, struct publication *publication);
/* The node is a queue that has an item of one of these ids; true: refused. */
bool publication_collides(struct call *call, const struct publication *publication);
/* The node is full and does not make room (pubsub#publish_node_full, overflow), or an item alone is too large for it; true:
 * refused. */
bool publication_overflows(struct call *call, const struct publication *publication);
/* The account that created the node would retain more than it may; true: refused. Else there is room for it until
 * quota_settle. */
bool publication_exceeds(struct call *call, const struct publication *publication);

/* --- publish_once.c: duplicates ---------------------------------------------------------------------------------- */
enum dedup_verdict publication_seen(struct call *call,
                                    const struct publication *publication); /* by its publish-id */
/* It was accepted. Not `stored`: no record of an item names the publish-id, the node alone knows it. */
void publication_remember(struct call *call, const struct publication *publication, bool stored);
/* Takes out the items whose ids were seen within the node's dedup_window. false: memory is short. */
bool publication_drop_seen(struct call *call, struct publication *publication);
/* Their ids are not to be published again within the window; or are, after all. */
void publication_record_ids(struct call *call, const struct publication *publication, bool seen);
