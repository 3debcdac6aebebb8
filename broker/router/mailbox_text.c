/* What is read and changed in a message that is serialised already, so that redelivery needs no parser. It relies on
 * how core/xml/writer.h writes: attributes in quotes and escaped, one element. Called by mailbox.c. */
#include "broker/router/address_internal.h"

static struct xy_str find(struct xy_str in, const char *what)
{
    char *at = in.data ? memmem(in.data, in.len, what, strlen(what)) : NULL;
    return at ? xy_str_n(at, in.len - (size_t)(at - in.data)) : XY_STR_NONE;
}

/* The start tag without its `>`; an escaped value has no `>`. */
static struct xy_str start_tag(struct xy_str stanza)
{
    const char *end = memchr(stanza.data, '>', stanza.len);
    return xy_str_n(stanza.data, end ? (size_t)(end - stanza.data) : 0);
}

static struct xy_str attribute(struct xy_str tag, const char *name)
{
    struct xy_str at = find(tag, name);
    if (!at.data)
        return XY_STR_NONE;
    size_t skip = strlen(name);
    char quote = name[skip - 1];
    const char *value = at.data + skip;
    const char *end = memchr(value, quote, at.len - skip);
    return end ? xy_str_n(value, (size_t)(end - value)) : XY_STR_NONE;
}

static const struct {
    const char *entity;
    char c;
} entities[] = { { "&amp;", '&' }, { "&lt;", '<' }, { "&gt;", '>' }, { "&apos;", '\'' }, { "&quot;", '"' } };

static void unescape(struct xy_buf *buf, struct xy_str in)
{
    while (in.len > 0) {
        size_t used = 1;
        char c = *in.data;
        for (size_t i = 0; c == '&' && i < sizeof(entities) / sizeof(*entities); i++) {
            if (!xy_str_starts(in, xy_str(entities[i].entity)))
                continue;
            used = strlen(entities[i].entity);
            c = entities[i].c;
            break;
        }
        xy_buf_char(buf, c);
        in = xy_str_n(in.data + used, in.len - used);
    }
}

struct xy_str message_text_resource(struct xy_str stanza, struct xy_buf *buf)
{
    struct xy_str tag = start_tag(stanza);
    struct xy_str to = attribute(tag, " to='");
    if (!to.data)
        to = attribute(tag, " to=\"");
    const char *slash = to.data ? memchr(to.data, '/', to.len) : NULL;
    if (!slash)
        return XY_STR_NONE;
    xy_buf_reset(buf);
    unescape(buf, xy_str_n(slash + 1, to.len - (size_t)(slash + 1 - to.data)));
    return xy_buf_failed(buf) ? XY_STR_NONE : xy_buf_view(buf);
}

struct xy_bytes *message_text_delayed(struct xy_str stanza, struct xy_str from, uint64_t wall_us)
{
    static const struct xy_str end_tag = { "</message>", 10 };
    char stamp[XY_TIME_LEN];
    struct xy_buf buf = { 0 };
    bool closed = stanza.len > end_tag.len &&
                  xy_str_eq(xy_str_n(stanza.data + stanza.len - end_tag.len, end_tag.len), end_tag);
    size_t cut = closed ? end_tag.len : 2; /* or `/>` */
    if (stanza.len < cut)
        return NULL;
    xy_time_format(wall_us, stamp);
    xy_buf_add(&buf, stanza.data, stanza.len - cut);
    if (!closed)
        xy_buf_char(&buf, '>');
    xy_buf_lit(&buf, "<delay xmlns='" NS_DELAY "'");
    xy_xml_attr(&buf, "from", from);
    xy_xml_attr(&buf, "stamp", xy_str(stamp));
    xy_buf_lit(&buf, "/>");
    xy_buf_str(&buf, end_tag);
    struct xy_bytes *bytes = xy_buf_failed(&buf) ? NULL : xy_bytes_new(xy_buf_view(&buf));
    xy_buf_free(&buf);
    return bytes;
}
