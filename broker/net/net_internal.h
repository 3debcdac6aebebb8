/* What the files of broker/net share. Private to the folder. */
#pragma once

#include <uv.h>

#include "broker/net/net.h"
#include "core/base/list.h"
#include "core/base/table.h"

/* Per read and turn; the buffer is shared by all connections of a shard. What a turn publishes is committed together, so a
 * window of a hundred publishes is read in two parts: one is on its way to the disk while the other is parsed. */
#define NET_READ_BYTES            (24u << 10)
#define NET_LISTENERS_MAX         32
#define NET_BACKLOG               4096
#define NET_ACCEPTS_PER_TURN      256
#define NET_ACCEPT_PAUSE_US       (100u * 1000) /* after accept failed for want of descriptors or memory */
#define NET_COMPLAIN_US           (1000u * 1000) /* between two log lines about connections that cannot be taken */
#define NET_HANDSHAKE_PATIENCE_US (2000u * 1000) /* a handshake may take so long while others wait */
#define NET_MEMORY_LOOK_US        (1000u * 1000)
#define NET_KEEPALIVE_IDLE_S      60 /* without traffic until the kernel asks whether the peer is still there */
#define NET_KEEPALIVE_INTERVAL_S  15
#define NET_KEEPALIVE_COUNT       4
#define NET_USER_TIMEOUT_MIN_MS   10000u /* a path may need that long to recover */

struct listener {
    uv_poll_t poll;
    struct net *net;
    int fd;
    enum link_kind kind;
    char path[108]; /* of a Unix socket, to be unlinked */
};

struct net {
    struct shard *shard;
    uv_loop_t loop;
    int wake_fd; /* an eventfd */
    uv_poll_t wake;
    uv_check_t check;
    uv_timer_t timer;
    uv_idle_t spin; /* active while there is more to do at once */
    _Atomic bool stopping;
    struct xy_tls_config *tls;
    struct xy_list conns;      /* all connections of this shard */
    struct xy_list handshakes; /* those whose next handshake step is due */
    struct xy_list unfinished; /* connections whose handshake is not complete, oldest first */
    unsigned unfinished_count;
    struct xy_list queued;       /* connections that wait for room to begin theirs */
    struct shard_timer patience; /* when the oldest unfinished one may have to go */
    char *read_buffer;           /* NET_READ_BYTES */
    char *plain_buffer;          /* NET_READ_BYTES: decrypted */
    struct listener *listeners[NET_LISTENERS_MAX];
    unsigned listeners_count;
    unsigned next_shard; /* who gets the next accepted socket */
    struct shard_timer accept_pause;
    struct xy_table *peers; /* shard 0: addresses by text: struct peer, how many connections they have */
    struct shard_timer memory_look; /* shard 0 */
    int memory_fd;
    uint64_t complained_us; /* when a log line last said that connections cannot be taken */
};

/* An accepted socket begins its life on this shard. Takes the descriptor. */
struct conn_origin {
    int fd;
    enum link_kind kind;
    bool loopback;
    uid_t uid;
    char peer[LINK_PEER_MAX];
};
void conn_accept(struct shard *shard, const struct conn_origin *origin);

/* One step of the oldest handshake that is due; true if more are due. */
bool conn_handshake_step(struct net *net);
void conn_destroy_all(struct net *net);
void conn_on_patience(struct shard *shard, struct shard_timer *timer);

/* listener.c: a connection that was accepted is over. */
void net_peer_left(struct shard *shard, const struct link *link);
void net_peers_free(struct net *net);

/* memory.c; shard 0 */
void memory_watch(struct net *net);
void memory_watch_end(struct net *net);
