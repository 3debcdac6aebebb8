/* The functions and the syntax of SCRAM (RFC 5802), and the credentials that servers keep. Hashes are
 * mbedTLS's. */
#include "core/sasl/internal.h"

#include <mbedtls/md.h>
#include <mbedtls/pkcs5.h>
#include <mbedtls/version.h>

#include "core/base/assert.h"
#include "core/base/encoding.h"

static mbedtls_md_type_t md_type(enum xy_scram_hash hash)
{
    return hash == XY_SCRAM_SHA_1 ? MBEDTLS_MD_SHA1 : MBEDTLS_MD_SHA256;
}

size_t xy_scram_key_len(enum xy_scram_hash hash)
{
    return hash == XY_SCRAM_SHA_1 ? 20 : 32;
}

bool scram_hash(enum xy_scram_hash hash, struct xy_str data, uint8_t *out)
{
    const mbedtls_md_info_t *info = mbedtls_md_info_from_type(md_type(hash));
    return mbedtls_md(info, (const unsigned char *)data.data, data.len, out) == 0;
}

bool scram_hmac(enum xy_scram_hash hash, const uint8_t *key, size_t key_len, struct xy_str data, uint8_t *out)
{
    const mbedtls_md_info_t *info = mbedtls_md_info_from_type(md_type(hash));
    return mbedtls_md_hmac(info, key, key_len, (const unsigned char *)data.data, data.len, out) == 0;
}

bool scram_hi(enum xy_scram_hash hash, struct xy_str password, struct xy_str salt, uint32_t iterations,
              uint8_t *out)
{
    const unsigned char *pw = (const unsigned char *)password.data, *sa = (const unsigned char *)salt.data;
    uint32_t len = (uint32_t)xy_scram_key_len(hash);
#if MBEDTLS_VERSION_MAJOR >= 3
    return mbedtls_pkcs5_pbkdf2_hmac_ext(md_type(hash), pw, password.len, sa, salt.len, iterations, len,
                                         out) == 0;
#else
    mbedtls_md_context_t md;
    mbedtls_md_init(&md);
    bool ok = mbedtls_md_setup(&md, mbedtls_md_info_from_type(md_type(hash)), 1) == 0 &&
              mbedtls_pkcs5_pbkdf2_hmac(&md, pw, password.len, sa, salt.len, iterations, len, out) == 0;
    mbedtls_md_free(&md);
    return ok;
#endif
}

bool scram_salted_keys(enum xy_scram_hash hash, const uint8_t *salted_password, uint8_t *client_key,
                       uint8_t *stored_key, uint8_t *server_key)
{
    size_t len = xy_scram_key_len(hash);
    return scram_hmac(hash, salted_password, len, XY_STR("Client Key"), client_key) &&
           scram_hash(hash, xy_str_n((const char *)client_key, len), stored_key) &&
           scram_hmac(hash, salted_password, len, XY_STR("Server Key"), server_key);
}

/* --- Credentials --- */

static bool keys_compute(struct xy_scram_keys *keys, struct xy_str password)
{
    uint8_t salted[XY_SCRAM_KEY_MAX], client_key[XY_SCRAM_KEY_MAX];
    struct xy_str salt = xy_str_n((const char *)keys->salt, keys->salt_len);
    bool ok = scram_hi(keys->hash, password, salt, keys->iterations, salted) &&
              scram_salted_keys(keys->hash, salted, client_key, keys->stored_key, keys->server_key);
    sasl_wipe(salted, sizeof salted);
    sasl_wipe(client_key, sizeof client_key);
    return ok;
}

bool xy_scram_keys_derive(enum xy_scram_hash hash, struct xy_str password, struct xy_str salt,
                          uint32_t iterations, struct xy_scram_keys *out)
{
    struct xy_buf prepared = { 0 };
    *out = (struct xy_scram_keys){ .hash = hash, .iterations = iterations, .salt_len = (uint32_t)salt.len };
    bool ok = (hash == XY_SCRAM_SHA_1 || hash == XY_SCRAM_SHA_256) && salt.len > 0 &&
              salt.len <= XY_SCRAM_SALT_MAX && iterations >= XY_SCRAM_ITERATIONS_MIN &&
              iterations <= XY_SCRAM_ITERATIONS_MAX &&
              sasl_prep(&prepared, password, XY_SASL_PASSWORD_MAX, true);
    if (ok) {
        memcpy(out->salt, salt.data, salt.len);
        ok = keys_compute(out, xy_buf_view(&prepared));
    }
    sasl_buf_wipe(&prepared);
    if (!ok)
        sasl_wipe(out, sizeof *out);
    return ok;
}

bool xy_scram_keys_new(const struct xy_env *env, enum xy_scram_hash hash, struct xy_str password,
                       struct xy_scram_keys *out)
{
    char salt[XY_SCRAM_SALT_DEFAULT];
    xy_random(env, salt, sizeof salt);
    return xy_scram_keys_derive(hash, password, xy_str_n(salt, sizeof salt), XY_SCRAM_ITERATIONS_DEFAULT,
                                out);
}

bool xy_scram_check_password(const struct xy_scram_keys *keys, struct xy_str password)
{
    struct xy_scram_keys made;
    struct xy_str salt = xy_str_n((const char *)keys->salt, keys->salt_len);
    size_t len = xy_scram_key_len(keys->hash);
    bool derived = xy_scram_keys_derive(keys->hash, password, salt, keys->iterations, &made);
    bool same = xy_str_eq_secret(xy_str_n((const char *)made.stored_key, len),
                                 xy_str_n((const char *)keys->stored_key, len));
    sasl_wipe(&made, sizeof made);
    return derived && same;
}

/* HMAC(secret, purpose || hash || user): another value for each purpose. */
static void fake_value(struct xy_str secret, char purpose, enum xy_scram_hash hash, struct xy_str user,
                       uint8_t *out)
{
    struct xy_buf data = { 0 };
    xy_buf_char(&data, purpose);
    xy_buf_char(&data, (char)hash);
    xy_buf_str(&data, user);
    bool ok = !xy_buf_failed(&data) &&
              scram_hmac(XY_SCRAM_SHA_256, (const uint8_t *)secret.data, secret.len, xy_buf_view(&data), out);
    if (!ok)
        memset(out, purpose, XY_SCRAM_KEY_MAX);
    xy_buf_free(&data);
}

void xy_scram_keys_fake(struct xy_str secret, enum xy_scram_hash hash, struct xy_str user,
                        struct xy_scram_keys *out)
{
    uint8_t salt[XY_SCRAM_KEY_MAX];
    *out = (struct xy_scram_keys){ .hash = hash,
                                   .iterations = XY_SCRAM_ITERATIONS_DEFAULT,
                                   .salt_len = XY_SCRAM_SALT_DEFAULT };
    fake_value(secret, 's', hash, user, salt);
    memcpy(out->salt, salt, XY_SCRAM_SALT_DEFAULT);
    fake_value(secret, 'k', hash, user, out->stored_key);
    fake_value(secret, 'v', hash, user, out->server_key);
}

bool sasl_binding_copy(struct sasl_binding *to, const struct xy_sasl_binding *from)
{
    struct xy_str type = xy_str(from->type);
    if (type.len == 0 || type.len >= sizeof to->type || from->data.len == 0 ||
        from->data.len > sizeof to->data)
        return false;
    memset(to, 0, sizeof *to);
    memcpy(to->type, type.data, type.len);
    memcpy(to->data, from->data.data, from->data.len);
    to->len = from->data.len;
    return true;
}

/* --- Syntax --- */

struct scram_reader scram_read(struct xy_str message)
{
    return (struct scram_reader){ .rest = message, .more = true };
}

static bool take_any(struct scram_reader *reader, char *letter, struct xy_str *value)
{
    struct xy_str rest = reader->rest;
    if (!reader->more || rest.len < 3 || rest.data[1] != '=')
        return false;
    const char *comma = memchr(rest.data, ',', rest.len);
    size_t len = comma ? (size_t)(comma - rest.data) : rest.len;
    if (len < 3)
        return false;
    *letter = rest.data[0];
    *value = xy_str_n(rest.data + 2, len - 2);
    reader->more = comma != NULL;
    reader->rest = comma ? xy_str_n(comma + 1, rest.len - len - 1) : XY_STR("");
    return true;
}

bool scram_take(struct scram_reader *reader, char letter, struct xy_str *value)
{
    char found;
    return take_any(reader, &found, value) && found == letter;
}

bool scram_take_extension(struct scram_reader *reader)
{
    char letter;
    struct xy_str value;
    if (!take_any(reader, &letter, &value) || !xy_str_utf8(value))
        return false;
    bool alpha = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z');
    return alpha && memchr("anmrcsipve", letter, 10) == NULL;
}

bool scram_take_end(struct scram_reader *reader)
{
    while (reader->more)
        if (!scram_take_extension(reader))
            return false;
    return true;
}

bool scram_nonce_valid(struct xy_str nonce)
{
    for (size_t i = 0; i < nonce.len; i++)
        if (nonce.data[i] < 0x21 || nonce.data[i] > 0x7e || nonce.data[i] == ',')
            return false;
    return nonce.len > 0 && nonce.len <= XY_SASL_NONCE_MAX;
}

bool scram_name_decode(struct xy_buf *out, struct xy_str name)
{
    if (name.len == 0 || name.len > 3 * XY_SASL_NAME_MAX || !xy_str_utf8(name))
        return false;
    for (size_t i = 0; i < name.len; i++) {
        struct xy_str rest = xy_str_n(name.data + i, name.len - i);
        if (name.data[i] == ',')
            return false;
        if (name.data[i] != '=') {
            xy_buf_char(out, name.data[i]);
            continue;
        }
        if (!xy_str_starts(rest, XY_STR("=2C")) && !xy_str_starts(rest, XY_STR("=3D")))
            return false;
        xy_buf_char(out, rest.data[1] == '2' ? ',' : '=');
        i += 2;
    }
    return !xy_buf_failed(out) && out->len <= XY_SASL_NAME_MAX;
}

void scram_name_encode(struct xy_buf *out, struct xy_str name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (name.data[i] == ',')
            xy_buf_lit(out, "=2C");
        else if (name.data[i] == '=')
            xy_buf_lit(out, "=3D");
        else
            xy_buf_char(out, name.data[i]);
    }
}

void scram_nonce_new(const struct xy_env *env, struct xy_buf *out)
{
    char random[SCRAM_NONCE_BYTES];
    xy_random(env, random, sizeof random);
    xy_base64_encode(out, xy_str_n(random, sizeof random));
}
