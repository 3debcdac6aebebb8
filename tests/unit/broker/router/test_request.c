/* Every request ends once: what is answered, when, and that its sender's count goes on. */
#include "tests/unit/broker/fixture.h"

#include "core/namespaces.h"

#define JULIET "juliet@example.org"

static struct request *request_make(struct fixture *f, struct session_ref origin, const char *xml)
{
    struct shard *shard = fixture_home(f, origin);
    struct xy_xml_parser *parser = xy_xml_new(&(struct xy_xml_options){ .stanza_bytes_max = 1u << 20 });
    struct xy_xml_event event;
    char text[1024];
    int len = snprintf(text, sizeof(text), "<stream xmlns='jabber:client'>%s", xml);
    xy_xml_feed(parser, text, (size_t)len);
    xy_xml_next(parser, &event);
    xy_arena_free(&event.arena);
    xy_xml_next(parser, &event);
    struct xy_stanza stanza;
    xy_stanza_read(event.arena, event.elem, &stanza);
    xy_stanza_set_from(&stanza, xy_jid_canonical(XY_STR(JULIET "/a")));
    xy_xml_free(&parser);
    (void)shard;
    return request_new(stanza, origin, (struct session_inbound){ .number = 7, .bytes = 100 });
}

static uint64_t append(struct shard *shard)
{
    Xylem__Store__V1__AccountPut put = XYLEM__STORE__V1__ACCOUNT_PUT__INIT;
    put.jid = (char *)(uintptr_t) "x@example.org";
    return store_append(shard->store, RECORD_ACCOUNT_PUT, &put.base);
}

#define GET "<iq type='get' id='i' to='example.org'><q xmlns='urn:q'/></iq>"

static void assert_handled_once(struct fixture *f, struct session_ref session)
{
    struct fixture_event *handled = fixture_event_of(f, session, HANDLED);
    assert_non_null(handled);
    assert_int_equal(handled->seq, 7);
    assert_null(fixture_event_of(f, session, HANDLED));
}

/* From the sender's shard or another one. */
static void test_reply(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(2, "");
    for (unsigned shard = 0; shard < 2; shard++) {
        struct session_ref session = fixture_session(f);
        struct request *request = request_make(f, session, GET);
        request_reply(shard_group_get(f->group, shard), &request, NULL, 0);
        assert_null(request);
        fixture_run(f);
        struct fixture_event *sent = fixture_event_of(f, session, SENT);
        assert_contains(sent->text, "type='result'");
        assert_contains(sent->text, "id='i'");
        assert_contains(sent->text, "from='example.org'");
        assert_handled_once(f, session);
    }
    fixture_free(&f);
}

/* Neither the answer nor the count before the commit; the answer first. */
static void test_waits_for_its_ticket(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(2, "");
    struct session_ref session = fixture_session(f);
    struct shard *shard = shard_group_get(f->group, 1);
    f->hold_commits = true;
    struct request *request = request_make(f, session, GET);
    request_reply(shard, &request, NULL, append(shard));
    fixture_run(f);
    assert_int_equal(f->events_count, 0);
    f->hold_commits = false;
    fixture_run(f);
    assert_int_equal(f->events_count, 2);
    assert_int_equal(f->events[0].kind, SENT);
    assert_int_equal(f->events[1].kind, HANDLED);
    fixture_free(&f);
}

/* Messages, presence, results and errors are never answered with a result, and errors never with an error. */
static void test_what_is_not_answered(void **state)
{
    (void)state;
    static const struct {
        const char *xml;
        bool replied, failed;
    } cases[] = {
        { GET, true, true },
        { "<iq type='set' id='i' to='example.org'><q xmlns='urn:q'/></iq>", true, true },
        { "<iq type='result' id='i' to='example.org'/>", false, false },
        { "<iq type='error' id='i' to='example.org'/>", false, false },
        { "<message to='example.org'/>", false, true },
        { "<message type='error' to='example.org'/>", false, false },
        { "<presence type='error' to='example.org'/>", false, false },
    };
    struct fixture *f = fixture_new(1, "");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct session_ref session = fixture_session(f);
        struct shard *shard = shard_group_get(f->group, 0);
        struct request *request = request_make(f, session, cases[i].xml);
        request_reply(shard, &request, NULL, 0);
        fixture_run(f);
        assert_int_equal(fixture_event_of(f, session, SENT) != NULL, cases[i].replied);
        assert_handled_once(f, session);
        request = request_make(f, session, cases[i].xml);
        request_fail_with(shard, &request, XY_ITEM_NOT_FOUND, "no such thing");
        assert_null(request);
        fixture_run(f);
        struct fixture_event *sent = fixture_event_of(f, session, SENT);
        assert_int_equal(sent != NULL, cases[i].failed);
        if (sent) {
            assert_contains(sent->text, "type='error'");
            assert_contains(sent->text, "<item-not-found");
            assert_contains(sent->text, "no such thing");
        }
        assert_handled_once(f, session);
        request = request_make(f, session, cases[i].xml);
        request_end(shard, &request, 0);
        fixture_run(f);
        assert_null(fixture_event_of(f, session, SENT));
        assert_handled_once(f, session);
    }
    fixture_free(&f);
}

static void test_fail_after(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(1, "");
    struct session_ref session = fixture_session(f);
    struct shard *shard = shard_group_get(f->group, 0);
    struct xy_error error = xy_error_make(XY_CONFLICT, NULL);
    f->hold_commits = true;
    struct request *request = request_make(f, session, GET);
    request_fail_after(shard, &request, &error, append(shard));
    fixture_run(f);
    assert_int_equal(f->events_count, 0);
    f->hold_commits = false;
    fixture_run(f);
    assert_contains(fixture_event_of(f, session, SENT)->text, "<conflict");
    fixture_free(&f);
}

static struct request *forwarded;

static void on_forwarded(struct shard *shard, void *payload)
{
    assert_int_equal(shard->index, 1);
    forwarded = *(struct request **)payload;
}

static void test_forward(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(2, "");
    struct session_ref session = fixture_session(f);
    struct request *request = request_make(f, session, GET), *same = request;
    request_forward(shard_group_get(f->group, 0), 1, on_forwarded, &request);
    assert_null(request);
    fixture_run(f);
    assert_ptr_equal(forwarded, same);
    request_end(shard_group_get(f->group, 1), &forwarded, 0);
    fixture_run(f);
    assert_handled_once(f, session);
    fixture_free(&f);
}

/* What the broker itself asks is answered to the address, by the usual way. */
static void test_of_the_broker_itself(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(2, "");
    fixture_account(f, JULIET);
    struct session_ref session = fixture_bind(f, JULIET, "a");
    struct request *request = request_make(f, SESSION_NONE, GET);
    request_fail_with(shard_group_get(f->group, 0), &request, XY_FORBIDDEN, NULL);
    fixture_run(f);
    assert_contains(fixture_event_of(f, session, SENT)->text, "<forbidden");
    assert_null(fixture_event_of(f, session, HANDLED));
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reply),
        cmocka_unit_test(test_waits_for_its_ticket),
        cmocka_unit_test(test_what_is_not_answered),
        cmocka_unit_test(test_fail_after),
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_of_the_broker_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
