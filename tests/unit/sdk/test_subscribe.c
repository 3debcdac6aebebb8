/* Durable subscriptions: what is shown, what is recognised as a double, and what the client's own h covers. */
#include <unistd.h>

#include "tests/unit/sdk/peer.h"

#define SHOWN_MAX 64

struct app {
    uint64_t shown[SHOWN_MAX];
    size_t count;
    struct xylem_msg *held[SHOWN_MAX];
    bool manual;
    struct xylem_msg_view view;
    char data[200];
    unsigned subscribed;
    enum xylem_status why;
    enum xylem_state state;
};

static void on_message(struct xylem_sub *sub, struct xylem_msg *msg, void *ctx)
{
    (void)sub;
    struct app *a = ctx;
    struct xylem_msg_view view;
    xylem_msg_view(msg, &view);
    assert_true(a->count < SHOWN_MAX);
    a->held[a->count] = msg;
    a->shown[a->count++] = view.seq;
    a->view = view;
    snprintf(a->data, sizeof a->data, "%.*s", (int)view.len, (const char *)view.data);
}

static void on_subscribed(struct xylem_client *c, const struct xylem_result *result, void *ctx)
{
    (void)c;
    ((struct app *)ctx)->subscribed++;
    ((struct app *)ctx)->why = result->status;
}

static void on_state(struct xylem_client *c, enum xylem_state state, enum xylem_status why, void *ctx)
{
    (void)c;
    ((struct app *)ctx)->state = state;
    ((struct app *)ctx)->why = why;
}

static void client(struct peer *p, struct app *a, const char *state_dir, uint32_t max_inflight,
                   struct xylem_sub **sub)
{
    struct xylem_options o = XYLEM_OPTIONS;
    o.jid = "alice@example.org/r";
    o.password = "secret";
    o.tls = XYLEM_TLS_NONE;
    o.plain_allowed = true;
    o.state_dir = state_dir;
    o.max_inflight = max_inflight;
    o.on_state = on_state;
    o.ctx = a;
    char error[300] = "";
    assert_int_equal(xy_client_new(&p->client, &o, &p->env, error, sizeof error), XYLEM_OK);
    struct xylem_sub_options so = XYLEM_SUB_OPTIONS;
    so.durable = true;
    so.manual_ack = a->manual;
    so.start = "all";
    so.on_message = on_message;
    so.on_subscribed = on_subscribed;
    so.ctx = a;
    assert_int_equal(xylem_subscribe(p->client, "n", &so, sub), XYLEM_OK);
    assert_int_equal(xylem_client_start(p->client), XYLEM_OK);
    assert_true(peer_run(p));
}

static struct peer *begin(struct app *a, bool manual, uint32_t max_inflight)
{
    struct peer *p = peer_new();
    a->manual = manual;
    client(p, a, NULL, max_inflight, NULL);
    return p;
}

/* Long enough for an unasked <a/>. */
static void settle(struct peer *p)
{
    assert_true(peer_run(p));
    assert_true(peer_later(p, 200));
}

static void end(struct peer *p)
{
    xylem_client_free(p->client);
    peer_free(p);
}

static void test_subscribes_with_options_in_one_request(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct peer *p = begin(&a, false, 0);
    const char *request = peer_find(p, "<subscribe", 0);
    assert_non_null(request);
    assert_non_null(strstr(request, "jid='alice@example.org/r'"));
    assert_non_null(strstr(request, "at-least-once"));
    assert_non_null(strstr(request, "}start'><value>all"));
    assert_int_equal(a.subscribed, 1);
    end(p);
}

static void test_item_is_shown_decoded_and_acknowledged(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct peer *p = begin(&a, false, 0);
    uint32_t before = p->client_h;
    peer_item(p, "e", 1);
    assert_true(peer_run(p));
    assert_int_equal(a.count, 1);
    assert_string_equal(a.data, "1");
    assert_int_equal(a.view.payload, XYLEM_TEXT);
    settle(p);
    assert_true(p->client_h > before);
    assert_true(xy_sm_queue_empty(&p->queue));
    end(p);
}

static void test_h_covers_only_what_was_acknowledged(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct peer *p = begin(&a, true, 0);
    for (unsigned seq = 1; seq <= 3; seq++)
        peer_item(p, "e", seq);
    assert_true(peer_run(p));
    settle(p);
    assert_int_equal(a.count, 3);
    uint32_t base = p->client_h;
    assert_int_equal(xylem_ack(&a.held[1]), XYLEM_OK);
    assert_null(a.held[1]);
    settle(p);
    assert_int_equal(p->client_h, base); /* the first is still with the application */
    xylem_ack(&a.held[0]);
    settle(p);
    assert_int_equal(p->client_h, base + 2);
    xylem_ack(&a.held[2]);
    settle(p);
    assert_int_equal(p->client_h, base + 3);
    assert_int_equal(xylem_ack(&a.held[2]), XYLEM_INVALID);
    end(p);
}

static void test_resumption_shows_nothing_twice(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct peer *p = begin(&a, true, 0);
    for (unsigned seq = 1; seq <= 3; seq++)
        peer_item(p, "e", seq);
    assert_true(peer_run(p));
    xylem_ack(&a.held[0]);
    peer_break(p);
    xylem_ack(&a.held[1]);
    assert_true(peer_later(p, 1000));
    assert_int_equal(p->resumes, 1);
    peer_item(p, "e", 4);
    assert_true(peer_run(p));
    assert_int_equal(a.count, 4);
    xylem_ack(&a.held[2]);
    xylem_ack(&a.held[3]);
    settle(p);
    assert_true(xy_sm_queue_empty(&p->queue));
    end(p);
}

/* The server was started anew: what follows <resumed/> is not what followed before, and must not be skipped for it. */
static void test_resumption_after_a_restart_skips_nothing(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct peer *p = begin(&a, true, 0);
    for (unsigned seq = 1; seq <= 3; seq++)
        peer_item(p, "e", seq);
    assert_true(peer_run(p));
    xylem_ack(&a.held[0]);
    p->restores = true;
    peer_break(p);
    assert_true(peer_later(p, 1000));
    assert_int_equal(p->resumes, 1);
    for (unsigned seq = 4; seq <= 5; seq++) /* as if the others had been retracted meanwhile */
        peer_item(p, "e", seq);
    assert_true(peer_run(p));
    assert_int_equal(a.count, 5);
    assert_int_equal(a.shown[3], 4);
    for (unsigned i = 1; i < 5; i++)
        xylem_ack(&a.held[i]); /* those of before count for nobody any more */
    settle(p);
    assert_true(xy_sm_queue_empty(&p->queue));
    end(p);
}

static void test_redelivery_in_a_new_session_is_recognised(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct peer *p = begin(&a, true, 0);
    for (unsigned seq = 1; seq <= 3; seq++)
        peer_item(p, "e", seq);
    assert_true(peer_run(p));
    xylem_ack(&a.held[0]);
    p->resumable = false;
    peer_break(p);
    assert_true(peer_later(p, 1000));
    assert_int_equal(p->binds, 2);
    assert_int_equal(peer_count(p, "<subscribe"), 2);
    for (unsigned seq = 1; seq <= 4; seq++) /* the broker heard no acknowledgement at all */
        peer_item(p, "e", seq);
    assert_true(peer_run(p));
    assert_int_equal(a.count, 4);
    assert_int_equal(a.shown[3], 4);
    xylem_ack(&a.held[1]); /* of the old session: now covers the new copies */
    xylem_ack(&a.held[2]);
    xylem_ack(&a.held[3]);
    settle(p);
    assert_true(xy_sm_queue_empty(&p->queue));
    struct xylem_stats stats = { .size = sizeof stats };
    xylem_client_stats(p->client, &stats);
    assert_int_equal(stats.duplicates, 3);
    assert_int_equal(stats.received, 4);
    end(p);
}

static void test_new_epoch_starts_over(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct peer *p = begin(&a, true, 0);
    peer_item(p, "e", 1);
    peer_item(p, "e", 2);
    peer_item(p, "f", 1);
    peer_item(p, "f", 1);
    assert_true(peer_run(p));
    assert_int_equal(a.count, 3);
    for (size_t i = 0; i < 3; i++)
        xylem_ack(&a.held[i]);
    settle(p);
    assert_true(xy_sm_queue_empty(&p->queue));
    end(p);
}

static void test_reading_stops_at_max_inflight(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct peer *p = begin(&a, true, 2);
    for (unsigned seq = 1; seq <= 5; seq++)
        peer_item(p, "e", seq);
    assert_true(peer_run(p));
    assert_int_equal(a.count, 2);
    assert_false(xy_client_wants_input(p->client));
    assert_true(xy_client_deadline_us(p->client) != 0); /* and does not spin */
    xylem_ack(&a.held[0]);
    assert_true(peer_run(p));
    assert_int_equal(a.count, 3);
    for (size_t i = 1; i < 5; i++) {
        xylem_ack(&a.held[i]);
        assert_true(peer_run(p));
    }
    assert_int_equal(a.count, 5);
    settle(p);
    assert_true(xy_sm_queue_empty(&p->queue));
    end(p);
}

static void test_position_survives_the_process(void **state)
{
    (void)state;
    char folder[] = "/tmp/xylem-state-XXXXXX";
    assert_non_null(mkdtemp(folder));
    struct app a = { .manual = true };
    struct peer *p = peer_new();
    client(p, &a, folder, 0, NULL);
    for (unsigned seq = 1; seq <= 3; seq++)
        peer_item(p, "e", seq);
    assert_true(peer_run(p));
    xylem_ack(&a.held[0]);
    xylem_ack(&a.held[1]);
    assert_true(peer_run(p));

    struct xylem_client *second;
    struct xylem_options o = XYLEM_OPTIONS;
    o.jid = "alice@example.org/r";
    o.tls = XYLEM_TLS_NONE;
    o.state_dir = folder;
    char error[300] = "";
    assert_int_equal(xy_client_new(&second, &o, &p->env, error, sizeof error), XYLEM_STORAGE);
    assert_non_null(strstr(error, "in use"));
    end(p);

    struct app b = { .manual = false };
    p = peer_new();
    client(p, &b, folder, 0, NULL);
    for (unsigned seq = 1; seq <= 4; seq++)
        peer_item(p, "e", seq);
    assert_true(peer_run(p));
    assert_int_equal(b.count, 2);
    assert_int_equal(b.shown[0], 3);
    assert_int_equal(b.shown[1], 4);
    end(p);
    char command[200];
    snprintf(command, sizeof command, "%s/positions", folder);
    unlink(command);
    snprintf(command, sizeof command, "%s/lock", folder);
    unlink(command);
    rmdir(folder);
}

static void test_items_nobody_takes_are_not_lost(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct peer *p = peer_new();
    struct xylem_sub *sub;
    client(p, &a, NULL, 0, &sub);
    settle(p);
    uint32_t before = p->client_h;
    xylem_sub_cancel(&sub, false, NULL, NULL);
    assert_null(sub);
    peer_item(p, "e", 1);
    peer_item(p, "e", 2);
    assert_true(peer_run(p));
    assert_int_equal(a.state, XYLEM_STATE_STOPPED);
    assert_int_equal(a.why, XYLEM_UNCLAIMED);
    assert_int_equal(p->client_h, before);
    assert_true(p->closed); /* the broker need not wait whether the session is resumed */
    assert_int_equal(xylem_client_start(p->client), XYLEM_OK);
    end(p);
}

static void test_forgetting_unsubscribes(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct peer *p = peer_new();
    struct xylem_sub *sub;
    client(p, &a, NULL, 0, &sub);
    peer_item(p, "e", 7);
    assert_true(peer_run(p));
    assert_int_equal(xylem_sub_cancel(&sub, true, on_subscribed, &a), XYLEM_OK);
    peer_item(p, "e", 8); /* on its way already: acknowledged, not shown */
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<unsubscribe"), 1);
    assert_int_equal(a.subscribed, 2);
    assert_int_equal(a.count, 1);
    settle(p);
    assert_true(xy_sm_queue_empty(&p->queue));
    end(p);
}

static void test_foreign_senders_are_not_believed(void **state)
{
    (void)state;
    struct app a = { 0 };
    struct peer *p = begin(&a, false, 0);
    peer_send(p, "<message from='mallory@example.org'><event xmlns='" NS_PUBSUB_EVENT
                 "'><items node='n'><item id='x'/>"
                 "</items></event></message>");
    peer_send(p, "<message from='pubsub.example.org'><event xmlns='" NS_PUBSUB_EVENT "'><items node='n'>"
                 "<retract id='gone'/></items></event></message>");
    assert_true(peer_run(p));
    assert_int_equal(a.count, 1);
    assert_int_equal(a.view.event, XYLEM_EVENT_RETRACT);
    end(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_subscribes_with_options_in_one_request),
        cmocka_unit_test(test_item_is_shown_decoded_and_acknowledged),
        cmocka_unit_test(test_h_covers_only_what_was_acknowledged),
        cmocka_unit_test(test_resumption_shows_nothing_twice),
        cmocka_unit_test(test_resumption_after_a_restart_skips_nothing),
        cmocka_unit_test(test_redelivery_in_a_new_session_is_recognised),
        cmocka_unit_test(test_new_epoch_starts_over),
        cmocka_unit_test(test_reading_stops_at_max_inflight),
        cmocka_unit_test(test_position_survives_the_process),
        cmocka_unit_test(test_items_nobody_takes_are_not_lost),
        cmocka_unit_test(test_forgetting_unsubscribes),
        cmocka_unit_test(test_foreign_senders_are_not_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
