/* A certificate for the first start: a fresh P-256 key that signs a certificate for itself. The broker calls it once when
 * its configuration names no certificate; clients then pin the fingerprint or are given the file as their CA. */
#include "core/tls/mbedtls_shim.h"

#include <mbedtls/asn1write.h>
#include <mbedtls/oid.h>
#include <mbedtls/platform_util.h>
#include <time.h>

#include "core/base/assert.h"

#define DAY_S          86400
#define VALID_S        (3652LL * DAY_S) /* ten years */
#define SERIAL_BYTES   16
#define PEM_BYTES_MAX  65536u
#define NAME_BYTES_MAX 253u /* a domain name, RFC 1035 */
#define TAG_DNS_NAME   (MBEDTLS_ASN1_CONTEXT_SPECIFIC | 2)

struct maker {
    struct tls_random random;
    mbedtls_pk_context key;
    mbedtls_x509write_cert certificate;
};

static bool failed(struct xy_tls_error *error, const char *step, int code)
{
    char text[128];
    if (code >= 0)
        return false;
    mbedtls_strerror(code, text, sizeof text);
    tls_explain(error, "cannot make a certificate: %s: %s", step, text);
    return true;
}

/* GeneralNames, written backwards as this library does. Returns the length at the end of buffer, or an error. */
static int names_write(const char *const *domains, size_t count, unsigned char *buffer, size_t size)
{
    unsigned char *p = buffer + size;
    int len = 0;
    for (size_t i = count; i > 0; i--) {
        const char *domain = domains[i - 1];
        size_t domain_len = strlen(domain);
        if (domain_len == 0 || domain_len > NAME_BYTES_MAX)
            return MBEDTLS_ERR_X509_INVALID_NAME;
        int part = mbedtls_asn1_write_tagged_string(&p, buffer, TAG_DNS_NAME, domain, domain_len);
        if (part < 0)
            return part;
        len += part;
    }
    int header = mbedtls_asn1_write_len(&p, buffer, (size_t)len);
    if (header < 0)
        return header;
    len += header;
    header = mbedtls_asn1_write_tag(&p, buffer, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
    return header < 0 ? header : len + header;
}

static int names_set(mbedtls_x509write_cert *certificate, const char *const *domains, size_t count)
{
    unsigned char buffer[XY_TLS_DOMAINS_MAX * (NAME_BYTES_MAX + 4) + 8];
    int len = names_write(domains, count, buffer, sizeof buffer);
    if (len < 0)
        return len;
    return mbedtls_x509write_crt_set_extension(certificate, MBEDTLS_OID_SUBJECT_ALT_NAME,
                                               MBEDTLS_OID_SIZE(MBEDTLS_OID_SUBJECT_ALT_NAME), 0,
                                               buffer + sizeof buffer - (size_t)len, (size_t)len);
}

static int validity_set(mbedtls_x509write_cert *certificate, const struct xy_env *env)
{
    char from[MBEDTLS_X509_RFC5280_UTC_TIME_LEN + 1], until[MBEDTLS_X509_RFC5280_UTC_TIME_LEN + 1];
    time_t start = (time_t)(xy_wall_us(env) / 1000000) - DAY_S;
    time_t end = start + (time_t)VALID_S;
    struct tm parts;
    gmtime_r(&start, &parts);
    strftime(from, sizeof from, "%Y%m%d%H%M%S", &parts);
    gmtime_r(&end, &parts);
    strftime(until, sizeof until, "%Y%m%d%H%M%S", &parts);
    return mbedtls_x509write_crt_set_validity(certificate, from, until);
}

static int serial_set(struct maker *maker)
{
    unsigned char serial[SERIAL_BYTES];
    int code = mbedtls_ctr_drbg_random(&maker->random.drbg, serial, sizeof serial);
    if (code != 0)
        return code;
    serial[0] = (unsigned char)((serial[0] & 0x7f) | 0x40); /* positive and of full length */
    return tls_set_serial(&maker->certificate, serial, sizeof serial);
}

static bool key_make(struct maker *maker, struct xy_tls_error *error)
{
    int code = mbedtls_pk_setup(&maker->key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY));
    if (code == 0)
        code = mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(maker->key),
                                   mbedtls_ctr_drbg_random, &maker->random.drbg);
    return !failed(error, "key", code);
}

static bool certificate_make(struct maker *maker, const struct xy_env *env, const char *const *domains,
                             size_t count, struct xy_tls_error *error)
{
    static const char name[] = "CN=Xylem broker";
    mbedtls_x509write_cert *certificate = &maker->certificate;
    mbedtls_x509write_crt_set_version(certificate, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(certificate, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(certificate, &maker->key);
    mbedtls_x509write_crt_set_issuer_key(certificate, &maker->key);
    return !failed(error, "serial number", serial_set(maker)) &&
           !failed(error, "subject", mbedtls_x509write_crt_set_subject_name(certificate, name)) &&
           !failed(error, "issuer", mbedtls_x509write_crt_set_issuer_name(certificate, name)) &&
           !failed(error, "validity", validity_set(certificate, env)) &&
           !failed(error, "domain names", names_set(certificate, domains, count));
}

static bool pem_write(struct maker *maker, struct xy_buf *certificate_pem, struct xy_buf *key_pem,
                      struct xy_tls_error *error)
{
    char *room = xy_buf_reserve(certificate_pem, PEM_BYTES_MAX);
    if (room != NULL) {
        int code = mbedtls_x509write_crt_pem(&maker->certificate, (unsigned char *)room, PEM_BYTES_MAX,
                                             mbedtls_ctr_drbg_random, &maker->random.drbg);
        if (failed(error, "signature", code))
            return false;
        certificate_pem->len += strlen(room);
    }
    unsigned char key[1024];
    if (failed(error, "key", mbedtls_pk_write_key_pem(&maker->key, key, sizeof key)))
        return false;
    xy_buf_add(key_pem, key, strlen((const char *)key));
    mbedtls_platform_zeroize(key, sizeof key);
    if (xy_buf_failed(certificate_pem) || xy_buf_failed(key_pem)) {
        tls_explain(error, "no memory for a certificate");
        return false;
    }
    return true;
}

bool tls_mbedtls_self_signed(const struct xy_env *env, const char *const *domains, size_t domain_count,
                             struct xy_buf *certificate_pem, struct xy_buf *key_pem,
                             struct xy_tls_error *error)
{
    struct maker maker;
    tls_mbedtls_random_init(&maker.random);
    mbedtls_pk_init(&maker.key);
    mbedtls_x509write_crt_init(&maker.certificate);
    bool made = tls_mbedtls_random_seed(&maker.random, error) && key_make(&maker, error) &&
                certificate_make(&maker, env, domains, domain_count, error) &&
                pem_write(&maker, certificate_pem, key_pem, error);
    mbedtls_x509write_crt_free(&maker.certificate);
    mbedtls_pk_free(&maker.key);
    tls_mbedtls_random_free(&maker.random);
    return made;
}
