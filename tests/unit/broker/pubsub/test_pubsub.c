/* Requests at the service, from the stanza to the answer and to what sessions are told; on one shard and on three. */
#include "rig.h"

#define ALICE "alice@example.org/a"
#define BOB   "bob@example.org/b"

static void create_conflict_and_instant(void **state)
{
    struct rig *rig = *state;
    assert_has(rig_ok(rig, ALICE, "set", PUBSUB("<create node='n'/>")), "<create node='n'/>");
    assert_has(rig_iq(rig, BOB, "set", PUBSUB("<create node='n'/>")), "<conflict");
    assert_has(rig_ok(rig, ALICE, "set", PUBSUB("<create/>")), "<create node='");
    assert_has(rig_iq(rig, BOB, "get", OWNER("<configure node='n'/>")), "<forbidden");
    assert_has(rig_ok(rig, ALICE, "get", OWNER("<configure node='n'/>")), "pubsub#access_model");
    assert_has(rig_iq(rig, ALICE, "get", OWNER("<configure/>")), "<nodeid-required");
    assert_has(rig_iq(rig, ALICE, "get", OWNER("<configure node='none'/>")), "<item-not-found");
}

static void publish_reaches_subscribers(void **state)
{
    struct rig *rig = *state;
    const struct seen *seen;
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<create node='n'/>"));
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    assert_has(rig_ok(rig, BOB, "set", PUBSUB("<subscribe node='n' jid='bob@example.org'/>")),
               "subscription='subscribed'");
    rig_publish(rig, "n", "i");
    assert_int_equal(rig_count(rig, "publish", &seen), 1);
    assert_int_equal(seen->session, 1);
    assert_string_equal(seen->body,
                        "<event xmlns='" NS_PUBSUB_EVENT "'><items node='n'><item id='i' "
                        "publisher='alice@example.org'><e xmlns='urn:e'>i</e></item></items></event>");
    assert_has(rig_ok(rig, BOB, "get", PUBSUB("<items node='n'/>")),
               "<item id='i' publisher='alice@example.org'>");
}

static void nothing_before_the_commit(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<create node='n'/>"));
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)rig_ok(rig, BOB, "set", PUBSUB("<subscribe node='n' jid='bob@example.org'/>"));
    uint32_t before = rig->answers;
    rig_stanza(
        rig, 0, ALICE,
        "<iq type='set' id='p' to='pubsub.example.org'>" PUBSUB("<publish node='n'><item id='i'><e "
                                                                "xmlns='urn:e'/></item></publish>") "</iq>");
    rig_turns(rig);
    assert_int_equal(rig->answers, before);
    assert_int_equal(rig_count(rig, "publish", NULL), 0);
    rig_run(rig);
    assert_int_equal(rig->answers, before + 1);
    assert_int_equal(rig_count(rig, "publish", NULL), 1);
}

static void survives_a_crash(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set",
                 PUBSUB("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>"
                        "<field var='pubsub#title'><value>T</value></field></x></configure>"));
    (void)rig_ok(rig, BOB, "set", PUBSUB("<subscribe node='n' jid='bob@example.org/b'/>"));
    rig_publish(rig, "n", "i");
    rig_restart(rig, true);
    assert_has(rig_ok(rig, ALICE, "get", OWNER("<configure node='n'/>")), "<value>T</value>");
    assert_has(rig_ok(rig, BOB, "get", PUBSUB("<subscriptions/>")), "jid='bob@example.org/b'");
    assert_has(rig_ok(rig, ALICE, "get", PUBSUB("<affiliations/>")), "affiliation='owner'");
    assert_has(rig_ok(rig, BOB, "get", PUBSUB("<items node='n'/>")), "<item id='i'");
    assert_has(rig_ok(rig, ALICE, "get", "<query xmlns='" NS_DISCO_ITEMS "'/>"), "node='n'");
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    rig_publish(rig, "n", "j");
    assert_int_equal(rig_count(rig, "publish", NULL), 1);
}

static void delete_tells_and_forgets(void **state)
{
    struct rig *rig = *state;
    const struct seen *seen = NULL;
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<create node='n'/>"));
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)rig_ok(rig, BOB, "set", PUBSUB("<subscribe node='n' jid='bob@example.org'/>"));
    rig_publish(rig, "n", "i");
    (void)rig_ok(rig, ALICE, "set", OWNER("<delete node='n'/>"));
    assert_int_equal(rig_count(rig, "publish", &seen), 2);
    assert_has(seen->body, "<delete node='n'/>");
    assert_has(rig_iq(rig, BOB, "get", PUBSUB("<items node='n'/>")), "<item-not-found");
    (void)rig_ok(rig, BOB, "set", PUBSUB("<create node='n'/>"));
    assert_null(strstr(rig_ok(rig, BOB, "get", PUBSUB("<items node='n'/>")), "<item "));
    rig_restart(rig, false);
    assert_null(strstr(rig_ok(rig, BOB, "get", OWNER("<subscriptions node='n'/>")), "<subscription "));
}

static void pipelined_requests_find_the_new_node(void **state)
{
    struct rig *rig = *state;
    uint32_t before = rig->answers;
    rig_stanza(rig, 0, ALICE,
               "<iq type='set' id='1' to='pubsub.example.org'>" PUBSUB("<create node='n'/>") "</iq>");
    rig_stanza(rig, 0, ALICE,
               "<iq type='set' id='2' to='pubsub.example.org'>" PUBSUB(
                   "<publish node='n'><item id='i'><e xmlns='urn:e'/></item></publish>") "</iq>");
    rig_run(rig);
    assert_int_equal(rig->answers, before + 2);
    assert_has(rig->answer, "type='result'");
    assert_has(rig_ok(rig, ALICE, "get", PUBSUB("<items node='n'/>")), "<item id='i'");
}

#define PUBLISH_ID(id, item)                                                                                 \
    PUBSUB("<publish node='n' xmlns:d='" NS_XYLEM_DELIVERY "' d:publish-id='" id "'>" item "</publish>")

static void publish_ids(void **state)
{
    struct rig *rig = *state;
    char first[1024];
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<create node='n'/>"));
    (void)snprintf(first, sizeof(first), "%s",
                   rig_ok(rig, ALICE, "set", PUBLISH_ID("x:1", "<item><e xmlns='urn:e'/></item>")));
    assert_string_equal(rig_ok(rig, ALICE, "set", PUBLISH_ID("x:1", "<item><e xmlns='urn:e'/></item>")),
                        first);
    (void)rig_ok(rig, ALICE, "set", PUBLISH_ID("x:3", "<item id='c'><e xmlns='urn:e'/></item>"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH_ID("x:2", "<item id='b'><e xmlns='urn:e'/></item>"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH_ID("x:2", "<item id='zz'><e xmlns='urn:e'/></item>"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH_ID("whole", "<item id='w'><e xmlns='urn:e'/></item>"));
    assert_int_equal(rig_node(rig, "n")->next_seq, 5);
    rig_restart(rig, true);
    (void)rig_ok(rig, ALICE, "set", PUBLISH_ID("x:3", "<item id='c2'><e xmlns='urn:e'/></item>"));
    (void)rig_ok(rig, ALICE, "set", PUBLISH_ID("whole", "<item id='w2'><e xmlns='urn:e'/></item>"));
    assert_int_equal(rig_node(rig, "n")->next_seq, 5);
    (void)rig_ok(rig, ALICE, "set", PUBLISH_ID("x:4", "<item id='d'><e xmlns='urn:e'/></item>"));
    assert_int_equal(rig_node(rig, "n")->next_seq, 6);
}

static void bad_requests(void **state)
{
    struct rig *rig = *state;
    static const struct {
        const char *payload, *expected;
    } cases[] = {
        { PUBSUB("<subscribe node='n' jid='alice@example.org'/>"), "<invalid-jid" },
        { PUBSUB("<subscribe node='n'/>"), "<invalid-jid" },
        { PUBSUB("<unsubscribe node='n' jid='bob@example.org'/>"), "<not-subscribed" },
        { PUBSUB("<unsubscribe node='n' jid='alice@example.org'/>"), "<forbidden" },
        { PUBSUB("<publish node='n'><item id='i'><e xmlns='urn:e'/></item></publish>"), "<forbidden" },
        { PUBSUB("<retract node='n'/>"), "<item-required" },
        { PUBSUB("<retract node='n'><item id='none'/></retract>"), "<item-not-found" },
        { PUBSUB("<publish><item/></publish>"), "<nodeid-required" },
        { PUBSUB(""), "<bad-request" },
        { PUBSUB("<dance/>"), "<feature-not-implemented" },
        { PUBSUB("<publish node='n'/><subscribe node='n' jid='x'/>"), "<bad-request" },
        { PUBSUB("<create node='m'/><configure><x xmlns='jabber:x:data' type='submit'><field "
                 "var='pubsub#nonsense'>"
                 "<value>1</value></field></x></configure>"),
          "pubsub#nonsense" },
        { PUBSUB("<create node='m'/><configure><x xmlns='jabber:x:data' type='submit'><field "
                 "var='pubsub#access_model'>"
                 "<value>roster</value></field></x></configure>"),
          "<unsupported-access-model" },
        { PUBSUB("<subscribe node='n' jid='bob@example.org'/><options><x xmlns='jabber:x:data' type='submit'>"
                 "<field var='{urn:xylem:delivery:0}ack'><value>telepathy</value></field></x></options>"),
          "<invalid-options" },
        { OWNER("<purge node='n'/>"), "<forbidden" },
        { OWNER("<delete node='none'/>"), "<item-not-found" },
    };
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<create node='n'/>"));
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_has(rig_iq(rig, BOB, "set", cases[i].payload), cases[i].expected);
    assert_int_equal(rig_node(rig, "n")->next_seq, 1);
    assert_null(rig_node(rig, "m"));
}

static void bad_batch_stores_nothing(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<create node='n'/>"));
    assert_has(
        rig_iq(rig, ALICE, "set",
               PUBSUB("<publish node='n'><item id='a'><e xmlns='urn:e'/></item><item id='b'/></publish>")),
        "<payload-required");
    assert_int_equal(rig_node(rig, "n")->next_seq, 1);
    /* a node made for a bad item is not made */
    assert_has(rig_iq(rig, ALICE, "set", PUBSUB("<publish node='fresh'><item id='b'/></publish>")),
               "<payload-required");
    assert_null(rig_node(rig, "fresh"));
    (void)rig_ok(rig, ALICE, "set",
                 PUBSUB("<publish node='n'><item id='a'><e xmlns='urn:e'/></item><item id='b'><e "
                        "xmlns='urn:e'/></item></publish>"));
    assert_int_equal(rig_node(rig, "n")->next_seq, 3);
}

static void limits_of_nodes_and_subscriptions(void **state)
{
    struct rig *rig = *state;
    char payload[256];
    for (int i = 0; i < 100; i++) {
        (void)snprintf(payload, sizeof(payload), PUBSUB("<create node='n%d'/>"), i);
        (void)rig_ok(rig, ALICE, "set", payload);
    }
    assert_has(rig_iq(rig, ALICE, "set", PUBSUB("<create node='more'/>")), "<resource-constraint");
    (void)rig_ok(rig, BOB, "set", PUBSUB("<create node='bobs'/>"));
    (void)rig_ok(rig, ALICE, "set", OWNER("<delete node='n5'/>"));
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<create node='more'/>"));
    rig_restart(rig, true);
    assert_has(rig_iq(rig, ALICE, "set", PUBSUB("<create node='evenmore'/>")), "<resource-constraint");
    for (int i = 0; i < 50; i++) {
        (void)snprintf(payload, sizeof(payload), PUBSUB("<subscribe node='n1' jid='bob@example.org/%d'/>"),
                       i);
        (void)rig_ok(rig, BOB, "set", payload);
    }
    assert_has(rig_iq(rig, BOB, "set", PUBSUB("<subscribe node='n1' jid='bob@example.org/x'/>")),
               "<too-many-subscriptions");
}

static void last_item_when_it_is_wanted(void **state)
{
    struct rig *rig = *state;
    const struct seen *seen;
    (void)rig_ok(
        rig, ALICE, "set",
        PUBSUB("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>"
               "<field var='pubsub#send_last_published_item'><value>on_sub_and_presence</value></field>"
               "</x></configure>"));
    rig_publish(rig, "n", "i");
    rig_publish(rig, "n", "j");
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)rig_ok(rig, BOB, "set", PUBSUB("<subscribe node='n' jid='bob@example.org'/>"));
    assert_int_equal(rig_count(rig, "notify", &seen), 1);
    assert_int_equal(seen->seq, 2);
    assert_true(seen->delayed);
    rig_online(rig, 2, "bob@example.org", "c", 0, false);
    assert_int_equal(rig_count(rig, "notify", &seen), 2);
    assert_int_equal(seen->session, 2);
    rig_restart(rig, true);
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    assert_int_equal(rig_count(rig, "notify", NULL), 1);
}

static void access_is_taken_away(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<create node='n'/>"));
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)rig_ok(rig, BOB, "set", PUBSUB("<subscribe node='n' jid='bob@example.org'/>"));
    (void)rig_ok(rig, ALICE, "set",
                 OWNER("<affiliations node='n'><affiliation jid='bob@example.org' "
                       "affiliation='outcast'/></affiliations>"));
    rig_publish(rig, "n", "i");
    assert_int_equal(rig_count(rig, "publish", NULL), 0);
    assert_has(rig_iq(rig, BOB, "get", PUBSUB("<items node='n'/>")), "<forbidden");
    assert_has(rig_iq(rig, ALICE, "set",
                      OWNER("<affiliations node='n'><affiliation jid='alice@example.org' "
                            "affiliation='none'/></affiliations>")),
               "<not-acceptable");
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

static void turns(struct rig *rig, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        for (unsigned shard = 0; shard < rig->shards; shard++)
            (void)shard_turn(rig_shard(rig, shard));
}

/* A subscription is answered when its sessions are known. After a crash in between it is not made once more: the row that
 * goes to disk with it has the answer. */
static void subscribed_once(void **state)
{
    struct rig *rig = *state;
    for (unsigned n = 0; n < 8; n++) {
        char create[128];
        (void)snprintf(create, sizeof(create), PUBSUB("<create node='n%u'/>"), n);
        (void)rig_ok(rig, ALICE, "set", create);
    }
    rig->kept = true;
    for (unsigned n = 0; n < 8; n++) {
        char xml[256];
        (void)snprintf(xml, sizeof(xml),
                       "<iq type='set' id='s%u' to='pubsub.example.org'>" PUBSUB(
                           "<subscribe node='n%u' jid='bob@example.org'/>") "</iq>",
                       n, n);
        rig_stanza(rig, 0, BOB, xml);
    }
    turns(rig, 2); /* not as far as the answers */
    (void)store_step_commit(rig->store);
    turns(rig, 4); /* as far as the answers, and nothing more is committed */
    rig_restart(rig, true);
    struct xy_arena *arena = xy_arena_new();
    struct store_entry subscriptions[16], rows[16];
    bool more;
    size_t made = store_scan_tables(rig->store, STORE_SUBS_BY_JID, XY_STR(""), XY_STR(""), arena,
                                    subscriptions, 16, &more);
    size_t count =
        store_scan_tables(rig->store, STORE_SESSION_IN, XY_STR(""), XY_STR(""), arena, rows, 16, &more);
    assert_int_equal(made, 8);
    assert_int_equal(count, made);
    for (size_t i = 0; i < count; i++) {
        struct store_session_in row;
        assert_true(store_session_in(rows[i].key, rows[i].value, &row));
        assert_true(row.answer.len > 0 &&
                    memmem(row.answer.data, row.answer.len, "'subscribed'", 12) != NULL);
    }
    xy_arena_free(&arena);
    rig->kept = false;
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
        BOTH(create_conflict_and_instant),
        BOTH(publish_reaches_subscribers),
        BOTH(nothing_before_the_commit),
        BOTH(survives_a_crash),
        BOTH(delete_tells_and_forgets),
        BOTH(pipelined_requests_find_the_new_node),
        BOTH(publish_ids),
        BOTH(bad_requests),
        BOTH(bad_batch_stores_nothing),
        BOTH(limits_of_nodes_and_subscriptions),
        BOTH(access_is_taken_away),
        BOTH(last_item_when_it_is_wanted),
        BOTH(subscribed_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
