/* The inside of a client, shared by the files of this folder only. See driver.h for who drives it and
 * <xylem/xylem.h> for what it promises.
 *
 *     publish, subscribe, request  ->  (spool)  ->  requests (waiting)  ->  SM queue  ->  link  ->  driver
 *     driver  ->  link  ->  session (SM, replay)  ->  requests (answers), subscriptions (items), handlers */
#pragma once

#include <pthread.h>
#include <xylem/stanza.h>
#include <xylem/xylem.h>

#include "core/base/assert.h"
#include "core/base/list.h"
#include "core/base/table.h"
#include "core/error.h"
#include "core/sm/queue.h"
#include "core/stanza.h"
#include "sdk/src/backoff.h"
#include "sdk/src/config.h"
#include "sdk/src/driver.h"
#include "sdk/src/fragment.h"
#include "sdk/src/link.h"

#define XY_CLIENT_ARENAS       16u
#define XY_CLIENT_OUTPUT_MAX   (256u << 10) /* bytes put into the stream ahead of the socket */
#define XY_CLIENT_ACK_EVERY    64u          /* stanzas handled until an unasked <a/> … */
#define XY_CLIENT_ACK_AFTER_US 100000u      /* … or this long after the first */
#define XY_CLIENT_ASK_EVERY    32u          /* stanzas sent until an <r/> … */
#define XY_CLIENT_ASK_AFTER_US 100000u      /* … or this long after the first */
#define XY_CLIENT_CLOSE_US     1000000u     /* for the peer's </stream> */
#define XY_CLIENT_HANDLERS_MAX 16u
#define XY_CLIENT_ERROR_MAX    512u
#define XY_CLIENT_BATCH_MAX                                                                                  \
    512u /* stanzas per turn, so that positions are written and answers leave in between */

/* --- IQ requests, publishes among them (request.c) --- */

struct xy_reply {
    enum xylem_status status;
    const char *text;
    const char *condition;
    const struct xy_stanza *stanza; /* NULL: none came */
};
typedef void xy_reply_fn(struct xylem_client *c, const struct xy_reply *reply, void *ctx);

#define XY_REQUEST_SET     1u
#define XY_REQUEST_SERVICE 2u  /* to the publish-subscribe service, whose name may not be known yet */
#define XY_REQUEST_PUBLISH 4u  /* ordered, counted, sent again in a new session */
#define XY_REQUEST_OWNED   8u  /* `owner` is freed if no answer can be reported any more */
#define XY_REQUEST_SPOOLED 16u /* a publish whose `owner` belongs to the spool */
#define XY_REQUEST_RETRACT 32u /* of publishes: nothing else passes it, see xy_requests_pump */
#define XY_REQUEST_AGAIN   64u /* it may have been sent before */

struct xy_request {
    struct xy_list link;
    char id[48];
    unsigned flags;
    char *to; /* NULL: none */
    struct xy_bytes *payload;
    uint64_t deadline_us;
    uint64_t timeout_us;   /* 0: none; runs from the moment it is sent or the client is asked */
    xy_reply_fn *on_reply; /* of the library; `owner` is its argument. NULL: done gets the outcome */
    void *owner;
    xylem_done_fn *done; /* of the application */
    void *ctx;
};

struct xy_request_spec {
    unsigned flags;
    const char *to;
    struct xy_str payload;
    uint32_t timeout_ms;
    xy_reply_fn *on_reply;
    void *owner;
    xylem_done_fn *done;
    void *ctx;
};

/* --- messages and subscriptions (subscribe.c, message.c) --- */

/* A stanza whose XEP-0198 number is not yet handled: shared by the messages made of it. */
struct xy_hold {
    unsigned refs;
    uint64_t number;
    uint64_t generation; /* session in which the number counts */
    struct xy_stanza stanza;
};

struct xy_position;

struct xylem_msg {
    struct xy_list link; /* of its position's pending messages, or of the client's loose ones */
    struct xylem_client *client;
    struct xylem_sub *sub; /* NULL: cancelled */
    struct xy_hold *hold;
    struct xy_elem *elem;         /* <item/>, <retract/>, <purge/>, <delete/> or NULL */
    struct xy_position *position; /* NULL: not durable */
    uint64_t seq;
    uint64_t gap_first; /* of a gap, which reaches up to seq; 0: none */
    uint32_t attempt;
    enum xylem_event event;
    enum xylem_ack_way ack;
    bool acked;
    bool counted; /* among the client's in flight */
};

struct xylem_sub {
    struct xy_list link;
    struct xylem_client *client;
    char *node;
    char *position; /* what the application kept of it; NULL: nothing */
    char *options;  /* the fields of its options form, as XML; NULL: none */
    char *subid;    /* as the broker answered; NULL: not known */
    bool durable, manual_ack;
    enum xylem_ack_way ack;
    bool waiting;   /* for the answer to its subscribe */
    bool cancelled; /* waits for the answer to its unsubscribe */
    bool orphan;    /* nobody but the answer to its subscribe knows it */
    xylem_msg_fn *on_message;
    xylem_done_fn *on_subscribed, *on_cancelled;
    void *ctx, *cancel_ctx;
};

/* A message speaks for the numbers from here to its seq. */
static inline uint64_t xy_msg_first(const struct xylem_msg *msg)
{
    return msg->gap_first ? msg->gap_first : msg->seq;
}

/* One thing to tell the broker about an item; the strings are borrowed. */
struct xy_verdict {
    enum xylem_verdict verdict;
    uint32_t delay_s;
    struct xy_str node, subid, epoch;
    uint64_t seq;
    struct xy_str receipt; /* present: an XEP-0184 receipt for this id instead */
};

struct xy_handler {
    char *name, *ns;
    xylem_stanza_fn *fn;
    void *ctx;
};

struct xy_post {
    struct xy_post *next;
    xylem_client_fn *fn;
    void *ctx;
};

struct xy_bytestreams; /* bytestream.c */
struct xy_positions;   /* position.c */
struct xy_spooling;    /* spooling.c */

struct xylem_client {
    const struct xy_env *env;
    struct xy_config config;
    const struct xy_driver *driver;
    void *driver_ctx;
    unsigned depth; /* turns entered */
    bool doomed;    /* freed inside a turn */

    enum xylem_state state;
    bool unreported;       /* a change of it */
    enum xylem_status why; /* of the state */
    char error[XY_CLIENT_ERROR_MAX];
    char *jid, *service;
    struct xy_jid full; /* view of jid */

    /* connection */
    uint64_t attempt, attempts;
    struct xy_link *link;
    char *redirect_host; /* of see-other-host or the resumption's location; NULL: none */
    uint16_t redirect_port;
    struct xy_backoff backoff;
    uint64_t connect_deadline_us, retry_at_us, drain_deadline_us, close_deadline_us;
    uint64_t heard_us;  /* when bytes last came */
    uint64_t pinged_us; /* 0: no ping is out */
    bool was_online, stopping, closing;
    enum xylem_status gave_up; /* why the stream is ended, if not because the application wants it */
    bool more;                 /* input waits for the next turn */
    bool dirty;                /* an API call wants a turn */
    const char *domain;        /* of the address; NULL: the local socket decides */

    /* session (session.c) */
    struct xy_arena_pool *arenas;
    struct xy_sm sm;
    struct xy_sm_pool sm_pool;
    struct xy_sm_queue sm_queue;
    bool sm_on;
    char *sm_id;            /* NULL: nothing to resume */
    uint64_t sm_generation; /* grows with each new session */
    uint64_t sm_replayed;   /* after a resumption: inbound stanzas seen of those that came before it */
    uint64_t sm_told;       /* inbound h that the peer knows */
    uint64_t sm_tell_at_us, sm_ask_at_us; /* UINT64_MAX: not due */
    uint64_t sm_asked;                    /* outbound count at the last <r/> */

    /* requests */
    struct xy_table *requests;         /* by id */
    struct xy_list waiting, publishes; /* not sent yet: plain ones; publishes, in order */
    struct xy_list sent;               /* in order */
    char id_prefix[XY_ID_LEN + 1];
    uint64_t id_next;
    uint64_t publishes_sent;          /* of `sent`, how many are publishes */
    uint64_t retracts_sent;           /* … and how many of those are retracts */
    struct xy_spooling *spooling;     /* NULL: publishes wait in memory */
    struct xy_table *publish_numbers; /* node -> struct publish_number */
    bool full_said;

    /* subscriptions */
    struct xy_list subs;
    struct xy_list loose; /* messages without a position */
    struct xy_positions *positions;
    struct xy_hold **releases; /* handled in this turn, to be counted once positions are on disk */
    size_t releases_count, releases_cap;
    size_t holds;           /* messages that will need a place among them */
    struct xy_buf verdicts; /* to be told at the end of the turn: elements, NUL between messages */
    size_t verdicts_open;   /* where the last message of them begins */
    unsigned inflight;

    struct xy_handler handlers[XY_CLIENT_HANDLERS_MAX];
    unsigned handlers_count;
    struct xy_handler stanza_handler;
    struct xy_bytestreams *bytestreams;

    pthread_mutex_t posts_lock;
    struct xy_post *posts, **posts_tail;

    struct xylem_stats stats;
};

/* client.c */
void xy_client_error(struct xylem_client *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* For good: the stream is ended, what still comes is not taken, and nothing is tried again until the application starts it
 * anew. */
void xy_client_give_up(struct xylem_client *c, enum xylem_status why);
void xy_client_wake(struct xylem_client *c);        /* an API call made work */
void xy_client_online(struct xylem_client *c);      /* the session stands */
void xy_client_peer_closed(struct xylem_client *c); /* </stream> came */
void xy_client_stream_failed(struct xylem_client *c, const struct xy_stream_event *event);
static inline uint64_t xy_client_now(const struct xylem_client *c)
{
    return xy_now_us(c->env);
}

/* session.c */
void xy_session_init(struct xylem_client *c);
void xy_session_free(struct xylem_client *c);
struct xy_link *xy_session_link(struct xylem_client *c); /* for a transport that stands */
void xy_session_events(struct xylem_client *c);          /* drains the link */
void xy_session_flush(struct xylem_client *c);           /* queue to link, <a/>, <r/> */
void xy_session_farewell(struct xylem_client *c);        /* what is queued, the last <a/>, </stream> */
uint64_t xy_session_deadline_us(const struct xylem_client *c);
size_t xy_session_backlog(const struct xylem_client *c); /* bytes not acknowledged, or not even sent */
void xy_session_end(struct xylem_client *c, enum xylem_status why); /* nothing is left to resume */
/* Queues whole stanzas; resend: in a new session too. Takes the reference. */
bool xy_session_send(struct xylem_client *c, struct xy_bytes *stanza, bool resend);
void xy_session_presence(struct xylem_client *c); /* as the options and the handler for stanzas want it */
bool xy_session_send_elem(struct xylem_client *c, const struct xy_elem *elem);
void xy_session_handled(struct xylem_client *c, uint64_t number, uint64_t generation);

/* dispatch.c: an inbound stanza; true: someone keeps `hold` */
void xy_dispatch(struct xylem_client *c, struct xy_hold *hold, enum xy_stanza_verdict verdict);
void xy_hold_unref(struct xylem_client *c, struct xy_hold *hold);
void xy_stanza_text(struct xylem_client *c, const struct xy_stanza *stanza, struct xylem_stanza *out);

/* request.c */
bool xy_requests_init(struct xylem_client *c);
void xy_requests_free(struct xylem_client *c);
enum xylem_status xy_request(struct xylem_client *c, const struct xy_request_spec *spec);
bool xy_request_answer(struct xylem_client *c, const struct xy_stanza *stanza);
void xy_requests_pump(struct xylem_client *c);
void xy_requests_rebind(struct xylem_client *c); /* a new session: publishes wait again, the rest failed */
void xy_requests_fail(struct xylem_client *c, enum xylem_status why);
void xy_requests_tick(struct xylem_client *c);
uint64_t xy_requests_deadline_us(const struct xylem_client *c);

/* publish.c */
bool xy_publish_idle(const struct xylem_client *c); /* every publish is answered */
void xy_publish_free(struct xylem_client *c);
void xy_publish_tick(struct xylem_client *c); /* on_room */

const char *xy_publish_item_id(const struct xy_stanza *answer); /* as the service has it; NULL: not said */

/* spooling.c: publishes on disk; nothing of it is called but `pump`, `deadline` and the figures when there is no spool */
enum xylem_status xy_spooling_open(struct xylem_client *c, char *error, size_t error_size);
void xy_spooling_free(struct xylem_client *c);
bool xy_spooling_has_room(const struct xylem_client *c, size_t bytes);
enum xylem_status xy_spooling_add(struct xylem_client *c, struct xy_str record, xylem_done_fn *done,
                                  void *ctx);
void xy_spooling_sync_if_due(struct xylem_client *c);
void xy_spooling_pump(struct xylem_client *c); /* while the session stands */
uint64_t xy_spooling_deadline_us(const struct xylem_client *c);
uint64_t xy_spooling_pending(const struct xylem_client *c);
uint64_t xy_spooling_bytes(const struct xylem_client *c);

/* subscribe.c */
void xy_subs_online(struct xylem_client *c); /* a new session */
enum xylem_status xy_subs_init(struct xylem_client *c, char *error, size_t error_size);
void xy_subs_free(struct xylem_client *c);
/* sub_options.c: checks them; the form's fields are the caller's to free */
enum xylem_status xy_sub_fields(struct xylem_client *c, const struct xylem_sub_options *options, char **out);

/* receive.c */
bool xy_subs_event(struct xylem_client *c, struct xy_hold *hold, const struct xy_elem *event);
bool xy_subs_gap(struct xylem_client *c, struct xy_hold *hold, struct xy_elem *gap);
bool xy_subs_full(const struct xylem_client *c);

/* settle.c */
bool xy_msg_reserve(struct xylem_client *c); /* before a message is made: its end needs no memory then */
void xy_msg_free(struct xylem_msg *msg);
void xy_msg_done(struct xylem_client *c, struct xylem_msg *msg); /* its hold ends with the turn */
void xy_msg_acknowledge(struct xylem_client *c, struct xylem_msg *msg);
struct xy_verdict xy_verdict_of(const struct xy_stanza *stanza, enum xylem_ack_way way,
                                enum xylem_verdict verdict, uint64_t seq);
void xy_verdict_tell(struct xylem_client *c, const struct xy_verdict *verdict); /* at the end of the turn */
void xy_subs_flush(struct xylem_client *c); /* positions to disk, then the broker is told and h may move */

/* status.c */
enum xylem_status xy_status_of_error(const struct xy_error *error);

/* bytestream.c */
bool xy_bytestreams_request(struct xylem_client *c, const struct xy_stanza *stanza);
void xy_bytestreams_tick(struct xylem_client *c);
uint64_t xy_bytestreams_deadline_us(const struct xylem_client *c);
void xy_bytestreams_free(struct xylem_client *c);
