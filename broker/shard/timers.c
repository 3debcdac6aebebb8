/* A binary heap of timers ordered by due time; each timer knows its position, so moving and cancelling are O(log n). */
#include "broker/shard/timers.h"

#include <stdlib.h>

#include "broker/shard/shard.h"
#include "broker/shard/shard_internal.h"
#include "core/base/assert.h"

static void heap_place(struct shard_timers *timers, size_t at, struct shard_timer *timer)
{
    timers->heap[at] = timer;
    timer->position = at + 1;
}

static void heap_up(struct shard_timers *timers, size_t at)
{
    struct shard_timer *timer = timers->heap[at];
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (timers->heap[parent]->due_us <= timer->due_us)
            break;
        heap_place(timers, at, timers->heap[parent]);
        at = parent;
    }
    heap_place(timers, at, timer);
}

static void heap_down(struct shard_timers *timers, size_t at)
{
    struct shard_timer *timer = timers->heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= timers->count)
            break;
        if (child + 1 < timers->count && timers->heap[child + 1]->due_us < timers->heap[child]->due_us)
            child++;
        if (timer->due_us <= timers->heap[child]->due_us)
            break;
        heap_place(timers, at, timers->heap[child]);
        at = child;
    }
    heap_place(timers, at, timer);
}

/* A timer that cannot be remembered would be a promise not kept (a deadline, a lazy record), so running out of memory
 * for a pointer here ends the process like any other exhausted machine. */
static void heap_grow(struct shard_timers *timers)
{
    size_t cap = timers->cap ? 2 * timers->cap : 64;
    struct shard_timer **heap = realloc(timers->heap, cap * sizeof(struct shard_timer *));
    xy_assert(heap != NULL);
    timers->heap = heap;
    timers->cap = cap;
}

void shard_timer_set(struct shard *shard, struct shard_timer *timer, uint64_t due_us)
{
    struct shard_timers *timers = &shard->timers;
    xy_assert(timer->fn != NULL);
    if (timer->position == 0) {
        if (timers->count == timers->cap)
            heap_grow(timers);
        timer->due_us = due_us;
        heap_place(timers, timers->count, timer);
        timers->count++;
        heap_up(timers, timers->count - 1);
        return;
    }
    xy_assert(timers->heap[timer->position - 1] == timer);
    bool later = due_us > timer->due_us;
    timer->due_us = due_us;
    if (later)
        heap_down(timers, timer->position - 1);
    else
        heap_up(timers, timer->position - 1);
}

void shard_timer_cancel(struct shard *shard, struct shard_timer *timer)
{
    struct shard_timers *timers = &shard->timers;
    if (timer->position == 0)
        return;
    size_t at = timer->position - 1;
    xy_assert(at < timers->count && timers->heap[at] == timer);
    timer->position = 0;
    timers->count--;
    if (at == timers->count)
        return;
    heap_place(timers, at, timers->heap[timers->count]);
    heap_down(timers, at);
    heap_up(timers, timers->heap[at]->position - 1);
}

bool shard_timers_run(struct shard *shard, uint64_t now_us)
{
    struct shard_timers *timers = &shard->timers;
    bool ran = false;
    while (timers->count > 0 && timers->heap[0]->due_us <= now_us) {
        struct shard_timer *timer = timers->heap[0];
        shard_timer_cancel(shard, timer);
        timer->fn(shard, timer);
        ran = true;
    }
    return ran;
}

uint64_t shard_timers_due(const struct shard_timers *timers)
{
    return timers->count > 0 ? timers->heap[0]->due_us : UINT64_MAX;
}

void shard_timers_free(struct shard_timers *timers)
{
    free(timers->heap);
    *timers = (struct shard_timers){ 0 };
}
