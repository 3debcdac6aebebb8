/* Big-endian integers as the store writes them into keys, values and record headers: byte order is numeric order, so
 * LMDB's memcmp sorts them. Used by everything in this folder that touches a key. */
#pragma once

#include <stdint.h>
#include <string.h>

#include "core/base/str.h"

static inline void be64_put(char *out, uint64_t value)
{
    uint64_t swapped = __builtin_bswap64(value);
    memcpy(out, &swapped, sizeof(swapped));
}

static inline uint64_t be64_get(const char *in)
{
    uint64_t swapped;
    memcpy(&swapped, in, sizeof(swapped));
    return __builtin_bswap64(swapped);
}

static inline void be32_put(char *out, uint32_t value)
{
    uint32_t swapped = __builtin_bswap32(value);
    memcpy(out, &swapped, sizeof(swapped));
}

static inline uint32_t be32_get(const char *in)
{
    uint32_t swapped;
    memcpy(&swapped, in, sizeof(swapped));
    return __builtin_bswap32(swapped);
}
