/* What the files of the OpenSSL 3 backend share. Private to core/tls/openssl_*.c: nothing else includes it. */
#pragma once

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "core/base/list.h"
#include "core/tls/library.h"

#if OPENSSL_VERSION_MAJOR < 3
#error "this backend needs OpenSSL 3 or newer"
#endif

/* A certificate chain and its key. */
struct tls_identity {
    char *domain; /* NULL: any */
    X509 *leaf;
    STACK_OF(X509) * rest; /* of the chain, above the leaf */
    EVP_PKEY *key;
    struct xy_buf leaf_der;
};

struct tls_ticket_key {
    unsigned char name[16], cipher[32], mac[32];
    ASN1_TIME *born; /* NULL: there is no key */
};

/* The keys that seal session tickets: one in use, and the one before it for as long as its tickets may live. */
struct tls_tickets {
    CRYPTO_RWLOCK *lock;
    struct tls_ticket_key keys[2];
    unsigned used;
    uint32_t lifetime_s;
};

struct openssl_config {
    struct xy_tls_config base; /* first */
    bool asks;                 /* a server: for the client's certificate */
    SSL_CTX *ctx;
    BIO_METHOD *bio; /* ends in the connection's two buffers */
    struct tls_tickets tickets;
    struct tls_identity *identities;
    size_t identity_count;
};

struct openssl {
    struct xy_tls base; /* first */
    SSL *ssl;
    const struct tls_identity *own; /* what a server shows */
    struct xy_buf peer_der;         /* the peer's certificate, once the handshake is done */
    long verdict;                   /* about the peer's chain, while it is judged */
    size_t record_left;             /* of the handshake's record that the library is reading */
    size_t records_begun;           /* in this call of xy_tls_handshake … */
    bool record_waits;              /* … and one more waits for the next call */
    size_t handshake_records;       /* received so far */
};

static inline struct openssl_config *openssl_config_of(struct xy_tls_config *config)
{
    return xy_container_of(config, struct openssl_config, base);
}

static inline struct openssl *openssl_of(struct xy_tls *tls)
{
    return xy_container_of(tls, struct openssl, base);
}

/* The text of the oldest error that the library noted, or a general one; forgets all that it noted. */
const char *tls_openssl_reason(void);

/* openssl_config.c and openssl_self_signed.c, for the table in openssl_conn.c */
struct xy_tls_config *tls_openssl_config_server(const struct xy_tls_server_options *options,
                                                struct xy_tls_error *error);
struct xy_tls_config *tls_openssl_config_client(const struct xy_tls_client_options *options,
                                                struct xy_tls_error *error);
void tls_openssl_config_free(struct xy_tls_config *config);
bool tls_openssl_self_signed(const struct xy_env *env, const char *const *domains, size_t domain_count,
                             struct xy_buf *certificate_pem, struct xy_buf *key_pem,
                             struct xy_tls_error *error);

/* openssl_bio.c. false: memory is short. */
bool tls_openssl_bio_method_new(struct openssl_config *config);
bool tls_openssl_bio_attach(struct openssl *openssl);

/* openssl_tickets.c. false: memory is short. */
bool tls_openssl_tickets_start(struct openssl_config *config, uint32_t lifetime_s);
void tls_openssl_tickets_free(struct tls_tickets *tickets);

/* openssl_peer.c: the library's callbacks, and what they found. */
int tls_openssl_peer_verify(X509_STORE_CTX *store, void *config);
int tls_openssl_choose_certificate(SSL *ssl, int *alert, void *config);
const char *tls_openssl_problem_of(long verify_result); /* NULL: none */
const char *tls_openssl_peer_problem(const struct xy_tls *tls);
bool tls_openssl_certificate_der(const X509 *certificate, struct xy_buf *out);
