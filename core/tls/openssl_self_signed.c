/* A certificate for the first start: a fresh P-256 key that signs a certificate for itself. The broker calls it once when
 * its configuration names no certificate; clients then pin the fingerprint or are given the file as their CA. */
#include "core/tls/openssl_backend.h"

#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#define DAY_S          86400
#define VALID_S        (3652LL * DAY_S) /* ten years */
#define SERIAL_BYTES   16
#define NAME_BYTES_MAX 253u /* a domain name, RFC 1035 */

static bool name_add(GENERAL_NAMES *names, const char *domain)
{
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    if (name == NULL || text == NULL || ASN1_STRING_set(text, domain, -1) != 1 ||
        sk_GENERAL_NAME_push(names, name) == 0) {
        GENERAL_NAME_free(name);
        ASN1_IA5STRING_free(text);
        return false;
    }
    GENERAL_NAME_set0_value(name, GEN_DNS, text);
    return true;
}

static bool names_set(X509 *certificate, const char *const *domains, size_t count)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    bool set = names != NULL;
    for (size_t i = 0; i < count && set; i++) {
        size_t len = strlen(domains[i]);
        set = len > 0 && len <= NAME_BYTES_MAX && name_add(names, domains[i]);
    }
    set = set && X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(names);
    return set;
}

static bool validity_set(X509 *certificate, const struct xy_env *env)
{
    time_t start = (time_t)(xy_wall_us(env) / 1000000) - DAY_S;
    time_t end = start + (time_t)VALID_S;
    return ASN1_TIME_set(X509_getm_notBefore(certificate), start) != NULL &&
           ASN1_TIME_set(X509_getm_notAfter(certificate), end) != NULL;
}

static bool serial_set(X509 *certificate)
{
    unsigned char serial[SERIAL_BYTES];
    if (RAND_bytes(serial, sizeof serial) != 1)
        return false;
    serial[0] = (unsigned char)((serial[0] & 0x7f) | 0x40); /* positive and of full length */
    BIGNUM *number = BN_bin2bn(serial, sizeof serial, NULL);
    bool set = number != NULL && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != NULL;
    BN_free(number);
    return set;
}

/* Subject and issuer are the same: it signs for itself. */
static bool subject_set(X509 *certificate)
{
    static const unsigned char name[] = "Xylem broker";
    X509_NAME *subject = X509_get_subject_name(certificate);
    return X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, name, sizeof name - 1, -1, 0) == 1 &&
           X509_set_issuer_name(certificate, subject) == 1;
}

static bool failed(struct xy_tls_error *error, const char *step, bool ok)
{
    if (!ok)
        tls_explain(error, "cannot make a certificate: %s: %s", step, tls_openssl_reason());
    return !ok;
}

static bool certificate_make(X509 *certificate, EVP_PKEY *key, const struct xy_env *env,
                             const char *const *domains, size_t count, struct xy_tls_error *error)
{
    return !failed(error, "version", X509_set_version(certificate, X509_VERSION_3) == 1) &&
           !failed(error, "serial number", serial_set(certificate)) &&
           !failed(error, "subject", subject_set(certificate)) &&
           !failed(error, "validity", validity_set(certificate, env)) &&
           !failed(error, "domain names", names_set(certificate, domains, count)) &&
           !failed(error, "key", X509_set_pubkey(certificate, key) == 1) &&
           !failed(error, "signature", X509_sign(certificate, key, EVP_sha256()) > 0);
}

/* What the library wrote, to the caller's buffer. */
static bool text_take(BIO *text, struct xy_buf *out)
{
    char *data = NULL;
    long len = BIO_get_mem_data(text, &data);
    xy_buf_add(out, data, len > 0 ? (size_t)len : 0);
    return !xy_buf_failed(out);
}

static bool pem_write(X509 *certificate, EVP_PKEY *key, struct xy_buf *certificate_pem,
                      struct xy_buf *key_pem)
{
    BIO *shown = BIO_new(BIO_s_mem()), *kept = BIO_new(BIO_s_secmem());
    bool written = shown != NULL && kept != NULL && PEM_write_bio_X509(shown, certificate) == 1 &&
                   PEM_write_bio_PrivateKey_traditional(kept, key, NULL, NULL, 0, NULL, NULL) == 1 &&
                   text_take(shown, certificate_pem) && text_take(kept, key_pem);
    BIO_free(shown);
    BIO_free(kept);
    return written;
}

bool tls_openssl_self_signed(const struct xy_env *env, const char *const *domains, size_t domain_count,
                             struct xy_buf *certificate_pem, struct xy_buf *key_pem,
                             struct xy_tls_error *error)
{
    ERR_clear_error();
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    bool made = !failed(error, "key", key != NULL) && !failed(error, "memory", certificate != NULL) &&
                certificate_make(certificate, key, env, domains, domain_count, error);
    if (made && !pem_write(certificate, key, certificate_pem, key_pem)) {
        tls_explain(error, "no memory for a certificate");
        made = false;
    }
    X509_free(certificate);
    EVP_PKEY_free(key);
    return made;
}
