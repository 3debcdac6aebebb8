/* A TLS connection on mbedTLS: the library's send and receive callbacks end in two buffers that the owner fills and
 * empties. The peer's certificate is judged here, not by the library alone: names come from the SAN only, a pinned
 * certificate replaces the chain, and a resumed session is judged again under the present configuration. */
#include "core/tls/mbedtls_shim.h"

#include <mbedtls/md.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/sha256.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/assert.h"
#include "core/base/list.h"
#include "core/tls/names.h"

/* Bytes that come in at the end and leave at the front; the front moves lazily. */
struct pipe {
    struct xy_buf buf;
    size_t taken;
};

struct xy_tls {
    mbedtls_ssl_context ssl;
    struct xy_tls_config *config;
    char *hostname;
    const mbedtls_x509_crt *own; /* the certificate a server shows */
    struct pipe in, out;
    bool established;
    bool full_handshake; /* certificates were exchanged: not resumed */
    bool failed;
    bool peer_closed;
    bool close_sent;
    struct xy_tls_error error;
};

/* ---- buffers ---- */

static size_t pipe_len(const struct pipe *pipe)
{
    return pipe->buf.len - pipe->taken;
}

static void pipe_take(struct pipe *pipe, size_t len)
{
    xy_assert(len <= pipe_len(pipe));
    pipe->taken += len;
    if (pipe->taken == pipe->buf.len) {
        xy_buf_reset(&pipe->buf);
        pipe->taken = 0;
    } else if (pipe->taken > pipe->buf.len / 2) { /* moves each byte once at most, on average */
        xy_buf_consume(&pipe->buf, pipe->taken);
        pipe->taken = 0;
    }
}

static void pipe_sleep(struct pipe *pipe)
{
    if (pipe_len(pipe) == 0)
        xy_buf_free(&pipe->buf);
}

static int on_send(void *ctx, const unsigned char *data, size_t len)
{
    struct xy_tls *tls = ctx;
    xy_buf_add(&tls->out.buf, data, len);
    return xy_buf_failed(&tls->out.buf) ? MBEDTLS_ERR_SSL_ALLOC_FAILED : (int)len;
}

static int on_receive(void *ctx, unsigned char *data, size_t len)
{
    struct xy_tls *tls = ctx;
    size_t n = pipe_len(&tls->in) < len ? pipe_len(&tls->in) : len;
    if (n == 0)
        return MBEDTLS_ERR_SSL_WANT_READ;
    memcpy(data, tls->in.buf.data + tls->in.taken, n);
    pipe_take(&tls->in, n);
    return (int)n;
}

/* ---- judging the peer ---- */

static struct xy_str certificate_der(const mbedtls_x509_crt *certificate)
{
    return certificate == NULL ? XY_STR_NONE
                               : xy_str_n((const char *)certificate->raw.p, certificate->raw.len);
}

static bool is_pinned(const struct xy_tls_config *config, struct xy_str der)
{
    unsigned char hash[XY_TLS_FINGERPRINT_BYTES];
    const mbedtls_md_info_t *sha256 = mbedtls_md_info_from_type(MBEDTLS_MD_SHA256);
    return xy_str_present(der) && mbedtls_md(sha256, (const unsigned char *)der.data, der.len, hash) == 0 &&
           memcmp(hash, config->fingerprint, sizeof hash) == 0;
}

/* Called by the library for every certificate of the peer's chain, the leaf (depth 0) last. */
static int on_verify(void *ctx, mbedtls_x509_crt *certificate, int depth, uint32_t *flags)
{
    const struct xy_tls *tls = ctx;
    if (tls->config->server)
        return 0;
    if (tls->config->trust == XY_TLS_TRUST_PINNED) {
        *flags = depth > 0 || is_pinned(tls->config, certificate_der(certificate))
                     ? 0
                     : MBEDTLS_X509_BADCERT_OTHER;
    } else if (depth == 0) {
        *flags &= ~(uint32_t)MBEDTLS_X509_BADCERT_CN_MISMATCH;
        if (!xy_tls_certificate_covers(certificate_der(certificate), xy_str(tls->hostname)))
            *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
    }
    return 0;
}

/* A resumed session brings the certificate it began with: it must still be what this configuration asks for. */
static bool client_accepts(const struct xy_tls *tls)
{
    struct xy_str der = xy_tls_peer_certificate(tls);
    if (tls->config->trust == XY_TLS_TRUST_INSECURE)
        return true;
    if (mbedtls_ssl_get_verify_result(&tls->ssl) != 0)
        return false;
    if (tls->config->trust == XY_TLS_TRUST_PINNED)
        return is_pinned(tls->config, der);
    return xy_tls_certificate_covers(der, xy_str(tls->hostname));
}

int tls_choose_certificate(void *ctx, mbedtls_ssl_context *ssl, const unsigned char *name, size_t len)
{
    struct xy_tls_config *config = ctx;
    struct xy_tls *tls = xy_container_of(ssl, struct xy_tls, ssl);
    struct xy_str host = xy_str_n((const char *)name, len);
    for (size_t i = 0; i < config->identity_count; i++) {
        struct tls_identity *identity = &config->identities[i];
        if (identity->domain == NULL || !xy_tls_name_covers(xy_str(identity->domain), host))
            continue;
        tls->own = &identity->chain;
        return mbedtls_ssl_set_hs_own_cert(ssl, &identity->chain, &identity->key);
    }
    return 0;
}

struct flag_prose {
    uint32_t flag;
    const char *prose;
};

static const struct flag_prose problems[] = {
    { MBEDTLS_X509_BADCERT_MISSING, "it showed no certificate" },
    { MBEDTLS_X509_BADCERT_SKIP_VERIFY, "no certificate was asked for" },
    { MBEDTLS_X509_BADCERT_OTHER, "its certificate is not the pinned one" },
    { MBEDTLS_X509_BADCERT_CN_MISMATCH, "its certificate is for another name" },
    { MBEDTLS_X509_BADCERT_EXPIRED, "its certificate has expired" },
    { MBEDTLS_X509_BADCERT_FUTURE, "its certificate is not valid yet (or our clock is wrong)" },
    { MBEDTLS_X509_BADCERT_REVOKED, "its certificate is revoked" },
    { MBEDTLS_X509_BADCERT_NOT_TRUSTED, "its certificate is not signed by a trusted authority" },
    { MBEDTLS_X509_BADCERT_KEY_USAGE | MBEDTLS_X509_BADCERT_EXT_KEY_USAGE | MBEDTLS_X509_BADCERT_NS_CERT_TYPE,
      "its certificate is not meant for this use" },
    { MBEDTLS_X509_BADCERT_BAD_MD | MBEDTLS_X509_BADCERT_BAD_PK | MBEDTLS_X509_BADCERT_BAD_KEY,
      "its certificate uses a weak or unsupported algorithm" },
};

static const char *problem_of(uint32_t flags)
{
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++)
        if (flags & problems[i].flag)
            return problems[i].prose;
    return flags == 0 ? NULL : "its certificate cannot be trusted";
}

/* ---- errors ---- */

struct code_prose {
    int code;
    const char *prose;
};

static const struct code_prose failures[] = {
    { MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE, "the peer refused with a TLS alert" },
    { TLS_ERR_VERSION, "the peer does not speak TLS 1.2" },
    { MBEDTLS_ERR_SSL_INVALID_RECORD, "the peer sent something that is not TLS" },
    { MBEDTLS_ERR_SSL_INVALID_MAC, "a record was altered on its way" },
    { MBEDTLS_ERR_SSL_ALLOC_FAILED, "memory is short" },
    { MBEDTLS_ERR_SSL_CONN_EOF, "the peer ended the handshake" },
    { MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY, "the peer ended the handshake" },
#if MBEDTLS_VERSION_MAJOR < 3
    { MBEDTLS_ERR_SSL_NO_CIPHER_CHOSEN,
      "the peer offers no cipher suite with forward secrecy that we accept" },
    { MBEDTLS_ERR_SSL_NO_USABLE_CIPHERSUITE, "the peer offers no cipher suite that fits our certificate" },
    { MBEDTLS_ERR_SSL_BAD_HS_CLIENT_HELLO, "the peer did not begin with a TLS hello that we understand" },
#endif
};

static enum xy_tls_status fail_with(struct xy_tls *tls, const char *prose)
{
    if (!tls->failed)
        tls_explain(&tls->error, "%s", prose);
    tls->failed = true;
    return XY_TLS_FAILED;
}

static enum xy_tls_status fail(struct xy_tls *tls, int code)
{
    char text[160];
    if (code == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) {
        const char *problem = problem_of(mbedtls_ssl_get_verify_result(&tls->ssl));
        snprintf(text, sizeof text, "the peer is not trusted: %s",
                 problem != NULL ? problem : "unknown reason");
        return fail_with(tls, text);
    }
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++)
        if (failures[i].code == code)
            return fail_with(tls, failures[i].prose);
    mbedtls_strerror(code, text, sizeof text);
    return fail_with(tls, text);
}

/* ---- life ---- */

static bool connection_setup(struct xy_tls *tls, const char *hostname)
{
    if (mbedtls_ssl_setup(&tls->ssl, &tls->config->ssl) != 0)
        return false;
    mbedtls_ssl_set_bio(&tls->ssl, tls, on_send, on_receive, NULL);
    mbedtls_ssl_set_verify(&tls->ssl, on_verify, tls);
    if (tls->config->server) {
        tls->own = &tls->config->identities[0].chain;
        return true;
    }
    tls->hostname = strdup(hostname);
    if (tls->hostname == NULL)
        return false;
    int failed = mbedtls_ssl_set_hostname(&tls->ssl, hostname);
    if (failed == MBEDTLS_ERR_SSL_BAD_INPUT_DATA)
        fail_with(tls, "the host name is longer than DNS allows");
    return failed == 0 || tls->failed;
}

struct xy_tls *xy_tls_new(struct xy_tls_config *config, const char *hostname)
{
    xy_assert(config->server == (hostname == NULL));
    struct xy_tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL)
        return NULL;
    mbedtls_ssl_init(&tls->ssl);
    tls->config = xy_tls_config_ref(config);
    if (!connection_setup(tls, hostname))
        xy_tls_free(&tls);
    return tls;
}

void xy_tls_free(struct xy_tls **tls)
{
    if (*tls == NULL)
        return;
    mbedtls_ssl_free(&(*tls)->ssl);
    xy_buf_free(&(*tls)->in.buf);
    xy_buf_free(&(*tls)->out.buf);
    free((*tls)->hostname);
    xy_tls_config_unref(&(*tls)->config);
    free(*tls);
    *tls = NULL;
}

bool xy_tls_receive(struct xy_tls *tls, const void *data, size_t len)
{
    if (tls->failed)
        return false;
    if (len > XY_TLS_INPUT_MAX - pipe_len(&tls->in)) {
        fail_with(tls, "the peer sent more than could be looked at");
        return false;
    }
    xy_buf_add(&tls->in.buf, data, len);
    if (xy_buf_failed(&tls->in.buf))
        fail_with(tls, "memory is short");
    return !tls->failed;
}

void xy_tls_sleep(struct xy_tls *tls)
{
    pipe_sleep(&tls->in);
    pipe_sleep(&tls->out);
}

/* ---- handshake ---- */

/* The states whose step does public-key work, a millisecond or so. */
static bool is_costly(int state)
{
    return state == MBEDTLS_SSL_SERVER_CERTIFICATE || state == MBEDTLS_SSL_SERVER_KEY_EXCHANGE ||
           state == MBEDTLS_SSL_CLIENT_CERTIFICATE || state == MBEDTLS_SSL_CLIENT_KEY_EXCHANGE ||
           state == MBEDTLS_SSL_CERTIFICATE_VERIFY;
}

static enum xy_tls_status handshake_end(struct xy_tls *tls)
{
    if (!tls->config->server && !client_accepts(tls))
        return fail_with(tls, "the resumed session does not fit the trust asked for");
    tls->established = true;
    return XY_TLS_DONE;
}

enum xy_tls_status xy_tls_handshake(struct xy_tls *tls)
{
    if (tls->failed)
        return XY_TLS_FAILED;
    while (!tls->established) {
        int before = TLS_STATE(&tls->ssl);
        int result = mbedtls_ssl_handshake_step(&tls->ssl);
        if (result == MBEDTLS_ERR_SSL_WANT_READ)
            return XY_TLS_WANT_MORE;
        if (result != 0)
            return fail(tls, result);
        if (before == MBEDTLS_SSL_SERVER_CERTIFICATE)
            tls->full_handshake = true;
        if (TLS_STATE(&tls->ssl) == MBEDTLS_SSL_HANDSHAKE_OVER)
            return handshake_end(tls);
        if (is_costly(before))
            return XY_TLS_AGAIN;
    }
    return XY_TLS_DONE;
}

bool xy_tls_established(const struct xy_tls *tls)
{
    return tls->established;
}

/* ---- records ---- */

enum xy_tls_status xy_tls_read(struct xy_tls *tls, void *out, size_t size, size_t *len)
{
    xy_assert(tls->established && size > 0);
    *len = 0;
    if (tls->failed)
        return XY_TLS_FAILED;
    if (tls->peer_closed)
        return XY_TLS_CLOSED;
    int result = mbedtls_ssl_read(&tls->ssl, out, size);
    if (result > 0) {
        *len = (size_t)result;
        return XY_TLS_DONE;
    }
    if (result == MBEDTLS_ERR_SSL_WANT_READ)
        return XY_TLS_WANT_MORE;
    if (result != 0 && result != MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY)
        return fail(tls, result);
    tls->peer_closed = true;
    return XY_TLS_CLOSED;
}

size_t xy_tls_write(struct xy_tls *tls, const void *data, size_t len)
{
    xy_assert(tls->established);
    const unsigned char *bytes = data;
    size_t written = 0;
    while (written < len && !tls->failed && !tls->close_sent && pipe_len(&tls->out) < XY_TLS_OUTPUT_MAX) {
        int result = mbedtls_ssl_write(&tls->ssl, bytes + written, len - written); /* one record */
        if (result < 0)
            fail(tls, result);
        else
            written += (size_t)result;
    }
    return written;
}

struct xy_str xy_tls_output(const struct xy_tls *tls)
{
    return xy_str_n(tls->out.buf.data + (tls->out.buf.data ? tls->out.taken : 0), pipe_len(&tls->out));
}

void xy_tls_output_consumed(struct xy_tls *tls, size_t len)
{
    pipe_take(&tls->out, len);
}

void xy_tls_close(struct xy_tls *tls)
{
    if (tls->close_sent || tls->failed || !tls->established)
        return;
    tls->close_sent = true;
    int result = mbedtls_ssl_close_notify(&tls->ssl);
    if (result != 0)
        fail(tls, result);
}

const char *xy_tls_error(const struct xy_tls *tls)
{
    return tls->error.text;
}

/* ---- what was agreed ---- */

const char *xy_tls_newest(void)
{
    return "TLSv1.2";
}

const char *xy_tls_version(const struct xy_tls *tls)
{
    return mbedtls_ssl_get_version(&tls->ssl);
}

const char *xy_tls_cipher(const struct xy_tls *tls)
{
    const char *name = mbedtls_ssl_get_ciphersuite(&tls->ssl);
    return name != NULL ? name : "none";
}

const char *xy_tls_alpn(const struct xy_tls *tls)
{
    return mbedtls_ssl_get_alpn_protocol(&tls->ssl);
}

bool xy_tls_resumed(const struct xy_tls *tls)
{
    return tls->established && !tls->full_handshake;
}

struct xy_str xy_tls_peer_certificate(const struct xy_tls *tls)
{
    return certificate_der(mbedtls_ssl_get_peer_cert(&tls->ssl));
}

bool xy_tls_peer_trusted(const struct xy_tls *tls)
{
    return tls->established && xy_str_present(xy_tls_peer_certificate(tls)) &&
           xy_tls_peer_problem(tls) == NULL;
}

/* The library judged the chain in the full handshake; a client's ticket may outlive its certificate. */
const char *xy_tls_peer_problem(const struct xy_tls *tls)
{
    uint32_t flags = mbedtls_ssl_get_verify_result(&tls->ssl);
    const mbedtls_x509_crt *peer = mbedtls_ssl_get_peer_cert(&tls->ssl);
    if (tls->config->server && peer != NULL && mbedtls_x509_time_is_past(&peer->valid_to))
        flags |= MBEDTLS_X509_BADCERT_EXPIRED;
    return problem_of(flags);
}

size_t xy_tls_server_end_point(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX])
{
    static const mbedtls_md_type_t digests[] = {
        [XY_TLS_HASH_NONE] = MBEDTLS_MD_NONE,     [XY_TLS_HASH_SHA224] = MBEDTLS_MD_SHA224,
        [XY_TLS_HASH_SHA256] = MBEDTLS_MD_SHA256, [XY_TLS_HASH_SHA384] = MBEDTLS_MD_SHA384,
        [XY_TLS_HASH_SHA512] = MBEDTLS_MD_SHA512,
    };
    struct xy_str der = tls->config->server ? certificate_der(tls->own) : xy_tls_peer_certificate(tls);
    const mbedtls_md_info_t *digest = mbedtls_md_info_from_type(digests[xy_tls_certificate_hash(der)]);
    if (!tls->established || digest == NULL ||
        mbedtls_md(digest, (const unsigned char *)der.data, der.len, out) != 0)
        return 0;
    return mbedtls_md_get_size(digest);
}

size_t xy_tls_exporter(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX])
{
    (void)tls;
    out[0] = '\0';
    return 0; /* not defined before TLS 1.3 */
}

/* In a full handshake the client finishes first. */
size_t xy_tls_unique(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX])
{
#if MBEDTLS_VERSION_MAJOR < 3 && defined(MBEDTLS_SSL_RENEGOTIATION)
    size_t len = tls->ssl.verify_data_len;
    if (!tls->established || !tls->full_handshake || len == 0 || len > XY_TLS_BINDING_MAX)
        return 0;
    memcpy(out, tls->config->server ? tls->ssl.peer_verify_data : tls->ssl.own_verify_data, len);
    return len;
#else
    (void)tls;
    (void)out;
    return 0;
#endif
}

bool xy_tls_session_save(const struct xy_tls *tls, struct xy_buf *out)
{
    mbedtls_ssl_session session;
    size_t len = 0;
    bool saved = false;
    if (tls->config->server || !tls->established)
        return false;
    mbedtls_ssl_session_init(&session);
    if (mbedtls_ssl_get_session(&tls->ssl, &session) == 0 && TLS_SESSION_TICKET(&session) > 0) {
        mbedtls_ssl_session_save(&session, NULL, 0, &len); /* asks for the length */
        char *room = xy_buf_reserve(out, len);
        saved = room != NULL && mbedtls_ssl_session_save(&session, (unsigned char *)room, len, &len) == 0;
        if (saved)
            out->len += len;
    }
    mbedtls_ssl_session_free(&session);
    return saved;
}

bool xy_tls_session_restore(struct xy_tls *tls, struct xy_str saved)
{
    mbedtls_ssl_session session;
    xy_assert(!tls->config->server && !tls->established);
    mbedtls_ssl_session_init(&session);
    bool restored = mbedtls_ssl_session_load(&session, (const unsigned char *)saved.data, saved.len) == 0 &&
                    mbedtls_ssl_set_session(&tls->ssl, &session) == 0;
    mbedtls_ssl_session_free(&session);
    return restored;
}
