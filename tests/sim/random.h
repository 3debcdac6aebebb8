/* The seeded generator behind every choice of a simulation: SplitMix64. Each use that must not disturb another has a
 * generator of its own, made from the run's seed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct sim_random {
    uint64_t state;
};

static inline uint64_t sim_random_next(struct sim_random *random)
{
    uint64_t x = random->state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* 0 .. bound - 1 */
static inline uint32_t sim_below(struct sim_random *random, uint32_t bound)
{
    return (uint32_t)((sim_random_next(random) >> 32) * bound >> 32);
}

/* once in `n` */
static inline bool sim_once_in(struct sim_random *random, uint32_t n)
{
    return sim_below(random, n) == 0;
}
