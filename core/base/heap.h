/* A heap of pointers to objects that know their place in it: the least first, any of them removed or moved in O(log n).
 *
 * The object embeds a uint32_t that belongs to the heap (0: not in it), so one object may be in several heaps. Nothing
 * is allocated per object; the array grows by doubling. Not thread-safe. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef bool xy_heap_before(const void *left, const void *right);

struct xy_heap {
    void **at;
    uint32_t count, cap;
    xy_heap_before *before;
    size_t place; /* offset of the uint32_t in the objects */
};

#define XY_HEAP(type, member, before_fn)                                                                     \
    ((struct xy_heap){ .before = (before_fn), .place = offsetof(type, member) })

void xy_heap_free(struct xy_heap *heap); /* the array; objects are the caller's */
bool xy_heap_reserve(struct xy_heap *heap,
                     size_t count); /* pushes up to that many cannot fail; false: no memory */
bool xy_heap_push(struct xy_heap *heap, void *object);   /* false: out of memory, unchanged */
void xy_heap_remove(struct xy_heap *heap, void *object); /* harmless when it is not in it */
void xy_heap_moved(struct xy_heap *heap, void *object);  /* its order changed */

static inline void *xy_heap_least(const struct xy_heap *heap)
{
    return heap->count > 0 ? heap->at[0] : NULL;
}
