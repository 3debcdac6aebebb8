/* Shared, immutable, reference-counted bytes; see bytes.h. */
#include "core/base/bytes.h"

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/base/limits.h"

struct xy_bytes *xy_bytes_alloc(size_t len)
{
    if (len > UINT32_MAX - sizeof(struct xy_bytes))
        return NULL;
    struct xy_bytes *bytes = malloc(sizeof(*bytes) + len);
    if (bytes == NULL)
        return NULL;
    atomic_init(&bytes->refs, 1);
    bytes->len = (uint32_t)len;
    return bytes;
}

struct xy_bytes *xy_bytes_new(struct xy_str contents)
{
    struct xy_bytes *bytes = xy_bytes_alloc(contents.len);
    if (bytes != NULL && contents.len > 0)
        memcpy(bytes->data, contents.data, contents.len);
    return bytes;
}

void xy_bytes_begin(struct xy_buf *buf)
{
    static const struct xy_bytes head;
    xy_assert(buf->len == 0);
    xy_buf_add(buf, (const char *)&head, sizeof(head));
}

struct xy_bytes *xy_bytes_end(struct xy_buf *buf)
{
    struct xy_bytes *bytes = (struct xy_bytes *)(void *)buf->data;
    if (xy_buf_failed(buf) || buf->len > UINT32_MAX) {
        xy_buf_free(buf);
        return NULL;
    }
    xy_assert(buf->len >= sizeof(*bytes));
    if (buf->cap - buf->len > buf->len / 2 && buf->cap > XY_BUF_FIRST) { /* they may be kept for long */
        struct xy_bytes *smaller = realloc(bytes, buf->len);
        bytes = smaller ? smaller : bytes;
    }
    atomic_init(&bytes->refs, 1);
    bytes->len = (uint32_t)(buf->len - sizeof(*bytes));
    *buf = (struct xy_buf){ 0 };
    return bytes;
}

void xy_bytes_ref_n(struct xy_bytes *bytes, unsigned count)
{
    unsigned former = atomic_fetch_add_explicit(&bytes->refs, count, memory_order_relaxed);
    xy_assert(former > 0 && former + count >= former);
}

struct xy_bytes *xy_bytes_ref(struct xy_bytes *bytes)
{
    xy_bytes_ref_n(bytes, 1);
    return bytes;
}

void xy_bytes_unref(struct xy_bytes **bytes)
{
    struct xy_bytes *held = *bytes;
    if (held == NULL)
        return;
    *bytes = NULL;
    /* release: our reads are over before the last holder frees; acquire: as the last holder, see all others'
     */
    unsigned former = atomic_fetch_sub_explicit(&held->refs, 1, memory_order_acq_rel);
    xy_assert(former > 0);
    if (former == 1)
        free(held);
}
