/* In-Band Bytestreams (XEP-0047), both roles, without sockets: all sessions of one entity.
 *
 * The owner (the SDK's client, a component) passes incoming IQs of this protocol to xy_ibb_request, sends what the
 * handlers say, and reports the answer to each of its own requests with xy_ibb_answer. Only IQ stanzas are used, so every
 * block is acknowledged. A sender keeps a bounded window of unconfirmed blocks and sends again, more carefully, when the
 * way or the peer is short of resources; a receiver that says XY_IBB_HOLD slows its sender down. A session needs
 * window x block-size bytes for sending and none for receiving. Everything happens inside calls of the owner, on one
 * thread; every call is allowed inside the handlers. */
#pragma once

#include "core/base/env.h"
#include "core/error.h"

#define XY_IBB_BLOCK_DEFAULT    4096u /* bytes; the XEP's recommendation */
#define XY_IBB_BLOCK_MIN        512u  /* a peer that wants smaller blocks is refused */
#define XY_IBB_WINDOW_DEFAULT   16u   /* blocks on the way */
#define XY_IBB_WINDOW_MAX       256u
#define XY_IBB_SESSIONS_DEFAULT 64u
#define XY_IBB_SID_MAX          256u  /* bytes of a peer's session id */
#define XY_IBB_ID_MAX           1024u /* bytes of a peer's stanza id */
#define XY_IBB_HELD_MAX         256u /* acknowledgements held back in one session; more blocks are refused (wait) */
#define XY_IBB_RETRIES_MAX      12u   /* times in a row that the same block is sent again */
#define XY_IBB_RETRY_MIN_MS     100u  /* doubled each time … */
#define XY_IBB_RETRY_MAX_MS     5000u /* … up to here */

struct xy_ibb;
struct xy_ibb_session;

enum xy_ibb_take {
    XY_IBB_TAKEN, /* and acknowledged */
    XY_IBB_HOLD, /* taken, but acknowledge nothing in this session until xy_ibb_release is called afterwards */
};

enum xy_ibb_reason {
    XY_IBB_CLOSED,         /* by us: all data was acknowledged, and the peer knows */
    XY_IBB_CLOSED_BY_PEER, /* `unconfirmed_bytes` says what the peer did not acknowledge before */
    XY_IBB_REFUSED,        /* the peer did not accept the session: `error` */
    XY_IBB_FAILED,         /* our data was refused or retried in vain: `error` */
    XY_IBB_VIOLATED,       /* the peer broke the protocol: `error` is what it was told */
    XY_IBB_ABORTED,        /* by xy_ibb_abort or xy_ibb_free */
};

struct xy_ibb_end {
    enum xy_ibb_reason reason;
    struct xy_error error;    /* zero unless the reason says so */
    size_t unconfirmed_bytes; /* written by us and never acknowledged */
};

/* All are called with `ctx`; none is NULL except where said. Elements, strings and errors live until the call returns. */
struct xy_ibb_handlers {
    /* Send an IQ-set with this payload to the peer, under any id, and pass its answer on with the same ticket. */
    void (*send)(void *ctx, struct xy_jid peer, const struct xy_elem *payload, uint64_t ticket);
    /* Answer the peer's IQ `id`: a result (error NULL) or an error. */
    void (*reply)(void *ctx, struct xy_jid peer, struct xy_str id, const struct xy_error *error);
    /* A peer opens a session. XY_NO_ERROR accepts (set xy_ibb_set_user here); any other condition refuses it, then no
     * `closed` follows. NULL: never accept. */
    enum xy_condition (*incoming)(void *ctx, struct xy_ibb_session *session);
    /* A session we opened was accepted; its block-size is final and it can be written to. May be NULL. */
    void (*opened)(void *ctx, struct xy_ibb_session *session);
    /* Bytes from the peer, in order, never empty. */
    enum xy_ibb_take (*data)(void *ctx, struct xy_ibb_session *session, struct xy_str bytes);
    /* xy_ibb_write accepts bytes again. May be NULL. */
    void (*writable)(void *ctx, struct xy_ibb_session *session);
    /* The session is over; the pointer is invalid after this call. */
    void (*closed)(void *ctx, struct xy_ibb_session *session, const struct xy_ibb_end *end);
};

struct xy_ibb_options {
    const struct xy_env *env;               /* borrowed */
    const struct xy_ibb_handlers *handlers; /* borrowed */
    void *ctx;
    uint32_t sessions_max; /* 0: XY_IBB_SESSIONS_DEFAULT; opens above it get resource-constraint (wait) */
    uint32_t block_max;    /* largest block-size accepted from a peer; 0: XY_IBB_BLOCK_MAX */
    uint32_t window;       /* blocks on the way per session; 0: XY_IBB_WINDOW_DEFAULT */
};

struct xy_ibb *xy_ibb_new(const struct xy_ibb_options *options); /* NULL: out of memory */
/* Ends all sessions (`closed` with XY_IBB_ABORTED) without telling the peers. Not inside a handler. */
void xy_ibb_free(struct xy_ibb **ibb);

/* An incoming IQ-set: true if it was one of this protocol (replies were or will be sent), false if it is not ours. */
bool xy_ibb_request(struct xy_ibb *ibb, const struct xy_stanza *iq);
/* The answer to a request made by `send`: error NULL for a result. A request that got no answer in the owner's time is
 * reported as XY_REMOTE_SERVER_TIMEOUT. Unknown tickets are ignored. */
void xy_ibb_answer(struct xy_ibb *ibb, uint64_t ticket, const struct xy_error *error);

/* When xy_ibb_tick must be called, in env's monotonic microseconds; UINT64_MAX: never. */
uint64_t xy_ibb_deadline_us(const struct xy_ibb *ibb);
void xy_ibb_tick(struct xy_ibb *ibb);

/* Opens a session. `sid` absent: a random one (128 bits); Jingle (XEP-0261) brings its own. block_size 0: the default.
 * NULL: too many sessions, this sid is in use with this peer, it is no sid, or out of memory. */
struct xy_ibb_session *xy_ibb_open(struct xy_ibb *ibb, struct xy_jid peer, struct xy_str sid,
                                   uint32_t block_size, void *user);
/* Accepts as many bytes as there is room for, returns how many; none before `opened`. After it accepted less than it was
 * given, `writable` follows. Blocks are sent when full, or when nothing is on the way. */
size_t xy_ibb_write(struct xy_ibb_session *session, const void *data, size_t len);
/* Acknowledges what was held and lets the peer go on. */
void xy_ibb_release(struct xy_ibb_session *session);
/* Orderly: sends and gets everything acknowledged first, then closes. */
void xy_ibb_close(struct xy_ibb_session *session);
/* At once: what is unsent is lost. `closed` is called before this returns. */
void xy_ibb_abort(struct xy_ibb_session *session);

struct xy_jid xy_ibb_peer(const struct xy_ibb_session *session);
struct xy_str xy_ibb_sid(const struct xy_ibb_session *session);
uint32_t xy_ibb_block_size(const struct xy_ibb_session *session);
uint32_t xy_ibb_window(const struct xy_ibb_session *session);    /* now, between 1 and the option */
size_t xy_ibb_unconfirmed(const struct xy_ibb_session *session); /* bytes written and not acknowledged yet */
void *xy_ibb_user(const struct xy_ibb_session *session);
void xy_ibb_set_user(struct xy_ibb_session *session, void *user);
size_t xy_ibb_count(const struct xy_ibb *ibb);
