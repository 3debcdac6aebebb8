/* Gaps where items are acknowledged one by one: what a session was told of and does not acknowledge is told again, as items
 * are sent again, and what was given up meanwhile is told after that. Also what stays owed and what goes on when items are
 * given up. */
#include "tests/unit/broker/pubsub/rig.h"

#include "broker/pubsub/claim/acked.h"

#define ALICE              "alice@example.org/a"
#define BOB                "bob@example.org/b"
#define FIELD(name, value) "<field var='{urn:xylem:delivery:0}" name "'><value>" value "</value></field>"
#define SUBSCRIBE(more)                                                                                      \
    PUBSUB(                                                                                                  \
        "<subscribe node='n' jid='bob@example.org'/><options><x xmlns='jabber:x:data' type='submit'>" FIELD( \
            "mode", "at-least-once") FIELD("ack", "explicit") FIELD("max_backlog_bytes", "300") more         \
        "</x></options>")
#define SLOW       FIELD("ack_wait", "3600") /* nothing comes again by itself */
#define ITEM_BYTES strlen("<item id='i' publisher='alice@example.org'><e xmlns='urn:e'>i</e></item>")
#define FITS       (300 / ITEM_BYTES)

/* All in one request, so that they are too much together. */
static void publish(struct rig *rig, unsigned count)
{
    struct xy_buf xml = { 0 };
    xy_buf_lit(&xml, "<pubsub xmlns='" NS_PUBSUB "'><publish node='n'>");
    for (unsigned i = 0; i < count; i++)
        xy_buf_printf(&xml, "<item id='%c'><e xmlns='urn:e'>i</e></item>", 'a' + (int)i);
    xy_buf_lit(&xml, "</publish></pubsub>");
    xy_buf_char(&xml, '\0');
    (void)rig_ok(rig, ALICE, "set", xml.data);
    xy_buf_free(&xml);
}

static void wait_s(struct rig *rig, uint64_t seconds)
{
    rig->now_us += seconds * 1000000;
    rig_run(rig);
}

static struct claim *claim(struct rig *rig)
{
    return &node_subscription(rig_node(rig, "n"), 1)->claim;
}

static struct claim_key online(struct rig *rig)
{
    const struct seen *seen;
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    assert_true(rig_count(rig, "attach", &seen) > 0);
    struct claim_key key = seen->key;
    delivery_attached(rig_shard(rig, rig_session(1).shard), key, rig_session(1), 3);
    rig_run(rig);
    return key;
}

static void offline(struct rig *rig, struct claim_key key)
{
    rig_offline(rig, 1, "bob@example.org");
    delivery_released(rig_shard(rig, rig_session(1).shard), key, rig_session(1), 0);
    rig_run(rig);
    rig->seen_count = 0;
}

/* What bob was sent since the last time: numbers of items, [FIRST-LAST] for gaps, /ATTEMPT where it is above 1. */
static const char *heard(struct rig *rig)
{
    static char text[2048];
    size_t len = 0;
    text[0] = '\0';
    for (size_t i = 0; i < rig->seen_count; i++) {
        const struct seen *seen = &rig->seen[i];
        const char *first = strstr(seen->body, "first='");
        char gap[32] = "", again[16] = "";
        if (strcmp(seen->what, "one") != 0)
            continue;
        if (first != NULL)
            (void)snprintf(gap, sizeof(gap), "[%lu-", strtoul(first + strlen("first='"), NULL, 10));
        if (seen->attempt > 1)
            (void)snprintf(again, sizeof(again), "/%u", seen->attempt);
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s%lu%s%s", len > 0 ? " " : "", gap,
                                (unsigned long)seen->seq, first != NULL ? "]" : "", again);
    }
    rig->seen_count = 0;
    return text;
}
#define assert_heard(rig, expected) assert_string_equal(heard(rig), expected)

static const char *verdict(struct rig *rig, const char *name, uint64_t seq, const char *more)
{
    static char xml[512];
    (void)snprintf(xml, sizeof(xml),
                   "<%s xmlns='urn:xylem:delivery:0' node='n' epoch='%016lx' seq='%lu' %s/>", name,
                   (unsigned long)rig_node(rig, "n")->epoch, (unsigned long)seq, more);
    return xml;
}

static void say(struct rig *rig, const char *name, uint64_t seq, const char *more)
{
    (void)rig_ok(rig, BOB, "set", verdict(rig, name, seq, more));
}

static void subscribe(struct rig *rig, const char *xml)
{
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<create node='n'/>"));
    (void)rig_ok(rig, BOB, "set", xml);
}

/* Ten items while bob is away, of which four fit: the gap reaches from 1 to 6. */
static struct claim_key told_of_six(struct rig *rig, const char *xml)
{
    assert_int_equal(FITS, 4);
    subscribe(rig, xml);
    publish(rig, 10);
    wait_s(rig, 2);
    struct claim_key key = online(rig);
    assert_has(heard(rig), "[1-6] 7");
    for (uint64_t seq = 7; seq <= 10; seq++)
        say(rig, "ack", seq, "");
    rig->seen_count = 0;
    return key;
}

/* --- again --------------------------------------------------------------------------------------------------------- */

static void forgotten(void **state)
{
    struct rig *rig = *state;
    (void)told_of_six(rig, SUBSCRIBE(FIELD("ack_wait", "60")));
    wait_s(rig, 40);
    assert_heard(rig, "");
    wait_s(rig, 20);
    assert_heard(rig, "[1-6]/2");
    wait_s(rig, 61);
    assert_heard(rig, "[1-6]/3");
    say(rig, "ack", 6, "");
    assert_int_equal(claim(rig)->gap.last, 0);
    wait_s(rig, 120);
    assert_heard(rig, "");
    assert_has(rig_iq(rig, BOB, "set", verdict(rig, "ack", 6, "")), "item-not-found");
}

static void given_back(void **state)
{
    struct rig *rig = *state;
    (void)told_of_six(rig, SUBSCRIBE(SLOW));
    say(rig, "nack", 6, "");
    assert_heard(rig, "[1-6]/2");
    say(rig, "nack", 6, "delay='100'");
    publish(rig, 1); /* what is behind it goes on meanwhile */
    assert_heard(rig, "11");
    wait_s(rig, 90);
    assert_heard(rig, "");
    wait_s(rig, 10);
    assert_heard(rig, "[1-6]/3");
    assert_has(rig_iq(rig, BOB, "set", verdict(rig, "nack", 5, "")), "item-not-found");
    say(rig, "nack", 6, "delay='100'");
    say(rig, "ack", 6, ""); /* it is bob's to say, also while it waits */
    wait_s(rig, 200);
    assert_heard(rig, "");
}

static void pauses_of_backoff(void **state)
{
    struct rig *rig = *state;
    (void)told_of_six(rig, SUBSCRIBE(FIELD("ack_wait", "60") FIELD("backoff", "30,200")));
    say(rig, "nack", 6, "");
    wait_s(rig, 20);
    assert_heard(rig, "");
    wait_s(rig, 10);
    assert_heard(rig, "[1-6]/2");
    say(rig, "nack", 6, "");
    wait_s(rig, 190);
    assert_heard(rig, "");
    wait_s(rig, 10);
    assert_heard(rig, "[1-6]/3");
}

static void working_and_term(void **state)
{
    struct rig *rig = *state;
    (void)told_of_six(rig, SUBSCRIBE(FIELD("ack_wait", "60")));
    wait_s(rig, 40);
    say(rig, "working", 6, "");
    wait_s(rig, 50);
    assert_heard(rig, "");
    wait_s(rig, 10);
    assert_heard(rig, "[1-6]/2");
    say(rig, "term", 6, "");
    assert_int_equal(claim(rig)->gap.last, 0);
    wait_s(rig, 120);
    assert_heard(rig, "");
}

static void never_a_dead_letter(void **state)
{
    struct rig *rig = *state;
    (void)told_of_six(rig, SUBSCRIBE(FIELD("max_deliver", "1") FIELD("dead_letter", "dead")));
    say(rig, "nack", 6, "");
    assert_heard(rig, "[1-6]/2");
    say(rig, "nack", 6, "");
    assert_heard(rig, "[1-6]/3");
    assert_int_equal(claim(rig)->acked->dead_lettered, 0);
    assert_null(rig_node(rig, "dead"));
}

/* Its record is gone behind the node's back, as if the disk had lost it: there is nothing to bury either. */
static void damaged_is_never_a_dead_letter(void **state)
{
    struct rig *rig = *state;
    subscribe(rig, SUBSCRIBE(FIELD("max_deliver", "1") FIELD("dead_letter", "dead")));
    publish(rig, 2);
    rig_restart(rig, true);
    for (uint64_t seq = 1; seq <= 2; seq++) {
        Xylem__Store__V1__ItemRemove remove = XYLEM__STORE__V1__ITEM_REMOVE__INIT;
        struct node *node = rig_node(rig, "n");
        remove.node = node->number;
        remove.n_seq = 1;
        remove.seq = &seq;
        (void)store_append(node->pubsub->shard->store, RECORD_ITEM_REMOVE, &remove.base);
    }
    (void)online(rig);
    assert_heard(rig, "[1-1]/2 [2-2]/2");
    say(rig, "nack", 1, "");
    assert_heard(rig, "[1-1]/2"); /* sent once since the restart, and again */
    say(rig, "nack", 1, "");
    assert_heard(rig, "[1-1]/3");
    say(rig, "term", 2, "");
    say(rig, "ack", 1, "");
    assert_int_equal(claim(rig)->acked->window.total, 0);
    assert_null(rig_node(rig, "dead"));
}

static void not_taken(void **state)
{
    struct rig *rig = *state;
    struct claim_key key = told_of_six(rig, SUBSCRIBE(SLOW));
    struct shard *shard = rig_shard(rig, rig_session(1).shard);
    publish(rig, 2);
    assert_heard(rig, "11 12");
    say(rig, "nack", 6, "");
    assert_heard(rig, "[1-6]/2");
    publish(rig, 1);
    assert_heard(rig, "13");
    /* the session took neither the gap nor what followed: that was never sent, 11 and 12 were */
    delivery_stalled(shard, key, rig_session(1), claim(rig)->run, 6);
    rig_run(rig);
    delivery_ready(shard, key, rig_session(1), claim(rig)->run);
    rig_run(rig);
    assert_heard(rig, "[1-6]/3 13");
}

/* The same when more was given up before the session says so. */
static void grown_and_not_taken(void **state)
{
    struct rig *rig = *state;
    struct claim_key key = told_of_six(rig, SUBSCRIBE(FIELD("max_inflight", "1") SLOW));
    struct shard *shard = rig_shard(rig, rig_session(1).shard);
    say(rig, "nack", 6, "");
    publish(rig, 10);
    wait_s(rig, 2);
    assert_heard(rig, "[1-6]/2 11 17");
    delivery_stalled(shard, key, rig_session(1), claim(rig)->run, 6);
    rig_run(rig);
    delivery_ready(shard, key, rig_session(1), claim(rig)->run);
    rig_run(rig);
    assert_heard(rig, "[1-16] 17");
}

/* That it was received before a restart, as XEP-0198 says when the session is resumed, is not yet an acknowledgement. */
static void received_is_not_acknowledged(void **state)
{
    struct rig *rig = *state;
    struct claim_key key = told_of_six(rig, SUBSCRIBE(FIELD("ack_wait", "600")));
    rig_restart(rig, true);
    delivery_received_before(rig_shard(rig, 0), XY_STR("n"), key, 10);
    rig_run(rig);
    assert_int_equal(claim(rig)->gap.last, 6);
    (void)online(rig);
    assert_heard(rig, "[1-6]/2");
    delivery_received_before(rig_shard(rig, 0), XY_STR("n"), key, 10);
    rig_run(rig);
    assert_int_equal(claim(rig)->gap.last, 6);
    say(rig, "ack", 6, "");
    assert_int_equal(claim(rig)->gap.last, 0);
}

/* --- given up meanwhile ---------------------------------------------------------------------------------------------- */

/* An acknowledgement of the first telling counts, however often it was told and whatever was given up since. */
static void grows_while_it_is_told(void **state)
{
    struct rig *rig = *state;
    struct claim_key key = told_of_six(rig, SUBSCRIBE(FIELD("max_inflight", "1") FIELD("ack_wait", "600")));
    publish(rig, 10);
    wait_s(rig, 600);
    assert_has(heard(rig), "[1-6]/2");
    assert_int_equal(claim(rig)->gap.first, 1);
    assert_int_equal(claim(rig)->gap.last, 16);
    say(rig, "ack", 6, "");
    assert_heard(rig, "[11-16]");
    assert_int_equal(claim(rig)->gap.first, 11);
    offline(rig, key);
    publish(rig, 10);
    wait_s(rig, 2);
    (void)online(rig);
    assert_has(heard(rig), "[11-26]"); /* under another number: a new one */
    rig_restart(rig, true);
    (void)online(rig);
    assert_has(heard(rig), "[11-26]/2");
}

/* An old item that was delayed is given up after the newer ones: what is below what was told is told as well. */
static void grows_downwards(void **state)
{
    struct rig *rig = *state;
    subscribe(rig, SUBSCRIBE(SLOW FIELD("max_backlog_age", "5000")));
    (void)online(rig);
    publish(rig, 2);
    say(rig, "nack", 1, "delay='86400'");
    say(rig, "ack", 2, "");
    wait_s(rig, 3000);
    publish(rig, 10);
    wait_s(rig, 2);
    assert_has(heard(rig), "[3-8]");
    for (uint64_t seq = 9; seq <= 12; seq++)
        say(rig, "ack", seq, "");
    wait_s(rig, 2500);
    wait_s(rig, 2);
    assert_int_equal(claim(rig)->gap.first, 1);
    assert_int_equal(claim(rig)->acked->window.total, 0);
    rig->seen_count = 0;
    say(rig, "ack", 8, "");
    assert_heard(rig, "[1-1]");
    say(rig, "ack", 1, "");
    assert_int_equal(claim(rig)->gap.last, 0);
}

/* --- owed again ------------------------------------------------------------------------------------------------------ */

#define BY_STREAM /* and more may be owed from now on */                                                     \
    PUBSUB(                                                                                                  \
        "<subscribe node='n' jid='bob@example.org'/><options><x xmlns='jabber:x:data' type='submit'>" FIELD( \
            "ack", "stream") FIELD("max_backlog_bytes", "3000") "</x></options>")

static void received(struct rig *rig, struct claim_key key, uint64_t seq)
{
    delivery_acked(rig_shard(rig, rig_session(1).shard), key, rig_session(1), seq);
    rig_run(rig);
}

static struct claim_key online_with_sm(struct rig *rig)
{
    const struct seen *seen;
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    assert_true(rig_count(rig, "attach", &seen) > 0);
    struct claim_key key = seen->key;
    delivery_attached(rig_shard(rig, rig_session(1).shard), key, rig_session(1), 3);
    rig_run(rig);
    return key;
}

/* Of an item in hand, of what was given up behind it and is gone, and of what follows: in order once XEP-0198 acknowledges,
 * so that who received the one has not received the other. */
static void told_behind_what_is_in_hand(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set",
                 PUBSUB("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>"
                        "<field var='pubsub#max_items'><value>4</value></field></x></configure>"));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE(FIELD("max_inflight", "2")));
    struct claim_key key = online(rig);
    publish(rig, 2);
    say(rig, "ack", 2, "");
    for (unsigned i = 0; i < 3; i++)
        publish(rig, 4);
    wait_s(rig, 2);
    assert_heard(rig, "1 2 3 [3-10] 11");
    offline(rig, key);
    (void)rig_ok(rig, BOB, "set", BY_STREAM);
    key = online_with_sm(rig);
    assert_heard(rig, "1/2 [3-10]/2 11/2 12 13 14");
    received(rig, key, 1);
    assert_int_equal(claim(rig)->cursor, 1);
    assert_int_equal(claim(rig)->gap.last, 10);
    received(rig, key, 10);
    assert_int_equal(claim(rig)->gap.last, 0);
    rig_restart(rig, true);
    (void)online_with_sm(rig);
    assert_heard(rig, "11/2 12/2 13/2 14/2");
}

/* What the node still has of it is owed again by a replay, so it is not missing. */
static void replayed(void **state)
{
    struct rig *rig = *state;
    (void)told_of_six(rig, SUBSCRIBE(""));
    (void)rig_ok(rig, BOB, "set", BY_STREAM);
    (void)rig_ok(rig, BOB, "set", "<replay xmlns='urn:xylem:delivery:0' node='n' start='seq:4'/>");
    assert_int_equal(claim(rig)->gap.first, 1);
    assert_int_equal(claim(rig)->gap.last, 3);
    rig_restart(rig, true);
    assert_int_equal(claim(rig)->gap.last, 3);
    struct claim_key key = online_with_sm(rig);
    assert_heard(rig, "[1-3]/2 4/2 5/2 6/2 7/2 8/2 9/2 10/2");
    received(rig, key, 3);
    assert_int_equal(claim(rig)->gap.last, 0);
    assert_int_equal(claim(rig)->cursor, 3);
    (void)rig_ok(rig, BOB, "set", "<replay xmlns='urn:xylem:delivery:0' node='n' start='all'/>");
    rig->seen_count = 0;
    assert_int_equal(claim(rig)->cursor, 0);
}

/* --- what is not given up ------------------------------------------------------------------------------------------ */

/* An item in hand that the cursor has passed is not among those that exceed the bytes: it stays owed, and comes again. */
static void item_in_hand_stays_owed(void **state)
{
    struct rig *rig = *state;
    subscribe(rig, SUBSCRIBE(FIELD("max_inflight", "2") FIELD("ack_wait", "600")));
    (void)online(rig);
    publish(rig, 2);
    say(rig, "ack", 2, "");
    assert_int_equal(claim(rig)->cursor, 2);
    assert_heard(rig, "1 2");
    publish(rig, 10);
    wait_s(rig, 2);
    assert_heard(rig, "3 [3-8] 9");
    assert_int_equal(claim(rig)->skipped, 6);
    assert_non_null(window_find(&claim(rig)->acked->window, 1));
    assert_int_equal(index_find(&rig_node(rig, "n")->items, 1)->pending, 1);
    say(rig, "nack", 1, "");
    assert_heard(rig, "1/2");
    say(rig, "ack", 1, "");
}

/* What was out and is given up makes room, also while an older gap waits for its acknowledgement. */
static void goes_on_behind_a_gap(void **state)
{
    struct rig *rig = *state;
    subscribe(rig, SUBSCRIBE(FIELD("max_inflight", "1") SLOW));
    (void)online(rig);
    publish(rig, 10);
    wait_s(rig, 2);
    assert_heard(rig, "1 [1-6] 7");
    publish(rig, 10);
    wait_s(rig, 2);
    assert_heard(rig, "17");
    say(rig, "ack", 6, "");
    assert_heard(rig, "[7-16]");
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
        BOTH(forgotten),
        BOTH(given_back),
        BOTH(pauses_of_backoff),
        BOTH(working_and_term),
        BOTH(never_a_dead_letter),
        BOTH(damaged_is_never_a_dead_letter),
        BOTH(not_taken),
        BOTH(grown_and_not_taken),
        BOTH(grows_while_it_is_told),
        BOTH(grows_downwards),
        BOTH(item_in_hand_stays_owed),
        BOTH(goes_on_behind_a_gap),
        BOTH(received_is_not_acknowledged),
        BOTH(told_behind_what_is_in_hand),
        BOTH(replayed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
