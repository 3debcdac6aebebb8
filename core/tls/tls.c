/* What is the same on every TLS library: counting references, the two buffers that a connection's owner fills and empties,
 * the order of its life, and whether a peer is accepted. The library does the rest, through its table (library.h). */
#include "core/tls/library.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/assert.h"

void tls_explain(struct xy_tls_error *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
}

enum xy_tls_status tls_fail(struct xy_tls *tls, const char *prose)
{
    if (!tls->failed)
        tls_explain(&tls->error, "%s", prose);
    tls->failed = true;
    return XY_TLS_FAILED;
}

/* ---- configurations ---- */

static const struct xy_tls_library *library_or_default(const struct xy_tls_library *library)
{
    return library != NULL ? library : xy_tls_library_at(0);
}

struct xy_tls_config *xy_tls_config_server(const struct xy_tls_server_options *options,
                                           struct xy_tls_error *error)
{
    xy_assert(options->certificate_count > 0);
    error->text[0] = '\0';
    return library_or_default(options->library)->config_server(options, error);
}

struct xy_tls_config *xy_tls_config_client(const struct xy_tls_client_options *options,
                                           struct xy_tls_error *error)
{
    error->text[0] = '\0';
    return library_or_default(options->library)->config_client(options, error);
}

struct xy_tls_config *xy_tls_config_ref(struct xy_tls_config *config)
{
    unsigned before = atomic_fetch_add_explicit(&config->refs, 1, memory_order_relaxed);
    xy_assert(before > 0);
    return config;
}

static void config_free(struct xy_tls_config *config)
{
    for (size_t i = 0; config->alpn != NULL && config->alpn[i] != NULL; i++)
        free((void *)(uintptr_t)config->alpn[i]);
    free(config->alpn);
    config->library->config_free(config);
}

void xy_tls_config_unref(struct xy_tls_config **config)
{
    if (*config == NULL)
        return;
    unsigned before = atomic_fetch_sub_explicit(&(*config)->refs, 1, memory_order_acq_rel);
    xy_assert(before > 0);
    if (before == 1)
        config_free(*config);
    *config = NULL;
}

const struct xy_tls_library *xy_tls_config_library(const struct xy_tls_config *config)
{
    return config->library;
}

bool tls_alpn_copy(struct xy_tls_config *config, const char *const *names)
{
    size_t count = 0;
    if (names == NULL)
        return true;
    while (names[count] != NULL)
        count++;
    xy_assert(count <= TLS_ALPN_MAX);
    bool copied = (config->alpn = calloc(count + 1, sizeof *config->alpn)) != NULL;
    for (size_t i = 0; i < count && copied; i++)
        copied = (config->alpn[i] = strdup(names[i])) != NULL;
    return copied;
}

bool xy_tls_self_signed(const struct xy_tls_library *library, const struct xy_env *env,
                        const char *const *domains, size_t domain_count, struct xy_buf *certificate_pem,
                        struct xy_buf *key_pem, struct xy_tls_error *error)
{
    error->text[0] = '\0';
    if (domain_count == 0 || domain_count > XY_TLS_DOMAINS_MAX) {
        tls_explain(error, "a certificate needs 1 to %u domains, not %zu", XY_TLS_DOMAINS_MAX, domain_count);
        return false;
    }
    return library_or_default(library)->self_signed(env, domains, domain_count, certificate_pem, key_pem,
                                                    error);
}

/* ---- a connection's life ---- */

struct xy_tls *xy_tls_new(struct xy_tls_config *config, const char *hostname)
{
    xy_assert(config->server == (hostname == NULL));
    struct xy_tls *tls = config->library->allocate();
    if (tls == NULL)
        return NULL;
    tls->config = xy_tls_config_ref(config);
    bool named = hostname == NULL || (tls->hostname = strdup(hostname)) != NULL;
    if (!named || !config->library->setup(tls))
        xy_tls_free(&tls);
    return tls;
}

void xy_tls_free(struct xy_tls **tls)
{
    if (*tls == NULL)
        return;
    struct xy_tls_config *config = (*tls)->config;
    xy_buf_free(&(*tls)->in.buf);
    xy_buf_free(&(*tls)->out.buf);
    free((*tls)->hostname);
    config->library->release_connection(*tls);
    xy_tls_config_unref(&config);
    *tls = NULL;
}

const char *xy_tls_error(const struct xy_tls *tls)
{
    return tls->error.text;
}

/* ---- buffers ---- */

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

static void pipe_sleep(struct tls_pipe *pipe)
{
    if (tls_pipe_len(pipe) == 0)
        xy_buf_free(&pipe->buf);
}

bool xy_tls_receive(struct xy_tls *tls, const void *data, size_t len)
{
    if (tls->failed)
        return false;
    if (len > XY_TLS_INPUT_MAX - tls_pipe_len(&tls->in)) {
        tls_fail(tls, "the peer sent more than could be looked at");
        return false;
    }
    xy_buf_add(&tls->in.buf, data, len);
    if (xy_buf_failed(&tls->in.buf))
        tls_fail(tls, "memory is short");
    return !tls->failed;
}

struct xy_str xy_tls_output(const struct xy_tls *tls)
{
    return xy_str_n(tls->out.buf.data + (tls->out.buf.data ? tls->out.taken : 0), tls_pipe_len(&tls->out));
}

void xy_tls_output_consumed(struct xy_tls *tls, size_t len)
{
    tls_pipe_take(&tls->out, len);
}

void xy_tls_sleep(struct xy_tls *tls)
{
    pipe_sleep(&tls->in);
    pipe_sleep(&tls->out);
}

/* ---- judging the peer ---- */

bool tls_is_pinned(const struct xy_tls_config *config, struct xy_str certificate_der)
{
    unsigned char hash[XY_TLS_BINDING_MAX];
    return xy_str_present(certificate_der) &&
           config->library->digest(XY_TLS_HASH_SHA256, certificate_der, hash) == XY_TLS_FINGERPRINT_BYTES &&
           memcmp(hash, config->fingerprint, XY_TLS_FINGERPRINT_BYTES) == 0;
}

/* A resumed session brings the certificate it began with: it must still be what this configuration asks for. */
static bool client_accepts(const struct xy_tls *tls)
{
    struct xy_str der = xy_tls_peer_certificate(tls);
    if (tls->config->trust == XY_TLS_TRUST_INSECURE)
        return true;
    if (!tls->config->library->chain_accepted(tls))
        return false;
    if (tls->config->trust == XY_TLS_TRUST_PINNED)
        return tls_is_pinned(tls->config, der);
    return xy_tls_certificate_covers(der, xy_str(tls->hostname));
}

struct xy_str xy_tls_peer_certificate(const struct xy_tls *tls)
{
    return tls->config->library->peer_certificate(tls);
}

bool xy_tls_peer_trusted(const struct xy_tls *tls)
{
    return tls->established && xy_str_present(xy_tls_peer_certificate(tls)) &&
           xy_tls_peer_problem(tls) == NULL;
}

const char *xy_tls_peer_problem(const struct xy_tls *tls)
{
    return tls->config->library->peer_problem(tls);
}

/* ---- handshake and records ---- */

enum xy_tls_status xy_tls_handshake(struct xy_tls *tls)
{
    if (tls->failed)
        return XY_TLS_FAILED;
    if (tls->established)
        return XY_TLS_DONE;
    enum xy_tls_status status = tls->config->library->handshake(tls);
    if (status != XY_TLS_DONE)
        return status;
    if (!tls->config->server && !client_accepts(tls))
        return tls_fail(tls, "the resumed session does not fit the trust asked for");
    tls->established = true;
    return XY_TLS_DONE;
}

bool xy_tls_established(const struct xy_tls *tls)
{
    return tls->established;
}

enum xy_tls_status xy_tls_read(struct xy_tls *tls, void *out, size_t size, size_t *len)
{
    xy_assert(tls->established && size > 0);
    *len = 0;
    if (tls->failed)
        return XY_TLS_FAILED;
    if (tls->peer_closed)
        return XY_TLS_CLOSED;
    enum xy_tls_status status = tls->config->library->read(tls, out, size, len);
    tls->peer_closed = status == XY_TLS_CLOSED;
    return status;
}

size_t xy_tls_write(struct xy_tls *tls, const void *data, size_t len)
{
    xy_assert(tls->established);
    const unsigned char *bytes = data;
    size_t written = 0;
    while (written < len && !tls->failed && !tls->close_sent && tls_pipe_len(&tls->out) < XY_TLS_OUTPUT_MAX)
        written += tls->config->library->write_record(tls, bytes + written, len - written);
    return written;
}

void xy_tls_close(struct xy_tls *tls)
{
    if (tls->close_sent || tls->failed || !tls->established)
        return;
    tls->close_sent = true;
    tls->config->library->close_notify(tls);
}

/* ---- what was agreed ---- */

const char *xy_tls_version(const struct xy_tls *tls)
{
    return tls->config->library->version(tls);
}

const char *xy_tls_cipher(const struct xy_tls *tls)
{
    return tls->config->library->cipher(tls);
}

const char *xy_tls_alpn(const struct xy_tls *tls)
{
    return tls->config->library->alpn(tls);
}

bool xy_tls_resumed(const struct xy_tls *tls)
{
    return tls->established && tls->config->library->resumed(tls);
}

size_t xy_tls_server_end_point(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX])
{
    if (!tls->established)
        return 0;
    const struct xy_tls_library *library = tls->config->library;
    struct xy_str der = tls->config->server ? library->own_certificate(tls) : xy_tls_peer_certificate(tls);
    return library->digest(xy_tls_certificate_hash(der), der, out);
}

size_t xy_tls_exporter(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX])
{
    return tls->established ? tls->config->library->exporter(tls, out) : 0;
}

size_t xy_tls_unique(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX])
{
    return tls->established && !xy_tls_resumed(tls) ? tls->config->library->unique(tls, out) : 0;
}

bool xy_tls_session_save(const struct xy_tls *tls, struct xy_buf *out)
{
    return !tls->config->server && tls->established && tls->config->library->session_save(tls, out);
}

bool xy_tls_session_restore(struct xy_tls *tls, struct xy_str saved)
{
    xy_assert(!tls->config->server && !tls->established);
    return tls->config->library->session_restore(tls, saved);
}
