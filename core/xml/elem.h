/* An XML element tree that lives in an arena: what the parser yields, what handlers read, what replies are built of.
 *
 * A node is an element (`name` present) or text (`name` absent, `text` set). Names are (namespace, local name) pairs;
 * prefixes do not survive parsing. Strings point into the arena, or at anything that outlives the tree. Building never
 * returns errors: failures latch in the arena (xy_arena_failed) and the functions return NULL, which all functions here
 * and the writer accept as an element that is not there. */
#pragma once

#include "core/base/arena.h"

struct xy_attr {
    struct xy_str ns; /* empty for ordinary, unprefixed attributes */
    struct xy_str name;
    struct xy_str value;
    struct xy_attr *next;
};

struct xy_elem {
    struct xy_str ns;
    struct xy_str name;
    struct xy_str text;
    struct xy_attr *attrs;
    struct xy_elem *parent;
    struct xy_elem *child, *child_last;
    struct xy_elem *next; /* sibling */
};

static inline bool xy_elem_is_text(const struct xy_elem *node)
{
    return node->name.data == NULL;
}

static inline bool xy_elem_is(const struct xy_elem *e, const char *name, const char *ns)
{
    return e != NULL && xy_str_is(e->name, name) && xy_str_is(e->ns, ns);
}

/* Reading. NULL or absent when there is none. */
struct xy_elem *xy_elem_child(const struct xy_elem *e, const char *name,
                              const char *ns);          /* ns NULL: that of e */
struct xy_elem *xy_elem_first(const struct xy_elem *e); /* first child that is an element */
struct xy_elem *xy_elem_next(const struct xy_elem *e);  /* next sibling that is an element */
struct xy_elem *xy_elem_next_is(const struct xy_elem *e, const char *name, const char *ns);
struct xy_str xy_elem_attr(const struct xy_elem *e, const char *name);
struct xy_str xy_elem_attr_ns(const struct xy_elem *e, const char *name, const char *ns);
/* All text directly inside e, empty if there is none. One text node is returned in place, several are joined in the arena. */
struct xy_str xy_elem_text(const struct xy_elem *e, struct xy_arena *arena);
struct xy_str xy_elem_child_text(const struct xy_elem *e, const char *name,
                                 struct xy_arena *arena); /* ns of e */

/* Building. `ns` and strings are borrowed, as above. */
struct xy_elem *xy_elem_new(struct xy_arena *arena, struct xy_str name, struct xy_str ns);
struct xy_elem *xy_elem_add(struct xy_arena *arena, struct xy_elem *parent, const char *name,
                            const char *ns);                       /* ns NULL: that of parent */
void xy_elem_append(struct xy_elem *parent, struct xy_elem *node); /* node has no parent yet */
void xy_elem_remove(struct xy_elem *node);                         /* unlink from its parent */
void xy_elem_set(struct xy_arena *arena, struct xy_elem *e, const char *name,
                 struct xy_str value); /* absent: remove */
void xy_elem_set_ns(struct xy_arena *arena, struct xy_elem *e, const char *name, const char *ns,
                    struct xy_str value);
void xy_elem_add_text(struct xy_arena *arena, struct xy_elem *e, struct xy_str text);
struct xy_elem *xy_elem_copy(struct xy_arena *arena, const struct xy_elem *e); /* deep; strings copied too */
