/* The server's side of SASL: parses what the client says, asks the owner for keys or a verdict, proves
 * itself.
 *
 * One object per attempt. Users who do not exist are carried through the whole exchange with fake keys, so
 * neither shape nor timing tells them from a wrong password. Called by core/stream and by tests. */
#include "core/sasl/internal.h"

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/base/encoding.h"

enum state { STATE_NEW, STATE_FIRST, STATE_KEYS, STATE_FINAL, STATE_VERDICT, STATE_OVER };

struct xy_sasl_server {
    const struct xy_env *env;
    struct xy_str secret;
    unsigned offered;
    struct sasl_binding bindings[XY_SASL_BINDINGS_MAX];
    size_t bindings_count;

    enum state state;
    enum xy_sasl_mechanism mechanism;
    struct xy_buf user, authzid, password;
    bool has_authzid;

    /* SCRAM */
    const struct sasl_binding *binding; /* the one the client named with p= */
    struct xy_buf binding_input;        /* gs2 header and binding data: what c= must say */
    struct xy_buf nonce;                /* the client's, then with ours appended */
    struct xy_buf nonce_next;           /* tests only */
    struct xy_buf auth_message;
    struct xy_buf out;
    struct xy_scram_keys keys;
    bool keys_known;
};

struct xy_sasl_server *xy_sasl_server_new(const struct xy_sasl_server_options *options)
{
    struct xy_sasl_server *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->env = options->env;
    s->secret = options->secret;
    s->offered = options->offered;
    for (size_t i = 0; i < options->bindings_count && s->bindings_count < XY_SASL_BINDINGS_MAX; i++)
        s->bindings_count += sasl_binding_copy(&s->bindings[s->bindings_count], &options->bindings[i]);
    return s;
}

void xy_sasl_server_free(struct xy_sasl_server **server)
{
    struct xy_sasl_server *s = *server;
    *server = NULL;
    if (!s)
        return;
    struct xy_buf *bufs[] = { &s->user,  &s->authzid,    &s->password,     &s->binding_input,
                              &s->nonce, &s->nonce_next, &s->auth_message, &s->out };
    for (size_t i = 0; i < sizeof bufs / sizeof bufs[0]; i++)
        sasl_buf_wipe(bufs[i]);
    sasl_wipe(s, sizeof *s);
    free(s);
}

void xy_sasl_server_set_nonce(struct xy_sasl_server *server, struct xy_str nonce)
{
    xy_buf_str(&server->nonce_next, nonce);
}

/* --- Results --- */

static struct xy_sasl_result result(struct xy_sasl_server *s, enum xy_sasl_step step)
{
    struct xy_sasl_result r = { .step = step, .hash = scram_hash_of(s->mechanism) };
    if (s->user.len > 0)
        r.user = xy_buf_view(&s->user);
    if (s->has_authzid)
        r.authzid = s->authzid.len > 0 ? xy_buf_view(&s->authzid) : XY_STR("");
    return r;
}

static struct xy_sasl_result fail(struct xy_sasl_server *s, enum xy_sasl_condition condition,
                                  const char *text)
{
    struct xy_sasl_result r = result(s, XY_SASL_FAIL);
    s->state = STATE_OVER;
    sasl_buf_wipe(&s->password);
    r.condition = condition;
    r.text = text;
    return r;
}

static struct xy_sasl_result malformed(struct xy_sasl_server *s, const char *text)
{
    return fail(s, XY_SASL_MALFORMED_REQUEST, text);
}

static struct xy_sasl_result no_memory(struct xy_sasl_server *s)
{
    return fail(s, XY_SASL_TEMPORARY_AUTH_FAILURE, "out of memory");
}

static bool authzid_valid(struct xy_str authzid)
{
    return authzid.len <= XY_SASL_NAME_MAX && xy_str_utf8(authzid);
}

/* --- PLAIN: [authzid] NUL authcid NUL password (RFC 4616) --- */

static struct xy_sasl_result plain_message(struct xy_sasl_server *s, struct xy_str in)
{
    const char *end = in.data + in.len;
    const char *first = in.len ? memchr(in.data, '\0', in.len) : NULL;
    const char *second = first ? memchr(first + 1, '\0', (size_t)(end - first - 1)) : NULL;
    if (!second || memchr(second + 1, '\0', (size_t)(end - second - 1)))
        return malformed(s, "PLAIN message without exactly two NULs");
    struct xy_str authzid = xy_str_n(in.data, (size_t)(first - in.data));
    struct xy_str user = xy_str_n(first + 1, (size_t)(second - first - 1));
    struct xy_str password = xy_str_n(second + 1, (size_t)(end - second - 1));
    if (!authzid_valid(authzid) || user.len == 0 || user.len > XY_SASL_NAME_MAX || !xy_str_utf8(user) ||
        password.len == 0 || password.len > XY_SASL_PASSWORD_MAX || !xy_str_utf8(password))
        return malformed(s, "PLAIN message with an empty, overlong or ill-encoded part");
    s->has_authzid = authzid.len > 0;
    xy_buf_str(&s->authzid, authzid);
    xy_buf_reserve(&s->password, XY_SASL_PASSWORD_MAX + 1); /* no growth, no copies left behind */
    if (!sasl_prep(&s->user, user, XY_SASL_NAME_MAX, false) ||
        !sasl_prep(&s->password, password, XY_SASL_PASSWORD_MAX, false))
        return fail(s, XY_SASL_NOT_AUTHORIZED, "user name or password not allowed by SASLprep");
    if (xy_buf_failed(&s->authzid))
        return no_memory(s);
    struct xy_sasl_result r = result(s, XY_SASL_CHECK_PASSWORD);
    s->state = STATE_VERDICT;
    r.password = xy_buf_view(&s->password);
    return r;
}

/* --- EXTERNAL: the authorization identity or nothing --- */

static struct xy_sasl_result external_message(struct xy_sasl_server *s, struct xy_str in)
{
    if (!authzid_valid(in))
        return malformed(s, "EXTERNAL with an overlong or ill-encoded authorization identity");
    s->has_authzid = in.len > 0;
    xy_buf_str(&s->authzid, in);
    if (xy_buf_failed(&s->authzid))
        return no_memory(s);
    s->state = STATE_VERDICT;
    return result(s, XY_SASL_CHECK_EXTERNAL);
}

/* --- SCRAM --- */

/* gs2-cbind-flag (RFC 5802 7): NULL, or why it is refused. */
static const char *scram_flag_refused(struct xy_sasl_server *s, struct xy_str flag)
{
    bool plus = sasl_is_plus(s->mechanism);
    if (!xy_str_starts(flag, XY_STR("p="))) {
        if (plus)
            return "-PLUS without channel binding";
        if (flag.data[0] == 'y' && (s->offered & XY_SASL_PLUS_ALL) != 0)
            return "the client believes that no -PLUS was offered: somebody tampers with the stream";
        return NULL;
    }
    if (!plus)
        return "channel binding with a mechanism that is not -PLUS";
    for (size_t i = 0; i < s->bindings_count; i++)
        if (xy_str_is(xy_str_n(flag.data + 2, flag.len - 2), s->bindings[i].type))
            s->binding = &s->bindings[i];
    return s->binding ? NULL : "unsupported channel binding type";
}

static bool scram_flag_valid(struct xy_str flag)
{
    if (xy_str_is(flag, "n") || xy_str_is(flag, "y"))
        return true;
    for (size_t i = 2; i < flag.len; i++) {
        char c = flag.data[i];
        bool name = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                    c == '-';
        if (!name)
            return false;
    }
    return xy_str_starts(flag, XY_STR("p=")) && flag.len > 2;
}

/* gs2-header: flag "," ["a=" authzid] ",". Leaves the rest of the message in *bare. */
static bool scram_gs2_read(struct xy_sasl_server *s, struct xy_str in, struct xy_str *flag,
                           struct xy_str *bare)
{
    const char *end = in.data + in.len;
    const char *first = in.len ? memchr(in.data, ',', in.len) : NULL;
    const char *second = first ? memchr(first + 1, ',', (size_t)(end - first - 1)) : NULL;
    if (!second)
        return false;
    *flag = xy_str_n(in.data, (size_t)(first - in.data));
    struct xy_str authzid = xy_str_n(first + 1, (size_t)(second - first - 1));
    *bare = xy_str_n(second + 1, (size_t)(end - second - 1));
    s->has_authzid = authzid.len > 0;
    xy_buf_add(&s->binding_input, in.data, (size_t)(second + 1 - in.data));
    if (!s->has_authzid)
        return true;
    return xy_str_starts(authzid, XY_STR("a=")) &&
           scram_name_decode(&s->authzid, xy_str_n(authzid.data + 2, authzid.len - 2));
}

static struct xy_sasl_result scram_first(struct xy_sasl_server *s, struct xy_str in)
{
    struct xy_str flag, bare, name, nonce;
    struct xy_buf decoded = { 0 };
    if (!scram_gs2_read(s, in, &flag, &bare) || !scram_flag_valid(flag))
        return malformed(s, "SCRAM: bad GS2 header");
    const char *refused = scram_flag_refused(s, flag);
    if (refused)
        return fail(s, XY_SASL_NOT_AUTHORIZED, refused);
    if (s->binding)
        xy_buf_add(&s->binding_input, s->binding->data, s->binding->len);
    struct scram_reader reader = scram_read(bare);
    if (!scram_take(&reader, 'n', &name) || !scram_take(&reader, 'r', &nonce) || !scram_take_end(&reader) ||
        !scram_nonce_valid(nonce))
        return malformed(s, "SCRAM: bad client-first-message");
    bool decodes = scram_name_decode(&decoded, name);
    bool prepared = decodes && sasl_prep(&s->user, xy_buf_view(&decoded), XY_SASL_NAME_MAX, false);
    xy_buf_free(&decoded);
    if (!decodes)
        return malformed(s, "SCRAM: bad user name");
    if (!prepared)
        return fail(s, XY_SASL_NOT_AUTHORIZED, "user name not allowed by SASLprep");
    xy_buf_str(&s->nonce, nonce);
    xy_buf_str(&s->auth_message, bare);
    s->state = STATE_KEYS;
    return result(s, XY_SASL_NEED_KEYS);
}

struct xy_sasl_result xy_sasl_server_keys(struct xy_sasl_server *s, const struct xy_scram_keys *keys)
{
    xy_assert(s->state == STATE_KEYS);
    enum xy_scram_hash hash = scram_hash_of(s->mechanism);
    bool known = keys != NULL && keys->hash == hash;
    xy_scram_keys_fake(s->secret, hash, xy_buf_view(&s->user), &s->keys);
    if (known)
        s->keys = *keys;
    s->keys_known = known;
    if (s->nonce_next.len > 0)
        xy_buf_str(&s->nonce, xy_buf_view(&s->nonce_next));
    else
        scram_nonce_new(s->env, &s->nonce);
    xy_buf_lit(&s->out, "r=");
    xy_buf_str(&s->out, xy_buf_view(&s->nonce));
    xy_buf_lit(&s->out, ",s=");
    xy_base64_encode(&s->out, xy_str_n((const char *)s->keys.salt, s->keys.salt_len));
    xy_buf_lit(&s->out, ",i=");
    xy_buf_u64(&s->out, s->keys.iterations);
    xy_buf_char(&s->auth_message, ',');
    xy_buf_str(&s->auth_message, xy_buf_view(&s->out));
    if (xy_buf_failed(&s->auth_message) || xy_buf_failed(&s->out) || xy_buf_failed(&s->nonce))
        return no_memory(s);
    struct xy_sasl_result r = result(s, XY_SASL_CONTINUE);
    s->state = STATE_FINAL;
    r.out = xy_buf_view(&s->out);
    return r;
}

/* ClientKey := proof XOR ClientSignature, and its hash must be StoredKey (RFC 5802 3). All of it is computed
 * for users who do not exist as well. */
static bool scram_proof_holds(struct xy_sasl_server *s, struct xy_str proof)
{
    size_t len = xy_scram_key_len(s->keys.hash);
    uint8_t signature[XY_SCRAM_KEY_MAX], stored[XY_SCRAM_KEY_MAX], server_signature[XY_SCRAM_KEY_MAX];
    struct xy_str message = xy_buf_view(&s->auth_message);
    if (proof.len != len || !scram_hmac(s->keys.hash, s->keys.stored_key, len, message, signature))
        return false;
    for (size_t i = 0; i < len; i++)
        signature[i] ^= (uint8_t)proof.data[i];
    bool ok = scram_hash(s->keys.hash, xy_str_n((const char *)signature, len), stored) &&
              scram_hmac(s->keys.hash, s->keys.server_key, len, message, server_signature);
    ok = xy_str_eq_secret(xy_str_n((const char *)stored, len),
                          xy_str_n((const char *)s->keys.stored_key, len)) &
         ok;
    xy_buf_reset(&s->out);
    xy_buf_lit(&s->out, "v=");
    xy_base64_encode(&s->out, xy_str_n((const char *)server_signature, len));
    sasl_wipe(signature, sizeof signature);
    sasl_wipe(stored, sizeof stored);
    return ok & s->keys_known;
}

struct final_message {
    struct xy_str without_proof;
    struct xy_buf binding, proof; /* decoded */
    struct xy_str nonce;
};

static bool scram_final_read(struct xy_str in, struct final_message *out)
{
    struct xy_str binding, proof;
    struct scram_reader reader = scram_read(in);
    if (!scram_take(&reader, 'c', &binding) || !scram_take(&reader, 'r', &out->nonce))
        return false;
    while (reader.more && !xy_str_starts(reader.rest, XY_STR("p=")))
        if (!scram_take_extension(&reader))
            return false;
    size_t before = (size_t)(reader.rest.data - in.data);
    if (!scram_take(&reader, 'p', &proof) || reader.more)
        return false;
    out->without_proof = xy_str_n(in.data, before - 1);
    return xy_base64_decode(&out->binding, binding) && xy_base64_decode(&out->proof, proof);
}

static struct xy_sasl_result scram_final_judge(struct xy_sasl_server *s, const struct final_message *message)
{
    if (!xy_str_eq_secret(message->nonce, xy_buf_view(&s->nonce)))
        return fail(s, XY_SASL_NOT_AUTHORIZED, "SCRAM: another nonce than ours");
    if (!xy_str_eq_secret(xy_buf_view(&message->binding), xy_buf_view(&s->binding_input)))
        return fail(s, XY_SASL_NOT_AUTHORIZED,
                    "SCRAM: channel binding does not match: another TLS connection");
    xy_buf_char(&s->auth_message, ',');
    xy_buf_str(&s->auth_message, message->without_proof);
    if (xy_buf_failed(&s->auth_message))
        return no_memory(s);
    bool holds = scram_proof_holds(s, xy_buf_view(&message->proof));
    if (!holds)
        return fail(s, XY_SASL_NOT_AUTHORIZED, "wrong password or unknown user");
    struct xy_sasl_result r = result(s, XY_SASL_DONE);
    s->state = STATE_OVER;
    r.out = xy_buf_view(&s->out);
    return r;
}

static struct xy_sasl_result scram_final(struct xy_sasl_server *s, struct xy_str in)
{
    struct final_message message = { 0 };
    struct xy_sasl_result r = scram_final_read(in, &message)
                                  ? scram_final_judge(s, &message)
                                  : malformed(s, "SCRAM: bad client-final-message");
    xy_buf_free(&message.binding);
    sasl_buf_wipe(&message.proof);
    return r;
}

/* --- Steps --- */

static struct xy_sasl_result first_message(struct xy_sasl_server *s, struct xy_str in)
{
    if (s->mechanism == XY_SASL_PLAIN)
        return plain_message(s, in);
    if (s->mechanism == XY_SASL_EXTERNAL)
        return external_message(s, in);
    return scram_first(s, in);
}

struct xy_sasl_result xy_sasl_server_start(struct xy_sasl_server *s, enum xy_sasl_mechanism mechanism,
                                           struct xy_str initial)
{
    xy_assert(s->state == STATE_NEW);
    s->mechanism = mechanism;
    s->state = STATE_FIRST;
    if (!xy_str_present(initial)) {
        struct xy_sasl_result r = result(s, XY_SASL_CONTINUE);
        r.out = XY_STR("");
        return r;
    }
    return xy_sasl_server_step(s, initial);
}

struct xy_sasl_result xy_sasl_server_step(struct xy_sasl_server *s, struct xy_str in)
{
    if (in.len > XY_SASL_MESSAGE_MAX)
        return malformed(s, "SASL message too long");
    if (s->state == STATE_FIRST)
        return first_message(s, in);
    if (s->state == STATE_FINAL)
        return scram_final(s, in);
    return malformed(s, "SASL message out of turn");
}

struct xy_sasl_result xy_sasl_server_verdict(struct xy_sasl_server *s, enum xy_sasl_condition condition)
{
    xy_assert(s->state == STATE_VERDICT || s->state == STATE_KEYS);
    if (condition != XY_SASL_NO_FAILURE)
        return fail(s, condition, "refused by the account's verdict");
    xy_assert(s->state == STATE_VERDICT);
    s->state = STATE_OVER;
    sasl_buf_wipe(&s->password);
    return result(s, XY_SASL_DONE);
}
