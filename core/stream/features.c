/* Stream headers and stream features: what the server writes and the client reads (RFC 6120 4.3.2, 4.7; XEP-0198 2,
 * XEP-0440, XEP-0478). Pure formatting and reading, no state changes but `header_sent`. */
#include "core/stream/internal.h"

#include "core/base/assert.h"

static void write_header_start(struct xy_buf *out)
{
    xy_buf_lit(out, "<?xml version='1.0'?><stream:stream xmlns='" NS_CLIENT "' xmlns:stream='" NS_STREAM
                    "' version='1.0'");
}

void stream_write_server_header(struct xy_stream *s)
{
    struct xy_buf *out = &s->output;
    struct stream_negotiation *n = s->negotiation;
    char id[XY_ID_LEN + 1];
    xy_random_id(s->options->env, id);
    write_header_start(out);
    xy_xml_attr(out, "id", xy_str(id));
    /* RFC 6120 4.9.1.3: an empty from where we are not whom the peer looks for */
    xy_xml_attr(out, "from", n && xy_str_present(n->offer.domain) ? n->offer.domain : XY_STR(""));
    if (n)
        xy_xml_attr(out, "to", n->peer_from);
    xy_buf_lit(out, " xml:lang='en'>");
    s->header_sent = true;
}

unsigned stream_mechanisms_offered(const struct xy_stream *s)
{
    const struct stream_negotiation *n = s->negotiation;
    unsigned mechanisms = n->offer.mechanisms;
    if (n->bindings_count == 0)
        mechanisms &= ~(unsigned)XY_SASL_PLUS_ALL;
    return n->offer.starttls_required && !s->tls ? 0 : mechanisms;
}

static void write_mechanisms(struct xy_stream *s, unsigned mechanisms)
{
    struct xy_buf *out = &s->output;
    struct stream_negotiation *n = s->negotiation;
    if (mechanisms & XY_SASL_PLUS_ALL) {
        xy_buf_lit(out, "<sasl-channel-binding xmlns='" NS_SASL_CB "'>");
        for (size_t i = 0; i < n->bindings_count; i++)
            xy_buf_printf(out, "<channel-binding type='%s'/>", n->bindings[i].type);
        xy_buf_lit(out, "</sasl-channel-binding>");
    }
    if (mechanisms == 0)
        return;
    xy_buf_lit(out, "<mechanisms xmlns='" NS_SASL "'>");
    for (unsigned bit = 1; bit <= XY_SASL_PLAIN; bit <<= 1)
        if (mechanisms & bit)
            xy_buf_printf(out, "<mechanism>%s</mechanism>",
                          xy_sasl_mechanism_name((enum xy_sasl_mechanism)bit));
    xy_buf_lit(out, "</mechanisms>");
}

static void write_limits(struct xy_stream *s, size_t bytes_max)
{
    xy_buf_lit(&s->output, "<limits xmlns='" NS_STREAM_LIMITS "'><max-bytes>");
    xy_buf_u64(&s->output, bytes_max);
    xy_buf_lit(&s->output, "</max-bytes>");
    if (s->options->idle_seconds > 0)
        xy_buf_printf(&s->output, "<idle-seconds>%u</idle-seconds>", s->options->idle_seconds);
    xy_buf_lit(&s->output, "</limits>");
}

void stream_write_server_features(struct xy_stream *s)
{
    struct xy_buf *out = &s->output;
    struct stream_negotiation *n = s->negotiation;
    xy_buf_lit(out, "<stream:features>");
    if (n->authenticated) {
        xy_buf_lit(out, "<bind xmlns='" NS_BIND "'/><session xmlns='" NS_SESSION "'><optional/></session>");
        if (s->sm_offered)
            xy_buf_lit(out, "<sm xmlns='" NS_SM "'/>");
        xy_buf_lit(out, "<csi xmlns='" NS_CSI "'/>");
        write_limits(s,
                     s->options->stanza_bytes_max ? s->options->stanza_bytes_max : XY_STANZA_BYTES_DEFAULT);
    } else {
        if (n->offer.starttls && !s->tls)
            xy_buf_printf(out, "<starttls xmlns='" NS_TLS "'>%s</starttls>",
                          n->offer.starttls_required ? "<required/>" : "");
        write_mechanisms(s, stream_mechanisms_offered(s));
        write_limits(s, XY_STANZA_BYTES_UNAUTHENTICATED);
    }
    xy_buf_lit(out, "</stream:features>");
}

void stream_write_client_header(struct xy_stream *s)
{
    struct xy_buf *out = &s->output;
    struct stream_negotiation *n = s->negotiation;
    write_header_start(out);
    xy_xml_attr(out, "to", xy_jid_domain(n->client.jid));
    /* RFC 6120 4.7.1: not in clear, who we are is nobody's business */
    if (s->tls && xy_str_present(xy_jid_local(n->client.jid)))
        xy_xml_attr(out, "from", xy_jid_bare(n->client.jid));
    xy_xml_attr(out, "xml:lang", n->client.lang);
    xy_buf_char(out, '>');
    s->header_sent = true;
}

static bool number_before(struct xy_str *text, char end, uint32_t *out)
{
    const char *at = text->len ? memchr(text->data, end, text->len) : NULL;
    if (!at)
        return false;
    struct xy_str digits = xy_str_n(text->data, (size_t)(at - text->data));
    *text = xy_str_n(at + 1, text->len - digits.len - 1);
    return xy_str_u32(digits, out);
}

bool stream_version_ok(const struct xy_elem *header)
{
    struct xy_str version = xy_elem_attr(header, "version");
    uint32_t major, minor;
    return number_before(&version, '.', &major) && xy_str_u32(version, &minor) && major >= 1;
}

/* --- Reading --- */

static void read_binding_types(struct stream_negotiation *n, const struct xy_elem *list,
                               struct stream_features *out)
{
    out->binding_types_known = true;
    const struct xy_elem *item = xy_elem_child(list, "channel-binding", NULL);
    for (; item; item = xy_elem_next_is(item, "channel-binding", NS_SASL_CB)) {
        struct xy_str type = xy_elem_attr(item, "type");
        for (size_t i = 0; i < n->bindings_count; i++)
            if (xy_str_is(type, n->bindings[i].type))
                out->binding_types |= 1u << i;
    }
}

static void read_mechanisms(struct xy_arena *arena, const struct xy_elem *list, struct stream_features *out)
{
    const struct xy_elem *item = xy_elem_child(list, "mechanism", NULL);
    for (; item; item = xy_elem_next_is(item, "mechanism", NS_SASL))
        out->mechanisms |= (unsigned)xy_sasl_mechanism_find(xy_str_trim(xy_elem_text(item, arena)));
}

static void read_limits(struct xy_stream *s, const struct xy_elem *limits)
{
    struct xy_stream_event *ready = &s->negotiation->ready;
    struct xy_str bytes = xy_str_trim(xy_elem_child_text(limits, "max-bytes", s->negotiation->arena));
    struct xy_str idle = xy_str_trim(xy_elem_child_text(limits, "idle-seconds", s->negotiation->arena));
    ready->peer_bytes_max = 0;
    ready->peer_idle_seconds = 0;
    xy_str_u64(bytes, &ready->peer_bytes_max);
    xy_str_u32(idle, &ready->peer_idle_seconds);
}

void stream_features_read(struct xy_stream *s, const struct xy_elem *elem, struct stream_features *out)
{
    *out = (struct stream_features){ 0 };
    const struct xy_elem *starttls = xy_elem_child(elem, "starttls", NS_TLS);
    const struct xy_elem *mechanisms = xy_elem_child(elem, "mechanisms", NS_SASL);
    const struct xy_elem *bindings = xy_elem_child(elem, "sasl-channel-binding", NS_SASL_CB);
    const struct xy_elem *session = xy_elem_child(elem, "session", NS_SESSION);
    const struct xy_elem *limits = xy_elem_child(elem, "limits", NS_STREAM_LIMITS);
    out->starttls = starttls != NULL;
    out->starttls_required = starttls && xy_elem_child(starttls, "required", NULL);
    out->bind = xy_elem_child(elem, "bind", NS_BIND) != NULL;
    out->session = session && !xy_elem_child(session, "optional", NULL);
    out->sm = xy_elem_child(elem, "sm", NS_SM) != NULL;
    if (mechanisms)
        read_mechanisms(s->negotiation->arena, mechanisms, out);
    if (bindings)
        read_binding_types(s->negotiation, bindings, out);
    if (limits)
        read_limits(s, limits);
}
