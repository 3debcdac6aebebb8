/* The hash table: linear probing, removed slots marked, at most three quarters full. A slot is 24 bytes, because whoever
 * has millions of entries pays for up to three slots each.
 *
 * Removal never moves an entry, so an iteration may remove what it just got. The marks it leaves are cleared
 * when the slot behind them is free, and otherwise with the next rebuild, which also is where the table grows
 * or shrinks. */
#include "core/base/table.h"

#include <stdlib.h>

#include "core/base/assert.h"

#define CAP_MIN 8

struct slot {
    const char *key;
    void *value; /* NULL: not in use */
    uint32_t key_len;
    uint32_t hash; /* the lower half; of a slot not in use MARK: it was, so a probe must go on */
};
#define MARK 1u
_Static_assert(sizeof(struct slot) == XY_TABLE_ENTRY_BYTES, "what others reckon with");

struct xy_table {
    struct slot *slots;
    size_t cap;     /* a power of two, or 0 */
    size_t count;   /* in use */
    size_t removed; /* marks */
    uint64_t seed;
};

struct xy_table *xy_table_new(uint64_t seed)
{
    struct xy_table *table = malloc(sizeof(*table));
    if (table != NULL)
        *table = (struct xy_table){ .seed = seed };
    return table;
}

void xy_table_free(struct xy_table **table)
{
    if (*table == NULL)
        return;
    free((*table)->slots);
    free(*table);
    *table = NULL;
}

size_t xy_table_count(const struct xy_table *table)
{
    return table->count;
}

static struct xy_str key_of(const struct slot *slot)
{
    return xy_str_n(slot->key, slot->key_len);
}

static bool is_marked(const struct slot *slot)
{
    return slot->value == NULL && slot->hash == MARK;
}

static uint32_t hash_of(const struct xy_table *table, struct xy_str key)
{
    return (uint32_t)xy_hash(key, table->seed);
}

static struct slot *find(const struct xy_table *table, struct xy_str key, uint32_t hash)
{
    if (table->cap == 0)
        return NULL;
    size_t mask = table->cap - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct slot *slot = &table->slots[i];
        if (slot->value != NULL && slot->hash == hash && xy_str_eq(key_of(slot), key))
            return slot;
        if (slot->value == NULL && slot->hash != MARK)
            return NULL;
    }
}

void *xy_table_get(const struct xy_table *table, struct xy_str key)
{
    if (table->count == 0)
        return NULL;
    const struct slot *slot = find(table, key, hash_of(table, key));
    return slot != NULL ? slot->value : NULL;
}

/* The first slot on the key's path that is not in use. The key is not in the table. */
static struct slot *vacant(const struct xy_table *table, uint32_t hash)
{
    size_t mask = table->cap - 1;
    size_t i = hash & mask;
    while (table->slots[i].value != NULL)
        i = (i + 1) & mask;
    return &table->slots[i];
}

static bool rebuild(struct xy_table *table, size_t cap)
{
    xy_assert(cap > table->count && (cap & (cap - 1)) == 0 && cap - 1 <= UINT32_MAX);
    struct slot *slots = calloc(cap, sizeof(*slots));
    if (slots == NULL)
        return false;
    struct xy_table former = *table;
    table->slots = slots;
    table->cap = cap;
    table->removed = 0;
    for (size_t i = 0; i < former.cap; i++) {
        if (former.slots[i].value != NULL)
            *vacant(table, former.slots[i].hash) = former.slots[i];
    }
    free(former.slots);
    return true;
}

/* Room for one more entry; a table that lost most of its entries is made smaller on the way. */
static bool make_room(struct xy_table *table)
{
    bool full = (table->count + table->removed + 1) * 4 > table->cap * 3;
    bool sparse = table->cap > CAP_MIN * 8 && table->count < table->cap / 16;
    if (!full && !sparse)
        return true;
    size_t cap = CAP_MIN;
    while (cap < (table->count + 1) * 2)
        cap *= 2;
    return rebuild(table, cap) || !full;
}

bool xy_table_put(struct xy_table *table, struct xy_str key, void *value, void **old)
{
    xy_assert(value != NULL && key.len <= UINT32_MAX);
    if (old != NULL)
        *old = NULL;
    uint32_t hash = hash_of(table, key);
    struct slot *slot = find(table, key, hash);
    if (slot != NULL) {
        if (old != NULL)
            *old = slot->value;
        slot->key = key.data; /* the former key may end with the former value */
        slot->value = value;
        return true;
    }
    if (!make_room(table))
        return false;
    slot = vacant(table, hash);
    if (is_marked(slot))
        table->removed--;
    *slot = (struct slot){ .key = key.data, .value = value, .key_len = (uint32_t)key.len, .hash = hash };
    table->count++;
    return true;
}

/* Marks before a free slot serve nobody: no probe goes past it. */
static void clear_marks(struct xy_table *table, size_t i)
{
    size_t mask = table->cap - 1;
    const struct slot *behind = &table->slots[(i + 1) & mask];
    if (behind->value != NULL || is_marked(behind))
        return;
    for (; is_marked(&table->slots[i]); i = (i - 1) & mask) {
        table->slots[i].hash = 0;
        table->removed--;
    }
}

void *xy_table_remove(struct xy_table *table, struct xy_str key)
{
    if (table->count == 0)
        return NULL;
    struct slot *slot = find(table, key, hash_of(table, key));
    if (slot == NULL)
        return NULL;
    void *value = slot->value;
    *slot = (struct slot){ .hash = MARK };
    table->removed++;
    table->count--;
    if (table->count == 0 && table->cap > CAP_MIN * 8) {
        free(table->slots);
        table->slots = NULL;
        table->cap = table->removed = 0;
        return value;
    }
    clear_marks(table, (size_t)(slot - table->slots));
    return value;
}

void *xy_table_next(const struct xy_table *table, size_t *position, struct xy_str *key)
{
    while (*position < table->cap) {
        const struct slot *slot = &table->slots[(*position)++];
        if (slot->value == NULL)
            continue;
        if (key != NULL)
            *key = key_of(slot);
        return slot->value;
    }
    return NULL;
}
