/* Limits per account over all its nodes: what is refused and what makes room again, over restarts, reloads, and while what
 * was there is still being counted. */
#include "tests/unit/broker/pubsub/rig.h"

#include "broker/pubsub/node/resident.h"
#include "broker/pubsub/quota/quota.h"
#include "broker/shard/stats.h"

#define ALICE              "alice@example.org/a"
#define BOB                "bob@example.org/b"
#define FIELD(name, value) "<field var='" name "'><value>" value "</value></field>"
#define CREATE(node, fields)                                                                                 \
    PUBSUB("<create node='" node "'/><configure><x xmlns='jabber:x:data' type='submit'>" fields              \
           "</x></configure>")
#define KEEP                 FIELD("pubsub#max_items", "max")
#define ITEM(id)             "<item id='" id "'><e xmlns='urn:e'>x</e></item>"
#define PUBLISH(node, items) PUBSUB("<publish node='" node "'>" items "</publish>")
#define RETRACT(node, id)    PUBSUB("<retract node='" node "'><item id='" id "'/></retract>")
#define SUBSCRIBE(node)      PUBSUB("<subscribe node='" node "' jid='bob@example.org'/>")
#define UNSUBSCRIBE(node)    PUBSUB("<unsubscribe node='" node "' jid='bob@example.org'/>")

static void reload(struct rig *rig)
{
    for (unsigned i = 0; i < rig->shards; i++)
        pubsub_reload(rig_shard(rig, i));
}

/* What the broker has counted for an account. */
struct has {
    uint64_t nodes, items, bytes, subscriptions;
};

static struct has has(struct rig *rig, const char *bare)
{
    const struct quota_account *account = book_find(rig_shard(rig, 0)->pubsub->quota->book, xy_str(bare));
    struct has has = { 0 };
    if (account == NULL)
        return has;
    return (struct has){ account->nodes, atomic_load(&account->items), atomic_load(&account->bytes),
                         account->subscriptions };
}

static void wait_counted(struct rig *rig)
{
    bool counting = true;
    for (unsigned n = 0; counting; n++) {
        assert_true(n < 10000);
        rig_run(rig);
        counting = false;
        for (unsigned i = 0; i < rig->shards; i++)
            counting |= quota_is_counting(rig_shard(rig, i)->pubsub);
    }
}

static void limited(struct rig *rig, uint64_t items, uint64_t bytes, uint64_t subscriptions)
{
    rig->config->limits.items_per_account = items;
    rig->config->limits.bytes_per_account = bytes;
    rig->config->limits.subscriptions_per_account = subscriptions;
    reload(rig);
    wait_counted(rig);
}

static void refused(struct rig *rig, const char *from, const char *payload)
{
    const char *answer = rig_iq(rig, from, "set", payload);
    assert_has(answer, "type='wait'");
    assert_has(answer, "<resource-constraint");
    assert_has(answer, "retract items or delete nodes first");
}

/* Three nodes with an item each, of five there may be. */
static void setup(struct rig *rig)
{
    limited(rig, 5, CONFIG_UNLIMITED, CONFIG_UNLIMITED);
    (void)rig_ok(rig, ALICE, "set", CREATE("a", KEEP));
    (void)rig_ok(rig, ALICE, "set", CREATE("b", KEEP));
    (void)rig_ok(rig, ALICE, "set", CREATE("c", KEEP));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("a", ITEM("1")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("b", ITEM("1")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("c", ITEM("1")));
}

static void items_of_all_nodes(void **state)
{
    struct rig *rig = *state;
    setup(rig);
    refused(rig, ALICE, PUBLISH("a", ITEM("2") ITEM("3") ITEM("4"))); /* together or not at all */
    assert_null(strstr(rig_ok(rig, ALICE, "get", PUBSUB("<items node='a'/>")), "id='2'"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("a", ITEM("2") ITEM("3")));
    refused(rig, ALICE, PUBLISH("b", ITEM("2")));
    refused(rig, ALICE, PUBLISH("new", ITEM("1"))); /* it makes the node, and takes it back */
    assert_has(rig_iq(rig, ALICE, "get", PUBSUB("<items node='new'/>")), "<item-not-found");
    assert_int_equal(has(rig, "alice@example.org").nodes, 3);
    assert_int_equal(has(rig, "alice@example.org").items, 5);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("b", ITEM("1")));  /* takes the place of another */
    (void)rig_ok(rig, BOB, "set", PUBLISH("bobs", ITEM("1"))); /* nobody else is concerned */
    assert_int_equal(atomic_load(&rig_shard(rig, shard_owner(rig_shard(rig, 0), XY_STR("b")))
                                      ->stats->publishes_refused_account) > 0,
                     1);
}

static void what_leaves_makes_room(void **state)
{
    struct rig *rig = *state;
    setup(rig);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("a", ITEM("2") ITEM("3")));
    refused(rig, ALICE, PUBLISH("b", ITEM("2")));
    (void)rig_ok(rig, ALICE, "set", RETRACT("a", "2"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("b", ITEM("2")));
    refused(rig, ALICE, PUBLISH("b", ITEM("3")));
    (void)rig_ok(rig, ALICE, "set", OWNER("<purge node='b'/>"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("b", ITEM("3") ITEM("4")));
    refused(rig, ALICE, PUBLISH("b", ITEM("5")));
    (void)rig_ok(rig, ALICE, "set", OWNER("<delete node='a'/>"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("b", ITEM("5") ITEM("6")));
    refused(rig, ALICE, PUBLISH("c", ITEM("7")));
    (void)rig_ok(rig, ALICE, "set",
                 OWNER("<configure node='b'><x xmlns='jabber:x:data' type='submit'>" FIELD(
                     "pubsub#max_items", "2") "</x></configure>"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("c", ITEM("7") ITEM("8")));
    refused(rig, ALICE, PUBLISH("c", ITEM("9")));
}

/* A node that is full by itself drops its oldest; one that is not does not because the account is full. */
static void dropping_the_oldest_makes_room(void **state)
{
    struct rig *rig = *state;
    setup(rig);
    (void)rig_ok(rig, ALICE, "set", CREATE("two", FIELD("pubsub#max_items", "2")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("two", ITEM("1") ITEM("2")));
    refused(rig, ALICE, PUBLISH("a", ITEM("2")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("two", ITEM("3")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("two", ITEM("4") ITEM("5")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("two", ITEM("4") ITEM("6"))); /* one drops, one replaces */
    assert_int_equal(has(rig, "alice@example.org").items, 5);
    refused(rig, ALICE, PUBLISH("a", ITEM("2")));
}

static void publish_bytes(struct rig *rig, const char *node, const char *id, int bytes, bool fits)
{
    char xml[8192];
    (void)snprintf(xml, sizeof(xml),
                   PUBSUB("<publish node='%s'><item id='%s'><e xmlns='urn:e'>%0*d</e></item></publish>"),
                   node, id, bytes, 0);
    if (fits)
        (void)rig_ok(rig, ALICE, "set", xml);
    else
        refused(rig, ALICE, xml);
}

static void bytes_of_all_nodes(void **state)
{
    struct rig *rig = *state;
    limited(rig, CONFIG_UNLIMITED, 4096, CONFIG_UNLIMITED);
    (void)rig_ok(rig, ALICE, "set", CREATE("a", KEEP));
    (void)rig_ok(rig, ALICE, "set", CREATE("b", KEEP));
    (void)rig_ok(rig, ALICE, "set", CREATE("small", FIELD("{urn:xylem:node:0}max_bytes", "1500") KEEP));
    publish_bytes(rig, "a", "1", 1900, true);
    publish_bytes(rig, "b", "1", 1900, true);
    publish_bytes(rig, "b", "2", 250, false);
    publish_bytes(rig, "b", "1", 800, true); /* smaller than before */
    publish_bytes(rig, "small", "1", 900, true);
    publish_bytes(rig, "b", "2", 250, false);
    publish_bytes(rig, "small", "2", 600, true);  /* pushes the first one out */
    publish_bytes(rig, "small", "3", 700, false); /* has room beside it */
    publish_bytes(rig, "b", "2", 250, true);
    assert_true(has(rig, "alice@example.org").bytes <= 4096);
    assert_int_equal(has(rig, "alice@example.org").items, 4);
}

static void over_restarts(void **state)
{
    struct rig *rig = *state;
    setup(rig);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("a", ITEM("2") ITEM("3")));
    struct has before = has(rig, "alice@example.org");
    for (unsigned crash = 0; crash < 2; crash++) {
        rig_restart(rig, crash == 1);
        wait_counted(rig);
        struct has after = has(rig, "alice@example.org");
        assert_memory_equal(&after, &before, sizeof(after));
        refused(rig, ALICE, PUBLISH("b", ITEM("2")));
    }
    (void)rig_ok(rig, ALICE, "set", RETRACT("a", "2"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("b", ITEM("2")));
    refused(rig, ALICE, PUBLISH("b", ITEM("3")));
}

static void limits_change(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", CREATE("a", KEEP));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("a", ITEM("1") ITEM("2") ITEM("3")));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("a"));
    assert_int_equal(has(rig, "alice@example.org").items, 0); /* what is not limited is not counted */
    assert_int_equal(has(rig, "bob@example.org").subscriptions, 0);
    limited(rig, 2, CONFIG_UNLIMITED, 1); /* there is more than that already: it stays */
    assert_int_equal(has(rig, "alice@example.org").items, 3);
    refused(rig, ALICE, PUBLISH("a", ITEM("4")));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("a", ITEM("1")));
    (void)rig_ok(rig, ALICE, "set", RETRACT("a", "1"));
    refused(rig, ALICE, PUBLISH("a", ITEM("4")));
    (void)rig_ok(rig, ALICE, "set", RETRACT("a", "2"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("a", ITEM("4")));
    (void)rig_ok(rig, ALICE, "set", CREATE("b", KEEP));
    assert_has(rig_iq(rig, BOB, "set", SUBSCRIBE("b")), "<too-many-subscriptions");
    limited(rig, 3, CONFIG_UNLIMITED, 2);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("b", ITEM("5")));
    refused(rig, ALICE, PUBLISH("b", ITEM("6")));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("b"));
    limited(rig, CONFIG_UNLIMITED, CONFIG_UNLIMITED, CONFIG_UNLIMITED);
    (void)rig_ok(rig, ALICE, "set", PUBLISH("b", ITEM("6")));
}

static void subscriptions_of_all_nodes(void **state)
{
    struct rig *rig = *state;
    limited(rig, CONFIG_UNLIMITED, CONFIG_UNLIMITED, 2);
    (void)rig_ok(rig, ALICE, "set", CREATE("a", KEEP));
    (void)rig_ok(rig, ALICE, "set", CREATE("b", KEEP));
    (void)rig_ok(rig, ALICE, "set", CREATE("c", KEEP));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("a"));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("b"));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("b")); /* the same again */
    const char *answer = rig_iq(rig, BOB, "set", SUBSCRIBE("c"));
    assert_has(answer, "type='wait'");
    assert_has(answer, "<policy-violation");
    assert_has(answer, "<too-many-subscriptions");
    assert_has(answer, "over all nodes");
    assert_has(rig_iq(rig, ALICE, "set",
                      OWNER("<subscriptions node='c'><subscription jid='bob@example.org' "
                            "subscription='subscribed'/></subscriptions>")),
               "<not-acceptable");
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<subscribe node='c' jid='alice@example.org'/>"));
    (void)rig_ok(rig, BOB, "set", UNSUBSCRIBE("a"));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("c"));
    rig_restart(rig, true);
    wait_counted(rig);
    assert_int_equal(has(rig, "bob@example.org").subscriptions, 2);
    assert_has(rig_iq(rig, BOB, "set", SUBSCRIBE("a")), "<too-many-subscriptions");
    (void)rig_ok(rig, ALICE, "set", OWNER("<delete node='b'/>"));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("a"));
    assert_has(rig_iq(rig, BOB, "set", PUBSUB("<subscribe node='a' jid='bob@example.org/x'/>")),
               "<too-many-subscriptions");
}

static void nodes_over_restarts(void **state)
{
    struct rig *rig = *state;
    rig->config->limits.nodes_per_account = 3;
    (void)rig_ok(rig, ALICE, "set", CREATE("a", ""));
    (void)rig_ok(rig, ALICE, "set", CREATE("b", ""));
    (void)rig_ok(rig, ALICE, "set", PUBLISH("c", ITEM("1")));
    for (unsigned crash = 0; crash < 2; crash++) {
        assert_has(rig_iq(rig, ALICE, "set", CREATE("d", "")), "<resource-constraint");
        assert_has(rig_iq(rig, ALICE, "set", PUBLISH("d", ITEM("1"))), "<resource-constraint");
        rig_restart(rig, crash == 1);
    }
    (void)rig_ok(rig, ALICE, "set", OWNER("<delete node='a'/>")); /* before anything was counted */
    (void)rig_ok(rig, ALICE, "set", CREATE("d", ""));
    assert_has(rig_iq(rig, ALICE, "set", CREATE("e", "")), "<resource-constraint");
    (void)rig_ok(rig, BOB, "set", CREATE("e", ""));
    assert_has(rig_iq(rig, ALICE, "set", PUBLISH("c", "<item id='1'/>")), "<payload-required");
    assert_int_equal(has(rig, "alice@example.org").nodes, 3);
}

static unsigned turns_until_counted(struct rig *rig)
{
    unsigned turns = 0;
    for (; !book_nodes_counted(rig_shard(rig, 0)->pubsub->quota->book); turns++) {
        for (unsigned i = 0; i < rig->shards; i++)
            (void)shard_turn(rig_shard(rig, i));
        rig->now_us += 2000;
        assert_true(turns < 10000);
    }
    return turns;
}

/* So many rows that one turn is too short for them. */
static void counts_a_slice_a_turn(void **state)
{
    struct rig *rig = *state;
    Xylem__Store__V1__NodePut put = XYLEM__STORE__V1__NODE_PUT__INIT;
    char name[32];
    for (unsigned i = 0; i < 20000; i++) {
        (void)snprintf(name, sizeof(name), "node-%u", i);
        struct shard *owner = rig_shard(rig, shard_owner(rig_shard(rig, 0), xy_str(name)));
        put.node = store_new_number(owner->store);
        put.name = name;
        put.creator = (char *)(uintptr_t) "alice@example.org";
        (void)store_append(owner->store, RECORD_NODE_PUT, &put.base);
    }
    rig_run(rig);
    uint32_t before = rig->answers;
    rig->config->limits.nodes_per_account = 20000;
    rig_stanza(rig, 0, BOB, "<iq type='set' id='q' to='pubsub.example.org'>" CREATE("bobs", "") "</iq>");
    assert_true(turns_until_counted(rig) > 20000 / QUOTA_SLICE_COST / rig->shards);
    assert_int_equal(has(rig, "alice@example.org").nodes, 20000);
    rig_run(rig);
    assert_int_equal(rig->answers, before + 1);
    assert_has(rig->answer, "type='result'");
    assert_has(rig_iq(rig, ALICE, "set", CREATE("one-more", "")), "<resource-constraint");
}

/* --- whatever happens, what was counted is what is there ----------------------------------------------------------------- */

#define NODES      6
#define NAME_BYTES 400

static const char *const who[] = { ALICE, BOB };

static void name_of(char name[NAME_BYTES], size_t nth)
{
    /* some are longer than a key of the store, and differ at their ends only */
    int pad = nth % 3 == 0 ? 300 : 1;
    (void)snprintf(name, NAME_BYTES, "%0*d-%zu", pad, 0, nth);
}

static void act(struct rig *rig, uint64_t *random)
{
    static const char *const creations[] = { KEEP, FIELD("pubsub#max_items", "3"),
                                             KEEP FIELD("pubsub#item_expire", "60"),
                                             KEEP FIELD("{urn:xylem:node:0}max_bytes", "3000"),
                                             KEEP FIELD("{urn:xylem:node:0}durability", "memory") };
    char name[NAME_BYTES], xml[16 * 1024], iq[20 * 1024];
    name_of(name, unit_below(random, NODES));
    size_t by = unit_below(random, 2), id = unit_below(random, 8), other = unit_below(random, 8);
    int len = (int)unit_below(random, 1500) + 1;
    switch (unit_below(random, 16)) {
    case 0:
    case 1:
    case 2:
        (void)snprintf(xml, sizeof(xml),
                       PUBSUB("<create node='%s'/><configure><x xmlns='jabber:x:data' type='submit'>%s</x>"
                              "</configure>"),
                       name, creations[unit_below(random, sizeof(creations) / sizeof(creations[0]))]);
        break;
    case 3:
        (void)snprintf(xml, sizeof(xml), OWNER("<delete node='%s'/>"), name);
        break;
    case 4:
        (void)snprintf(xml, sizeof(xml), OWNER("<purge node='%s'/>"), name);
        break;
    case 5:
    case 6:
        (void)snprintf(xml, sizeof(xml), PUBSUB("<retract node='%s'><item id='%zu'/></retract>"), name, id);
        break;
    case 7:
    case 8:
        (void)snprintf(xml, sizeof(xml), PUBSUB("<subscribe node='%s' jid='%s%s'/>"), name,
                       by == 0 ? "alice@example.org" : "bob@example.org", id < 4 ? "" : "/r");
        break;
    case 9:
        (void)snprintf(xml, sizeof(xml), PUBSUB("<unsubscribe node='%s' jid='%s%s'/>"), name,
                       by == 0 ? "alice@example.org" : "bob@example.org", id < 4 ? "" : "/r");
        break;
    case 10:
        (void)snprintf(
            xml, sizeof(xml),
            OWNER("<configure node='%s'><x xmlns='jabber:x:data' type='submit'>%s</x></configure>"), name,
            creations[unit_below(random, 4)]);
        break;
    default:
        (void)snprintf(xml, sizeof(xml),
                       PUBSUB("<publish node='%s'><item id='%zu'><e xmlns='urn:e'>%0*d</e></item>"
                              "<item id='%zu'><e xmlns='urn:e'/></item></publish>"),
                       name, id, len, 0, other);
    }
    (void)snprintf(iq, sizeof(iq), "<iq type='set' id='q' to='pubsub.example.org'>%s</iq>", xml);
    rig_stanza(rig, 0, who[by], iq);
}

static void add_node(struct rig *rig, const char *name, const char *bare, struct has *sum)
{
    const struct node *node = rig_node(rig, name);
    size_t position = 0;
    if (node == NULL)
        return;
    if (xy_str_is(node->creator, bare)) {
        sum->nodes++;
        sum->items += node->items.retained_count;
        sum->bytes += node->items.retained_bytes;
    }
    for (const struct subscription *s; (s = node_next_subscription(node, &position)) != NULL;)
        sum->subscriptions += xy_str_is(s->subscriber->bare, bare);
}

static void check(struct rig *rig)
{
    static const char *const bare[] = { "alice@example.org", "bob@example.org" };
    wait_counted(rig);
    for (size_t i = 0; i < 2; i++) {
        struct has sum = { 0 }, counted;
        char name[NAME_BYTES];
        for (size_t nth = 0; nth < NODES; nth++) {
            name_of(name, nth);
            add_node(rig, name, bare[i], &sum);
        }
        counted = has(rig, bare[i]);
        assert_int_equal(counted.nodes, sum.nodes);
        assert_int_equal(counted.items, sum.items);
        assert_int_equal(counted.bytes, sum.bytes);
        assert_int_equal(counted.subscriptions, sum.subscriptions);
    }
}

/* Requests are handled, nodes come and go, and no timer runs: the count stands still. */
static void run_without_time(struct rig *rig)
{
    for (unsigned n = 0; n < 4; n++) {
        rig_turns(rig);
        (void)store_step_commit(rig->store);
    }
}

static void stays_right(struct rig *rig, uint64_t random)
{
    rig->config->limits.node_memory =
        unit_below(&random, 2) == 0 ? 4096 : 1u << 30; /* nodes leave at once, or stay */
    for (unsigned round = 0; round < 30; round++) {
        for (unsigned n = 0; n < 60; n++) {
            act(rig, &random);
            if (unit_below(&random, 2) == 0)
                run_without_time(rig);
            if (unit_below(&random, 2) == 0)
                rig->now_us += 1000; /* one slice more */
            if (unit_below(&random, 12) == 0)
                rig_run(rig);
        }
        if (unit_below(&random, 3) == 0)
            rig->now_us += 61ull * 1000 * 1000; /* what expires does */
        rig_run(rig);
        if (round == 3) { /* something is there already */
            rig->config->limits.items_per_account = 40;
            rig->config->limits.bytes_per_account = 20000;
            rig->config->limits.subscriptions_per_account = 12;
        }
        if (unit_below(&random, 4) > 0)
            rig_restart(rig, unit_below(&random, 2) == 0);
        for (unsigned i = 0; i < rig->shards; i++) /* so little that nodes change in the midst of it */
            rig_shard(rig, i)->pubsub->quota->slice_cost = 20 + unit_below(&random, 16);
        reload(rig);
        if (round > 5 && unit_below(&random, 2) == 0)
            check(rig);
    }
    rig_run(rig); /* mail of nodes that the check loaded: who throws it away unread loses its memory */
}

#define SEEDS 12

static void stays_right_on_one_shard(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct rig *rig = rig_new(1);
        stays_right(rig, seed);
        rig_free(&rig);
    }
}

static void stays_right_on_three(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct rig *rig = rig_new(3);
        stays_right(rig, seed * 77);
        rig_free(&rig);
    }
}

static void never_exceeds(void **state)
{
    struct rig *rig = *state;
    uint64_t random = 5;
    bool full = false;
    limited(rig, 12, 9000, 5);
    for (unsigned n = 0; n < 1500; n++) {
        act(rig, &random);
        if (unit_below(&random, 3) == 0)
            rig_run(rig);
        for (size_t i = 0; i < 2; i++) {
            struct has now = has(rig, i == 0 ? "alice@example.org" : "bob@example.org");
            assert_true(now.items <= 12 && now.bytes <= 9000 && now.subscriptions <= 5);
            full |= now.items == 12 && now.subscriptions == 5;
        }
    }
    assert_true(full);
    rig_run(rig);
    check(rig);
}

/* A node of which so much is stored that it takes several slices. */
static void make_large(struct rig *rig, uint32_t subscriptions, uint64_t items)
{
    struct shard *owner = rig_shard(rig, shard_owner(rig_shard(rig, 0), XY_STR("a")));
    Xylem__Store__V1__SubscriptionPut sub = XYLEM__STORE__V1__SUBSCRIPTION_PUT__INIT;
    Xylem__Store__V1__ItemPut put = XYLEM__STORE__V1__ITEM_PUT__INIT;
    char jid[64], id[32], body[] = "<item/>";
    sub.node = put.node = rig_node(rig, "a")->number;
    sub.node_name = (char *)(uintptr_t) "a";
    sub.jid = jid;
    sub.subid = sub.state = id;
    for (sub.number = 1; sub.number <= subscriptions; sub.number++) {
        (void)snprintf(jid, sizeof(jid), "bob@example.org/r%u", sub.number);
        (void)snprintf(id, sizeof(id), "%016x", sub.number);
        (void)store_append(owner->store, RECORD_SUBSCRIPTION_PUT, &sub.base);
    }
    put.id = id;
    put.publisher = (char *)(uintptr_t) "alice@example.org";
    put.item.data = (uint8_t *)body;
    put.item.len = sizeof(body) - 1;
    put.retained = true;
    for (put.seq = 1; put.seq <= items; put.seq++) {
        (void)snprintf(id, sizeof(id), "%u", (unsigned)put.seq);
        put.time_us = xy_wall_us(&rig->env);
        (void)store_append(owner->store, RECORD_ITEM_PUT, &put.base);
    }
}

static void without_time(struct rig *rig, const char *from, const char *payload)
{
    char xml[1024];
    (void)snprintf(xml, sizeof(xml), "<iq type='set' id='q' to='pubsub.example.org'>%s</iq>", payload);
    rig_stanza(rig, 0, from, xml);
    run_without_time(rig);
    assert_has(rig->answer, "type='result'");
}

/* Restarts, and stops the count in the midst of the node, where so much of it was counted. */
static struct quota *stop_within(struct rig *rig, uint64_t items_from, uint64_t subscriptions_from)
{
    struct quota *quota = NULL;
    rig->config->limits.items_per_account = rig->config->limits.subscriptions_per_account = 5000;
    rig->config->limits.subscriptions_per_node = 5000;
    rig->config->limits.node_memory = 4096;
    rig_restart(rig, false);
    quota = rig_shard(rig, shard_owner(rig_shard(rig, 0), XY_STR("a")))->pubsub->quota;
    quota->slice_cost = 60;
    for (unsigned n = 0; quota->begun.number == 0 || quota->begun.items_from < items_from ||
                         quota->begun.subscriptions_from < subscriptions_from;
         n++) {
        assert_true(n < 1000);
        rig->now_us += 1000;
        rig_turns(rig);
    }
    return quota;
}

static void counts_a_node_that_changes(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", CREATE("a", KEEP));
    make_large(rig, 600, 100);
    const struct quota *quota = stop_within(rig, 101, 257);
    assert_true(quota->begun.items_done && quota->begun.subscriptions_from < 600);
    without_time(rig, BOB, PUBSUB("<unsubscribe node='a' jid='bob@example.org/r3'/>"));
    without_time(rig, BOB, PUBSUB("<unsubscribe node='a' jid='bob@example.org/r500'/>"));
    without_time(rig, BOB, PUBSUB("<subscribe node='a' jid='bob@example.org/new'/>"));
    without_time(rig, ALICE, PUBLISH("a", ITEM("x") ITEM("1")));
    without_time(rig, ALICE, RETRACT("a", "7"));
    assert_true(quota->begun.number != 0);
    wait_counted(rig);
    assert_int_equal(has(rig, "alice@example.org").items, 100);
    assert_int_equal(has(rig, "bob@example.org").subscriptions, 599);
}

static void counts_a_node_that_left_again(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", CREATE("a", KEEP));
    make_large(rig, 400, 100);
    const struct quota *quota = stop_within(rig, 101, 257);
    without_time(rig, BOB, PUBSUB("<unsubscribe node='a' jid='bob@example.org/r3'/>"));
    without_time(rig, ALICE, PUBLISH("a", ITEM("x")));
    for (unsigned n = 0;
         xy_table_count(rig_shard(rig, shard_owner(rig_shard(rig, 0), XY_STR("a")))->pubsub->nodes) > 0;
         n++) {
        assert_true(n < 100);
        resident_trim(rig_shard(rig, shard_owner(rig_shard(rig, 0), XY_STR("a")))->pubsub);
        run_without_time(rig);
    }
    assert_true(quota->begun.number != 0);
    wait_counted(rig);
    assert_int_equal(has(rig, "alice@example.org").items, 101);
    assert_int_equal(has(rig, "bob@example.org").subscriptions, 399);
}

static void counts_nothing_of_a_node_that_is_deleted(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", CREATE("a", KEEP));
    make_large(rig, 600, 100);
    const struct quota *quota = stop_within(rig, 101, 257);
    without_time(rig, ALICE, OWNER("<delete node='a'/>"));
    assert_true(quota->begun.number == 0);
    wait_counted(rig);
    assert_int_equal(has(rig, "alice@example.org").nodes, 0);
    assert_int_equal(has(rig, "alice@example.org").items, 0);
    assert_int_equal(has(rig, "bob@example.org").subscriptions, 0);
}

/* What expires on the way into memory is charged no more, whether the count was there before or not. */
static void counts_what_is_being_loaded(struct rig *rig, unsigned turns_before, size_t slice_cost)
{
    (void)rig_ok(rig, ALICE, "set", CREATE("a", KEEP FIELD("pubsub#item_expire", "60")));
    make_large(rig, 0, 4000);
    rig->now_us += 61ull * 1000 * 1000;
    rig->config->limits.items_per_account = 5000;
    rig_restart(rig, false);
    for (unsigned i = 0; i < rig->shards; i++)
        rig_shard(rig, i)->pubsub->quota->slice_cost = slice_cost;
    for (unsigned n = 0; n < turns_before; n++) {
        rig_turns(rig);
        rig->now_us += 1000;
    }
    rig_stanza(rig, 0, ALICE,
               "<iq type='set' id='q' to='pubsub.example.org'>" PUBLISH("a", ITEM("x")) "</iq>");
    wait_counted(rig);
    assert_has(rig->answer, "type='result'");
    assert_int_equal(has(rig, "alice@example.org").items, rig_node(rig, "a")->items.retained_count);
    assert_int_equal(has(rig, "alice@example.org").items, 1);
}

static void counts_what_is_being_loaded_any_time(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 30; n++) {
        struct rig *rig = rig_new(1 + n % 2);
        counts_what_is_being_loaded(rig, n / 3, 600 + n % 3 * 1200);
        rig_free(&rig);
    }
}

/* --- memory is short ------------------------------------------------------------------------------------------------------ */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__) || !defined(__GLIBC__)
#define MEMORY_TESTS
#else
#define MEMORY_TESTS BOTH(counted_when_there_is_memory),

static size_t refuse_above = SIZE_MAX; /* bytes of one allocation */

void *__libc_malloc(size_t size);
void *malloc(size_t size);

void *malloc(size_t size)
{
    return size > refuse_above ? NULL : __libc_malloc(size);
}

/* What was there is not taken for counted when it could not be read: who has it may not make more of it. */
static void counted_when_there_is_memory(void **state)
{
    struct rig *rig = *state;
    rig->config->limits.nodes_per_account = 1;
    limited(rig, 16, CONFIG_UNLIMITED, CONFIG_UNLIMITED);
    (void)rig_ok(rig, ALICE, "set", CREATE("a", KEEP));
    for (unsigned i = 0; i < 16; i++)
        publish_bytes(rig, "a", (char[]){ (char)('a' + (int)i), '\0' }, 7000, true);
    rig_restart(rig, true);
    uint32_t before = rig->answers;
    rig_stanza(rig, 0, ALICE, "<iq type='set' id='q' to='pubsub.example.org'>" CREATE("b", "") "</iq>");
    refuse_above = 48u << 10;
    for (unsigned n = 0; n < 20; n++) {
        rig_turns(rig);
        rig->now_us += 50 * 1000;
    }
    refuse_above = SIZE_MAX;
    assert_int_equal(rig->answers, before);
    assert_int_equal(has(rig, "alice@example.org").items, 0);
    wait_counted(rig);
    assert_int_equal(rig->answers, before + 1);
    assert_has(rig->answer, "<resource-constraint");
    assert_int_equal(has(rig, "alice@example.org").items, 16);
    refused(rig, ALICE, PUBLISH("a", ITEM("9")));
}
#endif

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
    const struct CMUnitTest tests[] = { BOTH(items_of_all_nodes),
                                        BOTH(what_leaves_makes_room),
                                        BOTH(dropping_the_oldest_makes_room),
                                        BOTH(bytes_of_all_nodes),
                                        BOTH(over_restarts),
                                        BOTH(limits_change),
                                        BOTH(subscriptions_of_all_nodes),
                                        BOTH(nodes_over_restarts),
                                        BOTH(counts_a_slice_a_turn),
                                        BOTH(never_exceeds),
                                        BOTH(counts_a_node_that_changes),
                                        BOTH(counts_a_node_that_left_again),
                                        BOTH(counts_nothing_of_a_node_that_is_deleted),
                                        cmocka_unit_test(counts_what_is_being_loaded_any_time),
                                        cmocka_unit_test(stays_right_on_one_shard),
                                        cmocka_unit_test(stays_right_on_three),
                                        MEMORY_TESTS };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
