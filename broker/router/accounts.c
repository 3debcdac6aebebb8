/* The accounts of one shard: their records, and the jobs that travel between shards about them. */
#include "broker/router/accounts_internal.h"

#include <stdlib.h>

bool accounts_init(struct shard *shard)
{
    struct accounts *accounts = calloc(1, sizeof(*accounts));
    if (!accounts)
        return false;
    shard->router->accounts = accounts;
    uint64_t seeds[2];
    xy_random(shard->env, seeds, sizeof(seeds));
    accounts->throttle = accounts_throttle_new(seeds[0]);
    accounts->memory = accounts_memory_new(shard->env, seeds[1]);
    xy_assert(shard->router->domains_count > 0);
    accounts->reserved =
        xy_arena_printf(shard->router->arena, "admin@%.*s", XY_ARG(shard->router->domains[0]));
    if (accounts->throttle && accounts->memory && xy_str_present(accounts->reserved))
        return true;
    accounts_free(shard);
    return false;
}

void accounts_free(struct shard *shard)
{
    struct accounts *accounts = shard->router->accounts;
    if (!accounts)
        return;
    accounts_throttle_free(&accounts->throttle);
    accounts_memory_free(&accounts->memory);
    free(accounts);
    shard->router->accounts = NULL;
}

bool accounts_is_reserved(const struct shard *shard, struct xy_str bare)
{
    return xy_str_eq(bare, shard->router->accounts->reserved);
}

bool accounts_exists(struct shard *shard, struct xy_str bare)
{
    if (accounts_is_reserved(shard, bare))
        return true;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    if (!arena)
        return false;
    struct xy_str value;
    bool found = store_get(shard->store, STORE_ACCOUNTS, bare, arena, &value);
    xy_arena_pool_give(shard->arenas, &arena);
    return found;
}

/* --- jobs --------------------------------------------------------------------------------------------------------- */

static struct xy_str put_text(char **at, struct xy_str s)
{
    if (!xy_str_present(s))
        return XY_STR_NONE;
    char *start = *at;
    if (s.len)
        memcpy(start, s.data, s.len);
    start[s.len] = '\0';
    *at += s.len + 1;
    return xy_str_n(start, s.len);
}

struct account_job *account_job_new(struct shard *shard, struct xy_str bare, struct xy_str peer,
                                    struct xy_str password)
{
    struct account_job *job = calloc(1, sizeof(*job) + bare.len + peer.len + password.len + 3);
    if (!job)
        return NULL;
    char *at = job->text;
    job->bare = put_text(&at, bare);
    job->peer = put_text(&at, peer);
    job->password = put_text(&at, password);
    job->asker_shard = shard->index;
    return job;
}

void account_job_free(struct account_job *job)
{
    xy_assert(!shard_timer_is_set(&job->timer));
    explicit_bzero(job->keys, sizeof(job->keys));
    if (job->password.len)
        explicit_bzero((char *)(uintptr_t)job->password.data, job->password.len);
    free(job);
}

void account_job_mail(struct shard *shard, unsigned to, shard_fn *fn, struct account_job *job)
{
    shard_mail(shard, to, fn, &job, sizeof(struct account_job *));
}

/* --- records ------------------------------------------------------------------------------------------------------ */

Xylem__Store__V1__AccountPut *account_record(struct shard *shard, struct xy_str bare)
{
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    if (!arena)
        return NULL;
    struct xy_str value;
    Xylem__Store__V1__AccountPut *put = NULL;
    if (store_get(shard->store, STORE_ACCOUNTS, bare, arena, &value))
        put = xylem__store__v1__account_put__unpack(NULL, value.len, (const uint8_t *)value.data);
    xy_arena_pool_give(shard->arenas, &arena);
    return put;
}

void account_record_free(Xylem__Store__V1__AccountPut *put)
{
    if (put)
        xylem__store__v1__account_put__free_unpacked(put, NULL);
}

bool account_keys_read(const Xylem__Store__V1__ScramKeys *in, struct xy_scram_keys *out)
{
    *out = (struct xy_scram_keys){ 0 };
    if (in->hash != XY_SCRAM_SHA_1 && in->hash != XY_SCRAM_SHA_256)
        return false;
    out->hash = (enum xy_scram_hash)in->hash;
    size_t len = xy_scram_key_len(out->hash);
    if (in->salt.len > sizeof(out->salt) || in->stored_key.len != len || in->server_key.len != len)
        return false;
    out->iterations = in->iterations;
    out->salt_len = (uint32_t)in->salt.len;
    if (in->salt.len)
        memcpy(out->salt, in->salt.data, in->salt.len);
    memcpy(out->stored_key, in->stored_key.data, len);
    memcpy(out->server_key, in->server_key.data, len);
    return true;
}

uint64_t account_append(struct store_shard *store, struct xy_str bare, const struct xy_scram_keys *keys,
                        unsigned count, uint64_t created_us)
{
    Xylem__Store__V1__ScramKeys rows[ACCOUNTS_KEYS];
    Xylem__Store__V1__ScramKeys *pointers[ACCOUNTS_KEYS];
    xy_assert(count <= ACCOUNTS_KEYS);
    for (unsigned i = 0; i < count; i++) {
        size_t len = xy_scram_key_len(keys[i].hash);
        xylem__store__v1__scram_keys__init(&rows[i]);
        rows[i].hash = (uint32_t)keys[i].hash;
        rows[i].iterations = keys[i].iterations;
        rows[i].salt = (ProtobufCBinaryData){ keys[i].salt_len, (uint8_t *)(uintptr_t)keys[i].salt };
        rows[i].stored_key = (ProtobufCBinaryData){ len, (uint8_t *)(uintptr_t)keys[i].stored_key };
        rows[i].server_key = (ProtobufCBinaryData){ len, (uint8_t *)(uintptr_t)keys[i].server_key };
        pointers[i] = &rows[i];
    }
    Xylem__Store__V1__AccountPut put = XYLEM__STORE__V1__ACCOUNT_PUT__INIT;
    put.jid = (char *)(uintptr_t)bare.data;
    put.n_keys = count;
    put.keys = pointers;
    put.created_us = created_us;
    return store_append(store, RECORD_ACCOUNT_PUT, &put.base);
}

uint64_t account_put(struct shard *shard, struct xy_str bare, const struct xy_scram_keys *keys,
                     unsigned count, uint64_t created_us)
{
    return account_append(shard->store, bare, keys, count, created_us ? created_us : xy_wall_us(shard->env));
}

bool account_keys_derive(struct xy_str password, uint8_t salts[ACCOUNTS_KEYS][XY_SCRAM_SALT_DEFAULT],
                         struct xy_scram_keys keys[ACCOUNTS_KEYS])
{
    static const enum xy_scram_hash hashes[ACCOUNTS_KEYS] = { XY_SCRAM_SHA_1, XY_SCRAM_SHA_256 };
    for (unsigned i = 0; i < ACCOUNTS_KEYS; i++)
        if (!xy_scram_keys_derive(hashes[i], password,
                                  xy_str_n((const char *)salts[i], XY_SCRAM_SALT_DEFAULT),
                                  XY_SCRAM_ITERATIONS_DEFAULT, &keys[i]))
            return false;
    return true;
}
