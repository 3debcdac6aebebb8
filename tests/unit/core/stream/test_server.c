/* The server's stream against clients that do not keep to the rules. Names cite the cases of hostile input. Each script
 * is fed whole and byte by byte; both must end the same. */
#include "tests/unit/core/stream/kit.h"

#define STREAM_ERROR(name) "<stream:error><" name " xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"
#define SASL_FAILURE(name) "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><" name "/></failure>"
#define SM_FAILED(name)                                                                                      \
    "<failed xmlns='urn:xmpp:sm:3'><" name " xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
#define SASL_NS   " xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
#define PLAIN_BAD "<auth" SASL_NS " mechanism='PLAIN'>AGp1bGlldAB3cm9uZw==</auth>"
#define LOGIN     KIT_HEADER KIT_AUTH KIT_HEADER
#define BOUND     LOGIN KIT_BIND
#define END       "</stream:stream>"

static struct xy_stream_options options = KIT_OPTIONS;

struct run {
    struct kit_server server;
    struct xy_buf out;
};

static void run_start(struct run *r)
{
    r->server.offer.mechanisms = r->server.offer.mechanisms ? r->server.offer.mechanisms
                                                            : (unsigned)XY_SASL_PLAIN | XY_SASL_SCRAM_SHA_1;
    kit_server_start(&r->server, &options);
}

static void run_end(struct run *r)
{
    kit_server_end(&r->server);
    xy_buf_free(&r->out);
}

static void feed(struct run *r, struct xy_str script, bool bytewise)
{
    for (size_t i = 0; bytewise && i < script.len; i++)
        kit_server_feed(&r->server, xy_str_n(script.data + i, 1));
    if (!bytewise)
        kit_server_feed(&r->server, script);
    kit_take(r->server.stream, &r->out);
}

/* The script ends in output with this in it; `over`: and with the end of the stream. */
static void check_with(const struct run *base, const char *script, const char *output, bool over)
{
    for (int bytewise = 0; bytewise < 2; bytewise++) {
        struct run r = *base;
        run_start(&r);
        feed(&r, xy_str(script), bytewise);
        if (!strstr(r.out.data, output))
            fail_msg("%s\n-> %s\nlacks %s", script, r.out.data, output);
        if (xy_stream_is_over(r.server.stream) != over)
            fail_msg("%s\n-> %s\nover: %d", script, r.out.data, !over);
        if (over) {
            assert_string_equal(r.out.data + r.out.len - strlen(END), END);
            xy_buf_reset(&r.server.log);
            feed(&r, XY_STR("<message/>" END KIT_HEADER),
                 bytewise); /* case 17: nothing more is said or heard */
            assert_int_equal(r.out.len, 0);
            assert_int_equal(r.server.log.len, 0);
        }
        run_end(&r);
    }
}

static void check(const char *script, const char *output, bool over)
{
    struct run base = { 0 };
    check_with(&base, script, output, over);
}

static void test_header(void **state)
{
    (void)state;
#define HEAD(attributes, root) "<" root " " attributes ">"
#define NS                     " xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
    check(HEAD("version='1.0'" NS, "stream:stream"), STREAM_ERROR("host-unknown"), true); /* case 24 */
    check(HEAD("version='1.0' to=''" NS, "stream:stream"), STREAM_ERROR("host-unknown"), true);
    check(HEAD("version='1.0' to='other.org'" NS, "stream:stream"), STREAM_ERROR("host-unknown"), true);
    check(HEAD("version='1.0' to='a@b'" NS, "stream:stream"), STREAM_ERROR("host-unknown"), true);
    check(HEAD("to='example.org'" NS, "stream:stream"), STREAM_ERROR("unsupported-version"), true);
    check(HEAD("version='0.9' to='example.org'" NS, "stream:stream"), STREAM_ERROR("unsupported-version"),
          true);
    check(HEAD("version='x' to='example.org'" NS, "stream:stream"), STREAM_ERROR("unsupported-version"),
          true);
    check(HEAD("version='1' to='example.org'" NS, "stream:stream"), STREAM_ERROR("unsupported-version"),
          true);
    check(HEAD("version='1.0' to='example.org' xmlns='jabber:server' "
               "xmlns:stream='http://etherx.jabber.org/streams'",
               "stream:stream"),
          STREAM_ERROR("invalid-namespace"), true); /* case 20 */
    check(HEAD("version='1.0' to='example.org' xmlns:stream='http://etherx.jabber.org/streams'",
               "stream:stream"),
          STREAM_ERROR("invalid-namespace"), true);
    check(HEAD("version='1.0' to='example.org' xmlns='jabber:client' xmlns:stream='urn:x'", "stream:stream"),
          STREAM_ERROR("invalid-namespace"), true);
    check(HEAD("version='1.0' to='example.org'" NS, "stream:flood"), STREAM_ERROR("invalid-namespace"), true);
    check("<!DOCTYPE x>", STREAM_ERROR("restricted-xml"), true); /* case 1 */
    check("hello <a>", "<stream:error>", true);
    check("<a></b>", "<stream:error>", true);
    check(HEAD("version='1.10' to='EXAMPLE.org' from='juliet@example.org' xml:lang='de'" NS, "stream:stream"),
          "to='juliet@example.org'", false);
    check(HEAD("version='2.0' to='example.org'" NS, "stream:stream"), "version='1.0'", false);
}

static void test_features(void **state)
{
    (void)state;
    struct run r = { .server.offer = { .mechanisms = XY_SASL_SCRAM_ALL | XY_SASL_PLAIN, .starttls = true } };
    run_start(&r);
    feed(&r, XY_STR(KIT_HEADER), false);
    assert_non_null(strstr(r.out.data, "from='example.org'"));
    assert_non_null(strstr(r.out.data,
                           "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'></starttls>"
                           "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>"
                           "<mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1</mechanism>"
                           "<mechanism>PLAIN</mechanism></mechanisms>"
                           "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>16384</max-bytes></limits>"
                           "</stream:features>"));
    run_end(&r);

    struct xy_stream_options tls_options = KIT_OPTIONS;
    tls_options.stanza_bytes_max = 20000;
    tls_options.idle_seconds = 600;
    r = (struct run){ .server.offer = { .mechanisms = XY_SASL_SCRAM_ALL | XY_SASL_PLAIN, .sm = true } };
    kit_server_start(&r.server, &tls_options);
    xy_stream_tls_started(r.server.stream, &KIT_BINDING, 1);
    feed(&r, XY_STR(KIT_HEADER), false);
    assert_non_null(strstr(r.out.data, "<channel-binding type='tls-exporter'/>"));
    assert_non_null(strstr(r.out.data, "<mechanism>SCRAM-SHA-256-PLUS</mechanism>"));
    feed(&r, XY_STR(KIT_AUTH KIT_HEADER), false);
    assert_non_null(strstr(r.out.data,
                           "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
                           "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>"
                           "<sm xmlns='urn:xmpp:sm:3'/><csi xmlns='urn:xmpp:csi:0'/>"
                           "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>20000</max-bytes>"
                           "<idle-seconds>600</idle-seconds></limits></stream:features>"));
    run_end(&r);
}

/* Cases 25, 27 */
static void test_starttls(void **state)
{
    (void)state;
    struct run base = { .server.offer = {
                            .starttls = true, .starttls_required = true, .mechanisms = XY_SASL_PLAIN } };
    check_with(&base, KIT_HEADER KIT_AUTH, SASL_FAILURE("encryption-required"), false);
    check(KIT_HEADER "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
          "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", true);
    struct run r = base;
    run_start(&r);
    feed(&r, XY_STR(KIT_HEADER "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>" KIT_HEADER KIT_AUTH),
         false);
    assert_non_null(strstr(r.out.data, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
    assert_null(strstr(r.out.data, "PLAIN"));
    feed(&r, XY_STR(KIT_HEADER), false); /* still in clear: not heard */
    assert_int_equal(r.out.len, 0);
    xy_stream_tls_started(r.server.stream, NULL, 0);
    kit_server_run(&r.server);
    feed(&r, XY_STR(KIT_HEADER), false);
    assert_non_null(strstr(r.out.data, "PLAIN"));
    assert_null(strstr(r.out.data, "<starttls"));
    feed(&r, XY_STR("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), false);
    assert_non_null(strstr(r.out.data, "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
    run_end(&r);
}

static void test_before_authentication(void **state)
{
    (void)state;
    check(KIT_HEADER "<message/>", STREAM_ERROR("not-authorized"), true); /* case 26 */
    check(KIT_HEADER "<iq type='get' id='1'><x xmlns='y'/></iq>", STREAM_ERROR("not-authorized"), true);
    check(KIT_HEADER "<message xmlns='jabber:server'/>", STREAM_ERROR("invalid-namespace"), true);
    check(KIT_HEADER "<nonsense/>", STREAM_ERROR("unsupported-stanza-type"), true);              /* case 21 */
    check(KIT_HEADER "<stream:features/>", STREAM_ERROR("unsupported-stanza-type"), true);       /* case 19 */
    check(KIT_HEADER KIT_HEADER, "<stream:error>", true);                                        /* case 18 */
    check(KIT_HEADER "<enable xmlns='urn:xmpp:sm:3'/>", SM_FAILED("unexpected-request"), false); /* case 53 */
    check(KIT_HEADER "<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>", SM_FAILED("unexpected-request"),
          false);
    check(KIT_HEADER "<a xmlns='urn:xmpp:sm:3' h='0'/>", STREAM_ERROR("unsupported-stanza-type"), true);
    check(KIT_HEADER "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>", END,
          true);
    check(KIT_HEADER "text", STREAM_ERROR("invalid-xml"), true);
    check(KIT_HEADER " \n\t ", "<stream:features>", false);
}

static void test_before_binding(void **state)
{
    (void)state;
    check(LOGIN "<message/>", STREAM_ERROR("not-authorized"), true);
    check(LOGIN "<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>",
          STREAM_ERROR("not-authorized"), true);
    check(LOGIN "<nonsense/>", STREAM_ERROR("unsupported-stanza-type"), true);
    check(LOGIN "<enable xmlns='urn:xmpp:sm:3'/>", SM_FAILED("unexpected-request"), false);
    check(LOGIN "<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>", SM_FAILED("feature-not-implemented"),
          false);
    check(LOGIN KIT_AUTH, STREAM_ERROR("unsupported-stanza-type"), true);
    /* an error behind a restart has a header of its own in front */
    check(KIT_HEADER KIT_AUTH "<bogus>", "</success><?xml version='1.0'?><stream:stream", true);
    check(KIT_HEADER KIT_AUTH "<stream:stream to='other.org' version='1.0' xmlns='jabber:client' "
                              "xmlns:stream='http://etherx.jabber.org/streams'>",
          STREAM_ERROR("host-unknown"), true); /* case 24 */
}

/* Cases 31, 34, 36, 37 */
static void test_sasl(void **state)
{
    (void)state;
#define AUTH(mechanism, data) "<auth" SASL_NS " mechanism='" mechanism "'>" data "</auth>"
    check(KIT_HEADER AUTH("PLAIN", "AGp1bGlldAByMG0zMA=="), "<success" SASL_NS "></success>", false);
    check(KIT_HEADER AUTH("PLAIN", "=="), SASL_FAILURE("incorrect-encoding"), false);
    check(KIT_HEADER AUTH("PLAIN", "AGp1bGlldAByMG0zMA"), SASL_FAILURE("incorrect-encoding"), false);
    check(KIT_HEADER AUTH("PLAIN", "AGp1bGl ldAByMG0zMA=="), SASL_FAILURE("incorrect-encoding"), false);
    check(KIT_HEADER AUTH("PLAIN", "="), SASL_FAILURE("malformed-request"), false);
    check(KIT_HEADER AUTH("PLAIN", "YQ=="), SASL_FAILURE("malformed-request"), false);
    check(KIT_HEADER AUTH("PLAIN", ""), "<challenge" SASL_NS "></challenge>", false);
    check(KIT_HEADER AUTH("PLAIN", "") "<response" SASL_NS ">AGp1bGlldAByMG0zMA==</response>", "<success",
          false);
    check(KIT_HEADER AUTH("PLAIN", "") "<response" SASL_NS "/>", SASL_FAILURE("malformed-request"), false);
    check(KIT_HEADER AUTH("PLAIN", "") "<response" SASL_NS ">!</response>",
          SASL_FAILURE("incorrect-encoding"), false);
    check(KIT_HEADER AUTH("plain", "AGp1bGlldAByMG0zMA=="), SASL_FAILURE("invalid-mechanism"), false);
    check(KIT_HEADER AUTH("SCRAM-SHA-256", ""), SASL_FAILURE("invalid-mechanism"), false);
    check(KIT_HEADER AUTH("SCRAM-SHA-1-PLUS", ""), SASL_FAILURE("invalid-mechanism"), false);
    check(KIT_HEADER "<auth" SASL_NS "/>", SASL_FAILURE("invalid-mechanism"), false);
    check(KIT_HEADER "<response" SASL_NS "/>", SASL_FAILURE("malformed-request"), false);
    check(KIT_HEADER "<abort" SASL_NS "/>", SASL_FAILURE("aborted"), false);
    check(KIT_HEADER AUTH("SCRAM-SHA-1", "") "<abort" SASL_NS "/>", SASL_FAILURE("aborted"), false);
    check(KIT_HEADER AUTH("SCRAM-SHA-1", "biwsbj1qdWxpZXQscj1hYmM="), "<challenge", false);
    check(KIT_HEADER AUTH("SCRAM-SHA-1", "biwsbj1qdWxpZXQscj1hYmM=") KIT_AUTH, "<success",
          false); /* starts over */
    check(KIT_HEADER "<challenge" SASL_NS "/>", STREAM_ERROR("unsupported-stanza-type"), true);
    /* \0jul@iet\0r0m30: no localpart */
    check(KIT_HEADER AUTH("PLAIN", "AGp1bEBpZXQAcjBtMzA="), SASL_FAILURE("not-authorized"), false);
    /* romeo@example.org\0juliet\0r0m30; juliet@example.org\0...; juliet@example.org/x\0... */
    check(KIT_HEADER AUTH("PLAIN", "cm9tZW9AZXhhbXBsZS5vcmcAanVsaWV0AHIwbTMw"),
          SASL_FAILURE("invalid-authzid"), false);
    check(KIT_HEADER AUTH("PLAIN", "anVsaWV0QGV4YW1wbGUub3JnAGp1bGlldAByMG0zMA=="), "<success", false);
    check(KIT_HEADER AUTH("PLAIN", "anVsaWV0QGV4YW1wbGUub3JnL3gAanVsaWV0AHIwbTMw"),
          SASL_FAILURE("invalid-authzid"), false);
    /* n,a=romeo@example.org,n=juliet,r=abc */
    check(KIT_HEADER AUTH("SCRAM-SHA-1", "bixhPXJvbWVvQGV4YW1wbGUub3JnLG49anVsaWV0LHI9YWJj"),
          SASL_FAILURE("invalid-authzid"), false);
    check(KIT_HEADER PLAIN_BAD PLAIN_BAD KIT_AUTH, "<success", false);
    check(KIT_HEADER PLAIN_BAD PLAIN_BAD PLAIN_BAD,
          SASL_FAILURE("not-authorized") STREAM_ERROR("policy-violation"), true);
    check(KIT_HEADER "<abort" SASL_NS "/><abort" SASL_NS "/><abort" SASL_NS "/>",
          SASL_FAILURE("aborted") STREAM_ERROR("policy-violation"), true);
}

/* The last failure is told to the owner even when it followed from a late answer. */
static void test_late_answers(void **state)
{
    (void)state;
    struct run r = { .server.late = true };
    run_start(&r);
    feed(&r, XY_STR(KIT_HEADER PLAIN_BAD PLAIN_BAD PLAIN_BAD), false);
    for (int i = 0; i < 3; i++) {
        assert_true(r.server.asked);
        assert_false(xy_stream_wants_input(r.server.stream));
        kit_server_run(&r.server);
    }
    xy_buf_char(&r.server.log, '\0');
    assert_non_null(strstr(r.server.log.data, "FAILED user=juliet mechanism=PLAIN sasl=not-authorized "
                                              "error=policy-violation failure=5\n"));
    assert_true(xy_stream_is_over(r.server.stream));
    run_end(&r);
}

/* Input that comes in spite of an open question is bounded. */
static void test_flood_while_waiting(void **state)
{
    (void)state;
    for (size_t extra = 0; extra < 2; extra++) {
        struct run r = { .server.late = true };
        run_start(&r);
        feed(&r, XY_STR(KIT_HEADER KIT_AUTH), false);
        char *spaces = malloc(XY_STREAM_HELD_MAX + 1);
        memset(spaces, ' ', XY_STREAM_HELD_MAX + 1);
        struct xy_stream_event event;
        xy_stream_feed(r.server.stream, spaces, XY_STREAM_HELD_MAX + extra);
        assert_int_equal(xy_stream_next(r.server.stream, &event), extra);
        assert_int_equal(xy_stream_is_over(r.server.stream), extra);
        free(spaces);
        run_end(&r);
    }
}

/* Cases 40, 41 */
static void test_bind(void **state)
{
    (void)state;
#define BIND(resource)                                                                                       \
    "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>" resource "</bind></iq>"
#define JID(resource)                                                                                        \
    "<iq type='result' id='b'><bind "                                                                        \
    "xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>juliet@example.org/" resource "</jid></bind></iq>"
    check(LOGIN BIND("<resource>balcony</resource>"), JID("balcony"), false);
    check(LOGIN BIND(""), JID("made-by-server"), false);
    check(LOGIN BIND("<resource/>"), JID("made-by-server"), false);
    check(LOGIN BIND("<resource>a/b@c</resource>"), JID("a/b@c"), false);
    check(LOGIN BIND("<resource>&#7;</resource>"), STREAM_ERROR("not-well-formed"), true);
    check(LOGIN BIND("<resource>\xee\x80\x80</resource>"), "<bad-request", false);
    check(LOGIN "<iq type='get' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "<bad-request",
          false);
    check(BOUND BIND("<resource>again</resource>"), "<not-allowed", false);
    check(BOUND "<iq type='set' id='s'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>",
          "<iq type='result' id='s'/>", false);
    struct run base = { .server.refuse_bind = true };
    check_with(&base, LOGIN KIT_BIND, "<resource-constraint", false);
    check_with(&base, LOGIN KIT_BIND KIT_BIND, JID("balcony"), false);
}

static void test_bind_limits(void **state)
{
    (void)state;
    for (size_t extra = 0; extra < 2; extra++) {
        struct run r = { 0 };
        run_start(&r);
        feed(&r,
             XY_STR(LOGIN "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>"),
             false);
        for (size_t i = 0; i < 1023 + extra; i++)
            kit_server_feed(&r.server, XY_STR("r"));
        feed(&r, XY_STR("</resource></bind></iq>"), false);
        assert_non_null(strstr(r.out.data, extra ? "<bad-request" : "type='result'"));
        run_end(&r);
    }
    struct run r = { 0 };
    run_start(&r);
    feed(&r, XY_STR(LOGIN), false);
    for (int i = 0; i < 10; i++)
        feed(&r, XY_STR(BIND("<resource>\xee\x80\x80</resource>")), false);
    assert_false(xy_stream_is_over(r.server.stream));
    feed(&r, XY_STR(BIND("<resource>\xee\x80\x80</resource>")), false);
    assert_true(xy_stream_is_over(r.server.stream));
    assert_non_null(strstr(r.out.data, STREAM_ERROR("policy-violation")));
    run_end(&r);
}

static void test_bound(void **state)
{
    (void)state;
    check(BOUND "<nonsense/>", STREAM_ERROR("unsupported-stanza-type"), true);
    check(BOUND "<message xmlns='jabber:server'/>", STREAM_ERROR("invalid-namespace"), true);
    check(BOUND "<stream:features/>", STREAM_ERROR("unsupported-stanza-type"), true);
    check(BOUND KIT_AUTH, STREAM_ERROR("unsupported-stanza-type"), true);
    check(BOUND "text", STREAM_ERROR("invalid-xml"), true);
    check(BOUND "<message><!-- c --></message>", STREAM_ERROR("restricted-xml"), true);
    check(BOUND "<message><x:y/></message>", STREAM_ERROR("bad-namespace-prefix"), true);
    struct run r = { 0 };
    run_start(&r);
    feed(&r, XY_STR(BOUND), false);
    xy_buf_reset(&r.server.log);
    feed(&r, XY_STR("<message to='a@b@c/'/><iq type='get'><x xmlns='y'/></iq><presence from='x y@z'/>" END),
         false);
    xy_buf_char(&r.server.log, '\0');
    assert_non_null(strstr(r.server.log.data, "STANZA verdict=2")); /* bad to: the owner answers */
    assert_non_null(strstr(r.server.log.data, "STANZA verdict=4")); /* iq without id */
    assert_non_null(strstr(r.server.log.data, "STANZA verdict=3"));
    assert_non_null(strstr(r.server.log.data, "CLOSED\n"));
    feed(&r, XY_STR("<message/>"), false); /* case 17 */
    assert_int_equal(r.server.stanzas, 3);
    assert_true(xy_stream_send_raw(r.server.stream, XY_STR("<presence/>")));
    xy_stream_close(r.server.stream);
    assert_str(kit_take(r.server.stream, &r.out), "<presence/>" END);
    assert_true(xy_stream_is_over(r.server.stream));
    run_end(&r);
}

/* XEP-0352 */
static void test_client_state(void **state)
{
    (void)state;
    struct run r = { 0 };
    run_start(&r);
    feed(&r, XY_STR(BOUND), false);
    xy_buf_reset(&r.server.log);
    feed(&r, XY_STR("<inactive xmlns='urn:xmpp:csi:0'/><active xmlns='urn:xmpp:csi:0'/>"), true);
    assert_int_equal(r.out.len, 0);
    assert_int_equal(r.server.stanzas, 0);
    assert_str(xy_buf_view(&r.server.log), "CLIENT_STATE\nCLIENT_STATE active\n");
    run_end(&r);
    check(BOUND "<asleep xmlns='urn:xmpp:csi:0'/>", STREAM_ERROR("unsupported-stanza-type"), true);
    check(KIT_HEADER "<active xmlns='urn:xmpp:csi:0'/>", STREAM_ERROR("unsupported-stanza-type"), true);
}

/* Case 16: what is advertised is what is enforced, before and after authentication. */
static void test_stanza_size(void **state)
{
    (void)state;
    static const struct {
        const char *before;
        size_t max;
    } cases[] = { { KIT_HEADER, XY_STANZA_BYTES_UNAUTHENTICATED }, { BOUND, XY_STANZA_BYTES_DEFAULT } };
    for (size_t i = 0; i < 2; i++) {
        for (size_t extra = 0; extra < 2; extra++) {
            struct run r = { 0 };
            run_start(&r);
            feed(&r, xy_str(cases[i].before), false);
            size_t frame = strlen("<message></message>");
            char *stanza = malloc(cases[i].max + extra + 1);
            memset(stanza, 'x', cases[i].max + extra);
            memcpy(stanza, "<message>", 9);
            memcpy(stanza + cases[i].max + extra - (frame - 9), "</message>", 11);
            feed(&r, xy_str_n(stanza, cases[i].max + extra), false);
            const char *wanted = extra    ? STREAM_ERROR("policy-violation")
                                 : i == 0 ? STREAM_ERROR("not-authorized")
                                          : "";
            assert_non_null(strstr(r.out.data, wanted));
            assert_null(strstr(r.out.data, "xxxx"));
            assert_int_equal(r.server.stanzas, i == 1 && extra == 0);
            free(stanza);
            run_end(&r);
        }
    }
}

/* Cases 53 - 56 */
static void test_stream_management(void **state)
{
    (void)state;
#define SM(name, attributes) "<" name " xmlns='urn:xmpp:sm:3' " attributes "/>"
    struct run base = { .server.offer = { .sm = true }, .server.resumable = "mine" };
    check(BOUND SM("enable", ""), SM_FAILED("feature-not-implemented"), false);
    check_with(&base, BOUND SM("enable", ""), "<enabled xmlns='urn:xmpp:sm:3'/>", false);
    check_with(&base, BOUND SM("enable", "resume='1'"),
               "<enabled xmlns='urn:xmpp:sm:3' id='id-&apos;1&apos;' resume='true' max='300' "
               "location='[::1]:5222'/>",
               false);
    check_with(&base, BOUND SM("enable", "") SM("enable", ""), SM_FAILED("unexpected-request"), false);
    check_with(&base, BOUND "<presence/>" SM("enable", ""), SM_FAILED("unexpected-request"), false);
    check_with(&base,
               BOUND "<iq type='set' id='s'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>" SM(
                   "enable", ""),
               "<enabled", false);
    check_with(&base, BOUND SM("resume", "previd='mine' h='0'"), SM_FAILED("unexpected-request"), false);
    check_with(&base, BOUND SM("enable", "") SM("a", "h='4294967296'"), "<handled-count-too-high", true);
    check_with(&base, BOUND SM("enable", "") SM("a", "h='-1'"), "<handled-count-too-high", true);
    check_with(&base, BOUND SM("enable", "") SM("a", "h='x'"), STREAM_ERROR("undefined-condition"), true);
    check_with(&base, BOUND SM("enable", "") SM("a", ""), "<handled-count-too-high", true);
    check_with(&base, BOUND SM("enable", "") SM("bogus", ""), STREAM_ERROR("unsupported-stanza-type"), true);
    check_with(&base, BOUND SM("a", "h='7'") SM("r", ""), "<jid>", false); /* before <enable/>: nothing */
    check_with(&base, LOGIN SM("resume", "previd='mine' h='0'"),
               "<resumed xmlns='urn:xmpp:sm:3' previd='mine' h='7'/>", false);
    check_with(&base, LOGIN SM("resume", "previd='guess' h='0'"),
               "<failed xmlns='urn:xmpp:sm:3' h='5'><item-not-found "
               "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>",
               false);
    check_with(&base, LOGIN SM("resume", "previd='guess' h='0'") KIT_BIND, "<jid>", false);
    check_with(&base, LOGIN SM("resume", "previd='mine' h='x'"), SM_FAILED("bad-request"), false);
    check_with(&base, LOGIN SM("resume", "h='0'"), SM_FAILED("bad-request"), false);
    check_with(&base, LOGIN SM("resume", "previd='mine'"), SM_FAILED("bad-request"), false);
}

/* With stream management on every stanza out counts, so the stream must not slip one past the owner. */
static void test_answer_is_counted(void **state)
{
    (void)state;
    struct run r = { .server.offer = { .sm = true } };
    struct xy_stream_event event;
    struct xy_buf reply = { 0 };
    const char *iq = "<iq type='set' id='s'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>";
    run_start(&r);
    feed(&r, XY_STR(BOUND SM("enable", "")), false);
    xy_stream_feed(r.server.stream, iq, strlen(iq));
    assert_true(xy_stream_next(r.server.stream, &event));
    assert_true(event.answered);
    assert_int_equal(xy_stream_output(r.server.stream).len, 0);
    xy_xml_write(&reply, event.reply, XY_STR(NS_CLIENT));
    assert_str(xy_buf_view(&reply), "<iq type='result' id='s'/>");
    xy_arena_free(&event.stanza.arena);
    xy_buf_free(&reply);
    run_end(&r);
}

static void test_fail_ack(void **state)
{
    (void)state;
    struct run r = { .server.offer = { .sm = true } };
    run_start(&r);
    feed(&r, XY_STR(BOUND SM("enable", "") SM("a", "h='10'")), false);
    xy_stream_fail_ack(r.server.stream, 10, 8);
    kit_take(r.server.stream, &r.out);
    assert_non_null(strstr(r.out.data, STREAM_ERROR("undefined-condition")));
    assert_non_null(
        strstr(r.out.data, "<handled-count-too-high xmlns='urn:xmpp:sm:3' h='10' send-count='8'/>"));
    assert_true(xy_stream_is_over(r.server.stream));
    xy_stream_fail(r.server.stream, XY_STREAM_CONFLICT, "too late");
    assert_int_equal(xy_stream_output(r.server.stream).len, 0);
    run_end(&r);
}

static void test_fail_by_owner(void **state)
{
    (void)state;
    struct run r = { 0 };
    run_start(&r);
    feed(&r, XY_STR(BOUND), false);
    xy_stream_fail(r.server.stream, XY_STREAM_CONFLICT, "a <new> session");
    assert_str(
        kit_take(r.server.stream, &r.out),
        STREAM_ERROR(
            "conflict") "<text xml:lang='en' xmlns='urn:ietf:params:xml:ns:xmpp-streams'>a &lt;new&gt; "
                        "session</text></stream:error>" END);
    struct xy_stream_event event;
    assert_false(xy_stream_next(r.server.stream, &event));
    run_end(&r);
    /* before any header came: ours is written first (RFC 6120 4.9.1.2) */
    run_start(&r);
    xy_stream_fail(r.server.stream, XY_STREAM_SYSTEM_SHUTDOWN, NULL);
    kit_take(r.server.stream, &r.out);
    assert_non_null(strstr(r.out.data, "<stream:stream"));
    assert_non_null(strstr(r.out.data, STREAM_ERROR("system-shutdown")));
    run_end(&r);
}

/* Output is taken in pieces of any size, and ids differ and have 128 bits. */
static void test_output_pieces_and_ids(void **state)
{
    (void)state;
    char ids[2][XY_ID_LEN + 1];
    for (int i = 0; i < 2; i++) {
        struct run r = { 0 };
        run_start(&r);
        xy_stream_feed(r.server.stream, KIT_HEADER, strlen(KIT_HEADER));
        kit_server_run(&r.server);
        while (xy_stream_output(r.server.stream).len > 0) {
            xy_buf_add(&r.out, xy_stream_output(r.server.stream).data, 1);
            xy_stream_sent(r.server.stream, 1);
        }
        xy_buf_char(&r.out, '\0');
        const char *id = strstr(r.out.data, " id='");
        assert_non_null(id);
        memcpy(ids[i], id + 5, XY_ID_LEN);
        ids[i][XY_ID_LEN] = '\0';
        assert_int_equal(id[5 + XY_ID_LEN], '\'');
        run_end(&r);
    }
    assert_string_not_equal(ids[0], ids[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_starttls),
        cmocka_unit_test(test_before_authentication),
        cmocka_unit_test(test_before_binding),
        cmocka_unit_test(test_sasl),
        cmocka_unit_test(test_late_answers),
        cmocka_unit_test(test_flood_while_waiting),
        cmocka_unit_test(test_bind),
        cmocka_unit_test(test_bind_limits),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_client_state),
        cmocka_unit_test(test_stanza_size),
        cmocka_unit_test(test_stream_management),
        cmocka_unit_test(test_answer_is_counted),
        cmocka_unit_test(test_fail_ack),
        cmocka_unit_test(test_fail_by_owner),
        cmocka_unit_test(test_output_pieces_and_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
