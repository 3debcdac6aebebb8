/* A publish request between its checks (publish_check.c) and what it does (publish.c). Private to broker/pubsub. */
#pragma once

#include "broker/pubsub/call.h"

/* One publish request on its way through the checks. */
struct publication {
    struct xy_elem **items;
    struct xy_str *bytes; /* each as subscribers will see it: <item>…</item> */
    size_t count;
    struct xy_str publish_id; /* absent: none */
    struct store_dedup dedup;
    uint64_t now_us;
};

/* Everything that can be wrong with it, before anything is changed; makes a node that is not there. false: refused, or
 * gone to ask for the creator's quota. */
bool publication_check(struct call *call, struct publication *publication);
/* The node is full and does not make room (pubsub#publish_node_full, overflow), or an item alone is too large for it; true:
 * refused. */
bool publication_overflows(struct call *call, const struct publication *publication);
