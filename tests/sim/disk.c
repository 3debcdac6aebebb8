/* Log and tables of the memory backend, wrapped. See disk.h. */
#include "tests/sim/disk.h"

#include <stdlib.h>

#include "broker/store/backend_wrap.h"
#include "core/base/assert.h"

/* A commit is about to be done; true: the power fails first. */
static bool commit_dies(struct sim_disk *disk)
{
    if (disk->die_in > 0 && --disk->die_in == 0)
        sim_disk_die(disk);
    return disk->dead;
}

/* A commit is about to be done; true: it fails. */
static bool commit_breaks(struct sim_disk *disk)
{
    if (disk->break_in > 0 && --disk->break_in == 0) {
        disk->broken = true;
        disk->broke++;
        return !disk->keeps;
    }
    return disk->broken;
}

/* --- log ---------------------------------------------------------------------------------------------------------- */

static void tokens_gather(struct sim_disk *disk, struct xy_str entry)
{
    size_t at = 0;
    unsigned token;
    while (sim_token_find(disk->model, entry, &at, &token))
        xy_buf_add(&disk->pending, &token, sizeof(token));
}

static void tokens_durable(struct sim_disk *disk)
{
    for (size_t at = 0; at < disk->pending.len; at += sizeof(unsigned)) {
        unsigned token;
        memcpy(&token, disk->pending.data + at, sizeof(token));
        sim_model_durable(disk->model, token);
    }
    xy_buf_reset(&disk->pending);
}

static enum store_io log_append(struct store_log *base, uint64_t position, struct xy_str entry)
{
    struct wrapped_log *log = wrapped_log(base);
    struct sim_disk *disk = log->ctx;
    if (disk->dead || (disk->full && disk->swallow))
        return STORE_IO_OK;
    if (disk->broken)
        return STORE_IO_FAILED;
    disk->appends++;
    tokens_gather(disk, entry);
    if (disk->forget > 0 && disk->appends % disk->forget == 0)
        return STORE_IO_OK;
    return log->inner->ops->append(log->inner, position, entry);
}

static enum store_io log_cut(struct store_log *base, uint64_t upto, unsigned count_max, unsigned *removed)
{
    struct wrapped_log *log = wrapped_log(base);
    const struct sim_disk *disk = log->ctx;
    *removed = 0;
    if (disk->broken)
        return STORE_IO_FAILED;
    return disk->dead ? STORE_IO_OK : log->inner->ops->cut(log->inner, upto, count_max, removed);
}

static enum store_io log_commit(struct store_log *base)
{
    struct wrapped_log *log = wrapped_log(base);
    struct sim_disk *disk = log->ctx;
    if (commit_dies(disk)) {
        log->inner->ops->abort(log->inner);
        return STORE_IO_OK;
    }
    if (commit_breaks(disk)) {
        xy_buf_reset(&disk->pending);
        return STORE_IO_FAILED; /* the store aborts it */
    }
    disk->commits++;
    if (disk->lie > 0 && disk->commits % disk->lie != 0)
        return STORE_IO_OK;
    enum store_io io = log->inner->ops->commit(log->inner);
    if (io == STORE_IO_OK)
        tokens_durable(disk);
    return disk->broken ? STORE_IO_FAILED : io;
}

static uint64_t log_room(struct store_log *base)
{
    struct wrapped_log *log = wrapped_log(base);
    const struct sim_disk *disk = log->ctx;
    return disk->full && !disk->swallow ? 0 : log->inner->ops->room(log->inner);
}

static const char *log_error(struct store_log *base)
{
    struct wrapped_log *log = wrapped_log(base);
    const struct sim_disk *disk = log->ctx;
    return disk->broken ? "the simulated device is broken" : log->inner->ops->error(log->inner);
}

static const struct store_log_ops log_ops = {
    .append = log_append,
    .cut = log_cut,
    .abort = wrap_log_abort,
    .commit = log_commit,
    .read = wrap_log_read,
    .bytes = wrap_log_bytes,
    .room = log_room,
    .error = log_error,
    .close = wrap_log_close,
};

/* --- tables ------------------------------------------------------------------------------------------------------- */

static enum store_io tables_put(struct store_tables *base, enum store_table table, struct xy_str key,
                                struct xy_str value)
{
    struct wrapped_tables *tables = wrapped_tables(base);
    struct sim_disk *disk = tables->ctx;
    if (disk->broken)
        return STORE_IO_FAILED;
    return disk->dead ? STORE_IO_OK : tables->inner->ops->put(tables->inner, table, key, value);
}

static enum store_io tables_del(struct store_tables *base, enum store_table table, struct xy_str key)
{
    struct wrapped_tables *tables = wrapped_tables(base);
    struct sim_disk *disk = tables->ctx;
    if (disk->broken)
        return STORE_IO_FAILED;
    return disk->dead ? STORE_IO_OK : tables->inner->ops->del(tables->inner, table, key);
}

static enum store_io tables_del_range(struct store_tables *base, enum store_table table, struct xy_str from,
                                      struct xy_str to, unsigned count_max, bool *more)
{
    struct wrapped_tables *tables = wrapped_tables(base);
    struct sim_disk *disk = tables->ctx;
    *more = false;
    if (disk->broken)
        return STORE_IO_FAILED;
    if (disk->dead)
        return STORE_IO_OK;
    return tables->inner->ops->del_range(tables->inner, table, from, to, count_max, more);
}

static enum store_io tables_commit(struct store_tables *base)
{
    struct wrapped_tables *tables = wrapped_tables(base);
    struct sim_disk *disk = tables->ctx;
    if (commit_dies(disk)) {
        tables->inner->ops->abort(tables->inner);
        return STORE_IO_OK;
    }
    if (commit_breaks(disk))
        return STORE_IO_FAILED;
    enum store_io io = tables->inner->ops->commit(tables->inner);
    return disk->broken ? STORE_IO_FAILED : io;
}

static const char *tables_error(struct store_tables *base)
{
    struct wrapped_tables *tables = wrapped_tables(base);
    const struct sim_disk *disk = tables->ctx;
    return disk->broken ? "the simulated device is broken" : tables->inner->ops->error(tables->inner);
}

static const struct store_tables_ops tables_ops = {
    .put = tables_put,
    .del = tables_del,
    .del_range = tables_del_range,
    .abort = wrap_tables_abort,
    .commit = tables_commit,
    .reader = wrap_tables_reader,
    .bytes = wrap_tables_bytes,
    .room = wrap_tables_room,
    .error = tables_error,
    .close = wrap_tables_close,
};

/* --- the disk ----------------------------------------------------------------------------------------------------- */

static bool disk_open(const struct store_backend *backend, const struct store_backend_options *options,
                      struct store_log **log, struct store_tables **tables, struct xy_buf *error)
{
    struct sim_disk *disk = backend->ctx;
    struct wrap wrap = { disk->inner, &log_ops, &tables_ops, disk };
    return wrap_open(&wrap, options, log, tables, error);
}

struct sim_disk *sim_disk_new(struct sim_model *model)
{
    struct sim_disk *disk = calloc(1, sizeof(*disk));
    xy_assert(disk != NULL);
    disk->memory = store_memory_new();
    xy_assert(disk->memory != NULL);
    disk->inner = store_memory_backend(disk->memory);
    disk->model = model;
    disk->backend = (struct store_backend){ .name = "simulated", .ctx = disk, .open = disk_open };
    return disk;
}

void sim_disk_free(struct sim_disk **disk)
{
    if (*disk == NULL)
        return;
    store_memory_free(&(*disk)->memory);
    xy_buf_free(&(*disk)->pending);
    free(*disk);
    *disk = NULL;
}

void sim_disk_die(struct sim_disk *disk)
{
    disk->dead = true;
    disk->broken = false;
    disk->die_in = disk->break_in = 0;
    xy_buf_reset(&disk->pending);
}

void sim_disk_break_in(struct sim_disk *disk, unsigned commits, bool keeps)
{
    disk->break_in = commits;
    disk->keeps = keeps;
}

void sim_disk_revive(struct sim_disk *disk)
{
    disk->dead = disk->broken = false;
    disk->die_in = disk->break_in = 0;
}
