/* Queue nodes (XEP-0254, docs/protocol.md 9): what ties the dispatch of queue_engine.h to a node, its consumers and the
 * store. Private to broker/pubsub.
 *
 * A node is a queue as long as node->queue is set. Its items are the node's items; the engine knows those that are not
 * plainly ready. A consumer is a subscription whose claim is of queue_ops: claim.c decides which session it is, the engine
 * what it gets.
 *
 *     queue.c          making, items coming and going, dispatch, time
 *     queue_consumer.c claims of consumers, settling what they have
 *     queue_dead.c     items that are given up
 *     queue_overflow.c room for what is published
 *     queue_record.c   states of items to the store and back
 *     queue_call.c     requests: retract, unlock
 *     queue_move.c     moving items to another node
 *     queue_state.c    requests of owners */
#pragma once

#include "broker/pubsub/claim/backoff.h"
#include "broker/pubsub/claim/deadletter.h"
#include "broker/pubsub/node/headers.h"
#include "broker/pubsub/node/node.h"
#include "broker/pubsub/node/retention.h"

#define QUEUE_RUN_MAX      128u                  /* items handed out in one go */
#define QUEUE_STATES_MAX   1024u                 /* in one record */
#define QUEUE_RECORD_US    (1000ull * 1000)      /* states of items are on disk after this */
#define QUEUE_RETRY_US     (1000ull * 1000)      /* when memory was short */
#define QUEUE_REQUESTS_MAX 10000u                /* items one consumer may have */
#define QUEUE_BURY_US      (10ull * 1000 * 1000) /* dead letters that were refused are tried again after this */
#define QUEUE_BURY_MAX     64u                   /* of them in one turn */
#define QUEUE_LOCK_S_MAX   604800u
#define QUEUE_LOOKS_MAX    16384u /* the oldest items, looked at for some that may leave */
#define QUEUE_LEAVING_MAX  1024u  /* items on their way to the dead letters because the queue is full */

struct queue_figures { /* since the broker started */
    uint64_t redelivered, acknowledged, timed_out, expired, dead_lettered, dropped;
};

struct
    queue_leaving { /* items that make room, and are still there: their letters are under way, or were refused */
    uint64_t items, bytes;
};

struct queue {
    struct node *node;
    struct xy_list link; /* pubsub->queues */
    struct queue_engine *engine;
    struct backoff backoff;
    struct shard_timer timer;
    uint64_t restored_seq; /* items up to here may have been sent before the broker started */
    uint64_t record_us;    /* when what is dirty goes to the store; QUEUE_NEVER: nothing is */
    uint64_t bury_us;      /* when parked items are looked at for dead letters; QUEUE_NEVER: not */
    struct xy_list dirty;  /* entries whose state is to be recorded */
    struct xy_buf taken;   /* seqs (uint64_t) of items that are acknowledged and not recorded yet */
    struct xy_buf ended;   /* seqs (uint64_t) whose stored state is to go */
    struct xy_buf parked;  /* seqs (uint64_t) to be parked when the node is loaded */
    bool run_queued;
    struct queue_figures figures;
    struct queue_leaving leaving;
};

/* A consumer: what hangs on its subscription. */
struct queue_worker {
    struct queue_consumer consumer;
    struct subscription *subscription;
};

/* --- queue.c ------------------------------------------------------------------------------------------------------- */
/* The node is one from now on; its configuration says so and there are neither items nor subscriptions. false: memory is
 * short. */
bool queue_make(struct node *node);
/* The engine is left to the caller, as it may be large (remains.h). NULL ok. */
void queue_free(struct queue **queue, struct queue_engine **engine);
void queue_stop(struct queue *queue); /* the node goes away: nothing is handed out any more. NULL ok */
void queue_configured(struct queue *queue);
/* What a configuration must keep to; NULL: it does, else what to say about *field. `node` is NULL for a new one. `config`
 * is made consistent: what does not fit a queue is changed. */
const char *queue_config_check(const struct node *node, struct node_config *config,
                               const struct xy_form *form, struct xy_str *field);
/* An item was added and its record is about to be written. false: memory is short. */
bool queue_item_added(struct queue *queue, const struct item *item, const struct item_traits *traits);
/* All items go at once; so do their states, in the store too. *engine, what is left of them, is the caller's. false: memory is short. */
bool queue_forget_items(struct queue *queue, struct queue_engine **engine);
void queue_item_gone(struct queue *queue, const struct item *item); /* for whatever reason */
void queue_item_committed(struct queue *queue, uint64_t seq);
/* Of an item that may be plain, which it is no more then. NULL: memory is short. */
struct queue_entry *queue_entry_of(struct queue *queue, uint64_t seq);
void queue_touch(struct queue *queue); /* something changed: hand out what can be, soon */

/* --- queue_consumer.c ---------------------------------------------------------------------------------------------- */
extern const struct claim_ops queue_ops;
/* The subscription is a consumer from now on. false: memory is short. */
bool queue_join(struct subscription *subscription);
void queue_worker_changed(struct subscription *subscription); /* its options are others */
/* An entry that was locked and is not done goes back, or where items go that were sent too often. For both of these
 * the caller calls claim_settled for who had it, when it is done with the items. */
enum queue_back { QUEUE_BACK_NACK, QUEUE_BACK_TIMEOUT, QUEUE_BACK_LOST };
#define QUEUE_DELAY_DEFAULT UINT64_MAX /* as `backoff` says */
void queue_give_back(struct queue *queue, struct queue_entry *entry, enum queue_back why, uint64_t delay_s);
void queue_take(struct queue *queue, struct item *item); /* out of the queue; the record is the caller's */
/* Tells the consumer alone, once the node's newest record is on disk. Takes the event; NULL ok. */
void queue_tell(struct queue *queue, const struct subscription *consumer, struct event **event);
struct subscription *queue_holder(const struct queue_entry *entry); /* who has it; NULL: nobody */

/* --- queue_state.c ------------------------------------------------------------------------------------------------- */
/* Of all queues in memory here. Looks at each of them, at none of their items. */
void queue_totals(const struct pubsub *pubsub, struct pubsub_stats *out);

/* --- queue_dead.c -------------------------------------------------------------------------------------------------- */
/* It is not sent any more: parked, and on its way to the dead letters if there is a node for them. */
void queue_bury(struct queue *queue, struct queue_entry *entry, enum dead_reason reason);
void queue_bury_parked(struct queue *queue); /* those that are parked, too: their time has come */

/* --- queue_overflow.c ---------------------------------------------------------------------------------------------- */
bool queue_drops(
    const struct queue *queue); /* its oldest items make room for others (overflow=drop-oldest) */
bool queue_may_drop(const struct queue *queue, const struct item *item);
/* Enough of them may leave for so many more items and bytes. */
bool queue_has_room(const struct queue *queue, uint64_t items, uint64_t bytes);
/* They leave. What is not on its way to the dead letters is in `evicted`. */
void queue_make_room(struct queue *queue, uint64_t items, uint64_t bytes, struct evicted *evicted);
bool queue_trim(struct queue *queue); /* with its records; true: there is more */
/* The item is gone, or begins anew. NULL ok: an entry that was none of those that make room. */
void queue_leaves_no_more(struct queue *queue, const struct queue_entry *entry, const struct item *item);

/* --- queue_move.c -------------------------------------------------------------------------------------------------- */
bool queue_is_moving(const struct node *node); /* its owner moves items of it, of a queue or not */
void queue_moves_free(struct pubsub *pubsub);

/* --- queue_record.c ------------------------------------------------------------------------------------------------ */
void queue_dirty(struct queue *queue,
                 struct queue_entry *entry); /* its state is to be recorded, within a second */
void queue_record_soon(struct queue *queue);
void queue_record(struct queue *queue, bool lazily); /* all that is dirty */
/* Acknowledged items; if somebody waits for it, also all that is dirty. */
void queue_record_taken(struct queue *queue, bool lazily);
/* While a node is loaded: what was stored about an item that was read; all were. */
void queue_restore_state(struct queue *queue, uint64_t seq, struct xy_str value);
void queue_restored(struct queue *queue);

/* The engine's clock, and a wall time on it. */
uint64_t queue_now_us(const struct queue *queue);
uint64_t queue_engine_time(const struct queue *queue, uint64_t wall_us);
