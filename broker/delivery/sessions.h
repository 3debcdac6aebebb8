/* What other rooms may ask of a session, a stream bound to an address.
 *
 * The sessions themselves (broker/session) stand above the router and call down into it; what has to go up to them goes
 * through here: these functions mail the session's shard, and there the calls of struct session_calls do the work.
 * A session lives on the shard of its connection; a detached one (XEP-0198) waits there for its resumption. Its outbox is
 * the XEP-0198 queue: entries point at shared bytes and name the claim they settle. All functions may be called from any
 * shard and mail themselves where they need to; a stale reference is no error. */
#pragma once

#include "broker/shard/shard.h"
#include "core/error.h"
#include "core/jid.h"

#define SESSION_ID_BYTES 16u /* of a session that can be resumed; random, they grant it */

/* Hand a serialised stanza to a session, outside of any claim (answers, presence, errors). Takes the bytes. */
void session_send(struct shard *shard, struct session_ref session, struct xy_bytes **stanza);

/* Hand over a message to a session of account `bare` (canonical; borrowed, kept by reference): `mailbox_seq` != 0 names
 * the entry of the account's mailbox that its acknowledgement ends; 0: nothing is stored. Either way it comes back to the
 * account's owner by address_returned when it could not be handed over, even if the session is gone by now. */
void session_send_message(struct shard *shard, struct session_ref session, struct xy_bytes *bare,
                          struct xy_bytes **stanza, uint64_t mailbox_seq);

/* Presence: a session that does not keep up, or said that nobody looks (XEP-0352), gets only the newest of each sender. */
void session_send_presence(struct shard *shard, struct session_ref session, struct xy_bytes **stanza);

/* Offer a stanza whose sender wants to know when it cannot be taken (IQ to a full JID). `done` runs on the session's
 * shard, exactly once; ctx travels with it. `patient`: where the outbox is full the answer may take some seconds, until
 * there is room; the sender is braked by what it has under way. A sender that others wait for must not be: two that fill
 * each other would both stop reading. */
enum session_verdict {
    SESSION_TOOK,
    SESSION_GONE,
    SESSION_FULL,
    SESSION_WAITS, /* of session_calls.offer only: it keeps `done` and will call it */
};
typedef void session_offer_fn(struct shard *shard, enum session_verdict verdict, void *ctx);
struct session_offer {
    struct xy_bytes *stanza;
    session_offer_fn *done;
    void *ctx;
    bool patient;
};
/* Takes the stanza. */
void session_offer(struct shard *shard, struct session_ref session, const struct session_offer *offer);

/* The answer to address_bind: `jid` is the full JID (NULL data: refused with `error`). Copied. */
void session_bound(struct shard *shard, struct session_ref session, struct xy_jid jid,
                   const struct xy_error *error);

/* End a session for good (conflict, account removed, shutdown): stream error, claims go back to their owners. */
void session_close(struct shard *shard, struct session_ref session, enum xy_stream_error error,
                   const char *text);

/* A stanza that a session sent in, so that it can be told when that is handled (see request.h). */
struct session_inbound {
    uint64_t number; /* of its stanzas since XEP-0198 was enabled, from 1; 0: not counted */
    uint32_t bytes;
    uint32_t what; /* request_digest; of sessions that outlive a restart */
    bool recorded; /* a row on disk says that it is handled */
};
void session_handled(struct shard *shard, struct session_ref session, struct session_inbound inbound);
/* The same, and the answer to it, which goes first. Takes the bytes. */
void session_answer(struct shard *shard, struct session_ref session, struct xy_bytes **stanza,
                    struct session_inbound inbound);

/* Whether other sessions of its account want copies of what it sends (request.copied). `done`, if any, runs on the session's
 * shard when it knows, or is gone. */
void session_set_copied(struct shard *shard, struct session_ref session, bool copied, shard_fn *done,
                        void *ctx);

/* --- resumption (XEP-0198 5); broker/router/resumable.h asks, these answer ---------------------------------------- */

/* A stanza handled all the same, beyond those that are handled in succession. */
struct session_seen {
    uint64_t number;
    uint32_t what; /* request_digest */
};

/* What a request was answered. */
struct session_late_answer {
    uint64_t number;
    struct xy_bytes *bytes;
    bool owed; /* as far as we know it did not arrive */
};

/* A session as a restart left it: what it takes to go on with it. */
struct session_past {
    uint8_t id[SESSION_ID_BYTES];
    struct xy_bytes *jid; /* full */
    uint64_t max_us;
    uint64_t handled;          /* stanzas of the client, as a crash left them */
    uint32_t h;                /* stanzas of ours that the client has */
    struct session_seen *seen; /* by number */
    size_t seen_count;
    struct session_late_answer *answers; /* by number */
    size_t answers_count;
};
void session_past_free(struct session_past **past); /* NULL ok; nulls the caller's pointer */

struct session_resumption {
    struct session_ref live;   /* the session is there; or */
    struct session_past *past; /* it is made anew of this; or neither: refused */
    bool expired;              /* refused, and it is known how far it got: */
    uint32_t h;                /* so many stanzas of the client were handled */
};
/* The answer to address_resume, on the asker's shard. Takes resumption->past. */
void session_resumption(struct shard *shard, struct session_ref asker, struct session_resumption *resumption);

/* The answer to address_keep: what a resumption needs is on disk, or there is no room for it. */
void session_kept(struct shard *shard, struct session_ref session, bool kept);

/* Registered by broker/session at start; each runs on the session's own shard, and gets NULL-safe, current arguments. */
struct event;
struct routes;
struct claim_key;
struct session_calls {
    void (*send)(struct shard *shard, struct session_ref session, struct xy_bytes **stanza);
    void (*send_message)(struct shard *shard, struct session_ref session, struct xy_str bare,
                         struct xy_bytes **stanza, uint64_t mailbox_seq);
    void (*send_presence)(struct shard *shard, struct session_ref session, struct xy_bytes **stanza);
    enum session_verdict (*offer)(struct shard *shard, struct session_ref session,
                                  struct session_offer *offer); /* nulls offer->stanza when it was taken */
    void (*bound)(struct shard *shard, struct session_ref session, struct xy_jid jid,
                  const struct xy_error *error);
    void (*close)(struct shard *shard, struct session_ref session, enum xy_stream_error error,
                  const char *text);
    void (*handled)(struct shard *shard, struct session_ref session, struct session_inbound inbound);
    void (*answer)(struct shard *shard, struct session_ref session, struct xy_bytes **stanza,
                   struct session_inbound inbound);
    void (*kept)(struct shard *shard, struct session_ref session, bool kept);
    void (*resumption)(struct shard *shard, struct session_ref asker, struct session_resumption *resumption);
    void (*copied)(struct shard *shard, struct session_ref session, bool copied);
    /* delivery.h */
    void (*publish)(struct shard *shard, struct event *event, struct routes *routes);
    void (*notify)(struct shard *shard, struct session_ref session, struct event *event);
    void (*attach)(struct shard *shard, struct session_ref session, const struct claim_key *key,
                   unsigned flags, struct xy_str subid);
    void (*one)(struct shard *shard, struct session_ref session, uint32_t claim, uint16_t run,
                struct event *event, uint32_t attempt, bool page_end);
    void (*detach)(struct shard *shard, struct session_ref session, uint32_t claim);
};
void session_set_calls(struct shard *shard, const struct session_calls *calls);
