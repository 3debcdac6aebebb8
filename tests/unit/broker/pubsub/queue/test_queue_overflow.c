/* Queues that are full: those that refuse what is published, and those whose oldest items make room, which leave for good or
 * to the dead letters; what consumers have stays. */
#include "tests/unit/broker/pubsub/rig.h"

#include "broker/pubsub/queue/queue.h"

#define ALICE               "alice@example.org/a"
#define BOB                 "bob@example.org/b"
#define FORM(fields)        "<configure><x xmlns='jabber:x:data' type='submit'>" fields "</x></configure>"
#define FIELD(name, value)  "<field var='" name "'><value>" value "</value></field>"
#define OPTION(name, value) FIELD("{urn:xylem:node:0}" name, value)
#define QUEUE(fields)       PUBSUB("<create node='n'/>" FORM(OPTION("queue", "1") fields))
#define ITEMS(count)        FIELD("pubsub#max_items", count)
#define DROPS               OPTION("overflow", "drop-oldest")
#define PUBLISH(id)         PUBSUB("<publish node='n'><item id='" id "'><e xmlns='urn:e'/></item></publish>")
#define RETRACT(id)         PUBSUB("<retract node='n'><item id='" id "'/></retract>")
#define STATE               "<queue-state xmlns='urn:xylem:delivery:0' node='n'/>"
#define CONFIGURE(fields)                                                                                    \
    OWNER("<configure node='n'><x xmlns='jabber:x:data' type='submit'>" fields "</x></configure>")

/* Ids of what is in the node, in order. */
static void holds(struct rig *rig, const char *name, const char *expected)
{
    char text[512] = "";
    size_t len = 0;
    const struct node *node = rig_node(rig, name);
    assert_non_null(node);
    for (const struct item *item = index_oldest(&node->items); item != NULL;
         item = index_next_retained(&node->items, item))
        len +=
            (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", len > 0 ? " " : "", item_id(item).data);
    assert_string_equal(text, expected);
}

static void put(struct rig *rig, const char *ids)
{
    for (; *ids != '\0'; ids++)
        rig_publish(rig, "n", (const char[]){ *ids, '\0' });
}

static void refused(struct rig *rig, const char *payload, const char *part)
{
    const char *answer = rig_iq(rig, ALICE, "set", payload);
    assert_has(answer, "type='error'");
    assert_has(answer, part);
}

/* So many items with ids of their own. */
static const char *put_many(struct rig *rig, unsigned count, unsigned from)
{
    char xml[16 * 1024];
    size_t len = (size_t)snprintf(xml, sizeof(xml), "<pubsub xmlns='" NS_PUBSUB "'><publish node='n'>");
    for (unsigned i = from; i < from + count; i++)
        len += (size_t)snprintf(xml + len, sizeof(xml) - len, "<item id='m%u'><e xmlns='urn:e'/></item>", i);
    (void)snprintf(xml + len, sizeof(xml) - len, "</publish></pubsub>");
    return rig_iq(rig, ALICE, "set", xml);
}

static void consumer(struct rig *rig, const char *consume)
{
    const struct seen *seen;
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)rig_ok(rig, BOB, "set", consume);
    assert_int_equal(rig_count(rig, "attach", &seen), 1);
    delivery_attached(rig_shard(rig, rig_session(1).shard), seen->key, rig_session(1), 0);
    rig_run(rig);
}

#define CONSUME(requests)                                                                                    \
    PUBSUB("<subscribe node='n' jid='" BOB "'/><options><x xmlns='jabber:x:data' type='submit'>" FIELD(      \
        "pubsub#queue_requests", requests) "</x></options>")

/* --- refusing ------------------------------------------------------------------------------------------------------ */

static void a_queue_refuses_unless_told_to_drop(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(ITEMS("3")));
    put(rig, "abc");
    refused(rig, PUBLISH("d"), "<node-full ");
    holds(rig, "n", "a b c");
    (void)rig_ok(rig, ALICE, "set", CONFIGURE(DROPS));
    put(rig, "d");
    holds(rig, "n", "b c d");
    (void)rig_ok(rig, ALICE, "set", CONFIGURE(FIELD("pubsub#title", "still drops")));
    put(rig, "e");
    rig_restart(rig, true);
    put(rig, "f");
    holds(rig, "n", "d e f");
    (void)rig_ok(rig, ALICE, "set", CONFIGURE(OPTION("overflow", "reject")));
    refused(rig, PUBLISH("g"), "<node-full ");
}

static void lowering_the_bound_drops_only_if_told(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    put(rig, "abcdef");
    consumer(rig, CONSUME("2"));
    (void)rig_ok(rig, ALICE, "set", CONFIGURE(ITEMS("3")));
    holds(rig, "n", "a b c d e f");
    refused(rig, PUBLISH("g"), "<node-full ");
    (void)rig_ok(rig, ALICE, "set", CONFIGURE(DROPS));
    holds(rig, "n", "a b f");
    rig_restart(rig, true);
    holds(rig, "n", "a b f");
}

/* --- dropping ------------------------------------------------------------------------------------------------------ */

static void the_oldest_make_room(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(ITEMS("3") DROPS));
    put(rig, "abcde");
    holds(rig, "n", "c d e");
    assert_has(rig_ok(rig, ALICE, "get", STATE), "dropped='2'");
    rig_restart(rig, true);
    holds(rig, "n", "c d e");
    consumer(rig, CONSUME("9"));
    assert_int_equal(rig_count(rig, "one", NULL), 3);
}

static void what_consumers_have_stays(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(ITEMS("3") DROPS));
    consumer(rig, CONSUME("2"));
    put(rig, "abcde");
    holds(rig, "n", "a b e");
    (void)rig_ok(rig, BOB, "set", CONSUME("3"));
    refused(rig, PUBLISH("f"), "<resource-constraint ");
    holds(rig, "n", "a b e");
    (void)rig_ok(rig, BOB, "set", RETRACT("a"));
    put(rig, "f");
    holds(rig, "n", "b e f");
}

static void bytes_are_bounded_too(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(OPTION("max_bytes", "250") DROPS));
    put(rig, "abcdefgh");
    const struct item_index *items = &rig_node(rig, "n")->items;
    assert_in_range(items->retained_bytes, 150, 250);
    assert_int_equal(index_newest(items)->seq, 8);
    assert_true(xy_str_is(item_id(index_newest(items)), "h"));
}

/* More leaves than fits one record. */
static void much_is_dropped_bit_by_bit(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(DROPS));
    for (unsigned i = 0; i < 1000; i += 200)
        assert_has(put_many(rig, 200, i), "type='result'");
    (void)rig_ok(rig, ALICE, "set", CONFIGURE(ITEMS("2")));
    holds(rig, "n", "m998 m999");
    rig_restart(rig, true);
    holds(rig, "n", "m998 m999");
}

/* What makes room for itself needs no more of what the account may have. */
static void the_account_is_not_charged_for_both(void **state)
{
    struct rig *rig = *state;
    rig->config->limits.items_per_account = 3;
    pubsub_reload(rig_shard(rig, 0));
    (void)rig_ok(rig, ALICE, "set", QUEUE(ITEMS("3") DROPS));
    consumer(rig, CONSUME("1"));
    put(rig, "abcde");
    holds(rig, "n", "a d e");
    (void)rig_ok(rig, ALICE, "set", CONFIGURE(OPTION("dead_letter", "dead")));
    refused(rig, PUBLISH("f"), "<resource-constraint ");
    holds(rig, "n", "a d e");
}

/* --- dead letters -------------------------------------------------------------------------------------------------- */

static void to_the_dead_letters(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(ITEMS("2") DROPS OPTION("dead_letter", "dead")));
    put(rig, "abcd");
    holds(rig, "n", "c d");
    assert_int_equal(rig_node(rig, "dead")->items.live, 2);
    const char *letters = rig_ok(rig, ALICE, "get", PUBSUB("<items node='dead'/>"));
    assert_has(letters, "<header name='Xylem-Dead-Reason'>overflow</header>");
    assert_has(letters, "<header name='Xylem-Dead-Id'>a</header>");
    const char *figures = rig_ok(rig, ALICE, "get", STATE);
    assert_has(figures, "dead-lettered='2'");
    assert_has(figures, "dropped='0'");
    assert_has(figures, "parked='0'");
    assert_int_equal(rig_node(rig, "n")->queue->leaving.items, 0);
}

/* Nothing is lost while nobody takes the letters, and the queue grows no further than it may. */
static void letters_that_are_refused_bound_the_queue(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, BOB, "set",
                 PUBSUB("<create node='dead'/>" FORM(FIELD("pubsub#publish_model", "publishers"))));
    (void)rig_ok(rig, ALICE, "set", QUEUE(ITEMS("100") DROPS OPTION("dead_letter", "dead")));
    unsigned at = 0;
    for (; at < 1100; at += 100)
        assert_has(put_many(rig, 100, at), "type='result'");
    struct queue *queue = rig_node(rig, "n")->queue;
    assert_int_equal(queue->leaving.items, 1000);
    assert_has(put_many(rig, 25, at), "<resource-constraint ");
    assert_has(put_many(rig, 24, at), "type='result'");
    assert_int_equal(rig_node(rig, "n")->items.live, 100 + QUEUE_LEAVING_MAX);
    assert_has(rig_ok(rig, ALICE, "set", "<redrive xmlns='urn:xylem:delivery:0' node='n' max='4'/>"),
               "count='4'");
    assert_true(queue->leaving.items >= QUEUE_LEAVING_MAX - 4);
    rig_restart(rig, true);
    (void)rig_ok(rig, ALICE, "get", STATE); /* read it */
    (void)rig_ok(rig, BOB, "set", OWNER("<delete node='dead'/>"));
    assert_int_equal(rig_node(rig, "n")->items.live, 100 + QUEUE_LEAVING_MAX);
    for (unsigned i = 0; i < 4000 && rig_node(rig, "n")->items.live > 100; i++)
        rig_run(rig);
    assert_true(rig_node(rig, "n")->items.live <= 100);
    assert_has(rig_ok(rig, ALICE, "get", PUBSUB("<items node='dead' max_items='1'/>")), "Reason'>overflow<");
    (void)rig_ok(rig, ALICE, "set", OWNER("<purge node='n'/>"));
    assert_int_equal(rig_node(rig, "n")->queue->leaving.items, 0);
}

static int setup(void **state)
{
    *state = rig_new(2);
    return 0;
}

static int teardown(void **state)
{
    rig_free((struct rig **)state);
    return 0;
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_queue_refuses_unless_told_to_drop),
        TEST(lowering_the_bound_drops_only_if_told),
        TEST(the_oldest_make_room),
        TEST(what_consumers_have_stays),
        TEST(bytes_are_bounded_too),
        TEST(much_is_dropped_bit_by_bit),
        TEST(the_account_is_not_charged_for_both),
        TEST(to_the_dead_letters),
        TEST(letters_that_are_refused_bound_the_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
