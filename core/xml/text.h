/* Finds plain text: bytes that stand between tags as they are and mean themselves. See parser.c for what it is good for. */
#pragma once

#include "core/base/str.h"

#define XML_TEXT_MIN 64u /* bytes of plain text that are worth a call of their own */

/* How much plain text `input` begins with: printable ASCII without markup, references and what may be the end of a
 * CDATA section. */
size_t xml_text_plain(struct xy_str input);

/* How much of `input` there is in front of the first plain text of XML_TEXT_MIN bytes behind a '>': all of it, if there is
 * none. Whether the '>' ends a tag is not known here. */
size_t xml_text_before(struct xy_str input);
