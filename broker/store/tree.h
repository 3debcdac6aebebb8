/* An ordered map in memory: a B+ tree whose leaves point at entries that are also linked in order. The memory table keeps
 * one per table and one per table's deleted ranges.
 *
 * Nodes hold the first sixteen bytes of each key as two numbers, so a search compares numbers that lie side by side and
 * touches an entry only when these tie: the keys of items, cursors and sequences fit in whole. Memory comes from the
 * owner's arena and goes back with it; keys of removed entries stay valid until then, which lets them go on separating
 * subtrees. Not locked: many readers or one writer. */
#pragma once

#include "core/base/arena.h"

enum { TREE_FANOUT = 32, TREE_HEIGHT_MAX = 12, TREE_HEAD_BYTES = 16 };

struct tree_entry {
    uint64_t head[2]; /* of the key, padded with zeros */
    struct tree_entry *prev, *next;
    char *value; /* NULL: tombstone */
    uint32_t value_len, value_cap;
    uint16_t key_len;
    bool fresh;
    char key[];
};

struct tree_node;

struct tree {
    struct tree_node *root; /* NULL: empty */
    unsigned height;        /* levels of inner nodes above the leaves */
    struct tree_entry *first, *last;
    struct tree_node *spare; /* emptied nodes, for reuse */
};

/* A key taken apart for comparing. */
struct tree_probe {
    uint64_t head[2];
    struct xy_str key;
};

/* The way a search went, for the insertion or removal that follows it; any change of the tree ends its validity. */
struct tree_path {
    struct {
        struct tree_node *node;
        unsigned slot;
    } step[TREE_HEIGHT_MAX];
};

struct tree_probe tree_probe(struct xy_str key);
static inline struct xy_str tree_key(const struct tree_entry *entry)
{
    return xy_str_n(entry->key, entry->key_len);
}

/* The first entry at or after the probe, or NULL. The one before it is entry->prev, or tree->last. `path` may be NULL. */
struct tree_entry *tree_find(const struct tree *tree, const struct tree_probe *probe, struct tree_path *path);
bool tree_is(const struct tree_entry *entry, const struct tree_probe *probe); /* NULL ok: false */

/* At the place tree_find just found, `at` being what it returned. The new entry has no value; NULL: memory is short. */
struct tree_entry *tree_insert(struct tree *tree, struct xy_arena *arena, const struct tree_probe *probe,
                               struct tree_entry *at, struct tree_path *path);
/* The entry that tree_find just returned with this path. */
void tree_remove(struct tree *tree, struct tree_entry *entry, struct tree_path *path);
