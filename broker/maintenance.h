/* What xylemd does to the store of a stopped broker instead of serving. Called by main. */
#pragma once

#include <stdio.h>

#include "broker/config.h"
#include "core/base/env.h"

/* `xylemd --check-store`: prose to `out`, one line per problem and a last one that counts. Exit code: 0 sound, 1 damaged
 * or not readable. */
int maintenance_check_store(const struct config *config, const struct xy_env *env, FILE *out);
