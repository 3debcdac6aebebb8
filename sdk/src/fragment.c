/* XML text of an application, checked: one well-formed element and nothing else, so that what goes into the stream can
 * never break it. Called wherever the public interface takes XML. */
#include "core/base/limits.h"
#include "core/namespaces.h"
#include "core/xml/parser.h"
#include "sdk/src/client.h"

static bool next_kind(struct xy_xml_parser *parser, struct xy_str text, struct xy_xml_event *event)
{
    xy_xml_feed(parser, text.data, text.len);
    xy_xml_next(parser, event);
    return event->kind != XY_XML_ERROR;
}

/* Everything fed is used up, with nothing more in it. */
static bool used_up(struct xy_xml_parser *parser)
{
    struct xy_xml_event event = { 0 };
    xy_xml_next(parser, &event);
    xy_arena_free(&event.arena);
    return event.kind == XY_XML_MORE;
}

/* The end tag of the wrapper must be the very next thing: no second element, no text. */
static bool only_element(struct xy_xml_parser *parser)
{
    struct xy_xml_event event = { 0 };
    if (!used_up(parser))
        return false;
    bool closed = next_kind(parser, XY_STR("</x>"), &event) && event.kind == XY_XML_CLOSE;
    xy_arena_free(&event.arena);
    return closed;
}

struct xy_elem *xy_fragment_parse(struct xy_str text, struct xy_arena **arena)
{
    *arena = NULL;
    struct xy_xml_options options = { .stanza_bytes_max = XY_ARENA_ALLOCATION_MAX };
    struct xy_xml_parser *parser = xy_xml_new(&options);
    if (!parser)
        return NULL;
    struct xy_xml_event event = { 0 };
    struct xy_elem *elem = NULL;
    if (next_kind(parser, XY_STR("<x xmlns='" NS_CLIENT "'>"), &event) && event.kind == XY_XML_OPEN) {
        xy_arena_free(&event.arena);
        event = (struct xy_xml_event){ 0 };
        text = xy_str_trim(text);
        if (used_up(parser) && next_kind(parser, text, &event) && event.kind == XY_XML_ELEMENT &&
            only_element(parser)) {
            elem = event.elem;
            *arena = event.arena;
            event.arena = NULL;
        }
    }
    xy_arena_free(&event.arena);
    xy_xml_free(&parser);
    return elem;
}
