/* The initiating side of a client-to-server stream. It drives itself: header, features, STARTTLS, SASL, then resume or
 * bind, session where an old server insists, stream management, READY. Every failure says in prose what the server said
 * and what to do about it. */
#include "core/stream/internal.h"

#include "core/base/assert.h"
#include "core/base/encoding.h"

#define BIND_ID    "xy-bind"
#define SESSION_ID "xy-session"

static bool fail(struct xy_stream *s, struct xy_stream_event *event, enum xy_stream_failure failure,
                 struct xy_str text)
{
    stream_fail(s, event, failure, XY_STREAM_NO_ERROR, NULL);
    event->text = text;
    return true;
}

/* --- Header and TLS --- */

void xy_stream_client_open(struct xy_stream *s)
{
    if (s->state == STREAM_OVER)
        return;
    xy_assert(s->state == STREAM_NEW);
    stream_write_client_header(s);
    s->state = STREAM_AWAIT_HEADER;
}

static bool on_header(struct xy_stream *s, const struct xy_elem *header, struct xy_stream_event *event)
{
    (void)header;
    if (s->state != STREAM_AWAIT_HEADER)
        return stream_fail(s, event, XY_STREAM_FAILED_PROTOCOL, XY_STREAM_INVALID_XML,
                           "A header out of turn.");
    s->state = STREAM_AWAIT_FEATURES;
    return false;
}

static bool start_tls(struct xy_stream *s)
{
    xy_buf_lit(&s->output, "<starttls xmlns='" NS_TLS "'/>");
    s->state = STREAM_AWAIT_PROCEED;
    return false;
}

static bool on_proceed(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    if (xy_elem_is(elem, "proceed", NS_TLS)) {
        stream_restart(s, false);
        s->state = STREAM_AWAIT_TLS;
        event->kind = XY_STREAM_EVENT_STARTTLS;
        return true;
    }
    if (xy_elem_is(elem, "failure", NS_TLS))
        return fail(
            s, event, XY_STREAM_FAILED_TLS,
            XY_STR("the server offered TLS and then refused it: its certificate or key may be unusable"));
    return stream_fail_misplaced(s, event, elem);
}

/* --- SASL --- */

static unsigned mechanisms_allowed(const struct xy_stream *s)
{
    const struct xy_stream_client_options *o = &s->negotiation->client;
    unsigned allowed = o->mechanisms ? o->mechanisms : (unsigned)XY_SASL_SCRAM_ALL | XY_SASL_PLAIN;
    if (!s->tls && !o->plain_without_tls)
        allowed &= ~(unsigned)XY_SASL_PLAIN;
    return allowed;
}

/* The strongest binding that both sides have (XEP-0440 3): without a list, the one every server must have. */
static const struct stream_binding *choose_binding(const struct stream_negotiation *n)
{
    for (size_t i = 0; i < n->bindings_count; i++) {
        bool listed = (n->features.binding_types & (1u << i)) != 0;
        bool assumed = !n->features.binding_types_known &&
                       xy_str_is(xy_str(n->bindings[i].type), "tls-server-end-point");
        if (listed || assumed)
            return &n->bindings[i];
    }
    return NULL;
}

static enum xy_sasl_mechanism choose_mechanism(const struct xy_stream *s, bool can_bind)
{
    unsigned both = mechanisms_allowed(s) & s->negotiation->features.mechanisms;
    if (!can_bind)
        both &= ~(unsigned)XY_SASL_PLUS_ALL;
    return (enum xy_sasl_mechanism)(both & (0u - both)); /* the lowest bit is the strongest */
}

static bool fail_no_mechanism(struct xy_stream *s, struct xy_stream_event *event)
{
    unsigned offered = s->negotiation->features.mechanisms;
    if (offered == XY_SASL_PLAIN && !s->tls)
        return fail(
            s, event, XY_STREAM_FAILED_MECHANISM,
            XY_STR(
                "the server only takes passwords in clear, and the connection has no TLS: use TLS, or allow "
                "PLAIN without it"));
    if (offered == 0)
        return fail(s, event, XY_STREAM_FAILED_MECHANISM,
                    XY_STR("the server offers no way to log in that is known here: it may want TLS first"));
    return fail(s, event, XY_STREAM_FAILED_MECHANISM,
                XY_STR("none of the ways to log in that the server offers is allowed here"));
}

static void write_auth(struct xy_stream *s, enum xy_sasl_mechanism mechanism, struct xy_str initial)
{
    xy_buf_printf(&s->output, "<auth xmlns='" NS_SASL "' mechanism='%s'>", xy_sasl_mechanism_name(mechanism));
    if (initial.len == 0)
        xy_buf_char(&s->output, '=');
    xy_base64_encode(&s->output, initial);
    xy_buf_lit(&s->output, "</auth>");
}

static bool start_sasl(struct xy_stream *s, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    const struct stream_binding *binding = choose_binding(n);
    n->mechanism = choose_mechanism(s, binding != NULL);
    if (n->mechanism == XY_SASL_NONE)
        return fail_no_mechanism(s, event);
    struct xy_sasl_binding view = binding ? stream_binding_view(binding) : (struct xy_sasl_binding){ 0 };
    struct xy_sasl_client_options options = { .env = s->options->env,
                                              .user = xy_jid_local(n->client.jid),
                                              .authzid = n->client.authzid,
                                              .password = n->client.password,
                                              .binding = binding ? &view : NULL };
    options.binding_possible = n->bindings_count > 0 && (n->features.mechanisms & XY_SASL_PLUS_ALL) == 0;
    n->sasl_client = xy_sasl_client_new(&options);
    if (!n->sasl_client)
        return fail(s, event, XY_STREAM_FAILED_AUTH,
                    XY_STR("the user name or password has characters not allowed "
                           "there (SASLprep), or memory is short"));
    struct xy_sasl_result r = xy_sasl_client_start(n->sasl_client, n->mechanism);
    if (r.step == XY_SASL_FAIL)
        return fail(s, event, XY_STREAM_FAILED_AUTH, xy_str(r.text));
    write_auth(s, n->mechanism, r.out);
    s->state = STREAM_AWAIT_SASL;
    return false;
}

static bool decode(struct xy_stream *s, const struct xy_elem *elem, struct xy_str *out)
{
    struct xy_str text = xy_str_trim(xy_elem_text(elem, s->scratch));
    *out = text.len == 0 ? XY_STR_NONE : XY_STR("");
    if (text.len == 0 || xy_str_is(text, "="))
        return true;
    return xy_base64_decode_arena(s->scratch, text, out);
}

static bool on_challenge(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    struct xy_str in;
    if (!decode(s, elem, &in))
        return fail(s, event, XY_STREAM_FAILED_SERVER_PROOF, XY_STR("the server's challenge is not base64"));
    struct xy_sasl_result r =
        xy_sasl_client_step(s->negotiation->sasl_client, xy_str_present(in) ? in : XY_STR(""));
    if (r.step == XY_SASL_FAIL) {
        xy_buf_lit(&s->output, "<abort xmlns='" NS_SASL "'/>");
        return fail(s, event, XY_STREAM_FAILED_SERVER_PROOF, xy_str(r.text));
    }
    xy_buf_lit(&s->output, "<response xmlns='" NS_SASL "'>");
    xy_base64_encode(&s->output, r.out);
    xy_buf_lit(&s->output, "</response>");
    return false;
}

static bool on_success(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    struct xy_str in;
    if (!decode(s, elem, &in))
        return fail(s, event, XY_STREAM_FAILED_SERVER_PROOF,
                    XY_STR("the server's last SASL message is not base64"));
    struct xy_sasl_result r = xy_sasl_client_success(n->sasl_client, in);
    if (r.step == XY_SASL_FAIL)
        return fail(s, event, XY_STREAM_FAILED_SERVER_PROOF, xy_str(r.text));
    xy_sasl_client_free(&n->sasl_client);
    n->authenticated = true;
    stream_restart(s, true);
    stream_write_client_header(s);
    s->state = STREAM_AWAIT_HEADER;
    return false;
}

static const char *const sasl_advice[XY_SASL_CONDITION_COUNT] = {
    [XY_SASL_ABORTED] = "the login was broken off",
    [XY_SASL_ACCOUNT_DISABLED] = "the account is disabled: ask the server's operator",
    [XY_SASL_CREDENTIALS_EXPIRED] = "the password has expired: set a new one",
    [XY_SASL_ENCRYPTION_REQUIRED] = "the server wants TLS before the login",
    [XY_SASL_INCORRECT_ENCODING] = "the server could not decode our message",
    [XY_SASL_INVALID_AUTHZID] = "the server does not let this account act as that address",
    [XY_SASL_INVALID_MECHANISM] = "the server does not take the mechanism that it offered",
    [XY_SASL_MALFORMED_REQUEST] = "the server did not understand our message",
    [XY_SASL_MECHANISM_TOO_WEAK] = "the server wants a stronger way to log in",
    [XY_SASL_NOT_AUTHORIZED] = "the user name or the password is wrong",
    [XY_SASL_TEMPORARY_AUTH_FAILURE] = "the server cannot check logins at the moment: try again later",
};

static bool on_failure(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    enum xy_sasl_condition condition = XY_SASL_NOT_AUTHORIZED;
    struct xy_str said = xy_elem_child_text(elem, "text", s->scratch);
    for (const struct xy_elem *child = xy_elem_first(elem); child; child = xy_elem_next(child))
        if (!xy_str_is(child->name, "text"))
            condition = xy_sasl_condition_find(child->name);
    struct xy_str text = xy_arena_printf(
        s->scratch, "login as %.*s by %s refused: %s (%s)%s%.*s", XY_ARG(xy_jid_bare(n->client.jid)),
        xy_sasl_mechanism_name(n->mechanism), sasl_advice[condition], xy_sasl_condition_name(condition),
        said.len ? "; the server says: " : "", XY_ARG(said));
    fail(s, event, XY_STREAM_FAILED_AUTH, text);
    event->sasl = condition;
    return true;
}

static bool on_sasl(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    if (xy_elem_is(elem, "challenge", NS_SASL))
        return on_challenge(s, elem, event);
    if (xy_elem_is(elem, "success", NS_SASL))
        return on_success(s, elem, event);
    if (xy_elem_is(elem, "failure", NS_SASL))
        return on_failure(s, elem, event);
    return stream_fail_misplaced(s, event, elem);
}

/* --- Features --- */

static bool start_bind(struct xy_stream *s)
{
    xy_buf_lit(&s->output, "<iq type='set' id='" BIND_ID "'><bind xmlns='" NS_BIND "'>");
    struct xy_str resource = xy_jid_resource(s->negotiation->client.jid);
    if (!xy_str_present(resource))
        resource = s->negotiation->client.resource;
    if (xy_str_present(resource)) {
        xy_buf_lit(&s->output, "<resource>");
        xy_xml_escape(&s->output, resource);
        xy_buf_lit(&s->output, "</resource>");
    }
    xy_buf_lit(&s->output, "</bind></iq>");
    s->state = STREAM_AWAIT_BIND;
    return false;
}

static bool start_resume(struct xy_stream *s)
{
    struct stream_negotiation *n = s->negotiation;
    xy_buf_lit(&s->output, "<resume xmlns='" NS_SM "'");
    xy_xml_attr(&s->output, "previd", n->client.previd);
    xy_buf_printf(&s->output, " h='%u'/>", n->client.previd_h);
    s->state = STREAM_AWAIT_RESUMED;
    return false;
}

static bool on_authenticated_features(struct xy_stream *s, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    if (n->features.sm && xy_str_present(n->client.previd))
        return start_resume(s);
    if (!n->features.bind)
        return fail(s, event, XY_STREAM_FAILED_BIND, XY_STR("the server does not offer resource binding"));
    return start_bind(s);
}

static bool on_features(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    if (!xy_elem_is(elem, "features", NS_STREAM))
        return stream_fail_misplaced(s, event, elem);
    stream_features_read(s, elem, &n->features);
    if (n->authenticated)
        return on_authenticated_features(s, event);
    if (!s->tls && n->features.starttls && n->client.tls != XY_STREAM_TLS_NONE)
        return start_tls(s);
    if (!s->tls && n->client.tls == XY_STREAM_TLS_REQUIRED)
        return fail(
            s, event, XY_STREAM_FAILED_TLS,
            XY_STR("the server does not offer TLS, or somebody hides the offer: not going on in clear"));
    if (!s->tls && n->features.starttls_required)
        return fail(s, event, XY_STREAM_FAILED_TLS,
                    XY_STR("the server requires TLS, which is switched off here"));
    return start_sasl(s, event);
}

/* --- Bind, session, stream management, ready --- */

static bool ready(struct xy_stream *s, struct xy_stream_event *event)
{
    *event = s->negotiation->ready;
    event->kind = XY_STREAM_EVENT_READY;
    event->sm = s->sm;
    event->secure = s->tls;
    stream_bound(s);
    return true;
}

static bool start_enable(struct xy_stream *s, struct xy_stream_event *event)
{
    const struct xy_stream_client_options *o = &s->negotiation->client;
    if (!o->sm || !s->negotiation->features.sm)
        return ready(s, event);
    xy_buf_lit(&s->output, "<enable xmlns='" NS_SM "'");
    if (o->sm_resume)
        xy_buf_lit(&s->output, " resume='true'");
    if (o->sm_max_seconds > 0)
        xy_buf_printf(&s->output, " max='%u'", o->sm_max_seconds);
    xy_buf_lit(&s->output, "/>");
    s->state = STREAM_AWAIT_ENABLED;
    return false;
}

static bool fail_bind(struct xy_stream *s, struct xy_stream_event *event, const struct xy_stanza *iq)
{
    struct xy_error error = xy_error_read(iq);
    struct xy_str text = xy_arena_printf(s->scratch, "the server refused to bind a resource: %s%s%s",
                                         xy_condition_name(error.condition), error.text ? "; it says: " : "",
                                         error.text ? error.text : "");
    fail(s, event, XY_STREAM_FAILED_BIND, text);
    event->condition = error.condition;
    return true;
}

/* An answer to the request with this id; anything else in its place is an error. */
static bool is_answer(const struct xy_stanza *iq, const char *id)
{
    return iq->kind == XY_IQ && (iq->type == XY_RESULT || iq->type == XY_ERROR) && xy_str_is(iq->id, id);
}

static bool on_bind_answer(struct xy_stream *s, struct xy_xml_event *xml, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    struct xy_stanza iq;
    struct xy_jid jid;
    if (xy_stanza_read(xml->arena, xml->elem, &iq) == XY_STANZA_UNKNOWN || !is_answer(&iq, BIND_ID))
        return stream_fail_misplaced(s, event, xml->elem);
    if (iq.type == XY_ERROR)
        return fail_bind(s, event, &iq);
    const struct xy_elem *bind = xy_elem_child(iq.elem, "bind", NS_BIND);
    struct xy_str text = bind ? xy_elem_child_text(bind, "jid", s->scratch) : XY_STR_NONE;
    if (!xy_jid_parse(n->arena, text, &jid) || xy_jid_is_bare(jid))
        return fail(s, event, XY_STREAM_FAILED_BIND,
                    XY_STR("the server bound a resource and did not say which"));
    n->ready.jid = xy_jid_canonical(xy_arena_str(n->arena, xy_jid_full(jid)));
    if (!n->features.session)
        return start_enable(s, event);
    xy_buf_lit(&s->output, "<iq type='set' id='" SESSION_ID "'><session xmlns='" NS_SESSION "'/></iq>");
    s->state = STREAM_AWAIT_SESSION;
    return false;
}

static bool on_session_answer(struct xy_stream *s, struct xy_xml_event *xml, struct xy_stream_event *event)
{
    struct xy_stanza iq;
    if (xy_stanza_read(xml->arena, xml->elem, &iq) == XY_STANZA_UNKNOWN)
        return stream_fail_misplaced(s, event, xml->elem);
    if (!is_answer(&iq, SESSION_ID))
        return stream_stanza(s, xml, event);
    if (iq.type == XY_ERROR)
        return fail_bind(s, event, &iq);
    return start_enable(s, event);
}

static bool on_enabled(struct xy_stream *s, struct xy_xml_event *xml, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    const struct xy_elem *elem = xml->elem;
    if (xy_elem_is(elem, "failed", NS_SM))
        return ready(s, event);
    if (!xy_elem_is(elem, "enabled", NS_SM))
        return stream_stanza(s, xml, event); /* not counted: XEP-0198 4 counts from <enabled/> on */
    s->sm = true;
    xy_str_bool(xy_elem_attr(elem, "resume"), &n->ready.resume);
    n->ready.sm_id = xy_arena_str(n->arena, xy_elem_attr(elem, "id"));
    n->ready.resume = n->ready.resume && n->ready.sm_id.len > 0 && n->ready.sm_id.len <= XY_STREAM_SM_ID_MAX;
    xy_str_u32(xy_elem_attr(elem, "max"), &n->ready.max_seconds);
    n->ready.location = xy_arena_str(n->arena, xy_elem_attr(elem, "location"));
    if (n->ready.location.len > XY_STREAM_LOCATION_MAX)
        n->ready.location = XY_STR_NONE;
    return ready(s, event);
}

static bool on_resumed(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    bool has_h = xy_str_u32(xy_elem_attr(elem, "h"), &n->ready.h);
    if (xy_elem_is(elem, "failed", NS_SM)) {
        n->ready.h_known = has_h;
        if (!n->features.bind)
            return fail(s, event, XY_STREAM_FAILED_BIND,
                        XY_STR("the server forgot the session and offers no new one"));
        return start_bind(s);
    }
    if (!xy_elem_is(elem, "resumed", NS_SM))
        return stream_fail_misplaced(s, event, elem);
    if (!has_h)
        return stream_fail(s, event, XY_STREAM_FAILED_PROTOCOL, XY_STREAM_BAD_FORMAT,
                           "<resumed/> without a readable h.");
    s->sm = true;
    n->ready.resumed = n->ready.h_known = true;
    n->ready.resume = true;
    xy_str_bool(xy_elem_attr_ns(elem, "restored", NS_XYLEM_DELIVERY), &n->ready.restored);
    n->ready.sm_id = n->client.previd;
    return ready(s, event);
}

static bool on_bound(struct xy_stream *s, struct xy_xml_event *xml, struct xy_stream_event *event)
{
    if (xy_str_is(xml->elem->ns, NS_SM))
        return stream_sm_element(s, xml->elem, event);
    if (xy_elem_is(xml->elem, "features", NS_STREAM))
        return false;
    return stream_stanza(s, xml, event);
}

/* --- The role --- */

static bool on_element(struct xy_stream *s, struct xy_xml_event *xml, struct xy_stream_event *event)
{
    if (s->state == STREAM_BOUND)
        return on_bound(s, xml, event);
    if (xy_elem_is(xml->elem, "error", NS_STREAM))
        return stream_fail_by_peer(s, event, xml->elem);
    switch (s->state) {
    case STREAM_AWAIT_FEATURES:
        return on_features(s, xml->elem, event);
    case STREAM_AWAIT_PROCEED:
        return on_proceed(s, xml->elem, event);
    case STREAM_AWAIT_SASL:
        return on_sasl(s, xml->elem, event);
    case STREAM_AWAIT_BIND:
        return on_bind_answer(s, xml, event);
    case STREAM_AWAIT_SESSION:
        return on_session_answer(s, xml, event);
    case STREAM_AWAIT_RESUMED:
        return on_resumed(s, xml->elem, event);
    case STREAM_AWAIT_ENABLED:
        return on_enabled(s, xml, event);
    default:
        return stream_fail_misplaced(s, event, xml->elem);
    }
}

static const struct stream_role client_role = { .on_header = on_header, .on_element = on_element };

struct xy_stream *xy_stream_client_new(const struct xy_stream_options *options,
                                       const struct xy_stream_client_options *client)
{
    struct xy_stream *s = stream_new(options, &client_role, false);
    if (!s)
        return NULL;
    struct stream_negotiation *n = s->negotiation;
    n->client = *client;
    n->client.jid = xy_jid_canonical(xy_arena_str(n->arena, xy_jid_full(client->jid)));
    n->client.password = xy_arena_str(n->arena, client->password);
    n->client.authzid = xy_arena_str(n->arena, client->authzid);
    n->client.resource = xy_arena_str(n->arena, client->resource);
    n->client.lang = xy_arena_str(n->arena, client->lang);
    n->client.previd = xy_arena_str(n->arena, client->previd);
    if (xy_arena_failed(n->arena))
        xy_stream_free(&s);
    return s;
}
