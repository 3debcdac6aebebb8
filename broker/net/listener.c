/* Listening sockets. They accept on shard 0 and hand each connection to the next shard in turn. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/config.h"
#include "broker/log.h"
#include "broker/net/net_internal.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

/* --- accepting ---------------------------------------------------------------------------------------------------- */

static void on_accepted(struct shard *shard, void *payload)
{
    conn_accept(shard, payload);
}

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static void origin_from_inet(struct conn_origin *origin, const union address *address)
{
    if (address->any.sa_family == AF_INET) {
        const struct sockaddr_in *v4 = &address->v4;
        inet_ntop(AF_INET, &v4->sin_addr, origin->peer, sizeof(origin->peer));
        origin->loopback = (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
        return;
    }
    const struct sockaddr_in6 *v6 = &address->v6;
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
        inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], origin->peer, sizeof(origin->peer));
        origin->loopback = v6->sin6_addr.s6_addr[12] == 127;
        return;
    }
    inet_ntop(AF_INET6, &v6->sin6_addr, origin->peer, sizeof(origin->peer));
    origin->loopback = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

/* A peer that vanished without a word is noticed: by the kernel's questions when nothing is under way, by the age of what
 * it does not acknowledge otherwise. */
static void socket_tune(int fd, const struct config *config)
{
    int on = 1, idle = NET_KEEPALIVE_IDLE_S, interval = NET_KEEPALIVE_INTERVAL_S, count = NET_KEEPALIVE_COUNT;
    unsigned stalled_ms = (unsigned)config->limits.stalled_timeout_ms; /* at most a day */
    if (stalled_ms < NET_USER_TIMEOUT_MIN_MS)
        stalled_ms = NET_USER_TIMEOUT_MIN_MS;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &stalled_ms, sizeof(stalled_ms));
}

static bool origin_read(struct conn_origin *origin, const union address *address, const struct config *config)
{
    if (origin->kind != LINK_LOCAL) {
        socket_tune(origin->fd, config);
        origin_from_inet(origin, address);
        return true;
    }
    struct ucred peer;
    socklen_t len = sizeof(peer);
    origin->loopback = true;
    if (getsockopt(origin->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
        return false;
    origin->uid = peer.uid;
    return true;
}

/* --- how many connections an address has (hostile input 29) -------------------------------------------------------- */

struct peer {
    unsigned count;
    char address[LINK_PEER_MAX];
};

static bool peer_enter(struct net *net, const char *address)
{
    if (net->peers == NULL) {
        uint64_t seed;
        xy_random(net->shard->env, &seed, sizeof(seed));
        net->peers = xy_table_new(seed);
    }
    struct peer *peer = net->peers ? xy_table_get(net->peers, xy_str(address)) : NULL;
    if (peer) {
        if (peer->count >= net->shard->config->limits.connections_per_address)
            return false;
        peer->count++;
        return true;
    }
    peer = net->peers ? calloc(1, sizeof(*peer)) : NULL;
    if (peer == NULL)
        return false;
    peer->count = 1;
    memcpy(peer->address, address, strlen(address) + 1);
    if (xy_table_put(net->peers, xy_str(peer->address), peer, NULL))
        return true;
    free(peer);
    return false;
}

static void on_left(struct shard *shard, void *payload)
{
    const char *address = payload;
    struct net *net = shard->net;
    struct peer *peer = net && net->peers ? xy_table_get(net->peers, xy_str(address)) : NULL;
    if (peer == NULL || --peer->count > 0)
        return;
    xy_table_remove(net->peers, xy_str(address));
    free(peer);
}

void net_peer_left(struct shard *shard, const struct link *link)
{
    if (link->kind != LINK_LOCAL)
        shard_mail(shard, 0, on_left, link->peer, strlen(link->peer) + 1);
}

void net_peers_free(struct net *net)
{
    size_t position = 0;
    struct peer *peer;
    while (net->peers && (peer = xy_table_next(net->peers, &position, NULL)) != NULL) {
        xy_table_remove(net->peers, xy_str(peer->address));
        free(peer);
    }
    xy_table_free(&net->peers);
}

/* --- taking them ---------------------------------------------------------------------------------------------------- */

/* Once a second at most: who floods us shall not flood the log. */
static void complain_about(struct net *net, const char *peer, const char *why)
{
    struct shard *shard = net->shard;
    uint64_t now_us = xy_now_us(shard->env);
    stat_add(shard, connections_refused, 1);
    if (net->complained_us != 0 && now_us < net->complained_us + NET_COMPLAIN_US)
        return;
    net->complained_us = now_us;
    log_warning(shard->log, "connection not accepted", LOG_Z("peer", peer), LOG_Z("why", why));
}

static void on_connections(uv_poll_t *poll, int status, int events);

static void accept_go_on(struct shard *shard, struct shard_timer *timer)
{
    struct net *net = shard->net;
    (void)timer;
    for (unsigned i = 0; i < net->listeners_count; i++)
        uv_poll_start(&net->listeners[i]->poll, UV_READABLE, on_connections);
}

/* Peers wait in the backlog while descriptors or memory are short: looking again at once would only spin. */
static void accept_rest(struct net *net)
{
    for (unsigned i = 0; i < net->listeners_count; i++)
        uv_poll_stop(&net->listeners[i]->poll);
    net->accept_pause.fn = accept_go_on;
    shard_timer_set(net->shard, &net->accept_pause, xy_now_us(net->shard->env) + NET_ACCEPT_PAUSE_US);
}

/* false: no more for now. */
static bool accept_one(struct listener *listener)
{
    struct net *net = listener->net;
    struct shard *shard = net->shard;
    union address address = { .v6 = { 0 } };
    socklen_t len = sizeof(address);
    struct conn_origin origin = { .kind = listener->kind };
    origin.fd = accept4(listener->fd, &address.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (origin.fd < 0) {
        int problem = errno;
        if (problem == EMFILE || problem == ENFILE || problem == ENOBUFS || problem == ENOMEM) {
            complain_about(net, "", strerror(problem));
            accept_rest(net);
        }
        return problem != EAGAIN &&
               !shard_timer_is_set(&net->accept_pause); /* other errors are this peer's alone */
    }
    const char *why = NULL;
    if (!origin_read(&origin, &address, shard->config))
        why = "it left at once";
    else if (shard_memory_is_short(shard) && origin.kind != LINK_LOCAL)
        why = "memory is short (limits.memory)";
    else if (origin.kind != LINK_LOCAL && !peer_enter(net, origin.peer))
        why = "that address has too many connections (limits.connections_per_address)";
    if (why) {
        complain_about(net, origin.peer, why);
        close(origin.fd);
        return true;
    }
    shard_mail(shard, net->next_shard, on_accepted, &origin, sizeof(origin));
    net->next_shard = (net->next_shard + 1) % shard_count(shard);
    return true;
}

static void on_connections(uv_poll_t *poll, int status, int events)
{
    struct listener *listener = xy_container_of(poll, struct listener, poll);
    (void)events;
    if (status < 0)
        return;
    for (unsigned i = 0; i < NET_ACCEPTS_PER_TURN && accept_one(listener); i++)
        ;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static void complain(struct xy_buf *error, struct xy_str what, const char *why, const char *hint)
{
    xy_buf_printf(error, "cannot listen on %.*s: %s%s", XY_ARG(what), why, hint);
}

static const char *listen_hint(int problem)
{
    if (problem == EADDRINUSE)
        return "; another program has that port: stop it, or change `listen` in the configuration";
    if (problem == EACCES)
        return "; ports below 1024 need root or CAP_NET_BIND_SERVICE";
    if (problem == EADDRNOTAVAIL)
        return "; this machine does not have that address";
    return "";
}

static bool listener_add(struct net *net, int fd, enum link_kind kind, const char *path)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL || net->listeners_count == NET_LISTENERS_MAX) {
        free(listener);
        return false;
    }
    listener->net = net;
    listener->fd = fd;
    listener->kind = kind;
    if (path)
        snprintf(listener->path, sizeof(listener->path), "%s", path);
    net->listeners[net->listeners_count++] = listener;
    return true;
}

/* "127.0.0.1:5222", "[::]:5222", "localhost:5222" */
static bool address_split(struct xy_str address, char host[256], char port[8])
{
    size_t colon = address.len;
    while (colon > 0 && address.data[colon - 1] != ':')
        colon--;
    if (colon == 0 || colon == address.len || address.len - colon >= 8)
        return false;
    struct xy_str name = xy_str_n(address.data, colon - 1);
    if (name.len >= 2 && name.data[0] == '[' && name.data[name.len - 1] == ']')
        name = xy_str_n(name.data + 1, name.len - 2);
    if (name.len >= 256)
        return false;
    memcpy(host, name.data, name.len);
    host[name.len] = '\0';
    memcpy(port, address.data + colon, address.len - colon);
    port[address.len - colon] = '\0';
    return true;
}

static int tcp_open(const struct addrinfo *info)
{
    int on = 1, off = 0;
    int fd = socket(info->ai_family, info->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, info->ai_protocol);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (info->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, NET_BACKLOG) == 0)
        return fd;
    int problem = errno;
    close(fd);
    errno = problem;
    return -1;
}

static void log_listening(struct shard *shard, int fd, struct xy_str address)
{
    union address bound = { .v6 = { 0 } };
    socklen_t len = sizeof(bound);
    uint64_t port = 0;
    if (getsockname(fd, &bound.any, &len) == 0)
        port = ntohs(bound.any.sa_family == AF_INET ? bound.v4.sin_port : bound.v6.sin6_port);
    log_info(shard->log, "listening", LOG_STR("address", address), LOG_NUM("port", port));
}

/* [::] serves IPv4 too; on a machine without IPv6 it falls back to 0.0.0.0, because that is what was meant. */
bool net_listen_tcp(struct shard *shard, struct xy_str address, enum link_kind kind, struct xy_buf *error)
{
    char host[256], port[8];
    if (!address_split(address, host, port)) {
        complain(error, address, "not of the form address:port", "");
        return false;
    }
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *info = NULL;
    int problem = getaddrinfo(host[0] ? host : NULL, port, &hints, &info);
    if (problem != 0) {
        complain(error, address, gai_strerror(problem), "");
        return false;
    }
    int fd = tcp_open(info);
    int why = errno;
    freeaddrinfo(info);
    if (fd < 0 && why == EAFNOSUPPORT && strcmp(host, "::") == 0) {
        struct xy_buf v4 = { 0 };
        xy_buf_printf(&v4, "0.0.0.0:%s", port);
        bool done = net_listen_tcp(shard, xy_buf_view(&v4), kind, error);
        xy_buf_free(&v4);
        return done;
    }
    if (fd < 0 || !listener_add(shard->net, fd, kind, NULL)) {
        complain(error, address, fd < 0 ? strerror(why) : "too many listeners", listen_hint(why));
        return false;
    }
    log_listening(shard, fd, address);
    return true;
}

/* A socket file nobody listens on is left over from a crash and is replaced; a live one is somebody else's. */
static bool local_is_free(const struct sockaddr_un *address)
{
    struct stat there;
    if (lstat(address->sun_path, &there) != 0)
        return errno == ENOENT;
    if (!S_ISSOCK(there.st_mode)) {
        errno = EEXIST;
        return false;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool live = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0;
    if (fd >= 0)
        close(fd);
    errno = live ? EADDRINUSE : 0;
    return !live && unlink(address->sun_path) == 0;
}

static int local_open(const struct sockaddr_un *address)
{
    if (!local_is_free(address))
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* anybody may connect: who they are decides what they may do */
    if (fd >= 0 && bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 &&
        chmod(address->sun_path, 0666) == 0 && listen(fd, NET_BACKLOG) == 0)
        return fd;
    int problem = errno;
    if (fd >= 0)
        close(fd);
    errno = problem;
    return -1;
}

bool net_listen_local(struct shard *shard, struct xy_str path, struct xy_buf *error)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (path.len >= sizeof(address.sun_path)) {
        complain(error, path, "the path of a Unix socket has at most 107 bytes", "");
        return false;
    }
    memcpy(address.sun_path, path.data, path.len);
    int fd = local_open(&address);
    if (fd < 0) {
        complain(error, path, strerror(errno),
                 errno == EADDRINUSE ? "; another broker listens there"
                                     : "; does its folder exist, may it be written?");
        return false;
    }
    if (!listener_add(shard->net, fd, LINK_LOCAL, address.sun_path)) {
        complain(error, path, "too many listeners", "");
        return false;
    }
    log_info(shard->log, "listening", LOG_STR("address", path));
    return true;
}

void net_listen_start(struct shard *shard)
{
    struct net *net = shard->net;
    for (unsigned i = 0; i < net->listeners_count; i++) {
        struct listener *listener = net->listeners[i];
        int problem = uv_poll_init(&net->loop, &listener->poll, listener->fd);
        xy_assert(problem == 0);
        uv_poll_start(&listener->poll, UV_READABLE, on_connections);
    }
    memory_watch(net);
}

static void on_listener_closed(uv_handle_t *handle)
{
    free(xy_container_of(handle, struct listener, poll));
}

void net_listen_stop(struct shard *shard)
{
    struct net *net = shard->net;
    for (unsigned i = 0; i < net->listeners_count; i++) {
        struct listener *listener = net->listeners[i];
        int fd = listener->fd;
        if (listener->path[0])
            unlink(listener->path);
        if (listener->poll.loop)
            uv_close((uv_handle_t *)&listener->poll, on_listener_closed);
        else
            free(listener);
        close(fd); /* not before libuv let go of it */
    }
    shard_timer_cancel(shard, &net->accept_pause);
    net->listeners_count = 0;
}
