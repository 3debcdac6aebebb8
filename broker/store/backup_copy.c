/* Copying a store that is being written: tables page by page, the log's new entries in between and at the end. backup.h
 * says why the outcome is consistent. Called on the backup's thread. */
#include "broker/store/backup_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/store/bigendian.h"
#include "core/base/assert.h"

bool copier_failed(const struct copier *c)
{
    return c->error.len > 0 || xy_buf_failed(&c->error);
}

void copier_fail(struct copier *c, const char *format, ...)
{
    char text[STORE_BACKUP_ERROR_MAX];
    va_list arguments;
    if (copier_failed(c))
        return;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    xy_buf_str(&c->error, xy_str(text));
}

/* --- log --------------------------------------------------------------------------------------------------------- */

/* Entries as they are read, packed end to end: position (8), length (4), bytes. */
struct log_page {
    struct copier *c;
    struct xy_buf bytes;
    uint64_t start_us;
    unsigned count;
    bool full; /* there may be more */
};

enum { ENTRY_HEADER = 12 };

static bool gather(void *ctx, uint64_t position, struct xy_str entry)
{
    struct log_page *page = ctx;
    char header[ENTRY_HEADER];
    be64_put(header, position);
    be32_put(header + 8, (uint32_t)entry.len);
    xy_buf_add(&page->bytes, header, sizeof(header));
    xy_buf_str(&page->bytes, entry);
    page->count++;
    page->full = page->count == STORE_PAGE_RECORDS_MAX || page->bytes.len >= STORE_PAGE_BYTES_MAX ||
                 (page->count % 16 == 0 &&
                  xy_now_us(page->c->store->options.env) - page->start_us > STORE_PAGE_US_MAX);
    return !page->full;
}

/* The copy must not take the last of a disk that the store may be on too. Twice: pages are not always full. */
static void look_for_room(struct copier *c)
{
    uint64_t open = 2 * (c->tables_open + c->log_open);
    if (!copier_failed(c) && (c->tables->ops->room(c->tables) <= open || c->log->ops->room(c->log) <= open))
        copier_fail(c, "the disk would be full");
}

static void commit_log(struct copier *c)
{
    look_for_room(c);
    if (!copier_failed(c) && c->log->ops->commit(c->log) != STORE_IO_OK)
        copier_fail(c, "cannot write the copy: %s", c->log->ops->error(c->log));
    c->log_open = 0;
}

static void put_entries(struct copier *c, struct xy_str rest)
{
    while (rest.len > 0 && !copier_failed(c)) {
        uint64_t position = be64_get(rest.data);
        size_t len = be32_get(rest.data + 8);
        xy_assert(rest.len >= ENTRY_HEADER + len);
        struct xy_str entry = xy_str_n(rest.data + ENTRY_HEADER, len);
        if (position != c->copied + 1)
            copier_fail(c, "the log was cut before it was copied: the copy is too slow for what is written");
        else if (c->log->ops->append(c->log, position, entry) != STORE_IO_OK)
            copier_fail(c, "cannot write the copy: %s", c->log->ops->error(c->log));
        c->copied = position;
        c->log_bytes += len;
        c->log_open += len;
        rest = xy_str_n(entry.data + len, rest.len - ENTRY_HEADER - len);
    }
    if (c->log_open >= STORE_BACKUP_TXN_BYTES)
        commit_log(c);
}

/* The store may cut its log up to here now. */
static void release_log(struct copier *c)
{
    struct store *store = c->store;
    pthread_mutex_lock(&store->lock);
    if (store->hold_broken)
        copier_fail(c, "the log filled while the copy waited: it is too slow for what is written");
    else
        store->held_from = c->copied;
    pthread_cond_signal(&store->commit_wake); /* there may be something to cut */
    pthread_mutex_unlock(&store->lock);
}

/* Everything that is committed now. */
static void copy_log(struct copier *c)
{
    struct log_page page = { .c = c, .full = true };
    while (page.full && !copier_failed(c) && copier_go_on(c, 0)) {
        page.full = false;
        page.count = 0;
        page.start_us = xy_now_us(c->store->options.env);
        xy_buf_reset(&page.bytes);
        if (c->store->log->ops->read(c->store->log, c->copied + 1, gather, &page) != STORE_IO_OK)
            copier_fail(c, "the log cannot be read");
        else if (xy_buf_failed(&page.bytes))
            copier_fail(c, "memory is short");
        else
            put_entries(c, xy_buf_view(&page.bytes));
        release_log(c);
    }
    if (c->log_open > 0)
        commit_log(c); /* never open while a transaction on the tables begins: one order of LMDB's locks */
    xy_buf_free(&page.bytes);
}

/* --- tables ------------------------------------------------------------------------------------------------------- */

static void commit_tables(struct copier *c)
{
    look_for_room(c);
    if (!copier_failed(c) && c->tables->ops->commit(c->tables) != STORE_IO_OK)
        copier_fail(c, "cannot write the copy: %s", c->tables->ops->error(c->tables));
    c->tables_open = 0;
}

static void put_row(struct copier *c, enum store_table table, struct xy_str key, struct xy_str value)
{
    if (copier_failed(c))
        return;
    if (c->tables->ops->put(c->tables, table, key, value) != STORE_IO_OK)
        copier_fail(c, "cannot write the copy: %s", c->tables->ops->error(c->tables));
    c->table_bytes += key.len + value.len;
    c->tables_open += key.len + value.len;
    if (c->tables_open >= STORE_BACKUP_TXN_BYTES)
        commit_tables(c);
}

/* Not faster than asked for; what is written meanwhile is copied at its own pace. */
static void keep_rate(struct copier *c, uint64_t rate)
{
    const struct xy_env *env = c->store->options.env;
    while (rate > 0 && !copier_failed(c)) {
        uint64_t due_us = (uint64_t)((double)c->table_bytes * 1e6 / (double)rate);
        uint64_t passed_us = xy_now_us(env) - c->start_us;
        if (passed_us >= due_us)
            break;
        uint64_t wait_us = due_us - passed_us;
        if (!copier_go_on(c, wait_us < STORE_BACKUP_PAUSE_US ? wait_us : STORE_BACKUP_PAUSE_US))
            break;
        copy_log(c);
    }
}

static void copy_table(struct copier *c, enum store_table table, uint64_t rate)
{
    struct store_entry *page = malloc(STORE_PAGE_RECORDS_MAX * sizeof(*page));
    struct xy_arena *arena = xy_arena_new();
    struct xy_buf from = { 0 };
    bool more = true;
    if (page == NULL || arena == NULL)
        copier_fail(c, "memory is short");
    while (more && !copier_failed(c) && copier_go_on(c, 0)) {
        xy_arena_reset(arena);
        size_t count =
            read_raw(c->store, table, xy_buf_view(&from), arena, page, STORE_PAGE_RECORDS_MAX, &more);
        if (store_failed(c->store) || xy_arena_failed(arena) || (count == 0 && more))
            copier_fail(c, "the table %s cannot be read, or memory is short", store_table_name(table));
        for (size_t i = 0; i < count; i++)
            put_row(c, table, page[i].key, page[i].value);
        xy_buf_reset(&from);
        if (count > 0)
            xy_buf_str(&from, page[count - 1].key);
        xy_buf_char(&from, '\0');
        if (xy_buf_failed(&from))
            copier_fail(c, "memory is short");
        copy_log(c);
        keep_rate(c, rate);
    }
    xy_buf_free(&from);
    xy_arena_free(&arena);
    free(page);
}

/* --- the whole ---------------------------------------------------------------------------------------------------- */

static void put_meta(struct copier *c, struct xy_str name, uint64_t value)
{
    char bytes[8];
    be64_put(bytes, value);
    put_row(c, STORE_META, name, xy_str_n(bytes, sizeof(bytes)));
}

static uint64_t read_meta(struct copier *c, struct xy_str name)
{
    uint64_t value = 0;
    pthread_mutex_lock(&c->store->reader_lock);
    (void)recovery_meta(c->store, name, &value);
    pthread_mutex_unlock(&c->store->reader_lock);
    return value;
}

/* From here on nothing above cut_upto leaves the log, and the tables hold at least what was written up to there. */
static void hold_log(struct copier *c)
{
    struct store *store = c->store;
    pthread_mutex_lock(&store->lock);
    store->hold_broken = false;
    store->held_from = store->cut_upto;
    pthread_mutex_unlock(&store->lock);
    c->complete = c->copied = read_meta(c, META_COMPLETE);
}

static void end_hold(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    store->held_from = UINT64_MAX;
    pthread_cond_signal(&store->commit_wake);
    pthread_mutex_unlock(&store->lock);
}

void copier_run(struct copier *c, uint64_t rate)
{
    hold_log(c);
    for (enum store_table table = 0; table < STORE_TABLE_COUNT; table++)
        if (table != STORE_META)
            copy_table(c, table, rate);
    /* The rows just read may come from entries up to this one, and their neighbours must come along. */
    uint64_t upto = atomic_load_explicit(&c->store->position_committed, memory_order_acquire);
    while (c->copied < upto && !copier_failed(c) && copier_go_on(c, 0))
        copy_log(c);
    put_meta(c, META_FORMAT, store_format(c->store));
    put_meta(c, META_NUMBERS, read_meta(c, META_NUMBERS));
    put_meta(c, META_COMPLETE, c->complete);
    commit_log(c);
    commit_tables(c);
    end_hold(c->store);
}
