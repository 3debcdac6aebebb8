/* Memory by lifetime: everything that belongs to one stanza comes from one arena and is returned as a whole.
 *
 * An arena is a chain of chunks with a bump pointer. A pool keeps reset arenas for reuse, so that a broker in its steady
 * state allocates nothing per stanza. Arenas may change threads (a stanza moves to another shard); pools may not: each
 * belongs to one thread, and an arena is given to the pool of the thread that ends with it. */
#pragma once

#include <stddef.h>

#include "core/base/str.h"

struct xy_arena;
struct xy_arena_pool;

/* NULL when memory is short. */
struct xy_arena *xy_arena_new(void);
void xy_arena_free(struct xy_arena **arena); /* NULL ok; nulls the caller's pointer */
void xy_arena_reset(struct xy_arena *arena); /* keeps up to XY_ARENA_KEEP_MAX bytes */

/* Aligned for any type, not zeroed; NULL when memory is short or `size` is above XY_ARENA_ALLOCATION_MAX. */
void *xy_arena_alloc(struct xy_arena *arena, size_t size);
void *xy_arena_zalloc(struct xy_arena *arena, size_t size);
/* The newest allocation made longer: in place where there is room behind it, else moved. NULL as for xy_arena_alloc. */
void *xy_arena_extend(struct xy_arena *arena, void *newest, size_t old_size, size_t new_size);
size_t xy_arena_used(const struct xy_arena *arena); /* bytes handed out since the last reset */

/* Copies; the result is followed by a NUL that `len` does not count. Absent stays absent; data == NULL and a latched
 * failure (xy_arena_failed) when memory is short. */
struct xy_str xy_arena_str(struct xy_arena *arena, struct xy_str s);
struct xy_str xy_arena_printf(struct xy_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Latched: true once any allocation of this arena failed since its last reset. Build a tree straight, check once. */
bool xy_arena_failed(const struct xy_arena *arena);

/* `keep_max`: how many idle arenas the pool holds on to. */
struct xy_arena_pool *xy_arena_pool_new(size_t keep_max);
void xy_arena_pool_free(struct xy_arena_pool **pool);
struct xy_arena *xy_arena_pool_take(struct xy_arena_pool *pool);
void xy_arena_pool_give(struct xy_arena_pool *pool, struct xy_arena **arena);
