/* From the stream header to a bound resource, with real clients: who may log in how, on which link, and how long it may
 * take. */
#include "tests/unit/broker/session/rig.h"

#include "core/stream/stream.h"

#define JULIET "juliet@example.org"

static void on_created(struct shard *shard, void *ctx, enum account_result result)
{
    (void)shard;
    *(enum account_result *)ctx = result;
}

static struct rig *verona(unsigned shards, const char *config)
{
    struct rig *rig = rig_new(shards, config);
    enum account_result result = ACCOUNT_BUSY;
    accounts_create(rig_shard(rig, 0), XY_STR(JULIET), XY_STR("r0m30"),
                    &(struct accounts_asker){ .fn = on_created, .ctx = &result });
    rig_run(rig);
    assert_int_equal(result, ACCOUNT_OK);
    return rig;
}

/* --- a client of our own kind --------------------------------------------------------------------------------------- */

struct client {
    struct wire *wire;
    struct xy_stream *stream;
    struct xy_stream_event last; /* READY or FAILED; its strings are not to be looked at any more */
    char jid[128], id[128];      /* READY's */
    bool ready, failed;
};

static struct client client_new(struct rig *rig, unsigned shard, enum link_kind kind,
                                struct xy_stream_client_options options)
{
    static struct xy_stream_options stream_options;
    struct client client = { .wire = wire_new(rig, shard, kind) };
    stream_options = (struct xy_stream_options){ .env = &rig->env };
    client.stream = xy_stream_client_new(&stream_options, &options);
    assert_non_null(client.stream);
    return client;
}

static void client_events(struct client *client)
{
    struct xy_stream_event event;
    while (xy_stream_next(client->stream, &event)) {
        if (event.kind == XY_STREAM_EVENT_STANZA)
            xy_arena_free(&event.stanza.arena);
        client->ready |= event.kind == XY_STREAM_EVENT_READY;
        client->failed |= event.kind == XY_STREAM_EVENT_FAILED;
        if (event.kind == XY_STREAM_EVENT_READY || event.kind == XY_STREAM_EVENT_FAILED)
            client->last = event;
        if (event.kind == XY_STREAM_EVENT_READY) {
            (void)snprintf(client->id, sizeof(client->id), "%.*s", XY_ARG(event.sm_id));
            if (xy_jid_present(event.jid))
                (void)snprintf(client->jid, sizeof(client->jid), "%.*s", XY_ARG(xy_jid_full(event.jid)));
        }
        if (event.kind == XY_STREAM_EVENT_STARTTLS) { /* pretended: wires carry no ciphertext */
            struct xy_str out = xy_stream_output(client->stream);
            if (out.len > 0)
                wire_feed(client->wire, out);
            xy_stream_sent(client->stream, out.len);
            rig_run(client->wire->rig);
            assert_true(client->wire->tls);
            client->wire->link.secure = true;
            client->wire->link.shard->link_events->secured(&client->wire->link, NULL, 0);
            xy_stream_tls_started(client->stream, NULL, 0);
        }
    }
}

/* Carries bytes until nothing moves. */
static void client_run(struct client *client)
{
    for (unsigned round = 0; round < 100; round++) {
        struct xy_str out = xy_stream_output(client->stream);
        if (out.len > 0 && !client->wire->closed) {
            struct xy_bytes *copy = xy_bytes_new(out);
            xy_stream_sent(client->stream, out.len);
            wire_feed(client->wire, xy_bytes_view(copy));
            xy_bytes_unref(&copy);
        }
        rig_run(client->wire->rig);
        if (client->wire->out.len == 0)
            break;
        struct xy_str in = xy_buf_view(&client->wire->out);
        xy_stream_feed(client->stream, in.data, in.len);
        xy_buf_reset(&client->wire->out);
        client_events(client);
    }
}

static void client_login(struct client *client)
{
    xy_stream_client_open(client->stream);
    client_run(client);
}

static struct xy_stream_client_options juliet(unsigned mechanisms, const char *password, bool tls)
{
    return (struct xy_stream_client_options){
        .jid = xy_jid_canonical(XY_STR(JULIET)),
        .resource = XY_STR("balcony"),
        .password = xy_str(password),
        .mechanisms = mechanisms,
        .plain_without_tls = true,
        .tls = tls ? XY_STREAM_TLS_REQUIRED : XY_STREAM_TLS_NONE,
        .sm = true,
        .sm_resume = true,
    };
}

static void test_mechanisms(void **state)
{
    (void)state;
    static const unsigned mechanisms[] = { XY_SASL_SCRAM_ALL, XY_SASL_PLAIN };
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned tls = 0; tls < 2; tls++) {
            struct rig *rig = verona(2, tls ? "" : "auth { allow_plaintext = true; }");
            struct client client = client_new(rig, 1, LINK_C2S, juliet(mechanisms[i], "r0m30", tls));
            client_login(&client);
            assert_true(client.ready && client.last.sm && client.last.resume);
            assert_string_equal(client.jid, JULIET "/balcony");
            assert_int_equal(rig_stat(rig, logins), 1);
            assert_int_equal(rig_stat(rig, sessions), 1);
            xy_stream_free(&client.stream);
            rig_free(&rig);
        }
    }
}

static void test_wrong_password(void **state)
{
    (void)state;
    static const unsigned mechanisms[] = { XY_SASL_SCRAM_ALL, XY_SASL_PLAIN };
    for (unsigned i = 0; i < 2; i++) {
        struct rig *rig = verona(2, "auth { allow_plaintext = true; }");
        struct client client = client_new(rig, 1, LINK_C2S, juliet(mechanisms[i], "wrong", false));
        client_login(&client);
        assert_true(client.failed && !client.ready);
        assert_int_equal(client.last.failure, XY_STREAM_FAILED_AUTH);
        assert_int_equal(rig_stat(rig, login_failures), 1);
        xy_stream_free(&client.stream);
        rig_free(&rig);
    }
}

/* Resumed by a real client: on another shard, with what it missed. */
static void test_client_resumes(void **state)
{
    (void)state;
    struct rig *rig = verona(3, "auth { allow_plaintext = true; }");
    struct client first = client_new(rig, 0, LINK_C2S, juliet(XY_SASL_PLAIN, "r0m30", false));
    client_login(&first);
    assert_true(first.ready);
    wire_vanish(first.wire);
    struct xy_stream_client_options options = juliet(XY_SASL_PLAIN, "r0m30", false);
    options.previd = xy_str(first.id);
    struct client second = client_new(rig, 2, LINK_C2S, options);
    client_login(&second);
    assert_true(second.ready && second.last.resumed);
    xy_stream_free(&first.stream);
    xy_stream_free(&second.stream);
    rig_free(&rig);
}

/* --- what is offered where ------------------------------------------------------------------------------------------ */

static const char *offered(struct rig *rig, enum link_kind kind, bool loopback, bool secure)
{
    struct wire *wire = wire_new(rig, 0, kind);
    wire->link.loopback = loopback;
    wire->link.secure = secure;
    if (secure)
        xy_stream_tls_started(wire_session(wire)->stream, NULL, 0);
    wire_say(wire, RIG_HEADER);
    return wire_heard(wire);
}

static void test_offers(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "");
    const char *heard = offered(rig, LINK_C2S, true, false);
    assert_contains(heard, "<required/>");
    assert_lacks(heard, "<mechanism>");
    heard = offered(rig, LINK_C2S_TLS, false, true);
    assert_contains(heard, "<mechanism>PLAIN");
    assert_contains(heard, "<mechanism>SCRAM-SHA-256");
    assert_lacks(heard, "starttls");
    heard = offered(rig, LINK_LOCAL, true, false);
    assert_contains(heard, "<mechanism>EXTERNAL");
    assert_lacks(heard, "PLAIN");
    rig_free(&rig);
    rig = verona(1, "auth { allow_plaintext = true; }");
    heard = offered(rig, LINK_C2S, true, false); /* on loopback only */
    assert_contains(heard, "<mechanism>PLAIN");
    assert_contains(heard, "starttls");
    assert_lacks(heard, "<required/>");
    heard = offered(rig, LINK_C2S, false, false);
    assert_contains(heard, "<required/>");
    assert_lacks(heard, "<mechanism>");
    rig_free(&rig);
}

/* Hostile input 24. */
static void test_unknown_hosts(void **state)
{
    (void)state;
    static const char *const headers[] = { "to='elsewhere.net'", "", "to=''" };
    struct rig *rig = verona(1, "");
    for (size_t i = 0; i < 3; i++) {
        struct wire *wire = wire_new(rig, 0, LINK_C2S);
        char text[256];
        (void)snprintf(text, sizeof(text),
                       "<stream:stream %s version='1.0' xmlns='jabber:client' xmlns:stream="
                       "'http://etherx.jabber.org/streams'>",
                       headers[i]);
        wire_say(wire, text);
        assert_heard(wire, "<host-unknown");
        assert_true(wire->closed);
    }
    struct wire *local = wire_new(rig, 0, LINK_LOCAL); /* need not know the domain */
    wire_say(local, "<stream:stream version='1.0' xmlns='jabber:client' "
                    "xmlns:stream='http://etherx.jabber.org/streams'>");
    assert_heard(local, "from='example.org'");
    rig_free(&rig);
}

/* --- the local socket ----------------------------------------------------------------------------------------------- */

static const char *external(struct rig *rig, uid_t uid, const char *authzid)
{
    struct wire *wire = wire_new(rig, 0, LINK_LOCAL);
    struct xy_buf auth = { 0 };
    wire->link.uid = uid;
    xy_buf_lit(&auth, RIG_HEADER "<auth xmlns='" NS_SASL "' mechanism='EXTERNAL'>");
    if (authzid[0])
        xy_base64_encode(&auth, xy_str(authzid));
    else
        xy_buf_char(&auth, '=');
    xy_buf_lit(&auth, "</auth>");
    wire_feed(wire, xy_buf_view(&auth));
    xy_buf_free(&auth);
    rig_run(rig);
    const char *heard = wire_heard(wire);
    if (!strstr(heard, "<success"))
        return "refused";
    return xy_jid_full(wire_session(wire)->jid).data;
}

static void test_local_users(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "auth { local_users = { \"4711\" = \"" JULIET "\" } }");
    rig_account(rig, "romeo@example.org");
    assert_memory_equal(external(rig, geteuid(), ""), "admin@example.org", 17);
    assert_memory_equal(external(rig, geteuid(), JULIET), JULIET, strlen(JULIET));
    assert_string_equal(external(rig, geteuid(), "nobody@example.org"), "refused");
    assert_string_equal(external(rig, geteuid(), JULIET "@x"), "refused");
    assert_memory_equal(external(rig, 4711, ""), JULIET, strlen(JULIET));
    assert_memory_equal(external(rig, 4711, JULIET), JULIET, strlen(JULIET));
    assert_string_equal(external(rig, 4711, "romeo@example.org"), "refused");
    assert_string_equal(external(rig, 4712, ""), "refused");
    assert_string_equal(external(rig, 4712, JULIET), "refused");
    rig_free(&rig);
}

/* --- limits --------------------------------------------------------------------------------------------------------- */

/* Hostile input 14: whatever is sent meanwhile. */
static void test_time_to_log_in(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "limits { unauthenticated_timeout = 10s; }");
    struct wire *silent = wire_new(rig, 0, LINK_C2S), *slow = wire_new(rig, 0, LINK_C2S);
    struct wire *unbound = rig_authenticated(rig, 0, JULIET);
    wire_say(slow, RIG_HEADER);
    for (unsigned i = 0; i < 99; i++) {
        rig_sleep(rig, 100000);
        if (i % 10 == 0)
            wire_say(slow, " ");
    }
    assert_false(silent->closed || slow->closed || unbound->closed);
    rig_sleep(rig, 100000);
    assert_true(silent->closed && slow->closed && unbound->closed);
    assert_heard(slow, "<connection-timeout");
    rig_free(&rig);
}

static void test_sessions_in_total(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(2, "limits { sessions = 2; }");
    struct wire *first = rig_bound(rig, 0, JULIET, "a");
    struct wire *second = rig_managed(rig, 1, JULIET, "b", id);
    wire_vanish(second); /* detached ones count */
    struct wire *third = rig_authenticated(rig, 1, JULIET);
    wire_say(third, "<iq type='set' id='b'><bind xmlns='" NS_BIND "'/></iq>");
    assert_heard(third, "<resource-constraint");
    wire_say(first, "</stream:stream>");
    wire_say(third, "<iq type='set' id='b'><bind xmlns='" NS_BIND "'/></iq>");
    assert_heard(third, "type='result'");
    rig_free(&rig);
}

/* Hostile input 40: the older session of the same name goes first. */
static void test_conflict(void **state)
{
    (void)state;
    struct rig *rig = verona(3, "");
    struct wire *first = rig_online(rig, 0, JULIET, "a");
    struct wire *second = rig_bound(rig, 2, JULIET, "a");
    assert_heard(first, "<conflict");
    assert_true(first->closed);
    assert_int_equal(rig_stat(rig, sessions), 1);
    assert_int_equal(rig_stat(rig, sessions_replaced), 1);
    wire_say(second, "<iq type='set' id='b'><bind xmlns='" NS_BIND "'><resource>z</resource></bind></iq>");
    assert_heard(second, "<not-allowed"); /* one resource per stream */
    rig_free(&rig);
}

/* The connection fails while its resource is being bound: nothing of it stays behind. */
static void test_leaves_while_binding(void **state)
{
    (void)state;
    for (unsigned turns = 0; turns < 4; turns++) {
        struct rig *rig = verona(2, "");
        struct wire *wire = rig_authenticated(rig, 0, JULIET);
        wire_feed(wire, XY_STR("<iq type='set' id='b'><bind xmlns='" NS_BIND
                               "'><resource>a</resource></bind></iq>"));
        for (unsigned i = 0; i < turns; i++)
            shard_turn(rig_shard(rig, i % 2));
        wire_vanish(wire);
        assert_int_equal(rig_stat(rig, sessions), 0);
        struct wire *again = rig_bound(rig, 1, JULIET, "a");
        assert_int_equal(rig_stat(rig, sessions_replaced), 0);
        assert_false(again->closed);
        rig_free(&rig);
    }
}

/* The same while a password is being checked. */
static void test_leaves_while_authenticating(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "auth { allow_plaintext = true; }");
    struct wire *wire = wire_new(rig, 1, LINK_C2S);
    wire_say(wire, RIG_HEADER);
    wire_feed(wire, XY_STR("<auth xmlns='" NS_SASL "' mechanism='PLAIN'>AGp1bGlldAByMG0zMA==</auth>"));
    for (unsigned i = 0; i < 4; i++)
        shard_turn(rig_shard(rig, i % 2));
    wire_vanish(wire);
    assert_int_equal(rig_stat(rig, logins), 0);
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mechanisms),
        cmocka_unit_test(test_wrong_password),
        cmocka_unit_test(test_client_resumes),
        cmocka_unit_test(test_offers),
        cmocka_unit_test(test_unknown_hosts),
        cmocka_unit_test(test_local_users),
        cmocka_unit_test(test_time_to_log_in),
        cmocka_unit_test(test_sessions_in_total),
        cmocka_unit_test(test_conflict),
        cmocka_unit_test(test_leaves_while_binding),
        cmocka_unit_test(test_leaves_while_authenticating),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
