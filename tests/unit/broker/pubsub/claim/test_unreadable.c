/* An item that is owed and cannot be sent: memory is short, or its record is damaged. It is never passed over by the
 * acknowledgement of what comes behind it. Also what a single acknowledgement costs when memory is there. Memory runs short by standing in for malloc; left out under sanitizers, which
 * stand in for it themselves. */
#include "tests/unit/broker/pubsub/rig.h"

#define ALICE "alice@example.org/a"
#define BOB   "bob@example.org/b"
#define SUBSCRIBE                                                                                            \
    PUBSUB("<subscribe node='n' jid='bob@example.org'/><options><x xmlns='jabber:x:data' type='submit'>"     \
           "<field var='{urn:xylem:delivery:0}mode'><value>at-least-once</value></field></x></options>")

static struct shard *owner(struct rig *rig)
{
    return rig_shard(rig, shard_owner(rig_shard(rig, 0), XY_STR("n")));
}

static const struct seen *nth(struct rig *rig, const char *what, size_t n)
{
    for (size_t i = 0; i < rig->seen_count; i++)
        if (strcmp(rig->seen[i].what, what) == 0 && n-- == 0)
            return &rig->seen[i];
    fail_msg("fewer calls of %s", what);
    return NULL;
}

static void publish_large(struct rig *rig, const char *id)
{
    char xml[9000], text[8001];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    (void)snprintf(xml, sizeof(xml),
                   PUBSUB("<publish node='n'><item id='%s'><e xmlns='urn:e'>%s</e></item></publish>"), id,
                   text);
    (void)rig_ok(rig, ALICE, "set", xml);
}

/* Bob subscribes, three items are published while he is away, and the broker starts anew: they are in the store only. */
static struct rig *owing(void (*publish)(struct rig *rig, const char *id))
{
    struct rig *rig = rig_new(1);
    (void)rig_ok(rig, ALICE, "set",
                 PUBSUB("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>"
                        "<field var='pubsub#max_items'><value>max</value></field></x></configure>"));
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE);
    rig_publish(rig, "n", "one");
    publish(rig, "two");
    rig_publish(rig, "n", "three");
    rig_restart(rig, true);
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    return rig;
}

static void small(struct rig *rig, const char *id)
{
    rig_publish(rig, "n", id);
}

static struct claim_key attach(struct rig *rig)
{
    struct claim_key key = nth(rig, "attach", 0)->key;
    delivery_attached(rig_shard(rig, 0), key, rig_session(1), 0);
    return key;
}

/* Its record is gone behind the node's back, as if the disk had lost it. */
static void damaged_item_is_told_as_a_gap(void **state)
{
    (void)state;
    struct rig *rig = owing(small);
    struct pubsub_stats stats;
    uint64_t seq = 2;
    Xylem__Store__V1__ItemRemove remove = XYLEM__STORE__V1__ITEM_REMOVE__INIT;
    remove.node = rig_node(rig, "n")->number;
    remove.n_seq = 1;
    remove.seq = &seq;
    (void)store_append(owner(rig)->store, RECORD_ITEM_REMOVE, &remove.base);
    struct claim_key key = attach(rig);
    rig_run(rig);
    assert_int_equal(rig_count(rig, "one", NULL), 3);
    assert_int_equal(nth(rig, "one", 1)->seq, 2);
    assert_has(nth(rig, "one", 1)->body, "<gap xmlns='urn:xylem:delivery:0' node='n' subid='");
    assert_has(nth(rig, "one", 1)->body, "first='2' last='2' reason='damaged'");
    assert_has(nth(rig, "one", 2)->body, "three");
    pubsub_stats(owner(rig), &stats);
    assert_int_equal(stats.damaged, 1);
    delivery_acked(rig_shard(rig, 0), key, rig_session(1), 1);
    rig_run(rig);
    /* not acknowledged: the gap is told again, and counted once */
    delivery_released(rig_shard(rig, 0), key, rig_session(1), 1);
    rig_offline(rig, 1, "bob@example.org");
    rig->seen_count = 0;
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)attach(rig);
    rig_run(rig);
    assert_has(nth(rig, "one", 0)->body, "<gap ");
    pubsub_stats(owner(rig), &stats);
    assert_int_equal(stats.damaged, 1);
    rig_free(&rig);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__) || !defined(__GLIBC__)
int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(damaged_item_is_told_as_a_gap) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else

static size_t refuse_above = SIZE_MAX; /* bytes of one allocation */
static size_t allocations;

void *__libc_malloc(size_t size);
void *__libc_realloc(void *old, size_t size);
void *malloc(size_t size);
void *realloc(void *old, size_t size);

void *malloc(size_t size)
{
    allocations++;
    return size > refuse_above ? NULL : __libc_malloc(size);
}

void *realloc(void *old, size_t size)
{
    allocations++;
    return size > refuse_above ? NULL : __libc_realloc(old, size);
}

static void turns_without_memory(struct rig *rig, size_t above)
{
    refuse_above = above;
    rig_turns(rig);
    refuse_above = SIZE_MAX;
}

static void item_that_does_not_fit_into_memory_stays_owed(void **state)
{
    (void)state;
    struct rig *rig = owing(publish_large);
    struct claim_key key = attach(rig);
    turns_without_memory(rig, 6000);
    assert_int_equal(rig_count(rig, "one", NULL), 1);
    delivery_acked(rig_shard(rig, 0), key, rig_session(1), 1);
    rig_turns(rig);
    rig_publish(rig, "n", "four"); /* nothing may overtake it */
    assert_int_equal(rig_count(rig, "publish", NULL), 0);
    rig->now_us += BLOCKED_US;
    rig_run(rig);
    assert_int_equal(rig_count(rig, "one", NULL), 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(nth(rig, "one", i)->seq, i + 1);
    assert_int_equal(nth(rig, "one", 1)->attempt, 2); /* it may have been sent before the restart */
    assert_int_equal(nth(rig, "one", 1)->run, nth(rig, "one", 0)->run);
    rig_publish(rig, "n", "five");
    assert_int_equal(rig_count(rig, "publish", NULL), 1);
    rig_free(&rig);
}

/* The session may stall, or a better one come, while the run is blocked. */
static void blocked_run_takes_other_news(void **state)
{
    (void)state;
    struct rig *rig = owing(publish_large);
    struct claim_key key = attach(rig);
    turns_without_memory(rig, 6000);
    uint16_t run = nth(rig, "one", 0)->run;
    delivery_stalled(rig_shard(rig, 0), key, rig_session(1), run, 1);
    rig->now_us += 2 * BLOCKED_US;
    rig_run(rig);
    assert_int_equal(rig_count(rig, "one", NULL), 1);
    delivery_ready(rig_shard(rig, 0), key, rig_session(1), run);
    rig_turns(rig);
    assert_int_equal(rig_count(rig, "one", NULL), 4);
    assert_int_equal(nth(rig, "one", 1)->seq, 1);
    (void)rig_ok(rig, BOB, "set", PUBSUB("<unsubscribe node='n' jid='bob@example.org'/>"));
    rig_free(&rig);
}

/* A claim became live and its route could not be made: what is published then waits, and comes once. */
static void claim_without_a_route_stays_owed(void **state)
{
    (void)state;
    struct rig *rig = owing(small);
    struct claim_key key = attach(rig);
    rig_run(rig);
    assert_int_equal(rig_count(rig, "one", NULL), 3);
    rig_stanza(rig, 0, ALICE,
               "<iq type='set' id='p' to='pubsub.example.org'>" PUBSUB(
                   "<publish node='n'><item id='four'><e xmlns='urn:e'/></item></publish>") "</iq>");
    rig_turns(rig);
    (void)store_step_commit(rig->store);
    turns_without_memory(rig, 0);
    assert_int_equal(rig_count(rig, "publish", NULL), 0);
    delivery_acked(rig_shard(rig, 0), key, rig_session(1), 3);
    rig->now_us += BLOCKED_US;
    rig_run(rig);
    assert_int_equal(rig_count(rig, "publish", NULL), 0);
    assert_int_equal(rig_count(rig, "one", NULL), 4);
    assert_int_equal(nth(rig, "one", 3)->seq, 4);
    assert_int_equal(nth(rig, "one", 3)->attempt, 1);
    rig_publish(rig, "n", "five");
    assert_int_equal(rig_count(rig, "publish", NULL), 1);
    rig_free(&rig);
}

#define EXPLICIT                                                                                             \
    PUBSUB("<subscribe node='n' jid='bob@example.org'/><options><x xmlns='jabber:x:data' type='submit'>"     \
           "<field var='{urn:xylem:delivery:0}mode'><value>at-least-once</value></field>"                    \
           "<field var='{urn:xylem:delivery:0}ack'><value>explicit</value></field>"                          \
           "<field var='{urn:xylem:delivery:0}max_inflight'><value>20</value></field></x></options>")

static struct rig *working(unsigned items)
{
    struct rig *rig = rig_new(1);
    char id[32];
    (void)rig_ok(rig, ALICE, "set",
                 PUBSUB("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>"
                        "<field var='pubsub#max_items'><value>max</value></field></x></configure>"));
    (void)rig_ok(rig, BOB, "set", EXPLICIT);
    for (unsigned i = 0; i < items; i++) {
        (void)snprintf(id, sizeof(id), "i%u", i);
        rig_publish(rig, "n", id);
    }
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    return rig;
}

/* No memory for what is to be remembered about an item: it is not sent, and nothing behind it either. */
static void window_without_memory_waits(void **state)
{
    (void)state;
    struct rig *rig = working(3);
    (void)attach(rig);
    turns_without_memory(rig, 0);
    assert_int_equal(rig_count(rig, "one", NULL), 0);
    rig->now_us += BLOCKED_US;
    rig_run(rig);
    assert_int_equal(rig_count(rig, "one", NULL), 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(nth(rig, "one", i)->attempt, 1);
    rig_free(&rig);
}

/* Warm, an item that is sent and acknowledged out of order costs no allocation. */
static void single_acknowledgements_allocate_nothing(void **state)
{
    (void)state;
    struct rig *rig = working(600);
    (void)attach(rig);
    rig_turns(rig);
    struct subscription *subscription = node_subscription(rig_node(rig, "n"), 1);
    size_t counted = 0;
    for (uint64_t seq = 1; seq <= 560; seq += 4) {
        rig->seen_count = 0;
        size_t before = allocations;
        for (uint64_t i = 4; i-- > 0;) {
            assert_int_equal(subscription->claim.ops->ack(subscription, seq + i, false), CLAIM_DONE);
            assert_true(claim_record(subscription, true));
        }
        claim_settled(subscription);
        rig_turns(rig);
        if (seq > 200)
            counted += allocations - before;
        assert_int_equal(rig_count(rig, "one", NULL), 4);
        (void)store_step_commit(rig->store);
    }
    print_message("%zu allocations for 360 items\n", counted);
    assert_true(counted <= 36);
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_item_is_told_as_a_gap),
        cmocka_unit_test(window_without_memory_waits),
        cmocka_unit_test(single_acknowledgements_allocate_nothing),
        cmocka_unit_test(item_that_does_not_fit_into_memory_stays_owed),
        cmocka_unit_test(blocked_run_takes_other_news),
        cmocka_unit_test(claim_without_a_route_stays_owed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
