/* Builds the tree of one first-level element from the parser's events. Private to core/xml.
 *
 * It knows the form in which expat hands out names (namespace, a separator byte, local name), enforces the limits on
 * names, attributes and depth, and makes few and small allocations: this is where parsing spends its time. */
#pragma once

#include "core/xml/elem.h"
#include "core/xml/parser.h"

/* Cannot occur in UTF-8, so no namespace name can contain it. */
#define XML_NAME_SEPARATOR '\xff'

#define XML_BUILDER_NAMESPACES 8

struct xml_builder {
    struct xy_arena *arena;
    struct xy_elem *top, *current;
    unsigned depth;                                   /* of current, top being 1 */
    size_t text_size;                                 /* allocated for the text node that may still grow */
    struct xy_str namespaces[XML_BUILDER_NAMESPACES]; /* some that are in the arena already */
    unsigned namespaces_next;
};

/* Begins a tree in `arena`. */
void xml_builder_begin(struct xml_builder *b, struct xy_arena *arena);
/* An element inside the current one; 0 or an enum xy_xml_error. `attrs`: name, value, ..., NULL. */
int xml_builder_open(struct xml_builder *b, const char *name, const char **attrs, unsigned depth_max);
int xml_builder_text(struct xml_builder *b, const char *data, size_t len);
/* The current element ends; true when that was the top. */
bool xml_builder_close(struct xml_builder *b);
