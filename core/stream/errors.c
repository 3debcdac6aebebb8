/* The ends of a stream: our stream errors, the peer's, the closing tag (RFC 6120 4.4, 4.9). An error is written once,
 * after our header where that is still missing, and nothing is read afterwards. */
#include "core/stream/internal.h"

void stream_over(struct xy_stream *s)
{
    s->state = STREAM_OVER;
    s->wait = WAIT_NONE;
    s->parsing = false;
    xy_buf_free(&s->pending);
    if (s->negotiation) { /* it may hold the event that says why */
        xy_sasl_server_free(&s->negotiation->sasl);
        xy_sasl_client_free(&s->negotiation->sasl_client);
    }
}

void stream_write_close(struct xy_stream *s)
{
    if (s->closed_out)
        return;
    s->closed_out = true;
    if (s->header_sent)
        xy_buf_lit(&s->output, "</stream:stream>");
}

static void write_error(struct xy_stream *s, enum xy_stream_error error, const char *text, struct xy_str app)
{
    if (s->closed_out)
        return;
    if (!s->header_sent && s->is_server)
        stream_write_server_header(s);
    if (s->header_sent) {
        xy_buf_printf(&s->output, "<stream:error><%s xmlns='" NS_STREAM_ERRORS "'/>",
                      xy_stream_error_name(error));
        if (text) {
            xy_buf_lit(&s->output, "<text xml:lang='en' xmlns='" NS_STREAM_ERRORS "'>");
            xy_xml_escape(&s->output, xy_str(text));
            xy_buf_lit(&s->output, "</text>");
        }
        xy_buf_str(&s->output, app);
        xy_buf_lit(&s->output, "</stream:error>");
    }
    stream_write_close(s);
}

bool stream_fail(struct xy_stream *s, struct xy_stream_event *event, enum xy_stream_failure failure,
                 enum xy_stream_error error, const char *text)
{
    if (error != XY_STREAM_NO_ERROR)
        write_error(s, error, text, XY_STR_NONE);
    else
        stream_write_close(s);
    event->kind = XY_STREAM_EVENT_FAILED;
    event->failure = failure;
    event->error = error;
    event->text = xy_str(text);
    stream_over(s);
    return true;
}

void xy_stream_fail(struct xy_stream *s, enum xy_stream_error error, const char *text)
{
    if (s->state == STREAM_OVER)
        return;
    write_error(s, error, text, XY_STR_NONE);
    stream_over(s);
}

void xy_stream_fail_ack(struct xy_stream *s, uint32_t h, uint32_t send_count)
{
    struct xy_buf app = { 0 };
    if (s->state == STREAM_OVER)
        return;
    xy_buf_printf(&app, "<handled-count-too-high xmlns='" NS_SM "' h='%u' send-count='%u'/>", h, send_count);
    write_error(s, XY_STREAM_UNDEFINED_CONDITION, "You acknowledged more stanzas than you were sent.",
                xy_buf_view(&app));
    xy_buf_free(&app);
    stream_over(s);
}

/* No h and no send-count: what came was no number, and what was sent only the owner knows. */
void stream_fail_ack_unreadable(struct xy_stream *s)
{
    write_error(s, XY_STREAM_UNDEFINED_CONDITION, "The h of an <a/> must be a number below 2^32.",
                XY_STR("<handled-count-too-high xmlns='" NS_SM "'/>"));
    stream_over(s);
}

static const struct {
    enum xy_stream_error error;
    const char *text;
} parser_errors[] = {
    [XY_XML_NOT_WELL_FORMED] = { XY_STREAM_NOT_WELL_FORMED, "The XML is not well-formed." },
    [XY_XML_BAD_PREFIX] = { XY_STREAM_BAD_NAMESPACE_PREFIX, "A namespace prefix is not declared." },
    [XY_XML_RESTRICTED] = { XY_STREAM_RESTRICTED_XML,
                            "Comments, processing instructions, DTDs and entities are not allowed here." },
    [XY_XML_UNSUPPORTED_ENCODING] = { XY_STREAM_UNSUPPORTED_ENCODING, "Only UTF-8 is spoken here." },
    [XY_XML_TOO_BIG] = { XY_STREAM_POLICY_VIOLATION, "The element is larger than the advertised max-bytes." },
    [XY_XML_TOO_DEEP] = { XY_STREAM_POLICY_VIOLATION,
                          "The element has too many levels, attributes or namespaces, or too long names." },
    [XY_XML_TEXT_AT_TOP] = { XY_STREAM_INVALID_XML, "There is text between stanzas." },
    [XY_XML_NO_MEMORY] = { XY_STREAM_RESOURCE_CONSTRAINT, "Memory is short." },
};

bool stream_fail_parser(struct xy_stream *s, struct xy_stream_event *event, enum xy_xml_error error)
{
    bool memory = error == XY_XML_NO_MEMORY;
    return stream_fail(s, event, memory ? XY_STREAM_FAILED_MEMORY : XY_STREAM_FAILED_PROTOCOL,
                       parser_errors[error].error, parser_errors[error].text);
}

bool stream_fail_by_peer(struct xy_stream *s, struct xy_stream_event *event, const struct xy_elem *elem)
{
    event->kind = XY_STREAM_EVENT_FAILED;
    event->failure = XY_STREAM_FAILED_BY_PEER;
    event->error = XY_STREAM_UNDEFINED_CONDITION;
    for (const struct xy_elem *child = xy_elem_first(elem); child; child = xy_elem_next(child)) {
        if (!xy_str_is(child->ns, NS_STREAM_ERRORS))
            continue;
        if (xy_str_is(child->name, "text")) {
            event->text = xy_elem_text(child, s->scratch);
            continue;
        }
        enum xy_stream_error error = xy_stream_error_find(child->name);
        if (error != XY_STREAM_NO_ERROR)
            event->error = error;
        if (error == XY_STREAM_SEE_OTHER_HOST)
            event->location = xy_str_trim(xy_elem_text(child, s->scratch));
    }
    if (!xy_str_present(event->text))
        event->text = xy_str(xy_stream_error_name(event->error));
    stream_write_close(s);
    stream_over(s);
    return true;
}

static bool is_stanza_name(struct xy_str name)
{
    return xy_str_is(name, "message") || xy_str_is(name, "presence") || xy_str_is(name, "iq");
}

bool stream_fail_misplaced(struct xy_stream *s, struct xy_stream_event *event, const struct xy_elem *elem)
{
    if (xy_elem_is(elem, "error", NS_STREAM))
        return stream_fail_by_peer(s, event, elem);
    if (xy_elem_is(elem, "stream", NS_STREAM))
        return stream_fail(s, event, XY_STREAM_FAILED_PROTOCOL, XY_STREAM_INVALID_XML,
                           "A second stream header inside the stream.");
    if (is_stanza_name(elem->name) && xy_str_is(elem->ns, NS_CLIENT))
        return stream_fail(s, event, XY_STREAM_FAILED_PROTOCOL, XY_STREAM_NOT_AUTHORIZED,
                           "No stanzas before authentication and resource binding.");
    if (is_stanza_name(elem->name))
        return stream_fail(s, event, XY_STREAM_FAILED_PROTOCOL, XY_STREAM_INVALID_NAMESPACE,
                           "Stanzas on this stream belong to the namespace jabber:client.");
    return stream_fail(s, event, XY_STREAM_FAILED_PROTOCOL, XY_STREAM_UNSUPPORTED_STANZA_TYPE,
                       "This element is not understood here.");
}
