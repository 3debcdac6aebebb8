/* SASL on the server's stream: XML and base64 around core/sasl, the questions to the owner, and what follows from its
 * answers (RFC 6120 6). Failures are counted; too many end the stream. Called by server.c. */
#include "core/stream/internal.h"

#include "core/base/assert.h"
#include "core/base/encoding.h"

static unsigned tries_max(const struct xy_stream *s)
{
    return s->options->auth_tries_max ? s->options->auth_tries_max : XY_STREAM_AUTH_TRIES_MAX;
}

/* <failure/>; at the last try also the end of the stream. Fills `event` either way. */
static void refuse(struct xy_stream *s, enum xy_sasl_condition condition, const char *text,
                   struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    xy_buf_printf(&s->output, "<failure xmlns='" NS_SASL "'><%s/></failure>",
                  xy_sasl_condition_name(condition));
    xy_sasl_server_free(&n->sasl);
    s->wait = WAIT_NONE;
    *event = (struct xy_stream_event){ .kind = XY_STREAM_EVENT_SASL_FAILED,
                                       .mechanism = n->mechanism,
                                       .user = xy_jid_local(n->jid),
                                       .sasl = condition,
                                       .text = xy_str(text) };
    n->jid = (struct xy_jid){ 0 };
    n->auth_tries++;
}

/* Behind refuse: was that the last try? */
static bool end_if_too_many(struct xy_stream *s, struct xy_stream_event *event)
{
    if (s->negotiation->auth_tries < tries_max(s))
        return true;
    stream_fail(s, event, XY_STREAM_FAILED_AUTH, XY_STREAM_POLICY_VIOLATION, "Too many failed logins.");
    return true;
}

static void success(struct xy_stream *s, const struct xy_sasl_result *r, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    xy_buf_lit(&s->output, "<success xmlns='" NS_SASL "'>");
    if (xy_str_present(r->out))
        xy_base64_encode(&s->output, r->out);
    xy_buf_lit(&s->output, "</success>");
    xy_sasl_server_free(&n->sasl);
    size_t bytes_max = s->options->stanza_bytes_max;
    xy_xml_set_max(s->parser, bytes_max ? bytes_max : XY_STANZA_BYTES_DEFAULT);
    stream_restart(s, true);
    s->wait = WAIT_NONE;
    s->state = STREAM_AUTHENTICATED;
    n->authenticated = true;
    *event = (struct xy_stream_event){ .kind = XY_STREAM_EVENT_AUTHENTICATED,
                                       .mechanism = n->mechanism,
                                       .user = xy_jid_local(n->jid),
                                       .jid = n->jid,
                                       .secure = s->tls };
}

static void challenge(struct xy_stream *s, struct xy_str out)
{
    xy_buf_lit(&s->output, "<challenge xmlns='" NS_SASL "'>");
    xy_base64_encode(&s->output, out);
    xy_buf_lit(&s->output, "</challenge>");
    s->wait = WAIT_NONE;
}

/* Who wants in, as a JID of this domain. Then: does the authorization identity, if any, name the same (hostile 34)? */
static enum xy_sasl_condition identify(struct xy_stream *s, const struct xy_sasl_result *r)
{
    struct stream_negotiation *n = s->negotiation;
    struct xy_str local;
    struct xy_jid authzid;
    if (!xy_jid_prep_local(n->arena, r->user, &local) ||
        !xy_jid_make(n->arena, local, n->offer.domain, XY_STR_NONE, &n->jid))
        return XY_SASL_NOT_AUTHORIZED;
    if (r->authzid.len == 0)
        return XY_SASL_NO_FAILURE;
    bool same = xy_jid_parse(n->arena, r->authzid, &authzid) && xy_jid_eq(authzid, n->jid);
    return same ? XY_SASL_NO_FAILURE : XY_SASL_INVALID_AUTHZID;
}

static bool ask(struct xy_stream *s, const struct xy_sasl_result *r, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    static const struct {
        enum xy_stream_event_kind kind;
        enum stream_wait wait;
    } questions[] = {
        [XY_SASL_NEED_KEYS] = { XY_STREAM_EVENT_SASL_KEYS, WAIT_KEYS },
        [XY_SASL_CHECK_PASSWORD] = { XY_STREAM_EVENT_SASL_PASSWORD, WAIT_PASSWORD },
        [XY_SASL_CHECK_EXTERNAL] = { XY_STREAM_EVENT_SASL_EXTERNAL, WAIT_EXTERNAL },
    };
    event->kind = questions[r->step].kind;
    event->mechanism = n->mechanism;
    event->hash = r->hash;
    event->password = r->password;
    event->secure = s->tls;
    if (r->step == XY_SASL_CHECK_EXTERNAL) {
        n->authzid = xy_arena_str(n->arena, r->authzid);
        event->authzid = n->authzid;
    } else {
        event->user = xy_jid_local(n->jid);
        event->jid = n->jid;
    }
    s->wait = questions[r->step].wait;
    return true;
}

/* What core/sasl said, turned into output and perhaps an event. */
static bool follow(struct xy_stream *s, struct xy_sasl_result r, struct xy_stream_event *event)
{
    if (r.step == XY_SASL_NEED_KEYS || r.step == XY_SASL_CHECK_PASSWORD) {
        enum xy_sasl_condition condition = identify(s, &r);
        if (condition != XY_SASL_NO_FAILURE) {
            refuse(s, condition, "the user name or authorization identity cannot be used", event);
            return end_if_too_many(s, event);
        }
    }
    switch (r.step) {
    case XY_SASL_CONTINUE:
        challenge(s, r.out);
        return false;
    case XY_SASL_DONE:
        success(s, &r, event);
        return true;
    case XY_SASL_FAIL:
        refuse(s, r.condition, r.text, event);
        return end_if_too_many(s, event);
    case XY_SASL_NEED_KEYS:
    case XY_SASL_CHECK_PASSWORD:
    case XY_SASL_CHECK_EXTERNAL:
        break;
    }
    return ask(s, &r, event);
}

static bool fail_with(struct xy_stream *s, struct xy_stream_event *event, enum xy_sasl_condition condition,
                      const char *text)
{
    refuse(s, condition, text, event);
    return end_if_too_many(s, event);
}

/* --- Elements --- */

/* "=" is an empty message, nothing is no message (RFC 6120 6.4.2). false: not base64. */
static bool decode(struct xy_stream *s, const struct xy_elem *elem, struct xy_str *out)
{
    struct xy_str text = xy_elem_text(elem, s->scratch);
    *out = text.len == 0 ? XY_STR_NONE : XY_STR("");
    if (text.len == 0 || xy_str_is(text, "="))
        return true;
    return xy_base64_decode_arena(s->scratch, text, out);
}

static struct xy_sasl_server *sasl_new(struct xy_stream *s)
{
    struct stream_negotiation *n = s->negotiation;
    struct xy_sasl_binding bindings[XY_SASL_BINDINGS_MAX];
    for (size_t i = 0; i < n->bindings_count; i++)
        bindings[i] = stream_binding_view(&n->bindings[i]);
    struct xy_sasl_server_options options = { .env = s->options->env,
                                              .secret = s->options->sasl_secret,
                                              .offered = stream_mechanisms_offered(s),
                                              .bindings = bindings,
                                              .bindings_count = n->bindings_count };
    return xy_sasl_server_new(&options);
}

static bool on_auth(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    struct xy_str initial;
    xy_sasl_server_free(&n->sasl); /* RFC 6120 6.4.2: an attempt under way is discarded */
    n->mechanism = xy_sasl_mechanism_find(xy_elem_attr(elem, "mechanism"));
    if (n->offer.starttls_required && !s->tls)
        return fail_with(s, event, XY_SASL_ENCRYPTION_REQUIRED, "a login in clear where TLS is required");
    if (((unsigned)n->mechanism & stream_mechanisms_offered(s)) == 0)
        return fail_with(s, event, XY_SASL_INVALID_MECHANISM, "a mechanism that was not offered");
    if (!decode(s, elem, &initial))
        return fail_with(s, event, XY_SASL_INCORRECT_ENCODING, "the initial response is not base64");
    n->sasl = sasl_new(s);
    if (!n->sasl)
        return fail_with(s, event, XY_SASL_TEMPORARY_AUTH_FAILURE, "out of memory");
    return follow(s, xy_sasl_server_start(n->sasl, n->mechanism, initial), event);
}

static bool on_response(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    struct stream_negotiation *n = s->negotiation;
    struct xy_str in;
    if (!n->sasl)
        return fail_with(s, event, XY_SASL_MALFORMED_REQUEST, "a response that nobody asked for");
    if (!decode(s, elem, &in))
        return fail_with(s, event, XY_SASL_INCORRECT_ENCODING, "the response is not base64");
    return follow(s, xy_sasl_server_step(n->sasl, xy_str_present(in) ? in : XY_STR("")), event);
}

bool stream_server_sasl(struct xy_stream *s, const struct xy_elem *elem, struct xy_stream_event *event)
{
    if (xy_str_is(elem->name, "auth"))
        return on_auth(s, elem, event);
    if (xy_str_is(elem->name, "response"))
        return on_response(s, elem, event);
    if (xy_str_is(elem->name, "abort"))
        return fail_with(s, event, XY_SASL_ABORTED, "the client gave up");
    return stream_fail_misplaced(s, event, elem);
}

/* --- Answers of the owner. Their consequence is the next event. --- */

static void follow_answer(struct xy_stream *s, struct xy_sasl_result r)
{
    struct xy_stream_event event = { 0 };
    if (follow(s, r, &event))
        s->negotiation->queued = event;
}

void xy_stream_sasl_keys(struct xy_stream *s, const struct xy_scram_keys *keys)
{
    if (s->state == STREAM_OVER)
        return;
    xy_assert(s->wait == WAIT_KEYS);
    follow_answer(s, xy_sasl_server_keys(s->negotiation->sasl, keys));
}

void xy_stream_sasl_verdict(struct xy_stream *s, enum xy_sasl_condition condition)
{
    if (s->state == STREAM_OVER)
        return;
    bool refusable = s->wait == WAIT_KEYS || s->wait == WAIT_EXTERNAL;
    xy_assert(s->wait == WAIT_PASSWORD || (refusable && condition != XY_SASL_NO_FAILURE));
    follow_answer(s, xy_sasl_server_verdict(s->negotiation->sasl, condition));
}

void xy_stream_sasl_external(struct xy_stream *s, struct xy_jid jid)
{
    if (s->state == STREAM_OVER)
        return;
    xy_assert(s->wait == WAIT_EXTERNAL);
    struct stream_negotiation *n = s->negotiation;
    enum xy_sasl_condition condition = XY_SASL_NO_FAILURE;
    if (!xy_jid_present(jid))
        condition = xy_str_present(n->authzid) ? XY_SASL_INVALID_AUTHZID : XY_SASL_NOT_AUTHORIZED;
    else
        n->jid = xy_jid_canonical(xy_arena_str(n->arena, xy_jid_bare(jid)));
    follow_answer(s, xy_sasl_server_verdict(n->sasl, condition));
}
