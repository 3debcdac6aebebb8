/* What connections share on mbedTLS: certificates, trust, tickets, randomness, the choice of suites and curves. Made at
 * start and at reload by the broker and once per client by the SDK; every failure names the file and the reason. */
#include "core/tls/mbedtls_shim.h"

#include <errno.h>
#include <mbedtls/gcm.h>
#include <mbedtls/platform_util.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "core/base/assert.h"

#define SYSTEM_STORE      "/etc/ssl/certs/ca-certificates.crt"
#define TICKET_LIFETIME_S 86400u
#define ALPN_MAX          16u

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

void tls_explain(struct xy_tls_error *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
}

static const char *reason(int code, char *text, size_t size)
{
    mbedtls_strerror(code, text, size);
    return text;
}

void xy_tls_warm_up(void)
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

void tls_random_init(struct tls_random *random)
{
    mbedtls_entropy_init(&random->entropy);
    mbedtls_ctr_drbg_init(&random->drbg);
}

bool tls_random_seed(struct tls_random *random, struct xy_tls_error *error)
{
    static const char label[] = "xylem tls";
    char text[128];
    int failed = mbedtls_ctr_drbg_seed(&random->drbg, mbedtls_entropy_func, &random->entropy,
                                       (const unsigned char *)label, sizeof label - 1);
    if (failed != 0)
        tls_explain(error, "the system gives no randomness: %s", reason(failed, text, sizeof text));
    return failed == 0;
}

void tls_random_free(struct tls_random *random)
{
    mbedtls_ctr_drbg_free(&random->drbg);
    mbedtls_entropy_free(&random->entropy);
}

/* ---- files ---- */

/* A PEM text with its NUL, which mbedTLS wants to see and counts. */
struct pem {
    unsigned char *data;
    size_t len;
    const char *name; /* for messages */
};

static void pem_free(struct pem *pem)
{
    if (pem->data != NULL)
        mbedtls_platform_zeroize(pem->data, pem->len);
    free(pem->data);
    pem->data = NULL;
}

static bool pem_read_file(FILE *file, struct pem *pem, struct xy_tls_error *error)
{
    struct stat status;
    if (fstat(fileno(file), &status) != 0 || !S_ISREG(status.st_mode)) {
        tls_explain(error, "%s is not a regular file", pem->name);
        return false;
    }
    if (status.st_size > (off_t)XY_TLS_FILE_BYTES_MAX) {
        tls_explain(error, "%s is larger than %u bytes; is it a PEM file?", pem->name, XY_TLS_FILE_BYTES_MAX);
        return false;
    }
    size_t size = (size_t)status.st_size;
    pem->data = calloc(1, size + 1);
    if (pem->data == NULL) {
        tls_explain(error, "no memory to read %s", pem->name);
        return false;
    }
    pem->len = size + 1;
    if (fread(pem->data, 1, size, file) != size) {
        tls_explain(error, "cannot read %s: %s", pem->name,
                    ferror(file) ? strerror(errno) : "it changed meanwhile");
        return false;
    }
    return true;
}

/* `file` wins over `text`; `what` names a text in messages. The caller frees *pem whatever is returned. */
static bool pem_load(const char *path, struct xy_str text, const char *what, struct pem *pem,
                     struct xy_tls_error *error)
{
    *pem = (struct pem){ .name = path != NULL ? path : what };
    if (path != NULL) {
        FILE *file = fopen(path, "rbe");
        if (file == NULL) {
            tls_explain(error, "cannot open %s: %s", path, strerror(errno));
            return false;
        }
        bool read = pem_read_file(file, pem, error);
        fclose(file);
        return read;
    }
    if (!xy_str_present(text)) {
        tls_explain(error, "no file and no text given for %s", what);
        return false;
    }
    pem->data = calloc(1, text.len + 1);
    if (pem->data == NULL) {
        tls_explain(error, "no memory for %s", what);
        return false;
    }
    memcpy(pem->data, text.data, text.len);
    pem->len = text.len + 1;
    return true;
}

/* `lenient`: a trust store of many may contain some that this library cannot read; one's own chain may not. */
static bool chain_load(mbedtls_x509_crt *chain, const char *path, struct xy_str text, const char *what,
                       bool lenient, struct xy_tls_error *error)
{
    struct pem pem;
    char why[128];
    bool loaded = pem_load(path, text, what, &pem, error);
    if (loaded) {
        int result = mbedtls_x509_crt_parse(chain, pem.data, pem.len);
        if (result < 0)
            tls_explain(error, "%s holds no certificate in PEM: %s", pem.name,
                        reason(result, why, sizeof why));
        else if (result > 0 && !lenient)
            tls_explain(error, "%s: %d of its certificates cannot be read", pem.name, result);
        loaded = result == 0 || (result > 0 && lenient && chain->version != 0);
    }
    pem_free(&pem);
    return loaded;
}

static bool key_load(struct tls_identity *identity, const struct xy_tls_certificate *from,
                     struct tls_random *random, struct xy_tls_error *error)
{
    struct pem pem;
    char why[128];
    bool loaded = pem_load(from->key_file, from->key_pem, "the key", &pem, error);
    if (loaded) {
        int failed = tls_key_parse(&identity->key, pem.data, pem.len, random);
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
    pem_free(&pem);
    return loaded;
}

static bool identities_load(struct xy_tls_config *config, const struct xy_tls_certificate *from, size_t count,
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

static void config_free(struct xy_tls_config *config)
{
    mbedtls_ssl_config_free(&config->ssl);
    mbedtls_ssl_ticket_free(&config->tickets);
    mbedtls_x509_crt_free(&config->ca);
    for (size_t i = 0; i < config->identity_count; i++) {
        free(config->identities[i].domain);
        mbedtls_x509_crt_free(&config->identities[i].chain);
        mbedtls_pk_free(&config->identities[i].key);
    }
    free(config->identities);
    for (size_t i = 0; config->alpn != NULL && config->alpn[i] != NULL; i++)
        free((void *)(uintptr_t)config->alpn[i]);
    free(config->alpn);
    tls_random_free(&config->random);
    free(config);
}

static bool alpn_set(struct xy_tls_config *config, const char *const *names, struct xy_tls_error *error)
{
    size_t count = 0;
    if (names == NULL)
        return true;
    while (names[count] != NULL)
        count++;
    xy_assert(count <= ALPN_MAX);
    bool copied = (config->alpn = calloc(count + 1, sizeof *config->alpn)) != NULL;
    for (size_t i = 0; i < count && copied; i++)
        copied = (config->alpn[i] = strdup(names[i])) != NULL;
    if (!copied || mbedtls_ssl_conf_alpn_protocols(&config->ssl, config->alpn) != 0) {
        tls_explain(error, "the names of ALPN are too long, or memory is short");
        return false;
    }
    return true;
}

static bool config_setup(struct xy_tls_config *config, struct xy_tls_error *error)
{
    if (!tls_random_seed(&config->random, error))
        return false;
    int role = config->server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT;
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

static struct xy_tls_config *config_new(bool server, struct xy_tls_error *error)
{
    error->text[0] = '\0';
    struct xy_tls_config *config = calloc(1, sizeof *config);
    if (config == NULL) {
        tls_explain(error, "no memory for TLS");
        return NULL;
    }
    atomic_init(&config->refs, 1);
    config->server = server;
    tls_random_init(&config->random);
    mbedtls_ssl_config_init(&config->ssl);
    mbedtls_ssl_ticket_init(&config->tickets);
    mbedtls_x509_crt_init(&config->ca);
    if (!config_setup(config, error))
        xy_tls_config_unref(&config);
    return config;
}

static bool tickets_set(struct xy_tls_config *config, uint32_t lifetime_s, struct xy_tls_error *error)
{
    if (lifetime_s == 0)
        lifetime_s = TICKET_LIFETIME_S;
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
static bool client_ca_set(struct xy_tls_config *config, const struct xy_tls_server_options *options,
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

struct xy_tls_config *xy_tls_config_server(const struct xy_tls_server_options *options,
                                           struct xy_tls_error *error)
{
    xy_assert(options->certificate_count > 0);
    struct xy_tls_config *config = config_new(true, error);
    if (config == NULL)
        return NULL;
    if (!identities_load(config, options->certificates, options->certificate_count, error) ||
        !client_ca_set(config, options, error) || !tickets_set(config, options->ticket_lifetime_s, error) ||
        !alpn_set(config, options->alpn, error)) {
        xy_tls_config_unref(&config);
        return NULL;
    }
    mbedtls_ssl_conf_sni(&config->ssl, tls_choose_certificate, config);
    return config;
}

/* With a pinned certificate the list of CAs stays empty: then only the connection's own judgement lets it pass. */
static bool trust_set(struct xy_tls_config *config, const struct xy_tls_client_options *options,
                      struct xy_tls_error *error)
{
    config->trust = options->trust;
    memcpy(config->fingerprint, options->fingerprint, sizeof config->fingerprint);
    mbedtls_ssl_conf_authmode(&config->ssl, options->trust == XY_TLS_TRUST_INSECURE
                                                ? MBEDTLS_SSL_VERIFY_OPTIONAL
                                                : MBEDTLS_SSL_VERIFY_REQUIRED);
    bool named = options->ca_file != NULL || xy_str_present(options->ca_pem);
    if (options->trust == XY_TLS_TRUST_CA || (options->trust == XY_TLS_TRUST_INSECURE && named)) {
        const char *file = named ? options->ca_file : SYSTEM_STORE;
        if (!chain_load(&config->ca, file, options->ca_pem, "the CA", !named, error))
            return false;
    }
    mbedtls_ssl_conf_ca_chain(&config->ssl, &config->ca, NULL);
    return true;
}

struct xy_tls_config *xy_tls_config_client(const struct xy_tls_client_options *options,
                                           struct xy_tls_error *error)
{
    struct xy_tls_config *config = config_new(false, error);
    if (config == NULL)
        return NULL;
    mbedtls_ssl_conf_session_tickets(&config->ssl, MBEDTLS_SSL_SESSION_TICKETS_ENABLED);
    if (!trust_set(config, options, error) || !alpn_set(config, options->alpn, error) ||
        (options->certificate != NULL && !identities_load(config, options->certificate, 1, error))) {
        xy_tls_config_unref(&config);
        return NULL;
    }
    return config;
}

struct xy_tls_config *xy_tls_config_ref(struct xy_tls_config *config)
{
    unsigned before = atomic_fetch_add_explicit(&config->refs, 1, memory_order_relaxed);
    xy_assert(before > 0);
    return config;
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
