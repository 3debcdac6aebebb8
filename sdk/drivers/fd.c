/* The plain-descriptor driver: one epoll set per client holds its socket, the resolver's sockets and an eventfd for other
 * threads, so that a foreign loop watches a single descriptor that never changes. Built on sdk/src/driver.h alone. */
#include "sdk/drivers/fd.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/assert.h"
#include "sdk/drivers/resolve.h"
#include "sdk/drivers/system.h"
#include "sdk/src/driver.h"

#define TAG_RESOLVER       (UINT64_C(1) << 32)
#define TAG_EVENT          (UINT64_C(2) << 32)
#define TAG_SOCKET         (UINT64_C(3) << 32)
#define EVENTS_MAX         16
#define READ_CHUNK         (32u << 10)
#define READS_PER_TURN     8u
#define WRITES_PER_TURN    16u
#define ADDRESS_TIMEOUT_US 3000000u /* until the next address is tried */

enum phase { IDLE, RESOLVING, CONNECTING, OPEN };

struct fd_driver {
    struct xylem_client *client;
    int epoll, event, socket;
    enum phase phase;
    uint64_t attempt; /* the client's, that this connection is for */
    struct xy_resolver *resolver;
    struct xy_address local; /* Unix socket */
    const struct xy_address *addresses;
    size_t address_count, address_next;
    uint64_t address_deadline_us;
    uint32_t watched; /* epoll events of the socket */
    int connect_error;
    const struct xy_fd_hooks *hooks;
    void *hooks_ctx;
};

static void close_socket(struct fd_driver *d)
{
    if (d->socket >= 0)
        close(d->socket);
    d->socket = -1;
    d->watched = 0;
}

static void on_wake(void *ctx)
{
    struct fd_driver *d = ctx;
    uint64_t one = 1;
    ssize_t n = write(d->event, &one, sizeof one);
    (void)n; /* full: it is awake already */
}

static void on_turn(void *ctx)
{
    struct fd_driver *d = ctx;
    if (d->hooks)
        d->hooks->turn(d->hooks_ctx);
}

static void driver_free(struct fd_driver *d)
{
    close_socket(d);
    xy_resolver_free(&d->resolver);
    if (d->event >= 0)
        close(d->event);
    if (d->epoll >= 0)
        close(d->epoll);
    free(d);
}

static void on_freed(void *ctx)
{
    struct fd_driver *d = ctx;
    if (d->hooks)
        d->hooks->freed(d->hooks_ctx);
    driver_free(d);
}

static const struct xy_driver driver_calls = { .wake = on_wake, .turn = on_turn, .freed = on_freed };

static struct fd_driver *driver_of(struct xylem_client *c)
{
    struct fd_driver *d = xy_client_driver(c);
    if (d)
        return d;
    d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->client = c;
    d->socket = -1;
    d->epoll = epoll_create1(EPOLL_CLOEXEC);
    d->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    d->resolver = xy_resolver_new(d->epoll, TAG_RESOLVER, xy_env_system());
    struct epoll_event event = { .events = EPOLLIN, .data = { .u64 = TAG_EVENT } };
    if (d->epoll < 0 || d->event < 0 || !d->resolver ||
        epoll_ctl(d->epoll, EPOLL_CTL_ADD, d->event, &event) != 0) {
        driver_free(d);
        return NULL;
    }
    xy_client_set_driver(c, &driver_calls, d);
    return d;
}

int xy_fd_hook(struct xylem_client *c, const struct xy_fd_hooks *hooks, void *ctx)
{
    struct fd_driver *d = driver_of(c);
    if (!d || d->hooks)
        return -1;
    d->hooks = hooks;
    d->hooks_ctx = ctx;
    return d->epoll;
}

/* --- connecting --- */

static void watch(struct fd_driver *d, uint32_t events)
{
    if (d->socket < 0 || d->watched == (events | 1u << 31))
        return;
    struct epoll_event event = { .events = events, .data = { .u64 = TAG_SOCKET } };
    epoll_ctl(d->epoll, d->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, d->socket, &event);
    d->watched = events | 1u << 31; /* never 0 once added */
}

static void connected(struct fd_driver *d)
{
    int on = 1;
    setsockopt(d->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* not on Unix sockets: no harm */
    d->phase = OPEN;
    xy_client_connected(d->client);
}

static void unreachable(struct fd_driver *d)
{
    struct xy_target target;
    char why[600];
    xy_client_target(d->client, &target);
    if (target.socket_path)
        snprintf(why, sizeof why, "no broker at the socket %s: %s", target.socket_path,
                 strerror(d->connect_error));
    else
        snprintf(why, sizeof why, "no connection to %s port %u: %s",
                 target.host ? target.host : target.domain, target.port,
                 d->connect_error ? strerror(d->connect_error) : xy_resolver_error(d->resolver));
    d->phase = IDLE;
    d->attempt = 0;
    xy_client_lost(d->client, why);
}

static void try_next(struct fd_driver *d)
{
    close_socket(d);
    while (d->address_next < d->address_count) {
        const struct xy_address *address = &d->addresses[d->address_next++];
        const struct sockaddr *to = (const struct sockaddr *)&address->sockaddr;
        d->socket = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        d->phase = CONNECTING;
        d->address_deadline_us = xy_now_us(xy_env_system()) + ADDRESS_TIMEOUT_US;
        if (d->socket >= 0 && connect(d->socket, to, address->len) == 0) {
            connected(d);
            return;
        }
        d->connect_error = errno;
        if (d->socket >= 0 && errno == EINPROGRESS) {
            watch(d, EPOLLOUT);
            return;
        }
        close_socket(d);
    }
    unreachable(d);
}

static void use_local_socket(struct fd_driver *d, const char *path)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&d->local.sockaddr;
    memset(un, 0, sizeof *un);
    un->sun_family = AF_UNIX;
    d->local.len = sizeof *un;
    d->addresses = &d->local;
    d->address_next = 0;
    d->address_count = strlen(path) < sizeof un->sun_path ? 1 : 0;
    d->connect_error = d->address_count ? 0 : ENAMETOOLONG;
    if (d->address_count)
        memcpy(un->sun_path, path, strlen(path) + 1);
    try_next(d);
}

static void begin(struct fd_driver *d)
{
    struct xy_target target;
    xy_client_target(d->client, &target);
    d->connect_error = 0;
    if (target.socket_path) {
        use_local_socket(d, target.socket_path);
        return;
    }
    d->phase = RESOLVING;
    if (!xy_resolver_start(d->resolver, &target))
        unreachable(d);
}

/* The client's wish is followed: an old connection is closed, a new one begun. */
static void follow(struct fd_driver *d)
{
    uint64_t wanted = xy_client_attempt(d->client);
    if (d->attempt != wanted) {
        close_socket(d);
        d->phase = IDLE;
        d->attempt = wanted;
        if (wanted)
            begin(d);
    }
    if (d->phase == RESOLVING && xy_resolver_done(d->resolver)) {
        d->address_count = xy_resolver_addresses(d->resolver, &d->addresses);
        d->address_next = 0;
        try_next(d);
    }
    if (d->phase == CONNECTING && xy_now_us(xy_env_system()) >= d->address_deadline_us) {
        d->connect_error = ETIMEDOUT;
        try_next(d);
    }
}

static void connect_ready(struct fd_driver *d)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(d->socket, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0) {
        connected(d);
        return;
    }
    d->connect_error = error ? error : errno;
    try_next(d);
}

/* --- moving bytes --- */

static void read_socket(struct fd_driver *d)
{
    char chunk[READ_CHUNK];
    for (unsigned i = 0;
         i < READS_PER_TURN && d->attempt == xy_client_attempt(d->client) && xy_client_wants_input(d->client);
         i++) {
        ssize_t n = recv(d->socket, chunk, sizeof chunk, 0);
        if (n > 0) {
            xy_client_receive(d->client, chunk, (size_t)n);
            if ((size_t)n < sizeof chunk)
                return;
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        } else {
            xy_client_lost(d->client, n == 0 ? "the server closed the connection" : strerror(errno));
            return;
        }
    }
}

static void write_socket(struct fd_driver *d)
{
    for (unsigned i = 0;
         i < WRITES_PER_TURN && d->phase == OPEN && d->attempt == xy_client_attempt(d->client); i++) {
        struct xy_str out = xy_client_output(d->client);
        if (out.len == 0)
            return;
        ssize_t n = send(d->socket, out.data, out.len, MSG_NOSIGNAL);
        if (n >= 0) {
            xy_client_sent(d->client, (size_t)n);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno != EINTR) {
            xy_client_lost(d->client, strerror(errno));
            return;
        }
    }
}

static void socket_ready(struct fd_driver *d, uint32_t events)
{
    if (d->phase == CONNECTING) {
        connect_ready(d);
        return;
    }
    if (d->phase != OPEN)
        return;
    if (xy_client_wants_input(d->client))
        read_socket(d);
    else if (events & (EPOLLERR | EPOLLHUP))
        xy_client_lost(d->client, "the connection broke");
}

static void update_watch(struct fd_driver *d)
{
    if (d->phase != OPEN)
        return;
    uint32_t events = xy_client_wants_input(d->client) ? EPOLLIN : 0u;
    if (xy_client_output(d->client).len > 0)
        events |= EPOLLOUT;
    watch(d, events);
}

static void one_event(struct fd_driver *d, const struct epoll_event *event)
{
    uint64_t tag = event->data.u64 & ~(uint64_t)UINT32_MAX;
    if (tag == TAG_RESOLVER) {
        bool broken = event->events & (EPOLLERR | EPOLLHUP);
        xy_resolver_ready(d->resolver, (int)(uint32_t)event->data.u64, broken || event->events & EPOLLIN,
                          broken || event->events & EPOLLOUT);
    } else if (tag == TAG_SOCKET) {
        socket_ready(d, event->events);
    } else {
        uint64_t count;
        ssize_t n = read(d->event, &count, sizeof count);
        (void)n;
    }
}

/* --- public --- */

enum xylem_status xylem_client_process(struct xylem_client *c)
{
    struct fd_driver *d = driver_of(c);
    if (!d)
        return XYLEM_NO_MEMORY;
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(d->epoll, events, EVENTS_MAX, 0);
    xy_client_enter(c);
    for (int i = 0; i < count; i++)
        one_event(d, &events[i]);
    xy_resolver_tick(d->resolver);
    follow(d);
    xy_client_tick(c);
    follow(d);
    write_socket(d);
    follow(d);
    update_watch(d);
    bool over = xylem_client_state(c) == XYLEM_STATE_STOPPED;
    if (!xy_client_leave(c))
        return XYLEM_STOPPED;
    return over ? XYLEM_STOPPED : XYLEM_OK;
}

int xylem_client_fd(struct xylem_client *c)
{
    struct fd_driver *d = driver_of(c);
    return d ? d->epoll : -1;
}

unsigned xylem_client_interest(const struct xylem_client *c)
{
    (void)c;
    return XYLEM_READ;
}

int xylem_client_timeout_ms(struct xylem_client *c)
{
    struct fd_driver *d = driver_of(c);
    uint64_t due = xy_client_deadline_us(c);
    if (d) {
        uint64_t resolver = xy_resolver_deadline_us(d->resolver);
        if (resolver < due)
            due = resolver;
        if (d->phase == CONNECTING && d->address_deadline_us < due)
            due = d->address_deadline_us;
        if (d->attempt != xy_client_attempt(c))
            due = 0;
    }
    if (due == UINT64_MAX)
        return -1;
    uint64_t now = xy_now_us(xy_env_system());
    if (due <= now)
        return 0;
    uint64_t ms = (due - now + 999) / 1000;
    return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

enum xylem_status xylem_client_run(struct xylem_client *c, int timeout_ms)
{
    struct fd_driver *d = driver_of(c);
    if (!d)
        return XYLEM_NO_MEMORY;
    int own = xylem_client_timeout_ms(c);
    if (own >= 0 && (timeout_ms < 0 || own < timeout_ms))
        timeout_ms = own;
    if (own < 0 && xylem_client_state(c) == XYLEM_STATE_STOPPED)
        timeout_ms = 0; /* nothing can come of waiting */
    struct pollfd ready = { .fd = d->epoll, .events = POLLIN };
    (void)poll(&ready, 1, timeout_ms); /* a signal: look around and return */
    return xylem_client_process(c);
}
