/* How events travel from the shard that owns a node to the sessions of its subscribers, and acknowledgements back.
 *
 * One publish is one mail per shard that has subscribers, whatever their number: it names the event (shared body) and
 * the vector of live routes on that shard, an immutable snapshot that the node's owner replaces when it changes.
 *
 * At-most-once routes need nothing else. An at-least-once subscription holds a *claim*: the owner attaches it to one
 * session, the session answers with the claim's index in its own table, and from then on routes carry that index.
 * Deliveries carry the claim's `run`; the owner begins a new run whenever it (re)starts sending from some sequence
 * number, and a session ignores deliveries of any other run. So after a stall nothing arrives out of order:
 *
 *     owner                                     session
 *     delivery_attach ---------------------->   makes the claim
 *       <------------------------- attached     index, room
 *     delivery_one (run 1, seq 5..)  ------->   outbox, XEP-0198 queue
 *       <---------------------------- acked     <a/> covered up to seq 7 (batched per turn)
 *     delivery_publish (live vector) ------->   outbox full
 *       <-------------------------- stalled     first seq not taken; run is over
 *       <---------------------------- ready     outbox is below half again (or page_end was reached with room)
 *     delivery_one (run 2, seq 9..)  ------->
 *       <------------------------- released     session ended; acknowledged up to seq 8 */
#pragma once

#include "broker/shard/shard.h"
#include "core/base/bytes.h"

#define DELIVERY_NO_CLAIM UINT32_MAX

/* One event, shared by all who get it, in one piece of memory that a session's queue can hold as plain shared bytes.
 * `delay_us` and `headline` are set before it is shared; nothing changes afterwards. */
struct event {
    uint64_t seq; /* of the item; 0 for events without (delete, purge, configuration, retract) */
    uint64_t epoch;
    uint64_t delay_us; /* wall time for <delay/>; 0: fresh */
    bool headline;     /* type='headline', else normal; at-least-once is always normal */
    uint32_t service_len;
    uint32_t body_len;
    char text[]; /* the service's JID escaped for an attribute, then <event xmlns='…#event'>…</event> */
};
struct event *event_new(struct xy_str service, struct xy_str body, uint64_t seq,
                        uint64_t epoch); /* one reference */
struct event *event_ref(struct event *event);
void event_unref(struct event **event);            /* NULL ok; nulls the caller's pointer */
struct xy_bytes *event_bytes(struct event *event); /* the same object, the same references */
struct event *event_of(struct xy_bytes *bytes);

static inline struct xy_str event_service(const struct event *event)
{
    return xy_str_n(event->text, event->service_len);
}

static inline struct xy_str event_body(const struct event *event)
{
    return xy_str_n(event->text + event->service_len, event->body_len);
}

/* One live route: 16 bytes, walked linearly on the session's shard. */
struct route {
    uint32_t session; /* index on that shard */
    uint32_t generation;
    uint32_t claim; /* DELIVERY_NO_CLAIM: at most once */
    uint16_t run;
    uint16_t flags; /* ROUTE_* */
};
#define ROUTE_NOTICES 2u /* items come by delivery_one; only what carries no item takes this route */
#define ROUTE_SUBID                                                                                          \
    1u /* the subscriber has several subscriptions: the session adds the SHIM SubID of the claim/route */

struct routes {
    atomic_uint refs;
    uint32_t count;
    struct route route[];
};
struct routes *routes_new(uint32_t count); /* 1 reference, routes to be filled in before sharing */
void routes_unref(struct routes **routes);

/* How the items of a claim are acknowledged; none: by XEP-0198. The others may be held without it, and a session that
 * waits for its resumption (detached) takes no more of them, because nobody is there to acknowledge in time. */
#define CLAIM_RECEIPTS 1u /* XEP-0184: events ask for a receipt */
#define CLAIM_EXPLICIT 2u

/* --- owner to session; called on the owner's shard ---------------------------------------------------------------- */

struct claim_key { /* names a subscription to its owner */
    uint64_t node;
    uint32_t subscription;
    uint32_t owner; /* shard of the node */
    uint32_t era;   /* what was received in an earlier one says nothing about what is owed now */
};

/* A publish: every route of `routes` on shard `to`. Takes one reference of each. */
void delivery_publish(struct shard *shard, unsigned to, struct event *event, struct routes *routes);

/* One event to one session (at most once: last published item, notifications to owners). Takes the event reference. */
void delivery_notify(struct shard *shard, struct session_ref session, struct event *event);

/* Attach a claim. Answered by `attached`, or by `released` (acked 0) when the session is gone or, without CLAIM_RECEIPTS
 * and CLAIM_EXPLICIT, has no XEP-0198. `subid` is copied. */
void delivery_attach(struct shard *shard, struct session_ref session, struct claim_key key, unsigned flags,
                     struct xy_str subid);

/* One item of a run to the session that holds the claim. Takes the event reference. `attempt` >= 1. `page_end`: answer
 * with `ready` when there is room for another page. */
void delivery_one(struct shard *shard, struct session_ref session, uint32_t claim, uint16_t run,
                  struct event *event, uint32_t attempt, bool page_end);

/* The subscription is over (unsubscribed, node deleted): the session forgets the claim; nothing is answered. Entries
 * already in its queue are still sent. */
void delivery_detach(struct shard *shard, struct session_ref session, uint32_t claim);

/* --- session to owner: implemented by pubsub, called on the owner's shard ------------------------------------------ */
struct delivery_owner {
    void (*attached)(struct shard *shard, struct claim_key key, struct session_ref session, uint32_t claim);
    void (*acked)(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t seq);
    /* `unsent`: the first seq of the run that was not taken */
    void (*stalled)(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run,
                    uint64_t unsent);
    void (*ready)(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run);
    void (*released)(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t acked);
    void (*received_before)(struct shard *shard, struct xy_str node, struct claim_key key, uint64_t seq);
};

/* The session's side of the same, mailed to the owner (key.owner). */
void delivery_attached(struct shard *shard, struct claim_key key, struct session_ref session, uint32_t claim);
void delivery_acked(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t seq);
void delivery_stalled(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run,
                      uint64_t unsent);
void delivery_ready(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run);
void delivery_released(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t acked);

/* A session that is resumed after a restart had received items up to `seq` before. Its owner, that of the node of this
 * name, is found here; key.owner is not read. */
void delivery_received_before(struct shard *shard, struct xy_str node, struct claim_key key, uint64_t seq);

void delivery_set_owner(struct shard *shard, const struct delivery_owner *owner);
