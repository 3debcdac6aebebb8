/* A reference to a session that may be gone: shard, slot and the slot's generation at the time.
 *
 * Plain data, copied freely between shards; only the session's own shard can turn it into a session, and gets nothing
 * when the generation is stale. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct shard;

struct session_ref {
    uint32_t index;
    uint32_t generation; /* 0: no session */
    uint32_t shard;
};

#define SESSION_NONE ((struct session_ref){ 0, 0, 0 })

static inline bool session_ref_eq(struct session_ref a, struct session_ref b)
{
    return a.index == b.index && a.generation == b.generation && a.shard == b.shard;
}

static inline bool session_ref_present(struct session_ref ref)
{
    return ref.generation != 0;
}
