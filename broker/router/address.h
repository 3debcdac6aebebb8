/* Bare JIDs and who is behind them: the owner's view of an account's sessions, presence, mailbox and watchers.
 *
 * Lives on the shard that owns the bare JID (shard_owner). Sessions on any shard talk to it by mail; the functions here
 * may be called from any shard and do the mailing. RFC 6121 section 8 is applied in address.c: messages to the bare JID
 * go to the available sessions of highest priority or wait in the mailbox, IQ to the bare JID is answered on behalf of
 * the account, and so on. */
#pragma once

#include "broker/delivery/sessions.h"
#include "broker/router/request.h"

/* After accounts_init and store_open; before the first address_*. */
bool addresses_init(struct shard *shard);
void addresses_free(struct shard *shard);

/* --- sessions ----------------------------------------------------------------------------------------------------- */

/* A session asks for a resource. The owner checks the account and limits, replaces a session that holds the resource
 * (<conflict/>: it is ended, its claims come back first), and answers with session_bound() on the session's shard. */
void address_bind(struct shard *shard, struct session_ref session, struct xy_str bare,
                  struct xy_str resource);
void address_unbind(struct shard *shard, struct session_ref session, struct xy_str bare);
/* The session enabled XEP-0198, or turned it off. */
void address_set_sm(struct shard *shard, struct session_ref session, struct xy_str bare, bool sm);
/* The session wants copies of the account's messages (XEP-0280), or no longer. */
void address_set_carbons(struct shard *shard, struct session_ref session, struct xy_str bare, bool on);
/* The same asked for by IQ, on the owner's shard; ends the request. */
void address_carbons(struct shard *shard, struct request **request, bool on);

/* Entry points of the router, on the owner's shard. */
void address_handle(struct shard *shard,
                    struct request **request); /* addressed to the bare or a full JID of it */

/* Owner's shard: how long ago the account was last here; 0: it is. false: not since the broker started. */
bool address_last_activity(struct shard *shard, struct xy_str bare, uint64_t *idle_us);

/* --- messages owed to the account --------------------------------------------------------------------------------- */

/* Recipients acknowledged mailbox entries. */
void address_acked(struct shard *shard, struct xy_str bare, const uint64_t *seq, size_t count);
/* `session` is full, or ended without acknowledging it: an entry of the mailbox (seq != 0), or a message that was handed
 * over without being stored (bytes, taken). It goes to another session or waits in the mailbox. */
void address_returned(struct shard *shard, struct xy_str bare, struct session_ref session, uint64_t seq,
                      struct xy_bytes **bytes);

/* --- watchers: node owners who want to know which sessions of an account are there --------------------------------- */

struct address_route {
    struct session_ref session;
    int8_t priority;
    bool sm;        /* XEP-0198 enabled: may hold ack=stream claims */
    uint32_t since; /* order of becoming available; larger is more recent */
    struct xy_str resource;
};

/* The available sessions of `bare` as they are now, most suitable first (priority, then most recent); those of negative
 * priority are included and come last. Sent to every watcher at each change, and once at the start of a watch. `routes`
 * live until the call returns. */
struct address_routes {
    struct xy_str bare;
    const struct address_route *routes;
    size_t count;
};
/* Runs on shard `watcher`. Set by pubsub_init in the router: one consumer is enough. */
typedef void address_watch_fn(struct shard *shard, struct xy_str node, const struct address_routes *routes);
void address_set_watch_handler(struct shard *shard, address_watch_fn *fn);

/* Shard of the node's owner: tell me about `bare` for the node called `node`. Watches live in memory; those of stored
 * subscriptions are found in STORE_SUBS_BY_JID when the account's first session becomes available. */
void address_watch(struct shard *shard, struct xy_str bare, struct xy_str node);
void address_unwatch(struct shard *shard, struct xy_str bare, struct xy_str node);
