/* The broker's configuration: one plain struct, filled from a file in libucl syntax by a table of keys.
 *
 * Every key has a default, so an empty file is a valid configuration. Whatever is wrong is reported with
 * file, line and what would be right (for an unknown key: the nearest valid one). Adding a key is a member
 * here and a line of the table in config_keys.c; docs/man/xylemd.conf.5 documents each. Immutable once
 * loaded: reloading makes a new one. */
#pragma once

#include "broker/log.h"
#include "core/base/arena.h"
#include "core/base/buf.h"
#include "core/tls/tls.h"

#define CONFIG_UNLIMITED  UINT64_MAX /* what the word `unlimited` sets */
#define CONFIG_FILE_MAX   (1u << 20) /* bytes */
#define CONFIG_SHARDS_MAX 64u

struct config_list {
    struct xy_str *items;
    size_t count;
};

/* `auth { local_users = { "1000" = "vmhost@example.org" } }`: who a uid is on the local socket. */
struct config_local_user {
    uint32_t uid;
    struct xy_str jid;
};

/* Sizes are bytes, counts are counts, times are milliseconds (…_ms). */
struct config_limits {
    uint64_t stanza_size;
    uint64_t unauthenticated_timeout_ms; /* from accept to a successful login, whatever the peer sends */
    uint64_t idle_timeout_ms; /* nothing received for so long: closed, or detached if resumable; 0: never */
    uint64_t stalled_timeout_ms; /* full outbox without progress: detached */
    uint64_t outbox;             /* per session, counted as if unshared */
    uint64_t memory;             /* the process as a whole */
    uint64_t node_memory;        /* nodes that are kept in memory, all together, about */
    uint64_t sessions;           /* bound or detached, in total */
    uint64_t sessions_per_account;
    uint64_t connections_per_address;
    uint64_t auth_failures;            /* per stream, then it is closed */
    uint64_t auth_failures_per_minute; /* per address and per account, then attempts wait */
    uint64_t handshakes;               /* unfinished TLS handshakes per shard */
    uint64_t nodes_per_account;
    uint64_t items_per_account;            /* retained, over all nodes it created */
    uint64_t bytes_per_account;            /* of these */
    uint64_t subscriptions_per_account;    /* over all nodes */
    uint64_t subscriptions_per_subscriber; /* of one account to one node */
    uint64_t subscriptions_per_node;
    uint64_t items_per_node; /* the largest number max_items may be set to, and what `max` means */
    uint64_t bytes_per_node; /* the same of max_bytes */
    uint64_t backlog_bytes;  /* the largest max_backlog_bytes of a subscription, and what `max` means there */
    uint64_t payload_size;   /* the largest value of a node's max_payload_size */
    uint64_t offline_messages; /* per account */
    uint64_t offline_bytes;
};

struct config {
    struct xy_arena *arena;     /* owns all strings below */
    struct config_list domains; /* at least one; the first is the main one; as written, unprepared */
    struct xy_str data_dir;
    uint64_t shards; /* 1..CONFIG_SHARDS_MAX; `auto` is already resolved */
    struct {
        uint64_t level;  /* enum log_level */
        uint64_t format; /* enum log_format */
    } log;
    struct {
        const struct xy_tls_library *library;
        struct xy_str certificate, key,
            client_ca; /* absent: self-signed; absent client_ca: no EXTERNAL over TLS */
    } tls;
    struct {
        struct config_list c2s, c2s_tls; /* "address:port", "[v6]:port"; port 0 lets the system choose */
        struct xy_str local;             /* path of the Unix socket; empty: none */
    } listen;
    struct {
        bool allow_plaintext; /* loopback listeners only */
        bool registration;
        struct config_local_user *local_users;
        size_t local_users_count;
    } auth;
    struct config_list admins; /* bare JIDs as written */
    struct {
        struct xy_str service; /* default: pubsub.<first domain> */
    } pubsub;
    struct config_limits limits;
    struct {
        uint64_t max_ms; /* longest resumption time granted */
        uint64_t queue;  /* unacknowledged stanzas kept per session */
        struct xy_str
            location; /* where a client had better reconnect, told in <enabled/>; absent: anywhere */
    } sm;
    struct {
        uint64_t log;     /* enum store_log_kind; of a data directory that is made */
        uint64_t log_max; /* bytes of write-ahead log before a checkpoint moves what lives */
        uint64_t checkpoint_bytes;
        uint64_t checkpoint_records;
        uint64_t map_size;       /* address space of the tables; files grow only as needed */
        uint64_t async_flush_ms; /* what durability=async may lose */
    } store;
};

/* Reads `path`. On success *out is the caller's (config_free). false: `errors` has one line per fault,
 * "FILE:LINE: what is wrong", and *out is NULL. */
bool config_load(const char *path, struct config **out, struct xy_buf *errors);

/* The same from memory; `name` stands for the file in messages. */
bool config_parse(const char *name, struct xy_str text, struct config **out, struct xy_buf *errors);

void config_free(struct config **config); /* NULL ok; nulls the caller's pointer */
