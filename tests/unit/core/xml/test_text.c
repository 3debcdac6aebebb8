/* What goes past expat: which bytes are plain, at every place; and that the parser makes the same of long texts whether
 * they came whole, and so past it, or in pieces too short for that. */
#include "tests/unit/core/xml/log.h"

#include "core/base/limits.h"
#include "core/xml/text.h"

#define LONG "{'id': 17, \"text\": 'sixty-four bytes and more of plain text, as in the payload of an item'}"

static bool is_plain(unsigned char byte)
{
    return byte >= 0x20 && byte < 0x7f && strchr("<>&]", byte) == NULL;
}

static void every_byte_at_every_place(void **state)
{
    enum { LEN = 50 };
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        for (size_t at = 0; at < LEN; at++) {
            char text[LEN];
            memset(text, byte % 2 == 0 ? '~' : ' ', sizeof(text));
            text[at] = (char)byte;
            assert_int_equal(xml_text_plain(xy_str_n(text, LEN)), is_plain((unsigned char)byte) ? LEN : at);
            assert_int_equal(xml_text_plain(xy_str_n(text, at)), at);
        }
    }
}

static size_t before(const char *text)
{
    return xml_text_before(xy_str(text));
}

static void where_a_text_begins(void **state)
{
    (void)state;
    char text[3 + XML_TEXT_MIN + 1] = "<a>";
    memset(text + 3, 'x', XML_TEXT_MIN);
    assert_int_equal(before(text), 3);
    assert_int_equal(xml_text_before(xy_str_n(text, 2 + XML_TEXT_MIN)), 2 + XML_TEXT_MIN); /* one too few */
    assert_int_equal(before(text + 3), XML_TEXT_MIN);                                      /* no tag */
    assert_int_equal(before(""), 0);
    assert_int_equal(before(">"), 1);
    assert_int_equal(before("<a><b>short</b></a>"), 19);
    assert_int_equal(before("<a><b>short</b><c>" LONG "</c>"), 18);
    assert_int_equal(before("<a>&amp;" LONG "</a>"), strlen("<a>&amp;" LONG "</a>"));
}

/* --- the same events ---------------------------------------------------------------------------------------------- */

/* In pieces of `step`, to the first error. */
static void log_pieces(struct log *log, struct xy_str document, size_t step)
{
    struct xy_xml_parser *parser = xy_xml_new(&(struct xy_xml_options){ .stanza_bytes_max = 10000 });
    enum xy_xml_event_kind kind = XY_XML_MORE;
    for (size_t at = 0; at < document.len && kind == XY_XML_MORE; at += step) {
        size_t left = document.len - at;
        kind = log_feed(log, parser, xy_str_n(document.data + at, left < step ? left : step));
    }
    xy_xml_free(&parser);
}

static struct log assert_same_in_pieces(struct xy_str document)
{
    static const size_t steps[] = { 1, 7, XML_TEXT_MIN - 1, XML_TEXT_MIN + 1, 100, 331 };
    struct log whole = { 0 };
    log_pieces(&whole, document, document.len);
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        struct log pieces = { 0 };
        log_pieces(&pieces, document, steps[i]);
        assert_str_same(xy_buf_view(&whole.text), xy_buf_view(&pieces.text));
        xy_buf_free(&pieces.text);
    }
    return whole;
}

static void assert_tree(const char *document, const char *tree)
{
    struct log log = assert_same_in_pieces(xy_str(document));
    assert_int_equal(log.elements, 1);
    assert_non_null(strstr(log.text.data, tree));
    xy_buf_free(&log.text);
}

static void assert_error(const char *document, enum xy_xml_error error)
{
    struct log log = assert_same_in_pieces(xy_str(document));
    assert_int_equal(log.error, error);
    assert_int_equal(log.elements, 0);
    xy_buf_free(&log.text);
}

static void texts_between_tags(void **state)
{
    (void)state;
    assert_tree(HEADER "<a>" LONG "</a>", ">" LONG "</a>\n");
    assert_tree(HEADER "<a>" LONG LONG LONG "<b/>" LONG "<b>" LONG "</b>" LONG "</a>",
                ">" LONG LONG LONG "<b/>" LONG "<b>" LONG "</b>" LONG "</a>\n");
    assert_tree(HEADER "<a>" LONG "&amp;" LONG "\n" LONG "]" LONG "\xc3\xa9" LONG "</a>",
                ">" LONG "&amp;" LONG "\n" LONG "]" LONG "\xc3\xa9" LONG "</a>\n");
    assert_tree(HEADER "<a>" LONG "\r\n</a>", ">" LONG "\n</a>\n");
    assert_tree(HEADER "<a>" LONG "]></a>", ">" LONG "]&gt;</a>\n");
}

/* What looks the same elsewhere. */
static void texts_behind_what_is_no_tag(void **state)
{
    (void)state;
    assert_tree(
        HEADER
        "<a b=\"x>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"/>",
        "'x&gt;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'/>\n");
    assert_tree(HEADER "<a><![CDATA[x>" LONG "]]></a>", ">x&gt;" LONG "</a>\n");
    assert_tree(HEADER "<a><![CDATA[<b>" LONG "</b>]]>" LONG "</a>",
                ">&lt;b&gt;" LONG "&lt;/b&gt;" LONG "</a>\n");
    assert_tree(HEADER "<a>x>" LONG "</a>", ">x&gt;" LONG "</a>\n");
}

static void errors_behind_texts(void **state)
{
    (void)state;
    assert_error(HEADER "<a>" LONG "]]></a>", XY_XML_NOT_WELL_FORMED);
    assert_error(HEADER "<a>" LONG "]]>" LONG "</a>", XY_XML_NOT_WELL_FORMED);
    assert_error(HEADER "<a>" LONG "\x01</a>", XY_XML_NOT_WELL_FORMED);
    assert_error(HEADER "<a>" LONG "\xff</a>", XY_XML_NOT_WELL_FORMED);
    assert_error(HEADER "<a>" LONG "</b>", XY_XML_NOT_WELL_FORMED);
    assert_error(HEADER "<a>" LONG "<!-- -->", XY_XML_RESTRICTED);
    assert_error(HEADER LONG, XY_XML_TEXT_AT_TOP);
}

static void random_documents(void **state)
{
    static const char *const pieces[] = {
        LONG,
        LONG,
        "<b>",
        "<b>",
        "</b>",
        "</b>",
        "<c d='"
        "x>01234567890123456789012345678901234567890123456789012345678901234'/>",
        "<e/>",
        "x",
        "]",
        "\r\n",
        "<![CDATA[",
        "]]>",
        ">",
        "'",
        " ",
        "&lt;",
        "\xc3\xa9",
        "</a> <a f=''>",
        "</a><a>",
    };
    (void)state;
    uint64_t seed = 5;
    size_t elements = 0, errors = 0;
    for (int round = 0; round < 3000; round++) {
        struct xy_buf document = { 0 };
        xy_buf_lit(&document, HEADER "<a>");
        for (size_t n = unit_below(&seed, 12); n > 0; n--)
            xy_buf_str(&document, xy_str(pieces[unit_below(&seed, sizeof(pieces) / sizeof(*pieces))]));
        xy_buf_lit(&document, "</a></stream:stream>");
        struct log log = assert_same_in_pieces(xy_buf_view(&document));
        elements += log.elements;
        errors += log.error != 0;
        xy_buf_free(&log.text);
        xy_buf_free(&document);
    }
    assert_true(elements > 1000 && errors > 1000);
}

/* --- limits ------------------------------------------------------------------------------------------------------- */

static void texts_count_against_the_limit(void **state)
{
    static char text[20000];
    (void)state;
    for (size_t len = 9999; len <= 10001; len++) {
        struct xy_buf document = { 0 };
        memset(text, 'x', len);
        memcpy(text, "<a>", 3);
        memcpy(text + len - 4, "</a>", 4);
        xy_buf_lit(&document, HEADER);
        for (int i = 0; i < 2; i++)
            xy_buf_add(&document, text, len);
        struct log log = assert_same_in_pieces(xy_buf_view(&document));
        assert_int_equal(log.elements, len <= 10000 ? 2 : 0);
        assert_int_equal(log.error, len <= 10000 ? 0 : XY_XML_TOO_BIG);
        xy_buf_free(&log.text);
        xy_buf_free(&document);
    }
}

/* An attribute full of what looks like tags and texts is not looked at again for each of them. */
static void no_text_in_an_attribute(void **state)
{
    (void)state;
    struct log log = { 0 };
    struct xy_buf document = { 0 };
    struct xy_xml_parser *parser = xy_xml_new(&(struct xy_xml_options){ 0 });
    xy_buf_lit(&document, HEADER "<a b=\"");
    while (document.len < 200000)
        xy_buf_lit(&document, ">0123456789012345678901234567890123456789012345678901234567890123456789");
    xy_buf_lit(&document, "\"/>");
    assert_int_equal(log_feed(&log, parser, xy_buf_view(&document)), XY_XML_MORE);
    assert_int_equal(log.elements, 1);
    xy_xml_free(&parser);
    xy_buf_free(&document);
    xy_buf_free(&log.text);
}

/* Expat keeps a buffer as long as what it was given at once. */
static void expat_does_not_see_texts(void **state)
{
    (void)state;
    struct log log = { 0 };
    struct xy_buf document = { 0 };
    struct xy_xml_parser *parser = xy_xml_new(&(struct xy_xml_options){ 0 });
    xy_buf_lit(&document, HEADER "<a>");
    for (int i = 0; i < 50000; i++)
        xy_buf_char(&document, 'x');
    xy_buf_lit(&document, "</a>");
    assert_int_equal(log_feed(&log, parser, xy_buf_view(&document)), XY_XML_MORE);
    assert_int_equal(log.elements, 1);
    assert_true(xy_xml_memory(parser) < 20000);
    xy_xml_free(&parser);
    xy_buf_free(&document);
    xy_buf_free(&log.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_at_every_place),
        cmocka_unit_test(where_a_text_begins),
        cmocka_unit_test(texts_between_tags),
        cmocka_unit_test(texts_behind_what_is_no_tag),
        cmocka_unit_test(errors_behind_texts),
        cmocka_unit_test(random_documents),
        cmocka_unit_test(texts_count_against_the_limit),
        cmocka_unit_test(no_text_in_an_attribute),
        cmocka_unit_test(expat_does_not_see_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
