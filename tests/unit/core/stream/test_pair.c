/* A client's and a server's stream talk to each other through memory: every mechanism, STARTTLS, binding, resumption,
 * with the bytes whole, one by one and cut at random. However they are cut, the events are the same. */
#include "tests/unit/core/stream/kit.h"

enum split { WHOLE, ONE_BYTE, RANDOM, SPLITS };

struct pair {
    struct kit_server server;
    struct xy_stream *client;
    struct xy_buf client_log;
    enum split split;
    bool secure;
};

static void client_run(struct pair *p)
{
    struct xy_stream_event event;
    while (xy_stream_next(p->client, &event))
        kit_log(&p->client_log, &event);
}

static size_t piece(const struct pair *p, size_t len)
{
    size_t max = p->split == WHOLE ? len : p->split == ONE_BYTE ? 1 : 1 + unit_below(&kit_seed, 40);
    return max < len ? max : len;
}

/* One direction, one piece at a time. */
static bool pump(struct pair *p, bool to_server)
{
    struct xy_stream *from = to_server ? p->client : p->server.stream;
    struct xy_str out = xy_stream_output(from);
    if (out.len == 0)
        return false;
    char copy[4096];
    size_t len = piece(p, out.len < sizeof copy ? out.len : sizeof copy);
    memcpy(copy, out.data, len);
    xy_stream_sent(from, len);
    if (to_server) {
        kit_server_feed(&p->server, xy_str_n(copy, len));
    } else {
        xy_stream_feed(p->client, copy, len);
        client_run(p);
    }
    memset(copy, 'x', sizeof copy); /* nothing may point into what was fed */
    return true;
}

static bool log_ends_with(const struct xy_buf *log, const char *line)
{
    size_t len = strlen(line);
    return log->len >= len && memcmp(log->data + log->len - len, line, len) == 0;
}

static void start_tls_if_due(struct pair *p)
{
    if (p->secure || !log_ends_with(&p->server.log, "STARTTLS\n") ||
        !log_ends_with(&p->client_log, "STARTTLS\n"))
        return;
    p->secure = true;
    xy_stream_tls_started(p->server.stream, &KIT_BINDING, 1);
    xy_stream_tls_started(p->client, &KIT_BINDING, 1);
}

static void run(struct pair *p)
{
    for (;;) {
        bool moved = pump(p, true);
        moved = pump(p, false) || moved;
        if (p->server.asked) {
            kit_server_run(&p->server);
            moved = true;
        }
        if (moved)
            continue;
        bool secure = p->secure;
        start_tls_if_due(p);
        if (p->secure == secure)
            return;
    }
}

struct scenario {
    struct xy_stream_offer offer;
    struct xy_stream_client_options client;
    const char *jid; /* default juliet@example.org/balcony */
    const char *resumable, *external;
    enum xy_sasl_condition external_refused;
    bool refuse_bind, refuse_enable, late;
    bool direct_tls;
    bool any_host;
};

static void pair_start(struct pair *p, const struct scenario *scenario, enum split split)
{
    static const struct xy_stream_options options = KIT_OPTIONS;
    struct xy_stream_client_options client = scenario->client;
    *p = (struct pair){ .split = split };
    p->server = (struct kit_server){ .offer = scenario->offer,
                                     .resumable = scenario->resumable,
                                     .external = scenario->external,
                                     .external_refused = scenario->external_refused,
                                     .refuse_bind = scenario->refuse_bind,
                                     .refuse_enable = scenario->refuse_enable,
                                     .late = scenario->late,
                                     .any_host = scenario->any_host };
    kit_server_start(&p->server, &options);
    if (!scenario->any_host)
        client.jid = xy_jid_canonical(xy_str(scenario->jid ? scenario->jid : "juliet@example.org/balcony"));
    if (!xy_str_present(client.password))
        client.password = XY_STR("r0m30");
    p->client = xy_stream_client_new(&options, &client);
    if (scenario->direct_tls) {
        p->secure = true;
        xy_stream_tls_started(p->server.stream, &KIT_BINDING, 1);
        xy_stream_tls_started(p->client, &KIT_BINDING, 1);
    }
    xy_stream_client_open(p->client);
}

static void pair_end(struct pair *p)
{
    kit_server_end(&p->server);
    xy_stream_free(&p->client);
    xy_buf_free(&p->client_log);
}

/* Runs the scenario in every split, at once and with late answers; each must end with these lines. */
static void check(const struct scenario *scenario, const char *server_end, const char *client_end)
{
    struct xy_buf server_log = { 0 }, client_log = { 0 };
    for (int round = 0; round < 2 * SPLITS; round++) {
        struct pair p;
        struct scenario copy = *scenario;
        copy.late = round >= SPLITS;
        pair_start(&p, &copy, (enum split)(round % SPLITS));
        run(&p);
        if (round == 0) {
            xy_buf_str(&server_log, xy_buf_view(&p.server.log));
            xy_buf_str(&client_log, xy_buf_view(&p.client_log));
        }
        if (!log_ends_with(&p.server.log, server_end) || !log_ends_with(&p.client_log, client_end))
            fail_msg("round %d: server:\n%.*sclient:\n%.*s", round, XY_ARG(xy_buf_view(&p.server.log)),
                     XY_ARG(xy_buf_view(&p.client_log)));
        assert_str_same(xy_buf_view(&p.server.log), xy_buf_view(&server_log));
        assert_str_same(xy_buf_view(&p.client_log), xy_buf_view(&client_log));
        pair_end(&p);
    }
    xy_buf_free(&server_log);
    xy_buf_free(&client_log);
}

#define BIND_LINE  "BIND jid=juliet@example.org resource=balcony\n"
#define READY_LINE "READY jid=juliet@example.org/balcony sm=0 resume=0 resumed=0 h=0:0 max=0\n"

static void test_mechanisms_without_tls(void **state)
{
    (void)state;
    struct scenario s = { .client = { .tls = XY_STREAM_TLS_NONE, .plain_without_tls = true } };
    static const enum xy_sasl_mechanism offered[] = { XY_SASL_SCRAM_SHA_256, XY_SASL_SCRAM_SHA_1,
                                                      XY_SASL_PLAIN };
    for (size_t i = 0; i < 3; i++) {
        s.offer.mechanisms = (unsigned)offered[i];
        check(&s, BIND_LINE, READY_LINE);
    }
}

static void test_external(void **state)
{
    (void)state;
    struct scenario s = { .client = { .tls = XY_STREAM_TLS_NONE, .mechanisms = XY_SASL_EXTERNAL },
                          .offer = { .mechanisms = XY_SASL_EXTERNAL | XY_SASL_PLAIN },
                          .external = "juliet@example.org" };
    check(&s, BIND_LINE, READY_LINE);
    s.client.authzid = XY_STR("juliet@example.org");
    check(&s, BIND_LINE, READY_LINE);
    s.external = NULL;
    check(&s, "SASL_FAILED mechanism=EXTERNAL sasl=invalid-authzid\nCLOSED\n",
          "FAILED sasl=invalid-authzid failure=5\n");
    s.client.authzid = XY_STR_NONE;
    check(&s, "SASL_FAILED mechanism=EXTERNAL sasl=not-authorized\nCLOSED\n",
          "FAILED sasl=not-authorized failure=5\n");
    s.external_refused = XY_SASL_INVALID_AUTHZID;
    check(&s, "SASL_FAILED mechanism=EXTERNAL sasl=invalid-authzid\nCLOSED\n",
          "FAILED sasl=invalid-authzid failure=5\n");
}

static void test_starttls_and_binding(void **state)
{
    (void)state;
    struct scenario s = { .offer = { .mechanisms = XY_SASL_SCRAM_ALL | XY_SASL_PLAIN, .starttls = true } };
    for (int required = 0; required < 2; required++) {
        s.offer.starttls_required = required;
        check(&s, BIND_LINE, READY_LINE);
    }
    s.offer.starttls = s.offer.starttls_required = false;
    s.direct_tls = true;
    check(&s, BIND_LINE, READY_LINE);
}

/* What the client chose, as the server saw it. */
static void assert_chosen(const struct scenario *s, const char *mechanism)
{
    struct pair p;
    pair_start(&p, s, WHOLE);
    run(&p);
    xy_buf_char(&p.server.log, '\0');
    char line[200];
    snprintf(line, sizeof line, "AUTHENTICATED user=juliet jid=juliet@example.org mechanism=%s\n", mechanism);
    if (!strstr(p.server.log.data, line))
        fail_msg("not %s:\n%s", mechanism, p.server.log.data);
    pair_end(&p);
}

static void test_strongest_mechanism(void **state)
{
    (void)state;
    struct scenario s = { .direct_tls = true, .offer = { .mechanisms = XY_SASL_SCRAM_ALL | XY_SASL_PLAIN } };
    assert_chosen(&s, "SCRAM-SHA-256-PLUS");
    s.offer.mechanisms = XY_SASL_SCRAM_SHA_1_PLUS | XY_SASL_SCRAM_SHA_1 | XY_SASL_PLAIN;
    assert_chosen(&s, "SCRAM-SHA-1-PLUS");
    s.offer.mechanisms = XY_SASL_SCRAM_SHA_1 | XY_SASL_SCRAM_SHA_256 | XY_SASL_PLAIN;
    assert_chosen(&s, "SCRAM-SHA-256"); /* with the flag y: nobody took -PLUS away */
    s.offer.mechanisms = XY_SASL_SCRAM_SHA_1 | XY_SASL_PLAIN;
    assert_chosen(&s, "SCRAM-SHA-1");
    s.offer.mechanisms = XY_SASL_PLAIN;
    assert_chosen(&s, "PLAIN");
    s.offer.mechanisms = XY_SASL_SCRAM_ALL | XY_SASL_PLAIN;
    s.client.mechanisms = XY_SASL_PLAIN | XY_SASL_SCRAM_SHA_1;
    assert_chosen(&s, "SCRAM-SHA-1"); /* with the flag n: -PLUS was offered, but is not allowed here */
}

static void test_refusals(void **state)
{
    (void)state;
    struct scenario s = { .offer = { .mechanisms = XY_SASL_SCRAM_SHA_1 },
                          .client = { .tls = XY_STREAM_TLS_REQUIRED } };
    check(&s, "OPENED to=example.org\nCLOSED\n", "FAILED failure=4\n");
    s.client.tls = XY_STREAM_TLS_NONE;
    s.offer.starttls = s.offer.starttls_required = true;
    check(&s, "OPENED to=example.org\nCLOSED\n", "FAILED failure=4\n");
    s.offer.starttls = s.offer.starttls_required = false;
    s.offer.mechanisms = XY_SASL_PLAIN;
    check(&s, "OPENED to=example.org\nCLOSED\n", "FAILED failure=7\n");
    s.offer.mechanisms = 0;
    check(&s, "OPENED to=example.org\nCLOSED\n", "FAILED failure=7\n");
    s.offer.mechanisms = XY_SASL_SCRAM_SHA_1;
    s.client.password = XY_STR("wrong");
    check(&s, "SASL_FAILED user=juliet mechanism=SCRAM-SHA-1 sasl=not-authorized\nCLOSED\n",
          "FAILED sasl=not-authorized failure=5\n");
    s.client.password = XY_STR("r0m30");
    s.jid = "nurse@example.org";
    check(&s, "SASL_FAILED user=nurse mechanism=SCRAM-SHA-1 sasl=not-authorized\nCLOSED\n",
          "FAILED sasl=not-authorized failure=5\n");
    s.jid = "juliet@other.org";
    check(&s, "OPENED to=other.org\n", "FAILED error=host-unknown failure=2\n");
    s.jid = NULL;
    s.refuse_bind = true;
    check(&s, BIND_LINE "CLOSED\n", "FAILED failure=8\n");
}

static void test_resource_by_server(void **state)
{
    (void)state;
    struct scenario s = { .offer = { .mechanisms = XY_SASL_SCRAM_SHA_1 },
                          .client = { .tls = XY_STREAM_TLS_NONE } };
    s.jid = "juliet@example.org";
    check(&s, "BIND jid=juliet@example.org\n",
          "READY jid=juliet@example.org/made-by-server sm=0 resume=0 resumed=0 h=0:0 max=0\n");
    s.jid = "juliet@example.org/a&'<b";
    check(&s, "BIND jid=juliet@example.org resource=a&'<b\n",
          "READY jid=juliet@example.org/a&'<b sm=0 resume=0 resumed=0 h=0:0 max=0\n");
}

static void test_stream_management(void **state)
{
    (void)state;
    struct scenario s = { .offer = { .mechanisms = XY_SASL_SCRAM_SHA_1, .sm = true },
                          .client = { .tls = XY_STREAM_TLS_NONE, .sm = true } };
    check(&s, "SM_ENABLE sm=0 resume=0 resumed=0 h=0:0 max=0\n",
          "READY jid=juliet@example.org/balcony sm=1 resume=0 resumed=0 h=0:0 max=0\n");
    s.client.sm_resume = true;
    s.client.sm_max_seconds = 600;
    check(&s, "SM_ENABLE sm=0 resume=1 resumed=0 h=0:0 max=600\n",
          "READY jid=juliet@example.org/balcony sm_id=id-'1' location=[::1]:5222 sm=1 resume=1 resumed=0 "
          "h=0:0 max=300\n");
    s.refuse_enable = true;
    check(&s, "SM_ENABLE sm=0 resume=1 resumed=0 h=0:0 max=600\n", READY_LINE);
    s.refuse_enable = false;
    s.client.previd = XY_STR("old'id");
    s.client.previd_h = 4294967295u;
    s.resumable = "old'id";
    check(&s, "SM_RESUME jid=juliet@example.org sm_id=old'id h=4294967295\n",
          "READY sm_id=old'id sm=1 resume=1 resumed=1 h=1:7 max=0\n");
    s.resumable = NULL;
    check(&s, BIND_LINE "SM_ENABLE sm=0 resume=1 resumed=0 h=0:0 max=600\n",
          "READY jid=juliet@example.org/balcony sm_id=id-'1' location=[::1]:5222 sm=1 resume=1 resumed=0 "
          "h=1:5 max=300\n");
    s.offer.sm = false;
    check(&s, BIND_LINE, READY_LINE);
}

static void test_traffic(void **state)
{
    (void)state;
    struct scenario s = { .offer = { .mechanisms = XY_SASL_SCRAM_SHA_1, .sm = true },
                          .client = { .tls = XY_STREAM_TLS_NONE, .sm = true } };
    for (enum split split = WHOLE; split < SPLITS; split++) {
        struct pair p;
        pair_start(&p, &s, split);
        assert_false(xy_stream_send_request(p.client));
        assert_false(xy_stream_send_raw(p.client, XY_STR("<message/>")));
        run(&p);
        xy_buf_reset(&p.server.log);
        xy_buf_reset(&p.client_log);
        assert_true(xy_stream_send_raw(
            p.client,
            XY_STR("<message to='a@b'><body>caf\xc3\xa9</body></message> \n <r xmlns='urn:xmpp:sm:3'/>")));
        assert_true(xy_stream_send_request(p.client));
        assert_true(xy_stream_send_ack(p.client, 4294967295u));
        run(&p);
        assert_str(
            xy_buf_view(&p.server.log),
            "STANZA verdict=0 answered=0 bytes=46 <message to='a@b'><body>caf\xc3\xa9</body></message>\n"
            "SM_REQUEST\nSM_REQUEST\nSM_ACK h=4294967295\n");
        struct xy_arena *arena = xy_arena_new();
        struct xy_elem *elem = xy_stanza_new(arena, XY_PRESENCE, XY_UNAVAILABLE);
        assert_true(xy_stream_send_elem(p.server.stream, elem));
        assert_true(xy_stream_send_ack(p.server.stream, 1));
        xy_arena_free(&arena);
        xy_stream_close(p.server.stream);
        xy_stream_close(p.server.stream);
        assert_false(xy_stream_send_raw(p.server.stream, XY_STR("<message/>")));
        run(&p);
        assert_str(
            xy_buf_view(&p.client_log),
            "STANZA verdict=0 answered=0 bytes=30 <presence type='unavailable'/>\nSM_ACK h=1\nCLOSED\n");
        assert_false(xy_stream_is_over(p.client));
        xy_stream_close(p.client);
        run(&p);
        assert_true(xy_stream_is_over(p.client));
        assert_true(xy_stream_is_over(p.server.stream));
        pair_end(&p);
    }
}

/* An idle stream is small, and wakes. */
static void test_sleep(void **state)
{
    (void)state;
    struct scenario s = { .offer = { .mechanisms = XY_SASL_SCRAM_SHA_1 },
                          .client = { .tls = XY_STREAM_TLS_NONE } };
    struct pair p;
    pair_start(&p, &s, WHOLE);
    run(&p);
    xy_stream_sleep(p.server.stream);
    xy_stream_sleep(p.client);
    assert_true(xy_stream_memory(p.server.stream) < 1024);
    xy_buf_reset(&p.server.log);
    assert_true(xy_stream_send_raw(p.client, XY_STR("<presence/>")));
    run(&p);
    assert_str(xy_buf_view(&p.server.log), "STANZA verdict=0 answered=0 bytes=11 <presence/>\n");
    /* not in the middle of an element */
    xy_stream_feed(p.server.stream, "<presence>", 10);
    kit_server_run(&p.server);
    xy_stream_sleep(p.server.stream);
    kit_server_feed(&p.server, XY_STR("</presence>"));
    assert_int_equal(p.server.stanzas, 2);
    pair_end(&p);
}

/* The Unix socket: the server knows host and user, the client only what resource it wants. */
static void test_unnamed_host(void **state)
{
    (void)state;
    struct scenario s = { .offer = { .mechanisms = XY_SASL_EXTERNAL }, .external = "juliet@example.org" };
    s.client = (struct xy_stream_client_options){ .tls = XY_STREAM_TLS_NONE,
                                                  .mechanisms = XY_SASL_EXTERNAL,
                                                  .resource = XY_STR("balcony") };
    s.any_host = true;
    check(&s, BIND_LINE, READY_LINE);
    struct kit_server server = { .offer = { .mechanisms = XY_SASL_PLAIN } };
    static const struct xy_stream_options options = KIT_OPTIONS;
    struct xy_buf out = { 0 };
    kit_server_start(&server, &options);
    kit_server_feed(&server, XY_STR(KIT_HEADER KIT_AUTH "<stream:stream version='1.0' xmlns='jabber:client' "
                                                        "xmlns:stream='http://etherx.jabber.org/streams'>"));
    kit_take(server.stream, &out);
    assert_non_null(strstr(out.data, "<host-unknown"));
    kit_server_end(&server);
    xy_buf_free(&out);
}

/* Another thread's pool from the middle of a conversation on, as when a resumed session changes its shard. */
static void test_adopt(void **state)
{
    (void)state;
    struct xy_stream_options pooled[2] = { KIT_OPTIONS, KIT_OPTIONS };
    struct kit_server server = { .offer = { .mechanisms = XY_SASL_PLAIN } };
    struct xy_stream_event event;
    pooled[0].arenas = xy_arena_pool_new(4);
    pooled[1].arenas = xy_arena_pool_new(4);
    kit_server_start(&server, &pooled[0]);
    kit_server_feed(&server, XY_STR(KIT_HEADER KIT_AUTH KIT_HEADER KIT_BIND));
    xy_stream_feed(server.stream, "<presence/><pres", 16);
    assert_true(xy_stream_next(server.stream, &event));
    xy_arena_pool_give(pooled[0].arenas, &event.stanza.arena);
    assert_false(xy_stream_next(server.stream, &event));
    xy_stream_adopt(server.stream, &pooled[1]);
    xy_arena_pool_free(&pooled[0].arenas);
    xy_stream_feed(server.stream, "ence/><iq", 9);
    assert_true(xy_stream_next(server.stream, &event));
    assert_int_equal(event.stanza.kind, XY_PRESENCE);
    xy_arena_pool_give(pooled[1].arenas, &event.stanza.arena);
    kit_server_end(&server);
    xy_arena_pool_free(&pooled[1].arenas);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mechanisms_without_tls),
        cmocka_unit_test(test_external),
        cmocka_unit_test(test_starttls_and_binding),
        cmocka_unit_test(test_strongest_mechanism),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_resource_by_server),
        cmocka_unit_test(test_stream_management),
        cmocka_unit_test(test_traffic),
        cmocka_unit_test(test_sleep),
        cmocka_unit_test(test_adopt),
        cmocka_unit_test(test_unnamed_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
