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

static void origin_from_inet(struct conn_origin *origin, const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)address;
        inet_ntop(AF_INET, &v4->sin_addr, origin->peer, sizeof(origin->peer));
        origin->loopback = (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
        return;
    }
    const struct sockaddr_in6 *v6 = (const void *)address;
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
        inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], origin->peer, sizeof(origin->peer));
        origin->loopback = v6->sin6_addr.s6_addr[12] == 127;
        return;
    }
    inet_ntop(AF_INET6, &v6->sin6_addr, origin->peer, sizeof(origin->peer));
    origin->loopback = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static bool origin_read(struct conn_origin *origin, const struct sockaddr_storage *address)
{
    if (origin->kind != LINK_LOCAL) {
        int on = 1;
        setsockopt(origin->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
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

/* Out of descriptors: log it and leave the peer in the backlog; the next readiness tries again. */
static bool accept_one(struct listener *listener)
{
    struct net *net = listener->net;
    struct shard *shard = net->shard;
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    struct conn_origin origin = { .kind = listener->kind };
    origin.fd = accept4(listener->fd, (struct sockaddr *)&address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (origin.fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
            stat_add(shard, connections_refused, 1);
            log_warning(shard->log, "cannot accept connections", LOG_Z("why", strerror(errno)));
        }
        return errno == ECONNABORTED || errno == EINTR;
    }
    if (!origin_read(&origin, &address)) {
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
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    uint64_t port = 0;
    if (getsockname(fd, (struct sockaddr *)&bound, &len) == 0)
        port = bound.ss_family == AF_INET ? ntohs(((struct sockaddr_in *)(void *)&bound)->sin_port)
                                          : ntohs(((struct sockaddr_in6 *)(void *)&bound)->sin6_port);
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
                 errno == EADDRINUSE ? "; another broker listens there" : "; does its folder exist, may it be written?");
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
        close(listener->fd);
        if (listener->path[0])
            unlink(listener->path);
        if (listener->poll.loop)
            uv_close((uv_handle_t *)&listener->poll, on_listener_closed);
        else
            free(listener);
    }
    net->listeners_count = 0;
}
