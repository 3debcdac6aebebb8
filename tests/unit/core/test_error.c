/* Errors: names both ways, recommended types, the reply that is made, and reading it back. */
#include "tests/unit/unit.h"

#include "core/error.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"

static struct xy_arena *arena;
static struct xy_stanza request;

static int setup(void **state)
{
    (void)state;
    arena = xy_arena_new();
    struct xy_elem *e = xy_stanza_new(arena, XY_IQ, XY_SET);
    xy_elem_set(arena, e, "from", XY_STR("a@x/r"));
    xy_elem_set(arena, e, "to", XY_STR("pubsub.x"));
    xy_elem_set(arena, e, "id", XY_STR("7"));
    xy_elem_add_text(arena, xy_elem_add(arena, e, "payload", "urn:p"), XY_STR("large"));
    return xy_stanza_read(arena, e, &request) != XY_STANZA_OK;
}

static int teardown(void **state)
{
    (void)state;
    xy_arena_free(&arena);
    return 0;
}

static void assert_xml(const struct xy_elem *e, const char *expected)
{
    struct xy_buf out = { 0 };
    xy_xml_write(&out, e, XY_STR(NS_CLIENT));
    assert_str(xy_buf_view(&out), expected);
    xy_buf_free(&out);
}

static void names(void **state)
{
    (void)state;
    for (int i = 1; i < XY_CONDITION_COUNT; i++) {
        const char *name = xy_condition_name((enum xy_condition)i);
        assert_non_null(name);
        assert_int_equal(xy_condition_find(xy_str(name)), i);
    }
    assert_int_equal(xy_condition_find(xy_str("text")), XY_NO_ERROR);
    assert_int_equal(xy_condition_find(XY_STR_NONE), XY_NO_ERROR);
    for (int i = 1; i < XY_STREAM_ERROR_COUNT; i++) {
        const char *name = xy_stream_error_name((enum xy_stream_error)i);
        assert_non_null(name);
        assert_int_equal(xy_stream_error_find(xy_str(name)), i);
    }
    assert_int_equal(xy_stream_error_find(xy_str("text")), XY_STREAM_NO_ERROR);
    assert_null(xy_stream_error_name(XY_STREAM_NO_ERROR));
}

static void replies(void **state)
{
    (void)state;
    struct xy_error error = xy_error_make(XY_ITEM_NOT_FOUND, NULL);
    assert_xml(xy_error_reply(arena, &request, &error),
               "<iq type='error' from='pubsub.x' to='a@x/r' id='7'><error type='cancel'>"
               "<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>");
    error = xy_error_make(XY_FEATURE_NOT_IMPLEMENTED, "use <other>");
    error.type = XY_ERROR_MODIFY;
    error.app = "unsupported";
    error.app_ns = NS_PUBSUB_ERRORS;
    error.app_feature = "persistent-items";
    assert_xml(xy_error_reply(arena, &request, &error),
               "<iq type='error' from='pubsub.x' to='a@x/r' id='7'><error type='modify'>"
               "<feature-not-implemented xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
               "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>use &lt;other&gt;</text>"
               "<unsupported xmlns='http://jabber.org/protocol/pubsub#errors' "
               "feature='persistent-items'/></error></iq>");
}

static void never_an_error_to_an_answer_45(void **state)
{
    (void)state;
    struct xy_error error = xy_error_make(XY_BAD_REQUEST, NULL), none = { 0 };
    assert_null(xy_error_reply(arena, &request, &none));
    request.type = XY_ERROR;
    assert_null(xy_error_reply(arena, &request, &error));
    request.type = XY_RESULT;
    assert_null(xy_error_reply(arena, &request, &error));
    request.type = XY_GET;
    assert_non_null(xy_error_reply(arena, &request, &error));
}

static void reading_back(void **state)
{
    (void)state;
    for (int i = 1; i < XY_CONDITION_COUNT; i++) {
        struct xy_error error = xy_error_make((enum xy_condition)i, i % 2 ? "some text" : NULL);
        if (i % 3 == 0)
            error.type = XY_ERROR_CONTINUE;
        if (i % 4 == 0) {
            error.app = "app";
            error.app_ns = "urn:app";
        }
        struct xy_stanza reply;
        assert_int_equal(xy_stanza_read(arena, xy_error_reply(arena, &request, &error), &reply),
                         XY_STANZA_OK);
        struct xy_error read = xy_error_read(&reply);
        assert_int_equal(read.condition, i);
        assert_int_equal(read.type, error.type);
        assert_str_same(xy_str(read.text), xy_str(error.text));
        assert_str_same(xy_str(read.app), xy_str(error.app));
        assert_str_same(xy_str(read.app_ns), xy_str(error.app_ns));
        assert_null(read.app_feature);
    }
}

static void reading_what_others_send(void **state)
{
    (void)state;
    struct xy_elem *e = xy_stanza_new(arena, XY_MESSAGE, XY_ERROR);
    struct xy_stanza s;
    xy_stanza_read(arena, e, &s);
    assert_int_equal(xy_error_read(&s).condition, XY_UNDEFINED_CONDITION); /* no <error/> at all */
    struct xy_elem *error = xy_elem_add(arena, e, "error", NULL);
    xy_elem_set(arena, error, "type", XY_STR("nonsense"));
    xy_elem_add(arena, error, "new-condition", NS_STANZA_ERRORS);
    struct xy_error read = xy_error_read(&s);
    assert_int_equal(read.condition, XY_UNDEFINED_CONDITION);
    assert_int_equal(read.type, XY_ERROR_CANCEL);
    assert_null(read.text);
    struct xy_elem *app = xy_elem_add(arena, error, "unsupported", NS_PUBSUB_ERRORS);
    xy_elem_set(arena, app, "feature", XY_STR("x"));
    read = xy_error_read(&s);
    assert_string_equal(read.app, "unsupported");
    assert_string_equal(read.app_feature, "x");
}

int main(void)
{
#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = { test(names), test(replies), test(never_an_error_to_an_answer_45),
                                        test(reading_back), test(reading_what_others_send) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
