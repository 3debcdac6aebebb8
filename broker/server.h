/* The whole broker of one process: put together at start, taken apart at the end.
 *
 * main calls it; the thread that calls is the one that handles signals, every shard runs in a thread of its own. */
#pragma once

#include "broker/config.h"

struct server;

/* Recovers the store, opens the listeners, begins to serve. Takes the configuration. NULL: prose in `error`. */
struct server *server_start(struct config **config, struct log *log, const struct xy_env *env,
                            struct xy_buf *error);

/* New limits, administrators, log settings and certificates. On a bad configuration nothing changes; prose in `error`. */
bool server_reload(struct server *server, struct config **config, struct xy_buf *error);

/* Stops reading, commits what was read, tells every session, closes the store. */
void server_stop(struct server **server);
