/* What the files of in-band bytestreams share: a session, its sending side and its receiving side. Private to
 * core/bytestream/ibb*.c.
 *
 * Calls may nest (a handler may call back), so sessions that end are only marked and freed when the outermost call
 * returns: ibb_enter and ibb_leave frame every public function that may end one. */
#pragma once

#include "core/base/assert.h"
#include "core/base/bytes.h"
#include "core/base/limits.h"
#include "core/base/list.h"
#include "core/bytestream/ibb.h"

enum session_state {
    SESSION_OPENING,   /* our <open/> is unanswered */
    SESSION_ACCEPTING, /* the owner is being asked about the peer's <open/> */
    SESSION_OPEN,
    SESSION_CLOSE_SENT, /* our <close/> is unanswered; the peer may still send */
    SESSION_DEAD,
};

enum block_state {
    BLOCK_WAITING, /* not sent, or to be sent again */
    BLOCK_SENT,
    BLOCK_CONFIRMED,
    BLOCK_REFUSED, /* for lack of resources: to be sent again */
};

struct block {
    uint32_t len;
    enum block_state state;
};

/* Blocks are numbered from 0 without wrapping; number % capacity is a block's slot and number % 65536 its seq.
 * oldest <= next <= filled; block `filled` is the one being filled. */
struct sender {
    unsigned char *bytes; /* capacity * block_size, made at the first write */
    struct block *blocks; /* capacity */
    uint64_t oldest;      /* not confirmed */
    uint64_t next;        /* to be sent */
    uint64_t filled;      /* not complete */
    uint32_t capacity;
    uint32_t window;     /* how many may be on the way now */
    uint32_t confirmed;  /* since the window last changed */
    uint32_t on_the_way; /* requests without an answer */
    uint32_t retries;    /* in a row */
    size_t unconfirmed_bytes;
    uint64_t retry_at_us; /* 0: now */
    bool rewinding;       /* a block was refused: wait for all answers, then send again from the oldest */
    bool starved;         /* a write was cut short: the owner waits for `writable` */
    bool pumping;
    struct xy_error refusal;
};

struct receiver {
    uint16_t next_seq;
    bool holding;
    bool
        refusing; /* a block was refused for too many held: those behind it are refused alike, not out of order */
    uint32_t held_count, held_first;
    struct xy_bytes **held; /* a ring of XY_IBB_HELD_MAX stanza ids, made at the first hold */
};

struct xy_ibb_session {
    struct xy_list link;
    struct xy_ibb *ibb;
    enum session_state state;
    uint32_t number; /* in tickets */
    uint32_t block_size;
    bool closing; /* close when all is confirmed */
    struct xy_jid peer;
    struct xy_str sid;
    void *user;
    struct sender sender;
    struct receiver receiver;
    char names[]; /* peer and sid */
};

struct xy_ibb {
    struct xy_ibb_options options;
    const struct xy_ibb_handlers *handlers;
    struct xy_list sessions;
    struct xy_list dead;
    size_t count;
    uint32_t last_number;
    unsigned depth; /* nested calls */
    struct xy_arena_pool *arenas;
};

/* The low half of a ticket: a block's number modulo 2^31, or one of these. */
#define TICKET_BLOCK_MASK 0x7fffffffu
#define TICKET_OPEN       0x80000000u
#define TICKET_CLOSE      0x80000001u

void ibb_enter(struct xy_ibb *ibb);
void ibb_leave(struct xy_ibb *ibb);

/* Sends `<name sid=…/>` with one more attribute and text, each if present. false: no memory, nothing was sent. */
bool ibb_send(struct xy_ibb_session *session, const char *name, uint32_t ticket, const char *attribute,
              uint32_t value, struct xy_str data);
void ibb_end(struct xy_ibb_session *session, enum xy_ibb_reason reason, const struct xy_error *error);
/* Tells the peer by <close/> before. */
void ibb_end_by_close(struct xy_ibb_session *session, enum xy_ibb_reason reason,
                      const struct xy_error *error);

void ibb_sender_pump(struct xy_ibb_session *session);
void ibb_sender_answer(struct xy_ibb_session *session, uint32_t block, const struct xy_error *error);
void ibb_sender_free(struct sender *sender);

void ibb_receive_data(struct xy_ibb_session *session, const struct xy_stanza *iq, const struct xy_elem *data);
void ibb_receiver_flush(struct xy_ibb_session *session);
void ibb_receiver_free(struct receiver *receiver);

struct xy_error ibb_error(enum xy_condition condition, enum xy_error_type type, const char *text);
void ibb_refuse(struct xy_ibb *ibb, const struct xy_stanza *iq, struct xy_error error);
