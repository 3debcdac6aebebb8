/* What the files of broker/shard share. Private to the folder. */
#pragma once

#include "broker/shard/shard.h"

/* Runs what is due; true if anything was. A timer that sets itself anew for a time not later than now runs again. */
bool shard_timers_run(struct shard *shard, uint64_t now_us);
uint64_t shard_timers_due(const struct shard_timers *timers);
void shard_timers_free(struct shard_timers *timers);
