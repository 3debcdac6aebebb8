/* Where an inbound stanza goes: answers to requests, events to subscriptions, requests to handlers, the rest to the
 * application's stanza handler. Called by session.c for each stanza, in order. */
#include <stdlib.h>
#include <string.h>

#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"

void xy_hold_unref(struct xylem_client *c, struct xy_hold *hold)
{
    xy_assert(hold->refs > 0);
    if (--hold->refs > 0)
        return;
    xy_session_handled(c, hold->number, hold->generation);
    xy_arena_pool_give(c->arenas, &hold->stanza.arena);
    free(hold);
}

static const char *text_of(struct xy_arena *arena, struct xy_str s)
{
    const char *text = xy_str_present(s) ? xy_arena_str(arena, s).data : NULL;
    return text ? text : "";
}

void xy_stanza_text(struct xylem_client *c, const struct xy_stanza *stanza, struct xylem_stanza *out)
{
    (void)c;
    static const char *const kinds[] = { "message", "presence", "iq" };
    struct xy_buf xml = { 0 };
    xy_xml_write(&xml, stanza->elem, XY_STR(NS_CLIENT));
    struct xy_str copy = xy_arena_str(stanza->arena, xy_buf_failed(&xml) ? XY_STR("") : xy_buf_view(&xml));
    xy_buf_free(&xml);
    const char *type = xy_stanza_type_name(stanza->type);
    *out = (struct xylem_stanza){
        .kind = kinds[stanza->kind],
        .type = type ? type : "",
        .from = text_of(stanza->arena, xy_jid_full(stanza->from)),
        .id = text_of(stanza->arena, stanza->id),
        .xml = copy.data ? copy.data : "",
        .len = copy.len,
    };
}

static void refuse(struct xylem_client *c, const struct xy_stanza *stanza, enum xy_condition condition)
{
    struct xy_error error = xy_error_make(condition, NULL);
    struct xy_elem *reply = xy_error_reply(stanza->arena, stanza, &error);
    if (reply)
        xy_session_send_elem(c, reply);
}

static bool call_handler(struct xylem_client *c, const struct xy_stanza *stanza)
{
    const struct xy_elem *payload = xy_elem_first(stanza->elem);
    for (unsigned i = 0; payload && i < c->handlers_count; i++) {
        struct xy_handler *handler = &c->handlers[i];
        if (!xy_elem_is(payload, handler->name, handler->ns))
            continue;
        struct xylem_stanza text;
        xy_stanza_text(c, stanza, &text);
        return handler->fn(c, &text, handler->ctx);
    }
    return false;
}

static void request_came(struct xylem_client *c, const struct xy_stanza *stanza)
{
    const struct xy_elem *payload = xy_elem_first(stanza->elem);
    if (payload && stanza->type == XY_GET && xy_elem_is(payload, "ping", NS_PING))
        xy_session_send_elem(c, xy_stanza_result(stanza->arena, stanza));
    else if (!xy_bytestreams_request(c, stanza) && !call_handler(c, stanza))
        refuse(c, stanza, XY_SERVICE_UNAVAILABLE);
}

static bool from_service(const struct xylem_client *c, const struct xy_stanza *stanza)
{
    return c->service && xy_str_is(xy_jid_full(stanza->from), c->service);
}

/* Words for this very session, which nobody here will read: their sender is told, as if it were not there (RFC 6121 8.5.3).
 * Whatever else a message may carry is no business of who does not know it. */
static bool awaits_a_reader(const struct xylem_client *c, const struct xy_stanza *stanza)
{
    bool words = stanza->type == XY_TYPE_NONE || stanza->type == XY_NORMAL || stanza->type == XY_CHAT;
    return stanza->kind == XY_MESSAGE && words && xy_str_eq(xy_jid_full(stanza->to), xy_jid_full(c->full)) &&
           xy_elem_child(stanza->elem, "body", NS_CLIENT) != NULL;
}

static void to_application(struct xylem_client *c, const struct xy_stanza *stanza)
{
    if (!c->stanza_handler.fn) {
        if (awaits_a_reader(c, stanza))
            refuse(c, stanza, XY_SERVICE_UNAVAILABLE);
        return;
    }
    struct xylem_stanza text;
    xy_stanza_text(c, stanza, &text);
    c->stanza_handler.fn(c, &text, c->stanza_handler.ctx);
}

void xy_dispatch(struct xylem_client *c, struct xy_hold *hold, enum xy_stanza_verdict verdict)
{
    struct xy_stanza *stanza = &hold->stanza;
    if (verdict != XY_STANZA_OK) {
        if (verdict == XY_STANZA_BAD_IQ)
            refuse(c, stanza, XY_BAD_REQUEST);
        return;
    }
    if (stanza->kind == XY_IQ) {
        if (stanza->type == XY_GET || stanza->type == XY_SET)
            request_came(c, stanza);
        else
            xy_request_answer(c, stanza);
        return;
    }
    const struct xy_elem *event =
        stanza->kind == XY_MESSAGE ? xy_elem_child(stanza->elem, "event", NS_PUBSUB_EVENT) : NULL;
    struct xy_elem *gap =
        stanza->kind == XY_MESSAGE ? xy_elem_child(stanza->elem, "gap", NS_XYLEM_DELIVERY) : NULL;
    if (event && from_service(c, stanza) && xy_subs_event(c, hold, event))
        return;
    if (gap && from_service(c, stanza) && xy_subs_gap(c, hold, gap))
        return;
    to_application(c, stanza);
}
