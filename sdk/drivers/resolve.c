/* Lookups through c-ares; see resolve.h. First SRV where the domain alone is known, then each server's addresses, in the
 * order of RFC 2782. No SRV record, or none that helps: the domain itself. */
#include "sdk/drivers/resolve.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "core/base/assert.h"

struct server {
    char host[256];
    uint16_t port, priority, weight;
};

struct xy_resolver {
    ares_channel channel;
    const struct xy_env *env;
    int epoll;
    uint64_t tag;
    unsigned generation; /* answers of forgotten lookups are ignored */
    bool done;
    bool srv; /* the servers are of SRV records: the domain itself is still to be tried */
    struct xy_target target;
    struct server servers[XY_RESOLVE_SERVERS_MAX];
    size_t server_count, server_next;
    struct xy_address addresses[XY_RESOLVE_ADDRESSES_MAX];
    size_t address_count;
    char error[400];
};

/* Who asked: outlives a forgotten lookup. */
struct query {
    struct xy_resolver *resolver;
    unsigned generation;
    uint16_t port;
};

static void socket_state(void *data, ares_socket_t fd, int readable, int writable)
{
    struct xy_resolver *r = data;
    struct epoll_event event = { .events = (readable ? EPOLLIN : 0u) | (writable ? EPOLLOUT : 0u),
                                 .data = { .u64 = r->tag | (uint32_t)fd } };
    if (!readable && !writable)
        epoll_ctl(r->epoll, EPOLL_CTL_DEL, fd, NULL);
    else if (epoll_ctl(r->epoll, EPOLL_CTL_MOD, fd, &event) != 0)
        epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &event);
}

struct xy_resolver *xy_resolver_new(int epoll, uint64_t tag, const struct xy_env *env)
{
    struct xy_resolver *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->epoll = epoll;
    r->tag = tag;
    r->env = env;
    r->done = true;
    struct ares_options options = {
        .sock_state_cb = socket_state, .sock_state_cb_data = r, .timeout = 2000, .tries = 2
    };
    if (ares_init_options(&r->channel, &options,
                          ARES_OPT_SOCK_STATE_CB | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES) != ARES_SUCCESS) {
        free(r);
        return NULL;
    }
    return r;
}

void xy_resolver_free(struct xy_resolver **resolver)
{
    if (!*resolver)
        return;
    (*resolver)->generation++;
    ares_destroy((*resolver)->channel);
    free(*resolver);
    *resolver = NULL;
}

bool xy_resolver_set_servers(struct xy_resolver *r, const char *servers)
{
    return ares_set_servers_ports_csv(r->channel, servers) == ARES_SUCCESS;
}

static struct query *query_new(struct xy_resolver *r, uint16_t port)
{
    struct query *query = malloc(sizeof *query);
    if (query)
        *query = (struct query){ .resolver = r, .generation = r->generation, .port = port };
    return query;
}

static bool query_end(struct query *query, struct xy_resolver **r, uint16_t *port, int status)
{
    *r = query->resolver;
    *port = query->port;
    bool current = query->generation == (*r)->generation;
    free(query);
    return current && status != ARES_EDESTRUCTION;
}

static void next_server(struct xy_resolver *r);

static void add_addresses(struct xy_resolver *r, const struct ares_addrinfo *found, uint16_t port)
{
    for (const struct ares_addrinfo_node *node = found->nodes; node; node = node->ai_next) {
        if (r->address_count == XY_RESOLVE_ADDRESSES_MAX ||
            node->ai_addrlen > sizeof(struct sockaddr_storage))
            return;
        struct xy_address *address = &r->addresses[r->address_count++];
        memcpy(&address->sockaddr, node->ai_addr, node->ai_addrlen);
        address->len = node->ai_addrlen;
        if (node->ai_family == AF_INET6)
            ((struct sockaddr_in6 *)&address->sockaddr)->sin6_port = htons(port);
        else
            ((struct sockaddr_in *)&address->sockaddr)->sin_port = htons(port);
    }
}

static void on_addresses(void *arg, int status, int timeouts, struct ares_addrinfo *found)
{
    (void)timeouts;
    struct xy_resolver *r;
    uint16_t port;
    if (!query_end(arg, &r, &port, status)) {
        if (found)
            ares_freeaddrinfo(found);
        return;
    }
    if (status == ARES_SUCCESS)
        add_addresses(r, found, port);
    else
        snprintf(r->error, sizeof r->error, "%s: %s", r->servers[r->server_next - 1].host,
                 ares_strerror(status));
    if (found)
        ares_freeaddrinfo(found);
    next_server(r);
}

static void add_server(struct xy_resolver *r, const char *host, uint16_t port)
{
    xy_assert(r->server_count < XY_RESOLVE_SERVERS_MAX);
    struct server *server = &r->servers[r->server_count++];
    *server = (struct server){ .port = port };
    snprintf(server->host, sizeof server->host, "%s", host);
}

static void next_server(struct xy_resolver *r)
{
    if (r->server_next == r->server_count && r->srv && r->address_count == 0) {
        r->srv = false;
        r->server_count = r->server_next = 0;
        add_server(r, r->target.domain, r->target.port);
    }
    if (r->server_next == r->server_count) {
        r->done = true;
        return;
    }
    const struct server *server = &r->servers[r->server_next++];
    struct query *query = query_new(r, server->port);
    if (!query) {
        r->done = true;
        return;
    }
    struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    ares_getaddrinfo(r->channel, server->host, NULL, &hints, on_addresses, query);
}

/* By priority; among equals at random, in proportion to the weight (RFC 2782). */
static void order_servers(struct xy_resolver *r)
{
    for (size_t i = 0; i < r->server_count; i++) {
        uint16_t priority = UINT16_MAX;
        uint64_t total = 0, pick;
        for (size_t j = i; j < r->server_count; j++)
            if (r->servers[j].priority < priority)
                priority = r->servers[j].priority;
        for (size_t j = i; j < r->server_count; j++)
            if (r->servers[j].priority == priority)
                total += r->servers[j].weight + 1u;
        xy_random(r->env, &pick, sizeof pick);
        pick = total ? pick % total : 0;
        for (size_t j = i; j < r->server_count; j++) {
            if (r->servers[j].priority != priority)
                continue;
            uint64_t weight = r->servers[j].weight + 1u;
            if (pick < weight) {
                struct server chosen = r->servers[j];
                r->servers[j] = r->servers[i];
                r->servers[i] = chosen;
                break;
            }
            pick -= weight;
        }
    }
}

static void on_srv(void *arg, int status, int timeouts, unsigned char *answer, int len)
{
    (void)timeouts;
    struct xy_resolver *r;
    uint16_t port;
    if (!query_end(arg, &r, &port, status))
        return;
    struct ares_srv_reply *records = NULL;
    if (status == ARES_SUCCESS && ares_parse_srv_reply(answer, len, &records) == ARES_SUCCESS) {
        for (const struct ares_srv_reply *s = records; s && r->server_count < XY_RESOLVE_SERVERS_MAX;
             s = s->next) {
            if (s->host[0] == '\0' || strcmp(s->host, ".") == 0)
                continue; /* "decidedly not available" */
            add_server(r, s->host, s->port);
            r->servers[r->server_count - 1].priority = s->priority;
            r->servers[r->server_count - 1].weight = s->weight;
        }
        ares_free_data(records);
        order_servers(r);
    }
    next_server(r);
}

static bool is_literal(const char *domain)
{
    size_t len = strlen(domain);
    return strcmp(domain, "localhost") == 0 || domain[0] == '[' || strspn(domain, "0123456789.") == len;
}

bool xy_resolver_start(struct xy_resolver *r, const struct xy_target *target)
{
    r->generation++;
    ares_cancel(r->channel);
    r->target = *target;
    r->done = false;
    r->srv = false;
    r->server_count = r->server_next = r->address_count = 0;
    r->error[0] = '\0';
    const char *host = target->host ? target->host : target->domain;
    if (!host) {
        r->done = true;
        return true;
    }
    if (target->host || is_literal(host)) {
        add_server(r, host, target->port);
        next_server(r);
        return true;
    }
    struct query *query = query_new(r, target->port);
    if (!query)
        return false;
    r->srv = true;
    char name[300];
    snprintf(name, sizeof name, "_xmpp%s-client._tcp.%s", target->direct_tls ? "s" : "", target->domain);
    ares_query(r->channel, name, ns_c_in, ns_t_srv, on_srv, query);
    return true;
}

void xy_resolver_ready(struct xy_resolver *r, int descriptor, bool readable, bool writable)
{
    ares_process_fd(r->channel, readable ? descriptor : ARES_SOCKET_BAD,
                    writable ? descriptor : ARES_SOCKET_BAD);
}

void xy_resolver_tick(struct xy_resolver *r)
{
    if (!r->done)
        ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

uint64_t xy_resolver_deadline_us(const struct xy_resolver *r)
{
    struct timeval max = { .tv_sec = 5 }, out;
    if (r->done)
        return UINT64_MAX;
    const struct timeval *wait = ares_timeout(r->channel, &max, &out);
    return xy_now_us(r->env) + (uint64_t)wait->tv_sec * 1000000 + (uint64_t)wait->tv_usec;
}

bool xy_resolver_done(const struct xy_resolver *r)
{
    return r->done;
}

size_t xy_resolver_addresses(const struct xy_resolver *r, const struct xy_address **out)
{
    *out = r->addresses;
    return r->address_count;
}

const char *xy_resolver_error(const struct xy_resolver *r)
{
    return r->error[0] ? r->error : "no address found";
}
