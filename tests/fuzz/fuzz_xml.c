/* Peers' bytes through the parser: fed whole, and fed in pieces with naps between, they must yield the same events, and
 * each tree must come back unchanged from being written and parsed again. The first byte chooses the pieces. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/xml/parser.h"
#include "core/xml/writer.h"

#define STANZA_BYTES_MAX 20000

static struct xy_xml_parser *new_parser(void)
{
    struct xy_xml_parser *parser =
        xy_xml_new(&(struct xy_xml_options){ .stanza_bytes_max = STANZA_BYTES_MAX });
    if (parser == NULL)
        abort();
    return parser;
}

/* What was written parses to the same: written again, it is the same text. */
static void check_round_trip(const struct xy_elem *elem)
{
    struct xy_buf text = { 0 }, again = { 0 };
    xy_buf_lit(&text, "<s>");
    xy_xml_write(&text, elem, XY_STR_NONE);
    struct xy_xml_parser *parser =
        xy_xml_new(&(struct xy_xml_options){ .stanza_bytes_max = 64 * STANZA_BYTES_MAX });
    struct xy_xml_event event;
    xy_xml_feed(parser, text.data, text.len);
    xy_xml_next(parser, &event);
    xy_assert(event.kind == XY_XML_OPEN);
    xy_arena_free(&event.arena);
    xy_xml_next(parser, &event);
    xy_assert(event.kind == XY_XML_ELEMENT);
    xy_buf_lit(&again, "<s>");
    xy_xml_write(&again, event.elem, XY_STR_NONE);
    xy_assert(xy_str_eq(xy_buf_view(&text), xy_buf_view(&again)));
    xy_arena_free(&event.arena);
    xy_xml_free(&parser);
    xy_buf_free(&text);
    xy_buf_free(&again);
}

/* false: an error or the end. */
static bool take_events(struct xy_xml_parser *parser, struct xy_buf *log, bool check)
{
    for (;;) {
        struct xy_xml_event event;
        xy_xml_next(parser, &event);
        if (event.kind == XY_XML_MORE)
            return true;
        /* not which error: two faults close together are met in either order */
        xy_buf_printf(log, "%d %zu ", (int)event.kind, event.bytes);
        xy_xml_write(log, event.elem, XY_STR_NONE);
        xy_buf_char(log, '\n');
        if (check && event.kind == XY_XML_ELEMENT)
            check_round_trip(event.elem);
        xy_arena_free(&event.arena);
        if (event.kind == XY_XML_ERROR || event.kind == XY_XML_CLOSE)
            return false;
    }
}

/* In a long unfinished tag the parser may put off looking for errors until a byte comes that could end it. */
static void finish(struct xy_xml_parser *parser, struct xy_buf *log)
{
    xy_xml_feed(parser, ">", 1);
    take_events(parser, log, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t step = (size_t)(data[0] & 15) + 1;
    bool nap = (data[0] & 16) != 0;
    data++, size--;

    struct xy_buf whole = { 0 }, pieces = { 0 };
    struct xy_xml_parser *parser = new_parser();
    xy_xml_feed(parser, data, size);
    if (take_events(parser, &whole, true))
        finish(parser, &whole);
    xy_xml_free(&parser);

    parser = new_parser();
    bool more = true;
    for (size_t at = 0; at < size && more; at += step) {
        xy_xml_feed(parser, data + at, step < size - at ? step : size - at);
        more = take_events(parser, &pieces, false);
        if (nap)
            xy_xml_sleep(parser);
    }
    if (more)
        finish(parser, &pieces);
    xy_xml_free(&parser);
    xy_assert(xy_str_eq(xy_buf_view(&whole), xy_buf_view(&pieces)));
    xy_buf_free(&whole);
    xy_buf_free(&pieces);
    return 0;
}
