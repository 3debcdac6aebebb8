/* What the files of this folder have in common: little-endian numbers, whole writes and reads, and the lock that keeps
 * a folder to one process. position_log.c and spool.c call it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline void xy_put_le(char *out, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        out[i] = (char)(value >> (8 * i) & 0xff);
}

static inline uint64_t xy_get_le(const char *in, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)(unsigned char)in[i] << (8 * i);
    return value;
}

bool xy_file_write(int file, const char *data, size_t len, uint64_t at); /* all of it, or false with errno */
bool xy_file_read(int file, char *data, size_t len, uint64_t at);        /* all of it, or false */

/* Opens the folder, which is made if its parent is there, and locks it under the name `lock` (flock). false: *what says
 * in words what failed, errno why; both descriptors are -1 or to be closed by the caller. */
bool xy_folder_open(const char *folder, const char *lock, int *folder_fd, int *lock_fd, const char **what);
