/* The chunked FIFO behind an outbox. Entries between acked and sent are kept for resumption; an entry that
 * left early (not a stanza, or stream management is off) stays behind as a hole without bytes until the head
 * passes it.
 *
 * Chunks go back to the pool as soon as the head leaves them, so an empty queue holds no memory. */
#include "core/sm/queue.h"

#include <stdlib.h>

#include "core/base/assert.h"

struct xy_sm_chunk {
    struct xy_sm_chunk *next;
    struct xy_sm_entry entries[XY_SM_CHUNK_ENTRIES];
};

void xy_sm_pool_free(struct xy_sm_pool *pool)
{
    while (pool->spare) {
        struct xy_sm_chunk *chunk = pool->spare;
        pool->spare = chunk->next;
        free(chunk);
    }
    pool->spare_count = 0;
}

static struct xy_sm_chunk *chunk_take(struct xy_sm_pool *pool)
{
    struct xy_sm_chunk *chunk = pool->spare;
    if (chunk) {
        pool->spare = chunk->next;
        pool->spare_count--;
    } else {
        chunk = malloc(sizeof *chunk);
    }
    if (chunk)
        chunk->next = NULL;
    return chunk;
}

static void chunk_give(struct xy_sm_pool *pool, struct xy_sm_chunk *chunk)
{
    if (pool->spare_count >= pool->spare_max) {
        free(chunk);
        return;
    }
    chunk->next = pool->spare;
    pool->spare = chunk;
    pool->spare_count++;
}

static struct xy_sm_entry *entry_at(struct xy_sm_chunk *chunk, uint64_t position)
{
    return &chunk->entries[position % XY_SM_CHUNK_ENTRIES];
}

static bool is_chunk_start(uint64_t position)
{
    return position % XY_SM_CHUNK_ENTRIES == 0;
}

void xy_sm_queue_init(struct xy_sm_queue *queue, struct xy_sm_pool *pool)
{
    *queue = (struct xy_sm_queue){ .pool = pool };
}

void xy_sm_queue_keep(struct xy_sm_queue *queue, bool keep)
{
    queue->keep = keep;
}

bool xy_sm_push(struct xy_sm_queue *queue, struct xy_sm_entry entry)
{
    xy_assert(entry.bytes != NULL);
    if (queue->last == NULL || is_chunk_start(queue->tail)) {
        struct xy_sm_chunk *chunk = chunk_take(queue->pool);
        if (!chunk)
            return false;
        if (queue->last)
            queue->last->next = chunk;
        else
            queue->head = chunk;
        queue->last = chunk;
    }
    if (queue->sent == queue->tail)
        queue->next = queue->last;
    *entry_at(queue->last, queue->tail) = entry;
    queue->tail++;
    queue->bytes_unsent += entry.bytes->len;
    return true;
}

/* Moves the head by one; the entry there is a hole or was taken out. */
static void head_advance(struct xy_sm_queue *queue)
{
    xy_assert(queue->acked < queue->tail);
    struct xy_sm_chunk *chunk = queue->head;
    queue->acked++;
    if (queue->sent < queue->acked)
        queue->sent = queue->acked;
    bool empty = queue->acked == queue->tail;
    if (!empty && !is_chunk_start(queue->acked))
        return;
    queue->head = empty ? NULL : chunk->next;
    if (queue->next == chunk)
        queue->next = queue->head;
    if (empty) {
        queue->last = queue->next = NULL;
        queue->acked = queue->sent = queue->tail = 0;
    }
    chunk_give(queue->pool, chunk);
}

static void head_skip_holes(struct xy_sm_queue *queue)
{
    while (queue->acked < queue->sent && entry_at(queue->head, queue->acked)->bytes == NULL)
        head_advance(queue);
}

/* On to the next entry to send: past holes (there are some ahead after a rewind), into the next chunk where
 * one ends. */
static void sent_advance(struct xy_sm_queue *queue)
{
    do {
        queue->sent++;
        if (queue->sent == queue->tail)
            queue->next = NULL;
        else if (is_chunk_start(queue->sent))
            queue->next = queue->next->next;
    } while (queue->sent < queue->tail && entry_at(queue->next, queue->sent)->bytes == NULL);
}

const struct xy_sm_entry *xy_sm_peek_unsent(const struct xy_sm_queue *queue)
{
    if (queue->sent == queue->tail)
        return NULL;
    const struct xy_sm_entry *entry = entry_at(queue->next, queue->sent);
    xy_assert(entry->bytes != NULL);
    return entry;
}

bool xy_sm_next_unsent(struct xy_sm_queue *queue, struct xy_sm *sm, struct xy_sm_entry *out)
{
    if (queue->sent == queue->tail)
        return false;
    struct xy_sm_entry *entry = entry_at(queue->next, queue->sent);
    bool counts = queue->keep && (entry->aux & XY_SM_UNCOUNTED) == 0;
    *out = *entry;
    queue->bytes_unsent -= entry->bytes->len;
    sent_advance(queue);
    if (counts) {
        xy_bytes_ref(out->bytes);
        queue->bytes_kept += out->bytes->len;
        xy_sm_out(sm);
    } else {
        entry->bytes = NULL;
        head_skip_holes(queue);
    }
    return true;
}

enum xy_sm_verdict xy_sm_queue_ack(struct xy_sm_queue *queue, struct xy_sm *sm, uint32_t h,
                                   xy_sm_entry_fn *fn, void *ctx)
{
    uint32_t newly = 0;
    enum xy_sm_verdict verdict = xy_sm_ack(sm, h, &newly);
    while (newly > 0) {
        head_skip_holes(queue);
        xy_assert(queue->acked < queue->sent);
        struct xy_sm_entry entry = *entry_at(queue->head, queue->acked);
        queue->bytes_kept -= entry.bytes->len;
        head_advance(queue);
        newly--;
        if (fn)
            fn(&entry, true, ctx);
        xy_bytes_unref(&entry.bytes);
    }
    head_skip_holes(queue);
    return verdict;
}

void xy_sm_queue_rewind(struct xy_sm_queue *queue, struct xy_sm *sm)
{
    head_skip_holes(queue);
    queue->sent = queue->acked;
    queue->next = queue->head;
    queue->bytes_unsent += queue->bytes_kept;
    queue->bytes_kept = 0;
    xy_sm_rewind(sm);
}

void xy_sm_queue_each(struct xy_sm_queue *queue, xy_sm_entry_fn *fn, void *ctx)
{
    struct xy_sm_chunk *chunk = queue->head;
    for (uint64_t position = queue->acked; position < queue->tail; position++) {
        if (position != queue->acked && is_chunk_start(position))
            chunk = chunk->next;
        struct xy_sm_entry *entry = entry_at(chunk, position);
        if (entry->bytes)
            fn(entry, position < queue->sent, ctx);
    }
}

void xy_sm_queue_drain(struct xy_sm_queue *queue, xy_sm_entry_fn *fn, void *ctx)
{
    while (queue->acked < queue->tail) {
        struct xy_sm_entry entry = *entry_at(queue->head, queue->acked);
        bool sent = queue->acked < queue->sent;
        head_advance(queue);
        if (entry.bytes && fn)
            fn(&entry, sent, ctx);
        xy_bytes_unref(&entry.bytes);
    }
    queue->bytes_unsent = queue->bytes_kept = 0;
}
