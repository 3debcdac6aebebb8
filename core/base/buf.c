/* The growable buffer: every serialiser writes into one of these. See buf.h. */
#include "core/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/assert.h"
#include "core/base/limits.h"

void xy_buf_free(struct xy_buf *buf)
{
    free(buf->data);
    *buf = (struct xy_buf){ 0 };
}

void xy_buf_reset(struct xy_buf *buf)
{
    buf->len = 0;
    buf->failed = false;
}

bool xy_buf_failed(const struct xy_buf *buf)
{
    return buf->failed;
}

static bool grow(struct xy_buf *buf, size_t len)
{
    if (buf->failed || len > SIZE_MAX / 4 - buf->len) {
        buf->failed = true;
        return false;
    }
    size_t cap = buf->cap < XY_BUF_FIRST ? XY_BUF_FIRST : buf->cap;
    while (cap < buf->len + len)
        cap *= 2;
    char *data = realloc(buf->data, cap);
    if (data == NULL) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->cap = cap;
    return true;
}

char *xy_buf_reserve(struct xy_buf *buf, size_t len)
{
    xy_assert(buf->len <= buf->cap);
    if (buf->failed || ((buf->data == NULL || len > buf->cap - buf->len) && !grow(buf, len)))
        return NULL;
    return buf->data + buf->len;
}

void xy_buf_u64(struct xy_buf *buf, uint64_t value)
{
    char digits[20];
    size_t start = sizeof(digits);
    do {
        digits[--start] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    xy_buf_add(buf, digits + start, sizeof(digits) - start);
}

void xy_buf_printf(struct xy_buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *at = len >= 0 ? xy_buf_reserve(buf, (size_t)len + 1) : NULL;
    if (at == NULL) {
        buf->failed = true;
        return;
    }
    va_start(args, format);
    vsnprintf(at, (size_t)len + 1, format, args);
    va_end(args);
    buf->len += (size_t)len;
}

void xy_buf_consume(struct xy_buf *buf, size_t len)
{
    xy_assert(len <= buf->len);
    if (len == 0)
        return;
    memmove(buf->data, buf->data + len, buf->len - len);
    buf->len -= len;
}
