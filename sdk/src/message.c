/* What the application sees of a message: the public view, its payload decoded. Strings live in the stanza's arena. */
#include <stdio.h>

#include "core/base/encoding.h"
#include "core/namespaces.h"
#include "core/time.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"
#include "sdk/src/position.h"
#include "sdk/src/view.h"

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

void xy_view_item(struct xy_arena *arena, const struct xy_elem *item, struct xylem_msg_view *out)
{
    out->id = attr_text(arena, item, "id");
    out->publisher = attr_text(arena, item, "publisher");
    const struct xy_elem *payload = xy_elem_first(item);
    if (xy_elem_is(payload, "headers", NS_SHIM))
        payload = xy_elem_next(payload);
    if (payload && !decode(arena, payload, out))
        show_xml(arena, payload, out);
    else if (!payload)
        set_data(out, XYLEM_XML, NULL, XY_STR(""));
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
    const struct xy_elem *of_node = msg->event == XYLEM_EVENT_GAP ? msg->elem : xy_elem_first(whole);
    *out = (struct xylem_msg_view){ .event = msg->event, .seq = msg->seq, .attempt = msg->attempt };
    out->node = attr_text(arena, of_node, "node");
    if (!out->node)
        out->node = "";
    out->delay_us = delay_of(&msg->hold->stanza);
    const struct xy_elem *stamp = xy_elem_child(msg->hold->stanza.elem, "delivery", NS_XYLEM_DELIVERY);
    out->epoch = msg->seq && stamp ? attr_text(arena, stamp, "epoch") : NULL;
    out->subid = msg->seq && stamp ? attr_text(arena, stamp, "subid") : NULL;
    if (msg->event == XYLEM_EVENT_GAP) {
        const char *reason = attr_text(arena, msg->elem, "reason");
        out->gap_first = msg->gap_first;
        out->gap_reason = reason ? reason : "";
    }
    xy_view_item(arena, msg->elem, out);
}

bool xy_view_header(struct xy_arena *arena, const struct xy_elem *around, size_t *index,
                    struct xylem_header *out)
{
    const struct xy_elem *headers = xy_elem_child(around, "headers", NS_SHIM);
    for (const struct xy_elem *e = headers ? xy_elem_first(headers) : NULL; e; e = xy_elem_next(e)) {
        const char *name = xy_elem_is(e, "header", NS_SHIM) ? attr_text(arena, e, "name") : NULL;
        if (!name)
            continue;
        if ((*index)-- == 0) {
            const char *value = xy_arena_str(arena, xy_elem_text(e, arena)).data;
            *out = (struct xylem_header){ .name = name, .value = value ? value : "" };
            return true;
        }
    }
    return false;
}

/* Of the item, then of the stanza around it. */
bool xylem_msg_header_at(struct xylem_msg *msg, size_t index, struct xylem_header *out)
{
    const struct xy_stanza *stanza = &msg->hold->stanza;
    return xy_view_header(stanza->arena, msg->elem, &index, out) ||
           xy_view_header(stanza->arena, stanza->elem, &index, out);
}

const char *xylem_msg_header(struct xylem_msg *msg, const char *name)
{
    struct xylem_header header;
    for (size_t i = 0; xylem_msg_header_at(msg, i, &header); i++)
        if (strcmp(header.name, name) == 0)
            return header.value;
    return NULL;
}

/* The last before the first message that is in the application's hands and not in `handled`; 0: there is none. */
static uint64_t front_of(const struct xy_position *position, const struct xy_ranges *handled)
{
    uint64_t front = 0;
    xy_list_each (entry, (struct xy_list *)(uintptr_t)&position->pending) {
        const struct xylem_msg *msg = xy_container_of(entry, struct xylem_msg, link);
        if (!xy_ranges_has(handled, msg->seq))
            break;
        front = msg->seq;
    }
    return front;
}

size_t xylem_msgs_position(struct xylem_msg *const *msgs, size_t count, char *out, size_t size)
{
    const struct xy_position *position = count > 0 && msgs[0] ? msgs[0]->position : NULL;
    struct xy_ranges after = { 0 };
    struct xy_buf text = { 0 };
    bool ok = position && xy_ranges_reserve(&after, XY_RANGES_MAX + 2);
    if (ok && position->handled.count > 0)
        memcpy(after.list, position->handled.list, position->handled.count * sizeof *after.list);
    after.count = ok ? position->handled.count : 0;
    for (size_t i = 0; ok && i < count; i++) {
        ok = msgs[i] && msgs[i]->position == position;
        if (ok)
            xy_ranges_add(&after, xy_msg_first(msgs[i]), msgs[i]->seq);
    }
    if (ok &&
        msgs[0]->ack == XYLEM_ACK_BY_STREAM) /* in order: numbers that are missing do not come any more */
        xy_ranges_fill(&after, front_of(position, &after));
    if (ok)
        xy_buf_printf(&text, "%s ", position->epoch);
    xy_ranges_write(&after, &text);
    ok = ok && !xy_buf_failed(&text);
    size_t len = ok ? text.len : 0;
    if (size > 0)
        snprintf(out, size, "%.*s", (int)len, ok ? text.data : "");
    xy_buf_free(&text);
    xy_ranges_free(&after);
    return len;
}
