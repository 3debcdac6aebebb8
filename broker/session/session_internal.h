/* The inside of a session, shared by the files of broker/session and by nobody else.
 *
 *   sessions.c   those of a shard: slots, the end of its turns, start and stop
 *   session.c    one of them: beginning, sleep, time, end
 *   calls.c      what links and other rooms call
 *   input.c      events of the stream: stanzas in, acknowledgements, back-pressure on the sender
 *   login.c      authentication and resource binding
 *   external.c   whom a client's certificate names (XEP-0178)
 *   outbox.c     what waits to be sent: rendering, flushing, XEP-0198 settlement
 *   waiting.c    IQs of braked senders, and the newest presence, in front of a full outbox
 *   claims.c     at-least-once subscriptions this session holds
 *   resume.c     XEP-0198 enable, detach, resume, expiry
 *   restore.c    a session that a restart interrupted, made anew
 *   proof.c      how much of what came in a crash would remember: the h that may be told
 *   sent.c       which claim each stanza sent settles, recorded for a restart */
#pragma once

#include "broker/delivery/delivery.h"
#include "broker/delivery/sessions.h"
#include "broker/net/link.h"
#include "broker/session/session.h"
#include "core/base/encoding.h"
#include "core/sm/queue.h"
#include "core/stream/stream.h"

#define SESSION_FLUSH_BYTES        (64u << 10) /* per write; also what a stalled connection keeps at most, about */
#define SESSION_FLUSH_TURN_BYTES   (1u << 20) /* per session and turn, so that others get theirs */
#define SESSION_INFLIGHT_MAX       1024u      /* stanzas of one sender not yet handled */
#define SESSION_INFLIGHT_BYTES_MAX (1u << 20)
#define SESSION_SLEEP_US           (1000u * 1000u) /* without input: parser and buffers are given back */
#define SESSION_REQUEST_EVERY      32u             /* stanzas sent between two <r/> */
#define SESSION_PACE_US            (100u * 1000u)  /* idle time until an <r/> */
#define SESSION_ACK_DELAY_US       (1000u * 1000u) /* an <r/> is answered after this at the latest */
#define SESSION_PATIENCE_US        (5000u * 1000u) /* an IQ waits for room in a full outbox */
#define SESSION_OFFERS_MAX         256u            /* such IQs of all senders */
#define SESSION_OFFERS_BYTES_MAX   (1u << 20)
#define SESSION_PRESENCE_MAX       256u /* senders whose newest presence is kept */
#define SESSION_CLAIMS_MAX         100000u
#define SESSION_SUBID_MAX          64u

#define SESSION_ROWS_MAX   512u          /* stanzas with a row of their own before one record covers them */
#define SESSION_ANSWER_MAX (16u << 10)   /* larger answers are not put on disk */
#define SESSION_SENT_US    (50u * 1000u) /* what was sent is recorded this often, while it changes, */
#define SESSION_SENT_RUN_US                                                                                  \
    450u /* and later by so much for each run of the last record: half a second at most */
#define SESSION_SENT_RUNS_MAX 1024u /* of such a record; the rest would come again after a crash, marked */

enum session_state {
    SESSION_FREE,
    SESSION_OPENING, /* until authenticated */
    SESSION_UNBOUND, /* authenticated; binding or resuming */
    SESSION_BOUND,
    SESSION_DETACHED, /* XEP-0198: waits for its resumption */
    SESSION_ENDED,    /* freed at the end of the turn */
};

/* What an entry of the outbox is: bits 56..62 of its aux. */
enum entry_kind {
    ENTRY_STANZA = 0,
    ENTRY_MESSAGE, /* comes back when it was not handed over */
    ENTRY_MAILBOX, /* settles an entry of the account's mailbox: aux carries its seq */
    ENTRY_EVENT,   /* bytes are a struct event; `claim`: index in the low half, attempt above it */
    ENTRY_ANSWER,  /* to the client, and on disk: aux carries the number of the request */
    ENTRY_HELD,    /* the same, not on disk (held.c) */
};
#define ENTRY_KIND_SHIFT 56
#define ENTRY_KIND_MASK  UINT64_C(0x7f)
#define ENTRY_SEQ_MASK   ((UINT64_C(1) << ENTRY_KIND_SHIFT) - 1)
#define ENTRY_NO_CLAIM   UINT64_C(0xffffffff)

static inline enum entry_kind entry_kind(const struct xy_sm_entry *entry)
{
    return (enum entry_kind)((entry->aux >> ENTRY_KIND_SHIFT) & ENTRY_KIND_MASK);
}

static inline uint64_t entry_seq(const struct xy_sm_entry *entry)
{
    return entry->aux & ENTRY_SEQ_MASK;
}

/* An at-least-once subscription that this session holds for its owner. */
struct claim {
    struct claim_key key;
    uint64_t acked;      /* newest seq the peer acknowledged */
    uint32_t next_dirty; /* chain of claims whose `acked` is to be told, plus one */
    uint32_t entries;    /* of the outbox that name this claim */
    uint16_t run;        /* the newest run seen; deliveries of older ones are ignored */
    bool stopped;        /* that run is over: it met a full outbox */
    bool used, dirty, wants_ready;
    bool begun;    /* `run` says something: the owner counts runs over all sessions that held the claim */
    uint8_t flags; /* CLAIM_* of delivery.h */
    uint8_t subid_len;
    char subid[SESSION_SUBID_MAX];
};

/* What a crash would remember of the stanzas that came in (proof.c). */
struct session_proof {
    uint64_t proven;                  /* so many: never less than was told */
    uint64_t recorded;                /* the newest record, committed or not, says so many */
    uint64_t lazy_h;                  /* a record under way that nobody waits for says so many: */
    uint64_t lazy_ticket;             /* 0: none is */
    bool waiting;                     /* one that somebody waits for is under way */
    uint64_t rows[XY_SM_WINDOW / 64]; /* which stanzas beyond `proven` have a row */
    struct session_seen *seen;        /* stanzas handled before a restart, that will come again; ascending */
    size_t seen_count, seen_next;
    uint64_t answers_pending;   /* answers in the outbox that are on disk too */
    uint64_t recorded_answered; /* the newest record says so */
    uint64_t answers_acked;     /* answers to requests up to this one arrived */
};

/* Answers that are neither on disk nor acknowledged (held.c). */
struct session_held {
    uint64_t count;
    uint64_t first;             /* the oldest request with one; 0: has to be looked up */
    struct session_seen *begun; /* while there are any: what came, by number modulo begun_cap */
    uint32_t begun_cap;         /* a power of two; up to XY_SM_WINDOW, where what may come again needs it */
    uint64_t again;             /* stanzas up to this one come a second time */
    uint64_t told;              /* the newest h that was told */
    uint64_t resumed;           /* the newest that a <resumed/> told */
};

/* XEP-0198 of one session. */
struct session_sm {
    struct xy_sm counters;
    uint8_t id[SESSION_ID_BYTES]; /* what grants its resumption */
    bool resumable;
    bool kept;      /* its record is on disk: it outlives a restart */
    bool recording; /* what <resumed/> tells is on its way to the disk */
    bool restored;  /* it was made anew, and the client does not know that yet */
    struct session_proof proof;
    struct session_held held;
    uint64_t sent_due_us;   /* when what was sent is recorded next; 0: nothing new */
    uint64_t sent_recorded; /* stanzas sent when it was recorded last */
    uint32_t sent_runs;     /* of that record */
    bool request_open;      /* an <r/> of ours is unanswered */
    uint64_t
        request_due_us; /* when the next one goes out at the latest, if none is open then; 0: not asked for */
    bool asked;         /* some <r/> of the peer came before stanzas that are not handled yet */
    bool ack_due;       /* send <a/> with the next flush */
    bool resuming;      /* <resumed/> waits until all that came on the old stream is handled */
    uint64_t telling;   /* and until a record says that it tells this; 0: it needs none */
    uint64_t asked_first;    /* stanzas begun when the oldest of these <r/> came */
    uint64_t asked_last;     /* and the newest */
    uint64_t asked_first_us; /* when; 0: the h reached was told since */
    uint64_t asked_last_us;
    uint32_t since_request; /* stanzas sent since the last <r/> */
    uint64_t max_us;
};

struct session {
    struct session_ref ref;
    struct shard *shard;
    enum session_state state;
    struct link *link;          /* NULL when detached */
    struct xy_stream *stream;   /* NULL when detached */
    struct xy_str domain;       /* one of the router's domains */
    struct xy_bytes *jid_bytes; /* bare until bound, then full */
    struct xy_jid jid;
    struct xy_bytes *to;         /* the full JID escaped for an attribute */
    struct session_sm *sm;       /* NULL: not enabled */
    struct session_sm *sm_asked; /* <enabled/> waits until it is kept */
    struct xy_sm_queue queue;
    struct xy_sm_queue limbo; /* without XEP-0198: given to the link, not yet taken by the kernel */
    struct waiting *waiting;  /* NULL: nothing waits for room */
    struct claim *claims;
    uint32_t claims_count, claims_cap, claims_free, claims_dirty, claims_waiting;
    uint32_t inflight;           /* stanzas of the peer not yet handled */
    uint64_t inflight_bytes;     /* theirs, in whole KiB */
    struct xy_list dirty;        /* in sessions->dirty while there is something to flush */
    struct shard_timer deadline; /* login, idleness, stalled writes, expiry of a detached session */
    struct shard_timer pacer;    /* XEP-0198 traffic */
    uint64_t last_input_us;
    uint64_t blocked_us; /* since when the link has taken nothing; 0: it takes */
    enum xy_sasl_mechanism mechanism;
    bool held; /* we do not read: the peer has too much under way */
    bool asleep;
    bool resuming; /* unbound, and asked for an old session: the answer may make it that */
    uint32_t resuming_h;
    bool login_local;
    bool inactive; /* the client said so (XEP-0352) */
    bool copied;   /* other sessions of the account want copies of what it sends */
};

struct slot {
    struct session *session;
    uint32_t generation;
    uint32_t next_free;
};

struct sessions {
    struct slot *slots;
    uint32_t slots_count, slots_cap, free_first; /* free_first: index plus one */
    uint32_t open;
    struct xy_list dirty;
    struct xy_list ended;
    struct xy_sm_pool chunks;
    struct xy_stream_options stream_options;
    struct xy_buf scratch; /* what is being written */
    struct xy_buf runs;    /* what is being recorded */
    struct xy_stream *
        *buried; /* streams to be freed at the end of the turn: they may be in the middle of a call */
    size_t buried_count, buried_cap;
    bool quiescing; /* nothing is read any more */
    bool stopping;  /* what ends now goes on after the restart */
};

/* sessions.c */
struct session *session_find(struct shard *shard, struct session_ref ref);
bool session_slot_take(struct sessions *sessions, struct session *session); /* false: memory is short */
void session_slot_give(struct sessions *sessions, struct session *session);

/* calls.c */
extern const struct link_events session_link_events;
extern const struct session_calls session_room_calls;

/* session.c */
struct session *session_new(struct shard *shard, struct link *link); /* NULL: memory is short */
void session_end(struct session *session);                           /* for good; claims go back */
void session_fail(struct session *session, enum xy_stream_error error,
                  const char *text); /* says why, then ends */
void session_set_jid(struct session *session, struct xy_jid jid);
void session_drop_link(struct session *session); /* closes what there is of a connection */
void session_deadline_update(struct session *session);
void session_bury_stream(struct session *session); /* the session goes on without its stream */

/* input.c */
void session_pump(struct session *session);
void session_input_resume(struct session *session); /* there may be room again */

/* login.c */
void login_on_opened(struct session *session, const struct xy_stream_event *event);
void login_on_keys(struct session *session, const struct xy_stream_event *event);
void login_on_password(struct session *session, const struct xy_stream_event *event);
void login_on_external(struct session *session, const struct xy_stream_event *event);
void login_on_failed(struct session *session, const struct xy_stream_event *event);
void login_on_authenticated(struct session *session, const struct xy_stream_event *event);
void login_on_bind(struct session *session, const struct xy_stream_event *event);
void login_bound(struct session *session, struct xy_jid jid, const struct xy_error *error);

/* external.c */
bool external_offered(
    const struct session *session); /* the peer's certificate names a user of the stream's domain */
/* Whom the certificate lets the peer be: `*bare`, in `arena`; or why nobody. The account may still be missing. */
enum xy_sasl_condition external_identity(const struct session *session, struct xy_arena *arena,
                                         struct xy_str authzid, struct xy_str *bare);

/* outbox.c */
bool outbox_full(const struct session *session);
bool outbox_twice_full(const struct session *session);
bool outbox_unacked_full(
    const struct session *session); /* by what the peer was sent and does not acknowledge */
void outbox_pace_by(struct session *session,
                    uint64_t due_us); /* outbox_pace runs at that time at the latest */
bool outbox_push(struct session *session, struct xy_bytes **bytes, enum entry_kind kind, uint64_t claim,
                 uint64_t seq);
void outbox_touch(struct session *session); /* something is to be flushed this turn */
void outbox_flush(struct session *session);
void outbox_acked(struct session *session, uint32_t h);
void outbox_writable(struct session *session);
void outbox_return_limbo(struct session *session); /* the link is gone: nobody knows what of it arrived */
void outbox_return_all(struct session *session); /* the session is over: what was not handed over goes back */
void outbox_pace(struct session *session);

/* waiting.c; but for the first three only when session->waiting is set */
bool waiting_brakes(const struct session *session); /* senders of IQs wait for it */
/* Until there is room, or patience ends: `done` hears. false: too much waits already, or memory is short. */
bool waiting_offer(struct session *session, struct xy_bytes **bytes, session_offer_fn *done, void *ctx);
bool waiting_presence(struct session *session, struct xy_bytes **bytes);
void waiting_presence_first(struct session *session); /* something else is about to be sent */
void waiting_room(struct session *session);           /* there may be room again */
void waiting_give_up(struct session *session);        /* the broker stops: senders hear at once */
void waiting_end(struct session *session);            /* the session is over */

/* claims.c */
void claims_acked(struct session *session, uint32_t claim, uint64_t seq);
void claims_dropped(struct session *session, uint32_t claim); /* an entry that nobody acknowledges left */
void claims_tell(struct session *session);                    /* what was acknowledged since the last time */
void claims_room(struct session *session);                    /* the outbox is below half: go on */
void claims_release(struct session *session);                 /* all of them */
void claims_publish(struct shard *shard, struct event *event, struct routes *routes);
void claims_notify(struct shard *shard, struct session_ref ref, struct event *event);
void claims_attach(struct shard *shard, struct session_ref ref, const struct claim_key *key, unsigned flags,
                   struct xy_str subid);
void claims_one(struct shard *shard, struct session_ref ref, uint32_t claim, uint16_t run,
                struct event *event, uint32_t attempt, bool page_end);
void claims_detach(struct shard *shard, struct session_ref ref, uint32_t claim);

/* resume.c */
void resume_on_enable(struct session *session, const struct xy_stream_event *event);
void resume_on_resume(struct session *session, const struct xy_stream_event *event);
void resume_detach(struct session *session);
void resume_expire(struct session *session);
void resume_handled(struct session *session); /* all that came on the old stream is handled */
void resume_when_recorded(struct session *session, uint64_t ticket); /* <resumed/> waits for that commit */
void resume_kept(struct session *session, bool kept);
void resume_answer(struct shard *shard, struct session_ref asker, struct session_resumption *resumption);
void resume_asker_gone(struct session *session); /* before the answer to its <resume/> */

/* restore.c */
void restore_session(struct session *session, struct session_past *past);

/* proof.c */
uint64_t proof_h(const struct session *session); /* stanzas of the peer that it may be told are handled */
void proof_handled(struct session *session, struct session_inbound inbound);
void proof_go_on(struct session *session); /* tells, or records what has to be before it may be told */
/* Records how far the session is. `awaited`: somebody waits to be told. */
void proof_record(struct session *session, bool awaited);
bool proof_complete(struct session *session); /* false: that of what is handled is under way now */
/* The stanza was handled before, and is only counted; `inbound` says from now on whether it has a row. */
bool proof_seen(struct session *session, struct session_inbound *inbound);
void proof_end(struct session *session); /* the session does not outlive a restart any more */
/* What becomes of an answer that is about to be sent, so that it comes again after a crash if it did not arrive. */
enum entry_kind proof_answer(struct session *session, const struct session_inbound *inbound,
                             const struct xy_bytes *answer);
void proof_answer_acked(struct session_proof *proof, uint64_t number);
void proof_free(struct session_sm *sm);

/* held.c */
uint64_t held_limit(struct session *session); /* h that leaves out what has such an answer */
uint64_t held_unsent_limit(struct session *session, uint64_t h); /* and what has any that is not sent yet */
void held_pushed(struct session *session, const struct session_inbound *inbound);
void held_adopt(struct session *session); /* what was on disk is not any more */
void held_arrived(struct session_sm *sm, uint64_t number);
/* <resumed/> says `h`: what is beyond it comes again. All that came is handled. */
uint64_t held_resume(struct session_sm *sm, uint64_t h);
bool held_seen(struct session *session, const struct session_inbound *inbound);
void held_free(struct session_held *held);

/* sent.c */
uint64_t sent_resume(struct session *session); /* for resume_when_recorded */
void sent_changed(struct session *session);
void sent_record(struct session *session, bool complete);
void sent_answers(struct session *session, struct xy_buf *runs); /* outmap.h, of answers only */
void sent_pace(struct session *session, uint64_t now_us);        /* records if it is time */
