/* The memory of one expat parser, in a span of its own (core/base/spans.h).
 *
 * A parser makes some sixty small blocks that live as long as it does. From malloc they lie between blocks of sessions that
 * stay, and what a thousand idle sessions gave back would serve nobody else. Private to core/xml; called by parser.c. */
#pragma once

#include <expat.h>
#include <stddef.h>

#include "core/base/spans.h"

struct xml_memory {
    const struct xy_spans *spans; /* borrowed; NULL: malloc */
    char *span;                   /* NULL: none now */
    size_t used;                  /* of it */
    size_t newest;                /* where its newest block begins */
};

/* What XML_ParserCreate_MM wants; NULL where there are no spans. */
const XML_Memory_Handling_Suite *xml_memory_suite(const struct xml_memory *memory);

/* Every call that lets the parser allocate or free stands between these two. enter returns what leave is to be given. */
struct xml_memory *xml_memory_enter(struct xml_memory *memory);
void xml_memory_leave(struct xml_memory *before);

void xml_memory_take(
    struct xml_memory *memory); /* before the parser is made; no span to be had: malloc serves */
void xml_memory_give(struct xml_memory *memory); /* after it was freed */
