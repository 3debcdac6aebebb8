/* Claims of at-least-once subscriptions: which session holds one, and how what is owed is sent and settled.
 *
 * claim.c decides who holds (docs/protocol.md 1.3) and talks to sessions as broker/delivery/delivery.h shows; it is the
 * same for every subscription that owes. What is sent next and what an acknowledgement ends is a table of functions:
 * durable.c in the order of publishing, acknowledged by XEP-0198; acked.c item by item. Private to broker/pubsub. */
#pragma once

#include "broker/delivery/delivery.h"
#include "broker/pubsub/claim/gap.h"
#include "core/base/list.h"

#define BLOCKED_US     (1000u * 1000)
#define LEAVING_US_MAX (10ull * 1000 * 1000) /* then it moves anyway; the rest is sent again */

struct acked;
struct item;
struct node;
struct start;
struct subscription;
struct subscription_options;

enum claim_state {
    CLAIM_DETACHED,  /* no session */
    CLAIM_ATTACHING, /* asked a session to hold it */
    CLAIM_WAITING,   /* a page is out; goes on when the session says ready */
    CLAIM_LIVE,      /* caught up: part of the routes */
    CLAIM_OPEN,      /* may be sent to; goes on when something is published or settled */
    CLAIM_STALLED,   /* the session had no room; goes on when it says ready */
    CLAIM_BLOCKED,   /* what comes next could not be read now; tried again by the timer */
    CLAIM_LEAVING,   /* a better session is there: nothing more is sent, moves when all is acknowledged */
};

struct claim {
    const struct claim_ops *ops; /* NULL: nothing is owed (at most once) */
    struct acked *acked;         /* of acked_ops; NULL: it never was item by item */
    enum claim_state state;
    struct xy_list open;      /* of the node, while CLAIM_OPEN and not full */
    struct shard_timer timer; /* LEAVING: moves anyway; BLOCKED: tries again */
    struct session_ref session;
    struct session_ref refused; /* ended, but possibly still among the sessions we know */
    uint32_t index;             /* in the session's table */
    uint16_t run;
    unsigned flags;    /* CLAIM_* it was attached with */
    uint32_t attempts; /* of what may have been sent before: 2 or more then */
    uint64_t cursor;   /* of the store: settled up to here but for what a row says (acked.c: STORE_CLAIMS) */
    uint64_t sent;     /* of the current run, unless live: then it is node.delivered_seq */
    uint64_t sent_max; /* ever, as far as is known: up to here it is a redelivery */
    bool moved;        /* cursor not recorded yet */
    struct gap gap;
    uint64_t skipped, redelivered; /* items, since the node was loaded */
};

enum claim_verdict {
    CLAIM_DONE,
    CLAIM_UNKNOWN, /* no such item is out, or not any more */
    CLAIM_NO_ROOM, /* memory is short */
};

/* What a subscription owes, for whoever asks (state.c). */
struct claim_figures {
    uint64_t above; /* everything above this is owed and was not sent to anybody yet … */
    uint64_t below; /* … and so many items at or below it */
    uint64_t in_flight, delayed, parked;
    uint64_t dead_lettered; /* since the node was loaded */
};

/* How a subscription's items are sent and settled. All are called on the node's shard. */
struct claim_ops {
    bool sm_only;   /* only sessions with XEP-0198 may hold it, and their acknowledgements are what counts */
    bool notices;   /* what carries no item goes to its session by the routes, live or not */
    unsigned flags; /* CLAIM_* of delivery.h */
    /* claim.cursor says where it stands, and nothing was sent. */
    void (*begin)(struct subscription *subscription);
    void (*configured)(struct subscription *subscription); /* its options changed */
    /* What was sent and not settled comes again: the session holds it no longer. */
    void (*lost)(struct subscription *subscription);
    /* A session holds it and has got nothing yet. */
    void (*attached)(struct subscription *subscription);
    /* Sends what may be sent now and sets the state: LIVE, OPEN, WAITING or BLOCKED. Nothing of the run is under way out of
     * order. */
    void (*send)(struct subscription *subscription);
    /* The session took nothing from item `unsent` of the run on. 0: it took none. */
    void (*stalled)(struct subscription *subscription, uint64_t unsent);
    /* The receiver's XEP-0198 covered everything up to seq. */
    void (*received)(struct subscription *subscription, uint64_t seq);
    bool (*in_flight)(const struct subscription *subscription); /* sent to this session and not settled */
    /* What is owed of first to last is given up (backlog.c); what is owed below stays owed. */
    void (*skip)(struct subscription *subscription, uint64_t first, uint64_t last);
    /* Is this item, at or below the cursor, owed nevertheless? NULL: never. */
    bool (*owes)(const struct subscription *subscription, uint64_t seq);
    /* No session holds it: is everything about it on disk, or on its way there? Then the node may leave memory.
     * NULL: never. */
    bool (*idle)(const struct subscription *subscription);
    /* Nothing is owed any more; no session holds it. */
    void (*forget)(struct subscription *subscription);
    /* Everything above seq that the node has is owed and not sent; no session holds it. */
    void (*rewind)(struct subscription *subscription, uint64_t seq);
    uint64_t (*floor)(const struct subscription *subscription); /* settled up to here, without exception */
    /* Appends the record of where it stands; lazy: nobody waits for it. false: memory is short. NULL: the cursor is all. */
    bool (*record)(struct subscription *subscription, bool lazy);
    void (*figures)(const struct subscription *subscription, struct claim_figures *out);
    /* One item at a time; NULL where XEP-0198 acknowledges. Callers end with claim_settled. */
    uint64_t (*seq_of)(const struct subscription *subscription, struct xy_str id); /* 0: none that is out */
    enum claim_verdict (*ack)(struct subscription *subscription, uint64_t seq, bool cumulative);
    enum claim_verdict (*nack)(struct subscription *subscription, uint64_t seq, const uint64_t *delay_us);
    enum claim_verdict (*term)(struct subscription *subscription, uint64_t seq);
    enum claim_verdict (*working)(struct subscription *subscription, uint64_t seq);
};
extern const struct claim_ops durable_ops; /* ack=stream */
extern const struct claim_ops acked_ops;   /* ack=receipt, ack=explicit */

/* What carries no item goes to its session by the routes; items too if it is live. */
static inline bool claim_routed(const struct claim *claim)
{
    if (claim->ops == NULL || !claim->ops->notices)
        return claim->state == CLAIM_LIVE;
    return claim->state != CLAIM_DETACHED && claim->state != CLAIM_ATTACHING;
}

/* --- claim.c ------------------------------------------------------------------------------------------------------- */
/* The cursor from which on it is owed what the node has … */
uint64_t claim_start_seq(const struct node *node, const struct start *start);
uint64_t claim_first_seq(const struct node *node,
                         const struct start *start); /* … and retains, for a new one */
/* Room for what these options need, before they are the subscription's. false: memory is short. */
bool claim_prepare(struct subscription *subscription, const struct subscription_options *options);
void claim_begin(struct subscription *subscription, uint64_t cursor); /* it is at-least-once from now on */
void claim_configured(struct subscription *subscription);             /* it still is, and has other options */
/* The same for one that was read from the store, once its cursor and the node's items are. */
void claim_restore(struct subscription *subscription);
void claim_end(struct subscription *subscription);              /* no longer, or going away */
void claim_sessions_changed(struct subscription *subscription); /* also when it became active */
void claim_free(struct subscription *subscription);             /* memory only */
void claim_skip(struct subscription *subscription, uint64_t first, uint64_t last);
/* There is a gap to tell. The session that holds it, if any, gets that and, where order matters, everything anew that it
 * has not acknowledged. */
void claim_restart(struct subscription *subscription);
/* Owes everything above seq again, as far as the node has it; no session holds it then. false: nothing above was sent. */
bool claim_rewind(struct subscription *subscription, uint64_t seq);
void claim_published(struct node *node); /* delivered_seq is new */
/* Records where it stands, for somebody who waits or (lazy) nobody. false: memory is short. */
bool claim_record(struct subscription *subscription, bool lazy);
/* Claims that are live on that shard are not: what is published next goes to them when there is memory again. */
void claim_unroute(struct node *node, unsigned shard);
/* The event of an item that is owed. A damaged one is sent as a gap under its number, and acknowledged like it. NULL: it
 * cannot be read now. For implementers of claim_ops, as those below. */
struct event *claim_event(struct subscription *subscription, struct item *item, bool again);
/* Something was settled: one that leaves may move now, one that was full goes on. */
void claim_settled(struct subscription *subscription);
void claim_set_state(struct subscription *subscription, enum claim_state state);
/* What comes next could not be sent: the run pauses in front of it, because whatever is sent behind it and acknowledged
 * would end it too. */
void claim_block(struct subscription *subscription);
extern const struct delivery_owner claim_owner;
