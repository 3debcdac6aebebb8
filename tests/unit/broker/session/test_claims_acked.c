/* Claims whose items are acknowledged one by one, by receipt or explicitly: what differs for the session that holds them.
 * It needs no XEP-0198, asks for receipts, takes nothing while nobody is connected, and gets notices by its route. */
#include "tests/unit/broker/session/rig.h"

#define JULIET "juliet@example.org"
#define SUBID  "0123456789abcdef"

static const struct claim_key key = { .node = 9, .subscription = 7, .owner = 0 };

static struct rig *verona(void)
{
    struct rig *rig = rig_new(1, "limits { outbox = 64kb; }");
    rig_account(rig, JULIET);
    return rig;
}

static struct event *event_make(uint64_t seq, size_t len)
{
    char body[32768];
    memset(body, 'x', len);
    return event_new(XY_STR("pubsub.example.org"), xy_str_n(body, len), seq, 0xfeed);
}

static uint32_t attach(struct rig *rig, struct session_ref session, unsigned flags)
{
    delivery_attach(rig_shard(rig, 0), session, key, flags, XY_STR(SUBID));
    rig_run(rig);
    return (uint32_t)rig_next_told(rig, ATTACHED)->number;
}

static void one(struct rig *rig, struct session_ref session, uint32_t claim, uint16_t run, uint64_t seq)
{
    delivery_one(rig_shard(rig, 0), session, claim, run, event_make(seq, 8), 1, false);
    rig_run(rig);
}

static void test_receipts_are_asked_for(void **state)
{
    (void)state;
    struct rig *rig = verona();
    struct wire *juliet = rig_bound(rig, 0, JULIET, "a"); /* without XEP-0198 */
    struct session_ref ref = wire_session(juliet)->ref;
    uint32_t claim = attach(rig, ref, CLAIM_RECEIPTS);
    one(rig, ref, claim, 1, 5);
    assert_contains(wire_heard(juliet),
                    " id='" SUBID "-5-9-7'>xxxxxxxx<delivery xmlns='urn:xylem:delivery:0' "
                    "epoch='000000000000feed' seq='5' attempt='1' subid='" SUBID
                    "'/><request xmlns='urn:xmpp:receipts'/></message>");
    assert_told_all(rig); /* that it was sent acknowledges nothing */
    assert_int_equal(wire_session(juliet)->claims[claim].entries, 0);
    wire_say(juliet, "</stream:stream>");
    assert_int_equal(rig_next_told(rig, RELEASED)->number, 0);
    rig_free(&rig);
}

/* What the kernel had not taken when the connection broke is nobody's any more: the claim goes back as a whole. */
static void test_broken_connection(void **state)
{
    (void)state;
    struct rig *rig = verona();
    struct wire *juliet = rig_bound(rig, 0, JULIET, "a");
    struct session_ref ref = wire_session(juliet)->ref;
    uint32_t claim = attach(rig, ref, CLAIM_EXPLICIT);
    juliet->refuse = true;
    one(rig, ref, claim, 1, 1);
    one(rig, ref, claim, 1, 2);
    assert_int_equal(wire_session(juliet)->claims[claim].entries, 2);
    wire_vanish(juliet);
    rig_run(rig);
    assert_int_equal(rig_next_told(rig, RELEASED)->number, 0);
    assert_told_all(rig);
    rig_free(&rig);
}

/* XEP-0198 covers the stanza, and that settles nothing. */
static void test_stream_acknowledgement_is_not_one(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona();
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    struct session_ref ref = wire_session(juliet)->ref;
    uint32_t claim = attach(rig, ref, CLAIM_EXPLICIT);
    one(rig, ref, claim, 1, 5);
    assert_contains(wire_heard(juliet), "id='" SUBID "-5'");
    wire_ack(juliet, 1);
    assert_told_all(rig);
    assert_int_equal(wire_session(juliet)->claims[claim].entries, 0);
    rig_free(&rig);
}

static void test_takes_nothing_while_detached(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona();
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    struct session_ref ref = wire_session(juliet)->ref;
    uint32_t claim = attach(rig, ref, CLAIM_EXPLICIT);
    one(rig, ref, claim, 1, 5);
    wire_vanish(juliet);
    rig_run(rig);
    one(rig, ref, claim, 1, 6);
    assert_int_equal(rig_next_told(rig, STALLED)->number, 6);
    one(rig, ref, claim, 1, 7);
    assert_told_all(rig);
    struct wire *again = rig_authenticated(rig, 0, JULIET);
    wire_resume(again, id, 0);
    rig_run(rig);
    assert_int_equal(rig_next_told(rig, READY)->run, 1);
    one(rig, ref, claim, 2, 6);
    const char *heard = wire_heard(again);
    assert_contains(heard, "seq='5'");
    assert_contains(heard, "seq='6'");
    assert_told_all(rig);
    rig_free(&rig);
}

static void test_only_notices_come_by_route(void **state)
{
    (void)state;
    struct rig *rig = verona();
    struct wire *juliet = rig_bound(rig, 0, JULIET, "a");
    struct session_ref ref = wire_session(juliet)->ref;
    uint32_t claim = attach(rig, ref, CLAIM_EXPLICIT);
    for (uint64_t seq = 0; seq < 2; seq++) {
        struct routes *routes = routes_new(1);
        routes->route[0] = (struct route){ ref.index, ref.generation, claim, 1, ROUTE_NOTICES };
        delivery_publish(rig_shard(rig, 0), 0, event_make(seq, 8), routes);
    }
    rig_run(rig);
    const char *heard = wire_heard(juliet);
    assert_int_equal(text_count(heard, "xxxxxxxx"), 1);
    assert_lacks(heard, "<delivery");
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_receipts_are_asked_for),
        cmocka_unit_test(test_broken_connection),
        cmocka_unit_test(test_stream_acknowledgement_is_not_one),
        cmocka_unit_test(test_takes_nothing_while_detached),
        cmocka_unit_test(test_only_notices_come_by_route),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
