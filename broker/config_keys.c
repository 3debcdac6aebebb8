/* Every key of the configuration file, once. A new key is a line here and a member of struct config. */
#include "broker/config_keys.h"

#include <stddef.h>

#define KIB    (UINT64_C(1) << 10)
#define MIB    (UINT64_C(1) << 20)
#define GIB    (UINT64_C(1) << 30)
#define TIB    (UINT64_C(1) << 40)
#define SECOND UINT64_C(1000)
#define DAY    (86400 * SECOND)
#define ANY    UINT64_MAX

static const char *const levels[] = { "error", "warning", "info", "debug", NULL };
static const char *const formats[] = { "text", "json", NULL };
static const char *const logs[] = { "lmdb", "segments", NULL };
static const char *const automatic[] = { "auto", NULL };
static const char *const unlimited[] = { "unlimited", NULL };

#define AT(member) offsetof(struct config, member)
#define TEXT(path, kind, fallback, member)                                                                   \
    {                                                                                                        \
        path, kind, fallback, AT(member), 0, 0, NULL, 0                                                      \
    }
#define FLAG(path, fallback, member)                                                                         \
    {                                                                                                        \
        path, CONFIG_BOOL, fallback, AT(member), 0, 0, NULL, 0                                               \
    }
#define WORD(path, fallback, member, words)                                                                  \
    {                                                                                                        \
        path, CONFIG_WORD, fallback, AT(member), 0, 0, words, 0                                              \
    }
#define COUNT(path, fallback, member, min, max)                                                              \
    {                                                                                                        \
        path, CONFIG_COUNT, fallback, AT(member), min, max, NULL, 0                                          \
    }
#define SIZE(path, fallback, member, min, max)                                                               \
    {                                                                                                        \
        path, CONFIG_SIZE, fallback, AT(member), min, max, NULL, 0                                           \
    }
#define TIME(path, fallback, member, min, max)                                                               \
    {                                                                                                        \
        path, CONFIG_TIME, fallback, AT(member), min, max, NULL, 0                                           \
    }
#define OPEN(path, kind, fallback, member, min)                                                              \
    {                                                                                                        \
        path, kind, fallback, AT(member), min, ANY, unlimited, ANY                                           \
    }

/* clang-format off */
const struct config_key config_keys[] = {
    TEXT("domain", CONFIG_DOMAINS, "localhost", domains),
    TEXT("domains", CONFIG_DOMAINS, NULL, domains),
    TEXT("data_dir", CONFIG_STRING, "/var/lib/xylem", data_dir),
    { "shards", CONFIG_COUNT, "auto", AT(shards), 1, CONFIG_SHARDS_MAX, automatic, 0 },
    WORD("log.level", "info", log.level, levels),
    WORD("log.format", "text", log.format, formats),
    TEXT("tls.library", CONFIG_TLS_LIBRARY, NULL, tls.library),
    TEXT("tls.certificate", CONFIG_STRING, NULL, tls.certificate),
    TEXT("tls.key", CONFIG_STRING, NULL, tls.key),
    TEXT("tls.client_ca", CONFIG_STRING, NULL, tls.client_ca),
    TEXT("listen.c2s", CONFIG_ADDRESSES, "[::]:5222", listen.c2s),
    TEXT("listen.c2s_tls", CONFIG_ADDRESSES, "[::]:5223", listen.c2s_tls),
    TEXT("listen.local", CONFIG_STRING, "/run/xylem/control.sock", listen.local),
    FLAG("auth.allow_plaintext", "false", auth.allow_plaintext),
    FLAG("auth.registration", "false", auth.registration),
    TEXT("auth.local_users", CONFIG_LOCAL_USERS, NULL, auth.local_users),
    TEXT("admins", CONFIG_JIDS, NULL, admins),
    TEXT("pubsub.service", CONFIG_STRING, NULL, pubsub.service),

    SIZE("limits.stanza_size", "256kb", limits.stanza_size, 10000, 16 * MIB),
    TIME("limits.unauthenticated_timeout", "10s", limits.unauthenticated_timeout_ms, 100, 3600 * SECOND),
    TIME("limits.idle_timeout", "0s", limits.idle_timeout_ms, 0, 365 * DAY),
    TIME("limits.stalled_timeout", "60s", limits.stalled_timeout_ms, 100, DAY),
    SIZE("limits.outbox", "4mb", limits.outbox, 64 * KIB, GIB),
    { "limits.memory", CONFIG_SIZE, "auto", AT(limits.memory), 16 * MIB, ANY, automatic, 0 },
    { "limits.node_memory", CONFIG_SIZE, "auto", AT(limits.node_memory), MIB, ANY, automatic, 0 },
    OPEN("limits.sessions", CONFIG_COUNT, "100000", limits.sessions, 1),
    OPEN("limits.sessions_per_account", CONFIG_COUNT, "100", limits.sessions_per_account, 1),
    OPEN("limits.connections_per_address", CONFIG_COUNT, "20000", limits.connections_per_address, 1),
    COUNT("limits.auth_failures", "5", limits.auth_failures, 1, 1000),
    OPEN("limits.auth_failures_per_minute", CONFIG_COUNT, "30", limits.auth_failures_per_minute, 1),
    COUNT("limits.handshakes", "64", limits.handshakes, 1, 65536),
    OPEN("limits.nodes_per_account", CONFIG_COUNT, "10000", limits.nodes_per_account, 1),
    OPEN("limits.items_per_account", CONFIG_COUNT, "unlimited", limits.items_per_account, 1),
    OPEN("limits.bytes_per_account", CONFIG_SIZE, "unlimited", limits.bytes_per_account, 1),
    OPEN("limits.subscriptions_per_account", CONFIG_COUNT, "unlimited", limits.subscriptions_per_account, 1),
    OPEN("limits.subscriptions_per_subscriber", CONFIG_COUNT, "100000", limits.subscriptions_per_subscriber, 1),
    OPEN("limits.subscriptions_per_node", CONFIG_COUNT, "200000", limits.subscriptions_per_node, 1),
    OPEN("limits.items_per_node", CONFIG_COUNT, "unlimited", limits.items_per_node, 1),
    OPEN("limits.bytes_per_node", CONFIG_SIZE, "unlimited", limits.bytes_per_node, 1),
    OPEN("limits.backlog_bytes", CONFIG_SIZE, "unlimited", limits.backlog_bytes, 4 * KIB),
    SIZE("limits.payload_size", "256kb", limits.payload_size, 1, 16 * MIB),
    OPEN("limits.offline_messages", CONFIG_COUNT, "100000", limits.offline_messages, 0),
    OPEN("limits.offline_bytes", CONFIG_SIZE, "1gb", limits.offline_bytes, 0),

    TIME("sm.max", "300s", sm.max_ms, 0, 7 * DAY),
    COUNT("sm.queue", "10000", sm.queue, 100, 10000000),
    TEXT("sm.location", CONFIG_STRING, NULL, sm.location),

    WORD("store.log", "lmdb", store.log, logs),
    SIZE("store.log_max", "1gb", store.log_max, 64 * MIB, TIB),
    SIZE("store.checkpoint_bytes", "64mb", store.checkpoint_bytes, MIB, GIB),
    COUNT("store.checkpoint_records", "200000", store.checkpoint_records, 1000, 10000000),
    SIZE("store.map_size", "64gb", store.map_size, 16 * MIB, 64 * TIB),
    TIME("store.async_flush", "50ms", store.async_flush_ms, 1, 60 * SECOND),
};
/* clang-format on */

const size_t config_keys_count = sizeof config_keys / sizeof config_keys[0];
