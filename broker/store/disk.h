/* What LMDB's files and the segment log ask of the disk they are on, and which of the two a data directory has. */
#pragma once

#include "broker/store/backend.h"

#define DISK_PATH_BYTES 4096u

/* Free bytes of that file system beyond the reserve. */
uint64_t disk_room(const char *data_dir, uint64_t reserve_bytes);
/* New files are there after a power failure only when their directory is on disk too. */
bool disk_sync_directory(const char *data_dir, struct xy_buf *error);

/* Takes the log that is open and its files away, and opens an empty one of that kind. A crash in between leaves one kind or
 * the other. On failure *log is NULL. */
bool disk_change_log(const struct store_backend *to, const struct store_backend_options *options,
                     struct store_log **log, struct xy_buf *error);

/* backend_lmdb.c, log_segments.c: the parts that a backend is put together from; on failure *out is closed and NULL. */
bool lmdb_log_open(const struct store_backend_options *options, struct store_log **out, struct xy_buf *error);
bool lmdb_tables_open(const struct store_backend_options *options, struct store_tables **out,
                      struct xy_buf *error);
bool segments_open(const struct store_backend_options *options, struct store_log **out, struct xy_buf *error);
/* Is that the name of one of its files? */
bool segments_own(const char *name);
