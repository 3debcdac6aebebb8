/* What LMDB's files and the segment log ask of the disk they are on. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/buf.h"

#define DISK_PATH_BYTES 4096u

/* Free bytes of that file system beyond the reserve. */
uint64_t disk_room(const char *data_dir, uint64_t reserve_bytes);
/* New files are there after a power failure only when their directory is on disk too. */
bool disk_sync_directory(const char *data_dir, struct xy_buf *error);
