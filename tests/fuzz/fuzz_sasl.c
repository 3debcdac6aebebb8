/* Any bytes as SASL messages, to the server and to the client: nobody is let in who did not prove anything, and the
 * machines end in a defined state. The first byte chooses role and mechanism; messages are separated by 0xFF. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/sasl/sasl.h"

#define STEPS_MAX 8

static void same_bytes(void *ctx, void *out, size_t len)
{
    (void)ctx;
    memset(out, 'A', len);
}

static const struct xy_env env = { .random = same_bytes };
static const struct xy_sasl_binding binding = { "tls-exporter", { "channel", 7 } };

static const enum xy_sasl_mechanism mechanisms[] = {
    XY_SASL_SCRAM_SHA_1,
    XY_SASL_SCRAM_SHA_256_PLUS,
    XY_SASL_PLAIN,
    XY_SASL_EXTERNAL,
};

/* The next message, up to 0xFF; absent at the end. */
static struct xy_str next_message(struct xy_str *rest)
{
    if (!xy_str_present(*rest))
        return XY_STR_NONE;
    const char *end = rest->len ? memchr(rest->data, 0xff, rest->len) : NULL;
    struct xy_str message = xy_str_n(rest->data, end ? (size_t)(end - rest->data) : rest->len);
    *rest = end ? xy_str_n(end + 1, rest->len - message.len - 1) : XY_STR_NONE;
    return message;
}

static void fuzz_server(enum xy_sasl_mechanism mechanism, struct xy_str rest)
{
    struct xy_sasl_server_options options = { .env = &env,
                                              .secret = XY_STR("sixteen bytes or more"),
                                              .offered = XY_SASL_SCRAM_ALL,
                                              .bindings = &binding,
                                              .bindings_count = 1 };
    struct xy_scram_keys keys;
    struct xy_sasl_server *server = xy_sasl_server_new(&options);
    if (server == NULL)
        abort();
    xy_scram_keys_fake(options.secret, XY_SCRAM_SHA_1, XY_STR("somebody"), &keys);
    struct xy_sasl_result r = xy_sasl_server_start(server, mechanism, next_message(&rest));
    for (int i = 0; i < STEPS_MAX && r.step != XY_SASL_FAIL; i++) {
        xy_assert(r.step != XY_SASL_DONE); /* no input proves what nobody knows */
        if (r.step == XY_SASL_NEED_KEYS) {
            xy_assert(r.user.len > 0 && r.user.len <= XY_SASL_NAME_MAX && xy_str_utf8(r.user));
            r = xy_sasl_server_keys(server, r.user.len % 2 ? &keys : NULL);
        } else if (r.step == XY_SASL_CONTINUE) {
            r = xy_sasl_server_step(server, next_message(&rest));
        } else {
            xy_assert(mechanism == XY_SASL_PLAIN || mechanism == XY_SASL_EXTERNAL);
            xy_assert(!xy_str_present(r.authzid) || xy_str_utf8(r.authzid));
            r = xy_sasl_server_verdict(server, XY_SASL_NOT_AUTHORIZED);
        }
    }
    xy_assert(r.step != XY_SASL_FAIL || r.condition != XY_SASL_NO_FAILURE);
    xy_sasl_server_free(&server);
}

static void fuzz_client(enum xy_sasl_mechanism mechanism, struct xy_str rest)
{
    struct xy_sasl_client_options options = { .env = &env,
                                              .user = XY_STR("user"),
                                              .password = XY_STR("pencil") };
    options.binding = &binding;
    struct xy_sasl_client *client = xy_sasl_client_new(&options);
    if (client == NULL)
        abort();
    struct xy_sasl_result r = xy_sasl_client_start(client, mechanism);
    for (int i = 0; i < STEPS_MAX && r.step == XY_SASL_CONTINUE && xy_str_present(rest); i++)
        r = xy_sasl_client_step(client, next_message(&rest));
    if (r.step == XY_SASL_CONTINUE)
        r = xy_sasl_client_success(client, XY_STR_NONE);
    bool scram = mechanism == XY_SASL_SCRAM_SHA_1 || mechanism == XY_SASL_SCRAM_SHA_256_PLUS;
    xy_assert(!scram || r.step == XY_SASL_FAIL);
    xy_sasl_client_free(&client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct xy_str rest = xy_str_n((const char *)data + 1, size - 1);
    enum xy_sasl_mechanism mechanism = mechanisms[data[0] % 4];
    if (data[0] & 4)
        fuzz_client(mechanism, rest);
    else
        fuzz_server(mechanism, rest);
    return 0;
}
