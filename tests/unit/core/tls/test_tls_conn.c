/* TLS connections through memory, both roles: handshakes, data, closing, resumption, reload, channel binding. */
#include "tests/unit/core/tls/pair.h"

#define BIG (3u << 20)

struct fixture {
    struct made made;
    struct xy_tls_config *server, *client;
    struct pair pair;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    made_now(&f->made, "example.org");
    f->server = config_server(&f->made);
    f->client = config_client(&f->made);
    pair_open(&f->pair, f->client, f->server, "example.org");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    pair_close(&f->pair);
    xy_tls_config_unref(&f->server);
    xy_tls_config_unref(&f->client);
    made_free(&f->made);
    free(f);
    return 0;
}

static void reopen(struct fixture *f)
{
    pair_close(&f->pair);
    pair_open(&f->pair, f->client, f->server, "example.org");
}

static void test_handshake_in_pieces(void **state)
{
    struct fixture *f = *state;
    static const size_t pieces[] = { 1, 2, 5, 0, 16384 };
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        reopen(f);
        f->pair.piece = pieces[i];
        assert_true(pair_handshake(&f->pair));
        assert_true(xy_tls_established(f->pair.client) && xy_tls_established(f->pair.server));
        pair_line(&f->pair, f->pair.client, f->pair.server, "<stream:stream>");
        pair_line(&f->pair, f->pair.server, f->pair.client, "<stream:features/>");
    }
}

static void test_what_was_agreed(void **state)
{
    struct fixture *f = *state;
    assert_false(xy_tls_peer_trusted(f->pair.client));
    assert_true(pair_handshake(&f->pair));
    assert_string_equal(xy_tls_version(f->pair.client), libraries_have_13() ? "TLSv1.3" : "TLSv1.2");
    assert_string_equal(xy_tls_version(f->pair.server), xy_tls_version(f->pair.client));
    assert_string_equal(xy_tls_cipher(f->pair.server), libraries_have_13()
                                                           ? "TLS1-3-AES-128-GCM-SHA256"
                                                           : "TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256");
    assert_string_equal(xy_tls_error(f->pair.client), "");
    assert_null(xy_tls_alpn(f->pair.client));
    assert_false(xy_tls_resumed(f->pair.client));
    assert_false(xy_tls_resumed(f->pair.server));
    assert_true(xy_tls_peer_trusted(f->pair.client));
    assert_null(xy_tls_peer_problem(f->pair.client));
    assert_false(xy_tls_peer_trusted(f->pair.server)); /* the client showed nothing */
    assert_non_null(xy_tls_peer_problem(f->pair.server));
    assert_absent(xy_tls_peer_certificate(f->pair.server));
    assert_true(
        xy_tls_certificate_covers(xy_tls_peer_certificate(f->pair.client), XY_STR("second.example.org")));
}

/* The handshake never makes more than one costly step per call. */
static void test_handshake_yields_after_costly_steps(void **state)
{
    struct fixture *f = *state;
    size_t yields = 0;
    do {
        while ((f->pair.client_status = xy_tls_handshake(f->pair.client)) == XY_TLS_AGAIN)
            continue;
        while ((f->pair.server_status = xy_tls_handshake(f->pair.server)) == XY_TLS_AGAIN)
            yields++;
        while (pair_carry(&f->pair, f->pair.client, f->pair.server))
            continue;
        while (pair_carry(&f->pair, f->pair.server, f->pair.client))
            continue;
    } while (f->pair.client_status != XY_TLS_DONE || f->pair.server_status != XY_TLS_DONE);
    size_t least = libraries_have_13() ? 1 : 2; /* one flight less */
    assert_in_range(yields, least, 6);
}

static unsigned char byte_at(size_t i)
{
    return (unsigned char)(i * 31 + (i >> 8));
}

static void test_large_data(void **state)
{
    struct fixture *f = *state;
    assert_true(pair_handshake(&f->pair));
    unsigned char *data = malloc(BIG);
    for (size_t i = 0; i < BIG; i++)
        data[i] = byte_at(i);

    size_t sent = 0, got = 0, len;
    unsigned char piece[5000];
    size_t accepted = xy_tls_write(f->pair.client, data, BIG);
    assert_in_range(accepted, XY_TLS_OUTPUT_MAX - 20000,
                    XY_TLS_OUTPUT_MAX); /* partial: the output is bounded */
    assert_int_equal(xy_tls_write(f->pair.client, data, BIG), 0);
    assert_in_range(xy_tls_output(f->pair.client).len, XY_TLS_OUTPUT_MAX, XY_TLS_OUTPUT_MAX + 17000);
    sent = accepted;
    f->pair.piece = 0;
    while (got < BIG) {
        enum xy_tls_status status = xy_tls_read(f->pair.server, piece, sizeof piece, &len);
        assert_memory_equal(piece, data + got, len);
        got += len;
        if (status == XY_TLS_WANT_MORE && !pair_carry(&f->pair, f->pair.client, f->pair.server)) {
            assert_in_range(sent, 0, BIG - 1);
            sent += xy_tls_write(f->pair.client, data + sent, BIG - sent);
        }
    }
    assert_int_equal(sent, BIG);
    assert_int_equal(got, BIG);
    free(data);
}

static void test_input_is_bounded(void **state)
{
    struct fixture *f = *state;
    char *data = calloc(1, XY_TLS_INPUT_MAX + 1);
    assert_true(xy_tls_receive(f->pair.server, data, XY_TLS_INPUT_MAX));
    assert_false(xy_tls_receive(f->pair.server, data, 1));
    assert_int_equal(xy_tls_handshake(f->pair.server), XY_TLS_FAILED);
    assert_string_not_equal(xy_tls_error(f->pair.server), "");
    free(data);
}

static void test_close_notify_both_ways(void **state)
{
    struct fixture *f = *state;
    char out[16];
    size_t len;
    assert_true(pair_handshake(&f->pair));
    assert_int_equal(xy_tls_write(f->pair.client, "last", 4), 4);
    xy_tls_close(f->pair.client);
    size_t once = xy_tls_output(f->pair.client).len;
    xy_tls_close(f->pair.client);
    assert_int_equal(xy_tls_output(f->pair.client).len, once);
    assert_int_equal(xy_tls_write(f->pair.client, "more", 4), 0);
    while (pair_carry(&f->pair, f->pair.client, f->pair.server))
        continue;
    assert_int_equal(xy_tls_read(f->pair.server, out, sizeof out, &len), XY_TLS_DONE);
    assert_int_equal(len, 4);
    assert_int_equal(xy_tls_read(f->pair.server, out, sizeof out, &len), XY_TLS_CLOSED);
    assert_int_equal(xy_tls_read(f->pair.server, out, sizeof out, &len), XY_TLS_CLOSED);

    assert_int_equal(xy_tls_write(f->pair.server, "bye", 3), 3); /* the other half is still open */
    xy_tls_close(f->pair.server);
    while (pair_carry(&f->pair, f->pair.server, f->pair.client))
        continue;
    assert_int_equal(xy_tls_read(f->pair.client, out, sizeof out, &len), XY_TLS_DONE);
    assert_int_equal(xy_tls_read(f->pair.client, out, sizeof out, &len), XY_TLS_CLOSED);
}

static void test_garbage_fails_for_good(void **state)
{
    struct fixture *f = *state;
    static const char junk[] = "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
    assert_true(xy_tls_receive(f->pair.server, junk, sizeof junk - 1));
    assert_int_equal(xy_tls_handshake(f->pair.server), XY_TLS_FAILED);
    assert_string_equal(xy_tls_error(f->pair.server),
                        "the peer did not begin with a TLS hello that we understand");
    assert_int_equal(xy_tls_handshake(f->pair.server), XY_TLS_FAILED);
    assert_false(xy_tls_receive(f->pair.server, junk, 1));

    static const char old_hello[] = "\x80\x1f\x01\x03\x03\x00\x06\x00\x00\x00\x10" /* as in SSL 2.0 */
                                    "\x00\xc0\x2b\x00\xc0\x2f\x01\x02\x03\x04\x05\x06\x07\x08"
                                    "\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10";
    reopen(f);
    assert_true(xy_tls_receive(f->pair.server, old_hello, sizeof old_hello - 1));
    assert_int_equal(xy_tls_handshake(f->pair.server), XY_TLS_FAILED);
    assert_string_equal(xy_tls_error(f->pair.server),
                        "the peer did not begin with a TLS hello that we understand");

    reopen(f);
    char out[16];
    size_t len;
    assert_true(pair_handshake(&f->pair));
    assert_int_equal(xy_tls_write(f->pair.client, "hello", 5), 5);
    char record[256];
    struct xy_str sent = xy_tls_output(f->pair.client);
    memcpy(record, sent.data, sent.len);
    record[sent.len - 1] ^= 1;
    assert_true(xy_tls_receive(f->pair.server, record, sent.len));
    assert_int_equal(xy_tls_read(f->pair.server, out, sizeof out, &len), XY_TLS_FAILED);
    assert_string_equal(xy_tls_error(f->pair.server), "a record was altered on its way");
    assert_int_equal(xy_tls_read(f->pair.server, out, sizeof out, &len), XY_TLS_FAILED);
    assert_int_equal(xy_tls_write(f->pair.server, "x", 1), 0);
}

/* Every byte of a client's hello changed in turn: an error or a handshake, never a crash. */
static void test_damaged_hello(void **state)
{
    struct fixture *f = *state;
    xy_tls_handshake(f->pair.client);
    char hello[2048];
    size_t len = xy_tls_output(f->pair.client).len;
    assert_in_range(len, 50, sizeof hello);
    memcpy(hello, xy_tls_output(f->pair.client).data, len);
    for (size_t i = 0; i < len; i++) {
        struct xy_tls *server = xy_tls_new(f->server, NULL);
        hello[i] = (char)~hello[i];
        enum xy_tls_status status = XY_TLS_AGAIN;
        xy_tls_receive(server, hello, len);
        while (status == XY_TLS_AGAIN)
            status = xy_tls_handshake(server);
        assert_true(status == XY_TLS_FAILED || status == XY_TLS_WANT_MORE);
        assert_int_equal(status == XY_TLS_FAILED, xy_tls_error(server)[0] != '\0');
        hello[i] = (char)~hello[i];
        xy_tls_free(&server);
    }
}

static void save(struct fixture *f, struct xy_buf *ticket)
{
    assert_true(pair_handshake(&f->pair));
    pair_line(&f->pair, f->pair.server, f->pair.client,
              "<features/>"); /* TLS 1.3 brings tickets after the handshake */
    assert_false(xy_tls_session_save(f->pair.server, ticket));
    assert_true(xy_tls_session_save(f->pair.client, ticket));
}

static void test_resumption(void **state)
{
    struct fixture *f = *state;
    unsigned char client[XY_TLS_BINDING_MAX], server[XY_TLS_BINDING_MAX];
    struct xy_buf ticket = { 0 };
    assert_false(xy_tls_session_save(f->pair.client, &ticket));
    save(f, &ticket);
    reopen(f);
    assert_true(xy_tls_session_restore(f->pair.client, xy_buf_view(&ticket)));
    assert_true(pair_handshake(&f->pair));
    assert_true(xy_tls_resumed(f->pair.client));
    assert_true(xy_tls_resumed(f->pair.server));
    assert_true(xy_tls_peer_trusted(f->pair.client));
    pair_line(&f->pair, f->pair.client, f->pair.server, "again");
    assert_int_equal(xy_tls_server_end_point(f->pair.client, client), 32);
    assert_int_equal(xy_tls_server_end_point(f->pair.server, server), 32);
    assert_memory_equal(client, server, 32);

    reopen(f); /* damaged and cut tickets cost a full handshake at most */
    assert_false(xy_tls_session_restore(f->pair.client, xy_str_n(ticket.data, ticket.len / 2)));
    assert_true(pair_handshake(&f->pair));
    assert_false(xy_tls_resumed(f->pair.client));
    xy_buf_free(&ticket);
}

/* A saved session does not carry trust to another name or another configuration. */
static void test_resumption_is_judged_again(void **state)
{
    struct fixture *f = *state;
    struct xy_buf ticket = { 0 };
    save(f, &ticket);
    pair_close(&f->pair);
    pair_open(&f->pair, f->client, f->server, "elsewhere.example");
    assert_true(xy_tls_session_restore(f->pair.client, xy_buf_view(&ticket)));
    assert_false(pair_handshake(&f->pair));
    assert_int_equal(f->pair.client_status, XY_TLS_FAILED);

    struct xy_tls_error error;
    struct xy_tls_client_options pinned = { .library = client_library, .trust = XY_TLS_TRUST_PINNED };
    struct xy_tls_config *config = xy_tls_config_client(&pinned, &error);
    assert_non_null(config);
    pair_close(&f->pair);
    pair_open(&f->pair, config, f->server, "example.org");
    assert_true(xy_tls_session_restore(f->pair.client, xy_buf_view(&ticket)));
    assert_false(pair_handshake(&f->pair));
    assert_int_equal(f->pair.client_status, XY_TLS_FAILED);
    xy_tls_config_unref(&config);
    xy_buf_free(&ticket);
}

static void test_reload_swaps_certificates(void **state)
{
    struct fixture *f = *state;
    struct xy_buf ticket = { 0 };
    struct made fresh;
    save(f, &ticket);
    made_now(&fresh, "example.org");
    struct xy_tls_config *renewed = config_server(&fresh);
    xy_tls_config_unref(&f->server); /* the old connection holds the last reference */
    assert_null(f->server);
    f->server = renewed;
    pair_line(&f->pair, f->pair.client, f->pair.server, "still here");

    struct pair other;
    struct xy_tls_config *trusting = config_client(&fresh);
    pair_open(&other, trusting, f->server, "example.org");
    assert_true(xy_tls_session_restore(other.client, xy_buf_view(&ticket)));
    assert_true(pair_handshake(&other)); /* a ticket of the old configuration: a full handshake */
    assert_false(xy_tls_resumed(other.client));
    assert_true(xy_tls_peer_trusted(other.client));
    pair_line(&f->pair, f->pair.server, f->pair.client, "me too");
    pair_close(&other);
    xy_tls_config_unref(&trusting);
    made_free(&fresh);
    xy_buf_free(&ticket);
}

static void test_channel_binding(void **state)
{
    struct fixture *f = *state;
    unsigned char client[XY_TLS_BINDING_MAX], server[XY_TLS_BINDING_MAX];
    assert_int_equal(xy_tls_server_end_point(f->pair.client, client), 0); /* not before the handshake */
    assert_int_equal(xy_tls_server_end_point(f->pair.server, server), 0);
    assert_true(pair_handshake(&f->pair));
    assert_int_equal(xy_tls_server_end_point(f->pair.client, client), 32);
    assert_int_equal(xy_tls_server_end_point(f->pair.server, server), 32);
    assert_memory_equal(client, server, 32);
    size_t told = xy_tls_unique(f->pair.client, client); /* 0 where the library does not tell */
    size_t heard = xy_tls_unique(f->pair.server, server);
    assert_true(told == heard || client_library != server_library);
    assert_true((told == 0 || told == 12) && (heard == 0 || heard == 12));
    assert_memory_equal(client, server, told < heard ? told : heard);
}

/* RFC 9266: of TLS 1.3, another one for each connection, resumed or not. */
static void test_exporter(void **state)
{
    struct fixture *f = *state;
    unsigned char client[XY_TLS_BINDING_MAX], server[XY_TLS_BINDING_MAX], first[XY_TLS_BINDING_MAX];
    size_t expected = libraries_have_13() ? 32 : 0;
    struct xy_buf ticket = { 0 };
    assert_int_equal(xy_tls_exporter(f->pair.client, client), 0); /* not before the handshake */
    save(f, &ticket);
    assert_int_equal(xy_tls_exporter(f->pair.client, first), expected);
    assert_int_equal(xy_tls_exporter(f->pair.server, server), expected);
    assert_memory_equal(first, server, expected);
    reopen(f);
    assert_true(xy_tls_session_restore(f->pair.client, xy_buf_view(&ticket)));
    assert_true(pair_handshake(&f->pair));
    assert_true(xy_tls_resumed(f->pair.client));
    assert_int_equal(xy_tls_exporter(f->pair.client, client), expected);
    assert_int_equal(xy_tls_exporter(f->pair.server, server), expected);
    assert_memory_equal(client, server, expected);
    assert_true(expected == 0 || memcmp(client, first, expected) != 0);
    xy_buf_free(&ticket);
}

/* Of a resumption tls-unique would not be unique. */
static void test_no_tls_unique_after_a_resumption(void **state)
{
    struct fixture *f = *state;
    unsigned char binding[XY_TLS_BINDING_MAX];
    struct xy_buf ticket = { 0 };
    save(f, &ticket);
    reopen(f);
    assert_int_equal(xy_tls_unique(f->pair.client, binding), 0); /* nor before the handshake */
    assert_true(xy_tls_session_restore(f->pair.client, xy_buf_view(&ticket)));
    assert_true(pair_handshake(&f->pair));
    assert_true(xy_tls_resumed(f->pair.server));
    assert_int_equal(xy_tls_unique(f->pair.client, binding), 0);
    assert_int_equal(xy_tls_unique(f->pair.server, binding), 0);
    xy_buf_free(&ticket);
}

static bool resumes(struct fixture *f, const struct xy_buf *ticket)
{
    reopen(f);
    assert_true(xy_tls_session_restore(f->pair.client, xy_buf_view(ticket)));
    assert_true(pair_handshake(&f->pair));
    return xy_tls_resumed(f->pair.server);
}

static size_t number_at(const unsigned char *at, size_t bytes)
{
    size_t number = 0;
    while (bytes-- > 0)
        number = number << 8 | *at++;
    return number;
}

/* The ticket that a hello shows, in clear: as the session_ticket of TLS 1.2 or the first pre_shared_key of 1.3. */
static struct xy_str ticket_of(struct xy_str hello)
{
    enum { HEADERS = 9, VERSION_AND_RANDOM = 34, SESSION_TICKET = 0x23, PRE_SHARED_KEY = 0x29 };
    const unsigned char *bytes = (const unsigned char *)hello.data;
    size_t at = HEADERS + VERSION_AND_RANDOM;
    at += 1 + bytes[at];                 /* session id */
    at += 2 + number_at(bytes + at, 2);  /* suites */
    at += 1 + bytes[at];                 /* compression */
    for (at += 2; at + 4 < hello.len;) { /* extensions */
        size_t type = number_at(bytes + at, 2), len = number_at(bytes + at + 2, 2);
        at += 4;
        if (type == SESSION_TICKET && len > 0)
            return xy_str_n(hello.data + at, len);
        if (type == PRE_SHARED_KEY)
            return xy_str_n(hello.data + at + 4, number_at(bytes + at + 2, 2));
        at += len;
    }
    fail_msg("the hello shows no ticket");
    return XY_STR_NONE;
}

/* After a full handshake: the name of the key that sealed its ticket, with which the ticket begins. */
static uint32_t ticket_key_name(struct fixture *f)
{
    struct xy_buf saved = { 0 };
    uint32_t name = 0;
    reopen(f);
    save(f, &saved);
    reopen(f);
    assert_true(xy_tls_session_restore(f->pair.client, xy_buf_view(&saved)));
    assert_int_equal(xy_tls_handshake(f->pair.client), XY_TLS_WANT_MORE);
    struct xy_str ticket = ticket_of(xy_tls_output(f->pair.client));
    assert_true(ticket.len > sizeof name);
    memcpy(&name, ticket.data, sizeof name);
    assert_int_not_equal(name, 0);
    xy_buf_free(&saved);
    return name;
}

/* Tickets die with their lifetime, and a new key takes over when the last one has served for as long. */
static void test_tickets_expire(void **state)
{
    struct fixture *f = *state;
    struct xy_tls_error error;
    struct xy_buf old = { 0 }, fresh = { 0 };
    if (client_library != server_library) /* it takes seconds, and is the server's alone */
        skip();
    struct xy_tls_server_options options = { .library = server_library,
                                             .certificates = &f->made.certificate,
                                             .certificate_count = 1,
                                             .ticket_lifetime_s = 3 };
    xy_tls_config_unref(&f->server);
    f->server = xy_tls_config_server(&options, &error);
    assert_non_null(f->server);
    uint32_t old_key = ticket_key_name(f);
    save(f, &old);
    assert_true(resumes(f, &old));
    const struct timespec longer_than_it_lives = { .tv_sec = 4 };
    nanosleep(&longer_than_it_lives, NULL);
    assert_false(resumes(f, &old));
    assert_int_not_equal(ticket_key_name(f), old_key);
    save(f, &fresh);
    assert_true(resumes(f, &fresh));
    assert_false(resumes(f, &old));
    xy_buf_free(&old);
    xy_buf_free(&fresh);
}

static void test_sleep_keeps_what_is_pending(void **state)
{
    struct fixture *f = *state;
    char out[16];
    size_t len;
    assert_true(pair_handshake(&f->pair));
    xy_tls_sleep(f->pair.client);
    xy_tls_sleep(f->pair.server);
    assert_int_equal(xy_tls_output(f->pair.client).len, 0);
    assert_int_equal(xy_tls_write(f->pair.client, "one", 3), 3);
    xy_tls_sleep(f->pair.client);
    f->pair.piece = 7;
    assert_true(pair_carry(&f->pair, f->pair.client, f->pair.server));
    xy_tls_sleep(f->pair.server);
    while (pair_carry(&f->pair, f->pair.client, f->pair.server))
        continue;
    assert_int_equal(xy_tls_read(f->pair.server, out, sizeof out, &len), XY_TLS_DONE);
    assert_int_equal(len, 3);
    xy_tls_sleep(f->pair.server);
    pair_line(&f->pair, f->pair.client, f->pair.server, "two");
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    xy_tls_warm_up();
    const struct CMUnitTest tests[] = {
        test(test_handshake_in_pieces),
        test(test_what_was_agreed),
        test(test_handshake_yields_after_costly_steps),
        test(test_large_data),
        test(test_input_is_bounded),
        test(test_close_notify_both_ways),
        test(test_garbage_fails_for_good),
        test(test_damaged_hello),
        test(test_resumption),
        test(test_resumption_is_judged_again),
        test(test_reload_swaps_certificates),
        test(test_channel_binding),
        test(test_exporter),
        test(test_no_tls_unique_after_a_resumption),
        test(test_tickets_expire),
        test(test_sleep_keeps_what_is_pending),
    };
    int failed = 0;
    while (libraries_next())
        failed += cmocka_run_group_tests_name(libraries_name(), tests, NULL, NULL);
    return failed;
}
