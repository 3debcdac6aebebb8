/* Sixteen bytes looked at together, which compilers for any machine make the best of. Private to this folder. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef unsigned char bytes16 __attribute__((vector_size(16)));

static inline bytes16 bytes16_load(const char *data)
{
    bytes16 bytes;
    memcpy(&bytes, data, sizeof(bytes));
    return bytes;
}

/* `found` is what comparisons yield: is it nothing? */
static inline bool bytes16_none(bytes16 found)
{
    uint64_t halves[2];
    memcpy(halves, &found, sizeof(halves));
    return (halves[0] | halves[1]) == 0;
}
