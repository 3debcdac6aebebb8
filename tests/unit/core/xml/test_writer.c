/* The serialiser: escapes, namespaces only where they change, generated prefixes. Its agreement with the
 * parser is tested with the parser. */
#include "tests/unit/unit.h"

#include "core/xml/writer.h"

static struct xy_arena *arena;
static struct xy_buf out;

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
    xy_buf_free(&out);
    return 0;
}

static void assert_written(const char *expected)
{
    assert_str(xy_buf_view(&out), expected);
    xy_buf_reset(&out);
}

static void escapes(void **state)
{
    (void)state;
    xy_xml_escape(&out, xy_str("a&b<c>d'e\"f\tg\nh\ri\xc3\xa9"));
    assert_written("a&amp;b&lt;c&gt;d&apos;e&quot;f&#9;g&#10;h&#13;i\xc3\xa9");
    xy_xml_escape(&out, xy_str("nothing special"));
    assert_written("nothing special");
    xy_xml_escape(&out, xy_str("&&"));
    assert_written("&amp;&amp;");
    xy_xml_escape(&out, XY_STR_NONE);
    assert_int_equal(out.len, 0);
    for (char c = 0; c < 32; c++) { /* what XML cannot say */
        if (c == '\t' || c == '\n' || c == '\r')
            continue;
        xy_xml_escape(&out, xy_str_n(&c, 1));
        assert_written("\xef\xbf\xbd");
    }
}

/* The writer looks at several bytes at once: what it must not copy is noticed at each place, beside anything. */
static void escapes_every_byte_at_every_place(void **state)
{
    enum { LEN = 20 };
    static const unsigned char neighbours[] = { 'a', ' ', '!', '?', '#', '(', '=', 0x7f, 0x80, 0xa7, 0xff };
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        char alone = (char)byte;
        xy_xml_escape(&out, xy_str_n(&alone, 1));
        char expected[16];
        size_t expected_len = out.len;
        memcpy(expected, out.data, expected_len);
        xy_buf_reset(&out);
        for (unsigned i = 0; i < sizeof(neighbours) * LEN; i++) {
            char text[LEN];
            unsigned place = i % LEN;
            memset(text, neighbours[i / LEN], LEN);
            text[place] = alone;
            xy_xml_escape(&out, xy_str_n(text, LEN));
            assert_int_equal(out.len, LEN - 1 + expected_len);
            assert_memory_equal(out.data, text, place);
            assert_memory_equal(out.data + place, expected, expected_len);
            assert_memory_equal(out.data + place + expected_len, text + place + 1, LEN - 1 - place);
            xy_buf_reset(&out);
        }
    }
}

static void attribute(void **state)
{
    (void)state;
    xy_xml_attr(&out, "to", XY_STR("a'b"));
    xy_xml_attr(&out, "from", XY_STR_NONE);
    xy_xml_attr(&out, "id", XY_STR(""));
    assert_written(" to='a&apos;b' id=''");
}

static void text_keeps_what_it_may(void **state)
{
    (void)state;
    struct xy_elem *e = xy_elem_new(arena, XY_STR("body"), XY_STR("jabber:client"));
    xy_elem_add_text(arena, e, XY_STR("{\"k\": 'v'}\n\t]]> & < \r\x01"));
    xy_xml_write(&out, e, XY_STR("jabber:client"));
    assert_written("<body>{\"k\": 'v'}\n\t]]&gt; &amp; &lt; &#13;\xef\xbf\xbd</body>");
}

static void namespaces_where_they_change(void **state)
{
    (void)state;
    struct xy_elem *m = xy_elem_new(arena, XY_STR("message"), XY_STR("jabber:client"));
    xy_elem_add(arena, m, "body", NULL);
    struct xy_elem *x = xy_elem_add(arena, m, "x", "urn:x&y");
    xy_elem_add(arena, x, "body", "jabber:client");
    xy_elem_add(arena, x, "y", NULL);
    struct xy_elem *none = xy_elem_add(arena, x, "none", "");
    none->ns = XY_STR_NONE;
    xy_elem_add(arena, none, "inner", NULL);
    const char *inside =
        "<body/><x xmlns='urn:x&amp;y'><body xmlns='jabber:client'/><y/><none xmlns=''><inner/></none></x>";
    char expected[300];
    xy_xml_write(&out, m, XY_STR("jabber:client"));
    snprintf(expected, sizeof(expected), "<message>%s</message>", inside);
    assert_written(expected);
    xy_xml_write(&out, m, XY_STR_NONE);
    snprintf(expected, sizeof(expected), "<message xmlns='jabber:client'>%s</message>", inside);
    assert_written(expected);
    xy_xml_write_children(&out, m);
    assert_written(inside);
    xy_xml_write(&out, x, XY_STR("urn:x&y")); /* a part: siblings and parents are not written */
    assert_written("<x><body xmlns='jabber:client'/><y/><none xmlns=''><inner/></none></x>");
}

static void prefixed_attributes(void **state)
{
    (void)state;
    struct xy_elem *e = xy_elem_new(arena, XY_STR("e"), XY_STR("urn:a"));
    xy_elem_set_ns(arena, e, "lang", "http://www.w3.org/XML/1998/namespace", XY_STR("de"));
    xy_elem_set_ns(arena, e, "p", "urn:p", XY_STR("1"));
    xy_elem_set_ns(arena, e, "q", "urn:q'", XY_STR("<2>"));
    xy_elem_set_ns(arena, e, "r", "urn:p", XY_STR("3"));
    xy_xml_write(&out, e, XY_STR("urn:a"));
    assert_written(
        "<e xml:lang='de' xmlns:a1='urn:p' a1:p='1' xmlns:a2='urn:q&apos;' a2:q='&lt;2&gt;' a1:r='3'/>");
}

static void nothing_and_bytes(void **state)
{
    (void)state;
    xy_xml_write(&out, NULL, XY_STR_NONE);
    xy_xml_write_children(&out, NULL);
    assert_int_equal(out.len, 0);
    struct xy_elem *e = xy_elem_new(arena, XY_STR("ping"), XY_STR("urn:xmpp:ping"));
    xy_xml_write_children(&out, e);
    assert_int_equal(out.len, 0);
    struct xy_bytes *bytes = xy_xml_bytes(e, XY_STR("jabber:client"));
    assert_str(xy_bytes_view(bytes), "<ping xmlns='urn:xmpp:ping'/>");
    xy_bytes_unref(&bytes);
}

static void deep_trees_need_no_stack(void **state)
{
    (void)state;
    struct xy_elem *top = xy_elem_new(arena, XY_STR("a"), XY_STR("u")), *e = top;
    for (int i = 0; i < 100000; i++)
        e = xy_elem_add(arena, e, "a", NULL);
    xy_xml_write(&out, xy_elem_copy(arena, top), XY_STR("u"));
    assert_int_equal(out.len, 100000 * 7 + 4);
}

int main(void)
{
#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        test(escapes),
        test(escapes_every_byte_at_every_place),
        test(attribute),
        test(text_keeps_what_it_may),
        test(namespaces_where_they_change),
        test(prefixed_attributes),
        test(nothing_and_bytes),
        test(deep_trees_need_no_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
