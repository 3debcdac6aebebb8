/* The client against a broker in memory: logging in, publishing, resuming, beginning anew, backing off, giving up. */
#include "tests/unit/sdk/peer.h"

struct seen {
    unsigned done, ok, room, states;
    enum xylem_status last;
    enum xylem_state state;
    enum xylem_status why;
    char text[200];
    bool free_in_callback;
};

static void on_state(struct xylem_client *c, enum xylem_state state, enum xylem_status why, void *ctx)
{
    (void)c;
    struct seen *s = ctx;
    s->states++;
    s->state = state;
    s->why = why;
}

static void on_room(struct xylem_client *c, void *ctx)
{
    (void)c;
    ((struct seen *)ctx)->room++;
}

static void on_done(struct xylem_client *c, const struct xylem_result *result, void *ctx)
{
    struct seen *s = ctx;
    s->done++;
    s->ok += result->status == XYLEM_OK;
    s->last = result->status;
    snprintf(s->text, sizeof s->text, "%s", result->text);
    if (s->free_in_callback)
        xylem_client_free(c);
}

static struct peer *begin(struct seen *s, struct xylem_options *options)
{
    struct peer *p = peer_new();
    struct xylem_options o = XYLEM_OPTIONS;
    if (options)
        o = *options;
    o.jid = "alice@example.org/r";
    o.password = "secret";
    o.tls = XYLEM_TLS_NONE;
    o.plain_allowed = true;
    o.on_state = on_state;
    o.on_room = on_room;
    o.ctx = s;
    char error[200] = "";
    assert_int_equal(xy_client_new(&p->client, &o, &p->env, error, sizeof error), XYLEM_OK);
    assert_int_equal(xylem_client_start(p->client), XYLEM_OK);
    return p;
}

static void end(struct peer *p)
{
    xylem_client_free(p->client);
    peer_free(p);
}

static enum xylem_status publish(struct peer *p, const char *text, struct seen *s)
{
    struct xylem_item item = { .node = "n", .data = text, .len = strlen(text) };
    return xylem_publish(p->client, &item, on_done, s);
}

static void test_publishes_before_and_after_login(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct peer *p = begin(&s, NULL);
    assert_int_equal(publish(p, "one & only", &s), XYLEM_OK);
    assert_true(peer_run(p));
    assert_int_equal(s.state, XYLEM_STATE_ONLINE);
    assert_string_equal(xylem_client_jid(p->client), "alice@example.org/r");
    assert_string_equal(xylem_client_service(p->client), "pubsub.example.org");
    assert_int_equal(s.ok, 1);
    assert_int_equal(peer_count(p, "<presence><priority>-1</priority></presence>"), 1); /* it takes no mail */
    assert_int_equal(peer_count(p, "one &amp; only</data>"), 1);
    publish(p, "two", &s);
    assert_true(peer_run(p));
    assert_int_equal(s.ok, 2);
    struct xylem_stats stats = { .size = sizeof stats };
    xylem_client_stats(p->client, &stats);
    assert_int_equal(stats.acknowledged, 2);
    assert_int_equal(stats.queued, 0);
    assert_int_equal(stats.queued_bytes, 0);
    end(p);
}

static bool take_mail(struct xylem_client *client, const struct xylem_stanza *stanza, void *ctx)
{
    (void)client, (void)stanza, (void)ctx;
    return true;
}

/* Only who handles messages to the account is there for them. */
static void test_mail_is_for_who_takes_it(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct peer *p = begin(&s, NULL);
    xylem_on_stanza(p->client, take_mail, NULL);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<presence/>"), 1);
    assert_int_equal(peer_count(p, "<priority>"), 0);
    xylem_on_stanza(p->client, NULL, NULL);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<presence><priority>-1</priority></presence>"), 1);
    xylem_on_stanza(p->client, take_mail, NULL);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<presence/>"), 2);
    end(p);
}

static void message(struct peer *p, const char *to, const char *inside)
{
    char xml[1024];
    snprintf(xml, sizeof xml, "<message from='bob@example.org/1' to='%s' id='m1' %s</message>", to, inside);
    peer_send(p, xml);
    assert_true(peer_run(p));
}

/* Words for a session that reads none are not swallowed, and nothing else is answered. */
static void test_who_reads_nothing_says_so(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct peer *p = begin(&s, NULL);
    assert_true(peer_run(p));
    message(p, p->jid, "type='chat'><body>hello</body>");
    message(p, p->jid, "><body>hello</body>");
    assert_int_equal(peer_count(p, "<service-unavailable"), 2);
    assert_int_equal(peer_count(p, "to='bob@example.org/1'"), 2);
    assert_int_equal(peer_count(p, "type='error'"), 2);
    message(p, p->jid, "type='error'><body>hello</body>");
    message(p, p->jid, "type='headline'><body>hello</body>");
    message(p, p->jid, "type='groupchat'><body>hello</body>");
    message(p, p->jid, "type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/>");
    message(p, "alice@example.org", "type='chat'><body>hello</body>");
    xylem_on_stanza(p->client, take_mail, NULL);
    message(p, p->jid, "type='chat'><body>hello</body>");
    assert_int_equal(peer_count(p, "<service-unavailable"), 2);
    end(p);
}

static void test_refusal_says_who_and_why(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct peer *p = begin(&s, NULL);
    static const struct {
        const char *condition;
        enum xylem_status status;
    } cases[] = { { "item-not-found", XYLEM_NOT_FOUND },
                  { "forbidden", XYLEM_FORBIDDEN },
                  { "conflict", XYLEM_CONFLICT },
                  { "resource-constraint", XYLEM_BUSY },
                  { "service-unavailable", XYLEM_UNAVAILABLE },
                  { "feature-not-implemented", XYLEM_UNSUPPORTED },
                  { "gone", XYLEM_REFUSED } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(p->error, sizeof p->error, "%s", cases[i].condition);
        publish(p, "x", &s);
        assert_true(peer_run(p));
        assert_int_equal(s.last, cases[i].status);
        assert_non_null(strstr(s.text, cases[i].condition));
        assert_non_null(strstr(s.text, "pubsub.example.org"));
        assert_non_null(strstr(s.text, "because"));
    }
    assert_int_equal(s.done, 7);
    end(p);
}

static void test_new_session_repeats_unanswered_publishes_in_order(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct peer *p = begin(&s, NULL);
    assert_true(peer_run(p));
    p->drop_answers = true;
    char text[16];
    for (unsigned i = 0; i < 5; i++) {
        snprintf(text, sizeof text, "item-%u", i);
        publish(p, text, &s);
    }
    assert_true(peer_run(p));
    assert_int_equal(s.done, 0);
    p->resumable = false;
    p->drop_answers = false;
    peer_break(p);
    assert_true(peer_later(p, 1000));
    assert_int_equal(p->binds, 2);
    assert_int_equal(s.ok, 5);
    for (unsigned i = 0; i < 5; i++) {
        char number[16], what[16];
        snprintf(number, sizeof number, ":%u'", i + 1);
        snprintf(what, sizeof what, "item-%u", i);
        for (size_t copy = 0; copy < 2; copy++) { /* the same publish-id both times */
            const char *sent = peer_find(p, what, copy);
            assert_non_null(sent);
            assert_non_null(strstr(sent, number));
        }
    }
    /* In order, the second time too. */
    const char *last = NULL;
    for (size_t i = 0; i < p->seen_count; i++)
        if (strstr(p->seen[i], "publish-id"))
            last = p->seen[i];
    assert_non_null(strstr(last, "item-4"));
    end(p);
}

static void test_resumption_repeats_nothing_that_arrived(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct peer *p = begin(&s, NULL);
    assert_true(peer_run(p));
    p->drop_answers = true;
    publish(p, "arrived", &s);
    assert_true(peer_run(p));
    p->drop_answers = false;
    p->deaf = true; /* sent, never read */
    publish(p, "lost", &s);
    assert_true(peer_run(p));
    p->deaf = false;
    peer_break(p);
    assert_true(peer_later(p, 1000));
    assert_int_equal(p->resumes, 1);
    assert_int_equal(p->binds, 1);
    assert_int_equal(peer_count(p, "arrived"), 1);
    assert_int_equal(peer_count(p, "lost"), 1);
    assert_int_equal(s.ok, 1); /* `arrived` waits for the answer that the session still owes */
    end(p);
}

static void test_full_queue_refuses_then_says_room(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct xylem_options o = XYLEM_OPTIONS;
    o.queue_items_max = 4;
    struct peer *p = begin(&s, &o);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(publish(p, "x", &s), XYLEM_OK);
    assert_int_equal(publish(p, "x", &s), XYLEM_FULL);
    assert_true(xylem_status_retriable(XYLEM_FULL));
    assert_int_equal(s.room, 0);
    assert_true(peer_run(p));
    assert_int_equal(s.room, 1);
    assert_int_equal(publish(p, "x", &s), XYLEM_OK);
    assert_true(peer_run(p));
    assert_int_equal(s.room, 1);
    assert_int_equal(s.ok, 5);
    end(p);
}

static void test_queue_is_bounded_in_bytes(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct xylem_options o = XYLEM_OPTIONS;
    o.queue_bytes_max = 1000;
    struct peer *p = begin(&s, &o);
    char text[900];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(publish(p, text, &s), XYLEM_OK); /* alone it passes whatever its size */
    assert_int_equal(publish(p, "x", &s), XYLEM_FULL);
    end(p);
}

static void test_window_bounds_what_is_on_the_way(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct xylem_options o = XYLEM_OPTIONS;
    o.publish_window = 2;
    struct peer *p = begin(&s, &o);
    p->silent = true;
    for (unsigned i = 0; i < 5; i++)
        publish(p, "x", &s);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "publish-id"), 2);
    end(p);
}

static void test_wrong_password_is_final(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct peer *p = begin(&s, NULL);
    p->refuse_login = true;
    publish(p, "x", &s);
    assert_true(peer_run(p));
    assert_int_equal(s.state, XYLEM_STATE_STOPPED);
    assert_int_equal(s.why, XYLEM_AUTH);
    assert_int_equal(s.last, XYLEM_AUTH); /* the publish was told */
    assert_non_null(strstr(xylem_client_error(p->client), "password"));
    assert_true(peer_later(p, 600000));
    assert_int_equal(p->connects, 1);
    end(p);
}

static void test_backoff_grows_with_jitter_up_to_its_cap(void **state)
{
    (void)state;
    struct peer *p = peer_new();
    struct xy_backoff backoff;
    xy_backoff_init(&backoff, 100, 5000);
    uint64_t largest = 0, sum = 0;
    for (unsigned i = 0; i < 200; i++) {
        uint64_t delay = xy_backoff_next_us(&backoff, &p->env);
        assert_true(delay <= 5000000);
        assert_true(delay >= (i == 0 ? 50000u : 100000u));
        largest = delay > largest ? delay : largest;
        sum += delay;
    }
    assert_true(largest > 3000000 && sum / 200 > 1000000);
    xy_backoff_reset(&backoff);
    assert_true(xy_backoff_next_us(&backoff, &p->env) <= 100000);
    peer_free(p);
}

static void test_dead_connection_is_noticed(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct peer *p = begin(&s, NULL);
    assert_true(peer_run(p));
    p->silent = p->deaf = true;
    assert_true(peer_later(p, 29000));
    assert_int_equal(s.state, XYLEM_STATE_ONLINE);
    assert_true(peer_later(p, 1100)); /* the ping goes out and is not answered */
    assert_int_equal(s.state, XYLEM_STATE_ONLINE);
    p->now_us += 10 * 1000000;
    xy_client_enter(p->client);
    xy_client_tick(p->client);
    xy_client_leave(p->client);
    assert_int_equal(s.state, XYLEM_STATE_WAITING);
    assert_int_equal(s.why, XYLEM_DISCONNECTED);
    p->silent = p->deaf = false;
    assert_true(peer_later(p, 1000));
    assert_int_equal(s.state, XYLEM_STATE_ONLINE);
    end(p);
}

static void test_request_times_out(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct peer *p = begin(&s, NULL);
    assert_true(peer_run(p));
    p->silent = true;
    assert_int_equal(xylem_request(p->client, "x@y", false, "<a xmlns='b'/>", 14, 500, on_done, &s),
                     XYLEM_OK);
    assert_int_equal(xylem_request(p->client, "x@y", false, "<a><b></a>", 10, 500, on_done, &s),
                     XYLEM_INVALID);
    assert_int_equal(xylem_request(p->client, "x@y", false, "<a/><b/>", 8, 500, on_done, &s), XYLEM_INVALID);
    assert_int_equal(xylem_request(p->client, "x@y", false, "text", 4, 500, on_done, &s), XYLEM_INVALID);
    assert_true(peer_later(p, 499));
    assert_int_equal(s.done, 0);
    assert_true(peer_later(p, 2));
    assert_int_equal(s.last, XYLEM_TIMEOUT);
    end(p);
}

static void test_requests_end_with_their_session(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct peer *p = begin(&s, NULL);
    assert_true(peer_run(p));
    p->silent = true;
    xylem_ping(p->client, NULL, on_done, &s);
    assert_true(peer_run(p));
    p->resumable = false;
    peer_break(p);
    assert_int_equal(s.done, 0);
    assert_true(peer_later(p, 1000));
    assert_int_equal(s.last, XYLEM_DISCONNECTED);
    end(p);
}

static void test_stop_waits_for_answers_then_closes(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct peer *p = begin(&s, NULL);
    assert_true(peer_run(p));
    p->drop_answers = true;
    publish(p, "x", &s);
    xylem_client_stop(p->client, 5000);
    assert_int_equal(publish(p, "y", &s), XYLEM_STOPPED);
    assert_true(peer_later(p, 1000));
    assert_int_equal(s.state, XYLEM_STATE_STOPPING);
    assert_true(peer_later(p, 4001));
    assert_int_equal(s.state, XYLEM_STATE_STOPPED);
    assert_int_equal(s.why, XYLEM_OK);
    assert_int_equal(s.last, XYLEM_STOPPED); /* not answered: said so */
    assert_int_equal(xylem_client_start(p->client), XYLEM_OK);
    assert_true(peer_run(p));
    assert_int_equal(s.state, XYLEM_STATE_ONLINE);
    end(p);
}

static void test_never_retry_ends_after_one_attempt(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct xylem_options o = XYLEM_OPTIONS;
    o.retry = XYLEM_RETRY_ONCE_ONLINE;
    struct peer *p = begin(&s, &o);
    xy_client_enter(p->client);
    xy_client_lost(p->client, "nobody there");
    xy_client_leave(p->client);
    assert_int_equal(s.state, XYLEM_STATE_STOPPED);
    assert_int_equal(s.why, XYLEM_UNREACHABLE);
    assert_string_equal(xylem_client_error(p->client), "nobody there");
    end(p);
}

static void test_free_inside_a_callback(void **state)
{
    (void)state;
    struct seen s = { .free_in_callback = true };
    struct peer *p = begin(&s, NULL);
    publish(p, "x", &s);
    publish(p, "y", &s);
    assert_false(peer_run(p));
    assert_int_equal(s.done, 1);
    peer_free(p);
}

static void test_messages_go_again_in_a_new_session(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct peer *p = begin(&s, NULL);
    assert_true(peer_run(p));
    p->deaf = true;
    const char *message = "<message to='b@c'><body>hi</body></message>";
    assert_int_equal(xylem_stanza_send(p->client, message, strlen(message)), XYLEM_OK);
    assert_int_equal(xylem_stanza_send(p->client, "<iq/>", 5), XYLEM_INVALID);
    assert_true(peer_run(p));
    p->deaf = false;
    p->resumable = false;
    peer_break(p);
    assert_true(peer_later(p, 1000));
    assert_int_equal(peer_count(p, "<body>hi</body>"), 1);
    end(p);
}

static void test_messages_are_bounded_in_bytes(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct xylem_options o = XYLEM_OPTIONS;
    o.queue_bytes_max = 200;
    struct peer *p = begin(&s, &o);
    const char *message = "<message to='b@c'><body>0123456789012345678901234567890123456789</body></message>";
    unsigned taken = 0;
    while (taken < 10 && xylem_stanza_send(p->client, message, strlen(message)) == XYLEM_OK)
        taken++;
    assert_int_equal(taken, 2);
    assert_int_equal(xylem_stanza_send(p->client, message, strlen(message)), XYLEM_FULL);
    assert_true(peer_run(p));
    assert_true(peer_later(p, 200)); /* sent and acknowledged */
    assert_int_equal(xylem_stanza_send(p->client, message, strlen(message)), XYLEM_OK);
    end(p);
}

static void test_options_are_checked(void **state)
{
    (void)state;
    struct peer *p = peer_new();
    struct xylem_client *c;
    char error[200] = "";
    struct xylem_options o = { 0 };
    assert_int_equal(xy_client_new(&c, &o, &p->env, error, sizeof error), XYLEM_INVALID);
    assert_non_null(strstr(error, "size"));
    o.size = sizeof o;
    assert_int_equal(xy_client_new(&c, &o, &p->env, error, sizeof error), XYLEM_INVALID);
    o.jid = "example.org";
    assert_int_equal(xy_client_new(&c, &o, &p->env, error, sizeof error), XYLEM_INVALID);
    o.jid = "a@b@c";
    assert_int_equal(xy_client_new(&c, &o, &p->env, error, sizeof error), XYLEM_INVALID);
    o.jid = "a@example.org";
    o.tls = XYLEM_TLS_NONE;
    o.state_dir = "/proc/xylem/none";
    assert_int_equal(xy_client_new(&c, &o, &p->env, error, sizeof error), XYLEM_STORAGE);
    assert_non_null(strstr(error, "/proc/xylem/none"));
    assert_null(c);
    peer_free(p);
}

static void test_every_status_has_a_text_and_a_class(void **state)
{
    (void)state;
    static const enum xylem_status all[] = {
        XYLEM_OK,          XYLEM_FULL,        XYLEM_TIMEOUT,   XYLEM_BUSY,        XYLEM_DISCONNECTED,
        XYLEM_UNREACHABLE, XYLEM_REFUSED,     XYLEM_NOT_FOUND, XYLEM_FORBIDDEN,   XYLEM_CONFLICT,
        XYLEM_UNAVAILABLE, XYLEM_UNSUPPORTED, XYLEM_INVALID,   XYLEM_WRONG_STATE, XYLEM_UNCLAIMED,
        XYLEM_NO_MEMORY,   XYLEM_AUTH,        XYLEM_UNTRUSTED, XYLEM_REPLACED,    XYLEM_STORAGE,
        XYLEM_STOPPED,
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        assert_string_not_equal(xylem_status_text(all[i]), "unknown status");
        bool again =
            xylem_status_class(all[i]) == XYLEM_CLASS_RETRY || xylem_status_class(all[i]) == XYLEM_CLASS_LOST;
        assert_int_equal(xylem_status_retriable(all[i]), again);
    }
    assert_string_equal(xylem_status_text((enum xylem_status)0x7777), "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_publishes_before_and_after_login),
        cmocka_unit_test(test_mail_is_for_who_takes_it),
        cmocka_unit_test(test_who_reads_nothing_says_so),
        cmocka_unit_test(test_refusal_says_who_and_why),
        cmocka_unit_test(test_new_session_repeats_unanswered_publishes_in_order),
        cmocka_unit_test(test_resumption_repeats_nothing_that_arrived),
        cmocka_unit_test(test_full_queue_refuses_then_says_room),
        cmocka_unit_test(test_queue_is_bounded_in_bytes),
        cmocka_unit_test(test_window_bounds_what_is_on_the_way),
        cmocka_unit_test(test_wrong_password_is_final),
        cmocka_unit_test(test_backoff_grows_with_jitter_up_to_its_cap),
        cmocka_unit_test(test_dead_connection_is_noticed),
        cmocka_unit_test(test_request_times_out),
        cmocka_unit_test(test_requests_end_with_their_session),
        cmocka_unit_test(test_stop_waits_for_answers_then_closes),
        cmocka_unit_test(test_never_retry_ends_after_one_attempt),
        cmocka_unit_test(test_free_inside_a_callback),
        cmocka_unit_test(test_messages_go_again_in_a_new_session),
        cmocka_unit_test(test_messages_are_bounded_in_bytes),
        cmocka_unit_test(test_options_are_checked),
        cmocka_unit_test(test_every_status_has_a_text_and_a_class),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
