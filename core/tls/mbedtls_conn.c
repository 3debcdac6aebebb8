/* A TLS connection on mbedTLS, and the table that tls.c calls: the library's send and receive callbacks end in the
 * connection's two buffers. The peer's certificate is judged here, not by the library alone: names come from the SAN only,
 * and a pinned certificate replaces the chain. */
#include "core/tls/mbedtls_shim.h"

#include <mbedtls/md.h>
#include <stdio.h>
#include <stdlib.h>

struct mbed {
    struct xy_tls base; /* first */
    mbedtls_ssl_context ssl;
    const mbedtls_x509_crt *own; /* the certificate a server shows */
    bool full_handshake;         /* certificates were exchanged: not resumed */
};

static struct mbed *mbed_of(struct xy_tls *tls)
{
    return xy_container_of(tls, struct mbed, base);
}

static const mbedtls_ssl_context *ssl_of(const struct xy_tls *tls)
{
    return &((const struct mbed *)tls)->ssl;
}

/* ---- buffers ---- */

static int on_send(void *ctx, const unsigned char *data, size_t len)
{
    struct xy_tls *tls = ctx;
    xy_buf_add(&tls->out.buf, data, len);
    return xy_buf_failed(&tls->out.buf) ? MBEDTLS_ERR_SSL_ALLOC_FAILED : (int)len;
}

static int on_receive(void *ctx, unsigned char *data, size_t len)
{
    struct xy_tls *tls = ctx;
    size_t n = tls_pipe_len(&tls->in) < len ? tls_pipe_len(&tls->in) : len;
    if (n == 0)
        return MBEDTLS_ERR_SSL_WANT_READ;
    memcpy(data, tls->in.buf.data + tls->in.taken, n);
    tls_pipe_take(&tls->in, n);
    return (int)n;
}

/* ---- judging the peer ---- */

static struct xy_str certificate_der(const mbedtls_x509_crt *certificate)
{
    return certificate == NULL ? XY_STR_NONE
                               : xy_str_n((const char *)certificate->raw.p, certificate->raw.len);
}

/* Called by the library for every certificate of the peer's chain, the leaf (depth 0) last. */
static int on_verify(void *ctx, mbedtls_x509_crt *certificate, int depth, uint32_t *flags)
{
    const struct xy_tls *tls = ctx;
    if (tls->config->server)
        return 0;
    if (tls->config->trust == XY_TLS_TRUST_PINNED) {
        *flags = depth > 0 || tls_is_pinned(tls->config, certificate_der(certificate))
                     ? 0
                     : MBEDTLS_X509_BADCERT_OTHER;
    } else if (depth == 0) {
        *flags &= ~(uint32_t)MBEDTLS_X509_BADCERT_CN_MISMATCH;
        if (!xy_tls_certificate_covers(certificate_der(certificate), xy_str(tls->hostname)))
            *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
    }
    return 0;
}

int tls_mbedtls_choose_certificate(void *ctx, mbedtls_ssl_context *ssl, const unsigned char *name, size_t len)
{
    struct mbed_config *config = ctx;
    struct mbed *mbed = xy_container_of(ssl, struct mbed, ssl);
    struct xy_str host = xy_str_n((const char *)name, len);
    for (size_t i = 0; i < config->identity_count; i++) {
        struct tls_identity *identity = &config->identities[i];
        if (identity->domain == NULL || !xy_tls_name_covers(xy_str(identity->domain), host))
            continue;
        mbed->own = &identity->chain;
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

static enum xy_tls_status fail(struct xy_tls *tls, int code)
{
    char text[160];
    if (code == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) {
        const char *problem = problem_of(mbedtls_ssl_get_verify_result(ssl_of(tls)));
        snprintf(text, sizeof text, "the peer is not trusted: %s",
                 problem != NULL ? problem : "unknown reason");
        return tls_fail(tls, text);
    }
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++)
        if (failures[i].code == code)
            return tls_fail(tls, failures[i].prose);
    mbedtls_strerror(code, text, sizeof text);
    return tls_fail(tls, text);
}

/* ---- life ---- */

static struct xy_tls *allocate(void)
{
    struct mbed *mbed = calloc(1, sizeof *mbed);
    if (mbed == NULL)
        return NULL;
    mbedtls_ssl_init(&mbed->ssl);
    return &mbed->base;
}

static bool setup(struct xy_tls *tls)
{
    struct mbed *mbed = mbed_of(tls);
    struct mbed_config *config = mbed_config_of(tls->config);
    if (mbedtls_ssl_setup(&mbed->ssl, &config->ssl) != 0)
        return false;
    mbedtls_ssl_set_bio(&mbed->ssl, tls, on_send, on_receive, NULL);
    mbedtls_ssl_set_verify(&mbed->ssl, on_verify, tls);
    if (tls->config->server) {
        mbed->own = &config->identities[0].chain;
        return true;
    }
    int failed = mbedtls_ssl_set_hostname(&mbed->ssl, tls->hostname);
    if (failed == MBEDTLS_ERR_SSL_BAD_INPUT_DATA)
        tls_fail(tls, "the host name is longer than DNS allows");
    return failed == 0 || tls->failed;
}

static void release_connection(struct xy_tls *tls)
{
    struct mbed *mbed = mbed_of(tls);
    mbedtls_ssl_free(&mbed->ssl);
    free(mbed);
}

/* ---- handshake ---- */

/* The states whose step does public-key work, a millisecond or so. */
static bool is_costly(int state)
{
    return state == MBEDTLS_SSL_SERVER_CERTIFICATE || state == MBEDTLS_SSL_SERVER_KEY_EXCHANGE ||
           state == MBEDTLS_SSL_CLIENT_CERTIFICATE || state == MBEDTLS_SSL_CLIENT_KEY_EXCHANGE ||
           state == MBEDTLS_SSL_CERTIFICATE_VERIFY;
}

static enum xy_tls_status handshake(struct xy_tls *tls)
{
    struct mbed *mbed = mbed_of(tls);
    for (;;) {
        int before = TLS_STATE(&mbed->ssl);
        int result = mbedtls_ssl_handshake_step(&mbed->ssl);
        if (result == MBEDTLS_ERR_SSL_WANT_READ)
            return XY_TLS_WANT_MORE;
        if (result != 0)
            return fail(tls, result);
        if (before == MBEDTLS_SSL_SERVER_CERTIFICATE)
            mbed->full_handshake = true;
        if (TLS_STATE(&mbed->ssl) == MBEDTLS_SSL_HANDSHAKE_OVER)
            return XY_TLS_DONE;
        if (is_costly(before))
            return XY_TLS_AGAIN;
    }
}

/* ---- records ---- */

static enum xy_tls_status read_plain(struct xy_tls *tls, void *out, size_t size, size_t *len)
{
    int result = mbedtls_ssl_read(&mbed_of(tls)->ssl, out, size);
    if (result > 0) {
        *len = (size_t)result;
        return XY_TLS_DONE;
    }
    if (result == MBEDTLS_ERR_SSL_WANT_READ)
        return XY_TLS_WANT_MORE;
    if (result != 0 && result != MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY)
        return fail(tls, result);
    return XY_TLS_CLOSED;
}

static size_t write_record(struct xy_tls *tls, const void *data, size_t len)
{
    int result = mbedtls_ssl_write(&mbed_of(tls)->ssl, data, len);
    if (result < 0)
        fail(tls, result);
    return result < 0 ? 0 : (size_t)result;
}

static void close_notify(struct xy_tls *tls)
{
    int result = mbedtls_ssl_close_notify(&mbed_of(tls)->ssl);
    if (result != 0)
        fail(tls, result);
}

/* ---- what was agreed ---- */

static const char *version(const struct xy_tls *tls)
{
    return mbedtls_ssl_get_version(ssl_of(tls));
}

static const char *cipher(const struct xy_tls *tls)
{
    const char *name = mbedtls_ssl_get_ciphersuite(ssl_of(tls));
    return name != NULL ? name : "none";
}

static const char *alpn(const struct xy_tls *tls)
{
    return mbedtls_ssl_get_alpn_protocol(ssl_of(tls));
}

static bool resumed(const struct xy_tls *tls)
{
    return !((const struct mbed *)tls)->full_handshake;
}

static struct xy_str own_certificate(const struct xy_tls *tls)
{
    return certificate_der(((const struct mbed *)tls)->own);
}

static struct xy_str peer_certificate(const struct xy_tls *tls)
{
    return certificate_der(mbedtls_ssl_get_peer_cert(ssl_of(tls)));
}

static bool chain_accepted(const struct xy_tls *tls)
{
    return mbedtls_ssl_get_verify_result(ssl_of(tls)) == 0;
}

/* The library judged the chain in the full handshake; a client's ticket may outlive its certificate. */
static const char *peer_problem(const struct xy_tls *tls)
{
    uint32_t flags = mbedtls_ssl_get_verify_result(ssl_of(tls));
    const mbedtls_x509_crt *peer = mbedtls_ssl_get_peer_cert(ssl_of(tls));
    if (tls->config->server && peer != NULL && mbedtls_x509_time_is_past(&peer->valid_to))
        flags |= MBEDTLS_X509_BADCERT_EXPIRED;
    return problem_of(flags);
}

static size_t digest(enum xy_tls_hash hash, struct xy_str data, unsigned char out[XY_TLS_BINDING_MAX])
{
    static const mbedtls_md_type_t digests[] = {
        [XY_TLS_HASH_NONE] = MBEDTLS_MD_NONE,     [XY_TLS_HASH_SHA224] = MBEDTLS_MD_SHA224,
        [XY_TLS_HASH_SHA256] = MBEDTLS_MD_SHA256, [XY_TLS_HASH_SHA384] = MBEDTLS_MD_SHA384,
        [XY_TLS_HASH_SHA512] = MBEDTLS_MD_SHA512,
    };
    const mbedtls_md_info_t *info = mbedtls_md_info_from_type(digests[hash]);
    if (info == NULL || mbedtls_md(info, (const unsigned char *)data.data, data.len, out) != 0)
        return 0;
    return mbedtls_md_get_size(info);
}

static size_t exporter(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX])
{
    (void)tls;
    out[0] = '\0';
    return 0; /* not defined before TLS 1.3 */
}

/* In a full handshake the client finishes first. */
static size_t unique(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX])
{
#if MBEDTLS_VERSION_MAJOR < 3 && defined(MBEDTLS_SSL_RENEGOTIATION)
    const mbedtls_ssl_context *ssl = ssl_of(tls);
    size_t len = ssl->verify_data_len;
    if (len == 0 || len > XY_TLS_BINDING_MAX)
        return 0;
    memcpy(out, tls->config->server ? ssl->peer_verify_data : ssl->own_verify_data, len);
    return len;
#else
    (void)tls;
    (void)out;
    return 0;
#endif
}

static bool session_save(const struct xy_tls *tls, struct xy_buf *out)
{
    mbedtls_ssl_session session;
    size_t len = 0;
    bool saved = false;
    mbedtls_ssl_session_init(&session);
    if (mbedtls_ssl_get_session(ssl_of(tls), &session) == 0 && TLS_SESSION_TICKET(&session) > 0) {
        mbedtls_ssl_session_save(&session, NULL, 0, &len); /* asks for the length */
        char *room = xy_buf_reserve(out, len);
        saved = room != NULL && mbedtls_ssl_session_save(&session, (unsigned char *)room, len, &len) == 0;
        if (saved)
            out->len += len;
    }
    mbedtls_ssl_session_free(&session);
    return saved;
}

static bool session_restore(struct xy_tls *tls, struct xy_str saved)
{
    mbedtls_ssl_session session;
    mbedtls_ssl_session_init(&session);
    bool restored = mbedtls_ssl_session_load(&session, (const unsigned char *)saved.data, saved.len) == 0 &&
                    mbedtls_ssl_set_session(&mbed_of(tls)->ssl, &session) == 0;
    mbedtls_ssl_session_free(&session);
    return restored;
}

/* ---- the table ---- */

static void release(char out[XY_TLS_RELEASE_BYTES])
{
    mbedtls_version_get_string_full(out);
}

const struct xy_tls_library tls_mbedtls = {
    .name = "mbedtls",
    .newest = "TLSv1.2",
    .release = release,
    .warm_up = tls_mbedtls_warm_up,
    .config_server = tls_mbedtls_config_server,
    .config_client = tls_mbedtls_config_client,
    .config_free = tls_mbedtls_config_free,
    .self_signed = tls_mbedtls_self_signed,
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
    .peer_problem = peer_problem,
    .digest = digest,
    .exporter = exporter,
    .unique = unique,
    .session_save = session_save,
    .session_restore = session_restore,
};
