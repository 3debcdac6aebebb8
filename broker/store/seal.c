/* Sealing of rows and the upgrade of stores that have none; see seal.h. */
#include "broker/store/seal.h"

#include "broker/store/bigendian.h"
#include "core/base/assert.h"
#include "core/base/encoding.h"

/* In STORE_META while an upgrade is under way: table (1), then the key of the last row that is sealed. */
#define META_SEALED XY_STR("sealed")

static uint32_t checksum(struct xy_str key, struct xy_str value)
{
    return xy_crc32c(xy_crc32c(0, key.data, key.len), value.data, value.len);
}

enum store_io seal_put(struct store_tables *tables, struct xy_buf *room, enum store_table table,
                       struct xy_str key, struct xy_str value)
{
    char seal[SEAL_BYTES];
    if (table == STORE_META)
        return tables->ops->put(tables, table, key, value);
    be32_put(seal, checksum(key, value));
    xy_buf_reset(room);
    xy_buf_str(room, value);
    xy_buf_add(room, seal, sizeof(seal));
    return xy_buf_failed(room) ? STORE_IO_FAILED : tables->ops->put(tables, table, key, xy_buf_view(room));
}

/* What is left of the store without such a row is still the store. */
static bool may_miss(enum store_table table)
{
    return table == STORE_ACCOUNTS || table == STORE_MAILBOX || table == STORE_ITEMS ||
           table == STORE_DEDUP || table == STORE_SESSIONS || table == STORE_SESSION_IN;
}

static void damaged(struct store *store, enum store_table table, struct xy_str key)
{
    atomic_fetch_add_explicit(&store->damaged, 1, memory_order_relaxed);
    if (store->options.damaged != NULL)
        store->options.damaged(store->options.ctx, table, key);
    if (!may_miss(table) && !store->only_looking)
        store_fail(store, "cannot read the tables",
                   "a row that others depend on is damaged; xylemd --check-store names it, restore a backup");
}

void seal_open(struct store *store, enum store_table table, struct xy_str key, struct xy_str *value)
{
    if (table == STORE_META || store->unsealed)
        return;
    if (value->len >= SEAL_BYTES) {
        struct xy_str bare = xy_str_n(value->data, value->len - SEAL_BYTES);
        if (be32_get(bare.data + bare.len) == checksum(key, bare)) {
            *value = bare;
            return;
        }
    }
    damaged(store, table, key);
    *value = SEAL_DAMAGED;
}

/* --- upgrade ------------------------------------------------------------------------------------------------------ */

struct upgrade {
    struct store *store;
    struct xy_buf *error;
    struct xy_arena *arena;
    struct xy_buf room, done; /* scratch; META_SEALED */
};

static bool upgrade_failed(struct upgrade *u, const char *why)
{
    if (u->error->len == 0)
        xy_buf_printf(u->error, "cannot upgrade the store: %s", why);
    u->store->tables->ops->abort(u->store->tables);
    return false;
}

static bool seal_page(struct upgrade *u, enum store_table table, const struct store_entry *page, size_t count)
{
    struct store_tables *tables = u->store->tables;
    for (size_t i = 0; i < count; i++)
        if (seal_put(tables, &u->room, table, page[i].key, page[i].value) != STORE_IO_OK)
            return upgrade_failed(u, tables->ops->error(tables));
    xy_buf_reset(&u->done);
    xy_buf_char(&u->done, (char)table);
    xy_buf_str(&u->done, page[count - 1].key);
    if (xy_buf_failed(&u->done))
        return upgrade_failed(u, "out of memory");
    if (tables->ops->put(tables, STORE_META, META_SEALED, xy_buf_view(&u->done)) != STORE_IO_OK ||
        tables->ops->commit(tables) != STORE_IO_OK)
        return upgrade_failed(u, tables->ops->error(tables));
    return true;
}

/* `from`: empty, or the first key that may not be sealed yet. */
static bool seal_table(struct upgrade *u, enum store_table table, struct xy_buf *from)
{
    static struct store_entry page[STORE_PAGE_RECORDS_MAX];
    bool more = true;
    while (more) {
        xy_arena_reset(u->arena);
        size_t count = store_scan_tables(u->store, table, XY_STR_NONE, xy_buf_view(from), u->arena, page,
                                         STORE_PAGE_RECORDS_MAX, &more);
        if (u->store->reader->failed || xy_arena_failed(u->arena) || (count == 0 && more))
            return upgrade_failed(u, "the tables cannot be read, or memory is short");
        if (count > 0 && !seal_page(u, table, page, count))
            return false;
        xy_buf_reset(from);
        if (count > 0)
            xy_buf_str(from, page[count - 1].key);
        xy_buf_char(from, '\0');
        if (xy_buf_failed(from))
            return upgrade_failed(u, "out of memory");
    }
    return true;
}

/* Where an interrupted upgrade stopped: the table to go on with, and in *from the key. */
static enum store_table resume(struct store *store, struct xy_buf *from)
{
    enum store_table table = STORE_META + 1;
    struct xy_str done;
    if (store->reader->ops->begin(store->reader) != STORE_IO_OK)
        return table;
    if (store->reader->ops->get(store->reader, STORE_META, META_SEALED, &done) && done.len > 0 &&
        (unsigned char)done.data[0] < STORE_TABLE_COUNT) {
        table = (enum store_table)done.data[0];
        xy_buf_add(from, done.data + 1, done.len - 1);
        xy_buf_char(from, '\0');
    }
    store->reader->ops->end(store->reader);
    return table;
}

/* The end of the upgrade is the new format, in one transaction with the end of its trace. */
static bool finish(struct upgrade *u)
{
    struct store_tables *tables = u->store->tables;
    char format[8];
    be64_put(format, STORE_FORMAT);
    if (tables->ops->del(tables, STORE_META, META_SEALED) != STORE_IO_OK ||
        tables->ops->put(tables, STORE_META, META_FORMAT, xy_str_n(format, sizeof(format))) != STORE_IO_OK ||
        tables->ops->commit(tables) != STORE_IO_OK)
        return upgrade_failed(u, tables->ops->error(tables));
    u->store->unsealed = false;
    return true;
}

bool seal_upgrade(struct store *store, struct xy_buf *error)
{
    struct upgrade u = { .store = store, .error = error, .arena = xy_arena_new() };
    struct xy_buf from = { 0 };
    bool ok = u.arena != NULL || upgrade_failed(&u, "out of memory");
    xy_assert(store->unsealed);
    for (enum store_table table = resume(store, &from); ok && table < STORE_TABLE_COUNT; table++) {
        ok = seal_table(&u, table, &from);
        xy_buf_reset(&from);
    }
    ok = ok && finish(&u);
    xy_buf_free(&from);
    xy_buf_free(&u.room);
    xy_buf_free(&u.done);
    xy_arena_free(&u.arena);
    return ok;
}
