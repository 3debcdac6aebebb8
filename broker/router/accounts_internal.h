/* What the files accounts*.c share: the jobs that travel between shards, the records, the throttle and the memory of
 * PLAIN passwords. Private to broker/router. */
#pragma once

#include "broker/config.h"
#include "broker/router/accounts.h"
#include "broker/router/router_internal.h"
#include "broker/shard/stats.h"
#include "broker/shard/workers.h"
#include "broker/store/store.h"
#include "core/base/assert.h"
#include "xylem/store/v1/records.pb-c.h"

#define ACCOUNTS_KEYS 2u /* SCRAM-SHA-1 and SCRAM-SHA-256 */

struct accounts_throttle;
struct accounts_memory;

struct accounts {
    struct accounts_throttle *throttle;
    struct accounts_memory *memory; /* PLAIN passwords that were right a moment ago */
    struct xy_str reserved;         /* admin@<first domain> */
};

/* One request to this room on its way between shards, workers and timers. It has one holder at a time; whoever holds it
 * last frees it. Strings are NUL-terminated and live in `text`. */
struct account_job {
    struct workers_job work; /* first: the pool hands this back */
    struct shard_timer timer;
    void (*after_delay)(struct shard *shard, struct account_job *job);
    unsigned asker_shard;
    struct session_ref asker;
    void *ctx;
    accounts_keys_fn *keys_fn;
    accounts_verdict_fn *verdict_fn;
    struct accounts_asker change; /* who is told */
    enum xy_scram_hash hash;
    enum xy_sasl_condition verdict;
    enum account_result result;
    bool must_exist; /* a change: the account must exist already, or must not */
    bool known;
    bool matched;
    struct xy_scram_keys keys[ACCOUNTS_KEYS];
    unsigned keys_count;
    struct xy_str bare, peer, password;
    char text[];
};

struct account_job *account_job_new(struct shard *shard, struct xy_str bare, struct xy_str peer,
                                    struct xy_str password);
void account_job_free(struct account_job *job); /* wipes */
/* Moves the job: fn(shard, &job) there. */
void account_job_mail(struct shard *shard, unsigned to, shard_fn *fn, struct account_job *job);

/* Owner's shard. `put` is unpacked; free with account_record_free. NULL: none. */
Xylem__Store__V1__AccountPut *account_record(struct shard *shard, struct xy_str bare);
void account_record_free(Xylem__Store__V1__AccountPut *put);
/* Appends; returns the ticket. `created_us` 0: now. */
uint64_t account_put(struct shard *shard, struct xy_str bare, const struct xy_scram_keys *keys,
                     unsigned count, uint64_t created_us);
/* The same on a bare store. `bare` is NUL-terminated. */
uint64_t account_append(struct store_shard *store, struct xy_str bare, const struct xy_scram_keys *keys,
                        unsigned count, uint64_t created_us);
bool account_keys_read(const Xylem__Store__V1__ScramKeys *in, struct xy_scram_keys *out);

/* Derives the keys of all hashes with fresh salts; blocking. false: the password is not allowed. `salts`: one of
 * XY_SCRAM_SALT_DEFAULT bytes per hash. */
bool account_keys_derive(struct xy_str password, uint8_t salts[ACCOUNTS_KEYS][XY_SCRAM_SALT_DEFAULT],
                         struct xy_scram_keys keys[ACCOUNTS_KEYS]);

/* --- throttle: failures by name (an account or a peer address) ----------------------------------------------------- */
struct accounts_throttle *accounts_throttle_new(uint64_t seed);
void accounts_throttle_free(struct accounts_throttle **throttle);
void accounts_throttle_count(struct accounts_throttle *throttle, struct xy_str name, uint64_t now_us);
/* Microseconds an answer about `name` has to wait; `per_minute` as configured. */
uint64_t accounts_throttle_delay(struct accounts_throttle *throttle, struct xy_str name, uint64_t per_minute,
                                 uint64_t now_us);

/* --- memory of PLAIN ---------------------------------------------------------------------------------------------- */
struct accounts_memory *accounts_memory_new(const struct xy_env *env, uint64_t seed);
void accounts_memory_free(struct accounts_memory **memory);
bool accounts_memory_knows(struct accounts_memory *memory, struct xy_str bare, struct xy_str password,
                           uint64_t now_us);
void accounts_memory_keep(struct accounts_memory *memory, struct xy_str bare, struct xy_str password,
                          uint64_t now_us);
void accounts_memory_forget(struct accounts_memory *memory, struct xy_str bare);

/* Implemented by address.c: the account came or went. Owner's shard. */
void address_account_changed(struct shard *shard, struct xy_str bare, bool exists);
