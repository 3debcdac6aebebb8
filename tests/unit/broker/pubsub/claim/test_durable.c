/* At-least-once subscriptions, from the stored cursor to what a session is told: attaching, pages, live, stalls, loss of
 * the session, restart. The test plays the session and answers as broker/delivery/delivery.h says. */
#include "broker/shard/stats.h"
#include "tests/unit/broker/pubsub/rig.h"

#define ALICE "alice@example.org/a"
#define BOB   "bob@example.org/b"
#define SUBSCRIBE(jid, more)                                                                                 \
    PUBSUB("<subscribe node='n' jid='" jid "'/><options><x xmlns='jabber:x:data' type='submit'>"             \
           "<field var='{urn:xylem:delivery:0}mode'><value>at-least-once</value></field>" more               \
           "</x></options>")
#define START(value) "<field var='{urn:xylem:delivery:0}start'><value>" value "</value></field>"

static void publish_many(struct rig *rig, int from, int to)
{
    char id[32];
    for (int i = from; i < to; i++) {
        (void)snprintf(id, sizeof(id), "i%d", i);
        rig_publish(rig, "n", id);
    }
}

static const struct seen *last(struct rig *rig, const char *what, size_t count)
{
    const struct seen *seen = NULL;
    size_t found = rig_count(rig, what, &seen);
    if (found != count) {
        for (size_t i = 0; i < rig->seen_count; i++)
            print_message("%s session=%u claim=%u run=%u seq=%lu attempt=%u\n", rig->seen[i].what,
                          rig->seen[i].session, rig->seen[i].claim, rig->seen[i].run,
                          (unsigned long)rig->seen[i].seq, rig->seen[i].attempt);
        fail_msg("%zu calls of %s, expected %zu", found, what, count);
    }
    return seen;
}

/* The session answers an attach. */
static struct claim_key attached(struct rig *rig, uint32_t session, uint32_t claim, size_t nth)
{
    const struct seen *seen = last(rig, "attach", nth);
    assert_int_equal(seen->session, session);
    struct claim_key key = seen->key;
    delivery_attached(rig_shard(rig, rig_session(session).shard), key, rig_session(session), claim);
    rig_run(rig);
    return key;
}

static struct shard *shard_of(struct rig *rig, uint32_t session)
{
    return rig_shard(rig, rig_session(session).shard);
}

static struct item *item(struct rig *rig, uint64_t seq)
{
    return index_find(&rig_node(rig, "n")->items, seq);
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

static void live_after_attaching(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    struct claim_key key = attached(rig, 1, 5, 1);
    publish_many(rig, 0, 3);
    const struct seen *seen = last(rig, "publish", 3);
    assert_int_equal(seen->claim, 5);
    assert_int_equal(seen->run, 1);
    assert_int_equal(seen->seq, 3);
    assert_int_equal(item(rig, 3)->pending, 1);
    delivery_acked(shard_of(rig, 1), key, rig_session(1), 2);
    rig_run(rig);
    assert_int_equal(item(rig, 2)->pending, 0);
    assert_int_equal(item(rig, 3)->pending, 1);
    /* the cursor survives, so only what was not acknowledged comes again, marked */
    rig_restart(rig, true);
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)attached(rig, 1, 0, 1);
    seen = last(rig, "one", 1);
    assert_int_equal(seen->seq, 3);
    assert_int_equal(seen->attempt, 2);
    assert_true(seen->delayed);
    assert_false(seen->page_end);
    rig->seen_count = 0;
    publish_many(rig, 3, 4);
    assert_int_equal(last(rig, "publish", 1)->seq, 4);
}

static void pages_until_caught_up(void **state)
{
    struct rig *rig = *state;
    setup(rig, "2");
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 0, 100);
    assert_int_equal(rig_node(rig, "n")->items.retained_count, 2);
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    struct claim_key key = attached(rig, 1, 0, 1);
    const struct seen *seen = last(rig, "one", 64);
    assert_true(seen->page_end);
    assert_int_equal(seen->seq, 64);
    publish_many(rig, 100, 101); /* not live yet: nothing may overtake */
    last(rig, "publish", 0);
    delivery_ready(shard_of(rig, 1), key, rig_session(1), seen->run);
    rig_run(rig);
    seen = last(rig, "one", 101);
    assert_int_equal(seen->seq, 101);
    assert_false(seen->page_end);
    assert_int_equal(seen->attempt, 1);
    publish_many(rig, 101, 102);
    assert_int_equal(last(rig, "publish", 1)->seq, 102);
    /* acknowledged and not retained: gone from memory and, later, from the store */
    delivery_acked(shard_of(rig, 1), key, rig_session(1), 102);
    rig_run(rig);
    assert_int_equal(rig_node(rig, "n")->items.live, 2);
    rig_restart(rig, false);
    assert_int_equal(rig_node(rig, "n")->items.live, 2);
    assert_int_equal(rig_node(rig, "n")->next_seq, 103);
}

static void stall_begins_a_new_run(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    struct claim_key key = attached(rig, 1, 0, 1);
    publish_many(rig, 0, 5);
    delivery_stalled(shard_of(rig, 1), key, rig_session(1), 1, 3);
    rig_run(rig);
    publish_many(rig, 5, 6);
    last(rig, "publish", 5);
    delivery_ready(shard_of(rig, 1), key, rig_session(1), 9); /* of a run that never was */
    rig_run(rig);
    last(rig, "one", 0);
    delivery_ready(shard_of(rig, 1), key, rig_session(1), 1);
    rig_run(rig);
    const struct seen *seen = last(rig, "one", 4); /* 3, 4, 5, 6 */
    assert_int_equal(seen->seq, 6);
    assert_int_equal(seen->run, 2);
    assert_int_equal(seen->attempt, 1);
    delivery_stalled(shard_of(rig, 1), key, rig_session(1), 1, 4); /* late news of the old run */
    rig_run(rig);
    publish_many(rig, 6, 7);
    assert_int_equal(last(rig, "publish", 6)->run, 2);
}

static void released_goes_to_the_next_session(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "low", 1, true);
    rig_online(rig, 2, "bob@example.org", "high", 5, true);
    rig_online(rig, 3, "bob@example.org", "plain", 9, false);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    struct claim_key key = attached(rig, 2, 0, 1);
    publish_many(rig, 0, 4);
    last(rig, "publish", 4);
    delivery_released(shard_of(rig, 2), key, rig_session(2), 1);
    rig_run(rig);
    (void)attached(rig, 1, 3, 2);
    const struct seen *seen = last(rig, "one", 3);
    assert_int_equal(seen->session, 1);
    assert_int_equal(seen->claim, 3);
    assert_int_equal(seen->attempt, 2);
    assert_int_equal(seen->seq, 4);
    assert_int_equal(item(rig, 1)->pending, 0);
    rig_offline(rig, 2, "bob@example.org");
    last(rig, "attach", 2); /* still held by the other */
}

static void session_that_is_gone_is_not_asked_again(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    struct claim_key key = last(rig, "attach", 1)->key;
    delivery_released(shard_of(rig, 1), key, rig_session(1), 0);
    rig_run(rig);
    last(rig, "attach", 1);
    rig_offline(rig, 1, "bob@example.org");
    rig_online(rig, 2, "bob@example.org", "b", 0, true);
    assert_int_equal(last(rig, "attach", 2)->session, 2);
}

static void full_jid_waits_for_its_resource(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "other", 9, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/mine", ""));
    publish_many(rig, 0, 1);
    last(rig, "attach", 0);
    rig_online(rig, 2, "bob@example.org", "mine", 0, true);
    (void)attached(rig, 2, 0, 1);
    assert_int_equal(last(rig, "one", 1)->seq, 1);
}

static void better_session_takes_over_once_all_is_acknowledged(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "low", 1, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    struct claim_key key = attached(rig, 1, 0, 1);
    publish_many(rig, 0, 3);
    rig_online(rig, 2, "bob@example.org", "high", 5, true);
    last(rig, "attach", 1);
    publish_many(rig, 3, 4); /* to nobody yet */
    last(rig, "publish", 3);
    delivery_acked(shard_of(rig, 1), key, rig_session(1), 2);
    rig_run(rig);
    last(rig, "attach", 1);
    delivery_acked(shard_of(rig, 1), key, rig_session(1), 3);
    rig_run(rig);
    last(rig, "detach", 1);
    (void)attached(rig, 2, 0, 2);
    assert_int_equal(last(rig, "one", 1)->seq, 4);
    assert_int_equal(last(rig, "one", 1)->attempt, 1);
}

static void better_session_does_not_wait_for_ever(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "low", 1, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    (void)attached(rig, 1, 0, 1);
    publish_many(rig, 0, 3);
    rig_online(rig, 2, "bob@example.org", "high", 5, true);
    last(rig, "attach", 1);
    rig->now_us += LEAVING_US_MAX;
    rig_run(rig);
    (void)attached(rig, 2, 0, 2);
    assert_int_equal(last(rig, "one", 3)->seq, 3);
    assert_int_equal(last(rig, "one", 3)->attempt, 2);
}

static void better_session_that_goes_again_changes_nothing(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "low", 1, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    (void)attached(rig, 1, 0, 1);
    publish_many(rig, 0, 2);
    rig_online(rig, 2, "bob@example.org", "high", 5, true);
    publish_many(rig, 2, 3);
    rig_offline(rig, 2, "bob@example.org");
    const struct seen *seen = last(rig, "one", 1);
    assert_int_equal(seen->seq, 3);
    assert_int_equal(seen->run, 2);
    publish_many(rig, 3, 4);
    assert_int_equal(last(rig, "publish", 3)->run, 2);
    last(rig, "attach", 1);
}

static void unavailable_session_lets_go(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    (void)attached(rig, 1, 4, 1);
    rig_stanza(rig, 1, BOB, "<presence><priority>-1</priority></presence>");
    rig_run(rig);
    assert_int_equal(last(rig, "detach", 1)->claim, 4);
    publish_many(rig, 0, 1);
    last(rig, "publish", 0);
}

static void starts(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    publish_many(rig, 0, 5);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/all", START("all")));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/last", START("last")));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/three", START("seq:3")));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/new", ""));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/far", START("seq:99")));
    struct node *node = rig_node(rig, "n");
    static const uint64_t expected[] = { 0, 4, 2, 5, 5 };
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(node_subscription(node, i + 1)->claim.cursor, expected[i]);
    assert_int_equal(item(rig, 1)->pending, 1);
    assert_int_equal(item(rig, 3)->pending, 2);
    assert_int_equal(item(rig, 5)->pending, 3);
    rig_restart(rig, true); /* the counters follow from the cursors */
    assert_int_equal(item(rig, 1)->pending, 1);
    assert_int_equal(item(rig, 3)->pending, 2);
    assert_int_equal(item(rig, 5)->pending, 3);
    (void)rig_ok(rig, BOB, "set", PUBSUB("<unsubscribe node='n' jid='bob@example.org/all'/>"));
    assert_int_equal(item(rig, 1)->pending, 0);
    assert_int_equal(item(rig, 5)->pending, 2);
}

/* What left the node and is owed to another one only is not what it holds. */
static void starts_with_what_is_retained(void **state)
{
    struct rig *rig = *state;
    setup(rig, "2");
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/slow", ""));
    publish_many(rig, 0, 5);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/all", START("all")));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/two", START("seq:2")));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/time", START("time:2000-01-01T00:00:00Z")));
    for (uint32_t i = 2; i <= 4; i++)
        assert_int_equal(node_subscription(rig_node(rig, "n"), i)->claim.cursor, 3);
    assert_int_equal(item(rig, 3)->pending, 1);
    assert_int_equal(item(rig, 4)->pending, 4);
    publish_many(rig, 5, 10); /* from here on it is another thing */
    assert_int_equal(item(rig, 4)->pending, 4);
    rig_restart(rig, true);
    assert_int_equal(item(rig, 3)->pending, 1);
    assert_int_equal(item(rig, 4)->pending, 4);
}

/* The same where items take the place of others: those in between are nothing to it, now, later or after a restart. */
static void starts_without_what_is_superseded(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/slow", ""));
    publish_many(rig, 0, 2);
    publish_many(rig, 1, 3); /* 3 has the id of 2 */
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/all", START("all")));
    publish_many(rig, 0, 1); /* 5 has the id of 1, and that stays owed to both */
    for (unsigned life = 0; life < 2; life++) {
        assert_int_equal(item(rig, 1)->pending, 2);
        assert_int_equal(item(rig, 2)->pending, 1);
        assert_int_equal(item(rig, 3)->pending, 2);
        assert_has(rig_ok(rig, BOB, "get", "<subscription-state xmlns='urn:xylem:delivery:0' node='n'/>"),
                   "depth='4'");
        if (life == 0)
            rig_restart(rig, true);
    }
    rig_online(rig, 1, "bob@example.org", "all", 0, true);
    struct claim_key key = attached(rig, 1, 0, 1);
    assert_int_equal(last(rig, "one", 4)->seq, 5);
    for (size_t i = 0; i < rig->seen_count; i++)
        assert_int_not_equal(rig->seen[i].seq, 2);
    delivery_acked(shard_of(rig, 1), key, rig_session(1), 5);
    rig_run(rig);
    assert_int_equal(item(rig, 2)->pending, 1);
    (void)rig_ok(rig, BOB, "set", PUBSUB("<unsubscribe node='n' jid='bob@example.org/slow'/>"));
    assert_null(item(rig, 2));
}

static void unsubscribing_frees_what_was_owed(void **state)
{
    struct rig *rig = *state;
    setup(rig, "1");
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 0, 10);
    assert_int_equal(rig_node(rig, "n")->items.live, 10);
    (void)rig_ok(rig, BOB, "set", PUBSUB("<unsubscribe node='n' jid='bob@example.org'/>"));
    assert_int_equal(rig_node(rig, "n")->items.live, 1);
    rig_restart(rig, true);
    assert_int_equal(rig_node(rig, "n")->items.live, 1);
    assert_int_equal(rig_node(rig, "n")->durable_count, 0);
}

static void retract_and_purge_end_claims(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 0, 4);
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<retract node='n'><item id='i1'/></retract>"));
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    struct claim_key key = attached(rig, 1, 0, 1);
    last(rig, "one", 3);
    (void)rig_ok(rig, ALICE, "set", OWNER("<purge node='n'/>"));
    delivery_acked(shard_of(rig, 1), key, rig_session(1), 4);
    rig_run(rig);
    assert_int_equal(rig_node(rig, "n")->items.live, 0);
    rig_restart(rig, true);
    assert_int_equal(rig_node(rig, "n")->items.live, 0);
    assert_int_equal(rig_node(rig, "n")->next_seq, 5);
}

/* Items nobody keeps: stored only while somebody is owed them. */
static void owed_items_of_a_passing_node(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set",
                 PUBSUB("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>"
                        "<field var='pubsub#persist_items'><value>0</value></field></x></configure>"));
    publish_many(rig, 0, 1);
    assert_int_equal(rig_node(rig, "n")->items.live, 0);
    assert_int_equal(rig_node(rig, "n")->next_seq, 1);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 1, 3);
    assert_int_equal(rig_node(rig, "n")->items.live, 2);
    rig_restart(rig, true);
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    struct claim_key key = attached(rig, 1, 0, 1);
    last(rig, "one", 2);
    delivery_acked(shard_of(rig, 1), key, rig_session(1), 2);
    rig_run(rig);
    assert_int_equal(rig_node(rig, "n")->items.live, 0);
}

#define BACKLOG(what, value)                                                                                 \
    "<field var='{urn:xylem:delivery:0}max_backlog_" what "'><value>" value "</value></field>"

static void backlogs_are_bounded(void **state)
{
    struct rig *rig = *state;
    struct pubsub_stats stats;
    setup(rig, "1");
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/bytes", BACKLOG("bytes", "200")));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/age", BACKLOG("age", "3600")));
    publish_many(rig, 0, 10);
    uint64_t bytes = item(rig, 10)->bytes, fits = 200 / bytes;
    rig->now_us += 60 * 1000000ull;
    rig_run(rig);
    const struct claim *claim = &node_subscription(rig_node(rig, "n"), 1)->claim;
    assert_int_equal(claim->cursor, 10 - fits);
    assert_int_equal(item(rig, 1)->pending, 1);
    assert_int_equal(item(rig, 10)->pending, 2);
    rig->now_us += 3600 * 1000000ull;
    rig_run(rig);
    assert_null(item(rig, 1)); /* nobody is owed it any more, and it is not retained */
    assert_int_equal(item(rig, 10)->pending, 1);
    struct shard *owner = rig_shard(rig, shard_owner(rig_shard(rig, 0), XY_STR("n")));
    pubsub_stats(owner, &stats);
    assert_int_equal(atomic_load(&owner->stats->items_skipped), 10 - fits + 10);
    assert_int_equal(stats.items, fits); /* the last one is retained as well */
}

/* A wrong number from anywhere must not end what is owed. */
static void acknowledgements_of_the_future_are_ignored(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    struct claim_key key = attached(rig, 1, 0, 1);
    publish_many(rig, 0, 2);
    delivery_acked(shard_of(rig, 1), key, rig_session(1), 7);
    rig_run(rig);
    assert_int_equal(item(rig, 1)->pending, 1);
    key.subscription = 99;
    delivery_acked(shard_of(rig, 1), key, rig_session(1), 1);
    delivery_released(shard_of(rig, 1), key, rig_session(1), 1);
    rig_run(rig);
    assert_int_equal(item(rig, 1)->pending, 1);
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
        BOTH(live_after_attaching),
        BOTH(pages_until_caught_up),
        BOTH(stall_begins_a_new_run),
        BOTH(released_goes_to_the_next_session),
        BOTH(session_that_is_gone_is_not_asked_again),
        BOTH(full_jid_waits_for_its_resource),
        BOTH(better_session_takes_over_once_all_is_acknowledged),
        BOTH(better_session_does_not_wait_for_ever),
        BOTH(better_session_that_goes_again_changes_nothing),
        BOTH(unavailable_session_lets_go),
        BOTH(starts),
        BOTH(starts_with_what_is_retained),
        BOTH(starts_without_what_is_superseded),
        BOTH(unsubscribing_frees_what_was_owed),
        BOTH(retract_and_purge_end_claims),
        BOTH(owed_items_of_a_passing_node),
        BOTH(backlogs_are_bounded),
        BOTH(acknowledgements_of_the_future_are_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
