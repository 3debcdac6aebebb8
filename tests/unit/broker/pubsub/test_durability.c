/* durability=async and memory, and dedup_window: what is answered when, what survives a crash, what is not repeated. */
#include "rig.h"

#include "broker/shard/stats.h"

#define ALICE                   "alice@example.org/a"
#define BOB                     "bob@example.org/b"
#define FIELD(name, value)      "<field var='" name "'><value>" value "</value></field>"
#define NODE_FIELD(name, value) FIELD("{urn:xylem:node:0}" name, value)
#define CREATE(fields)                                                                                       \
    PUBSUB("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>" fields "</x></configure>")
#define CONFIGURE(fields)                                                                                    \
    OWNER("<configure node='n'><x xmlns='jabber:x:data' type='submit'>" fields "</x></configure>")
#define SUBSCRIBE PUBSUB("<subscribe node='n' jid='bob@example.org'/>")
#define SUBSCRIBE_DURABLE                                                                                    \
    PUBSUB(                                                                                                  \
        "<subscribe node='n' jid='bob@example.org'/><options><x xmlns='jabber:x:data' type='submit'>" FIELD( \
            "{urn:xylem:delivery:0}mode", "at-least-once") "</x></options>")
#define PAYLOAD        "<e xmlns='urn:e'>x</e>"
#define ITEM(id)       "<item id='" id "'>" PAYLOAD "</item>"
#define PUBLISH(items) PUBSUB("<publish node='n'>" items "</publish>")

static const char *items(struct rig *rig)
{
    return rig_ok(rig, ALICE, "get", PUBSUB("<items node='n'/>"));
}

/* A request whose answer is not waited for: nothing is committed. */
static uint32_t answers_without_commit(struct rig *rig, const char *payload)
{
    char xml[2048];
    uint32_t before = rig->answers;
    (void)snprintf(xml, sizeof(xml), "<iq type='set' id='q' to='pubsub.example.org'>%s</iq>", payload);
    rig_stanza(rig, 0, ALICE, xml);
    rig_turns(rig);
    return rig->answers - before;
}

static void setup(struct rig *rig, const char *create)
{
    (void)rig_ok(rig, ALICE, "set", create);
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE);
    rig->seen_count = 0;
}

static void sync_answers_after_the_commit(void **state)
{
    struct rig *rig = *state;
    setup(rig, CREATE(""));
    assert_int_equal(answers_without_commit(rig, PUBLISH(ITEM("1"))), 0);
    assert_int_equal(rig_count(rig, "publish", NULL), 0);
    rig_run(rig);
    assert_int_equal(rig_count(rig, "publish", NULL), 1);
}

/* The publisher is answered at once; whoever reads or receives the item waits for the disk, so that no number is seen
 * twice. */
static void async_answers_at_once(void **state)
{
    struct rig *rig = *state;
    setup(rig, CREATE(NODE_FIELD("durability", "async")));
    assert_int_equal(answers_without_commit(rig, PUBLISH(ITEM("1"))), 1);
    assert_has(rig->answer, "type='result'");
    assert_int_equal(answers_without_commit(rig, PUBLISH(ITEM("2"))), 1);
    assert_int_equal(rig_count(rig, "publish", NULL), 0);
    rig_run(rig); /* time passes: what nobody waits for goes */
    assert_int_equal(rig_count(rig, "publish", NULL), 2);
    rig_restart(rig, true);
    assert_has(items(rig), "id='2'");
}

/* A node made by the very publish is there before anybody is told so. */
static void async_waits_for_what_it_depends_on(void **state)
{
    struct rig *rig = *state;
    uint32_t before = rig->answers;
    rig_stanza(
        rig, 0, ALICE,
        "<iq type='set' id='q' to='pubsub.example.org'><pubsub xmlns='" NS_PUBSUB "'>"
        "<publish node='n'>" ITEM("1") "</publish><publish-options><x xmlns='jabber:x:data' "
                                       "type='submit'>" NODE_FIELD(
                                           "durability", "async") "</x></publish-options></pubsub></iq>");
    rig_turns(rig);
    assert_int_equal(rig->answers, before);
    rig_run(rig);
    assert_int_equal(rig->answers, before + 1);
}

static void memory_is_memory(void **state)
{
    struct rig *rig = *state;
    struct pubsub_stats stats;
    setup(rig, CREATE(NODE_FIELD("durability", "memory") FIELD("pubsub#max_items", "2")));
    unsigned owner = shard_owner(rig_shard(rig, 0), XY_STR("n"));
    uint64_t epoch = rig_node(rig, "n")->epoch, records = 0;
    struct store_stats store;
    store_stats(rig->store, &store);
    records = store.records;
    assert_int_equal(answers_without_commit(rig, PUBLISH(ITEM("1") ITEM("2"))), 1);
    assert_int_equal(rig_count(rig, "publish", NULL), 2);
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("3")));
    const char *answer = items(rig);
    assert_null(strstr(answer, "id='1'"));
    assert_has(answer, "id='2'");
    assert_has(answer, PAYLOAD);
    pubsub_stats(rig_shard(rig, owner), &stats);
    assert_true(stats.memory_bytes > 0);
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<retract node='n'><item id='2'/></retract>"));
    assert_null(strstr(items(rig), "id='2'"));
    store_stats(rig->store, &store);
    assert_int_equal(store.records, records); /* nothing was written */
    rig_restart(rig, true);
    assert_null(strstr(items(rig), "<item "));
    assert_true(rig_node(rig, "n")->epoch != epoch);
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("4")));
    assert_has(items(rig), "id='4'");
    (void)rig_ok(rig, ALICE, "set", OWNER("<purge node='n'/>"));
    pubsub_stats(rig_shard(rig, owner), &stats);
    assert_int_equal(stats.memory_bytes, 0);
    assert_int_equal(stats.items, 0);
}

static void memory_promises_nothing_it_cannot_keep(void **state)
{
    struct rig *rig = *state;
    setup(rig, CREATE(NODE_FIELD("durability", "memory")));
    const char *answer = rig_iq(rig, BOB, "set", SUBSCRIBE_DURABLE);
    assert_has(answer, "invalid-options");
    assert_has(answer, "at-least-once");
    answer = rig_iq(rig, ALICE, "set", CONFIGURE(NODE_FIELD("dedup_window", "60")));
    assert_has(answer, "<not-acceptable ");
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("1")));
    answer = rig_iq(rig, ALICE, "set", CONFIGURE(NODE_FIELD("durability", "sync")));
    assert_has(answer, "<conflict ");
    uint64_t epoch = rig_node(rig, "n")->epoch;
    (void)rig_ok(rig, ALICE, "set", OWNER("<purge node='n'/>"));
    (void)rig_ok(rig, ALICE, "set", CONFIGURE(NODE_FIELD("durability", "sync")));
    assert_true(rig_node(rig, "n")->epoch != epoch);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE_DURABLE);
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("1")));
    epoch = rig_node(rig, "n")->epoch;
    answer = rig_iq(rig, ALICE, "set", CONFIGURE(NODE_FIELD("durability", "memory")));
    assert_has(answer, "<conflict ");
    rig_restart(rig, true);
    assert_has(items(rig), "id='1'");
    assert_true(rig_node(rig, "n")->epoch == epoch);
}

/* To memory and back: what stood on disk before does not come back, and its numbers are not used again. */
static void memory_and_back(void **state)
{
    struct rig *rig = *state;
    setup(rig, CREATE(""));
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("1") ITEM("2")));
    (void)rig_ok(rig, ALICE, "set", OWNER("<purge node='n'/>"));
    (void)rig_ok(rig, ALICE, "set", CONFIGURE(NODE_FIELD("durability", "memory")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("3")));
    rig_restart(rig, true);
    (void)rig_ok(rig, ALICE, "set", CONFIGURE(NODE_FIELD("durability", "sync")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("4")));
    assert_true(index_newest(&rig_node(rig, "n")->items)->seq >= 3);
    rig_restart(rig, true);
    const char *answer = items(rig);
    assert_has(answer, "id='4'");
    assert_null(strstr(answer, "id='3'"));
    assert_null(strstr(answer, "id='1'"));
}

/* --- dedup_window ---------------------------------------------------------------------------------------------------- */

static uint64_t duplicates(struct rig *rig)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < rig->shards; i++)
        sum += atomic_load(&rig_shard(rig, i)->stats->publishes_duplicate);
    return sum;
}

static void an_id_within_the_window(void **state)
{
    struct rig *rig = *state;
    setup(rig, CREATE(NODE_FIELD("dedup_window", "60") FIELD("pubsub#max_items", "max")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("1")));
    static char first[sizeof(rig->answer)];
    memcpy(first, rig->answer, sizeof(first));
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("1")));
    assert_string_equal(rig->answer, first);
    assert_int_equal(rig_count(rig, "publish", NULL), 1);
    assert_int_equal(duplicates(rig), 1);
    /* of several those that are new, and each once */
    const char *answer = rig_ok(rig, ALICE, "set", PUBLISH(ITEM("1") ITEM("2") ITEM("2")));
    assert_has(answer, "id='1'");
    assert_has(answer, "id='2'");
    assert_int_equal(rig_count(rig, "publish", NULL), 2);
    /* it does not matter what became of the item */
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<retract node='n'><item id='1'/></retract>"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("1")));
    assert_null(strstr(items(rig), "id='1'"));
    for (unsigned crash = 0; crash < 2; crash++) {
        rig_restart(rig, crash != 0);
        (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("1") ITEM("2")));
        assert_int_equal(rig_node(rig, "n")->next_seq, 3);
    }
    rig->now_us += 61 * 1000000ull;
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("1")));
    assert_int_equal(rig_node(rig, "n")->next_seq, 4);
    assert_has(items(rig), "id='1'");
    /* ids of another node, and generated ones, are others */
    (void)rig_ok(rig, ALICE, "set", PUBLISH("<item>" PAYLOAD "</item><item>" PAYLOAD "</item>"));
    assert_int_equal(rig_node(rig, "n")->next_seq, 6);
}

/* A node that keeps nothing still knows what it has sent. */
static void an_id_of_a_node_that_keeps_nothing(void **state)
{
    struct rig *rig = *state;
    setup(rig, CREATE(NODE_FIELD("dedup_window", "7200") FIELD("pubsub#persist_items", "0")));
    assert_int_equal(answers_without_commit(rig, PUBLISH(ITEM("1"))), 0);
    assert_int_equal(rig_count(rig, "publish", NULL), 0);
    rig_run(rig);
    assert_int_equal(rig_count(rig, "publish", NULL), 1);
    rig_restart(rig, true);
    rig->now_us += 7000 * 1000000ull;
    rig_run(rig);
    (void)store_step_checkpoint(rig->store);
    (void)store_step_checkpoint(rig->store);
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("1")));
    assert_int_equal(duplicates(rig), 1);
}

/* What the windows left behind goes from the store. */
static void ids_are_forgotten(void **state)
{
    struct rig *rig = *state;
    struct xy_arena *arena = xy_arena_new();
    struct store_entry entries[16];
    bool more;
    setup(rig, CREATE(NODE_FIELD("dedup_window", "60") FIELD("pubsub#max_items", "1")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("1")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("2")));
    (void)store_step_checkpoint(rig->store);
    assert_int_equal(
        store_scan_tables(rig->store, STORE_DEDUP, XY_STR(""), XY_STR(""), arena, entries, 16, &more), 2);
    rig->now_us += 100 * 1000000ull;
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("3")));
    (void)store_step_checkpoint(rig->store);
    assert_int_equal(
        store_scan_tables(rig->store, STORE_DEDUP, XY_STR(""), XY_STR(""), arena, entries, 16, &more), 1);
    xy_arena_free(&arena);
}

/* What was refused may come again. */
static void a_refused_id_is_not_used_up(void **state)
{
    struct rig *rig = *state;
    setup(rig, CREATE(NODE_FIELD("dedup_window", "60") NODE_FIELD("overflow", "reject")
                          FIELD("pubsub#max_items", "1")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("1")));
    assert_has(rig_iq(rig, ALICE, "set", PUBLISH(ITEM("2"))), "node-full");
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("1"))); /* a duplicate is no overflow */
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<retract node='n'><item id='1'/></retract>"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH(ITEM("2")));
    assert_has(items(rig), "id='2'");
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
        BOTH(sync_answers_after_the_commit),
        BOTH(async_answers_at_once),
        BOTH(async_waits_for_what_it_depends_on),
        BOTH(memory_is_memory),
        BOTH(memory_promises_nothing_it_cannot_keep),
        BOTH(memory_and_back),
        BOTH(an_id_within_the_window),
        BOTH(an_id_of_a_node_that_keeps_nothing),
        BOTH(ids_are_forgotten),
        BOTH(a_refused_id_is_not_used_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
