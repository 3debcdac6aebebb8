/* The SDK's connection under TLS: whether a failed handshake was the certificate's fault or something else, which decides
 * whether the client tries again. */
#include "sdk/src/link.h"
#include "tests/unit/core/tls/pair.h"

struct fixture {
    struct pair_env env;
    struct made made, other;
    struct xy_tls_config *trusting, *stranger;
};

static void no_random(void *ctx, void *out, size_t len)
{
    (void)ctx;
    memset(out, 7, len);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->env.env = (struct xy_env){ pair_wall, pair_wall, no_random, &f->env };
    made_now(&f->made, "example.org");
    made_now(&f->other, "example.org");
    f->trusting = config_client(&f->made);
    f->stranger = config_client(&f->other);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    xy_tls_config_unref(&f->trusting);
    xy_tls_config_unref(&f->stranger);
    made_free(&f->made);
    made_free(&f->other);
    free(f);
    return 0;
}

static struct xy_link *link_open(struct fixture *f, struct xy_tls_config *config)
{
    struct xy_link_options options = {
        .stream = { .env = &f->env.env },
        .client = { .jid = xy_jid_canonical(XY_STR("alice@example.org")), .password = XY_STR("secret") },
        .tls = config,
        .direct_tls = true,
    };
    struct xy_link *link = xy_link_new(&options);
    assert_non_null(link);
    return link;
}

static void expect_failure(struct fixture *f, struct xy_str answer, const char *prose)
{
    struct xy_stream_event event;
    struct xy_link *link = link_open(f, f->trusting);
    xy_link_receive(link, answer.data, answer.len);
    assert_false(xy_link_next(link, &event));
    assert_string_equal(xy_link_failed(link), prose);
    assert_false(xy_link_untrusted(link));
    xy_link_free(&link);
}

/* Before any certificate was seen there is nothing to distrust. */
static void test_no_tls_behind_the_port(void **state)
{
    expect_failure(*state, XY_STR("\x15\x03\x03\x00\x02\x02\x28"), "the peer refused with a TLS alert");
    expect_failure(*state, XY_STR("HTTP/1.1 400 Bad Request\r\n\r\n"),
                   "the peer sent something that is not TLS");
}

static void test_a_strangers_certificate(void **state)
{
    struct fixture *f = *state;
    struct xy_stream_event event;
    struct xy_tls_config *config = config_server(&f->made);
    struct xy_tls *server = xy_tls_new(config, NULL);
    struct xy_link *link = link_open(f, f->stranger);
    while (xy_link_failed(link) == NULL) {
        struct xy_str hello = xy_link_output(link);
        assert_true(hello.len == 0 || xy_tls_receive(server, hello.data, hello.len));
        xy_link_sent(link, hello.len);
        while (xy_tls_handshake(server) == XY_TLS_AGAIN)
            continue;
        xy_link_receive(link, xy_tls_output(server).data, xy_tls_output(server).len);
        xy_tls_output_consumed(server, xy_tls_output(server).len);
        assert_false(xy_link_next(link, &event));
    }
    assert_string_equal(xy_link_failed(link),
                        "the peer is not trusted: its certificate is not signed by a trusted authority");
    assert_true(xy_link_untrusted(link));
    xy_link_free(&link);
    xy_tls_free(&server);
    xy_tls_config_unref(&config);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    xy_tls_warm_up();
    const struct CMUnitTest tests[] = {
        test(test_no_tls_behind_the_port),
        test(test_a_strangers_certificate),
    };
    int failed = 0;
    while (libraries_next())
        failed += cmocka_run_group_tests_name(libraries_name(), tests, NULL, NULL);
    return failed;
}
