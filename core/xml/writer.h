/* Serialises element trees and single pieces of XML. What is written here parses back to the same tree. */
#pragma once

#include "core/base/buf.h"
#include "core/base/bytes.h"
#include "core/xml/elem.h"

/* `context_ns`: the default namespace in scope, so that xmlns is written only where it changes. Attributes of a
 * namespace get a generated prefix (xml: keeps its own). */
void xy_xml_write(struct xy_buf *out, const struct xy_elem *elem, struct xy_str context_ns);

/* Only the children of `elem`, in the namespace of `elem`. */
void xy_xml_write_children(struct xy_buf *out, const struct xy_elem *elem);

/* Escaped for text and for attributes in single quotes: & < > ' " and, in both, characters that parsing would change
 * (CR; in attributes also TAB and LF) as character references. */
void xy_xml_escape(struct xy_buf *out, struct xy_str text);

/* ` name='value'`, escaped; nothing when value is absent. */
void xy_xml_attr(struct xy_buf *out, const char *name, struct xy_str value);

/* One serialised element as shared bytes; NULL when memory is short. */
struct xy_bytes *xy_xml_bytes(const struct xy_elem *elem, struct xy_str context_ns);
