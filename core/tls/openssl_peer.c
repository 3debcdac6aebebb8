/* Who is at the other end, on OpenSSL: the peer's certificate is judged here, not by the library alone. Names come from
 * the SAN only, and a pinned certificate replaces the chain. Called back by the library in the handshake, and by tls.c
 * after it. */
#include "core/tls/openssl_backend.h"

#include <openssl/x509v3.h>

/* In the order in which they are told when there are several. */
enum problem {
    PROBLEM_PIN,
    PROBLEM_NAME,
    PROBLEM_EXPIRED,
    PROBLEM_FUTURE,
    PROBLEM_REVOKED,
    PROBLEM_UNTRUSTED,
    PROBLEM_USE,
    PROBLEM_WEAK,
    PROBLEM_OTHER,
    PROBLEM_NONE,
};

static const char *const prose[] = {
    [PROBLEM_PIN] = "its certificate is not the pinned one",
    [PROBLEM_NAME] = "its certificate is for another name",
    [PROBLEM_EXPIRED] = "its certificate has expired",
    [PROBLEM_FUTURE] = "its certificate is not valid yet (or our clock is wrong)",
    [PROBLEM_REVOKED] = "its certificate is revoked",
    [PROBLEM_UNTRUSTED] = "its certificate is not signed by a trusted authority",
    [PROBLEM_USE] = "its certificate is not meant for this use",
    [PROBLEM_WEAK] = "its certificate uses a weak or unsupported algorithm",
    [PROBLEM_OTHER] = "its certificate cannot be trusted",
    [PROBLEM_NONE] = NULL,
};

struct code_problem {
    long code;
    enum problem problem;
};

static const struct code_problem problems[] = {
    { X509_V_OK, PROBLEM_NONE },
    { X509_V_ERR_APPLICATION_VERIFICATION, PROBLEM_PIN },
    { X509_V_ERR_HOSTNAME_MISMATCH, PROBLEM_NAME },
    { X509_V_ERR_CERT_HAS_EXPIRED, PROBLEM_EXPIRED },
    { X509_V_ERR_CERT_NOT_YET_VALID, PROBLEM_FUTURE },
    { X509_V_ERR_CERT_REVOKED, PROBLEM_REVOKED },
    { X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, PROBLEM_UNTRUSTED },
    { X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, PROBLEM_UNTRUSTED },
    { X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, PROBLEM_UNTRUSTED },
    { X509_V_ERR_CERT_SIGNATURE_FAILURE, PROBLEM_UNTRUSTED },
    { X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, PROBLEM_UNTRUSTED },
    { X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, PROBLEM_UNTRUSTED },
    { X509_V_ERR_CERT_UNTRUSTED, PROBLEM_UNTRUSTED },
    { X509_V_ERR_CERT_REJECTED, PROBLEM_UNTRUSTED },
    { X509_V_ERR_CERT_CHAIN_TOO_LONG, PROBLEM_UNTRUSTED },
    { X509_V_ERR_PATH_LENGTH_EXCEEDED, PROBLEM_UNTRUSTED },
    { X509_V_ERR_INVALID_CA, PROBLEM_UNTRUSTED },
    { X509_V_ERR_KEYUSAGE_NO_CERTSIGN, PROBLEM_UNTRUSTED },
    { X509_V_ERR_INVALID_PURPOSE, PROBLEM_USE },
    { X509_V_ERR_KEYUSAGE_NO_DIGITAL_SIGNATURE, PROBLEM_USE },
    { X509_V_ERR_EE_KEY_TOO_SMALL, PROBLEM_WEAK },
    { X509_V_ERR_CA_KEY_TOO_SMALL, PROBLEM_WEAK },
    { X509_V_ERR_CA_MD_TOO_WEAK, PROBLEM_WEAK },
};

static enum problem problem_of(long code)
{
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++)
        if (problems[i].code == code)
            return problems[i].problem;
    return PROBLEM_OTHER;
}

const char *tls_openssl_problem_of(long verify_result)
{
    return prose[problem_of(verify_result)];
}

bool tls_openssl_certificate_der(const X509 *certificate, struct xy_buf *out)
{
    int len = i2d_X509(certificate, NULL);
    unsigned char *room = len > 0 ? (unsigned char *)xy_buf_reserve(out, (size_t)len) : NULL;
    if (room == NULL)
        return false;
    out->len += (size_t)i2d_X509(certificate, &room);
    return true;
}

/* ---- in the handshake ---- */

static void worse(long *verdict, long code)
{
    if (problem_of(code) < problem_of(*verdict))
        *verdict = code;
}

static struct openssl *connection_of(X509_STORE_CTX *store)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    return SSL_get_app_data(ssl);
}

/* Notes every error of the chain and goes on: the caller decides, knowing all of them. */
static int on_chain(int ok, X509_STORE_CTX *store)
{
    if (!ok)
        worse(&connection_of(store)->verdict, X509_STORE_CTX_get_error(store));
    return 1;
}

static void judge_chain(struct openssl *openssl, X509_STORE_CTX *store)
{
    X509_STORE_CTX_set_verify_cb(store, on_chain);
    if (X509_verify_cert(store) < 1)
        worse(&openssl->verdict, X509_V_ERR_UNSPECIFIED);
}

static void judge_server(struct openssl *openssl, X509_STORE_CTX *store)
{
    const struct xy_tls *tls = &openssl->base;
    struct xy_buf der = { 0 };
    if (!tls_openssl_certificate_der(X509_STORE_CTX_get0_cert(store), &der)) {
        worse(&openssl->verdict, X509_V_ERR_OUT_OF_MEM);
    } else if (tls->config->trust != XY_TLS_TRUST_PINNED) {
        judge_chain(openssl, store);
        if (!xy_tls_certificate_covers(xy_buf_view(&der), xy_str(tls->hostname)))
            worse(&openssl->verdict, X509_V_ERR_HOSTNAME_MISMATCH);
    } else if (!tls_is_pinned(tls->config, xy_buf_view(&der))) {
        worse(&openssl->verdict, X509_V_ERR_APPLICATION_VERIFICATION);
    }
    xy_buf_free(&der);
}

/* A client's certificate never fails the handshake; whoever has no good one logs in by password. */
int tls_openssl_peer_verify(X509_STORE_CTX *store, void *ctx)
{
    const struct xy_tls_config *config = ctx;
    struct openssl *openssl = connection_of(store);
    openssl->verdict = X509_V_OK;
    if (config->server)
        judge_chain(openssl, store);
    else
        judge_server(openssl, store);
    X509_STORE_CTX_set_error(store, (int)openssl->verdict);
    return openssl->verdict == X509_V_OK || config->server || config->trust == XY_TLS_TRUST_INSECURE;
}

/* After a resumption too, where the library takes the name from the ticket: the binding is of the certificate shown. */
int tls_openssl_choose_certificate(SSL *ssl, int *alert, void *ctx)
{
    struct openssl_config *config = ctx;
    struct openssl *openssl = SSL_get_app_data(ssl);
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    for (size_t i = 0; name != NULL && i < config->identity_count; i++) {
        const struct tls_identity *identity = &config->identities[i];
        if (identity->domain == NULL || !xy_tls_name_covers(xy_str(identity->domain), xy_str(name)))
            continue;
        openssl->own = identity;
        SSL_certs_clear(ssl); /* the first one may be of another kind, and would stay beside this one */
        if (SSL_use_cert_and_key(ssl, identity->leaf, identity->key, identity->rest, 1) == 1)
            return SSL_TLSEXT_ERR_OK;
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    return SSL_TLSEXT_ERR_OK;
}

/* ---- after it ---- */

/* The chain was judged in the full handshake; a client's ticket may outlive its certificate. */
const char *tls_openssl_peer_problem(const struct xy_tls *tls)
{
    const SSL *ssl = ((const struct openssl *)tls)->ssl;
    const X509 *peer = SSL_get0_peer_certificate(ssl);
    if (tls->config->server && peer == NULL)
        return openssl_config_of(tls->config)->asks ? "it showed no certificate"
                                                    : "no certificate was asked for";
    long verdict = SSL_get_verify_result(ssl);
    if (tls->config->server && X509_cmp_current_time(X509_get0_notAfter(peer)) < 0)
        worse(&verdict, X509_V_ERR_CERT_HAS_EXPIRED);
    return tls_openssl_problem_of(verdict);
}
