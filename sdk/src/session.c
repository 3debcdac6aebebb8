/* The XMPP session of a client: what is sent and acknowledged (XEP-0198), resumed, or begun anew.
 *
 * Outbound, every stanza passes the SM queue and stays in it until the server acknowledged it. Inbound, every stanza has a
 * number that counts as handled when nobody needs it any more; h follows. After a resumption the server sends again what
 * h did not cover. Those are the very stanzas that came before, in the same order, so they are skipped: their numbers are
 * still the old ones, whether their messages wait for the application or were handled meanwhile. A server that was
 * started anew says so, and then nothing is skipped. */
#include <stdlib.h>
#include <string.h>

#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"

#define AUX_RESEND UINT64_C(1) /* in a new session too */

void xy_session_init(struct xylem_client *c)
{
    c->sm_pool.spare_max = 4;
    xy_sm_queue_init(&c->sm_queue, &c->sm_pool);
    xy_sm_init(&c->sm);
    c->sm_tell_at_us = c->sm_ask_at_us = UINT64_MAX;
}

void xy_session_free(struct xylem_client *c)
{
    xy_sm_queue_drain(&c->sm_queue, NULL, NULL);
    xy_sm_pool_free(&c->sm_pool);
    free(c->sm_id);
    c->sm_id = NULL;
}

static unsigned mechanisms(const struct xylem_options *o)
{
    if (o->socket_path)
        return XY_SASL_EXTERNAL;
    unsigned set = XY_SASL_SCRAM_ALL | XY_SASL_PLAIN; /* PLAIN is for TLS unless plain_allowed */
    if (o->certificate_file)
        set |= XY_SASL_EXTERNAL;
    return o->password ? set : set & XY_SASL_EXTERNAL;
}

static enum xy_stream_tls_policy tls_policy(const struct xylem_options *o)
{
    switch (o->tls) {
    case XYLEM_TLS_REQUIRED:
    case XYLEM_TLS_DIRECT:
        return XY_STREAM_TLS_REQUIRED;
    case XYLEM_TLS_PREFERRED:
        return XY_STREAM_TLS_PREFERRED;
    case XYLEM_TLS_NONE:
        break;
    }
    return XY_STREAM_TLS_NONE;
}

struct xy_link *xy_session_link(struct xylem_client *c)
{
    const struct xylem_options *o = &c->config.o;
    struct xy_arena *arena = xy_arena_new();
    if (!arena)
        return NULL;
    struct xy_jid jid = c->config.jid;
    if (xy_jid_present(jid))
        xy_jid_with_resource(arena, jid, c->config.resource, &jid);
    struct xy_link_options options = {
        .stream = { .env = c->env, .arenas = c->arenas },
        .client = {
            .jid = jid,
            .resource = c->config.resource,
            .password = xy_str(o->password ? o->password : ""),
            .authzid = xy_str(o->as),
            .mechanisms = mechanisms(o),
            .plain_without_tls = o->plain_allowed,
            .tls = tls_policy(o),
            .sm = true,
            .sm_resume = true,
            .previd = xy_str(c->sm_id),
            .previd_h = xy_sm_h(&c->sm),
        },
        .tls = c->config.tls,
        .direct_tls = o->tls == XYLEM_TLS_DIRECT,
    };
    struct xy_link *link = xy_link_new(&options);
    xy_arena_free(&arena);
    return link;
}

/* --- sending --- */

bool xy_session_send(struct xylem_client *c, struct xy_bytes *stanza, bool resend)
{
    struct xy_sm_entry entry = { .bytes = stanza, .aux = resend ? AUX_RESEND : 0 };
    if (xy_sm_push(&c->sm_queue, entry))
        return true;
    xy_bytes_unref(&stanza);
    return false;
}

bool xy_session_send_elem(struct xylem_client *c, const struct xy_elem *elem)
{
    struct xy_bytes *bytes = xy_xml_bytes(elem, XY_STR(NS_CLIENT));
    return bytes && xy_session_send(c, bytes, false);
}

size_t xy_session_backlog(const struct xylem_client *c)
{
    return c->sm_queue.bytes_unsent + c->sm_queue.bytes_kept;
}

static void tell(struct xylem_client *c)
{
    if (xy_stream_send_ack(xy_link_stream(c->link), xy_sm_h(&c->sm)))
        c->sm_told = c->sm.in_h;
    c->sm_tell_at_us = UINT64_MAX;
}

static void flush_queue(struct xylem_client *c)
{
    struct xy_stream *stream = xy_link_stream(c->link);
    struct xy_sm_entry entry;
    while (xy_link_backlog(c->link) < XY_CLIENT_OUTPUT_MAX &&
           xy_sm_next_unsent(&c->sm_queue, c->sm_on ? &c->sm : NULL, &entry)) {
        xy_stream_send_raw(stream, xy_bytes_view(entry.bytes));
        xy_bytes_unref(&entry.bytes);
    }
}

void xy_session_flush(struct xylem_client *c)
{
    if (!c->link || !xy_stream_is_bound(xy_link_stream(c->link)))
        return;
    flush_queue(c);
    if (!c->sm_on)
        return;
    uint64_t now = xy_client_now(c);
    if (c->sm.out_sent > c->sm_asked && xy_sm_unacked(&c->sm) > 0) {
        if (c->sm_ask_at_us == UINT64_MAX)
            c->sm_ask_at_us = now + XY_CLIENT_ASK_AFTER_US;
        if (c->sm.out_sent - c->sm_asked >= XY_CLIENT_ASK_EVERY || now >= c->sm_ask_at_us) {
            xy_stream_send_request(xy_link_stream(c->link));
            c->sm_asked = c->sm.out_sent;
            c->sm_ask_at_us = UINT64_MAX;
        }
    } else {
        c->sm_ask_at_us = UINT64_MAX;
    }
    if (c->sm.in_h - c->sm_told >= XY_CLIENT_ACK_EVERY || now >= c->sm_tell_at_us)
        tell(c);
}

void xy_session_farewell(struct xylem_client *c)
{
    flush_queue(c);
    if (c->sm_on)
        tell(c);
    xy_stream_close(xy_link_stream(c->link));
}

uint64_t xy_session_deadline_us(const struct xylem_client *c)
{
    if (!c->link || !c->sm_on || c->closing)
        return UINT64_MAX;
    return c->sm_tell_at_us < c->sm_ask_at_us ? c->sm_tell_at_us : c->sm_ask_at_us;
}

/* --- handled --- */

void xy_session_handled(struct xylem_client *c, uint64_t number, uint64_t generation)
{
    if (!c->sm_on || generation != c->sm_generation)
        return; /* its session is gone: the server gives it to the next one */
    if (xy_sm_in_done(&c->sm, number) && c->sm_tell_at_us == UINT64_MAX)
        c->sm_tell_at_us = xy_client_now(c) + XY_CLIENT_ACK_AFTER_US;
}

static void on_ack(struct xylem_client *c, uint32_t h)
{
    if (!c->sm_on || !c->link)
        return;
    if (xy_sm_queue_ack(&c->sm_queue, &c->sm, h, NULL, NULL) == XY_SM_ACK_TOO_HIGH)
        xy_stream_fail_ack(xy_link_stream(c->link), h, xy_sm_send_count(&c->sm));
}

/* --- a session begins, goes on, ends --- */

struct leftovers {
    struct xylem_client *client;
    struct xy_sm_entry *entries;
    size_t count, cap;
};

static void keep_resends(struct xy_sm_entry *entry, bool sent, void *ctx)
{
    (void)sent;
    struct leftovers *left = ctx;
    if (!(entry->aux & AUX_RESEND))
        return;
    if (left->count == left->cap) {
        size_t cap = left->cap ? left->cap * 2 : 16;
        struct xy_sm_entry *grown = realloc(left->entries, cap * sizeof *grown);
        if (!grown)
            return;
        left->entries = grown;
        left->cap = cap;
    }
    left->entries[left->count++] = *entry;
    entry->bytes = NULL; /* taken */
}

/* The old session's queue: messages the application sent go again, everything else has an owner that asks anew. */
static void requeue(struct xylem_client *c)
{
    struct leftovers left = { .client = c };
    xy_sm_queue_drain(&c->sm_queue, keep_resends, &left);
    xy_sm_queue_keep(&c->sm_queue, c->sm_on);
    for (size_t i = 0; i < left.count; i++)
        if (!xy_sm_push(&c->sm_queue, left.entries[i]))
            xy_bytes_unref(&left.entries[i].bytes);
    free(left.entries);
}

static void remember_jid(struct xylem_client *c, struct xy_jid jid)
{
    char *text = strndup(jid.data, jid.len);
    if (!text)
        return;
    free(c->jid);
    c->jid = text;
    c->full = xy_jid_canonical(xy_str_n(text, jid.len));
    if (c->service)
        return;
    struct xy_str domain = xy_jid_domain(c->full);
    struct xy_buf name = { 0 };
    xy_buf_printf(&name, "pubsub.%.*s", XY_ARG(domain));
    c->service = xy_buf_failed(&name) ? NULL : strndup(name.data, name.len);
    xy_buf_free(&name);
}

/* With a negative priority messages to the account are for others, or wait: nobody here would take them. */
void xy_session_presence(struct xylem_client *c)
{
    struct xy_str text =
        c->stanza_handler.fn ? XY_STR("<presence/>") : XY_STR("<presence><priority>-1</priority></presence>");
    struct xy_bytes *bytes = c->config.o.no_presence ? NULL : xy_bytes_new(text);
    if (bytes)
        xy_session_send(c, bytes, false);
}

static void begin_anew(struct xylem_client *c, const struct xy_stream_event *event)
{
    if (event->h_known && c->sm_on)
        xy_sm_queue_ack(&c->sm_queue, &c->sm, event->h, NULL, NULL);
    c->sm_generation++;
    c->sm_on = event->sm;
    requeue(c);
    xy_sm_init(&c->sm);
    c->sm_replayed = c->sm_told = c->sm_asked = 0;
    free(c->sm_id);
    c->sm_id = event->sm && event->resume && xy_str_present(event->sm_id)
                   ? strndup(event->sm_id.data, event->sm_id.len)
                   : NULL;
    remember_jid(c, event->jid);
    c->stats.connects++;
    xy_session_presence(c);
    xy_requests_rebind(c);
    xy_subs_online(c);
}

/* After a restart of the server: what is still owed comes again by other numbers, like in a new session. */
static void forget_in_hand(struct xylem_client *c)
{
    c->sm_generation++;
    xy_sm_in_forget(&c->sm);
}

static void go_on(struct xylem_client *c, const struct xy_stream_event *event)
{
    c->stats.resumes++;
    if (event->restored)
        forget_in_hand(c);
    c->sm_replayed = c->sm_told = c->sm.in_h;
    on_ack(c, event->h);
    xy_sm_queue_rewind(&c->sm_queue, &c->sm);
    c->sm_asked = c->sm.out_acked;
}

static void ready(struct xylem_client *c, const struct xy_stream_event *event)
{
    c->sm_tell_at_us = c->sm_ask_at_us = UINT64_MAX;
    if (event->resumed)
        go_on(c, event);
    else
        begin_anew(c, event);
    free(c->redirect_host);
    c->redirect_host = NULL;
    xy_client_online(c);
}

void xy_session_end(struct xylem_client *c, enum xylem_status why)
{
    free(c->sm_id);
    c->sm_id = NULL;
    c->sm_generation++;
    xy_requests_fail(c, why);
}

/* --- events --- */

static void stanza_came(struct xylem_client *c, struct xy_stream_event *event)
{
    struct xy_stanza *stanza = &event->stanza;
    if (c->gave_up != XYLEM_OK) { /* not counted, not handled: it stays at the broker */
        xy_arena_pool_give(c->arenas, &stanza->arena);
        return;
    }
    if (c->sm_on && c->sm_replayed < c->sm.in_tail) { /* see the top of this file */
        c->sm_replayed++;
        xy_arena_pool_give(c->arenas, &stanza->arena);
        return;
    }
    struct xy_hold *hold = calloc(1, sizeof *hold);
    if (!hold) {
        xy_stream_fail(xy_link_stream(c->link), XY_STREAM_RESOURCE_CONSTRAINT, NULL);
        xy_arena_pool_give(c->arenas, &stanza->arena);
        return;
    }
    *hold = (struct xy_hold){ .refs = 1, .generation = c->sm_generation, .stanza = *stanza };
    if (c->sm_on) {
        hold->number = xy_sm_in_begin(&c->sm);
        c->sm_replayed = c->sm.in_tail;
    }
    xy_dispatch(c, hold, event->verdict);
    xy_hold_unref(c, hold);
}

static void one_event(struct xylem_client *c, struct xy_stream_event *event)
{
    switch (event->kind) {
    case XY_STREAM_EVENT_READY:
        ready(c, event);
        break;
    case XY_STREAM_EVENT_STANZA:
        stanza_came(c, event);
        break;
    case XY_STREAM_EVENT_SM_REQUEST:
        xy_subs_flush(c);
        if (c->link)
            tell(c);
        break;
    case XY_STREAM_EVENT_SM_ACK:
        on_ack(c, event->h);
        break;
    case XY_STREAM_EVENT_CLOSED:
        xy_client_peer_closed(c);
        break;
    case XY_STREAM_EVENT_FAILED:
        xy_client_stream_failed(c, event);
        break;
    default: /* events of a server's stream */
        break;
    }
}

void xy_session_events(struct xylem_client *c)
{
    struct xy_stream_event event;
    c->more = false;
    for (unsigned count = 0; c->link && !c->doomed; count++) {
        if (xy_subs_full(c) || (c->sm_on && xy_sm_in_full(&c->sm)) || count >= XY_CLIENT_BATCH_MAX) {
            c->more = true;
            return;
        }
        if (!xy_link_next(c->link, &event))
            break;
        one_event(c, &event);
    }
}
