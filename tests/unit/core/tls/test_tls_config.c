/* Configurations: which peers are trusted, which certificate is shown, old protocols refused, and errors in prose. */
#include "tests/unit/core/tls/pair.h"

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/md.h>
#include <mbedtls/ssl.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEN_YEARS_US (3653ull * 86400 * 1000000)

static void expect_refused(struct xy_tls_config *client, struct xy_tls_config *server, const char *host,
                           const char *prose)
{
    struct pair pair;
    pair_open(&pair, client, server, host);
    assert_false(pair_handshake(&pair));
    assert_int_equal(pair.client_status, XY_TLS_FAILED);
    assert_int_equal(pair.server_status, XY_TLS_FAILED); /* it was told by an alert */
    assert_string_equal(xy_tls_error(pair.client), prose);
    assert_string_equal(xy_tls_error(pair.server), "the peer refused with a TLS alert");
    assert_false(xy_tls_peer_trusted(pair.client));
    pair_close(&pair);
}

static void expect_accepted(struct xy_tls_config *client, struct xy_tls_config *server, const char *host)
{
    struct pair pair;
    pair_open(&pair, client, server, host);
    if (!pair_handshake(&pair))
        fail_msg("%s / %s", xy_tls_error(pair.client), xy_tls_error(pair.server));
    pair_close(&pair);
}

static void test_trust_in_a_ca(void **state)
{
    (void)state;
    struct made made, other;
    made_now(&made, "example.org");
    made_now(&other, "example.org");
    struct xy_tls_config *server = config_server(&made), *client = config_client(&made),
                         *stranger = config_client(&other);
    expect_accepted(client, server, "example.org");
    expect_accepted(client, server, "second.EXAMPLE.org");
    expect_refused(client, server, "example.com",
                   "the peer is not trusted: its certificate is for another name");
    expect_refused(stranger, server, "example.org",
                   "the peer is not trusted: its certificate is not signed by a trusted authority");
    xy_tls_config_unref(&server);
    xy_tls_config_unref(&client);
    xy_tls_config_unref(&stranger);
    made_free(&made);
    made_free(&other);
}

static void test_validity(void **state)
{
    (void)state;
    uint64_t now = (uint64_t)time(NULL) * 1000000;
    struct made old, young;
    made_at(&old, "example.org", now - TEN_YEARS_US);
    made_at(&young, "example.org", now + TEN_YEARS_US);
    struct xy_tls_config *server = config_server(&old), *client = config_client(&old);
    expect_refused(client, server, "example.org", "the peer is not trusted: its certificate has expired");
    xy_tls_config_unref(&server);
    xy_tls_config_unref(&client);
    server = config_server(&young);
    client = config_client(&young);
    expect_refused(client, server, "example.org",
                   "the peer is not trusted: its certificate is not valid yet (or our clock is wrong)");
    xy_tls_config_unref(&server);
    xy_tls_config_unref(&client);
    made_free(&old);
    made_free(&young);
}

/* By the system's store nobody who signed for himself is trusted. */
static void test_system_store_refuses_self_signed(void **state)
{
    (void)state;
    if (access("/etc/ssl/certs/ca-certificates.crt", R_OK) != 0)
        skip();
    struct made made;
    struct xy_tls_error error;
    made_now(&made, "example.org");
    struct xy_tls_client_options options = { .library = client_library, .trust = XY_TLS_TRUST_CA };
    struct xy_tls_config *server = config_server(&made), *client = xy_tls_config_client(&options, &error);
    assert_non_null(client);
    expect_refused(client, server, "example.org",
                   "the peer is not trusted: its certificate is not signed by a trusted authority");
    xy_tls_config_unref(&server);
    xy_tls_config_unref(&client);
    made_free(&made);
}

static void test_pinned_and_insecure(void **state)
{
    (void)state;
    struct made made;
    struct pair pair;
    struct xy_tls_error error;
    made_at(&made, "example.org",
            (uint64_t)time(NULL) * 1000000 - TEN_YEARS_US); /* expired: the pin decides */
    struct xy_tls_config *server = config_server(&made);
    struct xy_tls_client_options options = { .library = client_library, .trust = XY_TLS_TRUST_INSECURE };
    struct xy_tls_config *insecure = xy_tls_config_client(&options, &error);
    pair_open(&pair, insecure, server, "whatever.example");
    assert_true(pair_handshake(&pair));
    assert_false(xy_tls_peer_trusted(pair.client));
    assert_non_null(xy_tls_peer_problem(pair.client));

    struct xy_str der = xy_tls_peer_certificate(pair.client);
    options.trust = XY_TLS_TRUST_PINNED;
    mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), (const unsigned char *)der.data, der.len,
               options.fingerprint);
    pair_close(&pair);
    struct xy_tls_config *pinned = xy_tls_config_client(&options, &error);
    pair_open(&pair, pinned, server, "whatever.example");
    assert_true(pair_handshake(&pair));
    assert_true(xy_tls_peer_trusted(pair.client));
    pair_close(&pair);

    options.fingerprint[31] ^= 1;
    struct xy_tls_config *mistaken = xy_tls_config_client(&options, &error);
    expect_refused(mistaken, server, "example.org",
                   "the peer is not trusted: its certificate is not the pinned one");
    xy_tls_config_unref(&insecure);
    xy_tls_config_unref(&pinned);
    xy_tls_config_unref(&mistaken);
    xy_tls_config_unref(&server);
    made_free(&made);
}

static void test_certificate_by_name(void **state)
{
    (void)state;
    struct made first, second;
    struct pair pair;
    struct xy_tls_error error;
    unsigned char client_binding[XY_TLS_BINDING_MAX], server_binding[XY_TLS_BINDING_MAX];
    made_now(&first, "a.example");
    made_now(&second, "b.example");
    struct xy_tls_certificate both[] = { first.certificate, second.certificate };
    both[0].domain = "a.example";
    both[1].domain = "b.example";
    struct xy_tls_server_options options = { .library = server_library,
                                             .certificates = both,
                                             .certificate_count = 2 };
    struct xy_tls_config *server = xy_tls_config_server(&options, &error);
    assert_non_null(server);
    struct xy_tls_config *for_a = config_client(&first), *for_b = config_client(&second);
    expect_accepted(for_a, server, "a.example");
    pair_open(&pair, for_b, server, "b.example");
    assert_true(pair_handshake(&pair));
    assert_int_equal(xy_tls_server_end_point(pair.client, client_binding), 32);
    assert_int_equal(xy_tls_server_end_point(pair.server, server_binding), 32);
    assert_memory_equal(client_binding, server_binding, 32); /* of the chosen certificate */
    pair_close(&pair);
    expect_accepted(for_a, server, "second.example.org"); /* an unknown name: the first */
    xy_tls_config_unref(&for_a);
    xy_tls_config_unref(&for_b);
    xy_tls_config_unref(&server);
    made_free(&first);
    made_free(&second);
}

/* The one chosen by name is shown alone, also to a client that would take the first one's kind. */
static void test_certificates_of_two_kinds(void **state)
{
    (void)state;
    struct made elliptic;
    struct pair pair;
    struct xy_tls_error error;
    made_now(&elliptic, "example.org");
    struct xy_tls_certificate both[] = {
        elliptic.certificate,
        { .domain = "rsa.example",
          .chain_file = "tests/data/tls/rsa.pem",
          .key_file = "tests/data/tls/rsa-key.pem" },
    };
    struct xy_tls_server_options s = { .library = server_library,
                                       .certificates = both,
                                       .certificate_count = 2 };
    struct xy_tls_client_options c = { .library = client_library, .ca_file = "tests/data/tls/rsa.pem" };
    struct xy_tls_config *server = xy_tls_config_server(&s, &error),
                         *client = xy_tls_config_client(&c, &error), *other = config_client(&elliptic);
    assert_non_null(server);
    assert_non_null(client);
    pair_open(&pair, client, server, "rsa.example");
    assert_true(pair_handshake(&pair));
    if (strcmp(xy_tls_version(pair.client), "TLSv1.2") == 0) /* later ones do not tell the kind of key */
        assert_string_equal(xy_tls_cipher(pair.client), "TLS-ECDHE-RSA-WITH-AES-128-GCM-SHA256");
    assert_true(xy_tls_certificate_covers(xy_tls_peer_certificate(pair.client), XY_STR("rsa.example")));
    pair_close(&pair);
    expect_accepted(other, server, "example.org");
    xy_tls_config_unref(&server);
    xy_tls_config_unref(&client);
    xy_tls_config_unref(&other);
    made_free(&elliptic);
}

static struct xy_tls_config *server_asking(const struct made *made, const char *ca_file, struct xy_str ca_pem)
{
    struct xy_tls_error error;
    struct xy_tls_server_options options = { .library = server_library,
                                             .certificates = &made->certificate,
                                             .certificate_count = 1,
                                             .client_ca_file = ca_file,
                                             .client_ca_pem = ca_pem };
    struct xy_tls_config *config = xy_tls_config_server(&options, &error);
    assert_non_null(config);
    return config;
}

static void test_client_certificates(void **state)
{
    (void)state;
    struct made made;
    struct pair pair;
    struct xy_tls_error error;
    struct xy_buf ticket = { 0 };
    made_now(&made, "example.org");
    struct xy_tls_certificate own = { .chain_file = "tests/data/tls/client.pem",
                                      .key_file = "tests/data/tls/client-key.pem" };
    struct xy_tls_client_options options = { .library = client_library,
                                             .ca_pem = xy_buf_view(&made.chain),
                                             .certificate = &own };
    struct xy_tls_config *client = xy_tls_config_client(&options, &error), *plain = config_client(&made);
    struct xy_tls_config *server = server_asking(&made, "tests/data/tls/client-ca.pem", XY_STR_NONE);
    struct xy_tls_config *wary = server_asking(&made, NULL, xy_buf_view(&made.chain)),
                         *incurious = config_server(&made);
    assert_non_null(client);

    pair_open(&pair, client, server, "example.org");
    assert_true(pair_handshake(&pair));
    assert_true(xy_tls_peer_trusted(pair.server));
    struct xy_tls_names names;
    struct xy_tls_name name;
    assert_true(xy_tls_names_open(&names, xy_tls_peer_certificate(pair.server)));
    assert_true(xy_tls_names_next(&names, &name));
    assert_str(name.value, "juliet@example.org");
    pair_line(&pair, pair.server, pair.client, "<features/>");
    assert_true(xy_tls_session_save(pair.client, &ticket));
    pair_close(&pair);

    pair_open(&pair, client, server, "example.org"); /* resumed: still the same client */
    assert_true(xy_tls_session_restore(pair.client, xy_buf_view(&ticket)));
    assert_true(pair_handshake(&pair));
    assert_true(xy_tls_resumed(pair.server));
    assert_true(xy_tls_peer_trusted(pair.server));
    assert_true(xy_tls_names_open(&names, xy_tls_peer_certificate(pair.server)));
    pair_close(&pair);

    pair_open(&pair, client, wary, "example.org"); /* another CA: connected, but not believed */
    assert_true(pair_handshake(&pair));
    assert_false(xy_tls_peer_trusted(pair.server));
    assert_string_equal(xy_tls_peer_problem(pair.server),
                        "its certificate is not signed by a trusted authority");
    pair_close(&pair);

    pair_open(&pair, plain, server, "example.org");
    assert_true(pair_handshake(&pair));
    assert_false(xy_tls_peer_trusted(pair.server));
    assert_string_equal(xy_tls_peer_problem(pair.server), "it showed no certificate");
    pair_close(&pair);

    pair_open(&pair, client, incurious, "example.org"); /* has one, and is not asked */
    assert_true(pair_handshake(&pair));
    assert_absent(xy_tls_peer_certificate(pair.server));
    assert_false(xy_tls_peer_trusted(pair.server));
    assert_string_equal(xy_tls_peer_problem(pair.server), "no certificate was asked for");
    pair_close(&pair);
    xy_buf_free(&ticket);
    xy_tls_config_unref(&client);
    xy_tls_config_unref(&plain);
    xy_tls_config_unref(&server);
    xy_tls_config_unref(&wary);
    xy_tls_config_unref(&incurious);
    made_free(&made);
}

static void test_alpn(void **state)
{
    (void)state;
    static const char *const xmpp[] = { "xmpp-client", NULL }, *const http[] = { "h2", NULL };
    struct made made;
    struct pair pair;
    struct xy_tls_error error;
    made_now(&made, "example.org");
    struct xy_tls_server_options s = {
        .library = server_library, .certificates = &made.certificate, .certificate_count = 1, .alpn = xmpp
    };
    struct xy_tls_client_options c = { .library = client_library,
                                       .ca_pem = xy_buf_view(&made.chain),
                                       .alpn = xmpp };
    struct xy_tls_config *server = xy_tls_config_server(&s, &error),
                         *client = xy_tls_config_client(&c, &error);
    c.alpn = http;
    struct xy_tls_config *other = xy_tls_config_client(&c, &error);
    pair_open(&pair, client, server, "example.org");
    assert_true(pair_handshake(&pair));
    assert_string_equal(xy_tls_alpn(pair.client), "xmpp-client");
    assert_string_equal(xy_tls_alpn(pair.server), "xmpp-client");
    pair_close(&pair);
    pair_open(&pair, other, server, "example.org");
    assert_false(pair_handshake(&pair));
    pair_close(&pair);
    xy_tls_config_unref(&server);
    xy_tls_config_unref(&client);
    xy_tls_config_unref(&other);
    made_free(&made);
}

#if MBEDTLS_VERSION_MAJOR < 3

struct raw_client {
    mbedtls_ssl_context ssl;
    mbedtls_ssl_config config;
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context drbg;
    struct xy_tls *server;
};

static int raw_send(void *ctx, const unsigned char *data, size_t len)
{
    struct raw_client *raw = ctx;
    xy_tls_receive(raw->server, data, len);
    return (int)len;
}

static int raw_receive(void *ctx, unsigned char *data, size_t len)
{
    struct raw_client *raw = ctx;
    struct xy_str out = xy_tls_output(raw->server);
    size_t n = out.len < len ? out.len : len;
    if (n == 0)
        return MBEDTLS_ERR_SSL_WANT_READ;
    memcpy(data, out.data, n);
    xy_tls_output_consumed(raw->server, n);
    return (int)n;
}

/* A client that is not ours. */
static void raw_init(struct raw_client *raw, struct xy_tls_config *config)
{
    *raw = (struct raw_client){ .server = xy_tls_new(config, NULL) };
    mbedtls_ssl_init(&raw->ssl);
    mbedtls_ssl_config_init(&raw->config);
    mbedtls_entropy_init(&raw->entropy);
    mbedtls_ctr_drbg_init(&raw->drbg);
    assert_int_equal(mbedtls_ctr_drbg_seed(&raw->drbg, mbedtls_entropy_func, &raw->entropy, NULL, 0), 0);
    mbedtls_ssl_config_defaults(&raw->config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM, 0);
    mbedtls_ssl_conf_rng(&raw->config, mbedtls_ctr_drbg_random, &raw->drbg);
    mbedtls_ssl_conf_authmode(&raw->config, MBEDTLS_SSL_VERIFY_NONE);
}

static void raw_free(struct raw_client *raw)
{
    mbedtls_ssl_free(&raw->ssl);
    mbedtls_ssl_config_free(&raw->config);
    mbedtls_ctr_drbg_free(&raw->drbg);
    mbedtls_entropy_free(&raw->entropy);
    xy_tls_free(&raw->server);
}

/* How the server's side ended. */
static enum xy_tls_status raw_handshake(struct raw_client *raw)
{
    assert_int_equal(mbedtls_ssl_setup(&raw->ssl, &raw->config), 0);
    mbedtls_ssl_set_bio(&raw->ssl, raw, raw_send, raw_receive, NULL);
    enum xy_tls_status status = XY_TLS_WANT_MORE;
    for (int turn = 0; turn < 50 && status != XY_TLS_DONE && status != XY_TLS_FAILED; turn++) {
        mbedtls_ssl_handshake(&raw->ssl);
        status = xy_tls_handshake(raw->server);
    }
    return status;
}

/* `prose`: why the server's side failed; NULL: it must not. */
static void expect_raw(struct xy_tls_config *config, int minor_version, const int *suites,
                       mbedtls_ecp_group_id *curves, const char *prose)
{
    struct raw_client raw;
    raw_init(&raw, config);
    mbedtls_ssl_conf_max_version(&raw.config, MBEDTLS_SSL_MAJOR_VERSION_3, minor_version);
    if (suites != NULL)
        mbedtls_ssl_conf_ciphersuites(&raw.config, suites);
    if (curves != NULL)
        mbedtls_ssl_conf_curves(&raw.config, curves);
    assert_int_equal(raw_handshake(&raw), prose == NULL ? XY_TLS_DONE : XY_TLS_FAILED);
    assert_string_equal(xy_tls_error(raw.server), prose == NULL ? "" : prose);
    raw_free(&raw);
}

static void test_old_protocols_suites_and_curves_are_refused(void **state)
{
    (void)state;
    static const int cbc[] = { MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, 0 };
    static const int chacha[] = { MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, 0 };
    static const int rsa[] = { MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, 0 };
    static const char no_version[] = "the peer does not speak TLS 1.2";
    static const char no_suite[] = "the peer offers no cipher suite with forward secrecy that we accept";
    static const char no_fit[] = "the peer offers no cipher suite that fits our certificate";
    mbedtls_ecp_group_id p521[] = { MBEDTLS_ECP_DP_SECP521R1, MBEDTLS_ECP_DP_NONE };
    mbedtls_ecp_group_id p256[] = { MBEDTLS_ECP_DP_SECP256R1, MBEDTLS_ECP_DP_NONE };
    struct made made;
    made_now(&made, "example.org");
    struct xy_tls_config *server = config_server(&made);
    expect_raw(server, MBEDTLS_SSL_MINOR_VERSION_3, NULL, NULL, NULL);
    expect_raw(server, MBEDTLS_SSL_MINOR_VERSION_2, NULL, NULL, no_version);
    expect_raw(server, MBEDTLS_SSL_MINOR_VERSION_1, NULL, NULL, no_version);
    expect_raw(server, MBEDTLS_SSL_MINOR_VERSION_3, cbc, NULL, no_suite);
    expect_raw(server, MBEDTLS_SSL_MINOR_VERSION_3, rsa, NULL, no_fit);
    expect_raw(server, MBEDTLS_SSL_MINOR_VERSION_3, chacha, NULL, NULL);
    expect_raw(server, MBEDTLS_SSL_MINOR_VERSION_3, NULL, p521, no_fit);
    expect_raw(server, MBEDTLS_SSL_MINOR_VERSION_3, NULL, p256, NULL);
    xy_tls_config_unref(&server);
    made_free(&made);
}

/* A client that asks for a second handshake is told no, in one alert. */
static void test_renegotiation_is_refused(void **state)
{
    (void)state;
    struct made made;
    struct raw_client raw;
    char plain[64];
    size_t len;
    made_now(&made, "example.org");
    struct xy_tls_config *server = config_server(&made);
    raw_init(&raw, server);
    mbedtls_ssl_conf_renegotiation(&raw.config, MBEDTLS_SSL_RENEGOTIATION_ENABLED);
    assert_int_equal(raw_handshake(&raw), XY_TLS_DONE);
    mbedtls_ssl_handshake(&raw.ssl); /* the server's last words */
    assert_int_equal(xy_tls_output(raw.server).len, 0);
    mbedtls_ssl_renegotiate(&raw.ssl);
    assert_int_equal(xy_tls_read(raw.server, plain, sizeof plain, &len), XY_TLS_WANT_MORE);
    assert_in_range(xy_tls_output(raw.server).len, 7, 64);
    raw_free(&raw);
    xy_tls_config_unref(&server);
    made_free(&made);
}

#else

static void test_renegotiation_is_refused(void **state)
{
    (void)state;
    skip();
}

static void test_old_protocols_suites_and_curves_are_refused(void **state)
{
    (void)state;
    skip(); /* this library cannot speak them at all */
}

#endif

static void expect_error(struct xy_tls_certificate certificate, const char *prose)
{
    struct xy_tls_error error;
    struct xy_tls_server_options options = { .library = server_library,
                                             .certificates = &certificate,
                                             .certificate_count = 1 };
    assert_null(xy_tls_config_server(&options, &error));
    if (strstr(error.text, prose) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error.text, prose);
}

static void test_errors_name_the_file_and_the_reason(void **state)
{
    (void)state;
    static const char chain[] = "tests/data/tls/client.pem", key[] = "tests/data/tls/client-key.pem";
    struct xy_tls_error error;
    struct made made;
    made_now(&made, "example.org");
    expect_error((struct xy_tls_certificate){ .chain_file = "/nowhere/a.pem", .key_file = key },
                 "cannot open /nowhere/a.pem: No such file");
    expect_error((struct xy_tls_certificate){ .chain_file = chain, .key_file = "/nowhere/k.pem" },
                 "cannot open /nowhere/k.pem: No such file");
    expect_error((struct xy_tls_certificate){ .chain_file = "tests/data", .key_file = key },
                 "tests/data is not a regular file");
    expect_error((struct xy_tls_certificate){ .chain_file = "tests/CMakeLists.txt", .key_file = key },
                 "tests/CMakeLists.txt holds no certificate in PEM");
    expect_error((struct xy_tls_certificate){ .chain_file = chain, .key_file = chain },
                 "tests/data/tls/client.pem holds no private key in PEM");
    expect_error((struct xy_tls_certificate){ .chain_file = chain,
                                              .key_file = "tests/data/tls/key-with-password.pem" },
                 "key-with-password.pem is protected by a password");
    expect_error((struct xy_tls_certificate){ .chain_pem = xy_buf_view(&made.chain), .key_file = key },
                 "client-key.pem does not match the first certificate of the chain");
    expect_error((struct xy_tls_certificate){ .chain_file = chain }, "no file and no text given for the key");

    struct xy_tls_client_options options = { .library = client_library, .ca_file = "/nowhere/ca.pem" };
    assert_null(xy_tls_config_client(&options, &error));
    assert_string_equal(error.text, "cannot open /nowhere/ca.pem: No such file or directory");
    struct xy_tls_server_options asking = { .library = server_library,
                                            .certificates = &made.certificate,
                                            .certificate_count = 1,
                                            .client_ca_file = "/nowhere/clients.pem" };
    assert_null(xy_tls_config_server(&asking, &error));
    assert_string_equal(error.text, "cannot open /nowhere/clients.pem: No such file or directory");

    xy_buf_lit(&made.chain, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    expect_error((struct xy_tls_certificate){ .chain_pem = xy_buf_view(&made.chain),
                                              .key_pem = xy_buf_view(&made.key) },
                 "the certificate: 1 of its certificates cannot be read");
    made_free(&made);
}

static void test_self_signed_limits(void **state)
{
    (void)state;
    const char *domains[XY_TLS_DOMAINS_MAX + 1];
    char label[XY_TLS_DOMAINS_MAX + 1][256];
    struct xy_env env = { .wall_us = pair_wall, .ctx = &(struct pair_env){ .wall_us = 1 } };
    struct xy_buf chain = { 0 }, key = { 0 };
    struct xy_tls_error error;
    for (size_t i = 0; i <= XY_TLS_DOMAINS_MAX; i++) {
        snprintf(label[i], sizeof label[i], "%03zu%0250d", i, 1);
        domains[i] = label[i];
    }
    env.ctx = &(struct pair_env){ .wall_us = (uint64_t)time(NULL) * 1000000 };
    if (!xy_tls_self_signed(server_library, &env, domains, XY_TLS_DOMAINS_MAX, &chain, &key, &error))
        fail_msg("%s", error.text);
    assert_false(
        xy_tls_self_signed(server_library, &env, domains, XY_TLS_DOMAINS_MAX + 1, &chain, &key, &error));
    assert_false(xy_tls_self_signed(server_library, &env, domains, 0, &chain, &key, &error));
    assert_non_null(strstr(error.text, "not 0"));
    snprintf(label[0], sizeof label[0], "%0254d", 1);
    assert_false(xy_tls_self_signed(server_library, &env, domains, 1, &chain, &key, &error));
    assert_non_null(strstr(error.text, "domain names"));
    domains[0] = "";
    assert_false(xy_tls_self_signed(server_library, &env, domains, 1, &chain, &key, &error));
    xy_buf_free(&chain);
    xy_buf_free(&key);
}

static void test_long_host_names(void **state)
{
    (void)state;
    char host[300];
    struct made made;
    made_now(&made, "example.org");
    struct xy_tls_config *client = config_client(&made);
    snprintf(host, sizeof host, "%0260d", 1);
    struct xy_tls *tls = xy_tls_new(client, host);
    assert_non_null(tls);
    assert_int_equal(xy_tls_handshake(tls), XY_TLS_FAILED);
    assert_string_equal(xy_tls_error(tls), "the host name is longer than DNS allows");
    xy_tls_free(&tls);
    xy_tls_config_unref(&client);
    made_free(&made);
}

int main(void)
{
    xy_tls_warm_up();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trust_in_a_ca),
        cmocka_unit_test(test_validity),
        cmocka_unit_test(test_system_store_refuses_self_signed),
        cmocka_unit_test(test_pinned_and_insecure),
        cmocka_unit_test(test_certificate_by_name),
        cmocka_unit_test(test_certificates_of_two_kinds),
        cmocka_unit_test(test_client_certificates),
        cmocka_unit_test(test_alpn),
        cmocka_unit_test(test_old_protocols_suites_and_curves_are_refused),
        cmocka_unit_test(test_renegotiation_is_refused),
        cmocka_unit_test(test_errors_name_the_file_and_the_reason),
        cmocka_unit_test(test_self_signed_limits),
        cmocka_unit_test(test_long_host_names),
    };
    int failed = 0;
    while (libraries_next())
        failed += cmocka_run_group_tests_name(libraries_name(), tests, NULL, NULL);
    return failed;
}
