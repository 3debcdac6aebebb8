/* The parser's events written down as text, one per line, so that tests can compare what different ways of
 * feeding the same bytes yield. Included by the tests of the parser only. */
#pragma once

#include "tests/unit/unit.h"

#include "core/base/buf.h"
#include "core/xml/parser.h"
#include "core/xml/writer.h"

#define HEADER                                                                                               \
    "<?xml version='1.0'?><stream:stream xmlns='jabber:client' "                                             \
    "xmlns:stream='http://etherx.jabber.org/streams' "                                                       \
    "to='example.org' version='1.0'>"

struct log {
    struct xy_buf text;
    struct xy_arena_pool *pool;
    enum xy_xml_error error; /* of the last event taken */
    size_t elements;
};

/* Takes events until the parser wants more. */
static inline enum xy_xml_event_kind log_events(struct log *log, struct xy_xml_parser *parser)
{
    for (;;) {
        struct xy_xml_event event;
        xy_xml_next(parser, &event);
        log->error = event.error;
        switch (event.kind) {
        case XY_XML_MORE:
            return event.kind;
        case XY_XML_OPEN:
        case XY_XML_ELEMENT:
            xy_buf_printf(&log->text, "%s %zu ", event.kind == XY_XML_OPEN ? "open" : "element", event.bytes);
            xy_xml_write(&log->text, event.elem, XY_STR_NONE);
            xy_buf_char(&log->text, '\n');
            log->elements += event.kind == XY_XML_ELEMENT;
            if (log->pool != NULL)
                xy_arena_pool_give(log->pool, &event.arena);
            xy_arena_free(&event.arena);
            break;
        case XY_XML_CLOSE:
            xy_buf_lit(&log->text, "close\n");
            break;
        case XY_XML_ERROR:
            xy_buf_printf(&log->text, "error %d\n", (int)event.error);
            return event.kind;
        }
    }
}

static inline enum xy_xml_event_kind log_feed(struct log *log, struct xy_xml_parser *parser,
                                              struct xy_str bytes)
{
    /* an exact copy that dies at once: reading past it, or later, is seen by AddressSanitizer */
    char *copy = malloc(bytes.len + (bytes.len == 0));
    if (bytes.len > 0)
        memcpy(copy, bytes.data, bytes.len);
    xy_xml_feed(parser, copy, bytes.len);
    enum xy_xml_event_kind kind = log_events(log, parser);
    free(copy);
    return kind;
}
