/* The one hash table of this tree: string keys to pointers, open addressing, grows and shrinks by itself.
 *
 * Keys are borrowed: they must live, unchanged, as long as their entry (keep them in the value). The hash is keyed
 * (SipHash-1-3) with a seed from the table's creator, so that peers cannot choose collisions. Not thread-safe. */
#pragma once

#include "core/base/str.h"

struct xy_table;
#define XY_TABLE_ENTRY_BYTES                                                                                 \
    24u /* of memory; a table has room for one and a third to three times its entries */

struct xy_table *xy_table_new(uint64_t seed);
void xy_table_free(struct xy_table **table);
size_t xy_table_count(const struct xy_table *table);

void *xy_table_get(const struct xy_table *table, struct xy_str key); /* NULL: absent */
/* `value` is not NULL. Replaces and returns the former value in *old (NULL ok). false: out of memory, unchanged. */
bool xy_table_put(struct xy_table *table, struct xy_str key, void *value, void **old);
void *xy_table_remove(struct xy_table *table, struct xy_str key); /* the former value or NULL */

/* Every entry once, in no order: start with *position = 0, NULL ends. The entry just returned may be removed while
 * iterating; nothing may be put. */
void *xy_table_next(const struct xy_table *table, size_t *position, struct xy_str *key);

/* The hash itself, also used to choose the owner of an address. */
uint64_t xy_hash(struct xy_str key, uint64_t seed);
