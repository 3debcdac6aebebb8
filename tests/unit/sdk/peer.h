/* A broker made of core/stream in the server role, in memory: login, binding, stream management with resumption, and a
 * record of what the client sent. Time is virtual, randomness counted, so every run is the same. */
#pragma once

#include "core/namespaces.h"
#include "core/sm/queue.h"
#include "core/stream/stream.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"
#include "tests/unit/unit.h"

#define PEER_SEEN_MAX 512

struct peer {
    struct xy_env env;
    uint64_t now_us, random;
    struct xylem_client *client;
    struct xy_stream *stream;
    struct xy_stream_options options;
    struct xy_sm sm;
    struct xy_sm_pool pool;
    struct xy_sm_queue queue;
    bool restores;                                     /* resumes as after a restart */
    bool sm_on, resumable, refuse_login, deaf, silent; /* deaf: takes nothing in; silent: answers no IQ */
    bool drop_answers;                                 /* takes requests, keeps the answers */
    bool closed;                                       /* the client ended its stream in order */
    bool slow_disk;                                    /* acknowledges no stanza, answers all the same */
    char error[64];                                    /* answer publishes with this condition */
    uint32_t client_h;                                 /* the last <a/> or <resume/> */
    unsigned connects, resumes, binds;
    char jid[256];
    char seen[PEER_SEEN_MAX][2048]; /* stanzas as the client sent them */
    size_t seen_count;
    uint64_t seed_ids;
};

static inline uint64_t peer_now(void *ctx)
{
    return ((struct peer *)ctx)->now_us;
}

static inline void peer_random(void *ctx, void *out, size_t len)
{
    struct peer *p = ctx;
    for (size_t i = 0; i < len; i++) {
        p->random = p->random * 6364136223846793005u + 1442695040888963407u;
        ((unsigned char *)out)[i] = (unsigned char)(p->random >> 56);
    }
}

static inline struct peer *peer_new(void)
{
    struct peer *p = calloc(1, sizeof *p);
    p->env = (struct xy_env){ .now_us = peer_now, .wall_us = peer_now, .random = peer_random, .ctx = p };
    p->now_us = 1000000;
    p->random = 42;
    p->resumable = true;
    xy_sm_queue_init(&p->queue, &p->pool);
    return p;
}

static inline void peer_drop(struct peer *p)
{
    xy_stream_free(&p->stream);
}

static inline void peer_free(struct peer *p)
{
    peer_drop(p);
    xy_sm_queue_drain(&p->queue, NULL, NULL);
    xy_sm_pool_free(&p->pool);
    free(p);
}

static inline void peer_send(struct peer *p, const char *xml)
{
    xy_sm_push(&p->queue, (struct xy_sm_entry){ .bytes = xy_bytes_new(xy_str(xml)) });
}

/* An item of a durable subscription. */
static inline void peer_item(struct peer *p, const char *epoch, unsigned seq)
{
    char xml[1024];
    snprintf(xml, sizeof xml,
             "<message from='pubsub.example.org' to='%s'><event xmlns='" NS_PUBSUB_EVENT
             "'><items node='n'><item id='i%u'>"
             "<data xmlns='urn:xylem:data:0' type='text/plain'>%u</data></item></items></event>"
             "<delivery xmlns='" NS_XYLEM_DELIVERY "' epoch='%s' seq='%u' attempt='1' subid='s'/></message>",
             p->jid, seq, seq, epoch, seq);
    peer_send(p, xml);
}

static inline void peer_answer(struct peer *p, const struct xy_stanza *stanza)
{
    if (stanza->kind != XY_IQ || (stanza->type != XY_SET && stanza->type != XY_GET) || p->silent ||
        p->drop_answers)
        return;
    bool publish = xy_elem_child(xy_elem_first(stanza->elem), "publish", NULL) != NULL;
    struct xy_elem *reply;
    if (publish && p->error[0]) {
        struct xy_error error = xy_error_make(xy_condition_find(xy_str(p->error)), "because");
        reply = xy_error_reply(stanza->arena, stanza, &error);
    } else {
        reply = xy_stanza_result(stanza->arena, stanza);
    }
    struct xy_bytes *bytes = xy_xml_bytes(reply, XY_STR(NS_CLIENT));
    xy_sm_push(&p->queue, (struct xy_sm_entry){ .bytes = bytes });
}

static inline void peer_stanza(struct peer *p, struct xy_stream_event *event)
{
    assert_true(p->seen_count < PEER_SEEN_MAX);
    struct xy_buf text = { 0 };
    xy_xml_write(&text, event->stanza.elem, XY_STR(NS_CLIENT));
    snprintf(p->seen[p->seen_count++], sizeof p->seen[0], "%.*s", (int)text.len, text.data);
    xy_buf_free(&text);
    if (p->sm_on)
        xy_sm_in_done(&p->sm, xy_sm_in_begin(&p->sm));
    peer_answer(p, &event->stanza);
    xy_arena_free(&event->stanza.arena);
}

static inline void peer_resume(struct peer *p, const struct xy_stream_event *event)
{
    if (!p->resumable || !p->sm_on || !xy_str_is(event->sm_id, "sm1")) {
        uint32_t h = xy_sm_h(&p->sm);
        xy_stream_sm_failed(p->stream, XY_ITEM_NOT_FOUND, p->sm_on ? &h : NULL);
        return;
    }
    p->resumes++;
    p->client_h = event->h;
    xy_stream_sm_resumed(p->stream, event->sm_id, xy_sm_h(&p->sm), p->restores);
    if (p->restores) { /* what it had sent is forgotten */
        xy_sm_queue_drain(&p->queue, NULL, NULL);
        p->sm.out_acked = p->sm.out_sent = event->h;
        return;
    }
    xy_sm_queue_ack(&p->queue, &p->sm, event->h, NULL, NULL);
    xy_sm_queue_rewind(&p->queue, &p->sm);
}

static inline void peer_event(struct peer *p, struct xy_stream_event *event)
{
    struct xy_stream_offer offer = { .domain = XY_STR("example.org"),
                                     .mechanisms = XY_SASL_PLAIN,
                                     .sm = true };
    struct xy_arena *arena = xy_arena_new();
    struct xy_jid jid;
    switch (event->kind) {
    case XY_STREAM_EVENT_OPENED:
        xy_stream_accept(p->stream, &offer);
        break;
    case XY_STREAM_EVENT_SASL_PASSWORD:
        xy_stream_sasl_verdict(p->stream, p->refuse_login ? XY_SASL_NOT_AUTHORIZED : XY_SASL_NO_FAILURE);
        break;
    case XY_STREAM_EVENT_BIND:
        p->binds++;
        xy_jid_make(arena, XY_STR("alice"), XY_STR("example.org"), event->resource, &jid);
        snprintf(p->jid, sizeof p->jid, "%.*s", XY_ARG(xy_jid_full(jid)));
        xy_stream_bound(p->stream, jid);
        p->sm_on = false;
        xy_sm_queue_drain(&p->queue, NULL, NULL);
        break;
    case XY_STREAM_EVENT_SM_ENABLE:
        xy_sm_init(&p->sm);
        xy_sm_queue_keep(&p->queue, true);
        p->sm_on = true;
        p->client_h = 0;
        xy_stream_sm_enabled(p->stream, XY_STR("sm1"), 300, XY_STR_NONE);
        break;
    case XY_STREAM_EVENT_SM_RESUME:
        peer_resume(p, event);
        break;
    case XY_STREAM_EVENT_STANZA:
        peer_stanza(p, event);
        break;
    case XY_STREAM_EVENT_SM_REQUEST:
        if (!p->slow_disk)
            xy_stream_send_ack(p->stream, xy_sm_h(&p->sm));
        break;
    case XY_STREAM_EVENT_SM_ACK:
        p->client_h = event->h;
        xy_sm_queue_ack(&p->queue, &p->sm, event->h, NULL, NULL);
        break;
    case XY_STREAM_EVENT_CLOSED:
        p->closed = true;
        xy_stream_close(p->stream);
        break;
    default:
        break;
    }
    xy_arena_free(&arena);
}

static inline void peer_connect(struct peer *p)
{
    peer_drop(p);
    p->options = (struct xy_stream_options){ .env = &p->env, .sasl_secret = XY_STR("0123456789abcdef") };
    p->stream = xy_stream_server_new(&p->options);
    p->connects++;
    xy_client_connected(p->client);
}

static inline bool peer_flow(struct peer *p)
{
    bool moved = false;
    struct xy_stream_event event;
    struct xy_str out = xy_client_output(p->client);
    if (out.len && p->stream && !p->deaf) {
        xy_stream_feed(p->stream, out.data, out.len);
        xy_client_sent(p->client, out.len);
        moved = true;
    }
    while (p->stream && xy_stream_next(p->stream, &event))
        peer_event(p, &event);
    struct xy_sm_entry entry;
    while (p->stream && xy_stream_is_bound(p->stream) &&
           xy_sm_next_unsent(&p->queue, p->sm_on ? &p->sm : NULL, &entry)) {
        xy_stream_send_raw(p->stream, xy_bytes_view(entry.bytes));
        xy_bytes_unref(&entry.bytes);
    }
    out = p->stream ? xy_stream_output(p->stream) : XY_STR_NONE;
    if (out.len && xy_client_wants_input(p->client)) {
        xy_client_receive(p->client, out.data, out.len);
        xy_stream_sent(p->stream, out.len);
        moved = true;
    }
    return moved;
}

/* Turns until nothing moves any more; connects when the client wants it. false: the client was freed. */
static inline bool peer_run(struct peer *p)
{
    for (unsigned turn = 0; turn < 200; turn++) {
        xy_client_enter(p->client);
        bool connected = xy_client_attempt(p->client) != 0 && p->stream;
        bool moved = false;
        if (xy_client_attempt(p->client) == 0)
            peer_drop(p);
        else if (!connected)
            peer_connect(p), moved = true;
        moved |= peer_flow(p);
        xy_client_tick(p->client);
        moved |= xy_client_output(p->client).len > 0 && p->stream && !p->deaf;
        moved |= xy_client_deadline_us(p->client) == 0;
        moved |= xy_client_attempt(p->client) != 0 && !p->stream;
        if (!xy_client_leave(p->client))
            return false;
        if (!moved)
            return true;
    }
    return true;
}

static inline bool peer_later(struct peer *p, uint64_t ms)
{
    p->now_us += ms * 1000;
    return peer_run(p);
}

/* The connection breaks; what was on its way is lost. */
static inline void peer_break(struct peer *p)
{
    peer_drop(p);
    xy_client_enter(p->client);
    xy_client_lost(p->client, "broken by the test");
    xy_client_leave(p->client);
}

static inline size_t peer_count(const struct peer *p, const char *part)
{
    size_t count = 0;
    for (size_t i = 0; i < p->seen_count; i++)
        count += strstr(p->seen[i], part) != NULL;
    return count;
}

static inline const char *peer_find(const struct peer *p, const char *part, size_t nth)
{
    for (size_t i = 0; i < p->seen_count; i++)
        if (strstr(p->seen[i], part) && nth-- == 0)
            return p->seen[i];
    return NULL;
}
