/* One ordered map per table and one more for its deleted ranges; see memtable.h for what they are for. The maps are
 * B+ trees (tree.h) in one arena; here is what a value, a tombstone and a deleted range are. */
#include "broker/store/memtable.h"

#include <stdlib.h>

#include "broker/store/tree.h"
#include "core/base/arena.h"
#include "core/base/assert.h"

struct memtable {
    struct tree entries[STORE_TABLE_COUNT];
    struct tree ranges[STORE_TABLE_COUNT];
    struct xy_arena *arena;
    size_t count;
};

static struct tree_entry *entry_insert(struct memtable *mem, struct tree *tree,
                                       const struct tree_probe *probe, struct tree_entry *at,
                                       struct tree_path *path)
{
    struct tree_entry *entry = tree_insert(tree, mem->arena, probe, at, path);
    mem->count += entry != NULL;
    return entry;
}

static void entry_remove(struct memtable *mem, struct tree *tree, struct tree_entry *entry,
                         struct tree_path *path)
{
    tree_remove(tree, entry, path);
    mem->count--;
}

/* Overwrites in place where the former value had the room: dense keys (cursors, sequences) cost nothing after their
 * first put. */
static bool entry_set(struct memtable *mem, struct tree_entry *entry, struct xy_str head, struct xy_str body)
{
    size_t len = head.len + body.len;
    xy_assert(len <= UINT32_MAX);
    if (entry->value == NULL || entry->value_cap < len) {
        char *value = xy_arena_alloc(mem->arena, len > 0 ? len : 1);
        if (value == NULL)
            return false;
        entry->value = value;
        entry->value_cap = (uint32_t)len;
    }
    if (head.len > 0)
        memcpy(entry->value, head.data, head.len);
    if (body.len > 0)
        memcpy(entry->value + head.len, body.data, body.len);
    entry->value_len = (uint32_t)len;
    return true;
}

struct memtable *memtable_new(void)
{
    struct memtable *mem = calloc(1, sizeof(*mem));
    if (mem == NULL)
        return NULL;
    mem->arena = xy_arena_new();
    if (mem->arena == NULL) {
        free(mem);
        return NULL;
    }
    return mem;
}

void memtable_free(struct memtable **mem)
{
    if (*mem == NULL)
        return;
    xy_arena_free(&(*mem)->arena);
    free(*mem);
    *mem = NULL;
}

bool memtable_put(struct memtable *mem, enum store_table table, struct xy_str key, struct xy_str head,
                  struct xy_str body, bool fresh)
{
    struct tree *tree = &mem->entries[table];
    struct tree_probe probe = tree_probe(key);
    struct tree_path path;
    struct tree_entry *entry = tree_find(tree, &probe, &path);
    if (tree_is(entry, &probe))
        return entry_set(mem, entry, head, body); /* what it was before, known or fresh, it stays */
    entry = entry_insert(mem, tree, &probe, entry, &path);
    if (entry == NULL)
        return false;
    entry->fresh = fresh;
    if (entry_set(mem, entry, head, body))
        return true;
    memtable_forget(mem, table, key);
    return false;
}

bool memtable_del(struct memtable *mem, enum store_table table, struct xy_str key)
{
    struct tree *tree = &mem->entries[table];
    struct tree_probe probe = tree_probe(key);
    struct tree_path path;
    struct tree_entry *entry = tree_find(tree, &probe, &path);
    if (!tree_is(entry, &probe))
        return entry_insert(mem, tree, &probe, entry, &path) != NULL;
    if (entry->fresh)
        entry_remove(mem, tree, entry, &path);
    entry->value = NULL;
    entry->value_len = entry->value_cap = 0;
    return true;
}

/* The entry is there. */
static void remove_key(struct memtable *mem, struct tree *tree, struct xy_str key)
{
    struct tree_probe probe = tree_probe(key);
    struct tree_path path;
    struct tree_entry *entry = tree_find(tree, &probe, &path);
    xy_assert(tree_is(entry, &probe));
    entry_remove(mem, tree, entry, &path);
}

void memtable_forget(struct memtable *mem, enum store_table table, struct xy_str key)
{
    struct tree_probe probe = tree_probe(key);
    if (tree_is(tree_find(&mem->entries[table], &probe, NULL), &probe))
        remove_key(mem, &mem->entries[table], key);
}

/* Does the range that ends at `end` (empty: open) reach up to `key`? */
static bool reaches(struct xy_str end, struct xy_str key)
{
    return end.len == 0 || xy_str_cmp(end, key) >= 0;
}

/* Of two ends of ranges, empty is open. */
static bool ends_before(struct xy_str a, struct xy_str b)
{
    return a.len > 0 && (b.len == 0 || xy_str_cmp(a, b) < 0);
}

static const struct tree_entry *range_before(const struct tree *ranges, const struct tree_entry *at)
{
    return at != NULL ? at->prev : ranges->last;
}

static void remove_between(struct memtable *mem, struct tree *tree, struct xy_str from, struct xy_str to)
{
    struct tree_probe probe = tree_probe(from);
    struct tree_entry *entry = tree_find(tree, &probe, NULL);
    while (entry != NULL && (to.len == 0 || xy_str_cmp(tree_key(entry), to) < 0)) {
        struct tree_entry *next = entry->next;
        remove_key(mem, tree, tree_key(entry));
        entry = next;
    }
}

bool memtable_del_range(struct memtable *mem, enum store_table table, struct xy_str from, struct xy_str to)
{
    remove_between(mem, &mem->entries[table], from, to);

    /* Ranges stay disjoint: one that begins earlier and reaches us is extended, those that begin within us go. */
    struct tree *ranges = &mem->ranges[table];
    struct tree_probe probe = tree_probe(from);
    struct tree_path path;
    const struct tree_entry *before = range_before(ranges, tree_find(ranges, &probe, NULL));
    if (before != NULL && reaches(memtable_value(before), from)) {
        from = tree_key(before);
        probe = tree_probe(from);
        if (!ends_before(memtable_value(before), to))
            return true;
    }
    struct tree_entry *ours = tree_find(ranges, &probe, &path);
    if (!tree_is(ours, &probe))
        ours = entry_insert(mem, ranges, &probe, ours, &path);
    if (ours == NULL)
        return false;
    struct tree_entry *next;
    while ((next = ours->next) != NULL && reaches(to, tree_key(next))) {
        if (ends_before(to, memtable_value(next)))
            to = memtable_value(next);
        remove_key(mem, ranges, tree_key(next));
    }
    if (ours->value != NULL && !ends_before(memtable_value(ours), to))
        return true;
    return entry_set(mem, ours, to, XY_STR_NONE);
}

bool memtable_covered(const struct memtable *mem, enum store_table table, struct xy_str key,
                      struct xy_str *to)
{
    const struct tree *ranges = &mem->ranges[table];
    if (ranges->first == NULL)
        return false;
    struct tree_probe probe = tree_probe(key);
    const struct tree_entry *at = tree_find(ranges, &probe, NULL);
    const struct tree_entry *range = tree_is(at, &probe) ? at : range_before(ranges, at);
    if (range == NULL)
        return false;
    *to = memtable_value(range);
    return to->len == 0 || xy_str_cmp(key, *to) < 0;
}

enum memtable_hit memtable_get(const struct memtable *mem, enum store_table table, struct xy_str key,
                               struct xy_str *value)
{
    struct tree_probe probe = tree_probe(key);
    const struct tree_entry *entry = tree_find(&mem->entries[table], &probe, NULL);
    if (tree_is(entry, &probe)) {
        *value = memtable_value(entry);
        return xy_str_present(*value) ? MEMTABLE_VALUE : MEMTABLE_GONE;
    }
    struct xy_str to;
    return memtable_covered(mem, table, key, &to) ? MEMTABLE_GONE : MEMTABLE_MISS;
}

bool memtable_set_head(struct memtable *mem, enum store_table table, struct xy_str key, char head)
{
    struct tree_probe probe = tree_probe(key);
    struct tree_entry *entry = tree_find(&mem->entries[table], &probe, NULL);
    if (!tree_is(entry, &probe) || entry->value == NULL || entry->value_len == 0)
        return false;
    entry->value[0] = head;
    return true;
}

const struct tree_entry *memtable_seek(const struct memtable *mem, enum store_table table, struct xy_str from)
{
    struct tree_probe probe = tree_probe(from);
    return tree_find(&mem->entries[table], &probe, NULL);
}

const struct tree_entry *memtable_next(const struct tree_entry *entry)
{
    return entry->next;
}

struct xy_str memtable_key(const struct tree_entry *entry)
{
    return tree_key(entry);
}

struct xy_str memtable_value(const struct tree_entry *entry)
{
    return xy_str_n(entry->value, entry->value_len);
}

const struct tree_entry *memtable_ranges(const struct memtable *mem, enum store_table table)
{
    return mem->ranges[table].first;
}

size_t memtable_bytes(const struct memtable *mem)
{
    return xy_arena_used(mem->arena);
}

size_t memtable_count(const struct memtable *mem)
{
    return mem->count;
}
