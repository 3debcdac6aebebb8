/* SASL for XMPP, both roles, without I/O: SCRAM-SHA-1 and SCRAM-SHA-256 with and without channel binding (RFC
 * 5802, RFC 7677), PLAIN (RFC 4616) and EXTERNAL (RFC 4422 appendix A).
 *
 * core/stream drives it; the broker's accounts and the `xylem user` command make credentials with it.
 * Messages are the decoded bytes; base64 and XML belong to the stream. Nothing here blocks except the
 * functions named *_derive and
 * *_check_password, which run PBKDF2 (about 10 ms): the broker calls these off its loops. Not thread-safe per
 * object; objects are independent. Secrets are wiped when they are not needed any more. */
#pragma once

#include "core/base/buf.h"
#include "core/base/env.h"
#include "core/base/str.h"

/* Bits, so that sets of mechanisms are plain unsigned numbers. Ordered by strength: a lower bit is preferred.
 */
enum xy_sasl_mechanism {
    XY_SASL_NONE = 0,
    XY_SASL_EXTERNAL = 1u << 0,
    XY_SASL_SCRAM_SHA_256_PLUS = 1u << 1,
    XY_SASL_SCRAM_SHA_1_PLUS = 1u << 2,
    XY_SASL_SCRAM_SHA_256 = 1u << 3,
    XY_SASL_SCRAM_SHA_1 = 1u << 4,
    XY_SASL_PLAIN = 1u << 5,
};
#define XY_SASL_SCRAM_ALL                                                                                    \
    (XY_SASL_SCRAM_SHA_256_PLUS | XY_SASL_SCRAM_SHA_1_PLUS | XY_SASL_SCRAM_SHA_256 | XY_SASL_SCRAM_SHA_1)
#define XY_SASL_PLUS_ALL (XY_SASL_SCRAM_SHA_256_PLUS | XY_SASL_SCRAM_SHA_1_PLUS)

const char *xy_sasl_mechanism_name(enum xy_sasl_mechanism mechanism);
enum xy_sasl_mechanism xy_sasl_mechanism_find(struct xy_str name); /* XY_SASL_NONE: not one of ours */

/* Failure conditions, RFC 6120 6.5. */
enum xy_sasl_condition {
    XY_SASL_NO_FAILURE = 0,
    XY_SASL_ABORTED,
    XY_SASL_ACCOUNT_DISABLED,
    XY_SASL_CREDENTIALS_EXPIRED,
    XY_SASL_ENCRYPTION_REQUIRED,
    XY_SASL_INCORRECT_ENCODING,
    XY_SASL_INVALID_AUTHZID,
    XY_SASL_INVALID_MECHANISM,
    XY_SASL_MALFORMED_REQUEST,
    XY_SASL_MECHANISM_TOO_WEAK,
    XY_SASL_NOT_AUTHORIZED,
    XY_SASL_TEMPORARY_AUTH_FAILURE,
    XY_SASL_CONDITION_COUNT
};
const char *xy_sasl_condition_name(enum xy_sasl_condition condition);
enum xy_sasl_condition xy_sasl_condition_find(struct xy_str name); /* XY_SASL_NOT_AUTHORIZED if unknown */

/* --- Credentials
 * --------------------------------------------------------------------------------------------- */

enum xy_scram_hash { XY_SCRAM_SHA_1 = 1, XY_SCRAM_SHA_256 = 2 }; /* stored on disk: never renumber */

#define XY_SCRAM_KEY_MAX            32u
#define XY_SCRAM_SALT_MAX           64u
#define XY_SCRAM_SALT_DEFAULT       16u
#define XY_SCRAM_ITERATIONS_MIN     4096u    /* RFC 5802 5.1, RFC 7677 4 */
#define XY_SCRAM_ITERATIONS_DEFAULT 10000u   /* both hashes: the weaker one is no reason to iterate less */
#define XY_SCRAM_ITERATIONS_MAX     1000000u /* what a client computes for a server at most */
#define XY_SASL_NAME_MAX            1023u    /* bytes of a user name or authorization identity */
#define XY_SASL_PASSWORD_MAX        1024u
#define XY_SASL_MESSAGE_MAX         8192u /* one decoded SASL message */
#define XY_SASL_NONCE_MAX           512u  /* of the peer */
#define XY_SASL_BINDING_MAX         64u   /* bytes of channel binding data */

/* What the server keeps instead of a password. Plain data: copy it, store its fields. */
struct xy_scram_keys {
    enum xy_scram_hash hash;
    uint32_t iterations;
    uint32_t salt_len;
    uint8_t salt[XY_SCRAM_SALT_MAX];
    uint8_t stored_key[XY_SCRAM_KEY_MAX]; /* xy_scram_key_len(hash) bytes are used */
    uint8_t server_key[XY_SCRAM_KEY_MAX];
};

size_t xy_scram_key_len(enum xy_scram_hash hash);

/* Blocking (PBKDF2). false: the password is empty, too long or not allowed by SASLprep (RFC 4013), the salt
 * is empty or too long, or iterations are outside MIN..MAX; *out is zero then. */
bool xy_scram_keys_derive(enum xy_scram_hash hash, struct xy_str password, struct xy_str salt,
                          uint32_t iterations, struct xy_scram_keys *out);
/* The same with a fresh random salt and the default number of iterations. */
bool xy_scram_keys_new(const struct xy_env *env, enum xy_scram_hash hash, struct xy_str password,
                       struct xy_scram_keys *out);
/* Blocking (PBKDF2), constant time in the outcome. */
bool xy_scram_check_password(const struct xy_scram_keys *keys, struct xy_str password);

/* Keys that nobody's password fits, with a salt that is stable for (secret, user): what is used for users who
 * do not exist, so that they look and take as long as those who do. Not blocking. For PLAIN: check the
 * password against them. */
void xy_scram_keys_fake(struct xy_str secret, enum xy_scram_hash hash, struct xy_str user,
                        struct xy_scram_keys *out);

/* Channel binding data of the connection, RFC 5929 / RFC 9266. */
struct xy_sasl_binding {
    const char *type; /* "tls-exporter", "tls-server-end-point", "tls-unique" */
    struct xy_str data;
};
#define XY_SASL_BINDINGS_MAX 3

/* --- Steps: what both roles return
 * ----------------------------------------------------------------------------- */

enum xy_sasl_step {
    XY_SASL_CONTINUE,       /* send `out`, wait for the peer's next message */
    XY_SASL_NEED_KEYS,      /* server: look up the keys of `user` for `hash`, then xy_sasl_server_keys */
    XY_SASL_CHECK_PASSWORD, /* server: check `password` of `user`, then xy_sasl_server_verdict */
    XY_SASL_CHECK_EXTERNAL, /* server: may this peer act as `authzid`? then xy_sasl_server_verdict */
    XY_SASL_DONE,           /* authenticated; `out` (if present) is the additional data of <success/> */
    XY_SASL_FAIL,           /* `condition`, and `text` for the log; the object is spent */
};

/* Strings point into the SASL object and are valid until the next call on it. */
struct xy_sasl_result {
    enum xy_sasl_step step;
    struct xy_str out; /* absent: nothing; present and empty: an empty message ("=" in XMPP) */
    enum xy_sasl_condition condition;
    const char *text; /* what went wrong, in plain words, never a secret */
    struct xy_str user;
    struct xy_str authzid;  /* as sent; absent: none. Whether it fits the user is the caller's verdict */
    struct xy_str password; /* CHECK_PASSWORD only; after SASLprep */
    enum xy_scram_hash hash;
};

/* --- Server
 * ---------------------------------------------------------------------------------------------------- */

struct xy_sasl_server_options {
    const struct xy_env *env;
    struct xy_str secret; /* for xy_scram_keys_fake: constant over restarts, at least 16 bytes */
    unsigned offered; /* mechanisms the features named: tells an honest `y` from a downgrade (RFC 5802 6) */
    const struct xy_sasl_binding *bindings;
    size_t bindings_count;
};

struct xy_sasl_server;

/* Options are copied except env and secret. NULL when memory is short. */
struct xy_sasl_server *xy_sasl_server_new(const struct xy_sasl_server_options *options);
void xy_sasl_server_free(struct xy_sasl_server **server); /* NULL ok; wipes */

/* `initial` absent: the client sent no initial response; the answer is then CONTINUE with an empty challenge.
 */
struct xy_sasl_result xy_sasl_server_start(struct xy_sasl_server *server, enum xy_sasl_mechanism mechanism,
                                           struct xy_str initial);
struct xy_sasl_result xy_sasl_server_step(struct xy_sasl_server *server, struct xy_str in);
/* After NEED_KEYS. NULL: no such user, or none with this hash: the exchange goes on with fake keys and fails
 * at its end. */
struct xy_sasl_result xy_sasl_server_keys(struct xy_sasl_server *server, const struct xy_scram_keys *keys);
/* After CHECK_*: XY_SASL_NO_FAILURE lets the peer in, anything else is the condition it is told. */
struct xy_sasl_result xy_sasl_server_verdict(struct xy_sasl_server *server, enum xy_sasl_condition condition);

/* --- Client
 * ---------------------------------------------------------------------------------------------------- */

struct xy_sasl_client_options {
    const struct xy_env *env;
    struct xy_str user;
    struct xy_str authzid; /* absent: none */
    struct xy_str password;
    const struct xy_sasl_binding *binding; /* the one to use with -PLUS; NULL: none */
    bool binding_possible; /* we could bind, but the server offered no -PLUS: say `y` instead of `n` */
};

struct xy_sasl_client;

/* Options are copied except env. NULL when memory is short, or user or password fail SASLprep or are too
 * long. */
struct xy_sasl_client *xy_sasl_client_new(const struct xy_sasl_client_options *options);
void xy_sasl_client_free(struct xy_sasl_client **client); /* NULL ok; wipes */

/* CONTINUE with the initial response. */
struct xy_sasl_result xy_sasl_client_start(struct xy_sasl_client *client, enum xy_sasl_mechanism mechanism);
/* A challenge. Computes PBKDF2 when the server's first message came. */
struct xy_sasl_result xy_sasl_client_step(struct xy_sasl_client *client, struct xy_str in);
/* <success/> came, with its additional data or none: DONE only if the server proved that it knows the keys.
 */
struct xy_sasl_result xy_sasl_client_success(struct xy_sasl_client *client, struct xy_str in);
