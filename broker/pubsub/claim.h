/* Claims of at-least-once subscriptions: which session holds one, and how what is owed is sent and settled.
 *
 * claim.c decides who holds (docs/protocol.md 1.3) and talks to sessions as broker/delivery/delivery.h shows; it is the
 * same for every subscription that owes. What is sent next and what an acknowledgement ends is a table of functions:
 * durable.c in the order of publishing, acknowledged by XEP-0198. Private to broker/pubsub. */
#pragma once

#include "broker/delivery/delivery.h"
#include "broker/pubsub/gap.h"

#define BLOCKED_US     (1000u * 1000)
#define LEAVING_US_MAX (10ull * 1000 * 1000) /* then it moves anyway; the rest is sent again */

struct node;
struct start;
struct subscription;

enum claim_state {
    CLAIM_DETACHED,  /* no session */
    CLAIM_ATTACHING, /* asked a session to hold it */
    CLAIM_WAITING,   /* a page is out; goes on when the session says ready */
    CLAIM_LIVE,      /* caught up: part of the routes */
    CLAIM_STALLED,   /* the session had no room; goes on when it says ready */
    CLAIM_BLOCKED,   /* what comes next could not be read now; tried again by the timer */
    CLAIM_LEAVING,   /* a better session is there: nothing more is sent, moves when all is acknowledged */
};

struct claim {
    const struct claim_ops *ops; /* NULL: nothing is owed (at most once) */
    enum claim_state state;
    struct shard_timer timer; /* LEAVING: moves anyway; BLOCKED: tries again */
    struct session_ref session;
    struct session_ref refused; /* ended, but possibly still among the sessions we know */
    uint32_t index;             /* in the session's table */
    uint16_t run;
    uint32_t attempts; /* of what may have been sent before: 2 or more then */
    uint64_t cursor;   /* acknowledged up to here */
    uint64_t sent;     /* of the current run, unless live: then it is node.delivered_seq */
    uint64_t sent_max; /* ever, as far as is known: up to here it is a redelivery */
    bool moved;        /* cursor not recorded yet */
    struct gap gap;
};

/* How a subscription's items are sent and settled. All are called on the node's shard. */
struct claim_ops {
    bool sm_only;   /* only sessions with XEP-0198 may hold it */
    unsigned flags; /* CLAIM_* of delivery.h */
    /* What was sent and not settled comes again: the session holds it no longer. */
    void (*lost)(struct subscription *subscription);
    /* A session holds it and has got nothing yet. */
    void (*attached)(struct subscription *subscription);
    /* Sends what may be sent now and sets the state: LIVE, WAITING or BLOCKED. Nothing of the run is under way out of
     * order. */
    void (*send)(struct subscription *subscription);
    /* The session took nothing from item `unsent` of the run on. 0: it took none. */
    void (*stalled)(struct subscription *subscription, uint64_t unsent);
    /* The receiver's XEP-0198 covered everything up to seq. */
    void (*received)(struct subscription *subscription, uint64_t seq);
    bool (*in_flight)(const struct subscription *subscription); /* sent to this session and not settled */
    /* What is owed up to seq is given up (backlog.c). */
    void (*skip)(struct subscription *subscription, uint64_t seq);
    /* Nothing is owed any more; no session holds it. */
    void (*forget)(struct subscription *subscription);
};
extern const struct claim_ops durable_ops; /* ack=stream */

/* --- claim.c ------------------------------------------------------------------------------------------------------- */
uint64_t claim_start_seq(const struct node *node, const struct start *start); /* the cursor to begin with */
void claim_begin(struct subscription *subscription, uint64_t cursor); /* it is at-least-once from now on */
/* The same for one that was read from the store, once its cursor and the node's items are. */
void claim_restore(struct subscription *subscription);
void claim_end(struct subscription *subscription);              /* no longer, or going away */
void claim_sessions_changed(struct subscription *subscription); /* also when it became active */
void claim_skip(struct subscription *subscription, uint64_t seq);
/* The session that holds it, if any, gets everything anew that it has not acknowledged. */
void claim_restart(struct subscription *subscription);
/* Claims that are live on that shard are not: what is published next goes to them when there is memory again. */
void claim_unroute(struct node *node, unsigned shard);
/* Something was settled: one that leaves may move now. For implementers of claim_ops, as those below. */
void claim_settled(struct subscription *subscription);
void claim_set_state(struct subscription *subscription, enum claim_state state);
/* What comes next could not be sent: the run pauses in front of it, because whatever is sent behind it and acknowledged
 * would end it too. */
void claim_block(struct subscription *subscription);
extern const struct delivery_owner claim_owner;
