/* An <item/> as the application sees it: for messages (message.c), and for the command line, which reads items with <items/>. */
#pragma once

#include <xylem/xylem.h>

#include "core/xml/elem.h"

/* Fills in id, publisher and the decoded payload; what the event around the item says is the caller's. Strings are the
 * arena's. */
void xy_view_item(struct xy_arena *arena, const struct xy_elem *item, struct xylem_msg_view *out);
/* The header with this index of an element's <headers/>; false: there are not so many, and *index is what is left of it. */
bool xy_view_header(struct xy_arena *arena, const struct xy_elem *around, size_t *index,
                    struct xylem_header *out);
