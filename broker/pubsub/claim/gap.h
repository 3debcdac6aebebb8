/* A gap: items that a subscription was owed and that were given up (docs/protocol.md 1.4, 1.6). The subscriber is told in
 * front of what it is still owed, and again to each session until one has acknowledged it; where items are acknowledged
 * one by one also within a session, as those are. It stands beside the cursor in the store, so it survives with it. Called
 * by claim.c, acked.c, settle.c and backlog.c. Private to broker/pubsub. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct subscription;

enum gap_reason { GAP_BYTES, GAP_AGE };

struct gap_range {
    uint64_t first, last; /* last 0: nothing */
};

struct gap {
    uint64_t first, last;   /* all items given up that the subscriber does not know of; last 0: none */
    struct gap_range told;  /* of these, what the session that holds the claim was told … */
    struct gap_range since; /* … and what was given up after that */
    uint64_t due_us;        /* told: when it is told again, unless acknowledged; 0: with what is sent next */
    uint64_t behind;        /* one by one: sendings of items before it was told (window.h) */
    uint32_t attempts;      /* how often it may have been told */
    uint8_t reason;         /* enum gap_reason */
};

/* As the store has it. */
void gap_restore(struct subscription *subscription, uint64_t first, uint64_t last, uint8_t reason);
void gap_add(struct subscription *subscription, uint64_t first, uint64_t last, enum gap_reason reason);
/* Everything above seq that the node has is owed again, and so not missing; no session holds the claim. */
void gap_rewound(struct subscription *subscription, uint64_t seq);
bool gap_send(struct subscription *subscription); /* false: not now, memory is short */
/* In order of publishing: the item is behind a gap that is told first, or next, when the one that is told was acknowledged. */
bool gap_hides(const struct subscription *subscription, uint64_t seq);
void gap_stalled(struct subscription *subscription,
                 uint64_t unsent);                               /* the session took nothing from there on */
void gap_acked(struct subscription *subscription, uint64_t seq); /* it acknowledged everything up to seq */
void gap_lost(struct subscription *subscription);                /* the session holds the claim no longer */

/* Where single items are acknowledged. Each says whether `seq` means the gap that was told. */
bool gap_settled(struct subscription *subscription, uint64_t seq, bool cumulative); /* it is done */
/* Told again after the delay or, where there is none (NULL), the pause of the subscription. */
bool gap_returned(struct subscription *subscription, uint64_t seq, const uint64_t *delay_us);
bool gap_extended(struct subscription *subscription,
                  uint64_t seq);                              /* it waits anew for its acknowledgement */
uint64_t gap_due_us(const struct subscription *subscription); /* WINDOW_NEVER: nothing is due */
/* It goes with what is sent next if its time has come. */
void gap_come_due(struct subscription *subscription, uint64_t now_us);
