/* Each fault is one function in the place of an entry of a table of calls; the table that it replaces is kept beside it,
 * so that the function can do what should be done, and then something else. */
#include "tests/sim/faults.h"

#include <stdlib.h>

#include "broker/delivery/delivery.h"
#include "broker/delivery/sessions.h"
#include "broker/pubsub/node/node.h"
#include "broker/pubsub/node/resident.h"
#include "broker/router/address.h"
#include "broker/store/internal.h"
#include "core/base/assert.h"

#define FAULT_EVERY 7u

const char *const sim_fault_names[SIM_FAULT_COUNT] = {
    [SIM_FAULT_NONE] = "none",
    [SIM_FAULT_LYING_DISK] = "lying-disk",
    [SIM_FAULT_LOST_RECORD] = "lost-record",
    [SIM_FAULT_LOST_CLAIM] = "lost-claim",
    [SIM_FAULT_SWAP] = "swap",
    [SIM_FAULT_TWICE] = "twice",
    [SIM_FAULT_WRONG_H] = "wrong-h",
    [SIM_FAULT_FORGOTTEN_CLAIM] = "forgotten-claim",
    [SIM_FAULT_LOST_CURSOR] = "lost-cursor",
    [SIM_FAULT_EARLY_CURSOR] = "early-cursor",
    [SIM_FAULT_EARLY_COMMIT] = "early-commit",
    [SIM_FAULT_RESUME_ORDER] = "resume-order",
    [SIM_FAULT_NO_REFUSAL] = "no-refusal",
    [SIM_FAULT_LOST_LETTER] = "lost-letter",
    [SIM_FAULT_WRONG_LETTER] = "wrong-letter",
    [SIM_FAULT_LATE_EXPIRY] = "late-expiry",
    [SIM_FAULT_LOST_REPLAY] = "lost-replay",
    [SIM_FAULT_LOST_RECEIPT] = "lost-receipt",
    [SIM_FAULT_NO_DELAY] = "no-delay",
    [SIM_FAULT_NO_REQUEST] = "no-request",
    [SIM_FAULT_OLD_ERA] = "old-era",
    [SIM_FAULT_LOST_BURIAL] = "lost-burial",
    [SIM_FAULT_SMALL_QUOTA] = "small-quota",
    [SIM_FAULT_LARGE_QUOTA] = "large-quota",
    [SIM_FAULT_NO_REJECTION] = "no-rejection",
    [SIM_FAULT_SMALL_QUEUE] = "small-queue",
};

struct sim_planted {
    struct session_calls calls;
    const struct session_calls *calls_true;
    struct delivery_owner owner;
    const struct delivery_owner *owner_true;
    bool early_commit;
    unsigned count;
    struct session_ref held_for;
    struct xy_bytes *held;
    uint64_t held_seq;
};

static struct sim_planted *planted_of(const struct shard *shard)
{
    return xy_container_of(shard->session_calls, struct sim_planted, calls);
}

/* The entry is settled as if the recipient had acknowledged it. */
static void lose_claim(struct shard *shard, struct session_ref session, struct xy_str bare,
                       struct xy_bytes **stanza, uint64_t mailbox_seq)
{
    struct sim_planted *planted = planted_of(shard);
    if (mailbox_seq == 0 || ++planted->count % FAULT_EVERY != 0) {
        planted->calls_true->send_message(shard, session, bare, stanza, mailbox_seq);
        return;
    }
    address_acked(shard, bare, &mailbox_seq, 1);
    xy_bytes_unref(stanza);
}

/* One is held back until the next one for the same session has gone. */
static void swap(struct shard *shard, struct session_ref session, struct xy_str bare,
                 struct xy_bytes **stanza, uint64_t mailbox_seq)
{
    struct sim_planted *planted = planted_of(shard);
    if (planted->held == NULL && ++planted->count % FAULT_EVERY == 0) {
        planted->held = *stanza;
        planted->held_for = session;
        planted->held_seq = mailbox_seq;
        *stanza = NULL;
        return;
    }
    planted->calls_true->send_message(shard, session, bare, stanza, mailbox_seq);
    if (planted->held && session_ref_eq(planted->held_for, session))
        planted->calls_true->send_message(shard, session, bare, &planted->held, planted->held_seq);
}

static void send_twice(struct shard *shard, struct session_ref session, struct xy_str bare,
                       struct xy_bytes **stanza, uint64_t mailbox_seq)
{
    struct sim_planted *planted = planted_of(shard);
    struct xy_bytes *copy = ++planted->count % FAULT_EVERY == 0 ? xy_bytes_ref(*stanza) : NULL;
    planted->calls_true->send_message(shard, session, bare, stanza, mailbox_seq);
    if (copy)
        planted->calls_true->send(shard, session, &copy);
    xy_bytes_unref(&copy);
}

static void acked_early(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t seq)
{
    const struct sim_planted *planted = planted_of(shard);
    planted->owner_true->acked(shard, key, session, seq);
    planted->owner_true->acked(shard, key, session, seq + 1);
}

static void acked_lost(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t seq)
{
    struct sim_planted *planted = planted_of(shard);
    if (++planted->count % FAULT_EVERY != 0)
        planted->owner_true->acked(shard, key, session, seq);
}

/* What was received before a replay ends what it owes. */
static struct claim_key newest_era(const struct shard *shard, struct claim_key key)
{
    const struct node *node = node_by_number(shard->pubsub, key.node);
    const struct subscription *subscription = node != NULL ? node_subscription(node, key.subscription) : NULL;
    if (subscription != NULL)
        key.era = subscription->era;
    return key;
}

static void acked_of_old(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t seq)
{
    planted_of(shard)->owner_true->acked(shard, newest_era(shard, key), session, seq);
}

static void received_of_old(struct shard *shard, struct xy_str name, struct claim_key key, uint64_t seq)
{
    struct node *node;
    (void)resident_find(shard->pubsub, name, &node); /* so that its era is known */
    planted_of(shard)->owner_true->received_before(shard, name, newest_era(shard, key), seq);
}

static void released_early(struct shard *shard, struct claim_key key, struct session_ref session,
                           uint64_t acked)
{
    struct sim_planted *planted = planted_of(shard);
    planted->owner_true->acked(shard, key, session, acked + 1);
    planted->owner_true->released(shard, key, session, acked + 1);
}

struct sim_planted *sim_faults_plant(struct sim_world *world, struct shard *shard)
{
    struct sim_planted *planted = calloc(1, sizeof(*planted));
    xy_assert(planted != NULL);
    planted->calls = *shard->session_calls;
    planted->calls_true = shard->session_calls;
    shard->session_calls = &planted->calls;
    if (shard->delivery_owner) {
        planted->owner = *shard->delivery_owner;
        planted->owner_true = shard->delivery_owner;
        shard->delivery_owner = &planted->owner;
    }
    planted->early_commit = world->options.fault == SIM_FAULT_EARLY_COMMIT;
    if (world->options.fault == SIM_FAULT_LOST_CLAIM)
        planted->calls.send_message = lose_claim;
    else if (world->options.fault == SIM_FAULT_SWAP)
        planted->calls.send_message = swap;
    else if (world->options.fault == SIM_FAULT_TWICE)
        planted->calls.send_message = send_twice;
    else if (world->options.fault == SIM_FAULT_EARLY_CURSOR)
        planted->owner.acked = acked_early;
    else if (world->options.fault == SIM_FAULT_LOST_CURSOR)
        planted->owner.acked = acked_lost;
    else if (world->options.fault == SIM_FAULT_FORGOTTEN_CLAIM)
        planted->owner.released = released_early;
    else if (world->options.fault == SIM_FAULT_OLD_ERA) {
        planted->owner.acked = acked_of_old;
        planted->owner.received_before = received_of_old;
    }
    return planted;
}

void sim_faults_turn(struct sim_planted *planted, struct shard *shard)
{
    if (planted->early_commit && ++planted->count % FAULT_EVERY == 0)
        atomic_store(&shard->store->committed, store_ticket(shard->store));
}

void sim_faults_free(struct sim_planted **planted)
{
    if (*planted)
        xy_bytes_unref(&(*planted)->held);
    free(*planted);
    *planted = NULL;
}
