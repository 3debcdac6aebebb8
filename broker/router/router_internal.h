/* What router.c and the files beside it share: the router's rooms on one shard. Private to broker/router. */
#pragma once

#include "broker/router/router.h"
#include "core/base/table.h"

struct accounts;  /* credentials of the accounts this shard owns; accounts_init sets it */
struct addresses; /* bare JIDs this shard owns and the sessions behind them; addresses_init sets it */

struct router_service {
    struct xy_str domain;
    router_service_fn *handler;
};

#define ROUTER_SERVICES_MAX 16

struct router {
    struct xy_arena *arena; /* lives as long as the router: prepared domains and admins */
    struct xy_str *domains;
    size_t domains_count;
    struct xy_jid *admins;
    size_t admins_count;
    struct router_service services[ROUTER_SERVICES_MAX];
    size_t services_count;
    uint64_t started_us;
    struct accounts *accounts;
    struct addresses *addresses;
};

bool addresses_init(struct shard *shard);
void addresses_free(struct shard *shard);
bool accounts_init(struct shard *shard);
void accounts_free(struct shard *shard);
