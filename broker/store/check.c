/* The check of a whole store: the log first, entry by entry, then every table, page by page, over the log's tail in
 * memory. See check.h for who calls it and check_rows.c for what a row must look like. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/store/bigendian.h"
#include "broker/store/check_internal.h"
#include "broker/store/record.h"
#include "core/base/assert.h"

enum { LINE_BYTES = 1024 };

static void say(struct checker *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct checker *c, const char *format, ...)
{
    char line[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    for (char *at = line; *at != '\0'; at++) /* names come from users */
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?';
    c->out->say(c->out->ctx, line);
}

void check_problem(struct checker *c, const char *format, ...)
{
    char line[LINE_BYTES];
    va_list arguments;
    c->out->problems++;
    if (++c->lines > STORE_CHECK_LINES_MAX)
        return;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    say(c, "%s", line);
}

static void part_begin(struct checker *c)
{
    c->lines = 0;
}

static void part_end(struct checker *c, const char *name)
{
    if (c->lines > STORE_CHECK_LINES_MAX)
        say(c, "%s: and %u more like these", name, c->lines - STORE_CHECK_LINES_MAX);
}

/* --- log --------------------------------------------------------------------------------------------------------- */

struct log_walk {
    struct checker *c;
    uint64_t position; /* of the entry before, 0: none */
};

static void check_entry(struct checker *c, uint64_t position, struct xy_str entry)
{
    struct xy_str rest = entry;
    while (rest.len > 0) {
        struct record_view record;
        size_t offset = entry.len - rest.len;
        enum record_status status = record_parse(&rest, &record);
        if (status != RECORD_OK) {
            check_problem(c, "log: entry %llu, record at byte %zu: %s", (unsigned long long)position, offset,
                          record_status_text(status));
            return; /* where the next one begins is not known */
        }
        c->out->records++;
        xy_arena_reset(c->row);
        if (record_unpack(apply_descriptor(record.type), record.payload, c->row) == NULL)
            check_problem(c, "log: entry %llu, record at byte %zu: its message is malformed",
                          (unsigned long long)position, offset);
    }
}

static bool visit(void *ctx, uint64_t position, struct xy_str entry)
{
    struct log_walk *walk = ctx;
    if (walk->position != 0 && position != walk->position + 1)
        check_problem(walk->c, "log: entries %llu to %llu are missing",
                      (unsigned long long)walk->position + 1, (unsigned long long)position - 1);
    walk->position = position;
    walk->c->out->entries++;
    check_entry(walk->c, position, entry);
    return true;
}

static void check_log(struct checker *c)
{
    struct log_walk walk = { .c = c };
    part_begin(c);
    if (c->store->log->ops->read(c->store->log, 0, visit, &walk) != STORE_IO_OK)
        check_problem(c, "log: it cannot be read to its end. %s", c->store->log->ops->error(c->store->log));
    uint64_t complete = 0;
    (void)recovery_meta(c->store, META_COMPLETE, &complete);
    if (walk.position != 0 && walk.position < complete)
        check_problem(
            c, "log: it ends at entry %llu, the tables hold up to %llu: the log is older than tables.mdb",
            (unsigned long long)walk.position, (unsigned long long)complete);
    part_end(c, "log");
}

/* --- tables ------------------------------------------------------------------------------------------------------- */

static void check_table(struct checker *c, enum store_table table)
{
    static struct store_entry page[STORE_PAGE_RECORDS_MAX];
    struct xy_arena *arena = xy_arena_new();
    struct xy_buf from = { 0 };
    bool more = arena != NULL;
    part_begin(c);
    if (arena == NULL)
        check_problem(c, "%s: out of memory", store_table_name(table));
    while (more) {
        xy_arena_reset(arena);
        size_t count = store_scan(c->shard, table, XY_STR_NONE, xy_buf_view(&from), arena, page,
                                  STORE_PAGE_RECORDS_MAX, &more);
        for (size_t i = 0; i < count; i++)
            check_row(c, table, page[i].key, page[i].value);
        c->out->rows += count;
        xy_buf_reset(&from);
        if (count > 0)
            xy_buf_str(&from, page[count - 1].key);
        xy_buf_char(&from, '\0');
        if (c->store->reader->failed || c->shard->reader->failed || xy_arena_failed(arena) ||
            xy_buf_failed(&from) || (count == 0 && more)) {
            check_problem(c, "%s: the rest cannot be read", store_table_name(table));
            break;
        }
    }
    part_end(c, store_table_name(table));
    xy_buf_free(&from);
    xy_arena_free(&arena);
}

static int by_value(const void *a, const void *b)
{
    uint64_t left, right;
    memcpy(&left, a, sizeof(left));
    memcpy(&right, b, sizeof(right));
    return (left > right) - (left < right);
}

/* Nodes first: the other tables are held against their numbers. */
static void check_tables(struct checker *c)
{
    check_table(c, STORE_NODES);
    size_t count = c->nodes.len / sizeof(uint64_t);
    if (count > 0)
        qsort(c->nodes.data, count, sizeof(uint64_t), by_value);
    part_begin(c);
    for (size_t i = 1; i < count; i++)
        if (memcmp(c->nodes.data + i * 8, c->nodes.data + (i - 1) * 8, 8) == 0) {
            uint64_t number;
            memcpy(&number, c->nodes.data + i * 8, 8);
            check_problem(c, "nodes: two nodes have the number %llu", (unsigned long long)number);
        }
    part_end(c, "nodes");
    for (enum store_table table = 0; table < STORE_TABLE_COUNT; table++)
        if (table != STORE_NODES)
            check_table(c, table);
}

/* What a start would see: the tables, and in the shard's memory what the log adds. */
static bool recover(struct checker *c)
{
    struct memtable *mem;
    struct xy_buf error = { 0 };
    if (!recovery_read(c->store, &mem, &error)) {
        say(c, "%.*s", XY_ARG(xy_buf_view(&error)));
        c->out->problems += c->out->problems == 0; /* else it is what was said before */
        xy_buf_free(&error);
        return false;
    }
    if (!store_make_shards(c->store, &error)) {
        check_problem(c, "%.*s", XY_ARG(xy_buf_view(&error)));
        memtable_free(&mem);
        xy_buf_free(&error);
        return false;
    }
    c->shard = store_shard(c->store, 0);
    memtable_free(&c->shard->active);
    c->shard->active = mem;
    return true;
}

static void check_prepared(struct checker *c)
{
    c->row = xy_arena_new();
    c->looked = xy_arena_new();
    if (c->row == NULL || c->looked == NULL) {
        check_problem(c, "out of memory");
    } else {
        check_log(c);
        if (recover(c))
            check_tables(c);
        else
            say(c, "the tables were not compared: for that the log must be readable");
    }
    xy_xml_free(&c->parser);
    xy_buf_free(&c->nodes);
    xy_arena_free(&c->row);
    xy_arena_free(&c->looked);
}

static bool is_there(const char *data_dir)
{
    char path[4096];
    int len = snprintf(path, sizeof(path), "%s/tables.mdb", data_dir);
    return len > 0 && len < (int)sizeof(path) && access(path, F_OK) == 0;
}

bool store_check(const struct store_options *options, struct store_check *check)
{
    struct checker c = { .out = check };
    struct store_options own = *options;
    struct xy_buf error = { 0 };
    own.shards = 1;
    own.threads = false;
    own.committed = NULL;
    own.failed = NULL;
    own.damaged = NULL;
    if (own.data_dir != NULL && !is_there(own.data_dir)) {
        check_problem(&c, "there is no store in %s", own.data_dir);
        return false;
    }
    c.store = store_prepare(&own, &error);
    if (c.store == NULL) {
        check_problem(&c, "%.*s", XY_ARG(xy_buf_view(&error)));
    } else {
        c.store->only_looking = true;
        check_prepared(&c);
        say(&c, "%llu entries and %llu records in the log, %llu rows in the tables: %s",
            (unsigned long long)check->entries, (unsigned long long)check->records,
            (unsigned long long)check->rows, check->problems == 0 ? "sound" : "damaged");
    }
    store_release(&c.store);
    xy_buf_free(&error);
    return check->problems == 0;
}
