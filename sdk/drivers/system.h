/* The real clock and randomness. The only place of the SDK that asks the system for them. */
#pragma once

#include "core/base/env.h"

const struct xy_env *xy_env_system(void);
