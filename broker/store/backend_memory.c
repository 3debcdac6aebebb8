/* The store's files in memory: what was committed survives the store object, what was not is gone, as after a power
 * failure. Simulations and tests run the whole store on it without a disk. Tables are a memtable used as the only
 * truth; one lock lets readers and the checkpoint thread meet. */
#include "broker/store/backend.h"

#include <pthread.h>
#include <stdlib.h>

#include "broker/store/bigendian.h"
#include "broker/store/memtable.h"
#include "core/base/assert.h"
#include "core/base/buf.h"
#include "core/base/list.h"

struct log_entry {
    struct xy_list link;
    uint64_t position;
    size_t len;
    char data[];
};

struct memory_log {
    struct store_log log;
    struct store_memory *memory;
    struct xy_list pending;
    uint64_t cut_upto;
};

struct memory_tables {
    struct store_tables tables;
    struct store_memory *memory;
    struct xy_buf pending; /* see pending_add */
};

struct memory_reader {
    struct store_reader reader;
    struct store_memory *memory;
    const struct tree_entry *at;
};

struct store_memory {
    struct store_backend backend;
    pthread_rwlock_t log_lock; /* of the log; a backup reads it beside the commit thread */
    struct xy_list log;
    uint64_t log_bytes;
    pthread_rwlock_t lock; /* of everything below */
    struct memtable *tables;
    size_t live_bytes; /* of the tables, roughly: decides when the memtable is made anew */
};

/* --- log --------------------------------------------------------------------------------------------------------- */

static void entries_free(struct xy_list *list)
{
    xy_list_each (link, list) {
        xy_list_remove(link);
        free(xy_container_of(link, struct log_entry, link));
    }
}

static enum store_io log_append(struct store_log *base, uint64_t position, struct xy_str bytes)
{
    struct memory_log *log = xy_container_of(base, struct memory_log, log);
    struct log_entry *entry = malloc(sizeof(*entry) + bytes.len);
    if (entry == NULL)
        return STORE_IO_FAILED;
    entry->position = position;
    entry->len = bytes.len;
    memcpy(entry->data, bytes.data, bytes.len);
    xy_list_append(&log->pending, &entry->link);
    return STORE_IO_OK;
}

static enum store_io log_cut(struct store_log *base, uint64_t upto, unsigned count_max, unsigned *removed)
{
    struct memory_log *log = xy_container_of(base, struct memory_log, log);
    *removed = 0;
    xy_list_each (link, &log->memory->log) {
        struct log_entry *entry = xy_container_of(link, struct log_entry, link);
        if (entry->position > upto || *removed == count_max)
            break;
        if (entry->position <= log->cut_upto)
            continue;
        log->cut_upto = entry->position;
        ++*removed;
    }
    return STORE_IO_OK;
}

static enum store_io log_commit(struct store_log *base)
{
    struct memory_log *log = xy_container_of(base, struct memory_log, log);
    struct store_memory *memory = log->memory;
    pthread_rwlock_wrlock(&memory->log_lock);
    xy_list_each (link, &memory->log) {
        struct log_entry *entry = xy_container_of(link, struct log_entry, link);
        if (entry->position > log->cut_upto)
            break;
        memory->log_bytes -= entry->len;
        xy_list_remove(link);
        free(entry);
    }
    xy_list_each (added, &log->pending) {
        xy_list_remove(added);
        xy_list_append(&memory->log, added);
        memory->log_bytes += xy_container_of(added, struct log_entry, link)->len;
    }
    pthread_rwlock_unlock(&memory->log_lock);
    return STORE_IO_OK;
}

static void log_abort(struct store_log *base)
{
    struct memory_log *log = xy_container_of(base, struct memory_log, log);
    entries_free(&log->pending);
    log->cut_upto = 0;
}

static enum store_io log_read(struct store_log *base, uint64_t from, store_log_visit *visit, void *ctx)
{
    struct memory_log *log = xy_container_of(base, struct memory_log, log);
    pthread_rwlock_rdlock(&log->memory->log_lock);
    xy_list_each (link, &log->memory->log) {
        struct log_entry *entry = xy_container_of(link, struct log_entry, link);
        if (entry->position >= from && !visit(ctx, entry->position, xy_str_n(entry->data, entry->len)))
            break;
    }
    pthread_rwlock_unlock(&log->memory->log_lock);
    return STORE_IO_OK;
}

static uint64_t log_bytes(struct store_log *base)
{
    struct store_memory *memory = xy_container_of(base, struct memory_log, log)->memory;
    pthread_rwlock_rdlock(&memory->log_lock);
    uint64_t bytes = memory->log_bytes;
    pthread_rwlock_unlock(&memory->log_lock);
    return bytes;
}

static uint64_t log_room(struct store_log *base)
{
    (void)base;
    return UINT64_MAX;
}

static const char *log_error(struct store_log *base)
{
    (void)base;
    return "out of memory";
}

static void log_close(struct store_log **base)
{
    struct memory_log *log = xy_container_of(*base, struct memory_log, log);
    entries_free(&log->pending);
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

/* A pending operation: table (1) key length, value length (4 each; all ones: delete), key, value. */
enum { PENDING_HEADER = 9 };
#define PENDING_DELETE UINT32_MAX

static enum store_io pending_add(struct memory_tables *tables, enum store_table table, struct xy_str key,
                                 struct xy_str value, bool delete)
{
    char header[PENDING_HEADER];
    header[0] = (char)table;
    be32_put(header + 1, (uint32_t)key.len);
    be32_put(header + 5, delete ? PENDING_DELETE : (uint32_t)value.len);
    xy_buf_add(&tables->pending, header, sizeof(header));
    xy_buf_str(&tables->pending, key);
    if (!delete)
        xy_buf_str(&tables->pending, value);
    return xy_buf_failed(&tables->pending) ? STORE_IO_FAILED : STORE_IO_OK;
}

static enum store_io tables_put(struct store_tables *base, enum store_table table, struct xy_str key,
                                struct xy_str value)
{
    return pending_add(xy_container_of(base, struct memory_tables, tables), table, key, value, false);
}

static enum store_io tables_del(struct store_tables *base, enum store_table table, struct xy_str key)
{
    return pending_add(xy_container_of(base, struct memory_tables, tables), table, key, XY_STR_NONE, true);
}

/* Deletes what was committed; the store never puts into a range before it deletes it, and asks again while there is
 * more, so the slice is simply everything. */
static enum store_io tables_del_range(struct store_tables *base, enum store_table table, struct xy_str from,
                                      struct xy_str to, unsigned count_max, bool *more)
{
    struct memory_tables *tables = xy_container_of(base, struct memory_tables, tables);
    (void)count_max;
    *more = false;
    const struct tree_entry *entry = memtable_seek(tables->memory->tables, table, from);
    for (; entry != NULL; entry = memtable_next(entry)) {
        if (to.len > 0 && xy_str_cmp(memtable_key(entry), to) >= 0)
            break;
        if (pending_add(tables, table, memtable_key(entry), XY_STR_NONE, true) != STORE_IO_OK)
            return STORE_IO_FAILED;
    }
    return STORE_IO_OK;
}

static bool copy_all(const struct memtable *from, struct memtable *to)
{
    for (enum store_table table = 0; table < STORE_TABLE_COUNT; table++) {
        const struct tree_entry *entry = memtable_seek(from, table, XY_STR_NONE);
        for (; entry != NULL; entry = memtable_next(entry))
            if (!memtable_put(to, table, memtable_key(entry), XY_STR_NONE, memtable_value(entry), false))
                return false;
    }
    return true;
}

/* A memtable's arena only grows: when most of it is dead, the living move into a new one. */
static void compact(struct store_memory *memory)
{
    if (memtable_bytes(memory->tables) < (4u << 20) ||
        memtable_bytes(memory->tables) < 2 * memory->live_bytes)
        return;
    struct memtable *fresh = memtable_new();
    if (fresh != NULL && copy_all(memory->tables, fresh)) {
        memtable_free(&memory->tables);
        memory->tables = fresh;
    } else {
        memtable_free(&fresh);
    }
    memory->live_bytes = memtable_bytes(memory->tables);
}

static enum store_io tables_commit(struct store_tables *base)
{
    struct memory_tables *tables = xy_container_of(base, struct memory_tables, tables);
    struct store_memory *memory = tables->memory;
    const char *at = tables->pending.data, *end = at + tables->pending.len;
    enum store_io result = STORE_IO_OK;
    pthread_rwlock_wrlock(&memory->lock);
    while (at < end) {
        enum store_table table = (enum store_table)at[0];
        uint32_t value_len = be32_get(at + 5);
        struct xy_str key = xy_str_n(at + PENDING_HEADER, be32_get(at + 1));
        at = key.data + key.len;
        if (value_len == PENDING_DELETE) {
            memtable_forget(memory->tables, table, key);
            continue;
        }
        if (!memtable_put(memory->tables, table, key, XY_STR_NONE, xy_str_n(at, value_len), false))
            result = STORE_IO_FAILED;
        at += value_len;
    }
    compact(memory);
    pthread_rwlock_unlock(&memory->lock);
    xy_buf_reset(&tables->pending);
    return result;
}

static void tables_abort(struct store_tables *base)
{
    xy_buf_reset(&xy_container_of(base, struct memory_tables, tables)->pending);
}

static uint64_t tables_bytes(struct store_tables *base)
{
    struct store_memory *memory = xy_container_of(base, struct memory_tables, tables)->memory;
    pthread_rwlock_rdlock(&memory->lock);
    uint64_t bytes = memtable_bytes(memory->tables);
    pthread_rwlock_unlock(&memory->lock);
    return bytes;
}

static uint64_t tables_room(struct store_tables *base)
{
    (void)base;
    return UINT64_MAX;
}

static const char *tables_error(struct store_tables *base)
{
    (void)base;
    return "out of memory";
}

static void tables_close(struct store_tables **base)
{
    struct memory_tables *tables = xy_container_of(*base, struct memory_tables, tables);
    xy_buf_free(&tables->pending);
    free(tables);
    *base = NULL;
}

/* --- readers ----------------------------------------------------------------------------------------------------- */

static enum store_io reader_begin(struct store_reader *base)
{
    pthread_rwlock_rdlock(&xy_container_of(base, struct memory_reader, reader)->memory->lock);
    return STORE_IO_OK;
}

static void reader_end(struct store_reader *base)
{
    pthread_rwlock_unlock(&xy_container_of(base, struct memory_reader, reader)->memory->lock);
}

static bool reader_get(struct store_reader *base, enum store_table table, struct xy_str key,
                       struct xy_str *value)
{
    struct memory_reader *reader = xy_container_of(base, struct memory_reader, reader);
    return memtable_get(reader->memory->tables, table, key, value) == MEMTABLE_VALUE;
}

static bool reader_at(struct memory_reader *reader, struct xy_str *key, struct xy_str *value)
{
    if (reader->at == NULL)
        return false;
    *key = memtable_key(reader->at);
    *value = memtable_value(reader->at);
    return true;
}

static bool reader_seek(struct store_reader *base, enum store_table table, struct xy_str from,
                        struct xy_str *key, struct xy_str *value)
{
    struct memory_reader *reader = xy_container_of(base, struct memory_reader, reader);
    reader->at = memtable_seek(reader->memory->tables, table, from);
    return reader_at(reader, key, value);
}

static bool reader_next(struct store_reader *base, struct xy_str *key, struct xy_str *value)
{
    struct memory_reader *reader = xy_container_of(base, struct memory_reader, reader);
    reader->at = reader->at != NULL ? memtable_next(reader->at) : NULL;
    return reader_at(reader, key, value);
}

static void reader_close(struct store_reader **base)
{
    free(xy_container_of(*base, struct memory_reader, reader));
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
    struct memory_reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL)
        return NULL;
    reader->reader.ops = &reader_ops;
    reader->memory = xy_container_of(base, struct memory_tables, tables)->memory;
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

/* --- the memory itself ------------------------------------------------------------------------------------------- */

static bool memory_open(const struct store_backend *backend, const struct store_backend_options *options,
                        struct store_log **log_out, struct store_tables **tables_out, struct xy_buf *error)
{
    (void)options;
    struct memory_log *log = calloc(1, sizeof(*log));
    struct memory_tables *tables = calloc(1, sizeof(*tables));
    if (log == NULL || tables == NULL) {
        free(log);
        free(tables);
        xy_buf_lit(error, "out of memory");
        return false;
    }
    log->log.ops = &log_ops;
    log->memory = tables->memory = backend->ctx;
    xy_list_init(&log->pending);
    tables->tables.ops = &tables_ops;
    *log_out = &log->log;
    *tables_out = &tables->tables;
    return true;
}

struct store_memory *store_memory_new(void)
{
    struct store_memory *memory = calloc(1, sizeof(*memory));
    if (memory == NULL)
        return NULL;
    memory->backend = (struct store_backend){ .name = "memory", .ctx = memory, .open = memory_open };
    memory->tables = memtable_new();
    if (memory->tables == NULL || pthread_rwlock_init(&memory->lock, NULL) != 0 ||
        pthread_rwlock_init(&memory->log_lock, NULL) != 0) {
        memtable_free(&memory->tables);
        free(memory);
        return NULL;
    }
    xy_list_init(&memory->log);
    return memory;
}

void store_memory_free(struct store_memory **memory)
{
    if (*memory == NULL)
        return;
    entries_free(&(*memory)->log);
    memtable_free(&(*memory)->tables);
    pthread_rwlock_destroy(&(*memory)->lock);
    pthread_rwlock_destroy(&(*memory)->log_lock);
    free(*memory);
    *memory = NULL;
}

const struct store_backend *store_memory_backend(struct store_memory *memory)
{
    return &memory->backend;
}
