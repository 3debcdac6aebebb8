/* Login, counting and reading. See peer.h. */
#include "tests/model/peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/encoding.h"
#include "core/base/list.h"
#include "core/error.h"
#include "core/namespaces.h"

/* --- the link ------------------------------------------------------------------------------------------------------ */

static struct peer *peer_of(struct link *link)
{
    return xy_container_of(link, struct peer, link);
}

static bool link_write(struct link *link, struct xy_str bytes)
{
    struct peer *peer = peer_of(link);
    if (peer->linked)
        xy_buf_str(&peer->down, bytes);
    return true;
}

static void link_pause(struct link *link, bool paused)
{
    (void)link;
    (void)paused;
}

static void link_start_tls(struct link *link)
{
    (void)link;
    xy_assert(false);
}

static void link_close(struct link *link)
{
    peer_of(link)->dropped = true;
    link->owner = NULL;
}

static void link_sleep(struct link *link)
{
    (void)link;
}

static void link_detach(struct link *link)
{
    peer_of(link)->in_transit = true;
    link->shard = NULL;
    link->owner = NULL;
}

static bool link_attach(struct link *link, struct shard *shard, void *owner)
{
    peer_of(link)->in_transit = false;
    link->shard = shard;
    link->owner = owner;
    return true;
}

static const struct link_calls link_calls = {
    .write = link_write,
    .read_pause = link_pause,
    .start_tls = link_start_tls,
    .close = link_close,
    .sleep = link_sleep,
    .detach = link_detach,
    .attach = link_attach,
};

/* --- beginning and end --------------------------------------------------------------------------------------------- */

void peer_init(struct peer *peer, struct rig *rig, unsigned slot)
{
    *peer = (struct peer){ .rig = rig, .slot = slot, .account = slot % RIG_ACCOUNTS };
    peer->options = (struct xy_stream_options){ .env = &rig->env };
}

static void unlink_peer(struct peer *peer)
{
    xy_stream_free(&peer->stream);
    xy_buf_reset(&peer->down);
    peer->linked = peer->ready = peer->in_transit = false;
}

void peer_free(struct peer *peer)
{
    unlink_peer(peer);
    xy_buf_free(&peer->down);
    free(peer->log);
    peer->log = NULL;
}

static void flush(struct peer *peer)
{
    while (peer->linked && peer->stream != NULL && peer->link.owner != NULL) {
        struct xy_str out = xy_stream_output(peer->stream);
        if (out.len == 0)
            return;
        struct xy_buf copy = { 0 };
        xy_buf_str(&copy, out);
        xy_stream_sent(peer->stream, out.len);
        peer->link.shard->link_events->input(&peer->link, copy.data, copy.len);
        xy_buf_free(&copy);
    }
}

static void link_up(struct peer *peer, bool sm, uint32_t h)
{
    char bare[32], full[64];
    xy_assert(!peer->linked);
    snprintf(bare, sizeof(bare), "a%u@" RIG_DOMAIN, peer->account);
    snprintf(full, sizeof(full), "%s/r%u", bare, peer->slot);
    struct xy_stream_client_options options = { .jid = xy_jid_canonical(xy_str(full)),
                                                .mechanisms = XY_SASL_EXTERNAL,
                                                .authzid = xy_str(bare),
                                                .tls = XY_STREAM_TLS_NONE,
                                                .sm = sm,
                                                .sm_resume = sm };
    if (peer->resume_id_len > 0) {
        options.previd = xy_str_n(peer->resume_id, peer->resume_id_len);
        options.previd_h = h;
    }
    peer->sm = sm;
    peer->resumed = peer->dropped = false;
    peer->stream = xy_stream_client_new(&peer->options, &options);
    xy_assert(peer->stream != NULL);
    peer->link = (struct link){ .calls = &link_calls,
                                .shard = rig_shard(peer->rig, peer->slot % peer->rig->shards),
                                .kind = LINK_LOCAL,
                                .loopback = true };
    peer->linked = true;
    peer->link.shard->link_events->opened(&peer->link);
    xy_stream_client_open(peer->stream);
    flush(peer);
}

void peer_connect(struct peer *peer, bool sm)
{
    peer->resume_id_len = 0;
    peer->count = 0;
    link_up(peer, sm, 0);
}

void peer_resume(struct peer *peer, uint32_t h)
{
    xy_assert(peer->resume_id_len > 0);
    link_up(peer, true, h);
}

void peer_close(struct peer *peer)
{
    xy_stream_close(peer->stream);
    flush(peer);
}

void peer_drop(struct peer *peer)
{
    if (peer->linked && peer->link.owner != NULL)
        peer->link.shard->link_events->gone(&peer->link);
    unlink_peer(peer);
}

/* --- saying -------------------------------------------------------------------------------------------------------- */

void peer_say(struct peer *peer, struct xy_str stanza)
{
    bool sent = xy_stream_send_raw(peer->stream, stanza);
    xy_assert(sent);
    peer->said++;
    flush(peer);
}

void peer_ask(struct peer *peer, const char *type, struct xy_str payload)
{
    struct xy_buf out = { 0 };
    memset(&peer->answer, 0, sizeof(peer->answer));
    xy_buf_printf(&out, "<iq type='%s' to='" RIG_SERVICE "' id='q%u'>", type, ++peer->asked);
    xy_buf_str(&out, payload);
    xy_buf_lit(&out, "</iq>");
    peer_say(peer, xy_buf_view(&out));
    xy_buf_free(&out);
}

void peer_ack(struct peer *peer, uint32_t h)
{
    (void)xy_stream_send_ack(peer->stream, h);
    flush(peer);
}

void peer_ask_ack(struct peer *peer)
{
    (void)xy_stream_send_request(peer->stream);
    flush(peer);
}

/* --- hearing ------------------------------------------------------------------------------------------------------- */

static void complain(struct peer *peer, const char *what)
{
    if (peer->trouble[0] == '\0')
        snprintf(peer->trouble, sizeof(peer->trouble), "session %u: %s", peer->slot, what);
}

static unsigned number_after(struct xy_str text, char letter)
{
    uint32_t value = 0;
    if (text.len < 2 || text.data[0] != letter)
        return UINT32_MAX;
    size_t len = 1;
    while (len < text.len && text.data[len] >= '0' && text.data[len] <= '9')
        len++;
    return xy_str_u32(xy_str_n(text.data + 1, len - 1), &value) ? value : UINT32_MAX;
}

/* 16 hexadecimal digits; 0: something else. */
static uint64_t hex(struct xy_str text)
{
    unsigned char bytes[8];
    uint64_t value = 0;
    if (text.len != 2 * sizeof(bytes) || !xy_hex_decode(bytes, text))
        return 0;
    for (size_t i = 0; i < sizeof(bytes); i++)
        value = value << 8 | bytes[i];
    return value;
}

static unsigned item_token(const struct xy_elem *item, struct xy_arena *arena)
{
    const struct xy_elem *payload = xy_elem_first(item);
    return payload != NULL ? number_after(xy_elem_text(payload, arena), 't') : UINT32_MAX;
}

const char *const heard_figures[HEARD_FIGURES] = { "depth",   "ready",   "in-flight",
                                                   "delayed", "blocked", "parked" };

static void read_figures(const struct xy_elem *state, struct answer *answer)
{
    for (unsigned i = 0; i < HEARD_FIGURES; i++) {
        uint32_t number = UINT32_MAX;
        xy_str_u32(xy_elem_attr(state, heard_figures[i]), &number);
        answer->figures[i] = number;
    }
}

static void read_answer(struct peer *peer, const struct xy_stanza *iq)
{
    struct answer *a = &peer->answer;
    bool current = number_after(iq->id, 'q') == peer->asked && !a->came;
    if (!current && !peer->resumed)
        complain(peer, "an answer to nothing that was asked");
    if (!current) /* again, because the client had forgotten it */
        return;
    a->came = true;
    a->result = iq->type == XY_RESULT;
    if (!a->result) {
        a->condition = xy_error_read(iq).condition;
        return;
    }
    const struct xy_elem *state = xy_elem_child(iq->elem, "queue-state", NS_XYLEM_DELIVERY);
    if (state != NULL)
        read_figures(state, a);
    const struct xy_elem *done = xy_elem_first(iq->elem);
    if (xy_elem_is(done, "redrive", NS_XYLEM_DELIVERY) || xy_elem_is(done, "move", NS_XYLEM_DELIVERY))
        xy_str_u32(xy_elem_attr(done, "count"), &a->moved);
    const struct xy_elem *pubsub = xy_elem_child(iq->elem, "pubsub", NS_PUBSUB);
    const struct xy_elem *first = pubsub != NULL ? xy_elem_first(pubsub) : NULL;
    if (first == NULL)
        return;
    a->subid = hex(xy_elem_attr(first, "subid"));
    for (const struct xy_elem *item = xy_elem_first(first); item; item = xy_elem_next(item)) {
        if (!xy_elem_is(item, "item", NS_PUBSUB))
            continue;
        if (a->count == HEARD_ITEMS_MAX) {
            complain(peer, "more items than this test can hold");
            return;
        }
        a->ids[a->count] = number_after(xy_elem_attr(item, "id"), 'i');
        a->tokens[a->count] = item_token(item, iq->arena);
        a->publishers[a->count++] = number_after(xy_elem_attr(item, "publisher"), 'a');
    }
}

static void read_delivery(const struct xy_elem *message, struct heard *heard)
{
    const struct xy_elem *d = xy_elem_child(message, "delivery", NS_XYLEM_DELIVERY);
    heard->delayed = xy_elem_child(message, "delay", NS_DELAY) != NULL;
    if (d == NULL)
        return;
    uint64_t attempt = 0;
    heard->claimed = true;
    heard->epoch = hex(xy_elem_attr(d, "epoch"));
    xy_str_u64(xy_elem_attr(d, "seq"), &heard->seq);
    xy_str_u64(xy_elem_attr(d, "attempt"), &attempt);
    heard->attempt = (uint32_t)attempt;
    heard->subid = hex(xy_elem_attr(d, "subid"));
}

static void read_event(const struct xy_stanza *stanza, const struct xy_elem *event, struct heard *heard)
{
    const struct xy_elem *first = xy_elem_first(event);
    if (first == NULL)
        return;
    struct xy_str name = xy_elem_attr(first, "node");
    unsigned queue = number_after(name, 'q');
    heard->node = queue != UINT32_MAX ? HEARD_QUEUES + queue : number_after(name, 'n');
    heard->kind = HEARD_NOTICE;
    heard->what = first->name.data[0];
    if (!xy_elem_is(first, "items", NS_PUBSUB_EVENT))
        return;
    const struct xy_elem *item = xy_elem_first(first);
    if (item == NULL || xy_elem_is(item, "retract", NS_PUBSUB_EVENT)) {
        heard->what = 'r';
        heard->id = item != NULL ? number_after(xy_elem_attr(item, "id"), 'i') : UINT32_MAX;
        return;
    }
    if (!xy_elem_is(item, "item", NS_PUBSUB_EVENT)) { /* unlocked: it is somebody else's now */
        heard->what = 'u';
        return;
    }
    heard->kind = HEARD_ITEM;
    heard->id = number_after(xy_elem_attr(item, "id"), 'i');
    heard->token = item_token(item, stanza->arena);
    heard->publisher = number_after(xy_elem_attr(item, "publisher"), 'a');
    read_delivery(stanza->elem, heard);
}

static void read_gap(const struct xy_stanza *stanza, const struct xy_elem *gap, struct heard *heard)
{
    struct xy_str reason = xy_elem_attr(gap, "reason");
    heard->kind = HEARD_GAP;
    heard->node = number_after(xy_elem_attr(gap, "node"), 'n');
    xy_str_u64(xy_elem_attr(gap, "first"), &heard->first);
    xy_str_u64(xy_elem_attr(gap, "last"), &heard->last);
    heard->age = xy_str_is(reason, "max_backlog_age");
    if (!heard->age && !xy_str_is(reason, "max_backlog_bytes"))
        heard->first = 0;
    read_delivery(stanza->elem, heard);
}

static void on_stanza(struct peer *peer, struct xy_stream_event *event)
{
    const struct xy_stanza *stanza = &event->stanza;
    if (peer->count == peer->cap) {
        peer->cap = peer->cap ? 2 * peer->cap : 64;
        peer->log = realloc(peer->log, peer->cap * sizeof(*peer->log));
        xy_assert(peer->log != NULL);
    }
    struct heard *heard = &peer->log[peer->count++];
    memset(heard, 0, sizeof(*heard));
    heard->at_us = peer->rig->now_us;
    const struct xy_elem *e = xy_elem_child(stanza->elem, "event", NS_PUBSUB_EVENT);
    const struct xy_elem *gap = xy_elem_child(stanza->elem, "gap", NS_XYLEM_DELIVERY);
    if (stanza->kind == XY_IQ && (stanza->type == XY_RESULT || stanza->type == XY_ERROR)) {
        heard->kind = HEARD_ANSWER;
        read_answer(peer, stanza);
    } else if (stanza->kind == XY_MESSAGE && e != NULL) {
        heard->headline = stanza->type == XY_HEADLINE;
        read_event(stanza, e, heard);
    } else if (stanza->kind == XY_MESSAGE && gap != NULL) {
        heard->headline = stanza->type == XY_HEADLINE;
        read_gap(stanza, gap, heard);
    }
    xy_arena_free(&event->stanza.arena);
}

static void on_ready(struct peer *peer, const struct xy_stream_event *event)
{
    peer->ready = true;
    peer->resumed = event->resumed;
    peer->restored = event->restored;
    peer->handled = event->h;
    if (event->resumed)
        return;
    peer->count = peer->said = 0;
    peer->resume_id_len = 0;
    if (!event->sm || !event->resume || event->sm_id.len >= sizeof(peer->resume_id))
        return;
    peer->resume_id_len = event->sm_id.len;
    memcpy(peer->resume_id, event->sm_id.data, event->sm_id.len);
}

static void on_event(struct peer *peer, struct xy_stream_event *event)
{
    switch (event->kind) {
    case XY_STREAM_EVENT_READY:
        on_ready(peer, event);
        break;
    case XY_STREAM_EVENT_STANZA:
        on_stanza(peer, event);
        break;
    case XY_STREAM_EVENT_FAILED:
        if (event->failure != XY_STREAM_FAILED_BY_PEER ||
            (event->error != XY_STREAM_CONFLICT && event->error != XY_STREAM_SYSTEM_SHUTDOWN))
            complain(peer, "the stream failed");
        break;
    default:
        break;
    }
}

bool peer_pump(struct peer *peer)
{
    struct xy_stream_event event;
    if (!peer->linked || (peer->down.len == 0 && !peer->dropped))
        return false;
    if (peer->down.len > 0) {
        struct xy_buf bytes = peer->down;
        peer->down = (struct xy_buf){ 0 };
        for (size_t at = 0; at < bytes.len; at += 65536)
            xy_stream_feed(peer->stream, bytes.data + at, bytes.len - at < 65536 ? bytes.len - at : 65536);
        xy_buf_free(&bytes);
        while (xy_stream_next(peer->stream, &event))
            on_event(peer, &event);
        flush(peer);
    }
    if (peer->dropped && peer->down.len == 0)
        unlink_peer(peer);
    return true;
}
