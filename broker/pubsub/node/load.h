/* Reading one node from the store, a page at a time: its affiliations, subscriptions, cursors, the index of its items and
 * what a queue knows of them; bodies stay in the store. Nobody else sees the node until it is whole; nothing of it may
 * change in the store meanwhile. Called by resident.c. Private to broker/pubsub. */
#pragma once

#include "broker/pubsub/node/node.h"

struct load;

enum load_status {
    LOAD_MORE,   /* call load_step again */
    LOAD_DONE,   /* take it with load_end */
    LOAD_ABSENT, /* there is no such node */
    LOAD_FAILED, /* memory is short, or the node cannot be read: the log says so */
};

/* *load is the caller's where LOAD_MORE is returned. */
enum load_status load_begin(struct pubsub *pubsub, struct xy_str name, struct load **load);
enum load_status load_step(struct load *load); /* one page */
struct node *load_end(struct load **load);     /* the whole node, not listed yet; NULL: memory is short */
void load_abandon(struct load **load);
