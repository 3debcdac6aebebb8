/* What was appended and is not yet in the tables: one generation of changes, ordered by key, in memory.
 *
 * Each shard has two of these, as a log-structured merge tree has: the active one takes changes, the frozen one is being
 * written to the tables by the checkpoint. Reads look into active, frozen, tables, in this order. A generation
 * remembers values, deletions (tombstones) and deleted ranges; within one generation entries are always newer than the
 * ranges around them.
 *
 * The memory backend keeps its tables in one of these too. Not locked: an active one belongs to its shard's thread, a
 * frozen one is only read. Memory is one arena, returned when the generation is dropped. */
#pragma once

#include "broker/store/store.h"

struct memtable;
struct tree_entry;

enum memtable_hit { MEMTABLE_MISS, MEMTABLE_VALUE, MEMTABLE_GONE };

struct memtable *memtable_new(void); /* NULL: memory is short */
void memtable_free(struct memtable **table);

/* The value is `head` followed by `body`, copied. `fresh`: nothing older knows this key, so deleting it leaves no
 * trace. false: memory is short. */
bool memtable_put(struct memtable *mem, enum store_table table, struct xy_str key, struct xy_str head,
                  struct xy_str body, bool fresh);
bool memtable_del(struct memtable *mem, enum store_table table, struct xy_str key);
/* [from, to); an empty `to` is open. */
bool memtable_del_range(struct memtable *mem, enum store_table table, struct xy_str from, struct xy_str to);
/* Removes the entry without a trace; for a memtable that is the only truth (the memory backend). */
void memtable_forget(struct memtable *mem, enum store_table table, struct xy_str key);

/* The value lives until the entry changes. MEMTABLE_GONE: deleted, older generations do not count. */
enum memtable_hit memtable_get(const struct memtable *mem, enum store_table table, struct xy_str key,
                               struct xy_str *value);
/* Overwrites the first byte of a value that is here; false: it is not. */
bool memtable_set_head(struct memtable *mem, enum store_table table, struct xy_str key, char head);

/* Entries in key order, tombstones included. NULL: none left. */
const struct tree_entry *memtable_seek(const struct memtable *mem, enum store_table table,
                                       struct xy_str from);
const struct tree_entry *memtable_next(const struct tree_entry *entry);
struct xy_str memtable_key(const struct tree_entry *entry);
struct xy_str memtable_value(const struct tree_entry *entry); /* absent: a tombstone */

/* Deleted ranges in order, disjoint: memtable_key is where one begins, memtable_value where it ends. */
const struct tree_entry *memtable_ranges(const struct memtable *mem, enum store_table table);
/* Does a deleted range of this generation cover the key in older ones? *to is its end then (empty: open). */
bool memtable_covered(const struct memtable *mem, enum store_table table, struct xy_str key,
                      struct xy_str *to);

size_t memtable_bytes(const struct memtable *mem);
size_t memtable_count(const struct memtable *mem); /* entries and ranges */
