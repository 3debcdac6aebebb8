/* The outbox of a session and its XEP-0198 queue in one: entries wait to be sent, then wait to be
 * acknowledged.
 *
 * A FIFO with three positions, acked <= sent <= tail, in chunks of 64 entries, so that queueing costs no
 * allocation per entry and an empty queue costs nothing. Belongs to one thread; chunks come from a pool
 * shared by the queues of that thread. Each entry names its claim: what the broker owes to somebody, to be
 * settled or given back (design section 6).
 *
 * With stream management on (xy_sm_queue_keep), sent entries stay until acknowledged; off, they leave when
 * sent. Entries marked XY_SM_UNCOUNTED (<enabled/>, <a/>, <r/>) are never kept and never counted. */
#pragma once

#include "core/base/bytes.h"
#include "core/sm/sm.h"

#define XY_SM_CHUNK_ENTRIES 64u

/* In aux: not a stanza. The other bits are the owner's. */
#define XY_SM_UNCOUNTED (UINT64_C(1) << 63)

struct xy_sm_entry {
    struct xy_bytes *bytes;
    uint64_t claim;
    uint64_t aux;
};

struct xy_sm_chunk;

/* Spare chunks of one thread. Zero-initialise, set spare_max, free at the end. */
struct xy_sm_pool {
    struct xy_sm_chunk *spare;
    unsigned spare_count;
    unsigned spare_max; /* 0: keep none */
};
void xy_sm_pool_free(struct xy_sm_pool *pool);

struct xy_sm_queue {
    struct xy_sm_pool *pool;
    struct xy_sm_chunk *head; /* holds position `acked` */
    struct xy_sm_chunk *next; /* holds position `sent`, if there is anything unsent */
    struct xy_sm_chunk *last;
    uint64_t acked, sent, tail; /* positions, counted in entries since the queue began */
    size_t bytes_unsent;        /* waiting to be sent */
    size_t bytes_kept;          /* sent, waiting for the peer's <a/> */
    bool keep;
};

void xy_sm_queue_init(struct xy_sm_queue *queue, struct xy_sm_pool *pool);

/* Stream management goes on (before the first entry that shall be counted is pushed) or off. */
void xy_sm_queue_keep(struct xy_sm_queue *queue, bool keep);

/* Takes over the reference in entry.bytes. false: memory is short, nothing was taken. */
bool xy_sm_push(struct xy_sm_queue *queue, struct xy_sm_entry entry);

/* The next entry to write, without and with advancing. *out holds a reference of its own, for the caller to
 * give back when the socket took the bytes. `sm` counts it if it is a stanza and stream management is on. */
const struct xy_sm_entry *xy_sm_peek_unsent(const struct xy_sm_queue *queue);
bool xy_sm_next_unsent(struct xy_sm_queue *queue, struct xy_sm *sm, struct xy_sm_entry *out);

/* Called once per entry; the queue drops its reference afterwards unless the callback takes it by setting
 * bytes to NULL. `sent`: whether the entry had been sent on the current stream. The callback of
 * xy_sm_queue_ack may push, and may be NULL. */
typedef void xy_sm_entry_fn(struct xy_sm_entry *entry, bool sent, void *ctx);

/* An h came: settles the entries it covers, oldest first. fn NULL: nobody wants to know. */
enum xy_sm_verdict xy_sm_queue_ack(struct xy_sm_queue *queue, struct xy_sm *sm, uint32_t h,
                                   xy_sm_entry_fn *fn, void *ctx);
/* The stream was resumed and its h acknowledged: what is kept is unsent again, before what never was sent. */
void xy_sm_queue_rewind(struct xy_sm_queue *queue, struct xy_sm *sm);

/* Every entry, sent or not, oldest first: looking only, and taking all out (the session ends). */
void xy_sm_queue_each(struct xy_sm_queue *queue, xy_sm_entry_fn *fn, void *ctx);
void xy_sm_queue_drain(struct xy_sm_queue *queue, xy_sm_entry_fn *fn, void *ctx); /* fn NULL: just free */

static inline bool xy_sm_queue_empty(const struct xy_sm_queue *queue)
{
    return queue->acked == queue->tail;
}
