/* The first decision about a stanza: module, service, local account, or nowhere. */
#include "broker/router/router.h"

#include <stdlib.h>

#include "broker/config.h"
#include "broker/log.h"
#include "broker/router/address.h"
#include "broker/router/module.h"
#include "broker/router/router_internal.h"
#include "core/base/assert.h"

/* --- who we are --------------------------------------------------------------------------------------------------- */

bool router_is_local_domain(const struct shard *shard, struct xy_str domain)
{
    const struct router *router = shard->router;
    for (size_t i = 0; i < router->domains_count; i++) {
        if (xy_str_eq(router->domains[i], domain))
            return true;
    }
    return false;
}

bool router_local_domain(const struct shard *shard, struct xy_str name, struct xy_str *domain)
{
    const struct router *router = shard->router;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    struct xy_str prepared;
    bool found = false;
    if (arena && xy_str_present(name) && xy_jid_prep_domain(arena, name, &prepared)) {
        for (size_t i = 0; i < router->domains_count && !found; i++) {
            found = xy_str_eq(router->domains[i], prepared);
            if (found)
                *domain = router->domains[i];
        }
    }
    if (arena)
        xy_arena_pool_give(shard->arenas, &arena);
    return found;
}

struct xy_str router_domain(const struct shard *shard)
{
    return shard->router->domains[0];
}

bool router_is_admin(const struct shard *shard, struct xy_jid jid)
{
    const struct router *router = shard->router;
    for (size_t i = 0; i < router->admins_count; i++) {
        if (xy_jid_same_bare(router->admins[i], jid))
            return true;
    }
    return false;
}

void router_add_service(struct shard *shard, struct xy_str domain, router_service_fn *handler)
{
    struct router *router = shard->router;
    xy_assert(router->services_count < ROUTER_SERVICES_MAX);
    router->services[router->services_count++] =
        (struct router_service){ xy_arena_str(router->arena, domain), handler };
}

size_t router_services_count(const struct shard *shard)
{
    return shard->router->services_count;
}

struct xy_str router_service(const struct shard *shard, size_t index)
{
    xy_assert(index < shard->router->services_count);
    return shard->router->services[index].domain;
}

uint64_t router_uptime_us(const struct shard *shard)
{
    return xy_now_us(shard->env) - shard->router->started_us;
}

static router_service_fn *service_find(const struct router *router, struct xy_str domain)
{
    for (size_t i = 0; i < router->services_count; i++) {
        if (xy_str_eq(router->services[i].domain, domain))
            return router->services[i].handler;
    }
    return NULL;
}

bool router_serves(const struct shard *shard, struct xy_str domain)
{
    return router_is_local_domain(shard, domain) || service_find(shard->router, domain) != NULL;
}

/* --- routing ------------------------------------------------------------------------------------------------------ */

/* Addressed to the broker itself: example.org, with or without a resource. */
static void route_to_server(struct shard *shard, struct request **request)
{
    const struct xy_stanza *stanza = &(*request)->stanza;
    if (stanza->kind != XY_IQ || stanza->type == XY_RESULT || stanza->type == XY_ERROR) {
        if (stanza->kind == XY_MESSAGE && stanza->type != XY_ERROR)
            request_fail_with(shard, request, XY_SERVICE_UNAVAILABLE, NULL);
        else
            request_end(shard, request, 0);
        return;
    }
    const struct module_iq *handler = module_find(stanza, MODULE_SERVER);
    if (handler)
        handler->fn(shard, request);
    else
        request_fail_with(shard, request, XY_SERVICE_UNAVAILABLE,
                          "this broker has no handler for that request");
}

static void on_address(struct shard *shard, void *payload)
{
    struct request *request = *(struct request **)payload;
    address_handle(shard, &request);
}

static void route_to_account(struct shard *shard, struct request **request, struct xy_jid account)
{
    request_forward(shard, shard_owner(shard, xy_jid_bare(account)), on_address, request);
}

void router_route(struct shard *shard, struct request **request)
{
    const struct xy_stanza *stanza = &(*request)->stanza;
    struct xy_jid to = stanza->to;
    if (!xy_jid_present(to)) { /* RFC 6120 10.3: on behalf of the sender's own account */
        route_to_account(shard, request, stanza->from);
        return;
    }
    struct xy_str domain = xy_jid_domain(to);
    router_service_fn *service = service_find(shard->router, domain);
    if (service)
        service(shard, request);
    else if (!router_is_local_domain(shard, domain))
        request_fail_with(shard, request, XY_REMOTE_SERVER_NOT_FOUND,
                          "this broker does not serve that domain");
    else if (to.local_len == 0)
        route_to_server(shard, request);
    else
        route_to_account(shard, request, to);
}

/* --- what the broker itself sends --------------------------------------------------------------------------------- */

struct own_stanza {
    struct request *request;
};

static void on_own_stanza(struct shard *shard, void *payload)
{
    struct own_stanza *own = payload;
    router_route(shard, &own->request);
}

void router_send(struct shard *shard, struct xy_jid to, const struct xy_elem *elem, uint64_t ticket)
{
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    struct xy_stanza stanza;
    struct own_stanza own = { NULL };
    if (arena == NULL)
        return;
    struct xy_elem *copy = xy_elem_copy(arena, elem);
    xy_elem_set(arena, copy, "to", xy_arena_str(arena, xy_jid_full(to))); /* the caller's may not last */
    if (xy_stanza_read(arena, copy, &stanza) == XY_STANZA_OK && !xy_arena_failed(arena))
        own.request = request_new(stanza, SESSION_NONE, (struct session_inbound){ 0 });
    if (own.request == NULL) {
        xy_arena_pool_give(shard->arenas, &arena);
        return;
    }
    shard_when_committed(shard, ticket, on_own_stanza, &own, sizeof(own));
}

/* --- beginning and end -------------------------------------------------------------------------------------------- */

static bool domains_prepare(struct router *router, const struct config *config)
{
    router->domains = xy_arena_zalloc(router->arena, config->domains.count * sizeof(struct xy_str));
    if (router->domains == NULL)
        return false;
    for (size_t i = 0; i < config->domains.count; i++) {
        if (!xy_jid_prep_domain(router->arena, config->domains.items[i], &router->domains[i]))
            return false;
        router->domains_count++;
    }
    return true;
}

/* The configured administrators and the reserved one. */
static bool admins_prepare(struct router *router, const struct config *config)
{
    size_t count = 0;
    struct xy_jid *admins =
        xy_arena_zalloc(router->arena, (config->admins.count + 1) * sizeof(struct xy_jid));
    if (admins == NULL)
        return false;
    for (; count < config->admins.count; count++) {
        if (!xy_jid_parse(router->arena, config->admins.items[count], &admins[count]))
            return false;
    }
    if (!xy_jid_make(router->arena, XY_STR("admin"), router->domains[0], XY_STR_NONE, &admins[count++]))
        return false;
    router->admins = admins;
    router->admins_count = count;
    return true;
}

void router_reload(struct shard *shard)
{
    if (!admins_prepare(shard->router, shard->config))
        log_error(shard->log, "administrators not reloaded: one of them is not a valid address");
}

static bool modules_init(struct shard *shard)
{
    for (const struct module *const *module = module_registry; *module; module++) {
        if ((*module)->init && !(*module)->init(shard))
            return false;
    }
    return true;
}

bool router_init(struct shard *shard)
{
    struct router *router = calloc(1, sizeof(*router));
    if (router == NULL)
        return false;
    shard->router = router;
    router->started_us = xy_now_us(shard->env);
    router->arena = xy_arena_new();
    return router->arena && domains_prepare(router, shard->config) && admins_prepare(router, shard->config) &&
           accounts_init(shard) && addresses_init(shard) && modules_init(shard);
}

void router_free(struct shard *shard)
{
    struct router *router = shard->router;
    if (router == NULL)
        return;
    for (const struct module *const *module = module_registry; *module; module++) {
        if ((*module)->free)
            (*module)->free(shard);
    }
    addresses_free(shard);
    accounts_free(shard);
    xy_arena_free(&router->arena);
    free(router);
    shard->router = NULL;
}
