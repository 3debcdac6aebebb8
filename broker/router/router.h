/* Where a stanza goes: to a module, to a service such as pubsub, or to the shard that owns the addressed account.
 *
 * Sessions hand every inbound stanza to router_route on their own shard. RFC 6121 section 8 is applied by the owner of
 * the addressed bare JID (address.h). */
#pragma once

#include "broker/router/request.h"

/* Takes the request. Shard of the sending session. */
void router_route(struct shard *shard, struct request **request);

/* A stanza that the broker itself sends to any JID (full or bare), by the same rules. Ownership of the tree stays with
 * the caller's arena; it is serialised at once. Waits for `ticket` (0: none). */
void router_send(struct shard *shard, struct xy_jid to, const struct xy_elem *stanza, uint64_t ticket);

/* A service answers for a whole domain (pubsub.example.org). The handler runs on the shard of the sender. */
typedef void router_service_fn(struct shard *shard, struct request **request);
void router_add_service(struct shard *shard, struct xy_str domain, router_service_fn *handler);

/* `name` as a peer wrote it -> the domain as we keep it; false: not ours. *domain lives as long as the shard. */
bool router_local_domain(const struct shard *shard, struct xy_str name, struct xy_str *domain);
size_t router_services_count(const struct shard *shard);
struct xy_str router_service(const struct shard *shard, size_t index); /* its domain */

/* Since router_init. */
uint64_t router_uptime_us(const struct shard *shard);

/* A domain of ours or of one of our services, prepared. */
bool router_serves(const struct shard *shard, struct xy_str domain);
bool router_is_local_domain(const struct shard *shard, struct xy_str domain);
struct xy_str router_domain(const struct shard *shard); /* the first configured domain, prepared */
bool router_is_admin(const struct shard *shard, struct xy_jid jid);

bool router_init(struct shard *shard);
void router_free(struct shard *shard);
void router_reload(struct shard *shard); /* shard->config is new: administrators may have changed */
