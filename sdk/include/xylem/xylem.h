/* libxylem: a client of the Xylem broker, and of any XMPP server with publish-subscribe (XEP-0060).
 *
 * The library creates no thread, keeps no global state and makes no blocking call, except that it fsyncs the
 * files of `state_dir` and `spool_dir`. A client does its work in xylem_client_process (plain descriptor,
 * below) or in turns of a libuv loop (<xylem/uv.h>). Callbacks run only in there, never inside another call
 * of this header, and every call, xylem_client_free included, is legal inside a callback.
 *
 * One client belongs to one thread at a time; only xylem_client_post may be called from any thread. Strings
 * passed in are copied. What a callback is given is borrowed until it returns, unless said otherwise. Calls
 * made before the client is online are remembered and done once it is.
 *
 * What is promised:
 *  - a publish whose completion said XYLEM_OK is on the broker's disk. One that is unanswered when the
 *    connection or the broker dies is sent again under the same publish-id, and the broker drops the double.
 *  - an item of a durable subscription is acknowledged to the broker (XEP-0198) only after the application
 *    acknowledged it. What comes twice is recognised by (epoch, seq) and not shown again; with `state_dir`
 *    also after a restart of the process.
 *  - the limit of that: handling an item and recording that it was handled are two steps. If the process dies
 *    between them, the item is shown once more. An application that must not see that keeps the position together
 *    with its own result: xylem_msgs_position. Without either every restart may show what was not yet
 *    acknowledged. Of what was acknowledged out of order the newest 256 stretches are remembered.
 *  - acknowledged explicitly, an item that is not handled can be given back, put off or given up: xylem_nack,
 *    xylem_working, xylem_term. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define XYLEM_API __attribute__((visibility("default")))

/* --- Status ------------------------------------------------------------------------------------------- */

/* What to do about a status: its high bits (status >> 8). */
enum xylem_class {
    XYLEM_CLASS_OK = 0,
    XYLEM_CLASS_RETRY = 1,   /* try the same again later */
    XYLEM_CLASS_LOST = 2,    /* the connection; the library reconnects, the call may be repeated */
    XYLEM_CLASS_REFUSED = 3, /* by the broker; repeating it changes nothing */
    XYLEM_CLASS_CALLER = 4,  /* a mistake of the caller */
    XYLEM_CLASS_FATAL = 5,   /* this client is of no use any more */
};

enum xylem_status {
    XYLEM_OK = 0,

    XYLEM_FULL =
        0x100,     /* the publish queue or the spool is full: nothing was taken; on_room says when to go on */
    XYLEM_TIMEOUT, /* no answer in time */
    XYLEM_BUSY,    /* the broker is short of something and asks to wait */

    XYLEM_DISCONNECTED = 0x200, /* the session ended before the answer came */
    XYLEM_UNREACHABLE,          /* no connection could be made */

    XYLEM_REFUSED = 0x300, /* for a reason without a name of its own: see the text */
    XYLEM_NOT_FOUND,       /* node, item or account */
    XYLEM_FORBIDDEN,
    XYLEM_CONFLICT,    /* it exists already */
    XYLEM_UNAVAILABLE, /* the recipient is not there */
    XYLEM_UNSUPPORTED, /* the other side does not know this */

    XYLEM_INVALID = 0x400, /* an argument or option; see xylem_client_error */
    XYLEM_WRONG_STATE,     /* not now */
    XYLEM_UNCLAIMED,       /* items of a durable subscription came that this client did not subscribe to */

    XYLEM_NO_MEMORY = 0x500,
    XYLEM_AUTH,      /* user or password, or no mechanism in common */
    XYLEM_UNTRUSTED, /* the server's certificate or its proof of knowing the password */
    XYLEM_REPLACED,  /* another client took this resource */
    XYLEM_STORAGE,   /* state_dir or spool_dir cannot be used */
    XYLEM_STOPPED,   /* stopped, or freed by a callback */
};

static inline enum xylem_class xylem_status_class(enum xylem_status status)
{
    return (enum xylem_class)((unsigned)status >> 8);
}

XYLEM_API const char *xylem_version(void);
XYLEM_API const char *xylem_status_text(enum xylem_status status); /* never NULL */
XYLEM_API bool xylem_status_retriable(enum xylem_status status);   /* class RETRY or LOST */

/* --- Client ------------------------------------------------------------------------------------------- */

struct xylem_client;
struct xylem_sub;
struct xylem_msg;

enum xylem_state {
    XYLEM_STATE_STOPPED,    /* not started, stopped, or given up: see the status in on_state */
    XYLEM_STATE_CONNECTING, /* to the broker, up to the bound resource */
    XYLEM_STATE_ONLINE,
    XYLEM_STATE_WAITING,  /* before the next attempt */
    XYLEM_STATE_STOPPING, /* draining, or the stream ends because of the status in on_state */
};

enum xylem_tls {
    XYLEM_TLS_REQUIRED,  /* STARTTLS, and nothing without it */
    XYLEM_TLS_DIRECT,    /* TLS from the first byte (XEP-0368) */
    XYLEM_TLS_PREFERRED, /* STARTTLS where offered; no protection against an active attacker */
    XYLEM_TLS_NONE,      /* loopback only */
};

enum xylem_retry {
    XYLEM_RETRY_ALWAYS,
    XYLEM_RETRY_ONCE_ONLINE, /* give up if the very first attempt fails */
    XYLEM_RETRY_NEVER,
};

/* How an operation ended. */
struct xylem_result {
    enum xylem_status status;
    const char *text;      /* in prose: condition, who said it, what to do; "" when OK */
    const char *condition; /* of the stanza error, e.g. "item-not-found"; NULL: none */
    const char *item_id;   /* publish: the item's id as the broker has it; NULL: not said */
    const char *xml;       /* request: the whole answer; NULL: none */
};

/* Completion of one operation: called exactly once, unless the client is freed before. */
typedef void xylem_done_fn(struct xylem_client *client, const struct xylem_result *result, void *ctx);
typedef void xylem_state_fn(struct xylem_client *client, enum xylem_state state, enum xylem_status why,
                            void *ctx);
typedef void xylem_client_fn(struct xylem_client *client, void *ctx);

struct xylem_item;
/* `item` says node and id; its payload is not given. */
typedef void xylem_spooled_fn(struct xylem_client *client, const struct xylem_item *item,
                              const struct xylem_result *result, void *ctx);

/* When what the spool took is on disk, and not only in the system's memory. */
enum xylem_spool_sync {
    XYLEM_SPOOL_SYNC_EACH, /* when xylem_publish returns: one fsync each */
    XYLEM_SPOOL_SYNC_TURN, /* at the end of the client's next turn, or when xylem_spool_sync returns; not sent before */
    XYLEM_SPOOL_SYNC_NEVER, /* when the system likes: survives the process, but not a loss of power */
};

/* Zero means the default everywhere. */
struct xylem_options {
    size_t size; /* sizeof(struct xylem_options): XYLEM_OPTIONS fills it */

    const char *jid; /* user@domain[/resource]; may be NULL with socket_path. Without a resource: a random
                             one, the same for the client's life */
    const char *resource; /* instead of the one in jid */
    const char *password;
    const char
        *as; /* the JID to act as (SASL authorization identity): with socket_path, or when certificate_file
                       names several */
    const char *host;        /* default: SRV records of the domain, then the domain itself */
    uint16_t port;           /* default: 5222, 5223 for XYLEM_TLS_DIRECT */
    const char *socket_path; /* the broker's local socket: SASL EXTERNAL, no TLS */

    enum xylem_tls tls;
    const char *ca_file;                     /* PEM; default: the system's */
    bool insecure;                           /* accept any certificate: tests only */
    bool plain_allowed;                      /* SASL PLAIN even without TLS: loopback only */
    const char *certificate_file, *key_file; /* the client's own (SASL EXTERNAL) */

    const char *service; /* publish-subscribe service; default pubsub.DOMAIN */
    const char
        *state_dir; /* where positions of durable subscriptions are kept: a folder of this client alone */

    uint32_t queue_items_max; /* publishes not answered yet: 10,000 … */
    uint64_t queue_bytes_max; /* … and their payloads: 8 MiB */
    uint32_t publish_window;  /* publishes on the way: 256, which is also the most */
    uint32_t max_inflight; /* messages shown and not acknowledged until reading stops: 256, at most 1,000 */

    uint32_t connect_timeout_ms;             /* 20 s, until logged in */
    uint32_t reply_timeout_ms;               /* 30 s */
    uint32_t keepalive_ms;                   /* silence until a ping (XEP-0199): 30 s */
    uint32_t ping_timeout_ms;                /* silence after it until the connection counts as dead: 10 s */
    uint32_t backoff_min_ms, backoff_max_ms; /* 250 ms, 60 s: decorrelated jitter */
    enum xylem_retry retry;
    bool no_presence; /* do not become available; else the priority depends on xylem_on_stanza */

    xylem_state_fn *on_state; /* may be NULL */
    xylem_client_fn *on_room; /* the publish queue or spool has room again (half empty), after XYLEM_FULL */
    void *ctx;                /* for all handlers of these options */

    const char *spool_dir;    /* where publishes wait that the broker has not confirmed: see Spool */
    uint64_t spool_bytes_max; /* of those, with 64 bytes each for bookkeeping: 256 MiB */
    enum xylem_spool_sync spool_sync;
    xylem_spooled_fn *on_spooled; /* a publish of a former run ended; may be NULL */

    const char *tls_library; /* which one does TLS: "mbedtls" (up to TLS 1.2) or "openssl" (up to 1.3), if
                                this libxylem was built with it; default: mbedTLS where it was */
};
#define XYLEM_OPTIONS                                                                                        \
    {                                                                                                        \
        .size = sizeof(struct xylem_options)                                                                 \
    }

/* XYLEM_OK: *out is the caller's, to be freed with xylem_client_free. Otherwise *out is NULL, and `error`, if
 * not NULL, holds what is wrong in prose. */
XYLEM_API enum xylem_status xylem_client_new(struct xylem_client **out, const struct xylem_options *options,
                                             char *error, size_t error_size);
XYLEM_API enum xylem_status xylem_client_start(struct xylem_client *client);
/* Answers to publishes are awaited for at most drain_ms, then </stream>; on_state(STOPPED) ends it. */
XYLEM_API enum xylem_status xylem_client_stop(struct xylem_client *client, uint32_t drain_ms);
/* At once. NULL is fine. Completions that are due are not called any more; messages held are invalid. */
XYLEM_API void xylem_client_free(struct xylem_client *client);

XYLEM_API enum xylem_state xylem_client_state(const struct xylem_client *client);
XYLEM_API const char *xylem_client_error(const struct xylem_client *client); /* last error; never NULL */
XYLEM_API const char *
xylem_client_jid(const struct xylem_client *client); /* full; "" before the first login */
XYLEM_API const char *xylem_client_service(const struct xylem_client *client); /* as above */
/* The one call for other threads: `fn` runs in the client's next turn. */
XYLEM_API enum xylem_status xylem_client_post(struct xylem_client *client, xylem_client_fn *fn, void *ctx);

struct xylem_stats {
    size_t size;
    uint64_t published, acknowledged,
        refused;                   /* accepted from the application; answered OK; answered otherwise */
    uint64_t queued, queued_bytes; /* not answered yet, now */
    uint64_t received, duplicates; /* messages shown; recognised and not shown */
    uint64_t connects, resumes;    /* sessions bound anew; sessions resumed */
};
XYLEM_API void xylem_client_stats(const struct xylem_client *client,
                                  struct xylem_stats *out); /* out->size set */

/* --- Plain descriptor: for poll, epoll and foreign loops --------------------------------------------------
 * One descriptor for the client's whole life (an epoll set inside): wait for what xylem_client_interest says
 * or for the timeout, then call xylem_client_process. */

#define XYLEM_READ  1u
#define XYLEM_WRITE 2u

XYLEM_API int xylem_client_fd(struct xylem_client *client);                  /* -1: none could be made */
XYLEM_API unsigned xylem_client_interest(const struct xylem_client *client); /* always XYLEM_READ */
XYLEM_API int xylem_client_timeout_ms(struct xylem_client *client);          /* -1: none */
/* One turn; never waits. XYLEM_STOPPED: the client is stopped (or a callback freed it); otherwise XYLEM_OK. */
XYLEM_API enum xylem_status xylem_client_process(struct xylem_client *client);
/* Waits for work up to timeout_ms (-1: for ever), does it, returns: for programs that have nothing else to do. A
 * signal ends the wait. */
XYLEM_API enum xylem_status xylem_client_run(struct xylem_client *client, int timeout_ms);

/* --- Publish ------------------------------------------------------------------------------------------ */

enum xylem_payload {
    XYLEM_TEXT,  /* <data xmlns='urn:xylem:data:0' type='TYPE'>; base64 inside if it is not text */
    XYLEM_XML,   /* one well-formed XML element, as it is */
    XYLEM_TYPED, /* <typed xmlns='urn:xylem:typed:0' type='TYPE'>: protobuf bytes and their message's name */
};

struct xylem_header {
    const char *name, *value;
};

struct xylem_item {
    const char *node;
    const char *id; /* NULL: the broker chooses */
    enum xylem_payload payload;
    const char *type; /* TEXT: MIME type, default text/plain; TYPED: e.g. "xylem.v1.HostState" */
    const void *data; /* may be NULL when len is 0 and payload is TEXT: an item without payload */
    size_t len;
    const struct xylem_header *headers; /* XEP-0131, e.g. Urgency, Group, Delay and TTL of a queue's items */
    size_t headers_count;
};

/* XYLEM_OK: taken into the queue; `done` (may be NULL) is called when the broker has it on disk or refused it. */
XYLEM_API enum xylem_status xylem_publish(struct xylem_client *client, const struct xylem_item *item,
                                          xylem_done_fn *done, void *ctx);
XYLEM_API enum xylem_status xylem_retract(struct xylem_client *client, const char *node, const char *item_id,
                                          xylem_done_fn *done, void *ctx);
/* XYLEM_CONFLICT in the completion: the node exists already. */
XYLEM_API enum xylem_status xylem_node_create(struct xylem_client *client, const char *node,
                                              xylem_done_fn *done, void *ctx);

/* Spool. With `spool_dir` xylem_publish and xylem_retract return when the folder has the publish; it survives the end of the
 * process, and of power as spool_sync says, and is sent, in order, until the broker has it durably or refused it for good.
 * The completion is called then, also after the client was stopped and started again; publishes of a former run end in
 * on_spooled. A refusal for a shortage (class RETRY) ends nothing: the publish is sent again, after a while; those that were
 * on their way behind it may overtake it. What is sent again carries its old publish-id, so the broker stores it once, if it
 * comes within the 30 days it remembers streams of publishers (docs/protocol.md, publish-id). The folder belongs to one
 * process, one account and one service; it may be the same as state_dir. A full spool or disk is XYLEM_FULL: nothing was
 * taken, on_room says when to try again. */

/* Everything that was published so far is on disk when it returns XYLEM_OK. */
XYLEM_API enum xylem_status xylem_spool_sync(struct xylem_client *client);

/* --- Subscribe ---------------------------------------------------------------------------------------- */

enum xylem_event {
    XYLEM_EVENT_ITEM,
    XYLEM_EVENT_RETRACT, /* of item id */
    XYLEM_EVENT_PURGE,   /* of all items */
    XYLEM_EVENT_DELETE,  /* of the node */
    XYLEM_EVENT_UNLOCK,  /* of item id of a queue: it is not this consumer's any more */
    XYLEM_EVENT_GAP, /* durable: the items from gap_first to seq cannot be delivered any more; gap_reason */
};

/* Borrowed: valid until the callback returns (auto) or the message is acknowledged. Strings end in NUL. */
struct xylem_msg_view {
    enum xylem_event event;
    const char *node, *id, *publisher; /* id, publisher: NULL when not said */
    enum xylem_payload payload;        /* of data; XML: data is the element itself */
    const char *type;                  /* NULL for XML */
    const void *data;
    size_t len;
    const char *epoch;      /* NULL: not durable */
    uint64_t seq;           /* 0: not durable */
    uint32_t attempt;       /* 1: first delivery */
    uint64_t delay_us;      /* when it was published, in microseconds since 1970, if it was kept; 0: fresh */
    const char *subid;      /* NULL: not durable */
    uint64_t gap_first;     /* 0: no gap */
    const char *gap_reason; /* damaged, overflow, … (docs/protocol.md) */
};

/* With auto acknowledgement (default) the message is acknowledged when the callback returns; otherwise it is
 * the application's until xylem_ack or another verdict. */
typedef void xylem_msg_fn(struct xylem_sub *sub, struct xylem_msg *msg, void *ctx);

/* What tells the broker that an item was handled. */
enum xylem_ack_way {
    XYLEM_ACK_BY_STREAM,  /* XEP-0198, in order: what waits holds back the acknowledgement of all behind it */
    XYLEM_ACK_BY_RECEIPT, /* XEP-0184, each by itself */
    XYLEM_ACK_EXPLICITLY, /* each by itself; xylem_nack, xylem_term and xylem_working too */
};

struct xylem_sub_options {
    size_t size;
    bool durable;      /* at least once: kept by the broker for this full JID until acknowledged */
    bool manual_ack;   /* xylem_ack says when */
    const char *start; /* durable, when the subscription is made: new (default), all, last, seq:N, time:… */
    xylem_msg_fn *on_message;
    xylem_done_fn *on_subscribed; /* each time the broker answered; may be NULL */
    void *ctx;                    /* for both */

    /* The rest: 0 or NULL means the broker's default, and what it means is said in docs/protocol.md. */
    enum xylem_ack_way ack;
    uint32_t
        max_inflight; /* items sent and not acknowledged; default for receipts and explicit: the client's */
    uint32_t ack_wait_s;     /* until an item that was not acknowledged is sent again */
    uint32_t max_deliver;    /* times an item is sent at most */
    const char *backoff;     /* seconds until it is sent again, "1,5,30": the last repeats */
    const char *dead_letter; /* node where items go that were given up */
    uint64_t max_backlog_bytes;
    uint32_t max_backlog_age_s;
    uint32_t queue_requests; /* above 0: a consumer of a queue, and how many items it takes at a time */
    bool temporary;          /* of a consumer: the broker ends the subscription when its session has ended */
    const char *position;    /* what xylem_msgs_position gave: nothing that was handled is shown again */
};
#define XYLEM_SUB_OPTIONS                                                                                    \
    {                                                                                                        \
        .size = sizeof(struct xylem_sub_options)                                                             \
    }

/* *out (may be NULL) belongs to the client and lives until it is cancelled or the client freed.
 *
 * A resource must take everything the broker owes it: subscribe to all its durable nodes before the client is
 * started. If items come that nobody takes, the client stops with XYLEM_UNCLAIMED instead of losing them. */
XYLEM_API enum xylem_status xylem_subscribe(struct xylem_client *client, const char *node,
                                            const struct xylem_sub_options *options, struct xylem_sub **out);
/* Ends the callbacks and nulls *sub. `forget`: also ends a durable subscription at the broker; `done` then says
 * how that went. A plain subscription always ends at the broker. */
XYLEM_API enum xylem_status xylem_sub_cancel(struct xylem_sub **sub, bool forget, xylem_done_fn *done,
                                             void *ctx);

/* The items of a durable subscription once more, from `start` (all, last, seq:N, time:…) on, as far as the node still holds
 * them; what was handled is forgotten when this is called, so that it is shown again. Only while online. */
XYLEM_API enum xylem_status xylem_sub_replay(struct xylem_sub *sub, const char *start, xylem_done_fn *done,
                                             void *ctx);

/* How the broker sees a durable subscription: what is owed (depth, bytes), what of that is sent, put off or given up, and up
 * to where everything is settled. See docs/protocol.md 1.9; consumers of queues have no such state of their own. */
struct xylem_sub_state {
    const char *state;   /* receiving, full, stalled, paused, absent, … */
    const char *session; /* who receives; "": nobody */
    uint64_t newest;     /* number of the node's newest item */
    uint64_t acknowledged;
    uint64_t depth, bytes, oldest_age_s;
    uint64_t in_flight, delayed, parked;
    uint64_t redeliveries, dead_lettered, skipped; /* since the broker loaded the node */
};
/* `state` is NULL unless result->status is XYLEM_OK. */
typedef void xylem_sub_state_fn(struct xylem_client *client, const struct xylem_result *result,
                                const struct xylem_sub_state *state, void *ctx);
/* XYLEM_WRONG_STATE before the first XYLEM_OK of on_subscribed. */
XYLEM_API enum xylem_status xylem_sub_ask_state(struct xylem_sub *sub, xylem_sub_state_fn *fn, void *ctx);

XYLEM_API void xylem_msg_view(struct xylem_msg *msg, struct xylem_msg_view *out);
/* A header (XEP-0131) of the item, e.g. Xylem-Dead-Reason of a dead letter; NULL: it has none of this name. Lives as long
 * as the view. */
XYLEM_API const char *xylem_msg_header(struct xylem_msg *msg, const char *name);
/* The header with this index, from 0; false: there are not so many. */
XYLEM_API bool xylem_msg_header_at(struct xylem_msg *msg, size_t index, struct xylem_header *out);

/* Handled: the broker may forget it. Nulls *msg. Only for subscriptions with manual_ack. */
XYLEM_API enum xylem_status xylem_ack(struct xylem_msg **msg);
/* Not handled: it comes again, here or elsewhere, after delay_s (0: as the broker's backoff says). Nulls *msg. This and the
 * next two are for XYLEM_ACK_EXPLICITLY and queues; otherwise XYLEM_INVALID, and *msg stays. */
XYLEM_API enum xylem_status xylem_nack(struct xylem_msg **msg, uint32_t delay_s);
/* Never again: to the dead letters. Nulls *msg. */
XYLEM_API enum xylem_status xylem_term(struct xylem_msg **msg);
/* Not yet: the time until it would be sent again begins anew. */
XYLEM_API enum xylem_status xylem_working(struct xylem_msg *msg);

enum xylem_verdict { XYLEM_ACK, XYLEM_NACK, XYLEM_TERM, XYLEM_WORKING };

/* Any of these with an answer. The four above go with the others of the same turn and are not answered; an ack of those
 * counts as handled, in state_dir, before it is sent. Here `done`, if not NULL, is told what the broker said once it is on
 * the broker's disk, and an ack counts as handled only if that was XYLEM_OK. XYLEM_NOT_FOUND, XYLEM_CONFLICT, XYLEM_FORBIDDEN
 * or XYLEM_BUSY: the item is not this consumer's any more, its work should be undone. A status of class LOST: unknown; if
 * the item comes again, it was not acknowledged. delay_s: of XYLEM_NACK. */
XYLEM_API enum xylem_status xylem_settle(struct xylem_msg **msg, enum xylem_verdict verdict, uint32_t delay_s,
                                         xylem_done_fn *done, void *ctx);

/* Exactly once together with the application's own transaction, instead of state_dir: writes what is to be stored with the
 * results of handling `msgs`, durable messages of one subscription and not acknowledged yet, and to be given as
 * xylem_sub_options.position after a restart. Acknowledge them when the transaction is committed. Text, a few hundred bytes
 * at most if acknowledged in order, up to 12 KiB otherwise. As snprintf: returns the length, writes at most size - 1 bytes
 * and NUL. 0: these are no such messages, or memory is short. */
XYLEM_API size_t xylem_msgs_position(struct xylem_msg *const *msgs, size_t count, char *out, size_t size);

/* --- Other -------------------------------------------------------------------------------------------- */

/* XEP-0199, to `to` (NULL: the server). */
XYLEM_API enum xylem_status xylem_ping(struct xylem_client *client, const char *to, xylem_done_fn *done,
                                       void *ctx);

#ifdef __cplusplus
}
#endif
