/* The mail between owners of nodes and sessions: what is packed comes out the same on the right shard, in order, and what
 * travels with it changes hands exactly once (the leak checker looks on). */
#include "tests/unit/unit.h"

#include <string.h>

#include "broker/delivery/delivery.h"
#include "broker/delivery/sessions.h"

static uint64_t now_us(void *ctx)
{
    (void)ctx;
    return 1;
}

static void random_bytes(void *ctx, void *out, size_t len)
{
    (void)ctx;
    memset(out, 1, len);
}

static const struct xy_env env = { .now_us = now_us, .wall_us = now_us, .random = random_bytes };
static struct shard_group *group;
static struct xy_buf heard; /* one line per call */

static void on_wake(void *ctx, unsigned shard)
{
    (void)ctx;
    (void)shard;
}

static void line(const struct shard *shard, const char *what, struct session_ref session, uint64_t a,
                 uint64_t b, uint64_t c)
{
    xy_buf_printf(&heard, "%u:%s %u.%u %llu %llu %llu\n", shard->index, what, session.index,
                  session.generation, (unsigned long long)a, (unsigned long long)b, (unsigned long long)c);
}

/* --- sessions ------------------------------------------------------------------------------------------------------- */

static void call_send(struct shard *shard, struct session_ref session, struct xy_bytes **stanza)
{
    line(shard, "send", session, (*stanza)->len, 0, 0);
}

static void call_send_message(struct shard *shard, struct session_ref session, struct xy_str bare,
                              struct xy_bytes **stanza, uint64_t seq)
{
    line(shard, "message", session, (*stanza)->len, bare.len, seq);
    xy_bytes_unref(stanza); /* taken */
}

static void call_send_presence(struct shard *shard, struct session_ref session, struct xy_bytes **stanza)
{
    line(shard, "presence", session, (*stanza)->len, 0, 0);
}

static enum session_verdict call_offer(struct shard *shard, struct session_ref session,
                                       struct session_offer *offer)
{
    line(shard, "offer", session, offer->stanza->len, offer->patient, 0);
    return offer->patient ? SESSION_WAITS : SESSION_FULL;
}

static void call_bound(struct shard *shard, struct session_ref session, struct xy_jid jid,
                       const struct xy_error *error)
{
    line(shard, "bound", session, xy_jid_present(jid) ? xy_jid_full(jid).len : 0,
         error ? (uint64_t)error->condition : 0, error != NULL);
}

static void call_close(struct shard *shard, struct session_ref session, enum xy_stream_error error,
                       const char *text)
{
    line(shard, "close", session, (uint64_t)error, strlen(text), 0);
}

static void call_handled(struct shard *shard, struct session_ref session, struct session_inbound inbound)
{
    line(shard, "handled", session, inbound.number, inbound.bytes, inbound.recorded);
}

static void call_answer(struct shard *shard, struct session_ref session, struct xy_bytes **stanza,
                        struct session_inbound inbound)
{
    line(shard, "answer", session, (*stanza)->len, inbound.number, inbound.recorded);
}

static void call_kept(struct shard *shard, struct session_ref session, bool kept)
{
    line(shard, "kept", session, kept, 0, 0);
}

static void call_resumption(struct shard *shard, struct session_ref session,
                            struct session_resumption *resumption)
{
    line(shard, "resumption", session, resumption->live.index, resumption->past != NULL, 0);
}

static void call_copied(struct shard *shard, struct session_ref session, bool copied)
{
    line(shard, "copied", session, copied, 0, 0);
}

static void call_publish(struct shard *shard, struct event *event, struct routes *routes)
{
    for (uint32_t i = 0; i < routes->count; i++)
        line(shard, "publish",
             (struct session_ref){ routes->route[i].session, routes->route[i].generation, 0 }, event->seq,
             routes->route[i].claim, routes->route[i].run);
}

static void call_notify(struct shard *shard, struct session_ref session, struct event *event)
{
    line(shard, "notify", session, event->seq, 0, 0);
}

static void call_attach(struct shard *shard, struct session_ref session, const struct claim_key *key,
                        unsigned flags, struct xy_str subid)
{
    assert_int_equal(flags, CLAIM_EXPLICIT);
    line(shard, "attach", session, key->node, key->subscription, subid.len);
}

static void call_one(struct shard *shard, struct session_ref session, uint32_t claim, uint16_t run,
                     struct event *event, uint32_t attempt, bool page_end)
{
    line(shard, page_end ? "one+" : "one", session, event->seq, claim * 100000u + run, attempt);
}

static void call_detach(struct shard *shard, struct session_ref session, uint32_t claim)
{
    line(shard, "detach", session, claim, 0, 0);
}

static const struct session_calls calls = {
    .send = call_send,
    .send_message = call_send_message,
    .send_presence = call_send_presence,
    .offer = call_offer,
    .bound = call_bound,
    .close = call_close,
    .handled = call_handled,
    .answer = call_answer,
    .kept = call_kept,
    .resumption = call_resumption,
    .copied = call_copied,
    .publish = call_publish,
    .notify = call_notify,
    .attach = call_attach,
    .one = call_one,
    .detach = call_detach,
};

/* --- owners --------------------------------------------------------------------------------------------------------- */

static void owner_attached(struct shard *shard, struct claim_key key, struct session_ref session,
                           uint32_t claim)
{
    line(shard, "attached", session, key.subscription, claim, 0);
}

static void owner_acked(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t seq)
{
    line(shard, "acked", session, key.subscription, seq, 0);
}

static void owner_stalled(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run,
                          uint64_t unsent)
{
    line(shard, "stalled", session, key.subscription, unsent, run);
}

static void owner_ready(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run)
{
    line(shard, "ready", session, key.subscription, 0, run);
}

static void owner_released(struct shard *shard, struct claim_key key, struct session_ref session,
                           uint64_t acked)
{
    line(shard, "released", session, key.subscription, acked, 0);
}

static void owner_received_before(struct shard *shard, struct xy_str node, struct claim_key key, uint64_t seq)
{
    assert_true(xy_str_is(node, "news"));
    line(shard, "before", SESSION_NONE, key.node, key.subscription, seq);
}

static const struct delivery_owner owner = {
    .attached = owner_attached,
    .acked = owner_acked,
    .stalled = owner_stalled,
    .ready = owner_ready,
    .released = owner_released,
    .received_before = owner_received_before,
};

/* --- the tests ------------------------------------------------------------------------------------------------------ */

static struct shard *at(unsigned index)
{
    return shard_group_get(group, index);
}

static int start(void **state)
{
    (void)state;
    group = shard_group_new(
        &(struct shard_group_options){ .count = 3, .env = &env, .hash_seed = 1, .wake = on_wake });
    for (unsigned i = 0; i < 3; i++) {
        session_set_calls(at(i), &calls);
        delivery_set_owner(at(i), &owner);
    }
    return 0;
}

static int stop(void **state)
{
    (void)state;
    shard_group_free(&group);
    xy_buf_free(&heard);
    return 0;
}

static void run(void)
{
    for (unsigned i = 0; i < 9; i++)
        shard_turn(at(i % 3));
}

#define assert_lines(expected)                                                                               \
    do {                                                                                                     \
        assert_str(xy_buf_view(&heard), expected);                                                           \
        xy_buf_reset(&heard);                                                                                \
    } while (0)

static const struct session_ref session = { 4, 9, 2 };

static struct event *event(uint64_t seq)
{
    return event_new(XY_STR("pubsub.example.org"), XY_STR("<event/>"), seq, 1);
}

static void test_event(void **state)
{
    (void)state;
    struct event *one = event(5), *same = event_ref(one);
    assert_ptr_equal(one, same);
    assert_str(event_service(one), "pubsub.example.org");
    assert_str(event_body(one), "<event/>");
    assert_ptr_equal(event_of(event_bytes(one)), one);
    assert_int_equal(atomic_load(&event_bytes(one)->refs), 2);
    event_unref(&one);
    assert_null(one);
    event_unref(&same);
    event_unref(&same); /* nothing is nothing */
}

static void test_to_sessions(void **state)
{
    (void)state;
    struct claim_key key = { 70, 7, 0, 0 };
    delivery_attach(at(0), session, key, CLAIM_EXPLICIT, XY_STR("subid"));
    delivery_one(at(0), session, 3, 2, event(10), 1, false);
    delivery_one(at(0), session, 3, 2, event(11), 4, true);
    delivery_notify(at(0), session, event(0));
    delivery_detach(at(0), session, 3);
    run();
    assert_lines("2:attach 4.9 70 7 5\n2:one 4.9 10 300002 1\n2:one+ 4.9 11 300002 4\n2:notify 4.9 0 0 "
                 "0\n2:detach 4.9 3 0 0\n");
}

/* One letter, whatever the number of routes; the vector may be shared by the next publish. */
static void test_publish(void **state)
{
    (void)state;
    struct routes *routes = routes_new(2);
    routes->route[0] = (struct route){ 1, 1, DELIVERY_NO_CLAIM, 0, 0 };
    routes->route[1] = (struct route){ 2, 5, 8, 3, 0 };
    atomic_fetch_add(&routes->refs, 1);
    delivery_publish(at(1), 2, event(20), routes);
    delivery_publish(at(1), 2, event(21), routes);
    run();
    assert_lines("2:publish 1.1 20 4294967295 0\n2:publish 2.5 20 8 3\n"
                 "2:publish 1.1 21 4294967295 0\n2:publish 2.5 21 8 3\n");
}

static void test_to_owners(void **state)
{
    (void)state;
    struct claim_key key = { 70, 7, 1, 0 };
    delivery_attached(at(2), key, session, 12);
    delivery_acked(at(2), key, session, UINT64_C(1) << 50);
    delivery_stalled(at(2), key, session, 3, 99);
    delivery_ready(at(2), key, session, 3);
    delivery_released(at(2), key, session, 98);
    run();
    assert_lines(
        "1:attached 4.9 7 12 0\n1:acked 4.9 7 1125899906842624 0\n1:stalled 4.9 7 99 3\n1:ready 4.9 7 0 3\n"
        "1:released 4.9 7 98 0\n");
}

static void on_offered(struct shard *shard, enum session_verdict verdict, void *ctx)
{
    line(shard, "offered", session, (uint64_t)verdict, ctx == &heard, 0);
}

static void test_stanzas(void **state)
{
    (void)state;
    struct xy_bytes *bare = xy_bytes_new(XY_STR("juliet@example.org")), *bytes;
    bytes = xy_bytes_new(XY_STR("<message/>"));
    session_send(at(0), session, &bytes); /* not taken by the call: given back */
    assert_null(bytes);
    bytes = xy_bytes_new(XY_STR("<message/>"));
    session_send(at(0), SESSION_NONE, &bytes); /* to nobody */
    assert_null(bytes);
    session_send(at(0), session, &bytes); /* nothing */
    bytes = xy_bytes_new(XY_STR("<message/>"));
    session_send_message(at(0), session, bare, &bytes, 44);
    bytes = xy_bytes_new(XY_STR("<iq/>"));
    session_offer(at(0), session,
                  &(struct session_offer){ .stanza = bytes, .done = on_offered, .ctx = &heard });
    bytes = xy_bytes_new(XY_STR("<iq/>"));
    struct session_offer patient = { .stanza = bytes, .done = on_offered, .ctx = &heard, .patient = true };
    session_offer(at(0), session, &patient); /* waits: `done` is the session's to call */
    bytes = xy_bytes_new(XY_STR("<presence/>"));
    session_send_presence(at(0), session, &bytes);
    assert_null(bytes);
    struct session_inbound inbound = { .number = 5, .bytes = 70 };
    session_handled(at(0), session, inbound);
    session_handled(at(0), session, (struct session_inbound){ 0 }); /* nobody counts */
    session_handled(at(0), SESSION_NONE, inbound);                  /* the broker itself */
    bytes = xy_bytes_new(XY_STR("<iq/>"));
    inbound.recorded = true;
    session_answer(at(0), session, &bytes, inbound);
    assert_null(bytes);
    session_kept(at(0), session, true);
    struct session_resumption resumption = { .live = session,
                                             .past = calloc(1, sizeof(struct session_past)) };
    session_resumption(at(0), session, &resumption); /* not taken by the call: freed */
    assert_null(resumption.past);
    session_set_copied(at(0), session, true, NULL, NULL);
    session_close(at(0), session, XY_STREAM_CONFLICT, "gone");
    run();
    char expected[512];
    (void)snprintf(expected, sizeof(expected),
                   "2:send 4.9 10 0 0\n2:message 4.9 10 18 44\n2:offer 4.9 5 0 0\n2:offered 4.9 %d 1 0\n"
                   "2:offer 4.9 5 1 0\n2:presence 4.9 11 0 0\n2:handled 4.9 5 70 0\n"
                   "2:answer 4.9 5 5 1\n2:kept 4.9 1 0 0\n2:resumption 4.9 4 1 0\n2:copied 4.9 1 0 "
                   "0\n2:close 4.9 %d 4 0\n",
                   SESSION_FULL, XY_STREAM_CONFLICT);
    assert_lines(expected);
    assert_int_equal(atomic_load(&bare->refs), 1);
    xy_bytes_unref(&bare);
}

static void test_bound(void **state)
{
    (void)state;
    struct xy_error error = xy_error_make(XY_CONFLICT, NULL);
    session_bound(at(0), session, xy_jid_canonical(XY_STR("a@b/c")), NULL);
    session_bound(at(0), session, (struct xy_jid){ 0 }, &error);
    session_bound(at(0), session, (struct xy_jid){ 0 }, NULL); /* refused without a reason: still refused */
    run();
    char expected[200];
    (void)snprintf(expected, sizeof(expected), "2:bound 4.9 5 0 0\n2:bound 4.9 0 %d 1\n2:bound 4.9 0 %d 1\n",
                   XY_CONFLICT, XY_INTERNAL_SERVER_ERROR);
    assert_lines(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_event, start, stop),
        cmocka_unit_test_setup_teardown(test_to_sessions, start, stop),
        cmocka_unit_test_setup_teardown(test_publish, start, stop),
        cmocka_unit_test_setup_teardown(test_to_owners, start, stop),
        cmocka_unit_test_setup_teardown(test_stanzas, start, stop),
        cmocka_unit_test_setup_teardown(test_bound, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
