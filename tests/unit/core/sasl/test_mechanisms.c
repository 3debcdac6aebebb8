/* PLAIN and EXTERNAL in both roles, and names. */
#include "tests/unit/unit.h"

#include "core/sasl/sasl.h"

static void random_fill(void *ctx, void *out, size_t len)
{
    (void)ctx;
    memset(out, 1, len);
}

static const struct xy_env env = { .random = random_fill };

static struct xy_sasl_server *server_new(void)
{
    struct xy_sasl_server_options options = { .env = &env, .secret = XY_STR("sixteen bytes or more") };
    return xy_sasl_server_new(&options);
}

#define BYTES(literal) xy_str_n((literal), sizeof(literal) - 1)

static void test_plain(void **state)
{
    (void)state;
    struct xy_sasl_client_options options = { .env = &env,
                                              .user = XY_STR("juliet"),
                                              .password = XY_STR("r0m30") };
    options.authzid = XY_STR("juliet@example.org");
    for (int let_in = 0; let_in < 2; let_in++) {
        struct xy_sasl_client *client = xy_sasl_client_new(&options);
        struct xy_sasl_server *server = server_new();
        struct xy_sasl_result r = xy_sasl_client_start(client, XY_SASL_PLAIN);
        assert_str_same(r.out, BYTES("juliet@example.org\0juliet\0r0m30"));
        r = xy_sasl_server_start(server, XY_SASL_PLAIN, r.out);
        assert_int_equal(r.step, XY_SASL_CHECK_PASSWORD);
        assert_str(r.user, "juliet");
        assert_str(r.password, "r0m30");
        assert_str(r.authzid, "juliet@example.org");
        r = xy_sasl_server_verdict(server, let_in ? XY_SASL_NO_FAILURE : XY_SASL_ACCOUNT_DISABLED);
        assert_int_equal(r.step, let_in ? XY_SASL_DONE : XY_SASL_FAIL);
        if (!let_in)
            assert_int_equal(r.condition, XY_SASL_ACCOUNT_DISABLED);
        assert_absent(r.out);
        assert_int_equal(xy_sasl_client_success(client, XY_STR_NONE).step, XY_SASL_DONE);
        xy_sasl_server_free(&server);
        xy_sasl_client_free(&client);
    }
}

static void test_plain_without_initial_response(void **state)
{
    (void)state;
    struct xy_sasl_server *server = server_new();
    struct xy_sasl_result r = xy_sasl_server_start(server, XY_SASL_PLAIN, XY_STR_NONE);
    assert_int_equal(r.step, XY_SASL_CONTINUE);
    assert_str(r.out, "");
    r = xy_sasl_server_step(server, BYTES("\0a\0b"));
    assert_int_equal(r.step, XY_SASL_CHECK_PASSWORD);
    assert_absent(r.authzid);
    xy_sasl_server_free(&server);
}

static void test_plain_malformed(void **state)
{
    (void)state;
    static const struct {
        struct xy_str in;
        enum xy_sasl_condition condition;
    } cases[] = {
        { { "", 0 }, XY_SASL_MALFORMED_REQUEST },
        { { "\0", 1 }, XY_SASL_MALFORMED_REQUEST },
        { { "\0user", 5 }, XY_SASL_MALFORMED_REQUEST },
        { { "\0user\0", 6 }, XY_SASL_MALFORMED_REQUEST },
        { { "\0\0pass", 6 }, XY_SASL_MALFORMED_REQUEST },
        { { "\0user\0pass\0", 11 }, XY_SASL_MALFORMED_REQUEST },
        { { "\0user\0pa\0ss", 11 }, XY_SASL_MALFORMED_REQUEST },
        { { "\0us\xff\0pass", 9 }, XY_SASL_MALFORMED_REQUEST },
        { { "\xff\0user\0pass", 11 }, XY_SASL_MALFORMED_REQUEST },
        { { "\0us\xee\x80\x80\0pass", 11 }, XY_SASL_NOT_AUTHORIZED },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct xy_sasl_server *server = server_new();
        struct xy_sasl_result r = xy_sasl_server_start(server, XY_SASL_PLAIN, cases[i].in);
        assert_int_equal(r.step, XY_SASL_FAIL);
        assert_int_equal(r.condition, cases[i].condition);
        xy_sasl_server_free(&server);
    }
    char message[2 + XY_SASL_PASSWORD_MAX + 2] = "\0u";
    memset(message + 3, 'x', sizeof message - 3);
    for (size_t extra = 0; extra < 2; extra++) {
        struct xy_sasl_server *server = server_new();
        struct xy_sasl_result r =
            xy_sasl_server_start(server, XY_SASL_PLAIN, xy_str_n(message, 3 + XY_SASL_PASSWORD_MAX + extra));
        assert_int_equal(r.step, extra ? XY_SASL_FAIL : XY_SASL_CHECK_PASSWORD);
        xy_sasl_server_free(&server);
    }
}

static void test_external(void **state)
{
    (void)state;
    static const char *const authzids[] = { NULL, "ops@example.org" };
    for (size_t i = 0; i < 2; i++) {
        struct xy_sasl_client_options options = { .env = &env, .authzid = xy_str(authzids[i]) };
        struct xy_sasl_client *client = xy_sasl_client_new(&options);
        struct xy_sasl_server *server = server_new();
        struct xy_sasl_result r = xy_sasl_client_start(client, XY_SASL_EXTERNAL);
        assert_int_equal(r.step, XY_SASL_CONTINUE);
        assert_true(xy_str_present(r.out));
        r = xy_sasl_server_start(server, XY_SASL_EXTERNAL, r.out);
        assert_int_equal(r.step, XY_SASL_CHECK_EXTERNAL);
        assert_str_same(r.authzid, xy_str(authzids[i]));
        assert_int_equal(xy_sasl_server_verdict(server, XY_SASL_NO_FAILURE).step, XY_SASL_DONE);
        assert_int_equal(xy_sasl_client_success(client, XY_STR_NONE).step, XY_SASL_DONE);
        xy_sasl_server_free(&server);
        xy_sasl_client_free(&client);
    }
    struct xy_sasl_server *server = server_new();
    struct xy_sasl_result r = xy_sasl_server_start(server, XY_SASL_EXTERNAL, XY_STR("a\xff"));
    assert_int_equal(r.condition, XY_SASL_MALFORMED_REQUEST);
    xy_sasl_server_free(&server);
}

static void test_client_limits(void **state)
{
    (void)state;
    char text[XY_SASL_PASSWORD_MAX + 1];
    memset(text, 'x', sizeof text);
    struct xy_sasl_client_options options = { .env = &env, .user = XY_STR("u"), .password = XY_STR("p") };
    options.password = xy_str_n(text, XY_SASL_PASSWORD_MAX);
    struct xy_sasl_client *client = xy_sasl_client_new(&options);
    assert_non_null(client);
    xy_sasl_client_free(&client);
    options.password.len++;
    assert_null(xy_sasl_client_new(&options));
    options.password = XY_STR("\x01");
    assert_null(xy_sasl_client_new(&options));
    /* nothing to prove oneself with */
    options.password = XY_STR_NONE;
    client = xy_sasl_client_new(&options);
    assert_int_equal(xy_sasl_client_start(client, XY_SASL_SCRAM_SHA_256).step, XY_SASL_FAIL);
    xy_sasl_client_free(&client);
    options.password = XY_STR("p");
    client = xy_sasl_client_new(&options);
    assert_int_equal(xy_sasl_client_start(client, XY_SASL_SCRAM_SHA_256_PLUS).step, XY_SASL_FAIL);
    xy_sasl_client_free(&client);
}

static void test_names(void **state)
{
    (void)state;
    for (unsigned bit = 1; bit <= XY_SASL_PLAIN; bit <<= 1) {
        const char *name = xy_sasl_mechanism_name((enum xy_sasl_mechanism)bit);
        assert_int_equal(xy_sasl_mechanism_find(xy_str(name)), bit);
    }
    assert_int_equal(xy_sasl_mechanism_find(XY_STR("scram-sha-1")), XY_SASL_NONE);
    assert_int_equal(xy_sasl_mechanism_find(XY_STR_NONE), XY_SASL_NONE);
    for (unsigned i = 1; i < XY_SASL_CONDITION_COUNT; i++) {
        const char *name = xy_sasl_condition_name((enum xy_sasl_condition)i);
        assert_int_equal(xy_sasl_condition_find(xy_str(name)), i);
    }
    assert_int_equal(xy_sasl_condition_find(XY_STR("no-such")), XY_SASL_NOT_AUTHORIZED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),           cmocka_unit_test(test_plain_without_initial_response),
        cmocka_unit_test(test_plain_malformed), cmocka_unit_test(test_external),
        cmocka_unit_test(test_client_limits),   cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
