/* Limits per account over all nodes: nodes and, where limits.items_per_account, bytes_per_account or
 * subscriptions_per_account are set, what nodes retain (charged to the account that created the node) and subscriptions
 * (charged to the subscriber's bare JID). What is not limited is not counted and costs nothing; what is counted stays so
 * until the next start.
 *
 * What was there before is counted by each shard from the store, some rows a turn (count.c): nodes when the first one is
 * made after a start, which waits for it; the rest from the start, or the reload that set a limit, on. Nobody waits for
 * the rest: until it is done an account is charged with what was counted so far. A node is charged from the moment that
 * the count has reached it; `counted` of a node says for what. Private to broker/pubsub. */
#pragma once

#include "broker/pubsub/call.h"
#include "broker/pubsub/quota/book.h"
#include "broker/store/limits.h"

/* What is counted; sets of these. */
enum {
    QUOTA_NODES = 1,
    QUOTA_ITEMS = 2,
    QUOTA_SUBSCRIPTIONS = 4,
};

#define QUOTA_SLICE_COST 4096u

/* The count of one shard. */
struct quota {
    struct quota_book *book;    /* of all shards */
    struct xy_table *creations; /* names whose requests wait until nodes are counted */
    unsigned wanted;            /* kinds that have to be counted, these … */
    unsigned counted;           /* … are, and … */
    unsigned pass;              /* … these are being counted: all nodes in front of `from` */
    bool asked;                 /* the other shards know that nodes have to be counted */
    struct shard_timer timer;
    size_t slice_cost; /* rows of one turn, about */
    size_t from_len;
    char from[STORE_KEY_MAX + 1]; /* key of the row to go on with */
    struct {                      /* the node of that row, if it was begun */
        uint64_t number;          /* 0: it was not */
        struct quota_account *account;
        uint64_t items, bytes;
        uint64_t items_from;         /* rows from this seq on are left */
        uint64_t subscriptions_from; /* from this number on */
        bool items_done;
    } begun;
};

bool quota_init(struct pubsub *pubsub); /* of shard 0 first */
void quota_free(struct pubsub *pubsub);
void quota_configured(struct pubsub *pubsub); /* limits changed: more may have to be counted */
bool quota_is_counting(const struct pubsub *pubsub);

/* --- nodes ------------------------------------------------------------------------------------------------------------ */
/* May a node be made now? false: not yet, and the request comes back through call_dispatch; requests for the same node that
 * come meanwhile wait behind it, so that a pipelined publish finds the node that the create before it made. */
bool quota_ready(struct call *call);
bool quota_wait(struct call *call); /* true: the request waits behind a creation of its node; it is taken */
/* A new one. Unless it is taken it has to go again. */
enum quota_verdict quota_add_node(struct node *node);
void quota_drop_node(struct node *node); /* deleted; while it still has its items and subscriptions */
/* It came into memory. `stored`: what of it the store had retained, as count.c counts it, before it was loaded. */
struct quota_sum {
    uint64_t items, bytes;
};
void quota_loaded(struct node *node, const struct quota_sum *stored);
/* It did not, but so much was recorded as no longer retained on the way. */
void quota_not_loaded(struct node *node, const struct quota_sum *gone);

/* --- items ------------------------------------------------------------------------------------------------------------ */
/* The node is going to retain `items` and `bytes`. true: the account has room for it, and keeps it until quota_settle;
 * needing no more than before always has room. */
bool quota_reserve(struct node *node, uint64_t items, uint64_t bytes);
void quota_settle(struct node *node); /* charge what is retained now */

/* --- subscriptions ---------------------------------------------------------------------------------------------------- */
enum quota_verdict quota_add_subscription(struct node *node, struct xy_str bare);
/* One that was made after all, or not. `number`: its own, or the one it would have got. */
void quota_drop_subscription(struct node *node, struct xy_str bare, uint32_t number);

/* --- between quota.c and count.c -------------------------------------------------------------------------------------- */
bool count_reached(const struct pubsub *pubsub, unsigned kind, struct xy_str name);
void count_begin(struct pubsub *pubsub, unsigned kinds); /* does a first part at once */
void count_soon(struct pubsub *pubsub);
void charge_items(struct node *node, struct quota_account *account); /* from now on, what it retains */
void creations_go_on(struct pubsub *pubsub);                         /* all nodes are counted */
