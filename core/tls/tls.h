/* TLS 1.2 and, where the library has it, 1.3 for both ends of a connection, without sockets: ciphertext in, ciphertext
 * out, plaintext in between.
 *
 * A configuration (certificates, trust, tickets, randomness) is shared by many connections and may be shared by threads;
 * it is reference-counted, so a reload makes a new one while old connections keep theirs. A connection belongs to one
 * thread. Forward secrecy only: ECDHE over X25519 or P-256 with AES-GCM or ChaCha20-Poly1305; no renegotiation, no
 * compression (RFC 7525, RFC 6120 13.8). A configuration says which library does the work, of those that the build has;
 * otherwise they do not show here. The broker's connections, the SDK's transports and the tests call it. */
#pragma once

#include "core/base/buf.h"
#include "core/base/env.h"

#define XY_TLS_INPUT_MAX         (256u << 10) /* ciphertext received and not yet looked at */
#define XY_TLS_OUTPUT_MAX        (256u << 10) /* ciphertext not yet taken; xy_tls_write accepts nothing above it */
#define XY_TLS_BINDING_MAX       64u          /* bytes of channel binding data */
#define XY_TLS_FINGERPRINT_BYTES 32u
#define XY_TLS_FILE_BYTES_MAX    (4u << 20) /* a certificate, key or trust file */
#define XY_TLS_CERTIFICATES_MAX  256u
#define XY_TLS_DOMAINS_MAX       128u /* of one self-signed certificate */
#define XY_TLS_RELEASE_BYTES     48u

/* Why something failed, in plain words for the operator's eyes; empty when nothing did. */
struct xy_tls_error {
    char text[320];
};

/* Once in the process, before any second thread starts, whichever libraries will be used: it settles mbedTLS's detection
 * of the CPU's AES instructions, which is not thread-safe (CVE-2025-52496). OpenSSL starts by itself, when first used. */
void xy_tls_warm_up(void);

/* ---- libraries ---- */

/* One that can do the work. A build has one or both of "mbedtls" and "openssl", mbedTLS first; they live as long as the
 * process. Where one is asked for, NULL stands for the first. */
struct xy_tls_library;

const struct xy_tls_library *xy_tls_library(struct xy_str name); /* NULL: this build does not have it */
const struct xy_tls_library *xy_tls_library_at(size_t index);    /* NULL: there are no more */
const char *xy_tls_library_name(const struct xy_tls_library *library);
/* What runs, for the operator's eyes: "OpenSSL 3.0.17". Returns out. */
const char *xy_tls_library_release(const struct xy_tls_library *library, char out[XY_TLS_RELEASE_BYTES]);
const char *xy_tls_newest(const struct xy_tls_library *library); /* version of TLS that it speaks */

/* ---- configuration ---- */

struct xy_tls_config;

/* One certificate chain, leaf first, and its key: each from a PEM file, or from PEM text when the file is NULL. */
struct xy_tls_certificate {
    const char *domain; /* chosen when a client asks for this name (SNI); NULL: any name */
    const char *chain_file;
    const char *key_file;
    struct xy_str chain_pem;
    struct xy_str key_pem;
};

struct xy_tls_server_options {
    const struct xy_tls_library *library;
    const struct xy_tls_certificate *certificates; /* at least one; the first also serves unknown names */
    size_t certificate_count;
    const char *client_ca_file; /* ask clients for a certificate and check it against these (XEP-0178) … */
    struct xy_str
        client_ca_pem;       /* … or these; both absent: do not ask. A bad one never fails the handshake. */
    const char *const *alpn; /* ended by NULL, e.g. { "xmpp-client", NULL }; NULL: none */
    uint32_t ticket_lifetime_s; /* 0: one day */
};

enum xy_tls_trust {
    XY_TLS_TRUST_CA,       /* the chain must lead to `ca_*` and the name must match */
    XY_TLS_TRUST_PINNED,   /* exactly the certificate with `fingerprint`, whatever else it says */
    XY_TLS_TRUST_INSECURE, /* anything; for tests on one's own machine */
};

struct xy_tls_client_options {
    const struct xy_tls_library *library;
    enum xy_tls_trust trust;
    const char *ca_file; /* PEM; NULL and no ca_pem: the system's store */
    struct xy_str ca_pem;
    unsigned char fingerprint[XY_TLS_FINGERPRINT_BYTES]; /* SHA-256 of the certificate's DER */
    const struct xy_tls_certificate *certificate;        /* the client's own, for SASL EXTERNAL; NULL: none */
    const char *const *alpn;
};

/* One reference. NULL: `error` says which file and why. Nothing in `options` is kept. */
struct xy_tls_config *xy_tls_config_server(const struct xy_tls_server_options *options,
                                           struct xy_tls_error *error);
struct xy_tls_config *xy_tls_config_client(const struct xy_tls_client_options *options,
                                           struct xy_tls_error *error);
struct xy_tls_config *xy_tls_config_ref(struct xy_tls_config *config);
void xy_tls_config_unref(struct xy_tls_config **config); /* NULL ok; nulls the caller's pointer */
const struct xy_tls_library *xy_tls_config_library(const struct xy_tls_config *config);

/* A P-256 key and a certificate signed by itself for `domains` (dNSName each), valid for ten years from a day before
 * env's wall clock. Appends PEM to both buffers; the caller writes them where they belong (the key 0600). */
bool xy_tls_self_signed(const struct xy_tls_library *library, const struct xy_env *env,
                        const char *const *domains, size_t domain_count, struct xy_buf *certificate_pem,
                        struct xy_buf *key_pem, struct xy_tls_error *error);

/* ---- connection ---- */

enum xy_tls_status {
    XY_TLS_DONE,      /* handshake complete; or: *len plaintext bytes were read */
    XY_TLS_AGAIN,     /* one costly step was made; call again, preferably in a later turn of the loop */
    XY_TLS_WANT_MORE, /* everything received is used up: send the output, receive more */
    XY_TLS_CLOSED,    /* the peer said close_notify: an orderly end */
    XY_TLS_FAILED, /* xy_tls_error says why; send what is in the output (an alert) and drop the connection */
};

struct xy_tls;

/* Takes a reference of config. `hostname`: for a client the domain it means to reach (sent as SNI, and checked), in ASCII;
 * NULL for a server. NULL result: out of memory. */
struct xy_tls *xy_tls_new(struct xy_tls_config *config, const char *hostname);
void xy_tls_free(struct xy_tls **tls); /* NULL ok; nulls the caller's pointer */

/* Ciphertext from the network, copied. false: more than XY_TLS_INPUT_MAX is unread, or memory is short; the connection
 * has failed then. After it call xy_tls_handshake, or xy_tls_read once the handshake is done, until XY_TLS_WANT_MORE. */
bool xy_tls_receive(struct xy_tls *tls, const void *data, size_t len);

/* A client calls it once before anything was received, to say hello. */
enum xy_tls_status xy_tls_handshake(struct xy_tls *tls);
bool xy_tls_established(const struct xy_tls *tls);

/* XY_TLS_DONE: *len > 0 bytes of plaintext are in out. */
enum xy_tls_status xy_tls_read(struct xy_tls *tls, void *out, size_t size, size_t *len);

/* Encrypts as much of data as the output has room for: returns how many bytes were accepted (0: take the output away
 * first, or the connection failed). Only after the handshake. */
size_t xy_tls_write(struct xy_tls *tls, const void *data, size_t len);

/* Ciphertext for the network. The view is valid until the next call on this connection. */
struct xy_str xy_tls_output(const struct xy_tls *tls);
void xy_tls_output_consumed(struct xy_tls *tls, size_t len);

/* Puts close_notify into the output, once; nothing may be written after it. */
void xy_tls_close(struct xy_tls *tls);

/* Frees buffers that are empty now: for connections that idle. */
void xy_tls_sleep(struct xy_tls *tls);

const char *xy_tls_error(const struct xy_tls *tls); /* "" when nothing failed */

/* ---- what the handshake agreed on ---- */

const char *xy_tls_version(const struct xy_tls *tls); /* "TLSv1.2", "TLSv1.3" */
const char *xy_tls_cipher(const struct xy_tls *tls);
const char *xy_tls_alpn(const struct xy_tls *tls); /* NULL: none */
bool xy_tls_resumed(const struct xy_tls *tls);     /* by a session ticket */

/* The peer's certificate as DER, absent when it showed none. Lives as long as the connection. Its names: names.h */
struct xy_str xy_tls_peer_certificate(const struct xy_tls *tls);
/* The peer showed a certificate and it is trusted under this configuration. A server must ask this before it believes
 * a client's certificate. Otherwise xy_tls_peer_problem says why not, in plain words; NULL: nothing is known against it,
 * as when the handshake failed before there was a certificate to judge. */
bool xy_tls_peer_trusted(const struct xy_tls *tls);
const char *xy_tls_peer_problem(const struct xy_tls *tls);

/* tls-server-end-point (RFC 5929 4): the hash of the server's certificate, the same on both sides. Returns its length in
 * out, or 0 when this certificate's signature defines none. */
size_t xy_tls_server_end_point(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX]);

/* tls-exporter (RFC 9266): of TLS 1.3; 0 before it. */
size_t xy_tls_exporter(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX]);

/* tls-unique (RFC 5929 3): the first Finished message, which some clients know as the only binding. 0 after a resumption,
 * where it would not be unique (RFC 7627 1), in TLS 1.3, which does not define it, and where the library does not tell
 * (mbedTLS 3). */
size_t xy_tls_unique(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX]);

/* What a client keeps to reconnect cheaply (a ticket and its secret: never log or show it), after the handshake and at
 * least one read. false: the server gave none. Set it on a new connection to the same host before its handshake, of the
 * same library; a ticket that does not fit any more costs nothing but a full handshake. */
bool xy_tls_session_save(const struct xy_tls *tls, struct xy_buf *out);
bool xy_tls_session_restore(struct xy_tls *tls, struct xy_str saved);
