/* Immutable bytes shared by reference count: a serialised stanza or event body that many queues point at.
 *
 * The count is atomic, so references may be held by several threads. Nobody writes to `data` once a second reference
 * exists. */
#pragma once

#include <stdatomic.h>

#include "core/base/buf.h"

struct xy_bytes {
    atomic_uint refs;
    uint32_t len;
    char data[];
};

/* One reference, contents copied from (or left uninitialised for) the caller; NULL when memory is short. */
struct xy_bytes *xy_bytes_new(struct xy_str contents);
struct xy_bytes *xy_bytes_alloc(size_t len);
/* What a buffer holds becomes shared bytes where it is, without a copy: for texts whose length is known only once they are
 * written. Begin the empty buffer with xy_bytes_begin, append, end with xy_bytes_end, which empties the buffer; NULL when
 * memory is or was short. */
void xy_bytes_begin(struct xy_buf *buf);
struct xy_bytes *xy_bytes_end(struct xy_buf *buf);
struct xy_bytes *xy_bytes_ref(struct xy_bytes *bytes);
void xy_bytes_ref_n(struct xy_bytes *bytes,
                    unsigned count);          /* `count` more references at once, for a fan-out */
void xy_bytes_unref(struct xy_bytes **bytes); /* NULL ok; nulls the caller's pointer */

static inline struct xy_str xy_bytes_view(const struct xy_bytes *bytes)
{
    return (struct xy_str){ .data = bytes->data, .len = bytes->len };
}
