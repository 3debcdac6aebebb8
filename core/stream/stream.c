/* The part of a stream that both roles share: bytes to events, the hot path of stanzas, XEP-0198 elements, output.
 *
 * The parser works on what its owner lends, or on a copy in `window`, which must not move meanwhile; what is fed before it
 * is done waits in `pending`. Both are given back when empty, like everything else an idle stream does not need. */
#include "core/stream/internal.h"

#include <stdlib.h>

#include <mbedtls/platform_util.h>

#include "core/base/assert.h"

struct xy_stream *stream_new(const struct xy_stream_options *options, const struct stream_role *role,
                             bool is_server)
{
    struct xy_stream *s = calloc(1, sizeof *s);
    size_t bytes_max = options->stanza_bytes_max ? options->stanza_bytes_max : XY_STANZA_BYTES_DEFAULT;
    struct xy_xml_options xml = { .arenas = options->arenas, .spans = options->spans };
    xml.stanza_bytes_max = is_server ? XY_STANZA_BYTES_UNAUTHENTICATED : bytes_max;
    if (!s)
        return NULL;
    s->options = options;
    s->role = role;
    s->is_server = is_server;
    s->parser = xy_xml_new(&xml);
    s->negotiation = calloc(1, sizeof *s->negotiation);
    if (s->negotiation)
        s->negotiation->arena = xy_arena_new();
    if (!s->parser || !s->negotiation || !s->negotiation->arena)
        xy_stream_free(&s);
    return s;
}

static void give_arena(struct xy_stream *s, struct xy_arena **arena)
{
    if (*arena == NULL)
        return;
    if (s->options->arenas)
        xy_arena_pool_give(s->options->arenas, arena);
    else
        xy_arena_free(arena);
}

void stream_negotiation_free(struct xy_stream *s)
{
    struct stream_negotiation *n = s->negotiation;
    s->negotiation = NULL;
    if (!n)
        return;
    xy_sasl_server_free(&n->sasl);
    xy_sasl_client_free(&n->sasl_client);
    if (n->client.password.len > 0)
        mbedtls_platform_zeroize((char *)n->client.password.data, n->client.password.len);
    xy_arena_free(&n->arena);
    free(n);
}

void xy_stream_free(struct xy_stream **stream)
{
    struct xy_stream *s = *stream;
    *stream = NULL;
    if (!s)
        return;
    stream_negotiation_free(s);
    xy_xml_free(&s->parser);
    xy_buf_free(&s->output);
    xy_buf_free(&s->window);
    xy_buf_free(&s->pending);
    give_arena(s, &s->scratch);
    free(s);
}

/* --- Input --- */

void xy_stream_adopt(struct xy_stream *s, const struct xy_stream_options *options)
{
    s->options = options;
    xy_xml_adopt(s->parser, options->arenas);
}

static bool listens(const struct xy_stream *s)
{
    return s->state != STREAM_OVER && s->state != STREAM_AWAIT_TLS && !s->closed_in;
}

void xy_stream_feed(struct xy_stream *s, const void *data, size_t len)
{
    if (listens(s))
        xy_buf_add(&s->pending, data, len);
}

void xy_stream_lend(struct xy_stream *s, const void *data, size_t len)
{
    xy_assert(s->lent.data == NULL);
    if (s->parsing || s->pending.len > 0 || len == 0 || !listens(s)) {
        xy_stream_feed(s, data, len);
        return;
    }
    s->lent = xy_str_n(data, len);
    s->parsing = true;
    xy_xml_feed(s->parser, data, len);
}

void xy_stream_keep(struct xy_stream *s)
{
    struct xy_str lent = s->lent;
    s->lent = XY_STR_NONE;
    if (lent.data == NULL || !s->parsing || !listens(s))
        return;
    xy_buf_reset(&s->window);
    xy_buf_str(&s->window, lent);
    if (!xy_buf_failed(&s->window))
        xy_xml_moved(s->parser, lent.data, s->window.data);
}

bool xy_stream_wants_input(const struct xy_stream *s)
{
    bool refused = s->state == STREAM_OVER || s->closed_in;
    return !refused && s->wait == WAIT_NONE && !s->parsing && s->pending.len == 0;
}

static void release_if_big(struct xy_buf *buf)
{
    xy_buf_reset(buf);
    if (buf->cap > STREAM_BUF_KEEP)
        xy_buf_free(buf);
}

/* More for the parser, which has consumed what it had. */
static bool next_window(struct xy_stream *s)
{
    struct xy_buf done = s->window;
    s->parsing = false;
    release_if_big(&done);
    s->window = s->pending;
    s->pending = done;
    if (s->window.len == 0)
        return false;
    s->parsing = true;
    xy_xml_feed(s->parser, s->window.data, s->window.len);
    return true;
}

/* The document ends, another begins. keep_rest false: what came in clear behind <starttls/> is never looked at. */
void stream_restart(struct xy_stream *s, bool keep_rest)
{
    s->header_sent = false;
    xy_xml_restart(s->parser, keep_rest);
    if (keep_rest)
        return;
    s->parsing = false;
    xy_buf_reset(&s->window);
    xy_buf_reset(&s->pending);
}

void stream_bound(struct xy_stream *s)
{
    s->state = STREAM_BOUND;
    s->wait = WAIT_NONE;
    if (s->is_server)
        stream_negotiation_free(s);
}

/* --- Events --- */

static bool check_namespace(struct xy_stream *s, const struct xy_elem *header)
{
    return xy_elem_is(header, "stream", NS_STREAM) && xy_str_is(xy_xml_default_ns(s->parser), NS_CLIENT);
}

static bool on_header(struct xy_stream *s, const struct xy_elem *header, struct xy_stream_event *event)
{
    if (!check_namespace(s, header))
        return stream_fail(
            s, event, XY_STREAM_FAILED_PROTOCOL, XY_STREAM_INVALID_NAMESPACE,
            "The header must be <stream/> in http://etherx.jabber.org/streams, and the default namespace "
            "jabber:client.");
    if (!stream_version_ok(header))
        return stream_fail(s, event, XY_STREAM_FAILED_PROTOCOL, XY_STREAM_UNSUPPORTED_VERSION,
                           "XMPP 1.0 is spoken here.");
    return s->role->on_header(s, header, event);
}

static bool on_close(struct xy_stream *s, struct xy_stream_event *event)
{
    s->closed_in = true;
    xy_buf_free(&s->pending);
    event->kind = XY_STREAM_EVENT_CLOSED;
    return true;
}

/* The hot path: an element on a bound stream. */
bool stream_stanza(struct xy_stream *s, struct xy_xml_event *xml, struct xy_stream_event *event)
{
    event->verdict = xy_stanza_read(xml->arena, xml->elem, &event->stanza);
    if (event->verdict == XY_STANZA_UNKNOWN)
        return stream_fail_misplaced(s, event, xml->elem);
    event->kind = XY_STREAM_EVENT_STANZA;
    event->stanza.bytes = xml->bytes;
    return true;
}

static bool on_element(struct xy_stream *s, struct xy_xml_event *xml, struct xy_stream_event *event)
{
    s->scratch = xml->arena;
    bool made = s->role->on_element(s, xml, event);
    if (made && event->kind == XY_STREAM_EVENT_STANZA)
        s->scratch = NULL; /* the taker's */
    return made;
}

static bool on_xml(struct xy_stream *s, struct xy_xml_event *xml, struct xy_stream_event *event)
{
    switch (xml->kind) {
    case XY_XML_OPEN:
        s->scratch = xml->arena;
        return on_header(s, xml->elem, event);
    case XY_XML_ELEMENT:
        return on_element(s, xml, event);
    case XY_XML_CLOSE:
        return on_close(s, event);
    case XY_XML_ERROR:
        return stream_fail_parser(s, event, xml->error);
    case XY_XML_MORE:
        break;
    }
    return false;
}

static bool take_queued(struct xy_stream *s, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    if (!n || n->queued.kind == 0)
        return false;
    *event = n->queued;
    n->queued.kind = 0;
    return true;
}

static bool memory_failed(const struct xy_stream *s)
{
    const struct stream_negotiation *n = s->negotiation;
    return xy_buf_failed(&s->output) || xy_buf_failed(&s->pending) || xy_buf_failed(&s->window) ||
           (n && xy_arena_failed(n->arena));
}

bool xy_stream_next(struct xy_stream *s, struct xy_stream_event *event)
{
    struct xy_xml_event xml;
    *event = (struct xy_stream_event){ 0 };
    if (s->wait != WAIT_NONE && s->pending.len > XY_STREAM_HELD_MAX)
        return stream_fail(s, event, XY_STREAM_FAILED_PROTOCOL, XY_STREAM_POLICY_VIOLATION,
                           "Too much input at once.");
    if (s->state == STREAM_OVER)
        return take_queued(s, event);
    if (s->closed_in)
        return false;
    if (s->negotiation && s->state == STREAM_BOUND)
        stream_negotiation_free(s);
    while (s->state != STREAM_OVER && s->wait == WAIT_NONE) {
        give_arena(s, &s->scratch);
        if (memory_failed(s))
            return stream_fail(s, event, XY_STREAM_FAILED_MEMORY, XY_STREAM_RESOURCE_CONSTRAINT,
                               "Memory is short.");
        if (take_queued(s, event))
            return true;
        if (s->state == STREAM_AWAIT_TLS || (!s->parsing && !next_window(s)))
            return false;
        xy_xml_next(s->parser, &xml);
        if (xml.kind == XY_XML_MORE)
            s->parsing = false;
        else if (on_xml(s, &xml, event))
            return true;
    }
    return false;
}

/* --- XEP-0198 on a bound stream --- */

void stream_write_sm_failed(struct xy_stream *s, enum xy_condition condition, const uint32_t *h)
{
    xy_buf_lit(&s->output, "<failed xmlns='" NS_SM "'");
    if (h)
        xy_buf_printf(&s->output, " h='%u'", *h);
    xy_buf_printf(&s->output, "><%s xmlns='" NS_STANZA_ERRORS "'/></failed>", xy_condition_name(condition));
}

/* <a/> and <r/>. Before stream management is on they mean nothing and are ignored. */
bool stream_sm_element(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    bool request = xy_str_is(elem->name, "r");
    if (!request && !xy_str_is(elem->name, "a"))
        return stream_fail_misplaced(s, event, elem);
    if (!s->sm) {
        if (s->is_server)
            stream_write_sm_failed(s, XY_UNEXPECTED_REQUEST, NULL);
        return false;
    }
    event->kind = request ? XY_STREAM_EVENT_SM_REQUEST : XY_STREAM_EVENT_SM_ACK;
    if (!request && !xy_str_u32(xy_elem_attr(elem, "h"), &event->h)) {
        event->kind = XY_STREAM_EVENT_FAILED;
        event->failure = XY_STREAM_FAILED_PROTOCOL;
        event->error = XY_STREAM_UNDEFINED_CONDITION;
        event->text = XY_STR("an <a/> whose h is not a number below 2^32");
        stream_fail_ack_unreadable(s);
        return true;
    }
    return true;
}

/* --- Output --- */

struct xy_str xy_stream_output(const struct xy_stream *s)
{
    size_t waiting = s->output.len - s->output_sent;
    return waiting > 0 ? xy_str_n(s->output.data + s->output_sent, waiting) : XY_STR("");
}

void xy_stream_sent(struct xy_stream *s, size_t len)
{
    xy_assert(len <= s->output.len - s->output_sent);
    s->output_sent += len;
    if (s->output_sent < s->output.len)
        return;
    s->output_sent = 0;
    release_if_big(&s->output);
}

static bool can_send(const struct xy_stream *s)
{
    return s->state == STREAM_BOUND && !s->closed_out;
}

bool xy_stream_send_elem(struct xy_stream *s, const struct xy_elem *elem)
{
    if (can_send(s))
        xy_xml_write(&s->output, elem, XY_STR(NS_CLIENT));
    return can_send(s);
}

bool xy_stream_send_raw(struct xy_stream *s, struct xy_str raw)
{
    if (can_send(s))
        xy_buf_str(&s->output, raw);
    return can_send(s);
}

bool xy_stream_send_ack(struct xy_stream *s, uint32_t h)
{
    if (!can_send(s) || !s->sm)
        return false;
    xy_buf_lit(&s->output, "<a xmlns='" NS_SM "' h='");
    xy_buf_u64(&s->output, h);
    xy_buf_lit(&s->output, "'/>");
    return true;
}

bool xy_stream_send_request(struct xy_stream *s)
{
    if (!can_send(s) || !s->sm)
        return false;
    xy_buf_lit(&s->output, "<r xmlns='" NS_SM "'/>");
    return true;
}

void xy_stream_close(struct xy_stream *s)
{
    if (s->state != STREAM_OVER)
        stream_write_close(s);
}

/* --- State --- */

void xy_stream_tls_started(struct xy_stream *s, const struct xy_sasl_binding *bindings, size_t bindings_count)
{
    struct stream_negotiation *n = s->negotiation;
    if (s->state == STREAM_OVER)
        return;
    xy_assert(n != NULL && !s->tls && (s->state == STREAM_NEW || s->state == STREAM_AWAIT_TLS));
    s->tls = true;
    for (size_t i = 0; i < bindings_count && n->bindings_count < XY_SASL_BINDINGS_MAX; i++) {
        struct stream_binding *to = &n->bindings[n->bindings_count];
        struct xy_str type = xy_str(bindings[i].type), data = bindings[i].data;
        if (type.len == 0 || type.len >= sizeof to->type || data.len == 0 || data.len > sizeof to->data)
            continue;
        memcpy(to->type, type.data, type.len + 1);
        memcpy(to->data, data.data, data.len);
        to->len = data.len;
        n->bindings_count++;
    }
    if (s->state == STREAM_AWAIT_TLS) {
        s->state = STREAM_NEW;
        if (!s->is_server)
            xy_stream_client_open(s);
    }
}

struct xy_sasl_binding stream_binding_view(const struct stream_binding *binding)
{
    return (struct xy_sasl_binding){ binding->type, xy_str_n(binding->data, binding->len) };
}

bool xy_stream_is_bound(const struct xy_stream *s)
{
    return s->state == STREAM_BOUND;
}

bool xy_stream_is_over(const struct xy_stream *s)
{
    return s->state == STREAM_OVER || (s->closed_in && s->closed_out);
}

void xy_stream_sleep(struct xy_stream *s)
{
    if (s->state != STREAM_BOUND || s->parsing || s->pending.len > 0)
        return;
    give_arena(s, &s->scratch);
    stream_negotiation_free(s);
    xy_buf_free(&s->window);
    xy_buf_free(&s->pending);
    if (s->output.len == 0)
        xy_buf_free(&s->output);
    xy_xml_sleep(s->parser);
}

size_t xy_stream_memory(const struct xy_stream *s)
{
    size_t bytes = sizeof *s + s->output.cap + s->window.cap + s->pending.cap + xy_xml_memory(s->parser);
    if (s->negotiation)
        bytes += sizeof *s->negotiation + xy_arena_used(s->negotiation->arena);
    return bytes;
}
