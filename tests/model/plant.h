/* Faults planted in the broker, to show that the comparison notices them and that a failing sequence becomes short. */
#pragma once

#include "broker/shard/shard.h"

extern const char *const plant_names[]; /* NULL-terminated */
/* Replaces entries of the shard's tables of calls for the lifetime of the process. Unknown name: nothing. */
void plant(struct shard *shard, const char *name);
