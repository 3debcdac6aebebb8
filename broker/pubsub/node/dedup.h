/* Publish ids seen at one node (docs/protocol.md, 'publish-id'): has this publish happened already?
 *
 * An id PREFIX:N belongs to a stream of one publisher that counts up: per (publisher, PREFIX) the newest N and a bitmap
 * of the DEDUP_WINDOW numbers before it are kept, so that numbers overtaken in a pipeline are still accepted. Any other
 * id is kept whole for DEDUP_KEEP_US. Memory only; what outlives the process is in STORE_DEDUP, which the caller asks
 * when dedup_check says DEDUP_UNKNOWN and reports with dedup_load. */
#pragma once

#include "core/base/str.h"

#define DEDUP_WINDOW    256u
#define DEDUP_KEEP_US   (15ull * 60 * 1000000)
#define DEDUP_KEY_BYTES 192u   /* of memory one takes, about */
#define DEDUP_KEYS_MAX  65536u /* per node; above it the oldest are forgotten (they are in the store) */

struct dedup;

enum dedup_verdict {
    DEDUP_NEW,
    DEDUP_SEEN,
    DEDUP_OLD,     /* behind the window: it cannot be told, and must not be acknowledged */
    DEDUP_UNKNOWN, /* nothing remembered under this key: look into the store */
};

/* `number`: N, or STORE_DEDUP_WHOLE for an id kept whole; `prefix` without N then (store_dedup_parse). */
struct dedup *dedup_new(uint64_t hash_seed);
void dedup_free(struct dedup **dedup);
enum dedup_verdict dedup_check(const struct dedup *dedup, struct xy_str publisher, struct xy_str prefix,
                               uint64_t number);
/* What the store knew: the newest number of the stream and the bitmap of dedup_after, or that the id was seen
 * (STORE_DEDUP_WHOLE). Without a bitmap all numbers before the newest count as seen. false: memory is short. */
bool dedup_load(struct dedup *dedup, struct xy_str publisher, struct xy_str prefix, uint64_t newest,
                struct xy_str seen, uint64_t now_us);
/* The publish was accepted. false: memory is short. */
bool dedup_add(struct dedup *dedup, struct xy_str publisher, struct xy_str prefix, uint64_t number,
               uint64_t now_us);
/* What the store is to remember of the stream once this number is accepted as well: its newest number and which of those
 * before it were seen. The window itself does not change. */
struct dedup_state {
    uint64_t newest;
    unsigned char seen[DEDUP_WINDOW / 8]; /* bit i, from the low end of byte 0: newest - 1 - i */
};
void dedup_after(const struct dedup *dedup, struct xy_str publisher, struct xy_str prefix, uint64_t number,
                 struct dedup_state *out);
void dedup_expire(struct dedup *dedup, uint64_t now_us);
size_t dedup_count(const struct dedup *dedup);
