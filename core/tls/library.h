/* What the files of core/tls share: the table of functions that a library is to tls.c, and what configurations and
 * connections have in common whichever library does the work. mbedtls_*.c and openssl_*.c fill one table each and know
 * nothing of each other. Private to core/tls.
 *
 * Libraries behave alike: the same suites and curves, the same judgement of certificates, the same words for what went
 * wrong. Only OpenSSL has TLS 1.3. */
#pragma once

#include <stdatomic.h>

#include "core/tls/names.h"
#include "core/tls/tls.h"

#define TLS_SYSTEM_STORE      "/etc/ssl/certs/ca-certificates.crt"
#define TLS_TICKET_LIFETIME_S 86400u
#define TLS_ALPN_MAX          16u

/* Bytes that come in at the end and leave at the front; the front moves lazily. */
struct tls_pipe {
    struct xy_buf buf;
    size_t taken;
};

/* A library's own configuration begins with this one. */
struct xy_tls_config {
    const struct xy_tls_library *library;
    atomic_uint refs;
    bool server;
    enum xy_tls_trust trust;
    unsigned char fingerprint[XY_TLS_FINGERPRINT_BYTES];
    const char **alpn; /* ended by NULL; the strings are ours */
};

/* A library's own connection begins with this one. */
struct xy_tls {
    struct xy_tls_config *config;
    char *hostname; /* a client: whom it means to reach */
    struct tls_pipe in, out;
    bool established;
    bool failed;
    bool peer_closed;
    bool close_sent;
    struct xy_tls_error error;
};

/* What tls.h asks for, where libraries differ. tls.c has checked what tls.h says about a connection's state. */
struct xy_tls_library {
    const char *name;   /* as configurations have it */
    const char *newest; /* version of the protocol */
    void (*release)(char out[XY_TLS_RELEASE_BYTES]);
    void (*warm_up)(void); /* NULL: nothing has to happen before there are threads */

    struct xy_tls_config *(*config_server)(const struct xy_tls_server_options *options,
                                           struct xy_tls_error *error);
    struct xy_tls_config *(*config_client)(const struct xy_tls_client_options *options,
                                           struct xy_tls_error *error);
    void (*config_free)(struct xy_tls_config *config); /* but for alpn */
    bool (*self_signed)(const struct xy_env *env, const char *const *domains, size_t domain_count,
                        struct xy_buf *certificate_pem, struct xy_buf *key_pem, struct xy_tls_error *error);

    struct xy_tls *(*allocate)(void);
    bool (*setup)(struct xy_tls *tls); /* with configuration and host name in place */
    void (*release_connection)(struct xy_tls *tls);
    enum xy_tls_status (*handshake)(struct xy_tls *tls); /* XY_TLS_DONE: tls_client_accepts may be asked */
    enum xy_tls_status (*read)(struct xy_tls *tls, void *out, size_t size, size_t *len);
    size_t (*write_record)(struct xy_tls *tls, const void *data, size_t len); /* 0: it failed */
    void (*close_notify)(struct xy_tls *tls);

    const char *(*version)(const struct xy_tls *tls);
    const char *(*cipher)(const struct xy_tls *tls);
    const char *(*alpn)(const struct xy_tls *tls);
    bool (*resumed)(const struct xy_tls *tls);
    struct xy_str (*own_certificate)(const struct xy_tls *tls); /* a server's */
    struct xy_str (*peer_certificate)(const struct xy_tls *tls);
    bool (*chain_accepted)(
        const struct xy_tls *tls); /* nothing was held against the peer's when it was judged */
    const char *(*peer_problem)(const struct xy_tls *tls);
    size_t (*digest)(enum xy_tls_hash hash, struct xy_str data, unsigned char out[XY_TLS_BINDING_MAX]);
    size_t (*exporter)(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX]);
    size_t (*unique)(const struct xy_tls *tls, unsigned char out[XY_TLS_BINDING_MAX]);
    bool (*session_save)(const struct xy_tls *tls, struct xy_buf *out);
    bool (*session_restore)(struct xy_tls *tls, struct xy_str saved);
};

extern const struct xy_tls_library tls_mbedtls, tls_openssl; /* libraries.c says which of them there are */

/* tls.c */
void tls_explain(struct xy_tls_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
enum xy_tls_status tls_fail(struct xy_tls *tls,
                            const char *prose); /* XY_TLS_FAILED; the first reason stays */
size_t tls_pipe_len(const struct tls_pipe *pipe);
void tls_pipe_take(struct tls_pipe *pipe, size_t len);
bool tls_is_pinned(const struct xy_tls_config *config, struct xy_str certificate_der);
bool tls_alpn_copy(struct xy_tls_config *config,
                   const char *const *names); /* NULL names ok; false: no memory */

/* pem.c: a PEM file or text, with a NUL behind it. */
struct tls_pem {
    char *data;
    size_t len;       /* without the NUL */
    const char *name; /* for messages */
};

/* `path` wins over `text`; `what` names a text in messages. The caller frees *pem whatever is returned. */
bool tls_pem_load(const char *path, struct xy_str text, const char *what, struct tls_pem *pem,
                  struct xy_tls_error *error);
void tls_pem_free(struct tls_pem *pem); /* with what it held overwritten */
