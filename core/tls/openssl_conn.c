/* A TLS connection on OpenSSL, and the table that tls.c calls: handshake, records, the end, and what was agreed. The
 * library reads and writes through openssl_bio.c; whom it talks to is judged in openssl_peer.c. */
#include "core/tls/openssl_backend.h"

#include <stdio.h>
#include <stdlib.h>

#define RECORD_BYTES_MAX 16384u
#define EXPORTER_LABEL   "EXPORTER-Channel-Binding"
#define EXPORTER_BYTES   32u

struct suite_name {
    uint16_t suite; /* its number on the wire */
    const char *name;
};

static const struct suite_name suite_names[] = {
    { 0x1301, "TLS1-3-AES-128-GCM-SHA256" },
    { 0x1302, "TLS1-3-AES-256-GCM-SHA384" },
    { 0x1303, "TLS1-3-CHACHA20-POLY1305-SHA256" },
    { 0xc02b, "TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256" },
    { 0xc02f, "TLS-ECDHE-RSA-WITH-AES-128-GCM-SHA256" },
    { 0xc02c, "TLS-ECDHE-ECDSA-WITH-AES-256-GCM-SHA384" },
    { 0xc030, "TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384" },
    { 0xcca9, "TLS-ECDHE-ECDSA-WITH-CHACHA20-POLY1305-SHA256" },
    { 0xcca8, "TLS-ECDHE-RSA-WITH-CHACHA20-POLY1305-SHA256" },
};

/* NULL: not one of ours. */
static const char *suite_name(const SSL_CIPHER *cipher)
{
    for (size_t i = 0; i < sizeof suite_names / sizeof suite_names[0]; i++)
        if (suite_names[i].suite == SSL_CIPHER_get_protocol_id(cipher))
            return suite_names[i].name;
    return NULL;
}

/* ---- errors ---- */

struct code_prose {
    int code;
    const char *prose;
};

static const char no_hello[] = "the peer did not begin with a TLS hello that we understand";
static const char no_tls[] = "the peer sent something that is not TLS";

static const struct code_prose failures[] = {
    { SSL_R_UNSUPPORTED_PROTOCOL, "the peer does not speak TLS 1.2" },
    { SSL_R_VERSION_TOO_LOW, "the peer does not speak TLS 1.2" },
    { SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, "a record was altered on its way" },
    { SSL_R_WRONG_VERSION_NUMBER, no_tls },
    { SSL_R_PACKET_LENGTH_TOO_LONG, no_tls },
    { SSL_R_ENCRYPTED_LENGTH_TOO_LONG, no_tls },
    { SSL_R_BAD_RECORD_TYPE, no_tls },
    { SSL_R_RECORD_LENGTH_MISMATCH, no_tls },
    { ERR_R_MALLOC_FAILURE, "memory is short" },
};

/* The library says only that nothing fits: either no suite is one of ours, or none goes with our certificate. */
static const char *no_suite(const struct openssl *openssl)
{
    const STACK_OF(SSL_CIPHER) *offered = SSL_get_client_ciphers(openssl->ssl);
    for (int i = 0; i < sk_SSL_CIPHER_num(offered); i++)
        if (suite_name(sk_SSL_CIPHER_value(offered, i)) != NULL)
            return "the peer offers no cipher suite that fits our certificate";
    return "the peer offers no cipher suite with forward secrecy that we accept";
}

static const char *library_prose(const struct openssl *openssl, int reason)
{
    if (reason >= SSL_AD_REASON_OFFSET)
        return "the peer refused with a TLS alert";
    if (reason == SSL_R_NO_SHARED_CIPHER)
        return no_suite(openssl);
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++)
        if (failures[i].code == reason && failures[i].prose != no_tls)
            return failures[i].prose;
    if (openssl->base.config->server && openssl->handshake_records <= 1)
        return no_hello;
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++)
        if (failures[i].code == reason)
            return failures[i].prose;
    return NULL;
}

/* After a call of the library that neither succeeded nor asked for more. */
static enum xy_tls_status fail(struct xy_tls *tls)
{
    char text[160];
    unsigned long error = ERR_peek_last_error(); /* what it means for TLS; what caused it comes before */
    if (error == 0)                              /* nothing but our own buffers can fail without an entry */
        return tls_fail(tls, "memory is short");
    if (ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        const char *problem = tls_openssl_problem_of(SSL_get_verify_result(openssl_of(tls)->ssl));
        snprintf(text, sizeof text, "the peer is not trusted: %s",
                 problem != NULL ? problem : "unknown reason");
        ERR_clear_error();
        return tls_fail(tls, text);
    }
    const char *prose = library_prose(openssl_of(tls), ERR_GET_REASON(error));
    const char *reason = tls_openssl_reason();
    return tls_fail(tls, prose != NULL ? prose : reason);
}

/* ---- life ---- */

static struct xy_tls *allocate(void)
{
    struct openssl *openssl = calloc(1, sizeof *openssl);
    return openssl != NULL ? &openssl->base : NULL;
}

static bool setup_client(struct openssl *openssl)
{
    const char *hostname = openssl->base.hostname;
    SSL_set_connect_state(openssl->ssl);
    if (strlen(hostname) > TLSEXT_MAXLEN_host_name) {
        tls_fail(&openssl->base, "the host name is longer than DNS allows");
        return true;
    }
    return SSL_set_tlsext_host_name(openssl->ssl, hostname) == 1;
}

static bool setup(struct xy_tls *tls)
{
    struct openssl *openssl = openssl_of(tls);
    const struct openssl_config *config = openssl_config_of(tls->config);
    openssl->ssl = SSL_new(config->ctx);
    bool ready = openssl->ssl != NULL && SSL_set_app_data(openssl->ssl, openssl) == 1 &&
                 tls_openssl_bio_attach(openssl);
    if (ready && tls->config->server) {
        SSL_set_accept_state(openssl->ssl);
        openssl->own = &config->identities[0];
    } else if (ready) {
        ready = setup_client(openssl);
    }
    ERR_clear_error();
    return ready;
}

static void release_connection(struct xy_tls *tls)
{
    struct openssl *openssl = openssl_of(tls);
    SSL_free(openssl->ssl);
    xy_buf_free(&openssl->peer_der);
    free(openssl);
}

/* ---- handshake ---- */

static enum xy_tls_status handshake_end(struct openssl *openssl)
{
    const X509 *peer = SSL_get0_peer_certificate(openssl->ssl);
    if (peer != NULL && !tls_openssl_certificate_der(peer, &openssl->peer_der))
        return tls_fail(&openssl->base, "memory is short");
    return XY_TLS_DONE;
}

/* What the library would take for the hello of SSL 2.0, or for HTTP, is none to us. */
static bool hello_expected(const struct openssl *openssl)
{
    const struct tls_pipe *in = &openssl->base.in;
    bool first = openssl->base.config->server && openssl->handshake_records == 0 && tls_pipe_len(in) > 0;
    return !first || in->buf.data[in->taken] == SSL3_RT_HANDSHAKE;
}

static enum xy_tls_status handshake(struct xy_tls *tls)
{
    struct openssl *openssl = openssl_of(tls);
    if (!hello_expected(openssl))
        return tls_fail(tls, no_hello);
    openssl->records_begun = 0;
    openssl->record_waits = false;
    ERR_clear_error();
    int result = SSL_do_handshake(openssl->ssl);
    if (result == 1)
        return handshake_end(openssl);
    switch (SSL_get_error(openssl->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return openssl->record_waits ? XY_TLS_AGAIN : XY_TLS_WANT_MORE;
    case SSL_ERROR_ZERO_RETURN:
        return tls_fail(tls, "the peer ended the handshake");
    default:
        return fail(tls);
    }
}

/* ---- records ---- */

static enum xy_tls_status read_plain(struct xy_tls *tls, void *out, size_t size, size_t *len)
{
    SSL *ssl = openssl_of(tls)->ssl;
    ERR_clear_error();
    if (SSL_read_ex(ssl, out, size, len) == 1)
        return XY_TLS_DONE;
    *len = 0;
    switch (SSL_get_error(ssl, 0)) {
    case SSL_ERROR_WANT_READ:
        return XY_TLS_WANT_MORE;
    case SSL_ERROR_ZERO_RETURN:
        return XY_TLS_CLOSED;
    default:
        return fail(tls);
    }
}

static size_t write_record(struct xy_tls *tls, const void *data, size_t len)
{
    size_t written = 0;
    ERR_clear_error();
    if (SSL_write_ex(openssl_of(tls)->ssl, data, len < RECORD_BYTES_MAX ? len : RECORD_BYTES_MAX, &written) !=
        1)
        fail(tls);
    return written;
}

/* The library's 0 says that the peer has not closed yet; the other half stays open as long as he likes. */
static void close_notify(struct xy_tls *tls)
{
    ERR_clear_error();
    if (SSL_shutdown(openssl_of(tls)->ssl) < 0)
        fail(tls);
}

/* ---- what was agreed ---- */

static SSL *ssl_of(const struct xy_tls *tls)
{
    return ((const struct openssl *)tls)->ssl;
}

static const char *version(const struct xy_tls *tls)
{
    return SSL_get_version(ssl_of(tls));
}

static const char *cipher(const struct xy_tls *tls)
{
    const SSL_CIPHER *chosen = SSL_get_current_cipher(ssl_of(tls));
    const char *name = chosen != NULL ? suite_name(chosen) : NULL;
    return name != NULL ? name : "none";
}

static const char *alpn(const struct xy_tls *tls)
{
    const unsigned char *chosen = NULL;
    unsigned len = 0;
    SSL_get0_alpn_selected(ssl_of(tls), &chosen, &len);
    for (size_t i = 0; chosen != NULL && tls->config->alpn != NULL && tls->config->alpn[i] != NULL; i++)
        if (xy_str_is(xy_str_n((const char *)chosen, len), tls->config->alpn[i]))
            return tls->config->alpn[i];
    return NULL;
}

static bool resumed(const struct xy_tls *tls)
{
    return SSL_session_reused(ssl_of(tls)) == 1;
}

static struct xy_str own_certificate(const struct xy_tls *tls)
{
    return xy_buf_view(&((const struct openssl *)tls)->own->leaf_der);
}

static struct xy_str peer_certificate(const struct xy_tls *tls)
{
    const struct xy_buf *der = &((const struct openssl *)tls)->peer_der;
    return der->len > 0 ? xy_buf_view(der) : XY_STR_NONE;
}

static bool chain_accepted(const struct xy_tls *tls)
{
    return SSL_get_verify_result(ssl_of(tls)) == X509_V_OK;
}

static size_t digest(enum xy_tls_hash hash, struct xy_str data, unsigned char out[XY_TLS_BINDING_MAX])
{
    const EVP_MD *digests[] = {
        [XY_TLS_HASH_NONE] = NULL,           [XY_TLS_HASH_SHA224] = EVP_sha224(),
        [XY_TLS_HASH_SHA256] = EVP_sha256(), [XY_TLS_HASH_SHA384] = EVP_sha384(),
        [XY_TLS_HASH_SHA512] = EVP_sha512(),
    };
    unsigned len = 0;
    if (digests[hash] == NULL || EVP_Digest(data.data, data.len, out, &len, digests[hash], NULL) != 1)
        return 0;
    return len;
}

static bool is_13(const struct xy_tls *tls)
{
    return SSL_version(ssl_of(tls)) == TLS1_3_VERSION;
}

static size_t exporter(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX])
{
    if (!is_13(tls))
        return 0;
    int exported = SSL_export_keying_material(ssl_of(tls), out, EXPORTER_BYTES, EXPORTER_LABEL,
                                              sizeof EXPORTER_LABEL - 1, NULL, 0, 0);
    return exported == 1 ? EXPORTER_BYTES : 0;
}

/* In a full handshake the client finishes first. */
static size_t unique(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX])
{
    if (is_13(tls))
        return 0;
    size_t len = tls->config->server ? SSL_get_peer_finished(ssl_of(tls), out, XY_TLS_BINDING_MAX)
                                     : SSL_get_finished(ssl_of(tls), out, XY_TLS_BINDING_MAX);
    return len <= XY_TLS_BINDING_MAX ? len : 0;
}

static bool session_save(const struct xy_tls *tls, struct xy_buf *out)
{
    SSL_SESSION *session = SSL_get0_session(ssl_of(tls));
    int len = session != NULL && SSL_SESSION_has_ticket(session) ? i2d_SSL_SESSION(session, NULL) : 0;
    unsigned char *room = len > 0 ? (unsigned char *)xy_buf_reserve(out, (size_t)len) : NULL;
    if (room == NULL)
        return false;
    out->len += (size_t)i2d_SSL_SESSION(session, &room);
    return true;
}

static bool session_restore(struct xy_tls *tls, struct xy_str saved)
{
    const unsigned char *bytes = (const unsigned char *)saved.data;
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &bytes, (long)saved.len);
    bool restored = session != NULL && SSL_set_session(ssl_of(tls), session) == 1;
    SSL_SESSION_free(session);
    ERR_clear_error();
    return restored;
}

/* ---- the table ---- */

static void release(char out[XY_TLS_RELEASE_BYTES])
{
    snprintf(out, XY_TLS_RELEASE_BYTES, "OpenSSL %s", OpenSSL_version(OPENSSL_VERSION_STRING));
}

const struct xy_tls_library tls_openssl = {
    .name = "openssl",
    .newest = "TLSv1.3",
    .release = release,
    .config_server = tls_openssl_config_server,
    .config_client = tls_openssl_config_client,
    .config_free = tls_openssl_config_free,
    .self_signed = tls_openssl_self_signed,
    .allocate = allocate,
    .setup = setup,
    .release_connection = release_connection,
    .handshake = handshake,
    .read = read_plain,
    .write_record = write_record,
    .close_notify = close_notify,
    .version = version,
    .cipher = cipher,
    .alpn = alpn,
    .resumed = resumed,
    .own_certificate = own_certificate,
    .peer_certificate = peer_certificate,
    .chain_accepted = chain_accepted,
    .peer_problem = tls_openssl_peer_problem,
    .digest = digest,
    .exporter = exporter,
    .unique = unique,
    .session_save = session_save,
    .session_restore = session_restore,
};
