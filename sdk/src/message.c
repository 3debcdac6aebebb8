/* What the application sees of a message: the public view, its payload decoded. Strings live in the stanza's arena. */
#include "core/base/encoding.h"
#include "core/namespaces.h"
#include "core/time.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"

#define NS_XYLEM_DATA "urn:xylem:data:0"

static const char *attr_text(struct xy_arena *arena, const struct xy_elem *e, const char *name)
{
    struct xy_str value = xy_elem_attr(e, name);
    return xy_str_present(value) ? xy_arena_str(arena, value).data : NULL;
}

static void set_data(struct xylem_msg_view *out, enum xylem_payload payload, const char *type,
                     struct xy_str data)
{
    out->payload = payload;
    out->type = type;
    out->data = data.data ? data.data : "";
    out->len = data.len;
}

/* false: not what it says it is; then the XML itself is shown. */
static bool decode(struct xy_arena *arena, const struct xy_elem *payload, struct xylem_msg_view *out)
{
    bool typed = xy_elem_is(payload, "typed", NS_XYLEM_TYPED);
    if (!typed && !xy_elem_is(payload, "data", NS_XYLEM_DATA))
        return false;
    struct xy_str data = xy_elem_text(payload, arena);
    const char *type = attr_text(arena, payload, "type");
    if (typed || xy_str_is(xy_elem_attr(payload, "encoding"), "base64")) {
        struct xy_str decoded;
        if (!type || !xy_base64_decode_arena(arena, xy_str_trim(data), &decoded))
            return false;
        data = decoded;
    } else {
        data = xy_arena_str(arena, data);
    }
    set_data(out, typed ? XYLEM_TYPED : XYLEM_TEXT, type ? type : "text/plain", data);
    return true;
}

static void show_xml(struct xy_arena *arena, const struct xy_elem *payload, struct xylem_msg_view *out)
{
    struct xy_buf xml = { 0 };
    xy_xml_write(&xml, payload, XY_STR_NONE);
    set_data(out, XYLEM_XML, NULL, xy_arena_str(arena, xy_buf_view(&xml)));
    xy_buf_free(&xml);
}

static uint64_t delay_of(const struct xy_stanza *stanza)
{
    const struct xy_elem *delay = xy_elem_child(stanza->elem, "delay", NS_DELAY);
    uint64_t at = 0;
    if (delay)
        xy_time_parse(xy_elem_attr(delay, "stamp"), &at);
    return at;
}

void xylem_msg_view(struct xylem_msg *msg, struct xylem_msg_view *out)
{
    struct xy_arena *arena = msg->hold->stanza.arena;
    const struct xy_elem *whole = xy_elem_child(msg->hold->stanza.elem, "event", NS_PUBSUB_EVENT);
    *out = (struct xylem_msg_view){ .event = msg->event, .seq = msg->seq, .attempt = msg->attempt };
    out->node = attr_text(arena, xy_elem_first(whole), "node");
    if (!out->node)
        out->node = "";
    out->id = attr_text(arena, msg->elem, "id");
    out->publisher = attr_text(arena, msg->elem, "publisher");
    out->delay_us = delay_of(&msg->hold->stanza);
    const struct xy_elem *stamp = xy_elem_child(msg->hold->stanza.elem, "delivery", NS_XYLEM_DELIVERY);
    out->epoch = msg->seq && stamp ? attr_text(arena, stamp, "epoch") : NULL;
    const struct xy_elem *payload = xy_elem_first(msg->elem);
    if (payload && !decode(arena, payload, out))
        show_xml(arena, payload, out);
    else if (!payload)
        set_data(out, XYLEM_XML, NULL, XY_STR(""));
}
