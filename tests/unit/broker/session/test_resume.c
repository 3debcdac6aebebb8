/* XEP-0198: enabling, detaching, resuming on the same and on another shard, and every way in which it must not work. */
#include "tests/unit/broker/session/rig.h"

#include "broker/router/kept.h"

#define JULIET "juliet@example.org"
#define ROMEO  "romeo@example.org"

static struct rig *verona(unsigned shards, const char *config)
{
    struct rig *rig = rig_new(shards, config);
    rig_account(rig, JULIET);
    rig_account(rig, ROMEO);
    return rig;
}

static void test_enable(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "sm { max = 100s; }");
    char id[80];
    struct wire *wire = rig_managed(rig, 0, JULIET, "a", id);
    wire_say(wire, "<enable xmlns='urn:xmpp:sm:3'/>"); /* twice (hostile input 53) */
    assert_heard(wire, "<unexpected-request");
    wire = rig_bound(rig, 0, JULIET, "b");
    wire_say(wire, "<enable xmlns='urn:xmpp:sm:3' resume='true' max='500'/>");
    assert_heard(wire, "max='100'");
    wire = rig_bound(rig, 0, JULIET, "c");
    wire_say(wire, "<enable xmlns='urn:xmpp:sm:3' resume='true' max='20'/>");
    assert_heard(wire, "max='20'");
    wire = rig_bound(rig, 0, JULIET, "d");
    wire_say(wire, "<enable xmlns='urn:xmpp:sm:3'/>");
    assert_lacks(wire_heard(wire), "id=");
    wire_vanish(wire);
    assert_int_equal(rig_stat(rig, sessions), 3); /* not resumable: over */
    rig_free(&rig);
}

static void test_no_time_no_resumption(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "sm { max = 0s; }");
    struct wire *wire = rig_bound(rig, 0, JULIET, "a");
    wire_say(wire, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    const char *heard = wire_heard(wire);
    assert_contains(heard, "<enabled");
    assert_lacks(heard, "resume=");
    rig_free(&rig);
}

/* What was sent while the connection was away, and what was sent before and not acknowledged, comes again in order; what
 * was acknowledged with <resume/> does not. */
static void resume_between(unsigned from, unsigned to)
{
    struct rig *rig = verona(3, "");
    char id[80];
    struct wire *old = rig_managed(rig, from, JULIET, "balcony", id);
    struct wire *romeo = rig_online(rig, 0, ROMEO, "orchard");
    wire_say(old, "<presence/>");
    wire_heard(old);
    for (unsigned i = 1; i <= 3; i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), "<message to='" JULIET "' type='chat'><body>n%u</body></message>",
                       i);
        wire_say(romeo, text);
    }
    const char *heard = wire_heard(old);
    assert_contains(heard, "n1");
    assert_contains(heard, "n3");
    wire_vanish(old);
    assert_int_equal(rig_stat(rig, sessions_detached), 1);
    wire_say(romeo, "<message to='" JULIET "' type='chat'><body>n4</body></message>");
    struct wire *fresh = rig_authenticated(rig, to, JULIET);
    wire_resume(fresh, id, 2); /* her own presence and n1 */
    heard = wire_heard(fresh);
    const char *resumed = strstr(heard, "<resumed");
    assert_non_null(resumed);
    assert_contains(resumed, "h='1'"); /* the presence she sent */
    assert_lacks(heard, "n1");
    const char *second = strstr(resumed, "n2"), *third = strstr(resumed, "n3"),
               *fourth = strstr(resumed, "n4");
    assert_true(second && third && fourth && second < third && third < fourth);
    assert_int_equal(text_count(heard, "<message"), 3);
    assert_int_equal(rig_stat(rig, sessions_detached), 0);
    assert_int_equal(rig_stat(rig, sessions_resumed), 1);
    assert_int_equal(wire_session(fresh)->shard->index, from); /* the session stays, the connection moves */
    wire_ack(fresh, 5);
    assert_int_equal(wire_session(fresh)->queue.bytes_kept, 0);
    wire_say(fresh, "<message to='" ROMEO "/orchard' type='chat'><body>still here</body></message>");
    assert_heard(romeo, "still here");
    rig_free(&rig);
}

static void test_resume(void **state)
{
    (void)state;
    resume_between(0, 0);
    resume_between(2, 2);
    resume_between(0, 2);
    resume_between(2, 1);
}

/* Hostile input 59. */
static void test_displaces_a_half_open_connection(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    struct wire *fresh = rig_authenticated(rig, 1, JULIET);
    wire_heard(old);
    wire_resume(fresh, id, 0);
    assert_heard(fresh, "<resumed");
    assert_heard(old, "<conflict");
    assert_true(old->closed);
    assert_int_equal(rig_stat(rig, sessions), 1);
    assert_int_equal(rig_stat(rig, sessions_detached), 0);
    struct wire *third = rig_authenticated(rig, 1, JULIET); /* and again */
    wire_resume(third, id, 0);
    assert_heard(third, "<resumed");
    assert_true(fresh->closed);
    rig_free(&rig);
}

/* Two ask at once: one of them has the session, and nothing breaks. */
static void test_twice_at_once(void **state)
{
    (void)state;
    for (unsigned second = 0; second < 2; second++) {
        struct rig *rig = verona(2, "");
        char id[80], resume[160];
        struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
        wire_vanish(old);
        struct wire *a = rig_authenticated(rig, 1, JULIET), *b = rig_authenticated(rig, second, JULIET);
        (void)snprintf(resume, sizeof(resume), "<resume xmlns='urn:xmpp:sm:3' previd='%s' h='0'/>", id);
        wire_feed(a, xy_str(resume));
        wire_feed(b, xy_str(resume));
        rig_run(rig);
        assert_int_equal(a->closed + b->closed, 1);
        assert_heard(a->closed ? b : a, "<resumed");
        assert_int_equal(rig_stat(rig, sessions), 1);
        rig_free(&rig);
    }
}

/* Hostile input 56; afterwards a resource can be bound on the same stream. */
static void test_refused(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80], wrong[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_vanish(old);
    struct wire *thief = rig_authenticated(rig, 1, ROMEO);
    wire_resume(thief, id, 0);
    assert_heard(thief, "<item-not-found");
    static const struct {
        int kept; /* digits of the right one */
        const char *end;
    } others[] = { { 0, "" }, { 0, "x" }, { 31, "" }, { 32, "0" }, { 31, "g" }, { 0, "0-0-" } };
    for (size_t i = 0; i <= sizeof(others) / sizeof(others[0]); i++) {
        struct wire *guess = rig_authenticated(rig, 0, JULIET);
        if (i < sizeof(others) / sizeof(others[0]))
            (void)snprintf(wrong, sizeof(wrong), "%.*s%s", others[i].kept, id, others[i].end);
        else /* the right length, one bit off */
            (void)snprintf(wrong, sizeof(wrong), "%.31s%c", id, id[31] == '0' ? '1' : '0');
        wire_resume(guess, wrong, 0);
        assert_heard(guess, i == 0 ? "<bad-request" : "<item-not-found");
    }
    assert_int_equal(rig_stat(rig, sessions_detached), 1);
    wire_say(thief, "<iq type='set' id='b'><bind xmlns='" NS_BIND "'/></iq>");
    assert_heard(thief, "type='result'");
    rig_free(&rig);
}

static void test_expiry(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "sm { max = 30s; }");
    char id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_vanish(old);
    rig_sleep(rig, 30 * 1000000 - 1);
    assert_int_equal(rig_stat(rig, sessions_detached), 1);
    rig_sleep(rig, 1);
    assert_int_equal(rig_stat(rig, sessions_detached), 0);
    assert_int_equal(rig_stat(rig, sessions), 0);
    struct wire *late = rig_authenticated(rig, 0, JULIET);
    wire_resume(late, id, 0);
    assert_heard(late, "<item-not-found");
    rig_free(&rig);
}

/* --- how far one got whose time is over ----------------------------------------------------------------------------- */

#define PING(id) "<iq type='get' id='" id "' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>"
#define TELL     "<message to='" ROMEO "' type='chat'><body>hear me</body></message>"

/* What was answered is covered only for a client that has the answer. */
static void test_expired_is_told_how_far_it_got(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "sm { max = 30s; }");
    char id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_say(old, TELL PING("one") TELL PING("two") TELL);
    wire_vanish(old);
    rig_sleep(rig, 30 * 1000000);
    assert_int_equal(rig_stat(rig, sessions_expired), 1);
    for (unsigned shard = 0; shard < 2; shard++) {
        assert_string_equal(rig_too_late(rig, shard, JULIET, id, 0), "1");
        assert_string_equal(rig_too_late(rig, shard, JULIET, id, 1), "3");
        assert_string_equal(rig_too_late(rig, shard, JULIET, id, 2), "5");
        assert_string_equal(rig_too_late(rig, shard, ROMEO, id, 2), ""); /* it is nobody else's */
    }
    rig_free(&rig);
}

/* What was refused and not stored must not be taken for stored, whatever the state of the disk. */
static void test_expired_does_not_cover_refusals(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "sm { max = 30s; }");
    char id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_say(old, TELL "<message to='nobody@example.org' type='chat'><body>lost</body></message>" TELL);
    assert_heard(old, "<service-unavailable");
    wire_vanish(old);
    rig_sleep(rig, 30 * 1000000);
    assert_string_equal(rig_too_late(rig, 0, JULIET, id, 0), "1");
    assert_string_equal(rig_too_late(rig, 1, JULIET, id, 1), "3");
    rig_free(&rig);
}

/* What <resumed/> tells goes to disk first, where a <failed/> after a crash could tell less: while answers may not have
 * arrived. Connections that fail meanwhile change nothing, and what the last one says is handled in its order. */
static void test_resumed_is_on_disk_first(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "sm { max = 30s; }");
    char id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    struct wire *romeo = rig_online(rig, 1, ROMEO, "orchard");
    wire_say(old, TELL PING("one") "<r xmlns='urn:xmpp:sm:3'/>");
    assert_heard(old, "<a xmlns='urn:xmpp:sm:3' h='2'");
    wire_vanish(old);
    wire_heard(romeo);
    struct wire *second = rig_authenticated(rig, 1, JULIET);
    rig->hold_commits = true;
    wire_resume(second, id, 0);
    assert_heard_nothing(second);
    struct wire *third = rig_authenticated(rig, 0, JULIET);
    wire_resume(third, id, 0);
    assert_true(second->closed);
    wire_vanish(third);
    assert_int_equal(rig_stat(rig, sessions_detached), 1);
    struct wire *fourth = rig_authenticated(rig, 1, JULIET);
    wire_resume(fourth, id, 0);
    wire_say(fourth, "<message to='" ROMEO "' type='chat'><body>and me</body></message>");
    assert_heard_nothing(fourth);
    rig->hold_commits = false;
    rig_run(rig);
    const char *heard = wire_heard(fourth);
    assert_contains(heard, "<resumed");
    assert_contains(heard, " h='2'");
    assert_contains(strstr(heard, "<resumed"), "id='one'");
    assert_int_equal(text_count(wire_heard(romeo), "<message"), 1);
    wire_say(fourth, "<r xmlns='urn:xmpp:sm:3'/>");
    assert_heard(fourth, "<a xmlns='urn:xmpp:sm:3' h='3'");
    rig_free(&rig);
}

/* Whom nothing is owed need not wait for the disk. */
static void test_resumed_at_once(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_say(old, TELL PING("one") "<r xmlns='urn:xmpp:sm:3'/>");
    assert_heard(old, "<a xmlns='urn:xmpp:sm:3' h='2'");
    struct wire *fresh = rig_authenticated(rig, 1, JULIET);
    rig->hold_commits = true;
    wire_resume(fresh, id, 1);
    assert_heard(fresh, "h='2'");
    rig_free(&rig);
}

/* The session's time goes on meanwhile. What was not told in the end does not cover an answer that did not arrive. */
static void test_expires_while_resumed_waits(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "sm { max = 30s; }");
    char id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_say(old, TELL PING("one") "<r xmlns='urn:xmpp:sm:3'/>");
    wire_vanish(old);
    struct wire *second = rig_authenticated(rig, 1, JULIET);
    rig->hold_commits = true;
    wire_resume(second, id, 0);
    wire_vanish(second);
    rig_sleep(rig, 30 * 1000000);
    assert_int_equal(rig_stat(rig, sessions_expired), 1);
    assert_int_equal(rig_stat(rig, sessions_detached), 0);
    rig->hold_commits = false;
    rig_run(rig);
    assert_string_equal(rig_too_late(rig, 0, JULIET, id, 0), "1");
    assert_string_equal(rig_too_late(rig, 0, JULIET, id, 1), "2");
    rig_free(&rig);
}

/* It is remembered over a restart, for a day, and the newest of a shard. */
static void test_expired_is_forgotten(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "sm { max = 30s; }");
    char first[80], id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "first", first);
    wire_say(old, TELL);
    wire_vanish(old);
    rig_sleep(rig, 30 * 1000000);
    rig_restart(rig, 3, true);
    assert_string_equal(rig_too_late(rig, 2, JULIET, first, 0), "1");
    rig_sleep(rig, KEPT_EXPIRED_US);
    assert_string_equal(rig_too_late(rig, 0, JULIET, first, 0), "1");
    rig_sleep(rig, 1);
    assert_string_equal(rig_too_late(rig, 0, JULIET, first, 0), "");
    for (unsigned n = 0; n <= KEPT_EXPIRED_MAX; n++) {
        struct wire *next = rig_managed(rig, 0, JULIET, "next", n == 0 ? first : id);
        wire_vanish(next);
        rig_sleep(rig, 30 * 1000000);
        wire_free(&next);
    }
    assert_string_equal(rig_too_late(rig, 0, JULIET, first, 0), "");
    assert_string_equal(rig_too_late(rig, 0, JULIET, id, 0), "0");
    rig_free(&rig);
}

/* What nobody acknowledged in time waits in the mailbox. */
static void test_expired_messages_go_to_the_mailbox(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "sm { max = 30s; }");
    char id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    struct wire *romeo = rig_online(rig, 1, ROMEO, "orchard");
    wire_say(old, "<presence/>");
    wire_say(romeo, "<message to='" JULIET "/balcony' type='chat'><body>sent</body></message>");
    assert_heard(old, "sent");
    wire_vanish(old);
    wire_say(romeo, "<message to='" JULIET "/balcony' type='chat'><body>waits</body></message>");
    rig_sleep(rig, 30 * 1000000);
    struct wire *again = rig_bound(rig, 1, JULIET, "elsewhere");
    wire_say(again, "<presence/>");
    const char *heard = wire_heard(again);
    const char *sent = strstr(heard, "sent"), *waits = strstr(heard, "waits");
    assert_true(sent && waits && sent < waits);
    rig_free(&rig);
}

/* The session ends between question and answer: the newcomer may bind instead. */
static void test_session_ends_while_it_is_asked_for(void **state)
{
    (void)state;
    for (unsigned turns = 0; turns < 5; turns++) {
        struct rig *rig = verona(2, "");
        char id[80], resume[160];
        struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
        struct session *session = wire_session(old);
        wire_vanish(old);
        struct wire *fresh = rig_authenticated(rig, 1, JULIET);
        (void)snprintf(resume, sizeof(resume), "<resume xmlns='urn:xmpp:sm:3' previd='%s' h='0'/>", id);
        wire_feed(fresh, xy_str(resume));
        for (unsigned i = 0; i < turns; i++)
            shard_turn(rig_shard(rig, 1 - i % 2));
        if (session_find(rig_shard(rig, 0), session->ref) == session && session->state == SESSION_DETACHED)
            session_end(session);
        rig_run(rig);
        const char *heard = wire_heard(fresh);
        if (!strstr(heard, "<resumed")) {
            assert_contains(heard, "<item-not-found");
            wire_say(fresh, "<iq type='set' id='b'><bind xmlns='" NS_BIND "'/></iq>");
            assert_heard(fresh, "type='result'");
        }
        rig_free(&rig);
    }
}

/* The newcomer leaves between question and answer: the session waits on. */
static void test_asker_leaves(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80], resume[160];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_vanish(old);
    struct wire *fresh = rig_authenticated(rig, 1, JULIET);
    (void)snprintf(resume, sizeof(resume), "<resume xmlns='urn:xmpp:sm:3' previd='%s' h='0'/>", id);
    wire_feed(fresh, xy_str(resume));
    shard_turn(rig_shard(rig, 1));
    wire_vanish(fresh);
    assert_int_equal(rig_stat(rig, sessions_detached), 1);
    struct wire *third = rig_authenticated(rig, 1, JULIET);
    wire_resume(third, id, 0);
    assert_heard(third, "<resumed");
    rig_free(&rig);
}

static void test_no_memory_to_attach(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_vanish(old);
    struct wire *fresh = rig_authenticated(rig, 1, JULIET);
    fresh->refuse_attach = true;
    wire_resume(fresh, id, 0);
    assert_int_equal(rig_stat(rig, sessions_detached), 1);
    fresh = rig_authenticated(rig, 1, JULIET);
    wire_resume(fresh, id, 0);
    assert_heard(fresh, "<resumed");
    rig_free(&rig);
}

static void test_h_too_high(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "");
    char id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_vanish(old);
    struct wire *fresh = rig_authenticated(rig, 0, JULIET);
    wire_resume(fresh, id, 7);
    assert_heard(fresh, "handled-count-too-high");
    assert_true(fresh->closed);
    assert_int_equal(rig_stat(rig, sessions), 0);
    rig_free(&rig);
}

/* The sender sends again what the h of <resumed/> does not cover; so that nothing is counted or delivered twice, what is
 * under way is finished first. */
static void test_waits_for_what_is_under_way(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    struct wire *romeo = rig_online(rig, 1, ROMEO, "orchard");
    rig->hold_commits = true;
    wire_say(old, "<message to='" ROMEO "' type='chat'><body>once</body></message>");
    wire_vanish(old);
    struct wire *fresh = rig_authenticated(rig, 1, JULIET);
    wire_resume(fresh, id, 0);
    assert_heard_nothing(fresh);
    rig->hold_commits = false;
    rig_run(rig);
    assert_heard(fresh, "h='1'");
    assert_int_equal(text_count(wire_heard(romeo), "once"), 1);
    wire_say(fresh,
             "<message to='" ROMEO "' type='chat'><body>two</body></message><r xmlns='urn:xmpp:sm:3'/>");
    assert_heard(fresh, "h='2'");
    rig_free(&rig);
}

/* The same, when the second connection fails as well, or is displaced, before the answer. */
static void test_second_connection_fails_while_it_waits(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    rig->hold_commits = true;
    wire_say(old, "<message to='" ROMEO "' type='chat'><body>once</body></message>");
    struct wire *second = rig_authenticated(rig, 1, JULIET);
    wire_resume(second, id, 0);
    struct wire *third = rig_authenticated(rig, 1, JULIET);
    wire_resume(third, id, 0);
    assert_true(second->closed);
    wire_vanish(third);
    assert_int_equal(rig_stat(rig, sessions_detached), 1);
    struct wire *fourth = rig_authenticated(rig, 1, JULIET);
    wire_resume(fourth, id, 0);
    rig->hold_commits = false;
    rig_run(rig);
    assert_heard(fourth, "h='1'");
    rig_free(&rig);
}

/* </stream:stream> ends for good (XEP-0198 4). */
static void test_close_is_not_a_failure(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "");
    char id[80];
    struct wire *wire = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_say(wire, "<presence/></stream:stream>");
    const char *heard = wire_heard(wire);
    assert_contains(heard, "</stream:stream>");
    assert_true(wire->closed);
    assert_int_equal(rig_stat(rig, sessions), 0);
    rig_free(&rig);
}

/* Binding the same resource ends a detached session too, and only then binds. */
static void test_conflict_with_a_detached_session(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80];
    struct wire *old = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_vanish(old);
    struct wire *fresh = rig_bound(rig, 1, JULIET, "balcony");
    assert_int_equal(rig_stat(rig, sessions_detached), 0);
    assert_int_equal(rig_stat(rig, sessions), 1);
    assert_int_equal(rig_stat(rig, sessions_replaced), 1);
    wire_say(fresh, "<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_heard(fresh, "id='p'");
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_enable),
        cmocka_unit_test(test_no_time_no_resumption),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_displaces_a_half_open_connection),
        cmocka_unit_test(test_twice_at_once),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_expired_is_told_how_far_it_got),
        cmocka_unit_test(test_expired_does_not_cover_refusals),
        cmocka_unit_test(test_resumed_is_on_disk_first),
        cmocka_unit_test(test_resumed_at_once),
        cmocka_unit_test(test_expires_while_resumed_waits),
        cmocka_unit_test(test_expired_is_forgotten),
        cmocka_unit_test(test_expired_messages_go_to_the_mailbox),
        cmocka_unit_test(test_session_ends_while_it_is_asked_for),
        cmocka_unit_test(test_asker_leaves),
        cmocka_unit_test(test_no_memory_to_attach),
        cmocka_unit_test(test_h_too_high),
        cmocka_unit_test(test_waits_for_what_is_under_way),
        cmocka_unit_test(test_second_connection_fails_while_it_waits),
        cmocka_unit_test(test_close_is_not_a_failure),
        cmocka_unit_test(test_conflict_with_a_detached_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
