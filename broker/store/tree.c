/* The B+ tree of tree.h. Removal does not rebalance: nodes may become thin, and one that becomes empty is taken out of
 * its parent, so that every leaf in the tree holds at least one entry. Insertion at the end of a full leaf opens a new
 * one instead of splitting it: sequences, the common case, fill their leaves. */
#include "broker/store/tree.h"

#include "broker/store/bigendian.h"
#include "core/base/assert.h"

struct slot {
    uint64_t head[2];
    struct tree_entry
        *entry; /* leaf: the entry; inner: one whose key begins the child, perhaps removed since */
    struct tree_node *child; /* inner nodes */
};

struct tree_node {
    unsigned count;
    struct tree_node *next_spare;
    struct slot slots[TREE_FANOUT];
};

struct tree_probe tree_probe(struct xy_str key)
{
    char padded[TREE_HEAD_BYTES] = { 0 };
    if (key.len >= TREE_HEAD_BYTES)
        return (struct tree_probe){ .head = { be64_get(key.data), be64_get(key.data + 8) }, .key = key };
    if (key.len > 0)
        memcpy(padded, key.data, key.len);
    return (struct tree_probe){ .head = { be64_get(padded), be64_get(padded + 8) }, .key = key };
}

/* Keys whose heads tie. Padding makes a short key equal to one that goes on with zeros: then length decides, which is
 * right, because the shorter is a prefix of the longer. */
static int compare_rest(const struct tree_entry *entry, const struct tree_probe *probe)
{
    if (entry->key_len > TREE_HEAD_BYTES && probe->key.len > TREE_HEAD_BYTES)
        return xy_str_cmp(xy_str_n(entry->key + TREE_HEAD_BYTES, entry->key_len - TREE_HEAD_BYTES),
                          xy_str_n(probe->key.data + TREE_HEAD_BYTES, probe->key.len - TREE_HEAD_BYTES));
    return (entry->key_len > probe->key.len) - (entry->key_len < probe->key.len);
}

static inline int compare(const uint64_t head[2], const struct tree_entry *entry,
                          const struct tree_probe *probe)
{
    for (int i = 0; i < 2; i++)
        if (head[i] != probe->head[i])
            return head[i] < probe->head[i] ? -1 : 1;
    return compare_rest(entry, probe);
}

bool tree_is(const struct tree_entry *entry, const struct tree_probe *probe)
{
    return entry != NULL && compare(entry->head, entry, probe) == 0;
}

/* The first slot from `low` on that is not before the probe, or above it if `above`. */
static unsigned search(const struct tree_node *node, unsigned low, const struct tree_probe *probe, bool above)
{
    unsigned high = node->count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct slot *slot = &node->slots[middle];
        int order = compare(slot->head, slot->entry, probe);
        if (order < 0 || (above && order == 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct tree_entry *tree_find(const struct tree *tree, const struct tree_probe *probe, struct tree_path *path)
{
    struct tree_node *node = tree->root;
    if (node == NULL)
        return NULL;
    for (unsigned level = 0; level < tree->height; level++) {
        /* The first child takes all that is below the second, whatever its own key. */
        unsigned slot = search(node, 1, probe, true) - 1;
        if (path != NULL) {
            path->step[level].node = node;
            path->step[level].slot = slot;
        }
        node = node->slots[slot].child;
    }
    unsigned slot = search(node, 0, probe, false);
    if (path != NULL) {
        path->step[tree->height].node = node;
        path->step[tree->height].slot = slot;
    }
    xy_assert(node->count > 0);
    return slot < node->count ? node->slots[slot].entry : node->slots[slot - 1].entry->next;
}

/* --- changing ------------------------------------------------------------------------------------------------------ */

static struct tree_node *node_new(struct tree *tree, struct xy_arena *arena)
{
    struct tree_node *node = tree->spare;
    if (node != NULL)
        tree->spare = node->next_spare;
    else
        node = xy_arena_alloc(arena, sizeof(*node));
    if (node != NULL)
        node->count = 0;
    return node;
}

static void slot_insert(struct tree_node *node, unsigned at, struct slot slot)
{
    xy_assert(node->count < TREE_FANOUT && at <= node->count);
    memmove(&node->slots[at + 1], &node->slots[at], (node->count - at) * sizeof(slot));
    node->slots[at] = slot;
    node->count++;
}

/* Moves the upper half to `right`, or nothing when the new slot belongs at the end, and puts the slot where it belongs. */
static void split(struct tree_node *left, struct tree_node *right, unsigned at, struct slot slot)
{
    unsigned keep = at == TREE_FANOUT ? TREE_FANOUT : TREE_FANOUT / 2;
    right->count = left->count - keep;
    memcpy(right->slots, &left->slots[keep], right->count * sizeof(slot));
    left->count = keep;
    if (at > keep || keep == TREE_FANOUT)
        slot_insert(right, at - keep, slot);
    else
        slot_insert(left, at, slot);
}

static struct slot slot_of_child(struct tree_node *child)
{
    struct slot slot = child->slots[0];
    slot.child = child;
    return slot;
}

/* Nodes that an insertion may need are allocated before anything changes. */
static bool reserve(struct tree *tree, struct xy_arena *arena, const struct tree_path *path,
                    struct tree_node *fresh[TREE_HEIGHT_MAX + 1], unsigned *count)
{
    unsigned full = 0;
    *count = 0;
    while (full <= tree->height && path->step[tree->height - full].node->count == TREE_FANOUT)
        full++;
    if (full > tree->height)
        full++; /* the root splits: a new one above it */
    for (; *count < full; ++*count)
        if ((fresh[*count] = node_new(tree, arena)) == NULL)
            return false;
    return true;
}

static bool slots_insert(struct tree *tree, struct xy_arena *arena, struct tree_path *path, struct slot slot)
{
    struct tree_node *fresh[TREE_HEIGHT_MAX + 1] = { NULL };
    unsigned count, used = 0, level = tree->height;
    if (tree->height + 2 > TREE_HEIGHT_MAX || !reserve(tree, arena, path, fresh, &count))
        return false;
    unsigned at = path->step[level].slot;
    for (;; level--) {
        struct tree_node *node = path->step[level].node;
        if (node->count < TREE_FANOUT) {
            slot_insert(node, at, slot);
            break;
        }
        struct tree_node *right = fresh[used++];
        xy_assert(used <= count && right != NULL);
        split(node, right, at, slot);
        slot = slot_of_child(right);
        if (level == 0) {
            struct tree_node *root = fresh[used++];
            slot_insert(root, 0, slot_of_child(node));
            slot_insert(root, 1, slot);
            tree->root = root;
            tree->height++;
            break;
        }
        at = path->step[level - 1].slot + 1;
    }
    xy_assert(used == count);
    return true;
}

static void link_entry(struct tree *tree, struct tree_entry *entry, struct tree_entry *at)
{
    entry->next = at;
    entry->prev = at != NULL ? at->prev : tree->last;
    if (entry->prev != NULL)
        entry->prev->next = entry;
    else
        tree->first = entry;
    if (at != NULL)
        at->prev = entry;
    else
        tree->last = entry;
}

struct tree_entry *tree_insert(struct tree *tree, struct xy_arena *arena, const struct tree_probe *probe,
                               struct tree_entry *at, struct tree_path *path)
{
    xy_assert(probe->key.len <= UINT16_MAX);
    struct tree_entry *entry = xy_arena_alloc(arena, sizeof(*entry) + probe->key.len);
    if (entry == NULL)
        return NULL;
    *entry = (struct tree_entry){ .head = { probe->head[0], probe->head[1] },
                                  .key_len = (uint16_t)probe->key.len };
    if (probe->key.len > 0)
        memcpy(entry->key, probe->key.data, probe->key.len);
    if (tree->root == NULL) {
        tree->root = node_new(tree, arena);
        if (tree->root == NULL)
            return NULL;
        tree->height = 0;
        path->step[0].node = tree->root;
        path->step[0].slot = 0;
    }
    struct slot slot = { .head = { probe->head[0], probe->head[1] }, .entry = entry };
    if (!slots_insert(tree, arena, path, slot))
        return NULL;
    link_entry(tree, entry, at);
    return entry;
}

void tree_remove(struct tree *tree, struct tree_entry *entry, struct tree_path *path)
{
    if (entry->prev != NULL)
        entry->prev->next = entry->next;
    else
        tree->first = entry->next;
    if (entry->next != NULL)
        entry->next->prev = entry->prev;
    else
        tree->last = entry->prev;

    for (unsigned level = tree->height;; level--) {
        struct tree_node *node = path->step[level].node;
        unsigned at = path->step[level].slot;
        xy_assert(at < node->count && (level < tree->height || node->slots[at].entry == entry));
        node->count--;
        memmove(&node->slots[at], &node->slots[at + 1], (node->count - at) * sizeof(node->slots[0]));
        if (node->count > 0)
            return;
        node->next_spare = tree->spare;
        tree->spare = node;
        if (level == 0) {
            tree->root = NULL;
            return;
        }
    }
}
