/* A client's options after checking: copied, defaults filled in, the address prepared. Made once by xylem_client_new
 * and constant afterwards; every part of the client reads it. */
#pragma once

#include <xylem/xylem.h>

#include "core/base/arena.h"
#include "core/base/env.h"
#include "core/jid.h"
#include "core/tls/tls.h"

#define XY_QUEUE_ITEMS_DEFAULT    10000u
#define XY_QUEUE_BYTES_DEFAULT    (UINT64_C(8) << 20)
#define XY_SPOOL_BYTES_DEFAULT    (UINT64_C(256) << 20)
#define XY_PUBLISH_WINDOW_DEFAULT 256u
#define XY_PUBLISH_WINDOW_MAX                                                                                \
    256u /* the broker tells duplicates this far back (docs/protocol.md, publish-id) */
#define XY_INFLIGHT_DEFAULT        256u
#define XY_INFLIGHT_MAX            1000u /* below XY_SM_WINDOW, so that other stanzas still pass */
#define XY_CONNECT_TIMEOUT_DEFAULT 20000u
#define XY_REPLY_TIMEOUT_DEFAULT   30000u
#define XY_KEEPALIVE_DEFAULT       30000u
#define XY_PING_TIMEOUT_DEFAULT    10000u
#define XY_BACKOFF_MIN_DEFAULT     250u
#define XY_BACKOFF_MAX_DEFAULT     60000u
#define XY_PORT_STARTTLS           5222u
#define XY_PORT_DIRECT_TLS         5223u

struct xy_config {
    struct xylem_options o; /* strings point into `arena`; numbers are final */
    struct xy_arena *arena;
    struct xy_jid jid; /* absent: the local socket decides */
    struct xy_str resource;
    struct xy_tls_config *tls; /* NULL: never TLS */
};

/* XYLEM_OK, or an error with its reason in `error`. */
enum xylem_status xy_config_init(struct xy_config *config, const struct xylem_options *options,
                                 const struct xy_env *env, char *error, size_t error_size);
void xy_config_free(struct xy_config *config);
