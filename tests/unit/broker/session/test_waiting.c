/* What waits in front of a full outbox: IQs whose senders are braked, and the newest presence of each sender; and presence
 * for a client that said nobody looks (XEP-0352). */
#include "tests/unit/broker/session/rig.h"

#define JULIET "juliet@example.org"
#define ROMEO  "romeo@example.org"
#define SMALL  "limits { outbox = 64kb; }"

static unsigned shards = 1;

static struct rig *verona(const char *config)
{
    struct rig *rig = rig_new(shards, config);
    rig_account(rig, JULIET);
    rig_account(rig, ROMEO);
    return rig;
}

/* Headlines until the outbox of `to` is at its limit. */
static void flood(struct wire *from, struct wire *to, const char *jid)
{
    char body[4097], xml[4400];
    memset(body, 'x', sizeof(body) - 1);
    body[sizeof(body) - 1] = '\0';
    (void)snprintf(xml, sizeof(xml), "<message to='%s' type='headline'><body>%s</body></message>", jid, body);
    for (unsigned i = 0; i < 100 && !outbox_full(wire_session(to)); i++)
        wire_say(from, xml);
    assert_true(outbox_full(wire_session(to)));
    wire_heard(from);
}

/* Romeo's client stops reading, and his outbox fills. */
static void fill(struct wire *from, struct wire *romeo)
{
    romeo->refuse = true;
    flood(from, romeo, ROMEO "/b");
}

static void ask(struct wire *from, const char *to, const char *id)
{
    char xml[256];
    (void)snprintf(xml, sizeof(xml), "<iq type='get' id='%s' to='%s'><query xmlns='urn:example'/></iq>", id,
                   to);
    wire_say(from, xml);
}

/* --- IQs ------------------------------------------------------------------------------------------------------------- */

static void test_an_iq_waits_for_room(void **state)
{
    (void)state;
    struct rig *rig = verona(SMALL);
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, shards - 1, ROMEO, "b");
    fill(juliet, romeo);
    ask(juliet, ROMEO "/b", "one");
    ask(juliet, ROMEO "/b", "two");
    rig_sleep(rig, SESSION_PATIENCE_US - 1000);
    assert_heard_nothing(juliet);
    assert_int_equal(rig_stat(rig, offers_waited), 2);
    wire_accept(romeo);
    const char *heard = wire_heard(romeo);
    assert_contains(heard, "id='one'");
    assert_true(strstr(heard, "id='one'") < strstr(heard, "id='two'"));
    assert_null(wire_session(romeo)->waiting);
    rig_sleep(rig, 2 * SESSION_PATIENCE_US);
    assert_heard_nothing(juliet);
    rig_free(&rig);
}

static void test_patience_ends(void **state)
{
    (void)state;
    struct rig *rig = verona(SMALL);
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, shards - 1, ROMEO, "b");
    fill(juliet, romeo);
    ask(juliet, ROMEO "/b", "one");
    rig_sleep(rig, SESSION_PATIENCE_US / 2);
    ask(juliet, ROMEO "/b", "two");
    rig_sleep(rig, SESSION_PATIENCE_US / 2 + 1000);
    const char *heard = wire_heard(juliet);
    assert_contains(heard, "id='one'");
    assert_contains(heard, "resource-constraint");
    assert_contains(heard, "type='wait'");
    assert_lacks(heard, "id='two'");
    rig_sleep(rig, SESSION_PATIENCE_US / 2);
    assert_heard(juliet, "id='two'");
    wire_accept(romeo);
    assert_lacks(wire_heard(romeo), "urn:example"); /* refused is not delivered */
    rig_free(&rig);
}

static void test_the_sender_is_braked(void **state)
{
    (void)state;
    struct rig *rig = verona(SMALL);
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, shards - 1, ROMEO, "b");
    fill(juliet, romeo);
    char pad[16000], xml[16400];
    memset(pad, 'x', sizeof(pad) - 1);
    pad[sizeof(pad) - 1] = '\0';
    (void)snprintf(xml, sizeof(xml),
                   "<iq type='set' id='p' to='" ROMEO "/b'><q xmlns='urn:example'>%s</q></iq>", pad);
    for (unsigned i = 0; i < 200 && !juliet->paused; i++)
        wire_say(juliet, xml);
    assert_true(juliet->paused);
    assert_true(wire_session(romeo)->waiting != NULL);
    wire_accept(romeo);
    for (unsigned i = 0; i < 20 && juliet->paused; i++)
        rig_sleep(rig, 1000);
    assert_false(juliet->paused);
    rig_free(&rig);
}

/* Two that fill each other, for neither acknowledges: the one that others wait for is refused at once, so that it goes on
 * reading. */
static void test_never_across_a_cycle(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(SMALL);
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id),
                *romeo = rig_managed(rig, shards - 1, ROMEO, "b", id);
    wire_say(juliet, "<presence/>");
    wire_say(romeo, "<presence/>");
    flood(juliet, romeo, ROMEO "/b");
    flood(romeo, juliet, JULIET "/a");
    wire_heard(romeo);
    ask(juliet, ROMEO "/b", "waits");
    assert_lacks(wire_heard(juliet), "<iq");
    ask(romeo, JULIET "/a", "refused");
    assert_heard(romeo, "resource-constraint");
    wire_ack(romeo, 5);
    assert_heard(romeo, "id='waits'");
    rig_free(&rig);
}

static void test_too_many_wait(void **state)
{
    (void)state;
    struct rig *rig = verona(SMALL);
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, shards - 1, ROMEO, "b");
    fill(juliet, romeo);
    for (unsigned i = 0; i <= SESSION_OFFERS_MAX; i++)
        ask(juliet, ROMEO "/b", "more");
    assert_int_equal(text_count(wire_heard(juliet), "resource-constraint"), 1);
    rig_free(&rig);
}

static void test_the_session_ends_meanwhile(void **state)
{
    (void)state;
    struct rig *rig = verona(SMALL);
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, shards - 1, ROMEO, "b");
    fill(juliet, romeo);
    ask(juliet, ROMEO "/b", "one");
    wire_vanish(romeo);
    assert_heard(juliet, "service-unavailable");
    rig_free(&rig);
}

static void test_the_broker_stops_meanwhile(void **state)
{
    (void)state;
    struct rig *rig = verona(SMALL);
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, shards - 1, ROMEO, "b");
    fill(juliet, romeo);
    ask(juliet, ROMEO "/b", "one");
    for (unsigned i = 0; i < rig->count; i++)
        sessions_quiesce(rig_shard(rig, i));
    rig_run(rig);
    assert_heard(juliet, "resource-constraint");
    for (unsigned i = 0; i < rig->count; i++)
        assert_true(sessions_quiet(rig_shard(rig, i)));
    rig_free(&rig);
}

/* --- presence -------------------------------------------------------------------------------------------------------- */

static void show(struct wire *from, const char *status)
{
    char xml[128];
    (void)snprintf(xml, sizeof(xml), "<presence to='" ROMEO "/b'><status>%s</status></presence>", status);
    wire_say(from, xml);
}

static void test_a_full_outbox_keeps_the_newest_presence(void **state)
{
    (void)state;
    struct rig *rig = verona(SMALL);
    struct wire *one = rig_online(rig, 0, JULIET, "one"), *two = rig_online(rig, 0, JULIET, "two");
    struct wire *romeo = rig_online(rig, shards - 1, ROMEO, "b");
    fill(one, romeo);
    show(one, "stale");
    show(two, "only");
    show(one, "fresh");
    wire_accept(romeo);
    const char *heard = wire_heard(romeo);
    assert_lacks(heard, "stale");
    assert_int_equal(text_count(heard, "<presence"), 2);
    assert_true(strstr(heard, "only") < strstr(heard, "fresh"));
    rig_free(&rig);
}

static void test_presence_of_too_many(void **state)
{
    (void)state;
    struct rig *rig = verona("limits { outbox = 64kb; sessions_per_account = 1000; }");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, shards - 1, ROMEO, "b");
    fill(juliet, romeo);
    struct session *session = wire_session(romeo);
    for (unsigned i = 0; i < SESSION_PRESENCE_MAX + 3; i++) {
        struct xy_buf text = { 0 };
        xy_buf_printf(&text, "<presence from='" JULIET "/%u' to='" ROMEO "/b'/>", i);
        struct xy_bytes *bytes = xy_bytes_new(xy_buf_view(&text));
        session_send_presence(session->shard, session->ref, &bytes);
        xy_buf_free(&text);
    }
    rig_run(rig);
    assert_int_equal(rig_stat(rig, presence_dropped), 3);
    wire_accept(romeo);
    const char *heard = wire_heard(romeo);
    assert_int_equal(text_count(heard, "<presence"), SESSION_PRESENCE_MAX);
    assert_lacks(heard, JULIET "/2'"); /* the oldest went */
    assert_contains(heard, JULIET "/3'");
    rig_free(&rig);
}

/* --- XEP-0352 -------------------------------------------------------------------------------------------------------- */

#define INACTIVE "<inactive xmlns='urn:xmpp:csi:0'/>"
#define ACTIVE   "<active xmlns='urn:xmpp:csi:0'/>"

static void test_inactive_until_active(void **state)
{
    (void)state;
    struct rig *rig = verona("");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, shards - 1, ROMEO, "b");
    wire_say(romeo, INACTIVE);
    show(juliet, "stale");
    show(juliet, "fresh");
    assert_heard_nothing(romeo);
    wire_say(romeo, ACTIVE);
    const char *heard = wire_heard(romeo);
    assert_contains(heard, "fresh");
    assert_lacks(heard, "stale");
    show(juliet, "at once");
    assert_heard(romeo, "at once");
    rig_free(&rig);
}

static void test_presence_goes_before_a_message(void **state)
{
    (void)state;
    struct rig *rig = verona("");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, shards - 1, ROMEO, "b");
    wire_say(romeo, INACTIVE);
    show(juliet, "here");
    wire_say(juliet, "<message to='" ROMEO "/b' type='chat'><body>hello</body></message>");
    const char *heard = wire_heard(romeo);
    assert_contains(heard, "hello");
    assert_contains(heard, "here");
    assert_true(strstr(heard, "here") < strstr(heard, "hello"));
    show(juliet, "still held");
    assert_heard_nothing(romeo);
    ask(juliet, ROMEO "/b", "q");
    heard = wire_heard(romeo);
    assert_true(strstr(heard, "still held") < strstr(heard, "id='q'"));
    rig_free(&rig);
}

static void test_a_resumed_stream_is_active(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona("");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a");
    struct wire *romeo = rig_managed(rig, shards - 1, ROMEO, "b", id);
    wire_say(romeo, "<presence/>" INACTIVE);
    show(juliet, "held");
    wire_vanish(romeo);
    struct wire *again = rig_authenticated(rig, 0, ROMEO);
    wire_resume(again, id, 0);
    assert_heard(again, "held");
    show(juliet, "at once");
    assert_heard(again, "at once");
    rig_free(&rig);
}

static void test_an_inactive_session_ends(void **state)
{
    (void)state;
    struct rig *rig = verona("");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, shards - 1, ROMEO, "b");
    wire_say(romeo, INACTIVE);
    show(juliet, "held");
    wire_vanish(romeo);
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_iq_waits_for_room),
        cmocka_unit_test(test_patience_ends),
        cmocka_unit_test(test_the_sender_is_braked),
        cmocka_unit_test(test_never_across_a_cycle),
        cmocka_unit_test(test_too_many_wait),
        cmocka_unit_test(test_the_session_ends_meanwhile),
        cmocka_unit_test(test_the_broker_stops_meanwhile),
        cmocka_unit_test(test_a_full_outbox_keeps_the_newest_presence),
        cmocka_unit_test(test_presence_of_too_many),
        cmocka_unit_test(test_inactive_until_active),
        cmocka_unit_test(test_presence_goes_before_a_message),
        cmocka_unit_test(test_a_resumed_stream_is_active),
        cmocka_unit_test(test_an_inactive_session_ends),
    };
    int failed = 0;
    for (shards = 1; shards <= 2 && failed == 0; shards++)
        failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed;
}
