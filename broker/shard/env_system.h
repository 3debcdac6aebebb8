/* The real world as struct xy_env: CLOCK_MONOTONIC, CLOCK_REALTIME and getrandom; and the cores there are. Thread-safe. */
#pragma once

#include "core/base/env.h"

extern const struct xy_env env_system;
/* Processor cores that this process may run on, at least one: a container or a service often has not all of them. */
unsigned env_system_cores(void);
