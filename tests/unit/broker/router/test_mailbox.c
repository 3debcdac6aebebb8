/* The durable mailbox: what is owed stays until it was acknowledged, in order, in bounded pages. */
#include "tests/unit/broker/fixture.h"

#include "broker/router/address_internal.h"
#include "broker/store/backend.h"

#define ALICE "alice@example.org"
#define BOB   "bob@example.org"

static unsigned shards = 1;
static struct session_ref bob;

static struct fixture *start(const char *config)
{
    struct fixture *f = fixture_new(shards, config);
    fixture_account(f, ALICE);
    fixture_account(f, BOB);
    bob = fixture_bind(f, BOB, "x");
    fixture_forget(f);
    return f;
}

static struct session_ref online(struct fixture *f, const char *resource, int priority)
{
    char from[128], xml[128];
    struct session_ref session = fixture_bind(f, ALICE, resource);
    (void)snprintf(from, sizeof(from), ALICE "/%s", resource);
    (void)snprintf(xml, sizeof(xml), "<presence><priority>%d</priority></presence>", priority);
    fixture_say(f, session, from, 0, xml);
    return session;
}

/* Bob's n-th message; he has XEP-0198. */
static void send_number(struct fixture *f, unsigned n)
{
    char xml[128];
    (void)snprintf(xml, sizeof(xml), "<message to='" ALICE "' type='chat'><body>-%u-</body></message>", n);
    fixture_say(f, bob, BOB "/x", n + 1, xml);
}

static void expect_number(struct fixture *f, struct session_ref session, unsigned n, bool delayed,
                          uint64_t *seq)
{
    char body[32];
    struct fixture_event *event = fixture_event_of(f, session, MESSAGE);
    if (!event)
        fail_msg("message %u did not come", n);
    (void)snprintf(body, sizeof(body), "<body>-%u-</body>", n);
    assert_contains(event->text, body);
    assert_int_equal(strstr(event->text, "<delay xmlns='urn:xmpp:delay' from='example.org' stamp='") != NULL,
                     delayed);
    *seq = event->seq;
}

static void leave(struct fixture *f, struct session_ref session)
{
    address_unbind(fixture_home(f, session), session, XY_STR(ALICE));
    fixture_run(f);
}

static void ack(struct fixture *f, struct session_ref session, const uint64_t *seq, size_t count)
{
    address_acked(fixture_home(f, session), XY_STR(ALICE), seq, count);
    fixture_run(f);
}

static void test_acknowledged_is_gone_and_unacknowledged_is_not(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref alice = online(f, "a", 0);
    uint64_t first, second;
    send_number(f, 0);
    send_number(f, 1);
    expect_number(f, alice, 0, false, &first);
    expect_number(f, alice, 1, false, &second);
    assert_true(first > 0 && second > first);
    ack(f, alice, &first, 1);
    fixture_sleep(f, 100000); /* the removal rides with a later commit */
    fixture_restart(f);
    alice = online(f, "a", 0);
    uint64_t again;
    expect_number(f, alice, 1, true, &again);
    assert_int_equal(again, second);
    assert_null(fixture_event_of(f, alice, MESSAGE));
    fixture_free(&f);
}

static void test_numbers_are_not_used_again(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref alice = online(f, "a", 0);
    uint64_t first, second;
    send_number(f, 0);
    expect_number(f, alice, 0, false, &first);
    ack(f, alice, &first, 1);
    leave(f, alice);
    fixture_restart(f);
    bob = fixture_bind(f, BOB, "x");
    alice = online(f, "a", 0);
    send_number(f, 1);
    expect_number(f, alice, 1, false, &second);
    assert_true(second > first);
    fixture_free(&f);
}

static void test_long_mailboxes_come_in_order_and_in_pages(void **state)
{
    (void)state;
    enum { COUNT = 700 };
    struct fixture *f = start("");
    for (unsigned i = 0; i < COUNT; i++)
        send_number(f, i);
    fixture_forget(f);
    struct session_ref alice = online(f, "a", 0);
    size_t unacknowledged = fixture_stanzas(f, alice) - 1; /* one is its own presence */
    assert_true(unacknowledged >= 64 && unacknowledged <= 256);
    uint64_t seq, last = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        expect_number(f, alice, i, true, &seq);
        assert_true(seq > last);
        last = seq;
        ack(f, alice, &seq, 1);
    }
    assert_null(fixture_event_of(f, alice, MESSAGE));
    fixture_free(&f);
}

static void test_new_messages_queue_behind_old_ones(void **state)
{
    (void)state;
    enum { OLD = 300, ALL = 310 };
    struct fixture *f = start("");
    for (unsigned i = 0; i < OLD; i++)
        send_number(f, i);
    fixture_forget(f);
    struct session_ref alice = online(f, "a", 0);
    for (unsigned i = OLD; i < ALL; i++)
        send_number(f, i);
    /* One without XEP-0198 waits its turn as well. */
    fixture_say(f, bob, BOB "/x", 0, "<message to='" ALICE "'><body>-310-</body></message>");
    uint64_t seq;
    for (unsigned i = 0; i <= ALL; i++) {
        expect_number(f, alice, i, true, &seq);
        ack(f, alice, &seq, 1);
    }
    send_number(f, 400);
    expect_number(f, alice, 400, false, &seq);
    fixture_free(&f);
}

static void test_what_a_session_held_goes_to_the_next(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref one = online(f, "one", 5), two = online(f, "two", 1);
    uint64_t seq;
    for (unsigned i = 0; i < 3; i++)
        send_number(f, i);
    expect_number(f, one, 0, false, &seq);
    ack(f, one, &seq, 1);
    assert_null(fixture_event_of(f, two, MESSAGE));
    leave(f, one);
    expect_number(f, two, 1, true, &seq);
    expect_number(f, two, 2, true, &seq);
    assert_null(fixture_event_of(f, two, MESSAGE));
    leave(f, two);
    struct session_ref three = online(f, "three", 0);
    expect_number(f, three, 1, true, &seq);
    expect_number(f, three, 2, true, &seq);
    fixture_free(&f);
}

static void test_a_full_session_is_asked_again_later(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref alice = online(f, "a", 0);
    uint64_t seq;
    send_number(f, 0);
    expect_number(f, alice, 0, false, &seq);
    address_returned(fixture_home(f, alice), XY_STR(ALICE), alice, seq, NULL);
    fixture_run(f);
    assert_null(fixture_event_of(f, alice, MESSAGE));
    send_number(f, 1); /* does not overtake */
    assert_null(fixture_event_of(f, alice, MESSAGE));
    fixture_sleep(f, 600000);
    expect_number(f, alice, 0, true, &seq);
    expect_number(f, alice, 1, true, &seq);
    fixture_free(&f);
}

static void test_the_first_acknowledgement_ends_it_for_all(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref one = online(f, "one", 0), two = online(f, "two", 0);
    uint64_t seq, same;
    send_number(f, 0);
    expect_number(f, one, 0, false, &seq);
    expect_number(f, two, 0, false, &same);
    assert_int_equal(seq, same);
    ack(f, two, &seq, 1);
    ack(f, one, &seq, 1); /* late: harmless */
    leave(f, one);
    leave(f, two);
    struct session_ref three = online(f, "three", 0);
    assert_null(fixture_event_of(f, three, MESSAGE));
    fixture_free(&f);
}

static void test_it_stays_as_long_as_one_of_them_holds_it(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref one = online(f, "one", 0), two = online(f, "two", 0);
    uint64_t seq;
    send_number(f, 0);
    fixture_forget(f);
    leave(f, one);
    assert_null(fixture_event_of(f, two, MESSAGE)); /* it has it */
    leave(f, two);
    struct session_ref three = online(f, "three", 0);
    expect_number(f, three, 0, true, &seq);
    fixture_free(&f);
}

static void test_two_full_sessions_are_asked_again_later(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref one = online(f, "one", 0), two = online(f, "two", 0);
    uint64_t seq;
    send_number(f, 0);
    expect_number(f, one, 0, false, &seq);
    expect_number(f, two, 0, false, &seq);
    address_returned(fixture_home(f, one), XY_STR(ALICE), one, seq, NULL);
    fixture_run(f);
    fixture_sleep(f, 600000);
    assert_null(fixture_event_of(f, one, MESSAGE)); /* the other one still has it */
    address_returned(fixture_home(f, two), XY_STR(ALICE), two, seq, NULL);
    fixture_run(f);
    fixture_sleep(f, 600000);
    expect_number(f, one, 0, true, &seq);
    expect_number(f, two, 0, true, &seq);
    fixture_free(&f);
}

static void test_not_stored_but_returned_is_stored(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref one = online(f, "one", 0);
    fixture_say(f, bob, BOB "/x", 0, "<message to='" ALICE "/one' type='chat'><body>-9-</body></message>");
    struct fixture_event *event = fixture_event_of(f, one, MESSAGE);
    assert_int_equal(event->seq, 0);
    struct xy_bytes *bytes = xy_bytes_new(xy_str(event->text));
    address_returned(fixture_home(f, one), XY_STR(ALICE), one, 0, &bytes);
    assert_null(bytes);
    leave(f, one);
    fixture_restart(f);
    struct session_ref two = online(f, "two", 0);
    uint64_t seq;
    expect_number(f, two, 9, true, &seq);
    assert_true(seq > 0);
    fixture_free(&f);
}

/* A sender without XEP-0198 waits for no commit, but two may get the message: only the mailbox knows who has it. */
static void test_what_one_of_two_gives_back_is_not_for_the_other(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref a = online(f, "a", 0), b = online(f, "b", 0);
    fixture_forget(f);
    fixture_say(f, bob, BOB "/x", 0, "<message to='" ALICE "' type='chat'><body>-1-</body></message>");
    uint64_t to_a, to_b, again;
    expect_number(f, a, 1, false, &to_a);
    expect_number(f, b, 1, false, &to_b);
    leave(f, b);
    assert_null(fixture_event_of(f, a, MESSAGE));
    leave(f, a);
    expect_number(f, online(f, "c", 0), 1, true, &again);
    assert_int_equal(again, to_a);
    fixture_free(&f);
}

static void test_negative_priority_gets_only_what_is_for_it(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref shy = online(f, "shy", -1);
    uint64_t seq;
    send_number(f, 0);
    assert_null(fixture_event_of(f, shy, MESSAGE));
    fixture_say(f, bob, BOB "/x", 2, "<message to='" ALICE "/shy' type='chat'><body>-1-</body></message>");
    expect_number(f, shy, 1, false, &seq);
    ack(f, shy, &seq, 1);
    struct session_ref open = online(f, "open", 0);
    expect_number(f, open, 0, true, &seq);
    assert_null(fixture_event_of(f, open, MESSAGE));
    fixture_free(&f);
}

static void test_raising_the_priority_drains(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref shy = online(f, "shy", -1);
    uint64_t seq;
    send_number(f, 0);
    fixture_say(f, shy, ALICE "/shy", 0, "<presence><priority>0</priority></presence>");
    expect_number(f, shy, 0, true, &seq);
    fixture_free(&f);
}

static void test_quota_of_messages(void **state)
{
    (void)state;
    struct fixture *f = start("limits { offline_messages = 2; }");
    uint64_t seq;
    send_number(f, 0);
    send_number(f, 1);
    assert_null(fixture_event_of(f, bob, SENT));
    send_number(f, 2);
    assert_contains(fixture_event_of(f, bob, SENT)->text, "resource-constraint");
    fixture_restart(f); /* the count is found again */
    bob = fixture_bind(f, BOB, "x");
    send_number(f, 3);
    assert_contains(fixture_event_of(f, bob, SENT)->text, "resource-constraint");
    struct session_ref alice = online(f, "a", 0);
    expect_number(f, alice, 0, true, &seq);
    ack(f, alice, &seq, 1);
    leave(f, alice);
    send_number(f, 4);
    assert_null(fixture_event_of(f, bob, SENT));
    send_number(f, 5);
    assert_contains(fixture_event_of(f, bob, SENT)->text, "resource-constraint");
    fixture_free(&f);
}

/* limits.memory: what would have to be stored is refused for now; what was stored is delivered, and ends. */
static void test_memory_is_short(void **state)
{
    (void)state;
    struct fixture *f = start("");
    uint64_t seq;
    send_number(f, 0);
    shard_group_set_memory_short(f->group, true);
    send_number(f, 1);
    assert_contains(fixture_event_of(f, bob, SENT)->text, "<error type='wait'><resource-constraint");
    struct session_ref alice = online(f, "a", 0);
    expect_number(f, alice, 0, true, &seq);
    send_number(f, 2);
    assert_contains(fixture_event_of(f, bob, SENT)->text, "<error type='wait'><resource-constraint");
    assert_null(fixture_event_of(f, alice, MESSAGE));
    fixture_forget(f);
    fixture_say(f, bob, BOB "/x", 9,
                "<message to='" ALICE "' type='headline'><body>passing</body></message>");
    assert_contains(fixture_event_of(f, alice, SENT)->text, "passing");
    leave(f, alice); /* it comes back, and is not lost for that */
    shard_group_set_memory_short(f->group, false);
    send_number(f, 3);
    alice = online(f, "a", 0);
    expect_number(f, alice, 0, true, &seq);
    expect_number(f, alice, 3, true, &seq);
    uint64_t refused = 0;
    for (unsigned i = 0; i < f->count; i++)
        refused += atomic_load(&shard_group_get(f->group, i)->stats->messages_refused_memory);
    assert_int_equal(refused, 2);
    fixture_free(&f);
}

static void test_quota_of_bytes(void **state)
{
    (void)state;
    struct fixture *f = start("limits { offline_bytes = 300; }");
    unsigned stored = 0;
    while (stored < 10) {
        send_number(f, stored);
        if (fixture_event_of(f, bob, SENT))
            break;
        stored++;
    }
    assert_in_range(stored, 2, 4); /* about 90 bytes each */
    fixture_free(&f);
}

static void test_what_is_not_worth_keeping(void **state)
{
    (void)state;
    static const char *const transient[] = {
        "<message to='" ALICE "' type='chat'><body>x</body><no-store xmlns='urn:xmpp:hints'/></message>",
        "<message to='" ALICE
        "' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
        "<message to='" ALICE "' type='chat'><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/></message>",
        "<message to='" ALICE "' type='chat'/>",
        "<message to='" ALICE
        "'><data xmlns='http://jabber.org/protocol/ibb' seq='0' sid='1'>eA==</data></message>",
    };
    static const char *const kept[] = {
        "<message to='" ALICE "'><body/></message>",
        "<message to='" ALICE "'><x xmlns='urn:unknown'/></message>",
        "<message to='" ALICE "' type='chat'><received xmlns='urn:xmpp:receipts' id='1'/></message>",
        "<message to='" ALICE "'><active xmlns='http://jabber.org/protocol/chatstates'/>"
        "<store xmlns='urn:xmpp:hints'/></message>",
    };
    struct fixture *f = start("");
    for (size_t i = 0; i < sizeof(transient) / sizeof(*transient); i++)
        fixture_say(f, bob, BOB "/x", (uint32_t)i + 1, transient[i]);
    assert_null(fixture_event_of(f, bob, SENT)); /* nothing is bounced */
    struct session_ref alice = online(f, "a", 0);
    assert_null(fixture_event_of(f, alice, MESSAGE));
    leave(f, alice);
    for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++)
        fixture_say(f, bob, BOB "/x", 0, kept[i]);
    alice = online(f, "a", 0);
    for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++)
        assert_non_null(fixture_event_of(f, alice, MESSAGE));
    fixture_free(&f);
}

static void test_escaped_resources_are_recognised(void **state)
{
    (void)state;
    struct fixture *f = start("");
    struct session_ref odd = fixture_bind(f, ALICE, "a&b'<c>\"");
    fixture_say(f, odd, ALICE "/a&b'<c>\"", 0, "<presence><priority>0</priority></presence>");
    struct session_ref best = online(f, "best", 9);
    uint64_t seq;
    fixture_say(f, bob, BOB "/x", 1,
                "<message type='chat' to='" ALICE
                "/a&amp;b&apos;&lt;c&gt;&quot;'><body>-1-</body></message>");
    expect_number(f, odd, 1, false, &seq);
    /* It comes back from a full session and goes to the same again, not to the best. */
    address_returned(fixture_home(f, odd), XY_STR(ALICE), odd, seq, NULL);
    fixture_run(f);
    fixture_sleep(f, 600000);
    expect_number(f, odd, 1, true, &seq);
    assert_null(fixture_event_of(f, best, MESSAGE));
    fixture_free(&f);
}

/* More rows than a page that cannot be read, at the front and between: they stay, and what can be read comes. */
static void test_damaged_rows(void **state)
{
    (void)state;
    enum { COUNT = 3 * MAILBOX_PAGE };
    static const unsigned sound[] = { MAILBOX_PAGE + 5, COUNT - 1 };
    struct fixture *f = start("");
    for (unsigned n = 0; n < COUNT; n++)
        send_number(f, n);
    fixture_stop(f);
    struct store_log *log;
    struct store_tables *tables;
    struct xy_buf error = { 0 };
    const struct store_backend *backend = store_memory_backend(f->memory);
    assert_true(backend->open(backend, NULL, &log, &tables, &error));
    for (unsigned n = 0; n < COUNT; n++) {
        char key[] = ALICE "\0........";
        for (unsigned i = 0; i < 8; i++)
            key[sizeof(ALICE) + i] = (char)((uint64_t)(n + 1) >> (56 - 8 * i) & 0xff);
        if (n != sound[0] && n != sound[1])
            assert_int_equal(
                tables->ops->put(tables, STORE_MAILBOX, xy_str_n(key, sizeof(ALICE) + 8), XY_STR("damaged")),
                STORE_IO_OK);
    }
    assert_int_equal(tables->ops->commit(tables), STORE_IO_OK);
    log->ops->close(&log);
    tables->ops->close(&tables);
    fixture_start(f);
    struct session_ref alice = online(f, "a", 0);
    uint64_t seq;
    for (unsigned i = 0; i < 2; i++) {
        expect_number(f, alice, sound[i], true, &seq);
        assert_int_equal(seq, sound[i] + 1);
    }
    assert_null(fixture_event_of(f, alice, MESSAGE));
    fixture_free(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acknowledged_is_gone_and_unacknowledged_is_not),
        cmocka_unit_test(test_numbers_are_not_used_again),
        cmocka_unit_test(test_long_mailboxes_come_in_order_and_in_pages),
        cmocka_unit_test(test_new_messages_queue_behind_old_ones),
        cmocka_unit_test(test_what_a_session_held_goes_to_the_next),
        cmocka_unit_test(test_a_full_session_is_asked_again_later),
        cmocka_unit_test(test_two_full_sessions_are_asked_again_later),
        cmocka_unit_test(test_the_first_acknowledgement_ends_it_for_all),
        cmocka_unit_test(test_it_stays_as_long_as_one_of_them_holds_it),
        cmocka_unit_test(test_not_stored_but_returned_is_stored),
        cmocka_unit_test(test_what_one_of_two_gives_back_is_not_for_the_other),
        cmocka_unit_test(test_negative_priority_gets_only_what_is_for_it),
        cmocka_unit_test(test_raising_the_priority_drains),
        cmocka_unit_test(test_quota_of_messages),
        cmocka_unit_test(test_memory_is_short),
        cmocka_unit_test(test_quota_of_bytes),
        cmocka_unit_test(test_what_is_not_worth_keeping),
        cmocka_unit_test(test_escaped_resources_are_recognised),
        cmocka_unit_test(test_damaged_rows),
    };
    int failed = cmocka_run_group_tests_name("mailbox, one shard", tests, NULL, NULL);
    shards = 3;
    return failed + cmocka_run_group_tests_name("mailbox, three shards", tests, NULL, NULL);
}
