/* The heap: a binary one in an array, objects told their places as they move. Used where something is due next or goes
 * first among many. */
#include "core/base/heap.h"

#include <stdlib.h>

#include "core/base/assert.h"

#define CAP_MIN 16u

static uint32_t *place(const struct xy_heap *heap, void *object)
{
    return (uint32_t *)(void *)((char *)object + heap->place);
}

static void put(struct xy_heap *heap, uint32_t index, void *object)
{
    heap->at[index] = object;
    *place(heap, object) = index + 1;
}

static void rise(struct xy_heap *heap, uint32_t index, void *object)
{
    while (index > 0) {
        uint32_t parent = (index - 1) / 2;
        if (!heap->before(object, heap->at[parent]))
            break;
        put(heap, index, heap->at[parent]);
        index = parent;
    }
    put(heap, index, object);
}

static void sink(struct xy_heap *heap, uint32_t index, void *object)
{
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count && heap->before(heap->at[child + 1], heap->at[child]))
            child++;
        if (!heap->before(heap->at[child], object))
            break;
        put(heap, index, heap->at[child]);
        index = child;
    }
    put(heap, index, object);
}

static void settle(struct xy_heap *heap, uint32_t index, void *object)
{
    if (index > 0 && heap->before(object, heap->at[(index - 1) / 2]))
        rise(heap, index, object);
    else
        sink(heap, index, object);
}

void xy_heap_free(struct xy_heap *heap)
{
    free(heap->at);
    heap->at = NULL;
    heap->count = heap->cap = 0;
}

bool xy_heap_reserve(struct xy_heap *heap, size_t count)
{
    size_t cap = heap->cap ? heap->cap : CAP_MIN;
    while (cap < count)
        cap *= 2;
    if (cap == heap->cap)
        return true;
    void **at = cap <= UINT32_MAX / 2 ? realloc(heap->at, cap * sizeof(*at)) : NULL;
    if (at == NULL)
        return false;
    heap->at = at;
    heap->cap = (uint32_t)cap;
    return true;
}

bool xy_heap_push(struct xy_heap *heap, void *object)
{
    xy_assert(*place(heap, object) == 0);
    if (heap->count == heap->cap && !xy_heap_reserve(heap, (size_t)heap->count + 1))
        return false;
    rise(heap, heap->count++, object);
    return true;
}

void xy_heap_remove(struct xy_heap *heap, void *object)
{
    uint32_t *at = place(heap, object);
    if (*at == 0)
        return;
    uint32_t index = *at - 1;
    xy_assert(index < heap->count && heap->at[index] == object);
    *at = 0;
    void *last = heap->at[--heap->count];
    if (index < heap->count)
        settle(heap, index, last);
}

void xy_heap_moved(struct xy_heap *heap, void *object)
{
    uint32_t index = *place(heap, object) - 1;
    xy_assert(index < heap->count && heap->at[index] == object);
    settle(heap, index, object);
}
