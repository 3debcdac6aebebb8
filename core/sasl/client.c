/* The client's side of SASL: proves that it knows the password, and does not believe a server that cannot
 * prove the same. One object per attempt. Called by core/stream and by tests. */
#include "core/sasl/internal.h"

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/base/encoding.h"

enum state { STATE_NEW, STATE_SERVER_FIRST, STATE_SERVER_FINAL, STATE_SUCCESS, STATE_OVER };

struct xy_sasl_client {
    const struct xy_env *env;
    struct xy_buf user, authzid, password;
    bool has_authzid, has_binding, binding_possible;
    struct sasl_binding binding;

    enum state state;
    enum xy_sasl_mechanism mechanism;
    struct xy_buf nonce;      /* ours */
    struct xy_buf nonce_next; /* tests only */
    struct xy_buf gs2;        /* header, then with binding data: what c= says */
    struct xy_buf auth_message;
    struct xy_buf out;
    uint8_t server_signature[XY_SCRAM_KEY_MAX];
};

struct xy_sasl_client *xy_sasl_client_new(const struct xy_sasl_client_options *options)
{
    struct xy_sasl_client *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->env = options->env;
    c->has_authzid = options->authzid.len > 0;
    c->binding_possible = options->binding_possible;
    xy_buf_str(&c->authzid, options->authzid);
    xy_buf_reserve(&c->password, XY_SASL_PASSWORD_MAX + 1);
    bool ok = options->authzid.len <= XY_SASL_NAME_MAX && !xy_buf_failed(&c->authzid);
    if (options->user.len > 0)
        ok = ok && sasl_prep(&c->user, options->user, XY_SASL_NAME_MAX, false);
    if (options->password.len > 0)
        ok = ok && sasl_prep(&c->password, options->password, XY_SASL_PASSWORD_MAX, false);
    if (options->binding) {
        c->has_binding = sasl_binding_copy(&c->binding, options->binding);
        ok = ok && c->has_binding;
    }
    if (!ok)
        xy_sasl_client_free(&c);
    return c;
}

void xy_sasl_client_free(struct xy_sasl_client **client)
{
    struct xy_sasl_client *c = *client;
    *client = NULL;
    if (!c)
        return;
    struct xy_buf *bufs[] = { &c->user,       &c->authzid, &c->password,     &c->nonce,
                              &c->nonce_next, &c->gs2,     &c->auth_message, &c->out };
    for (size_t i = 0; i < sizeof bufs / sizeof bufs[0]; i++)
        sasl_buf_wipe(bufs[i]);
    sasl_wipe(c, sizeof *c);
    free(c);
}

void xy_sasl_client_set_nonce(struct xy_sasl_client *client, struct xy_str nonce)
{
    xy_buf_str(&client->nonce_next, nonce);
}

static struct xy_sasl_result fail(struct xy_sasl_client *c, const char *text)
{
    c->state = STATE_OVER;
    sasl_buf_wipe(&c->password);
    return (struct xy_sasl_result){ .step = XY_SASL_FAIL, .condition = XY_SASL_NOT_AUTHORIZED, .text = text };
}

static struct xy_sasl_result send_out(struct xy_sasl_client *c, enum state next)
{
    if (xy_buf_failed(&c->out) || xy_buf_failed(&c->auth_message) || xy_buf_failed(&c->gs2))
        return fail(c, "out of memory");
    c->state = next;
    struct xy_str out = c->out.len > 0 ? xy_buf_view(&c->out) : XY_STR("");
    return (struct xy_sasl_result){ .step = XY_SASL_CONTINUE, .out = out };
}

/* --- First message --- */

static void scram_gs2_make(struct xy_sasl_client *c)
{
    if (sasl_is_plus(c->mechanism)) {
        xy_buf_lit(&c->gs2, "p=");
        xy_buf_str(&c->gs2, xy_str(c->binding.type));
    } else {
        xy_buf_char(&c->gs2, c->binding_possible ? 'y' : 'n');
    }
    xy_buf_char(&c->gs2, ',');
    if (c->has_authzid) {
        xy_buf_lit(&c->gs2, "a=");
        scram_name_encode(&c->gs2, xy_buf_view(&c->authzid));
    }
    xy_buf_char(&c->gs2, ',');
}

static void scram_first(struct xy_sasl_client *c)
{
    scram_gs2_make(c);
    if (c->nonce_next.len > 0)
        xy_buf_str(&c->nonce, xy_buf_view(&c->nonce_next));
    else
        scram_nonce_new(c->env, &c->nonce);
    xy_buf_lit(&c->auth_message, "n=");
    scram_name_encode(&c->auth_message, xy_buf_view(&c->user));
    xy_buf_lit(&c->auth_message, ",r=");
    xy_buf_str(&c->auth_message, xy_buf_view(&c->nonce));
    xy_buf_str(&c->out, xy_buf_view(&c->gs2));
    xy_buf_str(&c->out, xy_buf_view(&c->auth_message));
    if (sasl_is_plus(c->mechanism))
        xy_buf_add(&c->gs2, c->binding.data, c->binding.len);
}

struct xy_sasl_result xy_sasl_client_start(struct xy_sasl_client *c, enum xy_sasl_mechanism mechanism)
{
    xy_assert(c->state == STATE_NEW);
    c->mechanism = mechanism;
    bool needs_password = mechanism != XY_SASL_EXTERNAL;
    if (needs_password && (c->user.len == 0 || c->password.len == 0))
        return fail(c, "a user name and a password are needed");
    if (sasl_is_plus(mechanism) && !c->has_binding)
        return fail(c, "no channel to bind to");
    if (mechanism == XY_SASL_EXTERNAL) {
        xy_buf_str(&c->out, xy_buf_view(&c->authzid));
        return send_out(c, STATE_SUCCESS);
    }
    if (mechanism == XY_SASL_PLAIN) {
        xy_buf_reserve(&c->out, c->authzid.len + c->user.len + c->password.len + 2);
        xy_buf_str(&c->out, xy_buf_view(&c->authzid));
        xy_buf_char(&c->out, '\0');
        xy_buf_str(&c->out, xy_buf_view(&c->user));
        xy_buf_char(&c->out, '\0');
        xy_buf_str(&c->out, xy_buf_view(&c->password));
        return send_out(c, STATE_SUCCESS);
    }
    scram_first(c);
    return send_out(c, STATE_SERVER_FIRST);
}

/* --- SCRAM --- */

struct server_first {
    struct xy_str nonce;
    struct xy_buf salt;
    uint32_t iterations;
};

/* NULL, or what is wrong with it. */
static const char *server_first_read(struct xy_sasl_client *c, struct xy_str in, struct server_first *out)
{
    struct xy_str salt, iterations;
    struct scram_reader reader = scram_read(in);
    if (!scram_take(&reader, 'r', &out->nonce) || !scram_take(&reader, 's', &salt) ||
        !scram_take(&reader, 'i', &iterations) || !scram_take_end(&reader))
        return "the server's first SCRAM message is malformed";
    if (!scram_nonce_valid(out->nonce) || !xy_str_starts(out->nonce, xy_buf_view(&c->nonce)) ||
        out->nonce.len == c->nonce.len)
        return "the server did not extend our nonce";
    if (!xy_base64_decode(&out->salt, salt) || out->salt.len == 0)
        return "the server's salt is not base64";
    if (iterations.data[0] == '0' || !xy_str_u32(iterations, &out->iterations))
        return "the server's iteration count is not a number";
    if (out->iterations < XY_SCRAM_ITERATIONS_MIN)
        return "the server's iteration count is below 4096: its password store is too weak to trust";
    if (out->iterations > XY_SCRAM_ITERATIONS_MAX)
        return "the server's iteration count is absurdly high";
    return NULL;
}

static bool scram_proof(struct xy_sasl_client *c, const struct server_first *first, uint8_t *proof)
{
    enum xy_scram_hash hash = scram_hash_of(c->mechanism);
    size_t len = xy_scram_key_len(hash);
    uint8_t salted[XY_SCRAM_KEY_MAX], client_key[XY_SCRAM_KEY_MAX], stored_key[XY_SCRAM_KEY_MAX];
    uint8_t server_key[XY_SCRAM_KEY_MAX];
    struct xy_str message = xy_buf_view(&c->auth_message);
    bool ok =
        scram_hi(hash, xy_buf_view(&c->password), xy_buf_view(&first->salt), first->iterations, salted) &&
        scram_salted_keys(hash, salted, client_key, stored_key, server_key) &&
        scram_hmac(hash, stored_key, len, message, proof) &&
        scram_hmac(hash, server_key, len, message, c->server_signature);
    for (size_t i = 0; ok && i < len; i++)
        proof[i] ^= client_key[i];
    sasl_wipe(salted, sizeof salted);
    sasl_wipe(client_key, sizeof client_key);
    sasl_wipe(stored_key, sizeof stored_key);
    sasl_wipe(server_key, sizeof server_key);
    return ok;
}

static struct xy_sasl_result scram_final(struct xy_sasl_client *c, struct xy_str in,
                                         const struct server_first *first)
{
    uint8_t proof[XY_SCRAM_KEY_MAX];
    xy_buf_reset(&c->out);
    xy_buf_lit(&c->out, "c=");
    xy_base64_encode(&c->out, xy_buf_view(&c->gs2));
    xy_buf_lit(&c->out, ",r=");
    xy_buf_str(&c->out, first->nonce);
    xy_buf_char(&c->auth_message, ',');
    xy_buf_str(&c->auth_message, in);
    xy_buf_char(&c->auth_message, ',');
    xy_buf_str(&c->auth_message, xy_buf_view(&c->out));
    if (xy_buf_failed(&c->auth_message) || !scram_proof(c, first, proof))
        return fail(c, "out of memory");
    xy_buf_lit(&c->out, ",p=");
    xy_base64_encode(&c->out, xy_str_n((const char *)proof, xy_scram_key_len(scram_hash_of(c->mechanism))));
    sasl_buf_wipe(&c->password);
    return send_out(c, STATE_SERVER_FINAL);
}

static struct xy_sasl_result on_server_first(struct xy_sasl_client *c, struct xy_str in)
{
    struct server_first first = { 0 };
    const char *wrong = server_first_read(c, in, &first);
    struct xy_sasl_result r = wrong ? fail(c, wrong) : scram_final(c, in, &first);
    xy_buf_free(&first.salt);
    return r;
}

/* NULL: the server proved itself. */
static const char *server_final_refused(struct xy_sasl_client *c, struct xy_str in)
{
    struct xy_str verifier;
    struct xy_buf signature = { 0 };
    struct scram_reader reader = scram_read(in);
    if (xy_str_starts(in, XY_STR("e=")))
        return "the server refused the proof";
    bool read = scram_take(&reader, 'v', &verifier) && scram_take_end(&reader) &&
                xy_base64_decode(&signature, verifier);
    size_t len = xy_scram_key_len(scram_hash_of(c->mechanism));
    bool same =
        read && xy_str_eq_secret(xy_buf_view(&signature), xy_str_n((const char *)c->server_signature, len));
    xy_buf_free(&signature);
    if (!read)
        return "the server's final SCRAM message is malformed";
    return same ? NULL
                : "the server does not know our password: this is not the server we have an account on";
}

static struct xy_sasl_result on_server_final(struct xy_sasl_client *c, struct xy_str in, bool success)
{
    const char *refused = server_final_refused(c, in);
    if (refused)
        return fail(c, refused);
    if (success) {
        c->state = STATE_OVER;
        return (struct xy_sasl_result){ .step = XY_SASL_DONE };
    }
    xy_buf_reset(&c->out);
    return send_out(c, STATE_SUCCESS);
}

struct xy_sasl_result xy_sasl_client_step(struct xy_sasl_client *c, struct xy_str in)
{
    if (in.len > XY_SASL_MESSAGE_MAX)
        return fail(c, "the server's SASL message is too long");
    if (c->state == STATE_SERVER_FIRST)
        return on_server_first(c, in);
    if (c->state == STATE_SERVER_FINAL)
        return on_server_final(c, in, false);
    return fail(c, "a challenge that the mechanism does not have");
}

struct xy_sasl_result xy_sasl_client_success(struct xy_sasl_client *c, struct xy_str in)
{
    if (c->state == STATE_SERVER_FINAL && xy_str_present(in) && in.len <= XY_SASL_MESSAGE_MAX)
        return on_server_final(c, in, true);
    if (c->state != STATE_SUCCESS)
        return fail(c, "the server claims success without proving that it knows our password");
    c->state = STATE_OVER;
    sasl_buf_wipe(&c->password);
    return (struct xy_sasl_result){ .step = XY_SASL_DONE };
}
