/* The payload that everything carries: a mark that says number and time, and filling that is checked. */
#include "bench/load/load.h"

#include <string.h>

#include "core/base/encoding.h"

#define FILL "................................................................"

struct mark {
    uint64_t number, time_us;
};

_Static_assert(sizeof(struct mark) * 2 + 1 == LOAD_MARK_BYTES, "the mark in hexadecimal");
_Static_assert(LOAD_PAYLOAD_BYTES - LOAD_MARK_BYTES < 4 * (sizeof(FILL) - 1), "enough to fill a payload");

static const char fill[] = FILL FILL FILL FILL;

void payload_put(struct xy_buf *out, uint64_t number, uint64_t time_us)
{
    struct mark mark = { number, time_us };
    char digits[sizeof(mark) * 2];
    xy_hex_encode(digits, &mark, sizeof(mark));
    xy_buf_char(out, '@');
    xy_buf_add(out, digits, sizeof(digits));
    xy_buf_add(out, fill, LOAD_PAYLOAD_BYTES - LOAD_MARK_BYTES);
}

bool payload_get(struct xy_str text, uint64_t *number, uint64_t *time_us)
{
    struct mark mark;
    if (text.len < LOAD_PAYLOAD_BYTES || !xy_hex_decode(&mark, xy_str_n(text.data + 1, sizeof(mark) * 2)) ||
        memcmp(text.data + LOAD_MARK_BYTES, fill, LOAD_PAYLOAD_BYTES - LOAD_MARK_BYTES) != 0)
        return false;
    *number = mark.number;
    *time_us = mark.time_us;
    return true;
}
