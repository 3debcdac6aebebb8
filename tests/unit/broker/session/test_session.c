/* Sessions over time: idle ones cost little, silent ones go, slots are used again, and accounts that are removed take their
 * sessions with them. */
#include "tests/unit/broker/session/rig.h"

#define JULIET "juliet@example.org"

#define IDLE_SESSION_BYTES_MAX                                                                               \
    4096u /* struct session, XEP-0198, stream, addresses; without the connection's own */

static struct rig *verona(unsigned shards, const char *config)
{
    struct rig *rig = rig_new(shards, config);
    rig_account(rig, JULIET);
    return rig;
}

static void test_idle_sessions_are_small(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_managed(rig, 0, JULIET, "a", id);
    wire_say(juliet,
             "<presence/><iq type='get' id='d' to='example.org'><query xmlns='" NS_DISCO_INFO "'/></iq>");
    wire_ack(juliet, 2);
    const struct session *session = wire_session(juliet);
    assert_false(session->asleep);
    rig_sleep(rig, SESSION_SLEEP_US);
    assert_true(session->asleep && juliet->asleep);
    size_t bytes = sizeof(*session) + sizeof(*session->sm) + xy_stream_memory(session->stream) +
                   session->claims_cap * sizeof(struct claim) + session->jid_bytes->len + session->to->len;
    if (bytes > IDLE_SESSION_BYTES_MAX)
        fail_msg("an idle session holds %zu bytes", bytes);
    assert_true(xy_sm_queue_empty(&session->queue) && session->queue.head == NULL);
    wire_say(juliet,
             "<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>"); /* wakes up */
    assert_heard(juliet, "id='p'");
    assert_false(session->asleep);
    rig_sleep(rig, SESSION_SLEEP_US);
    assert_true(session->asleep);
    rig_free(&rig);
}

static void test_idle_timeout(void **state)
{
    (void)state;
    char id[80];
    struct rig *rig = verona(1, "limits { idle_timeout = 60s; }");
    struct wire *plain = rig_online(rig, 0, JULIET, "a"), *managed = rig_managed(rig, 0, JULIET, "b", id);
    struct wire *lively = rig_online(rig, 0, JULIET, "c");
    for (unsigned i = 0; i < 59; i++) {
        rig_sleep(rig, 1000000);
        wire_say(lively, " ");
    }
    rig_sleep(rig, 999999);
    assert_false(plain->closed || managed->closed);
    rig_sleep(rig, 1);
    assert_true(plain->closed && managed->closed && !lively->closed);
    assert_heard(plain, "<connection-timeout");
    assert_int_equal(rig_stat(rig, sessions_detached), 1);
    rig_free(&rig);
}

static void test_no_idle_timeout(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "");
    struct wire *juliet = rig_online(rig, 0, JULIET, "a");
    rig_sleep(rig, UINT64_C(365) * 86400 * 1000000);
    assert_false(juliet->closed);
    rig_free(&rig);
}

static void test_slots(void **state)
{
    (void)state;
    struct rig *rig = verona(1, "");
    struct shard *shard = rig_shard(rig, 0);
    struct session_ref refs[40];
    for (unsigned i = 0; i < 40; i++) {
        struct wire *wire = rig_bound(rig, 0, JULIET, "a");
        refs[i] = wire_session(wire)->ref;
        assert_ptr_equal(session_find(shard, refs[i]), wire_session(wire));
        assert_null(session_find(shard, (struct session_ref){ refs[i].index, refs[i].generation, 1 }));
        for (unsigned j = 0; j < i; j++)
            assert_null(session_find(shard, refs[j])); /* the conflict ended them */
    }
    assert_null(session_find(shard, SESSION_NONE));
    assert_null(session_find(shard, (struct session_ref){ UINT32_MAX, 1, 0 }));
    assert_true(shard->sessions->slots_count <= 4);
    rig_free(&rig);
}

/* Mail for a session that is gone is no error, and nothing of it leaks. */
static void test_stale_references(void **state)
{
    (void)state;
    struct rig *rig = verona(2, "");
    struct wire *juliet = rig_online(rig, 1, JULIET, "a");
    struct session_ref ref = wire_session(juliet)->ref;
    wire_vanish(juliet);
    struct shard *shard = rig_shard(rig, 0);
    struct xy_bytes *bytes = xy_bytes_new(XY_STR("<message/>"));
    session_send(shard, ref, &bytes);
    assert_null(bytes);
    bytes = xy_bytes_new(XY_STR("<message/>"));
    session_send(shard, SESSION_NONE, &bytes);
    assert_null(bytes);
    session_close(shard, ref, XY_STREAM_CONFLICT, NULL);
    session_handled(shard, ref, (struct session_inbound){ .bytes = 1 });
    delivery_detach(shard, ref, 0);
    rig_run(rig);
    rig_free(&rig);
}

static void on_removed(struct shard *shard, void *ctx, enum account_result result)
{
    (void)shard;
    *(enum account_result *)ctx = result;
}

static void test_account_removed(void **state)
{
    (void)state;
    char id[80];
    enum account_result result = ACCOUNT_BUSY;
    struct rig *rig = verona(2, "");
    struct wire *a = rig_online(rig, 0, JULIET, "a"), *b = rig_managed(rig, 1, JULIET, "b", id);
    wire_vanish(b);
    accounts_remove(rig_shard(rig, 0), XY_STR(JULIET),
                    &(struct accounts_asker){ .fn = on_removed, .ctx = &result });
    rig_run(rig);
    assert_int_equal(result, ACCOUNT_OK);
    assert_true(a->closed);
    assert_heard(a, "<not-authorized");
    assert_int_equal(rig_stat(rig, sessions), 0);
    assert_int_equal(rig_stat(rig, sessions_detached), 0);
    rig_free(&rig);
}

/* The connection fails in the middle of everything: seeded random clients, nobody's memory is touched afterwards. */
static void test_random_lives(void **state)
{
    (void)state;
    static const char *const sayings[] = {
        "<presence/>",
        "<presence type='unavailable'/>",
        "<message to='" JULIET "' type='chat'><body>x</body></message>",
        "<message to='" JULIET "/b' type='chat'><body>x</body></message>",
        "<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='get' id='v' to='" JULIET "/a'><query xmlns='jabber:iq:version'/></iq>",
        "<r xmlns='urn:xmpp:sm:3'/>",
        "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
        "</stream:stream>",
        "<not-a-stanza/>",
        "<message from='x@y' to='" JULIET "'/>",
        "<message>",
    };
    for (uint64_t round = 1; round <= 60; round++) {
        uint64_t seed = round * 7919;
        struct rig *rig = verona(3, "limits { outbox = 64kb; stalled_timeout = 5s; } sm { max = 10s; }");
        for (unsigned i = 0; i < 12; i++) {
            char id[80], name[2] = { (char)('a' + unit_below(&seed, 3)), 0 };
            unsigned shard = (unsigned)unit_below(&seed, 3);
            struct wire *wire = unit_below(&seed, 2) ? rig_managed(rig, shard, JULIET, name, id)
                                                     : rig_bound(rig, shard, JULIET, name);
            wire_say(wire, "<presence/>");
            for (unsigned j = 0; j < 60; j++) {
                struct wire *any = rig->wires[unit_below(&seed, rig->wires_count)];
                rig->hold_commits = unit_below(&seed, 4) == 0;
                if (any->closed)
                    continue;
                switch (unit_below(&seed, 8)) {
                case 0:
                    any->refuse = true;
                    break;
                case 1:
                    if (any->refuse)
                        wire_accept(any);
                    break;
                case 2:
                    shard_turn(rig_shard(rig, (unsigned)unit_below(&seed, 3)));
                    break;
                case 3:
                    if (unit_below(&seed, 10) == 0)
                        wire_vanish(any);
                    break;
                default: {
                    bool rude = unit_below(&seed, 40) == 0;
                    wire_feed(any, xy_str(sayings[rude ? 8 + unit_below(&seed, 4) : unit_below(&seed, 8)]));
                    if (unit_below(&seed, 3) == 0)
                        rig_run(rig);
                }
                }
            }
            rig->hold_commits = false;
            rig_sleep(rig, unit_below(&seed, 8) * 1000000);
        }
        rig_free(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_sessions_are_small),
        cmocka_unit_test(test_idle_timeout),
        cmocka_unit_test(test_no_idle_timeout),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_stale_references),
        cmocka_unit_test(test_account_removed),
        cmocka_unit_test(test_random_lives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
