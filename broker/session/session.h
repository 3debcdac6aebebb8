/* Sessions of one shard: from an accepted connection to a bound, maybe detached, resource.
 *
 * Nobody calls a session directly: links call it through link_events, other rooms through broker/delivery/sessions.h.
 * This header is for who starts and stops shards. */
#pragma once

#include "broker/shard/shard.h"

bool sessions_init(struct shard *shard);
void sessions_free(struct shard *shard);

void sessions_reload(struct shard *shard); /* shard->config is new */

/* Shutdown, in this order: read nothing more; wait until what was read is handled; then every session gets its last <a/> and <system-shutdown/> and is closed. */
void sessions_quiesce(struct shard *shard);
bool sessions_quiet(struct shard *shard);
void sessions_shutdown(struct shard *shard);
void sessions_end_all(struct shard *shard); /* detached ones too: what they hold goes back to its owners */
