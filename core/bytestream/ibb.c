/* The sessions of in-band bytestreams (XEP-0047): opening from both sides, finding the session a stanza is for, closing,
 * and the table of requests. How blocks go out and come in is in ibb_sender.c and ibb_receiver.c. */
#include "core/bytestream/ibb.h"

#include <stdlib.h>

#include "core/base/encoding.h"
#include "core/bytestream/ibb_private.h"
#include "core/namespaces.h"

#define IDLE_ARENAS 2

/* ---- nesting ---- */

void ibb_enter(struct xy_ibb *ibb)
{
    ibb->depth++;
}

static void session_free(struct xy_ibb_session *session)
{
    xy_list_remove(&session->link);
    ibb_sender_free(&session->sender);
    ibb_receiver_free(&session->receiver);
    free(session);
}

void ibb_leave(struct xy_ibb *ibb)
{
    xy_assert(ibb->depth > 0);
    if (--ibb->depth > 0)
        return;
    xy_list_each (link, &ibb->dead)
        session_free(xy_container_of(link, struct xy_ibb_session, link));
}

/* ---- sessions ---- */

static struct xy_ibb_session *session_find(struct xy_ibb *ibb, struct xy_jid peer, struct xy_str sid)
{
    xy_list_each (link, &ibb->sessions) {
        struct xy_ibb_session *session = xy_container_of(link, struct xy_ibb_session, link);
        if (xy_str_eq(session->sid, sid) && xy_jid_eq(session->peer, peer))
            return session;
    }
    return NULL;
}

static struct xy_ibb_session *session_numbered(struct xy_ibb *ibb, uint32_t number)
{
    xy_list_each (link, &ibb->sessions) {
        struct xy_ibb_session *session = xy_container_of(link, struct xy_ibb_session, link);
        if (session->number == number)
            return session;
    }
    return NULL;
}

static struct xy_ibb_session *session_new(struct xy_ibb *ibb, struct xy_jid peer, struct xy_str sid,
                                          uint32_t block_size)
{
    struct xy_ibb_session *session = calloc(1, sizeof *session + peer.len + sid.len);
    if (session == NULL)
        return NULL;
    session->ibb = ibb;
    session->block_size = block_size;
    session->number = ++ibb->last_number;
    session->peer = peer;
    if (xy_jid_present(peer)) {
        memcpy(session->names, peer.data, peer.len);
        session->peer.data = session->names;
    }
    memcpy(session->names + peer.len, sid.data, sid.len);
    session->sid = xy_str_n(session->names + peer.len, sid.len);
    session->sender.window = ibb->options.window;
    xy_list_append(&ibb->sessions, &session->link);
    ibb->count++;
    return session;
}

/* The session is no more, though its memory stays until the outermost call returns. */
static void session_bury(struct xy_ibb_session *session)
{
    struct xy_ibb *ibb = session->ibb;
    session->state = SESSION_DEAD;
    xy_list_remove(&session->link);
    xy_list_append(&ibb->dead, &session->link);
    xy_assert(ibb->count > 0 && ibb->depth > 0);
    ibb->count--;
}

void ibb_end(struct xy_ibb_session *session, enum xy_ibb_reason reason, const struct xy_error *error)
{
    struct xy_ibb *ibb = session->ibb;
    if (session->state == SESSION_DEAD)
        return;
    struct xy_ibb_end end = { .reason = reason, .unconfirmed_bytes = session->sender.unconfirmed_bytes };
    if (error != NULL)
        end.error = *error;
    session_bury(session);
    ibb->handlers->closed(ibb->options.ctx, session, &end);
}

void ibb_end_by_close(struct xy_ibb_session *session, enum xy_ibb_reason reason, const struct xy_error *error)
{
    bool peer_knows = session->state == SESSION_ACCEPTING || session->state == SESSION_CLOSE_SENT;
    if (session->state == SESSION_DEAD)
        return;
    struct xy_error copy = { 0 };
    if (error != NULL)
        copy = *error;
    if (!peer_knows) {
        session->state = SESSION_CLOSE_SENT;
        ibb_send(session, "close", TICKET_CLOSE, NULL, 0,
                 XY_STR_NONE); /* without memory the peer finds out later */
    }
    ibb_end(session, reason, error != NULL ? &copy : NULL);
}

/* ---- elements ---- */

bool ibb_send(struct xy_ibb_session *session, const char *name, uint32_t ticket, const char *attribute,
              uint32_t value, struct xy_str data)
{
    struct xy_ibb *ibb = session->ibb;
    struct xy_arena *arena = xy_arena_pool_take(ibb->arenas);
    if (arena == NULL)
        return false;
    struct xy_elem *elem = xy_elem_new(arena, xy_str(name), XY_STR(NS_IBB));
    xy_elem_set(arena, elem, "sid", session->sid);
    if (attribute != NULL)
        xy_elem_set(arena, elem, attribute, xy_arena_printf(arena, "%u", value));
    if (ticket == TICKET_OPEN)
        xy_elem_set(arena, elem, "stanza", XY_STR("iq"));
    if (xy_str_present(data))
        xy_elem_add_text(arena, elem, xy_base64_encode_arena(arena, data));
    bool built = !xy_arena_failed(arena);
    if (built)
        ibb->handlers->send(ibb->options.ctx, session->peer, elem, (uint64_t)session->number << 32 | ticket);
    xy_arena_pool_give(ibb->arenas, &arena);
    return built;
}

struct xy_error ibb_error(enum xy_condition condition, enum xy_error_type type, const char *text)
{
    struct xy_error error = xy_error_make(condition, text);
    error.type = type;
    return error;
}

void ibb_refuse(struct xy_ibb *ibb, const struct xy_stanza *iq, struct xy_error error)
{
    ibb->handlers->reply(ibb->options.ctx, iq->from, iq->id, &error);
}

/* NMTOKEN, and of a length one can keep. */
static bool sid_ok(struct xy_str sid)
{
    static const char punctuation[] = ".-_:";
    if (sid.len == 0 || sid.len > XY_IBB_SID_MAX)
        return false;
    for (size_t i = 0; i < sid.len; i++) {
        unsigned char c = (unsigned char)sid.data[i];
        bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        if (!letter && (c < '0' || c > '9') && c < 0x80 && (c == 0 || strchr(punctuation, c) == NULL))
            return false;
    }
    return true;
}

/* ---- requests ---- */

/* Everything an <open/> can be refused for before the owner is asked. */
static struct xy_error open_check(struct xy_ibb *ibb, const struct xy_stanza *iq, const struct xy_elem *open,
                                  uint32_t *block_size)
{
    struct xy_str sid = xy_elem_attr(open, "sid"), stanza = xy_elem_attr(open, "stanza");
    if (!sid_ok(sid))
        return xy_error_make(XY_BAD_REQUEST, "sid must be an NMTOKEN of 1 to 256 bytes");
    if (!xy_str_u32(xy_elem_attr(open, "block-size"), block_size) || *block_size == 0 ||
        *block_size > XY_IBB_BLOCK_MAX)
        return xy_error_make(XY_BAD_REQUEST, "block-size must be a number from 1 to 65535");
    if (xy_str_present(stanza) && xy_str_is(stanza, "message"))
        return ibb_error(XY_NOT_ACCEPTABLE, XY_ERROR_CANCEL, "data is taken in IQ stanzas only");
    if (xy_str_present(stanza) && !xy_str_is(stanza, "iq"))
        return xy_error_make(XY_BAD_REQUEST, "stanza must be 'iq' or 'message'");
    if (session_find(ibb, iq->from, sid) != NULL)
        return ibb_error(XY_NOT_ACCEPTABLE, XY_ERROR_CANCEL, "this sid is in use");
    if (*block_size > ibb->options.block_max)
        return ibb_error(XY_RESOURCE_CONSTRAINT, XY_ERROR_MODIFY, "try a smaller block-size");
    if (ibb->count >= ibb->options.sessions_max)
        return ibb_error(XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT, "too many bytestreams are open");
    if (ibb->handlers->incoming == NULL)
        return ibb_error(XY_NOT_ACCEPTABLE, XY_ERROR_CANCEL, NULL);
    return (struct xy_error){ 0 };
}

static void on_open(struct xy_ibb *ibb, const struct xy_stanza *iq, const struct xy_elem *open)
{
    uint32_t block_size = 0;
    struct xy_error error = open_check(ibb, iq, open, &block_size);
    if (error.condition != XY_NO_ERROR) {
        ibb_refuse(ibb, iq, error);
        return;
    }
    struct xy_ibb_session *session = session_new(ibb, iq->from, xy_elem_attr(open, "sid"), block_size);
    if (session == NULL) {
        ibb_refuse(ibb, iq, ibb_error(XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT, "memory is short"));
        return;
    }
    session->state = SESSION_ACCEPTING;
    enum xy_condition refusal = ibb->handlers->incoming(ibb->options.ctx, session);
    if (session->state == SESSION_DEAD && refusal == XY_NO_ERROR)
        refusal = XY_NOT_ACCEPTABLE; /* accepted and aborted at once */
    if (refusal != XY_NO_ERROR) {
        if (session->state != SESSION_DEAD)
            session_bury(session);
        ibb_refuse(ibb, iq, xy_error_make(refusal, NULL));
        return;
    }
    session->state = SESSION_OPEN;
    ibb->handlers->reply(ibb->options.ctx, iq->from, iq->id, NULL);
    ibb_sender_pump(session);
}

static struct xy_ibb_session *session_of(struct xy_ibb *ibb, const struct xy_stanza *iq,
                                         const struct xy_elem *elem)
{
    struct xy_ibb_session *session = session_find(ibb, iq->from, xy_elem_attr(elem, "sid"));
    if (session != NULL && (session->state == SESSION_OPEN || session->state == SESSION_CLOSE_SENT))
        return session;
    ibb_refuse(ibb, iq, ibb_error(XY_ITEM_NOT_FOUND, XY_ERROR_CANCEL, "no such bytestream"));
    return NULL;
}

static void on_data(struct xy_ibb *ibb, const struct xy_stanza *iq, const struct xy_elem *data)
{
    struct xy_ibb_session *session = session_of(ibb, iq, data);
    if (session != NULL)
        ibb_receive_data(session, iq, data);
}

/* What was received is acknowledged before the end is; what we had left to send is lost, and the owner told so. */
static void on_close(struct xy_ibb *ibb, const struct xy_stanza *iq, const struct xy_elem *close)
{
    struct xy_ibb_session *session = session_of(ibb, iq, close);
    if (session == NULL)
        return;
    bool done = session->state == SESSION_CLOSE_SENT;
    ibb_receiver_flush(session);
    ibb->handlers->reply(ibb->options.ctx, iq->from, iq->id, NULL);
    ibb_end(session, done ? XY_IBB_CLOSED : XY_IBB_CLOSED_BY_PEER, NULL);
}

struct request {
    const char *name;
    void (*handle)(struct xy_ibb *ibb, const struct xy_stanza *iq, const struct xy_elem *elem);
};

static const struct request requests[] = {
    { "data", on_data },
    { "open", on_open },
    { "close", on_close },
};

bool xy_ibb_request(struct xy_ibb *ibb, const struct xy_stanza *iq)
{
    const struct xy_elem *elem = xy_elem_first(iq->elem);
    if (iq->kind != XY_IQ || iq->type != XY_SET || elem == NULL || !xy_str_is(elem->ns, NS_IBB))
        return false;
    ibb_enter(ibb);
    size_t i = 0, count = sizeof requests / sizeof requests[0];
    while (i < count && !xy_str_is(elem->name, requests[i].name))
        i++;
    if (i < count)
        requests[i].handle(ibb, iq, elem);
    else
        ibb_refuse(ibb, iq, xy_error_make(XY_BAD_REQUEST, "in-band bytestreams have open, data and close"));
    ibb_leave(ibb);
    return true;
}

/* ---- answers ---- */

static bool open_send(struct xy_ibb_session *session)
{
    return ibb_send(session, "open", TICKET_OPEN, "block-size", session->block_size, XY_STR_NONE);
}

static void open_refused(struct xy_ibb_session *session, const struct xy_error *error)
{
    bool smaller = error->condition == XY_RESOURCE_CONSTRAINT && error->type == XY_ERROR_MODIFY;
    if (smaller && session->block_size / 2 >= XY_IBB_BLOCK_MIN) {
        session->block_size /= 2;
        if (open_send(session))
            return;
    }
    ibb_end(session, XY_IBB_REFUSED, error);
}

static void open_answer(struct xy_ibb_session *session, const struct xy_error *error)
{
    struct xy_ibb *ibb = session->ibb;
    if (session->state != SESSION_OPENING)
        return;
    if (error != NULL) {
        open_refused(session, error);
        return;
    }
    session->state = SESSION_OPEN;
    if (ibb->handlers->opened != NULL)
        ibb->handlers->opened(ibb->options.ctx, session);
    if (session->state == SESSION_OPEN && session->sender.starved && ibb->handlers->writable != NULL) {
        session->sender.starved = false;
        ibb->handlers->writable(ibb->options.ctx, session);
    }
    ibb_sender_pump(session); /* and closes, if that was asked for meanwhile */
}

void xy_ibb_answer(struct xy_ibb *ibb, uint64_t ticket, const struct xy_error *error)
{
    struct xy_ibb_session *session = session_numbered(ibb, (uint32_t)(ticket >> 32));
    uint32_t what = (uint32_t)ticket;
    if (session == NULL)
        return;
    ibb_enter(ibb);
    if (what == TICKET_OPEN)
        open_answer(session, error);
    else if (what == TICKET_CLOSE && session->state == SESSION_CLOSE_SENT)
        ibb_end(session, XY_IBB_CLOSED, NULL); /* an error means the peer forgot it before: closed too */
    else if (what <= TICKET_BLOCK_MASK && session->state == SESSION_OPEN)
        ibb_sender_answer(session, what, error);
    ibb_leave(ibb);
}

/* ---- the owner's calls ---- */

struct xy_ibb *xy_ibb_new(const struct xy_ibb_options *options)
{
    struct xy_ibb *ibb = calloc(1, sizeof *ibb);
    if (ibb == NULL)
        return NULL;
    ibb->options = *options;
    ibb->handlers = options->handlers;
    if (ibb->options.sessions_max == 0)
        ibb->options.sessions_max = XY_IBB_SESSIONS_DEFAULT;
    if (ibb->options.block_max == 0)
        ibb->options.block_max = XY_IBB_BLOCK_MAX;
    if (ibb->options.window == 0)
        ibb->options.window = XY_IBB_WINDOW_DEFAULT;
    xy_assert(ibb->options.window <= XY_IBB_WINDOW_MAX && ibb->options.block_max <= XY_IBB_BLOCK_MAX);
    xy_list_init(&ibb->sessions);
    xy_list_init(&ibb->dead);
    ibb->arenas = xy_arena_pool_new(IDLE_ARENAS);
    if (ibb->arenas == NULL) {
        free(ibb);
        return NULL;
    }
    return ibb;
}

void xy_ibb_free(struct xy_ibb **ibb)
{
    struct xy_ibb *old = *ibb;
    if (old == NULL)
        return;
    xy_assert(old->depth == 0);
    ibb_enter(old);
    while (!xy_list_empty(&old->sessions))
        ibb_end(xy_container_of(old->sessions.next, struct xy_ibb_session, link), XY_IBB_ABORTED, NULL);
    ibb_leave(old);
    xy_arena_pool_free(&old->arenas);
    free(old);
    *ibb = NULL;
}

struct xy_ibb_session *xy_ibb_open(struct xy_ibb *ibb, struct xy_jid peer, struct xy_str sid,
                                   uint32_t block_size, void *user)
{
    char random[XY_ID_LEN + 1];
    if (block_size == 0)
        block_size = XY_IBB_BLOCK_DEFAULT;
    if (!xy_str_present(sid)) {
        xy_random_id(ibb->options.env, random);
        sid = xy_str_n(random, XY_ID_LEN);
    }
    if (block_size > XY_IBB_BLOCK_MAX || !sid_ok(sid) || ibb->count >= ibb->options.sessions_max ||
        session_find(ibb, peer, sid) != NULL)
        return NULL;
    struct xy_ibb_session *session = session_new(ibb, peer, sid, block_size);
    if (session == NULL)
        return NULL;
    session->state = SESSION_OPENING;
    session->user = user;
    ibb_enter(ibb);
    if (!open_send(session))
        session_bury(session);
    bool alive = session->state != SESSION_DEAD; /* `send` may have ended it */
    ibb_leave(ibb);
    return alive ? session : NULL;
}

void xy_ibb_close(struct xy_ibb_session *session)
{
    struct xy_ibb *ibb = session->ibb;
    ibb_enter(ibb);
    session->closing = true;
    ibb_sender_pump(session);
    ibb_leave(ibb);
}

void xy_ibb_abort(struct xy_ibb_session *session)
{
    struct xy_ibb *ibb = session->ibb;
    ibb_enter(ibb);
    ibb_end_by_close(session, XY_IBB_ABORTED, NULL);
    ibb_leave(ibb);
}

uint64_t xy_ibb_deadline_us(const struct xy_ibb *ibb)
{
    uint64_t earliest = UINT64_MAX;
    xy_list_each (link, &ibb->sessions) {
        const struct xy_ibb_session *session = xy_container_of(link, struct xy_ibb_session, link);
        uint64_t at = session->sender.retry_at_us;
        if (at != 0 && at < earliest)
            earliest = at;
    }
    return earliest;
}

void xy_ibb_tick(struct xy_ibb *ibb)
{
    uint64_t now_us = xy_now_us(ibb->options.env);
    struct xy_ibb_session *due;
    ibb_enter(ibb);
    do { /* from the start each time: a handler may have changed the list */
        due = NULL;
        xy_list_each (link, &ibb->sessions) {
            struct xy_ibb_session *session = xy_container_of(link, struct xy_ibb_session, link);
            if (session->sender.retry_at_us != 0 && session->sender.retry_at_us <= now_us)
                due = session;
        }
        if (due != NULL) {
            due->sender.retry_at_us = 0;
            ibb_sender_pump(due);
        }
    } while (due != NULL);
    ibb_leave(ibb);
}

struct xy_jid xy_ibb_peer(const struct xy_ibb_session *session)
{
    return session->peer;
}

struct xy_str xy_ibb_sid(const struct xy_ibb_session *session)
{
    return session->sid;
}

uint32_t xy_ibb_block_size(const struct xy_ibb_session *session)
{
    return session->block_size;
}

uint32_t xy_ibb_window(const struct xy_ibb_session *session)
{
    return session->sender.window;
}

size_t xy_ibb_unconfirmed(const struct xy_ibb_session *session)
{
    return session->sender.unconfirmed_bytes;
}

void *xy_ibb_user(const struct xy_ibb_session *session)
{
    return session->user;
}

void xy_ibb_set_user(struct xy_ibb_session *session, void *user)
{
    session->user = user;
}

size_t xy_ibb_count(const struct xy_ibb *ibb)
{
    return ibb->count;
}
