/* One request at the pubsub service, as its handlers see it, and the ways to answer it. Private to broker/pubsub. */
#pragma once

#include "broker/pubsub/node/node.h"
#include "broker/router/router.h"
#include "core/namespaces.h"

struct call {
    struct shard *shard;
    struct pubsub *pubsub;
    struct request **request;
    struct xy_arena *arena;    /* the stanza's */
    struct xy_elem *container; /* <pubsub/>, or the <query/> of service discovery */
    struct xy_elem *action; /* its first child that names what is wanted; the <query/> itself for discovery */
    struct xy_str name;     /* of the node; absent if none was given */
    struct node *node;      /* NULL: none given, or (where allowed) none there */
    struct xy_str who;      /* the sender's bare JID */
};

/* Entry on the shard that owns the named node; takes the request. */
void call_dispatch(struct shard *shard, struct request **request);

/* Refusals. They end the request, after what they depend on is on disk. */
void call_fail(struct call *call, enum xy_condition condition, const char *app, const char *text);
void call_fail_type(struct call *call, enum xy_condition condition, enum xy_error_type type, const char *app,
                    const char *text);
/* For good: not granted after a crash either, when the request comes again (request.h). */
void call_fail_finally(struct call *call, enum xy_condition condition, enum xy_error_type type,
                       const char *text);
void call_unsupported(struct call *call, const char *feature, const char *text);
void call_no_room(struct call *call);

/* An empty result, or one made by call_result; sent once the node's newest record is on disk. */
void call_reply(struct call *call, struct xy_elem *result);
struct xy_elem *call_result(struct call *call, const char *ns, struct xy_elem **pubsub);

bool call_is_owner(const struct call *call);
enum affiliation call_affiliation(const struct call *call);
bool call_room(struct call *call, size_t bytes); /* false: the request was refused for lack of space */
/* The `jid` attribute of an element, prepared; false: absent or malformed. */
bool call_jid(struct call *call, const struct xy_elem *elem, struct xy_jid *out);

/* The handlers; each ends the request. */
typedef void call_fn(struct call *call);
call_fn create_node, configure_get, configure_set, default_get, delete_node, purge_node; /* manage */
call_fn publish_items, retract_items, items_get;
call_fn subscribe, unsubscribe, options_get, options_set, default_options_get;
call_fn subscriptions_get, affiliations_get; /* of the entity */
call_fn owner_subscriptions_get, owner_subscriptions_set, owner_affiliations_get, owner_affiliations_set;
call_fn subscription_state_get, replay;
call_fn queue_retract, queue_retract_get, queue_unlock; /* queue_call */
call_fn queue_move_items;                               /* queue_move */
call_fn queue_state_get, queue_redrive_items;           /* queue_state */
call_fn disco_info_service, disco_info_node, disco_items_node;
/* No node given: asks every shard in turn. */
call_fn tour_subscriptions, tour_affiliations, tour_nodes, tour_queues;

/* --- settle.c: acknowledgements of single items ----------------------------------------------------------------------- */
bool settle_is(const struct xy_stanza *stanza);             /* is it one? */
void settle(struct shard *shard, struct request **request); /* takes it; on the sender's shard */
/* The one subscription of `who` that a request means: of that subid, else the only one that owes, else the one of its full
 * JID. NULL: there is none, or (*several) it is not clear which. */
struct subscription *subscription_of(const struct node *node, struct xy_jid who, struct xy_str subid,
                                     bool *several);

/* --- shared between handlers --------------------------------------------------------------------------------------- */
/* The form inside `parent`; false: refused already. *cancelled: nothing is to be done. */
bool call_form(struct call *call, const struct xy_elem *parent, const char *form_type, struct xy_form *out,
               bool *cancelled);
/* Applies a configuration form to `config`; false: refused already. */
bool call_read_config(struct call *call, struct node_config *config, const struct xy_form *form);
/* Makes the node, its owner included; `config` is taken. NULL: refused already. */
struct node *create_with(struct call *call, struct node_config *config);
/* A stored <item/> as a tree in `arena`, of the namespace of requests and answers. NULL: memory is short. */
struct xy_elem *item_parse(struct pubsub *pubsub, struct xy_arena *arena, struct xy_str bytes);
/* NULL: memory is short, or (*full) its account has as many as it may; `options` is still the caller's. */
struct subscription *subscription_add(struct call *call, struct xy_jid jid,
                                      struct subscription_options *options, bool *full);
/* Nothing is sent to it until the node's newest record is on disk. */
void subscription_activate(struct subscription *subscription);
/* The node has room for one more of that account. */
bool subscription_room(const struct call *call, struct xy_str bare);
/* Ends a subscription: record, claim, routes, and tells the subscriber when `notify`. */
void subscription_end(struct node *node, struct subscription *subscription, bool notify);
/* After access became stricter: ends the subscriptions of those who may no longer read. */
void subscriptions_recheck(struct node *node);
void subscription_notify(struct node *node, const struct subscriber *subscriber, struct xy_str jid,
                         struct xy_str subid, const char *state);
struct xy_elem *subscription_elem(struct xy_arena *arena, struct xy_elem *parent,
                                  const struct subscription *subscription, bool with_node);
