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
    uint64_t recorded, recorded_gap; /* the cursor and the end of the gap that the store knows, or will */
    uint64_t dead_lettered;
};

/* NULL: memory is short. */
struct acked *acked_new(struct subscription *subscription, uint64_t hash_seed);
void acked_free(struct acked **acked);
/* A row of STORE_CLAIMS, after claim_restore. false: memory is short. */
bool acked_restore(struct subscription *subscription, uint64_t seq, const struct store_claim *row);
