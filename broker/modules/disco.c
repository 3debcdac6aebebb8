/* Service Discovery (XEP-0030): who the server and an account are, what they can do, what belongs to them.
 *
 * Features come from the modules, and so do nodes of the server (the ad-hoc commands of XEP-0050). Items of the server
 * are the services beside it. */
#include "broker/modules/modules.h"

static struct xy_elem *query_result(struct request *request, const char *ns, struct xy_elem **query)
{
    struct xy_elem *result = module_result(request, "query", ns, query);
    xy_elem_set(request->stanza.arena, *query, "node",
                xy_elem_attr(xy_elem_first(request->stanza.elem), "node"));
    return result;
}

static bool has_node(const struct request *request)
{
    return xy_elem_attr(xy_elem_first(request->stanza.elem), "node").len > 0;
}

/* The module whose node it is answers. */
static void ask_modules(struct shard *shard, struct request **request, bool items)
{
    for (const struct module *const *module = module_registry; *module; module++) {
        bool (*answer)(struct shard *, struct request **) =
            items ? (*module)->disco_items : (*module)->disco_info;
        if (answer && answer(shard, request))
            return;
    }
    request_fail_with(shard, request, XY_ITEM_NOT_FOUND, "there is no such node");
}

static void unknown_node(struct shard *shard, struct request **request)
{
    request_fail_with(shard, request, XY_ITEM_NOT_FOUND, "there is no such node");
}

static void add_identity(struct xy_arena *arena, struct xy_elem *query, const char *category,
                         const char *type, const char *name)
{
    struct xy_elem *identity = xy_elem_add(arena, query, "identity", NS_DISCO_INFO);
    xy_elem_set(arena, identity, "category", xy_str(category));
    xy_elem_set(arena, identity, "type", xy_str(type));
    if (name)
        xy_elem_set(arena, identity, "name", xy_str(name));
}

static void add_feature(struct xy_arena *arena, struct xy_elem *query, const char *name)
{
    xy_elem_set(arena, xy_elem_add(arena, query, "feature", NS_DISCO_INFO), "var", xy_str(name));
}

static void add_features(struct xy_arena *arena, struct xy_elem *query, bool account)
{
    for (const struct module *const *module = module_registry; *module; module++) {
        const char *const *features = account ? (*module)->account_features : (*module)->features;
        for (; features && *features; features++)
            add_feature(arena, query, *features);
    }
}

/* --- server ------------------------------------------------------------------------------------------------------- */

static void on_server_info(struct shard *shard, struct request **request)
{
    struct xy_arena *arena = (*request)->stanza.arena;
    if (has_node(*request)) {
        ask_modules(shard, request, false);
        return;
    }
    struct xy_elem *query;
    struct xy_elem *result = query_result(*request, NS_DISCO_INFO, &query);
    add_identity(arena, query, "server", "im", "Xylem");
    add_features(arena, query, false);
    add_feature(arena, query, "msgoffline"); /* XEP-0160 */
    request_reply(shard, request, result, 0);
}

static void on_server_items(struct shard *shard, struct request **request)
{
    struct xy_arena *arena = (*request)->stanza.arena;
    if (has_node(*request)) {
        ask_modules(shard, request, true);
        return;
    }
    struct xy_elem *query;
    struct xy_elem *result = query_result(*request, NS_DISCO_ITEMS, &query);
    for (size_t i = 0; i < router_services_count(shard); i++)
        xy_elem_set(arena, xy_elem_add(arena, query, "item", NS_DISCO_ITEMS), "jid",
                    router_service(shard, i));
    request_reply(shard, request, result, 0);
}

/* --- account ------------------------------------------------------------------------------------------------------ */

static void on_account_info(struct shard *shard, struct request **request)
{
    struct xy_arena *arena = (*request)->stanza.arena;
    if (has_node(*request)) {
        unknown_node(shard, request);
        return;
    }
    bool admin = router_is_admin(shard, xy_jid_present((*request)->stanza.to) ? (*request)->stanza.to
                                                                              : (*request)->stanza.from);
    struct xy_elem *query;
    struct xy_elem *result = query_result(*request, NS_DISCO_INFO, &query);
    add_identity(arena, query, "account", admin ? "admin" : "registered", NULL);
    add_features(arena, query, true);
    request_reply(shard, request, result, 0);
}

static void on_account_items(struct shard *shard, struct request **request)
{
    if (has_node(*request)) {
        unknown_node(shard, request);
        return;
    }
    struct xy_elem *query;
    struct xy_elem *result = query_result(*request, NS_DISCO_ITEMS, &query);
    request_reply(shard, request, result, 0);
}

static const char *const features[] = { NS_DISCO_INFO, NS_DISCO_ITEMS, NULL };
static const struct module_iq iq[] = {
    { XY_GET, "query", NS_DISCO_INFO, MODULE_SERVER, on_server_info, false },
    { XY_GET, "query", NS_DISCO_ITEMS, MODULE_SERVER, on_server_items, false },
    { XY_GET, "query", NS_DISCO_INFO, MODULE_ACCOUNT, on_account_info, false },
    { XY_GET, "query", NS_DISCO_ITEMS, MODULE_ACCOUNT, on_account_items, false },
    { XY_TYPE_NONE, NULL, NULL, 0, NULL, false },
};
const struct module module_disco = {
    .name = "disco",
    .features = features,
    .account_features = features,
    .iq = iq,
};
