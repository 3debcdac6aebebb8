/* The system's clock and randomness behind the seam that a simulation replaces. */
#include "broker/shard/env_system.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "core/base/assert.h"

enum { AHEAD_BYTES = 512, AHEAD_REQUEST_MAX = 32 };

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

static void ask_system(char *at, size_t len)
{
    while (len > 0) {
        ssize_t n = getrandom(at, len, 0);
        xy_assert(n > 0 || errno == EINTR); /* without entropy nothing may go on */
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
}

/* Every item that comes without an id needs one, and a system call for each would be a tenth of its cost: small requests
 * get bytes that were asked for together. Each is given away once and not kept. */
static void system_random(void *ctx, void *out, size_t len)
{
    static _Thread_local char ahead[AHEAD_BYTES];
    static _Thread_local size_t left;
    (void)ctx;
    if (len > AHEAD_REQUEST_MAX) {
        ask_system(out, len);
        return;
    }
    if (left < len) {
        ask_system(ahead, sizeof(ahead));
        left = sizeof(ahead);
    }
    left -= len;
    memcpy(out, ahead + left, len);
    memset(ahead + left, 0, len);
}

const struct xy_env env_system = { .now_us = system_now_us,
                                   .wall_us = system_wall_us,
                                   .random = system_random };

unsigned env_system_cores(void)
{
    cpu_set_t set;
    long cores =
        sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
    return cores > 0 ? (unsigned)cores : 1;
}
