/* <xylem/stanza.h>: XML text of the application in and out, checked so that it cannot break the stream. */
#include <stdlib.h>
#include <string.h>

#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"

static enum xylem_status invalid(struct xylem_client *c, const char *what)
{
    xy_client_error(c, "%s is not one well-formed XML element", what);
    return XYLEM_INVALID;
}

enum xylem_status xylem_stanza_send(struct xylem_client *c, const char *xml, size_t len)
{
    struct xy_arena *arena;
    struct xy_elem *elem = xy_fragment_parse(xy_str_n(xml, len), &arena);
    if (!elem || !(xy_elem_is(elem, "message", NS_CLIENT) || xy_elem_is(elem, "presence", NS_CLIENT))) {
        xy_arena_free(&arena);
        return invalid(c, "a stanza that is no message or presence, or");
    }
    if (xy_session_backlog(c) + len > c->config.o.queue_bytes_max) {
        xy_arena_free(&arena);
        xy_client_error(c, "stanzas of queue_bytes_max bytes wait to be sent or acknowledged");
        return XYLEM_FULL;
    }
    struct xy_bytes *bytes = xy_xml_bytes(elem, XY_STR(NS_CLIENT));
    bool message = xy_elem_is(elem, "message", NS_CLIENT);
    xy_arena_free(&arena);
    if (!bytes || !xy_session_send(c, bytes, message))
        return XYLEM_NO_MEMORY;
    xy_client_wake(c);
    return XYLEM_OK;
}

/* Written anew from the tree: what was checked is what is sent. NULL: not one element. */
static struct xy_bytes *checked(const char *xml, size_t len)
{
    struct xy_arena *arena;
    struct xy_elem *elem = xy_fragment_parse(xy_str_n(xml, len), &arena);
    struct xy_bytes *bytes = elem ? xy_xml_bytes(elem, XY_STR(NS_CLIENT)) : NULL;
    xy_arena_free(&arena);
    return bytes;
}

enum xylem_status xylem_request(struct xylem_client *c, const char *to, bool set, const char *payload,
                                size_t len, uint32_t timeout_ms, xylem_done_fn *done, void *ctx)
{
    struct xy_bytes *bytes = checked(payload, len);
    if (!bytes)
        return invalid(c, "the payload of a request");
    struct xy_request_spec spec = {
        .flags = set ? XY_REQUEST_SET : 0,
        .to = to,
        .payload = xy_bytes_view(bytes),
        .timeout_ms = timeout_ms ? timeout_ms : c->config.o.reply_timeout_ms,
        .done = done,
        .ctx = ctx,
    };
    enum xylem_status status = xy_request(c, &spec);
    xy_bytes_unref(&bytes);
    return status;
}

enum xylem_status xylem_ping(struct xylem_client *c, const char *to, xylem_done_fn *done, void *ctx)
{
    struct xy_request_spec spec = {
        .to = to,
        .payload = XY_STR("<ping xmlns='" NS_PING "'/>"),
        .timeout_ms = c->config.o.reply_timeout_ms,
        .done = done,
        .ctx = ctx,
    };
    return xy_request(c, &spec);
}

void xylem_on_stanza(struct xylem_client *c, xylem_stanza_fn *fn, void *ctx)
{
    bool same = (c->stanza_handler.fn != NULL) == (fn != NULL);
    c->stanza_handler = (struct xy_handler){ .fn = fn, .ctx = ctx };
    if (same || c->stats.connects == 0)
        return;
    xy_session_presence(c); /* a session that is resumed is told as well */
    xy_client_wake(c);
}

enum xylem_status xylem_on_request(struct xylem_client *c, const char *name, const char *ns,
                                   xylem_stanza_fn *fn, void *ctx)
{
    if (c->handlers_count == XY_CLIENT_HANDLERS_MAX) {
        xy_client_error(c, "there are %u request handlers already", XY_CLIENT_HANDLERS_MAX);
        return XYLEM_INVALID;
    }
    struct xy_handler handler = { .name = strdup(name), .ns = strdup(ns), .fn = fn, .ctx = ctx };
    if (!handler.name || !handler.ns) {
        free(handler.name);
        free(handler.ns);
        return XYLEM_NO_MEMORY;
    }
    c->handlers[c->handlers_count++] = handler;
    return XYLEM_OK;
}

enum xylem_status xylem_reply(struct xylem_client *c, const char *to, const char *id, const char *payload,
                              const char *condition, const char *text)
{
    struct xy_bytes *inside = payload ? checked(payload, strlen(payload)) : NULL;
    if (payload && !inside)
        return invalid(c, "the payload of a reply");
    struct xy_buf out = { 0 };
    xy_buf_printf(&out, "<iq type='%s'", condition ? "error" : "result");
    xy_xml_attr(&out, "to", to && *to ? xy_str(to) : XY_STR_NONE);
    xy_xml_attr(&out, "id", xy_str(id));
    xy_buf_char(&out, '>');
    if (inside)
        xy_buf_str(&out, xy_bytes_view(inside));
    if (condition) {
        enum xy_condition known = xy_condition_find(xy_str(condition));
        static const char *const types[] = { "cancel", "wait", "modify", "auth", "continue" };
        struct xy_error error = xy_error_make(known ? known : XY_UNDEFINED_CONDITION, NULL);
        xy_buf_printf(&out, "<error type='%s'><%s xmlns='" NS_STANZA_ERRORS "'/>", types[error.type],
                      xy_condition_name(error.condition));
        if (text) {
            xy_buf_lit(&out, "<text xmlns='" NS_STANZA_ERRORS "'>");
            xy_xml_escape(&out, xy_str(text));
            xy_buf_lit(&out, "</text>");
        }
        xy_buf_lit(&out, "</error>");
    }
    xy_buf_lit(&out, "</iq>");
    xy_bytes_unref(&inside);
    struct xy_bytes *bytes = xy_buf_failed(&out) ? NULL : xy_bytes_new(xy_buf_view(&out));
    xy_buf_free(&out);
    if (!bytes || !xy_session_send(c, bytes, false))
        return XYLEM_NO_MEMORY;
    xy_client_wake(c);
    return XYLEM_OK;
}
