/* Room is reserved before the acknowledgement, never discovered after it: store_room compares what somebody wants to
 * append with what log, tables and disk can still take, less what is in flight. The commit thread looks the disk up a
 * few times a second while anything moves, and goes on looking while room is refused, so it recovers by itself. */
#include "broker/store/internal.h"

#include "broker/store/record.h"

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static uint64_t lesser(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Somebody should know why publishers are refused. Below STORE_ROOM_TOLD_BYTES it is no passing shortage. */
static void tell(struct store *store, uint64_t room, bool refused)
{
    bool full = room < STORE_ROOM_TOLD_BYTES && (refused || store->full_told);
    if (full == store->full_told)
        return;
    store->full_told = full;
    if (store->options.full != NULL)
        store->options.full(store->options.ctx, full);
}

/* What is in the log and not yet in the tables will need its place there. */
void space_refresh(struct store *store)
{
    uint64_t unwritten = atomic_load_explicit(&store->unwritten_bytes, memory_order_relaxed);
    uint64_t log_bytes = store->log->ops->bytes(store->log);
    uint64_t files = lesser(store->log->ops->room(store->log),
                            less(store->tables->ops->room(store->tables), unwritten * 2));
    uint64_t room = lesser(files / STORE_ROOM_FACTOR, less(store->options.log_bytes_max, log_bytes));
    atomic_store_explicit(&store->room, room, memory_order_relaxed);
    tell(store, room, atomic_load_explicit(&store->refused_lately, memory_order_relaxed));
    if (room > 0)
        atomic_store_explicit(&store->refused_lately, false, memory_order_relaxed);
    store->room_looked_us = xy_now_us(store->options.env);
}

void space_committed(struct store *store, uint64_t bytes)
{
    atomic_fetch_add_explicit(&store->unwritten_bytes, bytes, memory_order_relaxed);
    if (xy_now_us(store->options.env) - store->room_looked_us >= STORE_ROOM_US)
        space_refresh(store);
    else
        atomic_store_explicit(&store->room,
                              less(atomic_load_explicit(&store->room, memory_order_relaxed), bytes),
                              memory_order_relaxed);
}

static bool fits(struct store_shard *shard, size_t bytes)
{
    struct store *store = shard->store;
    uint64_t in_flight = atomic_load_explicit(&store->queue_bytes, memory_order_relaxed) +
                         (shard->open != NULL ? shard->open->records.len : 0);
    uint64_t room = atomic_load_explicit(&store->room, memory_order_relaxed);
    return in_flight + bytes + RECORD_HEADER_BYTES <= lesser(room, STORE_QUEUE_BYTES_MAX);
}

bool store_room(struct store_shard *shard, size_t bytes)
{
    struct store *store = shard->store;
    if (store_failed(store))
        return false;
    if (fits(shard, bytes))
        return true;
    atomic_fetch_add_explicit(&store->refused, 1, memory_order_relaxed);
    if (!store->options.threads) {
        space_refresh(store);
        return fits(shard, bytes);
    }
    if (!atomic_exchange_explicit(&store->refused_lately, true, memory_order_relaxed)) {
        pthread_mutex_lock(&store->lock);
        pthread_cond_signal(&store->commit_wake);
        pthread_mutex_unlock(&store->lock);
    }
    return false;
}
