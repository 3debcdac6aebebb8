/* A backend that goes wrong on demand: it passes everything on to another one and lets a hook see, delay, refuse or end
 * the process at each operation. The proofs that nothing is acknowledged before its sync, and that a crash between any
 * two steps loses nothing, stand on it. */
#include <stdatomic.h>
#include <stdlib.h>

#include "broker/store/backend_wrap.h"

struct store_faulty {
    struct store_backend backend;
    const struct store_backend *inner;
    store_fault_hook *hook;
    void *ctx;
    _Atomic uint64_t room;
    _Atomic uint64_t counts[FAULT_COUNT];
};

static enum store_io point(struct store_faulty *faulty, enum store_fault fault)
{
    uint64_t count = atomic_fetch_add_explicit(&faulty->counts[fault], 1, memory_order_relaxed) + 1;
    return faulty->hook != NULL ? faulty->hook(faulty->ctx, fault, count) : STORE_IO_OK;
}

static uint64_t bounded_room(struct store_faulty *faulty, uint64_t room)
{
    uint64_t bound = atomic_load_explicit(&faulty->room, memory_order_relaxed);
    return room < bound ? room : bound;
}

/* --- log --------------------------------------------------------------------------------------------------------- */

static enum store_io log_append(struct store_log *base, uint64_t position, struct xy_str entry)
{
    struct wrapped_log *log = wrapped_log(base);
    enum store_io io = point(log->ctx, FAULT_LOG_APPEND);
    return io == STORE_IO_OK ? log->inner->ops->append(log->inner, position, entry) : io;
}

static enum store_io log_cut(struct store_log *base, uint64_t upto, unsigned count_max, unsigned *removed)
{
    struct wrapped_log *log = wrapped_log(base);
    enum store_io io = point(log->ctx, FAULT_LOG_CUT);
    return io == STORE_IO_OK ? log->inner->ops->cut(log->inner, upto, count_max, removed) : io;
}

static enum store_io log_commit(struct store_log *base)
{
    struct wrapped_log *log = wrapped_log(base);
    enum store_io io = point(log->ctx, FAULT_LOG_COMMIT);
    if (io == STORE_IO_OK)
        io = log->inner->ops->commit(log->inner);
    return io == STORE_IO_OK ? point(log->ctx, FAULT_LOG_COMMITTED) : io;
}

static uint64_t log_room(struct store_log *base)
{
    struct wrapped_log *log = wrapped_log(base);
    return bounded_room(log->ctx, log->inner->ops->room(log->inner));
}

static const char *log_error(struct store_log *base)
{
    (void)base;
    return "injected fault";
}

static const struct store_log_ops log_ops = {
    .append = log_append,
    .abort = wrap_log_abort,
    .cut = log_cut,
    .commit = log_commit,
    .read = wrap_log_read,
    .bytes = wrap_log_bytes,
    .room = log_room,
    .error = log_error,
    .close = wrap_log_close,
};

/* --- tables ------------------------------------------------------------------------------------------------------ */

static enum store_io tables_put(struct store_tables *base, enum store_table table, struct xy_str key,
                                struct xy_str value)
{
    struct wrapped_tables *tables = wrapped_tables(base);
    enum store_io io = point(tables->ctx, FAULT_TABLES_PUT);
    return io == STORE_IO_OK ? tables->inner->ops->put(tables->inner, table, key, value) : io;
}

static enum store_io tables_del(struct store_tables *base, enum store_table table, struct xy_str key)
{
    struct wrapped_tables *tables = wrapped_tables(base);
    enum store_io io = point(tables->ctx, FAULT_TABLES_DEL);
    return io == STORE_IO_OK ? tables->inner->ops->del(tables->inner, table, key) : io;
}

static enum store_io tables_del_range(struct store_tables *base, enum store_table table, struct xy_str from,
                                      struct xy_str to, unsigned count_max, bool *more)
{
    struct wrapped_tables *tables = wrapped_tables(base);
    enum store_io io = point(tables->ctx, FAULT_TABLES_DEL);
    return io == STORE_IO_OK ? tables->inner->ops->del_range(tables->inner, table, from, to, count_max, more)
                             : io;
}

static enum store_io tables_commit(struct store_tables *base)
{
    struct wrapped_tables *tables = wrapped_tables(base);
    enum store_io io = point(tables->ctx, FAULT_TABLES_COMMIT);
    if (io == STORE_IO_OK)
        io = tables->inner->ops->commit(tables->inner);
    return io == STORE_IO_OK ? point(tables->ctx, FAULT_TABLES_COMMITTED) : io;
}

static uint64_t tables_room(struct store_tables *base)
{
    struct wrapped_tables *tables = wrapped_tables(base);
    return bounded_room(tables->ctx, tables->inner->ops->room(tables->inner));
}

static const char *tables_error(struct store_tables *base)
{
    (void)base;
    return "injected fault";
}

static const struct store_tables_ops tables_ops = {
    .put = tables_put,
    .abort = wrap_tables_abort,
    .del = tables_del,
    .del_range = tables_del_range,
    .commit = tables_commit,
    .reader = wrap_tables_reader,
    .bytes = wrap_tables_bytes,
    .room = tables_room,
    .error = tables_error,
    .close = wrap_tables_close,
};

/* --- wrapping ---------------------------------------------------------------------------------------------------- */

static bool faulty_open(const struct store_backend *backend, const struct store_backend_options *options,
                        struct store_log **log, struct store_tables **tables, struct xy_buf *error)
{
    struct store_faulty *faulty = backend->ctx;
    struct wrap wrap = { faulty->inner, &log_ops, &tables_ops, faulty };
    return wrap_open(&wrap, options, log, tables, error);
}

struct store_faulty *store_faulty_new(const struct store_backend *inner, store_fault_hook *hook, void *ctx)
{
    struct store_faulty *faulty = calloc(1, sizeof(*faulty));
    if (faulty == NULL)
        return NULL;
    faulty->backend = (struct store_backend){
        .name = "faulty", .on_disk = inner->on_disk, .ctx = faulty, .open = faulty_open
    };
    faulty->inner = inner;
    faulty->hook = hook;
    faulty->ctx = ctx;
    atomic_init(&faulty->room, UINT64_MAX);
    return faulty;
}

void store_faulty_free(struct store_faulty **faulty)
{
    free(*faulty);
    *faulty = NULL;
}

const struct store_backend *store_faulty_backend(struct store_faulty *faulty)
{
    return &faulty->backend;
}

void store_faulty_set_room(struct store_faulty *faulty, uint64_t bytes)
{
    atomic_store_explicit(&faulty->room, bytes, memory_order_relaxed);
}
