/* Presence among an account's own sessions, directed presence, and the watches of node owners. */
#include "tests/unit/broker/fixture.h"

#include "broker/router/router_internal.h"

#define ALICE "alice@example.org"
#define BOB   "bob@example.org"

static unsigned shards = 1;

static struct fixture *start(void)
{
    struct fixture *f = fixture_new(shards, "");
    fixture_account(f, ALICE);
    fixture_account(f, BOB);
    return f;
}

static struct session_ref online(struct fixture *f, const char *bare, const char *resource,
                                 const char *presence)
{
    char from[128];
    struct session_ref session = fixture_bind(f, bare, resource);
    (void)snprintf(from, sizeof(from), "%s/%s", bare, resource);
    fixture_say(f, session, from, 0, presence);
    return session;
}

static void leave(struct fixture *f, struct session_ref session, const char *bare)
{
    address_unbind(fixture_home(f, session), session, xy_str(bare));
    fixture_run(f);
}

static void expect(struct fixture *f, struct session_ref session, const char *from, const char *what)
{
    char start[128];
    struct fixture_event *event = fixture_event_of(f, session, SENT);
    if (!event)
        fail_msg("nothing came; %s from %s was expected", what, from);
    (void)snprintf(start, sizeof(start), "from='%s'", from);
    assert_contains(event->text, start);
    assert_contains(event->text, what);
}

/* --- own presence ----------------------------------------------------------------------------------------------------- */

static void test_sessions_of_an_account_see_each_other(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct session_ref one = online(f, ALICE, "one", "<presence><status>first</status></presence>");
    expect(f, one, ALICE "/one", "first"); /* RFC 6121 4.2.2: itself included */
    struct session_ref two = online(f, ALICE, "two", "<presence><status>second</status></presence>");
    expect(f, two, ALICE "/one", "first");
    expect(f, two, ALICE "/two", "second");
    expect(f, one, ALICE "/two", "to='" ALICE "'");
    fixture_say(f, two, ALICE "/two", 0, "<presence><show>away</show></presence>");
    expect(f, one, ALICE "/two", "away");
    expect(f, two, ALICE "/two", "away");
    assert_int_equal(fixture_stanzas(f, one) + fixture_stanzas(f, two), 0);
    fixture_free(&f);
}

static void test_unavailable_and_end_are_told(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct session_ref one = online(f, ALICE, "one", "<presence/>"),
                       two = online(f, ALICE, "two", "<presence/>");
    fixture_forget(f);
    fixture_say(f, two, ALICE "/two", 0, "<presence type='unavailable'><status>lunch</status></presence>");
    expect(f, one, ALICE "/two", "lunch");
    expect(f, two, ALICE "/two", "unavailable");
    fixture_say(f, two, ALICE "/two", 0, "<presence type='unavailable'/>");
    leave(f, two, ALICE);
    assert_int_equal(fixture_stanzas(f, one), 0); /* it was told */
    two = online(f, ALICE, "two", "<presence/>");
    fixture_forget(f);
    leave(f, two, ALICE);
    expect(f, one, ALICE "/two", "type='unavailable'");
    fixture_free(&f);
}

static void test_priorities_are_checked(void **state)
{
    (void)state;
    static const char *const bad[] = { "128", "-129", "x", "", "1.5", "--1", "99999999999" };
    static const char *const good[] = { "127", "-128", "0", " 5 ", "+3", "-0" };
    struct fixture *f = start();
    struct session_ref one = fixture_bind(f, ALICE, "one");
    char xml[128];
    fixture_forget(f);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        (void)snprintf(xml, sizeof(xml), "<presence><priority>%s</priority></presence>", bad[i]);
        fixture_say(f, one, ALICE "/one", 0, xml);
        assert_contains(fixture_event_of(f, one, SENT)->text, "bad-request");
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        (void)snprintf(xml, sizeof(xml), "<presence><priority>%s</priority></presence>", good[i]);
        fixture_say(f, one, ALICE "/one", 0, xml);
        expect(f, one, ALICE "/one", "priority");
    }
    fixture_free(&f);
}

static void test_probes_are_for_the_account_itself(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct session_ref one = online(f, ALICE, "one", "<presence><status>here</status></presence>");
    struct session_ref quiet = fixture_bind(f, ALICE, "quiet"), bob = fixture_bind(f, BOB, "x");
    fixture_forget(f);
    fixture_say(f, quiet, ALICE "/quiet", 0, "<presence to='" ALICE "' type='probe'/>");
    expect(f, quiet, ALICE "/one", "here");
    fixture_say(f, quiet, ALICE "/quiet", 0, "<presence to='" ALICE "/one' type='probe'/>");
    expect(f, quiet, ALICE "/one", "here");
    fixture_say(f, bob, BOB "/x", 0, "<presence to='" ALICE "' type='probe'/>");
    assert_int_equal(fixture_stanzas(f, bob) + fixture_stanzas(f, one), 0);
    fixture_free(&f);
}

/* --- directed presence -------------------------------------------------------------------------------------------------- */

static void test_directed_presence_ends_with_the_session(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct session_ref alice = online(f, ALICE, "a", "<presence/>"),
                       other = online(f, ALICE, "b", "<presence/>");
    struct session_ref bob = fixture_bind(f, BOB, "x");
    fixture_forget(f);
    fixture_say(f, bob, BOB "/x", 0, "<presence to='" ALICE "/a'><status>psst</status></presence>");
    expect(f, alice, BOB "/x", "psst");
    assert_int_equal(fixture_stanzas(f, other), 0);
    fixture_say(f, bob, BOB "/x", 0, "<presence to='" ALICE "'><status>all</status></presence>");
    expect(f, alice, BOB "/x", "all");
    expect(f, other, BOB "/x", "all");
    leave(f, bob, BOB);
    expect(f, alice, BOB "/x", "unavailable");
    expect(f, alice, BOB "/x", "unavailable"); /* to the full and to the bare JID */
    expect(f, other, BOB "/x", "unavailable");
    assert_int_equal(fixture_stanzas(f, alice) + fixture_stanzas(f, other), 0);
    fixture_free(&f);
}

static void test_directed_unavailable_is_not_repeated(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct session_ref alice = online(f, ALICE, "a", "<presence/>"), bob = fixture_bind(f, BOB, "x");
    fixture_forget(f);
    fixture_say(f, bob, BOB "/x", 0, "<presence to='" ALICE "/a'/>");
    fixture_say(f, bob, BOB "/x", 0, "<presence to='" ALICE "/a' type='unavailable'/>");
    assert_int_equal(fixture_stanzas(f, alice), 2);
    fixture_say(f, bob, BOB "/x", 0, "<presence to='" ALICE "/none'/>");
    leave(f, bob, BOB);
    assert_int_equal(fixture_stanzas(f, alice), 2);
    fixture_free(&f);
}

static void test_many_directed_presences_stay_bounded(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct session_ref alice = online(f, ALICE, "a", "<presence/>"), bob = fixture_bind(f, BOB, "x");
    fixture_forget(f);
    fixture_say(f, bob, BOB "/x", 0, "<presence to='" ALICE "/a'/>");
    char xml[128];
    for (int i = 0; i < 300; i++) {
        (void)snprintf(xml, sizeof(xml), "<presence to='" ALICE "/r%d'/>", i);
        fixture_say(f, bob, BOB "/x", 0, xml);
    }
    /* The oldest heard early what it would have heard at the end. */
    assert_int_equal(fixture_stanzas(f, alice), 2);
    leave(f, bob, BOB);
    assert_int_equal(fixture_stanzas(f, alice), 2);
    fixture_free(&f);
}

static void test_subscriptions_are_refused(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct session_ref bob = fixture_bind(f, BOB, "x"), alice = online(f, ALICE, "a", "<presence/>");
    fixture_forget(f);
    fixture_say(f, bob, BOB "/x", 0, "<presence to='" ALICE "' type='subscribe' id='1'/>");
    assert_contains(fixture_event_of(f, bob, SENT)->text, "feature-not-implemented");
    fixture_say(f, bob, BOB "/x", 0, "<presence to='" ALICE "' type='unsubscribed'/>");
    assert_int_equal(fixture_stanzas(f, bob) + fixture_stanzas(f, alice), 0);
    fixture_free(&f);
}

/* --- watches ------------------------------------------------------------------------------------------------------------ */

static char heard[65536];

static void on_routes(struct shard *shard, struct xy_str node, const struct address_routes *routes)
{
    size_t len = strlen(heard);
    assert_int_equal(shard->index, shard_owner(shard, node));
    len +=
        (size_t)snprintf(heard + len, sizeof(heard) - len, "%.*s %.*s:", XY_ARG(node), XY_ARG(routes->bare));
    for (size_t i = 0; i < routes->count; i++)
        len += (size_t)snprintf(heard + len, sizeof(heard) - len, " %.*s/%d%s",
                                XY_ARG(routes->routes[i].resource), routes->routes[i].priority,
                                routes->routes[i].sm ? "+sm" : "");
    (void)snprintf(heard + len, sizeof(heard) - len, "\n");
}

static void expect_heard(const char *what)
{
    if (strcmp(heard, what) != 0)
        fail_msg("heard:\n%sexpected:\n%s", heard, what);
    heard[0] = '\0';
}

static struct fixture *start_watching(void)
{
    struct fixture *f = start();
    heard[0] = '\0';
    for (unsigned i = 0; i < f->count; i++)
        address_set_watch_handler(shard_group_get(f->group, i), on_routes);
    return f;
}

static void test_watchers_hear_every_change(void **state)
{
    (void)state;
    struct fixture *f = start_watching();
    struct shard *node = fixture_owner(f, "news");
    address_watch(node, XY_STR(ALICE), XY_STR("news"));
    fixture_run(f);
    expect_heard("news " ALICE ":\n");
    struct session_ref low = fixture_bind(f, ALICE, "low");
    expect_heard(""); /* bound is not available */
    fixture_say(f, low, ALICE "/low", 0, "<presence><priority>-1</priority></presence>");
    expect_heard("news " ALICE ": low/-1\n");
    fixture_say(f, low, ALICE "/low", 0, "<presence><show>dnd</show><priority>-1</priority></presence>");
    expect_heard(""); /* nothing that matters changed */
    struct session_ref one = online(f, ALICE, "one", "<presence/>");
    expect_heard("news " ALICE ": one/0 low/-1\n");
    struct session_ref two = online(f, ALICE, "two", "<presence/>");
    expect_heard("news " ALICE ": two/0 one/0 low/-1\n"); /* of equals the more recent first */
    address_set_sm(fixture_home(f, one), one, XY_STR(ALICE), true);
    fixture_run(f);
    expect_heard("news " ALICE ": two/0 one/0+sm low/-1\n");
    fixture_say(f, two, ALICE "/two", 0, "<presence type='unavailable'/>");
    expect_heard("news " ALICE ": one/0+sm low/-1\n");
    leave(f, two, ALICE);
    expect_heard("");
    leave(f, one, ALICE);
    expect_heard("news " ALICE ": low/-1\n");
    address_unwatch(node, XY_STR(ALICE), XY_STR("news"));
    fixture_run(f);
    leave(f, low, ALICE);
    expect_heard("");
    fixture_free(&f);
}

static void test_watching_an_account_that_is_not_there(void **state)
{
    (void)state;
    struct fixture *f = start_watching();
    address_watch(fixture_owner(f, "news"), XY_STR("nobody@example.org"), XY_STR("news"));
    fixture_run(f);
    expect_heard("news nobody@example.org:\n");
    fixture_free(&f);
}

static void test_stored_subscriptions_are_found(void **state)
{
    (void)state;
    struct fixture *f = start_watching();
    enum { NODES = 150 };
    char name[32];
    for (unsigned i = 0; i < NODES; i++) {
        Xylem__Store__V1__SubscriptionPut put = XYLEM__STORE__V1__SUBSCRIPTION_PUT__INIT;
        (void)snprintf(name, sizeof(name), "n%u", i);
        put.node = i + 1;
        put.number = 1;
        put.node_name = name;
        put.jid = (char *)(uintptr_t)(i == 0 ? ALICE "/full" : ALICE);
        put.subid = (char *)(uintptr_t) "s";
        put.state = (char *)(uintptr_t) "subscribed";
        store_append(fixture_owner(f, name)->store, RECORD_SUBSCRIPTION_PUT, &put.base);
    }
    fixture_restart(f);
    for (unsigned i = 0; i < f->count; i++)
        address_set_watch_handler(shard_group_get(f->group, i), on_routes);
    struct session_ref one = online(f, ALICE, "one", "<presence/>");
    unsigned lines = 0;
    for (const char *at = heard; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    assert_int_equal(lines, NODES);
    assert_contains(heard, "n0 " ALICE ": one/0\n");
    heard[0] = '\0';
    leave(f, one, ALICE);
    assert_contains(heard, "n149 " ALICE ":\n");
    fixture_free(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sessions_of_an_account_see_each_other),
        cmocka_unit_test(test_unavailable_and_end_are_told),
        cmocka_unit_test(test_priorities_are_checked),
        cmocka_unit_test(test_probes_are_for_the_account_itself),
        cmocka_unit_test(test_directed_presence_ends_with_the_session),
        cmocka_unit_test(test_directed_unavailable_is_not_repeated),
        cmocka_unit_test(test_many_directed_presences_stay_bounded),
        cmocka_unit_test(test_subscriptions_are_refused),
        cmocka_unit_test(test_watchers_hear_every_change),
        cmocka_unit_test(test_watching_an_account_that_is_not_there),
        cmocka_unit_test(test_stored_subscriptions_are_found),
    };
    int failed = cmocka_run_group_tests_name("presence, one shard", tests, NULL, NULL);
    shards = 3;
    return failed + cmocka_run_group_tests_name("presence, three shards", tests, NULL, NULL);
}
