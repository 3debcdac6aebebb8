/* A gap: items that a subscription was owed and that were given up (docs/protocol.md 1.4, 1.6). The subscriber is told in
 * front of what it is still owed, and again to each session until one has acknowledged it. It stands beside the cursor in
 * the store, so it survives with it. Called by claim.c and backlog.c. Private to broker/pubsub. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct subscription;

enum gap_reason { GAP_BYTES, GAP_AGE };

struct gap {
    uint64_t first, last; /* items given up that the subscriber does not know of; last 0: none */
    uint64_t told;        /* up to here the session that holds the claim was told; 0: it was told nothing */
    uint8_t reason;       /* enum gap_reason */
    uint32_t attempts;    /* how often it may have been told */
    uint64_t behind;      /* one by one: sendings of items before it was told (window.h) */
};

/* As the store has it. */
void gap_restore(struct subscription *subscription, uint64_t first, uint64_t last, uint8_t reason);
void gap_add(struct subscription *subscription, uint64_t first, uint64_t last, enum gap_reason reason);
bool gap_send(struct subscription *subscription); /* false: not now, memory is short */
void gap_stalled(struct subscription *subscription,
                 uint64_t unsent);                               /* the session took nothing from there on */
void gap_acked(struct subscription *subscription, uint64_t seq); /* it acknowledged everything up to seq */
/* The same where single items are acknowledged: does this acknowledgement mean the gap? Then it is done. */
bool gap_settled(struct subscription *subscription, uint64_t seq, bool cumulative);
void gap_lost(struct subscription *subscription); /* the session holds the claim no longer */
