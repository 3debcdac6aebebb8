/* The sending side of an in-band bytestream: a ring of blocks, a window of them on the way, and going back to the oldest
 * unconfirmed one when resources are short (XEP-0047 2.2). Driven by writes, answers and ticks. */
#include <stdlib.h>

#include "core/bytestream/ibb_private.h"

static struct block *block_at(struct sender *sender, uint64_t number)
{
    return &sender->blocks[number % sender->capacity];
}

static unsigned char *bytes_at(struct xy_ibb_session *session, uint64_t number)
{
    return session->sender.bytes + (size_t)(number % session->sender.capacity) * session->block_size;
}

static bool sender_prepare(struct xy_ibb_session *session)
{
    struct sender *sender = &session->sender;
    if (sender->blocks != NULL)
        return true;
    uint32_t capacity = session->ibb->options.window;
    sender->blocks = calloc(capacity, sizeof *sender->blocks);
    sender->bytes = malloc((size_t)capacity * session->block_size);
    sender->capacity = capacity;
    if (sender->blocks != NULL && sender->bytes != NULL)
        return true;
    ibb_sender_free(sender);
    return false;
}

void ibb_sender_free(struct sender *sender)
{
    free(sender->bytes);
    free(sender->blocks);
    sender->bytes = NULL;
    sender->blocks = NULL;
}

static uint32_t partial_len(struct sender *sender)
{
    bool has_slot = sender->filled - sender->oldest < sender->capacity;
    return has_slot ? block_at(sender, sender->filled)->len : 0;
}

/* ---- sending ---- */

static bool block_send(struct xy_ibb_session *session)
{
    struct sender *sender = &session->sender;
    uint64_t number = sender->next;
    struct block *block = block_at(sender, number);
    xy_assert(block->state == BLOCK_WAITING && block->len > 0 && block->len <= session->block_size);
    block->state = BLOCK_SENT;
    sender->next++;
    sender->on_the_way++;
    struct xy_str data = xy_str_n((const char *)bytes_at(session, number), block->len);
    return ibb_send(session, "data", (uint32_t)(number & TICKET_BLOCK_MASK), "seq",
                    (uint32_t)(number & 0xffff), data);
}

/* Complete blocks go as the window allows; an incomplete one only when nothing is on the way, or as the last. */
static bool may_send(struct xy_ibb_session *session)
{
    struct sender *sender = &session->sender;
    if (session->state != SESSION_OPEN || sender->blocks == NULL || sender->rewinding)
        return false;
    if (sender->next - sender->oldest >= sender->window)
        return false;
    if (sender->retry_at_us != 0) {
        if (xy_now_us(session->ibb->options.env) < sender->retry_at_us)
            return false;
        sender->retry_at_us = 0;
    }
    if (sender->next < sender->filled)
        return true;
    if (partial_len(sender) == 0 || (sender->next > sender->oldest && !session->closing))
        return false;
    sender->filled++;
    return true;
}

static void close_if_done(struct xy_ibb_session *session)
{
    if (session->state != SESSION_OPEN || !session->closing || session->sender.unconfirmed_bytes > 0)
        return;
    session->state = SESSION_CLOSE_SENT;
    if (!ibb_send(session, "close", TICKET_CLOSE, NULL, 0, XY_STR_NONE))
        ibb_end(session, XY_IBB_CLOSED, NULL);
}

void ibb_sender_pump(struct xy_ibb_session *session)
{
    struct sender *sender = &session->sender;
    if (sender->pumping)
        return; /* called from inside `send`: the loop below goes on anyway */
    sender->pumping = true;
    while (may_send(session)) {
        if (!block_send(session)) {
            struct xy_error error = xy_error_make(XY_RESOURCE_CONSTRAINT, "memory is short");
            ibb_end_by_close(session, XY_IBB_FAILED, &error);
        }
    }
    sender->pumping = false;
    close_if_done(session);
}

size_t xy_ibb_write(struct xy_ibb_session *session, const void *data, size_t len)
{
    struct sender *sender = &session->sender;
    const unsigned char *bytes = data;
    size_t written = 0;
    bool writable = session->state == SESSION_OPEN || session->state == SESSION_ACCEPTING;
    if (session->closing || session->state == SESSION_DEAD || len == 0)
        return 0;
    sender->starved = !writable;
    if (!writable)
        return 0;
    ibb_enter(session->ibb);
    if (!sender_prepare(session)) {
        struct xy_error error = xy_error_make(XY_RESOURCE_CONSTRAINT, "memory is short");
        ibb_end_by_close(session, XY_IBB_FAILED, &error);
        ibb_leave(session->ibb);
        return 0;
    }
    while (written < len && sender->filled - sender->oldest < sender->capacity) {
        struct block *block = block_at(sender, sender->filled);
        size_t room = session->block_size - block->len, n = len - written < room ? len - written : room;
        memcpy(bytes_at(session, sender->filled) + block->len, bytes + written, n);
        block->len += (uint32_t)n;
        written += n;
        sender->filled += block->len == session->block_size;
    }
    sender->unconfirmed_bytes += written;
    sender->starved = written < len;
    ibb_sender_pump(session);
    ibb_leave(session->ibb);
    return written;
}

/* ---- answers ---- */

static void sender_grow(struct xy_ibb_session *session)
{
    struct sender *sender = &session->sender;
    sender->retries = 0;
    if (sender->window >= session->ibb->options.window || ++sender->confirmed < sender->window)
        return;
    sender->window++; /* one more for every window that came through */
    sender->confirmed = 0;
}

static void sender_advance(struct xy_ibb_session *session)
{
    struct sender *sender = &session->sender;
    while (sender->oldest < sender->next && block_at(sender, sender->oldest)->state == BLOCK_CONFIRMED) {
        struct block *block = block_at(sender, sender->oldest);
        xy_assert(sender->unconfirmed_bytes >= block->len);
        sender->unconfirmed_bytes -= block->len;
        *block = (struct block){ .len = 0, .state = BLOCK_WAITING };
        sender->oldest++;
        sender_grow(session);
    }
}

/* All answers are in: go back to the oldest refused block, later and with half the window. A block confirmed behind a
 * refused one means the peer lost the order, and then nothing can be repaired. */
static void sender_rewind(struct xy_ibb_session *session)
{
    struct sender *sender = &session->sender;
    bool out_of_order = false;
    for (uint64_t n = sender->oldest; n < sender->next; n++)
        out_of_order = out_of_order || block_at(sender, n)->state == BLOCK_CONFIRMED;
    if (out_of_order || sender->retries == XY_IBB_RETRIES_MAX) {
        ibb_end_by_close(session, XY_IBB_FAILED, &sender->refusal);
        return;
    }
    for (uint64_t n = sender->oldest; n < sender->next; n++)
        block_at(sender, n)->state = BLOCK_WAITING;
    uint64_t delay_ms = (uint64_t)XY_IBB_RETRY_MIN_MS << sender->retries;
    if (delay_ms > XY_IBB_RETRY_MAX_MS)
        delay_ms = XY_IBB_RETRY_MAX_MS;
    sender->retry_at_us = xy_now_us(session->ibb->options.env) + delay_ms * 1000;
    sender->retries++;
    sender->next = sender->oldest;
    sender->window = sender->window > 1 ? sender->window / 2 : 1;
    sender->confirmed = 0;
    sender->rewinding = false;
}

/* Literals survive, what lives in the answer's arena does not. */
static struct xy_error error_kept(const struct xy_error *error)
{
    return (struct xy_error){ .condition = error->condition, .type = error->type };
}

void ibb_sender_answer(struct xy_ibb_session *session, uint32_t block_number, const struct xy_error *error)
{
    struct sender *sender = &session->sender;
    uint64_t number = sender->oldest + ((block_number - sender->oldest) & TICKET_BLOCK_MASK);
    if (number >= sender->next || block_at(sender, number)->state != BLOCK_SENT)
        return;
    xy_assert(sender->on_the_way > 0);
    sender->on_the_way--;
    if (error == NULL) {
        block_at(sender, number)->state = BLOCK_CONFIRMED;
    } else if (error->type == XY_ERROR_WAIT || error->condition == XY_RESOURCE_CONSTRAINT) {
        block_at(sender, number)->state = BLOCK_REFUSED;
        sender->rewinding = true;
        sender->refusal = error_kept(error);
    } else {
        ibb_end_by_close(session, XY_IBB_FAILED, error);
        return;
    }
    sender_advance(session);
    if (sender->rewinding && sender->on_the_way == 0)
        sender_rewind(session);
    ibb_sender_pump(session);
    bool room = sender->filled - sender->oldest < sender->capacity;
    if (session->state == SESSION_OPEN && sender->starved && room && !session->closing) {
        sender->starved = false;
        if (session->ibb->handlers->writable != NULL)
            session->ibb->handlers->writable(session->ibb->options.ctx, session);
    }
}
