/* What connections share on mbedTLS: certificates, trust, tickets, randomness, the choice of suites and curves. Made at
 * start and at reload by the broker and once per client by the SDK; every failure names the file and the reason. */
#include "core/tls/mbedtls_shim.h"

#include <mbedtls/gcm.h>
#include <stdlib.h>

#include "core/base/assert.h"

/* AES-128 first: the processors we run on have instructions for it; ChaCha20 for peers that do not. */
static const int suites[] = {
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    0,
};

static const char *reason(int code, char *text, size_t size)
{
    mbedtls_strerror(code, text, size);
    return text;
}

void tls_mbedtls_warm_up(void)
{
    static const unsigned char key[16] = { 0 }, iv[12] = { 0 }, plain[16] = { 0 };
    unsigned char cipher[16], tag[16];
    mbedtls_gcm_context gcm;
    mbedtls_gcm_init(&gcm);
    int failed = mbedtls_gcm_setkey(&gcm, MBEDTLS_CIPHER_ID_AES, key, 8 * sizeof key);
    if (failed == 0)
        failed = mbedtls_gcm_crypt_and_tag(&gcm, MBEDTLS_GCM_ENCRYPT, sizeof plain, iv, sizeof iv, NULL, 0,
                                           plain, cipher, sizeof tag, tag);
    xy_assert(failed == 0);
    mbedtls_gcm_free(&gcm);
}

void tls_mbedtls_random_init(struct tls_random *random)
{
    mbedtls_entropy_init(&random->entropy);
    mbedtls_ctr_drbg_init(&random->drbg);
}

bool tls_mbedtls_random_seed(struct tls_random *random, struct xy_tls_error *error)
{
    static const char label[] = "xylem tls";
    char text[128];
    int failed = mbedtls_ctr_drbg_seed(&random->drbg, mbedtls_entropy_func, &random->entropy,
                                       (const unsigned char *)label, sizeof label - 1);
    if (failed != 0)
        tls_explain(error, "the system gives no randomness: %s", reason(failed, text, sizeof text));
    return failed == 0;
}

void tls_mbedtls_random_free(struct tls_random *random)
{
    mbedtls_ctr_drbg_free(&random->drbg);
    mbedtls_entropy_free(&random->entropy);
}

/* ---- files: the library wants to see the NUL behind a text, and counts it ---- */

/* `lenient`: a trust store of many may contain some that this library cannot read; one's own chain may not. */
static bool chain_load(mbedtls_x509_crt *chain, const char *path, struct xy_str text, const char *what,
                       bool lenient, struct xy_tls_error *error)
{
    struct tls_pem pem;
    char why[128];
    bool loaded = tls_pem_load(path, text, what, &pem, error);
    if (loaded) {
        int result = mbedtls_x509_crt_parse(chain, (unsigned char *)pem.data, pem.len + 1);
        if (result < 0)
            tls_explain(error, "%s holds no certificate in PEM: %s", pem.name,
                        reason(result, why, sizeof why));
        else if (result > 0 && !lenient)
            tls_explain(error, "%s: %d of its certificates cannot be read", pem.name, result);
        loaded = result == 0 || (result > 0 && lenient && chain->version != 0);
    }
    tls_pem_free(&pem);
    return loaded;
}

static bool key_load(struct tls_identity *identity, const struct xy_tls_certificate *from,
                     struct tls_random *random, struct xy_tls_error *error)
{
    struct tls_pem pem;
    char why[128];
    bool loaded = tls_pem_load(from->key_file, from->key_pem, "the key", &pem, error);
    if (loaded) {
        int failed = tls_key_parse(&identity->key, (unsigned char *)pem.data, pem.len + 1, random);
        if (failed == MBEDTLS_ERR_PK_PASSWORD_REQUIRED)
            tls_explain(error, "%s is protected by a password; store the key without one", pem.name);
        else if (failed != 0)
            tls_explain(error, "%s holds no private key in PEM: %s", pem.name,
                        reason(failed, why, sizeof why));
        loaded = failed == 0;
    }
    if (loaded && tls_key_matches(&identity->chain, &identity->key, random) != 0) {
        tls_explain(error, "%s does not match the first certificate of %s", pem.name,
                    from->chain_file != NULL ? from->chain_file : "the chain");
        loaded = false;
    }
    tls_pem_free(&pem);
    return loaded;
}

static bool identities_load(struct mbed_config *config, const struct xy_tls_certificate *from, size_t count,
                            struct xy_tls_error *error)
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
    for (size_t i = 0; i < count; i++) {
        struct tls_identity *identity = &config->identities[i];
        mbedtls_x509_crt_init(&identity->chain);
        mbedtls_pk_init(&identity->key);
        config->identity_count++;
        if (from[i].domain != NULL && (identity->domain = strdup(from[i].domain)) == NULL) {
            tls_explain(error, "no memory for certificates");
            return false;
        }
        if (!chain_load(&identity->chain, from[i].chain_file, from[i].chain_pem, "the certificate", false,
                        error) ||
            !key_load(identity, &from[i], &config->random, error))
            return false;
    }
    int failed =
        mbedtls_ssl_conf_own_cert(&config->ssl, &config->identities[0].chain, &config->identities[0].key);
    if (failed != 0)
        tls_explain(error, "no memory for certificates");
    return failed == 0;
}

/* ---- configurations ---- */

void tls_mbedtls_config_free(struct xy_tls_config *base)
{
    struct mbed_config *config = mbed_config_of(base);
    mbedtls_ssl_config_free(&config->ssl);
    mbedtls_ssl_ticket_free(&config->tickets);
    mbedtls_x509_crt_free(&config->ca);
    for (size_t i = 0; i < config->identity_count; i++) {
        free(config->identities[i].domain);
        mbedtls_x509_crt_free(&config->identities[i].chain);
        mbedtls_pk_free(&config->identities[i].key);
    }
    free(config->identities);
    tls_mbedtls_random_free(&config->random);
    free(config);
}

static bool alpn_set(struct mbed_config *config, const char *const *names, struct xy_tls_error *error)
{
    if (names == NULL)
        return true;
    if (!tls_alpn_copy(&config->base, names) ||
        mbedtls_ssl_conf_alpn_protocols(&config->ssl, config->base.alpn) != 0) {
        tls_explain(error, "the names of ALPN are too long, or memory is short");
        return false;
    }
    return true;
}

static bool config_setup(struct mbed_config *config, struct xy_tls_error *error)
{
    if (!tls_mbedtls_random_seed(&config->random, error))
        return false;
    int role = config->base.server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT;
    if (mbedtls_ssl_config_defaults(&config->ssl, role, MBEDTLS_SSL_TRANSPORT_STREAM,
                                    MBEDTLS_SSL_PRESET_DEFAULT) != 0) {
        tls_explain(error, "no memory for TLS");
        return false;
    }
    tls_set_versions(&config->ssl);
    tls_set_curves(&config->ssl);
    mbedtls_ssl_conf_ciphersuites(&config->ssl, suites);
    mbedtls_ssl_conf_rng(&config->ssl, mbedtls_ctr_drbg_random, &config->random.drbg);
#if defined(MBEDTLS_SSL_RENEGOTIATION)
    mbedtls_ssl_conf_renegotiation(&config->ssl, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
#endif
    mbedtls_ssl_conf_legacy_renegotiation(&config->ssl, MBEDTLS_SSL_LEGACY_NO_RENEGOTIATION);
    return true;
}

static void drop(struct mbed_config *config)
{
    struct xy_tls_config *base = &config->base;
    xy_tls_config_unref(&base);
}

static struct mbed_config *config_new(bool server, struct xy_tls_error *error)
{
    struct mbed_config *config = calloc(1, sizeof *config);
    if (config == NULL) {
        tls_explain(error, "no memory for TLS");
        return NULL;
    }
    config->base = (struct xy_tls_config){ .library = &tls_mbedtls, .server = server };
    atomic_init(&config->base.refs, 1);
    tls_mbedtls_random_init(&config->random);
    mbedtls_ssl_config_init(&config->ssl);
    mbedtls_ssl_ticket_init(&config->tickets);
    mbedtls_x509_crt_init(&config->ca);
    if (config_setup(config, error))
        return config;
    drop(config);
    return NULL;
}

static bool tickets_set(struct mbed_config *config, uint32_t lifetime_s, struct xy_tls_error *error)
{
    if (lifetime_s == 0)
        lifetime_s = TLS_TICKET_LIFETIME_S;
    if (mbedtls_ssl_ticket_setup(&config->tickets, mbedtls_ctr_drbg_random, &config->random.drbg,
                                 MBEDTLS_CIPHER_AES_256_GCM, lifetime_s) != 0) {
        tls_explain(error, "no memory for session tickets");
        return false;
    }
    mbedtls_ssl_conf_session_tickets_cb(&config->ssl, mbedtls_ssl_ticket_write, mbedtls_ssl_ticket_parse,
                                        &config->tickets);
    return true;
}

/* A client's certificate is asked for but never demanded: whoever has none logs in by password. */
static bool client_ca_set(struct mbed_config *config, const struct xy_tls_server_options *options,
                          struct xy_tls_error *error)
{
    bool asked = options->client_ca_file != NULL || xy_str_present(options->client_ca_pem);
    mbedtls_ssl_conf_authmode(&config->ssl, asked ? MBEDTLS_SSL_VERIFY_OPTIONAL : MBEDTLS_SSL_VERIFY_NONE);
    if (!asked)
        return true;
    if (!chain_load(&config->ca, options->client_ca_file, options->client_ca_pem, "the clients' CA", false,
                    error))
        return false;
    mbedtls_ssl_conf_ca_chain(&config->ssl, &config->ca, NULL);
    return true;
}

struct xy_tls_config *tls_mbedtls_config_server(const struct xy_tls_server_options *options,
                                                struct xy_tls_error *error)
{
    struct mbed_config *config = config_new(true, error);
    if (config == NULL)
        return NULL;
    if (!identities_load(config, options->certificates, options->certificate_count, error) ||
        !client_ca_set(config, options, error) || !tickets_set(config, options->ticket_lifetime_s, error) ||
        !alpn_set(config, options->alpn, error)) {
        drop(config);
        return NULL;
    }
    mbedtls_ssl_conf_sni(&config->ssl, tls_mbedtls_choose_certificate, config);
    return &config->base;
}

/* With a pinned certificate the list of CAs stays empty: then only the connection's own judgement lets it pass. */
static bool trust_set(struct mbed_config *config, const struct xy_tls_client_options *options,
                      struct xy_tls_error *error)
{
    config->base.trust = options->trust;
    memcpy(config->base.fingerprint, options->fingerprint, sizeof config->base.fingerprint);
    mbedtls_ssl_conf_authmode(&config->ssl, options->trust == XY_TLS_TRUST_INSECURE
                                                ? MBEDTLS_SSL_VERIFY_OPTIONAL
                                                : MBEDTLS_SSL_VERIFY_REQUIRED);
    bool named = options->ca_file != NULL || xy_str_present(options->ca_pem);
    if (options->trust == XY_TLS_TRUST_CA || (options->trust == XY_TLS_TRUST_INSECURE && named)) {
        const char *file = named ? options->ca_file : TLS_SYSTEM_STORE;
        if (!chain_load(&config->ca, file, options->ca_pem, "the CA", !named, error))
            return false;
    }
    mbedtls_ssl_conf_ca_chain(&config->ssl, &config->ca, NULL);
    return true;
}

struct xy_tls_config *tls_mbedtls_config_client(const struct xy_tls_client_options *options,
                                                struct xy_tls_error *error)
{
    struct mbed_config *config = config_new(false, error);
    if (config == NULL)
        return NULL;
    mbedtls_ssl_conf_session_tickets(&config->ssl, MBEDTLS_SSL_SESSION_TICKETS_ENABLED);
    if (!trust_set(config, options, error) || !alpn_set(config, options->alpn, error) ||
        (options->certificate != NULL && !identities_load(config, options->certificate, 1, error))) {
        drop(config);
        return NULL;
    }
    return &config->base;
}
