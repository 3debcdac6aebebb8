/* What connections share on OpenSSL: certificates, trust, tickets, the choice of suites and curves. Made at start and at
 * reload by the broker and once per client by the SDK; every failure names the file and the reason. */
#include "core/tls/openssl_backend.h"

#include <openssl/pem.h>
#include <stdlib.h>

#define ALPN_NAME_MAX 255u
#define BITS_112      2 /* OpenSSL's level of security: RSA of 2048 bits, no SHA-1 */

/* AES-128 first: the processors we run on have instructions for it; ChaCha20 for peers that do not. */
static const char suites_13[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
static const char suites[] = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                             "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                             "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
static const char curves[] = "X25519:P-256";

const char *tls_openssl_reason(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_error());
    ERR_clear_error();
    return text != NULL ? text : "unknown reason";
}

/* ---- files ---- */

/* Every certificate of a PEM text that can be read, other blocks passed over, and how many cannot. false: memory is short.
 * Each read goes on behind the block before it, so it ends. */
static bool chain_parse(BIO *text, STACK_OF(X509) * chain, int *unread)
{
    for (;;) {
        ERR_clear_error();
        X509 *certificate = PEM_read_bio_X509(text, NULL, NULL, NULL);
        int error = ERR_GET_REASON(ERR_peek_last_error());
        if (certificate == NULL && error == PEM_R_NO_START_LINE)
            return true;
        if (certificate == NULL && error == ERR_R_MALLOC_FAILURE)
            return false;
        if (certificate == NULL)
            ++*unread;
        else if (sk_X509_push(chain, certificate) == 0) {
            X509_free(certificate);
            return false;
        }
    }
}

/* `lenient`: a trust store of many may contain some that this library cannot read; one's own chain may not. */
static bool chain_read(const struct tls_pem *pem, STACK_OF(X509) * chain, bool lenient,
                       struct xy_tls_error *error)
{
    int unread = 0;
    BIO *text = BIO_new_mem_buf(pem->data, (int)pem->len);
    bool read = text != NULL && chain_parse(text, chain, &unread);
    BIO_free(text);
    if (!read)
        tls_explain(error, "no memory for %s", pem->name);
    else if (sk_X509_num(chain) == 0)
        tls_explain(error, "%s holds no certificate in PEM: %s", pem->name, tls_openssl_reason());
    else if (unread > 0 && !lenient)
        tls_explain(error, "%s: %d of its certificates cannot be read", pem->name, unread);
    ERR_clear_error();
    return read && sk_X509_num(chain) > 0 && (unread == 0 || lenient);
}

/* One at least. The caller frees it; NULL: error says why. */
static STACK_OF(X509) * chain_load(const char *path, struct xy_str text, const char *what, bool lenient,
                                   struct xy_tls_error *error)
{
    struct tls_pem pem;
    STACK_OF(X509) *chain = NULL;
    bool loaded = tls_pem_load(path, text, what, &pem, error);
    if (loaded && (chain = sk_X509_new_null()) == NULL)
        tls_explain(error, "no memory for %s", pem.name);
    if (chain != NULL && !chain_read(&pem, chain, lenient, error)) {
        sk_X509_pop_free(chain, X509_free);
        chain = NULL;
    }
    tls_pem_free(&pem);
    return chain;
}

/* Called when a key is protected; there is nobody to ask. */
static int on_password(char *out, int size, int writing, void *asked)
{
    (void)writing;
    if (size > 0)
        out[0] = '\0';
    *(bool *)asked = true;
    return -1;
}

static EVP_PKEY *key_parse(const struct tls_pem *pem, struct xy_tls_error *error)
{
    bool protected = false;
    BIO *text = BIO_new_mem_buf(pem->data, (int)pem->len);
    EVP_PKEY *key = text != NULL ? PEM_read_bio_PrivateKey(text, NULL, on_password, &protected) : NULL;
    BIO_free(text);
    const char *why = tls_openssl_reason();
    if (key == NULL && protected)
        tls_explain(error, "%s is protected by a password; store the key without one", pem->name);
    else if (key == NULL)
        tls_explain(error, "%s holds no private key in PEM: %s", pem->name, why);
    return key;
}

static bool key_load(struct tls_identity *identity, const struct xy_tls_certificate *from,
                     struct xy_tls_error *error)
{
    struct tls_pem pem;
    if (tls_pem_load(from->key_file, from->key_pem, "the key", &pem, error))
        identity->key = key_parse(&pem, error);
    tls_pem_free(&pem);
    if (identity->key == NULL)
        return false;
    bool matches = X509_check_private_key(identity->leaf, identity->key) == 1;
    ERR_clear_error();
    if (!matches)
        tls_explain(error, "%s does not match the first certificate of %s", pem.name,
                    from->chain_file != NULL ? from->chain_file : "the chain");
    return matches;
}

/* ---- certificates of one's own ---- */

static bool identity_load(struct tls_identity *identity, const struct xy_tls_certificate *from,
                          struct xy_tls_error *error)
{
    identity->rest = chain_load(from->chain_file, from->chain_pem, "the certificate", false, error);
    if (identity->rest == NULL)
        return false;
    identity->leaf = sk_X509_shift(identity->rest);
    if (!tls_openssl_certificate_der(identity->leaf, &identity->leaf_der) ||
        (from->domain != NULL && (identity->domain = strdup(from->domain)) == NULL)) {
        tls_explain(error, "no memory for certificates");
        return false;
    }
    return key_load(identity, from, error);
}

static void identity_free(struct tls_identity *identity)
{
    free(identity->domain);
    X509_free(identity->leaf);
    sk_X509_pop_free(identity->rest, X509_free);
    EVP_PKEY_free(identity->key);
    xy_buf_free(&identity->leaf_der);
}

static bool identities_load(struct openssl_config *config, const struct xy_tls_certificate *from,
                            size_t count, struct xy_tls_error *error)
{
    if (count > XY_TLS_CERTIFICATES_MAX) {
        tls_explain(error, "more than %u certificates", XY_TLS_CERTIFICATES_MAX);
        return false;
    }
    config->identities = calloc(count, sizeof *config->identities);
    if (config->identities == NULL) {
        tls_explain(error, "no memory for certificates");
        return false;
    }
    for (config->identity_count = 0; config->identity_count < count;) {
        size_t i = config->identity_count++;
        if (!identity_load(&config->identities[i], &from[i], error))
            return false;
    }
    const struct tls_identity *first = &config->identities[0];
    if (SSL_CTX_use_cert_and_key(config->ctx, first->leaf, first->key, first->rest, 1) == 1)
        return true;
    tls_explain(error, "%s cannot be used: %s",
                from[0].chain_file != NULL ? from[0].chain_file : "the certificate", tls_openssl_reason());
    return false;
}

/* ---- configurations ---- */

void tls_openssl_config_free(struct xy_tls_config *base)
{
    struct openssl_config *config = openssl_config_of(base);
    SSL_CTX_free(config->ctx);
    BIO_meth_free(config->bio);
    tls_openssl_tickets_free(&config->tickets);
    for (size_t i = 0; i < config->identity_count; i++)
        identity_free(&config->identities[i]);
    free(config->identities);
    free(config);
}

/* Each name behind its length in one byte, as the protocol has it (RFC 7301 3.1). */
static bool alpn_wire(const char *const *names, struct xy_buf *wire)
{
    for (; *names != NULL; names++) {
        size_t len = strlen(*names);
        if (len == 0 || len > ALPN_NAME_MAX)
            return false;
        xy_buf_char(wire, (char)len);
        xy_buf_add(wire, *names, len);
    }
    return !xy_buf_failed(wire);
}

/* The first of ours that the client offers; RFC 7301 3.2 ends the handshake when there is none. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *offered,
                   unsigned offered_len, void *ctx)
{
    const struct xy_tls_config *config = ctx;
    (void)ssl;
    for (size_t i = 0; config->alpn[i] != NULL; i++)
        for (unsigned at = 0; at < offered_len; at += 1u + offered[at])
            if (xy_str_is(xy_str_n((const char *)offered + at + 1, offered[at]), config->alpn[i])) {
                *out = offered + at + 1;
                *out_len = offered[at];
                return SSL_TLSEXT_ERR_OK;
            }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool alpn_set(struct openssl_config *config, const char *const *names, struct xy_tls_error *error)
{
    if (names == NULL)
        return true;
    struct xy_buf wire = { 0 };
    bool set = alpn_wire(names, &wire) && tls_alpn_copy(&config->base, names);
    if (set && config->base.server)
        SSL_CTX_set_alpn_select_cb(config->ctx, on_alpn, &config->base);
    else if (set) /* 0 is success, unlike elsewhere */
        set = SSL_CTX_set_alpn_protos(config->ctx, (unsigned char *)wire.data, (unsigned)wire.len) == 0;
    xy_buf_free(&wire);
    if (!set)
        tls_explain(error, "the names of ALPN are too long, or memory is short");
    return set;
}

/* Everything is said here: the system's openssl.cnf has its own opinion about versions, suites and levels. */
static bool context_setup(SSL_CTX *ctx)
{
    static const unsigned char session_context[] = "xylem";
    SSL_CTX_set_security_level(ctx, BITS_112);
    SSL_CTX_set_options(ctx,
                        SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_clear_options(ctx, SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION | SSL_OP_NO_TICKET |
                                   SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_clear_mode(ctx, SSL_MODE_ASYNC);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* tickets only: the server keeps nothing */
    return SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(ctx, suites) == 1 && SSL_CTX_set_ciphersuites(ctx, suites_13) == 1 &&
           SSL_CTX_set1_groups_list(ctx, curves) == 1 && SSL_CTX_set_num_tickets(ctx, 1) == 1 &&
           SSL_CTX_set_session_id_context(ctx, session_context, sizeof session_context - 1) == 1;
}

static void drop(struct openssl_config *config)
{
    struct xy_tls_config *base = &config->base;
    xy_tls_config_unref(&base);
}

static struct openssl_config *config_new(bool server, struct xy_tls_error *error)
{
    ERR_clear_error();
    struct openssl_config *config = calloc(1, sizeof *config);
    if (config == NULL) {
        tls_explain(error, "no memory for TLS");
        return NULL;
    }
    config->base = (struct xy_tls_config){ .library = &tls_openssl, .server = server };
    atomic_init(&config->base.refs, 1);
    config->ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (config->ctx == NULL || !tls_openssl_bio_method_new(config) || !context_setup(config->ctx)) {
        tls_explain(error, "cannot set up TLS: %s", tls_openssl_reason());
        drop(config);
        return NULL;
    }
    SSL_CTX_set_cert_verify_callback(config->ctx, tls_openssl_peer_verify, &config->base);
    return config;
}

/* Takes the chain. Whatever is listed is trusted, be it a root or an authority below one. */
static bool trust_add(struct openssl_config *config, STACK_OF(X509) * chain, struct xy_tls_error *error)
{
    X509_STORE *store = SSL_CTX_get_cert_store(config->ctx);
    bool added = X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(config->ctx), X509_V_FLAG_PARTIAL_CHAIN) == 1;
    for (int i = 0; i < sk_X509_num(chain) && added; i++)
        added = X509_STORE_add_cert(store, sk_X509_value(chain, i)) == 1 &&
                (!config->base.server || SSL_CTX_add_client_CA(config->ctx, sk_X509_value(chain, i)) == 1);
    sk_X509_pop_free(chain, X509_free);
    if (!added)
        tls_explain(error, "the certificates to trust cannot be used: %s", tls_openssl_reason());
    return added;
}

/* A client's certificate is asked for but never demanded: whoever has none logs in by password. */
static bool client_ca_set(struct openssl_config *config, const struct xy_tls_server_options *options,
                          struct xy_tls_error *error)
{
    config->asks = options->client_ca_file != NULL || xy_str_present(options->client_ca_pem);
    SSL_CTX_set_verify(config->ctx, config->asks ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (!config->asks)
        return true;
    STACK_OF(X509) *chain =
        chain_load(options->client_ca_file, options->client_ca_pem, "the clients' CA", false, error);
    return chain != NULL && trust_add(config, chain, error);
}

static bool tickets_set(struct openssl_config *config, uint32_t lifetime_s, struct xy_tls_error *error)
{
    if (tls_openssl_tickets_start(config, lifetime_s))
        return true;
    tls_explain(error, "no memory for session tickets");
    return false;
}

struct xy_tls_config *tls_openssl_config_server(const struct xy_tls_server_options *options,
                                                struct xy_tls_error *error)
{
    struct openssl_config *config = config_new(true, error);
    if (config == NULL)
        return NULL;
    if (!identities_load(config, options->certificates, options->certificate_count, error) ||
        !client_ca_set(config, options, error) || !tickets_set(config, options->ticket_lifetime_s, error) ||
        !alpn_set(config, options->alpn, error)) {
        drop(config);
        return NULL;
    }
    SSL_CTX_set_tlsext_servername_callback(config->ctx, tls_openssl_choose_certificate);
    SSL_CTX_set_tlsext_servername_arg(config->ctx, config);
    return &config->base;
}

/* With a pinned certificate the store stays empty: then only our own judgement lets the peer pass. */
static bool trust_set(struct openssl_config *config, const struct xy_tls_client_options *options,
                      struct xy_tls_error *error)
{
    config->base.trust = options->trust;
    memcpy(config->base.fingerprint, options->fingerprint, sizeof config->base.fingerprint);
    SSL_CTX_set_verify(config->ctx, SSL_VERIFY_PEER, NULL);
    bool named = options->ca_file != NULL || xy_str_present(options->ca_pem);
    if (options->trust == XY_TLS_TRUST_PINNED || (options->trust == XY_TLS_TRUST_INSECURE && !named))
        return true;
    const char *file = named ? options->ca_file : TLS_SYSTEM_STORE;
    STACK_OF(X509) *chain = chain_load(file, options->ca_pem, "the CA", !named, error);
    return chain != NULL && trust_add(config, chain, error);
}

struct xy_tls_config *tls_openssl_config_client(const struct xy_tls_client_options *options,
                                                struct xy_tls_error *error)
{
    struct openssl_config *config = config_new(false, error);
    if (config == NULL)
        return NULL;
    if (!trust_set(config, options, error) || !alpn_set(config, options->alpn, error) ||
        (options->certificate != NULL && !identities_load(config, options->certificate, 1, error))) {
        drop(config);
        return NULL;
    }
    return &config->base;
}
