/* A connection: one socket on one loop, with TLS where it was asked for, as a link.
 *
 * Reading uses the shard's buffers, so an idle connection holds none. Writing goes straight to the socket; what the
 * kernel does not take is kept here and sent when the socket is writable, and the owner writes nothing more until then.
 * A closed connection lingers, without an owner, until what it kept is sent and the peer has closed too, or CONN_LINGER_MS
 * have passed: closing a socket with unread input makes the kernel throw away what it has not sent yet. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/config.h"
#include "broker/log.h"
#include "broker/net/net_internal.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

#define CONN_LINGER_MS 2000

enum conn_tls {
    CONN_PLAIN,
    CONN_TLS_PENDING, /* once what is kept is gone */
    CONN_TLS_QUEUED,  /* once there is room for another handshake; nothing is read */
    CONN_HANDSHAKE,
    CONN_SECURE,
};

/* The handle stays with its loop when the connection moves, so it is memory of its own. */
struct poller {
    uv_poll_t poll;
    struct conn *conn;
};

struct conn {
    struct link link;
    struct poller *poller; /* NULL: not on a loop */
    struct shard_timer linger;
    struct xy_list all;
    struct xy_list handshake;  /* in net->handshakes while a step is due */
    struct xy_list unfinished; /* in net->unfinished or net->queued until the handshake is complete */
    uint64_t began_us;         /* when the handshake did */
    struct xy_tls *tls;
    struct xy_buf kept; /* bytes for the socket that it would not take */
    size_t kept_sent;
    int fd;
    enum conn_tls tls_state;
    bool paused, closing, gone, want_write;
};

static struct conn *conn_of(struct link *link)
{
    return xy_container_of(link, struct conn, link);
}

static struct net *conn_net(struct conn *conn)
{
    return conn->link.shard->net;
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

static void on_poller_closed(uv_handle_t *handle)
{
    free(xy_container_of(handle, struct poller, poll));
}

static void conn_leave_loop(struct conn *conn)
{
    if (conn->poller == NULL)
        return;
    uv_poll_stop(&conn->poller->poll);
    uv_close((uv_handle_t *)&conn->poller->poll, on_poller_closed);
    conn->poller = NULL;
    xy_list_remove(&conn->all);
    stat_sub(conn->link.shard, connections_open, 1);
}

static void handshake_forget(struct conn *conn)
{
    if (xy_list_linked(&conn->unfinished) && conn->tls_state != CONN_TLS_QUEUED)
        conn_net(conn)->unfinished_count--;
    xy_list_remove(&conn->unfinished);
    xy_list_remove(&conn->handshake);
}

static void conn_destroy(struct conn *conn)
{
    handshake_forget(conn);
    shard_timer_cancel(conn->link.shard, &conn->linger);
    conn_leave_loop(conn);
    xy_tls_free(&conn->tls);
    xy_buf_free(&conn->kept);
    close(conn->fd);
    net_peer_left(conn->link.shard, &conn->link);
    free(conn);
}

void conn_destroy_all(struct net *net)
{
    xy_list_each (entry, &net->conns)
        conn_destroy(xy_container_of(entry, struct conn, all));
}

static void on_linger(struct shard *shard, struct shard_timer *timer)
{
    (void)shard;
    conn_destroy(xy_container_of(timer, struct conn, linger));
}

/* The peer is gone. The owner answers with close(), maybe from within. */
static void conn_gone(struct conn *conn)
{
    if (conn->gone)
        return;
    conn->gone = true;
    if (conn->poller)
        uv_poll_stop(&conn->poller->poll);
    if (conn->link.owner)
        conn->link.shard->link_events->gone(&conn->link);
    else
        conn_destroy(conn);
}

/* --- the socket --------------------------------------------------------------------------------------------------- */

static void on_ready(uv_poll_t *poll, int status, int events);

static void conn_poll(struct conn *conn)
{
    if (conn->gone || conn->poller == NULL)
        return;
    bool reads = !conn->paused && conn->tls_state != CONN_TLS_QUEUED;
    int events = (reads ? UV_READABLE : 0) | (conn->want_write ? UV_WRITABLE : 0);
    if (events == 0)
        uv_poll_stop(&conn->poller->poll);
    else
        uv_poll_start(&conn->poller->poll, events, on_ready);
}

static ssize_t socket_send(int fd, const char *data, size_t len)
{
    ssize_t n;
    do
        n = send(fd, data, len, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n;
}

/* Bytes as they go over the wire. Returns false when some had to be kept. A real error of the socket is kept too: it
 * comes again with the next readiness. */
static bool socket_write(struct conn *conn, struct xy_str bytes)
{
    size_t sent = 0;
    while (conn->kept.len == 0 && sent < bytes.len) {
        ssize_t n = socket_send(conn->fd, bytes.data + sent, bytes.len - sent);
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    stat_add(conn->link.shard, bytes_out, sent);
    if (sent == bytes.len)
        return true;
    xy_buf_add(&conn->kept, bytes.data + sent, bytes.len - sent);
    conn->want_write = true;
    conn_poll(conn);
    return false;
}

static void tls_begin(struct conn *conn);

static void kept_done(struct conn *conn)
{
    xy_buf_free(&conn->kept);
    conn->kept_sent = 0;
    conn->want_write = false;
    conn_poll(conn);
    if (conn->closing)
        shutdown(conn->fd, SHUT_WR);
    else if (conn->tls_state == CONN_TLS_PENDING)
        tls_begin(conn);
    else if (conn->tls_state == CONN_PLAIN || conn->tls_state == CONN_SECURE)
        conn->link.shard->link_events->writable(&conn->link);
}

static void socket_flush(struct conn *conn)
{
    while (conn->kept_sent < conn->kept.len) {
        ssize_t n =
            socket_send(conn->fd, conn->kept.data + conn->kept_sent, conn->kept.len - conn->kept_sent);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            conn_gone(conn);
            return;
        }
        conn->kept_sent += (size_t)n;
        stat_add(conn->link.shard, bytes_out, n);
    }
    kept_done(conn);
}

/* --- TLS ---------------------------------------------------------------------------------------------------------- */

static bool tls_flush(struct conn *conn)
{
    struct xy_str out = xy_tls_output(conn->tls);
    if (out.len == 0)
        return conn->kept.len == 0;
    bool all = socket_write(conn, out);
    xy_tls_output_consumed(conn->tls, out.len);
    return all;
}

static unsigned unfinished_of_peer(const struct net *net, const char *peer)
{
    unsigned count = 0;
    xy_list_each (entry, &net->unfinished)
        count += strcmp(xy_container_of(entry, struct conn, unfinished)->link.peer, peer) == 0;
    return count;
}

/* Too many handshakes at once: of those that had their time, the oldest of the address that has most of them makes room,
 * so that somebody who begins and never finishes (hostile input 29) shuts nobody out but himself. false: all are young. */
static bool unfinished_evict(struct net *net, uint64_t now_us)
{
    struct conn *victim = NULL;
    unsigned most = 0;
    xy_list_each (entry, &net->unfinished) {
        struct conn *conn = xy_container_of(entry, struct conn, unfinished);
        if (now_us < conn->began_us + NET_HANDSHAKE_PATIENCE_US)
            break; /* they are in order of age */
        unsigned count = unfinished_of_peer(net, conn->link.peer);
        if (count > most) {
            most = count;
            victim = conn;
        }
    }
    if (victim == NULL)
        return false;
    stat_add(net->shard, connections_refused, 1);
    handshake_forget(victim);
    conn_gone(victim);
    return true;
}

static void handshake_begin(struct conn *conn, uint64_t now_us)
{
    struct net *net = conn_net(conn);
    conn->tls = net->tls ? xy_tls_new(net->tls, NULL) : NULL;
    conn->tls_state = CONN_HANDSHAKE;
    conn->began_us = now_us;
    if (conn->tls == NULL) {
        stat_add(conn->link.shard, connections_refused, 1);
        conn_gone(conn);
        return;
    }
    xy_list_append(&net->unfinished, &conn->unfinished);
    net->unfinished_count++;
    conn_poll(conn);
}

/* As many of the queue as there is room for; a crowd that reconnects at once waits its turn. */
static void handshakes_admit(struct net *net)
{
    struct shard *shard = net->shard;
    uint64_t now_us = xy_now_us(shard->env);
    while (!xy_list_empty(&net->queued)) {
        if (net->unfinished_count >= shard->config->limits.handshakes && !unfinished_evict(net, now_us)) {
            struct conn *oldest = xy_container_of(net->unfinished.next, struct conn, unfinished);
            shard_timer_set(shard, &net->patience, oldest->began_us + NET_HANDSHAKE_PATIENCE_US);
            return;
        }
        struct conn *conn = xy_container_of(net->queued.next, struct conn, unfinished);
        xy_list_remove(&conn->unfinished);
        handshake_begin(conn, now_us);
    }
    shard_timer_cancel(shard, &net->patience);
}

void conn_on_patience(struct shard *shard, struct shard_timer *timer)
{
    (void)timer;
    handshakes_admit(shard->net);
}

/* Whose address has nothing under way goes first: one address cannot fill the queue for the others. */
static void tls_begin(struct conn *conn)
{
    struct net *net = conn_net(conn);
    conn->tls_state = CONN_TLS_QUEUED;
    if (net->unfinished_count >= conn->link.shard->config->limits.handshakes &&
        unfinished_of_peer(net, conn->link.peer) == 0)
        xy_list_prepend(&net->queued, &conn->unfinished);
    else
        xy_list_append(&net->queued, &conn->unfinished);
    conn_poll(conn);
    handshakes_admit(net);
}

/* What the owner may have done to the connection while it was called. */
static bool conn_is_ours(const struct conn *conn, const struct net *net)
{
    return !conn->closing && !conn->gone && conn->poller && conn->link.shard->net == net;
}

static void tls_read(struct conn *conn)
{
    struct net *net = conn_net(conn);
    struct link *link = &conn->link;
    for (;;) {
        size_t len = 0;
        enum xy_tls_status status = xy_tls_read(conn->tls, net->plain_buffer, NET_READ_BYTES, &len);
        if (status == XY_TLS_DONE && len > 0) {
            link->shard->link_events->input(link, net->plain_buffer, len);
            if (!conn_is_ours(conn, net))
                return;
        } else if (status != XY_TLS_AGAIN) {
            tls_flush(conn);
            if (status == XY_TLS_CLOSED || status == XY_TLS_FAILED)
                conn_gone(conn);
            return;
        }
    }
}

static size_t binding_add(struct xy_sasl_binding *binding, const char *type, const unsigned char *data,
                          size_t len)
{
    *binding = (struct xy_sasl_binding){ .type = type, .data = xy_str_n((const char *)data, len) };
    return len > 0 ? 1 : 0;
}

/* A certificate that is not trusted costs nothing but EXTERNAL: the peer may still log in with a password. */
static void certificate_take(struct conn *conn)
{
    if (xy_tls_peer_trusted(conn->tls))
        conn->link.certificate = xy_tls_peer_certificate(conn->tls);
    else if (xy_str_present(xy_tls_peer_certificate(conn->tls)))
        log_info(conn->link.shard->log, "certificate of a client not trusted", LOG_Z("peer", conn->link.peer),
                 LOG_Z("why", xy_tls_peer_problem(conn->tls)));
}

static void tls_secured(struct conn *conn)
{
    struct shard *shard = conn->link.shard;
    struct net *net = shard->net;
    unsigned char exporter[XY_TLS_BINDING_MAX], end_point[XY_TLS_BINDING_MAX], unique[XY_TLS_BINDING_MAX];
    struct xy_sasl_binding bindings[XY_SASL_BINDINGS_MAX];
    size_t count = 0;
    count += binding_add(&bindings[count], "tls-exporter", exporter, xy_tls_exporter(conn->tls, exporter));
    count += binding_add(&bindings[count], "tls-server-end-point", end_point,
                         xy_tls_server_end_point(conn->tls, end_point));
    count += binding_add(&bindings[count], "tls-unique", unique, xy_tls_unique(conn->tls, unique));
    handshake_forget(conn);
    conn->tls_state = CONN_SECURE;
    conn->link.secure = true;
    certificate_take(conn);
    stat_add(shard, tls_handshakes, 1);
    stat_add(shard, tls_resumed, xy_tls_resumed(conn->tls) ? 1 : 0);
    shard->link_events->secured(&conn->link, bindings, count);
    if (conn_is_ours(conn, net))
        tls_read(conn);
}

/* A handshake step waits for its turn in a list: one per turn of the loop, so that others are served between. */
static void handshake_due(struct conn *conn)
{
    if (!xy_list_linked(&conn->handshake))
        xy_list_append(&conn_net(conn)->handshakes, &conn->handshake);
}

static void tls_handshake(struct conn *conn)
{
    enum xy_tls_status status = xy_tls_handshake(conn->tls);
    tls_flush(conn);
    if (status == XY_TLS_AGAIN) {
        handshake_due(conn);
    } else if (status == XY_TLS_DONE) {
        tls_secured(conn);
    } else if (status != XY_TLS_WANT_MORE) {
        log_info(conn->link.shard->log, "TLS handshake failed", LOG_Z("peer", conn->link.peer),
                 LOG_Z("why", xy_tls_error(conn->tls)));
        conn_gone(conn);
    }
}

/* --- events of the loop ------------------------------------------------------------------------------------------- */

static void conn_input(struct conn *conn, const char *bytes, size_t len)
{
    stat_add(conn->link.shard, bytes_in, len);
    if (conn->tls_state == CONN_PLAIN)
        conn->link.shard->link_events->input(&conn->link, bytes, len);
    else if (conn->tls_state == CONN_TLS_PENDING)
        return; /* in clear after <starttls/>: discarded (hostile input 25) */
    else if (!xy_tls_receive(conn->tls, bytes, len))
        conn_gone(conn);
    else if (conn->tls_state == CONN_HANDSHAKE)
        handshake_due(conn);
    else
        tls_read(conn);
}

static void conn_read(struct conn *conn)
{
    struct net *net = conn_net(conn);
    ssize_t n;
    do
        n = recv(conn->fd, net->read_buffer, NET_READ_BYTES, 0);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        conn_input(conn, net->read_buffer, (size_t)n);
    else if (n == 0 || errno != EAGAIN)
        conn_gone(conn);
}

/* After our end: whatever the peer still says, until it closes too. */
static void conn_discard(struct conn *conn)
{
    ssize_t n = recv(conn->fd, conn_net(conn)->read_buffer, NET_READ_BYTES, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        conn_gone(conn);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct poller *poller = xy_container_of(poll, struct poller, poll);
    if (status < 0) {
        conn_gone(poller->conn);
        return;
    }
    if (events & UV_WRITABLE)
        socket_flush(poller->conn);
    /* flushing may have ended the connection; then the poller is closing */
    if ((events & UV_READABLE) && !uv_is_closing((uv_handle_t *)poll)) {
        struct conn *conn = poller->conn;
        if (conn->closing && !conn->gone)
            conn_discard(conn);
        else if (!conn->gone && !conn->paused && conn->tls_state != CONN_TLS_QUEUED)
            conn_read(conn);
    }
}

/* --- what the owner asks for -------------------------------------------------------------------------------------- */

static bool conn_write(struct link *link, struct xy_str bytes)
{
    struct conn *conn = conn_of(link);
    if (conn->gone || conn->closing)
        return true; /* nobody will read it; the owner learned or learns by `gone` */
    if (conn->tls_state == CONN_PLAIN)
        return socket_write(conn, bytes);
    if (conn->tls_state != CONN_SECURE)
        return true;
    bool all = true;
    while (bytes.len > 0) {
        size_t n = xy_tls_write(conn->tls, bytes.data, bytes.len);
        all = tls_flush(conn);
        if (n == 0)
            break; /* it failed: the next read says so */
        bytes = xy_str_n(bytes.data + n, bytes.len - n);
    }
    return all;
}

static void conn_read_pause(struct link *link, bool paused)
{
    struct conn *conn = conn_of(link);
    if (conn->paused == paused)
        return;
    conn->paused = paused;
    conn_poll(conn);
}

static void conn_start_tls(struct link *link)
{
    struct conn *conn = conn_of(link);
    xy_assert(conn->tls_state == CONN_PLAIN);
    conn->tls_state = CONN_TLS_PENDING;
    if (conn->kept.len == 0)
        tls_begin(conn);
}

/* The connection may be in the middle of a callback, so it is destroyed by its timer, or when the peer closes too. */
static void conn_close(struct link *link)
{
    struct conn *conn = conn_of(link);
    struct shard *shard = link->shard;
    xy_assert(!conn->closing);
    conn->closing = true;
    link->owner = NULL;
    handshake_forget(conn);
    if (conn->tls_state == CONN_SECURE && !conn->gone) {
        xy_tls_close(conn->tls);
        tls_flush(conn);
    }
    if (conn->tls_state == CONN_TLS_QUEUED)
        conn->tls_state = CONN_TLS_PENDING;
    if (!conn->gone && conn->kept.len == 0)
        shutdown(conn->fd, SHUT_WR);
    conn->paused = false;
    conn_poll(conn);
    conn->linger.fn = on_linger;
    shard_timer_set(shard, &conn->linger, xy_now_us(shard->env) + (conn->gone ? 0 : CONN_LINGER_MS * 1000));
}

static void conn_sleep(struct link *link)
{
    struct conn *conn = conn_of(link);
    if (conn->tls_state == CONN_SECURE)
        xy_tls_sleep(conn->tls);
}

static void conn_detach(struct link *link)
{
    struct conn *conn = conn_of(link);
    xy_assert(!conn->closing && (conn->tls_state == CONN_PLAIN || conn->tls_state == CONN_SECURE));
    link->owner = NULL;
    conn_leave_loop(conn);
}

static bool conn_join_loop(struct conn *conn, struct shard *shard)
{
    struct net *net = shard->net;
    struct poller *poller = calloc(1, sizeof(*poller));
    if (poller == NULL || uv_poll_init(&net->loop, &poller->poll, conn->fd) != 0) {
        free(poller);
        return false;
    }
    poller->conn = conn;
    conn->poller = poller;
    conn->link.shard = shard;
    xy_list_append(&net->conns, &conn->all);
    stat_add(shard, connections_open, 1);
    conn_poll(conn);
    return true;
}

static bool conn_attach(struct link *link, struct shard *shard, void *owner)
{
    struct conn *conn = conn_of(link);
    link->shard = shard;
    if (!conn_join_loop(conn, shard)) {
        conn_destroy(conn);
        return false;
    }
    link->owner = owner;
    return true;
}

static const struct link_calls conn_calls = {
    .write = conn_write,
    .read_pause = conn_read_pause,
    .start_tls = conn_start_tls,
    .close = conn_close,
    .sleep = conn_sleep,
    .detach = conn_detach,
    .attach = conn_attach,
};

/* --- the beginning ------------------------------------------------------------------------------------------------ */

bool conn_handshake_step(struct net *net)
{
    if (!xy_list_empty(&net->queued))
        handshakes_admit(net);
    if (!xy_list_empty(&net->handshakes)) {
        struct conn *conn = xy_container_of(net->handshakes.next, struct conn, handshake);
        xy_list_remove(&conn->handshake);
        tls_handshake(conn);
    }
    return !xy_list_empty(&net->handshakes);
}

void conn_accept(struct shard *shard, const struct conn_origin *origin)
{
    struct link link = { .calls = &conn_calls,
                         .shard = shard,
                         .kind = origin->kind,
                         .loopback = origin->loopback,
                         .uid = origin->uid };
    memcpy(link.peer, origin->peer, sizeof(link.peer));
    struct conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL) {
        close(origin->fd);
        net_peer_left(shard, &link);
        return;
    }
    conn->link = link;
    conn->fd = origin->fd;
    xy_list_init(&conn->all);
    xy_list_init(&conn->handshake);
    xy_list_init(&conn->unfinished);
    if (!conn_join_loop(conn, shard)) {
        close(conn->fd);
        net_peer_left(shard, &link);
        free(conn);
        return;
    }
    stat_add(shard, connections_accepted, 1);
    shard->link_events->opened(&conn->link);
    if (origin->kind == LINK_C2S_TLS && !conn->closing)
        conn_start_tls(&conn->link);
}
