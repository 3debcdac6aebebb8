/* Reading, building and copying element trees; see elem.h. Nothing here recurses: trees may be as deep as
 * they like. */
#include "core/xml/elem.h"

#include "core/base/assert.h"

static struct xy_elem *element_from(struct xy_elem *node)
{
    while (node != NULL && xy_elem_is_text(node))
        node = node->next;
    return node;
}

static struct xy_elem *element_named(struct xy_elem *node, struct xy_str name, struct xy_str ns)
{
    while (node != NULL &&
           !(xy_str_eq(node->name, name) && xy_str_eq(node->ns, ns) && !xy_elem_is_text(node)))
        node = node->next;
    return node;
}

struct xy_elem *xy_elem_child(const struct xy_elem *e, const char *name, const char *ns)
{
    return e != NULL ? element_named(e->child, xy_str(name), ns != NULL ? xy_str(ns) : e->ns) : NULL;
}

struct xy_elem *xy_elem_first(const struct xy_elem *e)
{
    return e != NULL ? element_from(e->child) : NULL;
}

struct xy_elem *xy_elem_next(const struct xy_elem *e)
{
    return e != NULL ? element_from(e->next) : NULL;
}

struct xy_elem *xy_elem_next_is(const struct xy_elem *e, const char *name, const char *ns)
{
    return e != NULL ? element_named(e->next, xy_str(name), ns != NULL ? xy_str(ns) : e->ns) : NULL;
}

static struct xy_attr **attr_slot(struct xy_attr **slot, struct xy_str name, struct xy_str ns)
{
    while (*slot != NULL && !(xy_str_eq((*slot)->name, name) && xy_str_eq((*slot)->ns, ns)))
        slot = &(*slot)->next;
    return slot;
}

static struct xy_str attr_value(const struct xy_elem *e, struct xy_str name, struct xy_str ns)
{
    const struct xy_attr *attr = e != NULL ? e->attrs : NULL;
    while (attr != NULL && !(xy_str_eq(attr->name, name) && xy_str_eq(attr->ns, ns)))
        attr = attr->next;
    return attr != NULL ? attr->value : XY_STR_NONE;
}

struct xy_str xy_elem_attr(const struct xy_elem *e, const char *name)
{
    return attr_value(e, xy_str(name), XY_STR_NONE);
}

struct xy_str xy_elem_attr_ns(const struct xy_elem *e, const char *name, const char *ns)
{
    return attr_value(e, xy_str(name), xy_str(ns));
}

struct xy_str xy_elem_text(const struct xy_elem *e, struct xy_arena *arena)
{
    if (e == NULL)
        return XY_STR_NONE;
    size_t count = 0, len = 0;
    struct xy_str only = XY_STR("");
    for (const struct xy_elem *node = e->child; node != NULL; node = node->next) {
        if (!xy_elem_is_text(node))
            continue;
        only = node->text;
        len += node->text.len;
        count++;
    }
    if (count <= 1)
        return only;
    char *joined = xy_arena_alloc(arena, len + 1);
    if (joined == NULL)
        return XY_STR_NONE;
    size_t at = 0;
    for (const struct xy_elem *node = e->child; node != NULL; node = node->next) {
        if (!xy_elem_is_text(node) || node->text.len == 0)
            continue;
        memcpy(joined + at, node->text.data, node->text.len);
        at += node->text.len;
    }
    xy_assert(at == len);
    joined[len] = '\0';
    return xy_str_n(joined, len);
}

struct xy_str xy_elem_child_text(const struct xy_elem *e, const char *name, struct xy_arena *arena)
{
    return xy_elem_text(xy_elem_child(e, name, NULL), arena);
}

struct xy_elem *xy_elem_new(struct xy_arena *arena, struct xy_str name, struct xy_str ns)
{
    xy_assert(xy_str_present(name));
    struct xy_elem *e = xy_arena_alloc(arena, sizeof(*e));
    if (e != NULL)
        *e = (struct xy_elem){ .name = name, .ns = ns };
    return e;
}

struct xy_elem *xy_elem_add(struct xy_arena *arena, struct xy_elem *parent, const char *name, const char *ns)
{
    if (parent == NULL)
        return NULL;
    struct xy_elem *e = xy_elem_new(arena, xy_str(name), ns != NULL ? xy_str(ns) : parent->ns);
    xy_elem_append(parent, e);
    return e;
}

void xy_elem_append(struct xy_elem *parent, struct xy_elem *node)
{
    if (parent == NULL || node == NULL)
        return;
    xy_assert(node->parent == NULL && node->next == NULL && node != parent);
    node->parent = parent;
    if (parent->child_last != NULL)
        parent->child_last->next = node;
    else
        parent->child = node;
    parent->child_last = node;
}

void xy_elem_remove(struct xy_elem *node)
{
    if (node == NULL || node->parent == NULL)
        return;
    struct xy_elem *parent = node->parent, *before = NULL;
    struct xy_elem **slot = &parent->child;
    while (*slot != node) {
        xy_assert(*slot != NULL);
        before = *slot;
        slot = &(*slot)->next;
    }
    *slot = node->next;
    if (parent->child_last == node)
        parent->child_last = before;
    node->parent = node->next = NULL;
}

static void set_attr(struct xy_arena *arena, struct xy_elem *e, struct xy_str name, struct xy_str ns,
                     struct xy_str value)
{
    if (e == NULL)
        return;
    struct xy_attr **slot = attr_slot(&e->attrs, name, ns);
    if (!xy_str_present(value)) {
        if (*slot != NULL)
            *slot = (*slot)->next;
        return;
    }
    if (*slot != NULL) {
        (*slot)->value = value;
        return;
    }
    struct xy_attr *attr = xy_arena_alloc(arena, sizeof(*attr));
    if (attr == NULL)
        return;
    *attr = (struct xy_attr){ .ns = ns, .name = name, .value = value };
    *slot = attr;
}

void xy_elem_set(struct xy_arena *arena, struct xy_elem *e, const char *name, struct xy_str value)
{
    set_attr(arena, e, xy_str(name), XY_STR_NONE, value);
}

void xy_elem_set_ns(struct xy_arena *arena, struct xy_elem *e, const char *name, const char *ns,
                    struct xy_str value)
{
    set_attr(arena, e, xy_str(name), xy_str(ns), value);
}

static struct xy_elem *text_node(struct xy_arena *arena, struct xy_str text)
{
    struct xy_elem *node = xy_arena_alloc(arena, sizeof(*node));
    if (node != NULL)
        *node = (struct xy_elem){ .text = text };
    return node;
}

void xy_elem_add_text(struct xy_arena *arena, struct xy_elem *e, struct xy_str text)
{
    if (e != NULL && text.len > 0)
        xy_elem_append(e, text_node(arena, text));
}

/* The node alone: no parent, no siblings, no children. */
static struct xy_elem *copy_node(struct xy_arena *arena, const struct xy_elem *from)
{
    if (xy_elem_is_text(from))
        return text_node(arena, xy_arena_str(arena, from->text));
    /* most elements share the namespace of their parent: so do the copies, see xy_elem_copy */
    struct xy_elem *e = xy_elem_new(arena, xy_arena_str(arena, from->name), from->ns);
    if (e == NULL)
        return NULL;
    struct xy_attr **slot = &e->attrs;
    for (const struct xy_attr *a = from->attrs; a != NULL; a = a->next) {
        struct xy_attr *copy = xy_arena_alloc(arena, sizeof(*copy));
        if (copy == NULL)
            return NULL;
        *copy = (struct xy_attr){ .ns = xy_arena_str(arena, a->ns),
                                  .name = xy_arena_str(arena, a->name),
                                  .value = xy_arena_str(arena, a->value) };
        *slot = copy;
        slot = &copy->next;
    }
    return e;
}

struct xy_elem *xy_elem_copy(struct xy_arena *arena, const struct xy_elem *e)
{
    struct xy_elem *root = NULL, *parent = NULL;
    for (const struct xy_elem *from = e; from != NULL;) {
        struct xy_elem *to = copy_node(arena, from);
        if (to == NULL || xy_arena_failed(arena))
            return NULL;
        if (parent != NULL && from->parent != NULL && xy_str_eq(from->ns, from->parent->ns))
            to->ns = parent->ns;
        else
            to->ns = xy_arena_str(arena, from->ns);
        if (root == NULL)
            root = to;
        xy_elem_append(parent, to);
        if (from->child != NULL) {
            parent = to;
            from = from->child;
            continue;
        }
        while (from != e && from->next == NULL) {
            from = from->parent;
            xy_assert(from != NULL &&
                      parent != NULL); /* below e everything has a parent, and so has its copy */
            parent = from != e ? parent->parent : NULL;
        }
        from = from != e ? from->next : NULL;
    }
    return root;
}
