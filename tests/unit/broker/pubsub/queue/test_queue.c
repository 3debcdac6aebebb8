/* A queue node from the publish to what sessions are told and back: only what is committed goes out, sessions without room,
 * sessions that end, memory that is short, records that are damaged, restarts. The test plays the sessions and answers as
 * broker/delivery/delivery.h says. */
#include "tests/unit/broker/pubsub/rig.h"

#include "broker/pubsub/queue/queue.h"

#define ALICE "alice@example.org/a"
#define BOB   "bob@example.org/b"
#define CAROL "carol@example.org/c"
#define QUEUE(more)                                                                                          \
    PUBSUB("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>"                            \
           "<field var='{urn:xylem:node:0}queue'><value>1</value></field>" more "</x></configure>")
#define OPTION(name, value) "<field var='{urn:xylem:node:0}" name "'><value>" value "</value></field>"
#define CONSUME(jid, requests)                                                                               \
    PUBSUB("<subscribe node='n' jid='" jid "'/><options><x xmlns='jabber:x:data' type='submit'>"             \
           "<field var='pubsub#queue_requests'><value>" requests "</value></field></x></options>")
#define RETRACT(id) PUBSUB("<retract node='n'><item id='" id "'/></retract>")
#define UNLOCK(id)  PUBSUB("<unlock xmlns='" NS_PUBSUB_QUEUEING "' node='n'><item id='" id "'/></unlock>")

static struct shard *shard_of(struct rig *rig, uint32_t session)
{
    return rig_shard(rig, rig_session(session).shard);
}

static const struct seen *nth(struct rig *rig, const char *what, size_t n)
{
    for (size_t i = 0; i < rig->seen_count; i++)
        if (strcmp(rig->seen[i].what, what) == 0 && n-- == 0)
            return &rig->seen[i];
    fail_msg("fewer calls of %s", what);
    return NULL;
}

/* Sequence numbers that were sent, in order, since the last look. */
static void sent(struct rig *rig, const char *expected)
{
    char text[512] = "";
    size_t len = 0;
    for (size_t i = 0; i < rig->seen_count; i++)
        if (strcmp(rig->seen[i].what, "one") == 0)
            len +=
                (size_t)snprintf(text + len, sizeof(text) - len, "%s%u:%lu/%u", len > 0 ? " " : "",
                                 rig->seen[i].session, (unsigned long)rig->seen[i].seq, rig->seen[i].attempt);
    assert_string_equal(text, expected);
    rig->seen_count = 0;
}

/* The newest attach is answered by its session. */
static struct claim_key attach(struct rig *rig, uint32_t session)
{
    const struct seen *seen = NULL;
    assert_true(rig_count(rig, "attach", &seen) > 0);
    assert_int_equal(seen->session, session);
    struct claim_key key = seen->key;
    rig->seen_count = 0;
    delivery_attached(shard_of(rig, session), key, rig_session(session), 0);
    rig_run(rig);
    return key;
}

static struct claim_key consumer(struct rig *rig, uint32_t session, const char *full, const char *consume)
{
    char bare[64];
    const char *slash = strchr(full, '/');
    (void)snprintf(bare, sizeof(bare), "%.*s", (int)(slash - full), full);
    rig_online(rig, session, bare, slash + 1, 0, false);
    (void)rig_ok(rig, full, "set", consume);
    return attach(rig, session);
}

static struct queue *queue_of(struct rig *rig)
{
    return rig_node(rig, "n")->queue;
}

/* --- the way ------------------------------------------------------------------------------------------------------- */

static void nothing_goes_out_before_its_commit(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    (void)consumer(rig, 1, BOB, CONSUME(BOB, "2"));
    rig_stanza(rig, 0, ALICE,
               "<iq type='set' id='p' to='pubsub.example.org'>" PUBSUB(
                   "<publish node='n'><item id='a'><e xmlns='urn:e'/></item></publish>") "</iq>");
    rig_turns(rig);
    sent(rig, "");
    (void)store_step_commit(rig->store);
    rig_turns(rig);
    sent(rig, "1:1/1");
    rig_stanza(rig, 0, BOB, "<iq type='set' id='r' to='pubsub.example.org'>" RETRACT("a") "</iq>");
    uint32_t before = rig->answers;
    rig_turns(rig);
    assert_int_equal(rig->answers, before); /* nor is it answered */
    rig_run(rig);
    assert_int_equal(rig->answers, before + 1);
    assert_has(nth(rig, "notify", 0)->body, "<retract id='a'/>");
}

static void a_session_without_room_was_not_sent_to(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    struct claim_key bob = consumer(rig, 1, BOB, CONSUME(BOB, "9"));
    for (int i = 0; i < 5; i++)
        rig_publish(rig, "n", (const char *[]){ "a", "b", "c", "d", "e" }[i]);
    uint16_t run = nth(rig, "one", 0)->run;
    sent(rig, "1:1/1 1:2/1 1:3/1 1:4/1 1:5/1");
    delivery_stalled(shard_of(rig, 1), bob, rig_session(1), run, 3);
    rig_run(rig);
    sent(rig, "");
    assert_int_equal(queue_count(queue_of(rig)->engine, QUEUE_LOCKED), 2);
    struct claim_key carol = consumer(rig, 2, CAROL, CONSUME(CAROL, "2"));
    sent(rig, "2:3/1 2:4/1"); /* not marked: nobody got them */
    delivery_ready(shard_of(rig, 1), bob, rig_session(1), run);
    rig_run(rig);
    assert_int_not_equal(nth(rig, "one", 0)->run, run);
    sent(rig, "1:5/1");
    (void)carol;
}

static void a_session_that_ends_gives_back(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    struct claim_key bob = consumer(rig, 1, BOB, CONSUME(BOB, "2"));
    rig_publish(rig, "n", "a");
    rig_publish(rig, "n", "b");
    rig_publish(rig, "n", "c");
    sent(rig, "1:1/1 1:2/1");
    (void)rig_ok(rig, BOB, "set", RETRACT("b"));
    sent(rig, "1:3/1");
    delivery_released(shard_of(rig, 1), bob, rig_session(1), 3); /* received is not done */
    rig_offline(rig, 1, "bob@example.org");
    (void)consumer(rig, 2, CAROL, CONSUME(CAROL, "5"));
    sent(rig, "2:1/2 2:3/2");
}

static void a_better_session_takes_over_when_all_is_settled(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)rig_ok(rig, BOB, "set", CONSUME("bob@example.org", "2"));
    (void)attach(rig, 1);
    rig_publish(rig, "n", "a");
    sent(rig, "1:1/1");
    rig_online(rig, 2, "bob@example.org", "better", 5, false);
    rig_publish(rig, "n", "b"); /* nobody gets it: one leaves, the other is not there yet */
    sent(rig, "");
    (void)rig_ok(rig, BOB, "set", RETRACT("a"));
    (void)attach(rig, 2);
    sent(rig, "2:2/1");
}

static void who_gives_an_item_up_gets_the_next_one(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    (void)consumer(rig, 1, BOB, CONSUME(BOB, "1"));
    rig_publish(rig, "n", "a");
    rig_publish(rig, "n", "b");
    sent(rig, "1:1/1");
    (void)rig_ok(rig, BOB, "set", "<term xmlns='" NS_XYLEM_DELIVERY "' node='n' id='a'/>");
    sent(rig, "1:2/1"); /* at once, not when the states of items are recorded */
}

/* Otherwise each session that ends would use up one of the times that an item may be sent. */
static void a_broker_that_stops_hands_out_nothing(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(OPTION("max_deliver", "2")));
    struct claim_key bob = consumer(rig, 1, BOB, CONSUME(BOB, "1"));
    (void)consumer(rig, 2, CAROL, CONSUME(CAROL, "1"));
    rig_publish(rig, "n", "a");
    sent(rig, "1:1/1");
    for (unsigned i = 0; i < rig->shards; i++)
        pubsub_quiesce(rig_shard(rig, i));
    delivery_released(shard_of(rig, 1), bob, rig_session(1), 1);
    rig_offline(rig, 1, "bob@example.org");
    rig_run(rig);
    sent(rig, "");
    assert_int_equal(queue_find(queue_of(rig)->engine, 1)->attempts, 1);
}

/* --- time ---------------------------------------------------------------------------------------------------------- */

static void pass(struct rig *rig, uint64_t seconds)
{
    for (uint64_t i = 0; i < 10 * seconds; i++) {
        rig->now_us += 100 * 1000;
        rig_turns(rig);
        (void)store_step_commit(rig->store);
        rig_turns(rig);
    }
}

static void locks_end_and_pauses_pass(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set",
                 QUEUE(OPTION("lock_timeout", "10") OPTION("backoff", "5 60") OPTION("max_deliver", "3")));
    (void)consumer(rig, 1, BOB, CONSUME(BOB, "2"));
    rig_publish(rig, "n", "a");
    sent(rig, "1:1/1");
    pass(rig, 8);
    sent(rig, "");
    pass(rig, 4);
    assert_has(nth(rig, "notify", 0)->body, "<unlock xmlns='urn:xmpp:pubsub:queueing:0' id='a'/>");
    sent(rig, "");
    pass(rig, 5);
    sent(rig, "1:1/2");
    (void)rig_ok(rig, BOB, "set", UNLOCK("a"));
    pass(rig, 55);
    sent(rig, "");
    pass(rig, 6);
    sent(rig, "1:1/3");
    pass(rig, 12); /* it had its last chance */
    sent(rig, "");
    assert_int_equal(queue_count(queue_of(rig)->engine, QUEUE_PARKED), 1);
    assert_int_equal(queue_of(rig)->figures.timed_out, 2);
}

/* --- refusals ------------------------------------------------------------------------------------------------------ */

static void refused(struct rig *rig, const char *who, const char *request, const char *condition)
{
    char xml[1024];
    uint32_t before = rig->answers;
    (void)snprintf(xml, sizeof(xml), "<iq type='set' id='r' to='pubsub.example.org'>%s</iq>", request);
    rig_stanza(rig, 0, who, xml);
    rig_turns(rig);
    assert_int_equal(rig->answers, before);
    rig_run(rig);
    assert_int_equal(rig->answers, before + 1);
    assert_has(rig->answer, condition);
    assert_true(rig->recorded);
}

/* Who was told that an item is somebody else's leaves it to them. After a crash nobody has it; the request, sent again by
 * a session that resumes, would take it out, and nobody would do it. So the refusal is on disk before it is told. */
static void a_refusal_outlives_a_crash(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    (void)consumer(rig, 1, BOB, CONSUME(BOB, "1"));
    (void)consumer(rig, 2, CAROL, CONSUME(CAROL, "1"));
    rig_publish(rig, "n", "a");
    sent(rig, "1:1/1");
    rig->kept = true;
    refused(rig, CAROL, RETRACT("a"), "<conflict");
    refused(rig, CAROL, UNLOCK("a"), "<conflict");
    refused(rig, CAROL, RETRACT("b"), "<item-not-found");
    refused(rig, CAROL, "<ack xmlns='urn:xylem:delivery:0' node='n' id='a'/>", "<item-not-found");
    (void)rig_ok(rig, BOB, "set", UNLOCK("a"));
    sent(rig, "2:1/2");
    (void)rig_ok(rig, CAROL, "set", RETRACT("a"));
    (void)rig_ok(rig, CAROL, "set", PUBSUB("<unsubscribe node='n' jid='" CAROL "'/>"));
    rig_offline(rig, 1, "bob@example.org");
    rig_publish(rig, "n", "c");
    refused(rig, BOB, RETRACT("c"), "<forbidden");
}

/* --- restarts ------------------------------------------------------------------------------------------------------ */

static size_t stored_states(struct rig *rig)
{
    struct store_entry entries[64];
    bool more;
    struct node *node = rig_node(rig, "n");
    struct xy_arena *arena = xy_arena_new();
    size_t count = store_scan(node->pubsub->shard->store, STORE_QUEUE, xy_str_n((const char *)node->key, 8),
                              xy_str_n((const char *)node->key, 8), arena, entries, 64, &more);
    xy_arena_free(&arena);
    return count;
}

static void states_are_stored_only_where_they_last(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    (void)consumer(rig, 1, BOB, CONSUME(BOB, "5"));
    rig_publish(rig, "n", "a");
    (void)rig_ok(rig, BOB, "set", RETRACT("a"));
    pass(rig, 3);
    assert_int_equal(stored_states(rig), 0);
    rig_publish(rig, "n", "b");
    pass(rig, 3);
    assert_int_equal(stored_states(rig), 1);
    (void)rig_ok(rig, BOB, "set", RETRACT("b"));
    pass(rig, 3);
    assert_int_equal(stored_states(rig), 0);
    rig_publish(rig, "n", "c");
    pass(rig, 3);
    rig_restart(rig, true);
    assert_int_equal(queue_find(queue_of(rig)->engine, 3)->attempts, 1);
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)attach(rig, 1);
    sent(rig, "1:3/2");
}

static void a_state_without_its_item_goes(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    struct node *node = rig_node(rig, "n");
    Xylem__Store__V1__QueueState put = XYLEM__STORE__V1__QUEUE_STATE__INIT;
    uint64_t seq = 77, zero = 0;
    uint32_t attempts = 1;
    protobuf_c_boolean parked = 0;
    put.node = node->number;
    put.n_seq = put.n_attempts = put.n_not_before_us = put.n_parked = 1;
    put.seq = &seq;
    put.attempts = &attempts;
    put.not_before_us = &zero;
    put.parked = &parked;
    (void)store_append(node->pubsub->shard->store, RECORD_QUEUE_STATE, &put.base);
    rig_run(rig);
    assert_int_equal(stored_states(rig), 1);
    rig_restart(rig, true);
    assert_non_null(rig_node(rig, "n"));
    pass(rig, 3);
    assert_int_equal(stored_states(rig), 0);
}

static void a_damaged_item_is_parked(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    rig_publish(rig, "n", "a");
    rig_publish(rig, "n", "b");
    rig_restart(rig, true); /* bodies are in the store only */
    struct node *node = rig_node(rig, "n");
    Xylem__Store__V1__ItemRemove remove = XYLEM__STORE__V1__ITEM_REMOVE__INIT;
    uint64_t seq = 1;
    remove.node = node->number;
    remove.n_seq = 1;
    remove.seq = &seq;
    (void)store_append(node->pubsub->shard->store, RECORD_ITEM_REMOVE, &remove.base);
    (void)consumer(rig, 1, BOB, CONSUME(BOB, "5"));
    sent(rig, "1:2/2");
    assert_int_equal(queue_count(queue_of(rig)->engine, QUEUE_PARKED), 1);
    struct pubsub_stats stats;
    pubsub_stats(node->pubsub->shard, &stats);
    assert_int_equal(stats.damaged, 1);
    assert_int_equal(stats.queues, 1);
    assert_int_equal(stats.queue_depth, 2);
    assert_int_equal(stats.queue_in_flight, 1);
    assert_int_equal(stats.queue_parked, 1);
    (void)rig_ok(rig, ALICE, "set", RETRACT("a"));
    assert_int_equal(queue_count(queue_of(rig)->engine, QUEUE_PARKED), 0);
}

static void setup_many(struct rig *rig, int count)
{
    char id[32];
    for (int i = 0; i < count; i++) {
        (void)snprintf(id, sizeof(id), "i%d", i);
        rig_publish(rig, "n", id);
    }
}

static void a_turn_hands_out_so_many_at_most(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    setup_many(rig, (int)QUEUE_RUN_MAX + 50);
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)rig_ok(rig, BOB, "set", CONSUME(BOB, "1000"));
    (void)attach(rig, 1);
    assert_int_equal(rig_count(rig, "one", NULL), QUEUE_RUN_MAX + 50);
    for (uint64_t i = 0; i < QUEUE_RUN_MAX + 50; i++)
        assert_int_equal(nth(rig, "one", i)->seq, i + 1);
}

/* A queue that takes several turns to load is not asleep when it is there. */
static void a_long_queue_goes_on_after_a_restart(void **state)
{
    enum { REQUESTS = 40, EACH = 100 };
    struct rig *rig = *state;
    static char xml[32 * 1024];
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    for (int i = 0; i < REQUESTS; i++) {
        size_t len = (size_t)snprintf(xml, sizeof(xml), "<pubsub xmlns='" NS_PUBSUB "'><publish node='n'>");
        for (int j = 0; j < EACH; j++)
            len += (size_t)snprintf(xml + len, sizeof(xml) - len, "<item id='i%d'><e xmlns='urn:e'/></item>",
                                    i * EACH + j);
        (void)snprintf(xml + len, sizeof(xml) - len, "</publish></pubsub>");
        (void)rig_ok(rig, ALICE, "set", xml);
    }
    rig_restart(rig, true);
    (void)consumer(rig, 1, BOB, CONSUME(BOB, "1000"));
    assert_int_equal(rig_count(rig, "one", NULL), 1000);
    for (uint64_t i = 0; i < 1000; i++)
        assert_int_equal(nth(rig, "one", i)->seq, i + 1);
    /* also where nobody comes: what is due is done */
    (void)rig_ok(rig, ALICE, "set",
                 PUBSUB("<publish node='n'><item id='short'><e xmlns='urn:e'/><headers xmlns='" NS_SHIM
                        "'><header name='TTL'>20</header></headers></item></publish>"));
    rig_restart(rig, true);
    (void)rig_ok(rig, ALICE, "get", PUBSUB("<items node='n' max_items='1'/>"));
    assert_non_null(index_find_id(&rig_node(rig, "n")->items, XY_STR("short")));
    pass(rig, 25);
    assert_null(index_find_id(&rig_node(rig, "n")->items, XY_STR("short")));
}

/* Whatever state they are in; and what comes then is handled as ever. */
static void a_purge_ends_everything(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    (void)consumer(rig, 1, BOB, CONSUME(BOB, "2"));
    (void)consumer(rig, 2, CAROL, CONSUME(CAROL, "1"));
    for (int i = 0; i < 5; i++)
        rig_publish(rig, "n", (const char *[]){ "a", "b", "c", "d", "e" }[i]);
    sent(rig, "1:1/1 2:2/1 1:3/1");
    (void)rig_ok(
        rig, BOB, "set",
        PUBSUB("<unlock xmlns='" NS_PUBSUB_QUEUEING "' node='n' delay='60'><item id='a'/></unlock>"));
    sent(rig, "1:4/1");
    pass(rig, 2); /* states are on disk */
    (void)rig_ok(rig, ALICE, "set", OWNER("<purge node='n'/>"));
    for (int i = 0; i < QUEUE_STATES; i++)
        assert_int_equal(queue_count(queue_of(rig)->engine, (enum queue_state)i), 0);
    rig->seen_count = 0;
    for (int i = 0; i < 4; i++)
        rig_publish(rig, "n", (const char *[]){ "a", "b", "c", "d" }[i]);
    sent(rig, "2:6/1 1:7/1 1:8/1");
    (void)rig_ok(rig, BOB, "set", RETRACT("b"));
    sent(rig, "1:9/1");
    rig_restart(rig, true);
    assert_int_equal(rig_node(rig, "n")->items.live, 3);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__) || !defined(__GLIBC__)
#define MEMORY_TESTS
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

static void what_does_not_fit_into_memory_waits(void **state)
{
    struct rig *rig = *state;
    char xml[9000], text[8001];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    (void)snprintf(xml, sizeof(xml),
                   PUBSUB("<publish node='n'><item id='large'><e xmlns='urn:e'>%s</e></item></publish>"),
                   text);
    (void)rig_ok(rig, ALICE, "set", xml);
    rig_publish(rig, "n", "small");
    rig_restart(rig, true);
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)rig_ok(rig, BOB, "set", CONSUME(BOB, "5"));
    const struct seen *seen = NULL;
    assert_int_equal(rig_count(rig, "attach", &seen), 1);
    struct claim_key key = seen->key;
    delivery_attached(shard_of(rig, 1), key, rig_session(1), 0);
    refuse_above = 6000;
    rig_turns(rig);
    refuse_above = SIZE_MAX;
    sent(rig, ""); /* and nothing behind it */
    assert_int_equal(queue_find(queue_of(rig)->engine, 1)->attempts, 0);
    pass(rig, 2);
    sent(rig, "1:1/2 1:2/2");
}

/* Handing out and settling take nothing from the heap once warm: the answer and the notice are what is allocated. */
static void handing_out_allocates_nothing(void **state)
{
    struct rig *rig = *state;
    (void)rig_ok(rig, ALICE, "set", QUEUE(""));
    struct claim_key key = consumer(rig, 1, BOB, CONSUME(BOB, "1"));
    setup_many(rig, 600);
    struct queue *queue = queue_of(rig);
    struct node *node = queue->node;
    size_t before = 0;
    for (uint64_t seq = 1; seq <= 500; seq++) {
        if (seq == 100)
            before = allocations;
        assert_int_equal(node_subscription(node, key.subscription)->worker->consumer.held_count, 1);
        queue_take(queue, index_find(&node->items, seq));
        rig->seen_count = 0;
        rig_turns(rig);
    }
    assert_true(allocations - before < 50); /* the table of entries is rebuilt now and then */
    print_message("%zu allocations for 400 items\n", allocations - before);
}

#define MEMORY_TESTS TEST(what_does_not_fit_into_memory_waits), TEST(handing_out_allocates_nothing),
#endif

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
    struct rig *rig = *state;
    rig_free(&rig);
    return 0;
}

#define TEST(name)                                                                                           \
    cmocka_unit_test_setup_teardown(name, setup_one, teardown),                                              \
        cmocka_unit_test_setup_teardown(name, setup_three, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = { TEST(nothing_goes_out_before_its_commit),
                                        TEST(a_session_without_room_was_not_sent_to),
                                        TEST(a_session_that_ends_gives_back),
                                        TEST(a_better_session_takes_over_when_all_is_settled),
                                        TEST(who_gives_an_item_up_gets_the_next_one),
                                        TEST(a_broker_that_stops_hands_out_nothing),
                                        TEST(locks_end_and_pauses_pass),
                                        TEST(a_refusal_outlives_a_crash),
                                        TEST(states_are_stored_only_where_they_last),
                                        TEST(a_state_without_its_item_goes),
                                        TEST(a_damaged_item_is_parked),
                                        TEST(a_long_queue_goes_on_after_a_restart),
                                        TEST(a_turn_hands_out_so_many_at_most),
                                        TEST(a_purge_ends_everything),
                                        MEMORY_TESTS };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
