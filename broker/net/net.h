/* The network of one shard: its libuv loop, the connections on it, and the listeners that feed them.
 *
 * Each shard runs in a thread of its own (net_run). Listeners live on shard 0 and hand accepted sockets out in turn, so
 * that connections spread evenly. TLS, timeouts of sockets and partial writes end here; what goes up are links. */
#pragma once

#include "broker/net/link.h"
#include "core/tls/tls.h"

struct net;

/* Prepares the loop of this shard. `tls` is taken as a reference (NULL: no TLS). */
bool net_init(struct shard *shard, struct xy_tls_config *tls);
void net_free(struct shard *shard); /* after its thread ended */

/* Runs the loop until net_stop; the body of the shard's thread. */
void net_run(struct shard *shard);

/* Any thread: wake the loop because there is mail; end it. */
void net_wake(struct shard *shard);
void net_stop(struct shard *shard);

/* Opens listening sockets: "address:port" of TCP, or the path of a Unix socket. Called before the threads start, so that
 * a port in use is known at once; accepting begins with net_listen_start. `error` gets prose. */
bool net_listen_tcp(struct shard *shard0, struct xy_str address, enum link_kind kind, struct xy_buf *error);
bool net_listen_local(struct shard *shard0, struct xy_str path, struct xy_buf *error);
void net_listen_start(struct shard *shard0); /* before shard 0's thread runs, or on it */
void net_listen_stop(struct shard *shard0);  /* on shard 0's thread */

bool net_is_empty(const struct shard *shard); /* no connections, lingering ones included */

/* Handshakes from now on use this configuration (reload). Takes a reference. On the shard's thread. */
void net_set_tls(struct shard *shard, struct xy_tls_config *tls);
