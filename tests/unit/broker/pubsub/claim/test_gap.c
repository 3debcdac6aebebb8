/* What is given up is told: in front of what is still owed, to every session until one acknowledged it, over restarts. */
#include "tests/unit/broker/pubsub/rig.h"

#define ALICE              "alice@example.org/a"
#define BOB                "bob@example.org/b"
#define FIELD(name, value) "<field var='" name "'><value>" value "</value></field>"
#define SUBSCRIBE                                                                                            \
    PUBSUB(                                                                                                  \
        "<subscribe node='n' jid='bob@example.org'/><options><x xmlns='jabber:x:data' type='submit'>" FIELD( \
            "{urn:xylem:delivery:0}mode", "at-least-once")                                                   \
            FIELD("{urn:xylem:delivery:0}max_backlog_bytes", "300") "</x></options>")
#define ITEM_BYTES strlen("<item id='i' publisher='alice@example.org'><e xmlns='urn:e'>i</e></item>")
#define FITS       (300 / ITEM_BYTES)

static void setup(struct rig *rig)
{
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<create node='n'/>"));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE);
}

static void publish(struct rig *rig, unsigned count)
{
    while (count-- > 0)
        rig_publish(rig, "n", "i");
}

static void wait_s(struct rig *rig, uint64_t seconds)
{
    rig->now_us += seconds * 1000000;
    rig_run(rig);
}

static struct subscription *bobs(struct rig *rig)
{
    return node_subscription(rig_node(rig, "n"), 1);
}

/* The newest attach is answered; the messages after it are what counts. */
static struct claim_key attach(struct rig *rig, uint32_t session, uint32_t claim)
{
    const struct seen *seen = NULL;
    assert_true(rig_count(rig, "attach", &seen) > 0);
    assert_int_equal(seen->session, session);
    struct claim_key key = seen->key;
    rig->seen_count = 0;
    delivery_attached(rig_shard(rig, rig_session(session).shard), key, rig_session(session), claim);
    rig_run(rig);
    return key;
}

static void online(struct rig *rig)
{
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
}

static void ack(struct rig *rig, struct claim_key key, uint64_t seq)
{
    delivery_acked(rig_shard(rig, rig_session(1).shard), key, rig_session(1), seq);
    rig_run(rig);
}

static void assert_gap(const struct seen *seen, uint64_t first, uint64_t last, uint32_t attempt)
{
    char expected[64];
    (void)snprintf(expected, sizeof(expected), "first='%lu' last='%lu' reason='max_backlog_bytes'",
                   (unsigned long)first, (unsigned long)last);
    assert_string_equal(seen->what, "one");
    assert_has(seen->body, "<gap xmlns='urn:xylem:delivery:0'");
    assert_has(seen->body, expected);
    assert_int_equal(seen->seq, last);
    assert_int_equal(seen->attempt, attempt);
}

static void told_before_what_is_owed(void **state)
{
    struct rig *rig = *state;
    setup(rig);
    publish(rig, 20);
    wait_s(rig, 2);
    uint64_t skipped = 20 - FITS;
    char expected[64];
    const char *answer =
        rig_ok(rig, ALICE, "get",
               "<subscription-state xmlns='urn:xylem:delivery:0' node='n'/>"); /* the owner's view */
    (void)snprintf(expected, sizeof(expected), "skipped='%lu' gap-first='1' gap-last='%lu'",
                   (unsigned long)skipped, (unsigned long)skipped);
    assert_has(answer, expected);
    online(rig);
    struct claim_key key = attach(rig, 1, 0);
    assert_gap(&rig->seen[0], 1, skipped, 1);
    assert_int_equal(rig->seen_count, 1 + FITS);
    assert_int_equal(rig->seen[1].seq, skipped + 1);
    /* not acknowledged: told again, marked */
    rig_offline(rig, 1, "bob@example.org");
    delivery_released(rig_shard(rig, rig_session(1).shard), key, rig_session(1), 0);
    rig_run(rig);
    rig->seen_count = 0;
    online(rig);
    key = attach(rig, 1, 0);
    assert_gap(&rig->seen[0], 1, skipped, 2);
    /* the gap alone is acknowledged: it is over, the items are not */
    ack(rig, key, skipped);
    assert_int_equal(bobs(rig)->claim.gap.last, 0);
    assert_int_equal(bobs(rig)->claim.cursor, skipped);
    rig_restart(rig, true);
    online(rig);
    (void)attach(rig, 1, 0);
    assert_int_equal(rig->seen_count, FITS);
    assert_int_equal(rig->seen[0].seq, skipped + 1);
}

static void survives(void **state)
{
    struct rig *rig = *state;
    for (unsigned crash = 0; crash < 2; crash++) {
        if (crash == 0)
            setup(rig);
        publish(rig, 20);
        wait_s(rig, 2);
        rig_restart(rig, crash != 0);
        online(rig);
        struct claim_key key = attach(rig, 1, 0);
        uint64_t first = crash == 0 ? 1 : 21;
        assert_gap(&rig->seen[0], first, first + 19 - FITS, 2);
        ack(rig, key, first + 19); /* a later item covers it */
        assert_int_equal(bobs(rig)->claim.gap.last, 0);
        rig_restart(rig, true);
        assert_int_equal(bobs(rig)->claim.gap.last, 0);
        assert_int_equal(bobs(rig)->claim.cursor, first + 19);
    }
}

static void several_skips_are_one_gap(void **state)
{
    struct rig *rig = *state;
    setup(rig);
    for (unsigned i = 0; i < 5; i++) {
        publish(rig, 10);
        wait_s(rig, 2);
    }
    online(rig);
    (void)attach(rig, 1, 0);
    assert_gap(&rig->seen[0], 1, 50 - FITS, 1);
}

/* A session that is there but acknowledges nothing: it is told once, and of what follows when it acknowledged that. */
static void while_a_session_is_there(void **state)
{
    struct rig *rig = *state;
    setup(rig);
    online(rig);
    (void)attach(rig, 1, 0);
    publish(rig, 10);
    wait_s(rig, 2);
    assert_int_equal(rig_count(rig, "detach", NULL), 1);
    struct claim_key key = attach(rig, 1, 1);
    assert_gap(&rig->seen[0], 1, 10 - FITS, 1);
    assert_int_equal(rig->seen[1].seq, 10 - FITS + 1);
    assert_int_equal(rig->seen[1].attempt, 2);
    publish(rig, 10);
    wait_s(rig, 2);
    rig->seen_count = 0;
    publish(rig, 10); /* behind what was given up meanwhile: told of that first */
    wait_s(rig, 2);
    assert_int_equal(rig_count(rig, "one", NULL) + rig_count(rig, "publish", NULL), 0);
    assert_int_equal(rig_count(rig, "attach", NULL), 0);
    ack(rig, key, 10 - FITS);
    (void)attach(rig, 1, 2);
    assert_gap(&rig->seen[0], 10 - FITS + 1, 30 - FITS, 1);
}

static void not_taken(void **state)
{
    struct rig *rig = *state;
    setup(rig);
    publish(rig, 20);
    wait_s(rig, 2);
    online(rig);
    struct claim_key key = attach(rig, 1, 0);
    uint16_t run = rig->seen[0].run;
    struct shard *shard = rig_shard(rig, rig_session(1).shard);
    delivery_stalled(shard, key, rig_session(1), run, 20 - FITS);
    rig_run(rig);
    rig->seen_count = 0;
    delivery_ready(shard, key, rig_session(1), run);
    rig_run(rig);
    assert_gap(&rig->seen[0], 1, 20 - FITS, 2);
    assert_int_equal(rig->seen_count, 1 + FITS);
    /* behind the gap: it was taken, and is not told again */
    run = rig->seen[0].run;
    delivery_stalled(shard, key, rig_session(1), run, 20 - FITS + 1);
    rig_run(rig);
    rig->seen_count = 0;
    delivery_ready(shard, key, rig_session(1), run);
    rig_run(rig);
    assert_int_equal(rig->seen_count, FITS);
}

/* The newest item alone is too much, while an older gap is told: what follows waits until that one is told as well, also when
 * the session had no room meanwhile. */
static void newest_item_is_given_up(void **state)
{
    struct rig *rig = *state;
    setup(rig);
    (void)rig_ok(
        rig, BOB, "set",
        PUBSUB("<subscribe node='n' jid='bob@example.org'/><options><x xmlns='jabber:x:data' "
               "type='submit'>" FIELD("{urn:xylem:delivery:0}max_backlog_bytes", "50") "</x></options>"));
    publish(rig, 1);
    wait_s(rig, 2);
    online(rig);
    struct claim_key key = attach(rig, 1, 0);
    assert_gap(&rig->seen[0], 1, 1, 1);
    uint16_t run = rig->seen[0].run;
    publish(rig, 1);
    wait_s(rig, 2);
    assert_int_equal(bobs(rig)->claim.gap.since.first, 2);
    struct shard *shard = rig_shard(rig, rig_session(1).shard);
    delivery_stalled(shard, key, rig_session(1), run, 2);
    rig_run(rig);
    delivery_ready(shard, key, rig_session(1), run);
    rig_run(rig);
    rig->seen_count = 0;
    publish(rig, 1);
    rig_run(rig);
    assert_int_equal(rig_count(rig, "one", NULL) + rig_count(rig, "publish", NULL), 0);
    ack(rig, key, 1);
    (void)attach(rig, 1, 1);
    assert_gap(&rig->seen[0], 2, 3, 1); /* it was too much as well */
}

/* What was published and is gone when it begins was never owed to it: with start=all it gets the one old item of many
 * numbers, and all that fits behind it. */
static void gone_before_it_began(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set",
                 PUBSUB("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>" FIELD(
                     "pubsub#max_items", "max") "</x></configure>"));
    rig_publish(rig, "n", "o");
    publish(rig, 20);
    (void)rig_ok(rig, BOB, "set",
                 PUBSUB("<subscribe node='n' jid='bob@example.org'/><options><x xmlns='jabber:x:data' "
                        "type='submit'>" FIELD("{urn:xylem:delivery:0}mode", "at-least-once")
                            FIELD("{urn:xylem:delivery:0}max_backlog_bytes", "300")
                                FIELD("{urn:xylem:delivery:0}start", "all") "</x></options>"));
    wait_s(rig, 5);
    assert_int_equal(bobs(rig)->claim.skipped, 0);
    publish(rig, FITS - 2);
    wait_s(rig, 5);
    assert_int_equal(bobs(rig)->claim.skipped, 0);
    publish(rig, 1); /* one too many */
    wait_s(rig, 5);
    assert_int_equal(bobs(rig)->claim.skipped, 1);
    assert_int_equal(bobs(rig)->claim.gap.last, 1);
    online(rig);
    struct claim_key key = attach(rig, 1, 0);
    assert_gap(&rig->seen[0], 1, 1, 1);
    assert_int_equal(rig->seen_count, 1 + FITS);
    /* a replay goes back to what is there, not to what was */
    ack(rig, key, 24);
    publish(rig, 20);
    ack(rig, key, 44);
    (void)rig_ok(rig, BOB, "set", "<replay xmlns='urn:xylem:delivery:0' node='n' start='all'/>");
    wait_s(rig, 5);
    assert_int_equal(bobs(rig)->claim.skipped, 1);
}

/* Who had it, or something behind it, before a restart says so when its session is resumed. */
static void received_before_a_restart(void **state)
{
    struct rig *rig = *state;
    setup(rig);
    publish(rig, 20);
    wait_s(rig, 2);
    online(rig);
    struct claim_key key = attach(rig, 1, 0);
    assert_gap(&rig->seen[0], 1, 20 - FITS, 1);
    rig_restart(rig, true);
    delivery_received_before(rig_shard(rig, 0), XY_STR("n"), key, 20 - FITS - 1); /* of an older session */
    rig_run(rig);
    assert_int_equal(bobs(rig)->claim.gap.last, 20 - FITS);
    delivery_received_before(rig_shard(rig, 0), XY_STR("n"), key, 20 - FITS + 1);
    rig_run(rig);
    assert_int_equal(bobs(rig)->claim.gap.last, 0);
    rig_restart(rig, true);
    online(rig);
    (void)attach(rig, 1, 0);
    assert_int_equal(rig->seen_count, FITS - 1);
    assert_int_equal(rig->seen[0].seq, 20 - FITS + 2);
}

/* Who holds it no longer acknowledges late. */
static void received_by_the_session_before(void **state)
{
    struct rig *rig = *state;
    setup(rig);
    publish(rig, 20);
    wait_s(rig, 2);
    online(rig);
    struct claim_key key = attach(rig, 1, 0);
    rig_offline(rig, 1, "bob@example.org");
    assert_int_equal(bobs(rig)->claim.state, CLAIM_DETACHED);
    ack(rig, key, 20 - FITS);
    assert_int_equal(bobs(rig)->claim.gap.last, 0);
}

static int setup_one(void **state)
{
    *state = rig_new(1);
    return 0;
}

static int setup_three(void **state)
{
    *state = rig_new(3);
    return 0;
}

static int teardown(void **state)
{
    rig_free((struct rig **)state);
    return 0;
}

#define BOTH(test)                                                                                           \
    cmocka_unit_test_setup_teardown(test, setup_one, teardown),                                              \
        cmocka_unit_test_setup_teardown(test, setup_three, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(told_before_what_is_owed),
        BOTH(survives),
        BOTH(several_skips_are_one_gap),
        BOTH(while_a_session_is_there),
        BOTH(not_taken),
        BOTH(gone_before_it_began),
        BOTH(newest_item_is_given_up),
        BOTH(received_before_a_restart),
        BOTH(received_by_the_session_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
