/* What the service and its nodes say of themselves (XEP-0030), with a node's meta-data. XEP-0060 5.1 - 5.5; called
 * through the table of pubsub.c. */
#include "broker/pubsub/call.h"
#include "broker/pubsub/node/expiry.h"

#include "core/time.h"

#define DISCO_ITEMS_MAX 1000u

static const char *const service_features[] = {
    NS_COMMANDS,
    NS_DISCO_INFO,
    NS_DISCO_ITEMS,
    NS_PUBSUB,
    NS_PUBSUB "#access-open",
    NS_PUBSUB "#access-whitelist",
    NS_PUBSUB "#auto-create",
    NS_PUBSUB "#config-node",
    NS_PUBSUB "#config-node-max",
    NS_PUBSUB "#create-and-configure",
    NS_PUBSUB "#create-nodes",
    NS_PUBSUB "#delete-items",
    NS_PUBSUB "#delete-nodes",
    NS_PUBSUB "#instant-nodes",
    NS_PUBSUB "#item-ids",
    NS_PUBSUB "#manage-subscriptions",
    NS_PUBSUB "#member-affiliation",
    NS_PUBSUB "#meta-data",
    NS_PUBSUB "#modify-affiliations",
    NS_PUBSUB "#multi-items",
    NS_PUBSUB "#outcast-affiliation",
    NS_PUBSUB "#persistent-items",
    NS_PUBSUB "#publish",
    NS_PUBSUB "#publish-node-full",
    NS_PUBSUB "#publish-only-affiliation",
    NS_PUBSUB "#publish-options",
    NS_PUBSUB "#publisher-affiliation",
    NS_PUBSUB "#purge-nodes",
    NS_PUBSUB "#retract-items",
    NS_PUBSUB "#retrieve-affiliations",
    NS_PUBSUB "#retrieve-default",
    NS_PUBSUB "#retrieve-default-sub",
    NS_PUBSUB "#retrieve-items",
    NS_PUBSUB "#retrieve-subscriptions",
    NS_PUBSUB "#subscribe",
    NS_PUBSUB "#subscription-notifications",
    NS_PUBSUB "#subscription-options",
    NS_PING,
    NS_PUBSUB_QUEUEING,
    NS_RSM,
    NS_XYLEM_DELIVERY,
    NS_XYLEM_NODE,
    NULL,
};

static struct xy_elem *open_query(struct call *call, const char *ns, struct xy_elem **query)
{
    struct xy_elem *result = xy_stanza_result(call->arena, &(*call->request)->stanza);
    *query = xy_elem_add(call->arena, result, "query", ns);
    if (call->name.len > 0)
        xy_elem_set(call->arena, *query, "node", call->name);
    return result;
}

static void add_identity(struct call *call, struct xy_elem *query, const char *type, struct xy_str name)
{
    struct xy_elem *identity = xy_elem_add(call->arena, query, "identity", NS_DISCO_INFO);
    xy_elem_set(call->arena, identity, "category", XY_STR("pubsub"));
    xy_elem_set(call->arena, identity, "type", xy_str(type));
    if (name.len > 0)
        xy_elem_set(call->arena, identity, "name", name);
}

static void add_feature(struct call *call, struct xy_elem *query, const char *name)
{
    struct xy_elem *feature = xy_elem_add(call->arena, query, "feature", NS_DISCO_INFO);
    xy_elem_set(call->arena, feature, "var", xy_str(name));
}

void disco_info_service(struct call *call)
{
    struct xy_elem *query;
    struct xy_elem *result = open_query(call, NS_DISCO_INFO, &query);
    add_identity(call, query, "service", XY_STR("Xylem publish-subscribe"));
    for (const char *const *feature = service_features; *feature != NULL; feature++)
        add_feature(call, query, *feature);
    call_reply(call, result);
}

/* --- a node ------------------------------------------------------------------------------------------------------------ */

static void add_field(struct call *call, struct xy_elem *x, const char *var, const char *type,
                      struct xy_str value)
{
    if (value.len > 0)
        (void)xy_form_add(call->arena, x, xy_str(var), type, NULL, value);
}

static void add_jids(struct call *call, struct xy_elem *x, const char *var, enum affiliation affiliation)
{
    struct xy_elem *field = NULL;
    size_t position = 0;
    for (const struct affiliated *a;
         (a = xy_table_next(call->node->affiliations, &position, NULL)) != NULL;) {
        if (a->affiliation != affiliation)
            continue;
        if (field == NULL)
            field = xy_form_add(call->arena, x, xy_str(var), "jid-multi", NULL, XY_STR_NONE);
        xy_form_add_value(call->arena, field, a->jid);
    }
}

static void add_option(struct call *call, struct xy_elem *x, const char *name, const char *type)
{
    struct xy_buf value = { 0 };
    option_get(option_find(node_options, xy_str(name)), &call->node->config, &value);
    add_field(call, x, name, type,
              xy_arena_str(call->arena, value.data != NULL ? xy_buf_view(&value) : XY_STR("")));
    xy_buf_free(&value);
}

static void add_meta_data(struct call *call, struct xy_elem *query)
{
    const struct node *node = call->node;
    struct xy_elem *x = xy_form_new(call->arena, "result", NS_PUBSUB_META);
    char created[XY_TIME_LEN];
    xy_time_format(node->created_us, created);
    add_field(call, x, "pubsub#creator", "jid-single", node->creator);
    add_field(call, x, "pubsub#creation_date", "text-single", xy_arena_str(call->arena, xy_str(created)));
    static const struct {
        const char *name, *type;
    } shown[] = {
        { "pubsub#title", "text-single" },        { "pubsub#description", "text-single" },
        { "pubsub#type", "text-single" },         { "pubsub#language", "list-single" },
        { "pubsub#access_model", "list-single" }, { "pubsub#publish_model", "list-single" },
        { "pubsub#max_items", "text-single" },
    };
    for (size_t i = 0; i < sizeof(shown) / sizeof(*shown); i++)
        add_option(call, x, shown[i].name, shown[i].type);
    add_jids(call, x, "pubsub#owner", AFFILIATION_OWNER);
    add_jids(call, x, "pubsub#publisher", AFFILIATION_PUBLISHER);
    add_field(call, x, "pubsub#num_subscribers", "text-single",
              xy_arena_printf(call->arena, "%zu", xy_table_count(node->subscribers)));
    xy_elem_append(query, x);
}

void disco_info_node(struct call *call)
{
    struct xy_elem *query;
    struct xy_elem *result = open_query(call, NS_DISCO_INFO, &query);
    add_identity(call, query, "leaf", call->node->config.title);
    add_feature(call, query, NS_PUBSUB);
    add_feature(call, query, NS_DISCO_INFO);
    add_feature(call, query, NS_DISCO_ITEMS);
    if (node_may_read(call->node, call_affiliation(call)))
        add_meta_data(call, query);
    call_reply(call, result);
}

void disco_items_node(struct call *call)
{
    struct xy_elem *query;
    struct xy_elem *result = open_query(call, NS_DISCO_ITEMS, &query);
    const struct item_index *index = &call->node->items;
    if (!node_may_read(call->node, call_affiliation(call))) {
        call_fail(call, XY_FORBIDDEN, NULL, "you may not read this node");
        return;
    }
    size_t skip = index->retained_count > DISCO_ITEMS_MAX ? index->retained_count - DISCO_ITEMS_MAX : 0;
    for (const struct xy_list *link = index->retained.next; link != &index->retained; link = link->next) {
        if (skip > 0) {
            skip--;
            continue;
        }
        const struct item *item = xy_container_of(link, const struct item, retained_link);
        if (expiry_over(call->node, item, xy_wall_us(call->shard->env)))
            continue;
        struct xy_elem *elem = xy_elem_add(call->arena, query, "item", NS_DISCO_ITEMS);
        xy_elem_set(call->arena, elem, "jid", call->pubsub->service);
        xy_elem_set(call->arena, elem, "name", item_id(item));
    }
    call_reply(call, result);
}
