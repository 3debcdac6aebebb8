/* Subscriptions whose items are acknowledged one by one, by receipt (XEP-0184) or explicitly (docs/protocol.md 1.5): an
 * implementer of struct claim_ops over a window. Private to broker/pubsub. */
#pragma once

#include "broker/pubsub/claim/backoff.h"
#include "broker/pubsub/claim/claim.h"
#include "broker/pubsub/claim/window.h"
#include "broker/store/store.h"

struct acked {
    struct window window;
    struct subscription *subscription;
    struct shard_timer timer; /* what is due next */
    struct backoff backoff;
    uint64_t recorded; /* the cursor and the gap that the store knows, or will */
    struct gap_range recorded_gap;
    uint64_t dead_lettered;
};

/* NULL: memory is short. */
struct acked *acked_new(struct subscription *subscription, uint64_t hash_seed);
void acked_free(struct acked **acked);
/* When what is sent now comes again unless acknowledged; WINDOW_NEVER: not by itself, as with ack=stream. */
uint64_t acked_deadline_us(const struct subscription *subscription);
/* How long what was sent so often waits before it comes again. */
uint64_t acked_pause_us(const struct subscription *subscription, uint32_t attempts);
/* A row of STORE_CLAIMS, after claim_restore. false: memory is short. */
bool acked_restore(struct subscription *subscription, uint64_t seq, const struct store_claim *row);
