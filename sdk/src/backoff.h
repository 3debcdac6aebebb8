/* How long to wait before the next attempt to connect: decorrelated jitter, so that the clients of a broker that came
 * back do not return all at once. Each delay is uniform between the minimum and three times the former one, capped. */
#pragma once

#include "core/base/env.h"

struct xy_backoff {
    uint64_t min_us, max_us;
    uint64_t last_us;
};

void xy_backoff_init(struct xy_backoff *backoff, uint32_t min_ms, uint32_t max_ms);
void xy_backoff_reset(struct xy_backoff *backoff); /* a session stood: begin small again */
uint64_t xy_backoff_next_us(struct xy_backoff *backoff, const struct xy_env *env);
