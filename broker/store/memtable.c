/* Ordered maps as skip lists, one per table and one more for its deleted ranges; see memtable.h for what they are for.
 *
 * An entry keeps the first sixteen bytes of its key as two numbers beside the links, so nearly every comparison on the
 * way down touches one cache line and no key bytes: the keys of items, cursors and sequences fit in whole. */
#include "broker/store/memtable.h"

#include <stdlib.h>

#include "broker/store/bigendian.h"
#include "core/base/arena.h"
#include "core/base/assert.h"

enum { HEIGHT_MAX = 12, HEAD_BYTES = 16 }; /* one in four rises: 4^12 entries */

struct memtable_entry {
    uint64_t head[2]; /* of the key, padded with zeros */
    char *value;      /* NULL: tombstone */
    uint32_t value_len, value_cap;
    uint16_t key_len;
    uint8_t height;
    bool fresh;
    struct memtable_entry *next[]; /* `height` links, then the key */
};

struct skiplist {
    struct memtable_entry *first[HEIGHT_MAX];
};

struct memtable {
    struct skiplist entries[STORE_TABLE_COUNT];
    struct skiplist ranges[STORE_TABLE_COUNT];
    struct xy_arena *arena;
    uint64_t random;
    size_t count;
};

/* A key taken apart for comparing. */
struct probe {
    uint64_t head[2];
    struct xy_str key;
};

/* Links to follow and to change: where each level's search ended. */
struct path {
    struct memtable_entry **link[HEIGHT_MAX];
};

static struct probe probe_of(struct xy_str key)
{
    char padded[HEAD_BYTES] = { 0 };
    if (key.len > 0)
        memcpy(padded, key.data, key.len < HEAD_BYTES ? key.len : HEAD_BYTES);
    return (struct probe){ .head = { be64_get(padded), be64_get(padded + 8) }, .key = key };
}

static const char *entry_key(const struct memtable_entry *entry)
{
    return (const char *)(entry->next + entry->height);
}

/* Order of entry and probe. Padding makes a short key equal to one that goes on with zeros: then length decides, which
 * is right, because the shorter is a prefix of the longer. */
static int entry_cmp(const struct memtable_entry *entry, const struct probe *probe)
{
    for (int i = 0; i < 2; i++)
        if (entry->head[i] != probe->head[i])
            return entry->head[i] < probe->head[i] ? -1 : 1;
    if (entry->key_len > HEAD_BYTES && probe->key.len > HEAD_BYTES)
        return xy_str_cmp(xy_str_n(entry_key(entry) + HEAD_BYTES, entry->key_len - HEAD_BYTES),
                          xy_str_n(probe->key.data + HEAD_BYTES, probe->key.len - HEAD_BYTES));
    return (entry->key_len > probe->key.len) - (entry->key_len < probe->key.len);
}

/* The first entry at or after the probe; *path says where it is linked. */
static struct memtable_entry *find(struct skiplist *list, const struct probe *probe, struct path *path)
{
    struct memtable_entry **links = list->first, *known_after = NULL;
    for (int level = HEIGHT_MAX - 1; level >= 0; level--) {
        struct memtable_entry *entry;
        while ((entry = links[level]) != NULL && entry != known_after && entry_cmp(entry, probe) < 0)
            links = entry->next;
        known_after = entry; /* met again one level lower, it needs no second comparison */
        path->link[level] = &links[level];
    }
    return links[0];
}

/* The same for readers; *before is the last entry below the probe. */
static const struct memtable_entry *lookup(const struct skiplist *list, const struct probe *probe,
                                           const struct memtable_entry **before)
{
    struct memtable_entry *const *links = list->first;
    const struct memtable_entry *known_after = NULL, *last = NULL;
    for (int level = HEIGHT_MAX - 1; level >= 0; level--) {
        const struct memtable_entry *entry;
        while ((entry = links[level]) != NULL && entry != known_after && entry_cmp(entry, probe) < 0) {
            links = entry->next;
            last = entry;
        }
        known_after = entry;
    }
    if (before != NULL)
        *before = last;
    return links[0];
}

static bool entry_is(const struct memtable_entry *entry, const struct probe *probe)
{
    return entry != NULL && entry_cmp(entry, probe) == 0;
}

static unsigned random_height(struct memtable *mem)
{
    mem->random ^= mem->random << 13;
    mem->random ^= mem->random >> 7;
    mem->random ^= mem->random << 17;
    unsigned height = 1;
    for (uint64_t bits = mem->random; height < HEIGHT_MAX && (bits & 3) == 0; bits >>= 2)
        height++;
    return height;
}

static struct memtable_entry *entry_insert(struct memtable *mem, const struct probe *probe, struct path *path)
{
    xy_assert(probe->key.len <= UINT16_MAX);
    unsigned height = random_height(mem);
    size_t links = height * sizeof(struct memtable_entry *);
    struct memtable_entry *entry = xy_arena_alloc(mem->arena, sizeof(*entry) + links + probe->key.len);
    if (entry == NULL)
        return NULL;
    *entry = (struct memtable_entry){ .head = { probe->head[0], probe->head[1] },
                                      .key_len = (uint16_t)probe->key.len,
                                      .height = (uint8_t)height };
    if (probe->key.len > 0)
        memcpy((char *)(entry->next + height), probe->key.data, probe->key.len);
    for (unsigned level = 0; level < height; level++) {
        entry->next[level] = *path->link[level];
        *path->link[level] = entry;
    }
    mem->count++;
    return entry;
}

static void entry_unlink(struct memtable *mem, struct memtable_entry *entry, struct path *path)
{
    for (unsigned level = 0; level < entry->height; level++) {
        xy_assert(*path->link[level] == entry);
        *path->link[level] = entry->next[level];
    }
    mem->count--;
}

/* Overwrites in place where the former value had the room: dense keys (cursors, sequences) cost nothing after their
 * first put. */
static bool entry_set(struct memtable *mem, struct memtable_entry *entry, struct xy_str head,
                      struct xy_str body)
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
    mem->random = 0x9e3779b97f4a7c15u;
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
    struct probe probe = probe_of(key);
    struct path path;
    struct memtable_entry *entry = find(&mem->entries[table], &probe, &path);
    if (entry_is(entry, &probe))
        return entry_set(mem, entry, head, body); /* what it was before, known or fresh, it stays */
    entry = entry_insert(mem, &probe, &path);
    if (entry == NULL)
        return false;
    entry->fresh = fresh;
    if (entry_set(mem, entry, head, body))
        return true;
    entry_unlink(mem, entry, &path);
    return false;
}

bool memtable_del(struct memtable *mem, enum store_table table, struct xy_str key)
{
    struct probe probe = probe_of(key);
    struct path path;
    struct memtable_entry *entry = find(&mem->entries[table], &probe, &path);
    if (!entry_is(entry, &probe))
        return entry_insert(mem, &probe, &path) != NULL;
    if (entry->fresh)
        entry_unlink(mem, entry, &path);
    entry->value = NULL;
    entry->value_len = entry->value_cap = 0;
    return true;
}

void memtable_forget(struct memtable *mem, enum store_table table, struct xy_str key)
{
    struct probe probe = probe_of(key);
    struct path path;
    struct memtable_entry *entry = find(&mem->entries[table], &probe, &path);
    if (entry_is(entry, &probe))
        entry_unlink(mem, entry, &path);
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

static void unlink_range(struct memtable *mem, enum store_table table, struct xy_str from, struct xy_str to)
{
    struct probe probe = probe_of(from);
    struct path path;
    struct memtable_entry *entry = find(&mem->entries[table], &probe, &path);
    while (entry != NULL && (to.len == 0 || xy_str_cmp(memtable_key(entry), to) < 0)) {
        struct probe here = probe_of(memtable_key(entry));
        find(&mem->entries[table], &here, &path);
        struct memtable_entry *next = entry->next[0];
        entry_unlink(mem, entry, &path);
        entry = next;
    }
}

bool memtable_del_range(struct memtable *mem, enum store_table table, struct xy_str from, struct xy_str to)
{
    unlink_range(mem, table, from, to);

    /* Ranges stay disjoint: one that begins earlier and reaches us is extended, those that begin within us go. */
    struct probe probe = probe_of(from);
    struct path path;
    struct skiplist *ranges = &mem->ranges[table];
    const struct memtable_entry *before;
    lookup(ranges, &probe, &before);
    if (before != NULL && reaches(memtable_value(before), from)) {
        from = memtable_key(before);
        probe = probe_of(from);
        if (!ends_before(memtable_value(before), to))
            return true;
    }
    struct memtable_entry *range = find(ranges, &probe, &path);
    struct memtable_entry *ours = entry_is(range, &probe) ? range : entry_insert(mem, &probe, &path);
    if (ours == NULL)
        return false;
    struct memtable_entry *next;
    while ((next = ours->next[0]) != NULL && reaches(to, memtable_key(next))) {
        struct xy_str end = memtable_value(next);
        if (ends_before(to, end))
            to = end;
        struct probe here = probe_of(memtable_key(next));
        find(ranges, &here, &path);
        entry_unlink(mem, next, &path);
    }
    if (ours->value != NULL && !ends_before(memtable_value(ours), to))
        return true;
    return entry_set(mem, ours, to, XY_STR_NONE);
}

bool memtable_covered(const struct memtable *mem, enum store_table table, struct xy_str key,
                      struct xy_str *to)
{
    if (mem->ranges[table].first[0] == NULL)
        return false;
    struct probe probe = probe_of(key);
    const struct memtable_entry *before, *at = lookup(&mem->ranges[table], &probe, &before);
    const struct memtable_entry *range = entry_is(at, &probe) ? at : before;
    if (range == NULL)
        return false;
    *to = memtable_value(range);
    return to->len == 0 || xy_str_cmp(key, *to) < 0;
}

enum memtable_hit memtable_get(const struct memtable *mem, enum store_table table, struct xy_str key,
                               struct xy_str *value)
{
    struct probe probe = probe_of(key);
    const struct memtable_entry *entry = lookup(&mem->entries[table], &probe, NULL);
    if (entry_is(entry, &probe)) {
        *value = memtable_value(entry);
        return xy_str_present(*value) ? MEMTABLE_VALUE : MEMTABLE_GONE;
    }
    struct xy_str to;
    return memtable_covered(mem, table, key, &to) ? MEMTABLE_GONE : MEMTABLE_MISS;
}

bool memtable_set_head(struct memtable *mem, enum store_table table, struct xy_str key, char head)
{
    struct probe probe = probe_of(key);
    struct path path;
    struct memtable_entry *entry = find(&mem->entries[table], &probe, &path);
    if (!entry_is(entry, &probe) || entry->value == NULL || entry->value_len == 0)
        return false;
    entry->value[0] = head;
    return true;
}

const struct memtable_entry *memtable_seek(const struct memtable *mem, enum store_table table,
                                           struct xy_str from)
{
    struct probe probe = probe_of(from);
    return lookup(&mem->entries[table], &probe, NULL);
}

const struct memtable_entry *memtable_next(const struct memtable_entry *entry)
{
    return entry->next[0];
}

struct xy_str memtable_key(const struct memtable_entry *entry)
{
    return xy_str_n(entry_key(entry), entry->key_len);
}

struct xy_str memtable_value(const struct memtable_entry *entry)
{
    return xy_str_n(entry->value, entry->value_len);
}

const struct memtable_entry *memtable_ranges(const struct memtable *mem, enum store_table table)
{
    return mem->ranges[table].first[0];
}

size_t memtable_bytes(const struct memtable *mem)
{
    return xy_arena_used(mem->arena);
}

size_t memtable_count(const struct memtable *mem)
{
    return mem->count;
}
