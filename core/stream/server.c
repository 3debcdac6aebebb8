/* The receiving side of a client-to-server stream: header, STARTTLS, login (server_sasl.c), resource binding, XEP-0198
 * negotiation, then stanzas. Every state has its own function for what may come in it; whatever else comes ends the
 * stream with the error that RFC 6120 names. */
#include "core/stream/internal.h"

#include "core/base/assert.h"

/* --- Header --- */

static bool on_first_header(struct xy_stream *s, const struct xy_elem *header, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    struct xy_str to = xy_elem_attr(header, "to"), domain = XY_STR_NONE;
    struct xy_jid from;
    if (xy_jid_parse(s->scratch, xy_elem_attr(header, "from"), &from))
        n->peer_from = xy_arena_str(n->arena, xy_jid_full(from));
    n->host_named = xy_str_present(to);
    if (n->host_named && !xy_jid_prep_domain(s->scratch, to, &domain))
        return stream_fail(s, event, XY_STREAM_FAILED_PROTOCOL, XY_STREAM_HOST_UNKNOWN,
                           "The header must say in 'to' which domain it is for.");
    event->kind = XY_STREAM_EVENT_OPENED;
    event->to = domain;
    event->from = n->peer_from;
    event->lang = xy_elem_attr_ns(header, "lang", NS_XML);
    event->secure = s->tls;
    s->state = STREAM_AWAIT_ACCEPT;
    s->wait = WAIT_ACCEPT;
    return true;
}

/* The host of the first header again; left out only if it was left out there. */
static bool is_same_host(struct xy_stream *s, struct xy_str to)
{
    struct stream_negotiation *n = s->negotiation;
    struct xy_str domain;
    if (!xy_str_present(to))
        return !n->host_named;
    return xy_jid_prep_domain(s->scratch, to, &domain) && xy_str_eq(domain, n->offer.domain);
}

/* Behind <success/>: nothing to ask the owner, but it must be the same host (hostile input 24). */
static bool on_second_header(struct xy_stream *s, const struct xy_elem *header, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    if (!is_same_host(s, xy_elem_attr(header, "to")))
        return stream_fail(s, event, XY_STREAM_FAILED_PROTOCOL, XY_STREAM_HOST_UNKNOWN,
                           "The stream was authenticated for another domain.");
    n->peer_from = xy_jid_full(n->jid);
    stream_write_server_header(s);
    stream_write_server_features(s);
    s->state = STREAM_BINDING;
    return false;
}

static bool on_header(struct xy_stream *s, const struct xy_elem *header, struct xy_stream_event *event)
{
    xy_assert(s->state == STREAM_NEW || s->state == STREAM_AUTHENTICATED);
    if (s->state == STREAM_AUTHENTICATED)
        return on_second_header(s, header, event);
    return on_first_header(s, header, event);
}

void xy_stream_accept(struct xy_stream *s, const struct xy_stream_offer *offer)
{
    struct stream_negotiation *n = s->negotiation;
    if (s->state == STREAM_OVER)
        return;
    xy_assert(s->wait == WAIT_ACCEPT);
    n->offer = *offer;
    n->offer.domain = xy_arena_str(n->arena, offer->domain);
    s->sm_offered = offer->sm;
    s->wait = WAIT_NONE;
    s->state = STREAM_UNAUTHENTICATED;
    stream_write_server_header(s);
    stream_write_server_features(s);
}

/* --- Before authentication --- */

static bool on_starttls(struct xy_stream *s, struct xy_stream_event *event)
{
    if (s->tls || !s->negotiation->offer.starttls) {
        xy_buf_lit(&s->output, "<failure xmlns='" NS_TLS "'/>");
        return stream_fail(s, event, XY_STREAM_FAILED_TLS, XY_STREAM_NO_ERROR,
                           "STARTTLS where it was not offered");
    }
    xy_buf_lit(&s->output, "<proceed xmlns='" NS_TLS "'/>");
    xy_sasl_server_free(&s->negotiation->sasl);
    stream_restart(s, false);
    s->state = STREAM_AWAIT_TLS;
    event->kind = XY_STREAM_EVENT_STARTTLS;
    return true;
}

static bool too_many_tries(struct xy_stream *s, struct xy_stream_event *event)
{
    if (++s->tries <= STREAM_BIND_TRIES)
        return false;
    return stream_fail(s, event, XY_STREAM_FAILED_PROTOCOL, XY_STREAM_POLICY_VIOLATION,
                       "Too many failed requests.");
}

/* XEP-0198 3: <enable/> or <resume/> out of order is answered, not punished (hostile input 53). */
static bool refuse_sm(struct xy_stream *s, struct xy_stream_event *event, enum xy_condition condition)
{
    stream_write_sm_failed(s, condition, NULL);
    return too_many_tries(s, event);
}

static bool is_sm_negotiation(const struct xy_elem *elem)
{
    return xy_elem_is(elem, "enable", NS_SM) || xy_elem_is(elem, "resume", NS_SM);
}

static bool on_unauthenticated(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    if (xy_elem_is(elem, "starttls", NS_TLS))
        return on_starttls(s, event);
    if (xy_str_is(elem->ns, NS_SASL))
        return stream_server_sasl(s, elem, event);
    if (is_sm_negotiation(elem))
        return refuse_sm(s, event, XY_UNEXPECTED_REQUEST);
    return stream_fail_misplaced(s, event, elem);
}

/* --- Resource binding, RFC 6120 7 --- */

static void write_reply(struct xy_stream *s, const struct xy_elem *reply)
{
    if (reply)
        xy_xml_write(&s->output, reply, XY_STR(NS_CLIENT));
}

static void write_iq_error(struct xy_stream *s, const struct xy_stanza *request, const struct xy_error *error)
{
    write_reply(s, xy_error_reply(request->arena, request, error));
}

static bool refuse_bind(struct xy_stream *s, const struct xy_stanza *request, struct xy_stream_event *event)
{
    struct xy_error error = xy_error_make(XY_BAD_REQUEST, "This is no resource that can be bound.");
    write_iq_error(s, request, &error);
    return too_many_tries(s, event);
}

static bool on_bind(struct xy_stream *s, const struct xy_stanza *iq, const struct xy_elem *bind,
                    struct xy_stream_event *event)
{
    struct xy_str text = xy_elem_child_text(bind, "resource", iq->arena);
    if (iq->type != XY_SET)
        return refuse_bind(s, iq, event);
    if (text.len > 0 && !xy_jid_prep_resource(iq->arena, text, &event->resource))
        return refuse_bind(s, iq, event);
    s->negotiation->bind_request = *iq;
    s->wait = WAIT_BIND;
    event->kind = XY_STREAM_EVENT_BIND;
    event->jid = s->negotiation->jid;
    return true;
}

void xy_stream_bound(struct xy_stream *s, struct xy_jid full)
{
    if (s->state == STREAM_OVER)
        return;
    xy_assert(s->wait == WAIT_BIND && !xy_jid_is_bare(full));
    struct xy_stanza *request = &s->negotiation->bind_request;
    struct xy_elem *reply = xy_stanza_result(request->arena, request);
    struct xy_elem *bind = xy_elem_add(request->arena, reply, "bind", NS_BIND);
    struct xy_elem *jid = xy_elem_add(request->arena, bind, "jid", NS_BIND);
    /* RFC 6120 7.6.1: neither is part of the answer, whatever the request said */
    xy_elem_set(request->arena, reply, "from", XY_STR_NONE);
    xy_elem_add_text(request->arena, jid, xy_jid_full(full));
    write_reply(s, reply);
    stream_bound(s);
}

void xy_stream_bind_failed(struct xy_stream *s, const struct xy_error *error)
{
    if (s->state == STREAM_OVER)
        return;
    xy_assert(s->wait == WAIT_BIND);
    s->wait = WAIT_NONE;
    write_iq_error(s, &s->negotiation->bind_request, error);
    too_many_tries(s, &s->negotiation->queued);
}

static bool on_resume(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    struct xy_str previd = xy_elem_attr(elem, "previd");
    if (!s->sm_offered)
        return refuse_sm(s, event, XY_FEATURE_NOT_IMPLEMENTED);
    if (previd.len == 0 || previd.len > XY_STREAM_SM_ID_MAX ||
        !xy_str_u32(xy_elem_attr(elem, "h"), &event->h))
        return refuse_sm(s, event, XY_BAD_REQUEST);
    event->kind = XY_STREAM_EVENT_SM_RESUME;
    event->sm_id = previd;
    event->jid = s->negotiation->jid;
    s->wait = WAIT_RESUME;
    return true;
}

static bool on_binding(struct xy_stream *s, struct xy_xml_event *xml, struct xy_stream_event *event)
{
    struct xy_elem *elem = xml->elem;
    if (xy_elem_is(elem, "resume", NS_SM))
        return on_resume(s, elem, event);
    if (xy_elem_is(elem, "enable", NS_SM))
        return refuse_sm(s, event, XY_UNEXPECTED_REQUEST);
    const struct xy_elem *bind =
        xy_elem_is(elem, "iq", NS_CLIENT) ? xy_elem_child(elem, "bind", NS_BIND) : NULL;
    if (!bind)
        return stream_fail_misplaced(s, event, elem);
    struct xy_stanza iq;
    if (xy_stanza_read(xml->arena, elem, &iq) != XY_STANZA_OK)
        return refuse_bind(s, &iq, event);
    return on_bind(s, &iq, bind, event);
}

/* --- Bound --- */

static bool on_enable(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    if (s->sm_tried || s->stanza_seen)
        return refuse_sm(s, event, XY_UNEXPECTED_REQUEST);
    s->sm_tried = true;
    if (!s->sm_offered)
        return refuse_sm(s, event, XY_FEATURE_NOT_IMPLEMENTED);
    event->kind = XY_STREAM_EVENT_SM_ENABLE;
    xy_str_bool(xy_elem_attr(elem, "resume"), &event->resume);
    xy_str_u32(xy_elem_attr(elem, "max"), &event->max_seconds);
    s->wait = WAIT_ENABLE;
    return true;
}

/* RFC 3921's <session/> is granted and means nothing; a second resource on one stream is refused (hostile input 40).
 * NULL: an ordinary stanza. The owner gets these too, because XEP-0198 counts them. */
static struct xy_elem *reply_here(const struct xy_stanza *iq)
{
    if (iq->kind != XY_IQ || iq->type != XY_SET)
        return NULL;
    const struct xy_elem *child = xy_elem_first(iq->elem);
    if (xy_elem_is(child, "session", NS_SESSION))
        return xy_stanza_result(iq->arena, iq);
    if (!xy_elem_is(child, "bind", NS_BIND))
        return NULL;
    struct xy_error error = xy_error_make(XY_NOT_ALLOWED, "A resource is bound already.");
    return xy_error_reply(iq->arena, iq, &error);
}

static void answer_here(struct xy_stream *s, struct xy_stream_event *event)
{
    struct xy_elem *reply = event->verdict == XY_STANZA_OK ? reply_here(&event->stanza) : NULL;
    event->answered = reply != NULL;
    if (s->sm)
        event->reply = reply;
    else
        write_reply(s, reply);
}

/* XEP-0352: whether somebody looks at what the client gets. */
static bool on_client_state(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    event->active = xy_str_is(elem->name, "active");
    if (!event->active && !xy_str_is(elem->name, "inactive"))
        return stream_fail_misplaced(s, event, elem);
    event->kind = XY_STREAM_EVENT_CLIENT_STATE;
    return true;
}

static bool on_bound(struct xy_stream *s, struct xy_xml_event *xml, struct xy_stream_event *event)
{
    if (xy_str_is(xml->elem->ns, NS_SM)) {
        if (xy_str_is(xml->elem->name, "enable"))
            return on_enable(s, xml->elem, event);
        if (xy_str_is(xml->elem->name, "resume"))
            return refuse_sm(s, event, XY_UNEXPECTED_REQUEST);
        return stream_sm_element(s, xml->elem, event);
    }
    if (xy_str_is(xml->elem->ns, NS_CSI))
        return on_client_state(s, xml->elem, event);
    if (!stream_stanza(s, xml, event) || event->kind != XY_STREAM_EVENT_STANZA)
        return true;
    answer_here(s, event);
    s->stanza_seen = s->stanza_seen || !event->answered;
    return true;
}

void xy_stream_sm_enabled(struct xy_stream *s, struct xy_str id, uint32_t max_seconds, struct xy_str location)
{
    if (s->state == STREAM_OVER)
        return;
    xy_assert(s->wait == WAIT_ENABLE);
    s->wait = WAIT_NONE;
    s->sm = true;
    xy_buf_lit(&s->output, "<enabled xmlns='" NS_SM "'");
    if (xy_str_present(id)) {
        xy_xml_attr(&s->output, "id", id);
        xy_buf_lit(&s->output, " resume='true'");
    }
    if (max_seconds > 0)
        xy_buf_printf(&s->output, " max='%u'", max_seconds);
    xy_xml_attr(&s->output, "location", location);
    xy_buf_lit(&s->output, "/>");
}

void xy_stream_sm_resumed(struct xy_stream *s, struct xy_str previd, uint32_t h, bool restored)
{
    if (s->state == STREAM_OVER)
        return;
    xy_assert(s->wait == WAIT_RESUME);
    xy_buf_lit(&s->output, "<resumed xmlns='" NS_SM "'");
    xy_xml_attr(&s->output, "previd", previd);
    xy_buf_printf(&s->output, " h='%u'", h);
    if (restored)
        xy_buf_lit(&s->output, " xmlns:d='" NS_XYLEM_DELIVERY "' d:restored='true'");
    xy_buf_lit(&s->output, "/>");
    s->sm = s->sm_tried = true;
    stream_bound(s);
}

void xy_stream_sm_failed(struct xy_stream *s, enum xy_condition condition, const uint32_t *h)
{
    if (s->state == STREAM_OVER)
        return;
    xy_assert(s->wait == WAIT_RESUME || s->wait == WAIT_ENABLE);
    bool resuming = s->wait == WAIT_RESUME;
    s->wait = WAIT_NONE;
    stream_write_sm_failed(s, condition, h);
    if (resuming)
        too_many_tries(s, &s->negotiation->queued);
}

/* --- The role --- */

static bool on_element(struct xy_stream *s, struct xy_xml_event *xml, struct xy_stream_event *event)
{
    if (s->state == STREAM_BOUND)
        return on_bound(s, xml, event);
    if (s->state == STREAM_BINDING)
        return on_binding(s, xml, event);
    xy_assert(s->state == STREAM_UNAUTHENTICATED);
    return on_unauthenticated(s, xml->elem, event);
}

static const struct stream_role server_role = { .on_header = on_header, .on_element = on_element };

struct xy_stream *xy_stream_server_new(const struct xy_stream_options *options)
{
    return stream_new(options, &server_role, true);
}
