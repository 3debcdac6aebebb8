/* At-least-once subscriptions as their session sees them: every step of the conversation in broker/delivery/delivery.h,
 * with the owner played by the test. */
#include "tests/unit/broker/session/rig.h"

#define JULIET "juliet@example.org"
#define SUBID  "0123456789abcdef"

static struct rig *verona(unsigned shards, const char *config)
{
    struct rig *rig = rig_new(shards, config);
    rig_account(rig, JULIET);
    return rig;
}

static struct claim_key key_at(unsigned owner, uint32_t subscription)
{
    return (struct claim_key){ .node = 9, .subscription = subscription, .owner = owner };
}

static struct event *event_make(uint64_t seq, size_t len)
{
    char *body = malloc(len + 1);
    memset(body, 'x', len);
    struct event *event = event_new(XY_STR("pubsub.example.org"), xy_str_n(body, len), seq, 0xfeed);
    free(body);
    return event;
}

/* Attaches and returns the claim's index. */
static uint32_t attach(struct rig *rig, struct session_ref session, struct claim_key key)
{
    delivery_attach(rig_shard(rig, key.owner), session, key, 0, XY_STR(SUBID));
    rig_run(rig);
    struct told *told = rig_next_told(rig, ATTACHED);
    assert_int_equal(told->key.subscription, key.subscription);
    assert_true(session_ref_eq(told->session, session));
    return (uint32_t)told->number;
}

static void one(struct rig *rig, struct session_ref session, uint32_t claim, uint16_t run, uint64_t seq,
                uint32_t attempt, bool page_end)
{
    delivery_one(rig_shard(rig, 0), session, claim, run, event_make(seq, 8), attempt, page_end);
}

static void live(struct rig *rig, struct session_ref session, uint32_t claim, uint16_t run, uint64_t seq,
                 size_t len)
{
    struct routes *routes = routes_new(1);
    routes->route[0] = (struct route){ session.index, session.generation, claim, run, 0 };
    delivery_publish(rig_shard(rig, 0), session.shard, event_make(seq, len), routes);
}

/* --- deliveries and acknowledgements -------------------------------------------------------------------------------- */

static void test_delivered_and_acknowledged(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(3, "");
    struct wire *juliet = rig_managed(rig, 1, JULIET, "a", id);
    struct session_ref ref = wire_session(juliet)->ref;
    uint32_t claim = attach(rig, ref, key_at(2, 7));
    one(rig, ref, claim, 1, 5, 1, false);
    one(rig, ref, claim, 1, 6, 3, false);
    live(rig, ref, claim, 1, 7, 8);
    rig_run(rig);
    const char *heard = wire_heard(juliet);
    assert_contains(heard,
                    "<message from='pubsub.example.org' to='" JULIET "/a' id='" SUBID "-5'>xxxxxxxx"
                    "<delivery xmlns='urn:xylem:delivery:0' epoch='000000000000feed' seq='5' attempt='1' "
                    "subid='" SUBID "'/></message>");
    assert_contains(heard, "seq='6' attempt='3'");
    assert_contains(heard, "seq='7' attempt='1'");
    assert_told_all(rig);
    wire_ack(juliet, 2);
    struct told *told = rig_next_told(rig, ACKED); /* one for the batch */
    assert_int_equal(told->number, 6);
    assert_int_equal(told->key.node, 9);
    wire_ack(juliet, 3);
    assert_int_equal(rig_next_told(rig, ACKED)->number, 7);
    wire_say(juliet, "</stream:stream>");
    assert_int_equal(rig_next_told(rig, RELEASED)->number, 7);
    assert_told_all(rig);
    rig_free(&rig);
}

/* Without XEP-0198, or gone: the claim comes back at once. */
static void test_not_able_to_hold(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(2, "");
    struct wire *plain = rig_bound(rig, 0, JULIET, "a"), *managed = rig_managed(rig, 0, JULIET, "b", id);
    struct session_ref gone = wire_session(managed)->ref;
    delivery_attach(rig_shard(rig, 1), wire_session(plain)->ref, key_at(1, 7), 0, XY_STR(SUBID));
    rig_run(rig);
    assert_int_equal(rig_next_told(rig, RELEASED)->number, 0);
    wire_say(managed, "</stream:stream>");
    delivery_attach(rig_shard(rig, 1), gone, key_at(1, 8), 0, XY_STR(SUBID));
    rig_run(rig);
    assert_int_equal(rig_next_told(rig, RELEASED)->key.subscription, 8);
    assert_told_all(rig);
    rig_free(&rig);
}

/* A notice without an item is owed to nobody. */
static void test_notices_are_not_claimed(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    struct session_ref ref = wire_session(juliet)->ref;
    uint32_t claim = attach(rig, ref, key_at(0, 7));
    live(rig, ref, claim, 1, 0, 8);
    rig_run(rig);
    const char *heard = wire_heard(juliet);
    assert_contains(heard, "xxxxxxxx");
    assert_lacks(heard, "<delivery");
    wire_ack(juliet, 1);
    assert_told_all(rig);
    rig_free(&rig);
}

/* --- runs ----------------------------------------------------------------------------------------------------------- */

static void test_runs(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    struct session_ref ref = wire_session(juliet)->ref;
    /* The owner counts runs over all sessions that held the claim: the first may have any number. */
    uint32_t claim = attach(rig, ref, key_at(0, 7));
    one(rig, ref, claim, 40000, 1, 1, false);
    one(rig, ref, claim, 40001, 2, 1, false);
    one(rig, ref, claim, 40000, 3, 1, false); /* late, of a run that is over */
    rig_run(rig);
    const char *heard = wire_heard(juliet);
    assert_contains(heard, "seq='1'");
    assert_contains(heard, "seq='2'");
    assert_lacks(heard, "seq='3'");
    uint32_t other = attach(rig, ref, key_at(0, 8)); /* over the top */
    one(rig, ref, other, 65535, 1, 1, false);
    one(rig, ref, other, 1, 2, 1, false);
    one(rig, ref, other, 65535, 3, 1, false);
    rig_run(rig);
    heard = wire_heard(juliet);
    assert_contains(heard, "seq='2'");
    assert_lacks(heard, "seq='3'");
    one(rig, ref, other + 50, 1, 4, 1, false); /* there is no such claim */
    rig_run(rig);
    assert_heard_nothing(juliet);
    rig_free(&rig);
}

/* The outbox is full: the run is over, the first that was not taken is told, and when half of it is free the owner hears
 * that it may go on. Nothing arrives out of order or twice. */
static void test_stall(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(2, "limits { outbox = 64kb; }");
    struct wire *juliet = rig_managed(rig, 1, JULIET, "a", id);
    struct session_ref ref = wire_session(juliet)->ref;
    uint32_t claim = attach(rig, ref, key_at(0, 7));
    juliet->refuse = true;
    uint64_t seq = 1;
    for (; seq <= 20; seq++)
        live(rig, ref, claim, 1, seq, 10000);
    rig_run(rig);
    struct told *told = rig_next_told(rig, STALLED);
    uint64_t unsent = told->number;
    assert_in_range(unsent, 6, 9);
    assert_int_equal(told->run, 1);
    assert_told_all(rig); /* once, whatever came behind */
    one(rig, ref, claim, 1, unsent, 1, false);
    rig_run(rig);
    assert_told_all(rig); /* that run is over */
    wire_accept(juliet);
    assert_told_all(rig); /* sent is not acknowledged: still full */
    wire_ack(juliet, 2);
    assert_int_equal(rig_next_told(rig, ACKED)->number, 2);
    assert_told_all(rig);
    wire_ack(juliet, (unsigned)unsent - 1);
    assert_int_equal(rig_next_told(rig, ACKED)->number, unsent - 1);
    assert_int_equal(rig_next_told(rig, READY)->run, 1);
    one(rig, ref, claim, 2, unsent, 1, false);
    rig_run(rig);
    const char *heard = wire_heard(juliet);
    for (uint64_t i = 1; i <= unsent; i++) {
        char text[32];
        (void)snprintf(text, sizeof(text), "seq='%u'", (unsigned)i);
        assert_int_equal(text_count(heard, text), 1);
    }
    assert_int_equal(text_count(heard, "<delivery"), (unsigned)unsent);
    rig_free(&rig);
}

/* Pages: the owner hears that there is room, at once or when there is. */
static void test_page_end(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "limits { outbox = 64kb; }");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    struct session_ref ref = wire_session(juliet)->ref;
    uint32_t claim = attach(rig, ref, key_at(0, 7));
    one(rig, ref, claim, 1, 1, 1, false);
    rig_run(rig);
    assert_told_all(rig);
    one(rig, ref, claim, 1, 2, 1, true);
    rig_run(rig);
    assert_int_equal(rig_next_told(rig, READY)->run, 1);
    juliet->refuse = true;
    for (uint64_t seq = 3; seq < 7; seq++)
        live(rig, ref, claim, 1, seq, 10000);
    one(rig, ref, claim, 1, 7, 1, true); /* more than half full */
    rig_run(rig);
    assert_told_all(rig);
    wire_accept(juliet);
    wire_ack(juliet, 7);
    assert_int_equal(rig_next_told(rig, ACKED)->number, 7);
    rig_next_told(rig, READY);
    assert_told_all(rig);
    rig_free(&rig);
}

/* --- letting go ----------------------------------------------------------------------------------------------------- */

/* What is queued is still sent as what it was; its acknowledgement counts for nobody else who gets the slot. */
static void test_detach_with_entries_queued(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    struct session_ref ref = wire_session(juliet)->ref;
    uint32_t claim = attach(rig, ref, key_at(0, 7));
    juliet->refuse = true;
    one(rig, ref, claim, 1, 1, 1, false);
    rig_run(rig);
    one(rig, ref, claim, 1, 2, 1, false);
    rig_run(rig);
    delivery_detach(rig_shard(rig, 0), ref, claim);
    uint32_t other = attach(rig, ref, key_at(0, 8));
    assert_int_not_equal(other, claim);   /* entries still name the old one */
    one(rig, ref, claim, 1, 3, 1, false); /* comes too late */
    one(rig, ref, other, 1, 50, 1, false);
    rig_run(rig);
    wire_accept(juliet);
    const char *heard = wire_heard(juliet);
    assert_contains(heard, "seq='2' attempt='1' subid='" SUBID "'");
    assert_lacks(heard, "seq='3'");
    assert_contains(heard, "seq='50'");
    wire_ack(juliet, 2);
    assert_told_all(rig);
    wire_ack(juliet, 3);
    struct told *told = rig_next_told(rig, ACKED);
    assert_int_equal(told->key.subscription, 8);
    assert_int_equal(told->number, 50);
    assert_int_equal(attach(rig, ref, key_at(0, 9)), claim); /* now it is free */
    delivery_detach(rig_shard(rig, 0), ref, claim);
    delivery_detach(rig_shard(rig, 0), ref, claim); /* twice is once */
    rig_run(rig);
    rig_free(&rig);
}

/* Coming and going for ever takes no more slots than are held at once. */
static void test_slots_are_used_again(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    struct session_ref ref = wire_session(juliet)->ref;
    for (unsigned i = 0; i < 200; i++) {
        uint32_t claim = attach(rig, ref, key_at(0, i + 1));
        one(rig, ref, claim, 1, i + 1, 1, false);
        rig_run(rig);
        delivery_detach(rig_shard(rig, 0), ref, claim);
        uint32_t meanwhile = attach(rig, ref, key_at(0, 1000 + i));
        wire_ack(juliet, i + 1);
        delivery_detach(rig_shard(rig, 0), ref, meanwhile);
        rig_run(rig);
    }
    assert_in_range(wire_session(juliet)->claims_count, 1, 4);
    rig_free(&rig);
}

static void test_detach_while_stalled(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "limits { outbox = 64kb; }");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    struct session_ref ref = wire_session(juliet)->ref;
    uint32_t claim = attach(rig, ref, key_at(0, 7));
    juliet->refuse = true;
    for (uint64_t seq = 1; seq <= 20; seq++)
        live(rig, ref, claim, 1, seq, 10000);
    rig_run(rig);
    rig_next_told(rig, STALLED);
    delivery_detach(rig_shard(rig, 0), ref, claim);
    rig_run(rig);
    assert_int_equal(wire_session(juliet)->claims_waiting, 0);
    wire_accept(juliet);
    wire_ack(juliet, 6);
    assert_told_all(rig);
    rig_free(&rig);
}

/* --- the end of the session ----------------------------------------------------------------------------------------- */

/* Detached: what is sent waits. Resumed: it arrives. Expired: the claim goes back with what was acknowledged. */
static void test_detached_session_keeps_its_claims(void **state)
{
    (void)state;
    for (unsigned resumed = 0; resumed < 2; resumed++) {
        char id[80];
        struct rig *rig = verona(2, "sm { max = 30s; }");
        struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
        struct session_ref ref = wire_session(juliet)->ref;
        uint32_t claim = attach(rig, ref, key_at(1, 7));
        for (uint64_t seq = 1; seq <= 3; seq++)
            one(rig, ref, claim, 1, seq, 1, false);
        rig_run(rig);
        wire_ack(juliet, 1);
        rig_next_told(rig, ACKED);
        wire_vanish(juliet);
        one(rig, ref, claim, 1, 4, 1, false);
        rig_run(rig);
        assert_told_all(rig);
        if (resumed) {
            struct wire *fresh = rig_authenticated(rig, 1, JULIET);
            wire_resume(fresh, id, 2);
            assert_int_equal(rig_next_told(rig, ACKED)->number, 2);
            const char *heard = wire_heard(fresh);
            assert_lacks(heard, "seq='2'");
            assert_contains(heard, "seq='3'");
            assert_contains(heard, "seq='4'");
            wire_ack(fresh, 4);
            assert_int_equal(rig_next_told(rig, ACKED)->number, 4);
        } else {
            rig_sleep(rig, 30 * 1000000);
            assert_int_equal(rig_next_told(rig, RELEASED)->number, 1);
        }
        assert_told_all(rig);
        rig_free(&rig);
    }
}

/* A detached session that is full stalls, and goes on when it is back. */
static void test_stall_while_detached(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "limits { outbox = 64kb; }");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    struct session_ref ref = wire_session(juliet)->ref;
    uint32_t claim = attach(rig, ref, key_at(0, 7));
    wire_vanish(juliet);
    for (uint64_t seq = 1; seq <= 20; seq++)
        live(rig, ref, claim, 1, seq, 10000);
    rig_run(rig);
    uint64_t unsent = rig_next_told(rig, STALLED)->number;
    struct wire *fresh = rig_authenticated(rig, 0, JULIET);
    wire_resume(fresh, id, 0);
    wire_ack(fresh, (unsigned)unsent - 1);
    assert_int_equal(rig_next_told(rig, ACKED)->number, unsent - 1);
    rig_next_told(rig, READY);
    assert_told_all(rig);
    rig_free(&rig);
}

/* --- when memory is short ------------------------------------------------------------------------------------------- */

static void test_short_memory_sheds_what_it_may(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    struct session_ref ref = wire_session(juliet)->ref;
    uint32_t claim = attach(rig, ref, key_at(0, 7));
    shard_group_set_memory_short(rig->group, true);
    live(rig, ref, DELIVERY_NO_CLAIM, 0, 1, 8);
    delivery_notify(rig_shard(rig, 0), ref, event_make(0, 8));
    live(rig, ref, claim, 1, 2, 8);
    rig_run(rig);
    assert_int_equal(text_count(wire_heard(juliet), "<message"), 1); /* the one that is owed */
    assert_int_equal(rig_stat(rig, events_dropped), 2);
    rig_free(&rig);
}

static void test_stale_routes(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "");
    struct wire *first = rig_bound(rig, 0, JULIET, "a");
    struct session_ref gone = wire_session(first)->ref;
    wire_vanish(first);
    struct wire *second = rig_bound(rig, 0, JULIET, "b");
    assert_int_equal(wire_session(second)->ref.index, gone.index); /* the slot is used again */
    live(rig, gone, DELIVERY_NO_CLAIM, 0, 1, 8);
    delivery_notify(rig_shard(rig, 0), gone, event_make(0, 8));
    live(rig, (struct session_ref){ 5000, 1, 0 }, DELIVERY_NO_CLAIM, 0, 1, 8);
    rig_run(rig);
    assert_heard_nothing(second);
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delivered_and_acknowledged),
        cmocka_unit_test(test_not_able_to_hold),
        cmocka_unit_test(test_notices_are_not_claimed),
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_stall),
        cmocka_unit_test(test_page_end),
        cmocka_unit_test(test_detach_with_entries_queued),
        cmocka_unit_test(test_slots_are_used_again),
        cmocka_unit_test(test_detach_while_stalled),
        cmocka_unit_test(test_detached_session_keeps_its_claims),
        cmocka_unit_test(test_stall_while_detached),
        cmocka_unit_test(test_short_memory_sheds_what_it_may),
        cmocka_unit_test(test_stale_routes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
