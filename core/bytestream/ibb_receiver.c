/* The receiving side of an in-band bytestream: blocks are checked in the order XEP-0047 2.2 lists their faults, handed
 * over, and acknowledged now or when the owner has room again. Any fault ends the session. */
#include <stdlib.h>

#include "core/base/encoding.h"
#include "core/bytestream/ibb_private.h"

void ibb_receiver_free(struct receiver *receiver)
{
    for (; receiver->held_count > 0; receiver->held_count--) {
        xy_bytes_unref(&receiver->held[receiver->held_first]);
        receiver->held_first = (receiver->held_first + 1) % XY_IBB_HELD_MAX;
    }
    free(receiver->held);
    receiver->held = NULL;
}

/* Keeps the id of a block that is acknowledged later. false: no memory, or an id nobody needs to keep. */
static bool hold(struct receiver *receiver, struct xy_str id)
{
    xy_assert(receiver->held_count < XY_IBB_HELD_MAX);
    if (id.len > XY_IBB_ID_MAX)
        return false;
    if (receiver->held == NULL && (receiver->held = calloc(XY_IBB_HELD_MAX, sizeof *receiver->held)) == NULL)
        return false;
    struct xy_bytes *copy = xy_bytes_new(id);
    if (copy == NULL)
        return false;
    receiver->held[(receiver->held_first + receiver->held_count) % XY_IBB_HELD_MAX] = copy;
    receiver->held_count++;
    return true;
}

void ibb_receiver_flush(struct xy_ibb_session *session)
{
    struct receiver *receiver = &session->receiver;
    const struct xy_ibb *ibb = session->ibb;
    while (receiver->held_count > 0 && session->state != SESSION_DEAD) {
        struct xy_bytes *id = receiver->held[receiver->held_first];
        receiver->held[receiver->held_first] = NULL;
        receiver->held_first = (receiver->held_first + 1) % XY_IBB_HELD_MAX;
        receiver->held_count--;
        ibb->handlers->reply(ibb->options.ctx, session->peer, xy_bytes_view(id), NULL);
        xy_bytes_unref(&id);
    }
}

void xy_ibb_release(struct xy_ibb_session *session)
{
    ibb_enter(session->ibb);
    session->receiver.holding = false;
    ibb_receiver_flush(session);
    ibb_leave(session->ibb);
}

static void violated(struct xy_ibb_session *session, const struct xy_stanza *iq, enum xy_condition condition,
                     const char *text)
{
    struct xy_error error = ibb_error(condition, XY_ERROR_CANCEL, text);
    ibb_refuse(session->ibb, iq, error);
    ibb_end_by_close(session, XY_IBB_VIOLATED, &error);
}

static void refuse_for_now(struct xy_ibb_session *session, const struct xy_stanza *iq)
{
    session->receiver.refusing = true;
    ibb_refuse(session->ibb, iq,
               ibb_error(XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT,
                         "too many blocks are unprocessed; send it again later"));
}

/* The block's place in the order. false: it was answered. */
static bool seq_check(struct xy_ibb_session *session, const struct xy_stanza *iq, const struct xy_elem *data)
{
    struct receiver *receiver = &session->receiver;
    uint32_t seq;
    if (!xy_str_u32(xy_elem_attr(data, "seq"), &seq) || seq > 0xffff) {
        violated(session, iq, XY_BAD_REQUEST, "seq must be a number from 0 to 65535");
        return false;
    }
    uint16_t ahead = (uint16_t)(seq - receiver->next_seq);
    if (ahead != 0 && receiver->refusing && ahead < XY_IBB_WINDOW_MAX) {
        refuse_for_now(session, iq);
        return false;
    }
    if (ahead != 0) {
        violated(session, iq, XY_UNEXPECTED_REQUEST, "this seq is not the next one");
        return false;
    }
    if (receiver->holding && receiver->held_count == XY_IBB_HELD_MAX) {
        refuse_for_now(session, iq);
        return false;
    }
    return true;
}

/* The block's bytes. false: it was answered. */
static bool bytes_read(struct xy_ibb_session *session, const struct xy_stanza *iq, const struct xy_elem *data,
                       struct xy_arena *arena, struct xy_str *out)
{
    struct xy_str text = xy_elem_text(data, arena);
    size_t text_max = ((size_t)session->block_size + 2) / 3 * 4;
    *out = XY_STR("");
    if (text.len > text_max) {
        violated(session, iq, XY_BAD_REQUEST, "the block is larger than the block-size agreed on");
        return false;
    }
    if (xy_elem_first(data) != NULL) {
        violated(session, iq, XY_BAD_REQUEST, "data holds base64 and no elements");
        return false;
    }
    if (text.len > 0 && !xy_base64_decode_arena(arena, text, out)) {
        if (!xy_arena_failed(arena))
            violated(session, iq, XY_BAD_REQUEST, "the block is not base64 (RFC 4648 section 4)");
        else
            refuse_for_now(session, iq);
        return false;
    }
    if (out->len > session->block_size) {
        violated(session, iq, XY_BAD_REQUEST, "the block is larger than the block-size agreed on");
        return false;
    }
    return true;
}

static void block_deliver(struct xy_ibb_session *session, const struct xy_stanza *iq, struct xy_str bytes)
{
    struct xy_ibb *ibb = session->ibb;
    struct receiver *receiver = &session->receiver;
    receiver->refusing = false;
    receiver->next_seq++;
    if (bytes.len > 0 && ibb->handlers->data(ibb->options.ctx, session, bytes) == XY_IBB_HOLD)
        receiver->holding = true;
    bool held = receiver->holding && session->state != SESSION_DEAD && hold(receiver, iq->id);
    if (!held)
        ibb->handlers->reply(ibb->options.ctx, iq->from, iq->id, NULL);
}

void ibb_receive_data(struct xy_ibb_session *session, const struct xy_stanza *iq, const struct xy_elem *data)
{
    struct xy_ibb *ibb = session->ibb;
    struct xy_str bytes;
    if (!seq_check(session, iq, data))
        return;
    struct xy_arena *arena = xy_arena_pool_take(ibb->arenas);
    if (arena == NULL) {
        refuse_for_now(session, iq);
        return;
    }
    if (bytes_read(session, iq, data, arena, &bytes))
        block_deliver(session, iq, bytes);
    xy_arena_pool_give(ibb->arenas, &arena);
}
