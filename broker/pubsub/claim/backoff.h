/* The option `backoff`: how long to wait before something is sent again, by how often it was sent. Used for queues and for
 * subscriptions that acknowledge explicitly. */
#pragma once

#include "core/base/str.h"

#define BACKOFF_STEPS_MAX 16u
#define BACKOFF_S_MAX     604800u

struct backoff {
    uint32_t step_s[BACKOFF_STEPS_MAX];
    uint32_t count; /* 0: no pause */
};

/* Numbers divided by spaces or commas; empty is no pause. false: none of that; *out is no pause then. */
bool backoff_parse(struct xy_str text, struct backoff *out);
/* The pause after the n-th time, n from 1: the last one repeats. */
uint32_t backoff_s(const struct backoff *backoff, uint32_t attempts);
