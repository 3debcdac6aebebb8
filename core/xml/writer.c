/* The serialiser. Elements are written without prefixes, each default namespace where it changes, so the
 * namespace in scope is always the parent's and no stack is needed. Everything the broker sends passes here.
 */
#include "core/xml/writer.h"

#include "core/namespaces.h"
#include "core/xml/bytes16.h"

/* What becomes of a byte. Zero: copied as it is. */
enum escape { AS_IS, AMP, LT, GT, APOS, QUOT, TAB, LF, CR, FORBIDDEN };

static const struct xy_str replacement[] = {
    [AMP] = XY_STR_INIT("&amp;"),
    [LT] = XY_STR_INIT("&lt;"),
    [GT] = XY_STR_INIT("&gt;"),
    [APOS] = XY_STR_INIT("&apos;"),
    [QUOT] = XY_STR_INIT("&quot;"),
    [TAB] = XY_STR_INIT("&#9;"),
    [LF] = XY_STR_INIT("&#10;"),
    [CR] = XY_STR_INIT("&#13;"),
    /* XML cannot carry control characters: U+FFFD, so that one bad string does not end the peer's stream */
    [FORBIDDEN] = XY_STR_INIT("\xef\xbf\xbd"),
};

#define CONTROLS                                                                                             \
    [0] = FORBIDDEN, [1] = FORBIDDEN, [2] = FORBIDDEN, [3] = FORBIDDEN, [4] = FORBIDDEN, [5] = FORBIDDEN,    \
    [6] = FORBIDDEN, [7] = FORBIDDEN, [8] = FORBIDDEN, [11] = FORBIDDEN, [12] = FORBIDDEN, [14] = FORBIDDEN, \
    [15] = FORBIDDEN, [16] = FORBIDDEN, [17] = FORBIDDEN, [18] = FORBIDDEN, [19] = FORBIDDEN,                \
    [20] = FORBIDDEN, [21] = FORBIDDEN, [22] = FORBIDDEN, [23] = FORBIDDEN, [24] = FORBIDDEN,                \
    [25] = FORBIDDEN, [26] = FORBIDDEN, [27] = FORBIDDEN, [28] = FORBIDDEN, [29] = FORBIDDEN,                \
    [30] = FORBIDDEN, [31] = FORBIDDEN

/* Text between tags: quotes and line ends may stay, which keeps JSON readable and short. */
static const unsigned char in_text[256] = { CONTROLS, ['&'] = AMP, ['<'] = LT, ['>'] = GT, ['\r'] = CR };

/* Attribute values in single quotes, where parsing turns white space into spaces. */
static const unsigned char in_attr[256] = {
    CONTROLS,     ['&'] = AMP,  ['<'] = LT,  ['>'] = GT, ['\''] = APOS,
    ['"'] = QUOT, ['\t'] = TAB, ['\n'] = LF, ['\r'] = CR
};

/* Copied as they are wherever they stand? */
static bool are_plain(bytes16 bytes)
{
    return bytes16_none((bytes16)(bytes < ' ') | (bytes16)(bytes == '&') | (bytes16)(bytes == '<') |
                        (bytes16)(bytes == '>') | (bytes16)(bytes == '"') | (bytes16)(bytes == '\''));
}

/* With how much that is copied as it is the text begins. */
static size_t run_length(struct xy_str text, const unsigned char *table)
{
    size_t len = 0;
    while (len < text.len) {
        size_t left = text.len - len, stop = len + (left < sizeof(bytes16) ? left : sizeof(bytes16));
        if (left >= sizeof(bytes16) && are_plain(bytes16_load(text.data + len)))
            len = stop;
        while (len < stop && table[(unsigned char)text.data[len]] == AS_IS)
            len++;
        if (len < stop)
            break;
    }
    return len;
}

static void escape(struct xy_buf *out, struct xy_str text, const unsigned char *table)
{
    while (text.len > 0) {
        size_t run = run_length(text, table);
        xy_buf_add(out, text.data, run);
        if (run == text.len)
            return;
        xy_buf_str(out, replacement[table[(unsigned char)text.data[run]]]);
        text = xy_str_n(text.data + run + 1, text.len - run - 1);
    }
}

void xy_xml_escape(struct xy_buf *out, struct xy_str text)
{
    escape(out, text, in_attr);
}

static void write_attr(struct xy_buf *out, struct xy_str name, struct xy_str value)
{
    xy_buf_char(out, ' ');
    xy_buf_str(out, name);
    xy_buf_lit(out, "='");
    escape(out, value, in_attr);
    xy_buf_char(out, '\'');
}

void xy_xml_attr(struct xy_buf *out, const char *name, struct xy_str value)
{
    if (xy_str_present(value))
        write_attr(out, xy_str(name), value);
}

/* The prefix of an attribute's namespace: declared on this element by the first attribute that needs it, and
 * named after that attribute's place. */
static void write_prefixed_attr(struct xy_buf *out, const struct xy_elem *e, const struct xy_attr *attr)
{
    if (xy_str_is(attr->ns, NS_XML)) {
        xy_buf_lit(out, " xml:");
    } else {
        uint64_t place = 0;
        const struct xy_attr *first = e->attrs;
        for (; !xy_str_eq(first->ns, attr->ns); first = first->next)
            place++;
        if (first == attr) {
            xy_buf_lit(out, " xmlns:a");
            xy_buf_u64(out, place);
            xy_buf_lit(out, "='");
            escape(out, attr->ns, in_attr);
            xy_buf_char(out, '\'');
        }
        xy_buf_lit(out, " a");
        xy_buf_u64(out, place);
        xy_buf_char(out, ':');
    }
    xy_buf_str(out, attr->name);
    xy_buf_lit(out, "='");
    escape(out, attr->value, in_attr);
    xy_buf_char(out, '\'');
}

static void write_start(struct xy_buf *out, const struct xy_elem *e, struct xy_str context_ns)
{
    xy_buf_char(out, '<');
    xy_buf_str(out, e->name);
    if (e->ns.data != context_ns.data && !xy_str_eq(e->ns, context_ns)) {
        xy_buf_lit(out, " xmlns='");
        escape(out, e->ns, in_attr);
        xy_buf_char(out, '\'');
    }
    for (const struct xy_attr *attr = e->attrs; attr != NULL; attr = attr->next) {
        if (attr->ns.len == 0)
            write_attr(out, attr->name, attr->value);
        else
            write_prefixed_attr(out, e, attr);
    }
    if (e->child == NULL)
        xy_buf_lit(out, "/>");
    else
        xy_buf_char(out, '>');
}

static void write_end(struct xy_buf *out, const struct xy_elem *e)
{
    xy_buf_lit(out, "</");
    xy_buf_str(out, e->name);
    xy_buf_char(out, '>');
}

void xy_xml_write(struct xy_buf *out, const struct xy_elem *elem, struct xy_str context_ns)
{
    const struct xy_elem *node = elem;
    while (node != NULL) {
        if (xy_elem_is_text(node))
            escape(out, node->text, in_text);
        else
            write_start(out, node, node == elem ? context_ns : node->parent->ns);
        if (node->child != NULL) {
            node = node->child;
            continue;
        }
        while (node != elem && node->next == NULL) {
            node = node->parent;
            write_end(out, node);
        }
        node = node != elem ? node->next : NULL;
    }
}

void xy_xml_write_children(struct xy_buf *out, const struct xy_elem *elem)
{
    if (elem == NULL)
        return;
    for (const struct xy_elem *node = elem->child; node != NULL; node = node->next)
        xy_xml_write(out, node, elem->ns);
}

struct xy_bytes *xy_xml_bytes(const struct xy_elem *elem, struct xy_str context_ns)
{
    struct xy_buf out = { 0 };
    xy_bytes_begin(&out);
    xy_xml_write(&out, elem, context_ns);
    return xy_bytes_end(&out);
}
