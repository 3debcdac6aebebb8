/* XML text to a tree: one well-formed element, in the namespace jabber:client unless it says otherwise. */
#pragma once

#include "core/xml/elem.h"

/* NULL: it is not one element, and nothing else. Otherwise *arena is the caller's to free. */
struct xy_elem *xy_fragment_parse(struct xy_str text, struct xy_arena **arena);
