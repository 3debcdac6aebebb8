/* In-band bytestreams (XEP-0047): bytes of any amount between two clients, through their servers.
 *
 * Ownership, threading and callbacks as in <xylem/xylem.h>. A bytestream belongs to the client; the pointer is invalid
 * after its on_closed returned. Memory is bounded, whatever passes: by window and block size, and by half of
 * queue_bytes_max for blocks that the server has not acknowledged yet (XEP-0198). */
#pragma once

#include <xylem/xylem.h>

#ifdef __cplusplus
extern "C" {
#endif

struct xylem_bytestream;

struct xylem_bytestream_end {
    enum xylem_status status; /* XYLEM_OK: closed in order, and everything written was acknowledged */
    const char *text;
    uint64_t unconfirmed; /* bytes written and never acknowledged */
};

struct xylem_bytestream_handlers {
    size_t size;
    void (*opened)(struct xylem_bytestream *stream, void *ctx);   /* of ours; may be NULL */
    void (*writable)(struct xylem_bytestream *stream, void *ctx); /* write accepts bytes again; may be NULL */
    /* false: slow down, acknowledge nothing more until xylem_bytestream_release */
    bool (*data)(struct xylem_bytestream *stream, const void *data, size_t len, void *ctx);
    void (*closed)(struct xylem_bytestream *stream, const struct xylem_bytestream_end *end, void *ctx);
};

/* A peer wants to open a stream: fill in *handlers and *ctx and return NULL, or return the condition to refuse with, e.g.
 * "not-acceptable". */
typedef const char *xylem_bytestream_accept_fn(struct xylem_bytestream *stream,
                                               struct xylem_bytestream_handlers *handlers, void **stream_ctx,
                                               void *ctx);

XYLEM_API enum xylem_status xylem_bytestream_listen(struct xylem_client *client,
                                                    xylem_bytestream_accept_fn *fn, void *ctx);
/* `sid` NULL: random; block_size 0: 4,096. Only while online. */
XYLEM_API enum xylem_status xylem_bytestream_open(struct xylem_client *client, const char *to,
                                                  const char *sid, uint32_t block_size,
                                                  const struct xylem_bytestream_handlers *handlers, void *ctx,
                                                  struct xylem_bytestream **out);
XYLEM_API size_t xylem_bytestream_write(struct xylem_bytestream *stream, const void *data, size_t len);
XYLEM_API void xylem_bytestream_release(struct xylem_bytestream *stream);
XYLEM_API void
xylem_bytestream_close(struct xylem_bytestream *stream); /* after everything was acknowledged */
XYLEM_API void
xylem_bytestream_abort(struct xylem_bytestream *stream); /* `closed` is called before it returns */
XYLEM_API const char *xylem_bytestream_sid(struct xylem_bytestream *stream);
XYLEM_API const char *xylem_bytestream_peer(struct xylem_bytestream *stream);
XYLEM_API uint32_t xylem_bytestream_block_size(const struct xylem_bytestream *stream);

#ifdef __cplusplus
}
#endif
