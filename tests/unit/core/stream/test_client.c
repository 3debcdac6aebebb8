/* The client's stream against servers that are old, odd or hostile. Scripts of server bytes are fed whole and byte by
 * byte; what the client sends and reports must be the same. */
#include "tests/unit/core/stream/kit.h"

#define HEADER                                                                                               \
    "<?xml version='1.0'?><stream:stream from='example.org' id='1' version='1.0' xmlns='jabber:client' "     \
    "xmlns:stream='http://etherx.jabber.org/streams'>"
#define SASL_NS  " xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
#define TLS_NS   " xmlns='urn:ietf:params:xml:ns:xmpp-tls'"
#define BIND_NS  " xmlns='urn:ietf:params:xml:ns:xmpp-bind'"
#define SM_NS    " xmlns='urn:xmpp:sm:3'"
#define ERROR_NS " xmlns='urn:ietf:params:xml:ns:xmpp-streams'"
#define MECHANISMS(list)                                                                                     \
    HEADER "<stream:features><mechanisms" SASL_NS ">" list "</mechanisms></stream:features>"
#define PLAIN   MECHANISMS("<mechanism>PLAIN</mechanism>")
#define SUCCESS "<success" SASL_NS "/>"
#define BIND    HEADER "<stream:features><bind" BIND_NS "/></stream:features>"
#define BIND_SM HEADER "<stream:features><bind" BIND_NS "/><sm" SM_NS "/></stream:features>"
#define BOUND   "<iq type='result' id='xy-bind'><bind" BIND_NS "><jid>juliet@example.org/x</jid></bind></iq>"
#define READY   "READY jid=juliet@example.org/x sm=0 resume=0 resumed=0 h=0:0 max=0\n"
#define END     "</stream:stream>"

static const struct xy_stream_options options = KIT_OPTIONS;

struct run {
    struct xy_stream *stream;
    struct xy_buf sent, log;
    struct xy_stream_event last; /* without its strings */
    char text[300];
};

static void take_events(struct run *r)
{
    struct xy_stream_event event;
    while (xy_stream_next(r->stream, &event)) {
        r->last = event;
        snprintf(r->text, sizeof r->text, "%.*s", XY_ARG(event.text));
        kit_log(&r->log, &event);
    }
    struct xy_str out = xy_stream_output(r->stream);
    xy_buf_str(&r->sent, out);
    xy_stream_sent(r->stream, out.len);
}

static void feed(struct run *r, const char *script, bool bytewise)
{
    size_t len = strlen(script);
    for (size_t i = 0; i < len; i += bytewise ? 1 : len) {
        xy_stream_feed(r->stream, script + i, bytewise ? 1 : len);
        take_events(r);
    }
    xy_buf_char(&r->sent, '\0');
    r->sent.len--;
}

static struct run start(const struct xy_stream_client_options *client, const struct xy_sasl_binding *binding)
{
    struct run r = { 0 };
    struct xy_stream_client_options o = *client;
    o.jid = xy_jid_canonical(XY_STR("juliet@example.org"));
    if (!xy_str_present(o.password))
        o.password = XY_STR("r0m30");
    r.stream = xy_stream_client_new(&options, &o);
    if (binding)
        xy_stream_tls_started(r.stream, binding, 1);
    xy_stream_client_open(r.stream);
    take_events(&r);
    return r;
}

static void end(struct run *r)
{
    xy_stream_free(&r->stream);
    xy_buf_free(&r->sent);
    xy_buf_free(&r->log);
}

/* With PLAIN in clear allowed: the log of events, and something that was sent. */
static void check_with(const struct xy_stream_client_options *client, const char *script, const char *log,
                       const char *sent)
{
    for (int bytewise = 0; bytewise < 2; bytewise++) {
        struct run r = start(client, NULL);
        feed(&r, script, bytewise);
        assert_str_same(xy_buf_view(&r.log), r.log.data ? xy_str(log) : (*log ? xy_str(log) : XY_STR_NONE));
        if (!strstr(r.sent.data, sent))
            fail_msg("%s\n-> %s\nlacks %s", script, r.sent.data, sent);
        if (r.last.kind == XY_STREAM_EVENT_FAILED) {
            assert_true(r.text[0] != '\0');
            assert_true(xy_stream_is_over(r.stream));
            assert_string_equal(r.sent.data + r.sent.len - strlen(END), END);
        }
        end(&r);
    }
}

static const struct xy_stream_client_options in_clear = { .tls = XY_STREAM_TLS_NONE,
                                                          .plain_without_tls = true };

static void check(const char *script, const char *log, const char *sent)
{
    check_with(&in_clear, script, log, sent);
}

static void test_plain_login(void **state)
{
    (void)state;
    check(PLAIN SUCCESS BIND BOUND, READY, "mechanism='PLAIN'>AGp1bGlldAByMG0zMA==</auth>");
    check(PLAIN SUCCESS BIND, "", "<iq type='set' id='xy-bind'><bind" BIND_NS "></bind></iq>");
    /* who we are is not said in clear */
    check(PLAIN SUCCESS BIND BOUND, READY,
          "<?xml version='1.0'?><stream:stream xmlns='jabber:client' "
          "xmlns:stream='http://etherx.jabber.org/streams' "
          "version='1.0' to='example.org'>");
    check(PLAIN SUCCESS BIND BOUND "<message/>" END,
          READY "STANZA verdict=0 answered=0 bytes=10 <message/>\nCLOSED\n", "xy-bind");
    check(PLAIN END, "CLOSED\n", "<auth");
}

static void test_header_and_protocol(void **state)
{
    (void)state;
    check("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
          "FAILED error=unsupported-version failure=1\n", "<unsupported-version");
    check(
        "<stream:stream version='1.0' xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams'>",
        "FAILED error=invalid-namespace failure=1\n", "<invalid-namespace");
    check("HTTP/1.1 400 Bad Request\r\n\r\n<", "FAILED error=not-well-formed failure=1\n",
          "<not-well-formed");
    check(HEADER "<message/>", "FAILED error=not-authorized failure=1\n", "<stream:error>");
    check(HEADER "<stream:error><see-other-host" ERROR_NS ">[::1]:9</see-other-host><text" ERROR_NS
                 ">moved</text></stream:error>",
          "FAILED location=[::1]:9 error=see-other-host failure=2\n", END);
    check(PLAIN SUCCESS BIND BOUND "<stream:error><conflict" ERROR_NS "/></stream:error>",
          READY "FAILED error=conflict failure=2\n", END);
    check(HEADER "<stream:error><no-such" ERROR_NS "/></stream:error>",
          "FAILED error=undefined-condition failure=2\n", END);
}

static void test_peer_error_text(void **state)
{
    (void)state;
    struct run r = start(&in_clear, NULL);
    feed(&r,
         HEADER "<stream:error><reset" ERROR_NS "/><text" ERROR_NS ">new certificate</text></stream:error>",
         false);
    assert_string_equal(r.text, "new certificate");
    assert_int_equal(r.last.failure, XY_STREAM_FAILED_BY_PEER);
    end(&r);
}

static void test_starttls(void **state)
{
    (void)state;
    const struct xy_stream_client_options required = { .tls = XY_STREAM_TLS_REQUIRED };
    const struct xy_stream_client_options preferred = { .tls = XY_STREAM_TLS_PREFERRED,
                                                        .plain_without_tls = true };
#define STARTTLS HEADER "<stream:features><starttls" TLS_NS "/></stream:features>"
    check_with(&required, STARTTLS "<proceed" TLS_NS "/>", "STARTTLS\n", "<starttls" TLS_NS "/>");
    check_with(&preferred, STARTTLS "<proceed" TLS_NS "/>", "STARTTLS\n", "<starttls" TLS_NS "/>");
    check_with(&preferred, PLAIN, "", "<auth");
    check_with(&required, STARTTLS "<failure" TLS_NS "/>", "FAILED failure=4\n", END);
    check_with(&required, PLAIN, "FAILED failure=4\n", END);
    check_with(&required, STARTTLS "<success" SASL_NS "/>",
               "FAILED error=unsupported-stanza-type failure=1\n", END);
    /* case 25: clear text behind <proceed/> is not heard */
    struct run r = start(&required, NULL);
    feed(&r, STARTTLS "<proceed" TLS_NS "/>" PLAIN SUCCESS, false);
    feed(&r, PLAIN, false);
    assert_str(xy_buf_view(&r.log), "STARTTLS\n");
    xy_buf_reset(&r.sent);
    xy_stream_tls_started(r.stream, NULL, 0);
    take_events(&r);
    feed(&r, PLAIN, false);
    assert_non_null(strstr(r.sent.data, "from='juliet@example.org'"));
    assert_non_null(strstr(r.sent.data, "<auth"));
    end(&r);
}

static void test_sasl_failures(void **state)
{
    (void)state;
#define SCRAM MECHANISMS("<mechanism>SCRAM-SHA-1</mechanism><mechanism>X-NEW</mechanism>")
    check(PLAIN "<failure" SASL_NS "><account-disabled/></failure>",
          "FAILED sasl=account-disabled failure=5\n", END);
    check(PLAIN "<failure" SASL_NS "/>", "FAILED sasl=not-authorized failure=5\n", END);
    check(PLAIN "<failure" SASL_NS "><x-odd/></failure>", "FAILED sasl=not-authorized failure=5\n", END);
    check(PLAIN "<challenge" SASL_NS ">eA==</challenge>", "FAILED failure=6\n", "<abort");
    check(SCRAM SUCCESS, "FAILED failure=6\n", "mechanism='SCRAM-SHA-1'"); /* nothing was proved */
    check(SCRAM "<success" SASL_NS ">dj1yYmJi</success>", "FAILED failure=6\n", END);
    check(SCRAM "<challenge" SASL_NS ">!</challenge>", "FAILED failure=6\n", END);
    check(SCRAM "<challenge" SASL_NS ">cj14LHM9eCxpPTE=</challenge>", "FAILED failure=6\n", "<abort");
    check(SCRAM "<message/>", "FAILED error=not-authorized failure=1\n", END);
    check(MECHANISMS("<mechanism>X-NEW</mechanism>"), "FAILED failure=7\n", END);
    const struct xy_stream_client_options careful = { .tls = XY_STREAM_TLS_NONE };
    check_with(&careful, PLAIN, "FAILED failure=7\n", END);
    const struct xy_stream_client_options bad = { .tls = XY_STREAM_TLS_NONE, .password = XY_STR("\x01") };
    check_with(&bad, SCRAM, "FAILED failure=5\n", END);
    struct run r = start(&in_clear, NULL);
    feed(&r, PLAIN "<failure" SASL_NS "><not-authorized/><text>three left</text></failure>", false);
    assert_non_null(strstr(r.text, "juliet@example.org"));
    assert_non_null(strstr(r.text, "PLAIN"));
    assert_non_null(strstr(r.text, "three left"));
    assert_null(strstr(r.text, "r0m30"));
    end(&r);
}

/* Which mechanism and flag goes with what the server lists (XEP-0440 3). */
static void test_channel_binding(void **state)
{
    (void)state;
#define CB(type)                                                                                             \
    "<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='" type                          \
    "'/></sasl-channel-binding>"
#define OFFER(cb, list)                                                                                      \
    HEADER "<stream:features>" cb "<mechanisms" SASL_NS ">" list "</mechanisms></stream:features>"
#define SHA_1      "<mechanism>SCRAM-SHA-1</mechanism>"
#define SHA_1_PLUS "<mechanism>SCRAM-SHA-1-PLUS</mechanism>"
    static const struct {
        const char *binding, *script, *mechanism, *flag;
    } cases[] = {
        { "tls-exporter", OFFER(CB("tls-exporter"), SHA_1 SHA_1_PLUS), "'SCRAM-SHA-1-PLUS'",
          "p=tls-exporter," },
        { "tls-exporter", OFFER(CB("tls-unique"), SHA_1 SHA_1_PLUS), "'SCRAM-SHA-1'", "n," },
        { "tls-exporter", OFFER("", SHA_1 SHA_1_PLUS), "'SCRAM-SHA-1'", "n," },
        { "tls-server-end-point", OFFER("", SHA_1 SHA_1_PLUS), "'SCRAM-SHA-1-PLUS'",
          "p=tls-server-end-point," },
        { "tls-exporter", OFFER("", SHA_1), "'SCRAM-SHA-1'", "y," },
        { NULL, OFFER("", SHA_1), "'SCRAM-SHA-1'", "n," },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct xy_stream_client_options o = { .tls = XY_STREAM_TLS_NONE };
        struct xy_sasl_binding binding = { cases[i].binding, XY_STR("channel") };
        struct run r = start(&o, cases[i].binding ? &binding : NULL);
        feed(&r, cases[i].script, false);
        const char *auth = strstr(r.sent.data, "mechanism=");
        assert_non_null(auth);
        auth += strlen("mechanism=");
        assert_memory_equal(auth, cases[i].mechanism, strlen(cases[i].mechanism));
        const char *base64 = strchr(auth, '>') + 1;
        struct xy_buf message = { 0 };
        assert_true(xy_base64_decode(&message, xy_str_n(base64, (size_t)(strchr(base64, '<') - base64))));
        assert_true(xy_str_starts(xy_buf_view(&message), xy_str(cases[i].flag)));
        xy_buf_free(&message);
        end(&r);
    }
}

static void test_bind_answers(void **state)
{
    (void)state;
#define ANSWER(body) PLAIN SUCCESS BIND "<iq type='result' id='xy-bind'>" body "</iq>"
    check(ANSWER(""), "FAILED failure=8\n", END);
    check(ANSWER("<bind" BIND_NS "/>"), "FAILED failure=8\n", END);
    check(ANSWER("<bind" BIND_NS "><jid>juliet@example.org</jid></bind>"), "FAILED failure=8\n", END);
    check(ANSWER("<bind" BIND_NS "><jid>@</jid></bind>"), "FAILED failure=8\n", END);
    check(ANSWER("<bind" BIND_NS "><jid>other@example.org/made</jid></bind>"),
          "READY jid=other@example.org/made sm=0 resume=0 resumed=0 h=0:0 max=0\n", "");
    check(PLAIN SUCCESS BIND "<iq type='error' id='xy-bind'><error type='cancel'><conflict "
                             "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
          "FAILED failure=8\n", END);
    check(PLAIN SUCCESS BIND "<iq type='result' id='other'/>", "FAILED error=not-authorized failure=1\n",
          END);
    check(PLAIN SUCCESS HEADER "<stream:features/>", "FAILED failure=8\n", END);
    /* RFC 3921's session, only where it is not optional */
#define SESSION(inner)                                                                                       \
    PLAIN SUCCESS HEADER "<stream:features><bind" BIND_NS                                                    \
                         "/><session xmlns='urn:ietf:params:xml:ns:xmpp-session'>" inner                     \
                         "</session></stream:features>" BOUND
    check(SESSION("<optional/>"), READY, "");
    check(SESSION(""), "", "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>");
    check(SESSION("") "<iq type='result' id='xy-session'/>", READY, "");
    check(SESSION("") "<message/><iq type='error' id='xy-session'/>",
          "STANZA verdict=0 answered=0 bytes=10 <message/>\nFAILED failure=8\n", END);
}

static void test_limits_of_peer(void **state)
{
    (void)state;
    struct run r = start(&in_clear, NULL);
    feed(&r,
         PLAIN SUCCESS HEADER
         "<stream:features><bind" BIND_NS
         "/><limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>12345</max-bytes><idle-seconds>60"
         "</idle-seconds></limits></stream:features>" BOUND,
         false);
    assert_int_equal(r.last.kind, XY_STREAM_EVENT_READY);
    assert_int_equal(r.last.peer_bytes_max, 12345);
    assert_int_equal(r.last.peer_idle_seconds, 60);
    end(&r);
}

static void test_stream_management(void **state)
{
    (void)state;
    struct xy_stream_client_options o = in_clear;
    o.sm = o.sm_resume = true;
#define ENABLED(attributes) PLAIN SUCCESS BIND_SM BOUND "<enabled" SM_NS attributes "/>"
    check_with(&o, PLAIN SUCCESS BIND_SM BOUND, "", "<enable" SM_NS " resume='true'/>");
    check_with(&o, PLAIN SUCCESS BIND BOUND, READY, "");
    check_with(&o, ENABLED(""), "READY jid=juliet@example.org/x sm=1 resume=0 resumed=0 h=0:0 max=0\n", "");
    check_with(&o, ENABLED(" resume='true'"),
               "READY jid=juliet@example.org/x sm=1 resume=0 resumed=0 h=0:0 max=0\n",
               ""); /* no id: nothing to resume with */
    check_with(&o, ENABLED(" resume='1' id='a' max='9'"),
               "READY jid=juliet@example.org/x sm_id=a sm=1 resume=1 resumed=0 h=0:0 max=9\n", "");
    check_with(&o, ENABLED("") "<a" SM_NS " h='x'/>",
               "READY jid=juliet@example.org/x sm=1 resume=0 resumed=0 h=0:0 max=0\n"
               "FAILED error=undefined-condition failure=1\n",
               "<handled-count-too-high");
    o.previd = XY_STR("old");
    o.previd_h = 3;
    check_with(&o, PLAIN SUCCESS BIND_SM, "", "<resume" SM_NS " previd='old' h='3'/>");
    check_with(&o, PLAIN SUCCESS BIND_SM "<resumed" SM_NS " previd='old'/>",
               "FAILED error=bad-format failure=1\n", END);
    check_with(&o, PLAIN SUCCESS BIND_SM "<resumed" SM_NS " previd='old' h='4'/><r" SM_NS "/>",
               "READY sm_id=old sm=1 resume=1 resumed=1 h=1:4 max=0\nSM_REQUEST\n", "");
    check_with(&o, PLAIN SUCCESS BIND_SM "<failed" SM_NS "/>" BOUND "<failed" SM_NS "/>", READY, "<enable");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_login),       cmocka_unit_test(test_header_and_protocol),
        cmocka_unit_test(test_peer_error_text),   cmocka_unit_test(test_starttls),
        cmocka_unit_test(test_sasl_failures),     cmocka_unit_test(test_channel_binding),
        cmocka_unit_test(test_bind_answers),      cmocka_unit_test(test_limits_of_peer),
        cmocka_unit_test(test_stream_management),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
