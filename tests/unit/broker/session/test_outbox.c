/* The outbox: what is written and in how many pieces, what is asked of the peer when, when an entry counts as received,
 * and what happens when the peer reads nothing or acknowledges nothing. */
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

/* One event, at most once, to one session; not run yet. */
static void publish(struct rig *rig, struct wire *to, const char *body, bool headline, uint64_t delay_us)
{
    struct session_ref ref = wire_session(to)->ref;
    struct event *event = event_new(XY_STR("pubsub.example.org"), xy_str(body), 5, 0xabc);
    struct routes *routes = routes_new(1);
    event->headline = headline;
    event->delay_us = delay_us;
    routes->route[0] = (struct route){ ref.index, ref.generation, DELIVERY_NO_CLAIM, 0, 0 };
    delivery_publish(rig_shard(rig, 0), ref.shard, event, routes);
}

static char *long_body(size_t len)
{
    char *body = malloc(len + 1);
    memset(body, 'x', len);
    body[len] = '\0';
    return body;
}

static void say_message(struct wire *from, const char *to, const char *body)
{
    struct xy_buf text = { 0 };
    xy_buf_printf(&text, "<message to='%s' type='chat'><body>%s</body></message>", to, body);
    wire_feed(from, xy_buf_view(&text));
    xy_buf_free(&text);
    rig_run(from->rig);
}

/* --- rendering ------------------------------------------------------------------------------------------------------ */

static void test_event(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    struct wire *juliet = rig_online(rig, 1, JULIET, "it's");
    publish(rig, juliet, "<event/>", true, 0);
    rig_run(rig);
    assert_string_equal(wire_heard(juliet),
                        "<message from='pubsub.example.org' to='" JULIET "/it&apos;s' type='headline'>"
                        "<event/></message>");
    publish(rig, juliet, "<event/>", false, UINT64_C(1767225600000000));
    rig_run(rig);
    assert_string_equal(wire_heard(juliet),
                        "<message from='pubsub.example.org' to='" JULIET "/it&apos;s'><event/>"
                        "<delay xmlns='urn:xmpp:delay' from='pubsub.example.org' "
                        "stamp='2026-01-01T00:00:00.000000Z'/></message>");
    rig_free(&rig);
}

static void test_one_write_per_turn(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a");
    unsigned before = juliet->writes;
    for (unsigned i = 0; i < 50; i++)
        publish(rig, juliet, "<event/>", true, 0);
    rig_run(rig);
    assert_int_equal(juliet->writes, before + 1);
    assert_int_equal(text_count(wire_heard(juliet), "<event/>"), 50);
    rig_free(&rig);
}

/* Much is written in bounded pieces, over several turns, so that others get theirs. */
static void test_flush_sizes(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "limits { outbox = 64mb; }");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a");
    char *body = long_body(10000);
    for (unsigned i = 0; i < 500; i++)
        publish(rig, juliet, body, true, 0);
    unsigned turns = 0;
    size_t before = 0;
    do {
        unsigned writes = juliet->writes;
        before = juliet->out.len;
        shard_turn(rig_shard(rig, 0));
        size_t written = juliet->out.len - before;
        writes = juliet->writes - writes;
        assert_true(written <= SESSION_FLUSH_TURN_BYTES + SESSION_FLUSH_BYTES + 10200);
        assert_true(written <= writes * (SESSION_FLUSH_BYTES + 10200));
        turns++;
    } while (wire_session(juliet)->queue.bytes_unsent > 0 && turns < 100);
    assert_in_range(turns, 4, 8);
    rig_run(rig);
    assert_int_equal(text_count(wire_heard(juliet), "<message"), 500);
    free(body);
    rig_free(&rig);
}

/* --- asking for acknowledgements ------------------------------------------------------------------------------------ */

static void test_asks_after_32_or_when_idle(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    for (unsigned i = 0; i < 31; i++)
        publish(rig, juliet, "<event/>", true, 0);
    rig_run(rig);
    assert_lacks(wire_heard(juliet), "<r ");
    publish(rig, juliet, "<event/>", true, 0);
    rig_run(rig);
    assert_int_equal(text_count(wire_heard(juliet), "<r "), 1);
    wire_ack(juliet, 32);
    rig_sleep(rig, 10 * 1000000);
    assert_heard_nothing(juliet); /* nothing is open, nothing is asked */
    publish(rig, juliet, "<event/>", true, 0);
    rig_run(rig);
    assert_lacks(wire_heard(juliet), "<r ");
    rig_sleep(rig, SESSION_PACE_US - 1);
    assert_heard_nothing(juliet);
    rig_sleep(rig, 1);
    assert_heard(juliet, "<r ");
    rig_sleep(rig, 10 * 1000000);
    assert_heard_nothing(juliet); /* asked once */
    rig_free(&rig);
}

/* An answer that comes late covers less than was sent since: it is asked for again. */
static void test_asks_again_after_a_late_answer(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    for (unsigned i = 0; i < 40; i++)
        publish(rig, juliet, "<event/>", true, 0);
    rig_run(rig);
    assert_heard(juliet, "<r ");
    rig_sleep(rig, 3 * SESSION_PACE_US);
    wire_heard(juliet);
    wire_ack(juliet, 32);
    rig_sleep(rig, SESSION_PACE_US);
    assert_heard(juliet, "<r ");
    wire_ack(juliet, 40);
    rig_sleep(rig, SESSION_PACE_US);
    assert_heard_nothing(juliet);
    rig_free(&rig);
}

/* Hostile input 54, 55. */
static void test_odd_acknowledgements(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    for (unsigned i = 0; i < 3; i++)
        publish(rig, juliet, "<event/>", true, 0);
    rig_run(rig);
    wire_ack(juliet, 2);
    wire_ack(juliet, 1); /* older than before */
    assert_int_equal(xy_sm_unacked(&wire_session(juliet)->sm->counters), 1);
    wire_ack(juliet, 4);
    assert_heard(juliet, "handled-count-too-high");
    assert_true(juliet->closed);
    rig_free(&rig);
}

/* --- without XEP-0198 ----------------------------------------------------------------------------------------------- */

/* Written, but the kernel has not taken it when the connection fails: it was not received. */
static void test_not_taken_by_the_kernel(void **state)
{
    (void)state;
    for (unsigned taken = 0; taken < 2; taken++) {
        struct rig *rig = verona(2, "");
        struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, 1, ROMEO, "b");
        juliet->refuse = true;
        say_message(romeo, JULIET, "one");
        say_message(romeo, JULIET, "two"); /* not even written */
        xy_buf_char(&juliet->kept, '\0');
        juliet->kept.len--;
        assert_int_equal(text_count(juliet->kept.data, "<message"), 1);
        if (taken) {
            wire_accept(juliet);
            assert_heard(juliet, "two");
        }
        wire_vanish(juliet);
        juliet = rig_bound(rig, 1, JULIET, "c");
        wire_say(juliet, "<presence/>");
        const char *heard = wire_heard(juliet);
        if (taken) {
            assert_lacks(heard, "<message");
        } else {
            assert_contains(heard, "one");
            assert_contains(heard, "two");
            assert_contains(heard, "<delay");
            assert_true(strstr(heard, "one") < strstr(heard, "two"));
        }
        rig_free(&rig);
    }
}

/* The same for what waited in the mailbox. */
static void test_mailbox_entries_settle(void **state)
{
    (void)state;
    for (unsigned taken = 0; taken < 2; taken++) {
        struct rig *rig = verona(2, "");
        struct wire *romeo = rig_online(rig, 1, ROMEO, "b");
        say_message(romeo, JULIET, "while you were away");
        struct wire *juliet = rig_bound(rig, 0, JULIET, "a");
        juliet->refuse = !taken;
        wire_say(juliet, "<presence/>");
        wire_vanish(juliet);
        juliet = rig_bound(rig, 0, JULIET, "a");
        wire_say(juliet, "<presence/>");
        assert_int_equal(text_count(wire_heard(juliet), "while you were away"), !taken);
        rig_free(&rig);
    }
}

/* --- a peer that does not read ------------------------------------------------------------------------------------- */

static void test_events_are_dropped_when_full(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "limits { outbox = 64kb; }");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, 0, ROMEO, "b");
    char *body = long_body(1000);
    juliet->refuse = true;
    for (unsigned i = 0; i < 1000; i++) {
        publish(rig, juliet, body, true, 0);
        publish(rig, romeo, "<event/>", true, 0);
        rig_run(rig);
    }
    const struct session *session = wire_session(juliet);
    assert_in_range(session->queue.bytes_unsent, 64 << 10, (64 << 10) + 1200);
    assert_true(juliet->kept.len < 2000);
    assert_int_equal(rig_stat(rig, events_dropped) + rig_stat(rig, events_delivered), 2000);
    assert_true(rig_stat(rig, events_dropped) > 900);
    assert_int_equal(text_count(wire_heard(romeo), "<event/>"), 1000); /* others do not notice */
    wire_accept(juliet);
    assert_int_equal(session->queue.bytes_unsent, 0);
    free(body);
    rig_free(&rig);
}

/* Messages wait in the mailbox and arrive all, in order, once there is room; an IQ that waited in vain is told to try again. */
static void test_messages_wait_when_full(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "limits { outbox = 64kb; }");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *romeo = rig_online(rig, 1, ROMEO, "b");
    char *body = long_body(1000);
    juliet->refuse = true;
    for (unsigned i = 0; i < 300; i++) {
        (void)snprintf(body, 12, "n%04u", i);
        body[5] = ' ';
        say_message(romeo, JULIET, body);
    }
    assert_true(rig_stat(rig, outbox_full) > 0);
    wire_say(romeo, "<iq type='get' id='v' to='" JULIET "/a'><query xmlns='jabber:iq:version'/></iq>");
    assert_lacks(wire_heard(romeo), "<iq");
    rig_sleep(rig, SESSION_PATIENCE_US);
    assert_heard(romeo, "resource-constraint");
    wire_accept(juliet);
    for (unsigned i = 0; i < 10; i++)
        rig_sleep(rig, 1000000);
    const char *heard = wire_heard(juliet);
    char number[8];
    for (unsigned i = 0; i < 300; i++) {
        (void)snprintf(number, sizeof(number), "n%04u", i);
        const char *at = strstr(heard, number);
        if (!at)
            fail_msg("%s is missing or out of order", number);
        heard = at;
    }
    free(body);
    rig_free(&rig);
}

static void test_stalled_sessions_go(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "limits { stalled_timeout = 20s; }");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a"), *managed = rig_managed(rig, 0, ROMEO, "b", id);
    juliet->refuse = managed->refuse = true;
    publish(rig, juliet, "<event/>", true, 0);
    publish(rig, managed, "<event/>", true, 0);
    rig_run(rig);
    rig_sleep(rig, 20 * 1000000 - 1);
    assert_false(juliet->closed || managed->closed);
    rig_sleep(rig, 1);
    assert_true(juliet->closed && managed->closed);
    assert_int_equal(rig_stat(rig, sessions), 1);
    assert_int_equal(rig_stat(rig, sessions_detached), 1); /* it may come back */
    rig_free(&rig);
}

/* Slow, but it reads: not stalled. */
static void test_progress_is_not_stalled(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "limits { stalled_timeout = 20s; }");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a");
    for (unsigned i = 0; i < 5; i++) {
        juliet->refuse = true;
        publish(rig, juliet, "<event/>", true, 0);
        rig_run(rig);
        rig_sleep(rig, 15 * 1000000);
        wire_accept(juliet);
    }
    rig_sleep(rig, 60 * 1000000);
    assert_false(juliet->closed);
    rig_free(&rig);
}

/* Hostile input 57: who reads and never acknowledges gets no more than the limit, and cannot ask for more. */
static void test_never_acknowledges(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "limits { outbox = 64kb; }");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    char *body = long_body(1000);
    for (unsigned i = 0; i < 200; i++) {
        publish(rig, juliet, body, true, 0);
        rig_run(rig);
    }
    const struct session *session = wire_session(juliet);
    assert_true(session->queue.bytes_kept < (64 << 10) + 1200);
    assert_true(rig_stat(rig, events_dropped) > 100);
    for (unsigned i = 0; i < 2000 && !juliet->closed; i++)
        wire_say(juliet, "<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_true(juliet->closed);
    assert_heard(juliet, "policy-violation");
    free(body);
    rig_free(&rig);
}

/* Who reads loses no answer, however many it asked for in one breath. */
static void test_many_answers_at_once(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "limits { outbox = 64kb; }");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a");
    struct xy_buf asks = { 0 };
    for (unsigned i = 0; i < 1000; i++)
        xy_buf_printf(&asks,
                      "<iq type='get' id='n%u' to='example.org'><query xmlns='" NS_DISCO_INFO "'/></iq>", i);
    wire_feed(juliet, xy_buf_view(&asks));
    rig_run(rig);
    assert_int_equal(text_count(wire_heard(juliet), "type='result'"), 1000);
    xy_buf_free(&asks);
    rig_free(&rig);
}

/* --- answers and h -------------------------------------------------------------------------------------------------- */

#define R "<r xmlns='urn:xmpp:sm:3'/>"

static struct wire *managed(struct rig *rig)
{
    struct wire *wire = rig_bound(rig, 0, JULIET, "a");
    wire_say(wire, "<enable xmlns='urn:xmpp:sm:3'/>"); /* not resumable: nothing of it is on disk */
    wire_heard(wire);
    wire->refuse = true;
    return wire;
}

/* Who reads an h has read before it what became of the stanzas it covers. */
static void test_h_does_not_overtake_answers(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "");
    struct wire *juliet = managed(rig);
    char *body = long_body(1000);
    for (unsigned i = 0; i < 200; i++)
        publish(rig, juliet, body, true, 0);
    wire_say(juliet, "<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>" R);
    wire_accept(juliet);
    const char *heard = wire_heard(juliet);
    const char *before = strstr(heard, "h='0'/>"), *answer = strstr(heard, "id='p'"),
               *after = strstr(heard, "h='1'/>");
    assert_true(before && answer && after && before < answer && answer < after);
    free(body);
    rig_free(&rig);
}

/* What cannot be answered is not covered: the session ends before. */
static void test_an_answer_that_finds_no_room(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "limits { outbox = 64kb; }");
    struct wire *juliet = managed(rig);
    char *body = long_body(1000), *id = long_body(200);
    struct xy_buf pings = { 0 };
    for (unsigned i = 0; i < 60; i++) {
        publish(rig, juliet, body, true, 0);
        rig_run(rig);
    }
    assert_true(wire_session(juliet)->queue.bytes_unsent > 60 << 10);
    for (unsigned i = 0; i < 500; i++)
        xy_buf_printf(&pings, "<iq type='get' id='%s' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>" R,
                      id);
    wire_feed(juliet, xy_buf_view(&pings));
    rig_run(rig);
    assert_true(juliet->closed);
    xy_buf_char(&juliet->kept, '\0');
    assert_lacks(juliet->kept.data, " h='");
    xy_buf_free(&pings);
    free(body);
    free(id);
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event),
        cmocka_unit_test(test_one_write_per_turn),
        cmocka_unit_test(test_flush_sizes),
        cmocka_unit_test(test_asks_after_32_or_when_idle),
        cmocka_unit_test(test_asks_again_after_a_late_answer),
        cmocka_unit_test(test_odd_acknowledgements),
        cmocka_unit_test(test_not_taken_by_the_kernel),
        cmocka_unit_test(test_mailbox_entries_settle),
        cmocka_unit_test(test_h_does_not_overtake_answers),
        cmocka_unit_test(test_an_answer_that_finds_no_room),
        cmocka_unit_test(test_events_are_dropped_when_full),
        cmocka_unit_test(test_messages_wait_when_full),
        cmocka_unit_test(test_stalled_sessions_go),
        cmocka_unit_test(test_progress_is_not_stalled),
        cmocka_unit_test(test_never_acknowledges),
        cmocka_unit_test(test_many_answers_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
