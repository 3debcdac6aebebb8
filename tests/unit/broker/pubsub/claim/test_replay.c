/* Replaying what was acknowledged, and what subscribers and owners are told about how a subscription stands. */
#include "tests/unit/broker/pubsub/rig.h"

#include "broker/pubsub/claim/acked.h"

#define ALICE              "alice@example.org/a"
#define BOB                "bob@example.org/b"
#define CAROL              "carol@example.org/c"
#define FIELD(name, value) "<field var='{urn:xylem:delivery:0}" name "'><value>" value "</value></field>"
#define SUBSCRIBE(jid, more)                                                                                 \
    PUBSUB("<subscribe node='n' jid='" jid "'/><options><x xmlns='jabber:x:data' type='submit'>" FIELD(      \
        "mode", "at-least-once") more "</x></options>")
#define REPLAY(more) "<replay xmlns='urn:xylem:delivery:0' node='n' " more "/>"
#define STATE(more)  "<subscription-state xmlns='urn:xylem:delivery:0' node='n' " more "/>"

static void publish_many(struct rig *rig, int from, int to)
{
    char id[32];
    for (int i = from; i < to; i++) {
        (void)snprintf(id, sizeof(id), "i%d", i);
        rig_publish(rig, "n", id);
    }
}

static void setup(struct rig *rig, const char *max_items)
{
    char payload[512];
    (void)snprintf(payload, sizeof(payload),
                   PUBSUB("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>"
                          "<field var='pubsub#max_items'><value>%s</value></field></x></configure>"),
                   max_items);
    (void)rig_ok(rig, ALICE, "set", payload);
}

static struct claim *claim(struct rig *rig)
{
    return &node_subscription(rig_node(rig, "n"), 1)->claim;
}

static struct claim_key attached(struct rig *rig, uint32_t session)
{
    const struct seen *seen;
    assert_true(rig_count(rig, "attach", &seen) > 0);
    struct claim_key key = seen->key;
    delivery_attached(rig_shard(rig, rig_session(session).shard), key, rig_session(session), 3);
    rig_run(rig);
    return key;
}

static void assert_sent(struct rig *rig, const char *expected)
{
    char text[1024] = "";
    size_t len = 0;
    for (size_t i = 0; i < rig->seen_count; i++)
        if (strcmp(rig->seen[i].what, "one") == 0)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%lu/%u", len > 0 ? " " : "",
                                    (unsigned long)rig->seen[i].seq, rig->seen[i].attempt);
    assert_string_equal(text, expected);
    rig->seen_count = 0;
}

static void replay_of_a_stream(void **state)
{
    struct rig *rig = *state;
    setup(rig, "3");
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    struct claim_key key = attached(rig, 1);
    publish_many(rig, 0, 5);
    delivery_acked(rig_shard(rig, rig_session(1).shard), key, rig_session(1), 5);
    rig_run(rig);
    rig->seen_count = 0;
    (void)rig_ok(rig, BOB, "set", REPLAY("start='seq:6'")); /* nothing to go back to */
    assert_int_equal(rig_count(rig, "detach", NULL), 0);
    (void)rig_ok(rig, BOB, "set", REPLAY("start='seq:4'"));
    assert_int_equal(rig_count(rig, "detach", NULL), 1);
    (void)attached(rig, 1);
    assert_sent(rig, "4/2 5/2");
    (void)rig_ok(rig, BOB, "set", REPLAY("start='all'"));
    rig_restart(rig, true); /* it is on disk when it was answered */
    assert_int_equal(claim(rig)->cursor, 0);
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    key = attached(rig, 1);
    assert_sent(rig, "3/2 4/2 5/2"); /* what the node still has */
    delivery_acked(rig_shard(rig, rig_session(1).shard), key, rig_session(1), 5);
    rig_run(rig);
    assert_int_equal(rig_node(rig, "n")->items.live, 3);
    for (uint64_t seq = 3; seq <= 5; seq++)
        assert_int_equal(index_find(&rig_node(rig, "n")->items, seq)->pending, 0);
}

/* A session says what it received before it heard of the replay; one that is resumed after a crash, what is on disk of it. */
static void replay_of_what_is_on_its_way(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    struct claim_key before = attached(rig, 1);
    publish_many(rig, 0, 5);
    delivery_acked(rig_shard(rig, rig_session(1).shard), before, rig_session(1), 2);
    rig_run(rig);
    rig->seen_count = 0;
    (void)rig_ok(rig, BOB, "set", REPLAY("start='seq:4'")); /* none of it is acknowledged yet */
    delivery_acked(rig_shard(rig, rig_session(1).shard), before, rig_session(1), 5);
    rig_run(rig);
    before = attached(rig, 1);
    assert_sent(rig, "3/2 4/2 5/2");
    (void)rig_ok(rig, BOB, "set", REPLAY("start='all'"));
    delivery_acked(rig_shard(rig, rig_session(1).shard), before, rig_session(1), 5);
    rig_run(rig);
    assert_int_equal(claim(rig)->cursor, 0);
    rig_restart(rig, true);
    delivery_received_before(rig_shard(rig, 0), XY_STR("n"), before, 5);
    rig_run(rig);
    assert_int_equal(rig_node(rig, "n")->items.live, 5);
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    struct claim_key now = attached(rig, 1);
    assert_sent(rig, "1/2 2/2 3/2 4/2 5/2");
    delivery_released(rig_shard(rig, rig_session(1).shard), before, rig_session(1), 5);
    rig_run(rig);
    assert_int_equal(claim(rig)->cursor, 0);
    rig_restart(rig, true);
    delivery_received_before(rig_shard(rig, 0), XY_STR("n"), now, 4); /* of what was sent again */
    rig_run(rig);
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)attached(rig, 1);
    assert_sent(rig, "5/2");
}

/* Received is not done: what waited for an explicit acknowledgement still does when XEP-0198 acknowledges from now on. The
 * same where a subscription begins anew. */
static void received_under_other_options(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", FIELD("ack", "explicit")));
    struct claim_key before = attached(rig, 1);
    publish_many(rig, 0, 3);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", FIELD("ack", "stream")));
    rig_restart(rig, true);
    delivery_received_before(rig_shard(rig, 0), XY_STR("n"), before, 3);
    rig_run(rig);
    assert_has(rig_ok(rig, BOB, "get", STATE("")), "depth='3'");
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    before = attached(rig, 1);
    (void)rig_ok(rig, BOB, "set",
                 PUBSUB("<subscribe node='n' jid='bob@example.org'/><options><x xmlns='jabber:x:data' "
                        "type='submit'>" FIELD("mode", "at-most-once") "</x></options>"));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", FIELD("start", "all")));
    rig_restart(rig, true);
    delivery_received_before(rig_shard(rig, 0), XY_STR("n"), before, 3);
    rig_run(rig);
    assert_has(rig_ok(rig, BOB, "get", STATE("")), "depth='3'");
}

static void replay_one_by_one(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)rig_ok(rig, BOB, "set",
                 SUBSCRIBE("bob@example.org", FIELD("ack", "explicit") FIELD("max_deliver", "2")));
    (void)attached(rig, 1);
    publish_many(rig, 0, 5);
    static const char *const said[] = { "ack", "term", "ack", "nack", "ack" };
    for (int i = 0; i < 5; i++) {
        char xml[256];
        (void)snprintf(xml, sizeof(xml), "<%s xmlns='urn:xylem:delivery:0' node='n' id='i%d' %s/>", said[i],
                       i, i == 3 ? "delay='3600'" : "");
        (void)rig_ok(rig, BOB, "set", xml);
    }
    const char *answer = rig_ok(rig, BOB, "get", STATE(""));
    assert_has(answer, "state='receiving' depth='2'");
    assert_has(answer, "in-flight='0' delayed='1' parked='1'");
    assert_has(answer, "acknowledged='1'");
    rig->seen_count = 0;
    (void)rig_ok(rig, BOB, "set", REPLAY("start='seq:2'"));
    assert_int_equal(claim(rig)->acked->window.total, 0);
    (void)attached(rig, 1);
    assert_sent(rig, "2/2 3/2 4/2 5/2"); /* what was parked or delayed as well */
    for (uint64_t seq = 2; seq <= 5; seq++)
        assert_int_equal(index_find(&rig_node(rig, "n")->items, seq)->pending, 1);
    rig_restart(rig, true);
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)attached(rig, 1);
    assert_sent(rig, "2/2 3/2 4/2 5/2");
}

/* What is parked is owed to this subscription, whether or not the node retains it. */
static void replay_what_is_parked(void **state)
{
    struct rig *rig = *state;
    setup(rig, "1");
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", FIELD("ack", "explicit")));
    (void)attached(rig, 1);
    publish_many(rig, 0, 2);
    (void)rig_ok(
        rig, BOB, "set",
        "<settle xmlns='urn:xylem:delivery:0'><term node='n' id='i0'/><ack node='n' id='i1'/></settle>");
    rig->seen_count = 0;
    (void)rig_ok(rig, BOB, "set", REPLAY("start='all'"));
    (void)attached(rig, 1);
    assert_sent(rig, "1/2 2/2");
}

/* Carol came when the first items had left the node and were bob's only: they never become hers. */
static void replay_of_what_was_never_owed(void **state)
{
    struct rig *rig = *state;
    setup(rig, "2");
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 0, 4);
    rig_online(rig, 1, "carol@example.org", "c", 0, true);
    (void)rig_ok(rig, CAROL, "set", SUBSCRIBE("carol@example.org", ""));
    (void)attached(rig, 1);
    publish_many(rig, 4, 5);
    rig->seen_count = 0;
    (void)rig_ok(rig, CAROL, "set", REPLAY("start='all'"));
    (void)attached(rig, 1);
    assert_sent(rig, "4/2 5/2");
    for (uint64_t seq = 1; seq <= 3; seq++)
        assert_int_equal(index_find(&rig_node(rig, "n")->items, seq)->pending, 1);
}

/* The item goes while it is owed again: nobody is told a number that is not there. */
static void replay_and_retract(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", FIELD("ack", "explicit")));
    (void)attached(rig, 1);
    publish_many(rig, 0, 3);
    for (int i = 0; i < 3; i++) {
        char xml[256];
        (void)snprintf(xml, sizeof(xml), "<ack xmlns='urn:xylem:delivery:0' node='n' id='i%d'/>", i);
        (void)rig_ok(rig, BOB, "set", xml);
    }
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<retract node='n'><item id='i1'/></retract>"));
    rig->seen_count = 0;
    (void)rig_ok(rig, BOB, "set", REPLAY("start='all'"));
    (void)attached(rig, 1);
    assert_sent(rig, "1/2 3/2");
    (void)rig_ok(rig, BOB, "set", PUBSUB("<unsubscribe node='n' jid='bob@example.org'/>"));
    assert_int_equal(index_find(&rig_node(rig, "n")->items, 3)->pending, 0);
}

static void errors(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    assert_has(rig_iq(rig, BOB, "set", REPLAY("start='all'")), "not-subscribed");
    assert_has(rig_iq(rig, BOB, "get", STATE("")), "item-not-found");
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/x", ""));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/y", ""));
    (void)rig_ok(rig, CAROL, "set", PUBSUB("<subscribe node='n' jid='carol@example.org'/>"));
    assert_has(rig_iq(rig, BOB, "set", REPLAY("start='all'")), "subid-required");
    assert_has(rig_iq(rig, "bob@example.org/x", "set", REPLAY("")), "bad-request");
    assert_has(rig_iq(rig, "bob@example.org/x", "set", REPLAY("start='new'")), "bad-request");
    assert_has(rig_iq(rig, "bob@example.org/x", "set", REPLAY("start='seq:0'")), "bad-request");
    assert_has(rig_iq(rig, CAROL, "set", REPLAY("start='all'")), "not-subscribed");
    assert_has(rig_iq(rig, CAROL, "get", STATE("")), "item-not-found");
    assert_has(rig_iq(rig, BOB, "get", STATE("subid='none'")), "item-not-found");
    assert_has(rig_iq(rig, ALICE, "get",
                      "<subscription-state xmlns='urn:xylem:delivery:0' node='n'>"
                      "<set xmlns='http://jabber.org/protocol/rsm'><max>many</max></set>"
                      "</subscription-state>"),
               "bad-request");
}

static void states(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    (void)rig_ok(rig, CAROL, "set",
                 SUBSCRIBE("carol@example.org", FIELD("ack", "receipt") FIELD("max_inflight", "1")));
    publish_many(rig, 0, 3);
    assert_has(rig_ok(rig, BOB, "get", STATE("")), "ack='stream' state='absent' depth='3'");
    rig_online(rig, 1, "bob@example.org", "plain", 0, false);
    assert_has(rig_ok(rig, BOB, "get", STATE("")), "state='no-stream-management'");
    rig_online(rig, 2, "bob@example.org", "good", 0, true);
    struct claim_key key = attached(rig, 2);
    const char *answer = rig_ok(rig, BOB, "get", STATE(""));
    assert_has(answer, "session='bob@example.org/good' state='receiving' depth='3'");
    assert_has(answer, "in-flight='3'");
    delivery_stalled(rig_shard(rig, 0), key, rig_session(2), claim(rig)->run, 2);
    rig_run(rig);
    answer = rig_ok(rig, BOB, "get", STATE(""));
    assert_has(answer, "state='stalled'");
    assert_has(answer, "in-flight='1'");
    (void)rig_ok(rig, BOB, "set",
                 PUBSUB("<options node='n' jid='bob@example.org'><x xmlns='jabber:x:data' type='submit'>"
                        "<field var='pubsub#deliver'><value>0</value></field></x></options>"));
    assert_has(rig_ok(rig, BOB, "get", STATE("")), "state='paused'");
    rig_online(rig, 3, "carol@example.org", "c", 0, false);
    (void)attached(rig, 3);
    answer = rig_ok(rig, CAROL, "get", STATE(""));
    assert_has(answer, "ack='receipt' session='carol@example.org/c' state='full' depth='3'");
    /* the owner sees all, in pages */
    answer = rig_ok(rig, ALICE, "get", STATE(""));
    assert_has(answer, "newest='3'");
    assert_has(answer, "jid='bob@example.org'");
    assert_has(answer, "jid='carol@example.org'");
    assert_null(strstr(answer, "<last>"));
    answer = rig_ok(rig, ALICE, "get",
                    "<subscription-state xmlns='urn:xylem:delivery:0' node='n'>"
                    "<set xmlns='http://jabber.org/protocol/rsm'><max>1</max></set></subscription-state>");
    assert_has(answer, "<last>1</last>");
    assert_null(strstr(answer, "carol"));
    answer = rig_ok(rig, ALICE, "get",
                    "<subscription-state xmlns='urn:xylem:delivery:0' node='n'>"
                    "<set xmlns='http://jabber.org/protocol/rsm'><max>1</max><after>1</after></set>"
                    "</subscription-state>");
    assert_has(answer, "carol");
    assert_null(strstr(answer, "<last>"));
}

static int start_one(void **state)
{
    *state = rig_new(1);
    return 0;
}

static int start_three(void **state)
{
    *state = rig_new(3);
    return 0;
}

static int stop(void **state)
{
    rig_free((struct rig **)state);
    return 0;
}

#define BOTH(test)                                                                                           \
    cmocka_unit_test_setup_teardown(test, start_one, stop),                                                  \
        cmocka_unit_test_setup_teardown(test, start_three, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(replay_of_a_stream),
        BOTH(replay_of_what_is_on_its_way),
        BOTH(received_under_other_options),
        BOTH(replay_one_by_one),
        BOTH(replay_what_is_parked),
        BOTH(replay_of_what_was_never_owed),
        BOTH(replay_and_retract),
        BOTH(errors),
        BOTH(states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
