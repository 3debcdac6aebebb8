/* A TLS connection on OpenSSL: handshake, records, the end, and what was agreed. The library reads and writes through
 * openssl_bio.c; whom it talks to is judged in openssl_peer.c. */
#include "core/tls/openssl_backend.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/assert.h"
#include "core/tls/names.h"

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

static enum xy_tls_status fail_with(struct xy_tls *tls, const char *prose)
{
    if (!tls->failed)
        tls_explain(&tls->error, "%s", prose);
    tls->failed = true;
    return XY_TLS_FAILED;
}

/* The library says only that nothing fits: either no suite is one of ours, or none goes with our certificate. */
static const char *no_suite(const struct xy_tls *tls)
{
    const STACK_OF(SSL_CIPHER) *offered = SSL_get_client_ciphers(tls->ssl);
    for (int i = 0; i < sk_SSL_CIPHER_num(offered); i++)
        if (suite_name(sk_SSL_CIPHER_value(offered, i)) != NULL)
            return "the peer offers no cipher suite that fits our certificate";
    return "the peer offers no cipher suite with forward secrecy that we accept";
}

static const char *library_prose(const struct xy_tls *tls, int reason)
{
    if (reason >= SSL_AD_REASON_OFFSET)
        return "the peer refused with a TLS alert";
    if (reason == SSL_R_NO_SHARED_CIPHER)
        return no_suite(tls);
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++)
        if (failures[i].code == reason && failures[i].prose != no_tls)
            return failures[i].prose;
    if (tls->config->server && tls->handshake_records <= 1)
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
        return fail_with(tls, "memory is short");
    if (ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        const char *problem = tls_problem_of(SSL_get_verify_result(tls->ssl));
        snprintf(text, sizeof text, "the peer is not trusted: %s",
                 problem != NULL ? problem : "unknown reason");
        ERR_clear_error();
        return fail_with(tls, text);
    }
    const char *prose = library_prose(tls, ERR_GET_REASON(error));
    const char *reason = tls_reason();
    return fail_with(tls, prose != NULL ? prose : reason);
}

/* ---- life ---- */

static bool connection_setup(struct xy_tls *tls, const char *hostname)
{
    tls->ssl = SSL_new(tls->config->ctx);
    if (tls->ssl == NULL || SSL_set_app_data(tls->ssl, tls) != 1 || !tls_bio_attach(tls))
        return false;
    if (tls->config->server) {
        SSL_set_accept_state(tls->ssl);
        tls->own = &tls->config->identities[0];
        return true;
    }
    SSL_set_connect_state(tls->ssl);
    tls->hostname = strdup(hostname);
    if (tls->hostname == NULL)
        return false;
    if (strlen(hostname) > TLSEXT_MAXLEN_host_name) {
        fail_with(tls, "the host name is longer than DNS allows");
        return true;
    }
    return SSL_set_tlsext_host_name(tls->ssl, hostname) == 1;
}

struct xy_tls *xy_tls_new(struct xy_tls_config *config, const char *hostname)
{
    xy_assert(config->server == (hostname == NULL));
    struct xy_tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL)
        return NULL;
    tls->config = xy_tls_config_ref(config);
    if (!connection_setup(tls, hostname))
        xy_tls_free(&tls);
    ERR_clear_error();
    return tls;
}

void xy_tls_free(struct xy_tls **tls)
{
    if (*tls == NULL)
        return;
    SSL_free((*tls)->ssl);
    xy_buf_free(&(*tls)->in.buf);
    xy_buf_free(&(*tls)->out.buf);
    xy_buf_free(&(*tls)->peer_der);
    free((*tls)->hostname);
    xy_tls_config_unref(&(*tls)->config);
    free(*tls);
    *tls = NULL;
}

bool xy_tls_receive(struct xy_tls *tls, const void *data, size_t len)
{
    if (tls->failed)
        return false;
    if (len > XY_TLS_INPUT_MAX - tls_pipe_len(&tls->in)) {
        fail_with(tls, "the peer sent more than could be looked at");
        return false;
    }
    xy_buf_add(&tls->in.buf, data, len);
    if (xy_buf_failed(&tls->in.buf))
        fail_with(tls, "memory is short");
    return !tls->failed;
}

/* The library has given back its own buffers already (SSL_MODE_RELEASE_BUFFERS). */
void xy_tls_sleep(struct xy_tls *tls)
{
    tls_pipe_sleep(&tls->in);
    tls_pipe_sleep(&tls->out);
}

/* ---- handshake ---- */

static enum xy_tls_status handshake_end(struct xy_tls *tls)
{
    const X509 *peer = SSL_get0_peer_certificate(tls->ssl);
    if (peer != NULL && !tls_certificate_der(peer, &tls->peer_der))
        return fail_with(tls, "memory is short");
    if (!tls->config->server && !tls_client_accepts(tls))
        return fail_with(tls, "the resumed session does not fit the trust asked for");
    tls->established = true;
    return XY_TLS_DONE;
}

/* What the library would take for the hello of SSL 2.0, or for HTTP, is none to us. */
static bool hello_expected(const struct xy_tls *tls)
{
    bool first = tls->config->server && tls->handshake_records == 0 && tls_pipe_len(&tls->in) > 0;
    return !first || tls->in.buf.data[tls->in.taken] == SSL3_RT_HANDSHAKE;
}

enum xy_tls_status xy_tls_handshake(struct xy_tls *tls)
{
    if (tls->failed)
        return XY_TLS_FAILED;
    if (tls->established)
        return XY_TLS_DONE;
    if (!hello_expected(tls))
        return fail_with(tls, no_hello);
    tls->records_begun = 0;
    tls->record_waits = false;
    ERR_clear_error();
    int result = SSL_do_handshake(tls->ssl);
    if (result == 1)
        return handshake_end(tls);
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return tls->record_waits ? XY_TLS_AGAIN : XY_TLS_WANT_MORE;
    case SSL_ERROR_ZERO_RETURN:
        return fail_with(tls, "the peer ended the handshake");
    default:
        return fail(tls);
    }
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
    ERR_clear_error();
    if (SSL_read_ex(tls->ssl, out, size, len) == 1)
        return XY_TLS_DONE;
    *len = 0;
    switch (SSL_get_error(tls->ssl, 0)) {
    case SSL_ERROR_WANT_READ:
        return XY_TLS_WANT_MORE;
    case SSL_ERROR_ZERO_RETURN:
        tls->peer_closed = true;
        return XY_TLS_CLOSED;
    default:
        return fail(tls);
    }
}

size_t xy_tls_write(struct xy_tls *tls, const void *data, size_t len)
{
    xy_assert(tls->established);
    const unsigned char *bytes = data;
    size_t written = 0;
    ERR_clear_error();
    while (written < len && !tls->failed && !tls->close_sent && tls_pipe_len(&tls->out) < XY_TLS_OUTPUT_MAX) {
        size_t piece = len - written < RECORD_BYTES_MAX ? len - written : RECORD_BYTES_MAX, done = 0;
        if (SSL_write_ex(tls->ssl, bytes + written, piece, &done) == 1)
            written += done;
        else
            fail(tls);
    }
    return written;
}

struct xy_str xy_tls_output(const struct xy_tls *tls)
{
    return xy_str_n(tls->out.buf.data + (tls->out.buf.data ? tls->out.taken : 0), tls_pipe_len(&tls->out));
}

void xy_tls_output_consumed(struct xy_tls *tls, size_t len)
{
    tls_pipe_take(&tls->out, len);
}

/* The library's 0 says that the peer has not closed yet; the other half stays open as long as he likes. */
void xy_tls_close(struct xy_tls *tls)
{
    if (tls->close_sent || tls->failed || !tls->established)
        return;
    tls->close_sent = true;
    ERR_clear_error();
    if (SSL_shutdown(tls->ssl) < 0)
        fail(tls);
}

const char *xy_tls_error(const struct xy_tls *tls)
{
    return tls->error.text;
}

/* ---- what was agreed ---- */

const char *xy_tls_newest(void)
{
    return "TLSv1.3";
}

const char *xy_tls_version(const struct xy_tls *tls)
{
    return SSL_get_version(tls->ssl);
}

const char *xy_tls_cipher(const struct xy_tls *tls)
{
    const SSL_CIPHER *cipher = SSL_get_current_cipher(tls->ssl);
    const char *name = cipher != NULL ? suite_name(cipher) : NULL;
    return name != NULL ? name : "none";
}

const char *xy_tls_alpn(const struct xy_tls *tls)
{
    const unsigned char *chosen = NULL;
    unsigned len = 0;
    SSL_get0_alpn_selected(tls->ssl, &chosen, &len);
    for (size_t i = 0; chosen != NULL && tls->config->alpn != NULL && tls->config->alpn[i] != NULL; i++)
        if (xy_str_is(xy_str_n((const char *)chosen, len), tls->config->alpn[i]))
            return tls->config->alpn[i];
    return NULL;
}

bool xy_tls_resumed(const struct xy_tls *tls)
{
    return tls->established && SSL_session_reused(tls->ssl) == 1;
}

struct xy_str xy_tls_peer_certificate(const struct xy_tls *tls)
{
    return tls->peer_der.len > 0 ? xy_buf_view(&tls->peer_der) : XY_STR_NONE;
}

size_t xy_tls_server_end_point(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX])
{
    struct xy_str der = tls->config->server ? xy_buf_view(&tls->own->leaf_der) : xy_tls_peer_certificate(tls);
    const EVP_MD *digests[] = {
        [XY_TLS_HASH_NONE] = NULL,           [XY_TLS_HASH_SHA224] = EVP_sha224(),
        [XY_TLS_HASH_SHA256] = EVP_sha256(), [XY_TLS_HASH_SHA384] = EVP_sha384(),
        [XY_TLS_HASH_SHA512] = EVP_sha512(),
    };
    const EVP_MD *digest = digests[xy_tls_certificate_hash(der)];
    unsigned len = 0;
    if (!tls->established || digest == NULL || EVP_Digest(der.data, der.len, out, &len, digest, NULL) != 1)
        return 0;
    return len;
}

static bool is_13(const struct xy_tls *tls)
{
    return SSL_version(tls->ssl) == TLS1_3_VERSION;
}

size_t xy_tls_exporter(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX])
{
    if (!tls->established || !is_13(tls))
        return 0;
    int exported = SSL_export_keying_material(tls->ssl, out, EXPORTER_BYTES, EXPORTER_LABEL,
                                              sizeof EXPORTER_LABEL - 1, NULL, 0, 0);
    return exported == 1 ? EXPORTER_BYTES : 0;
}

/* In a full handshake the client finishes first. */
size_t xy_tls_unique(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX])
{
    if (!tls->established || xy_tls_resumed(tls) || is_13(tls))
        return 0;
    size_t len = tls->config->server ? SSL_get_peer_finished(tls->ssl, out, XY_TLS_BINDING_MAX)
                                     : SSL_get_finished(tls->ssl, out, XY_TLS_BINDING_MAX);
    return len <= XY_TLS_BINDING_MAX ? len : 0;
}

bool xy_tls_session_save(const struct xy_tls *tls, struct xy_buf *out)
{
    if (tls->config->server || !tls->established)
        return false;
    SSL_SESSION *session = SSL_get0_session(tls->ssl);
    int len = session != NULL && SSL_SESSION_has_ticket(session) ? i2d_SSL_SESSION(session, NULL) : 0;
    unsigned char *room = len > 0 ? (unsigned char *)xy_buf_reserve(out, (size_t)len) : NULL;
    if (room == NULL)
        return false;
    out->len += (size_t)i2d_SSL_SESSION(session, &room);
    return true;
}

bool xy_tls_session_restore(struct xy_tls *tls, struct xy_str saved)
{
    xy_assert(!tls->config->server && !tls->established);
    const unsigned char *bytes = (const unsigned char *)saved.data;
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &bytes, (long)saved.len);
    bool restored = session != NULL && SSL_set_session(tls->ssl, session) == 1;
    SSL_SESSION_free(session);
    ERR_clear_error();
    return restored;
}
