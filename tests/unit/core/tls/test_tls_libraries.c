/* Which libraries there are, how one is found, and that a client who meets another library than last time connects. */
#include "tests/unit/core/tls/pair.h"

static void test_found_by_name(void **state)
{
    (void)state;
    const struct xy_tls_library *library;
    char release[XY_TLS_RELEASE_BYTES];
    size_t count = 0;
    for (; (library = xy_tls_library_at(count)) != NULL; count++) {
        const char *name = xy_tls_library_name(library);
        bool mbedtls = strcmp(name, "mbedtls") == 0;
        assert_true(mbedtls || strcmp(name, "openssl") == 0);
        assert_true(mbedtls || count > 0 ||
                    xy_tls_library(XY_STR("mbedtls")) == NULL); /* mbedTLS is the first */
        assert_ptr_equal(xy_tls_library(xy_str(name)), library);
        assert_string_equal(xy_tls_newest(library), mbedtls ? "TLSv1.2" : "TLSv1.3");
        const char *prose = xy_tls_library_release(library, release);
        assert_ptr_equal(prose, release);
        assert_non_null(strstr(prose, mbedtls ? "mbed TLS " : "OpenSSL 3."));
    }
    assert_in_range(count, 1, 2);
    assert_null(xy_tls_library_at(count + 1));
    assert_null(xy_tls_library(XY_STR("gnutls")));
    assert_null(xy_tls_library(XY_STR("open")));
    assert_null(xy_tls_library(XY_STR_NONE));
}

static void test_configurations_know_theirs(void **state)
{
    (void)state;
    struct made made;
    struct xy_tls_error error;
    made_now(&made, "example.org");
    struct xy_tls_config *server = config_server(&made), *client = config_client(&made);
    assert_ptr_equal(xy_tls_config_library(server), server_library);
    assert_ptr_equal(xy_tls_config_library(client), client_library);
    xy_tls_config_unref(&server);
    struct xy_tls_server_options options = { .certificates = &made.certificate, .certificate_count = 1 };
    server = xy_tls_config_server(&options, &error); /* none is named: the first */
    assert_non_null(server);
    assert_ptr_equal(xy_tls_config_library(server), xy_tls_library_at(0));
    xy_tls_config_unref(&server);
    xy_tls_config_unref(&client);
    made_free(&made);
}

/* The certificate that one library made: a server on any other shows it. */
static void test_certificates_are_exchanged(void **state)
{
    (void)state;
    const struct xy_tls_library *maker = server_library;
    struct made made;
    struct pair pair;
    made_now(&made, "example.org");
    for (size_t i = 0; (server_library = xy_tls_library_at(i)) != NULL; i++) {
        struct xy_tls_config *server = config_server(&made), *client = config_client(&made);
        pair_open(&pair, client, server, "example.org");
        assert_true(pair_handshake(&pair));
        assert_true(xy_tls_peer_trusted(pair.client));
        pair_close(&pair);
        xy_tls_config_unref(&server);
        xy_tls_config_unref(&client);
    }
    server_library = maker;
    made_free(&made);
}

static void ticket_take(struct xy_tls_config *client, struct xy_tls_config *server, struct xy_buf *ticket)
{
    struct pair pair;
    pair_open(&pair, client, server, "example.org");
    assert_true(pair_handshake(&pair));
    pair_line(&pair, pair.server, pair.client, "<features/>");
    assert_true(xy_tls_session_save(pair.client, ticket));
    pair_close(&pair);
}

/* A broker that was reloaded with another library gives no meaning to a ticket of before: a full handshake. */
static void test_a_server_that_changed_its_library(void **state)
{
    (void)state;
    const struct xy_tls_library *before = server_library;
    struct made made;
    struct pair pair;
    struct xy_buf ticket = { 0 };
    made_now(&made, "example.org");
    struct xy_tls_config *server = config_server(&made), *client = config_client(&made);
    ticket_take(client, server, &ticket);
    for (size_t i = 0; (server_library = xy_tls_library_at(i)) != NULL; i++) {
        struct xy_tls_config *changed = config_server(&made);
        pair_open(&pair, client, changed, "example.org");
        assert_true(xy_tls_session_restore(pair.client, xy_buf_view(&ticket)));
        if (!pair_handshake(&pair))
            fail_msg("%s / %s", xy_tls_error(pair.client), xy_tls_error(pair.server));
        assert_false(xy_tls_resumed(pair.client));
        pair_line(&pair, pair.client, pair.server, "hello");
        pair_close(&pair);
        xy_tls_config_unref(&changed);
    }
    server_library = before;
    xy_tls_config_unref(&server);
    xy_tls_config_unref(&client);
    xy_buf_free(&ticket);
    made_free(&made);
}

/* What another library saved is refused, and the connection goes on without it. */
static void test_a_client_that_changed_its_library(void **state)
{
    (void)state;
    const struct xy_tls_library *before = client_library;
    struct made made;
    struct pair pair;
    struct xy_buf ticket = { 0 };
    made_now(&made, "example.org");
    struct xy_tls_config *server = config_server(&made), *client = config_client(&made);
    ticket_take(client, server, &ticket);
    for (size_t i = 0; (client_library = xy_tls_library_at(i)) != NULL; i++) {
        struct xy_tls_config *changed = config_client(&made);
        pair_open(&pair, changed, server, "example.org");
        assert_int_equal(xy_tls_session_restore(pair.client, xy_buf_view(&ticket)), client_library == before);
        assert_true(pair_handshake(&pair));
        assert_int_equal(xy_tls_resumed(pair.client), client_library == before);
        pair_close(&pair);
        xy_tls_config_unref(&changed);
    }
    client_library = before;
    xy_tls_config_unref(&server);
    xy_tls_config_unref(&client);
    xy_buf_free(&ticket);
    made_free(&made);
}

int main(void)
{
    xy_tls_warm_up();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found_by_name),
        cmocka_unit_test(test_configurations_know_theirs),
        cmocka_unit_test(test_certificates_are_exchanged),
        cmocka_unit_test(test_a_server_that_changed_its_library),
        cmocka_unit_test(test_a_client_that_changed_its_library),
    };
    int failed = 0;
    while (libraries_next())
        failed += cmocka_run_group_tests_name(libraries_name(), tests, NULL, NULL);
    return failed;
}
