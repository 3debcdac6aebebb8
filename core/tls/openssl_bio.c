/* Where OpenSSL reads and writes: two buffers that the connection's owner fills and empties. Called by the library through
 * a BIO of ours; a memory BIO would move what is left each time a part of it is taken, and knows no bounds.
 *
 * During the handshake one record is handed over per call of xy_tls_handshake. Messages that cost public-key work come
 * in records of their own, so that a call never does two of them. */
#include "core/tls/openssl_backend.h"

#include "core/base/assert.h"

#define RECORD_HEADER_BYTES 5u

size_t tls_pipe_len(const struct tls_pipe *pipe)
{
    return pipe->buf.len - pipe->taken;
}

void tls_pipe_take(struct tls_pipe *pipe, size_t len)
{
    xy_assert(len <= tls_pipe_len(pipe));
    pipe->taken += len;
    if (pipe->taken == pipe->buf.len) {
        xy_buf_reset(&pipe->buf);
        pipe->taken = 0;
    } else if (pipe->taken > pipe->buf.len / 2) { /* moves each byte once at most, on average */
        xy_buf_consume(&pipe->buf, pipe->taken);
        pipe->taken = 0;
    }
}

void tls_pipe_sleep(struct tls_pipe *pipe)
{
    if (tls_pipe_len(pipe) == 0)
        xy_buf_free(&pipe->buf);
}

/* At the start of a record: may it be read in this call? Its length is taken as it stands; the library judges it. */
static bool record_begins(struct xy_tls *tls)
{
    if (tls_pipe_len(&tls->in) < RECORD_HEADER_BYTES)
        return false;
    if (tls->records_begun > 0) {
        tls->record_waits = true;
        return false;
    }
    const unsigned char *header = (const unsigned char *)tls->in.buf.data + tls->in.taken;
    tls->record_left = RECORD_HEADER_BYTES + (size_t)(header[3] << 8 | header[4]);
    tls->records_begun++;
    tls->handshake_records++;
    return true;
}

static size_t readable(struct xy_tls *tls, size_t wanted)
{
    size_t n = tls_pipe_len(&tls->in) < wanted ? tls_pipe_len(&tls->in) : wanted;
    if (tls->established)
        return n;
    if (tls->record_left == 0 && !record_begins(tls))
        return 0;
    n = n < tls->record_left ? n : tls->record_left;
    tls->record_left -= n;
    return n;
}

static int on_read(BIO *bio, char *data, int len)
{
    struct xy_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    size_t n = len > 0 ? readable(tls, (size_t)len) : 0;
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(data, tls->in.buf.data + tls->in.taken, n);
    tls_pipe_take(&tls->in, n);
    return (int)n;
}

static int on_write(BIO *bio, const char *data, int len)
{
    struct xy_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    xy_buf_add(&tls->out.buf, data, len > 0 ? (size_t)len : 0);
    return xy_buf_failed(&tls->out.buf) ? -1 : len;
}

/* The library flushes after each flight; there is nothing to flush. It has no other wish that we know. */
static long on_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

bool tls_bio_method_new(struct xy_tls_config *config)
{
    config->bio = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "xylem");
    return config->bio != NULL && BIO_meth_set_read(config->bio, on_read) &&
           BIO_meth_set_write(config->bio, on_write) && BIO_meth_set_ctrl(config->bio, on_control);
}

bool tls_bio_attach(struct xy_tls *tls)
{
    BIO *bio = BIO_new(tls->config->bio);
    if (bio == NULL)
        return false;
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio); /* both ways; takes the only reference */
    return true;
}
