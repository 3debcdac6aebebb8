/* What the tests of broker/net share: shards with real loops that the test turns by hand, on a clock it can push, and an
 * owner of links that only writes down what it is told. */
#pragma once

#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/config.h"
#include "broker/net/net_internal.h"
#include "broker/shard/env_system.h"
#include "broker/shard/stats.h"
#include "core/tls/tls.h"

#define KIT_OWNERS 256

/* Who is behind a link, as far as the link can tell. */
struct owner {
    struct link *link;
    struct xy_buf input;
    unsigned inputs, writables, secureds, gones;
    bool close_on_input, close_on_gone, close_on_secured, tls_on_input;
};

struct kit {
    struct config *config;
    struct shard_group *group;
    struct log *log;
    unsigned count;
    uint64_t skew_us; /* added to the real clock */
    struct owner owners[KIT_OWNERS];
    unsigned owners_count;
    struct owner next; /* how the next one behaves */
};

static struct kit *the_kit; /* links have no context */

static uint64_t kit_now_us(void *ctx)
{
    (void)ctx;
    return env_system.now_us(NULL) + the_kit->skew_us;
}

static uint64_t kit_wall_us(void *ctx)
{
    (void)ctx;
    return env_system.wall_us(NULL);
}

static void kit_random(void *ctx, void *out, size_t len)
{
    (void)ctx;
    env_system.random(NULL, out, len);
}

static const struct xy_env kit_env = { .now_us = kit_now_us, .wall_us = kit_wall_us, .random = kit_random };

static void kit_wake(void *ctx, unsigned shard)
{
    (void)ctx;
    net_wake(shard_group_get(the_kit->group, shard));
}

static inline void owner_close(struct owner *owner)
{
    struct link *link = owner->link;
    owner->link = NULL;
    if (link)
        link->calls->close(link);
}

static void kit_opened(struct link *link)
{
    assert_true(the_kit->owners_count < KIT_OWNERS);
    struct owner *owner = &the_kit->owners[the_kit->owners_count++];
    *owner = the_kit->next;
    owner->link = link;
    link->owner = owner;
}

static void kit_input(struct link *link, const void *bytes, size_t len)
{
    struct owner *owner = link->owner;
    assert_non_null(owner); /* nothing is told to nobody */
    xy_buf_add(&owner->input, bytes, len);
    owner->inputs++;
    if (owner->tls_on_input)
        link->calls->start_tls(link);
    owner->tls_on_input = false;
    if (owner->close_on_input)
        owner_close(owner);
}

static void kit_writable(struct link *link)
{
    ((struct owner *)link->owner)->writables++;
}

static void kit_secured(struct link *link, const struct xy_sasl_binding *bindings, size_t count)
{
    struct owner *owner = link->owner;
    (void)bindings;
    (void)count;
    owner->secureds++;
    if (owner->close_on_secured)
        owner_close(owner);
}

static void kit_gone(struct link *link)
{
    struct owner *owner = link->owner;
    assert_non_null(owner);
    assert_int_equal(owner->gones, 0);
    owner->gones++;
    if (owner->close_on_gone)
        owner_close(owner);
}

static const struct link_events kit_events = { kit_opened, kit_input, kit_writable, kit_secured, kit_gone };

static inline struct shard *kit_shard(struct kit *kit, unsigned index)
{
    return shard_group_get(kit->group, index);
}

static inline struct kit *kit_new(unsigned count, const char *config, struct xy_tls_config *tls)
{
    struct kit *kit = calloc(1, sizeof(*kit));
    struct xy_buf errors = { 0 };
    the_kit = kit;
    kit->count = count;
    kit->next.close_on_gone = true;
    if (!config_parse("test", xy_str(config), &kit->config, &errors))
        fail_msg("%.*s", XY_ARG(xy_buf_view(&errors)));
    kit->group = shard_group_new(&(struct shard_group_options){
        .count = count, .env = &kit_env, .config = kit->config, .hash_seed = 1, .wake = kit_wake });
    for (unsigned i = 0; i < count; i++) {
        assert_true(net_init(kit_shard(kit, i), tls));
        kit_shard(kit, i)->link_events = &kit_events;
    }
    return kit;
}

/* One look at the sockets and one turn, of each shard. */
static inline void kit_turn(struct kit *kit)
{
    for (unsigned i = 0; i < kit->count; i++)
        uv_run(&kit_shard(kit, i)->net->loop, UV_RUN_NOWAIT);
}

/* Until nothing can be left over: loopback needs no more than a few turns. */
static inline void kit_settle(struct kit *kit)
{
    for (unsigned i = 0; i < 12; i++)
        kit_turn(kit);
}

/* Turns until the condition holds; fails after five seconds. */
#define kit_until(kit, condition)                                                                            \
    do {                                                                                                     \
        uint64_t end_us_ = env_system.now_us(NULL) + 5000000;                                                \
        while (!(condition)) {                                                                               \
            kit_turn(kit);                                                                                   \
            if (env_system.now_us(NULL) > end_us_)                                                           \
                fail_msg("in vain: %s", #condition);                                                         \
        }                                                                                                    \
    } while (0)

static inline void kit_free(struct kit **pointer)
{
    struct kit *kit = *pointer;
    *pointer = NULL;
    for (unsigned i = 0; i < kit->count; i++)
        net_free(kit_shard(kit, i));
    shard_group_free(&kit->group);
    config_free(&kit->config);
    for (unsigned i = 0; i < kit->owners_count; i++)
        xy_buf_free(&kit->owners[i].input);
    free(kit);
}

/* --- clients -------------------------------------------------------------------------------------------------------- */

static inline uint16_t kit_port(struct kit *kit, unsigned listener)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    assert_int_equal(
        getsockname(kit_shard(kit, 0)->net->listeners[listener]->fd, (struct sockaddr *)&address, &len), 0);
    return address.ss_family == AF_INET ? ntohs(((struct sockaddr_in *)(void *)&address)->sin_port)
                                        : ntohs(((struct sockaddr_in6 *)(void *)&address)->sin6_port);
}

static inline int kit_connect(uint16_t port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* A connection without a listener; the other end is returned. TCP, because closing is subtler there. */
static inline int kit_accept(struct kit *kit, unsigned shard, enum link_kind kind, const char *peer)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    int fd = kit_connect(ntohs(address.sin_port));
    struct conn_origin origin = { .kind = kind, .loopback = true };
    (void)snprintf(origin.peer, sizeof(origin.peer), "%s", peer);
    origin.fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    assert_true(origin.fd >= 0);
    close(listener);
    conn_accept(kit_shard(kit, shard), &origin);
    return fd;
}

static inline void kit_send(int fd, const void *data, size_t len)
{
    assert_int_equal(send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT), (ssize_t)len);
}

/* Has the other end closed, with nothing more to read? */
static inline bool kit_is_closed(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}
