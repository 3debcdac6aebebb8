/* The system's clock and randomness for clients outside of tests, and the public constructor that uses them. */
#include "sdk/drivers/system.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "sdk/src/driver.h"

static uint64_t clock_us(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
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
    (void)ctx;
    char *p = out;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            abort(); /* ids would be guessable */
        p += n;
        len -= (size_t)n;
    }
}

const struct xy_env *xy_env_system(void)
{
    static const struct xy_env env = { .now_us = system_now_us,
                                       .wall_us = system_wall_us,
                                       .random = system_random };
    return &env;
}

enum xylem_status xylem_client_new(struct xylem_client **out, const struct xylem_options *options,
                                   char *error, size_t error_size)
{
    if (error && error_size)
        *error = '\0';
    return xy_client_new(out, options, xy_env_system(), error, error_size);
}
