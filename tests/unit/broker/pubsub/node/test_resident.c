/* Nodes in memory: large ones come in pages while requests wait, idle ones leave and lose nothing. */
#include "tests/unit/broker/pubsub/rig.h"

#include "broker/pubsub/node/remains.h"
#include "broker/pubsub/node/resident.h"
#include "broker/shard/stats.h"

#define ALICE              "alice@example.org/a"
#define BOB                "bob@example.org/b"
#define FIELD(name, value) "<field var='" name "'><value>" value "</value></field>"
#define CREATE(fields)                                                                                       \
    PUBSUB("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>" fields "</x></configure>")
#define SUBSCRIBE(node)                                                                                      \
    PUBSUB("<subscribe node='" node "' jid='bob@example.org/b'/><options><x xmlns='jabber:x:data' "          \
           "type='submit'>" FIELD("{urn:xylem:delivery:0}mode", "at-least-once") "</x></options>")
#define LARGE 4000 /* items: more pages than are loaded at once */

static void small_budget(struct rig *rig)
{
    rig->config->limits.node_memory = 4096;
}

static struct pubsub_stats stats(struct rig *rig)
{
    struct pubsub_stats sum = { 0 }, one;
    for (unsigned i = 0; i < rig->shards; i++) {
        pubsub_stats(rig_shard(rig, i), &one);
        sum.nodes += one.nodes;
        sum.node_bytes += one.node_bytes;
        sum.subscriptions += one.subscriptions;
        sum.items += one.items;
    }
    return sum;
}

static uint64_t unloaded(struct rig *rig)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < rig->shards; i++)
        sum += atomic_load(&rig_shard(rig, i)->stats->nodes_unloaded);
    return sum;
}

static struct pubsub *owner(struct rig *rig, const char *name)
{
    return rig_shard(rig, shard_owner(rig_shard(rig, 0), xy_str(name)))->pubsub;
}

static bool here(struct rig *rig, const char *name)
{
    return xy_table_get(owner(rig, name)->nodes, xy_str(name)) != NULL;
}

/* Other nodes push this one out. */
static void push_out(struct rig *rig, const char *name)
{
    char other[32];
    for (unsigned i = 0; i < 200 && here(rig, name); i++) {
        (void)snprintf(other, sizeof(other), "other%u", i);
        rig_publish(rig, other, "x");
        rig_run(rig);
    }
    assert_false(here(rig, name));
}

static void idle_nodes_leave(void **state)
{
    struct rig *rig = *state;
    char name[32], xml[256];
    small_budget(rig);
    for (unsigned i = 0; i < 90; i++) {
        (void)snprintf(name, sizeof(name), "m%u", i);
        rig_publish(rig, name, "a");
        rig_publish(rig, name, "b");
    }
    rig_run(rig);
    assert_true(unloaded(rig) > 50);
    assert_true(stats(rig).node_bytes <= RESIDENT_STAY_FACTOR * 4096 + rig->shards * 2048);
    assert_int_equal(stats(rig).items, 2 * stats(rig).nodes);
    for (unsigned i = 0; i < 90; i++) {
        (void)snprintf(name, sizeof(name), "m%u", i);
        rig_publish(rig, name, "c");
        (void)snprintf(xml, sizeof(xml), PUBSUB("<items node='%s'/>"), name);
        const char *answer = rig_ok(rig, ALICE, "get", xml);
        assert_has(answer, "id='a'");
        assert_has(answer, "id='b'");
        assert_has(answer, "id='c'");
        assert_int_equal(rig_node(rig, name)->next_seq, 4);
    }
    for (unsigned i = 0; i < 90; i++) {
        (void)snprintf(xml, sizeof(xml), OWNER("<delete node='m%u'/>"), i);
        (void)rig_ok(rig, ALICE, "set", xml);
    }
    rig_run(rig);
    assert_int_equal(stats(rig).nodes, 0);
    assert_int_equal(stats(rig).node_bytes, 0);
    assert_int_equal(stats(rig).items, 0);
}

/* A large node that is used now and then is not read again and again, although it alone is more than there may be. */
static void what_was_used_lately_stays(void **state)
{
    struct rig *rig = *state;
    char id[32];
    (void)rig_ok(rig, ALICE, "set", CREATE(FIELD("pubsub#max_items", "max")));
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(id, sizeof(id), "i%u", i);
        rig_publish(rig, "n", id);
    }
    rig->config->limits.node_memory = 4096 * rig->shards;
    for (unsigned i = 0; i < 60; i++) {
        char other[32];
        (void)snprintf(other, sizeof(other), "other%u", i % 5);
        rig_publish(rig, i % 10 == 0 ? "n" : other, "i0");
        assert_true(here(rig, "n"));
    }
    rig->now_us += RESIDENT_STAY_US;
    rig_publish(rig, "other1", "x");
    push_out(rig, "n");
}

/* Somebody is there for whom it works: it stays, however little memory there is. */
static void nodes_in_use_stay(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", CREATE(""));
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)rig_ok(rig, BOB, "set", PUBSUB("<subscribe node='n' jid='bob@example.org'/>"));
    small_budget(rig);
    for (unsigned i = 0; i < 50; i++) {
        char other[32];
        (void)snprintf(other, sizeof(other), "other%u", i);
        rig_publish(rig, other, "x");
    }
    assert_true(here(rig, "n"));
    rig->seen_count = 0;
    rig_publish(rig, "n", "i");
    assert_int_equal(rig_count(rig, "publish", NULL), 1);
    rig_offline(rig, 1, "bob@example.org");
    push_out(rig, "n");
    assert_int_equal(stats(rig).subscriptions, 0);
}

/* Owed while the node was not in memory; the subscriber's coming brings it back. */
static void what_is_owed_stays_owed(void **state)
{
    struct rig *rig = *state;
    const struct seen *seen;
    (void)rig_ok(rig, ALICE, "set", CREATE(FIELD("pubsub#max_items", "1")));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("n"));
    for (unsigned i = 0; i < 5; i++)
        rig_publish(rig, "n", "i");
    small_budget(rig);
    for (unsigned round = 0; round < 2; round++) {
        push_out(rig, "n");
        rig->seen_count = 0;
        rig_online(rig, 1, "bob@example.org", "b", 0, true);
        assert_true(here(rig, "n"));
        assert_int_equal(rig_count(rig, "attach", &seen), 1);
        struct claim_key key = seen->key;
        struct shard *shard = rig_shard(rig, rig_session(1).shard);
        delivery_attached(shard, key, rig_session(1), 0);
        rig_run(rig);
        assert_int_equal(rig_count(rig, "one", &seen), 5 - round * 2);
        assert_int_equal(seen->seq, 5);
        assert_int_equal(seen->attempt > 1, round > 0); /* marked when it was sent before, and only then */
        delivery_acked(shard, key, rig_session(1), 2);
        rig_run(rig);
        delivery_released(shard, key, rig_session(1), 2);
        rig_offline(rig, 1, "bob@example.org");
    }
    assert_int_equal(rig_node(rig, "n")->items.live, 3);
}

static void publish_ids_are_remembered(void **state)
{
    struct rig *rig = *state;
    const char *publish = PUBSUB("<publish node='n' xmlns:d='urn:xylem:delivery:0' "
                                 "d:publish-id='p:1'><item><e xmlns='urn:e'/></item></publish>");
    const char *whole = PUBSUB("<publish node='n' xmlns:d='urn:xylem:delivery:0' d:publish-id='w'><item><e "
                               "xmlns='urn:e'/></item></publish>");
    (void)rig_ok(rig, ALICE, "set", publish);
    (void)rig_ok(rig, ALICE, "set", whole);
    small_budget(rig);
    push_out(rig, "n");
    (void)rig_ok(rig, ALICE, "set", publish);
    (void)rig_ok(rig, ALICE, "set", whole);
    assert_int_equal(rig_node(rig, "n")->next_seq, 3);
}

static void items_in_memory_only_stay(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", CREATE(FIELD("{urn:xylem:node:0}durability", "memory")));
    rig_publish(rig, "n", "i");
    small_budget(rig);
    for (unsigned i = 0; i < 50; i++) {
        char other[32];
        (void)snprintf(other, sizeof(other), "other%u", i);
        rig_publish(rig, other, "x");
    }
    assert_has(rig_ok(rig, ALICE, "get", PUBSUB("<items node='n'/>")), "id='i'");
    (void)rig_ok(rig, ALICE, "set", OWNER("<purge node='n'/>"));
    push_out(rig, "n");
}

/* --- large nodes ----------------------------------------------------------------------------------------------------- */

static void fill(struct rig *rig)
{
    char xml[64 * 1024];
    (void)rig_ok(rig, ALICE, "set", CREATE(FIELD("pubsub#max_items", "max")));
    for (unsigned i = 0; i < LARGE; i += 200) {
        size_t len = (size_t)snprintf(
            xml, sizeof(xml),
            "<iq type='set' id='q' to='pubsub.example.org'><pubsub xmlns='" NS_PUBSUB "'><publish node='n'>");
        for (unsigned n = i; n < i + 200; n++)
            len +=
                (size_t)snprintf(xml + len, sizeof(xml) - len, "<item id='i%u'><e xmlns='urn:e'/></item>", n);
        (void)snprintf(xml + len, sizeof(xml) - len, "</publish></pubsub></iq>");
        rig_stanza(rig, 0, ALICE, xml);
        rig_run(rig);
        assert_has(rig->answer, "type='result'");
    }
}

static void ask(struct rig *rig, const char *type, const char *payload)
{
    char xml[2048];
    (void)snprintf(xml, sizeof(xml), "<iq type='%s' id='q' to='pubsub.example.org'>%s</iq>", type, payload);
    rig_stanza(rig, 0, ALICE, xml);
}

static void requests_wait_in_order(void **state)
{
    struct rig *rig = *state;
    struct node *node;
    fill(rig);
    rig_restart(rig, true);
    uint32_t before = rig->answers;
    assert_int_equal(resident_find(owner(rig, "n"), XY_STR("n"), &node), RESIDENT_LOADING);
    assert_null(node);
    ask(rig, "set", PUBSUB("<create node='n'/>")); /* it is there, although nobody can see it yet */
    ask(rig, "set", PUBSUB("<publish node='n'><item id='new'><e xmlns='urn:e'/></item></publish>"));
    ask(rig, "get", PUBSUB("<items node='n'><item id='new'/></items>"));
    rig_run(rig);
    assert_int_equal(rig->answers, before + 3);
    assert_has(rig->answer, "<item id='new'");
    node = rig_node(rig, "n");
    assert_int_equal(node->next_seq, LARGE + 2);
    assert_int_equal(node->items.retained_count, LARGE + 1);
    ask(rig, "set", PUBSUB("<create node='n'/>"));
    rig_run(rig);
    assert_has(rig->answer, "<conflict ");
}

/* The broker stops while a node is being read and somebody waits for it. */
static void stopped_while_loading(void **state)
{
    struct rig *rig = *state;
    struct node *node;
    fill(rig);
    rig_restart(rig, true);
    assert_int_equal(resident_find(owner(rig, "n"), XY_STR("n"), &node), RESIDENT_LOADING);
    ask(rig, "get", PUBSUB("<items node='n'/>"));
    rig_turns(rig); /* no time passes: however many turns there are, the node is not read within them */
    assert_int_equal(resident_find(owner(rig, "n"), XY_STR("n"), &node), RESIDENT_LOADING);
    rig_restart(rig, true);
    assert_has(rig_ok(rig, ALICE, "get", PUBSUB("<items node='n' max_items='1'/>")), "id='i3999'");
}

/* A subscriber comes while it is being read. */
static void subscribers_come_while_loading(void **state)
{
    struct rig *rig = *state;
    const struct seen *seen;
    struct node *node;
    fill(rig);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("n"));
    rig_publish(rig, "n", "owed");
    rig_restart(rig, true);
    assert_int_equal(resident_find(owner(rig, "n"), XY_STR("n"), &node), RESIDENT_LOADING);
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    rig_run(rig);
    assert_int_equal(rig_count(rig, "attach", &seen), 1);
    delivery_attached(rig_shard(rig, rig_session(1).shard), seen->key, rig_session(1), 0);
    rig_run(rig);
    assert_int_equal(rig_count(rig, "one", &seen), 1);
    assert_int_equal(seen->seq, LARGE + 1);
}

/* A resumed session says what it had received before the restart while the node is being read. */
static void received_while_loading(void **state)
{
    struct rig *rig = *state;
    struct node *node;
    fill(rig);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("n"));
    rig_publish(rig, "n", "owed");
    rig_publish(rig, "n", "more");
    struct claim_key key = { .node = rig_node(rig, "n")->number,
                             .subscription = 1,
                             .owner = shard_owner(rig_shard(rig, 0), XY_STR("n")) };
    rig_restart(rig, true);
    assert_int_equal(resident_find(owner(rig, "n"), XY_STR("n"), &node), RESIDENT_LOADING);
    claim_owner.received_before(rig_shard(rig, key.owner), XY_STR("n"), key, LARGE + 1);
    rig_run(rig);
    assert_int_equal(node_subscription(rig_node(rig, "n"), 1)->claim.cursor, LARGE + 1);
}

/* --- leaving bit by bit ---------------------------------------------------------------------------------------------- */

/* Turns of the node's shard, a little time between them, until none of its items is in memory. No turn frees more than a
 * slice. */
static unsigned turns_until_gone(struct rig *rig)
{
    unsigned turns = 0;
    for (uint64_t before = stats(rig).items; before > 0; turns++) {
        rig->now_us += REMAINS_PAUSE_US;
        for (unsigned i = 0; i < rig->shards; i++)
            (void)shard_turn(rig_shard(rig, i));
        (void)store_step_commit(rig->store);
        uint64_t left = stats(rig).items;
        assert_true(before - left <= REMAINS_SLICE);
        before = left;
        assert_true(turns < 100);
    }
    rig_run(rig);
    return turns;
}

static void large_nodes_go_bit_by_bit(void **state)
{
    struct rig *rig = *state;
    fill(rig);
    ask(rig, "set", OWNER("<purge node='n'/>"));
    rig_turns(rig); /* no time passes */
    assert_true(stats(rig).items > LARGE - REMAINS_SLICE - 1);
    assert_int_equal(rig_node(rig, "n")->items.live, 0);
    assert_true(turns_until_gone(rig) > 1);
    rig_publish(rig, "n", "i7"); /* as if nothing of that id had been there */
    assert_int_equal(rig_node(rig, "n")->items.retained_count, 1);
    assert_int_equal(index_find_id(&rig_node(rig, "n")->items, XY_STR("i7"))->seq, LARGE + 1);
    assert_null(strstr(rig_ok(rig, ALICE, "get", PUBSUB("<items node='n'/>")), "id='i8'"));
    rig_restart(rig, true);
    assert_int_equal(rig_node(rig, "n")->items.live, 1);
    (void)rig_ok(rig, ALICE, "set", OWNER("<delete node='n'/>"));
    fill(rig);
    ask(rig, "set", OWNER("<delete node='n'/>"));
    assert_true(turns_until_gone(rig) > 1);
    fill(rig);
    ask(rig, "set", OWNER("<delete node='n'/>"));
    rig_turns(rig);
    (void)store_step_commit(rig->store);
    rig_turns(rig); /* no time passes: the broker stops in the midst of it */
    assert_true(stats(rig).items > LARGE - REMAINS_SLICE - 1);
}

/* Lists of all nodes need none of them. */
static void lists_load_nothing(void **state)
{
    struct rig *rig = *state;
    char xml[256];
    for (unsigned i = 0; i < 30; i++) {
        (void)snprintf(xml, sizeof(xml), PUBSUB("<create node='m%u'/>"), i);
        (void)rig_ok(rig, ALICE, "set", xml);
        (void)snprintf(xml, sizeof(xml), PUBSUB("<subscribe node='m%u' jid='bob@example.org/r%u'/>"), i, i);
        (void)rig_ok(rig, BOB, "set", xml);
    }
    (void)rig_ok(rig, BOB, "set", PUBSUB("<subscribe node='m7' jid='bob@example.org'/>"));
    rig_restart(rig, false);
    const char *answer = rig_ok(rig, BOB, "get", PUBSUB("<subscriptions/>"));
    assert_has(answer, "node='m29' jid='bob@example.org/r29'");
    assert_has(answer, "node='m7' jid='bob@example.org/r7'");
    assert_has(answer, "node='m7' jid='bob@example.org' ");
    answer = rig_ok(rig, ALICE, "get", PUBSUB("<affiliations/>"));
    assert_has(answer, "node='m29' affiliation='owner'");
    assert_int_equal(stats(rig).nodes, 0);
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
        BOTH(idle_nodes_leave),        BOTH(what_was_used_lately_stays), BOTH(nodes_in_use_stay),
        BOTH(what_is_owed_stays_owed), BOTH(publish_ids_are_remembered), BOTH(items_in_memory_only_stay),
        BOTH(requests_wait_in_order),  BOTH(stopped_while_loading),      BOTH(subscribers_come_while_loading),
        BOTH(received_while_loading),  BOTH(lists_load_nothing),         BOTH(large_nodes_go_bit_by_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
