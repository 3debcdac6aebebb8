/* The real world as struct xy_env: CLOCK_MONOTONIC, CLOCK_REALTIME and getrandom. Thread-safe. */
#pragma once

#include "core/base/env.h"

extern const struct xy_env env_system;
