/* A bump pointer: a block that is freed stays where it is until the whole span is given back, but for the newest. Parsers
 * keep what they took, so that wastes next to nothing. What does not fit comes from malloc. */
#include "core/xml/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"

#define ALIGNMENT _Alignof(max_align_t)

/* Expat hands its memory functions no context. Set only during a call into expat. */
static _Thread_local struct xml_memory *current;

static bool in_span(const struct xml_memory *m, const void *block)
{
    return m->span != NULL && (uintptr_t)block - (uintptr_t)m->span < m->spans->span_bytes;
}

static size_t room(const struct xml_memory *m)
{
    return m->span != NULL ? m->spans->span_bytes - m->used : 0;
}

static size_t round_up(size_t size)
{
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void *memory_malloc(size_t size)
{
    struct xml_memory *m = current;
    if (size > room(m) || round_up(size) > room(m))
        return malloc(size);
    m->newest = m->used;
    m->used += round_up(size);
    return m->span + m->newest;
}

static void memory_free(void *block)
{
    struct xml_memory *m = current;
    if (!in_span(m, block))
        free(block);
    else if ((char *)block == m->span + m->newest)
        m->used = m->newest;
}

/* Nobody noted how long the old block is: what is copied from behind its end is never looked at. */
static void *move(struct xml_memory *m, char *block, size_t size)
{
    size_t at_most = (size_t)(m->span + m->used - block);
    void *moved = memory_malloc(size);
    return moved != NULL ? memcpy(moved, block, size < at_most ? size : at_most) : NULL;
}

static void *memory_realloc(void *block, size_t size)
{
    struct xml_memory *m = current;
    if (block == NULL)
        return memory_malloc(size);
    if (!in_span(m, block))
        return realloc(block, size);
    size_t left = m->spans->span_bytes - m->newest;
    if ((char *)block != m->span + m->newest || size > left || round_up(size) > left)
        return move(m, block, size);
    m->used = m->newest + round_up(size);
    return block;
}

const XML_Memory_Handling_Suite *xml_memory_suite(const struct xml_memory *memory)
{
    static const XML_Memory_Handling_Suite suite = { memory_malloc, memory_realloc, memory_free };
    return memory->spans != NULL ? &suite : NULL;
}

struct xml_memory *xml_memory_enter(struct xml_memory *memory)
{
    struct xml_memory *before = current;
    current = memory;
    return before;
}

void xml_memory_leave(struct xml_memory *before)
{
    current = before;
}

void xml_memory_take(struct xml_memory *memory)
{
    xy_assert(memory->span == NULL);
    memory->span = memory->spans != NULL ? memory->spans->take(memory->spans->ctx) : NULL;
    memory->used = memory->newest = 0;
}

void xml_memory_give(struct xml_memory *memory)
{
    if (memory->span != NULL)
        memory->spans->give(memory->spans->ctx, memory->span);
    memory->span = NULL;
}
