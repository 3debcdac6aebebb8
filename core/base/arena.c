/* Arenas and their pools; see arena.h for the idea.
 *
 * An arena is one malloc: the struct and its first chunk together. Further chunks double in size, and a reset
 * keeps the first few of them, so that stanzas of an ordinary size cost no malloc at all. Under
 * AddressSanitizer memory that is not handed out is poisoned: a tree used after its arena was reset is caught
 * at once. */
#include "core/base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/assert.h"
#include "core/base/limits.h"

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_POISON 1
#endif
#endif
#ifdef ARENA_POISON
#include <sanitizer/asan_interface.h>
#define poison(p, len)   ASAN_POISON_MEMORY_REGION((p), (len))
#define unpoison(p, len) ASAN_UNPOISON_MEMORY_REGION((p), (len))
#else
#define poison(p, len)   ((void)(p), (void)(len))
#define unpoison(p, len) ((void)(p), (void)(len))
#endif

#define ALIGNMENT _Alignof(max_align_t)

struct chunk {
    struct chunk *next;
    size_t size; /* of data */
    max_align_t data[];
};

struct xy_arena {
    struct chunk *current;
    char *at, *end; /* free part of the current chunk */
    size_t used;
    bool failed;
    struct xy_arena *next_idle; /* in a pool */
    struct chunk *first;        /* lies behind this struct */
};

struct xy_arena_pool {
    struct xy_arena *idle;
    size_t count;
    size_t keep_max;
};

static char *chunk_data(struct chunk *chunk)
{
    return (char *)chunk->data;
}

static void enter_chunk(struct xy_arena *arena, struct chunk *chunk)
{
    arena->current = chunk;
    arena->at = chunk_data(chunk);
    arena->end = arena->at + chunk->size;
}

/* Where the first chunk begins: behind the struct, aligned. */
#define HEAD_SIZE ((sizeof(struct xy_arena) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT)

struct xy_arena *xy_arena_new(void)
{
    struct xy_arena *arena = malloc(XY_ARENA_CHUNK_FIRST);
    if (arena == NULL)
        return NULL;
    struct chunk *first = (struct chunk *)(void *)((char *)arena + HEAD_SIZE);
    first->next = NULL;
    first->size = XY_ARENA_CHUNK_FIRST - HEAD_SIZE - sizeof(struct chunk);
    *arena = (struct xy_arena){ .first = first };
    enter_chunk(arena, first);
    poison(first->data, first->size);
    return arena;
}

static void free_chunks(struct chunk *chunk)
{
    while (chunk != NULL) {
        struct chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
}

void xy_arena_free(struct xy_arena **arena)
{
    if (*arena == NULL)
        return;
    free_chunks((*arena)->first->next);
    unpoison((*arena)->first->data, (*arena)->first->size);
    free(*arena);
    *arena = NULL;
}

void xy_arena_reset(struct xy_arena *arena)
{
    size_t kept = arena->first->size;
    struct chunk *last = arena->first;
    poison(last->data, last->size);
    while (last->next != NULL && kept + last->next->size <= XY_ARENA_KEEP_MAX) {
        last = last->next;
        kept += last->size;
        poison(last->data, last->size);
    }
    free_chunks(last->next);
    last->next = NULL;
    enter_chunk(arena, arena->first);
    arena->used = 0;
    arena->failed = false;
}

/* A chunk with room for `size` becomes the current one: the next kept one if it is large enough, else a new
 * one. */
static bool next_chunk(struct xy_arena *arena, size_t size)
{
    struct chunk *next = arena->current->next;
    if (next != NULL && next->size >= size) {
        enter_chunk(arena, next);
        return true;
    }
    size_t chunk_size = arena->current->size * 2;
    if (chunk_size > XY_ARENA_CHUNK_MAX)
        chunk_size = XY_ARENA_CHUNK_MAX;
    if (chunk_size < size)
        chunk_size = size;
    struct chunk *chunk = malloc(sizeof(struct chunk) + chunk_size);
    if (chunk == NULL)
        return false;
    *chunk = (struct chunk){ .next = next, .size = chunk_size };
    poison(chunk->data, chunk_size);
    arena->current->next = chunk;
    enter_chunk(arena, chunk);
    return true;
}

static size_t round_up(size_t size)
{
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void *xy_arena_alloc(struct xy_arena *arena, size_t size)
{
    size_t rounded = round_up(size);
    if (size > XY_ARENA_ALLOCATION_MAX ||
        (rounded > (size_t)(arena->end - arena->at) && !next_chunk(arena, rounded))) {
        arena->failed = true;
        return NULL;
    }
    char *result = arena->at;
    arena->at += rounded;
    arena->used += rounded;
    xy_assert(arena->at <= arena->end);
    unpoison(result, size);
    return result;
}

void *xy_arena_zalloc(struct xy_arena *arena, size_t size)
{
    void *result = xy_arena_alloc(arena, size);
    return result != NULL ? memset(result, 0, size) : NULL;
}

void *xy_arena_extend(struct xy_arena *arena, void *newest, size_t old_size, size_t new_size)
{
    xy_assert(new_size >= old_size);
    char *start = newest;
    if (start + round_up(old_size) == arena->at && new_size <= (size_t)(arena->end - start)) {
        char *at = start + round_up(new_size);
        if (at <= arena->end) {
            arena->used += (size_t)(at - arena->at);
            arena->at = at;
            unpoison(start, new_size);
            return newest;
        }
    }
    void *moved = xy_arena_alloc(arena, new_size);
    return moved != NULL ? memcpy(moved, newest, old_size) : NULL;
}

size_t xy_arena_used(const struct xy_arena *arena)
{
    return arena->used;
}

bool xy_arena_failed(const struct xy_arena *arena)
{
    return arena->failed;
}

struct xy_str xy_arena_str(struct xy_arena *arena, struct xy_str s)
{
    if (!xy_str_present(s))
        return XY_STR_NONE;
    char *copy = s.len < SIZE_MAX ? xy_arena_alloc(arena, s.len + 1) : NULL;
    if (copy == NULL) {
        arena->failed = true;
        return XY_STR_NONE;
    }
    memcpy(copy, s.data, s.len);
    copy[s.len] = '\0';
    return xy_str_n(copy, s.len);
}

struct xy_str xy_arena_printf(struct xy_arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = len >= 0 ? xy_arena_alloc(arena, (size_t)len + 1) : NULL;
    if (text == NULL) {
        arena->failed = true;
        return XY_STR_NONE;
    }
    va_start(args, format);
    vsnprintf(text, (size_t)len + 1, format, args);
    va_end(args);
    return xy_str_n(text, (size_t)len);
}

struct xy_arena_pool *xy_arena_pool_new(size_t keep_max)
{
    struct xy_arena_pool *pool = malloc(sizeof(*pool));
    if (pool != NULL)
        *pool = (struct xy_arena_pool){ .keep_max = keep_max };
    return pool;
}

void xy_arena_pool_free(struct xy_arena_pool **pool)
{
    if (*pool == NULL)
        return;
    while ((*pool)->idle != NULL) {
        struct xy_arena *arena = (*pool)->idle;
        (*pool)->idle = arena->next_idle;
        xy_arena_free(&arena);
    }
    free(*pool);
    *pool = NULL;
}

struct xy_arena *xy_arena_pool_take(struct xy_arena_pool *pool)
{
    struct xy_arena *arena = pool->idle;
    if (arena == NULL)
        return xy_arena_new();
    xy_assert(pool->count > 0);
    pool->idle = arena->next_idle;
    pool->count--;
    arena->next_idle = NULL;
    return arena;
}

void xy_arena_pool_give(struct xy_arena_pool *pool, struct xy_arena **arena)
{
    if (*arena == NULL)
        return;
    if (pool->count < pool->keep_max) {
        xy_assert((*arena)->next_idle == NULL && *arena != pool->idle);
        xy_arena_reset(*arena);
        (*arena)->next_idle = pool->idle;
        pool->idle = *arena;
        pool->count++;
        *arena = NULL;
    } else {
        xy_arena_free(arena);
    }
}
