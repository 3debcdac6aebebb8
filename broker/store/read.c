/* Reading: a key is looked up in the shard's active memory table, then in the frozen one, then in the tables, and the
 * first that knows it, or knows it deleted, decides. A scan merges the three in key order. No read transaction outlives
 * the call: LMDB could reuse no page freed after it began. */
#include "broker/store/internal.h"

#include "broker/store/key.h"
#include "broker/store/seal.h"
#include "core/base/assert.h"

enum { GENERATIONS = 2 }; /* active, frozen: newest first */

static void reader_done(struct store *store, struct store_reader *reader)
{
    reader->ops->end(reader);
    if (reader->failed)
        store_fail(store, "cannot read the tables", "the file is damaged or could not be read");
}

static bool reader_start(struct store *store, struct store_reader *reader)
{
    if (reader->ops->begin(reader) == STORE_IO_OK)
        return true;
    store_fail(store, "cannot read the tables", "no read transaction");
    return false;
}

bool read_older(struct store_shard *shard, enum store_table table, struct xy_str key, struct xy_str *value,
                bool *reading)
{
    enum memtable_hit hit =
        shard->frozen != NULL ? memtable_get(shard->frozen, table, key, value) : MEMTABLE_MISS;
    if (hit != MEMTABLE_MISS)
        return hit == MEMTABLE_VALUE;
    *reading = reader_start(shard->store, shard->reader);
    if (!*reading || !shard->reader->ops->get(shard->reader, table, key, value))
        return false;
    seal_open(shard->store, table, key, value);
    return true;
}

bool store_get(struct store_shard *shard, enum store_table table, struct xy_str key, struct xy_arena *arena,
               struct xy_str *value)
{
    struct key room;
    struct xy_str found = XY_STR_NONE;
    bool reading = false;
    key = key_fold(table, key, &room);
    enum memtable_hit hit = memtable_get(shard->active, table, key, &found);
    bool there =
        hit == MEMTABLE_VALUE || (hit == MEMTABLE_MISS && read_older(shard, table, key, &found, &reading));
    if (there)
        *value = xy_arena_str(arena, found);
    if (reading)
        reader_done(shard->store, shard->reader);
    return there;
}

/* --- merging ----------------------------------------------------------------------------------------------------- */

struct merge {
    enum store_table table;
    struct xy_str prefix;
    const struct memtable *mem[GENERATIONS]; /* NULL: none */
    const struct tree_entry *at[GENERATIONS];
    struct store *store;
    struct store_reader *reader;
    bool raw;    /* leave seals where they are */
    bool stored; /* the tables still have an entry: */
    struct xy_str stored_key, stored_value;
};

static void merge_seek(struct merge *m, struct xy_str from)
{
    for (int i = 0; i < GENERATIONS; i++)
        m->at[i] = m->mem[i] != NULL ? memtable_seek(m->mem[i], m->table, from) : NULL;
    m->stored = m->reader->ops->seek(m->reader, m->table, from, &m->stored_key, &m->stored_value);
}

/* The newest source that has the smallest key; GENERATIONS stands for the tables, -1 for the end. */
static int merge_smallest(const struct merge *m, struct xy_str *key)
{
    int source = -1;
    for (int i = 0; i < GENERATIONS; i++) {
        if (m->at[i] == NULL)
            continue;
        struct xy_str candidate = memtable_key(m->at[i]);
        if (source < 0 || xy_str_cmp(candidate, *key) < 0) {
            source = i;
            *key = candidate;
        }
    }
    if (m->stored && (source < 0 || xy_str_cmp(m->stored_key, *key) < 0)) {
        source = GENERATIONS;
        *key = m->stored_key;
    }
    return source;
}

static void merge_advance(struct merge *m, struct xy_str key)
{
    for (int i = 0; i < GENERATIONS; i++)
        if (m->at[i] != NULL && xy_str_eq(memtable_key(m->at[i]), key))
            m->at[i] = memtable_next(m->at[i]);
    if (m->stored && xy_str_eq(m->stored_key, key))
        m->stored = m->reader->ops->next(m->reader, &m->stored_key, &m->stored_value);
}

/* Skips what a newer generation deleted as a range; a million purged items cost one seek. */
static bool merge_skip_range(struct merge *m, int source, struct xy_str key)
{
    struct xy_str to;
    for (int newer = 0; newer < source; newer++) {
        if (m->mem[newer] == NULL || !memtable_covered(m->mem[newer], m->table, key, &to))
            continue;
        if (source == GENERATIONS)
            m->stored =
                to.len > 0 && m->reader->ops->seek(m->reader, m->table, to, &m->stored_key, &m->stored_value);
        else
            m->at[source] = to.len > 0 ? memtable_seek(m->mem[source], m->table, to) : NULL;
        return true;
    }
    return false;
}

static bool merge_next(struct merge *m, struct xy_str *key, struct xy_str *value)
{
    for (;;) {
        int source = merge_smallest(m, key);
        if (source < 0 || !xy_str_starts(*key, m->prefix))
            return false;
        if (merge_skip_range(m, source, *key))
            continue;
        *value = source == GENERATIONS ? m->stored_value : memtable_value(m->at[source]);
        if (source == GENERATIONS && !m->raw)
            seal_open(m->store, m->table, *key, value);
        /* The tables' key and value stay where they are until the transaction ends; moving on is safe. */
        merge_advance(m, *key);
        if (xy_str_present(*value))
            return true;
    }
}

/* The clock is looked at now and then: a page that comes from a slow disk ends early. */
static bool late(const struct xy_env *env, size_t count, uint64_t start_us)
{
    return count > 0 && count % 16 == 0 && xy_now_us(env) - start_us > STORE_PAGE_US_MAX;
}

static size_t merge_page(struct merge *m, struct xy_arena *arena, struct store_entry *out, size_t count_max,
                         bool *more)
{
    size_t count = 0, bytes = 0;
    const struct xy_env *env = m->store->options.env;
    uint64_t start_us = xy_now_us(env);
    struct xy_str key, value;
    *more = false;
    if (count_max > STORE_PAGE_RECORDS_MAX)
        count_max = STORE_PAGE_RECORDS_MAX;
    while (merge_next(m, &key, &value)) {
        bytes += key.len + value.len;
        if (count == count_max || (count > 0 && bytes > STORE_PAGE_BYTES_MAX) || late(env, count, start_us)) {
            *more = true;
            break;
        }
        out[count] = (struct store_entry){ xy_arena_str(arena, key), xy_arena_str(arena, value) };
        if (xy_arena_failed(arena))
            break;
        count++;
    }
    return count;
}

static size_t scan(struct merge *m, struct xy_str prefix, struct xy_str from, struct xy_arena *arena,
                   struct store_entry *out, size_t count_max, bool *more)
{
    struct key prefix_room, from_room;
    *more = false;
    m->prefix = key_fold(m->table, prefix, &prefix_room);
    from = key_fold(m->table, from, &from_room);
    if (xy_str_cmp(from, m->prefix) < 0)
        from = m->prefix;
    if (!reader_start(m->store, m->reader))
        return 0;
    merge_seek(m, from);
    size_t count = merge_page(m, arena, out, count_max, more);
    reader_done(m->store, m->reader);
    return count;
}

size_t store_scan(struct store_shard *shard, enum store_table table, struct xy_str prefix, struct xy_str from,
                  struct xy_arena *arena, struct store_entry *out, size_t count_max, bool *more)
{
    struct merge m = { .table = table,
                       .mem = { shard->active, shard->frozen },
                       .store = shard->store,
                       .reader = shard->reader };
    return scan(&m, prefix, from, arena, out, count_max, more);
}

static size_t scan_tables(struct merge *m, struct xy_str prefix, struct xy_str from, struct xy_arena *arena,
                          struct store_entry *out, size_t count_max, bool *more)
{
    m->reader = m->store->reader;
    pthread_mutex_lock(&m->store->reader_lock);
    size_t count = scan(m, prefix, from, arena, out, count_max, more);
    pthread_mutex_unlock(&m->store->reader_lock);
    return count;
}

size_t store_scan_tables(struct store *store, enum store_table table, struct xy_str prefix,
                         struct xy_str from, struct xy_arena *arena, struct store_entry *out,
                         size_t count_max, bool *more)
{
    struct merge m = { .table = table, .store = store };
    return scan_tables(&m, prefix, from, arena, out, count_max, more);
}

size_t read_raw(struct store *store, enum store_table table, struct xy_str from, struct xy_arena *arena,
                struct store_entry *out, size_t count_max, bool *more)
{
    struct merge m = { .table = table, .store = store, .raw = true };
    return scan_tables(&m, XY_STR_NONE, from, arena, out, count_max, more);
}
