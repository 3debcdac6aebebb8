/* Stanzas: what is taken out of an element, every verdict, and what is made for an answer. */
#include "tests/unit/unit.h"

#include "core/namespaces.h"
#include "core/stanza.h"
#include "core/xml/writer.h"

static struct xy_arena *arena;

static int setup(void **state)
{
    (void)state;
    arena = xy_arena_new();
    return arena == NULL;
}

static int teardown(void **state)
{
    (void)state;
    xy_arena_free(&arena);
    return 0;
}

static struct xy_elem *make(const char *name, const char *type, const char *from, const char *to,
                            const char *id)
{
    struct xy_elem *e = xy_elem_new(arena, xy_str(name), XY_STR(NS_CLIENT));
    xy_elem_set(arena, e, "type", xy_str(type));
    xy_elem_set(arena, e, "from", xy_str(from));
    xy_elem_set(arena, e, "to", xy_str(to));
    xy_elem_set(arena, e, "id", xy_str(id));
    return e;
}

static void assert_xml(const struct xy_elem *e, const char *expected)
{
    struct xy_buf out = { 0 };
    xy_xml_write(&out, e, XY_STR(NS_CLIENT));
    assert_str(xy_buf_view(&out), expected);
    xy_buf_free(&out);
}

static void attributes(void **state)
{
    (void)state;
    struct xy_stanza s;
    struct xy_elem *e = make("message", "chat", "A@x/r", "B@y", "1");
    assert_int_equal(xy_stanza_read(arena, e, &s), XY_STANZA_OK);
    assert_int_equal(s.kind, XY_MESSAGE);
    assert_int_equal(s.type, XY_CHAT);
    assert_str(xy_jid_full(s.from), "a@x/r");
    assert_str(xy_jid_full(s.to), "b@y");
    assert_str(s.id, "1");
    assert_ptr_equal(s.elem, e);
    assert_ptr_equal(s.arena, arena);
    assert_int_equal(xy_stanza_read(arena, make("presence", NULL, NULL, NULL, NULL), &s), XY_STANZA_OK);
    assert_int_equal(s.kind, XY_PRESENCE);
    assert_int_equal(s.type, XY_TYPE_NONE);
    assert_false(xy_jid_present(s.from));
    assert_false(xy_jid_present(s.to));
    assert_absent(s.id);
}

static void types_of_each_kind(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *type;
        enum xy_stanza_type expected;
        enum xy_stanza_verdict verdict;
    } cases[] = {
        { "message", NULL, XY_TYPE_NONE, XY_STANZA_OK },
        { "message", "normal", XY_NORMAL, XY_STANZA_OK },
        { "message", "groupchat", XY_GROUPCHAT, XY_STANZA_OK },
        { "message", "headline", XY_HEADLINE, XY_STANZA_OK },
        { "message", "error", XY_ERROR, XY_STANZA_OK },
        { "message", "set", XY_NORMAL, XY_STANZA_OK }, /* RFC 6121 5.2.2 */
        { "message", "", XY_NORMAL, XY_STANZA_OK },
        { "presence", "unavailable", XY_UNAVAILABLE, XY_STANZA_OK },
        { "presence", "subscribe", XY_SUBSCRIBE, XY_STANZA_OK },
        { "presence", "subscribed", XY_SUBSCRIBED, XY_STANZA_OK },
        { "presence", "unsubscribe", XY_UNSUBSCRIBE, XY_STANZA_OK },
        { "presence", "unsubscribed", XY_UNSUBSCRIBED, XY_STANZA_OK },
        { "presence", "probe", XY_PROBE, XY_STANZA_OK },
        { "presence", "error", XY_ERROR, XY_STANZA_OK },
        { "presence", "available", XY_TYPE_NONE, XY_STANZA_BAD_IQ },
        { "presence", "chat", XY_TYPE_NONE, XY_STANZA_BAD_IQ },
        { "iq", "get", XY_GET, XY_STANZA_OK },
        { "iq", "set", XY_SET, XY_STANZA_OK },
        { "iq", "result", XY_RESULT, XY_STANZA_OK },
        { "iq", "error", XY_ERROR, XY_STANZA_OK },
        { "iq", NULL, XY_TYPE_NONE, XY_STANZA_BAD_IQ },
        { "iq", "chat", XY_TYPE_NONE, XY_STANZA_BAD_IQ },
        { "iq", "GET", XY_TYPE_NONE, XY_STANZA_BAD_IQ },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct xy_stanza s;
        struct xy_elem *e = make(cases[i].name, cases[i].type, NULL, NULL, "1");
        xy_elem_add(arena, e, "x", "urn:x");
        assert_int_equal(xy_stanza_read(arena, e, &s), cases[i].verdict);
        assert_int_equal(s.type, cases[i].expected);
        if (cases[i].verdict == XY_STANZA_OK && cases[i].expected > XY_NORMAL)
            assert_string_equal(xy_stanza_type_name(s.type), cases[i].type);
    }
    assert_null(xy_stanza_type_name(XY_TYPE_NONE));
}

static void unknown_21(void **state)
{
    (void)state;
    struct xy_stanza s;
    assert_int_equal(xy_stanza_read(arena, make("foo", NULL, NULL, NULL, NULL), &s), XY_STANZA_UNKNOWN);
    struct xy_elem *e = xy_elem_new(arena, XY_STR("iq"), XY_STR(NS_SERVER));
    assert_int_equal(xy_stanza_read(arena, e, &s), XY_STANZA_UNKNOWN);
    assert_ptr_equal(s.elem, e);
}

static void bad_addresses(void **state)
{
    (void)state;
    struct xy_stanza s;
    assert_int_equal(xy_stanza_read(arena, make("message", NULL, "a@x", "@", "1"), &s), XY_STANZA_BAD_TO);
    assert_false(xy_jid_present(s.to));
    assert_str(xy_jid_full(s.from), "a@x");
    assert_int_equal(xy_stanza_read(arena, make("message", NULL, "a@x", "", "1"), &s), XY_STANZA_BAD_TO);
    assert_int_equal(xy_stanza_read(arena, make("message", NULL, "@", "b@y", "1"), &s), XY_STANZA_BAD_FROM);
    assert_false(xy_jid_present(s.from));
    assert_str(xy_jid_full(s.to), "b@y");
    assert_int_equal(xy_stanza_read(arena, make("iq", "get", "@", "@", NULL), &s), XY_STANZA_BAD_FROM);
}

static void unsound_iq_43(void **state)
{
    (void)state;
    struct xy_stanza s;
    struct xy_elem *e = make("iq", "get", NULL, NULL, "1");
    assert_int_equal(xy_stanza_read(arena, e, &s), XY_STANZA_BAD_IQ); /* no child */
    xy_elem_add_text(arena, e, XY_STR("\n  "));
    xy_elem_add(arena, e, "a", "urn:a");
    assert_int_equal(xy_stanza_read(arena, e, &s), XY_STANZA_OK);
    xy_elem_set(arena, e, "id", XY_STR_NONE);
    assert_int_equal(xy_stanza_read(arena, e, &s), XY_STANZA_BAD_IQ);
    xy_elem_set(arena, e, "id", XY_STR("1"));
    xy_elem_add(arena, e, "b", "urn:b");
    assert_int_equal(xy_stanza_read(arena, e, &s), XY_STANZA_BAD_IQ); /* two */
    assert_int_equal(xy_stanza_read(arena, make("iq", "result", NULL, NULL, "1"), &s), XY_STANZA_OK);
}

static void addressing(void **state)
{
    (void)state;
    struct xy_stanza s;
    char lent[] = "c@z/r";
    struct xy_elem *e = make("message", NULL, "evil@x", "b@y", NULL);
    xy_stanza_read(arena, e, &s);
    xy_stanza_set_from(&s, xy_jid_canonical(xy_str(lent)));
    xy_stanza_set_to(&s, (struct xy_jid){ 0 });
    lent[0] = '?';
    assert_xml(e, "<message from='c@z/r'/>");
    assert_str(xy_jid_full(s.from), "c@z/r");
    assert_str(xy_jid_resource(s.from), "r");
    assert_false(xy_jid_present(s.to));
    xy_stanza_set_to(&s, xy_jid_canonical(XY_STR("d@z")));
    assert_xml(e, "<message from='c@z/r' to='d@z'/>");
}

static void answers(void **state)
{
    (void)state;
    struct xy_stanza s;
    assert_xml(xy_stanza_new(arena, XY_PRESENCE, XY_TYPE_NONE), "<presence/>");
    assert_xml(xy_stanza_new(arena, XY_MESSAGE, XY_HEADLINE), "<message type='headline'/>");
    struct xy_elem *e = make("iq", "get", "a@x/r", "y", "i&d");
    xy_elem_add(arena, e, "ping", NS_PING);
    xy_stanza_read(arena, e, &s);
    assert_xml(xy_stanza_result(arena, &s), "<iq type='result' from='y' to='a@x/r' id='i&amp;d'/>");
    e = make("iq", "get", NULL, NULL, "1");
    xy_stanza_read(arena, e, &s);
    assert_xml(xy_stanza_result(arena, &s), "<iq type='result' id='1'/>");
}

int main(void)
{
#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        test(attributes),    test(types_of_each_kind), test(unknown_21), test(bad_addresses),
        test(unsound_iq_43), test(addressing),         test(answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
