/* Where durable subscriptions stand, on disk: an append-only file of records (key, epoch, what was handled), each
 * with a CRC-32C.
 *
 * The newest record of a key counts. A torn tail, as a crash leaves it, is cut off when the file is opened; the file is
 * rewritten when it holds mostly old records. One process at a time (flock). position.c calls it. */
#pragma once

#include "sdk/spool/ranges.h"

#define XY_POSITION_KEY_MAX     8192u
#define XY_POSITION_EPOCH_MAX   64u
#define XY_POSITION_COMPACT_MIN (256u << 10) /* bytes below which the file is never rewritten */

struct xy_position_log;

/* For each record, while opening; `epoch` empty: the key is forgotten. */
typedef void xy_position_fn(struct xy_str key, struct xy_str epoch, const struct xy_ranges *handled,
                            void *ctx);

/* NULL: `error` says why. Creates folder/positions; the folder must exist or be creatable in one step. */
struct xy_position_log *xy_position_log_open(const char *folder, xy_position_fn *fn, void *ctx, char *error,
                                             size_t error_size);
void xy_position_log_close(struct xy_position_log **log);

/* Gathers; `epoch` empty: the key is forgotten. */
void xy_position_log_add(struct xy_position_log *log, struct xy_str key, struct xy_str epoch,
                         const struct xy_ranges *handled);
/* Writes what was gathered and fsyncs. false: it is not on disk (and will be tried again with the next). */
bool xy_position_log_sync(struct xy_position_log *log);
/* The file is of an older format: add every record and compact before anything else. */
bool xy_position_log_outdated(const struct xy_position_log *log);
/* Whether a rewrite would pay; then add every live record and call xy_position_log_compact. */
bool xy_position_log_wants_compaction(const struct xy_position_log *log, size_t live);
bool xy_position_log_compact(struct xy_position_log *log);
