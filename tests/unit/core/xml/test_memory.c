/* Parsers in spans: the same events whether or not a span suffices, a span for who is awake and none for who sleeps. */
#include "tests/unit/core/xml/log.h"

#include <stdbool.h>

#include "core/base/assert.h"

static const char document[] = HEADER
    "<message xmlns:p='urn:p' to='romeo@example.org'><body>a&amp;b</body><p:x p:a='1' b='2'/></message>"
    "<iq id='1' type='get'><q xmlns='urn:q'/></iq><presence/></stream:stream>";
#define DOCUMENT XY_STR(document)

/* Memory that says who wrote behind its end. */
struct rig {
    struct xy_spans spans;
    unsigned taken, given;
    bool refuses;
};

#define GUARD "the end of the span"

static void *take(void *ctx)
{
    struct rig *rig = ctx;
    if (rig->refuses)
        return NULL;
    rig->taken++;
    char *span = malloc(rig->spans.span_bytes + sizeof(GUARD));
    xy_assert(span != NULL);
    memset(span, 0xa5, rig->spans.span_bytes);
    memcpy(span + rig->spans.span_bytes, GUARD, sizeof(GUARD));
    return span;
}

static void give(void *ctx, void *span)
{
    struct rig *rig = ctx;
    rig->given++;
    assert_memory_equal((char *)span + rig->spans.span_bytes, GUARD, sizeof(GUARD));
    free(span);
}

static void rig_init(struct rig *rig, size_t span_bytes)
{
    *rig = (struct rig){ .spans = { take, give, rig, span_bytes } };
}

static struct xy_xml_parser *rig_parser(struct rig *rig)
{
    return xy_xml_new(&(struct xy_xml_options){ .spans = &rig->spans });
}

/* In pieces, with naps now and then, and restarted once. */
static void read_document(struct rig *rig, struct log *log, uint64_t *seed)
{
    struct xy_xml_parser *parser = rig_parser(rig);
    for (int round = 0; round < 2; round++) {
        for (size_t at = 0; at < DOCUMENT.len;) {
            size_t len = 1 + unit_below(seed, 60);
            len = len > DOCUMENT.len - at ? DOCUMENT.len - at : len;
            log_feed(log, parser, xy_str_n(document + at, len));
            if (unit_below(seed, 3) == 0)
                xy_xml_sleep(parser);
            at += len;
        }
        xy_xml_restart(parser, false);
    }
    xy_xml_free(&parser);
    assert_int_equal(rig->taken, rig->given);
}

static void the_size_of_a_span_changes_nothing(void **state)
{
    (void)state;
    static const size_t sizes[] = { 64, 500, 1200, 2000, 3000, 4096, 6000, 8192, 10000, 32768 };
    for (uint64_t seed = 1; seed < 20; seed++) {
        struct log whole = { 0 };
        struct rig rig;
        uint64_t random = seed;
        struct xy_xml_parser *parser = xy_xml_new(&(struct xy_xml_options){ 0 });
        log_feed(&whole, parser, DOCUMENT);
        xy_xml_restart(parser, false);
        log_feed(&whole, parser, DOCUMENT);
        xy_xml_free(&parser);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
            struct log log = { 0 };
            rig_init(&rig, sizes[i]);
            read_document(&rig, &log, &random);
            assert_true(rig.taken > 0);
            assert_str_same(xy_buf_view(&log.text), xy_buf_view(&whole.text));
            xy_buf_free(&log.text);
        }
        xy_buf_free(&whole.text);
    }
}

static void who_sleeps_has_no_span(void **state)
{
    (void)state;
    struct rig rig;
    struct log log = { 0 };
    rig_init(&rig, 32768);
    struct xy_xml_parser *parser = rig_parser(&rig);
    assert_int_equal(rig.taken, 0);
    log_feed(&log, parser, XY_STR(HEADER));
    assert_int_equal(rig.taken - rig.given, 1);
    xy_xml_sleep(parser);
    assert_int_equal(rig.taken - rig.given, 0);
    log_feed(&log, parser, XY_STR(" \n"));
    assert_int_equal(rig.taken - rig.given, 0);
    log_feed(&log, parser, XY_STR("<presence>"));
    xy_xml_sleep(parser); /* in the middle */
    assert_int_equal(rig.taken - rig.given, 1);
    xy_xml_free(&parser);
    assert_int_equal(rig.taken - rig.given, 0);
    xy_buf_free(&log.text);
}

/* What does not fit comes from malloc, and grows and goes there: a stanza far larger than the span. */
static void larger_than_a_span(void **state)
{
    (void)state;
    struct rig rig;
    struct log log = { 0 };
    static char text[100000];
    rig_init(&rig, 16384);
    struct xy_xml_parser *parser = rig_parser(&rig);
    log_feed(&log, parser, XY_STR(HEADER));
    memset(text, 'x', sizeof(text));
    memcpy(text, "<a b='", 6);
    memcpy(text + sizeof(text) - 3, "'/>", 3);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(log_feed(&log, parser, xy_str_n(text, sizeof(text))), XY_XML_MORE);
        assert_int_equal(log_feed(&log, parser, XY_STR("<presence/>")), XY_XML_MORE);
        assert_true(rig.taken - rig.given <= 1); /* none: read so much that its parser is to be replaced */
    }
    assert_int_equal(log.elements, 24);
    xy_xml_free(&parser);
    assert_int_equal(rig.taken, rig.given);
    xy_buf_free(&log.text);
}

static void without_spans_left(void **state)
{
    (void)state;
    struct rig rig;
    struct log log = { 0 };
    rig_init(&rig, 32768);
    rig.refuses = true;
    struct xy_xml_parser *parser = rig_parser(&rig);
    assert_int_equal(log_feed(&log, parser, DOCUMENT), XY_XML_MORE);
    assert_int_equal(log.elements, 3);
    xy_xml_free(&parser);
    assert_int_equal(rig.given, 0);
    xy_buf_free(&log.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_size_of_a_span_changes_nothing),
        cmocka_unit_test(who_sleeps_has_no_span),
        cmocka_unit_test(larger_than_a_span),
        cmocka_unit_test(without_spans_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
