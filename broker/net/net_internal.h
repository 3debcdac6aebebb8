/* What the files of broker/net share. Private to the folder. */
#pragma once

#include <uv.h>

#include "broker/net/net.h"
#include "core/base/list.h"

#define NET_READ_BYTES       (64u << 10) /* per read and readiness; shared by all connections of a shard */
#define NET_LISTENERS_MAX    32
#define NET_BACKLOG          4096
#define NET_ACCEPTS_PER_TURN 256

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
    uv_async_t wake;
    uv_check_t check;
    uv_timer_t timer;
    uv_idle_t spin; /* active while there is more to do at once */
    _Atomic bool stopping;
    struct xy_tls_config *tls;
    struct xy_list conns;      /* all connections of this shard */
    struct xy_list handshakes; /* those whose next handshake step is due */
    struct xy_list unfinished; /* connections whose handshake is not complete, oldest first */
    unsigned unfinished_count;
    char *read_buffer;         /* NET_READ_BYTES */
    char *plain_buffer;        /* NET_READ_BYTES: decrypted */
    struct listener *listeners[NET_LISTENERS_MAX];
    unsigned listeners_count;
    unsigned next_shard; /* who gets the next accepted socket */
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
