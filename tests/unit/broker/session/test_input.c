/* What comes in: whose name stanzas carry, in which order they arrive, what h means and when it is told, and the brake for
 * a sender that has too much under way. */
#include "tests/unit/broker/session/rig.h"

#define JULIET "juliet@example.org"
#define ROMEO  "romeo@example.org"

static struct rig *verona(unsigned shards, const char *config)
{
    struct rig *rig = rig_new(shards, config);
    rig_account(rig, JULIET);
    rig_account(rig, ROMEO);
    return rig;
}

/* --- names ---------------------------------------------------------------------------------------------------------- */

static void test_from_is_stamped(void **state)
{
    (void)state;
    static const char *const own[] = { "", "from='" JULIET "'", "from='" JULIET "/a'",
                                       "from='JULIET@example.org/a'" };
    struct rig *rig = verona(2, "");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, 1, ROMEO, "b");
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        char text[256];
        (void)snprintf(text, sizeof(text),
                       "<message %s to='" ROMEO "/b' type='chat'><body>hi</body></message>", own[i]);
        wire_say(juliet, text);
        assert_heard(romeo, "from='" JULIET "/a'");
    }
    rig_free(&rig);
}

/* Hostile input 42. */
static void test_invalid_from(void **state)
{
    (void)state;
    static const char *const others[] = { ROMEO, JULIET "/z", "example.org", "pubsub.example.org", "@" };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        struct rig *rig = verona(1, "");
        struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, 0, ROMEO, "b");
        char text[256];
        (void)snprintf(text, sizeof(text),
                       "<message from='%s' to='" ROMEO "/b' type='chat'><body>hi</body></message>",
                       others[i]);
        wire_say(juliet, text);
        assert_heard(juliet, "<invalid-from");
        assert_true(juliet->closed);
        assert_lacks(wire_heard(romeo), "<body>");
        rig_free(&rig);
    }
}

/* Hostile input 47. */
static void test_server_owned_elements(void **state)
{
    (void)state;
    static const struct {
        const char *element;
        bool kept;
    } cases[] = {
        { "<delivery xmlns='urn:xylem:delivery:0' seq='9'/>", false },
        { "<delay xmlns='urn:xmpp:delay' stamp='2020-01-01T00:00:00Z' mark='1'/>", false },
        { "<delay xmlns='urn:xmpp:delay' from='example.org' stamp='2020-01-01T00:00:00Z'/>", false },
        { "<delay xmlns='urn:xmpp:delay' from='EXAMPLE.org' stamp='2020-01-01T00:00:00Z'/>", false },
        { "<delay xmlns='urn:xmpp:delay' from='" ROMEO "' stamp='2020-01-01T00:00:00Z'/>", false },
        { "<delay xmlns='urn:xmpp:delay' from='not a jid@' stamp='2020-01-01T00:00:00Z'/>", false },
        { "<delay xmlns='urn:xmpp:delay' from='" JULIET "/a' stamp='2020-01-01T00:00:00Z'/>", true },
        { "<delay xmlns='urn:xmpp:delay' from='room.elsewhere.net' stamp='2020-01-01T00:00:00Z'/>", true },
        { "<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='" JULIET "'/>", false },
        { "<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='example.org'/>", false },
        { "<stanza-id xmlns='urn:xmpp:sid:0' id='1'/>", false },
        { "<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='elsewhere.net'/>", true },
        { "<occupant-id xmlns='urn:xmpp:occupant-id:0' id='1'/>", false },
        { "<delay xmlns='urn:example:own' from='example.org'/>", true },
    };
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, 0, ROMEO, "b");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[512], name[32];
        (void)snprintf(text, sizeof(text),
                       "<message to='" ROMEO "/b' type='chat'>%s<body>hi</body>%s</message>",
                       cases[i].element, cases[i].element);
        (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(cases[i].element, " "), cases[i].element);
        wire_say(juliet, text);
        const char *heard = wire_heard(romeo);
        assert_contains(heard, "<body>hi</body>");
        if (text_count(heard, name) != (cases[i].kept ? 2 : 0))
            fail_msg("%s: %s", cases[i].element, heard);
    }
    wire_say(juliet,
             "<message to='" ROMEO "/b' type='chat'><body>hi</body><headers xmlns='" NS_SHIM "'>"
             "<header name='SubID'>forged</header><header name='Own'>kept</header></headers></message>");
    const char *heard = wire_heard(romeo);
    assert_lacks(heard, "forged");
    assert_contains(heard, "kept");
    rig_free(&rig);
}

/* Hostile input 43, 41. */
static void test_malformed_stanzas(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a");
    wire_say(juliet, "<iq type='get' id='1' to='example.org'/>");
    assert_heard(juliet, "<bad-request");
    wire_say(juliet, "<iq type='get' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_heard(juliet, "<bad-request");
    wire_say(juliet, "<message to='@bad@' id='2' type='chat'><body>x</body></message>");
    assert_heard(juliet, "<jid-malformed");
    wire_say(juliet, "<iq type='result' id='nobody-asked' to='example.org'/>"); /* hostile input 44 */
    assert_heard_nothing(juliet);
    assert_false(juliet->closed);
    rig_free(&rig);
}

/* --- order ---------------------------------------------------------------------------------------------------------- */

/* RFC 6120 10.1: stanzas of all kinds from one session to one bare JID, some of which wait for a commit. */
static void test_order(void **state)
{
    (void)state;
    for (unsigned managed = 0; managed < 2; managed++) {
        struct rig *rig = verona(3, "");
        char id[80];
        struct wire *juliet = managed ? rig_managed(rig, 0, JULIET, "a", id) : rig_bound(rig, 0, JULIET, "a");
        struct wire *romeo = rig_online(rig, 2, ROMEO, "b");
        uint64_t seed = 3;
        unsigned next = 0, count = 400;
        for (unsigned i = 0; i < count; i++) {
            static const char *const kinds[] = {
                "<message to='" ROMEO "' type='chat'><body>no%u.</body></message>",
                "<message to='" ROMEO "/b' type='chat'><body>no%u.</body></message>",
                "<message to='" ROMEO "/b' type='headline'><body>no%u.</body></message>",
                "<iq to='" ROMEO "/b' type='get' id='no%u.'><x xmlns='urn:example'/></iq>",
                "<message to='" ROMEO
                "/b' type='normal'><no-store xmlns='urn:xmpp:hints'/><body>no%u.</body></message>",
            };
            char text[256];
            (void)snprintf(text, sizeof(text), kinds[unit_below(&seed, 5)], i);
            wire_feed(juliet, xy_str(text));
            switch (unit_below(&seed, 6)) {
            case 0:
                store_step_commit(rig->store);
                break;
            case 1:
            case 2:
                shard_turn(rig_shard(rig, (unsigned)unit_below(&seed, 3)));
                break;
            default:
                break;
            }
        }
        rig_run(rig);
        const char *heard = wire_heard(romeo);
        for (const char *at = strstr(heard, "no"); at; at = strstr(at + 2, "no")) {
            unsigned number;
            if (sscanf(at, "no%u.", &number) != 1)
                continue;
            assert_int_equal(number, next);
            next++;
        }
        assert_int_equal(next, count);
        rig_free(&rig);
    }
}

/* --- h -------------------------------------------------------------------------------------------------------------- */

#define R       "<r xmlns='urn:xmpp:sm:3'/>"
#define ASSURED "<message to='" ROMEO "' type='chat'><body>x</body></message>"
#define PING    "<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>"

static void test_acknowledged_when_handled(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(2, "");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    wire_say(juliet, R);
    assert_heard(juliet, "h='0'");
    wire_say(juliet, PING PING R);
    assert_heard(juliet, "h='2'");
    rig->hold_commits = true;
    wire_say(juliet, PING ASSURED PING R);
    const char *heard = wire_heard(juliet);
    assert_contains(heard, "type='result'");
    assert_lacks(heard, "<a "); /* the message is not on disk */
    rig->hold_commits = false;
    rig_run(rig);
    assert_heard(juliet, "h='5'");
    rig_free(&rig);
}

/* At the latest after one second with the h reached; the rest unasked. */
static void test_acknowledged_after_a_second(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    struct wire *juliet = rig_bound(rig, 0, JULIET, "a");
    wire_say(juliet, "<enable xmlns='urn:xmpp:sm:3'/>");
    rig->hold_commits = true;
    wire_say(juliet, PING ASSURED PING R);
    rig_sleep(rig, SESSION_ACK_DELAY_US - 1);
    assert_lacks(wire_heard(juliet), "<a ");
    rig_sleep(rig, 1);
    assert_heard(juliet, "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    rig_sleep(rig, 5 * SESSION_ACK_DELAY_US);
    assert_lacks(wire_heard(juliet), "<a ");
    wire_say(juliet, R); /* asks again: a second of its own */
    rig_sleep(rig, SESSION_ACK_DELAY_US);
    assert_heard(juliet, "h='1'");
    rig->hold_commits = false;
    rig_run(rig);
    assert_heard(juliet, "h='3'"); /* unasked */
    rig_sleep(rig, 5 * SESSION_ACK_DELAY_US);
    assert_lacks(wire_heard(juliet), "<a ");
    rig_free(&rig);
}

/* A sender that asks behind every message and never pauses hears of its progress all the same. */
static void test_acknowledged_while_more_comes(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(2, "");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    unsigned answers = 0;
    rig->hold_commits = true;
    wire_say(juliet, ASSURED R);
    for (unsigned i = 0; i < 20; i++) {
        wire_say(juliet, ASSURED R); /* the next is under way before the last is on disk */
        store_step_commit(rig->store);
        shard_turn(rig_shard(rig, 0));
        shard_turn(rig_shard(rig, 1));
        wire_feed(juliet, XY_STR(ASSURED R));
        for (unsigned j = 0; j < 4; j++)
            shard_turn(rig_shard(rig, j % 2));
        answers += text_count(wire_heard(juliet), "<a ");
    }
    assert_true(answers >= 15);
    assert_true(xy_sm_h(&wire_session(juliet)->sm->counters) < wire_session(juliet)->sm->counters.in_tail);
    rig_free(&rig);
}

/* Hostile input 58. */
static void test_flood_of_requests(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    struct xy_buf flood = { 0 };
    for (unsigned i = 0; i < 1000; i++)
        xy_buf_lit(&flood, R);
    wire_feed(juliet, xy_buf_view(&flood));
    rig_run(rig);
    assert_int_equal(text_count(wire_heard(juliet), "<a "), 1);
    xy_buf_free(&flood);
    rig_free(&rig);
}

/* --- the brake ------------------------------------------------------------------------------------------------------ */

static void feed_many(struct wire *wire, unsigned count, const char *xml)
{
    struct xy_buf text = { 0 };
    for (unsigned i = 0; i < count; i++)
        xy_buf_str(&text, xy_str(xml));
    wire_feed(wire, xy_buf_view(&text));
    xy_buf_free(&text);
}

static void test_too_many_under_way(void **state)
{
    (void)state;
    for (unsigned managed = 0; managed < 2; managed++) {
        char id[80];
        struct rig *rig = verona(2, "");
        struct wire *juliet = managed ? rig_managed(rig, 0, JULIET, "a", id) : rig_bound(rig, 0, JULIET, "a");
        rig->hold_commits = true;
        feed_many(juliet, 1500, ASSURED);
        rig_run(rig);
        const struct session *session = wire_session(juliet);
        assert_in_range(session->inflight, 1, SESSION_INFLIGHT_MAX);
        assert_true(session->held && juliet->paused);
        rig->hold_commits = false;
        rig_run(rig);
        assert_int_equal(session->inflight, 0);
        assert_int_equal(session->inflight_bytes, 0);
        assert_false(session->held || juliet->paused);
        if (managed) {
            wire_say(juliet, R);
            assert_heard(juliet, "h='1500'");
        }
        rig_free(&rig);
    }
}

static void test_too_many_bytes_under_way(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80];
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    struct xy_buf text = { 0 };
    xy_buf_lit(&text, "<message to='" ROMEO "' type='chat'><body>");
    for (unsigned i = 0; i < 100000; i++)
        xy_buf_char(&text, 'x');
    xy_buf_lit(&text, "</body></message>");
    rig->hold_commits = true;
    unsigned sent = 0;
    for (; sent < 40 && !juliet->paused; sent++) {
        wire_feed(juliet, xy_buf_view(&text));
        rig_run(rig);
    }
    assert_in_range(sent, 10, 12);
    assert_true(wire_session(juliet)->inflight_bytes >= SESSION_INFLIGHT_BYTES_MAX);
    rig->hold_commits = false;
    rig_run(rig);
    assert_false(juliet->paused);
    assert_int_equal(wire_session(juliet)->inflight_bytes, 0);
    xy_buf_free(&text);
    rig_free(&rig);
}

/* A sender whose answers nobody reads is not read either; others are. */
static void test_unread_answers_hold_the_sender(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "limits { outbox = 64kb; }");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, 0, ROMEO, "b");
    juliet->refuse = true;
    for (unsigned i = 0; i < 2000 && !juliet->paused; i++)
        wire_say(juliet, "<iq type='get' id='d' to='example.org'><query xmlns='" NS_DISCO_INFO "'/></iq>");
    assert_true(juliet->paused);
    assert_true(wire_session(juliet)->queue.bytes_unsent < 3 * (64 << 10));
    wire_say(romeo, PING);
    assert_heard(romeo, "type='result'");
    wire_accept(juliet);
    assert_false(juliet->paused);
    rig_free(&rig);
}

/* --- shutdown ------------------------------------------------------------------------------------------------------- */

/* Nothing new is taken, what was taken is finished, and the last <a/> says exactly that. */
static void test_shutdown(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(2, "");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    struct wire *romeo = rig_online(rig, 1, ROMEO, "b");
    rig->hold_commits = true;
    wire_say(juliet, ASSURED ASSURED PING);
    for (unsigned i = 0; i < 2; i++)
        sessions_quiesce(rig_shard(rig, i));
    assert_true(juliet->paused && romeo->paused);
    wire_say(juliet, ASSURED); /* was in the socket's buffer */
    assert_false(sessions_quiet(rig_shard(rig, 0)));
    rig->hold_commits = false;
    rig_run(rig);
    assert_true(sessions_quiet(rig_shard(rig, 0)) && sessions_quiet(rig_shard(rig, 1)));
    for (unsigned i = 0; i < 2; i++)
        sessions_shutdown(rig_shard(rig, i));
    rig_run(rig);
    const char *heard = wire_heard(juliet);
    const char *ack = strstr(heard, "<a xmlns='urn:xmpp:sm:3' h='3'/>"),
               *error = strstr(heard, "<system-shutdown");
    assert_true(ack && error && ack < error);
    assert_contains(error, "</stream:stream>");
    assert_true(juliet->closed && romeo->closed);
    assert_int_equal(text_count(wire_heard(romeo), "<body>x</body>"), 2);
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_from_is_stamped),
        cmocka_unit_test(test_invalid_from),
        cmocka_unit_test(test_server_owned_elements),
        cmocka_unit_test(test_malformed_stanzas),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_acknowledged_when_handled),
        cmocka_unit_test(test_acknowledged_after_a_second),
        cmocka_unit_test(test_acknowledged_while_more_comes),
        cmocka_unit_test(test_flood_of_requests),
        cmocka_unit_test(test_too_many_under_way),
        cmocka_unit_test(test_too_many_bytes_under_way),
        cmocka_unit_test(test_unread_answers_hold_the_sender),
        cmocka_unit_test(test_shutdown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
