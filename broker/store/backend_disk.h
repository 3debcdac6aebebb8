/* The backends on disk and the parts they are put together from. */
#pragma once

#include "broker/store/backend.h"

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
