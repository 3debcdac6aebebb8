/* Nodes for their owners: create, configure, delete, purge. XEP-0060 8.1 - 8.5; called through the table of pubsub.c. */
#include "broker/pubsub/call.h"
#include "broker/pubsub/node/expiry.h"
#include "broker/pubsub/queue/queue.h"
#include "broker/pubsub/node/retention.h"
#include "broker/pubsub/quota/quota.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

#define NODE_CONFIG_FORM NS_PUBSUB_NODE_CONFIG
#define RECORD_OVERHEAD  512u /* bytes of a record besides its texts, generously */

/* --- create -------------------------------------------------------------------------------------------------------- */

/* false: refused. */
static bool charge_creator(struct call *call, struct node *node)
{
    switch (quota_add_node(node)) {
    case QUOTA_TAKEN:
        return true;
    case QUOTA_FULL:
        stat_add(call->shard, nodes_refused, 1);
        call_fail(call, XY_RESOURCE_CONSTRAINT, NULL,
                  "this account has created as many nodes as it may; delete one first");
        return false;
    case QUOTA_NO_MEMORY:
        break;
    }
    call_no_room(call);
    return false;
}

struct node *create_with(struct call *call, struct node_config *config)
{
    struct pubsub *pubsub = call->pubsub;
    struct node *node = node_new(pubsub, call->name, store_new_number(call->shard->store), call->who);
    if (node == NULL || !node_set_affiliation(node, call->who, AFFILIATION_OWNER)) {
        options_free(node_options, config);
        if (node != NULL) {
            node_unlist(node);
            node_free(&node);
        }
        call_no_room(call);
        return NULL;
    }
    options_free(node_options, &node->config);
    node->config = *config;
    memset(config, 0, sizeof(*config));
    if (node->config.queue && !queue_make(node)) {
        node_unlist(node);
        node_free(&node);
        call_no_room(call);
        return NULL;
    }
    if (!charge_creator(call, node)) {
        node_unlist(node);
        node_free(&node);
        return NULL;
    }
    xy_random(call->shard->env, &node->epoch, sizeof(node->epoch));
    node->created_us = xy_wall_us(call->shard->env);
    node->born_here = true;
    record_node(node);
    record_affiliation(node, call->who, AFFILIATION_OWNER);
    call->node = node;
    return node;
}

/* The <configure/> beside <create/>: 8.1.3. */
static bool creation_config(struct call *call, struct node_config *config)
{
    const struct xy_elem *configure = xy_elem_next_is(call->action, "configure", NS_PUBSUB);
    struct xy_form form = { 0 };
    bool cancelled = true;
    if (configure != NULL && xy_str_present(xy_elem_attr(configure, "node"))) {
        call_fail(call, XY_BAD_REQUEST, NULL, "<configure/> beside <create/> must not name a node");
        return false;
    }
    if (configure != NULL && !call_form(call, configure, NODE_CONFIG_FORM, &form, &cancelled))
        return false;
    if (!options_init(node_options, config)) {
        call_no_room(call);
        return false;
    }
    if (cancelled || call_read_config(call, config, &form))
        return true;
    options_free(node_options, config);
    return false;
}

static bool name_is_good(struct call *call)
{
    if (call->name.len <= NODE_NAME_MAX)
        return true;
    call_fail(call, XY_NOT_ACCEPTABLE, NULL, "the name of a node may have 1023 bytes at most");
    return false;
}

static bool creation_checks(struct call *call, struct node_config *config)
{
    if (!name_is_good(call))
        return false;
    if (call->node != NULL) {
        call_fail(call, XY_CONFLICT, NULL, "there is a node of that name already");
        return false;
    }
    return creation_config(call, config);
}

void create_node(struct call *call)
{
    struct node_config config;
    if (!creation_checks(call, &config))
        return;
    if (!quota_ready(call) || !call_room(call, RECORD_OVERHEAD + (*call->request)->stanza.bytes)) {
        options_free(node_options, &config);
        return;
    }
    if (create_with(call, &config) == NULL)
        return;
    struct xy_elem *pubsub;
    struct xy_elem *result = call_result(call, NS_PUBSUB, &pubsub);
    struct xy_elem *created = xy_elem_add(call->arena, pubsub, "create", NS_PUBSUB);
    xy_elem_set(call->arena, created, "node", call->name);
    call_reply(call, result);
}

/* --- configure ----------------------------------------------------------------------------------------------------- */

void configure_get(struct call *call)
{
    struct xy_elem *pubsub;
    struct xy_elem *result = call_result(call, NS_PUBSUB_OWNER, &pubsub);
    struct xy_elem *configure = xy_elem_add(call->arena, pubsub, "configure", NS_PUBSUB_OWNER);
    xy_elem_set(call->arena, configure, "node", call->name);
    xy_elem_append(configure,
                   options_form(call->arena, node_options, &call->node->config, "form", NODE_CONFIG_FORM));
    call_reply(call, result);
}

void default_get(struct call *call)
{
    struct node_config config;
    if (!options_init(node_options, &config)) {
        call_no_room(call);
        return;
    }
    struct xy_elem *pubsub;
    struct xy_elem *result = call_result(call, NS_PUBSUB_OWNER, &pubsub);
    struct xy_elem *defaults = xy_elem_add(call->arena, pubsub, "default", NS_PUBSUB_OWNER);
    xy_elem_append(defaults, options_form(call->arena, node_options, &config, "form", NODE_CONFIG_FORM));
    options_free(node_options, &config);
    call_reply(call, result);
}

static void notify_configured(struct call *call)
{
    struct node *node = call->node;
    struct xy_elem *configuration =
        xy_elem_new(call->arena, XY_STR("configuration"), XY_STR(NS_PUBSUB_EVENT));
    xy_elem_set(call->arena, configuration, "node", node->name);
    if (node->config.deliver_payloads)
        xy_elem_append(configuration,
                       options_form(call->arena, node_options, &node->config, "result", NODE_CONFIG_FORM));
    struct event *event = event_for_elem(node, configuration);
    if (event != NULL)
        routes_deliver_after(node, &event, 0);
}

/* Items in memory and items on disk do not mix: the node has to be empty when that changes. */
static bool durability_may_change(struct call *call, const struct node_config *config)
{
    const struct node *node = call->node;
    if ((config->durability == DURABILITY_MEMORY) == node_is_memory(node))
        return true;
    if (node->items.live > 0)
        call_fail(call, XY_CONFLICT, NULL,
                  "durability can change from or to memory only while the node is empty and nothing is owed; "
                  "purge it first");
    else if (node->durable_count > 0)
        call_fail(
            call, XY_CONFLICT, NULL,
            "at-least-once subscriptions need items on disk; end them before durability becomes memory");
    else
        return true;
    return false;
}

/* It becomes a queue, or is none any more: there is nothing in it (queue_config_check). false: memory is short. */
static bool configure_queue(struct node *node, bool queue)
{
    struct queue_engine *engine = NULL;
    if (!queue)
        queue_free(&node->queue, &engine);
    queue_engine_free(&engine);
    return node->queue != NULL || !queue || queue_make(node);
}

void configure_set(struct call *call)
{
    struct node *node = call->node;
    struct node_config config;
    struct xy_form form;
    bool cancelled;
    if (!call_form(call, call->action, NODE_CONFIG_FORM, &form, &cancelled))
        return;
    if (cancelled) {
        call_reply(call, NULL);
        return;
    }
    if (!call_room(call, RECORD_OVERHEAD + (*call->request)->stanza.bytes))
        return;
    if (!options_copy(node_options, &config, &node->config)) {
        call_no_room(call);
        return;
    }
    if (!call_read_config(call, &config, &form) || !durability_may_change(call, &config)) {
        options_free(node_options, &config);
        return;
    }
    if (!configure_queue(node, config.queue)) {
        options_free(node_options, &config);
        call_no_room(call);
        return;
    }
    if ((config.durability == DURABILITY_MEMORY) != node_is_memory(node))
        xy_random(call->shard->env, &node->epoch,
                  sizeof(node->epoch)); /* numbers in memory are not remembered */
    options_free(node_options, &node->config);
    node->config = config;
    if (node->queue != NULL)
        queue_configured(node->queue);
    node->routes_stale = UINT64_MAX;
    record_node(node);
    retention_trim(node);
    backlog_configured(node);
    expiry_look(node);
    subscriptions_recheck(node);
    if (node->config.notify_config)
        notify_configured(call);
    call_reply(call, NULL);
}

/* --- delete -------------------------------------------------------------------------------------------------------- */

struct ending {
    struct node *node;
};

/* Runs behind every event of the node that waited for its commit: nobody points at it any more. Sessions that held
 * claims got the notice as well; now they may forget them. */
static void on_deleted(struct shard *shard, void *payload)
{
    struct ending *ending = payload;
    struct node *node = ending->node;
    xy_assert(node->waiting == 0);
    size_t position = 0;
    for (const struct subscription *s; (s = node_next_subscription(node, &position)) != NULL;) {
        const struct claim *claim = &s->claim;
        if (claim->state != CLAIM_DETACHED && claim->state != CLAIM_ATTACHING)
            delivery_detach(shard, claim->session, claim->index);
        node->pubsub->stats.subscriptions--;
    }
    node_free(&ending->node);
}

static void notify_deleted(struct call *call)
{
    struct node *node = call->node;
    struct xy_elem *deleted = xy_elem_new(call->arena, XY_STR("delete"), XY_STR(NS_PUBSUB_EVENT));
    xy_elem_set(call->arena, deleted, "node", node->name);
    const struct xy_elem *redirect = xy_elem_child(call->action, "redirect", NS_PUBSUB_OWNER);
    struct xy_str uri = redirect != NULL ? xy_elem_attr(redirect, "uri") : XY_STR_NONE;
    if (uri.len > 0)
        xy_elem_set(call->arena, xy_elem_add(call->arena, deleted, "redirect", NS_PUBSUB_EVENT), "uri", uri);
    struct event *event = event_for_elem(node, deleted);
    if (event != NULL)
        routes_deliver_after(node, &event, 0);
}

/* Routes and claims stay until the notice is out. */
static void end_all(struct node *node)
{
    size_t position = 0;
    for (const struct subscription *s; (s = node_next_subscription(node, &position)) != NULL;)
        record_subscription_remove(node, s);
    position = 0;
    for (struct subscriber *s; (s = xy_table_next(node->subscribers, &position, NULL)) != NULL;)
        address_unwatch(node->pubsub->shard, s->bare, node->name);
}

void delete_node(struct call *call)
{
    struct node *node = call->node;
    struct pubsub *pubsub = call->pubsub;
    end_all(node);
    expiry_forget(node);
    record_node_remove(node);
    pubsub->deleted_ticket = node->ticket;
    if (node->config.notify_delete)
        notify_deleted(call);
    node_unlist(node);
    quota_drop_node(node);
    call_reply(call, NULL);
    struct ending ending = { node };
    shard_when_committed(call->shard, node->ticket, on_deleted, &ending, sizeof(ending));
}

/* --- purge --------------------------------------------------------------------------------------------------------- */

void purge_node(struct call *call)
{
    struct node *node = call->node;
    if (!node->config.persist_items) {
        call_unsupported(call, "persistent-items", "this node keeps no items (pubsub#persist_items)");
        return;
    }
    if (!node_forget_items(node)) {
        call_no_room(call);
        return;
    }
    record_purge(node, node->next_seq - 1);
    if (node->config.notify_retract) {
        struct xy_elem *purge = xy_elem_new(call->arena, XY_STR("purge"), XY_STR(NS_PUBSUB_EVENT));
        xy_elem_set(call->arena, purge, "node", node->name);
        struct event *event = event_for_elem(node, purge);
        if (event != NULL)
            routes_deliver_after(node, &event, 0);
    }
    call_reply(call, NULL);
}
