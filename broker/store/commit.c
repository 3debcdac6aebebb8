/* The commit thread: takes everything that gathered during the last commit, appends it to the log, syncs, and only then
 * says so. The step between "synced" and "published" is the one that every acknowledgement of the broker rests on:
 * store->log->commit returns when the bytes are on stable storage, and nothing else moves shard->committed.
 *
 * No timer: an idle disk commits the first batch at once, a busy one gathers exactly as much as it needs. The same round
 * is called by hand when the store runs without threads. */
#include "broker/store/internal.h"

#include <sched.h>

#include "core/base/assert.h"

static struct store_batch *take_queue(struct store *store)
{
    struct store_batch *first = store->queue, **link = &store->queue;
    size_t bytes = 0;
    while (*link != NULL && bytes < STORE_COMMIT_BYTES) {
        bytes += (*link)->records.len;
        link = &(*link)->next;
    }
    store->queue = *link;
    if (store->queue == NULL)
        store->queue_tail = &store->queue;
    *link = NULL;
    return first;
}

static enum store_io append_batch(struct store *store, struct store_batch *batch)
{
    size_t start = 0, count = batch->ends.len / sizeof(uint32_t);
    for (size_t i = 0; i < count; i++) {
        uint32_t end;
        memcpy(&end, batch->ends.data + i * sizeof(end), sizeof(end));
        xy_assert(end > start && end <= batch->records.len);
        enum store_io io = store->log->ops->append(store->log, store->position + 1,
                                                   xy_str_n(batch->records.data + start, end - start));
        if (io != STORE_IO_OK)
            return io;
        store->position++;
        start = end;
    }
    xy_assert(start == batch->records.len);
    batch->position = store->position;
    return STORE_IO_OK;
}

/* Where the log may be cut: what a backup has not copied yet stays, unless the log is half full and much of that waits for
 * the copy. Then it has lost, not those who publish. store->lock is held. */
static uint64_t cut_limit(struct store *store)
{
    if (store->held_from >= store->cut_upto)
        return store->cut_upto;
    uint64_t held_bytes_max = (store->cut_upto - store->held_from) * STORE_ENTRY_BYTES;
    if (store->log->ops->bytes(store->log) <= store->options.log_bytes_max / 2 ||
        held_bytes_max <= store->options.log_bytes_max / 4)
        return store->held_from;
    store->hold_broken = true;
    store->held_from = UINT64_MAX;
    return store->cut_upto;
}

/* Frees the head of the log a little at a time, so that no commit takes much longer for it. */
static enum store_io cut_slice(struct store *store, uint64_t upto)
{
    enum { STEP = 16 };
    const struct xy_env *env = store->options.env;
    uint64_t start_us = xy_now_us(env);
    for (unsigned total = 0; total < STORE_CUT_ENTRIES; total += STEP) {
        unsigned removed = 0;
        enum store_io io = store->log->ops->cut(store->log, upto, STEP, &removed);
        if (io != STORE_IO_OK)
            return io;
        if (removed < STEP) {
            store->cut_done = upto;
            break;
        }
        if (xy_now_us(env) - start_us >= STORE_CUT_US)
            break;
    }
    return STORE_IO_OK;
}

/* Of one commit. */
struct committed {
    uint64_t records, bytes;
};

/* Everything taken is durable: tell the shards. Returns what was committed. */
static struct committed publish(struct store *store, struct store_batch *batches)
{
    uint64_t bytes = 0, records = 0;
    bool marked = false;
    for (struct store_batch *batch = batches; batch != NULL; batch = batch->next) {
        struct store_shard *shard = batch->shard;
        bytes += batch->records.len;
        records += batch->record_count;
        atomic_store_explicit(&shard->committed, batch->ticket, memory_order_release);
        store->woken[shard->index] = true;
        if (batch->marker) {
            shard->marked_at = batch->position;
            atomic_store_explicit(&shard->freeze, FREEZE_MARKED, memory_order_release);
            marked = true;
        }
    }
    atomic_store_explicit(&store->position_committed, store->position, memory_order_release);
    atomic_fetch_sub_explicit(&store->queue_bytes, bytes, memory_order_relaxed);

    pthread_mutex_lock(&store->lock);
    store->since_records += records;
    store->since_bytes += bytes;
    if (marked || store->since_records >= store->options.checkpoint_records ||
        store->since_bytes >= store->options.checkpoint_bytes)
        pthread_cond_signal(&store->checkpoint_wake);
    while (batches != NULL) {
        struct store_batch *batch = batches;
        batches = batch->next;
        batch->record_count = 0;
        if (batch->records.cap > STORE_BATCH_KEEP_BYTES)
            xy_buf_free(&batch->records);
        xy_buf_reset(&batch->records);
        xy_buf_reset(&batch->ends);
        batch->next = batch->shard->spare;
        batch->shard->spare = batch;
    }
    pthread_mutex_unlock(&store->lock);
    return (struct committed){ records, bytes };
}

static enum store_io write_log(struct store *store, struct store_batch *batches, uint64_t cut_upto)
{
    enum store_io io = STORE_IO_OK;
    for (struct store_batch *batch = batches; batch != NULL && io == STORE_IO_OK; batch = batch->next)
        io = append_batch(store, batch);
    if (io == STORE_IO_OK && cut_upto > store->cut_done)
        io = cut_slice(store, cut_upto);
    return io == STORE_IO_OK ? store->log->ops->commit(store->log) : io;
}

static void wake_shards(struct store *store)
{
    for (unsigned i = 0; i < store->options.shards; i++) {
        if (store->woken[i])
            store_wake(store, i);
        store->woken[i] = false;
    }
}

static void free_batches(struct store_batch *batch)
{
    while (batch != NULL) {
        struct store_batch *next = batch->next;
        batch_free(&batch);
        batch = next;
    }
}

static void measure(struct store *store, uint64_t start_us, struct committed what)
{
    uint64_t now_us = xy_now_us(store->options.env), took_us = now_us - start_us;
    atomic_fetch_add_explicit(&store->commits, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&store->records, what.records, memory_order_relaxed);
    atomic_fetch_add_explicit(&store->bytes, what.bytes, memory_order_relaxed);
    atomic_store_explicit(&store->commit_us_last, took_us, memory_order_relaxed);
    store_highest(&store->commit_us_max, took_us);
    if (what.records == 0)
        return; /* it only cut the log */
    histogram_add(&store->commit_us, took_us, now_us);
    histogram_add(&store->commit_records, what.records, now_us);
    histogram_add(&store->commit_bytes, what.bytes, now_us);
}

bool commit_round(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    struct store_batch *batches = take_queue(store);
    uint64_t cut_upto = cut_limit(store);
    pthread_mutex_unlock(&store->lock);
    if (batches == NULL && cut_upto <= store->cut_done)
        return false;
    if (store_failed(store)) {
        free_batches(batches);
        return false;
    }
    uint64_t start_us = xy_now_us(store->options.env);
    store_highest(&store->queue_bytes_max, atomic_load_explicit(&store->queue_bytes, memory_order_relaxed));
    if (write_log(store, batches, cut_upto) != STORE_IO_OK) {
        store->log->ops->abort(store->log);
        store_fail(store, "cannot commit the log", store->log->ops->error(store->log));
        free_batches(batches);
        return false;
    }
    struct committed what = publish(store, batches);
    measure(store, start_us, what);
    space_committed(store, what.bytes);
    wake_shards(store);
    return true;
}

/* To wake a thread whose core sleeps takes tens of microseconds, which is much of what a publisher that waits for each
 * answer is waiting for. So where work has been coming again that soon, it is looked for first, by nobody's leave:
 * whoever else wants the core gets it. */
static void look_for_work(struct store *store, uint64_t start_us)
{
    if (store->wait_us > STORE_LOOK_US)
        return;
    while (atomic_load_explicit(&store->queue_bytes, memory_order_relaxed) == 0 &&
           xy_now_us(store->options.env) - start_us < STORE_LOOK_US)
        sched_yield();
}

/* One long wait outweighs many short ones, so who works now and then is not looked for. */
static void note_wait(struct store *store, uint64_t took_us)
{
    if (took_us > STORE_LOOK_US * STORE_LOOK_WAITS)
        took_us = STORE_LOOK_US * STORE_LOOK_WAITS;
    store->wait_us += took_us / STORE_LOOK_WAITS;
    store->wait_us -= store->wait_us / STORE_LOOK_WAITS;
}

/* Waits for work; false: the store closes and the queue is empty. While room is refused it looks up again by itself,
 * so that the store recovers without anybody writing. */
static bool wait_for_work(struct store *store)
{
    uint64_t start_us = xy_now_us(store->options.env);
    bool work;
    look_for_work(store, start_us);
    pthread_mutex_lock(&store->lock);
    while (!(work = store->queue != NULL || (cut_limit(store) > store->cut_done && !store->stop_commit)) &&
           !store->stop_commit) {
        if (!atomic_load_explicit(&store->refused_lately, memory_order_relaxed)) {
            pthread_cond_wait(&store->commit_wake, &store->lock);
            continue;
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)STORE_ROOM_US * 1000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&store->commit_wake, &store->lock, &until);
        pthread_mutex_unlock(&store->lock);
        space_refresh(store);
        pthread_mutex_lock(&store->lock);
    }
    pthread_mutex_unlock(&store->lock);
    note_wait(store, xy_now_us(store->options.env) - start_us);
    return work;
}

void *commit_main(void *ctx)
{
    struct store *store = ctx;
    while (wait_for_work(store) && !store_failed(store))
        (void)commit_round(store);
    return NULL;
}
