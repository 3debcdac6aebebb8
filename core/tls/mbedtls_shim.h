/* The differences between mbedTLS 2.28 (Debian 12) and 3.x, and what the files of this backend share. Private to
 * core/tls/mbedtls_*.c: nothing else includes it.
 *
 * With 3.x the protocol is held at TLS 1.2: its TLS 1.3 needs the process-wide PSA state, which core does not own. */
#pragma once

#include <mbedtls/version.h>

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ticket.h>
#include <mbedtls/x509_crt.h>

#include "core/base/list.h"
#include "core/tls/library.h"

#if !defined(MBEDTLS_THREADING_C)
#error "configurations are shared by threads: mbedTLS must be built with MBEDTLS_THREADING_C"
#endif

/* A certificate chain and its key. */
struct tls_identity {
    char *domain; /* NULL: any */
    mbedtls_x509_crt chain;
    mbedtls_pk_context key;
};

/* Each configuration has its own generator: keys must never come from a simulation's environment. */
struct tls_random {
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context drbg;
};

struct mbed_config {
    struct xy_tls_config base; /* first */
    struct tls_random random;
    mbedtls_ssl_config ssl;
    mbedtls_ssl_ticket_context tickets;
    mbedtls_x509_crt ca;
    struct tls_identity *identities;
    size_t identity_count;
};

static inline struct mbed_config *mbed_config_of(struct xy_tls_config *config)
{
    return xy_container_of(config, struct mbed_config, base);
}

void tls_mbedtls_random_init(struct tls_random *random);
bool tls_mbedtls_random_seed(struct tls_random *random, struct xy_tls_error *error);
void tls_mbedtls_random_free(struct tls_random *random);

/* mbedtls_conn.c, for the configuration's SNI callback */
int tls_mbedtls_choose_certificate(void *config, mbedtls_ssl_context *ssl, const unsigned char *name,
                                   size_t len);

/* mbedtls_config.c and mbedtls_self_signed.c, for the table in mbedtls_conn.c */
void tls_mbedtls_warm_up(void);
struct xy_tls_config *tls_mbedtls_config_server(const struct xy_tls_server_options *options,
                                                struct xy_tls_error *error);
struct xy_tls_config *tls_mbedtls_config_client(const struct xy_tls_client_options *options,
                                                struct xy_tls_error *error);
void tls_mbedtls_config_free(struct xy_tls_config *config);
bool tls_mbedtls_self_signed(const struct xy_env *env, const char *const *domains, size_t domain_count,
                             struct xy_buf *certificate_pem, struct xy_buf *key_pem,
                             struct xy_tls_error *error);

#if MBEDTLS_VERSION_MAJOR >= 3

#define TLS_ERR_VERSION       MBEDTLS_ERR_SSL_BAD_PROTOCOL_VERSION
#define TLS_STATE(ssl)        ((ssl)->MBEDTLS_PRIVATE(state))
#define TLS_SESSION_TICKET(s) ((s)->MBEDTLS_PRIVATE(ticket_len))

static inline void tls_set_versions(mbedtls_ssl_config *ssl)
{
    mbedtls_ssl_conf_min_tls_version(ssl, MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_ssl_conf_max_tls_version(ssl, MBEDTLS_SSL_VERSION_TLS1_2);
}

static inline void tls_set_curves(mbedtls_ssl_config *ssl)
{
    static const uint16_t groups[] = { MBEDTLS_SSL_IANA_TLS_GROUP_X25519,
                                       MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
                                       MBEDTLS_SSL_IANA_TLS_GROUP_NONE };
    mbedtls_ssl_conf_groups(ssl, groups);
}

static inline int tls_key_parse(mbedtls_pk_context *key, const unsigned char *text, size_t len,
                                struct tls_random *random)
{
    return mbedtls_pk_parse_key(key, text, len, NULL, 0, mbedtls_ctr_drbg_random, &random->drbg);
}

static inline int tls_key_matches(mbedtls_x509_crt *certificate, mbedtls_pk_context *key,
                                  struct tls_random *random)
{
    return mbedtls_pk_check_pair(&certificate->pk, key, mbedtls_ctr_drbg_random, &random->drbg);
}

static inline int tls_set_serial(mbedtls_x509write_cert *certificate, unsigned char *serial, size_t len)
{
    return mbedtls_x509write_crt_set_serial_raw(certificate, serial, len);
}

#else

#define TLS_ERR_VERSION       MBEDTLS_ERR_SSL_BAD_HS_PROTOCOL_VERSION
#define TLS_STATE(ssl)        ((ssl)->state)
#define TLS_SESSION_TICKET(s) ((s)->ticket_len)

static inline void tls_set_versions(mbedtls_ssl_config *ssl)
{
    mbedtls_ssl_conf_min_version(ssl, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
}

static inline void tls_set_curves(mbedtls_ssl_config *ssl)
{
    static const mbedtls_ecp_group_id curves[] = { MBEDTLS_ECP_DP_CURVE25519, MBEDTLS_ECP_DP_SECP256R1,
                                                   MBEDTLS_ECP_DP_NONE };
    mbedtls_ssl_conf_curves(ssl, curves);
}

static inline int tls_key_parse(mbedtls_pk_context *key, const unsigned char *text, size_t len,
                                struct tls_random *random)
{
    (void)random;
    return mbedtls_pk_parse_key(key, text, len, NULL, 0);
}

static inline int tls_key_matches(mbedtls_x509_crt *certificate, mbedtls_pk_context *key,
                                  struct tls_random *random)
{
    (void)random;
    return mbedtls_pk_check_pair(&certificate->pk, key);
}

static inline int tls_set_serial(mbedtls_x509write_cert *certificate, unsigned char *serial, size_t len)
{
    mbedtls_mpi number;
    mbedtls_mpi_init(&number);
    int failed = mbedtls_mpi_read_binary(&number, serial, len);
    if (failed == 0)
        failed = mbedtls_x509write_crt_set_serial(certificate, &number);
    mbedtls_mpi_free(&number);
    return failed;
}

#endif
