/* SCRAM: the vectors of RFC 5802 and RFC 7677 in both roles, credentials, and every way to get a message wrong. */
#include "tests/unit/unit.h"

#include "core/base/encoding.h"
#include "core/sasl/internal.h"

static void random_fill(void *ctx, void *out, size_t len)
{
    uint64_t *state = ctx;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)out)[i] = (uint8_t)(unit_random(state) >> 32);
}

static uint64_t seed = 7;
static const struct xy_env env = { .random = random_fill, .ctx = &seed };

#define SECRET XY_STR("sixteen bytes or more")

struct vector {
    enum xy_sasl_mechanism mechanism;
    const char *salt, *client_nonce, *server_nonce, *client_first, *server_first, *client_final,
        *server_final;
};

static const struct vector rfc5802 = {
    XY_SASL_SCRAM_SHA_1,
    "QSXCR+Q6sek8bf92",
    "fyko+d2lbbFgONRv9qkxdawL",
    "3rfcNHYJY1ZVvWVs7j",
    "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
    "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
    "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
};

static const struct vector rfc7677 = {
    XY_SASL_SCRAM_SHA_256,
    "W22ZaJ0SNY7soEsUEjb6gQ==",
    "rOprNGfwEbeRWgbNEkqO",
    "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
    "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+"
    "Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
};

static struct xy_scram_keys keys_of(const struct vector *v, const char *password)
{
    struct xy_scram_keys keys;
    struct xy_buf salt = { 0 };
    assert_true(xy_base64_decode(&salt, xy_str(v->salt)));
    enum xy_scram_hash hash = scram_hash_of(v->mechanism);
    assert_true(xy_scram_keys_derive(hash, xy_str(password), xy_buf_view(&salt), 4096, &keys));
    xy_buf_free(&salt);
    return keys;
}

static struct xy_sasl_server *server_new(unsigned offered, const struct xy_sasl_binding *binding)
{
    struct xy_sasl_server_options options = { .env = &env, .secret = SECRET, .offered = offered };
    options.bindings = binding;
    options.bindings_count = binding != NULL;
    return xy_sasl_server_new(&options);
}

static struct xy_sasl_client *client_new(const char *password)
{
    struct xy_sasl_client_options options = { .env = &env,
                                              .user = XY_STR("user"),
                                              .password = xy_str(password) };
    return xy_sasl_client_new(&options);
}

static void server_vector(const struct vector *v)
{
    struct xy_scram_keys keys = keys_of(v, "pencil");
    struct xy_sasl_server *server = server_new((unsigned)v->mechanism, NULL);
    xy_sasl_server_set_nonce(server, xy_str(v->server_nonce));
    struct xy_sasl_result r = xy_sasl_server_start(server, v->mechanism, xy_str(v->client_first));
    assert_int_equal(r.step, XY_SASL_NEED_KEYS);
    assert_str(r.user, "user");
    assert_absent(r.authzid);
    r = xy_sasl_server_keys(server, &keys);
    assert_int_equal(r.step, XY_SASL_CONTINUE);
    assert_str(r.out, v->server_first);
    r = xy_sasl_server_step(server, xy_str(v->client_final));
    assert_int_equal(r.step, XY_SASL_DONE);
    assert_str(r.out, v->server_final);
    assert_int_equal(xy_sasl_server_step(server, xy_str(v->client_final)).step, XY_SASL_FAIL);
    xy_sasl_server_free(&server);
    assert_null(server);
}

static void client_vector(const struct vector *v)
{
    for (int with_success = 0; with_success < 2; with_success++) {
        struct xy_sasl_client *client = client_new("pencil");
        xy_sasl_client_set_nonce(client, xy_str(v->client_nonce));
        struct xy_sasl_result r = xy_sasl_client_start(client, v->mechanism);
        assert_int_equal(r.step, XY_SASL_CONTINUE);
        assert_str(r.out, v->client_first);
        r = xy_sasl_client_step(client, xy_str(v->server_first));
        assert_int_equal(r.step, XY_SASL_CONTINUE);
        assert_str(r.out, v->client_final);
        if (with_success) {
            r = xy_sasl_client_success(client, xy_str(v->server_final));
        } else {
            r = xy_sasl_client_step(client, xy_str(v->server_final));
            assert_int_equal(r.step, XY_SASL_CONTINUE);
            assert_str(r.out, "");
            r = xy_sasl_client_success(client, XY_STR_NONE);
        }
        assert_int_equal(r.step, XY_SASL_DONE);
        xy_sasl_client_free(&client);
    }
}

static void test_vectors(void **state)
{
    (void)state;
    server_vector(&rfc5802);
    server_vector(&rfc7677);
    client_vector(&rfc5802);
    client_vector(&rfc7677);
}

/* --- Credentials --- */

static void test_credentials(void **state)
{
    (void)state;
    struct xy_scram_keys keys;
    struct xy_str salt = XY_STR("0123456789abcdef");
    assert_true(xy_scram_keys_new(&env, XY_SCRAM_SHA_256, XY_STR("pencil"), &keys));
    assert_int_equal(keys.iterations, XY_SCRAM_ITERATIONS_DEFAULT);
    assert_int_equal(keys.salt_len, XY_SCRAM_SALT_DEFAULT);
    assert_true(xy_scram_check_password(&keys, XY_STR("pencil")));
    assert_false(xy_scram_check_password(&keys, XY_STR("Pencil")));
    assert_false(xy_scram_check_password(&keys, XY_STR("")));
    assert_false(xy_scram_keys_derive(XY_SCRAM_SHA_1, XY_STR("p"), salt, XY_SCRAM_ITERATIONS_MIN - 1, &keys));
    assert_true(xy_scram_keys_derive(XY_SCRAM_SHA_1, XY_STR("p"), salt, XY_SCRAM_ITERATIONS_MIN, &keys));
    assert_false(xy_scram_keys_derive(XY_SCRAM_SHA_1, XY_STR("p"), salt, XY_SCRAM_ITERATIONS_MAX + 1, &keys));
    assert_int_equal(keys.iterations, 0);
    assert_false(xy_scram_keys_derive(XY_SCRAM_SHA_1, XY_STR("p"), XY_STR(""), 4096, &keys));
    char long_salt[XY_SCRAM_SALT_MAX + 1] = "x";
    assert_true(xy_scram_keys_derive(XY_SCRAM_SHA_1, XY_STR("p"), xy_str_n(long_salt, 64), 4096, &keys));
    assert_false(xy_scram_keys_derive(XY_SCRAM_SHA_1, XY_STR("p"), xy_str_n(long_salt, 65), 4096, &keys));
    assert_false(xy_scram_keys_derive((enum xy_scram_hash)3, XY_STR("p"), salt, 4096, &keys));
    char password[XY_SASL_PASSWORD_MAX + 1];
    memset(password, 'x', sizeof password);
    assert_true(
        xy_scram_keys_derive(XY_SCRAM_SHA_1, xy_str_n(password, XY_SASL_PASSWORD_MAX), salt, 4096, &keys));
    assert_false(
        xy_scram_keys_derive(XY_SCRAM_SHA_1, xy_str_n(password, sizeof password), salt, 4096, &keys));
}

static void assert_prep(const char *in, const char *out)
{
    struct xy_buf buf = { 0 };
    bool ok = sasl_prep(&buf, xy_str(in), 100, true);
    assert_int_equal(ok, out != NULL);
    if (out)
        assert_str(xy_buf_view(&buf), out);
    sasl_buf_wipe(&buf);
}

/* RFC 4013 section 3 */
static void test_saslprep(void **state)
{
    (void)state;
    assert_prep("I\xc2\xadX", "IX");
    assert_prep("user", "user");
    assert_prep("USER", "USER");
    assert_prep("\xc2\xaa", "a");
    assert_prep("\xe2\x85\xa8", "IX");
    assert_prep("\x07", NULL);
    assert_prep("\xd8\xa7\x31", NULL);
    assert_prep("", NULL);
    assert_prep("\xc2\xad", NULL); /* maps to nothing */
    assert_prep("\xff", NULL);
    assert_prep("\xc0\x80", NULL);
    struct xy_buf buf = { 0 };
    assert_false(sasl_prep(&buf, xy_str_n("a\0b", 3), 100, true));
    assert_false(sasl_prep(&buf, XY_STR("abc"), 2, true));
    /* one character that becomes eighteen: bounded by the limit, not by its input */
    assert_false(sasl_prep(&buf, XY_STR("\xef\xb7\xba"), 4, true));
    assert_true(sasl_prep(&buf, XY_STR("\xef\xb7\xba"), 100, true));
    xy_buf_free(&buf);
}

/* Hostile input 30: somebody who does not exist looks the same, twice. */
static void test_unknown_user(void **state)
{
    (void)state;
    struct xy_scram_keys one, two, other;
    char first_answer[2][200];
    xy_scram_keys_fake(SECRET, XY_SCRAM_SHA_256, XY_STR("nobody"), &one);
    xy_scram_keys_fake(SECRET, XY_SCRAM_SHA_256, XY_STR("nobody"), &two);
    xy_scram_keys_fake(SECRET, XY_SCRAM_SHA_256, XY_STR("nobodz"), &other);
    assert_memory_equal(&one, &two, sizeof one);
    assert_memory_not_equal(one.salt, other.salt, XY_SCRAM_SALT_DEFAULT);
    assert_int_equal(one.salt_len, XY_SCRAM_SALT_DEFAULT);
    assert_int_equal(one.iterations, XY_SCRAM_ITERATIONS_DEFAULT);
    for (int i = 0; i < 2; i++) {
        struct xy_sasl_server *server = server_new(XY_SASL_SCRAM_SHA_256, NULL);
        struct xy_sasl_client *client = client_new("pencil");
        xy_sasl_server_set_nonce(server, XY_STR("server"));
        xy_sasl_client_set_nonce(client, XY_STR("client"));
        struct xy_sasl_result r = xy_sasl_client_start(client, XY_SASL_SCRAM_SHA_256);
        r = xy_sasl_server_start(server, XY_SASL_SCRAM_SHA_256, r.out);
        assert_int_equal(r.step, XY_SASL_NEED_KEYS);
        r = xy_sasl_server_keys(server, NULL);
        assert_int_equal(r.step, XY_SASL_CONTINUE);
        assert_true(r.out.len < sizeof first_answer[i]);
        memset(first_answer[i], 0, sizeof first_answer[i]);
        memcpy(first_answer[i], r.out.data, r.out.len);
        r = xy_sasl_client_step(client, r.out);
        assert_int_equal(r.step, XY_SASL_CONTINUE);
        r = xy_sasl_server_step(server, r.out);
        assert_int_equal(r.step, XY_SASL_FAIL);
        assert_int_equal(r.condition, XY_SASL_NOT_AUTHORIZED);
        xy_sasl_server_free(&server);
        xy_sasl_client_free(&client);
    }
    assert_string_equal(first_answer[0], first_answer[1]);
}

/* Keys of the other hash are as good as none. */
static void test_keys_of_other_hash(void **state)
{
    (void)state;
    struct xy_scram_keys keys = keys_of(&rfc5802, "pencil");
    struct xy_sasl_server *server = server_new(XY_SASL_SCRAM_SHA_256, NULL);
    xy_sasl_server_start(server, XY_SASL_SCRAM_SHA_256, XY_STR("n,,n=user,r=abc"));
    struct xy_sasl_result r = xy_sasl_server_keys(server, &keys);
    assert_int_equal(r.step, XY_SASL_CONTINUE);
    assert_non_null(strstr(r.out.data, "i=10000"));
    xy_sasl_server_free(&server);
}

/* --- Hostile input 31, 32: first message --- */

static void test_bad_first(void **state)
{
    (void)state;
    static const char *const malformed[] = {
        "",
        ",",
        "n",
        "n,",
        "n,,",
        "n,,n=user",
        "n,,r=abc,n=user",
        "n,,n=user,r=",
        "n,,n=,r=abc",
        "n,,n=user,r=abc,",
        "n,,m=ext,n=user,r=abc",
        "n,,n=user,m=ext,r=abc",
        "n,,n=user,n=user,r=abc",
        "n,,n=user,r=abc,r=abc",
        "n,,n=user,r=abc,n=user",
        "n,,n=user,r=abc,x",
        "n,,n=user,r=abc,x=",
        "n,,n=user,r=abc,1=x",
        "n,,n=us=er,r=abc",
        "n,,n=us=2c,r=abc",
        "n,,n=us=,r=abc",
        "x,,n=user,r=abc",
        "nn,,n=user,r=abc",
        ",,n=user,r=abc",
        "n,user,n=user,r=abc",
        "n,a=,n=user,r=abc",
        "n,a==x,n=user,r=abc",
        "p,,n=user,r=abc",
        "p=,,n=user,r=abc",
        "p=a b,,n=user,r=abc",
        "n,,n=user,r=a\x7f",
        "n,,n=user,r=a b",
        "n,,n=\xff,r=abc",
        "n=user,r=abc",
        "n,n=user,r=abc",
        "n,,n=user,r=abc,x=\xc0\x80",
        "n,,N=user,r=abc",
        "n,,n=user,R=abc",
        "y",
        "n,,n=user,p=abc",
    };
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        struct xy_sasl_server *server = server_new(XY_SASL_SCRAM_SHA_1, NULL);
        struct xy_sasl_result r = xy_sasl_server_start(server, XY_SASL_SCRAM_SHA_1, xy_str(malformed[i]));
        if (r.step != XY_SASL_FAIL || r.condition != XY_SASL_MALFORMED_REQUEST)
            fail_msg("accepted: %s (%d %s)", malformed[i], r.step, r.text ? r.text : "");
        xy_sasl_server_free(&server);
    }
    static const char *const good[] = { "n,,n=user,r=abc", "y,,n=user,r=abc", "n,a=other,n=user,r=abc",
                                        "n,,n=a=2Cb=3Dc,r=abc", "n,,n=user,r=abc,x=y,z=1=2" };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct xy_sasl_server *server = server_new(XY_SASL_SCRAM_SHA_1, NULL);
        struct xy_sasl_result r = xy_sasl_server_start(server, XY_SASL_SCRAM_SHA_1, xy_str(good[i]));
        assert_int_equal(r.step, XY_SASL_NEED_KEYS);
        if (i == 2)
            assert_str(r.authzid, "other");
        if (i == 3)
            assert_str(r.user, "a,b=c");
        xy_sasl_server_free(&server);
    }
}

static void test_first_limits(void **state)
{
    (void)state;
    char message[4 * XY_SASL_MESSAGE_MAX];
    for (size_t extra = 0; extra < 2; extra++) {
        memset(message, 'x', sizeof message);
        memcpy(message, "n,,n=user,r=", 12);
        struct xy_sasl_server *server = server_new(XY_SASL_SCRAM_SHA_1, NULL);
        size_t len = 12 + XY_SASL_NONCE_MAX + extra;
        struct xy_sasl_result r = xy_sasl_server_start(server, XY_SASL_SCRAM_SHA_1, xy_str_n(message, len));
        assert_int_equal(r.step, extra ? XY_SASL_FAIL : XY_SASL_NEED_KEYS);
        xy_sasl_server_free(&server);

        memset(message, 'x', sizeof message);
        memcpy(message, "n,,n=", 5);
        len = 5 + XY_SASL_NAME_MAX + extra;
        memcpy(message + len, ",r=abc", 6);
        server = server_new(XY_SASL_SCRAM_SHA_1, NULL);
        r = xy_sasl_server_start(server, XY_SASL_SCRAM_SHA_1, xy_str_n(message, len + 6));
        assert_int_equal(r.step, extra ? XY_SASL_FAIL : XY_SASL_NEED_KEYS);
        xy_sasl_server_free(&server);
    }
    struct xy_sasl_server *server = server_new(XY_SASL_SCRAM_SHA_1, NULL);
    struct xy_sasl_result r =
        xy_sasl_server_start(server, XY_SASL_SCRAM_SHA_1, xy_str_n(message, XY_SASL_MESSAGE_MAX + 1));
    assert_int_equal(r.step, XY_SASL_FAIL);
    xy_sasl_server_free(&server);
}

static void test_bad_final(void **state)
{
    (void)state;
    static const struct {
        const char *message;
        enum xy_sasl_condition condition;
    } cases[] = {
        { "", XY_SASL_MALFORMED_REQUEST },
        { "c=biws", XY_SASL_MALFORMED_REQUEST },
        { "c=biws,r=clientserver", XY_SASL_MALFORMED_REQUEST },
        { "c=biws,r=clientserver,p=", XY_SASL_MALFORMED_REQUEST },
        { "r=clientserver,c=biws,p=AAAA", XY_SASL_MALFORMED_REQUEST },
        { "c=biws,p=AAAA,r=clientserver", XY_SASL_MALFORMED_REQUEST },
        { "c=biws,r=clientserver,p=AAAA,x=y", XY_SASL_MALFORMED_REQUEST },
        { "c=biws,r=clientserver,p=AAAA,", XY_SASL_MALFORMED_REQUEST },
        { "c=biws,r=clientserver,m=x,p=AAAA", XY_SASL_MALFORMED_REQUEST },
        { "c=biws,c=biws,r=clientserver,p=AAAA", XY_SASL_MALFORMED_REQUEST },
        { "c=bi!s,r=clientserver,p=AAAA", XY_SASL_MALFORMED_REQUEST },
        { "c=biws,r=clientserver,p=A", XY_SASL_MALFORMED_REQUEST },
        { "c=biws,r=client,p=AAAA", XY_SASL_NOT_AUTHORIZED },
        { "c=biws,r=clientserverx,p=AAAA", XY_SASL_NOT_AUTHORIZED },
        { "c=eSws,r=clientserver,p=AAAA", XY_SASL_NOT_AUTHORIZED }, /* "y,," where "n,," was said */
        { "c=biws,r=clientserver,p=AAAA", XY_SASL_NOT_AUTHORIZED }, /* proof too short */
        { "c=biws,r=clientserver,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", XY_SASL_NOT_AUTHORIZED },
    };
    struct xy_scram_keys keys = keys_of(&rfc5802, "pencil");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct xy_sasl_server *server = server_new(XY_SASL_SCRAM_SHA_1, NULL);
        xy_sasl_server_set_nonce(server, XY_STR("server"));
        xy_sasl_server_start(server, XY_SASL_SCRAM_SHA_1, XY_STR("n,,n=user,r=client"));
        xy_sasl_server_keys(server, &keys);
        struct xy_sasl_result r = xy_sasl_server_step(server, xy_str(cases[i].message));
        if (r.step != XY_SASL_FAIL || r.condition != cases[i].condition)
            fail_msg("%s: %d %s", cases[i].message, r.step, xy_sasl_condition_name(r.condition));
        xy_sasl_server_free(&server);
    }
}

/* --- Channel binding --- */

static enum xy_sasl_step bound_exchange(enum xy_sasl_mechanism mechanism, const char *client_data,
                                        const char *type)
{
    enum xy_scram_hash hash = scram_hash_of(mechanism);
    struct xy_scram_keys keys;
    xy_scram_keys_derive(hash, XY_STR("pencil"), XY_STR("salt"), 4096, &keys);
    struct xy_sasl_binding ours = { "tls-exporter", XY_STR("the real channel") };
    struct xy_sasl_binding theirs = { type, xy_str(client_data) };
    struct xy_sasl_server *server = server_new(XY_SASL_SCRAM_ALL, &ours);
    struct xy_sasl_client_options options = { .env = &env,
                                              .user = XY_STR("user"),
                                              .password = XY_STR("pencil") };
    options.binding = &theirs;
    struct xy_sasl_client *client = xy_sasl_client_new(&options);
    struct xy_sasl_result r = xy_sasl_client_start(client, mechanism);
    r = xy_sasl_server_start(server, mechanism, r.out);
    if (r.step == XY_SASL_NEED_KEYS) {
        r = xy_sasl_server_keys(server, &keys);
        r = xy_sasl_client_step(client, r.out);
        assert_int_equal(r.step, XY_SASL_CONTINUE);
        r = xy_sasl_server_step(server, r.out);
    }
    if (r.step == XY_SASL_DONE)
        r = xy_sasl_client_success(client, r.out);
    xy_sasl_server_free(&server);
    xy_sasl_client_free(&client);
    return r.step;
}

static void test_binding(void **state)
{
    (void)state;
    assert_int_equal(bound_exchange(XY_SASL_SCRAM_SHA_256_PLUS, "the real channel", "tls-exporter"),
                     XY_SASL_DONE);
    assert_int_equal(bound_exchange(XY_SASL_SCRAM_SHA_1_PLUS, "the real channel", "tls-exporter"),
                     XY_SASL_DONE);
    assert_int_equal(bound_exchange(XY_SASL_SCRAM_SHA_1_PLUS, "another channel!", "tls-exporter"),
                     XY_SASL_FAIL);
    assert_int_equal(bound_exchange(XY_SASL_SCRAM_SHA_1_PLUS, "the real channel", "tls-unique"),
                     XY_SASL_FAIL);
}

/* Hostile input 32: flags that do not fit what was offered. */
static void test_downgrade(void **state)
{
    (void)state;
    static const struct {
        enum xy_sasl_mechanism mechanism;
        unsigned offered;
        const char *first;
        enum xy_sasl_step step;
    } cases[] = {
        { XY_SASL_SCRAM_SHA_1, XY_SASL_SCRAM_ALL, "y,,n=user,r=abc", XY_SASL_FAIL },
        { XY_SASL_SCRAM_SHA_1, XY_SASL_SCRAM_SHA_1, "y,,n=user,r=abc", XY_SASL_NEED_KEYS },
        { XY_SASL_SCRAM_SHA_1, XY_SASL_SCRAM_ALL, "n,,n=user,r=abc", XY_SASL_NEED_KEYS },
        { XY_SASL_SCRAM_SHA_1, XY_SASL_SCRAM_ALL, "p=tls-exporter,,n=user,r=abc", XY_SASL_FAIL },
        { XY_SASL_SCRAM_SHA_1_PLUS, XY_SASL_SCRAM_ALL, "n,,n=user,r=abc", XY_SASL_FAIL },
        { XY_SASL_SCRAM_SHA_1_PLUS, XY_SASL_SCRAM_ALL, "y,,n=user,r=abc", XY_SASL_FAIL },
        { XY_SASL_SCRAM_SHA_1_PLUS, XY_SASL_SCRAM_ALL, "p=tls-unique,,n=user,r=abc", XY_SASL_FAIL },
        { XY_SASL_SCRAM_SHA_1_PLUS, XY_SASL_SCRAM_ALL, "p=tls-exporter,,n=user,r=abc", XY_SASL_NEED_KEYS },
    };
    struct xy_sasl_binding binding = { "tls-exporter", XY_STR("channel") };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct xy_sasl_server *server = server_new(cases[i].offered, &binding);
        struct xy_sasl_result r = xy_sasl_server_start(server, cases[i].mechanism, xy_str(cases[i].first));
        assert_int_equal(r.step, cases[i].step);
        xy_sasl_server_free(&server);
    }
}

/* --- A hostile server --- */

static void test_client_refuses(void **state)
{
    (void)state;
    static const char *const firsts[] = {
        "",
        "r=other,s=QSXC,i=4096",
        "r=client,s=QSXC,i=4096",
        "r=clien,s=QSXC,i=4096",
        "r=clientX,s=,i=4096",
        "r=clientX,s=!!,i=4096",
        "r=clientX,s=QSXC,i=0",
        "r=clientX,s=QSXC,i=4095",
        "r=clientX,s=QSXC,i=1000001",
        "r=clientX,s=QSXC,i=-1",
        "r=clientX,s=QSXC,i=04096",
        "r=clientX,s=QSXC,i=99999999999",
        "r=clientX,s=QSXC",
        "m=x,r=clientX,s=QSXC,i=4096",
        "s=QSXC,r=clientX,i=4096",
        "r=clientX,s=QSXC,i=4096,",
        "r=clientX,s=QSXC,i=4096,v=x",
        "e=other-error",
    };
    for (size_t i = 0; i < sizeof firsts / sizeof firsts[0]; i++) {
        struct xy_sasl_client *client = client_new("pencil");
        xy_sasl_client_set_nonce(client, XY_STR("client"));
        xy_sasl_client_start(client, XY_SASL_SCRAM_SHA_1);
        struct xy_sasl_result r = xy_sasl_client_step(client, xy_str(firsts[i]));
        if (r.step != XY_SASL_FAIL || r.text == NULL)
            fail_msg("accepted: %s", firsts[i]);
        xy_sasl_client_free(&client);
    }
    static const char *const finals[] = { "",
                                          "v=",
                                          "v=AAAA",
                                          "e=invalid-proof",
                                          "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=,",
                                          "v=rmF9pqV8S7suAoZWja4dJRkFsKR=" };
    for (size_t i = 0; i <= sizeof finals / sizeof finals[0]; i++) {
        struct xy_sasl_client *client = client_new("pencil");
        xy_sasl_client_set_nonce(client, xy_str(rfc5802.client_nonce));
        xy_sasl_client_start(client, XY_SASL_SCRAM_SHA_1);
        xy_sasl_client_step(client, xy_str(rfc5802.server_first));
        bool absent = i == sizeof finals / sizeof finals[0];
        struct xy_sasl_result r = xy_sasl_client_success(client, absent ? XY_STR_NONE : xy_str(finals[i]));
        assert_int_equal(r.step, XY_SASL_FAIL);
        xy_sasl_client_free(&client);
    }
    /* success before anything was proved */
    struct xy_sasl_client *client = client_new("pencil");
    xy_sasl_client_start(client, XY_SASL_SCRAM_SHA_1);
    assert_int_equal(xy_sasl_client_success(client, XY_STR_NONE).step, XY_SASL_FAIL);
    xy_sasl_client_free(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_credentials),
        cmocka_unit_test(test_saslprep),
        cmocka_unit_test(test_unknown_user),
        cmocka_unit_test(test_keys_of_other_hash),
        cmocka_unit_test(test_bad_first),
        cmocka_unit_test(test_first_limits),
        cmocka_unit_test(test_bad_final),
        cmocka_unit_test(test_binding),
        cmocka_unit_test(test_downgrade),
        cmocka_unit_test(test_client_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
