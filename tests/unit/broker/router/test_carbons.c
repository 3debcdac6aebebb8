/* Copies for an account's other sessions (XEP-0280): which messages, for whom, and when. */
#include "tests/unit/broker/fixture.h"

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

static void say(struct fixture *f, struct session_ref session, const char *from, const char *xml)
{
    fixture_say(f, session, from, 0, xml);
}

static struct session_ref online(struct fixture *f, const char *bare, const char *resource, int priority)
{
    char from[128], xml[128];
    struct session_ref session = fixture_bind(f, bare, resource);
    (void)snprintf(from, sizeof(from), "%s/%s", bare, resource);
    (void)snprintf(xml, sizeof(xml), "<presence><priority>%d</priority></presence>", priority);
    say(f, session, from, xml);
    fixture_forget(f);
    return session;
}

static void carbons(struct fixture *f, struct session_ref session, const char *from, const char *what)
{
    char xml[128];
    (void)snprintf(xml, sizeof(xml), "<iq type='set' id='c'><%s xmlns='urn:xmpp:carbons:2'/></iq>", what);
    say(f, session, from, xml);
    struct fixture_event *answer = fixture_event_of(f, session, SENT);
    assert_non_null(answer);
    assert_contains(answer->text, "type='result'");
    fixture_forget(f);
}

/* Two of bob's: desk is listened to, phone wants copies. */
struct pair {
    struct session_ref alice, desk, phone;
};

static struct pair begin(struct fixture *f)
{
    struct pair p = { online(f, ALICE, "a", 0), online(f, BOB, "desk", 5), online(f, BOB, "phone", 0) };
    carbons(f, p.phone, BOB "/phone", "enable");
    return p;
}

/* --- received ------------------------------------------------------------------------------------------------------- */

static void test_received(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct pair p = begin(f);
    say(f, p.alice, ALICE "/a",
        "<message to='" BOB "' type='chat' id='m'><body>one &amp; two</body></message>");
    assert_contains(fixture_event_of(f, p.desk, MESSAGE)->text, "<body>one &amp; two</body>");
    const char *copy = fixture_event_of(f, p.phone, SENT)->text;
    assert_contains(copy, "<message from='" BOB "' to='" BOB
                          "/phone' type='chat'><received xmlns='urn:xmpp:carbons:2'>"
                          "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'");
    assert_contains(copy, "from='" ALICE "/a'");
    assert_contains(copy, "<body>one &amp; two</body></message></forwarded></received></message>");
    assert_int_equal(fixture_stanzas(f, p.phone), 0);
    assert_int_equal(fixture_stanzas(f, p.desk), 0);
    fixture_free(&f);
}

static void test_who_gets_the_original_gets_no_copy(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct pair p = begin(f);
    carbons(f, p.desk, BOB "/desk", "enable");
    say(f, p.alice, ALICE "/a", "<message to='" BOB "/phone' type='chat'><body>x</body></message>");
    assert_non_null(fixture_event_of(f, p.phone, MESSAGE));
    assert_int_equal(fixture_stanzas(f, p.phone), 0);
    assert_contains(fixture_event_of(f, p.desk, SENT)->text, "<received ");
    say(f, p.phone, BOB "/phone", "<presence><priority>5</priority></presence>");
    fixture_forget(f);
    say(f, p.alice, ALICE "/a", "<message to='" BOB "' type='chat'><body>both</body></message>");
    assert_int_equal(fixture_stanzas(f, p.phone), 1);
    assert_int_equal(fixture_stanzas(f, p.desk), 1);
    for (size_t i = 0; i < f->events_count; i++)
        if (strstr(f->events[i].text, "both"))
            assert_null(strstr(f->events[i].text, "forwarded"));
    fixture_free(&f);
}

static void test_a_copy_follows_the_commit(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct pair p = begin(f);
    f->hold_commits = true;
    fixture_say(f, p.alice, ALICE "/a", 1, "<message to='" BOB "' type='chat'><body>x</body></message>");
    assert_int_equal(fixture_stanzas(f, p.phone) + fixture_stanzas(f, p.desk), 0);
    f->hold_commits = false;
    fixture_run(f);
    assert_int_equal(fixture_stanzas(f, p.phone), 1);
    assert_int_equal(fixture_stanzas(f, p.desk), 1);
    fixture_free(&f);
}

static void test_only_sessions_that_are_there(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct session_ref alice = online(f, ALICE, "a", 0), shy = online(f, BOB, "shy", -1);
    struct session_ref silent = fixture_bind(f, BOB, "silent");
    carbons(f, shy, BOB "/shy", "enable");
    carbons(f, silent, BOB "/silent", "enable");
    say(f, alice, ALICE "/a", "<message to='" BOB "' type='chat'><body>x</body></message>");
    assert_contains(fixture_event_of(f, shy, SENT)->text, "<received ");
    assert_int_equal(fixture_stanzas(f, silent), 0); /* it gets the original once it is available */
    say(f, silent, BOB "/silent", "<presence/>");
    assert_non_null(fixture_event_of(f, silent, MESSAGE));
    fixture_free(&f);
}

/* --- sent ------------------------------------------------------------------------------------------------------------ */

static void test_sent(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct pair p = begin(f);
    assert_true(f->copied[p.desk.index]);
    assert_false(f->copied[p.phone.index]); /* nobody else wants its messages */
    say(f, p.desk, BOB "/desk", "<message to='" ALICE "' type='chat'><body>hi</body></message>");
    assert_non_null(fixture_event_of(f, p.alice, MESSAGE));
    const char *copy = fixture_event_of(f, p.phone, SENT)->text;
    assert_contains(copy, "<message from='" BOB "' to='" BOB
                          "/phone' type='chat'><sent xmlns='urn:xmpp:carbons:2'>");
    assert_contains(copy, "to='" ALICE "'");
    assert_contains(copy, "<body>hi</body>");
    say(f, p.phone, BOB "/phone", "<message to='" ALICE "' type='chat'><body>own</body></message>");
    assert_int_equal(fixture_stanzas(f, p.phone) + fixture_stanzas(f, p.desk), 0);
    fixture_free(&f);
}

static void test_what_was_refused_was_not_sent(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct pair p = begin(f);
    say(f, p.desk, BOB "/desk", "<message to='nobody@example.org' type='chat'><body>hi</body></message>");
    assert_contains(fixture_event_of(f, p.desk, SENT)->text, "service-unavailable");
    assert_int_equal(fixture_stanzas(f, p.phone), 0);
    fixture_free(&f);
}

static void test_between_own_sessions_a_third_gets_one(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct pair p = begin(f);
    struct session_ref third = online(f, BOB, "third", 0);
    assert_true(f->copied[third.index]); /* told when it was bound */
    carbons(f, third, BOB "/third", "enable");
    carbons(f, p.desk, BOB "/desk", "enable");
    say(f, p.desk, BOB "/desk", "<message to='" BOB "/phone' type='chat'><body>x</body></message>");
    assert_non_null(fixture_event_of(f, p.phone, MESSAGE));
    assert_int_equal(fixture_stanzas(f, p.phone) + fixture_stanzas(f, p.desk), 0);
    assert_int_equal(fixture_stanzas(f, third), 1);
    fixture_free(&f);
}

/* --- on and off ------------------------------------------------------------------------------------------------------ */

static void test_off_again(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct pair p = begin(f);
    carbons(f, p.phone, BOB "/phone", "enable"); /* twice is no error */
    carbons(f, p.phone, BOB "/phone", "disable");
    carbons(f, p.phone, BOB "/phone", "disable");
    assert_false(f->copied[p.desk.index]);
    say(f, p.alice, ALICE "/a", "<message to='" BOB "' type='chat'><body>x</body></message>");
    assert_int_equal(fixture_stanzas(f, p.phone), 0);
    fixture_free(&f);
}

static void test_gone_with_its_session(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct pair p = begin(f);
    address_unbind(fixture_home(f, p.phone), p.phone, XY_STR(BOB));
    fixture_run(f);
    assert_false(f->copied[p.desk.index]);
    fixture_free(&f);
}

static void test_set_for_a_session_from_any_shard(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct pair p = begin(f);
    address_set_carbons(fixture_home(f, p.desk), p.desk, XY_STR(BOB), true);
    fixture_run(f);
    assert_true(f->copied[p.phone.index]);
    address_set_carbons(fixture_home(f, p.desk), p.desk, XY_STR(BOB), false);
    fixture_run(f);
    assert_false(f->copied[p.phone.index]);
    fixture_free(&f);
}

static void test_others_may_not_ask(void **state)
{
    (void)state;
    struct fixture *f = start();
    struct pair p = begin(f);
    say(f, p.alice, ALICE "/a",
        "<iq type='set' id='c' to='" BOB "'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    assert_contains(fixture_event_of(f, p.alice, SENT)->text, "service-unavailable");
    fixture_free(&f);
}

/* --- which ----------------------------------------------------------------------------------------------------------- */

static void test_which(void **state)
{
    (void)state;
    static const struct {
        const char *message;
        bool copied;
    } cases[] = {
        { "type='chat'><body>x</body>", true },
        { "type='chat'><data xmlns='urn:example'/>", true },
        { "><body>x</body>", true },
        { "><data xmlns='urn:example'/>", false },
        { "><received xmlns='urn:xmpp:receipts' id='1'/>", true },
        { "><composing xmlns='http://jabber.org/protocol/chatstates'/>", true },
        { "><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>", true },
        { "><x xmlns='jabber:x:conference' jid='room@muc.example.org'/>", true },
        { "><x xmlns='http://jabber.org/protocol/muc#user'><invite from='a@b'/></x>", true },
        { "type='chat'><body>x</body><x xmlns='http://jabber.org/protocol/muc#user'/>", false },
        { "type='headline'><body>x</body>", false },
        { "type='groupchat'><body>x</body>", false },
        { "type='error'><body>x</body>", false },
        { "type='chat'><body>x</body><private xmlns='urn:xmpp:carbons:2'/>", false },
        { "type='chat'><body>x</body><no-copy xmlns='urn:xmpp:hints'/>", false },
        { "type='chat'><received xmlns='urn:xmpp:carbons:2'/>", false },
        { "type='chat'><sent xmlns='urn:xmpp:carbons:2'/>", false },
    };
    struct fixture *f = start();
    struct pair p = begin(f);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char xml[512];
        (void)snprintf(xml, sizeof(xml), "<message to='" BOB "/desk' %s</message>", cases[i].message);
        say(f, p.alice, ALICE "/a", xml);
        if (fixture_stanzas(f, p.phone) != cases[i].copied)
            fail_msg("%s: %zu copies", xml, fixture_stanzas(f, p.phone));
        fixture_forget(f);
    }
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_received),
        cmocka_unit_test(test_who_gets_the_original_gets_no_copy),
        cmocka_unit_test(test_a_copy_follows_the_commit),
        cmocka_unit_test(test_only_sessions_that_are_there),
        cmocka_unit_test(test_sent),
        cmocka_unit_test(test_what_was_refused_was_not_sent),
        cmocka_unit_test(test_between_own_sessions_a_third_gets_one),
        cmocka_unit_test(test_off_again),
        cmocka_unit_test(test_gone_with_its_session),
        cmocka_unit_test(test_set_for_a_session_from_any_shard),
        cmocka_unit_test(test_others_may_not_ask),
        cmocka_unit_test(test_which),
    };
    int failed = 0;
    for (shards = 1; shards <= 4 && failed == 0; shards += 3)
        failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed;
}
