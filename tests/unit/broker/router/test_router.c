/* The first decision about a stanza: broker, service, account, or nowhere. */
#include "tests/unit/broker/fixture.h"

#define JULIET "juliet@example.org"
#define ROMEO  "romeo@second.example"

static struct fixture *verona(unsigned shards)
{
    struct fixture *f = fixture_new(
        shards, "domains = [\"example.org\", \"Second.example\"]; admins = [\"Nurse@Example.org\"];");
    fixture_account(f, JULIET);
    fixture_account(f, ROMEO);
    return f;
}

static const char *ask(struct fixture *f, struct session_ref session, const char *xml)
{
    fixture_forget(f);
    fixture_say(f, session, JULIET "/a", 3, xml);
    struct fixture_event *sent = fixture_event_of(f, session, SENT);
    assert_non_null(fixture_event_of(f, session, HANDLED)); /* whatever became of it */
    assert_null(fixture_event_of(f, session, HANDLED));
    return sent ? sent->text : "nothing";
}

static void test_where_it_goes(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 3; shards += 2) {
        struct fixture *f = verona(shards);
        struct session_ref s = fixture_bind(f, JULIET, "a");
        assert_contains(
            ask(f, s, "<iq type='get' id='1' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>"), "result");
        assert_contains(
            ask(f, s, "<iq type='get' id='1' to='example.org/x'><ping xmlns='urn:xmpp:ping'/></iq>"),
            "result");
        assert_contains(
            ask(f, s, "<iq type='get' id='1' to='second.example'><ping xmlns='urn:xmpp:ping'/></iq>"),
            "result");
        assert_contains(ask(f, s, "<iq type='get' id='1' to='example.org'><what xmlns='urn:what'/></iq>"),
                        "service-unavailable");
        assert_contains(ask(f, s, "<iq type='get' id='1'><what xmlns='urn:what'/></iq>"),
                        "service-unavailable");
        assert_contains(ask(f, s, "<message to='example.org'><body>x</body></message>"),
                        "service-unavailable");
        assert_contains(
            ask(f, s, "<iq type='get' id='1' to='elsewhere.net'><ping xmlns='urn:xmpp:ping'/></iq>"),
            "remote-server-not-found");
        assert_contains(ask(f, s, "<message to='x@elsewhere.net'><body>x</body></message>"),
                        "remote-server-not-found");
        assert_string_equal(ask(f, s, "<message type='error' to='x@elsewhere.net'/>"), "nothing");
        assert_string_equal(ask(f, s, "<presence to='example.org'/>"), "nothing");
        assert_string_equal(ask(f, s, "<iq type='result' id='1' to='example.org'/>"), "nothing");
        assert_contains(
            ask(f, s, "<iq type='get' id='1' to='ghost@example.org'><ping xmlns='urn:xmpp:ping'/></iq>"),
            "service-unavailable");
        fixture_free(&f);
    }
}

static unsigned served;

static void on_service(struct shard *shard, struct request **request)
{
    served++;
    request_end(shard, request, 0);
}

static void test_services(void **state)
{
    (void)state;
    struct fixture *f = verona(2);
    struct session_ref s = fixture_bind(f, JULIET, "a");
    for (unsigned i = 0; i < 2; i++)
        router_add_service(shard_group_get(f->group, i), XY_STR("things.example.org"), on_service);
    struct shard *shard = shard_group_get(f->group, 1);
    served = 0;
    assert_string_equal(ask(f, s, "<message to='things.example.org'/>"), "nothing");
    assert_string_equal(ask(f, s, "<message to='node@things.example.org/x'/>"), "nothing");
    assert_string_equal(ask(f, s, "<presence to='THINGS.example.org'/>"), "nothing");
    assert_int_equal(served, 3);
    assert_int_equal(router_services_count(shard), 1);
    assert_str(router_service(shard, 0), "things.example.org");
    assert_true(router_serves(shard, XY_STR("things.example.org")));
    assert_true(router_serves(shard, XY_STR("example.org")));
    assert_false(router_serves(shard, XY_STR("other.example.org")));
    fixture_free(&f);
}

static void test_domains(void **state)
{
    (void)state;
    struct fixture *f = verona(1);
    struct shard *shard = shard_group_get(f->group, 0);
    struct xy_str domain;
    assert_true(router_local_domain(shard, XY_STR("EXAMPLE.org"), &domain));
    assert_str(domain, "example.org");
    assert_true(router_local_domain(shard, XY_STR("second.EXAMPLE"), &domain));
    assert_str(domain, "second.example");
    assert_false(router_local_domain(shard, XY_STR("example.net"), &domain));
    assert_false(router_local_domain(shard, XY_STR(""), &domain));
    assert_false(router_local_domain(shard, XY_STR_NONE, &domain));
    assert_str(router_domain(shard), "example.org");
    assert_true(router_is_local_domain(shard, XY_STR("second.example")));
    fixture_free(&f);
}

static void test_admins(void **state)
{
    (void)state;
    struct fixture *f = verona(1);
    struct shard *shard = shard_group_get(f->group, 0);
    assert_true(router_is_admin(shard, xy_jid_canonical(XY_STR("nurse@example.org/x"))));
    assert_true(router_is_admin(shard, xy_jid_canonical(XY_STR("admin@example.org")))); /* the reserved one */
    assert_false(router_is_admin(shard, xy_jid_canonical(XY_STR("admin@second.example"))));
    assert_false(router_is_admin(shard, xy_jid_canonical(XY_STR(JULIET))));
    struct config *other = NULL;
    struct xy_buf errors = { 0 };
    assert_true(config_parse("test", XY_STR("domain = \"example.org\"; admins = [\"" JULIET "\"];"), &other,
                             &errors));
    shard->config = other;
    router_reload(shard);
    assert_true(router_is_admin(shard, xy_jid_canonical(XY_STR(JULIET))));
    assert_false(router_is_admin(shard, xy_jid_canonical(XY_STR("nurse@example.org"))));
    shard->config = f->config;
    config_free(&other);
    fixture_free(&f);
}

/* What the broker says goes by the same rules, when its ticket is on disk; the caller's tree may be gone by then. */
static void test_send(void **state)
{
    (void)state;
    struct fixture *f = verona(3);
    struct session_ref s = fixture_bind(f, JULIET, "a");
    struct shard *shard = shard_group_get(f->group, 1);
    struct xy_arena *arena = xy_arena_new();
    struct xy_elem *message = xy_stanza_new(arena, XY_MESSAGE, XY_HEADLINE);
    xy_elem_set(arena, message, "from", XY_STR("example.org"));
    xy_elem_add_text(arena, xy_elem_add(arena, message, "body", "jabber:client"), XY_STR("news"));
    Xylem__Store__V1__AccountPut put = XYLEM__STORE__V1__ACCOUNT_PUT__INIT;
    put.jid = (char *)(uintptr_t) "x@example.org";
    f->hold_commits = true;
    uint64_t ticket = store_append(shard->store, RECORD_ACCOUNT_PUT, &put.base);
    fixture_forget(f);
    router_send(shard, xy_jid_canonical(XY_STR(JULIET "/a")), message, ticket);
    xy_arena_free(&arena);
    fixture_run(f);
    assert_int_equal(fixture_stanzas(f, s), 0);
    f->hold_commits = false;
    fixture_run(f);
    assert_int_equal(fixture_stanzas(f, s), 1);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_it_goes), cmocka_unit_test(test_services), cmocka_unit_test(test_domains),
        cmocka_unit_test(test_admins),        cmocka_unit_test(test_send),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
