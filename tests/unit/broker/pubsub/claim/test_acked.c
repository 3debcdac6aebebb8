/* Subscriptions whose items are acknowledged one by one: windows, acknowledgements of all kinds, time that passes, what
 * survives a crash. The test plays the session and speaks to the service as a client does. */
#include "tests/unit/broker/pubsub/rig.h"

#include "broker/pubsub/claim/acked.h"

#define ALICE              "alice@example.org/a"
#define BOB                "bob@example.org/b"
#define CAROL              "carol@example.org/c"
#define FIELD(name, value) "<field var='{urn:xylem:delivery:0}" name "'><value>" value "</value></field>"
#define EXPLICIT           FIELD("mode", "at-least-once") FIELD("ack", "explicit")
#define SUBSCRIBE(jid, more)                                                                                 \
    PUBSUB("<subscribe node='n' jid='" jid                                                                   \
           "'/><options><x xmlns='jabber:x:data' type='submit'>" EXPLICIT more "</x></options>")

static void publish_many(struct rig *rig, int from, int to)
{
    char id[32];
    for (int i = from; i < to; i++) {
        (void)snprintf(id, sizeof(id), "i%d", i);
        rig_publish(rig, "n", id);
    }
}

static void setup(struct rig *rig, const char *max_items)
{
    char payload[512];
    (void)snprintf(payload, sizeof(payload),
                   PUBSUB("<create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>"
                          "<field var='pubsub#max_items'><value>%s</value></field></x></configure>"),
                   max_items);
    (void)rig_ok(rig, ALICE, "set", payload);
}

static struct subscription *subscription(struct rig *rig)
{
    return node_subscription(rig_node(rig, "n"), 1);
}

static struct claim *claim(struct rig *rig)
{
    return &subscription(rig)->claim;
}

static struct window *window(struct rig *rig)
{
    return &claim(rig)->acked->window;
}

static uint32_t pending(struct rig *rig, uint64_t seq)
{
    const struct item *item = index_find(&rig_node(rig, "n")->items, seq);
    return item != NULL ? item->pending : 0;
}

static struct claim_key attached(struct rig *rig, uint32_t session)
{
    const struct seen *seen;
    assert_true(rig_count(rig, "attach", &seen) > 0);
    assert_int_equal(seen->session, session);
    struct claim_key key = seen->key;
    delivery_attached(rig_shard(rig, rig_session(session).shard), key, rig_session(session), 3);
    rig_run(rig);
    return key;
}

/* The numbers of what was sent since the last time, as text. */
static const char *sent(struct rig *rig)
{
    static char text[4096];
    size_t len = 0;
    text[0] = '\0';
    for (size_t i = 0; i < rig->seen_count; i++) {
        const struct seen *seen = &rig->seen[i];
        if (strcmp(seen->what, "one") != 0)
            continue;
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%lu", len > 0 ? " " : "",
                                (unsigned long)seen->seq);
        if (seen->attempt > 1 && strstr(seen->body, "<gap ") == NULL) {
            assert_true(seen->delayed);
            len += (size_t)snprintf(text + len, sizeof(text) - len, "/%u", seen->attempt);
        }
    }
    rig->seen_count = 0;
    return text;
}
#define assert_sent(rig, expected) assert_string_equal(sent(rig), expected)

static const char *verdict(struct rig *rig, const char *name, uint64_t seq, const char *more)
{
    static char xml[512];
    (void)snprintf(xml, sizeof(xml),
                   "<%s xmlns='urn:xylem:delivery:0' node='n' epoch='%016lx' seq='%lu' %s/>", name,
                   (unsigned long)rig_node(rig, "n")->epoch, (unsigned long)seq, more);
    return xml;
}

static void say(struct rig *rig, const char *from, const char *children)
{
    char xml[8192];
    (void)snprintf(xml, sizeof(xml), "<message to='pubsub.example.org'>%s</message>", children);
    rig_stanza(rig, 0, from, xml);
    rig_run(rig);
}

static void ack(struct rig *rig, uint64_t seq)
{
    (void)rig_ok(rig, BOB, "set", verdict(rig, "ack", seq, ""));
}

static void subscribed(struct rig *rig, const char *xml)
{
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)rig_ok(rig, BOB, "set", xml);
    (void)attached(rig, 1);
    rig->seen_count = 0;
}

/* --- sending --------------------------------------------------------------------------------------------------------- */

static void window_bounds_what_is_out(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "b", 0, false); /* no XEP-0198 needed */
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", FIELD("max_inflight", "3")));
    const struct seen *seen;
    assert_int_equal(rig_count(rig, "attach", &seen), 1);
    assert_int_equal(seen->flags, CLAIM_EXPLICIT);
    (void)attached(rig, 1);
    rig->seen_count = 0;
    publish_many(rig, 0, 5);
    assert_sent(rig, "1 2 3");
    ack(rig, 2);
    assert_sent(rig, "4");
    ack(rig, 1);
    ack(rig, 3);
    assert_sent(rig, "5");
    ack(rig, 4);
    ack(rig, 5);
    assert_int_equal(window(rig)->total, 0);
    assert_int_equal(claim(rig)->cursor, 5);
    for (uint64_t seq = 1; seq <= 5; seq++)
        assert_int_equal(pending(rig, seq), 0);
}

static void pages_until_ready(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 0, 100);
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    struct claim_key key = attached(rig, 1);
    const struct seen *seen;
    assert_int_equal(rig_count(rig, "one", &seen), 64);
    assert_true(seen->page_end);
    uint16_t run = seen->run;
    rig->seen_count = 0;
    delivery_ready(rig_shard(rig, 0), key, rig_session(1), run);
    rig_run(rig);
    assert_int_equal(rig_count(rig, "one", &seen), 36);
    assert_int_equal(seen->seq, 100);
    assert_int_equal(claim(rig)->state, CLAIM_OPEN);
}

/* What the session did not take was not sent: it comes again, not marked. */
static void stalled_comes_again_unmarked(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "b", 0, true);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    struct claim_key key = attached(rig, 1);
    rig->seen_count = 0;
    publish_many(rig, 0, 4);
    assert_sent(rig, "1 2 3 4");
    delivery_stalled(rig_shard(rig, 0), key, rig_session(1), claim(rig)->run, 3);
    rig_run(rig);
    publish_many(rig, 4, 5);
    assert_sent(rig, "");
    delivery_ready(rig_shard(rig, 0), key, rig_session(1), claim(rig)->run);
    rig_run(rig);
    assert_sent(rig, "3 4 5");
}

static void notices_come_by_route(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    subscribed(rig, SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 0, 1);
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<retract node='n' notify='true'><item id='i0'/></retract>"));
    const struct seen *seen;
    assert_true(rig_count(rig, "publish", &seen) > 0);
    assert_int_equal(seen->flags, ROUTE_NOTICES);
    assert_has(seen->body, "<retract");
}

/* --- verdicts ---------------------------------------------------------------------------------------------------------- */

static void nack_comes_again_first(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    subscribed(rig, SUBSCRIBE("bob@example.org", FIELD("max_inflight", "2")));
    publish_many(rig, 0, 4);
    assert_sent(rig, "1 2");
    say(rig, BOB, verdict(rig, "nack", 2, ""));
    assert_sent(rig, "2/2");
    say(rig, BOB, verdict(rig, "nack", 1, "delay='60'"));
    assert_sent(rig, "3");
    ack(rig, 2);
    assert_sent(rig, "4");
    ack(rig, 3);
    rig->now_us += 60 * 1000000ull;
    ack(rig, 4);
    assert_sent(rig, "1/2"); /* the older one, now that its time has come */
    ack(rig, 1);
    assert_int_equal(window(rig)->total, 0);
}

static void backoff_delays(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    subscribed(rig, SUBSCRIBE("bob@example.org", FIELD("backoff", "5, 60")));
    publish_many(rig, 0, 1);
    assert_sent(rig, "1");
    (void)rig_ok(rig, BOB, "set", verdict(rig, "nack", 1, ""));
    assert_sent(rig, "");
    rig->now_us += 5 * 1000000ull;
    rig_run(rig);
    assert_sent(rig, "1/2");
    (void)rig_ok(rig, BOB, "set", verdict(rig, "nack", 1, ""));
    rig->now_us += 20 * 1000000ull;
    rig_run(rig);
    assert_sent(rig, "");
    rig->now_us += 40 * 1000000ull;
    rig_run(rig);
    assert_sent(rig, "1/3");
}

static void time_passes_and_working_stops_it(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    subscribed(rig, SUBSCRIBE("bob@example.org", FIELD("ack_wait", "30")));
    publish_many(rig, 0, 2);
    assert_sent(rig, "1 2");
    rig->now_us += 20 * 1000000ull;
    say(rig, BOB, verdict(rig, "working", 2, ""));
    rig->now_us += 15 * 1000000ull;
    rig_run(rig);
    assert_sent(rig, "1/2");
    rig->now_us += 20 * 1000000ull;
    rig_run(rig);
    assert_sent(rig, "2/2");
}

static void parked_after_the_last_time(void **state)
{
    struct rig *rig = *state;
    setup(rig, "1");
    subscribed(rig, SUBSCRIBE("bob@example.org", FIELD("max_deliver", "2")));
    publish_many(rig, 0, 2);
    assert_sent(rig, "1 2");
    say(rig, BOB, verdict(rig, "nack", 1, ""));
    assert_sent(rig, "1/2");
    say(rig, BOB, verdict(rig, "nack", 1, ""));
    say(rig, BOB, verdict(rig, "term", 2, ""));
    assert_sent(rig, "");
    assert_int_equal(window(rig)->count[WINDOW_PARKED], 2);
    assert_int_equal(pending(rig, 1), 1);
    rig_restart(rig, true);
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)attached(rig, 1);
    assert_sent(rig, "");
    assert_int_equal(window(rig)->count[WINDOW_PARKED], 2);
    publish_many(rig, 2, 3);
    assert_sent(rig, "3");
    ack(rig, 1); /* whoever decides so may end it */
    assert_int_equal(window(rig)->count[WINDOW_PARKED], 1);
    assert_null(index_find(&rig_node(rig, "n")->items, 1));
}

/* A crash is no reason to send an item once more: it could be the item that makes everything crash. */
static void not_sent_once_more_after_a_crash(void **state)
{
    struct rig *rig = *state;
    setup(rig, "1");
    subscribed(rig, SUBSCRIBE("bob@example.org", FIELD("max_deliver", "2")));
    publish_many(rig, 0, 2);
    assert_sent(rig, "1 2");
    say(rig, BOB, verdict(rig, "nack", 1, ""));
    assert_sent(rig, "1/2");
    rig_restart(rig, true);
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)attached(rig, 1);
    rig_run(rig);
    assert_sent(rig, "2/2");
    assert_int_equal(window(rig)->count[WINDOW_PARKED], 1);
    assert_int_equal(pending(rig, 1), 1);
}

static void several_verdicts_in_one_message(void **state)
{
    struct rig *rig = *state;
    char xml[4096];
    size_t len = 0;
    setup(rig, "max");
    subscribed(rig, SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 0, 6);
    rig->seen_count = 0;
    len += (size_t)snprintf(xml, sizeof(xml), "%s", verdict(rig, "ack", 1, ""));
    len += (size_t)snprintf(xml + len, sizeof(xml) - len, "%s", verdict(rig, "ack", 77, ""));
    len += (size_t)snprintf(xml + len, sizeof(xml) - len, "%s", verdict(rig, "nack", 4, ""));
    (void)snprintf(xml + len, sizeof(xml) - len, "%s<ack xmlns='urn:xylem:delivery:0' node='n' id='i2'/>",
                   verdict(rig, "ack", 2, ""));
    uint32_t answers = rig->answers;
    say(rig, BOB, xml);
    assert_int_equal(rig->answers, answers); /* what is unknown is ignored */
    assert_sent(rig, "4/2");
    assert_int_equal(pending(rig, 1) + pending(rig, 2) + pending(rig, 3), 0);
    assert_int_equal(pending(rig, 4) + pending(rig, 5) + pending(rig, 6), 3);
    say(rig, BOB, verdict(rig, "ack", 5, "cumulative='true'"));
    assert_int_equal(pending(rig, 4) + pending(rig, 5), 0);
    assert_int_equal(pending(rig, 6), 1);
    assert_int_equal(claim(rig)->cursor, 5);
}

static void errors(void **state)
{
    struct rig *rig = *state;
    char xml[600];
    setup(rig, "max");
    subscribed(rig, SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 0, 2);
    ack(rig, 1);
    assert_has(rig_iq(rig, BOB, "set", verdict(rig, "ack", 1, "")), "item-not-found");
    assert_has(rig_iq(rig, BOB, "set", verdict(rig, "ack", 9, "")), "item-not-found");
    assert_false(rig->recorded);
    rig->kept = true; /* after a crash item and request may come again: it does not settle the item then */
    assert_has(rig_iq(rig, BOB, "set", verdict(rig, "ack", 9, "")), "item-not-found");
    assert_true(rig->recorded);
    rig->kept = false;
    assert_has(rig_iq(rig, BOB, "set", verdict(rig, "nack", 1, "")), "item-not-found");
    assert_has(rig_iq(rig, CAROL, "set", verdict(rig, "ack", 2, "")), "item-not-found");
    assert_has(rig_iq(rig, BOB, "set", verdict(rig, "nack", 2, "delay='soon'")), "bad-request");
    assert_has(rig_iq(rig, BOB, "set", verdict(rig, "nack", 2, "delay='604801'")), "bad-request");
    assert_has(rig_iq(rig, BOB, "set", verdict(rig, "ack", 2, "subid='0000000000000000'")), "item-not-found");
    assert_has(rig_iq(rig, BOB, "set", "<ack xmlns='urn:xylem:delivery:0' node='n'/>"), "bad-request");
    assert_has(rig_iq(rig, BOB, "set", "<ack xmlns='urn:xylem:delivery:0' node='n' seq='2'/>"),
               "bad-request");
    assert_has(rig_iq(rig, BOB, "set", "<ack xmlns='urn:xylem:delivery:0' id='i1'/>"), "bad-request");
    assert_has(rig_iq(rig, BOB, "set", "<settle xmlns='urn:xylem:delivery:0'/>"), "bad-request");
    assert_has(rig_iq(rig, BOB, "set",
                      "<ack xmlns='urn:xylem:delivery:0' node='n' seq='2' epoch='0000000000000001'/>"),
               "item-not-found");
    assert_has(rig_iq(rig, BOB, "set", "<ack xmlns='urn:xylem:delivery:0' node='none' id='i1'/>"),
               "item-not-found");
    assert_int_equal(pending(rig, 2), 1);
    /* of several the known ones are done */
    (void)snprintf(xml, sizeof(xml), "<settle xmlns='urn:xylem:delivery:0'>%s", verdict(rig, "ack", 1, ""));
    size_t len = strlen(xml);
    (void)snprintf(xml + len, sizeof(xml) - len, "%s</settle>", verdict(rig, "ack", 2, ""));
    assert_has(rig_iq(rig, BOB, "set", xml), "item-not-found");
    assert_int_equal(pending(rig, 2), 0);
}

static void wrong_options(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    static const struct {
        const char *fields, *names;
    } cases[] = {
        { EXPLICIT FIELD("max_inflight", "0"), "max_inflight" },
        { EXPLICIT FIELD("max_backlog_bytes", "0"), "max_backlog_bytes" },
        { EXPLICIT FIELD("max_backlog_age", "0"), "max_backlog_age" },
        { EXPLICIT FIELD("ack_wait", "0"), "ack_wait" },
        { EXPLICIT FIELD("ack_wait", "max"), "ack_wait" },
        { EXPLICIT FIELD("max_deliver", "0"), "max_deliver" },
        { EXPLICIT FIELD("backoff", "1,two"), "backoff" },
        { EXPLICIT FIELD("dead_letter", "n"), "dead_letter" },
        { FIELD("mode", "at-least-once") FIELD("max_deliver", "3"), "max_deliver" },
        { FIELD("mode", "at-least-once") FIELD("dead_letter", "d"), "dead_letter" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char xml[1024];
        (void)snprintf(xml, sizeof(xml),
                       PUBSUB("<subscribe node='n' jid='bob@example.org'/><options>"
                              "<x xmlns='jabber:x:data' type='submit'>%s</x></options>"),
                       cases[i].fields);
        const char *answer = rig_iq(rig, BOB, "set", xml);
        assert_has(answer, "invalid-options");
        assert_has(answer, cases[i].names);
    }
}

/* --- sessions -------------------------------------------------------------------------------------------------------- */

static void lost_session_gives_all_back(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", ""));
    struct claim_key key = attached(rig, 1);
    rig->seen_count = 0;
    publish_many(rig, 0, 3);
    ack(rig, 2);
    assert_sent(rig, "1 2 3");
    delivery_released(rig_shard(rig, 0), key, rig_session(1), 0);
    rig_offline(rig, 1, "bob@example.org");
    ack(rig, 3); /* from another resource, while nobody holds it */
    rig_online(rig, 2, "bob@example.org", "c", 0, false);
    (void)attached(rig, 2);
    assert_sent(rig, "1/2");
}

static void pause_and_resume(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    subscribed(rig, SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 0, 1);
    assert_sent(rig, "1");
#define OPTIONS(field)                                                                                       \
    PUBSUB("<options node='n' jid='bob@example.org'><x xmlns='jabber:x:data' type='submit'>" field           \
           "</x></options>")
    (void)rig_ok(rig, BOB, "set", OPTIONS("<field var='pubsub#deliver'><value>0</value></field>"));
    publish_many(rig, 1, 2);
    assert_sent(rig, "");
    ack(rig, 1);
    rig_restart(rig, true);
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    assert_int_equal(rig_count(rig, "attach", NULL), 0);
    (void)rig_ok(rig, BOB, "set", OPTIONS("<field var='pubsub#deliver'><value>1</value></field>"));
    (void)attached(rig, 1);
    assert_sent(rig, "2/2"); /* nobody knows after a crash */
}

static void receipts(void **state)
{
    struct rig *rig = *state;
    char xml[256];
    setup(rig, "max");
    subscribed(rig, PUBSUB("<subscribe node='n' jid='bob@example.org'/><options>"
                           "<x xmlns='jabber:x:data' type='submit'>" FIELD("mode", "at-least-once")
                               FIELD("ack", "receipt") "</x></options>"));
    publish_many(rig, 0, 3);
    assert_sent(rig, "1 2 3");
    (void)snprintf(xml, sizeof(xml), "<received xmlns='urn:xmpp:receipts' id='%s-2-%lu-1'/>",
                   subscription(rig)->subid, (unsigned long)rig_node(rig, "n")->number);
    say(rig, CAROL, xml); /* not hers */
    assert_int_equal(pending(rig, 2), 1);
    say(rig, "bob@example.org/elsewhere", xml);
    assert_int_equal(pending(rig, 2), 0);
    say(rig, BOB, xml); /* again: nothing */
    say(rig, BOB, "<received xmlns='urn:xmpp:receipts' id='something-else'/>");
    assert_int_equal(pending(rig, 1) + pending(rig, 3), 2);
}

static void ack_changes_its_way(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    subscribed(rig, SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 0, 4);
    ack(rig, 1);
    ack(rig, 3);
    rig->seen_count = 0;
    (void)rig_ok(rig, BOB, "set", OPTIONS(FIELD("ack", "stream")));
    assert_int_equal(rig_count(rig, "detach", NULL), 1);
    assert_int_equal(claim(rig)->cursor, 1);
    assert_int_equal(pending(rig, 3), 1); /* a cursor cannot tell */
    rig_restart(rig, true);
    assert_int_equal(claim(rig)->cursor, 1);
    assert_int_equal(pending(rig, 1), 0);
    assert_int_equal(pending(rig, 2) + pending(rig, 3) + pending(rig, 4), 3);
    (void)rig_ok(rig, BOB, "set", OPTIONS(FIELD("ack", "explicit")));
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)attached(rig, 1);
    assert_sent(rig, "2/2 3/2 4/2");
    ack(rig, 3);
    (void)rig_ok(rig, BOB, "set", OPTIONS(FIELD("mode", "at-most-once")));
    (void)rig_ok(rig, BOB, "set", OPTIONS(FIELD("mode", "at-least-once")));
    rig_restart(rig, true);
    assert_int_equal(claim(rig)->cursor, 4);
    assert_int_equal(window(rig)->total, 0); /* nothing of its former life */
}

/* --- crashes ----------------------------------------------------------------------------------------------------------- */

static void what_was_acknowledged_never_comes_again(void **state)
{
    struct rig *rig = *state;
    setup(rig, "1");
    subscribed(rig, SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 0, 8);
    rig->seen_count = 0;
    ack(rig, 2);
    ack(rig, 5);
    say(rig, BOB, verdict(rig, "nack", 3, ""));
    assert_sent(rig, "3/2");
    say(rig, BOB, verdict(rig, "nack", 4, "delay='3600'"));
    rig_restart(rig, true);
    assert_int_equal(window(rig)->total, 3); /* 1, 3, 4 */
    assert_int_equal(claim(rig)->cursor, 5);
    assert_int_equal(rig_node(rig, "n")->items.live, 6);
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)attached(rig, 1);
    assert_sent(rig, "1/2 3/3 6/2 7/2 8/2");
    rig->now_us += 3600 * 1000000ull;
    rig_run(rig);
    assert_has(sent(rig), "4/2");
    say(rig, BOB, verdict(rig, "ack", 8, "cumulative='true'"));
    assert_int_equal(rig_node(rig, "n")->items.live, 1);
    rig_restart(rig, true);
    assert_int_equal(window(rig)->total, 0);
    assert_int_equal(claim(rig)->cursor, 8);
    assert_int_equal(rig_node(rig, "n")->items.live, 1);
}

/* A consumer may acknowledge what it was sent before the broker was started anew. */
static void late_acknowledgement_after_a_crash(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    subscribed(rig, SUBSCRIBE("bob@example.org", FIELD("max_inflight", "3")));
    publish_many(rig, 0, 5);
    rig_restart(rig, true);
    ack(rig, 3);
    assert_int_equal(pending(rig, 3), 0);
    rig_restart(rig, true);
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)attached(rig, 1);
    assert_sent(rig, "1/2 2/2 4/2");
}

/* A node that takes several turns to load: nobody is told meanwhile that nothing is out. */
static void acknowledged_while_the_node_is_loaded(void **state)
{
    struct rig *rig = *state;
    char xml[30 * 1024];
    setup(rig, "max");
    subscribed(rig, SUBSCRIBE("bob@example.org", ""));
    for (unsigned i = 0; i < 15; i++) {
        size_t len = (size_t)snprintf(xml, sizeof(xml), "<pubsub xmlns='" NS_PUBSUB "'><publish node='n'>");
        for (unsigned j = 0; j < 200; j++)
            len += (size_t)snprintf(xml + len, sizeof(xml) - len,
                                    "<item id='%u-%u'><e xmlns='urn:e'/></item>", i, j);
        (void)snprintf(xml + len, sizeof(xml) - len, "</publish></pubsub>");
        (void)rig_ok(rig, ALICE, "set", xml);
    }
    char ack_xml[256];
    (void)snprintf(ack_xml, sizeof(ack_xml), "%s", verdict(rig, "ack", 7, ""));
    rig_restart(rig, true);
    assert_null(xy_table_get(rig_shard(rig, shard_owner(rig_shard(rig, 0), XY_STR("n")))->pubsub->nodes,
                             XY_STR("n")));
    (void)rig_ok(rig, BOB, "set", ack_xml);
    assert_int_equal(pending(rig, 7), 0);
    assert_int_equal(pending(rig, 8), 1);
}

static void retracted_while_it_is_out(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    subscribed(rig, SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 0, 3);
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<retract node='n'><item id='i1'/></retract>"));
    rig->seen_count = 0;
    say(rig, BOB, verdict(rig, "nack", 2, ""));
    assert_sent(rig, "");
    ack(rig, 1);
    ack(rig, 3);
    assert_int_equal(window(rig)->total, 0);
    (void)rig_ok(rig, ALICE, "set", OWNER("<purge node='n'/>"));
    publish_many(rig, 3, 5);
    (void)rig_ok(rig, ALICE, "set", OWNER("<purge node='n'/>"));
    rig->now_us += 60 * 1000000ull;
    rig_run(rig);
    assert_int_equal(window(rig)->total, 0);
    (void)rig_ok(rig, BOB, "set", PUBSUB("<unsubscribe node='n' jid='bob@example.org'/>"));
}

/* It may be sent less often from now on: what waits to be sent again, and was sent so often, is given up at once. */
static void fewer_times_than_it_was_sent(void **state)
{
    struct rig *rig = *state;
    setup(rig, "max");
    subscribed(rig, SUBSCRIBE("bob@example.org", ""));
    publish_many(rig, 0, 3);
    say(rig, BOB, verdict(rig, "nack", 1, ""));
    say(rig, BOB, verdict(rig, "nack", 1, "delay='60'"));
    say(rig, BOB, verdict(rig, "nack", 2, "delay='60'"));
    rig->seen_count = 0;
    (void)rig_ok(rig, BOB, "set", SUBSCRIBE("bob@example.org", FIELD("max_deliver", "2")));
    assert_int_equal(window(rig)->count[WINDOW_PARKED], 1);
    rig->now_us += 61 * 1000000ull;
    rig_run(rig);
    assert_sent(rig, "2/2 3/2");
}

/* --- what is given up ------------------------------------------------------------------------------------------------ */

/* Parked and delayed items are bounded by age as well; the gap is acknowledged by its number, and nothing else that is out
 * comes again for it. */
static void old_items_are_given_up(void **state)
{
    struct rig *rig = *state;
    setup(rig, "1");
    subscribed(rig,
               SUBSCRIBE("bob@example.org", FIELD("max_backlog_age", "3600") FIELD("ack_wait", "86400")));
    publish_many(rig, 0, 4);
    ack(rig, 1);
    say(rig, BOB, verdict(rig, "term", 2, ""));
    say(rig, BOB, verdict(rig, "nack", 3, "delay='86400'"));
    ack(rig, 4);
    assert_int_equal(claim(rig)->cursor, 4);
    rig->now_us += 3000 * 1000000ull;
    publish_many(rig, 4, 5);
    rig->seen_count = 0;
    rig->now_us += 700 * 1000000ull;
    rig_run(rig);
    rig->now_us += 700 * 1000000ull;
    rig_run(rig);
    const struct seen *seen;
    assert_int_equal(rig_count(rig, "one", &seen), 1); /* not the fifth again */
    assert_has(seen->body, "<gap ");
    assert_has(seen->body, "first='2' last='3' reason='max_backlog_age'");
    assert_int_equal(rig_count(rig, "detach", NULL), 0);
    assert_int_equal(pending(rig, 2) + pending(rig, 3), 0);
    assert_int_equal(claim(rig)->skipped, 2);
    rig_restart(rig, true); /* not acknowledged: it is told again, first of all */
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)attached(rig, 1);
    assert_sent(rig, "3 5/2");
    ack(rig, 3);
    assert_int_equal(claim(rig)->gap.last, 0);
    assert_has(rig_iq(rig, BOB, "set", verdict(rig, "ack", 3, "")), "item-not-found");
    rig_restart(rig, true);
    assert_int_equal(claim(rig)->gap.last, 0);
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    (void)attached(rig, 1);
    assert_sent(rig, "5/2");
}

static void bytes_are_bounded(void **state)
{
    struct rig *rig = *state;
    setup(rig, "1");
    subscribed(rig,
               SUBSCRIBE("bob@example.org", FIELD("max_backlog_bytes", "200") FIELD("max_inflight", "1")));
    publish_many(rig, 0, 10);
    rig->now_us += 60 * 1000000ull;
    rig_run(rig);
    assert_true(claim(rig)->gap.last > 0);
    assert_int_equal(pending(rig, 10), 1);
    assert_int_equal(pending(rig, 1), 0);
    assert_int_equal(rig_node(rig, "n")->items.live, 10 - claim(rig)->skipped);
}

/* --- dead letters ------------------------------------------------------------------------------------------------------ */

static void dead_letters(void **state)
{
    struct rig *rig = *state;
    setup(rig, "1");
    subscribed(rig, SUBSCRIBE("bob@example.org", FIELD("max_deliver", "1") FIELD("dead_letter", "dead")));
    publish_many(rig, 0, 3);
    say(rig, BOB, verdict(rig, "nack", 1, ""));
    say(rig, BOB, verdict(rig, "term", 2, ""));
    assert_int_equal(window(rig)->total, 1);
    assert_int_equal(claim(rig)->acked->dead_lettered, 2);
    assert_null(index_find(&rig_node(rig, "n")->items, 1));
    const char *answer = rig_ok(rig, BOB, "get", PUBSUB("<items node='dead'/>"));
    assert_has(answer, "<header name='Xylem-Dead-Reason'>max-deliver</header>");
    assert_has(answer, "<header name='Xylem-Dead-Reason'>term</header>");
    assert_has(answer, "<header name='Xylem-Dead-Node'>n</header>");
    assert_has(answer, "<header name='Xylem-Dead-Seq'>2</header>");
    assert_has(answer, "<header name='Xylem-Dead-Id'>i1</header>");
    assert_has(answer, "<header name='Xylem-Dead-Attempts'>1</header>");
    assert_has(answer, "<header name='Xylem-Dead-Publisher'>alice@example.org</header>");
    assert_has(answer, "<e xmlns='urn:e'>i1</e>");
    assert_int_equal(rig_node(rig, "dead")->items.retained_count, 2);
    assert_int_equal(node_affiliation(rig_node(rig, "dead"), XY_STR("bob@example.org")), AFFILIATION_OWNER);
    assert_int_equal(rig_node(rig, "dead")->config.max_items, OPTION_COUNT_MAX);
    assert_has(rig_iq(rig, CAROL, "get", PUBSUB("<items node='dead'/>")), "error");
}

/* Refused: it stays, parked, and is tried again. */
static void dead_letters_refused(void **state)
{
    struct rig *rig = *state;
    setup(rig, "1");
    (void)rig_ok(rig, ALICE, "set", PUBSUB("<create node='dead'/>"));
    subscribed(rig, SUBSCRIBE("bob@example.org", FIELD("max_deliver", "1") FIELD("dead_letter", "dead")));
    publish_many(rig, 0, 2);
    say(rig, BOB, verdict(rig, "nack", 1, ""));
    assert_int_equal(window(rig)->count[WINDOW_PARKED], 1);
    assert_int_equal(pending(rig, 1), 1);
    rig_restart(rig, true);
    assert_int_equal(window(rig)->count[WINDOW_PARKED], 1);
    (void)rig_ok(rig, ALICE, "set",
                 OWNER("<affiliations node='dead'><affiliation jid='bob@example.org' "
                       "affiliation='publish-only'/></affiliations>"));
    rig->now_us += 61 * 1000000ull;
    rig_run(rig);
    assert_int_equal(window(rig)->count[WINDOW_PARKED], 0);
    assert_int_equal(pending(rig, 1), 0);
    assert_int_equal(rig_node(rig, "dead")->items.retained_count, 1);
}

/* The crash comes when the letter is there and not ended here: it is sent again, and is there once. */
static void dead_letter_twice_is_one(void **state)
{
    struct rig *rig = *state;
    setup(rig, "1");
    subscribed(rig, SUBSCRIBE("bob@example.org", FIELD("max_deliver", "1") FIELD("dead_letter", "dead")));
    publish_many(rig, 0, 2);
    rig_stanza(rig, 0, BOB,
               "<message to='pubsub.example.org'><term xmlns='urn:xylem:delivery:0' node='n' "
               "id='i0'/></message>");
    for (unsigned i = 0; i < 6; i++) { /* the letter arrives and is committed; its end here is not */
        rig_turns(rig);
        if (i < 4)
            (void)store_step_commit(rig->store);
    }
    rig_restart(rig, true);
    assert_int_equal(pending(rig, 1), 1);
    ack(rig, 2);
    rig_online(rig, 1, "bob@example.org", "b", 0, false);
    if (rig_count(rig, "attach", NULL) > 0)
        (void)attached(rig, 1);
    rig->now_us += 61 * 1000000ull;
    rig_run(rig);
    assert_int_equal(rig_node(rig, "dead")->items.retained_count, 1);
    assert_int_equal(rig_node(rig, "dead")->next_seq, 2);
    assert_int_equal(pending(rig, 1), 0);
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
        BOTH(window_bounds_what_is_out),
        BOTH(pages_until_ready),
        BOTH(stalled_comes_again_unmarked),
        BOTH(notices_come_by_route),
        BOTH(nack_comes_again_first),
        BOTH(backoff_delays),
        BOTH(time_passes_and_working_stops_it),
        BOTH(parked_after_the_last_time),
        BOTH(not_sent_once_more_after_a_crash),
        BOTH(several_verdicts_in_one_message),
        BOTH(errors),
        BOTH(wrong_options),
        BOTH(lost_session_gives_all_back),
        BOTH(pause_and_resume),
        BOTH(receipts),
        BOTH(ack_changes_its_way),
        BOTH(what_was_acknowledged_never_comes_again),
        BOTH(late_acknowledgement_after_a_crash),
        BOTH(acknowledged_while_the_node_is_loaded),
        BOTH(retracted_while_it_is_out),
        BOTH(fewer_times_than_it_was_sent),
        BOTH(old_items_are_given_up),
        BOTH(bytes_are_bounded),
        BOTH(dead_letters),
        BOTH(dead_letters_refused),
        BOTH(dead_letter_twice_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
