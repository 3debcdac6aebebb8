/* What the files of the OpenSSL 3 backend share. Private to core/tls/openssl_*.c: nothing else includes it.
 *
 * It behaves as the mbedTLS backend does, so that either may be chosen when building: the same suites and curves, the same
 * judgement of certificates, the same words for what went wrong. It has TLS 1.3 besides. */
#pragma once

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <stdatomic.h>

#include "core/tls/tls.h"

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

struct xy_tls_config {
    atomic_uint refs;
    bool server;
    bool asks; /* a server: for the client's certificate */
    enum xy_tls_trust trust;
    unsigned char fingerprint[XY_TLS_FINGERPRINT_BYTES];
    SSL_CTX *ctx;
    BIO_METHOD *bio; /* ends in the connection's two buffers */
    struct tls_tickets tickets;
    struct tls_identity *identities;
    size_t identity_count;
    const char **alpn; /* ended by NULL; the strings are ours */
};

/* Bytes that come in at the end and leave at the front; the front moves lazily. */
struct tls_pipe {
    struct xy_buf buf;
    size_t taken;
};

struct xy_tls {
    SSL *ssl;
    struct xy_tls_config *config;
    char *hostname;
    const struct tls_identity *own; /* what a server shows */
    struct xy_buf peer_der;         /* the peer's certificate, once the handshake is done */
    long verdict;                   /* about the peer's chain, while it is judged */
    struct tls_pipe in, out;
    size_t record_left;       /* of the handshake's record that the library is reading */
    size_t records_begun;     /* in this call of xy_tls_handshake … */
    bool record_waits;        /* … and one more waits for the next call */
    size_t handshake_records; /* received so far */
    bool established;
    bool failed;
    bool peer_closed;
    bool close_sent;
    struct xy_tls_error error;
};

void tls_explain(struct xy_tls_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The text of the oldest error that the library noted, or a general one; forgets all that it noted. */
const char *tls_reason(void);

/* openssl_bio.c. false: memory is short. */
bool tls_bio_method_new(struct xy_tls_config *config);
bool tls_bio_attach(struct xy_tls *tls);
size_t tls_pipe_len(const struct tls_pipe *pipe);
void tls_pipe_take(struct tls_pipe *pipe, size_t len);
void tls_pipe_sleep(struct tls_pipe *pipe);

/* openssl_tickets.c. false: memory is short. */
bool tls_tickets_start(struct xy_tls_config *config, uint32_t lifetime_s);
void tls_tickets_free(struct tls_tickets *tickets);

/* openssl_peer.c: the library's callbacks, and what they found. */
int tls_peer_verify(X509_STORE_CTX *store, void *config);
int tls_choose_certificate(SSL *ssl, int *alert, void *config);
bool tls_client_accepts(const struct xy_tls *tls);
const char *tls_problem_of(long verify_result); /* NULL: none */
bool tls_certificate_der(const X509 *certificate, struct xy_buf *out);
