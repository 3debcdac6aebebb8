/* Acknowledging explicitly and by receipt: what the broker is told and when, what h says meanwhile, what is recognised when
 * it comes again, and the position in the application's own hands. */
#include <unistd.h>

#include "core/base/encoding.h"
#include "tests/unit/sdk/peer.h"

#define SHOWN_MAX 600

struct app {
    uint64_t shown[SHOWN_MAX];
    uint32_t attempt[SHOWN_MAX];
    size_t count;
    struct xylem_msg *held[SHOWN_MAX];
    enum xylem_event event;
    unsigned done;
    enum xylem_status status;
    enum xylem_state state;
    enum xylem_status why;
    char header[64];
};

static void on_message(struct xylem_sub *sub, struct xylem_msg *msg, void *ctx)
{
    (void)sub;
    struct app *a = ctx;
    struct xylem_msg_view view;
    xylem_msg_view(msg, &view);
    assert_true(a->count < SHOWN_MAX);
    a->held[a->count] = msg;
    a->attempt[a->count] = view.attempt;
    a->shown[a->count++] = view.seq;
    a->event = view.event;
    const char *header = xylem_msg_header(msg, "Xylem-Dead-Reason");
    snprintf(a->header, sizeof a->header, "%s", header ? header : "none");
}

static void on_done(struct xylem_client *c, const struct xylem_result *result, void *ctx)
{
    (void)c;
    ((struct app *)ctx)->done++;
    ((struct app *)ctx)->status = result->status;
}

static void on_state(struct xylem_client *c, enum xylem_state state, enum xylem_status why, void *ctx)
{
    (void)c;
    ((struct app *)ctx)->state = state;
    ((struct app *)ctx)->why = why;
}

static struct xylem_sub_options explicitly(struct app *a)
{
    struct xylem_sub_options so = XYLEM_SUB_OPTIONS;
    so.durable = so.manual_ack = true;
    so.ack = XYLEM_ACK_EXPLICITLY;
    so.on_message = on_message;
    so.ctx = a;
    return so;
}

static struct peer *begin(struct app *a, const struct xylem_sub_options *so, const char *state_dir)
{
    struct peer *p = peer_new();
    struct xylem_options o = XYLEM_OPTIONS;
    o.jid = "alice@example.org/r";
    o.password = "secret";
    o.tls = XYLEM_TLS_NONE;
    o.plain_allowed = true;
    o.state_dir = state_dir;
    o.on_state = on_state;
    o.ctx = a;
    char error[300] = "";
    assert_int_equal(xy_client_new(&p->client, &o, &p->env, error, sizeof error), XYLEM_OK);
    assert_int_equal(xylem_subscribe(p->client, "n", so, NULL), XYLEM_OK);
    assert_int_equal(xylem_client_start(p->client), XYLEM_OK);
    assert_true(peer_run(p));
    return p;
}

static void end(struct peer *p)
{
    xylem_client_free(p->client);
    peer_free(p);
}

static void settle(struct peer *p)
{
    assert_true(peer_run(p));
    assert_true(peer_later(p, 200));
}

static void items(struct peer *p, unsigned first, unsigned last)
{
    for (unsigned seq = first; seq <= last; seq++)
        peer_item(p, "e", seq);
    assert_true(peer_run(p));
}

static void test_options_are_sent(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    so.ack_wait_s = 30;
    so.max_deliver = 5;
    so.backoff = "1,5,30";
    so.dead_letter = "dead";
    so.start = "all";
    so.max_backlog_bytes = 1000000;
    so.max_backlog_age_s = 3600;
    struct peer *p = begin(&a, &so, NULL);
    const char *request = peer_find(p, "<subscribe", 0);
    static const char *const parts[] = {
        "}mode'><value>at-least-once<",   "}ack'><value>explicit<",  "}max_inflight'><value>256<",
        "}ack_wait'><value>30<",          "}max_deliver'><value>5<", "}backoff'><value>1,5,30<",
        "}dead_letter'><value>dead<",     "}start'><value>all<",     "}max_backlog_bytes'><value>1000000<",
        "}max_backlog_age'><value>3600<",
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        assert_non_null(strstr(request, parts[i]));
    end(p);
}

static void test_wrong_options_are_refused_here(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a), wrong[7];
    struct peer *p = begin(&a, &so, NULL);
    for (size_t i = 0; i < 7; i++)
        wrong[i] = explicitly(&a);
    wrong[0].durable = false;
    wrong[1].ack = XYLEM_ACK_BY_STREAM;
    wrong[1].ack_wait_s = 3;
    wrong[2].ack = (enum xylem_ack_way)9;
    wrong[3].queue_requests = 3;
    wrong[3].start = "all";
    wrong[4].position = "no position";
    wrong[5].position = " 0-3";
    wrong[6].ack = XYLEM_ACK_BY_RECEIPT;
    wrong[6].queue_requests = 1;
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(xylem_subscribe(p->client, "m", &wrong[i], NULL), XYLEM_INVALID);
        assert_non_null(strstr(xylem_client_error(p->client), "subscribe: "));
    }
    end(p);
}

static void test_acks_of_a_turn_go_in_one_message(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    struct peer *p = begin(&a, &so, NULL);
    items(p, 1, 4);
    assert_int_equal(a.count, 4);
    settle(p);
    assert_true(xy_sm_queue_empty(&p->queue)); /* h says that they came, not that they are handled */
    assert_int_equal(xylem_ack(&a.held[2]), XYLEM_OK);
    assert_int_equal(xylem_nack(&a.held[0], 7), XYLEM_OK);
    assert_int_equal(xylem_term(&a.held[1]), XYLEM_OK);
    assert_int_equal(xylem_working(a.held[3]), XYLEM_OK);
    assert_null(a.held[0]);
    assert_non_null(a.held[3]);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<message"), 1);
    const char *told = peer_find(p, "<message", 0);
    assert_non_null(strstr(told, "to='pubsub.example.org'"));
    assert_non_null(strstr(told, "<ack xmlns='urn:xylem:delivery:0' node='n' subid='s' epoch='e' seq='3'/>"));
    assert_non_null(
        strstr(told, "<nack xmlns='urn:xylem:delivery:0' node='n' subid='s' epoch='e' seq='1' delay='7'/>"));
    assert_non_null(
        strstr(told, "<term xmlns='urn:xylem:delivery:0' node='n' subid='s' epoch='e' seq='2'/>"));
    assert_non_null(
        strstr(told, "<working xmlns='urn:xylem:delivery:0' node='n' subid='s' epoch='e' seq='4'/>"));
    end(p);
}

static void test_many_acks_are_split(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    struct peer *p = begin(&a, &so, NULL);
    items(p, 1, 100);
    for (size_t i = 0; i < 100; i++)
        xylem_ack(&a.held[i]);
    assert_true(peer_run(p));
    size_t messages = peer_count(p, "<message");
    assert_true(messages > 1 && messages < 10);
    end(p);
}

static void test_nacked_comes_again_acked_does_not(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    struct peer *p = begin(&a, &so, NULL);
    items(p, 1, 3);
    xylem_nack(&a.held[0], 0);
    xylem_ack(&a.held[1]);
    assert_true(peer_run(p));
    items(p, 1, 3); /* 1 was given back, the ack of 2 was lost, 3 is still with the application */
    assert_int_equal(a.count, 4);
    assert_int_equal(a.shown[3], 1);
    settle(p);
    assert_int_equal(peer_count(p, "<ack xmlns='urn:xylem:delivery:0' node='n' subid='s' epoch='e' seq='2'"),
                     2);
    xylem_ack(&a.held[2]);
    xylem_ack(&a.held[3]);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "seq='3'"), 1);
    assert_int_equal(peer_count(p, "seq='1'"), 2);
    end(p);
}

static void test_terminated_may_be_driven_again(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    struct peer *p = begin(&a, &so, NULL);
    items(p, 1, 1);
    xylem_term(&a.held[0]);
    assert_true(peer_run(p));
    items(p, 1, 1); /* its owner made it ready again */
    assert_int_equal(a.count, 2);
    end(p);
}

static void test_position_is_on_disk_before_the_broker_is_told(void **state)
{
    (void)state;
    char folder[] = "/tmp/xylem-state-XXXXXX", path[200];
    assert_non_null(mkdtemp(folder));
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    struct peer *p = begin(&a, &so, folder);
    items(p, 1, 5);
    xylem_ack(&a.held[1]);
    xylem_ack(&a.held[4]);
    p->deaf = true; /* the acks leave the client and reach nobody */
    assert_true(peer_run(p));
    end(p);
    a = (struct app){ 0 };
    p = begin(&a, &so, folder);
    items(p, 1, 6);
    assert_int_equal(a.count, 4);
    assert_int_equal(a.shown[0], 1);
    assert_int_equal(a.shown[1], 3);
    assert_int_equal(a.shown[2], 4);
    assert_int_equal(a.shown[3], 6);
    settle(p);
    assert_int_equal(peer_count(p, "seq='2'"), 1); /* and are told again */
    assert_int_equal(peer_count(p, "seq='5'"), 1);
    end(p);
    snprintf(path, sizeof path, "%s/positions", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/lock", folder);
    unlink(path);
    rmdir(folder);
}

static void test_unwritable_state_tells_the_broker_nothing(void **state)
{
    (void)state;
    char folder[] = "/tmp/xylem-state-XXXXXX", path[200];
    assert_non_null(mkdtemp(folder));
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    struct peer *p = begin(&a, &so, folder);
    items(p, 1, 1);
    for (int file = 3; file < 64; file++) { /* its files are gone under it */
        char link[64], target[300];
        snprintf(link, sizeof link, "/proc/self/fd/%d", file);
        ssize_t len = readlink(link, target, sizeof target - 1);
        if (len > 0 && (target[len] = '\0', strstr(target, "/positions")))
            close(file);
    }
    xylem_ack(&a.held[0]);
    assert_true(peer_run(p));
    assert_int_equal(a.state, XYLEM_STATE_STOPPED);
    assert_int_equal(a.why, XYLEM_STORAGE);
    assert_true(p->closed);
    assert_int_equal(peer_count(p, "<ack"), 0);
    end(p);
    snprintf(path, sizeof path, "%s/positions", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/lock", folder);
    unlink(path);
    rmdir(folder);
}

static void test_receipts(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    so.ack = XYLEM_ACK_BY_RECEIPT;
    struct peer *p = begin(&a, &so, NULL);
    for (unsigned seq = 1; seq <= 2; seq++) {
        char xml[700];
        snprintf(xml, sizeof xml,
                 "<message from='pubsub.example.org' to='%s' id='s-%u'><event xmlns='" NS_PUBSUB_EVENT
                 "'><items node='n'><item id='i'/></items></event><request "
                 "xmlns='urn:xmpp:receipts'/><delivery xmlns='" NS_XYLEM_DELIVERY
                 "' epoch='e' seq='%u' attempt='1' subid='s'/></message>",
                 p->jid, seq, seq);
        peer_send(p, xml);
    }
    assert_true(peer_run(p));
    assert_int_equal(xylem_nack(&a.held[0], 0), XYLEM_INVALID);
    assert_non_null(a.held[0]);
    xylem_ack(&a.held[1]);
    xylem_ack(&a.held[0]);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<message"), 2);
    assert_non_null(strstr(peer_find(p, "<message", 0), "<received xmlns='urn:xmpp:receipts' id='s-2'/>"));
    assert_non_null(strstr(peer_find(p, "<message", 1), "<received xmlns='urn:xmpp:receipts' id='s-1'/>"));
    end(p);
}

static void test_settled_with_an_answer(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    struct peer *p = begin(&a, &so, NULL);
    items(p, 1, 2);
    assert_int_equal(xylem_settle(&a.held[0], XYLEM_ACK, 0, on_done, &a), XYLEM_OK);
    assert_null(a.held[0]);
    assert_int_equal(a.done, 0);
    assert_true(peer_run(p));
    assert_int_equal(a.done, 1);
    assert_int_equal(a.status, XYLEM_OK);
    assert_non_null(strstr(peer_find(p, "seq='1'", 0), "<iq type='set'"));
    p->silent = true;
    xylem_settle(&a.held[1], XYLEM_ACK, 0, on_done, &a);
    assert_true(peer_run(p));
    const char *asked = peer_find(p, "seq='2'", 0), *id = strstr(asked, "id='") + 4;
    char answer[700];
    snprintf(answer, sizeof answer,
             "<iq type='error' from='pubsub.example.org' to='%s' id='%.*s'><error "
             "type='cancel'><item-not-found xmlns='" NS_STANZA_ERRORS "'/></error></iq>",
             p->jid, (int)strcspn(id, "'"), id);
    peer_send(p, answer);
    items(p, 1, 2); /* 1 is handled; 2 was refused, so it counts as never handled */
    assert_int_equal(a.status, XYLEM_NOT_FOUND);
    assert_int_equal(a.count, 3);
    assert_int_equal(a.shown[2], 2);
    end(p);
}

static void test_consumer_of_a_queue(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = XYLEM_SUB_OPTIONS;
    so.manual_ack = true;
    so.queue_requests = 3;
    so.on_message = on_message;
    so.ctx = &a;
    struct peer *p = begin(&a, &so, NULL);
    assert_non_null(strstr(peer_find(p, "<subscribe", 0), "var='pubsub#queue_requests'><value>3<"));
    assert_null(strstr(peer_find(p, "<subscribe", 0), "at-least-once"));
    items(p, 5, 5);
    xylem_ack(&a.held[0]);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<ack "), 1);
    peer_send(p, "<message from='pubsub.example.org'><event xmlns='" NS_PUBSUB_EVENT
                 "'><items node='n'><unlock xmlns='" NS_QUEUEING "' id='i9'/></items></event></message>");
    assert_true(peer_run(p));
    assert_int_equal(a.event, XYLEM_EVENT_UNLOCK);
    assert_int_equal(xylem_nack(&a.held[1], 0),
                     XYLEM_OK); /* whatever is said about it: there is nothing to tell */
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<nack "), 0);
    end(p);
}

static void test_headers_are_published(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    struct peer *p = begin(&a, &so, NULL);
    const struct xylem_header headers[] = { { "Urgency", "high" }, { "Group", "a & b" } };
    struct xylem_item item = {
        .node = "jobs", .data = "x", .len = 1, .headers = headers, .headers_count = 2
    };
    assert_int_equal(xylem_publish(p->client, &item, NULL, NULL), XYLEM_OK);
    assert_true(peer_run(p));
    assert_non_null(strstr(peer_find(p, "<publish", 0),
                           "<headers xmlns='http://jabber.org/protocol/shim'>"
                           "<header name='Urgency'>high</header>"
                           "<header name='Group'>a &amp; b</header></headers></item>"));
    end(p);
}

static void test_dead_letter_headers(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    struct peer *p = begin(&a, &so, NULL);
    peer_send(
        p,
        "<message from='pubsub.example.org'><event xmlns='" NS_PUBSUB_EVENT
        "'><items node='n'><item id='i'><headers xmlns='" NS_SHIM "'><header name='Other'>x</header>"
        "<header name='Xylem-Dead-Reason'>max-deliver</header></headers></item></items></event></message>");
    assert_true(peer_run(p));
    assert_string_equal(a.header, "max-deliver");
    items(p, 1, 1);
    assert_string_equal(a.header, "none");
    end(p);
}

static void test_position_in_the_hands_of_the_application(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    struct peer *p = begin(&a, &so, NULL);
    char text[200], small[4];
    items(p, 1, 5);
    xylem_ack(&a.held[0]);
    struct xylem_msg *batch[] = { a.held[1], a.held[3] };
    size_t len = xylem_msgs_position(batch, 2, text, sizeof text);
    assert_string_equal(text, "e 0-2 4");
    assert_int_equal(len, strlen(text));
    assert_int_equal(xylem_msgs_position(batch, 2, small, sizeof small), len);
    assert_string_equal(small, "e 0");
    assert_int_equal(xylem_msgs_position(batch, 0, text, sizeof small), 0);
    xylem_msgs_position(batch, 2, text, sizeof text);
    end(p); /* dies before the acks */
    a = (struct app){ 0 };
    so.position = text;
    p = begin(&a, &so, NULL);
    items(p, 1, 5);
    assert_int_equal(a.count, 2);
    assert_int_equal(a.shown[0], 3);
    assert_int_equal(a.shown[1], 5);
    peer_item(p, "another", 1); /* the node was made anew */
    assert_true(peer_run(p));
    assert_int_equal(a.count, 3);
    end(p);
}

static void test_position_by_stream(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    so.ack = XYLEM_ACK_BY_STREAM;
    struct peer *p = begin(&a, &so, NULL);
    char text[200];
    items(p, 101, 101); /* what is missing before does not come any more */
    items(p, 105, 107);
    xylem_ack(&a.held[2]);
    struct xylem_msg *batch[] = { a.held[0], a.held[3] };
    xylem_msgs_position(batch, 2, text, sizeof text);
    assert_string_equal(text, "e 0-101 106-107");
    end(p);
    a = (struct app){ 0 };
    so.position = text;
    p = begin(&a, &so, NULL);
    items(p, 101, 108);
    assert_int_equal(a.count, 5);
    assert_int_equal(a.shown[0], 102);
    assert_int_equal(a.shown[3], 105);
    assert_int_equal(a.shown[4], 108);
    end(p);
}

static void test_replay_shows_handled_items_again(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    struct peer *p = begin(&a, &so, NULL);
    struct xylem_sub *sub;
    items(p, 1, 2);
    xylem_ack(&a.held[0]);
    xylem_ack(&a.held[1]);
    assert_true(peer_run(p));
    so.ack = XYLEM_ACK_BY_STREAM;
    assert_int_equal(xylem_subscribe(p->client, "m", &so, &sub), XYLEM_OK);
    assert_int_equal(xylem_sub_replay(sub, "", on_done, &a), XYLEM_INVALID);
    assert_int_equal(xylem_sub_replay(sub, "all", on_done, &a), XYLEM_OK);
    assert_true(peer_run(p));
    assert_int_equal(a.done, 1);
    assert_non_null(peer_find(p, "<replay xmlns='urn:xylem:delivery:0' node='m' start='all'/>", 0));
    items(p, 1, 2); /* another node's position stands */
    assert_int_equal(a.count, 2);
    peer_break(p);
    assert_int_equal(xylem_sub_replay(sub, "all", on_done, &a), XYLEM_WRONG_STATE);
    end(p);
    a = (struct app){ 0 };
    p = peer_new();
    struct xylem_options o = XYLEM_OPTIONS;
    o.jid = "alice@example.org/r";
    o.password = "secret";
    o.tls = XYLEM_TLS_NONE;
    o.plain_allowed = true;
    assert_int_equal(xy_client_new(&p->client, &o, &p->env, NULL, 0), XYLEM_OK);
    assert_int_equal(xylem_subscribe(p->client, "n", &so, &sub), XYLEM_OK);
    xylem_client_start(p->client);
    assert_true(peer_run(p));
    items(p, 1, 2);
    xylem_ack(&a.held[0]);
    xylem_ack(&a.held[1]);
    assert_true(peer_run(p));
    assert_int_equal(xylem_sub_replay(sub, "seq:1", NULL, NULL), XYLEM_OK);
    items(p, 1, 2);
    assert_int_equal(a.count, 4);
    end(p);
}

struct stood {
    unsigned called;
    enum xylem_status status;
    struct xylem_sub_state state;
};

static void on_state_of_sub(struct xylem_client *c, const struct xylem_result *result,
                            const struct xylem_sub_state *state, void *ctx)
{
    (void)c;
    struct stood *s = ctx;
    s->called++;
    s->status = result->status;
    if (state) {
        assert_string_equal(state->state, "receiving");
        assert_string_equal(state->session, "");
        s->state = *state;
    }
}

/* Answers the client's newest request. */
static void answer_newest(struct peer *p, const char *payload)
{
    const char *asked = p->seen[p->seen_count - 1], *id = strstr(asked, "id='") + 4;
    char answer[900];
    snprintf(answer, sizeof answer, "<iq type='result' from='pubsub.example.org' to='%s' id='%.*s'>%s</iq>",
             p->jid, (int)strcspn(id, "'"), id, payload);
    peer_send(p, answer);
    assert_true(peer_run(p));
}

static void test_state_of_a_subscription(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct stood stood = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    struct peer *p = begin(&a, &so, NULL);
    struct xylem_sub *sub;
    p->silent = true;
    assert_int_equal(xylem_subscribe(p->client, "m", &so, &sub), XYLEM_OK);
    assert_int_equal(xylem_sub_ask_state(sub, on_state_of_sub, &stood), XYLEM_WRONG_STATE);
    assert_true(peer_run(p));
    answer_newest(p, "<pubsub xmlns='" NS_PUBSUB
                     "'><subscription node='m' subid='5' subscription='subscribed'/></pubsub>");
    assert_int_equal(xylem_sub_ask_state(sub, on_state_of_sub, &stood), XYLEM_OK);
    assert_true(peer_run(p));
    assert_non_null(peer_find(p, "<subscription-state xmlns='urn:xylem:delivery:0' node='m' subid='5'/>", 0));
    answer_newest(
        p, "<subscription-state xmlns='" NS_XYLEM_DELIVERY "' node='m' newest='12'><subscription subid='5' "
           "state='receiving' depth='3' bytes='99' in-flight='2' parked='1' acknowledged='9' oldest-age='17' "
           "redeliveries='4' dead-lettered='5' skipped='6' delayed='x'/></subscription-state>");
    assert_int_equal(stood.called, 1);
    assert_int_equal(stood.status, XYLEM_OK);
    const struct xylem_sub_state *s = &stood.state;
    assert_true(s->newest == 12 && s->depth == 3 && s->bytes == 99 && s->in_flight == 2 && s->parked == 1);
    assert_true(s->acknowledged == 9 && s->oldest_age_s == 17 && s->redeliveries == 4 && s->delayed == 0);
    assert_true(s->dead_lettered == 5 && s->skipped == 6);
    xylem_sub_ask_state(sub, on_state_of_sub, &stood);
    assert_true(peer_run(p));
    answer_newest(p, "");
    assert_int_equal(stood.status, XYLEM_NOT_FOUND);
    end(p);
}

static void gap(struct peer *p, unsigned first, unsigned last)
{
    char xml[500];
    snprintf(xml, sizeof xml,
             "<message from='pubsub.example.org' to='%s'><gap xmlns='" NS_XYLEM_DELIVERY
             "' node='n' subid='s' epoch='e' first='%u' last='%u' reason='overflow'/><delivery "
             "xmlns='" NS_XYLEM_DELIVERY "' epoch='e' seq='%u' attempt='1' subid='s'/></message>",
             p->jid, first, last, last);
    peer_send(p, xml);
    assert_true(peer_run(p));
}

static void test_gap_is_shown_in_its_place_and_acknowledged(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    for (unsigned round = 0; round < 2; round++) {
        a = (struct app){ 0 };
        so.ack = round ? XYLEM_ACK_BY_STREAM : XYLEM_ACK_EXPLICITLY;
        struct peer *p = begin(&a, &so, NULL);
        char text[100];
        items(p, 1, 1);
        gap(p, 2, 5);
        items(p, 6, 6);
        assert_int_equal(a.count, 3);
        struct xylem_msg_view view;
        xylem_msg_view(a.held[1], &view);
        assert_int_equal(view.event, XYLEM_EVENT_GAP);
        assert_int_equal(view.gap_first, 2);
        assert_int_equal(view.seq, 5);
        assert_string_equal(view.gap_reason, "overflow");
        assert_string_equal(view.node, "n");
        xylem_msgs_position(a.held, 3, text, sizeof text);
        assert_string_equal(text, "e 0-6");
        for (size_t i = 0; i < 3; i++)
            xylem_ack(&a.held[i]);
        assert_true(peer_run(p));
        gap(p, 2, 5); /* comes again: known */
        assert_int_equal(a.count, 3);
        settle(p);
        assert_true(xy_sm_queue_empty(&p->queue));
        if (so.ack == XYLEM_ACK_EXPLICITLY)
            assert_int_equal(
                peer_count(p, "<ack xmlns='urn:xylem:delivery:0' node='n' subid='s' epoch='e' seq='5'/>"), 2);
        end(p);
    }
}

/* The broker gave up items that the application has: it is told, and both are acknowledged. */
static void test_gap_over_items_in_hand(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct xylem_sub_options so = explicitly(&a);
    for (unsigned round = 0; round < 2; round++) {
        a = (struct app){ 0 };
        so.ack = round ? XYLEM_ACK_BY_STREAM : XYLEM_ACK_EXPLICITLY;
        struct peer *p = begin(&a, &so, NULL);
        items(p, 1, 3);
        gap(p, 2, 3);
        gap(p, 2, 3);
        assert_int_equal(a.count, 4);
        assert_int_equal(a.event, XYLEM_EVENT_GAP);
        for (size_t i = 4; i > 0; i--)
            assert_int_equal(xylem_ack(&a.held[i - 1]), XYLEM_OK);
        settle(p);
        assert_true(xy_sm_queue_empty(&p->queue));
        items(p, 1, 4);
        assert_int_equal(a.count, 5);
        end(p);
    }
}

static void test_old_format_of_the_position_file(void **state)
{
    (void)state;
    char folder[] = "/tmp/xylem-state-XXXXXX", path[200];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/positions", folder);
    /* As version 0.1.0 wrote it: crc, key length, epoch length, seq. */
    const char key[] = "pubsub.example.org\nalice@example.org/r\nn\ns";
    char record[16 + sizeof key - 1 + 1];
    memset(record, 0, sizeof record);
    record[4] = (char)(sizeof key - 1);
    record[6] = 1;
    record[8] = 2;
    memcpy(record + 16, key, sizeof key - 1);
    record[sizeof record - 1] = 'e';
    uint32_t crc = xy_crc32c(0, record + 4, sizeof record - 4);
    for (unsigned i = 0; i < 4; i++)
        record[i] = (char)(crc >> (8 * i) & 0xff);
    FILE *file = fopen(path, "we");
    fputs("xylem positions 1\n", file);
    fwrite(record, 1, sizeof record, file);
    fclose(file);
    for (unsigned round = 0; round < 2; round++) { /* read as old, then as rewritten */
        struct app a = { 0 };
        struct xylem_sub_options so = explicitly(&a);
        so.ack = XYLEM_ACK_BY_STREAM;
        struct peer *p = begin(&a, &so, folder);
        items(p, 1, 3);
        assert_int_equal(a.count, 1);
        assert_int_equal(a.shown[0], 3);
        end(p);
    }
    unlink(path);
    snprintf(path, sizeof path, "%s/lock", folder);
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_are_sent),
        cmocka_unit_test(test_wrong_options_are_refused_here),
        cmocka_unit_test(test_acks_of_a_turn_go_in_one_message),
        cmocka_unit_test(test_many_acks_are_split),
        cmocka_unit_test(test_nacked_comes_again_acked_does_not),
        cmocka_unit_test(test_terminated_may_be_driven_again),
        cmocka_unit_test(test_position_is_on_disk_before_the_broker_is_told),
        cmocka_unit_test(test_unwritable_state_tells_the_broker_nothing),
        cmocka_unit_test(test_receipts),
        cmocka_unit_test(test_settled_with_an_answer),
        cmocka_unit_test(test_consumer_of_a_queue),
        cmocka_unit_test(test_headers_are_published),
        cmocka_unit_test(test_dead_letter_headers),
        cmocka_unit_test(test_position_in_the_hands_of_the_application),
        cmocka_unit_test(test_position_by_stream),
        cmocka_unit_test(test_replay_shows_handled_items_again),
        cmocka_unit_test(test_state_of_a_subscription),
        cmocka_unit_test(test_gap_is_shown_in_its_place_and_acknowledged),
        cmocka_unit_test(test_gap_over_items_in_hand),
        cmocka_unit_test(test_old_format_of_the_position_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
