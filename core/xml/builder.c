/* Makes elements, attributes and text nodes of what expat hands out; called by parser.c for every tag and every run of
 * text. It exists apart from the parser so that the hot path and its few tricks stand in one place: namespaces shared
 * with the parent, one allocation per node, text that grows at the end of the arena. */
#include "core/xml/builder.h"

#include "core/base/assert.h"
#include "core/base/limits.h"
#include "core/namespaces.h"

void xml_builder_begin(struct xml_builder *b, struct xy_arena *arena)
{
    *b = (struct xml_builder){ .arena = arena };
    /* literals outlive every tree: the commonest namespaces need no copy */
    b->namespaces[0] = XY_STR(NS_CLIENT);
    b->namespaces[1] = XY_STR(NS_XML);
    b->namespaces_next = 2;
}

/* Does the name begin with this namespace and the separator? Never reads past the name's end. */
static bool in_namespace(const char *full, struct xy_str ns)
{
    return ns.len > 0 && strncmp(full, ns.data, ns.len) == 0 && full[ns.len] == XML_NAME_SEPARATOR;
}

/* The namespace of a name, as a string that lives as long as the tree. Trees repeat few namespaces, so the
 * last few are looked through before one is copied: that also bounds what a long name used by many elements
 * can cost. */
static struct xy_str intern_namespace(struct xml_builder *b, const char *full, size_t len)
{
    for (size_t i = 0; i < XML_BUILDER_NAMESPACES; i++) {
        if (b->namespaces[i].len == len && memcmp(b->namespaces[i].data, full, len) == 0)
            return b->namespaces[i];
    }
    struct xy_str copy = xy_arena_str(b->arena, xy_str_n(full, len));
    b->namespaces[b->namespaces_next++ % XML_BUILDER_NAMESPACES] = copy;
    return copy;
}

/* Splits a name; returns the local part. */
static const char *split(struct xml_builder *b, const char *full, struct xy_str parent_ns, struct xy_str *ns)
{
    if (in_namespace(full, parent_ns)) {
        *ns = parent_ns;
        return full + parent_ns.len + 1;
    }
    const char *separator = strchr(full, XML_NAME_SEPARATOR);
    if (separator == NULL) {
        *ns = XY_STR("");
        return full;
    }
    *ns = intern_namespace(b, full, (size_t)(separator - full));
    return separator + 1;
}

/* One allocation holds the attribute, its name and its value. */
static struct xy_attr *new_attr(struct xml_builder *b, const char *full, const char *value)
{
    struct xy_str ns;
    const char *local = split(b, full, XY_STR_NONE, &ns);
    size_t name_len = strlen(local), value_len = strlen(value);
    if (name_len > XY_XML_NAME_MAX)
        return NULL;
    struct xy_attr *attr = xy_arena_alloc(b->arena, sizeof(*attr) + name_len + value_len + 2);
    if (attr == NULL)
        return NULL;
    char *name_copy = (char *)(attr + 1), *value_copy = name_copy + name_len + 1;
    memcpy(name_copy, local, name_len + 1);
    memcpy(value_copy, value, value_len + 1);
    *attr = (struct xy_attr){ .ns = ns,
                              .name = xy_str_n(name_copy, name_len),
                              .value = xy_str_n(value_copy, value_len) };
    return attr;
}

static int add_attrs(struct xml_builder *b, struct xy_elem *e, const char **attrs)
{
    struct xy_attr **slot = &e->attrs;
    unsigned count = 0, prefixed = 0;
    for (; attrs[0] != NULL; attrs += 2) {
        if (++count > XY_XML_ATTRIBUTES_MAX)
            return XY_XML_TOO_DEEP;
        struct xy_attr *attr = new_attr(b, attrs[0], attrs[1]);
        if (attr == NULL)
            return xy_arena_failed(b->arena) ? XY_XML_NO_MEMORY : XY_XML_TOO_DEEP;
        /* written again, each may need a declaration of its own beside the element's: keep that within the
         * limit */
        if (attr->ns.len > 0 && ++prefixed >= XY_XML_NAMESPACES_MAX)
            return XY_XML_TOO_DEEP;
        *slot = attr;
        slot = &attr->next;
    }
    return xy_arena_failed(b->arena) ? XY_XML_NO_MEMORY : 0;
}

int xml_builder_open(struct xml_builder *b, const char *name, const char **attrs, unsigned depth_max)
{
    if (b->depth >= depth_max)
        return XY_XML_TOO_DEEP;
    struct xy_str ns;
    const char *local = split(b, name, b->current != NULL ? b->current->ns : XY_STR_NONE, &ns);
    size_t len = strlen(local);
    if (len > XY_XML_NAME_MAX)
        return XY_XML_TOO_DEEP;
    struct xy_elem *e = xy_arena_alloc(b->arena, sizeof(*e) + len + 1);
    if (e == NULL)
        return XY_XML_NO_MEMORY;
    char *copy = (char *)(e + 1);
    memcpy(copy, local, len + 1);
    *e = (struct xy_elem){ .ns = ns, .name = xy_str_n(copy, len) };
    if (b->top == NULL)
        b->top = e;
    else
        xy_elem_append(b->current, e);
    b->current = e;
    b->depth++;
    return add_attrs(b, e, attrs);
}

/* Adjacent pieces of text become one node; the last node's bytes grow at the end of the arena. */
int xml_builder_text(struct xml_builder *b, const char *data, size_t len)
{
    struct xy_elem *node = b->current->child_last;
    if (node == NULL || !xy_elem_is_text(node)) {
        node = xy_arena_alloc(b->arena, sizeof(*node));
        char *text = node != NULL ? xy_arena_alloc(b->arena, len + 1) : NULL;
        if (text == NULL)
            return XY_XML_NO_MEMORY;
        *node = (struct xy_elem){ .text = xy_str_n(text, 0) };
        b->text_size = len + 1;
        xy_elem_append(b->current, node);
    }
    size_t needed = node->text.len + len + 1;
    char *text = (char *)(uintptr_t)node->text.data;
    if (needed > b->text_size) {
        size_t size = needed > 2 * b->text_size ? needed : 2 * b->text_size;
        text = xy_arena_extend(b->arena, text, b->text_size, size);
        if (text == NULL)
            return XY_XML_NO_MEMORY;
        b->text_size = size;
    }
    memcpy(text + node->text.len, data, len);
    text[needed - 1] = '\0';
    node->text = xy_str_n(text, needed - 1);
    return 0;
}

bool xml_builder_close(struct xml_builder *b)
{
    xy_assert(b->current != NULL && b->depth > 0);
    b->current = b->current->parent;
    b->depth--;
    xy_assert((b->depth == 0) == (b->current == NULL));
    return b->depth == 0;
}
