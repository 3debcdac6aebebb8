/* What a node retains and what it refuses: bytes, numbers, overflow=reject, full backlogs. */
#include "tests/unit/broker/pubsub/rig.h"

#include "broker/shard/stats.h"

#define ALICE                       "alice@example.org/a"
#define BOB                         "bob@example.org/b"
#define FIELD(name, value)          "<field var='" name "'><value>" value "</value></field>"
#define NODE_FIELD(name, value)     FIELD("{urn:xylem:node:0}" name, value)
#define DELIVERY_FIELD(name, value) FIELD("{urn:xylem:delivery:0}" name, value)
#define CREATE(fields)                                                                                       \
    PUBSUB("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>" fields "</x></configure>")
#define CONFIGURE(fields)                                                                                    \
    OWNER("<configure node='n'><x xmlns='jabber:x:data' type='submit'>" fields "</x></configure>")
#define SUBSCRIBE(jid, fields)                                                                               \
    PUBSUB("<subscribe node='n' jid='" jid                                                                   \
           "'/><options><x xmlns='jabber:x:data' type='submit'>" DELIVERY_FIELD("mode", "at-least-once")     \
               fields "</x></options>")
#define PUBLISH(id)                                                                                          \
    PUBSUB("<publish node='n'><item id='" id "'><e xmlns='urn:e'>0123456789</e></item></publish>")
#define ITEM_BYTES "<item id='1' publisher='alice@example.org'><e xmlns='urn:e'>0123456789</e></item>"

static struct item_index *items(struct rig *rig)
{
    return &rig_node(rig, "n")->items;
}

static void assert_ids(struct rig *rig, const char *ids)
{
    char expected[64];
    const char *answer = rig_ok(rig, ALICE, "get", PUBSUB("<items node='n'/>"));
    for (const char *id = "123456789"; *id != '\0'; id++) {
        (void)snprintf(expected, sizeof(expected), "<item id='%c'", *id);
        if ((strstr(answer, expected) != NULL) != (strchr(ids, *id) != NULL))
            fail_msg("expected items %s in %s", ids, answer);
    }
}

static void bytes_push_out_the_oldest(void **state)
{
    struct rig *rig = *state;
    char create[512];
    (void)snprintf(create, sizeof(create),
                   CREATE(FIELD("pubsub#max_items", "max") NODE_FIELD("max_bytes", "%zu")),
                   3 * strlen(ITEM_BYTES) + 10);
    (void)rig_ok(rig, ALICE, "set", create);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("2"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("3"));
    assert_int_equal(items(rig)->retained_bytes, 3 * strlen(ITEM_BYTES));
    assert_ids(rig, "123");
    (void)rig_ok(rig, ALICE, "set", PUBLISH("4"));
    assert_ids(rig, "234");
    /* one of two kilobytes fits no way, and pushes nothing out */
    char big[4096];
    (void)snprintf(big, sizeof(big),
                   PUBSUB("<publish node='n'><item id='9'><e xmlns='urn:e'>%02000d</e></item></publish>"), 7);
    assert_has(rig_iq(rig, ALICE, "set", big), "payload-too-big");
    assert_ids(rig, "234");
    rig_restart(rig, true);
    assert_ids(rig, "234");
    /* fewer bytes by configuration */
    (void)snprintf(create, sizeof(create), CONFIGURE(NODE_FIELD("max_bytes", "%zu")), strlen(ITEM_BYTES) + 1);
    (void)rig_ok(rig, ALICE, "set", create);
    assert_ids(rig, "4");
    rig_restart(rig, true);
    assert_ids(rig, "4");
}

static void reject_instead_of_dropping(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", CREATE(FIELD("pubsub#max_items", "2") NODE_FIELD("overflow", "reject")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("2"));
    const char *answer = rig_iq(rig, ALICE, "set", PUBLISH("3"));
    assert_has(answer, "<conflict ");
    assert_has(answer, "node-full");
    assert_ids(rig, "12");
    (void)rig_ok(rig, ALICE, "set", PUBLISH("2")); /* overwriting takes no more room */
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<retract node='n'><item id='1'/></retract>"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("3"));
    assert_ids(rig, "23");
}

static void reject_bytes(void **state)
{
    struct rig *rig = *state;
    char create[512];
    (void)snprintf(create, sizeof(create),
                   CREATE(FIELD("pubsub#max_items", "max") NODE_FIELD("overflow", "reject")
                              NODE_FIELD("max_bytes", "%zu")),
                   2 * strlen(ITEM_BYTES));
    (void)rig_ok(rig, ALICE, "set", create);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("2"));
    assert_has(rig_iq(rig, ALICE, "set", PUBLISH("3")), "node-full");
    (void)rig_ok(rig, ALICE, "set", PUBLISH("2"));
    assert_ids(rig, "12");
}

/* One subscriber that never comes back makes the node refuse, because its owner said so; when it is gone, or the owner
 * thinks otherwise, publishing goes on and nothing was lost. */
static void reject_while_a_backlog_is_full(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set",
                 CREATE(FIELD("pubsub#max_items", "1") NODE_FIELD("overflow", "drop-oldest")));
    (void)rig_ok(rig, ALICE, "set",
                 CONFIGURE(NODE_FIELD("overflow", "reject") FIELD("pubsub#max_items", "max")));
    (void)rig_ok(rig, BOB, "set",
                 SUBSCRIBE("bob@example.org/slow", DELIVERY_FIELD("max_backlog_bytes", "200")));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/quick", ""));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("2"));
    const char *answer = rig_iq(rig, ALICE, "set", PUBLISH("3"));
    assert_has(answer, "<resource-constraint ");
    assert_has(answer, "type='wait'");
    rig->now_us += 60 * 1000000ull;
    rig_run(rig);
    assert_int_equal(index_find(items(rig), 1)->pending, 2); /* nothing was skipped */
    (void)rig_ok(rig, BOB, "set", PUBSUB("<unsubscribe node='n' jid='bob@example.org/slow'/>"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("3"));
    assert_ids(rig, "123");
}

static void reject_while_a_backlog_is_old(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set",
                 CREATE(FIELD("pubsub#max_items", "max") NODE_FIELD("overflow", "reject")));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/slow", DELIVERY_FIELD("max_backlog_age", "60")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    rig->now_us += 50 * 1000000ull;
    (void)rig_ok(rig, ALICE, "set", PUBLISH("2"));
    rig->now_us += 20 * 1000000ull;
    assert_has(rig_iq(rig, ALICE, "set", PUBLISH("3")), "<resource-constraint ");
    rig_restart(rig, true);
    assert_has(rig_iq(rig, ALICE, "set", PUBLISH("3")), "<resource-constraint ");
    /* the owner gives up on it: what is too old is skipped, the rest stays owed */
    (void)rig_ok(rig, ALICE, "set", CONFIGURE(NODE_FIELD("overflow", "drop-oldest")));
    rig->now_us += 2 * 1000000ull;
    rig_run(rig);
    assert_int_equal(node_subscription(rig_node(rig, "n"), 1)->claim.cursor, 1);
    assert_int_equal(index_find(items(rig), 2)->pending, 1);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("3"));
}

/* Many subscriptions with bounds of their own: each skips exactly what exceeds its own. */
static void every_backlog_has_its_own_bound(void **state)
{
    struct rig *rig = *state;
    char xml[1024];
    (void)rig_ok(rig, ALICE, "set", CREATE(FIELD("pubsub#max_items", "1")));
    for (unsigned i = 1; i <= 20; i++) {
        (void)snprintf(xml, sizeof(xml),
                       SUBSCRIBE("bob@example.org/%u", DELIVERY_FIELD("max_backlog_bytes", "%u")), i,
                       i * 200);
        (void)rig_ok(rig, BOB, "set", xml);
    }
    for (unsigned i = 0; i < 50; i++)
        (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    rig->now_us += 5 * 1000000ull;
    rig_run(rig);
    for (unsigned round = 0; round < 2; round++) {
        for (uint32_t i = 1; i <= 20; i++)
            assert_int_equal(node_subscription(rig_node(rig, "n"), i)->claim.cursor,
                             50 - i * 200 / strlen(ITEM_BYTES));
        rig_restart(rig, false);
    }
}

#define SECONDS(n) ((n)*1000000ull)

static void wait_s(struct rig *rig, uint64_t seconds)
{
    rig->now_us += SECONDS(seconds);
    rig_run(rig);
}

static uint64_t expired(struct rig *rig)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < rig->shards; i++)
        sum += atomic_load(&rig_shard(rig, i)->stats->items_expired);
    return sum;
}

/* Rows of STORE_EXPIRY by time, of all shards. */
static size_t rows(struct rig *rig)
{
    struct xy_arena *arena = xy_arena_new();
    struct store_entry entries[64];
    bool more;
    size_t count = 0;
    (void)store_step_checkpoint(rig->store);
    size_t all =
        store_scan_tables(rig->store, STORE_EXPIRY, XY_STR(""), XY_STR(""), arena, entries, 64, &more);
    for (size_t i = 0; i < all; i++)
        count += (unsigned char)entries[i].key.data[0] != 0xff;
    xy_arena_free(&arena);
    return count;
}

static void items_expire(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set",
                 CREATE(FIELD("pubsub#max_items", "max") FIELD("pubsub#item_expire", "60")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    wait_s(rig, 30);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("2"));
    assert_ids(rig, "12");
    assert_int_equal(rows(rig), 1);
    wait_s(rig, 25);
    assert_ids(rig, "12");
    wait_s(rig, 8);
    assert_int_equal(items(rig)->retained_count, 1); /* gone without anybody asking */
    assert_ids(rig, "2");
    wait_s(rig, 40);
    assert_int_equal(items(rig)->live, 0);
    assert_int_equal(expired(rig), 2);
    wait_s(rig, 10);
    assert_int_equal(rows(rig), 0); /* nothing to look for any more */
    assert_int_equal(rig_node(rig, "n")->look_s, 0);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("3"));
    assert_int_equal(rows(rig), 1);
    (void)rig_ok(rig, ALICE, "set", OWNER("<delete node='n'/>"));
    assert_int_equal(rows(rig), 0);
}

/* Between expiring and the timer: nobody sees it. */
static void expired_items_are_not_shown(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", CREATE(FIELD("pubsub#item_expire", "60")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    rig_node(rig, "n")->expiry.due_us = UINT64_MAX; /* it comes late */
    rig->now_us += SECONDS(61);
    const char *answer = rig_ok(rig, ALICE, "get", PUBSUB("<items node='n'/>"));
    assert_null(strstr(answer, "<item "));
    answer = rig_ok(rig, ALICE, "get", PUBSUB("<items node='n'><item id='1'/></items>"));
    assert_null(strstr(answer, "<item "));
    answer = rig_ok(rig, ALICE, "get", "<query xmlns='" NS_DISCO_ITEMS "' node='n'/>");
    assert_null(strstr(answer, "<item "));
}

static void expired_and_owed_stays_owed(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", CREATE(FIELD("pubsub#item_expire", "60")));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/slow", ""));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    wait_s(rig, 70);
    assert_ids(rig, "");
    assert_int_equal(index_find(items(rig), 1)->pending, 1);
    assert_false(index_find(items(rig), 1)->retained);
    for (unsigned crash = 0; crash < 2; crash++) {
        rig_restart(rig, crash != 0);
        assert_ids(rig, "");
        assert_int_equal(index_find(items(rig), 1)->pending, 1);
    }
    (void)rig_ok(rig, BOB, "set", PUBSUB("<unsubscribe node='n' jid='bob@example.org/slow'/>"));
    assert_int_equal(items(rig)->live, 0);
    rig_restart(rig, false);
    assert_int_equal(items(rig)->live, 0);
}

/* The broker was down, or the node was not in memory: what expired meanwhile does not come back, and goes from the store
 * although nobody asks for the node. */
static void expiry_of_unloaded_nodes(void **state)
{
    struct rig *rig = *state;
    struct xy_arena *arena = xy_arena_new();
    struct store_entry entries[8];
    bool more;
    (void)rig_ok(rig, ALICE, "set",
                 CREATE(FIELD("pubsub#max_items", "max") FIELD("pubsub#item_expire", "60")));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/slow", ""));
    for (unsigned i = 0; i < 5; i++)
        (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    (void)rig_ok(rig, BOB, "set", PUBSUB("<unsubscribe node='n' jid='bob@example.org/slow'/>"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("2"));
    rig_restart(rig, true);
    wait_s(rig, 50);
    (void)store_step_checkpoint(rig->store);
    assert_int_equal(
        store_scan_tables(rig->store, STORE_ITEMS, XY_STR(""), XY_STR(""), arena, entries, 8, &more), 2);
    wait_s(rig, 20);
    (void)store_step_checkpoint(rig->store);
    assert_int_equal(
        store_scan_tables(rig->store, STORE_ITEMS, XY_STR(""), XY_STR(""), arena, entries, 8, &more), 0);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("3"));
    rig_stop(rig, true);
    rig->now_us += SECONDS(3600);
    rig->seen_count = 0;
    rig_start(rig);
    assert_ids(rig, "");
    assert_int_equal(rig_node(rig, "n")->next_seq, 8);
    xy_arena_free(&arena);
}

/* Several nodes; one that is deleted while its row is stored does no harm. */
static void many_nodes_expire(void **state)
{
    struct rig *rig = *state;
    char xml[1024];
    for (unsigned i = 0; i < 50; i++) {
        (void)snprintf(xml, sizeof(xml),
                       PUBSUB("<create node='m%u'/><configure><x xmlns='jabber:x:data' type='submit'>" FIELD(
                           "pubsub#item_expire", "%u") "</x></configure>"),
                       i, 1000 + i % 7);
        (void)rig_ok(rig, ALICE, "set", xml);
        (void)snprintf(xml, sizeof(xml),
                       PUBSUB("<publish node='m%u'><item id='1'><e xmlns='urn:e'/></item></publish>"), i);
        (void)rig_ok(rig, ALICE, "set", xml);
    }
    assert_int_equal(rows(rig), 50);
    rig_restart(rig, false);
    wait_s(rig, 1);
    for (unsigned i = 0; i < rig->shards; i++)
        assert_int_equal(rig_shard(rig, i)->pubsub->stats.nodes, 0); /* nobody needed one yet */
    wait_s(rig, 1000);
    wait_s(rig, 20);
    wait_s(rig, 120);
    assert_int_equal(rows(rig), 0);
    assert_int_equal(expired(rig), 50);
    for (unsigned i = 0; i < rig->shards; i++)
        assert_int_equal(rig_shard(rig, i)->pubsub->stats.items, 0);
}

static void expiry_by_configuration(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", CREATE(""));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    wait_s(rig, 100);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("2"));
    (void)rig_ok(rig, ALICE, "set", CONFIGURE(FIELD("pubsub#item_expire", "60")));
    assert_ids(rig, "2");
    (void)rig_ok(rig, ALICE, "set", CONFIGURE(FIELD("pubsub#item_expire", "max")));
    wait_s(rig, 100);
    assert_ids(rig, "2");
}

/* What is owed too long is given up also where the node is not in memory. */
static void backlog_age_of_unloaded_nodes(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", CREATE(FIELD("pubsub#max_items", "1")));
    (void)rig_ok(rig, BOB, "set",
                 SUBSCRIBE("bob@example.org/slow", DELIVERY_FIELD("max_backlog_age", "100")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("2"));
    rig_restart(rig, true);
    wait_s(rig, 103);
    wait_s(rig, 3);
    wait_s(rig, 3);
    unsigned owner = shard_owner(rig_shard(rig, 0), XY_STR("n"));
    assert_int_equal(atomic_load(&rig_shard(rig, owner)->stats->items_skipped), 2);
}

/* The service's own bound: larger ones are refused, and `max` means it. */
static void backlogs_are_bounded_by_the_service(void **state)
{
    struct rig *rig = *state;
    rig->config->limits.backlog_bytes = 300;
    (void)rig_ok(rig, ALICE, "set", CREATE(FIELD("pubsub#max_items", "1")));
    const char *answer =
        rig_iq(rig, BOB, "set", SUBSCRIBE("bob@example.org", DELIVERY_FIELD("max_backlog_bytes", "301")));
    assert_has(answer, "invalid-options");
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", "")); /* whatever is usual fits */
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", DELIVERY_FIELD("max_backlog_bytes", "max")));
    for (unsigned i = 0; i < 20; i++)
        (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    wait_s(rig, 3);
    assert_int_equal(node_subscription(rig_node(rig, "n"), 1)->claim.cursor, 20 - 300 / strlen(ITEM_BYTES));
}

/* limits.memory: what would have to be kept is refused for now, what takes no more goes on. */
static void short_of_memory(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", CREATE(FIELD("pubsub#max_items", "2")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    shard_group_set_memory_short(rig->group, true);
    const char *answer = rig_iq(rig, ALICE, "set", PUBLISH("2"));
    assert_has(answer, "<resource-constraint ");
    assert_has(answer, "type='wait'");
    (void)rig_ok(rig, ALICE, "set", PUBLISH("1"));
    shard_group_set_memory_short(rig->group, false);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("2"));
    shard_group_set_memory_short(rig->group, true);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("3"));
    assert_ids(rig, "23");
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org/slow", ""));
    assert_has(rig_iq(rig, ALICE, "set", PUBLISH("4")), "<resource-constraint ");
    shard_group_set_memory_short(rig->group, false);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("4"));
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
        BOTH(bytes_push_out_the_oldest),
        BOTH(reject_instead_of_dropping),
        BOTH(reject_bytes),
        BOTH(reject_while_a_backlog_is_full),
        BOTH(reject_while_a_backlog_is_old),
        BOTH(every_backlog_has_its_own_bound),
        BOTH(backlogs_are_bounded_by_the_service),
        BOTH(short_of_memory),
        BOTH(items_expire),
        BOTH(expired_items_are_not_shown),
        BOTH(expired_and_owed_stays_owed),
        BOTH(expiry_of_unloaded_nodes),
        BOTH(many_nodes_expire),
        BOTH(expiry_by_configuration),
        BOTH(backlog_age_of_unloaded_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
