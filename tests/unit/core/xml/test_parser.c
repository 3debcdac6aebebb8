/* What the parser yields and refuses: events, trees, limits at their edges, errors. Numbers in names are
 * those of the project's list of hostile input. */
#include "tests/unit/core/xml/log.h"

#include "core/base/limits.h"
#include "core/namespaces.h"

static struct xy_xml_parser *parser;
static struct log seen;

static int setup(void **state)
{
    (void)state;
    parser = xy_xml_new(&(struct xy_xml_options){ 0 });
    return parser == NULL;
}

static int teardown(void **state)
{
    (void)state;
    xy_xml_free(&parser);
    xy_buf_free(&seen.text);
    seen = (struct log){ 0 };
    return 0;
}

static void again(void)
{
    teardown(NULL);
    setup(NULL);
}

static enum xy_xml_event_kind feed(const char *text)
{
    return log_feed(&seen, parser, xy_str(text));
}

static void assert_seen(const char *expected)
{
    assert_str(xy_buf_view(&seen.text), expected);
    xy_buf_reset(&seen.text);
}

/* The document alone, in a new parser, ends with this error. */
static void assert_error_bytes(struct xy_str document, enum xy_xml_error error)
{
    again();
    enum xy_xml_event_kind kind = log_feed(&seen, parser, document);
    if (kind != XY_XML_ERROR || seen.error != error)
        print_error("%.*s: error %d, not %d\n", (int)(document.len < 300 ? document.len : 300), document.data,
                    (int)seen.error, (int)error);
    assert_int_equal(kind, XY_XML_ERROR);
    assert_int_equal(seen.error, error);
    struct xy_xml_event event;
    xy_xml_next(parser, &event); /* and stays so */
    assert_int_equal(event.kind, XY_XML_ERROR);
    assert_int_equal(event.error, error);
}

/* Inside a stream. */
static void assert_error(const char *bytes, enum xy_xml_error error)
{
    struct xy_buf document = { 0 };
    xy_buf_lit(&document, HEADER);
    xy_buf_str(&document, xy_str(bytes));
    assert_error_bytes(xy_buf_view(&document), error);
    xy_buf_free(&document);
}

static void a_stream(void **state)
{
    (void)state;
    assert_int_equal(feed(HEADER), XY_XML_MORE);
    assert_seen(
        "open 116 <stream xmlns='http://etherx.jabber.org/streams' to='example.org' version='1.0'/>\n");
    assert_str(xy_xml_default_ns(parser), NS_CLIENT);
    assert_int_equal(feed(" \n<message to='a'><body>x &amp; y</body></message>\t<presence/>"), XY_XML_MORE);
    assert_seen("element 48 <message xmlns='jabber:client' to='a'><body>x &amp; y</body></message>\n"
                "element 11 <presence xmlns='jabber:client'/>\n");
    assert_int_equal(feed("</stream:stream>"), XY_XML_MORE);
    assert_seen("close\n");
}

static void nothing_after_the_end_17(void **state)
{
    (void)state;
    feed(HEADER "</stream:stream><message/> &&& <!DOCTYPE x>");
    feed("<<<");
    assert_seen("open 116 <stream xmlns='http://etherx.jabber.org/streams' to='example.org' "
                "version='1.0'/>\nclose\n");
}

static void an_empty_stream(void **state)
{
    (void)state;
    feed("<stream:stream xmlns:stream='http://etherx.jabber.org/streams'/><a/>");
    assert_seen("open 64 <stream xmlns='http://etherx.jabber.org/streams'/>\nclose\n");
    assert_absent(xy_xml_default_ns(parser));
    feed("<b/>");
    assert_seen("");
}

static void trees(void **state)
{
    (void)state;
    feed("<s xmlns='urn:s' xmlns:p='urn:p'>");
    xy_buf_reset(&seen.text);
    feed("<a p:k='1' k='2' xml:lang='en'>t<![CDATA[<&]]>u&#65;<p:b/> \n<c xmlns=''><d/><a "
         "xmlns='urn:s'/></c></a>");
    assert_seen("element 102 <a xmlns='urn:s' xmlns:a0='urn:p' a0:k='1' k='2' xml:lang='en'>t&lt;&amp;uA<b "
                "xmlns='urn:p'/> \n"
                "<c xmlns=''><d/><a xmlns='urn:s'/></c></a>\n");
}

static void adjacent_text_is_one_node(void **state)
{
    (void)state;
    feed("<s>");
    struct xy_str text = XY_STR("<a>one\ntwo&lt;<![CDATA[three]]><![CDATA[]]>four</a>");
    xy_xml_feed(parser, text.data, text.len);
    struct xy_xml_event event;
    xy_xml_next(parser, &event);
    assert_int_equal(event.kind, XY_XML_ELEMENT);
    assert_int_equal(event.bytes, text.len);
    assert_true(xy_elem_is_text(event.elem->child));
    assert_null(event.elem->child->next);
    assert_str(event.elem->child->text, "one\ntwo<threefour");
    assert_int_equal(event.elem->child->text.data[event.elem->child->text.len], 0);
    assert_int_equal(event.elem->ns.len, 0);
    xy_arena_free(&event.arena);
}

static void restricted_1_2_3_4(void **state)
{
    (void)state;
    assert_error_bytes(xy_str("<!DOCTYPE x><s>"), XY_XML_RESTRICTED);
    assert_error_bytes(xy_str("<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]><s>"), XY_XML_RESTRICTED);
    assert_error_bytes(xy_str("<!-- hello --><s>"), XY_XML_RESTRICTED);
    assert_error_bytes(xy_str("<?php ?><s>"), XY_XML_RESTRICTED);
    assert_error("<!-- hello -->", XY_XML_RESTRICTED);
    assert_error("<a><!-- hello --></a>", XY_XML_RESTRICTED);
    assert_error("<?php echo ?>", XY_XML_RESTRICTED);
    assert_error("<a>&foo;</a>", XY_XML_RESTRICTED);
    assert_error("<a b='&foo;'/>", XY_XML_RESTRICTED);
    assert_error("<!DOCTYPE x>", XY_XML_NOT_WELL_FORMED); /* not a place for one */
}

static void bad_characters_5_6(void **state)
{
    (void)state;
    const char *bad[] = {
        "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80",     "\xef\xbf\xbe", "\x01", "\x08",
        "&#0;",     "&#1;",         "&#xFFFE;",         "&#xD800;", "\xc3<",        "\xff"
    };
    const char *places[] = { "<a>%s</a>", "<a b='%s'/>", "<a%s/>", "<a %s='x'/>" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        for (size_t k = 0; k < sizeof(places) / sizeof(*places); k++) {
            char text[64];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(text, sizeof(text), places[k], bad[i]);
#pragma GCC diagnostic pop
            assert_error(text, XY_XML_NOT_WELL_FORMED);
        }
    }
    assert_error_bytes(xy_str_n("<s>\0</s>", 8), XY_XML_NOT_WELL_FORMED);
}

static void encodings_8(void **state)
{
    (void)state;
    assert_error_bytes(xy_str("<?xml version='1.0' encoding='ISO-8859-1'?><s>"), XY_XML_UNSUPPORTED_ENCODING);
    assert_error_bytes(xy_str("<?xml version='1.0' encoding='UTF-16'?><s>"), XY_XML_UNSUPPORTED_ENCODING);
    assert_error_bytes(xy_str_n("\xff\xfe<\0s\0>\0", 8), XY_XML_UNSUPPORTED_ENCODING);
    assert_error_bytes(xy_str_n("\xfe\xff\0<\0s\0>", 8), XY_XML_UNSUPPORTED_ENCODING);
    assert_error_bytes(xy_str_n("\0<\0s\0>", 6), XY_XML_UNSUPPORTED_ENCODING);
    assert_error_bytes(xy_str_n("<\0s\0>\0", 6), XY_XML_UNSUPPORTED_ENCODING);
    again(); /* byte by byte as well */
    assert_int_equal(feed("<"), XY_XML_MORE);
    assert_int_equal(log_feed(&seen, parser, xy_str_n("\0", 1)), XY_XML_ERROR);
    assert_int_equal(seen.error, XY_XML_UNSUPPORTED_ENCODING);
    again();
    assert_int_equal(feed("<?xml version='1.0' encoding='utf-8'?><s>"), XY_XML_MORE);
    again();
    assert_int_equal(feed("\xef\xbb\xbf<s>"), XY_XML_MORE); /* UTF-8 may say so */
    assert_seen("open 3 <s/>\n");
}

static void not_well_formed_9_18_23(void **state)
{
    (void)state;
    const char *bad[] = { "<a b='1' b='2'/>",
                          "<a xmlns:p='u' xmlns:q='u' p:b='1' q:b='2'/>",
                          "<a / >",
                          "<a b=1/>",
                          "<a b/>",
                          "<message to='a'from='b'/>",
                          "<a></b>",
                          "<a b='<'/>",
                          "<a>]]></a>",
                          "<a>&</a>",
                          "< a/>",
                          "<a",
                          "<stream:stream to='example.org'>",
                          "<x:stream xmlns:x='http://etherx.jabber.org/streams'/>",
                          "<?xml version='1.0'?>" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        char closed[200];
        snprintf(closed, sizeof(closed), "%s</a></stream:stream>", bad[i]);
        assert_error(closed, XY_XML_NOT_WELL_FORMED);
    }
    assert_error_bytes(xy_str("hello <s>"), XY_XML_NOT_WELL_FORMED);
    assert_error_bytes(xy_str("GET / HTTP/1.1\r\n"), XY_XML_NOT_WELL_FORMED);
}

static void prefixes_10_11(void **state)
{
    (void)state;
    assert_error("<x:a/>", XY_XML_BAD_PREFIX);
    assert_error("<a x:b=''/>", XY_XML_BAD_PREFIX);
    assert_error("<a xmlns:xml='urn:other'/>", XY_XML_BAD_PREFIX);
    assert_error("<a xmlns:xmlns='urn:other'/>", XY_XML_BAD_PREFIX);
    assert_error("<a xmlns:x='http://www.w3.org/XML/1998/namespace'/>", XY_XML_BAD_PREFIX);
    assert_error("<a xmlns:x=''/>", XY_XML_BAD_PREFIX);

    again();
    feed("<s>");
    xy_buf_reset(&seen.text);
    feed("<a xmlns='u|&#255;&#10;b'/><b xmlns='u'/>");
    assert_seen("element 27 <a xmlns='u|\xc3\xbf&#10;b'/>\nelement 14 <b xmlns='u'/>\n");
}

static void text_at_top(void **state)
{
    (void)state;
    assert_error("hello", XY_XML_TEXT_AT_TOP);
    assert_error("<a/> x <b/>", XY_XML_TEXT_AT_TOP);
    assert_error("&#65;", XY_XML_TEXT_AT_TOP);
    assert_error("<![CDATA[x]]>", XY_XML_TEXT_AT_TOP);
    again();
    assert_int_equal(feed(HEADER " \t\r\n <a/>\r\n<b/> "), XY_XML_MORE);
    assert_int_equal(seen.elements, 2);
}

/* An element of exactly `len` bytes, its text filled with x. */
static struct xy_str element_of(char *out, size_t len)
{
    memset(out, 'x', len);
    memcpy(out, "<a>", 3);
    memcpy(out + len - 4, "</a>", 4);
    return xy_str_n(out, len);
}

static void stanza_bytes_at_the_limit_16(void **state)
{
    (void)state;
    static char text[20002];
    for (int spaces = 0; spaces < 2; spaces++) {
        for (size_t len = 9999; len <= 10001; len++) {
            again();
            xy_xml_set_max(parser, 10000);
            feed(HEADER);
            if (spaces)
                feed("   \n");
            for (int i = 0; i < 5; i++) {
                enum xy_xml_event_kind kind = log_feed(&seen, parser, element_of(text, len));
                assert_int_equal(kind, len <= 10000 ? XY_XML_MORE : XY_XML_ERROR);
                if (kind == XY_XML_ERROR) {
                    assert_int_equal(seen.error, XY_XML_TOO_BIG);
                    break;
                }
            }
            assert_int_equal(seen.elements, len <= 10000 ? 5 : 0);
        }
    }
    again();
    xy_xml_set_max(parser, 10000);
    feed(HEADER);
    element_of(text, 10000); /* pipelined */
    element_of(text + 10000, 10000);
    assert_int_equal(log_feed(&seen, parser, xy_str_n(text, 20000)), XY_XML_MORE);
    assert_int_equal(seen.elements, 2);
}

static void the_limit_needs_no_end_of_token_13(void **state)
{
    (void)state;
    static char megabyte[1 << 20];
    memset(megabyte, 'x', sizeof(megabyte));
    const char *starts[] = { "<", "<a ", "<a b='", "<a>", "<a><![CDATA[", "</", "<a xmlns='" };
    for (size_t i = 0; i < sizeof(starts) / sizeof(*starts); i++) {
        again();
        feed(HEADER);
        assert_int_equal(feed(starts[i]), XY_XML_MORE);
        assert_int_equal(log_feed(&seen, parser, xy_str_n(megabyte, sizeof(megabyte))), XY_XML_ERROR);
        assert_true(seen.error == XY_XML_TOO_BIG || seen.error == XY_XML_NOT_WELL_FORMED);
        if (i != 5)
            assert_int_equal(seen.error, XY_XML_TOO_BIG);
    }
}

static void header_counts_too(void **state)
{
    (void)state;
    static char text[2000];
    memset(text, 'x', sizeof(text));
    for (size_t len = 999; len <= 1001; len++) {
        again();
        xy_xml_set_max(parser, 1000);
        memcpy(text, "<s a='", 6);
        text[len - 2] = '\'';
        text[len - 1] = '>';
        assert_int_equal(log_feed(&seen, parser, xy_str_n(text, len)),
                         len <= 1000 ? XY_XML_MORE : XY_XML_ERROR);
        text[len - 2] = text[len - 1] = 'x';
    }
    assert_int_equal(seen.error, XY_XML_TOO_BIG);
}

/* Feeds `count` times `piece` between `before` and `after` inside a stream. */
static enum xy_xml_event_kind feed_many(const char *before, const char *piece, size_t count,
                                        const char *after)
{
    again();
    feed(HEADER);
    struct xy_buf text = { 0 };
    xy_buf_str(&text, xy_str(before));
    for (size_t i = 0; i < count; i++) {
        for (const char *c = piece; *c != '\0'; c++) {
            if (*c == '#')
                xy_buf_u64(&text, i);
            else
                xy_buf_char(&text, *c);
        }
    }
    xy_buf_str(&text, xy_str(after));
    enum xy_xml_event_kind kind = log_feed(&seen, parser, xy_buf_view(&text));
    xy_buf_free(&text);
    return kind;
}

static void at_the_limit(const char *before, const char *piece, size_t limit, const char *after)
{
    assert_int_equal(feed_many(before, piece, limit - 1, after), XY_XML_MORE);
    assert_int_equal(feed_many(before, piece, limit, after), XY_XML_MORE);
    assert_int_equal(seen.elements, 1);
    assert_int_equal(feed_many(before, piece, limit + 1, after), XY_XML_ERROR);
    assert_int_equal(seen.error, XY_XML_TOO_DEEP);
}

static void counts_at_their_limits_12_13(void **state)
{
    (void)state;
    at_the_limit("<a", " a#=''", XY_XML_ATTRIBUTES_MAX, "/>");
    at_the_limit("<a", " xmlns:n#='u#'", XY_XML_NAMESPACES_MAX, "/>");
    at_the_limit("<a xmlns:p='u'", " p:a#=''", XY_XML_NAMESPACES_MAX - 1, "/>");
    at_the_limit("<", "n", XY_XML_NAME_MAX, "/>");
    at_the_limit("<a xmlns:p='u' p:", "n", XY_XML_NAME_MAX, "=''/>");
    at_the_limit("<a ", "n", XY_XML_NAME_MAX, "=''/>");
    at_the_limit("<a xmlns:", "n", XY_XML_NAME_MAX, "='u'/>");
    at_the_limit("<a xmlns='", "n", XY_XML_NAMESPACE_MAX, "'/>");
    assert_int_equal(feed_many("<a>", "<b>", 10000, ""), XY_XML_ERROR);
    assert_int_equal(seen.error, XY_XML_TOO_DEEP);
    for (size_t depth = XY_XML_DEPTH_MAX - 1; depth <= XY_XML_DEPTH_MAX + 1; depth++) {
        again();
        feed(HEADER);
        for (size_t i = 0; i < depth; i++)
            feed("<d>");
        for (size_t i = 0; i < depth && seen.error == 0; i++)
            feed("</d>");
        assert_int_equal(seen.error, depth <= XY_XML_DEPTH_MAX ? 0 : XY_XML_TOO_DEEP);
        assert_int_equal(seen.elements, depth <= XY_XML_DEPTH_MAX ? 1 : 0);
    }
}

static void depth_is_an_option(void **state)
{
    (void)state;
    xy_xml_free(&parser);
    parser = xy_xml_new(&(struct xy_xml_options){ .depth_max = 2 });
    assert_int_equal(feed(HEADER "<a><b/></a>"), XY_XML_MORE);
    assert_int_equal(feed("<a><b><c/></b></a>"), XY_XML_ERROR);
    assert_int_equal(seen.error, XY_XML_TOO_DEEP);
}

static void errors_come_after_what_was_right(void **state)
{
    (void)state;
    assert_int_equal(feed(HEADER "<a/><b></a>"), XY_XML_ERROR);
    assert_seen("open 116 <stream xmlns='http://etherx.jabber.org/streams' to='example.org' version='1.0'/>\n"
                "element 4 <a xmlns='jabber:client'/>\nerror 1\n");
}

int main(void)
{
#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        test(a_stream),
        test(nothing_after_the_end_17),
        test(an_empty_stream),
        test(trees),
        test(adjacent_text_is_one_node),
        test(restricted_1_2_3_4),
        test(bad_characters_5_6),
        test(encodings_8),
        test(not_well_formed_9_18_23),
        test(prefixes_10_11),
        test(text_at_top),
        test(stanza_bytes_at_the_limit_16),
        test(the_limit_needs_no_end_of_token_13),
        test(header_counts_too),
        test(counts_at_their_limits_12_13),
        test(depth_is_an_option),
        test(errors_come_after_what_was_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
