/* Start, turns and ends, in the order of broker/server.c. */
#include "tests/model/rig.h"

#include <stdio.h>
#include <stdlib.h>

#include "broker/config.h"
#include "broker/pubsub/pubsub.h"
#include "broker/router/router.h"
#include "broker/session/session.h"
#include "broker/shard/workers.h"
#include "core/base/assert.h"
#include "tests/sim/disk.h"
#include "xylem/store/v1/records.pb-c.h"

#define WALL_BASE_US UINT64_C(1700000000000000)
#define ROUNDS_MAX   100000u

/* --- the world ---------------------------------------------------------------------------------------------------- */

static uint64_t env_now(void *ctx)
{
    return ((struct rig *)ctx)->now_us;
}

static uint64_t env_wall(void *ctx)
{
    return WALL_BASE_US + ((struct rig *)ctx)->now_us;
}

static void env_random(void *ctx, void *out, size_t len)
{
    struct rig *rig = ctx;
    for (size_t i = 0; i < len; i++)
        ((unsigned char *)out)[i] = (unsigned char)(sim_random_next(&rig->entropy) >> 32);
}

static void on_wake(void *ctx, unsigned shard)
{
    (void)ctx;
    (void)shard;
}

static void on_failed(void *ctx, const char *why)
{
    struct rig *rig = ctx;
    fprintf(stderr, "the store failed: %s\n", why);
    rig->failed = true;
}

/* --- start -------------------------------------------------------------------------------------------------------- */

static void store_begin(struct rig *rig)
{
    struct xy_buf error = { 0 };
    struct store_options options = { .backend = &rig->disk->backend,
                                     .shards = rig->shards,
                                     .env = &rig->env,
                                     .committed = on_wake,
                                     .failed = on_failed,
                                     .ctx = rig };
    rig->store = store_open(&options, &error);
    if (rig->store == NULL)
        fprintf(stderr, "store_open: %.*s\n", XY_ARG(xy_buf_view(&error)));
    xy_assert(rig->store != NULL);
    xy_buf_free(&error);
}

static void account_put(struct store_shard *shard, const char *jid)
{
    Xylem__Store__V1__AccountPut put = XYLEM__STORE__V1__ACCOUNT_PUT__INIT;
    put.jid = (char *)(uintptr_t)jid;
    (void)store_append(shard, RECORD_ACCOUNT_PUT, &put.base);
}

static void begin(struct rig *rig)
{
    store_begin(rig);
    struct shard_group_options options = { .count = rig->shards,
                                           .env = &rig->env,
                                           .config = rig->config,
                                           .store = rig->store,
                                           .wake = on_wake,
                                           .ctx = rig };
    xy_random(&rig->env, &options.hash_seed, sizeof(options.hash_seed));
    rig->group = shard_group_new(&options);
    rig->workers = workers_new(rig->group, 0);
    for (unsigned i = 0; i < rig->shards; i++) {
        struct shard *shard = rig_shard(rig, i);
        shard->workers = rig->workers;
        bool ok = sessions_init(shard) && router_init(shard) && pubsub_init(shard);
        xy_assert(ok);
    }
}

void rig_open(struct rig *rig, uint64_t seed, unsigned shards)
{
    struct xy_buf text = { 0 }, errors = { 0 };
    xy_assert(shards > 0 && shards <= RIG_SHARDS_MAX);
    rig->now_us = 1000000;
    rig->entropy.state = seed;
    rig->env = (struct xy_env){ .now_us = env_now, .wall_us = env_wall, .random = env_random, .ctx = rig };
    rig->shards = 1;
    rig->judge = sim_model_new();
    rig->disk = sim_disk_new(rig->judge);
    xy_buf_printf(&text, "domain = \"" RIG_DOMAIN "\"; sm { max = %us; }\n", RIG_SM_SECONDS);
    bool parsed = config_parse("model", xy_buf_view(&text), &rig->config, &errors);
    xy_assert(parsed);
    if (seed % 2 != 0) /* no node stays in memory longer than somebody needs it */
        rig->config->limits.node_memory = 1;
    if (seed % 2 == 0) /* idle nodes leave memory all the time */
        rig->config->limits.node_memory = 1024;
    /* The model sends an item when it is published, so it has to be on disk then. */
    rig->config->store.async_flush_ms = 0;
    store_begin(rig);
    for (unsigned i = 0; i < RIG_ACCOUNTS; i++) {
        char jid[32];
        snprintf(jid, sizeof(jid), "a%u@" RIG_DOMAIN, i);
        account_put(store_shard(rig->store, 0), jid);
    }
    store_close(&rig->store);
    rig->shards = shards;
    begin(rig);
    xy_buf_free(&text);
    xy_buf_free(&errors);
}

/* --- turns -------------------------------------------------------------------------------------------------------- */

struct shard *rig_shard(struct rig *rig, unsigned shard)
{
    return shard_group_get(rig->group, shard);
}

static bool round_run(struct rig *rig)
{
    bool any = false;
    for (unsigned i = 0; i < rig->shards; i++)
        any |= shard_turn(rig_shard(rig, i)) == 0;
    while (workers_step(rig->workers))
        any = true;
    for (unsigned i = 0; i < rig->shards; i++)
        any |= shard_has_mail(rig_shard(rig, i));
    return (rig->pump != NULL && rig->pump(rig->ctx)) || any;
}

void rig_turns(struct rig *rig)
{
    for (unsigned i = 0; round_run(rig); i++)
        xy_assert(i < ROUNDS_MAX);
}

void rig_settle(struct rig *rig)
{
    unsigned i = 0;
    do {
        rig_turns(rig);
        xy_assert(++i < ROUNDS_MAX);
    } while (store_step_commit(rig->store));
}

/* Until the next timer of any shard; everything has settled. */
static uint64_t until_next_us(struct rig *rig)
{
    uint64_t least_us = UINT64_MAX;
    for (unsigned i = 0; i < rig->shards; i++) {
        uint64_t wait_us = shard_turn(rig_shard(rig, i));
        least_us = wait_us < least_us ? wait_us : least_us;
    }
    return least_us > 0 ? least_us : 1;
}

/* From one timer to the next, so that they run in the order in which they are due. */
void rig_pass(struct rig *rig, uint64_t us)
{
    while (us > 0) {
        uint64_t next_us = until_next_us(rig), step_us = us < next_us ? us : next_us;
        rig->now_us += step_us;
        us -= step_us;
        rig_settle(rig);
    }
}

void rig_checkpoint(struct rig *rig)
{
    (void)store_step_checkpoint(rig->store);
    rig_settle(rig);
}

/* --- ends --------------------------------------------------------------------------------------------------------- */

static void end(struct rig *rig, bool crash)
{
    if (crash) {
        sim_disk_die(rig->disk);
    } else {
        for (unsigned i = 0; i < rig->shards; i++) {
            pubsub_quiesce(rig_shard(rig, i));
            sessions_quiesce(rig_shard(rig, i));
        }
        rig_settle(rig);
        for (unsigned i = 0; i < rig->shards; i++)
            sessions_shutdown(rig_shard(rig, i));
        rig_settle(rig);
    }
    for (unsigned i = 0; i < rig->shards; i++)
        sessions_end_all(rig_shard(rig, i));
    rig_settle(rig); /* to a disk that keeps nothing, after a crash: only so that no memory is lost */
    for (unsigned i = 0; i < rig->shards; i++) {
        pubsub_free(rig_shard(rig, i));
        router_free(rig_shard(rig, i));
        sessions_free(rig_shard(rig, i));
    }
    workers_free(&rig->workers);
    if (crash)
        store_crash(&rig->store);
    else
        store_close(&rig->store);
    sim_disk_revive(rig->disk);
    shard_group_free(&rig->group);
}

void rig_restart(struct rig *rig, bool crash, unsigned shards)
{
    end(rig, crash);
    rig->shards = shards;
    begin(rig);
}

void rig_close(struct rig *rig)
{
    end(rig, true);
    sim_disk_free(&rig->disk);
    sim_model_free(&rig->judge);
    config_free(&rig->config);
}
