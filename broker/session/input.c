/* What the stream says: one function per event, stanzas on their way to the router, and the brake for a sender that has
 * too much under way. */
#include <string.h>

#include "broker/config.h"
#include "broker/log.h"
#include "broker/router/router.h"
#include "broker/session/session_internal.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"

/* --- stanzas ------------------------------------------------------------------------------------------------------ */

/* May a client name this JID as the author of a remark? Whoever is not here, and itself where clients make such remarks;
 * the broker, its services and other accounts speak for themselves. */
static bool may_speak_for(const struct session *session, struct xy_arena *arena, struct xy_str name,
                          bool itself)
{
    struct xy_jid jid;
    if (!xy_str_present(name) || !xy_jid_parse(arena, name, &jid))
        return false;
    return (itself && xy_jid_same_bare(jid, session->jid)) ||
           !router_serves(session->shard, xy_jid_domain(jid));
}

static bool is_subid(const struct xy_elem *header)
{
    return xy_elem_is(header, "header", NS_SHIM) && xy_str_is(xy_elem_attr(header, "name"), "SubID");
}

static bool is_forged(const struct session *session, struct xy_arena *arena, const struct xy_elem *child)
{
    if (xy_elem_is(child, "delay", NS_DELAY))
        return !may_speak_for(session, arena, xy_elem_attr(child, "from"), true);
    if (xy_elem_is(child, "stanza-id", NS_STANZA_ID))
        return !may_speak_for(session, arena, xy_elem_attr(child, "by"), false);
    return xy_elem_is(child, "delivery", NS_XYLEM_DELIVERY) ||
           xy_elem_is(child, "occupant-id", NS_OCCUPANT_ID);
}

/* What only the broker may say about a stanza (hostile input 47). */
static void strip_server_owned(struct session *session, struct xy_stanza *stanza)
{
    struct xy_elem *child = xy_elem_first(stanza->elem);
    while (child) {
        struct xy_elem *next = xy_elem_next(child);
        bool headers = xy_elem_is(child, "headers", NS_SHIM);
        for (struct xy_elem *header = headers ? xy_elem_first(child) : NULL; header;) {
            struct xy_elem *following = xy_elem_next(header);
            if (is_subid(header))
                xy_elem_remove(header);
            header = following;
        }
        if (is_forged(session, stanza->arena, child))
            xy_elem_remove(child);
        child = next;
    }
}

/* RFC 6120 8.1.2.1: a client may name itself as sender, and nobody else. */
static bool from_is_own(const struct session *session, const struct xy_stanza *stanza)
{
    if (!xy_jid_present(stanza->from))
        return true;
    return xy_jid_same_bare(stanza->from, session->jid) &&
           (xy_jid_is_bare(stanza->from) || xy_jid_eq(stanza->from, session->jid));
}

static struct session_inbound count_in(struct session *session, const struct xy_stanza *stanza)
{
    size_t kib = stanza->bytes / 1024 + 1; /* rounded up: what waits elsewhere has grown by an address */
    struct session_inbound inbound = { .bytes = (uint32_t)kib * 1024 };
    session->inflight++;
    session->inflight_bytes += inbound.bytes;
    if (session->sm != NULL)
        inbound.number = xy_sm_in_begin(&session->sm->counters) + 1;
    if (session->sm != NULL && session->sm->resumable)
        inbound.what = request_digest(stanza);
    return inbound;
}

static void stanza_refuse(struct session *session, struct request *request, enum xy_stanza_verdict verdict)
{
    if (verdict == XY_STANZA_BAD_TO)
        request_fail_with(session->shard, &request, XY_JID_MALFORMED, "the 'to' address is not a valid JID");
    else
        request_fail_with(session->shard, &request, XY_BAD_REQUEST,
                          "an IQ needs an id, a type, and exactly one child for get and set");
}

/* Answered by the stream (legacy session): XEP-0198 counts it all the same, and the answer too. */
static void on_answered(struct session *session, const struct xy_stream_event *event)
{
    struct xy_stanza stanza = event->stanza;
    struct session_inbound inbound = count_in(session, &stanza);
    struct xy_bytes *reply = event->reply ? xy_xml_bytes(event->reply, XY_STR(NS_CLIENT)) : NULL;
    if (reply)
        outbox_push(session, &reply, ENTRY_STANZA, ENTRY_NO_CLAIM, 0);
    xy_bytes_unref(&reply);
    xy_arena_pool_give(session->shard->arenas, &stanza.arena);
    session_handled(session->shard, session->ref, inbound);
}

static void on_stanza(struct session *session, const struct xy_stream_event *event)
{
    struct shard *shard = session->shard;
    struct xy_stanza stanza = event->stanza;
    stat_add(shard, stanzas_in, 1);
    if (event->answered) {
        on_answered(session, event);
        return;
    }
    if (event->verdict == XY_STANZA_BAD_FROM || !from_is_own(session, &stanza)) {
        xy_arena_pool_give(shard->arenas, &stanza.arena);
        session_fail(session, XY_STREAM_INVALID_FROM,
                     "'from' must be this session's own address, or left out");
        return;
    }
    strip_server_owned(session, &stanza);
    /* The address outlives the session's own copy: requests travel and sessions end. */
    struct xy_str from = xy_arena_str(stanza.arena, xy_jid_full(session->jid));
    xy_stanza_set_from(&stanza, xy_jid_canonical(from));
    struct session_inbound inbound = count_in(session, &stanza);
    if (proof_seen(session, &inbound)) {
        xy_arena_pool_give(shard->arenas, &stanza.arena);
        session_handled(shard, session->ref, inbound);
        return;
    }
    struct request *request = request_new(stanza, session->ref, inbound);
    if (request == NULL || xy_arena_failed(stanza.arena)) {
        xy_arena_pool_give(shard->arenas, &stanza.arena);
        session_fail(session, XY_STREAM_RESOURCE_CONSTRAINT, "memory is short");
        return;
    }
    request->assured = session->sm != NULL;
    request->kept = session->sm && session->sm->kept;
    if (request->kept)
        memcpy(request->session, session->sm->id, sizeof(request->session));
    request->copied = session->copied;
    request->awaited = waiting_brakes(session);
    if (event->verdict == XY_STANZA_OK)
        router_route(shard, &request);
    else
        stanza_refuse(session, request, event->verdict);
}

/* --- XEP-0198 ----------------------------------------------------------------------------------------------------- */

static void on_request(struct session *session, const struct xy_stream_event *event)
{
    struct session_sm *sm = session->sm;
    (void)event;
    if (proof_h(session) == sm->counters.in_tail) {
        sm->ack_due = true;
        outbox_touch(session);
        return;
    }
    uint64_t now_us = xy_now_us(session->shard->env);
    if (!sm->asked)
        sm->asked_first = sm->counters.in_tail;
    if (sm->asked_first_us == 0)
        sm->asked_first_us = now_us;
    sm->asked = true;
    sm->asked_last = sm->counters.in_tail;
    sm->asked_last_us = now_us;
    outbox_pace_by(session, sm->asked_first_us + SESSION_ACK_DELAY_US);
    proof_go_on(session);
}

static void on_ack(struct session *session, const struct xy_stream_event *event)
{
    outbox_acked(session, event->h);
}

/* XEP-0352: nobody looks at what the client gets, or somebody does again. */
static void on_client_state(struct session *session, const struct xy_stream_event *event)
{
    session->inactive = !event->active;
    if (event->active && session->waiting)
        waiting_room(session);
}

/* --- the end of a stream ------------------------------------------------------------------------------------------ */

/* </stream:stream> ends the session for good, resumable or not (XEP-0198 4). */
static void on_closed(struct session *session, const struct xy_stream_event *event)
{
    (void)event;
    if (session->sm)
        session->sm->ack_due = session->state == SESSION_BOUND;
    outbox_flush(session);
    xy_stream_close(session->stream);
    outbox_flush(session);
    session_end(session);
}

static void on_failed(struct session *session, const struct xy_stream_event *event)
{
    struct shard *shard = session->shard;
    stat_add(shard, streams_failed, 1);
    log_info(shard->log, "stream failed", LOG_STR("jid", xy_jid_full(session->jid)),
             LOG_Z("peer", session->link ? session->link->peer : ""),
             LOG_Z("error", xy_stream_error_name(event->error)), LOG_STR("why", event->text));
    outbox_flush(session);
    session_end(session);
}

static void on_starttls(struct session *session, const struct xy_stream_event *event)
{
    (void)event;
    outbox_flush(session);
    if (session->link)
        session->link->calls->start_tls(session->link);
}

/* --- the pump ----------------------------------------------------------------------------------------------------- */

typedef void event_fn(struct session *session, const struct xy_stream_event *event);

static event_fn *const event_table[] = {
    [XY_STREAM_EVENT_OPENED] = login_on_opened,
    [XY_STREAM_EVENT_STARTTLS] = on_starttls,
    [XY_STREAM_EVENT_SASL_KEYS] = login_on_keys,
    [XY_STREAM_EVENT_SASL_PASSWORD] = login_on_password,
    [XY_STREAM_EVENT_SASL_EXTERNAL] = login_on_external,
    [XY_STREAM_EVENT_SASL_FAILED] = login_on_failed,
    [XY_STREAM_EVENT_AUTHENTICATED] = login_on_authenticated,
    [XY_STREAM_EVENT_BIND] = login_on_bind,
    [XY_STREAM_EVENT_SM_ENABLE] = resume_on_enable,
    [XY_STREAM_EVENT_SM_RESUME] = resume_on_resume,
    [XY_STREAM_EVENT_STANZA] = on_stanza,
    [XY_STREAM_EVENT_SM_REQUEST] = on_request,
    [XY_STREAM_EVENT_SM_ACK] = on_ack,
    [XY_STREAM_EVENT_CLIENT_STATE] = on_client_state,
    [XY_STREAM_EVENT_CLOSED] = on_closed,
    [XY_STREAM_EVENT_FAILED] = on_failed,
};

/* The sender has so much under way that reading on would only make it wait in our memory. */
static bool too_much_under_way(const struct session *session)
{
    if (session->inflight >= SESSION_INFLIGHT_MAX || session->inflight_bytes >= SESSION_INFLIGHT_BYTES_MAX ||
        (session->sm && xy_sm_in_full(&session->sm->counters)))
        return true;
    if (session->shard->sessions->quiescing)
        return true; /* what the stream still holds was not acknowledged and will not be */
    return session->queue.bytes_unsent > session->shard->config->limits.outbox;
}

void session_pump(struct session *session)
{
    struct xy_stream *stream = session->stream;
    struct xy_stream_event event;
    while (session->state != SESSION_ENDED && session->stream == stream) {
        if (too_much_under_way(session)) {
            session->held = true; /* the stream keeps the rest */
            break;
        }
        if (!xy_stream_next(stream, &event))
            break;
        event_fn *fn = event_table[event.kind];
        xy_assert(fn != NULL);
        fn(session, &event);
    }
    if (session->state == SESSION_ENDED || session->stream != stream || session->link == NULL)
        return;
    session->link->calls->read_pause(session->link, session->held || !xy_stream_wants_input(stream));
    if (xy_stream_output(stream).len > 0)
        outbox_touch(session);
}

void session_input_resume(struct session *session)
{
    if (!session->held || too_much_under_way(session))
        return;
    session->held = false;
    if (session->stream)
        session_pump(session);
}
