/* Where OpenSSL reads and writes: two buffers that the connection's owner fills and empties. Called by the library through
 * a BIO of ours; a memory BIO would move what is left each time a part of it is taken, and knows no bounds.
 *
 * During the handshake one record is handed over per call of xy_tls_handshake. Messages that cost public-key work come
 * in records of their own, so that a call never does two of them. */
#include "core/tls/openssl_backend.h"

#define RECORD_HEADER_BYTES 5u

/* At the start of a record: may it be read in this call? Its length is taken as it stands; the library judges it. */
static bool record_begins(struct openssl *openssl)
{
    struct tls_pipe *in = &openssl->base.in;
    if (tls_pipe_len(in) < RECORD_HEADER_BYTES)
        return false;
    if (openssl->records_begun > 0) {
        openssl->record_waits = true;
        return false;
    }
    const unsigned char *header = (const unsigned char *)in->buf.data + in->taken;
    openssl->record_left = RECORD_HEADER_BYTES + (size_t)(header[3] << 8 | header[4]);
    openssl->records_begun++;
    openssl->handshake_records++;
    return true;
}

static size_t readable(struct openssl *openssl, size_t wanted)
{
    struct tls_pipe *in = &openssl->base.in;
    size_t n = tls_pipe_len(in) < wanted ? tls_pipe_len(in) : wanted;
    if (openssl->base.established)
        return n;
    if (openssl->record_left == 0 && !record_begins(openssl))
        return 0;
    n = n < openssl->record_left ? n : openssl->record_left;
    openssl->record_left -= n;
    return n;
}

static int on_read(BIO *bio, char *data, int len)
{
    struct openssl *openssl = BIO_get_data(bio);
    struct tls_pipe *in = &openssl->base.in;
    BIO_clear_retry_flags(bio);
    size_t n = len > 0 ? readable(openssl, (size_t)len) : 0;
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(data, in->buf.data + in->taken, n);
    tls_pipe_take(in, n);
    return (int)n;
}

static int on_write(BIO *bio, const char *data, int len)
{
    struct openssl *openssl = BIO_get_data(bio);
    struct xy_buf *out = &openssl->base.out.buf;
    BIO_clear_retry_flags(bio);
    xy_buf_add(out, data, len > 0 ? (size_t)len : 0);
    return xy_buf_failed(out) ? -1 : len;
}

/* The library flushes after each flight; there is nothing to flush. It has no other wish that we know. */
static long on_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

bool tls_openssl_bio_method_new(struct openssl_config *config)
{
    config->bio = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "xylem");
    return config->bio != NULL && BIO_meth_set_read(config->bio, on_read) &&
           BIO_meth_set_write(config->bio, on_write) && BIO_meth_set_ctrl(config->bio, on_control);
}

bool tls_openssl_bio_attach(struct openssl *openssl)
{
    BIO *bio = BIO_new(openssl_config_of(openssl->base.config)->bio);
    if (bio == NULL)
        return false;
    BIO_set_data(bio, openssl);
    BIO_set_init(bio, 1);
    SSL_set_bio(openssl->ssl, bio, bio); /* both ways; takes the only reference */
    return true;
}
