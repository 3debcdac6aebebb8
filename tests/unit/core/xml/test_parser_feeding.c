/* However bytes arrive, the events are the same: every split, single bytes, naps between, restarts. And what long streams
 * cost: no memory, and no malloc per stanza. */
#include "tests/unit/core/xml/log.h"

#include <malloc.h>

#include "core/base/limits.h"
#include "core/namespaces.h"

/* Everything that spans pieces: multi-byte characters, entities, CDATA, white space, prefixes of the header. */
static const char document[] = HEADER "<message xmlns:p='urn:p&amp;q' to='j\xc3\xbcrgen@x' "
                                      "p:a=\"'\">\xe2\x82\xac &lt;<![CDATA[<&]]]]>&#x1F600;\xf0\x9f\x98\x80"
                                      "<body>a\r\nb</body><p:x><stream:y/></p:x></message> "
                                      "\r\n\t<presence/>\n<iq id='1' type='get'><q xmlns='urn:q'/></iq>"
                                      "</stream:stream><ignored/>";
#define DOCUMENT XY_STR(document)

static struct xy_xml_parser *new_parser(struct xy_arena_pool *pool)
{
    return xy_xml_new(&(struct xy_xml_options){ .arenas = pool });
}

static struct xy_str expected(struct log *log)
{
    struct xy_xml_parser *parser = new_parser(NULL);
    assert_int_equal(log_feed(log, parser, DOCUMENT), XY_XML_MORE);
    assert_int_equal(log->elements, 3);
    xy_xml_free(&parser);
    return xy_buf_view(&log->text);
}

static void assert_same_events(struct log *log, struct xy_str text)
{
    assert_str_same(xy_buf_view(&log->text), text);
    xy_buf_free(&log->text);
    *log = (struct log){ 0 };
}

static void every_split_7(void **state)
{
    (void)state;
    struct log whole = { 0 }, log = { 0 };
    struct xy_str text = expected(&whole);
    for (size_t cut = 0; cut <= DOCUMENT.len; cut++) {
        for (int nap = 0; nap < 2; nap++) {
            struct xy_xml_parser *parser = new_parser(NULL);
            log_feed(&log, parser, xy_str_n(document, cut));
            if (nap)
                xy_xml_sleep(parser);
            log_feed(&log, parser, xy_str_n(document + cut, DOCUMENT.len - cut));
            assert_same_events(&log, text);
            xy_xml_free(&parser);
        }
    }
    xy_buf_free(&whole.text);
}

static void single_bytes_and_naps(void **state)
{
    (void)state;
    struct log whole = { 0 }, log = { 0 };
    struct xy_str text = expected(&whole);
    for (int nap = 0; nap < 2; nap++) {
        struct xy_xml_parser *parser = new_parser(NULL);
        for (size_t i = 0; i < DOCUMENT.len; i++) {
            log_feed(&log, parser, xy_str_n(document + i, 1));
            log_feed(&log, parser, XY_STR(""));
            if (nap)
                xy_xml_sleep(parser);
        }
        assert_same_events(&log, text);
        xy_xml_free(&parser);
    }
    xy_buf_free(&whole.text);
}

static void random_splits(void **state)
{
    (void)state;
    struct log whole = { 0 }, log = { 0 };
    struct xy_str text = expected(&whole);
    uint64_t seed = 77;
    struct xy_arena_pool *pool = xy_arena_pool_new(2);
    for (int round = 0; round < 500; round++) {
        struct xy_xml_parser *parser = new_parser(pool);
        log.pool = pool;
        for (size_t at = 0; at < DOCUMENT.len;) {
            size_t len = unit_below(&seed, 40);
            len = len > DOCUMENT.len - at ? DOCUMENT.len - at : len;
            log_feed(&log, parser, xy_str_n(document + at, len));
            if (unit_below(&seed, 3) == 0)
                xy_xml_sleep(parser);
            at += len;
        }
        assert_same_events(&log, text);
        xy_xml_free(&parser);
    }
    xy_arena_pool_free(&pool);
    xy_buf_free(&whole.text);
}

/* --- round trip over generated trees ------------------------------------------------------------------------------ */

static struct xy_str random_text(struct xy_arena *arena, uint64_t *seed)
{
    static const char *const pieces[] = {
        "a",   "<",    ">",         "&",    "'",     "\"",       "]]>",
        "\r",  "\n",   "\t",        " ",    "&amp;", "\xc3\xa9", "\xf0\x9f\x98\x80",
        "x=1", "<!--", "<![CDATA[", "&#13;"
    };
    struct xy_str out = xy_arena_str(arena, XY_STR(""));
    for (size_t n = unit_below(seed, 6); n > 0; n--) {
        const char *piece = pieces[unit_below(seed, sizeof(pieces) / sizeof(*pieces))];
        out = xy_arena_printf(arena, "%.*s%s", XY_ARG(out), piece);
    }
    return out;
}

static void random_tree(struct xy_arena *arena, uint64_t *seed, struct xy_elem *e, unsigned depth)
{
    static const char *const spaces[] = {
        "jabber:client", "urn:a", "urn:b'<&>", "", NS_XML, "urn:\xc3\xa9\n"
    };
    static const char *const names[] = { "a", "b", "x-y.z", "\xc3\xa9", "lang" };
    for (size_t n = unit_below(seed, 4); n > 0; n--) {
        const char *ns = spaces[unit_below(seed, 6)], *name = names[unit_below(seed, 5)];
        if (*ns == '\0')
            xy_elem_set(arena, e, name, random_text(arena, seed));
        else
            xy_elem_set_ns(arena, e, name, ns, random_text(arena, seed));
    }
    bool text_before = false;
    for (size_t n = unit_below(seed, depth < 5 ? 5 : 1); n > 0; n--) {
        if (!text_before && unit_below(seed, 2) == 0) {
            struct xy_str text = random_text(arena, seed);
            xy_elem_add_text(arena, e, text);
            text_before = text.len > 0;
        } else {
            const char *ns = spaces[unit_below(seed, 4)];
            random_tree(arena, seed, xy_elem_add(arena, e, names[unit_below(seed, 5)], ns), depth + 1);
            text_before = false;
        }
    }
}

static bool same_attrs(const struct xy_attr *a, const struct xy_attr *b)
{
    for (; a != NULL && b != NULL; a = a->next, b = b->next) {
        if (!xy_str_eq(a->ns, b->ns) || !xy_str_eq(a->name, b->name) || !xy_str_eq(a->value, b->value))
            return false;
    }
    return a == b;
}

static bool same_tree(const struct xy_elem *a, const struct xy_elem *b)
{
    if (!xy_str_eq(a->name, b->name) || !xy_str_eq(a->ns, b->ns) || !xy_str_eq(a->text, b->text) ||
        !same_attrs(a->attrs, b->attrs))
        return false;
    const struct xy_elem *x = a->child, *y = b->child;
    for (; x != NULL && y != NULL; x = x->next, y = y->next) {
        if (x->parent != a || y->parent != b || !same_tree(x, y))
            return false;
    }
    return x == y;
}

static void round_trip_22(void **state)
{
    (void)state;
    uint64_t seed = 4711;
    struct xy_arena *arena = xy_arena_new();
    for (int round = 0; round < 3000; round++) {
        struct xy_elem *e = xy_elem_new(arena, XY_STR("top"), XY_STR("jabber:client"));
        random_tree(arena, &seed, e, 0);
        assert_false(xy_arena_failed(arena));
        struct xy_buf text = { 0 };
        xy_buf_lit(&text, HEADER);
        xy_xml_write(&text, e, XY_STR("jabber:client"));
        struct xy_xml_parser *parser = new_parser(NULL);
        struct xy_xml_event event;
        xy_xml_feed(parser, text.data, text.len);
        xy_xml_next(parser, &event);
        xy_arena_free(&event.arena);
        xy_xml_next(parser, &event);
        if (event.kind != XY_XML_ELEMENT || !same_tree(e, event.elem))
            print_error("%.*s\n", XY_ARG(xy_buf_view(&text)));
        assert_int_equal(event.kind, XY_XML_ELEMENT);
        assert_true(same_tree(e, event.elem));
        assert_int_equal(event.bytes, text.len - (sizeof(HEADER) - 1));
        xy_arena_free(&event.arena);
        xy_xml_free(&parser);
        xy_buf_free(&text);
        xy_arena_reset(arena);
    }
    xy_arena_free(&arena);
}

/* --- sleeping ----------------------------------------------------------------------------------------------------- */

static void sleeping_gives_memory_back(void **state)
{
    (void)state;
    struct log log = { 0 };
    struct xy_xml_parser *parser = new_parser(NULL);
    xy_xml_sleep(parser); /* nothing read yet */
    log_feed(&log, parser, XY_STR(HEADER));
    assert_true(xy_xml_memory(parser) > 8000);
    xy_xml_sleep(parser);
    assert_true(xy_xml_memory(parser) < 1000);
    assert_str(xy_xml_default_ns(parser), NS_CLIENT);
    for (int i = 0; i < 100; i++) { /* keepalives do not wake it */
        log_feed(&log, parser, XY_STR(" \n"));
        assert_true(xy_xml_memory(parser) < 1000);
    }
    log_feed(&log, parser, XY_STR("<stream:error/><a>"));
    assert_true(xy_xml_memory(parser) > 8000);
    xy_xml_sleep(parser); /* in the middle: stays awake */
    assert_true(xy_xml_memory(parser) > 8000);
    log_feed(&log, parser, XY_STR("</a>"));
    xy_xml_sleep(parser);
    assert_true(xy_xml_memory(parser) < 1000);
    assert_int_equal(log.elements, 2);
    xy_buf_reset(&log.text);
    log_feed(&log, parser, XY_STR("<x:y/>"));
    assert_str(xy_buf_view(&log.text), "error 2\n"); /* a prefix nobody declared is still none */
    xy_xml_sleep(parser);
    xy_xml_free(&parser);
    xy_xml_free(&parser);
    xy_buf_free(&log.text);
}

static void sleeping_keeps_the_limit(void **state)
{
    (void)state;
    static char text[10001];
    for (size_t len = 9999; len <= 10001; len++) {
        struct log log = { 0 };
        struct xy_xml_parser *parser = xy_xml_new(&(struct xy_xml_options){ .stanza_bytes_max = 10000 });
        log_feed(&log, parser, XY_STR(HEADER));
        xy_xml_sleep(parser);
        log_feed(&log, parser, XY_STR("  "));
        memset(text, ' ', len);
        memcpy(text, "<a>", 3);
        memcpy(text + len - 4, "</a>", 4);
        assert_int_equal(log_feed(&log, parser, xy_str_n(text, len)),
                         len <= 10000 ? XY_XML_MORE : XY_XML_ERROR);
        xy_xml_free(&parser);
        xy_buf_free(&log.text);
    }
}

static void the_end_tag_matches_after_sleep(void **state)
{
    (void)state;
    const char *headers[] = { "<a:s xmlns:a='u' xmlns:b='u'>", "<b:s xmlns:a='u' xmlns:b='u'\n>",
                              "<s xmlns='&lt;&apos;'>", "<s>" };
    const char *ends[] = { "</a:s>", "</b:s>", "</s>", "</s>" };
    for (size_t i = 0; i < 4; i++) {
        struct log log = { 0 };
        struct xy_xml_parser *parser = new_parser(NULL);
        log_feed(&log, parser, xy_str(headers[i]));
        xy_xml_sleep(parser);
        xy_buf_reset(&log.text);
        log_feed(&log, parser, xy_str(ends[i]));
        assert_str(xy_buf_view(&log.text), "close\n");
        xy_xml_free(&parser);
        xy_buf_free(&log.text);
    }
}

/* --- restarts ------------------------------------------------------------------------------------------------------ */

/* Takes events up to and with the first element, then restarts. */
static void restart_after_element(struct xy_xml_parser *parser, struct log *log, struct xy_str bytes,
                                  bool keep_rest)
{
    struct xy_xml_event event;
    xy_xml_feed(parser, bytes.data, bytes.len);
    do {
        xy_xml_next(parser, &event);
        xy_arena_free(&event.arena);
    } while (event.kind == XY_XML_OPEN);
    assert_int_equal(event.kind, XY_XML_ELEMENT);
    xy_xml_restart(parser, keep_rest);
    log_events(log, parser);
}

static void restarts(void **state)
{
    (void)state;
    struct xy_str bytes = XY_STR(HEADER "<auth/>\n<?xml version='1.0'?><s><b/></s>");
    struct log log = { 0 };
    struct xy_xml_parser *parser = new_parser(NULL);
    restart_after_element(parser, &log, XY_STR(HEADER "<auth/> \n<s xmlns='n'><b/></s>"), true);
    assert_str(xy_buf_view(&log.text), "open 13 <s xmlns='n'/>\nelement 4 <b xmlns='n'/>\nclose\n");
    xy_buf_reset(&log.text);

    xy_xml_restart(parser, false);
    restart_after_element(parser, &log, bytes, true);
    assert_str(xy_buf_view(&log.text), "open 3 <s/>\nelement 4 <b/>\nclose\n");
    xy_buf_reset(&log.text);

    xy_xml_restart(parser, false);
    restart_after_element(parser, &log, bytes, false); /* as around STARTTLS: pipelined bytes are nothing */
    assert_str(xy_buf_view(&log.text), "");
    log_feed(&log, parser, XY_STR("\n<t/>"));
    assert_str(xy_buf_view(&log.text), "open 4 <t/>\nclose\n");
    xy_buf_reset(&log.text);

    xy_xml_restart(parser, true); /* from the closed state, and from an error */
    log_feed(&log, parser, XY_STR("<t><a>half"));
    xy_xml_restart(parser, true);
    log_feed(&log, parser, XY_STR("<<"));
    assert_int_equal(log.error, XY_XML_NOT_WELL_FORMED);
    xy_xml_restart(parser, false);
    xy_buf_reset(&log.text);
    log_feed(&log, parser, XY_STR("<t><a/>"));
    assert_str(xy_buf_view(&log.text), "open 3 <t/>\nelement 4 <a/>\n");
    xy_xml_free(&parser);
    xy_buf_free(&log.text);
}

static void restart_at_every_split(void **state)
{
    (void)state;
    struct xy_str bytes = XY_STR(HEADER "<auth/><s><b/></s>");
    size_t auth_end = bytes.len - 11;
    for (size_t cut = 0; cut < auth_end; cut++) {
        struct log log = { 0 };
        struct xy_xml_parser *parser = new_parser(NULL);
        log_feed(&log, parser, xy_str_n(bytes.data, cut));
        xy_buf_reset(&log.text);
        restart_after_element(parser, &log, xy_str_n(bytes.data + cut, bytes.len - cut), true);
        assert_str(xy_buf_view(&log.text), "open 3 <s/>\nelement 4 <b/>\nclose\n");
        xy_xml_free(&parser);
        xy_buf_free(&log.text);
    }
}

/* --- long streams --------------------------------------------------------------------------------------------------- */

static size_t heap_bytes(void)
{
    return mallinfo2().uordblks;
}

/* Takes events, counts elements and gives the arenas back. */
static size_t drain(struct xy_xml_parser *parser, struct xy_arena_pool *pool)
{
    size_t elements = 0;
    for (;;) {
        struct xy_xml_event event;
        xy_xml_next(parser, &event);
        if (event.kind == XY_XML_MORE)
            return elements;
        assert_int_not_equal(event.kind, XY_XML_ERROR);
        elements += event.kind == XY_XML_ELEMENT;
        xy_arena_pool_give(pool, &event.arena);
    }
}

static void a_long_stream_of_new_names(void **state)
{
    (void)state;
    struct xy_arena_pool *pool = xy_arena_pool_new(4);
    struct xy_xml_parser *parser = new_parser(pool);
    xy_xml_feed(parser, HEADER, sizeof(HEADER) - 1);
    drain(parser, pool);
    size_t before = heap_bytes(), most = 0, elements = 0;
    struct xy_buf chunk = { 0 };
    for (unsigned i = 0; i < 200000;) {
        xy_buf_reset(&chunk);
        for (int k = 0; k < 500; k++, i++)
            xy_buf_printf(&chunk, "<stream:n%u a%u='x'/><m><p%u:x xmlns:p%u='u%u'/></m>\n", i, i, i, i, i);
        xy_xml_feed(parser, chunk.data, chunk.len);
        elements += drain(parser, pool);
        most = heap_bytes() > most ? heap_bytes() : most;
    }
    assert_int_equal(elements, 400000);
    assert_true(most - before < (8u << 20)); /* 14 MB of input; bounded by XY_XML_RECYCLE_BYTES */
    xy_buf_free(&chunk);
    xy_xml_free(&parser);
    xy_arena_pool_free(&pool);
}

static void a_flood_of_white_space_15(void **state)
{
    (void)state;
    static char spaces[1 << 16];
    struct xy_arena_pool *pool = xy_arena_pool_new(4);
    memset(spaces, ' ', sizeof(spaces));
    for (int nap = 0; nap < 2; nap++) {
        struct xy_xml_parser *parser = new_parser(pool);
        for (int i = 0; i < 100; i++) { /* before a header */
            xy_xml_feed(parser, spaces, sizeof(spaces));
            drain(parser, pool);
        }
        xy_xml_feed(parser, HEADER, sizeof(HEADER) - 1);
        drain(parser, pool);
        xy_xml_feed(parser, spaces, sizeof(spaces));
        drain(parser, pool);
        if (nap)
            xy_xml_sleep(parser);
        size_t before = heap_bytes();
        for (int i = 0; i < 1000; i++) {
            xy_xml_feed(parser, spaces, sizeof(spaces) - 7);
            drain(parser, pool);
        }
        assert_true(heap_bytes() <= before + 1024);
        xy_xml_feed(parser, "<a/>", 4);
        assert_int_equal(drain(parser, pool), 1);
        xy_xml_free(&parser);
    }
    xy_arena_pool_free(&pool);
}

static void one_byte_at_a_time_is_not_quadratic(void **state)
{
    (void)state;
    struct log log = { 0 };
    struct xy_xml_parser *parser = new_parser(NULL);
    log_feed(&log, parser, XY_STR(HEADER "<a b='"));
    for (size_t i = 0; i < 200000; i++)
        assert_int_equal(log_feed(&log, parser, XY_STR("x")), XY_XML_MORE);
    log_feed(&log, parser, XY_STR("'/>"));
    assert_int_equal(log.elements, 1);
    log_feed(&log, parser, XY_STR("<a b='")); /* a sign that could end the tag is looked at, within bounds */
    size_t fed = 0;
    while (fed < 200000 && log_feed(&log, parser, XY_STR(">")) == XY_XML_MORE)
        fed++;
    assert_int_equal(log.error, XY_XML_TOO_BIG);
    assert_true(fed > 1000 && fed < 10000);
    xy_xml_free(&parser);
    xy_buf_free(&log.text);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define COUNTS_MALLOC 1
/* The allocator of the C library, counted. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
static size_t mallocs;
static size_t failing; /* the how manieth allocation from now fails; 0: none */
static bool fails(void)
{
    mallocs++;
    return failing > 0 && --failing == 0;
}
void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}
void *calloc(size_t count, size_t size)
{
    return fails() ? NULL : __libc_calloc(count, size);
}
void *realloc(void *old, size_t size)
{
    return fails() ? NULL : __libc_realloc(old, size);
}
#endif

#define PUBLISH                                                                                              \
    "<iq type='set' id='pub-000001' to='pubsub.example.org'><pubsub "                                        \
    "xmlns='http://jabber.org/protocol/pubsub'>"                                                             \
    "<publish node='urn:xylem:host:metrics'><item id='current'><payload xmlns='urn:xylem:typed:0' "          \
    "type='xylem.v1.Host'>"                                                                                  \
    "CgVob3N0MRIQMTIzNDU2Nzg5MDEyMzQ1Nhj///////////"                                                         \
    "8BIAEqDGhlbGxvIHdvcmxkMTIgMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"                                 \
    "NDU2Nzg5MDEyMzQ1Njc4OTA=</payload></item></publish></pubsub></iq>"

static void no_malloc_per_stanza(void **state)
{
    (void)state;
#ifdef COUNTS_MALLOC
    struct xy_arena_pool *pool = xy_arena_pool_new(4);
    struct xy_xml_parser *parser = new_parser(pool);
    xy_xml_feed(parser, HEADER, sizeof(HEADER) - 1);
    drain(parser, pool);
    for (int i = 0; i < 10; i++) { /* warm up */
        xy_xml_feed(parser, PUBLISH, sizeof(PUBLISH) - 1);
        assert_int_equal(drain(parser, pool), 1);
    }
    size_t before = mallocs;
    for (int i = 0; i < 500; i++) {
        xy_xml_feed(parser, PUBLISH, sizeof(PUBLISH) - 1);
        drain(parser, pool);
    }
    assert_int_equal(mallocs, before);
    for (int i = 0; i < 20000; i++) { /* over many replacements of the parser: one in a hundred stanzas */
        xy_xml_feed(parser, PUBLISH, sizeof(PUBLISH) - 1);
        drain(parser, pool);
    }
    assert_true(mallocs - before < 20000 / 20);
    xy_xml_free(&parser);
    xy_arena_pool_free(&pool);
#endif
}

static void memory_short_at_every_allocation(void **state)
{
    (void)state;
#ifdef COUNTS_MALLOC
    size_t elements = 0, failures = 0;
    for (size_t nth = 1; elements < 3; nth++) {
        struct xy_xml_event event = { 0 };
        elements = 0;
        struct xy_xml_parser *parser = new_parser(NULL);
        failing = nth;
        for (size_t half = 0; half < 2 && event.kind != XY_XML_ERROR; half++) {
            size_t cut = 300;
            xy_xml_feed(parser, document + half * cut, half ? DOCUMENT.len - cut : cut);
            do {
                xy_xml_next(parser, &event);
                elements += event.kind == XY_XML_ELEMENT;
                xy_arena_free(&event.arena);
            } while (event.kind != XY_XML_MORE && event.kind != XY_XML_ERROR);
            xy_xml_sleep(parser);
        }
        if (event.kind == XY_XML_ERROR) {
            /* expat itself takes a failed lookup of a prefix for an unbound one */
            assert_true(event.error == XY_XML_NO_MEMORY || event.error == XY_XML_BAD_PREFIX);
            assert_int_equal(failing, 0);
            failures++;
        }
        failing = 0;
        xy_xml_free(&parser);
    }
    assert_true(failures > 10);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_7),
        cmocka_unit_test(single_bytes_and_naps),
        cmocka_unit_test(random_splits),
        cmocka_unit_test(round_trip_22),
        cmocka_unit_test(sleeping_gives_memory_back),
        cmocka_unit_test(sleeping_keeps_the_limit),
        cmocka_unit_test(the_end_tag_matches_after_sleep),
        cmocka_unit_test(restarts),
        cmocka_unit_test(restart_at_every_split),
        cmocka_unit_test(a_long_stream_of_new_names),
        cmocka_unit_test(a_flood_of_white_space_15),
        cmocka_unit_test(one_byte_at_a_time_is_not_quadratic),
        cmocka_unit_test(no_malloc_per_stanza),
        cmocka_unit_test(memory_short_at_every_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
