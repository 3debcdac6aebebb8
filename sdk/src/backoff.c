/* The delay between attempts to connect; see backoff.h. Pure arithmetic over the environment's randomness, called by
 * the client each time a connection failed. */
#include "sdk/src/backoff.h"

#include "core/base/assert.h"

void xy_backoff_init(struct xy_backoff *backoff, uint32_t min_ms, uint32_t max_ms)
{
    xy_assert(min_ms > 0);
    *backoff = (struct xy_backoff){
        .min_us = (uint64_t)min_ms * 1000,
        .max_us = (uint64_t)(max_ms < min_ms ? min_ms : max_ms) * 1000,
    };
}

void xy_backoff_reset(struct xy_backoff *backoff)
{
    backoff->last_us = 0;
}

uint64_t xy_backoff_next_us(struct xy_backoff *backoff, const struct xy_env *env)
{
    uint64_t high = backoff->last_us == 0 ? backoff->min_us : backoff->last_us * 3;
    uint64_t low = backoff->last_us == 0 ? backoff->min_us / 2 : backoff->min_us;
    if (high > backoff->max_us)
        high = backoff->max_us;
    uint64_t random;
    xy_random(env, &random, sizeof random);
    uint64_t delay = low + random % (high - low + 1);
    backoff->last_us = delay < backoff->min_us ? backoff->min_us : delay;
    xy_assert(delay <= backoff->max_us);
    return delay;
}
