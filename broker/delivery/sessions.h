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

/* The n-th counted stanza of that session is handled (see request.h). */
void session_handled(struct shard *shard, struct session_ref session, uint32_t inbound);

/* Whether other sessions of its account want copies of what it sends (request.copied). `done`, if any, runs on the session's
 * shard when it knows, or is gone. */
void session_set_copied(struct shard *shard, struct session_ref session, bool copied, shard_fn *done,
                        void *ctx);

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
    void (*handled)(struct shard *shard, struct session_ref session, uint32_t inbound);
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
