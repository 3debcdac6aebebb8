/* Routing a message and delivering an event cost no allocation once everything is warm, but for the one block of bytes that
 * recipients share: counted by standing in for malloc. Left out under sanitizers, which stand in for it themselves. */
#include "tests/unit/broker/session/rig.h"

#include "tests/unit/allocations.h"

#if !ALLOCATIONS_COUNTED
int main(void)
{
    return 0;
}
#else

#define JULIET "juliet@example.org"
#define ROMEO  "romeo@example.org"

enum { WARM = 500, COUNT = 3000 };

static struct rig *verona(unsigned shards)
{
    struct rig *rig = rig_new(shards, "");
    rig_account(rig, JULIET);
    rig_account(rig, ROMEO);
    return rig;
}

static void turns(struct rig *rig)
{
    for (unsigned round = 0; round < 2 * rig->count + 2; round++)
        for (unsigned i = 0; i < rig->count; i++)
            shard_turn(rig_shard(rig, i));
}

/* Says something COUNT times; how many allocations that took per saying, in hundredths. */
static size_t cost(struct rig *rig, struct wire *from, const char *xml, struct wire *to)
{
    size_t before = 0;
    for (unsigned i = 0; i < WARM + COUNT; i++) {
        if (i == WARM)
            before = allocations;
        wire_feed(from, xy_str(xml));
        turns(rig);
        assert_true(to->out.len > 0);
        xy_buf_reset(&to->out);
        xy_buf_reset(&from->out);
    }
    return (allocations - before) * 100 / COUNT;
}

#define assert_costs(actual, most)                                                                           \
    do {                                                                                                     \
        size_t cost_ = (actual);                                                                             \
        if (cost_ > (most))                                                                                  \
            fail_msg("%zu.%02zu allocations", cost_ / 100, cost_ % 100);                                     \
    } while (0)

static void test_message(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 2; shards++) {
        struct rig *rig = verona(shards);
        struct wire *juliet = rig_online(rig, 0, JULIET, "a"),
                    *romeo = rig_online(rig, shards - 1, ROMEO, "b");
        assert_costs(
            cost(rig, juliet, "<message to='" ROMEO "/b' type='chat'><body>hi</body></message>", romeo), 110);
        rig_free(&rig);
    }
}

static void test_iq(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 2; shards++) {
        struct rig *rig = verona(shards);
        struct wire *juliet = rig_online(rig, 0, JULIET, "a"),
                    *romeo = rig_online(rig, shards - 1, ROMEO, "b");
        assert_costs(cost(rig, juliet,
                          "<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>",
                          juliet),
                     110);
        assert_costs(cost(rig, juliet,
                          "<iq type='get' id='p' to='" ROMEO "/b'><ping xmlns='urn:xmpp:ping'/></iq>", romeo),
                     110);
        rig_free(&rig);
    }
}

/* One event to many: no allocation per subscriber at all. */
static void test_fan_out(void **state)
{
    (void)state;
    enum { SUBSCRIBERS = 30 };
    struct rig *rig = verona(1);
    struct wire *wires[SUBSCRIBERS];
    struct session_ref refs[SUBSCRIBERS];
    char name[8], id[80];
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        (void)snprintf(name, sizeof(name), "r%u", i);
        wires[i] = i % 2 ? rig_managed(rig, 0, JULIET, name, id) : rig_bound(rig, 0, JULIET, name);
        refs[i] = wire_session(wires[i])->ref;
    }
    size_t before = 0;
    unsigned h = 0;
    for (unsigned i = 0; i < WARM + COUNT; i++) {
        if (i == WARM)
            before = allocations;
        struct event *event = event_new(XY_STR("pubsub.example.org"), XY_STR("<event/>"), i + 1, 1);
        struct routes *routes = routes_new(SUBSCRIBERS);
        for (unsigned j = 0; j < SUBSCRIBERS; j++)
            routes->route[j] = (struct route){ refs[j].index, refs[j].generation, DELIVERY_NO_CLAIM, 0, 0 };
        delivery_publish(rig_shard(rig, 0), 0, event, routes);
        shard_turn(rig_shard(rig, 0));
        h++;
        for (unsigned j = 0; j < SUBSCRIBERS; j++) {
            assert_true(wires[j]->out.len > 0);
            xy_buf_reset(&wires[j]->out);
            if (j % 2 && i % 20 == 0) {
                char ack[64];
                int len = snprintf(ack, sizeof(ack), "<a xmlns='urn:xmpp:sm:3' h='%u'/>", h);
                wire_feed(wires[j], xy_str_n(ack, (size_t)len));
            }
        }
    }
    assert_costs((allocations - before) * 100 / COUNT,
                 220); /* the event and the routes that this test makes */
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message),
        cmocka_unit_test(test_iq),
        cmocka_unit_test(test_fan_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
