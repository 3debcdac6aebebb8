/* A stanza on its way through the broker, with what is needed to answer it and to count it as handled.
 *
 * A request lives in its stanza's arena. It has one owner at a time; mailing it to another shard moves it. Every request
 * ends exactly once, by one of the functions below; ending it gives the arena back and lets the sender's XEP-0198 count
 * go on (docs/architecture.md, 'what h means'). */
#pragma once

#include "broker/delivery/sessions.h"
#include "broker/shard/shard.h"
#include "core/error.h"
#include "core/stanza.h"

/* For requests of the broker's own: told instead of a sender, once what the answer depends on is on disk, on the shard
 * where the request ended. XY_NO_ERROR: done. */
struct request_told {
    void (*fn)(struct shard *shard, const uint64_t *ctx, enum xy_condition condition); /* NULL: nobody */
    uint64_t ctx[6];
};

struct request {
    struct xy_stanza stanza; /* `from` is stamped: the sender's full JID */
    struct request_told told;
    struct session_ref origin; /* who sent it; SESSION_NONE: the broker itself */
    bool awaited;              /* others wait for its sender to read: it must not be made to wait itself */
    struct session_inbound inbound; /* what to report as handled */
    bool kept;                      /* origin's session outlives a restart: `session` is its id */
    uint8_t session[SESSION_ID_BYTES];
    bool copied;  /* other sessions of its account want copies (XEP-0280) */
    bool granted; /* of the broker's own, for an administrator: publishes where `from` may not */
    bool assured; /* origin has XEP-0198: commit before delivery (section 6 of the design) */
    /* What a result becomes before it is sent, for requests that stand for another one; NULL: as it is. `wrapped` is what
     * was asked for, in the arena. */
    struct xy_elem *(*wrap)(struct request *request, struct xy_elem *result);
    const struct xy_elem *wrapped;
};

struct request *request_new(struct xy_stanza stanza, struct session_ref origin,
                            struct session_inbound inbound);

/* The records of this request were appended just now: with them, and only with them, it becomes known that the request
 * is handled, so that after a crash its sender, who sends it again, is not served twice. Nothing happens when its session
 * does not outlive a restart. request_reply and request_end do this by themselves when they are given the ticket of
 * records appended in the same turn; call it where the end comes later. */
void request_record(struct shard *shard, struct request *request);

/* The same for an IQ that is answered in a later turn, and maybe on another shard, with `answer` (NULL: an empty result):
 * who sends the request again after a crash hears that instead. */
void request_record_answer(struct shard *shard, struct request *request, struct xy_elem *answer);

/* Of what a stanza is: enough to tell another one that comes under the same number. */
uint32_t request_digest(const struct xy_stanza *stanza);

/* IQ result with the children of `result` already in place: `result` comes from xy_stanza_result. NULL: an empty result.
 * Sent when `ticket` is on disk (0: nothing to wait for). Ends the request. For messages and presence: only ends it. */
void request_reply(struct shard *shard, struct request **request, struct xy_elem *result, uint64_t ticket);

/* Answer with an error, where RFC 6120 allows one, and end the request. */
void request_fail(struct shard *shard, struct request **request, const struct xy_error *error);
void request_fail_with(struct shard *shard, struct request **request, enum xy_condition condition,
                       const char *text);
/* The same once `ticket` is on disk: for refusals that depend on state not yet committed. */
void request_fail_after(struct shard *shard, struct request **request, const struct xy_error *error,
                        uint64_t ticket);

/* The same, and the refusal is on disk too before it is told: the sender acts upon it for good, so the request must not
 * be granted when it comes again after a crash. Costs a commit; for requests that end what is owed. */
void request_fail_finally(struct shard *shard, struct request **request, const struct xy_error *error,
                          uint64_t ticket);

/* Ends it without an answer (messages, presence, results). `ticket`: handled once that is on disk; 0: now. */
void request_end(struct shard *shard, struct request **request, uint64_t ticket);

/* Move a request to another shard: `fn(shard, &request)` there, its payload being the struct request *. */
void request_forward(struct shard *shard, unsigned to, shard_fn *fn, struct request **request);
