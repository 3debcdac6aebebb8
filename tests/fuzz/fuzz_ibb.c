/* A peer and an owner who do anything in any order to in-band bytestreams: the bytes are a program of requests, answers
 * and calls. Blocks are delivered in order and within their size, memory and sessions stay bounded, nothing is used
 * after its end. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/bytestream/ibb.h"
#include "core/namespaces.h"

#define SESSIONS_MAX 4u
#define TICKETS_MAX  64u

struct program {
    const uint8_t *at;
    size_t left;
    struct xy_ibb *ibb;
    uint64_t now_us;
    struct xy_ibb_session *sessions[SESSIONS_MAX];
    uint64_t tickets[TICKETS_MAX];
    size_t ticket_count;
    uint8_t mood; /* how handlers decide */
};

static uint8_t next(struct program *p)
{
    if (p->left == 0)
        return 0;
    p->left--;
    return *p->at++;
}

/* A few bytes of the program as they are. */
static struct xy_str next_text(struct program *p)
{
    size_t len = next(p) % 48;
    if (len > p->left)
        len = p->left;
    struct xy_str text = xy_str_n((const char *)p->at, len);
    p->at += len;
    p->left -= len;
    return text;
}

static uint64_t now(void *ctx)
{
    return ((struct program *)ctx)->now_us;
}

static void fill(void *ctx, void *out, size_t len)
{
    struct program *p = ctx;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)out)[i] = (uint8_t)(p->now_us++ * 131);
}

static struct xy_ibb_session **slot_of(struct program *p, struct xy_ibb_session *session)
{
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        if (p->sessions[i] == session)
            return &p->sessions[i];
    return NULL;
}

static void keep(struct program *p, struct xy_ibb_session *session)
{
    struct xy_ibb_session **free_slot = slot_of(p, NULL);
    xy_assert(free_slot != NULL && slot_of(p, session) == NULL);
    *free_slot = session;
}

static void on_send(void *ctx, struct xy_jid peer, const struct xy_elem *payload, uint64_t ticket)
{
    struct program *p = ctx;
    xy_assert(xy_jid_present(peer) && xy_str_is(payload->ns, NS_IBB));
    p->tickets[p->ticket_count++ % TICKETS_MAX] = ticket;
}

static void on_reply(void *ctx, struct xy_jid peer, struct xy_str id, const struct xy_error *error)
{
    (void)ctx;
    xy_assert(xy_jid_present(peer) && xy_str_is(id, "id"));
    xy_assert(error == NULL || error->condition != XY_NO_ERROR);
}

static enum xy_condition on_incoming(void *ctx, struct xy_ibb_session *session)
{
    struct program *p = ctx;
    if (p->mood & 1)
        return XY_NOT_ACCEPTABLE;
    keep(p, session);
    if (p->mood & 2)
        xy_ibb_write(session, "early", 5);
    if (p->mood & 4)
        xy_ibb_abort(session);
    return XY_NO_ERROR;
}

static enum xy_ibb_take on_data(void *ctx, struct xy_ibb_session *session, struct xy_str bytes)
{
    struct program *p = ctx;
    xy_assert(slot_of(p, session) != NULL);
    xy_assert(bytes.len > 0 && bytes.len <= xy_ibb_block_size(session));
    if (p->mood & 8)
        xy_ibb_close(session);
    if (p->mood & 16)
        xy_ibb_abort(session);
    return p->mood & 32 ? XY_IBB_HOLD : XY_IBB_TAKEN;
}

static void on_ready(void *ctx, struct xy_ibb_session *session)
{
    struct program *p = ctx;
    if (p->mood & 64)
        xy_ibb_write(session, "more", 4);
    if (p->mood & 128)
        xy_ibb_abort(session);
}

static void on_closed(void *ctx, struct xy_ibb_session *session, const struct xy_ibb_end *end)
{
    struct program *p = ctx;
    struct xy_ibb_session **slot = slot_of(p, session);
    xy_assert(slot != NULL || (p->mood & 128)); /* ended inside xy_ibb_open */
    xy_assert(end->reason != XY_IBB_CLOSED || end->unconfirmed_bytes == 0);
    if (slot != NULL)
        *slot = NULL;
}

static const struct xy_ibb_handlers handlers = { .send = on_send,
                                                 .reply = on_reply,
                                                 .incoming = on_incoming,
                                                 .opened = on_ready,
                                                 .data = on_data,
                                                 .writable = on_ready,
                                                 .closed = on_closed };

static struct xy_jid peer(void)
{
    return xy_jid_canonical(XY_STR("romeo@example.net/orchard"));
}

static void request(struct program *p, const char *name, const char *attribute)
{
    static const char *const sids[] = { "a", "b", "c", "d", "e" };
    struct xy_arena *arena = xy_arena_new();
    if (arena == NULL)
        abort();
    struct xy_elem *iq = xy_elem_new(arena, XY_STR("iq"), XY_STR(NS_CLIENT));
    struct xy_elem *payload = xy_elem_add(arena, iq, name, NS_IBB);
    uint8_t shape = next(p);
    xy_elem_set(arena, payload, "sid", shape & 128 ? next_text(p) : xy_str(sids[shape % 5]));
    if (shape & 64)
        xy_elem_set(arena, payload, attribute, next_text(p));
    else
        xy_elem_set(arena, payload, attribute, xy_arena_printf(arena, "%u", next(p)));
    if (shape & 32)
        xy_elem_set(arena, payload, "stanza", next_text(p));
    xy_elem_add_text(arena, payload, shape & 16 ? XY_STR("aGVsbG8=") : next_text(p));
    struct xy_stanza stanza = {
        .arena = arena, .elem = iq, .kind = XY_IQ, .type = XY_SET, .from = peer(), .id = XY_STR("id")
    };
    xy_ibb_request(p->ibb, &stanza);
    xy_arena_free(&arena);
}

static void answer(struct program *p)
{
    uint8_t which = next(p), how = next(p);
    struct xy_error error = { .condition = (enum xy_condition)(1 + how % (XY_CONDITION_COUNT - 1)),
                              .type = (enum xy_error_type)(how >> 5 & 3) };
    if (p->ticket_count > 0)
        xy_ibb_answer(p->ibb, p->tickets[which % TICKETS_MAX], how & 128 ? NULL : &error);
}

static void call(struct program *p, struct xy_ibb_session *session)
{
    static const char bytes[2000];
    uint8_t what = next(p);
    if (session == NULL)
        return;
    switch (what % 4) {
    case 0:
        xy_ibb_write(session, bytes, what * 7u);
        break;
    case 1:
        xy_ibb_release(session);
        break;
    case 2:
        xy_ibb_close(session);
        break;
    default:
        xy_ibb_abort(session);
    }
}

static void step(struct program *p)
{
    switch (next(p) % 8) {
    case 0:
        request(p, "open", "block-size");
        break;
    case 1:
    case 2:
        request(p, "data", "seq");
        break;
    case 3:
        request(p, next(p) & 1 ? "close" : "other", "x");
        break;
    case 4:
        answer(p);
        break;
    case 5:
        call(p, p->sessions[next(p) % SESSIONS_MAX]);
        break;
    case 6: {
        struct xy_ibb_session *session = xy_ibb_open(p->ibb, peer(), XY_STR_NONE, next(p) * 16u, NULL);
        if (session != NULL)
            keep(p, session);
        break;
    }
    default:
        p->mood = next(p);
        p->now_us += (uint64_t)next(p) * 100000;
        xy_ibb_tick(p->ibb);
    }
    xy_assert(xy_ibb_count(p->ibb) <= SESSIONS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct program p = { .at = data, .left = size, .now_us = 1 };
    struct xy_env env = { .now_us = now, .random = fill, .ctx = &p };
    struct xy_ibb_options options = { .env = &env,
                                      .handlers = &handlers,
                                      .ctx = &p,
                                      .sessions_max = SESSIONS_MAX,
                                      .block_max = 200,
                                      .window = 4 };
    p.ibb = xy_ibb_new(&options);
    if (p.ibb == NULL)
        abort();
    while (p.left > 0)
        step(&p);
    xy_ibb_free(&p.ibb);
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        xy_assert(p.sessions[i] == NULL);
    return 0;
}
