/* Parsing a publish as a client sends it, and writing it out again. */
#include "bench/micro/micro.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/xml/parser.h"
#include "core/xml/writer.h"

#define HEADER "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"

struct xml {
    struct xy_arena_pool *arenas;
    struct xy_xml_parser *parser;
    struct xy_buf text; /* of the stanza */
    struct xy_elem *tree;
    struct xy_buf out;
};

static struct xy_elem *next_elem(struct xml *xml, struct xy_str text, struct xy_arena **arena)
{
    struct xy_xml_event event;
    xy_xml_feed(xml->parser, text.data, text.len);
    xy_xml_next(xml->parser, &event);
    xy_assert(event.kind == XY_XML_OPEN || event.kind == XY_XML_ELEMENT);
    struct xy_elem *elem = event.elem;
    *arena = event.arena;
    xy_xml_next(xml->parser, &event);
    xy_assert(event.kind == XY_XML_MORE);
    return elem;
}

static void *prepare(void)
{
    struct xml *xml = calloc(1, sizeof(*xml));
    struct xy_arena *arena;
    xml->arenas = xy_arena_pool_new(8);
    xml->parser = xy_xml_new(&(struct xy_xml_options){ .arenas = xml->arenas });
    xy_buf_lit(&xml->text, "<iq type='set' id='p1234' to='pubsub.example.org'>"
                           "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='sensors/7'>"
                           "<item id='i1234'><reading xmlns='urn:example:reading' unit='C'>");
    for (unsigned i = 0; i < MICRO_PAYLOAD_BYTES; i++)
        xy_buf_char(&xml->text, (char)('a' + i % 26));
    xy_buf_lit(&xml->text, "</reading></item></publish></pubsub></iq>");
    (void)next_elem(xml, XY_STR(HEADER), &arena);
    xml->tree = next_elem(xml, xy_buf_view(&xml->text), &arena);
    return xml;
}

static void parse(void *state, unsigned operations)
{
    struct xml *xml = state;
    for (unsigned i = 0; i < operations; i++) {
        struct xy_arena *arena;
        (void)next_elem(xml, xy_buf_view(&xml->text), &arena);
        xy_arena_pool_give(xml->arenas, &arena);
    }
}

static void write_out(void *state, unsigned operations)
{
    struct xml *xml = state;
    for (unsigned i = 0; i < operations; i++) {
        xy_buf_reset(&xml->out);
        xy_xml_write(&xml->out, xml->tree, XY_STR("jabber:client"));
        xy_assert(xml->out.len >= xml->text.len);
    }
}

const struct micro_case micro_parse = { "parse", 2000, prepare, parse };
const struct micro_case micro_write = { "write", 5000, prepare, write_out };
