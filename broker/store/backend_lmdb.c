/* Log and tables in LMDB: two environments in the data directory, because LMDB has one writer each. Default flags (no
 * NOSYNC, no NOMETASYNC, no WRITEMAP), no DUPSORT, deletions only by "seek, delete": what Debian's 0.9.24 does well.
 *
 * The log is the unnamed database of log.mdb, keyed by position; tables.mdb holds one named database per table. MDB_NOTLS
 * ties a reader's slot to its transaction object, which is reset after each use, so that no reader pins pages. */
#include "broker/store/backend_disk.h"
#include "broker/store/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/store/bigendian.h"
#include "broker/store/limits.h"
#include "core/base/assert.h"
#include "core/base/buf.h"
#include "core/base/list.h"

enum { FILE_MODE = 0600 };

/* What both environments share. */
struct environment {
    MDB_env *env;
    MDB_txn *txn; /* open for writing, or NULL */
    uint64_t map_bytes, reserve_bytes;
    unsigned page_bytes;
    uint64_t end;       /* of the file: behind the last page of the last commit */
    uint64_t zero_upto; /* of the file: written in advance */
    uint64_t held_upto; /* of the file: the disk has given this much, written or not */
    char data_dir[DISK_PATH_BYTES];
    char error[256];
};

struct lmdb_log {
    struct store_log log;
    struct environment environment;
    MDB_dbi dbi;
    uint64_t bytes_pending;
    _Atomic uint64_t bytes;
};

struct lmdb_tables {
    struct store_tables tables;
    struct environment environment;
    MDB_dbi dbi[STORE_TABLE_COUNT];
    _Atomic uint64_t used;
};

struct lmdb_reader {
    struct store_reader reader;
    struct lmdb_tables *tables;
    MDB_txn *txn;
    MDB_cursor *cursor; /* of the last seek */
};

static MDB_val val_of(struct xy_str s)
{
    return (MDB_val){ .mv_size = s.len, .mv_data = (void *)(uintptr_t)s.data };
}

static struct xy_str str_of(MDB_val val)
{
    return xy_str_n(val.mv_data, val.mv_size);
}

/* --- environments ------------------------------------------------------------------------------------------------ */

/* Every failure ends the transaction, so the caller never commits half of what it meant to. */
static enum store_io environment_failed(struct environment *e, const char *what, int rc)
{
    if (e->txn != NULL)
        mdb_txn_abort(e->txn);
    e->txn = NULL;
    (void)snprintf(e->error, sizeof(e->error), "%s: %s", what, mdb_strerror(rc));
    return rc == MDB_MAP_FULL || rc == ENOSPC || rc == EDQUOT || rc == MDB_TXN_FULL ? STORE_IO_FULL
                                                                                    : STORE_IO_FAILED;
}

static enum store_io environment_write(struct environment *e)
{
    if (e->txn != NULL)
        return STORE_IO_OK;
    int rc = mdb_txn_begin(e->env, NULL, 0, &e->txn);
    return rc == 0 ? STORE_IO_OK : environment_failed(e, "cannot begin a transaction", rc);
}

static enum store_io environment_commit(struct environment *e)
{
    if (e->txn == NULL)
        return STORE_IO_OK;
    int rc = mdb_txn_commit(e->txn);
    e->txn = NULL;
    return rc == 0 ? STORE_IO_OK : environment_failed(e, "cannot commit", rc);
}

static void environment_abort(struct environment *e)
{
    if (e->txn != NULL)
        mdb_txn_abort(e->txn);
    e->txn = NULL;
}

static void environment_close(struct environment *e)
{
    environment_abort(e);
    if (e->env != NULL)
        mdb_env_close(e->env);
}

static int environment_try(struct environment *e, const struct store_backend_options *options,
                           const char *path, MDB_dbi dbs)
{
    MDB_stat stat;
    int dead = 0, rc;
    if ((rc = mdb_env_create(&e->env)) != 0)
        return rc;
    if ((rc = mdb_env_set_mapsize(e->env, (size_t)e->map_bytes)) != 0 ||
        (rc = mdb_env_set_maxdbs(e->env, dbs)) != 0 ||
        (rc = mdb_env_set_maxreaders(e->env, options->readers_max)) != 0 ||
        (rc = mdb_env_open(e->env, path, MDB_NOSUBDIR | MDB_NOTLS, FILE_MODE)) != 0 ||
        (rc = mdb_reader_check(e->env, &dead)) != 0 || (rc = mdb_env_stat(e->env, &stat)) != 0) {
        mdb_env_close(e->env);
        e->env = NULL;
        return rc;
    }
    e->page_bytes = stat.ms_psize;
    return 0;
}

/* The map is address space only, but some places (valgrind, limits of a service) have less of it than was asked for. */
static bool environment_open(struct environment *e, const struct store_backend_options *options,
                             const char *file, MDB_dbi dbs, struct xy_buf *error)
{
    char path[DISK_PATH_BYTES + 16];
    (void)snprintf(e->data_dir, sizeof(e->data_dir), "%s", options->data_dir);
    (void)snprintf(path, sizeof(path), "%s/%s", options->data_dir, file);
    e->reserve_bytes = options->reserve_bytes;
    e->map_bytes = options->map_bytes;
    int rc = environment_try(e, options, path, dbs);
    while ((rc == ENOMEM || rc == EINVAL) && e->map_bytes > STORE_MAP_BYTES_MIN) {
        e->map_bytes /= 4;
        rc = environment_try(e, options, path, dbs);
    }
    if (rc != 0)
        xy_buf_printf(error, "cannot open %s: %s", path, mdb_strerror(rc));
    return rc == 0;
}

/* While the file grows a page at a time, the pages behind its end are written in advance. What was written before is only
 * written over: its flush need not wait until the file system has noted that the file is longer, which takes it two to
 * four times as long. Large commits, for which that does not matter, are not written twice. */
static void environment_zero(struct environment *e, int fd, uint64_t end)
{
    static char zeros[STORE_ZERO_BYTES];
    uint64_t from = e->zero_upto > end ? e->zero_upto : end;
    bool slowly = end < e->end + STORE_ZERO_BYTES / 4;
    e->end = end;
    if (slowly && from < end + STORE_ZERO_BYTES / 4 && from + STORE_ZERO_BYTES <= e->held_upto &&
        pwrite(fd, zeros, sizeof(zeros), (off_t)from) == (ssize_t)sizeof(zeros))
        e->zero_upto = from + sizeof(zeros);
}

/* Keeps file space ahead of the last page, so that what is under way, and what only ends claims, finds its place when
 * somebody else takes the rest of the disk. Only while there is plenty: later it would take what the tables need. */
static void environment_hold(struct environment *e)
{
    MDB_envinfo info;
    int fd;
    if (mdb_env_info(e->env, &info) != 0 || mdb_env_get_fd(e->env, &fd) != 0)
        return;
    uint64_t end = ((uint64_t)info.me_last_pgno + 1) * e->page_bytes;
    if (e->held_upto < end + STORE_HOLD_BYTES / 2 &&
        disk_room(e->data_dir, e->reserve_bytes) > 2 * STORE_HOLD_BYTES &&
        fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)end, STORE_HOLD_BYTES) == 0)
        e->held_upto = end + STORE_HOLD_BYTES;
    environment_zero(e, fd, end);
}

/* --- log --------------------------------------------------------------------------------------------------------- */

static struct lmdb_log *log_of(struct store_log *base)
{
    return xy_container_of(base, struct lmdb_log, log);
}

static enum store_io log_append(struct store_log *base, uint64_t position, struct xy_str entry)
{
    struct lmdb_log *log = log_of(base);
    enum store_io io = environment_write(&log->environment);
    if (io != STORE_IO_OK)
        return io;
    char bytes[8];
    be64_put(bytes, position);
    MDB_val key = val_of(xy_str_n(bytes, sizeof(bytes))), value = val_of(entry);
    int rc = mdb_put(log->environment.txn, log->dbi, &key, &value, MDB_APPEND);
    return rc == 0 ? STORE_IO_OK : environment_failed(&log->environment, "cannot append to the log", rc);
}

static enum store_io log_cut(struct store_log *base, uint64_t upto, unsigned count_max, unsigned *removed)
{
    struct lmdb_log *log = log_of(base);
    MDB_cursor *cursor;
    MDB_val key, value;
    *removed = 0;
    enum store_io io = environment_write(&log->environment);
    if (io != STORE_IO_OK)
        return io;
    int rc = mdb_cursor_open(log->environment.txn, log->dbi, &cursor);
    if (rc != 0)
        return environment_failed(&log->environment, "cannot cut the log", rc);
    while (*removed < count_max && (rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST)) == 0) {
        if (key.mv_size != 8 || be64_get(key.mv_data) > upto)
            break;
        if ((rc = mdb_cursor_del(cursor, 0)) != 0)
            break;
        ++*removed;
    }
    mdb_cursor_close(cursor);
    return rc == 0 || rc == MDB_NOTFOUND ? STORE_IO_OK
                                         : environment_failed(&log->environment, "cannot cut the log", rc);
}

static uint64_t pages_bytes(const MDB_stat *stat)
{
    return (stat->ms_branch_pages + stat->ms_leaf_pages + stat->ms_overflow_pages) * (uint64_t)stat->ms_psize;
}

static enum store_io log_commit(struct store_log *base)
{
    struct lmdb_log *log = log_of(base);
    MDB_stat stat = { 0 };
    if (log->environment.txn == NULL)
        return STORE_IO_OK;
    int rc = mdb_stat(log->environment.txn, log->dbi, &stat);
    if (rc != 0)
        return environment_failed(&log->environment, "cannot measure the log", rc);
    enum store_io io = environment_commit(&log->environment);
    if (io == STORE_IO_OK) {
        atomic_store_explicit(&log->bytes, pages_bytes(&stat), memory_order_relaxed);
        environment_hold(&log->environment);
    }
    return io;
}

static void log_abort(struct store_log *base)
{
    environment_abort(&log_of(base)->environment);
}

/* Beside the commit thread too: what is open for writing, and the last failure, belong to that one. */
static enum store_io log_read(struct store_log *base, uint64_t from, store_log_visit *visit, void *ctx)
{
    struct lmdb_log *log = log_of(base);
    MDB_txn *txn;
    MDB_cursor *cursor;
    int rc = mdb_txn_begin(log->environment.env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return STORE_IO_FAILED;
    rc = mdb_cursor_open(txn, log->dbi, &cursor);
    if (rc == 0) {
        char bytes[8];
        be64_put(bytes, from);
        MDB_val key = val_of(xy_str_n(bytes, sizeof(bytes))), value;
        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        while (rc == 0 && key.mv_size == 8 && visit(ctx, be64_get(key.mv_data), str_of(value)))
            rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return rc == 0 || rc == MDB_NOTFOUND ? STORE_IO_OK : STORE_IO_FAILED;
}

static uint64_t log_bytes(struct store_log *base)
{
    return atomic_load_explicit(&log_of(base)->bytes, memory_order_relaxed);
}

/* Half of the map: free pages are not always where a large entry needs them. */
static uint64_t log_room(struct store_log *base)
{
    struct lmdb_log *log = log_of(base);
    uint64_t used = log_bytes(base), quota = log->environment.map_bytes / 2,
             disk = disk_room(log->environment.data_dir, log->environment.reserve_bytes);
    uint64_t map = used < quota ? quota - used : 0;
    return map < disk ? map : disk;
}

static const char *log_error(struct store_log *base)
{
    return log_of(base)->environment.error;
}

static void log_close(struct store_log **base)
{
    struct lmdb_log *log = log_of(*base);
    environment_close(&log->environment);
    free(log);
    *base = NULL;
}

static const struct store_log_ops log_ops = {
    .append = log_append,
    .abort = log_abort,
    .cut = log_cut,
    .commit = log_commit,
    .read = log_read,
    .bytes = log_bytes,
    .room = log_room,
    .error = log_error,
    .close = log_close,
};

/* --- tables ------------------------------------------------------------------------------------------------------ */

static struct lmdb_tables *tables_of(struct store_tables *base)
{
    return xy_container_of(base, struct lmdb_tables, tables);
}

static enum store_io tables_put(struct store_tables *base, enum store_table table, struct xy_str key,
                                struct xy_str value)
{
    struct lmdb_tables *tables = tables_of(base);
    enum store_io io = environment_write(&tables->environment);
    if (io != STORE_IO_OK)
        return io;
    MDB_val k = val_of(key), v = val_of(value);
    int rc = mdb_put(tables->environment.txn, tables->dbi[table], &k, &v, 0);
    return rc == 0 ? STORE_IO_OK : environment_failed(&tables->environment, "cannot write the tables", rc);
}

static enum store_io tables_del(struct store_tables *base, enum store_table table, struct xy_str key)
{
    struct lmdb_tables *tables = tables_of(base);
    enum store_io io = environment_write(&tables->environment);
    if (io != STORE_IO_OK)
        return io;
    MDB_val k = val_of(key);
    int rc = mdb_del(tables->environment.txn, tables->dbi[table], &k, NULL);
    return rc == 0 || rc == MDB_NOTFOUND
               ? STORE_IO_OK
               : environment_failed(&tables->environment, "cannot write the tables", rc);
}

static enum store_io tables_del_range(struct store_tables *base, enum store_table table, struct xy_str from,
                                      struct xy_str to, unsigned count_max, bool *more)
{
    struct lmdb_tables *tables = tables_of(base);
    MDB_cursor *cursor;
    enum store_io io = environment_write(&tables->environment);
    *more = false;
    if (io != STORE_IO_OK)
        return io;
    int rc = mdb_cursor_open(tables->environment.txn, tables->dbi[table], &cursor);
    if (rc != 0)
        return environment_failed(&tables->environment, "cannot write the tables", rc);
    for (unsigned removed = 0;; removed++) {
        MDB_val key = val_of(from), value;
        rc = mdb_cursor_get(cursor, &key, &value, from.len > 0 ? MDB_SET_RANGE : MDB_FIRST);
        if (rc != 0 || (to.len > 0 && xy_str_cmp(str_of(key), to) >= 0))
            break;
        *more = removed == count_max;
        if (*more || (rc = mdb_cursor_del(cursor, 0)) != 0)
            break;
    }
    mdb_cursor_close(cursor);
    return rc == 0 || rc == MDB_NOTFOUND
               ? STORE_IO_OK
               : environment_failed(&tables->environment, "cannot write the tables", rc);
}

/* Pages of the file that hold something: all up to the last one, less what the free list (database 0: per transaction
 * a count and that many page numbers) says. */
static enum store_io tables_measure(struct lmdb_tables *tables)
{
    MDB_envinfo info;
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, value;
    uint64_t pages_free = 0;
    int rc = mdb_txn_begin(tables->environment.env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return environment_failed(&tables->environment, "cannot measure the tables", rc);
    rc = mdb_cursor_open(txn, 0, &cursor);
    if (rc == 0) {
        while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
            size_t count = 0;
            memcpy(&count, value.mv_data, sizeof(count));
            pages_free += count;
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    (void)mdb_env_info(tables->environment.env, &info);
    uint64_t pages = (uint64_t)info.me_last_pgno + 1;
    xy_assert(pages_free <= pages);
    atomic_store_explicit(&tables->used, (pages - pages_free) * tables->environment.page_bytes,
                          memory_order_relaxed);
    return rc == MDB_NOTFOUND ? STORE_IO_OK
                              : environment_failed(&tables->environment, "cannot measure the tables", rc);
}

static enum store_io tables_commit(struct store_tables *base)
{
    struct lmdb_tables *tables = tables_of(base);
    enum store_io io = environment_commit(&tables->environment);
    return io == STORE_IO_OK ? tables_measure(tables) : io;
}

static void tables_abort(struct store_tables *base)
{
    environment_abort(&tables_of(base)->environment);
}

static uint64_t tables_bytes(struct store_tables *base)
{
    return atomic_load_explicit(&tables_of(base)->used, memory_order_relaxed);
}

/* Less a twentieth of the map: deleting needs pages too. */
static uint64_t tables_room(struct store_tables *base)
{
    struct lmdb_tables *tables = tables_of(base);
    uint64_t used = tables_bytes(base),
             disk = disk_room(tables->environment.data_dir, tables->environment.reserve_bytes);
    uint64_t quota = tables->environment.map_bytes - tables->environment.map_bytes / 20;
    uint64_t map = used < quota ? quota - used : 0;
    return map < disk ? map : disk;
}

static const char *tables_error(struct store_tables *base)
{
    return tables_of(base)->environment.error;
}

static void tables_close(struct store_tables **base)
{
    struct lmdb_tables *tables = tables_of(*base);
    environment_close(&tables->environment);
    free(tables);
    *base = NULL;
}

/* --- readers ----------------------------------------------------------------------------------------------------- */

static struct lmdb_reader *reader_of(struct store_reader *base)
{
    return xy_container_of(base, struct lmdb_reader, reader);
}

static enum store_io reader_begin(struct store_reader *base)
{
    struct lmdb_reader *reader = reader_of(base);
    int rc = reader->txn == NULL
                 ? mdb_txn_begin(reader->tables->environment.env, NULL, MDB_RDONLY, &reader->txn)
                 : mdb_txn_renew(reader->txn);
    return rc == 0 ? STORE_IO_OK : STORE_IO_FAILED;
}

static void reader_end(struct store_reader *base)
{
    struct lmdb_reader *reader = reader_of(base);
    if (reader->cursor != NULL)
        mdb_cursor_close(reader->cursor);
    reader->cursor = NULL;
    mdb_txn_reset(reader->txn);
}

static bool absent(struct lmdb_reader *reader, int rc)
{
    reader->reader.failed |= rc != MDB_NOTFOUND;
    return false;
}

static bool reader_get(struct store_reader *base, enum store_table table, struct xy_str key,
                       struct xy_str *value)
{
    struct lmdb_reader *reader = reader_of(base);
    MDB_val k = val_of(key), v;
    int rc = mdb_get(reader->txn, reader->tables->dbi[table], &k, &v);
    if (rc != 0)
        return absent(reader, rc);
    *value = str_of(v);
    return true;
}

static bool reader_step(struct lmdb_reader *reader, struct xy_str from, MDB_cursor_op op, struct xy_str *key,
                        struct xy_str *value)
{
    MDB_val k = val_of(from), v;
    int rc = mdb_cursor_get(reader->cursor, &k, &v, op);
    if (rc != 0)
        return absent(reader, rc);
    *key = str_of(k);
    *value = str_of(v);
    return true;
}

static bool reader_seek(struct store_reader *base, enum store_table table, struct xy_str from,
                        struct xy_str *key, struct xy_str *value)
{
    struct lmdb_reader *reader = reader_of(base);
    MDB_dbi dbi = reader->tables->dbi[table];
    if (reader->cursor != NULL && mdb_cursor_dbi(reader->cursor) != dbi) {
        mdb_cursor_close(reader->cursor);
        reader->cursor = NULL;
    }
    int rc = reader->cursor == NULL ? mdb_cursor_open(reader->txn, dbi, &reader->cursor) : 0;
    if (rc != 0)
        return absent(reader, rc);
    return reader_step(reader, from, from.len > 0 ? MDB_SET_RANGE : MDB_FIRST, key, value);
}

static bool reader_next(struct store_reader *base, struct xy_str *key, struct xy_str *value)
{
    return reader_step(reader_of(base), XY_STR_NONE, MDB_NEXT, key, value);
}

static void reader_close(struct store_reader **base)
{
    struct lmdb_reader *reader = reader_of(*base);
    if (reader->txn != NULL)
        mdb_txn_abort(reader->txn);
    free(reader);
    *base = NULL;
}

static const struct store_reader_ops reader_ops = {
    .begin = reader_begin,
    .get = reader_get,
    .seek = reader_seek,
    .next = reader_next,
    .end = reader_end,
    .close = reader_close,
};

static struct store_reader *tables_reader(struct store_tables *base)
{
    struct lmdb_reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL)
        return NULL;
    reader->reader.ops = &reader_ops;
    reader->tables = tables_of(base);
    return &reader->reader;
}

static const struct store_tables_ops tables_ops = {
    .put = tables_put,
    .abort = tables_abort,
    .del = tables_del,
    .del_range = tables_del_range,
    .commit = tables_commit,
    .reader = tables_reader,
    .bytes = tables_bytes,
    .room = tables_room,
    .error = tables_error,
    .close = tables_close,
};

/* --- opening ----------------------------------------------------------------------------------------------------- */

static bool log_open(struct lmdb_log *log, const struct store_backend_options *options, struct xy_buf *error)
{
    log->log.ops = &log_ops;
    if (!environment_open(&log->environment, options, "log.mdb", 0, error))
        return false;
    MDB_txn *txn;
    MDB_stat stat = { 0 };
    int rc = mdb_txn_begin(log->environment.env, NULL, 0, &txn);
    if (rc == 0) {
        if ((rc = mdb_dbi_open(txn, NULL, 0, &log->dbi)) == 0 && (rc = mdb_stat(txn, log->dbi, &stat)) == 0)
            rc = mdb_txn_commit(txn);
        else
            mdb_txn_abort(txn);
    }
    if (rc != 0)
        xy_buf_printf(error, "cannot open the log in %s: %s", options->data_dir, mdb_strerror(rc));
    atomic_init(&log->bytes, pages_bytes(&stat));
    return rc == 0;
}

static bool tables_open(struct lmdb_tables *tables, const struct store_backend_options *options,
                        struct xy_buf *error)
{
    tables->tables.ops = &tables_ops;
    if (!environment_open(&tables->environment, options, "tables.mdb", STORE_TABLE_COUNT, error))
        return false;
    enum store_io io = environment_write(&tables->environment);
    for (unsigned i = 0; i < STORE_TABLE_COUNT && io == STORE_IO_OK; i++) {
        int rc = mdb_dbi_open(tables->environment.txn, store_table_name(i), MDB_CREATE, &tables->dbi[i]);
        if (rc != 0)
            io = environment_failed(&tables->environment, "cannot open the tables", rc);
    }
    if (io == STORE_IO_OK)
        io = tables_commit(&tables->tables);
    if (io != STORE_IO_OK)
        xy_buf_printf(error, "%s", tables->environment.error);
    return io == STORE_IO_OK;
}

bool lmdb_log_open(const struct store_backend_options *options, struct store_log **out, struct xy_buf *error)
{
    struct lmdb_log *log = calloc(1, sizeof(*log));
    if (log == NULL) {
        xy_buf_lit(error, "out of memory");
        return false;
    }
    *out = &log->log;
    if (log_open(log, options, error))
        return true;
    log_close(out);
    return false;
}

bool lmdb_tables_open(const struct store_backend_options *options, struct store_tables **out,
                      struct xy_buf *error)
{
    struct lmdb_tables *tables = calloc(1, sizeof(*tables));
    if (tables == NULL) {
        xy_buf_lit(error, "out of memory");
        return false;
    }
    *out = &tables->tables;
    if (tables_open(tables, options, error))
        return true;
    tables_close(out);
    return false;
}
