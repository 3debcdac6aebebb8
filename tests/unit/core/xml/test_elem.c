/* Element trees: reading, building, removing, copying. */
#include "tests/unit/unit.h"

#include "core/xml/elem.h"
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

static void assert_xml(const struct xy_elem *e, const char *expected)
{
    struct xy_buf out = { 0 };
    xy_xml_write(&out, e, XY_STR_NONE);
    assert_str(xy_buf_view(&out), expected);
    xy_buf_free(&out);
}

static void children(void **state)
{
    (void)state;
    struct xy_elem *e = xy_elem_new(arena, XY_STR("list"), XY_STR("urn:a"));
    xy_elem_add_text(arena, e, XY_STR("one "));
    struct xy_elem *first = xy_elem_add(arena, e, "item", NULL);
    struct xy_elem *other = xy_elem_add(arena, e, "item", "urn:b");
    xy_elem_add_text(arena, e, XY_STR("two"));
    struct xy_elem *last = xy_elem_add(arena, e, "item", NULL);
    assert_true(xy_elem_is(first, "item", "urn:a"));
    assert_false(xy_elem_is(first, "item", "urn:b"));
    assert_false(xy_elem_is(NULL, "item", "urn:b"));
    assert_ptr_equal(xy_elem_first(e), first);
    assert_ptr_equal(xy_elem_next(first), other);
    assert_ptr_equal(xy_elem_next(other), last);
    assert_null(xy_elem_next(last));
    assert_null(xy_elem_first(last));
    assert_ptr_equal(xy_elem_child(e, "item", NULL), first);
    assert_ptr_equal(xy_elem_child(e, "item", "urn:b"), other);
    assert_null(xy_elem_child(e, "item", "urn:c"));
    assert_null(xy_elem_child(e, "items", NULL));
    assert_ptr_equal(xy_elem_next_is(first, "item", "urn:a"), last);
    assert_null(xy_elem_next_is(last, "item", "urn:a"));
}

static void text(void **state)
{
    (void)state;
    struct xy_elem *e = xy_elem_new(arena, XY_STR("e"), XY_STR("urn:a"));
    assert_str(xy_elem_text(e, arena), "");
    assert_absent(xy_elem_child_text(e, "body", arena));
    struct xy_str only = XY_STR("only");
    xy_elem_add_text(arena, e, only);
    assert_ptr_equal(xy_elem_text(e, arena).data, only.data); /* in place */
    xy_elem_add(arena, e, "br", NULL);
    xy_elem_add_text(arena, e, XY_STR(""));
    xy_elem_add_text(arena, e, XY_STR(" more"));
    assert_str(xy_elem_text(e, arena), "only more");
    struct xy_elem *body = xy_elem_add(arena, e, "body", NULL);
    assert_str(xy_elem_child_text(e, "body", arena), "");
    xy_elem_add_text(arena, body, XY_STR("hello"));
    assert_str(xy_elem_child_text(e, "body", arena), "hello");
}

static void attributes(void **state)
{
    (void)state;
    struct xy_elem *e = xy_elem_new(arena, XY_STR("e"), XY_STR("urn:a"));
    assert_absent(xy_elem_attr(e, "to"));
    xy_elem_set(arena, e, "to", XY_STR("a"));
    xy_elem_set(arena, e, "from", XY_STR("b"));
    xy_elem_set(arena, e, "id", XY_STR(""));
    xy_elem_set(arena, e, "to", XY_STR("c"));
    xy_elem_set_ns(arena, e, "to", "urn:x", XY_STR("d"));
    assert_str(xy_elem_attr(e, "to"), "c");
    assert_str(xy_elem_attr(e, "id"), "");
    assert_str(xy_elem_attr_ns(e, "to", "urn:x"), "d");
    assert_absent(xy_elem_attr_ns(e, "to", "urn:y"));
    assert_xml(e, "<e xmlns='urn:a' to='c' from='b' id='' xmlns:a3='urn:x' a3:to='d'/>");
    xy_elem_set(arena, e, "from", XY_STR_NONE);
    xy_elem_set(arena, e, "none", XY_STR_NONE);
    xy_elem_set_ns(arena, e, "to", "urn:x", XY_STR_NONE);
    assert_xml(e, "<e xmlns='urn:a' to='c' id=''/>");
    assert_false(xy_arena_failed(arena));
}

static void removal(void **state)
{
    (void)state;
    struct xy_elem *e = xy_elem_new(arena, XY_STR("e"), XY_STR("urn:a"));
    struct xy_elem *a = xy_elem_add(arena, e, "a", NULL);
    struct xy_elem *b = xy_elem_add(arena, e, "b", NULL);
    struct xy_elem *c = xy_elem_add(arena, e, "c", NULL);
    xy_elem_remove(c);
    xy_elem_append(e, c); /* the last may leave and come back */
    xy_elem_remove(b);
    xy_elem_remove(b);
    assert_xml(e, "<e xmlns='urn:a'><a/><c/></e>");
    xy_elem_remove(a);
    xy_elem_remove(c);
    assert_xml(e, "<e xmlns='urn:a'/>");
    xy_elem_append(e, b);
    assert_xml(e, "<e xmlns='urn:a'><b/></e>");
}

static void copies_share_nothing(void **state)
{
    (void)state;
    char ns[] = "urn:a", value[] = "value", body[] = "body";
    struct xy_elem *e = xy_elem_new(arena, XY_STR("e"), xy_str(ns));
    xy_elem_set_ns(arena, e, "k", "urn:k", xy_str(value));
    struct xy_elem *child = xy_elem_add(arena, e, "child", ns);
    xy_elem_add_text(arena, child, xy_str(body));
    xy_elem_add(arena, xy_elem_add(arena, child, "deep", "urn:b"), "deeper", NULL);
    xy_elem_add_text(arena, e, XY_STR("tail"));
    xy_elem_add(arena, e, "sibling", "urn:a");
    struct xy_arena *other = xy_arena_new();
    struct xy_elem *copy = xy_elem_copy(other, e), *part = xy_elem_copy(other, child);
    ns[4] = value[0] = body[0] = '?';
    xy_arena_free(&arena);
    arena = xy_arena_new();
    assert_xml(
        copy, "<e xmlns='urn:a' xmlns:a0='urn:k' a0:k='value'><child>body<deep xmlns='urn:b'><deeper/></deep>"
              "</child>tail<sibling/></e>");
    assert_xml(part, "<child xmlns='urn:a'>body<deep xmlns='urn:b'><deeper/></deep></child>");
    assert_null(part->parent);
    assert_null(part->next);
    xy_arena_free(&other);
}

static void failure_is_harmless(void **state)
{
    (void)state;
    struct xy_str endless = xy_str_n("x", SIZE_MAX);
    struct xy_elem *e = xy_elem_new(arena, XY_STR("e"), XY_STR("urn:a"));
    xy_elem_add_text(arena, e, endless); /* only borrowed */
    assert_null(xy_elem_copy(arena, e));
    assert_true(xy_arena_failed(arena));

    struct xy_elem *none = xy_elem_add(arena, NULL, "x", "y");
    assert_null(none);
    xy_elem_set(arena, none, "a", XY_STR("b"));
    xy_elem_add_text(arena, none, XY_STR("t"));
    xy_elem_append(none, e);
    xy_elem_append(e, none);
    xy_elem_remove(none);
    assert_null(xy_elem_first(none));
    assert_null(xy_elem_next(none));
    assert_null(xy_elem_child(none, "a", NULL));
    assert_null(xy_elem_next_is(none, "a", NULL));
    assert_absent(xy_elem_attr(none, "a"));
    assert_absent(xy_elem_text(none, arena));
    assert_null(xy_elem_copy(arena, none));
    assert_null(e->parent);
}

int main(void)
{
#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        test(children),           test(text), test(attributes), test(removal), test(copies_share_nothing),
        test(failure_is_harmless)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
