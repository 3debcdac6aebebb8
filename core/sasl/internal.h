/* What the files of core/sasl share: the hash functions, SASLprep, the syntax of SCRAM messages. Not for
 * others. */
#pragma once

#include "core/sasl/sasl.h"

/* The channel binding that a peer may name, copied out of the caller's options. */
struct sasl_binding {
    char type[32];
    uint8_t data[XY_SASL_BINDING_MAX];
    size_t len;
};
/* false: type or data too long. */
bool sasl_binding_copy(struct sasl_binding *to, const struct xy_sasl_binding *from);

void sasl_wipe(void *data, size_t len);
void sasl_buf_wipe(struct xy_buf *buf); /* zeroes and frees */

/* RFC 4013. Appends to `out`; false: empty, too long, prohibited, not UTF-8. `stored`: unassigned code points
 * are refused, as for what is kept; otherwise they pass, as in queries. */
bool sasl_prep(struct xy_buf *out, struct xy_str in, size_t len_max, bool stored);

/* RFC 5802 2.2. `out` has room for XY_SCRAM_KEY_MAX bytes. They fail only when memory is short. */
bool scram_hash(enum xy_scram_hash hash, struct xy_str data, uint8_t *out);
bool scram_hmac(enum xy_scram_hash hash, const uint8_t *key, size_t key_len, struct xy_str data,
                uint8_t *out);
bool scram_hi(enum xy_scram_hash hash, struct xy_str password, struct xy_str salt, uint32_t iterations,
              uint8_t *out);
/* Hi() of a password that sasl_prep accepts already. */
bool scram_salted_keys(enum xy_scram_hash hash, const uint8_t *salted_password, uint8_t *client_key,
                       uint8_t *stored_key, uint8_t *server_key);

enum xy_scram_hash scram_hash_of(enum xy_sasl_mechanism mechanism);
bool sasl_is_scram(enum xy_sasl_mechanism mechanism);
bool sasl_is_plus(enum xy_sasl_mechanism mechanism);

/* Attributes of a SCRAM message, taken in their one legal order. */
struct scram_reader {
    struct xy_str rest;
    bool more; /* another attribute must follow: the message does not end here */
};
struct scram_reader scram_read(struct xy_str message);
/* The next attribute is `letter`, and its value (never empty). */
bool scram_take(struct scram_reader *reader, char letter, struct xy_str *value);
/* The next attribute is an extension, that is, no letter that has a meaning elsewhere (RFC 5802 5.1). */
bool scram_take_extension(struct scram_reader *reader);
/* Only extensions follow. */
bool scram_take_end(struct scram_reader *reader);
bool scram_nonce_valid(struct xy_str nonce);

/* saslname: "=2C" and "=3D" for comma and equals sign. */
bool scram_name_decode(struct xy_buf *out, struct xy_str name);
void scram_name_encode(struct xy_buf *out, struct xy_str name);

#define SCRAM_NONCE_BYTES 18 /* random ones: 24 characters of base64 */
void scram_nonce_new(const struct xy_env *env, struct xy_buf *out);

/* For the published test vectors: the nonce that the next start or keys call will use instead of a random
 * one. */
void xy_sasl_server_set_nonce(struct xy_sasl_server *server, struct xy_str nonce);
void xy_sasl_client_set_nonce(struct xy_sasl_client *client, struct xy_str nonce);
