/* Binding, conflict and leaving, and what RFC 6121 section 8 makes of messages and IQ. */
#include "tests/unit/broker/fixture.h"

#define ALICE "alice@example.org"
#define BOB   "bob@example.org"

static unsigned shards = 1;

static struct fixture *start(const char *config)
{
    struct fixture *f = fixture_new(shards, config);
    fixture_account(f, ALICE);
    fixture_account(f, BOB);
    return f;
}

static struct session_ref online(struct fixture *f, const char *bare, const char *resource, int priority)
{
    char from[128], xml[128];
    struct session_ref session = fixture_bind(f, bare, resource);
    (void)snprintf(from, sizeof(from), "%s/%s", bare, resource);
    (void)snprintf(xml, sizeof(xml), "<presence><priority>%d</priority></presence>", priority);
    fixture_say(f, session, from, 0, xml);
    fixture_forget(f);
    return session;
}

/* --- binding -------------------------------------------------------------------------------------------------------- */

static void test_bind_answers_with_the_full_jid(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref s = fixture_bind(f, ALICE, "desk");
    assert_string_equal(fixture_event_of(f, s, BOUND)->text, ALICE "/desk");
    fixture_free(&f);
}

static void test_bind_makes_up_resources(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref one = fixture_bind(f, ALICE, ""), two = fixture_bind(f, ALICE, "");
    const char *first = fixture_event_of(f, one, BOUND)->text,
               *second = fixture_event_of(f, two, BOUND)->text;
    assert_int_equal(strlen(first), strlen(ALICE) + 1 + XY_ID_LEN);
    assert_string_not_equal(first, second);
    fixture_free(&f);
}

static void test_bind_needs_an_account_but_for_the_reserved_one(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref nobody = fixture_bind(f, "nobody@example.org", "x");
    assert_string_equal(fixture_event_of(f, nobody, REFUSED)->text, "not-allowed");
    struct session_ref admin = fixture_bind(f, "admin@example.org", "x");
    assert_non_null(fixture_event_of(f, admin, BOUND));
    fixture_free(&f);
}

static void test_bind_beyond_the_limit_is_refused(void **state)
{
    (void)state;
    struct fixture *f = start("limits { sessions_per_account = 2; }");
    fixture_bind(f, ALICE, "a");
    struct session_ref second = fixture_bind(f, ALICE, "b"), third = fixture_bind(f, ALICE, "c");
    assert_non_null(fixture_event_of(f, second, BOUND));
    assert_string_equal(fixture_event_of(f, third, REFUSED)->text, "resource-constraint");
    address_unbind(fixture_home(f, second), second, XY_STR(ALICE));
    fixture_run(f);
    assert_non_null(fixture_event_of(f, fixture_bind(f, ALICE, "d"), BOUND));
    fixture_free(&f);
}

static void test_conflict_waits_until_the_old_session_is_gone(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref old = fixture_bind(f, ALICE, "desk"), new = fixture_bind(f, ALICE, "desk");
    assert_string_equal(fixture_event_of(f, old, CLOSED)->text, "conflict");
    assert_null(fixture_event_of(f, new, BOUND));
    address_unbind(fixture_home(f, old), old, XY_STR(ALICE));
    fixture_run(f);
    assert_non_null(fixture_event_of(f, new, BOUND));
    fixture_free(&f);
}

static void test_of_two_waiting_for_a_resource_the_newer_gets_it(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref old = fixture_bind(f, ALICE, "desk"), second = fixture_bind(f, ALICE, "desk"),
                       third = fixture_bind(f, ALICE, "desk");
    assert_string_equal(fixture_event_of(f, second, REFUSED)->text, "conflict");
    address_unbind(fixture_home(f, old), old, XY_STR(ALICE));
    fixture_run(f);
    assert_non_null(fixture_event_of(f, third, BOUND));
    assert_null(fixture_event_of(f, second, BOUND));
    fixture_free(&f);
}

static void test_a_session_that_ends_while_it_waits_is_not_bound(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref old = fixture_bind(f, ALICE, "desk"), second = fixture_bind(f, ALICE, "desk");
    address_unbind(fixture_home(f, second), second, XY_STR(ALICE));
    fixture_run(f);
    address_unbind(fixture_home(f, old), old, XY_STR(ALICE));
    fixture_run(f);
    assert_null(fixture_event_of(f, second, BOUND));
    fixture_free(&f);
}

static void test_long_names(void **state)
{
    (void)state;
    struct fixture *f = start("");
    char bare[1100], resource[1024];
    memset(bare, 'a', 1000);
    (void)snprintf(bare + 1000, sizeof(bare) - 1000, "@example.org");
    memset(resource, 'r', sizeof(resource) - 1);
    resource[sizeof(resource) - 1] = '\0';
    fixture_account(f, bare);
    struct session_ref s = fixture_bind(f, bare, resource);
    assert_int_equal(strlen(fixture_event_of(f, s, BOUND)->text), strlen(bare) + 1 + strlen(resource));
    address_unbind(fixture_home(f, s), s, xy_str(bare));
    fixture_run(f);
    assert_non_null(fixture_event_of(f, fixture_bind(f, bare, resource), BOUND));
    fixture_free(&f);
}

/* --- the table of RFC 6121 8.5.4 ------------------------------------------------------------------------------------- */

enum outcome { DELIVERED, ALL, STORED, SILENT, ERROR };

/* Alice's sessions: none, one of negative priority, one, two of equal priority. */
static const struct row {
    int sessions;
    int priority;
    const char *to;
    const char *type;
    enum outcome outcome;
} rows[] = {
    { 0, 0, ALICE, "normal", STORED },
    { 0, 0, ALICE, "chat", STORED },
    { 0, 0, ALICE, "groupchat", ERROR },
    { 0, 0, ALICE, "headline", SILENT },
    { 0, 0, ALICE, "error", SILENT },
    { 0, 0, ALICE "/z", "normal", ERROR },
    { 0, 0, ALICE "/z", "chat", STORED },
    { 0, 0, ALICE "/z", "groupchat", ERROR },
    { 0, 0, ALICE "/z", "headline", ERROR },
    { 0, 0, ALICE "/z", "error", SILENT },
    { 1, -1, ALICE, "normal", STORED },
    { 1, -1, ALICE, "chat", STORED },
    { 1, -1, ALICE, "groupchat", ERROR },
    { 1, -1, ALICE, "headline", SILENT },
    { 1, -1, ALICE "/a", "normal", DELIVERED },
    { 1, -1, ALICE "/a", "chat", DELIVERED },
    { 1, -1, ALICE "/a", "groupchat", DELIVERED },
    { 1, -1, ALICE "/a", "headline", DELIVERED },
    { 1, -1, ALICE "/a", "error", DELIVERED },
    { 1, -1, ALICE "/z", "normal", ERROR },
    { 1, -1, ALICE "/z", "chat", STORED },
    { 1, -1, ALICE "/z", "groupchat", ERROR },
    { 1, -1, ALICE "/z", "headline", ERROR },
    { 1, 0, ALICE, "normal", DELIVERED },
    { 1, 0, ALICE, "chat", DELIVERED },
    { 1, 0, ALICE, "groupchat", ERROR },
    { 1, 0, ALICE, "headline", DELIVERED },
    { 1, 0, ALICE, "error", SILENT },
    { 1, 0, ALICE "/a", "normal", DELIVERED },
    { 1, 0, ALICE "/a", "chat", DELIVERED },
    { 1, 0, ALICE "/a", "groupchat", DELIVERED },
    { 1, 0, ALICE "/a", "headline", DELIVERED },
    { 1, 0, ALICE "/a", "error", DELIVERED },
    { 1, 0, ALICE "/z", "normal", ERROR },
    { 1, 0, ALICE "/z", "chat", DELIVERED },
    { 1, 0, ALICE "/z", "groupchat", ERROR },
    { 1, 0, ALICE "/z", "headline", ERROR },
    { 1, 0, ALICE "/z", "error", SILENT },
    { 2, 0, ALICE, "normal", ALL },
    { 2, 0, ALICE, "chat", ALL },
    { 2, 0, ALICE, "groupchat", ERROR },
    { 2, 0, ALICE, "headline", ALL },
    { 2, 0, ALICE "/a", "normal", DELIVERED },
    { 2, 0, ALICE "/a", "chat", DELIVERED },
    { 2, 0, ALICE "/z", "normal", ERROR },
    { 2, 0, ALICE "/z", "chat", ALL },
    { 2, 0, ALICE "/z", "headline", ERROR },
};

static void check_row(const struct row *row, uint32_t inbound)
{
    struct fixture *f = start("");
    struct session_ref a = SESSION_NONE, b = SESSION_NONE;
    struct session_ref bob = fixture_bind(f, BOB, "x");
    if (row->sessions > 0)
        a = online(f, ALICE, "a", row->priority);
    if (row->sessions > 1)
        b = online(f, ALICE, "b", row->priority);
    fixture_forget(f);
    char xml[256];
    (void)snprintf(xml, sizeof(xml), "<message to='%s' type='%s' id='m'><body>hello</body></message>",
                   row->to, row->type);
    fixture_say(f, bob, BOB "/x", inbound, xml);
    size_t to_a = fixture_stanzas(f, a), to_b = fixture_stanzas(f, b), to_bob = fixture_stanzas(f, bob);
    uint64_t stored = 0;
    for (unsigned i = 0; i < f->count; i++)
        stored += shard_group_get(f->group, i)->stats->messages_stored;
    bool delivered = row->outcome == DELIVERED || row->outcome == ALL;
    bool assured = strcmp(row->type, "chat") == 0 || strcmp(row->type, "normal") == 0;
    /* A sender with XEP-0198 is told of it after the commit; one message for several sessions needs an entry of the mailbox. */
    bool kept = row->outcome == STORED || (assured && (row->outcome == ALL || (inbound && delivered)));
    if (to_a != delivered || to_b != (row->outcome == ALL) || to_bob != (row->outcome == ERROR) ||
        stored != kept)
        fail_msg("%d sessions of priority %d, %s to %s: a %zu, b %zu, sender %zu, stored %zu", row->sessions,
                 row->priority, row->type, row->to, to_a, to_b, to_bob, (size_t)stored);
    if (row->outcome == ERROR)
        assert_contains(fixture_event_of(f, bob, SENT)->text, "service-unavailable");
    if (inbound)
        assert_int_equal(fixture_event_of(f, bob, HANDLED)->seq, inbound);
    fixture_free(&f);
}

static void test_every_row_of_the_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        check_row(&rows[i], 0);
        check_row(&rows[i], 1);
    }
}

static void test_no_such_account(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref bob = fixture_bind(f, BOB, "x");
    fixture_forget(f);
    fixture_say(f, bob, BOB "/x", 0, "<message to='no@example.org' id='1'><body>x</body></message>");
    assert_contains(fixture_event_of(f, bob, SENT)->text, "service-unavailable");
    fixture_say(f, bob, BOB "/x", 0,
                "<iq to='no@example.org' type='get' id='2'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_contains(fixture_event_of(f, bob, SENT)->text, "service-unavailable");
    fixture_say(f, bob, BOB "/x", 0,
                "<message to='no@example.org' type='error' id='3'><body>x</body></message>");
    fixture_say(f, bob, BOB "/x", 0, "<message to='no@example.org' type='headline'><body>x</body></message>");
    fixture_say(f, bob, BOB "/x", 0, "<presence to='no@example.org'/>");
    fixture_say(f, bob, BOB "/x", 0, "<iq to='no@example.org/x' type='result' id='4'/>");
    assert_int_equal(fixture_stanzas(f, bob), 0);
    fixture_free(&f);
}

static void test_highest_priority_alone_gets_messages(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref low = online(f, ALICE, "low", 1), high = online(f, ALICE, "high", 5);
    struct session_ref bob = fixture_bind(f, BOB, "x");
    fixture_forget(f);
    fixture_say(f, bob, BOB "/x", 0, "<message to='" ALICE "' type='chat'><body>x</body></message>");
    assert_int_equal(fixture_stanzas(f, low), 0);
    assert_int_equal(fixture_stanzas(f, high), 1);
    fixture_say(f, bob, BOB "/x", 0, "<message to='" ALICE "' type='headline'><body>x</body></message>");
    assert_int_equal(fixture_stanzas(f, low), 1);
    fixture_free(&f);
}

/* --- IQ --------------------------------------------------------------------------------------------------------------- */

static void test_iq_to_a_session(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref alice = fixture_bind(f, ALICE, "a"), bob = fixture_bind(f, BOB, "x");
    static const char ask[] = "<iq to='" ALICE "/a' type='get' id='1'><q xmlns='urn:q'/></iq>";
    fixture_forget(f);
    fixture_say(f, bob, BOB "/x", 0, ask);
    assert_contains(fixture_event_of(f, alice, SENT)->text, "from='" BOB "/x'");
    f->offers = SESSION_GONE;
    fixture_say(f, bob, BOB "/x", 0, ask);
    assert_contains(fixture_event_of(f, bob, SENT)->text, "service-unavailable");
    f->offers = SESSION_FULL;
    fixture_say(f, bob, BOB "/x", 0, ask);
    assert_contains(fixture_event_of(f, bob, SENT)->text, "resource-constraint");
    fixture_say(f, bob, BOB "/x", 0, "<iq to='" ALICE "/none' type='set' id='1'><q xmlns='urn:q'/></iq>");
    assert_contains(fixture_event_of(f, bob, SENT)->text, "service-unavailable");
    fixture_say(f, bob, BOB "/x", 0, "<iq to='" ALICE "/none' type='result' id='1'/>");
    assert_int_equal(fixture_stanzas(f, bob), 0);
    fixture_free(&f);
}

static void test_iq_to_an_account_is_for_its_own_sessions(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref alice = fixture_bind(f, ALICE, "a"), bob = fixture_bind(f, BOB, "x");
    static const char ping[] = "<iq to='" ALICE "' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
    fixture_forget(f);
    fixture_say(f, alice, ALICE "/a", 0, ping);
    assert_contains(fixture_event_of(f, alice, SENT)->text, "result");
    fixture_say(f, alice, ALICE "/a", 0, "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_contains(fixture_event_of(f, alice, SENT)->text, "result");
    fixture_say(f, bob, BOB "/x", 0, ping);
    assert_contains(fixture_event_of(f, bob, SENT)->text, "service-unavailable");
    fixture_say(f, alice, ALICE "/a", 0, "<iq to='" ALICE "' type='set' id='p'><q xmlns='urn:q'/></iq>");
    assert_contains(fixture_event_of(f, alice, SENT)->text, "service-unavailable");
    fixture_say(f, alice, ALICE "/a", 0, "<iq to='" ALICE "' type='error' id='p'/>");
    assert_int_equal(fixture_stanzas(f, alice), 0);
    fixture_free(&f);
}

/* --- order ------------------------------------------------------------------------------------------------------------ */

static void test_stanzas_wait_behind_a_commit(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref alice = online(f, ALICE, "a", 0), bob = fixture_bind(f, BOB, "x");
    fixture_forget(f);
    f->hold_commits = true;
    fixture_say(f, bob, BOB "/x", 1, "<message to='" ALICE "'><body>one</body></message>");
    fixture_say(f, bob, BOB "/x", 0, "<iq to='" ALICE "/a' type='get' id='2'><q xmlns='urn:q'/></iq>");
    fixture_say(f, bob, BOB "/x", 0,
                "<message to='" ALICE "/a' type='headline'><body>three</body></message>");
    assert_int_equal(fixture_stanzas(f, alice), 0);
    assert_null(fixture_event_of(f, bob, HANDLED));
    f->hold_commits = false;
    fixture_run(f);
    assert_non_null(fixture_event_of(f, bob, HANDLED));
    assert_int_equal(fixture_stanzas(f, alice), 3);
    static const char *const order[] = { "one", "urn:q", "three" };
    for (size_t i = 0, seen = 0; i < f->events_count; i++)
        if (session_ref_eq(f->events[i].session, alice))
            assert_contains(f->events[i].text, order[seen++]);
    fixture_free(&f);
}

/* --- accounts that go -------------------------------------------------------------------------------------------------- */

static void on_change(struct shard *shard, void *ctx, enum account_result result)
{
    (void)shard;
    *(enum account_result *)ctx = result;
}

static void test_removing_an_account_closes_its_sessions(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref alice = online(f, ALICE, "a", 0), bob = fixture_bind(f, BOB, "x");
    enum account_result result = ACCOUNT_BUSY;
    fixture_forget(f);
    accounts_remove(shard_group_get(f->group, 0), XY_STR(ALICE),
                    &(struct accounts_asker){ .fn = on_change, .ctx = &result });
    fixture_run(f);
    assert_int_equal(result, ACCOUNT_OK);
    assert_string_equal(fixture_event_of(f, alice, CLOSED)->text, "not-authorized");
    address_unbind(fixture_home(f, alice), alice, XY_STR(ALICE));
    fixture_run(f);
    fixture_say(f, bob, BOB "/x", 0, "<message to='" ALICE "'><body>x</body></message>");
    assert_contains(fixture_event_of(f, bob, SENT)->text, "service-unavailable");
    assert_string_equal(fixture_event_of(f, fixture_bind(f, ALICE, "a"), REFUSED)->text, "not-allowed");
    fixture_free(&f);
}

static void test_addresses_nobody_needs_are_dropped(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref bob = fixture_bind(f, BOB, "x");
    fixture_say(f, bob, BOB "/x", 0, "<message to='" ALICE "'><body>x</body></message>");
    for (int i = 0; i < 4; i++)
        fixture_sleep(f, 31u * 1000000u);
    /* What was stored is found again by a new address. */
    struct session_ref alice = fixture_bind(f, ALICE, "a");
    fixture_say(f, alice, ALICE "/a", 0, "<presence/>");
    assert_contains(fixture_event_of(f, alice, MESSAGE)->text, "<body>x</body>");
    fixture_free(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bind_answers_with_the_full_jid),
        cmocka_unit_test(test_bind_makes_up_resources),
        cmocka_unit_test(test_bind_needs_an_account_but_for_the_reserved_one),
        cmocka_unit_test(test_bind_beyond_the_limit_is_refused),
        cmocka_unit_test(test_conflict_waits_until_the_old_session_is_gone),
        cmocka_unit_test(test_of_two_waiting_for_a_resource_the_newer_gets_it),
        cmocka_unit_test(test_a_session_that_ends_while_it_waits_is_not_bound),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_every_row_of_the_table),
        cmocka_unit_test(test_no_such_account),
        cmocka_unit_test(test_highest_priority_alone_gets_messages),
        cmocka_unit_test(test_iq_to_a_session),
        cmocka_unit_test(test_iq_to_an_account_is_for_its_own_sessions),
        cmocka_unit_test(test_stanzas_wait_behind_a_commit),
        cmocka_unit_test(test_removing_an_account_closes_its_sessions),
        cmocka_unit_test(test_addresses_nobody_needs_are_dropped),
    };
    int failed = cmocka_run_group_tests_name("address, one shard", tests, NULL, NULL);
    shards = 3;
    return failed + cmocka_run_group_tests_name("address, three shards", tests, NULL, NULL);
}
