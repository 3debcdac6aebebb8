/* From a sequence that fails to a short one that still fails. Each trial runs in a process of its own, so that an
 * assertion of the broker's is a failure like any other. Called by main.c. */
#pragma once

#include "tests/model/check.h"

/* Runs it in another process. true: it failed, or that process died; *result says how. */
bool shrink_try(const struct check_options *options, const struct op *ops, unsigned count,
                struct check_result *result);
/* Shortens in place; returns the new count. `options->shards` may become smaller. */
unsigned shrink(struct check_options *options, struct op *ops, unsigned count, struct check_result *result);
