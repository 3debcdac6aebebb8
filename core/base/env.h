/* The outside world as core sees it: a clock and a source of randomness, both replaceable.
 *
 * Production code passes one made of the system's clock and getrandom; a simulation passes a virtual clock and a seeded
 * generator, and then everything runs the same way twice. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct xy_env {
    uint64_t (*now_us)(void *ctx);                    /* monotonic, microseconds */
    uint64_t (*wall_us)(void *ctx);                   /* microseconds since 1970-01-01 UTC */
    void (*random)(void *ctx, void *out, size_t len); /* never fails; aborts if the system has no entropy */
    void *ctx;
};

static inline uint64_t xy_now_us(const struct xy_env *env)
{
    return env->now_us(env->ctx);
}

static inline uint64_t xy_wall_us(const struct xy_env *env)
{
    return env->wall_us(env->ctx);
}

static inline void xy_random(const struct xy_env *env, void *out, size_t len)
{
    env->random(env->ctx, out, len);
}

/* `len` bytes of hex (len / 2 random bytes) and a NUL. 32 digits carry 128 bits: enough for an id that grants. */
#define XY_ID_LEN 32
void xy_random_id(const struct xy_env *env, char out[XY_ID_LEN + 1]);
