/* What a node retains and what it refuses: bytes, numbers, overflow=reject, full backlogs. */
#include "rig.h"

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
