/* <xylem/bytestream.h> over core/bytestream: the client carries its requests and answers. All state of the protocol is in
 * core; here is only the way to the session and the application. A block that its peer confirmed stays with the session
 * until the server acknowledged it (XEP-0198), and a server whose disk is slow does so late: nothing more is written
 * meanwhile than half of queue_bytes_max. */
#include <stdlib.h>
#include <string.h>
#include <xylem/bytestream.h>

#include "core/bytestream/ibb.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"

struct xylem_bytestream {
    struct xylem_client *client;
    struct xy_ibb_session *session;
    struct xylem_bytestream_handlers handlers;
    void *ctx;
    char *sid, *peer;
    struct xy_list stalled; /* in its client's list while it waits for the session to have room */
};

struct xy_bytestreams {
    struct xy_ibb *ibb;
    xylem_bytestream_accept_fn *accept;
    void *ctx;
    struct xy_list stalled;
};

/* The answer to one of core's requests: which one, in whose service. */
static void answered(struct xylem_client *c, const struct xy_reply *reply, void *owner)
{
    uint64_t *ticket = owner;
    struct xy_error error = { 0 };
    if (reply->stanza && reply->status != XYLEM_OK)
        error = xy_error_read(reply->stanza);
    else if (reply->status != XYLEM_OK)
        error = xy_error_make(XY_REMOTE_SERVER_TIMEOUT, "the peer does not answer");
    if (!reply->stanza)
        error.type = XY_ERROR_CANCEL; /* half a minute was long enough: not to be tried again */
    xy_ibb_answer(c->bytestreams->ibb, *ticket, reply->status == XYLEM_OK ? NULL : &error);
    free(ticket);
}

static void on_send(void *ctx, struct xy_jid peer, const struct xy_elem *payload, uint64_t ticket)
{
    struct xylem_client *c = ctx;
    uint64_t *owner = malloc(sizeof *owner);
    char *to = strndup(peer.data, peer.len);
    struct xy_bytes *bytes = xy_xml_bytes(payload, XY_STR(NS_CLIENT));
    if (owner && to && bytes) {
        *owner = ticket;
        struct xy_request_spec spec = {
            .flags = XY_REQUEST_SET | XY_REQUEST_OWNED,
            .to = to,
            .payload = xy_bytes_view(bytes),
            .on_reply = answered,
            .owner = owner,
            .timeout_ms = c->config.o.reply_timeout_ms,
        };
        if (xy_request(c, &spec) == XYLEM_OK)
            owner = NULL;
    }
    /* Not sent: core's own retry comes with the session's end, as for a lost answer. */
    free(owner);
    free(to);
    xy_bytes_unref(&bytes);
}

static void on_reply(void *ctx, struct xy_jid peer, struct xy_str id, const struct xy_error *error)
{
    struct xylem_client *c = ctx;
    struct xy_arena *arena = xy_arena_pool_take(c->arenas);
    if (!arena)
        return;
    struct xy_stanza request = { .arena = arena, .kind = XY_IQ, .type = XY_SET, .from = peer, .id = id };
    request.elem = xy_stanza_new(arena, XY_IQ, XY_SET);
    xy_elem_set(arena, request.elem, "from", xy_jid_full(peer));
    xy_elem_set(arena, request.elem, "id", id);
    struct xy_elem *reply =
        error ? xy_error_reply(arena, &request, error) : xy_stanza_result(arena, &request);
    if (reply && !xy_arena_failed(arena))
        xy_session_send_elem(c, reply);
    xy_arena_pool_give(c->arenas, &arena);
    xy_client_wake(c);
}

static void bytestream_free(struct xylem_bytestream *stream)
{
    xy_list_remove(&stream->stalled);
    free(stream->sid);
    free(stream->peer);
    free(stream);
}

static struct xylem_bytestream *bytestream_new(struct xylem_client *c)
{
    struct xylem_bytestream *stream = calloc(1, sizeof *stream);
    if (stream) {
        stream->client = c;
        xy_list_init(&stream->stalled);
    }
    return stream;
}

static enum xy_condition on_incoming(void *ctx, struct xy_ibb_session *session)
{
    struct xylem_client *c = ctx;
    struct xy_bytestreams *all = c->bytestreams;
    struct xylem_bytestream *stream = all->accept ? bytestream_new(c) : NULL;
    if (!stream)
        return XY_NOT_ACCEPTABLE;
    stream->session = session;
    const char *refusal = all->accept(stream, &stream->handlers, &stream->ctx, all->ctx);
    if (refusal) {
        enum xy_condition condition = xy_condition_find(xy_str(refusal));
        bytestream_free(stream);
        return condition ? condition : XY_NOT_ACCEPTABLE;
    }
    xy_ibb_set_user(session, stream);
    return XY_NO_ERROR;
}

static void on_opened(void *ctx, struct xy_ibb_session *session)
{
    (void)ctx;
    struct xylem_bytestream *stream = xy_ibb_user(session);
    if (stream->handlers.opened)
        stream->handlers.opened(stream, stream->ctx);
}

static void on_writable(void *ctx, struct xy_ibb_session *session)
{
    (void)ctx;
    struct xylem_bytestream *stream = xy_ibb_user(session);
    if (stream->handlers.writable)
        stream->handlers.writable(stream, stream->ctx);
}

static enum xy_ibb_take on_data(void *ctx, struct xy_ibb_session *session, struct xy_str bytes)
{
    (void)ctx;
    struct xylem_bytestream *stream = xy_ibb_user(session);
    if (!stream->handlers.data)
        return XY_IBB_TAKEN;
    return stream->handlers.data(stream, bytes.data, bytes.len, stream->ctx) ? XY_IBB_TAKEN : XY_IBB_HOLD;
}

static void on_closed(void *ctx, struct xy_ibb_session *session, const struct xy_ibb_end *end)
{
    (void)ctx;
    struct xylem_bytestream *stream = xy_ibb_user(session);
    enum xylem_status status = xy_status_of_error(&end->error);
    const char *text = end->error.text ? end->error.text : xy_condition_name(end->error.condition);
    switch (end->reason) {
    case XY_IBB_CLOSED:
    case XY_IBB_CLOSED_BY_PEER:
        status = end->unconfirmed_bytes ? XYLEM_DISCONNECTED : XYLEM_OK;
        text = end->unconfirmed_bytes ? "the peer closed the stream before it had everything" : "";
        break;
    case XY_IBB_ABORTED:
        status = XYLEM_STOPPED;
        text = "ended from this side";
        break;
    case XY_IBB_REFUSED:
    case XY_IBB_FAILED:
    case XY_IBB_VIOLATED:
        break;
    }
    struct xylem_bytestream_end out = { .status = status,
                                        .text = text ? text : "",
                                        .unconfirmed = end->unconfirmed_bytes };
    stream->session = NULL;
    if (stream->handlers.closed && !stream->client->doomed)
        stream->handlers.closed(stream, &out, stream->ctx);
    bytestream_free(stream);
}

static const struct xy_ibb_handlers ibb_handlers = {
    .send = on_send,
    .reply = on_reply,
    .incoming = on_incoming,
    .opened = on_opened,
    .data = on_data,
    .writable = on_writable,
    .closed = on_closed,
};

static struct xy_bytestreams *bytestreams_of(struct xylem_client *c)
{
    if (c->bytestreams)
        return c->bytestreams;
    struct xy_bytestreams *all = calloc(1, sizeof *all);
    struct xy_ibb_options options = { .env = c->env, .handlers = &ibb_handlers, .ctx = c };
    if (all)
        all->ibb = xy_ibb_new(&options);
    if (!all || !all->ibb) {
        free(all);
        return NULL;
    }
    xy_list_init(&all->stalled);
    return c->bytestreams = all;
}

void xy_bytestreams_free(struct xylem_client *c)
{
    if (!c->bytestreams)
        return;
    c->doomed = true; /* no callbacks from here */
    xy_ibb_free(&c->bytestreams->ibb);
    free(c->bytestreams);
    c->bytestreams = NULL;
}

bool xy_bytestreams_request(struct xylem_client *c, const struct xy_stanza *stanza)
{
    return c->bytestreams && stanza->type == XY_SET && xy_ibb_request(c->bytestreams->ibb, stanza);
}

static bool has_room(const struct xylem_client *c)
{
    return xy_session_backlog(c) < c->config.o.queue_bytes_max / 2;
}

static bool may_go_on(const struct xylem_client *c)
{
    return !xy_list_empty(&c->bytestreams->stalled) && has_room(c);
}

/* Who finds no room after all waits again, and ends the loop. */
static void go_on(struct xylem_client *c)
{
    while (!c->doomed && may_go_on(c)) {
        struct xy_list *first = c->bytestreams->stalled.next;
        struct xylem_bytestream *stream = xy_container_of(first, struct xylem_bytestream, stalled);
        xy_list_remove(first);
        if (stream->handlers.writable)
            stream->handlers.writable(stream, stream->ctx);
    }
}

void xy_bytestreams_tick(struct xylem_client *c)
{
    if (!c->bytestreams)
        return;
    if (xy_ibb_deadline_us(c->bytestreams->ibb) <= xy_client_now(c))
        xy_ibb_tick(c->bytestreams->ibb);
    go_on(c);
}

uint64_t xy_bytestreams_deadline_us(const struct xylem_client *c)
{
    if (!c->bytestreams)
        return UINT64_MAX;
    return may_go_on(c) ? 0 : xy_ibb_deadline_us(c->bytestreams->ibb);
}

enum xylem_status xylem_bytestream_listen(struct xylem_client *c, xylem_bytestream_accept_fn *fn, void *ctx)
{
    struct xy_bytestreams *all = bytestreams_of(c);
    if (!all)
        return XYLEM_NO_MEMORY;
    all->accept = fn;
    all->ctx = ctx;
    return XYLEM_OK;
}

enum xylem_status xylem_bytestream_open(struct xylem_client *c, const char *to, const char *sid,
                                        uint32_t block_size, const struct xylem_bytestream_handlers *handlers,
                                        void *ctx, struct xylem_bytestream **out)
{
    *out = NULL;
    if (c->state != XYLEM_STATE_ONLINE)
        return XYLEM_WRONG_STATE;
    struct xy_bytestreams *all = bytestreams_of(c);
    struct xylem_bytestream *stream = all ? bytestream_new(c) : NULL;
    struct xy_arena *arena = stream ? xy_arena_new() : NULL;
    struct xy_jid peer;
    if (!arena || !xy_jid_parse(arena, xy_str(to), &peer)) {
        enum xylem_status status = arena ? XYLEM_INVALID : XYLEM_NO_MEMORY;
        xy_arena_free(&arena);
        free(stream);
        return status;
    }
    memcpy(&stream->handlers, handlers,
           handlers->size < sizeof stream->handlers ? handlers->size : sizeof stream->handlers);
    stream->ctx = ctx;
    stream->session = xy_ibb_open(all->ibb, peer, xy_str(sid), block_size, stream);
    xy_arena_free(&arena);
    if (!stream->session) {
        bytestream_free(stream);
        return XYLEM_INVALID;
    }
    xy_client_wake(c);
    *out = stream;
    return XYLEM_OK;
}

size_t xylem_bytestream_write(struct xylem_bytestream *stream, const void *data, size_t len)
{
    struct xylem_client *c = stream->client;
    if (!stream->session)
        return 0;
    if (!has_room(c)) {
        if (!xy_list_linked(&stream->stalled))
            xy_list_append(&c->bytestreams->stalled, &stream->stalled);
        return 0;
    }
    size_t taken = xy_ibb_write(stream->session, data, len);
    if (taken)
        xy_client_wake(c);
    return taken;
}

void xylem_bytestream_release(struct xylem_bytestream *stream)
{
    if (stream->session)
        xy_ibb_release(stream->session);
    xy_client_wake(stream->client);
}

void xylem_bytestream_close(struct xylem_bytestream *stream)
{
    if (stream->session)
        xy_ibb_close(stream->session);
    xy_client_wake(stream->client);
}

void xylem_bytestream_abort(struct xylem_bytestream *stream)
{
    struct xylem_client *c = stream->client;
    if (stream->session)
        xy_ibb_abort(stream->session);
    xy_client_wake(c);
}

const char *xylem_bytestream_sid(struct xylem_bytestream *stream)
{
    struct xy_str sid = stream->session ? xy_ibb_sid(stream->session) : XY_STR("");
    if (!stream->sid)
        stream->sid = strndup(sid.data, sid.len);
    return stream->sid ? stream->sid : "";
}

const char *xylem_bytestream_peer(struct xylem_bytestream *stream)
{
    if (!stream->peer && stream->session) {
        struct xy_str peer = xy_jid_full(xy_ibb_peer(stream->session));
        stream->peer = strndup(peer.data, peer.len);
    }
    return stream->peer ? stream->peer : "";
}

uint32_t xylem_bytestream_block_size(const struct xylem_bytestream *stream)
{
    return stream->session ? xy_ibb_block_size(stream->session) : 0;
}
