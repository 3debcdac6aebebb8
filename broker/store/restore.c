/* What a store finds out about itself when it is opened from a copy. Clients remember items by (epoch, seq), and a copy
 * may hand out numbers again that the store it comes from had given to other items: so every node begins a new epoch, and
 * sessions, whose counters the copy cannot know, are forgotten. A file in the data directory says that it is a copy; it
 * goes last, so a crash within this begins it anew. Called by store_open after recovery. */
#include <stdio.h>
#include <unistd.h>

#include "broker/store/backup_internal.h"
#include "broker/store/record.h"
#include "broker/store/seal.h"
#include "core/base/assert.h"
#include "xylem/store/v1/records.pb-c.h"

static bool broken(struct xy_buf *error, const char *why)
{
    xy_buf_printf(error, "cannot begin with the restored store: %s", why);
    return false;
}

static bool new_epoch(struct store *store, const struct store_entry *row, struct xy_arena *arena,
                      struct xy_buf *error)
{
    struct store_tables *tables = store->tables;
    ProtobufCMessage *message = record_unpack(apply_descriptor(RECORD_NODE_PUT), row->value, arena);
    if (message == NULL)
        return broken(error, "a node's record cannot be read; restore an older copy");
    Xylem__Store__V1__NodePut *node = (void *)message;
    uint64_t before = node->epoch;
    while (node->epoch == before)
        xy_random(store->options.env, &node->epoch, sizeof(node->epoch));
    size_t len = protobuf_c_message_get_packed_size(message);
    char *packed = xy_arena_alloc(arena, len);
    if (packed == NULL)
        return broken(error, "memory is short");
    (void)protobuf_c_message_pack(message, (uint8_t *)packed);
    if (seal_put(tables, &store->seal_room, STORE_NODES, row->key, xy_str_n(packed, len)) != STORE_IO_OK)
        return broken(error, tables->ops->error(tables));
    return true;
}

/* One transaction per page. */
static bool new_epochs(struct store *store, struct xy_buf *error)
{
    static struct store_entry page[STORE_PAGE_RECORDS_MAX];
    struct xy_arena *arena = xy_arena_new();
    struct xy_buf from = { 0 };
    bool more = true, ok = arena != NULL || broken(error, "memory is short");
    while (more && ok) {
        xy_arena_reset(arena);
        size_t count = store_scan_tables(store, STORE_NODES, XY_STR_NONE, xy_buf_view(&from), arena, page,
                                         STORE_PAGE_RECORDS_MAX, &more);
        for (size_t i = 0; i < count && ok; i++)
            ok = new_epoch(store, &page[i], arena, error);
        if (ok && store->tables->ops->commit(store->tables) != STORE_IO_OK)
            ok = broken(error, store->tables->ops->error(store->tables));
        xy_buf_reset(&from);
        if (count > 0)
            xy_buf_str(&from, page[count - 1].key);
        xy_buf_char(&from, '\0');
        if (ok && (store->reader->failed || xy_buf_failed(&from) || (count == 0 && more)))
            ok = broken(error, "the nodes cannot be read, or memory is short");
    }
    if (!ok)
        store->tables->ops->abort(store->tables);
    xy_buf_free(&from);
    xy_arena_free(&arena);
    return ok;
}

static bool forget_sessions(struct store *store, struct xy_buf *error)
{
    static const enum store_table of_sessions[] = { STORE_SESSIONS, STORE_SESSION_IN };
    struct store_tables *tables = store->tables;
    for (size_t i = 0; i < sizeof(of_sessions) / sizeof(of_sessions[0]); i++) {
        bool more = true;
        while (more) {
            if (tables->ops->del_range(tables, of_sessions[i], XY_STR_NONE, XY_STR_NONE, STORE_RANGE_SLICE,
                                       &more) != STORE_IO_OK ||
                tables->ops->commit(tables) != STORE_IO_OK)
                return broken(error, tables->ops->error(tables));
        }
    }
    return true;
}

bool restore_run(struct store *store, struct xy_buf *error)
{
    struct xy_buf path = { 0 };
    bool ok = true;
    if (store->data_dir == NULL)
        return true;
    xy_buf_printf(&path, "%s/%s", store->data_dir, RESTORED_FILE);
    xy_buf_char(&path, '\0');
    if (xy_buf_failed(&path)) {
        ok = broken(error, "memory is short");
    } else if (access(path.data, F_OK) == 0) {
        ok = new_epochs(store, error) && forget_sessions(store, error);
        if (ok && unlink(path.data) != 0)
            ok = broken(error, "the file that marks it as a copy cannot be removed");
        ok = ok && backup_sync_directory(store->data_dir, error);
        store->restored = ok;
    }
    xy_buf_free(&path);
    return ok;
}
