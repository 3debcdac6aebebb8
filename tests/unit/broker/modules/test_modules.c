/* The small protocols of the server and of accounts, each against the text of its XEP. */
#include "tests/unit/broker/fixture.h"

#define ALICE "alice@example.org"

static unsigned shards = 1;
static struct session_ref alice;

static struct fixture *start(void)
{
    struct fixture *f = fixture_new(shards, "admins = [\"boss@example.org\"];");
    fixture_account(f, ALICE);
    alice = fixture_bind(f, ALICE, "a");
    fixture_forget(f);
    return f;
}

/* The answer to alice's IQ; `to` NULL: none. */
static const char *ask(struct fixture *f, const char *to, const char *type, const char *child)
{
    static char xml[1024];
    if (to)
        (void)snprintf(xml, sizeof(xml), "<iq id='q' type='%s' to='%s'>%s</iq>", type, to, child);
    else
        (void)snprintf(xml, sizeof(xml), "<iq id='q' type='%s'>%s</iq>", type, child);
    fixture_say(f, alice, ALICE "/a", 0, xml);
    struct fixture_event *event = fixture_event_of(f, alice, SENT);
    if (!event)
        fail_msg("no answer to %s", xml);
    assert_contains(event->text, "id='q'");
    return event->text;
}

static void expect_error(const char *answer, const char *condition)
{
    assert_contains(answer, "type='error'");
    assert_contains(answer, condition);
}

static void test_ping(void **state)
{
    (void)state;
    static const char *const places[] = { "example.org", ALICE, NULL };
    struct fixture *f = start();
    for (size_t i = 0; i < 3; i++) {
        const char *answer = ask(f, places[i], "get", "<ping xmlns='urn:xmpp:ping'/>");
        assert_contains(answer, "type='result'");
        if (places[i])
            assert_contains(answer, places[i]);
    }
    expect_error(ask(f, "example.org", "set", "<ping xmlns='urn:xmpp:ping'/>"), "service-unavailable");
    fixture_free(&f);
}

static void test_version(void **state)
{
    (void)state;
    struct fixture *f = start();
    const char *answer = ask(f, "example.org", "get", "<query xmlns='jabber:iq:version'/>");
    assert_contains(answer, "<name>Xylem</name><version>");
    assert_null(strstr(answer, "<os>"));
    expect_error(ask(f, NULL, "get", "<query xmlns='jabber:iq:version'/>"), "service-unavailable");
    fixture_free(&f);
}

static void test_time(void **state)
{
    (void)state;
    struct fixture *f = start();
    const char *answer = ask(f, "example.org", "get", "<time xmlns='urn:xmpp:time'/>");
    assert_contains(answer, "<tzo>+00:00</tzo><utc>2026-01-01T00:00:0");
    assert_contains(answer, "Z</utc>");
    fixture_free(&f);
}

static void test_last(void **state)
{
    (void)state;
    struct fixture *f = start();
    fixture_sleep(f, 90u * 1000000u);
    assert_contains(ask(f, "example.org", "get", "<query xmlns='jabber:iq:last'/>"), "seconds='90'");
    fixture_say(f, alice, ALICE "/a", 0, "<presence/>");
    fixture_forget(f);
    assert_contains(ask(f, ALICE, "get", "<query xmlns='jabber:iq:last'/>"), "seconds='0'");
    fixture_say(f, alice, ALICE "/a", 0, "<presence type='unavailable'/>");
    fixture_forget(f);
    fixture_sleep(f, 7u * 1000000u);
    assert_contains(ask(f, ALICE, "get", "<query xmlns='jabber:iq:last'/>"), "seconds='7'");
    fixture_free(&f);
}

static void test_disco_of_the_server(void **state)
{
    (void)state;
    static const char *const features[] = {
        "http://jabber.org/protocol/disco#info",  "urn:xmpp:ping",     "urn:xmpp:time",
        "http://jabber.org/protocol/disco#items", "jabber:iq:version", "jabber:iq:last",
        "http://jabber.org/protocol/commands",    "msgoffline"
    };
    struct fixture *f = start();
    const char *answer =
        ask(f, "example.org", "get", "<query xmlns='http://jabber.org/protocol/disco#info'/>");
    assert_contains(answer, "<identity category='server' type='im' name='Xylem'/>");
    for (size_t i = 0; i < sizeof(features) / sizeof(*features); i++) {
        char feature[128];
        (void)snprintf(feature, sizeof(feature), "<feature var='%s'/>", features[i]);
        assert_contains(answer, feature);
    }
    expect_error(
        ask(f, "example.org", "get", "<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>"),
        "item-not-found");
    expect_error(
        ask(f, "example.org", "get", "<query xmlns='http://jabber.org/protocol/disco#items' node='x'/>"),
        "item-not-found");
    expect_error(ask(f, "example.org", "set", "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
                 "service-unavailable");
    fixture_free(&f);
}

static void never_called(struct shard *shard, struct request **request)
{
    (void)shard;
    (void)request;
    fail();
}

static void test_items_are_the_services(void **state)
{
    (void)state;
    struct fixture *f = start();
    for (unsigned i = 0; i < f->count; i++)
        router_add_service(shard_group_get(f->group, i), XY_STR("pubsub.example.org"), never_called);
    assert_contains(ask(f, "example.org", "get", "<query xmlns='http://jabber.org/protocol/disco#items'/>"),
                    "<item jid='pubsub.example.org'/>");
    fixture_free(&f);
}

static void test_disco_of_an_account(void **state)
{
    (void)state;
    struct fixture *f = start();
    fixture_account(f, "bob@example.org");
    const char *answer = ask(f, ALICE, "get", "<query xmlns='http://jabber.org/protocol/disco#info'/>");
    assert_contains(answer, "<identity category='account' type='registered'/>");
    assert_contains(answer, "urn:xmpp:ping");
    assert_contains(ask(f, NULL, "get", "<query xmlns='http://jabber.org/protocol/disco#items'/>"),
                    "type='result'");
    expect_error(ask(f, ALICE, "get", "<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>"),
                 "item-not-found");
    /* Of others nothing is told, the same as of those who do not exist. */
    const char *other =
        ask(f, "bob@example.org", "get", "<query xmlns='http://jabber.org/protocol/disco#info'/>");
    expect_error(other, "service-unavailable");
    expect_error(ask(f, "no@example.org", "get", "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
                 "service-unavailable");
    fixture_free(&f);
}

static void test_unknown_requests(void **state)
{
    (void)state;
    struct fixture *f = start();
    expect_error(ask(f, "example.org", "get", "<q xmlns='urn:unknown'/>"), "service-unavailable");
    expect_error(ask(f, "example.org", "set", "<ping xmlns='urn:other'/>"), "service-unavailable");
    fixture_free(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ping),
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_last),
        cmocka_unit_test(test_disco_of_the_server),
        cmocka_unit_test(test_items_are_the_services),
        cmocka_unit_test(test_disco_of_an_account),
        cmocka_unit_test(test_unknown_requests),
    };
    int failed = cmocka_run_group_tests_name("modules, one shard", tests, NULL, NULL);
    shards = 3;
    return failed + cmocka_run_group_tests_name("modules, three shards", tests, NULL, NULL);
}
