/* Names to addresses without blocking: SRV records (RFC 6120 3.2.1) and A/AAAA through c-ares, whose sockets live in the
 * driver's epoll set. fd.c calls it. */
#pragma once

#include <sys/socket.h>

#include "sdk/src/driver.h"

#define XY_RESOLVE_ADDRESSES_MAX 16u
#define XY_RESOLVE_SERVERS_MAX   8u

struct xy_address {
    struct sockaddr_storage sockaddr;
    socklen_t len;
};

struct xy_resolver;

/* `tag` marks its sockets: events of the set carry tag | descriptor in data.u64. */
struct xy_resolver *xy_resolver_new(int epoll, uint64_t tag, const struct xy_env *env);
/* Ask these instead of the system's: "127.0.0.1:5353,…". false: malformed. */
bool xy_resolver_set_servers(struct xy_resolver *resolver, const char *servers);
void xy_resolver_free(struct xy_resolver **resolver);

/* Forgets a former lookup. false: memory is short. */
bool xy_resolver_start(struct xy_resolver *resolver, const struct xy_target *target);
void xy_resolver_ready(struct xy_resolver *resolver, int descriptor, bool readable, bool writable);
void xy_resolver_tick(struct xy_resolver *resolver);
uint64_t xy_resolver_deadline_us(const struct xy_resolver *resolver);

bool xy_resolver_done(const struct xy_resolver *resolver);
/* In the order to be tried; 0: nothing was found. */
size_t xy_resolver_addresses(const struct xy_resolver *resolver, const struct xy_address **out);
const char *xy_resolver_error(const struct xy_resolver *resolver);
