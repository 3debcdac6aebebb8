/* The checkpoint: what is still alive in memory moves, sorted, into the tables; then the log up to there may be cut.
 *
 * Order of effects, each step durable before the next: freeze every shard's memory table with a marker in the commit
 * order -> all markers committed -> write the frozen tables in bounded transactions -> the last one states "complete up
 * to N", N being the smallest marker's position -> drop the frozen tables, cut the log up to N. A crash anywhere replays
 * the log from the old N or the new one; operations are absolute, so both give the same tables. */
#include "broker/store/internal.h"

#include "broker/store/bigendian.h"
#include "broker/store/seal.h"
#include "broker/store/session_rows.h"
#include "core/base/assert.h"

/* --- writing ----------------------------------------------------------------------------------------------------- */

/* Latches the first failure; transactions end by themselves when they are large enough. */
struct writer {
    struct store *store;
    const struct store_tables_ops *ops;
    enum store_io io;
    size_t bytes, operations; /* in the open transaction */
    struct session_rows sessions;
};

static void writer_commit(struct writer *w)
{
    if (w->io == STORE_IO_OK)
        w->io = w->ops->commit(w->store->tables);
    w->bytes = w->operations = 0;
}

static void writer_count(struct writer *w, enum store_io io, size_t bytes)
{
    w->io = io;
    w->bytes += bytes;
    if (++w->operations >= STORE_TABLES_TXN_OPS || w->bytes >= STORE_TABLES_TXN_BYTES)
        writer_commit(w);
}

static void writer_put(struct writer *w, enum store_table table, struct xy_str key, struct xy_str value)
{
    if (w->io == STORE_IO_OK)
        writer_count(w, seal_put(w->store->tables, &w->store->seal_room, table, key, value),
                     key.len + value.len);
}

static void writer_del(struct writer *w, enum store_table table, struct xy_str key)
{
    if (w->io == STORE_IO_OK)
        writer_count(w, w->ops->del(w->store->tables, table, key), key.len);
}

static void writer_del_range(struct writer *w, enum store_table table, struct xy_str from, struct xy_str to)
{
    bool more = true;
    while (more && w->io == STORE_IO_OK) {
        enum store_io io = w->ops->del_range(w->store->tables, table, from, to, STORE_RANGE_SLICE, &more);
        writer_count(w, io, from.len);
        if (more)
            writer_commit(w);
    }
}

static void write_memtable(struct writer *w, const struct memtable *mem)
{
    for (enum store_table table = 0; table < STORE_TABLE_COUNT; table++) {
        const struct tree_entry *entry = memtable_ranges(mem, table);
        for (; entry != NULL; entry = memtable_next(entry))
            writer_del_range(w, table, memtable_key(entry), memtable_value(entry));
        entry = memtable_seek(mem, table, XY_STR_NONE);
        for (; entry != NULL && w->io == STORE_IO_OK; entry = memtable_next(entry)) {
            struct xy_str value = memtable_value(entry);
            if (table == STORE_SESSION_IN && !session_rows_needed(&w->sessions, memtable_key(entry), value))
                continue;
            if (xy_str_present(value))
                writer_put(w, table, memtable_key(entry), value);
            else
                writer_del(w, table, memtable_key(entry));
        }
    }
}

/* Keys to delete, gathered while a reader is open and deleted when it is not: no read transaction outlasts a page. */
struct doomed {
    struct xy_buf keys; /* length (2) and bytes of each */
};

static void doom(void *ctx, struct xy_str key)
{
    struct doomed *doomed = ctx;
    uint16_t len = (uint16_t)key.len;
    xy_buf_add(&doomed->keys, &len, sizeof(len));
    xy_buf_str(&doomed->keys, key);
}

/* Memory that was short leaves a key to the next sweep. */
static void delete_doomed(struct writer *w, enum store_table table, struct doomed *doomed)
{
    struct xy_str rest = xy_buf_failed(&doomed->keys) ? XY_STR("") : xy_buf_view(&doomed->keys);
    while (rest.len > 0) {
        uint16_t len;
        memcpy(&len, rest.data, sizeof(len));
        xy_assert(rest.len >= sizeof(len) + len);
        writer_del(w, table, xy_str_n(rest.data + sizeof(len), len));
        rest = xy_str_n(rest.data + sizeof(len) + len, rest.len - sizeof(len) - len);
    }
    xy_buf_reset(&doomed->keys);
}

static size_t page_of(size_t budget)
{
    return budget < STORE_PAGE_RECORDS_MAX ? budget : STORE_PAGE_RECORDS_MAX;
}

static bool outlived(struct xy_str value, uint64_t now_us)
{
    uint64_t number, time_us;
    struct xy_str seen;
    if (!store_dedup_value(value, &number, &time_us, &seen))
        return false;
    uint64_t keep_us = number == STORE_DEDUP_WHOLE ? STORE_DEDUP_KEEP_US : STORE_DEDUP_STREAM_KEEP_US;
    return time_us < now_us && now_us - time_us > keep_us;
}

/* One page of publish ids. false: that was the last. */
static bool sweep_dedup_page(struct store *store, struct store_reader *reader, size_t count_max,
                             struct doomed *doomed)
{
    uint64_t now_us = xy_wall_us(store->options.env);
    struct xy_str key, value;
    if (reader->ops->begin(reader) != STORE_IO_OK)
        return false;
    bool there = reader->ops->seek(reader, STORE_DEDUP, xy_buf_view(&store->sweep_from), &key, &value);
    for (; there && count_max > 0; count_max--) {
        seal_open(store, STORE_DEDUP, key, &value);
        if (outlived(value, now_us))
            doom(doomed, key);
        there = reader->ops->next(reader, &key, &value);
    }
    xy_buf_reset(&store->sweep_from);
    if (there)
        xy_buf_str(&store->sweep_from, key);
    reader->ops->end(reader);
    return there;
}

/* Publish ids past their time leave the tables here, a few at each checkpoint and more than it brings, so their number
 * follows the rate of publishing. It runs before the puts: what it deletes by an old time and was published again comes
 * back right after. */
static void sweep_dedup(struct writer *w, size_t budget)
{
    struct store *store = w->store;
    struct store_reader *reader = store->tables->ops->reader(store->tables);
    struct doomed doomed = { 0 };
    bool more = reader != NULL; /* else memory is short: next time */
    for (; more && budget > 0; budget -= page_of(budget)) {
        more = sweep_dedup_page(store, reader, page_of(budget), &doomed);
        delete_doomed(w, STORE_DEDUP, &doomed);
    }
    xy_buf_free(&doomed.keys);
    if (reader != NULL)
        reader->ops->close(&reader);
}

/* Looks at sessions through a reader of its own until the end of the checkpoint. */
static void sessions_begin(struct writer *w, size_t budget)
{
    struct store *store = w->store;
    struct doomed doomed = { 0 };
    bool more = (w->sessions.reader = store->tables->ops->reader(store->tables)) != NULL;
    for (; more && budget > 0; budget -= page_of(budget)) {
        more = session_rows_sweep(&w->sessions, &store->sweep_sessions_from, page_of(budget), doom, &doomed);
        delete_doomed(w, STORE_SESSION_IN, &doomed);
    }
    xy_buf_free(&doomed.keys);
}

static void sessions_end(struct writer *w)
{
    if (w->sessions.reader != NULL)
        w->sessions.reader->ops->close(&w->sessions.reader);
}

enum store_io checkpoint_write(struct store *store, const struct memtable *const *mems, size_t count,
                               uint64_t complete_upto)
{
    struct writer w = { .store = store,
                        .ops = store->tables->ops,
                        .io = STORE_IO_OK,
                        .sessions = { .mems = mems, .mems_count = count, .store = store } };
    size_t entries = 0;
    for (size_t i = 0; i < count; i++)
        entries += memtable_count(mems[i]);
    if (entries > 0) {
        sweep_dedup(&w, STORE_SWEEP_MIN + entries / 2);
        sessions_begin(&w, STORE_SWEEP_MIN + entries / 2);
    }
    for (size_t i = 0; i < count; i++)
        write_memtable(&w, mems[i]);
    sessions_end(&w);
    char position[8];
    be64_put(position, complete_upto);
    writer_put(&w, STORE_META, META_COMPLETE, xy_str_n(position, sizeof(position)));
    writer_commit(&w);
    if (w.io != STORE_IO_OK)
        store->tables->ops->abort(store->tables);
    return w.io;
}

/* --- freezing ---------------------------------------------------------------------------------------------------- */

static int freeze_of(struct store_shard *shard)
{
    return atomic_load_explicit(&shard->freeze, memory_order_acquire);
}

static void free_dropped(struct store *store)
{
    for (unsigned i = 0; i < store->options.shards; i++) {
        pthread_mutex_lock(&store->lock);
        struct memtable *dropped = store->shards[i].dropped;
        store->shards[i].dropped = NULL;
        pthread_mutex_unlock(&store->lock);
        memtable_free(&dropped);
    }
}

static bool all_marked(struct store *store)
{
    for (unsigned i = 0; i < store->options.shards; i++)
        if (freeze_of(&store->shards[i]) != FREEZE_MARKED)
            return false;
    return true;
}

/* Records and bytes that the coming checkpoint takes along; what comes meanwhile counts for the next. */
static uint64_t begin_count(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    uint64_t bytes = store->since_bytes;
    store->since_records = store->since_bytes = 0;
    pthread_mutex_unlock(&store->lock);
    return bytes;
}

static enum store_io write_frozen(struct store *store, uint64_t *complete_upto)
{
    const struct memtable *mems[STORE_SHARDS_MAX];
    *complete_upto = UINT64_MAX;
    for (unsigned i = 0; i < store->options.shards; i++) {
        struct store_shard *shard = &store->shards[i];
        xy_assert(freeze_of(shard) == FREEZE_MARKED);
        mems[i] = shard->frozen;
        if (shard->marked_at < *complete_upto)
            *complete_upto = shard->marked_at;
    }
    uint64_t start_us = xy_now_us(store->options.env);
    enum store_io io = checkpoint_write(store, mems, store->options.shards, *complete_upto);
    uint64_t took_us = xy_now_us(store->options.env) - start_us;
    atomic_store_explicit(&store->checkpoint_us_last, took_us, memory_order_relaxed);
    store_highest(&store->checkpoint_us_max, took_us);
    return io;
}

static void written(struct store *store, uint64_t complete_upto, uint64_t bytes)
{
    atomic_fetch_add_explicit(&store->checkpoints, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&store->unwritten_bytes, bytes, memory_order_relaxed);
    for (unsigned i = 0; i < store->options.shards; i++)
        atomic_store_explicit(&store->shards[i].freeze, FREEZE_WRITTEN, memory_order_release);
    pthread_mutex_lock(&store->lock);
    store->cut_upto = complete_upto;
    pthread_cond_signal(&store->commit_wake);
    pthread_mutex_unlock(&store->lock);
}

static void wake_all(struct store *store)
{
    for (unsigned i = 0; i < store->options.shards; i++)
        store_wake(store, i);
}

/* --- the thread -------------------------------------------------------------------------------------------------- */

static struct timespec in_us(uint64_t us)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + us % 1000000 * 1000;
    until.tv_sec += (time_t)(us / 1000000 + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    return until;
}

/* Waits until a checkpoint is due; false: the store closes. */
static bool wait_until_due(struct store *store)
{
    struct timespec until = in_us(STORE_CHECKPOINT_US);
    pthread_mutex_lock(&store->lock);
    while (!store->stop_checkpoint && store->since_records < store->options.checkpoint_records &&
           store->since_bytes < store->options.checkpoint_bytes) {
        if (pthread_cond_timedwait(&store->checkpoint_wake, &store->lock, &until) != 0) {
            if (store->since_records > 0)
                break;
            until = in_us(STORE_CHECKPOINT_US);
        }
        pthread_mutex_unlock(&store->lock);
        free_dropped(store);
        pthread_mutex_lock(&store->lock);
    }
    bool due = !store->stop_checkpoint;
    pthread_mutex_unlock(&store->lock);
    return due;
}

static bool pause_or_stop(struct store *store, uint64_t us)
{
    struct timespec until = in_us(us);
    pthread_mutex_lock(&store->lock);
    while (!store->stop_checkpoint &&
           pthread_cond_timedwait(&store->checkpoint_wake, &store->lock, &until) == 0)
        ;
    bool stop = store->stop_checkpoint;
    pthread_mutex_unlock(&store->lock);
    return !stop;
}

static bool wait_until_marked(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    while (!store->stop_checkpoint && !all_marked(store))
        pthread_cond_wait(&store->checkpoint_wake, &store->lock);
    bool marked = !store->stop_checkpoint;
    pthread_mutex_unlock(&store->lock);
    return marked;
}

/* One checkpoint; false: the store closes or has failed, and what was not written stays in the log and in memory. */
static bool checkpoint_round(struct store *store)
{
    uint64_t bytes = begin_count(store), complete_upto;
    for (unsigned i = 0; i < store->options.shards; i++)
        atomic_store_explicit(&store->shards[i].freeze, FREEZE_ASKED, memory_order_release);
    wake_all(store);
    if (!wait_until_marked(store))
        return false;
    free_dropped(store); /* before the shards may drop again */
    enum store_io io;
    while ((io = write_frozen(store, &complete_upto)) == STORE_IO_FULL)
        if (!pause_or_stop(store, STORE_RETRY_US))
            return false;
    if (io != STORE_IO_OK) {
        store_fail(store, "cannot write a checkpoint", store->tables->ops->error(store->tables));
        return false;
    }
    written(store, complete_upto, bytes);
    wake_all(store);
    return true;
}

void *checkpoint_main(void *ctx)
{
    struct store *store = ctx;
    while (wait_until_due(store) && !store_failed(store) && checkpoint_round(store))
        ;
    return NULL;
}

/* --- without threads --------------------------------------------------------------------------------------------- */

bool checkpoint_by_hand(struct store *store)
{
    uint64_t bytes = begin_count(store), complete_upto;
    for (unsigned i = 0; i < store->options.shards; i++)
        if (freeze_of(&store->shards[i]) != FREEZE_MARKED) /* else a full disk stopped the last one here */
            shard_freeze(&store->shards[i]);
    while (commit_round(store))
        ;
    if (store_failed(store) || !all_marked(store))
        return false;
    enum store_io io = write_frozen(store, &complete_upto);
    if (io == STORE_IO_FULL)
        return false;
    if (io != STORE_IO_OK) {
        store_fail(store, "cannot write a checkpoint", store->tables->ops->error(store->tables));
        return false;
    }
    written(store, complete_upto, bytes);
    for (unsigned i = 0; i < store->options.shards; i++)
        (void)store_flush(&store->shards[i]);
    free_dropped(store);
    while (commit_round(store))
        ;
    return true;
}

bool checkpoint_final(struct store *store)
{
    const struct memtable *mems[2 * STORE_SHARDS_MAX];
    size_t count = 0;
    for (unsigned i = 0; i < store->options.shards; i++)
        if (store->shards[i].frozen != NULL && freeze_of(&store->shards[i]) != FREEZE_WRITTEN)
            mems[count++] = store->shards[i].frozen;
    for (unsigned i = 0; i < store->options.shards; i++)
        mems[count++] = store->shards[i].active;
    return checkpoint_write(store, mems, count, store->position) == STORE_IO_OK;
}
