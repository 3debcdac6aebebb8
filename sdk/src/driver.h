/* Between the client and whatever moves its bytes: the drivers, and the tests' in-memory peer.
 *
 * The client does no I/O. A driver gives it turns:
 *
 *     xy_client_enter(c);
 *     ... xy_client_connected / _receive / _sent / _lost as things happened ...
 *     xy_client_tick(c);
 *     ... follow xy_client_attempt: connect or close; write xy_client_output ...
 *     if (!xy_client_leave(c)) return;      // a callback freed the client
 *
 * Callbacks of the application run only between enter and leave. */
#pragma once

#include <xylem/xylem.h>

#include "core/base/env.h"
#include "core/base/str.h"

/* What a driver is to the client. */
struct xy_driver {
    void (*wake)(void *ctx); /* from any thread: a turn is wanted soon */
    void (*turn)(
        void *ctx); /* from the client's thread, outside a turn: its deadline may have changed. NULL ok */
    void (*freed)(void *ctx); /* the client is gone: close everything */
};

enum xylem_status xy_client_new(struct xylem_client **out, const struct xylem_options *options,
                                const struct xy_env *env, char *error, size_t error_size);
void xy_client_set_driver(struct xylem_client *c, const struct xy_driver *driver, void *ctx);
void *xy_client_driver(const struct xylem_client *c); /* its ctx; NULL: none yet */

void xy_client_enter(struct xylem_client *c);
bool xy_client_leave(struct xylem_client *c);

/* 0: no connection is wanted. Otherwise the number of the one that is: a driver that holds another closes it. */
uint64_t xy_client_attempt(const struct xylem_client *c);

/* Where to. Strings live as long as the attempt. */
struct xy_target {
    const char *socket_path; /* then nothing else counts */
    const char *host;        /* A/AAAA of this, or … */
    const char *domain;      /* … SRV of this (host NULL), with itself at `port` as the fallback */
    uint16_t port;
    bool direct_tls;
};
void xy_client_target(const struct xylem_client *c, struct xy_target *out);

void xy_client_connected(struct xylem_client *c);
/* The connection ended or could not be made; `why` in prose. */
void xy_client_lost(struct xylem_client *c, const char *why);
bool xy_client_wants_input(const struct xylem_client *c);
void xy_client_receive(struct xylem_client *c, const void *data, size_t len);
struct xy_str xy_client_output(struct xylem_client *c);
void xy_client_sent(struct xylem_client *c, size_t len);

uint64_t
xy_client_deadline_us(struct xylem_client *c); /* when the next tick is due; 0: at once; UINT64_MAX: never */
void xy_client_tick(struct xylem_client *c);
