/* A growable byte buffer with a latched failure: write straight through, check once.
 *
 * Owned by its holder; zero-initialised is empty. Growth doubles; xy_buf_reset keeps the memory, xy_buf_free returns
 * it. After a failed growth every append is a no-op and xy_buf_failed says so. */
#pragma once

#include "core/base/str.h"

struct xy_buf {
    char *data;
    size_t len;
    size_t cap;
    bool failed;
};

void xy_buf_free(struct xy_buf *buf);
void xy_buf_reset(struct xy_buf *buf);
bool xy_buf_failed(const struct xy_buf *buf);

/* Room for `len` more bytes at buf->data + buf->len; NULL on failure. The caller then adds to buf->len. */
char *xy_buf_reserve(struct xy_buf *buf, size_t len);

static inline void xy_buf_add(struct xy_buf *buf, const void *data, size_t len)
{
    if (len == 0 || ((buf->failed || len > buf->cap - buf->len) && xy_buf_reserve(buf, len) == NULL))
        return;
    memcpy(buf->data + buf->len, data, len);
    buf->len += len;
}

static inline void xy_buf_str(struct xy_buf *buf, struct xy_str s)
{
    xy_buf_add(buf, s.data, s.len);
}

static inline void xy_buf_char(struct xy_buf *buf, char c)
{
    xy_buf_add(buf, &c, 1);
}

void xy_buf_u64(struct xy_buf *buf, uint64_t value); /* decimal */
void xy_buf_printf(struct xy_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define xy_buf_lit(buf, literal) xy_buf_add((buf), (literal), sizeof(literal) - 1)

/* Drop `len` bytes from the front (memmove). */
void xy_buf_consume(struct xy_buf *buf, size_t len);

static inline struct xy_str xy_buf_view(const struct xy_buf *buf)
{
    return (struct xy_str){ .data = buf->data, .len = buf->len };
}
