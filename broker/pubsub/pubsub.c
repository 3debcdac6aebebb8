/* The pubsub service: takes what is addressed to it, finds the node that is meant, moves the request to the shard that
 * owns the node and calls the handler for it there. Which request is which is one table. XEP-0060; called by the router
 * and started with each shard. */
#include "broker/pubsub/pubsub.h"

#include <stdlib.h>

#include "broker/config.h"
#include "broker/pubsub/call.h"
#include "broker/pubsub/queue/queue.h"
#include "broker/pubsub/command.h"
#include "broker/pubsub/node/expiry.h"
#include "broker/pubsub/node/remains.h"
#include "broker/pubsub/node/resident.h"
#include "broker/pubsub/quota/quota.h"
#include "broker/pubsub/claim/sent.h"
#include "broker/router/module.h"
#include "core/base/assert.h"
#include "core/xml/parser.h"
#include "core/xml/writer.h"

#define ITEM_BYTES_MAX                                                                                       \
    (64u << 20) /* the parser of stored items need not bound what was bounded when it came */

enum {
    NODE_OPTIONAL = 1, /* the request may name no node: `without` answers it */
    NODE_MADE = 2,     /* the node need not exist */
    OWNER_ONLY = 4,
    ADMIN_TOO = 8, /* administrators of the broker as well */
};

static const struct action {
    const char *ns;
    enum xy_stanza_type type;
    const char *name;
    call_fn *fn;
    const char *companion; /* what may stand beside it */
    unsigned flags;
    call_fn *without; /* no node given: runs on the sender's shard */
} actions[] = {
    { NS_PUBSUB, XY_SET, "publish", publish_items, "publish-options", NODE_MADE, NULL },
    { NS_PUBSUB, XY_SET, "retract", retract_items, NULL, 0, NULL },
    { NS_PUBSUB, XY_GET, "retract", queue_retract_get, NULL, 0, NULL },
    { NS_PUBSUB_QUEUEING, XY_SET, "unlock", queue_unlock, NULL, 0, NULL },
    { NS_PUBSUB_QUEUEING, XY_GET, "unlock", queue_unlock, NULL, 0, NULL },
    { NS_PUBSUB, XY_GET, "items", items_get, NULL, 0, NULL },
    { NS_PUBSUB, XY_SET, "subscribe", subscribe, "options", 0, NULL },
    { NS_PUBSUB, XY_SET, "unsubscribe", unsubscribe, NULL, 0, NULL },
    { NS_PUBSUB, XY_GET, "options", options_get, NULL, 0, NULL },
    { NS_PUBSUB, XY_SET, "options", options_set, NULL, 0, NULL },
    { NS_PUBSUB, XY_GET, "default", default_options_get, NULL, NODE_OPTIONAL, default_options_get },
    { NS_PUBSUB, XY_GET, "subscriptions", subscriptions_get, NULL, NODE_OPTIONAL, tour_subscriptions },
    { NS_PUBSUB, XY_GET, "affiliations", affiliations_get, NULL, NODE_OPTIONAL, tour_affiliations },
    { NS_PUBSUB, XY_SET, "create", create_node, "configure", NODE_MADE, NULL },
    { NS_PUBSUB_OWNER, XY_GET, "configure", configure_get, NULL, OWNER_ONLY, NULL },
    { NS_PUBSUB_OWNER, XY_SET, "configure", configure_set, NULL, OWNER_ONLY, NULL },
    { NS_PUBSUB_OWNER, XY_GET, "default", default_get, NULL, NODE_OPTIONAL, default_get },
    { NS_PUBSUB_OWNER, XY_SET, "delete", delete_node, NULL, OWNER_ONLY, NULL },
    { NS_PUBSUB_OWNER, XY_SET, "purge", purge_node, NULL, OWNER_ONLY | ADMIN_TOO, NULL },
    { NS_PUBSUB_OWNER, XY_GET, "subscriptions", owner_subscriptions_get, NULL, OWNER_ONLY, NULL },
    { NS_PUBSUB_OWNER, XY_SET, "subscriptions", owner_subscriptions_set, NULL, OWNER_ONLY, NULL },
    { NS_PUBSUB_OWNER, XY_GET, "affiliations", owner_affiliations_get, NULL, OWNER_ONLY, NULL },
    { NS_PUBSUB_OWNER, XY_SET, "affiliations", owner_affiliations_set, NULL, OWNER_ONLY, NULL },
    { NS_XYLEM_DELIVERY, XY_GET, "subscription-state", subscription_state_get, NULL, 0, NULL },
    { NS_XYLEM_DELIVERY, XY_SET, "replay", replay, NULL, 0, NULL },
    { NS_XYLEM_DELIVERY, XY_GET, "queues", tour_queues, NULL, NODE_OPTIONAL | NODE_MADE, tour_queues },
    { NS_XYLEM_DELIVERY, XY_GET, "queue-state", queue_state_get, NULL, OWNER_ONLY | ADMIN_TOO, NULL },
    { NS_XYLEM_DELIVERY, XY_SET, "move", queue_move_items, NULL, OWNER_ONLY | ADMIN_TOO, NULL },
    { NS_XYLEM_DELIVERY, XY_SET, "redrive", queue_redrive_items, NULL, OWNER_ONLY | ADMIN_TOO, NULL },
    { NS_DISCO_INFO, XY_GET, "query", disco_info_node, NULL, NODE_OPTIONAL, disco_info_service },
    { NS_DISCO_ITEMS, XY_GET, "query", disco_items_node, NULL, NODE_OPTIONAL, tour_nodes },
};

static const struct action *action_find(const struct xy_elem *elem, enum xy_stanza_type type, bool *known)
{
    *known = false;
    for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
        if (!xy_str_is(elem->name, actions[i].name) || !xy_str_is(elem->ns, actions[i].ns))
            continue;
        *known = true;
        if (actions[i].type == type)
            return &actions[i];
    }
    return NULL;
}

static struct call call_make(struct shard *shard, struct request **request)
{
    const struct xy_stanza *stanza = &(*request)->stanza;
    struct call call = {
        .shard = shard, .pubsub = shard->pubsub, .request = request, .arena = stanza->arena
    };
    call.who = xy_jid_bare(stanza->from);
    call.container = xy_elem_first(stanza->elem);
    call.action = call.container;
    if (xy_str_is(call.container->ns, NS_PUBSUB) || xy_str_is(call.container->ns, NS_PUBSUB_OWNER))
        call.action = xy_elem_first(call.container);
    if (call.action != NULL)
        call.name = xy_elem_attr(call.action, "node");
    if (call.name.len == 0)
        call.name = XY_STR_NONE;
    return call;
}

/* At most the companion may stand beside the action, behind it; elements of other namespaces are ignored. */
static bool alone(const struct call *call, const struct action *action)
{
    if (call->action == call->container)
        return true;
    for (const struct xy_elem *e = xy_elem_next(call->action); e != NULL; e = xy_elem_next(e)) {
        if (!xy_str_eq(e->ns, call->action->ns))
            continue;
        if (action->companion == NULL || !xy_str_is(e->name, action->companion))
            return false;
    }
    return true;
}

/* --- on the owner's shard ------------------------------------------------------------------------------------------ */

void call_dispatch(struct shard *shard, struct request **request)
{
    bool known;
    struct call call = call_make(shard, request);
    const struct action *action = action_find(call.action, (*request)->stanza.type, &known);
    xy_assert(action != NULL && call.name.data != NULL); /* checked before it was sent here */
    if (quota_wait(&call))
        return;
    switch (resident_find(call.pubsub, call.name, &call.node)) {
    case RESIDENT_LOADING:
        resident_wait(&call);
        return;
    case RESIDENT_FAILED:
        call_no_room(&call);
        return;
    case RESIDENT_HERE:
    case RESIDENT_ABSENT:
        break;
    }
    if (call.node == NULL && !(action->flags & NODE_MADE)) {
        call_fail(&call, XY_ITEM_NOT_FOUND, NULL, "there is no such node; create it first");
        return;
    }
    bool admin = (action->flags & ADMIN_TOO) && router_is_admin(shard, (*request)->stanza.from);
    if ((action->flags & OWNER_ONLY) && !admin && !call_is_owner(&call)) {
        call_fail(&call, XY_FORBIDDEN, NULL, "only an owner of the node may do that");
        return;
    }
    action->fn(&call);
    xy_assert(*request == NULL);
}

static void on_owner(struct shard *shard, void *payload)
{
    struct request *request = *(struct request **)payload;
    call_dispatch(shard, &request);
}

/* --- on the sender's shard ----------------------------------------------------------------------------------------- */

/* An instant node gets its name here, so that it is known which shard will own it. */
static void name_instant_node(struct call *call)
{
    char id[XY_ID_LEN + 1];
    xy_random_id(call->shard->env, id);
    call->name = xy_arena_str(call->arena, xy_str(id));
    xy_elem_set(call->arena, call->action, "node", call->name);
}

static void route_action(struct call *call)
{
    bool known = false;
    const struct action *action =
        call->action != NULL ? action_find(call->action, (*call->request)->stanza.type, &known) : NULL;
    if (action == NULL && (call->action == NULL || known)) {
        call_fail(call, XY_BAD_REQUEST, NULL, "a pubsub request names one action, of the right IQ type");
    } else if (action == NULL) {
        call_fail(call, XY_FEATURE_NOT_IMPLEMENTED, NULL, "this service does not know that request");
    } else if (!alone(call, action)) {
        call_fail(call, XY_BAD_REQUEST, NULL,
                  "a pubsub request names one action, followed by its options at most");
    } else if (call->name.data == NULL && action->without != NULL) {
        action->without(call);
    } else {
        if (call->name.data == NULL && action->fn == create_node)
            name_instant_node(call);
        if (call->name.data == NULL)
            call_fail(call, XY_BAD_REQUEST, "nodeid-required", "say which node: node='…'");
        else
            request_forward(call->shard, shard_owner(call->shard, call->name), on_owner, call->request);
    }
}

static void route_iq(struct shard *shard, struct request **request)
{
    if (xy_elem_is(xy_elem_first((*request)->stanza.elem), "command", NS_COMMANDS) &&
        !command_translate(shard, request))
        return;
    if (command_disco(shard, request))
        return;
    struct call call = call_make(shard, request);
    const struct xy_str ns = call.container->ns;
    bool pubsub = xy_elem_is(call.container, "pubsub", NS_PUBSUB) ||
                  xy_elem_is(call.container, "pubsub", NS_PUBSUB_OWNER);
    if (pubsub || xy_str_is(ns, NS_XYLEM_DELIVERY) || xy_elem_is(call.container, "query", NS_DISCO_INFO) ||
        xy_elem_is(call.container, "query", NS_DISCO_ITEMS)) {
        route_action(&call);
        return;
    }
    const struct module_iq *handler =
        xy_str_is(ns, NS_PING) ? module_find(&(*request)->stanza, MODULE_SERVER) : NULL;
    if (handler != NULL)
        handler->fn(shard, request);
    else
        request_fail_with(shard, request, XY_SERVICE_UNAVAILABLE,
                          "the pubsub service has no handler for that request");
}

static bool is_settlement(const struct xy_stanza *stanza)
{
    bool message = stanza->kind == XY_MESSAGE && stanza->type != XY_ERROR;
    return (message || (stanza->kind == XY_IQ && stanza->type == XY_SET)) && stanza->to.local_len == 0 &&
           settle_is(stanza);
}

static void on_stanza(struct shard *shard, struct request **request)
{
    const struct xy_stanza *stanza = &(*request)->stanza;
    if (is_settlement(stanza)) {
        settle(shard, request);
        return;
    }
    if (stanza->kind == XY_IQ && (stanza->type == XY_GET || stanza->type == XY_SET) &&
        stanza->to.local_len == 0)
        route_iq(shard, request);
    else if (stanza->kind == XY_PRESENCE || stanza->type == XY_RESULT || stanza->type == XY_ERROR)
        request_end(shard, request,
                    0); /* also what subscribers bounce: nothing is sent again, nobody is unsubscribed */
    else
        request_fail_with(shard, request, XY_SERVICE_UNAVAILABLE,
                          "the pubsub service answers IQ requests and takes acknowledgements only");
}

/* --- beginning and end --------------------------------------------------------------------------------------------- */

static bool name_service(struct pubsub *pubsub)
{
    struct xy_buf escaped = { 0 };
    pubsub->names = xy_arena_new();
    if (pubsub->names == NULL ||
        !xy_jid_prep_domain(pubsub->names, pubsub->shard->config->pubsub.service, &pubsub->service))
        return false;
    xy_xml_escape(&escaped, pubsub->service);
    pubsub->service_escaped = xy_arena_str(pubsub->names, xy_buf_view(&escaped));
    bool made = !xy_buf_failed(&escaped) && !xy_arena_failed(pubsub->names);
    xy_buf_free(&escaped);
    return made;
}

bool pubsub_init(struct shard *shard)
{
    struct pubsub *pubsub = calloc(1, sizeof(*pubsub));
    if (pubsub == NULL)
        return false;
    shard->pubsub = pubsub;
    pubsub->shard = shard;
    xy_list_init(&pubsub->dirty);
    xy_list_init(&pubsub->recent);
    xy_list_init(&pubsub->queues);
    xy_list_init(&pubsub->used);
    xy_list_init(&pubsub->loads);
    remains_init(pubsub);
    xy_random(shard->env, &pubsub->hash_seed, sizeof(pubsub->hash_seed));
    pubsub->nodes = xy_table_new(pubsub->hash_seed);
    pubsub->by_number = xy_table_new(pubsub->hash_seed);
    pubsub->loading = xy_table_new(pubsub->hash_seed);
    pubsub->arena = xy_arena_new();
    struct xy_xml_options options = { .arenas = shard->arenas, .stanza_bytes_max = ITEM_BYTES_MAX };
    pubsub->parser = xy_xml_new(&options);
    if (pubsub->nodes == NULL || pubsub->by_number == NULL || pubsub->loading == NULL || !sent_init(pubsub) ||
        pubsub->arena == NULL || pubsub->parser == NULL || !name_service(pubsub) || !quota_init(pubsub)) {
        pubsub_free(shard);
        return false;
    }
    resident_init(pubsub);
    expiry_start(pubsub);
    router_add_service(shard, pubsub->service, on_stanza);
    delivery_set_owner(shard, &claim_owner);
    address_set_watch_handler(shard, routes_on_watch);
    return true;
}

void pubsub_quiesce(struct shard *shard)
{
    shard->pubsub->quiescing = true;
}

void pubsub_free(struct shard *shard)
{
    struct pubsub *pubsub = shard->pubsub;
    if (pubsub == NULL)
        return;
    size_t position = 0;
    for (struct node *node;
         pubsub->nodes != NULL && (node = xy_table_next(pubsub->nodes, &position, NULL)) != NULL;) {
        node_unlist(node);
        node_free(&node);
    }
    expiry_stop(pubsub);
    resident_free(pubsub);
    remains_free(pubsub);
    sent_free(pubsub);
    queue_moves_free(pubsub);
    quota_free(pubsub);
    xy_table_free(&pubsub->nodes);
    xy_table_free(&pubsub->by_number);
    xy_xml_free(&pubsub->parser);
    xy_arena_free(&pubsub->arena);
    xy_arena_free(&pubsub->names);
    xy_buf_free(&pubsub->scratch);
    free(pubsub->gathered);
    free(pubsub);
    shard->pubsub = NULL;
}

void pubsub_reload(struct shard *shard)
{
    quota_configured(shard->pubsub);
}

void pubsub_stats(const struct shard *shard, struct pubsub_stats *out)
{
    *out = shard->pubsub->stats;
    out->counting = quota_is_counting(shard->pubsub);
    queue_totals(shard->pubsub, out);
}
