/* Bounds on what may be owed to one subscription: bytes and age (docs/protocol.md 1.2). What exceeds them is skipped, or
 * with overflow=reject makes the node refuse what is published.
 *
 * Each at-least-once subscription of a node stands in two heaps, by the bytes published and by the time at which it will
 * exceed a bound if nobody acknowledges anything. Acknowledgements only move these further away, so they touch no heap:
 * an entry is looked at again when its time has come, and publishing looks at the first entry of each. Private to
 * broker/pubsub. */
#pragma once

#include "broker/shard/timers.h"
#include "core/base/heap.h"

struct node;
struct subscription;

struct backlog {                      /* of a node */
    struct xy_heap by_bytes, by_time; /* of struct subscription */
    struct shard_timer timer;
};

struct
    backlog_place {   /* of a subscription: its bounds are exceeded above these, if nothing is acknowledged */
    uint64_t bytes;   /* as item_index.added_bytes counts */
    uint64_t missing; /* published and gone when it began or was rewound: it was never owed these bytes … */
    uint64_t caught_up; /* … which count until its cursor has come to this number */
    uint64_t time_us;   /* wall time */
    uint32_t in_bytes, in_time;
};

void backlog_init(struct node *node);
bool backlog_reserve(struct node *node, size_t subscriptions); /* room in the heaps; false: memory is short */
/* The subscription is owed items from now on, or its bounds or its cursor were set. */
void backlog_begin(struct subscription *subscription);
/* The same when it is owed items from before: what was published between them and is gone does not count. */
void backlog_begin_before(struct subscription *subscription);
void backlog_end(struct subscription *subscription);
void backlog_published(struct node *node);  /* an item was added */
void backlog_configured(struct node *node); /* `overflow` may say something else now */
/* overflow=reject: `bytes` more would be too much for somebody. */
bool backlog_full(struct node *node, uint64_t bytes);
/* A bound is exceeded and the timer is to give up what is too much: the node has to stay in memory until then. */
bool backlog_waits(const struct node *node);
/* Wall time in microseconds at which the first bound on age may be exceeded; UINT64_MAX: never. */
uint64_t backlog_due_us(const struct node *node);
void backlog_stop(struct node *node); /* the node goes away */
void backlog_free(struct node *node);
