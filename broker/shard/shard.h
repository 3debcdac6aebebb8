/* A shard: one event loop's worth of broker, owner of a share of all addresses and nodes.
 *
 * Everything a shard owns is touched by its own thread only; shards talk through mail. A turn of the loop is: take mail,
 * handle what sockets brought, run due timers and finished commits, hand the store its batch, send the outgoing mail,
 * flush sockets. The turn is plain code (shard_turn) without libuv, so a simulation drives several shards in one thread
 * on a virtual clock; broker/net drives them on real loops. One shard behaves exactly as many: mail to itself takes the
 * same queue. */
#pragma once

#include "broker/shard/ref.h"
#include "broker/shard/timers.h"
#include "core/base/arena.h"
#include "core/base/bytes.h"
#include "core/base/env.h"
#include "core/base/list.h"
#include "core/base/spans.h"

struct config;
struct log;
struct store;
struct store_shard;
struct shard_group;
struct spans;
struct workers;

/* Runs on the receiving shard. `payload` is a copy that lives until the function returns; pointers in it change owner
 * as the function's header says. */
typedef void shard_fn(struct shard *shard, void *payload);

/* Counters of one shard: written by its thread, read by anyone (relaxed). Named in broker/shard/stats.h. */
struct shard_stats;

struct shard {
    unsigned index;
    struct shard_group *group;
    const struct xy_env *env;
    const struct config *config; /* swapped by reload on the shard's own thread */
    struct log *log;
    struct store_shard *store;
    struct xy_arena_pool *arenas;
    const struct xy_spans *spans; /* the same for all shards */
    struct shard_stats *stats;
    struct xy_str secret; /* the broker's own, the same on all shards and over restarts */
    struct shard_timers timers;

    /* The rooms on this shard, each made and freed by its own *_init / *_free. */
    struct net *net;                             /* broker/net: connections; NULL in a simulation */
    struct sessions *sessions;                   /* broker/session */
    struct router *router;                       /* broker/router: addresses it owns, services, modules */
    struct pubsub *pubsub;                       /* broker/pubsub: nodes it owns */
    const struct link_events *link_events;       /* broker/net/link.h; registered by broker/session */
    const struct session_calls *session_calls;   /* broker/delivery/sessions.h */
    const struct delivery_owner *delivery_owner; /* broker/delivery/delivery.h */

    struct workers *workers; /* broker/shard/workers.h; shared by all shards, set before accounts_init */

    struct shard_mailroom *mailroom; /* private to shard.c */
};

/* --- the group ---------------------------------------------------------------------------------------------------- */
struct shard_group_options {
    unsigned count;
    const struct xy_env *env;
    const struct config *config;
    struct log *log;
    struct store *store;
    uint64_t hash_seed;
    struct xy_str secret; /* borrowed for the group's lifetime, at least 16 bytes; absent: a random one */
    /* There is mail for a sleeping shard: wake its loop (an eventfd; a flag in a simulation). Any thread. */
    void (*wake)(void *ctx, unsigned shard);
    void *ctx;
};
struct shard_group *shard_group_new(const struct shard_group_options *options);
void shard_group_free(struct shard_group **group);
unsigned shard_count(const struct shard *shard);
struct shard *shard_group_get(struct shard_group *group, unsigned index);
struct spans *shard_group_spans(const struct shard_group *group);
struct store *shard_group_store(const struct shard_group *group); /* what all shards write to; NULL: none */

/* More memory is in use than limits.memory: shed what may be shed (at-most-once events, new connections). Set by
 * broker/net, read by any thread. */
bool shard_memory_is_short(const struct shard *shard);
void shard_group_set_memory_short(struct shard_group *group, bool is_short);

/* The shard that owns an address (bare JID) or node (name). Same answer everywhere. */
unsigned shard_owner(const struct shard *shard, struct xy_str key);

/* --- mail --------------------------------------------------------------------------------------------------------- */

#define SHARD_MAIL_MAX 512 /* bytes of one payload */

/* Queue `fn(payload)` for shard `to` (its own index included). Mail from one shard to another arrives in order. Leaves
 * at the end of this turn. Shard threads only. */
void shard_mail(struct shard *from, unsigned to, shard_fn *fn, const void *payload, size_t size);

/* From a thread that is no shard (workers, signal handling). Copies; may allocate. */
void shard_post(struct shard_group *group, unsigned to, shard_fn *fn, const void *payload, size_t size);

/* --- durability --------------------------------------------------------------------------------------------------- */

/* Run `fn(payload)` on this shard once everything up to `ticket` is on disk; at once, inside this call, if that has been
 * so since the last look. Calls for the same object (whose tickets only grow) keep the order in which they were asked
 * for. */
void shard_when_committed(struct shard *shard, uint64_t ticket, shard_fn *fn, const void *payload,
                          size_t size);

/* --- the turn ----------------------------------------------------------------------------------------------------- */

/* Called at the end of each turn for whoever has output to flush. A hook that left some for the next turn says so with
 * shard_again. */
void shard_at_turn_end(struct shard *shard, shard_fn *fn, void *ctx);
void shard_again(struct shard *shard);

/* Take mail, run timers and commits, flush the store, send mail, run the turn-end hooks; again while there is mail to
 * itself. Returns microseconds until the next timer (0: there is more to do now, UINT64_MAX: none). */
uint64_t shard_turn(struct shard *shard);
bool shard_has_mail(const struct shard *shard);
/* Whether something waits for a commit (shard_when_committed). Only on the shard's own thread. */
bool shard_waits(const struct shard *shard);
