/* Timers of one shard: a heap by due time. Embed a struct shard_timer in its owner; nothing is allocated per timer. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shard;

struct shard_timer {
    void (*fn)(struct shard *shard, struct shard_timer *timer);
    uint64_t due_us;
    size_t position; /* in the heap, plus one; 0: not set */
};

struct shard_timers {
    struct shard_timer **heap;
    size_t count, cap;
};

/* Sets or moves. `due_us` on the shard's monotonic clock. */
void shard_timer_set(struct shard *shard, struct shard_timer *timer, uint64_t due_us);
void shard_timer_cancel(struct shard *shard, struct shard_timer *timer); /* harmless when not set */

static inline bool shard_timer_is_set(const struct shard_timer *timer)
{
    return timer->position != 0;
}
