/* Opening and closing: options and their defaults, the two files, recovery, the two threads. The rest of the folder does
 * the work; see store.h for the promises and internal.h for who touches what. */
#include "broker/store/internal.h"

#include <stdlib.h>

#include "broker/store/backend_disk.h"
#include "core/base/assert.h"

void store_fail(struct store *store, const char *what, const char *why)
{
    struct xy_buf prose = { 0 };
    if (atomic_exchange_explicit(&store->failed, true, memory_order_acq_rel))
        return;
    xy_buf_printf(&prose, "%s: %s", what, why);
    xy_buf_char(&prose, '\0');
    if (store->options.failed != NULL)
        store->options.failed(store->options.ctx, xy_buf_failed(&prose) ? what : prose.data);
    xy_buf_free(&prose);
}

static void or_default(uint64_t *option, uint64_t value)
{
    if (*option == 0)
        *option = value;
}

static void set_options(struct store *store, const struct store_options *options)
{
    struct store_options *own = &store->options;
    *own = *options;
    or_default(&own->log_bytes_max, STORE_LOG_BYTES_MAX);
    or_default(&own->checkpoint_bytes, STORE_CHECKPOINT_BYTES);
    or_default(&own->checkpoint_records, STORE_CHECKPOINT_RECORDS);
    or_default(&own->map_bytes, STORE_MAP_BYTES);
    /* A checkpoint must be through before the log is full. */
    if (own->checkpoint_bytes > own->log_bytes_max / 4)
        own->checkpoint_bytes = own->log_bytes_max / 4;
    own->data_dir = NULL; /* the caller's */
    store->held_from = UINT64_MAX;
    store->lock_fd = -1;
    store->queue_tail = &store->queue;
}

static struct store_backend_options backend_options(const struct store *store, const char *data_dir)
{
    const struct store_options *own = &store->options;
    return (struct store_backend_options){ .data_dir = data_dir,
                                           .log_bytes_max = own->log_bytes_max,
                                           .map_bytes = own->map_bytes,
                                           .reserve_bytes = own->reserve_bytes,
                                           .readers_max = own->shards + STORE_READERS_SPARE };
}

static void choose_backend(struct store *store, const char *data_dir)
{
    struct store_options *own = &store->options;
    if (own->backend == NULL)
        own->backend = store_backend_found(data_dir, store_wanted_backend(store));
    else
        own->log = own->backend == &store_backend_segments ? STORE_LOG_SEGMENTS : STORE_LOG_LMDB;
}

static bool open_files(struct store *store, const char *data_dir, struct xy_buf *error)
{
    struct store_options *own = &store->options;
    if (own->backend == NULL || own->backend->on_disk) {
        store->lock_fd = datadir_lock(data_dir, error);
        if (store->lock_fd < 0)
            return false;
        store->data_dir = strdup(data_dir);
        if (store->data_dir == NULL) {
            xy_buf_lit(error, "out of memory");
            return false;
        }
    }
    choose_backend(store, data_dir);
    struct store_backend_options options = backend_options(store, data_dir);
    if (!own->backend->open(own->backend, &options, &store->log, &store->tables, error))
        return false;
    store->reader = store->tables->ops->reader(store->tables);
    if (store->reader == NULL)
        xy_buf_lit(error, "out of memory");
    return store->reader != NULL;
}

/* After recovery: the tables are complete, so nothing in the old log is needed any more. */
static bool change_log(struct store *store, struct xy_buf *error)
{
    struct store_options *own = &store->options;
    const struct store_backend *wanted = store_wanted_backend(store);
    if (own->backend == wanted ||
        (own->backend != &store_backend_lmdb && own->backend != &store_backend_segments))
        return true;
    struct store_backend_options options = backend_options(store, store->data_dir);
    own->backend = wanted;
    store->log_changed = disk_change_log(wanted, &options, &store->log, error);
    return store->log_changed;
}

bool store_make_shards(struct store *store, struct xy_buf *error)
{
    unsigned count = store->options.shards;
    store->shards = calloc(count, sizeof(*store->shards));
    store->woken = calloc(count, sizeof(*store->woken));
    bool ok = store->shards != NULL && store->woken != NULL;
    for (unsigned i = 0; ok && i < count; i++)
        ok = shard_init(&store->shards[i], store, i);
    if (!ok)
        xy_buf_lit(error, "out of memory");
    return ok;
}

static void stop_checkpoint_thread(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    store->stop_checkpoint = true;
    pthread_cond_broadcast(&store->checkpoint_wake);
    pthread_mutex_unlock(&store->lock);
    pthread_join(store->checkpoint_thread, NULL);
}

static void stop_commit_thread(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    store->stop_commit = true;
    pthread_cond_broadcast(&store->commit_wake);
    pthread_mutex_unlock(&store->lock);
    pthread_join(store->commit_thread, NULL);
}

static bool start_threads(struct store *store, struct xy_buf *error)
{
    if (!store->options.threads)
        return true;
    if (pthread_create(&store->commit_thread, NULL, commit_main, store) != 0) {
        xy_buf_lit(error, "cannot start the store's threads");
        return false;
    }
    if (pthread_create(&store->checkpoint_thread, NULL, checkpoint_main, store) != 0) {
        stop_commit_thread(store);
        xy_buf_lit(error, "cannot start the store's threads");
        return false;
    }
    store->threads_started = true;
    return true;
}

void store_release(struct store **store_pointer)
{
    struct store *store = *store_pointer;
    if (store == NULL)
        return;
    *store_pointer = NULL;
    for (unsigned i = 0; store->shards != NULL && i < store->options.shards; i++)
        shard_free(&store->shards[i]);
    while (store->queue != NULL) {
        struct store_batch *batch = store->queue;
        store->queue = batch->next;
        batch_free(&batch);
    }
    if (store->reader != NULL)
        store->reader->ops->close(&store->reader);
    if (store->log != NULL)
        store->log->ops->close(&store->log);
    if (store->tables != NULL)
        store->tables->ops->close(&store->tables);
    datadir_unlock(&store->lock_fd);
    pthread_cond_destroy(&store->commit_wake);
    pthread_cond_destroy(&store->checkpoint_wake);
    pthread_mutex_destroy(&store->lock);
    pthread_mutex_destroy(&store->reader_lock);
    pthread_mutex_destroy(&store->backup.lock);
    pthread_cond_destroy(&store->backup.wake);
    xy_buf_free(&store->sweep_from);
    xy_buf_free(&store->seal_room);
    xy_buf_free(&store->sweep_sessions_from);
    free(store->shards);
    free(store->woken);
    free(store->data_dir);
    free(store);
}

struct store *store_prepare(const struct store_options *options, struct xy_buf *error)
{
    xy_assert(options->shards > 0 && options->shards <= STORE_SHARDS_MAX && options->env != NULL);
    struct store *store = calloc(1, sizeof(*store));
    pthread_condattr_t monotonic;
    if (store == NULL) {
        xy_buf_lit(error, "out of memory");
        return NULL;
    }
    set_options(store, options);
    pthread_mutex_init(&store->lock, NULL);
    pthread_mutex_init(&store->reader_lock, NULL);
    backup_init(store);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&store->commit_wake, &monotonic);
    pthread_cond_init(&store->checkpoint_wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (open_files(store, options->data_dir, error))
        return store;
    store_release(&store);
    return NULL;
}

struct store *store_open(const struct store_options *options, struct xy_buf *error)
{
    struct store *store = store_prepare(options, error);
    if (store != NULL && recovery_run(store, error) && change_log(store, error) &&
        restore_run(store, error) && store_make_shards(store, error)) {
        space_refresh(store);
        atomic_store_explicit(&store->position_committed, store->position, memory_order_relaxed);
        if (start_threads(store, error))
            return store;
    }
    store_release(&store);
    return NULL;
}

void store_close(struct store **store_pointer)
{
    struct store *store = *store_pointer;
    if (store == NULL)
        return;
    backup_stop(store);
    if (store->threads_started)
        stop_checkpoint_thread(store);
    for (unsigned i = 0; i < store->options.shards && !store_failed(store); i++)
        shard_hand_over(&store->shards[i], false);
    if (store->threads_started)
        stop_commit_thread(store);
    while (commit_round(store))
        ;
    /* Without room the log keeps what the tables could not take, and the next open replays it. */
    if (!store_failed(store))
        (void)checkpoint_final(store);
    store_release(store_pointer);
}

void store_crash(struct store **store_pointer)
{
    struct store *store = *store_pointer;
    if (store == NULL)
        return;
    atomic_store_explicit(&store->failed, true, memory_order_release); /* nothing more is committed */
    backup_stop(store);
    if (store->threads_started) {
        stop_checkpoint_thread(store);
        stop_commit_thread(store);
    }
    store_release(store_pointer);
}

bool store_log_changed(const struct store *store)
{
    return store->log_changed;
}

bool store_was_restored(const struct store *store)
{
    return store->restored;
}

struct store_shard *store_shard(struct store *store, unsigned shard)
{
    xy_assert(shard < store->options.shards);
    return &store->shards[shard];
}

/* Recovery reserved a block that outlasts any run. */
uint64_t store_new_number(struct store_shard *shard)
{
    return atomic_fetch_add_explicit(&shard->store->numbers, 1, memory_order_relaxed);
}

bool store_step_commit(struct store *store)
{
    xy_assert(!store->options.threads);
    return commit_round(store);
}

bool store_step_checkpoint(struct store *store)
{
    xy_assert(!store->options.threads);
    return checkpoint_by_hand(store);
}

static uint64_t figure(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static struct store_spread spread(const struct histogram *h)
{
    return (struct store_spread){ histogram_quantile(h, 500), histogram_quantile(h, 990) };
}

void store_stats(struct store *store, struct store_stats *out)
{
    *out = (struct store_stats){
        .commits = figure(&store->commits),
        .records = figure(&store->records),
        .bytes = figure(&store->bytes),
        .commit_us_last = figure(&store->commit_us_last),
        .commit_us_max = figure(&store->commit_us_max),
        .commit_us = spread(&store->commit_us),
        .commit_records = spread(&store->commit_records),
        .commit_bytes = spread(&store->commit_bytes),
        .queue_bytes = figure(&store->queue_bytes),
        .queue_bytes_max = figure(&store->queue_bytes_max),
        .log_bytes = store->log->ops->bytes(store->log),
        .tables_bytes = store->tables->ops->bytes(store->tables),
        .room_bytes = figure(&store->room),
        .checkpoints = figure(&store->checkpoints),
        .checkpoint_us_last = figure(&store->checkpoint_us_last),
        .checkpoint_us_max = figure(&store->checkpoint_us_max),
        .unwritten_bytes = figure(&store->unwritten_bytes),
        .damaged = figure(&store->damaged),
        .refused = figure(&store->refused),
    };
    backup_stats(store, out);
    for (unsigned i = 0; i < store->options.shards; i++)
        out->memory_bytes += figure(&store->shards[i].memory_bytes);
}
