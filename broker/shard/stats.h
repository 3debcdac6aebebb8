/* What a shard counts. One writer (the shard's thread), any reader: relaxed atomics. `xylem admin stats` shows the sum
 * over shards by these names; a new counter is one line here and one in the tables of docs/operations.md. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

/* one row per subject */
/* clang-format off */
#define SHARD_STATS(X) \
    X(connections_accepted) X(connections_open) X(connections_refused) X(tls_handshakes) X(tls_resumed) \
    X(bytes_in) X(bytes_out) X(logins) X(login_failures) X(logins_throttled) \
    X(sessions) X(sessions_detached) X(sessions_resumed) X(sessions_restored) X(sessions_unkept) X(sessions_replaced) \
    X(sessions_expired) \
    X(stanzas_in) X(stanzas_out) X(stanzas_refused) X(streams_failed) \
    X(messages_stored) X(messages_settled) X(messages_delivered) X(carbons) \
    X(messages_refused_full) X(messages_refused_memory) \
    X(events_delivered) X(events_dropped) X(events_stalled) \
    X(publishes) X(publishes_duplicate) X(windows_full) X(dead_letters) X(dead_letters_refused) \
    X(publishes_refused_full) X(publishes_refused_backlog) X(publishes_refused_memory) \
    X(publishes_refused_account) \
    X(nodes_refused) X(subscriptions_refused) \
    X(nodes_loaded) X(nodes_unloaded) X(items_expired) X(items_skipped) X(outbox_full) X(offers_waited) \
    X(presence_dropped) X(memory_full) \
    X(queue_sent) X(queue_returned) X(queue_timed_out) X(queue_acknowledged) X(queue_expired) X(queue_parked) \
    X(queue_dropped) \
    X(mail) X(turns)
/* clang-format on */

struct shard_stats {
#define X(name) atomic_uint_fast64_t name;
    SHARD_STATS(X)
#undef X
};

/* A single writer needs no locked instruction. */
#define stat_add(shard, name, n)                                                                             \
    atomic_store_explicit(&(shard)->stats->name,                                                             \
                          atomic_load_explicit(&(shard)->stats->name, memory_order_relaxed) + (uint64_t)(n), \
                          memory_order_relaxed)
#define stat_sub(shard, name, n)                                                                             \
    atomic_store_explicit(&(shard)->stats->name,                                                             \
                          atomic_load_explicit(&(shard)->stats->name, memory_order_relaxed) - (uint64_t)(n), \
                          memory_order_relaxed)
