/* The system's clock and randomness behind the seam that a simulation replaces. */
#include "broker/shard/env_system.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

#include "core/base/assert.h"

static uint64_t clock_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t system_now_us(void *ctx)
{
    (void)ctx;
    return clock_us(CLOCK_MONOTONIC);
}

static uint64_t system_wall_us(void *ctx)
{
    (void)ctx;
    return clock_us(CLOCK_REALTIME);
}

static void system_random(void *ctx, void *out, size_t len)
{
    char *at = out;
    (void)ctx;
    while (len > 0) {
        ssize_t n = getrandom(at, len, 0);
        xy_assert(n > 0 || errno == EINTR); /* without entropy nothing may go on */
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
}

const struct xy_env env_system = { .now_us = system_now_us,
                                   .wall_us = system_wall_us,
                                   .random = system_random };
