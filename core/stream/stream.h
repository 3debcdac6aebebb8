/* The XML stream of XMPP as a state machine without I/O, for either role (RFC 6120 sections 4 - 7, XEP-0198,
 * XEP-0478).
 *
 * Bytes in, events out; intents in, bytes out. The owner (the broker's session, the SDK's client) moves the
 * bytes:
 *
 *     xy_stream_feed(stream, bytes, len);
 *     while (xy_stream_next(stream, &event))
 *         handle(event);                       // answers and sends from in here
 *     write(xy_stream_output(stream)), xy_stream_sent(stream, written);
 *
 * TLS sits between socket and stream and belongs to the owner: XY_STREAM_EVENT_STARTTLS says when to begin
 * (after the output was written), xy_stream_tls_started says that it is done. What came after <starttls/> in
 * clear is discarded.
 *
 * Protocol errors are answered here, as RFC 6120 wants; the owner only learns of them
 * (XY_STREAM_EVENT_FAILED) and closes the connection once the output is written. Nothing here is reachable
 * from two threads at once; a stream may move to another thread between calls together with its options'
 * arena pool. Strings in events are valid until the next call of xy_stream_next, except those of a stanza,
 * which live in its arena.
 *
 * Deadlines (time to authenticate, idle time) are the owner's: this machine has no clock. */
#pragma once

#include "core/base/buf.h"
#include "core/base/env.h"
#include "core/error.h"
#include "core/sasl/sasl.h"
#include "core/stanza.h"

#define XY_STREAM_HELD_MAX       (256u << 10) /* input kept while the owner makes up its mind */
#define XY_STREAM_AUTH_TRIES_MAX 3u    /* failed attempts until the stream is closed (hostile input 36) */
#define XY_STREAM_SM_ID_MAX      4000u /* XEP-0198 5 */
#define XY_STREAM_LOCATION_MAX   1023u

struct xy_stream;

enum xy_stream_event_kind {
    XY_STREAM_EVENT_OPENED = 1, /* server: a header came before authentication: xy_stream_accept or _fail */
    XY_STREAM_EVENT_STARTTLS,   /* <proceed/> is queued (server) or came (client): TLS after the output is
                                   written */
    XY_STREAM_EVENT_SASL_KEYS,  /* server: answer with xy_stream_sasl_keys, now or later */
    XY_STREAM_EVENT_SASL_PASSWORD, /* server: check, answer with xy_stream_sasl_verdict, now or later */
    XY_STREAM_EVENT_SASL_EXTERNAL, /* server: answer with xy_stream_sasl_external, now or later */
    XY_STREAM_EVENT_SASL_FAILED,   /* server: for the log and throttling; the client may try again */
    XY_STREAM_EVENT_AUTHENTICATED, /* server: `jid` is the bare JID; <success/> is queued, the stream restarts
                                    */
    XY_STREAM_EVENT_BIND,          /* server: answer with xy_stream_bound or xy_stream_bind_failed */
    XY_STREAM_EVENT_SM_ENABLE,     /* server: answer with xy_stream_sm_enabled or xy_stream_sm_failed */
    XY_STREAM_EVENT_SM_RESUME,     /* server: answer with xy_stream_sm_resumed or xy_stream_sm_failed */
    XY_STREAM_EVENT_READY,         /* client: bound or resumed */
    XY_STREAM_EVENT_STANZA,
    XY_STREAM_EVENT_SM_REQUEST,   /* <r/>: answer with <a/> */
    XY_STREAM_EVENT_SM_ACK,       /* <a h=''/> */
    XY_STREAM_EVENT_CLIENT_STATE, /* server: XEP-0352, `active` */
    XY_STREAM_EVENT_CLOSED, /* the peer's </stream>: send what remains, xy_stream_close, close the connection
                             */
    XY_STREAM_EVENT_FAILED, /* over; our error and </stream> are queued if ours to say */
};

/* What kind of end it was: decides whether trying again can help. */
enum xy_stream_failure {
    XY_STREAM_FAILED_PROTOCOL = 1, /* the peer broke the protocol; `error` is what we told it */
    XY_STREAM_FAILED_BY_PEER,      /* the peer sent a stream error: `error`, `location` for see-other-host */
    XY_STREAM_FAILED_BY_OWNER,     /* xy_stream_fail and its like; not reported as an event */
    XY_STREAM_FAILED_TLS,          /* client: TLS wanted, not offered or refused */
    XY_STREAM_FAILED_AUTH,         /* authentication: `sasl`; server: too many tries */
    XY_STREAM_FAILED_SERVER_PROOF, /* client: the server does not know our keys: an impostor */
    XY_STREAM_FAILED_MECHANISM,    /* client: no mechanism both sides allow */
    XY_STREAM_FAILED_BIND,         /* client: `condition` */
    XY_STREAM_FAILED_MEMORY,
};

struct xy_stream_event {
    enum xy_stream_event_kind kind;

    /* STANZA: the arena is the taker's (give it back to a pool, or free it). On any verdict but OK the owner
     * answers with the matching stanza error, see xy_stanza_read. Stanzas of unknown kind never come here. */
    struct xy_stanza stanza;
    enum xy_stanza_verdict verdict;
    /* Server: legacy <session/> or a second bind, answered here: only count it for XEP-0198. With stream management on
     * the answer counts as well, so it is left to the owner to send: `reply`, in the stanza's arena. */
    bool answered;
    struct xy_elem *reply;

    /* OPENED: as in the header, `to` prepared; absent: the peer named no host, which most owners
     * refuse as host-unknown. `secure`: TLS is on. */
    struct xy_str to, from, lang;
    bool secure;

    /* SASL_*, AUTHENTICATED. `user` is prepared as a localpart; absent if it cannot be one (then there is no
     * such user). */
    enum xy_sasl_mechanism mechanism;
    struct xy_str user;
    struct xy_str password;
    struct xy_str authzid; /* EXTERNAL: absent when empty */
    enum xy_scram_hash hash;
    enum xy_sasl_condition sasl; /* SASL_FAILED, FAILED */
    struct xy_jid jid; /* AUTHENTICATED: bare; READY: full (absent when resumed: it is the old one) */

    struct xy_str resource; /* BIND: prepared; absent: the server chooses */

    /* SM_ENABLE: resume, max_seconds. SM_RESUME: previd, h. SM_ACK: h. READY: all of it. */
    bool sm;      /* READY: stream management is on */
    bool resume;  /* SM_ENABLE: resumption wanted; READY: a new stream that may be resumed */
    bool resumed; /* READY: the old session goes on */
    bool
        restored; /* READY: and was made anew after a restart: what comes next is not what h left uncovered */
    bool h_known; /* READY: the server said what it handled of the session it could not resume */
    uint32_t h;
    uint32_t max_seconds; /* 0: not said */
    struct xy_str sm_id;  /* READY: id to resume with; SM_RESUME: previd */
    struct xy_str
        location; /* READY: where to reconnect; FAILED with see-other-host: where to go. Absent: not said */
    uint64_t peer_bytes_max; /* READY: XEP-0478; 0: not said */
    uint32_t peer_idle_seconds;

    bool active; /* CLIENT_STATE */

    /* FAILED, SASL_FAILED */
    enum xy_stream_failure failure;
    enum xy_stream_error error;
    enum xy_condition condition;
    struct xy_str text; /* prose: what happened, what to do; never a secret */
};

/* Shared by many streams; borrowed for their lifetime. */
struct xy_stream_options {
    const struct xy_env *env;
    struct xy_arena_pool *arenas; /* NULL: plain arenas */
    const struct xy_spans
        *spans; /* for what an idle stream does not need; the same for all threads; NULL: malloc */
    size_t stanza_bytes_max;   /* once authenticated; 0: XY_STANZA_BYTES_DEFAULT. XEP-0478 <max-bytes/> says
                                  this */
    uint32_t idle_seconds;     /* server: XEP-0478 <idle-seconds/>; 0: not advertised */
    unsigned auth_tries_max;   /* server; 0: XY_STREAM_AUTH_TRIES_MAX */
    struct xy_str sasl_secret; /* server: for the salts of users who do not exist; at least 16 bytes */
};

/* --- Both roles
 * ------------------------------------------------------------------------------------------------ */

void xy_stream_free(struct xy_stream **stream); /* NULL ok; nulls the caller's pointer */

/* The stream moves to another thread: it uses that thread's options from now on (which must say the same). */
void xy_stream_adopt(struct xy_stream *stream, const struct xy_stream_options *options);

/* Bytes from the peer: copied, so the caller's memory is free again at once. */
void xy_stream_feed(struct xy_stream *stream, const void *data, size_t len);
/* The same without a copy: they must stay where they are until xy_stream_keep, which copies what was not looked at by
 * then. Call xy_stream_next in between, and nothing else that feeds. */
void xy_stream_lend(struct xy_stream *stream, const void *data, size_t len);
void xy_stream_keep(struct xy_stream *stream);
/* The next event; false: nothing more now (all input consumed, an answer is awaited, or the stream is over). Not calling
 * it for a while is back-pressure: the rest of what was fed waits here. */
bool xy_stream_next(struct xy_stream *stream, struct xy_stream_event *event);
/* false: stop reading the socket; an answer is awaited or much input is held. Feeding more than
 * XY_STREAM_HELD_MAX regardless fails the stream. */
bool xy_stream_wants_input(const struct xy_stream *stream);

/* What is to be written next; empty: nothing. Bytes of the owner that go around the stream (the broker's
 * outbox) may be written only while this is empty, so that the order on the wire is right. */
struct xy_str xy_stream_output(const struct xy_stream *stream);
void xy_stream_sent(struct xy_stream *stream, size_t len);

/* TLS is on: before the first feed (direct TLS) or after XY_STREAM_EVENT_STARTTLS. Bindings are copied (at
 * most XY_SASL_BINDINGS_MAX, strongest first). After STARTTLS a client queues its new header now. */
void xy_stream_tls_started(struct xy_stream *stream, const struct xy_sasl_binding *bindings,
                           size_t bindings_count);

/* Only once bound or READY; false: not now. `raw` is whole elements in the namespace jabber:client. */
bool xy_stream_send_elem(struct xy_stream *stream, const struct xy_elem *elem);
bool xy_stream_send_raw(struct xy_stream *stream, struct xy_str raw);
bool xy_stream_send_ack(struct xy_stream *stream, uint32_t h);
bool xy_stream_send_request(struct xy_stream *stream);

/* Our </stream:stream>, once; nothing can be sent afterwards, but what the peer still sends is still read. */
void xy_stream_close(struct xy_stream *stream);
/* A stream error and </stream:stream>; nothing is read afterwards. `text` NULL: none. No event is made of it.
 */
void xy_stream_fail(struct xy_stream *stream, enum xy_stream_error error, const char *text);
/* The peer acknowledged more than was sent (XEP-0198 6). */
void xy_stream_fail_ack(struct xy_stream *stream, uint32_t h, uint32_t send_count);

bool xy_stream_is_bound(const struct xy_stream *stream); /* stanzas may flow: bound, resumed, READY */
bool xy_stream_is_over(
    const struct xy_stream *stream); /* nothing more will come of it: write the output and close */

/* Gives back what an idle stream does not need; it wakes by itself. A no-op in the middle of an element. */
void xy_stream_sleep(struct xy_stream *stream);
size_t xy_stream_memory(const struct xy_stream *stream); /* bytes held now, about */

/* --- Server
 * ---------------------------------------------------------------------------------------------------- */

struct xy_stream *xy_stream_server_new(const struct xy_stream_options *options); /* NULL: memory is short */

/* What the features offer on a stream that is not authenticated yet. */
struct xy_stream_offer {
    struct xy_str domain;   /* whom we are: `from` of the header, domain of the user's JID; copied */
    unsigned mechanisms;    /* enum xy_sasl_mechanism bits; -PLUS is left out where no binding is known */
    bool starttls;          /* offered (never once TLS is on) */
    bool starttls_required; /* then no mechanisms are offered before TLS, <auth/> is answered
                               encryption-required */
    bool sm;                /* offered once authenticated, as resource binding always is */
};
void xy_stream_accept(struct xy_stream *stream, const struct xy_stream_offer *offer);

/* NULL: no such user or no keys of this hash; the client cannot tell the difference. */
void xy_stream_sasl_keys(struct xy_stream *stream, const struct xy_scram_keys *keys);
/* XY_SASL_NO_FAILURE: let in. Also the answer to SASL_KEYS that cannot be given (temporary-auth-failure), and to
 * SASL_EXTERNAL when the refusal is to be this one. */
void xy_stream_sasl_verdict(struct xy_stream *stream, enum xy_sasl_condition condition);
/* Whom the peer may act as: a bare JID, whose localpart may be any; absent: refused (not-authorized, or
 * invalid-authzid when it asked for somebody). */
void xy_stream_sasl_external(struct xy_stream *stream, struct xy_jid jid);

void xy_stream_bound(struct xy_stream *stream, struct xy_jid full);
void xy_stream_bind_failed(struct xy_stream *stream,
                           const struct xy_error *error); /* the client may try again */

/* `id` absent: not resumable; `location` absent, `max_seconds` 0: not said. */
void xy_stream_sm_enabled(struct xy_stream *stream, struct xy_str id, uint32_t max_seconds,
                          struct xy_str location);
/* `restored`: what was sent and is not covered by the client's h does not follow as it was. */
void xy_stream_sm_resumed(struct xy_stream *stream, struct xy_str previd, uint32_t h, bool restored);
/* `h` NULL: not known. After a failed resumption the client may bind. */
void xy_stream_sm_failed(struct xy_stream *stream, enum xy_condition condition, const uint32_t *h);

/* --- Client
 * ---------------------------------------------------------------------------------------------------- */

enum xy_stream_tls_policy {
    XY_STREAM_TLS_REQUIRED,  /* default: nothing is sent in clear but the way to TLS */
    XY_STREAM_TLS_PREFERRED, /* use it where offered: no protection against an active attacker */
    XY_STREAM_TLS_NONE,      /* Unix sockets, loopback */
};

struct xy_stream_client_options {
    struct xy_jid
        jid; /* whose localpart (or none, with EXTERNAL) and domain; a resource here is the one wanted. Absent:
                the server knows who we are and where (Unix sockets) */
    struct xy_str resource; /* the one wanted, when `jid` has none */
    struct xy_str password;
    struct xy_str authzid;  /* absent: none */
    unsigned mechanisms;    /* allowed; 0: all SCRAM, and PLAIN over TLS */
    bool plain_without_tls; /* allow PLAIN in clear too */
    enum xy_stream_tls_policy tls;
    struct xy_str lang;      /* absent: none */
    bool sm;                 /* enable stream management where offered */
    bool sm_resume;          /* and ask for a stream that can be resumed */
    uint32_t sm_max_seconds; /* how long we would like; 0: not said */
    struct xy_str previd;    /* absent: no session to resume */
    uint32_t previd_h;       /* what we handled of it */
};

/* `client` and what it points at is copied. NULL: memory is short, or user or password fail SASLprep. */
struct xy_stream *xy_stream_client_new(const struct xy_stream_options *options,
                                       const struct xy_stream_client_options *client);
/* The connection stands: queues the header. With direct TLS, call xy_stream_tls_started first. After STARTTLS
 * no second call is needed. */
void xy_stream_client_open(struct xy_stream *stream);
