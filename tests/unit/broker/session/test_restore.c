/* Sessions resumed after the broker was started anew: what is restored, what is settled, what comes again, and who does not
 * get them. Every test with another number of shards afterwards, so that owners change. */
#include "tests/unit/broker/session/rig.h"

#include "broker/router/request.h"

#define JULIET "juliet@example.org"
#define ROMEO  "romeo@example.org"
#define PING   "<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>"
#define R      "<r xmlns='urn:xmpp:sm:3'/>"

static struct rig *verona(unsigned shards, const char *config)
{
    struct rig *rig = rig_new(shards, config);
    rig_account(rig, JULIET);
    rig_account(rig, ROMEO);
    return rig;
}

static void say_number(struct wire *wire, const char *to, unsigned number)
{
    char text[160];
    (void)snprintf(text, sizeof(text),
                   "<message to='%s' type='chat' id='m%u'><body>number %u.</body></message>", to, number,
                   number);
    wire_say(wire, text);
}

static unsigned heard_number(const char *heard, unsigned number)
{
    char text[32];
    (void)snprintf(text, sizeof(text), "number %u.", number);
    return text_count(heard, text);
}

/* What was sent is recorded, and that is on disk. */
static void let_record(struct rig *rig)
{
    rig_sleep(rig, SESSION_SENT_US);
    rig_sleep(rig, 100000);
}

static struct wire *resumed(struct rig *rig, unsigned shard, const char *bare, const char *id, unsigned h)
{
    struct wire *wire = rig_authenticated(rig, shard, bare);
    wire_resume(wire, id, h);
    return wire;
}

/* --- both directions ------------------------------------------------------------------------------------------------ */

static void goes_on(unsigned before, unsigned after, bool crash)
{
    struct rig *rig = verona(before, "");
    char juliet_id[80], romeo_id[80];
    struct wire *juliet = rig_managed(rig, 0, JULIET, "balcony", juliet_id);
    struct wire *romeo = rig_managed(rig, before - 1, ROMEO, "orchard", romeo_id);
    wire_say(romeo, "<presence/>");
    for (unsigned n = 1; n <= 5; n++)
        say_number(juliet, ROMEO, n);
    wire_heard(romeo);
    let_record(rig);
    rig_restart(rig, after, crash);
    juliet = resumed(rig, after - 1, JULIET, juliet_id, 0);
    assert_heard(juliet, "h='5'");
    romeo = resumed(rig, 0, ROMEO, romeo_id, 1 + 3); /* its own presence and three of the messages */
    const char *heard = wire_heard(romeo);
    assert_contains(heard, "h='1'");
    for (unsigned n = 1; n <= 5; n++)
        assert_int_equal(heard_number(heard, n), n > 3);
    assert_int_equal(text_count(heard, "<delay"), 2);
    assert_int_equal(rig_stat(rig, sessions_restored), 2);
    wire_ack(romeo, 6);
    say_number(juliet, ROMEO "/orchard", 6); /* the numbers go on, and it is available as before */
    wire_say(juliet, R);
    assert_heard(juliet, "h='6'");
    heard = wire_heard(romeo);
    assert_int_equal(heard_number(heard, 6), 1);
    assert_lacks(heard, "<delay");
    rig_free(&rig);
}

static void test_goes_on(void **state)
{
    (void)state;
    for (unsigned before = 1; before <= 3; before++)
        for (unsigned after = 1; after <= 3; after++) {
            goes_on(before, after, false);
            goes_on(before, after, true);
        }
}

/* In its second life the numbers of the first mean nothing: what was recorded then must not settle what is sent now. */
static void test_two_lives(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char juliet_id[80], romeo_id[80];
    struct wire *juliet = rig_managed(rig, 0, JULIET, "balcony", juliet_id);
    struct wire *romeo = rig_managed(rig, 1, ROMEO, "orchard", romeo_id);
    wire_say(romeo, "<presence/>");
    for (unsigned n = 1; n <= 3; n++)
        say_number(juliet, ROMEO, n);
    let_record(rig);
    rig_restart(rig, 1, true);
    romeo = resumed(rig, 0, ROMEO, romeo_id, 1); /* none of the messages arrived */
    const char *heard = wire_heard(romeo);
    for (unsigned n = 1; n <= 3; n++)
        assert_int_equal(heard_number(heard, n), 1);
    rig_restart(rig, 2, true);
    /* The second life began with number 2 again; its first stanza was message 1, which is all that it counts. */
    romeo = resumed(rig, 1, ROMEO, romeo_id, 2);
    heard = wire_heard(romeo);
    assert_int_equal(heard_number(heard, 2) + heard_number(heard, 3), 2); /* never lost */
    rig_free(&rig);
}

/* A record is small, or seldom. */
static void test_large_records_are_seldom(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80];
    struct wire *juliet = rig_managed(rig, 0, JULIET, "balcony", id);
    struct wire *romeo = rig_managed(rig, 1, ROMEO, "orchard", id);
    wire_say(romeo, "<presence/>");
    say_number(juliet, ROMEO, 1);
    const struct session_sm *sm = wire_session(romeo)->sm;
    assert_int_equal(sm->sent_due_us, rig->now_us + SESSION_SENT_US);
    for (unsigned n = 2; n <= 40; n++) {
        say_number(juliet, ROMEO, n);
        wire_say(juliet, "<message to='" ROMEO "' type='headline'><body>passing</body></message>");
    }
    rig_sleep(rig, SESSION_SENT_US);
    assert_int_equal(sm->sent_due_us, 0);
    say_number(juliet, ROMEO, 41);
    assert_in_range(sm->sent_due_us, rig->now_us + SESSION_SENT_US + 70 * SESSION_SENT_RUN_US,
                    rig->now_us + SESSION_SENT_US + 90 * SESSION_SENT_RUN_US);
    wire_ack(romeo, 80);
    rig_sleep(rig, SESSION_SENT_US + 90 * SESSION_SENT_RUN_US);
    say_number(juliet, ROMEO, 42);
    assert_in_range(sm->sent_due_us, rig->now_us + SESSION_SENT_US, rig->now_us + 2 * SESSION_SENT_US);
    rig_free(&rig);
}

/* --- h -------------------------------------------------------------------------------------------------------------- */

/* Neither by what leaves nothing on disk, nor told before it does. */
static void test_h_does_not_go_back(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80];
    struct wire *juliet = rig_managed(rig, 0, JULIET, "balcony", id);
    rig->hold_commits = true;
    wire_say(juliet, PING PING PING R);
    const char *heard = wire_heard(juliet);
    assert_int_equal(text_count(heard, "type='result'"), 3);
    assert_lacks(heard, "<a ");
    rig->hold_commits = false;
    rig_run(rig);
    assert_heard(juliet, "h='3'");
    wire_say(juliet, PING PING); /* not asked about, not told */
    rig_restart(rig, 2, true);
    assert_heard(resumed(rig, 1, JULIET, id, 5), "h='3'");
    rig_free(&rig);
}

/* A sender of messages is told by their own commits. */
static void test_messages_need_no_record_of_the_session(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80];
    struct wire *juliet = rig_managed(rig, 0, JULIET, "balcony", id);
    for (unsigned n = 1; n <= 10; n++)
        say_number(juliet, ROMEO, n);
    assert_int_equal(wire_session(juliet)->sm->proof.recorded, 0);
    wire_say(juliet, R);
    assert_heard(juliet, "h='10'");
    assert_int_equal(wire_session(juliet)->sm->proof.recorded, 0);
    rig_sleep(rig, SESSION_SLEEP_US); /* until there is nothing else to do */
    assert_int_equal(wire_session(juliet)->sm->proof.recorded, 10);
    rig_free(&rig);
}

static void put_row(struct rig *rig, const char *id, uint64_t number, uint32_t what)
{
    uint8_t bytes[SESSION_ID_BYTES];
    Xylem__Store__V1__SessionIn in = XYLEM__STORE__V1__SESSION_IN__INIT;
    assert_true(xy_hex_decode(bytes, xy_str(id)));
    in.id = (ProtobufCBinaryData){ sizeof(bytes), bytes };
    in.number = number;
    in.what = what;
    store_append(rig_shard(rig, 0)->store, RECORD_SESSION_IN, &in.base);
}

static uint32_t digest(const char *id, const char *to)
{
    struct xy_stanza stanza = { .kind = XY_MESSAGE, .type = XY_CHAT, .id = xy_str(id) };
    stanza.to = xy_jid_canonical(xy_str(to));
    return request_digest(&stanza);
}

/* Beyond a gap it is counted and not handled, if it is the stanza that it was. */
static void test_handled_before(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80];
    (void)rig_managed(rig, 0, JULIET, "balcony", id);
    put_row(rig, id, 2, digest("m2", ROMEO));
    put_row(rig, id, 4, digest("m4", ROMEO));
    put_row(rig, id, 6, digest("another", ROMEO));
    rig_restart(rig, 2, true);
    struct wire *romeo = rig_online(rig, 0, ROMEO, "orchard");
    struct wire *juliet = resumed(rig, 1, JULIET, id, 0);
    assert_heard(juliet, "h='0'");
    for (unsigned n = 1; n <= 7; n++)
        say_number(juliet, ROMEO, n);
    const char *heard = wire_heard(romeo);
    for (unsigned n = 1; n <= 7; n++)
        assert_int_equal(heard_number(heard, n), n != 2 && n != 4);
    wire_say(juliet, R);
    assert_heard(juliet, "h='7'");
    rig_free(&rig);
}

/* --- answers -------------------------------------------------------------------------------------------------------- */

static void answers(bool crash)
{
    struct rig *rig = verona(2, "");
    char id[80];
    struct wire *juliet = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_say(juliet, "<iq type='get' id='one' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>"
                     "<iq type='set' id='two' to='example.org'><q xmlns='urn:unknown'/></iq>"
                     "<iq type='get' id='three' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>" R);
    assert_heard(juliet, "h='3'");
    let_record(rig);
    rig_restart(rig, 2, crash);
    juliet = resumed(rig, 1, JULIET, id, 1);
    const char *heard = wire_heard(juliet);
    assert_contains(heard, "h='3'");
    assert_lacks(heard, "id='one'");
    assert_contains(heard, "id='two'");
    assert_contains(heard, "<service-unavailable");
    assert_contains(heard, "id='three'");
    wire_ack(juliet, 3);
    wire_say(juliet, R);
    rig_sleep(rig, SESSION_SLEEP_US);
    let_record(rig);
    rig_restart(rig, 1, crash);
    assert_lacks(wire_heard(resumed(rig, 0, JULIET, id, 3)), "<iq");
    rig_free(&rig);
}

static void test_answers_come_again_until_they_arrive(void **state)
{
    (void)state;
    answers(false);
    answers(true);
}

/* --- changes that are answered later -------------------------------------------------------------------------------- */

#define XEP_0133          "http://jabber.org/protocol/admin"
#define FIELD(var, value) "<field var='" var "'><value>" value "</value></field>"

static void say_command(struct wire *wire, const char *command, const char *fields)
{
    char text[1024];
    (void)snprintf(text, sizeof(text),
                   "<iq type='set' id='%s' to='example.org'><command xmlns='" NS_COMMANDS "' node='" XEP_0133
                   "#%s'><x xmlns='jabber:x:data' type='submit'>%s</x></command></iq>",
                   command, command, fields);
    wire_say(wire, text);
}

/* The broker crashes when the change is on disk and before it can be answered: the command is not run again, and the
 * answer comes all the same. */
static void changed_once(unsigned shards, const char *command, const char *fields)
{
    struct rig *rig = verona(shards, "");
    char id[80];
    struct wire *admin = rig_managed(rig, 0, "admin@example.org", "desk", id);
    rig->hold_commits = true;
    say_command(admin, command, fields);
    assert_lacks(wire_heard(admin), "<iq");
    (void)store_step_commit(rig->store);
    rig_restart(rig, 2, true);
    admin = resumed(rig, 1, "admin@example.org", id, 0);
    const char *heard = wire_heard(admin);
    assert_contains(heard, "h='1'");
    assert_contains(heard, "type='result'");
    assert_contains(heard, "status='completed'");
    rig_free(&rig);
}

static void test_accounts_are_changed_once(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 3; shards++) {
        changed_once(shards, "add-user",
                     FIELD("accountjid", "tybalt@example.org") FIELD("password", "mercutio"));
        changed_once(shards, "change-user-password",
                     FIELD("accountjid", JULIET) FIELD("password", "mercutio"));
        changed_once(shards, "delete-user", FIELD("accountjids", JULIET));
    }
}

/* Of several accounts the last waits for the others. */
static void test_accounts_are_deleted_once(void **state)
{
    (void)state;
    struct rig *rig = verona(3, "");
    char id[80];
    struct wire *admin = rig_managed(rig, 0, "admin@example.org", "desk", id);
    rig->hold_commits = true;
    say_command(admin, "delete-user",
                "<field var='accountjids'><value>" JULIET
                "</value><value>nobody@example.org</value><value>" ROMEO "</value></field>");
    (void)store_step_commit(rig->store);
    rig_run(rig);
    (void)store_step_commit(rig->store);
    rig_restart(rig, 2, true);
    admin = resumed(rig, 1, "admin@example.org", id, 0);
    const char *heard = wire_heard(admin);
    assert_contains(heard, "h='1'");
    assert_contains(heard, "nobody@example.org: there is no such account");
    for (unsigned i = 0; i < 2; i++) {
        struct shard *owner = rig_shard(rig, shard_owner(rig_shard(rig, 0), xy_str(i ? JULIET : ROMEO)));
        assert_false(accounts_exists(owner, xy_str(i ? JULIET : ROMEO)));
    }
    rig_free(&rig);
}

/* --- events --------------------------------------------------------------------------------------------------------- */

/* The owner of the node, found by its name, hears how far the client got. */
static void test_events(void **state)
{
    (void)state;
    for (unsigned after = 1; after <= 3; after++) {
        struct rig *rig = verona(2, "");
        char id[80];
        struct wire *juliet = rig_managed(rig, 0, JULIET, "balcony", id);
        struct claim_key key = { .node = 77, .subscription = 5, .owner = 1, .era = 6 };
        Xylem__Store__V1__SubscriptionPut put = XYLEM__STORE__V1__SUBSCRIPTION_PUT__INIT;
        put.node = key.node;
        put.number = key.subscription;
        put.node_name = (char[]){ "news" };
        put.jid = (char[]){ JULIET };
        store_append(rig_shard(rig, 1)->store, RECORD_SUBSCRIPTION_PUT, &put.base);
        struct session_ref ref = wire_session(juliet)->ref;
        delivery_attach(rig_shard(rig, 1), ref, key, 0, XY_STR("0123456789abcdef"));
        rig_run(rig);
        uint32_t claim = (uint32_t)rig_next_told(rig, ATTACHED)->number;
        for (uint64_t seq = 1; seq <= 4; seq++) {
            struct event *event = event_new(XY_STR("pubsub.example.org"), XY_STR("<event/>"), seq, 1);
            delivery_one(rig_shard(rig, 1), ref, claim, 1, event, 1, false);
        }
        rig_run(rig);
        let_record(rig);
        rig->told_looked = rig->told_count;
        rig_restart(rig, after, true);
        rig->told_looked = rig->told_count;
        assert_heard(resumed(rig, 0, JULIET, id, 3), "<resumed");
        struct told *told = rig_next_told(rig, RECEIVED_BEFORE);
        assert_int_equal(told->number, 3);
        assert_int_equal(told->key.node, 77);
        assert_int_equal(told->key.subscription, 5);
        assert_int_equal(told->key.era, 6);
        assert_told_all(rig);
        rig_free(&rig);
    }
}

/* --- presence ------------------------------------------------------------------------------------------------------- */

static void test_presence(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80], phone_id[80];
    struct wire *juliet = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_say(juliet,
             "<presence><priority>-3</priority><status>sad</status></presence><presence to='" ROMEO "'/>");
    struct wire *phone = rig_managed(rig, 1, JULIET, "phone", phone_id);
    wire_say(phone, "<presence/>");
    rig_sleep(rig, 100000);
    rig_restart(rig, 1, true);
    struct wire *romeo = rig_online(rig, 0, ROMEO, "orchard");
    phone = resumed(rig, 0, JULIET, phone_id, 0);
    assert_lacks(wire_heard(phone), "sad"); /* not there yet */
    juliet = resumed(rig, 0, JULIET, id, 0);
    assert_lacks(wire_heard(juliet), "sad"); /* it knows itself */
    assert_heard(phone, "sad");
    say_number(romeo, JULIET, 1); /* of negative priority: it is for the phone */
    assert_int_equal(heard_number(wire_heard(juliet), 1), 0);
    assert_int_equal(heard_number(wire_heard(phone), 1), 1);
    wire_say(juliet, "</stream:stream>");
    assert_heard(romeo, "type='unavailable'");
    assert_heard(phone, "type='unavailable'");
    rig_free(&rig);
}

/* --- who does not get it -------------------------------------------------------------------------------------------- */

static void test_refused(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80], closed[80], wrong[80];
    (void)rig_managed(rig, 0, JULIET, "balcony", id);
    struct wire *wire = rig_managed(rig, 0, JULIET, "garden", closed);
    wire_say(wire, "</stream:stream>");
    rig_restart(rig, 2, true);
    assert_heard(resumed(rig, 1, ROMEO, id, 0), "<item-not-found");
    assert_heard(resumed(rig, 1, JULIET, closed, 0), "<item-not-found");
    (void)snprintf(wrong, sizeof(wrong), "%.31s%c", id, id[31] == '0' ? '1' : '0');
    assert_heard(resumed(rig, 1, JULIET, wrong, 0), "<item-not-found");
    assert_heard(resumed(rig, 1, JULIET, id, 0), "<resumed");
    rig_free(&rig);
}

static void test_expiry(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "sm { max = 30s; }");
    char early[80], id[80];
    struct wire *lost = rig_managed(rig, 1, ROMEO, "orchard", early);
    wire_vanish(lost);
    (void)rig_managed(rig, 0, JULIET, "balcony", id);
    rig_sleep(rig, 20 * 1000000);
    rig_restart(rig, 2, true);
    rig_sleep(rig, 10 * 1000000); /* the one without a connection had ten seconds left */
    assert_heard(resumed(rig, 1, ROMEO, early, 0), "<item-not-found");
    rig_sleep(rig, 20 * 1000000 - 1);
    assert_heard(resumed(rig, 1, JULIET, id, 0), "<resumed");
    rig_restart(rig, 2, true);
    rig_sleep(rig, 30 * 1000000);
    assert_heard(resumed(rig, 1, JULIET, id, 0), "<item-not-found");
    rig_restart(rig, 1, true);
    assert_heard(resumed(rig, 0, JULIET, id, 0), "<item-not-found");
    rig_free(&rig);
}

/* The time that the client asked for is what the broker told it, also after a restart. */
static void test_the_time_asked_for(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "sm { max = 30s; location = \"other.example.org\"; }");
    struct wire *wire = rig_bound(rig, 0, JULIET, "balcony");
    char id[80] = "";
    wire_say(wire, "<enable xmlns='urn:xmpp:sm:3' resume='true' max='10'/>");
    const char *heard = wire_heard(wire), *at = strstr(heard, " id='");
    assert_contains(heard, " max='10'");
    assert_contains(heard, " location='other.example.org'");
    assert_non_null(at);
    (void)snprintf(id, sizeof(id), "%.*s", (int)strcspn(at + 5, "'"), at + 5);
    rig_restart(rig, 3, true);
    rig_sleep(rig, 10 * 1000000 - 1);
    assert_heard(resumed(rig, 1, JULIET, id, 0), "<resumed");
    rig_restart(rig, 2, true);
    rig_sleep(rig, 10 * 1000000);
    assert_heard(resumed(rig, 1, JULIET, id, 0), "<item-not-found");
    rig_free(&rig);
}

/* How far one got that waited in vain is told, over another restart too; of an answer that was on its way when the broker
 * crashed nobody knows whether it arrived, and so nothing is told where that matters. */
static void late(unsigned shards, bool crash, bool recorded)
{
    struct rig *rig = verona(shards, "sm { max = 30s; }");
    char id[80];
    struct wire *juliet = rig_managed(rig, 0, JULIET, "balcony", id);
    say_number(juliet, ROMEO, 1);
    wire_say(juliet, PING);
    say_number(juliet, "nobody@example.org", 3);
    say_number(juliet, ROMEO, 4);
    wire_say(juliet, R);
    assert_heard(juliet, "<a xmlns='urn:xmpp:sm:3' h='4'");
    if (recorded)
        let_record(rig);
    rig_restart(rig, 2, crash);
    rig_sleep(rig, 30 * 1000000);
    for (unsigned again = 0; again < 2; again++) {
        bool known = !crash || recorded;
        assert_string_equal(rig_too_late(rig, 1, JULIET, id, 0), known ? "1" : "");
        assert_string_equal(rig_too_late(rig, 1, JULIET, id, 1), known ? "2" : "");
        assert_string_equal(rig_too_late(rig, 1, JULIET, id, 2), known ? "4" : "");
        rig_restart(rig, 1 + again, crash);
        if (rig->count == 1)
            rig_restart(rig, 2, crash);
    }
    rig_free(&rig);
}

static void test_late(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 3; shards++)
        for (unsigned how = 0; how < 4; how++)
            late(shards, how & 1, how & 2);
}

/* What <resumed/> covered the client does not send again: an answer that it misses makes no difference to that. */
static void test_late_is_told_no_less_than_resumed(void **state)
{
    (void)state;
    for (unsigned again = 0; again < 2; again++) {
        struct rig *rig = verona(2, "sm { max = 30s; }");
        char id[80];
        struct wire *juliet = rig_managed(rig, 0, JULIET, "balcony", id);
        say_number(juliet, ROMEO, 1);
        wire_say(juliet, PING);
        let_record(rig);
        rig_restart(rig, 2, true);
        juliet = resumed(rig, 1, JULIET, id, 0);
        assert_heard(juliet, "h='2'");
        if (again)
            rig_restart(rig, 2, true);
        else
            wire_vanish(juliet);
        rig_sleep(rig, 30 * 1000000);
        assert_string_equal(rig_too_late(rig, 1, JULIET, id, 0), "2");
        rig_free(&rig);
    }
}

/* What a <resumed/> tells is on disk before it is heard. */
static void test_late_after_a_resumption(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "sm { max = 30s; }");
    char id[80];
    struct wire *juliet = rig_managed(rig, 0, JULIET, "balcony", id);
    say_number(juliet, ROMEO, 1);
    wire_say(juliet, PING);
    let_record(rig);
    wire_vanish(juliet);
    juliet = resumed(rig, 1, JULIET, id, 0);
    assert_heard(juliet, "h='2'");
    rig_restart(rig, 2, true);
    rig_sleep(rig, 30 * 1000000);
    assert_string_equal(rig_too_late(rig, 0, JULIET, id, 0), "2");
    rig_free(&rig);
}

/* Many at once do not hold up the loop. */
static void test_many_are_late(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "sm { max = 30s; } limits { sessions_per_account = 1000; }");
    char id[80];
    for (unsigned n = 0; n < 200; n++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "r%u", n);
        struct wire *wire = rig_managed(rig, 0, JULIET, name, id);
        wire_vanish(wire);
        wire_free(&wire);
    }
    rig_restart(rig, 1, true);
    rig->now_us += 30 * 1000000;
    (void)shard_turn(rig_shard(rig, 0));
    assert_in_range(rig_stat(rig, sessions_expired), 1, 100);
    for (unsigned pages = 0; pages < 4; pages++)
        rig_sleep(rig, 1000);
    assert_int_equal(rig_stat(rig, sessions_expired), 200);
    rig_free(&rig);
}

static void test_its_resource_is_bound_anew(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    char id[80];
    (void)rig_managed(rig, 0, JULIET, "balcony", id);
    rig_restart(rig, 2, true);
    struct wire *fresh = rig_bound(rig, 1, JULIET, "balcony");
    assert_heard(resumed(rig, 0, JULIET, id, 0), "<item-not-found");
    wire_say(fresh, PING);
    assert_heard(fresh, "type='result'");
    rig_free(&rig);
}

static void test_twice_at_once(void **state)
{
    (void)state;
    for (unsigned second = 0; second < 2; second++) {
        struct rig *rig = verona(2, "");
        char id[80], resume[160];
        (void)rig_managed(rig, 0, JULIET, "balcony", id);
        rig_restart(rig, 2, true);
        struct wire *a = rig_authenticated(rig, 1, JULIET), *b = rig_authenticated(rig, second, JULIET);
        (void)snprintf(resume, sizeof(resume), "<resume xmlns='urn:xmpp:sm:3' previd='%s' h='0'/>", id);
        wire_feed(a, xy_str(resume));
        wire_feed(b, xy_str(resume));
        rig_run(rig);
        const char *heard_a = wire_heard(a), *heard_b = wire_heard(b);
        assert_int_equal(rig_stat(rig, sessions_restored), 1);
        assert_int_equal(rig_stat(rig, sessions), 1);
        assert_true(strstr(heard_a, "<resumed") || strstr(heard_b, "<resumed"));
        rig_free(&rig);
    }
}

/* The newcomer leaves before it knows: what it asked for may be had by the next. */
static void test_asker_leaves(void **state)
{
    (void)state;
    for (unsigned turns = 0; turns < 6; turns++) {
        struct rig *rig = verona(2, "");
        char id[80], resume[160];
        (void)rig_managed(rig, 0, JULIET, "balcony", id);
        rig_restart(rig, 2, true);
        struct wire *fresh = rig_authenticated(rig, 1, JULIET);
        (void)snprintf(resume, sizeof(resume), "<resume xmlns='urn:xmpp:sm:3' previd='%s' h='0'/>", id);
        wire_feed(fresh, xy_str(resume));
        for (unsigned i = 0; i < turns; i++)
            shard_turn(rig_shard(rig, 1 - i % 2));
        wire_vanish(fresh);
        assert_heard(resumed(rig, 0, JULIET, id, 0), "<resumed");
        assert_int_equal(rig_stat(rig, sessions), 1);
        rig_free(&rig);
    }
}

/* The broker stops before the answer: the session is not lost. */
static void test_stops_meanwhile(void **state)
{
    (void)state;
    for (unsigned turns = 0; turns < 6; turns++) {
        struct rig *rig = verona(2, "");
        char id[80], resume[160];
        (void)rig_managed(rig, 0, JULIET, "balcony", id);
        rig_restart(rig, 2, true);
        struct wire *fresh = rig_authenticated(rig, 1, JULIET);
        (void)snprintf(resume, sizeof(resume), "<resume xmlns='urn:xmpp:sm:3' previd='%s' h='0'/>", id);
        wire_feed(fresh, xy_str(resume));
        for (unsigned i = 0; i < turns; i++)
            shard_turn(rig_shard(rig, 1 - i % 2));
        for (unsigned i = 0; i < 2; i++)
            sessions_shutdown(rig_shard(rig, i));
        rig_restart(rig, 1, false);
        assert_heard(resumed(rig, 0, JULIET, id, 0), "<resumed");
        rig_free(&rig);
    }
}

/* --- a store without room ------------------------------------------------------------------------------------------ */

/* Nobody's answers are on disk then, not even that a message was refused. Says how many were not. */
static unsigned say_until_refused(struct wire *juliet)
{
    for (unsigned n = 1; n < 1000; n++) {
        say_number(juliet, ROMEO, n);
        if (text_count(wire_heard(juliet), "<resource-constraint") == 1)
            return n - 1;
    }
    fail_msg("the store is never full");
    return 0;
}

static struct rig *crowded(unsigned shards, char id[80], struct wire **juliet, unsigned *stored)
{
    struct rig *rig = verona(shards, "");
    rig->log_max = 16 << 10;
    rig_restart(rig, shards, false);
    *juliet = rig_managed(rig, 0, JULIET, "balcony", id);
    *stored = say_until_refused(*juliet);
    say_number(*juliet, ROMEO, *stored + 2);
    assert_heard(*juliet, "<resource-constraint");
    return rig;
}

static void assert_resumed(const char *heard, unsigned h)
{
    char text[32];
    (void)snprintf(text, sizeof(text), " h='%u'", h);
    assert_contains(heard, "<resumed ");
    assert_contains(heard, text);
}

/* The client learns with <resumed/> what is stored, and hears of the others again; whether it hears is what makes them
 * count as handled, however often the connection and the broker go down in between. */
static void test_refusals_are_not_covered_before_they_arrive(void **state)
{
    (void)state;
    char id[80];
    unsigned stored;
    struct wire *juliet;
    struct rig *rig = crowded(2, id, &juliet, &stored);
    for (unsigned again = 0; again < 3; again++) {
        wire_vanish(juliet);
        juliet = resumed(rig, again % 2, JULIET, id, 0);
        const char *heard = wire_heard(juliet);
        assert_resumed(heard, stored);
        assert_int_equal(text_count(heard, "<resource-constraint"), 2);
        if (again == 1)
            continue; /* gone before it said anything */
        say_number(juliet, ROMEO, stored + 1);
        say_number(juliet, ROMEO, stored + 2);
        wire_say(juliet, R);
        assert_lacks(wire_heard(juliet), "<message"); /* answered already */
    }
    wire_ack(juliet, 2);
    wire_say(juliet, R);
    char text[64];
    (void)snprintf(text, sizeof(text), "<a xmlns='urn:xmpp:sm:3' h='%u'/>", stored + 2);
    assert_heard(juliet, text);
    rig_free(&rig);
}

static void test_refusals_that_a_crash_forgot(void **state)
{
    (void)state;
    char id[80];
    unsigned stored;
    struct wire *juliet;
    struct rig *rig = crowded(2, id, &juliet, &stored);
    wire_say(juliet, R);
    rig->log_max = 0;
    rig_restart(rig, 1, true);
    juliet = resumed(rig, 0, JULIET, id, 0);
    assert_resumed(wire_heard(juliet), stored);
    say_number(juliet, ROMEO, stored + 1); /* there is room now */
    say_number(juliet, ROMEO, stored + 2);
    wire_say(juliet, R);
    assert_lacks(wire_heard(juliet), "<resource-constraint");
    struct wire *romeo = rig_bound(rig, 0, ROMEO, "orchard");
    wire_say(romeo, "<presence/>");
    const char *heard = wire_heard(romeo);
    for (unsigned n = 1; n <= stored + 2; n++)
        assert_int_equal(heard_number(heard, n), 1);
    rig_free(&rig);
}

/* Without room for its record a session is not kept any more, and its answers lose their place on disk. */
static void test_h_does_not_go_back_when_answers_leave_the_disk(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(2, "");
    rig->log_max = 16 << 10;
    rig_restart(rig, 2, false);
    struct wire *juliet = rig_managed(rig, 0, JULIET, "balcony", id);
    wire_say(juliet, PING R);
    assert_heard(juliet, "h='1'");
    for (unsigned n = 1; !wire_session(juliet)->sm->held.count; n++)
        say_number(juliet, ROMEO, n);
    assert_true(wire_session(juliet)->sm->kept);
    unsigned stored = (unsigned)wire_session(juliet)->sm->counters.in_h - 1;
    wire_vanish(juliet);
    juliet = resumed(rig, 1, JULIET, id, 0);
    assert_false(wire_session(juliet)->sm->kept);
    assert_resumed(wire_heard(juliet), stored);
    rig_free(&rig);
}

/* Who hears of the refusals first may drop those messages: what is sent in their place is another stanza. */
static void test_others_once_the_refusals_arrived(void **state)
{
    (void)state;
    char id[80];
    unsigned stored;
    struct wire *juliet;
    struct rig *rig = crowded(1, id, &juliet, &stored);
    wire_vanish(juliet);
    juliet = resumed(rig, 0, JULIET, id, 0);
    assert_resumed(wire_heard(juliet), stored);
    wire_ack(juliet, 2);
    wire_say(juliet, PING "<iq type='get' id='y' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>");
    const char *heard = wire_heard(juliet);
    assert_contains(heard, "id='p'");
    assert_contains(heard, "id='y'");
    rig_free(&rig);
}

/* A client may send others instead of those that it was not told about. */
static void test_others_instead_of_what_was_refused(void **state)
{
    (void)state;
    char id[80], expected[64];
    unsigned stored;
    struct wire *juliet;
    struct rig *rig = crowded(1, id, &juliet, &stored);
    struct wire *romeo = rig_online(rig, 0, ROMEO, "orchard");
    wire_vanish(juliet);
    juliet = resumed(rig, 0, JULIET, id, 2);
    (void)snprintf(expected, sizeof(expected), " h='%u'", stored + 2); /* they arrived */
    assert_heard(juliet, expected);
    wire_say(juliet, "<message to='" ROMEO "/nowhere' type='headline'><body>none</body></message>");
    wire_say(juliet, "<iq type='get' id='x' to='example.org'><q xmlns='urn:unknown'/></iq>");
    assert_heard(juliet, "<service-unavailable");
    wire_vanish(juliet);
    juliet = resumed(rig, 0, JULIET, id, 2);
    assert_heard(juliet, "<service-unavailable");
    wire_say(juliet, "<iq type='get' id='y' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_heard(juliet, "id='y'");
    wire_vanish(romeo);
    rig_free(&rig);
}

static void ping(struct wire *juliet, const char *id)
{
    char text[128];
    (void)snprintf(text, sizeof(text),
                   "<iq type='get' id='%s' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>", id);
    wire_say(juliet, text);
}

static void pings(struct wire *juliet, unsigned first, unsigned count)
{
    char id[16];
    for (unsigned n = first; n < first + count; n++) {
        (void)snprintf(id, sizeof(id), "n%u", n);
        ping(juliet, id);
    }
}

/* What came is remembered as far as it may come again, and no memory is taken for more. */
static void test_memory_for_what_may_come_again(void **state)
{
    (void)state;
    char id[80];
    unsigned stored;
    struct wire *juliet;
    struct rig *rig = crowded(1, id, &juliet, &stored);
    const struct session_held *held = &wire_session(juliet)->sm->held;
    for (unsigned n = 0; n < 100; n++) {
        wire_ack(juliet, 1 + n);
        pings(juliet, n, 1);
        assert_int_equal(held->count, 2);
        assert_int_equal(held->begun_cap, 16);
    }
    pings(juliet, 100, 100);
    assert_int_equal(held->begun_cap, 128);
    wire_ack(juliet, 2 + 190);
    pings(juliet, 200, 100);
    assert_int_equal(held->begun_cap, 128);
    wire_vanish(juliet);

    juliet = resumed(rig, 0, JULIET, id, 2 + 190);
    const char *heard = wire_heard(juliet);
    assert_resumed(heard, stored + 2 + 190);
    assert_int_equal(text_count(heard, "id='n"), 110);
    pings(juliet, 190, 50); /* they came before, and their answers did now */
    ping(juliet, "another");
    pings(juliet, 241, 59);
    heard = wire_heard(juliet);
    assert_int_equal(text_count(heard, "id='n"), 0);
    assert_int_equal(text_count(heard, "id='another'"), 1);
    pings(juliet, 300, 2000);
    assert_int_equal(wire_session(juliet)->sm->held.begun_cap, XY_SM_WINDOW);
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_two_lives),
        cmocka_unit_test(test_large_records_are_seldom),
        cmocka_unit_test(test_h_does_not_go_back),
        cmocka_unit_test(test_messages_need_no_record_of_the_session),
        cmocka_unit_test(test_handled_before),
        cmocka_unit_test(test_answers_come_again_until_they_arrive),
        cmocka_unit_test(test_accounts_are_changed_once),
        cmocka_unit_test(test_accounts_are_deleted_once),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_presence),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_the_time_asked_for),
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_late_is_told_no_less_than_resumed),
        cmocka_unit_test(test_late_after_a_resumption),
        cmocka_unit_test(test_many_are_late),
        cmocka_unit_test(test_its_resource_is_bound_anew),
        cmocka_unit_test(test_twice_at_once),
        cmocka_unit_test(test_asker_leaves),
        cmocka_unit_test(test_stops_meanwhile),
        cmocka_unit_test(test_refusals_are_not_covered_before_they_arrive),
        cmocka_unit_test(test_refusals_that_a_crash_forgot),
        cmocka_unit_test(test_h_does_not_go_back_when_answers_leave_the_disk),
        cmocka_unit_test(test_others_once_the_refusals_arrived),
        cmocka_unit_test(test_others_instead_of_what_was_refused),
        cmocka_unit_test(test_memory_for_what_may_come_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
