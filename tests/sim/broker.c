/* Start, turns and ends of the broker. The order is that of broker/server.c. */
#include "tests/sim/broker.h"

#include <stdio.h>
#include <stdlib.h>

#include "broker/config.h"
#include "broker/router/router.h"
#include "broker/session/session.h"
#include "broker/shard/stats.h"
#include "broker/shard/workers.h"
#include "core/base/assert.h"
#include "tests/sim/app.h"
#include "tests/sim/disk.h"
#include "tests/sim/faults.h"
#include "tests/sim/wire.h"
#include "xylem/store/v1/records.pb-c.h"

#include "broker/pubsub/pubsub.h"

#define QUIET_ROUNDS_MAX 100000u
#define STOP_POLL_US     2000u /* as broker/server.c */
#define STOP_TRIES_MAX   1500u
#define OTHERS_STEPS_MAX 20u /* what other threads may still do before a process that gives up is gone */

static struct config *configure(const struct sim_world *world)
{
    const struct sim_mood *mood = &world->mood;
    unsigned account_items = sim_app_account_items(world);
    struct xy_buf text = { 0 }, errors = { 0 };
    struct config *config = NULL;
    xy_buf_printf(&text,
                  "domain = \"" SIM_DOMAIN "\"; auth { allow_plaintext = true; }\n"
                  "limits { outbox = %ukb; stalled_timeout = %us; } sm { max = %us; queue = %u; }\n",
                  mood->outbox_kib, mood->stalled_seconds, mood->sm_seconds, mood->queue_max);
    if (account_items > 0)
        xy_buf_printf(&text, "limits { items_per_account = %u; }\n", account_items);
    if (!config_parse("simulation", xy_buf_view(&text), &config, &errors))
        fprintf(stderr, "%.*s\n", XY_ARG(xy_buf_view(&errors)));
    xy_assert(config != NULL);
    xy_buf_free(&text);
    xy_buf_free(&errors);
    return config;
}

/* --- the store's accounts ----------------------------------------------------------------------------------------- */

static void on_failed(void *ctx, const char *why)
{
    struct sim_world *world = ctx;
    if (world->broker == NULL || !world->disk->broken) {
        sim_violation(world->model, "the store failed: %s", why);
        return;
    }
    sim_trace(world, "the store failed: %s", why);
    world->broker->failed = true;
    world->dies_at_step = world->step + sim_below(&world->random, OTHERS_STEPS_MAX);
}

static void on_wake(void *ctx, unsigned shard)
{
    struct sim_world *world = ctx;
    if (world->broker)
        world->broker->woken[shard] = true;
}

static struct store *open_store(struct sim_world *world, unsigned shards)
{
    struct xy_buf error = { 0 };
    struct store_options options = { .backend = &world->disk->backend,
                                     .shards = shards,
                                     .env = &world->env,
                                     .committed = on_wake,
                                     .failed = on_failed,
                                     .ctx = world };
    struct store *store = store_open(&options, &error);
    if (store == NULL)
        sim_violation(world->model, "the store did not open: %.*s", XY_ARG(xy_buf_view(&error)));
    xy_buf_free(&error);
    return store;
}

static void account_put(struct sim_world *world, struct store_shard *shard, struct xy_str name)
{
    enum { KEYS = 2 };
    Xylem__Store__V1__ScramKeys keys[KEYS], *pointers[KEYS] = { &keys[0], &keys[1] };
    Xylem__Store__V1__AccountPut put = XYLEM__STORE__V1__ACCOUNT_PUT__INIT;
    for (size_t i = 0; i < world->options.keys_count; i++) {
        const struct xy_scram_keys *k = &world->options.keys[i];
        size_t len = xy_scram_key_len(k->hash);
        keys[i] = (Xylem__Store__V1__ScramKeys)XYLEM__STORE__V1__SCRAM_KEYS__INIT;
        keys[i].hash = k->hash;
        keys[i].iterations = k->iterations;
        keys[i].salt = (ProtobufCBinaryData){ k->salt_len, (uint8_t *)(uintptr_t)k->salt };
        keys[i].stored_key = (ProtobufCBinaryData){ len, (uint8_t *)(uintptr_t)k->stored_key };
        keys[i].server_key = (ProtobufCBinaryData){ len, (uint8_t *)(uintptr_t)k->server_key };
    }
    put.jid = (char *)(uintptr_t)name.data;
    put.n_keys = world->options.keys_count;
    put.keys = pointers;
    put.created_us = xy_wall_us(&world->env);
    store_append(shard, RECORD_ACCOUNT_PUT, &put.base);
}

void sim_broker_prepare(struct sim_world *world)
{
    struct store *store = open_store(world, 1);
    xy_assert(store != NULL && world->options.keys_count <= 2);
    for (unsigned i = 0; i < world->options.accounts; i++) {
        char name[32];
        account_put(world, store_shard(store, 0), sim_account_name(i, name));
    }
    store_close(&store);
}

/* --- start -------------------------------------------------------------------------------------------------------- */

static bool rooms_start(struct sim_broker *broker)
{
    bool ok = true;
    for (unsigned i = 0; ok && i < broker->shards; i++) {
        struct shard *shard = shard_group_get(broker->group, i);
        shard->workers = broker->workers;
        ok = sessions_init(shard) && router_init(shard);
        ok = ok && pubsub_init(shard);
        broker->planted[i] = sim_faults_plant(broker->world, shard);
        broker->woken[i] = true;
        broker->due_us[i] = UINT64_MAX;
    }
    return ok;
}

void sim_broker_start(struct sim_world *world, unsigned shards)
{
    struct sim_broker *broker = world->broker = calloc(1, sizeof(*broker));
    xy_assert(broker != NULL && shards > 0 && shards <= SIM_SHARDS_MAX);
    broker->world = world;
    broker->shards = shards;
    broker->config = configure(world);
    broker->store = open_store(world, shards);
    if (broker->store == NULL) { /* the verdict says why */
        config_free(&broker->config);
        free(broker);
        world->broker = NULL;
        return;
    }
    struct shard_group_options options = { .count = shards,
                                           .env = &world->env,
                                           .config = broker->config,
                                           .store = broker->store,
                                           .wake = on_wake,
                                           .ctx = world };
    xy_random(&world->env, &options.hash_seed, sizeof(options.hash_seed));
    broker->group = shard_group_new(&options);
    broker->workers = workers_new(broker->group, 0);
    bool ok = rooms_start(broker);
    xy_assert(ok);
    sim_trace(world, "broker up with %u shards", shards);
}

/* --- turns -------------------------------------------------------------------------------------------------------- */

struct shard *sim_broker_shard(struct sim_broker *broker, unsigned shard)
{
    return shard_group_get(broker->group, shard);
}

void sim_broker_wake(struct sim_broker *broker, unsigned shard)
{
    broker->woken[shard] = true;
}

static bool is_awake(const struct sim_broker *broker, unsigned shard)
{
    return broker->woken[shard] || broker->due_us[shard] <= broker->world->now_us;
}

bool sim_broker_turn(struct sim_broker *broker, unsigned shard)
{
    if (!is_awake(broker, shard))
        return false;
    broker->woken[shard] = false;
    sim_faults_turn(broker->planted[shard], sim_broker_shard(broker, shard));
    uint64_t wait_us = shard_turn(sim_broker_shard(broker, shard));
    broker->due_us[shard] = wait_us == UINT64_MAX ? UINT64_MAX : broker->world->now_us + wait_us;
    sim_trace(broker->world, "turn of shard %u", shard);
    return true;
}

uint64_t sim_broker_due(const struct sim_broker *broker)
{
    uint64_t due_us = UINT64_MAX;
    for (unsigned i = 0; i < broker->shards; i++)
        if (broker->due_us[i] < due_us)
            due_us = broker->due_us[i];
    return due_us;
}

bool sim_broker_awake(const struct sim_broker *broker)
{
    for (unsigned i = 0; i < broker->shards; i++)
        if (is_awake(broker, i))
            return true;
    return false;
}

uint64_t sim_broker_stat(struct sim_broker *broker, size_t offset)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < broker->shards; i++) {
        const char *stats = (const char *)sim_broker_shard(broker, i)->stats;
        sum += atomic_load((const atomic_uint_fast64_t *)(const void *)(stats + offset));
    }
    return sum;
}

/* --- ends --------------------------------------------------------------------------------------------------------- */

static bool somebody_has_mail(struct sim_broker *broker)
{
    for (unsigned i = 0; i < broker->shards; i++)
        if (shard_has_mail(sim_broker_shard(broker, i)))
            return true;
    return false;
}

/* Until nobody has anything to say to anybody, as shards_close of broker/server.c; commits are reported done. */
static void turns_until_quiet(struct sim_broker *broker)
{
    bool more = true;
    for (unsigned round = 0; more && round < QUIET_ROUNDS_MAX; round++) {
        more = false;
        for (unsigned i = 0; i < broker->shards; i++)
            more |= shard_turn(sim_broker_shard(broker, i)) == 0;
        while (broker->workers && workers_step(broker->workers))
            more = true;
        more |= store_step_commit(broker->store);
        more |= somebody_has_mail(broker);
    }
    xy_assert(!more);
}

/* What waits for a commit that failed waits for ever, and so does what waits for records that nobody hurries, whose time has
 * not come. The process would be gone by now; here its memory stays, where a leak checker sees that it is known of. */
struct grave {
    struct grave *next;
    struct shard_group *group;
};
static struct grave *graves;

static void bury(struct shard_group **group)
{
    struct grave *grave = calloc(1, sizeof(*grave));
    xy_assert(grave != NULL);
    *grave = (struct grave){ graves, *group };
    graves = grave;
    *group = NULL;
}

static bool somebody_waits(struct sim_broker *broker)
{
    for (unsigned i = 0; i < broker->shards; i++)
        if (shard_waits(sim_broker_shard(broker, i)))
            return true;
    return false;
}

static void take_apart(struct sim_world *world, bool crash)
{
    struct sim_broker *broker = world->broker;
    for (unsigned i = 0; i < broker->shards; i++)
        sessions_end_all(sim_broker_shard(broker, i));
    turns_until_quiet(broker);
    world->stalls += sim_broker_stat(broker, offsetof(struct shard_stats, events_stalled)) +
                     sim_broker_stat(broker, offsetof(struct shard_stats, outbox_full));
    for (unsigned i = 0; i < broker->shards; i++) {
        struct shard *shard = sim_broker_shard(broker, i);
        pubsub_free(shard);
        router_free(shard);
        sessions_free(shard);
    }
    for (unsigned i = 0; i < broker->shards; i++)
        sim_faults_free(&broker->planted[i]);
    workers_free(&broker->workers);
    if (crash) {
        store_crash(&broker->store);
    } else { /* nothing is said to anybody any more: the power may fail in the last checkpoint */
        world->disk->die_in = sim_below(&world->random, 4);
        store_close(&broker->store);
        world->crashes += world->disk->dead; /* then it was no orderly end after all */
    }
    sim_disk_revive(world->disk);
    if (broker->failed || somebody_waits(broker))
        bury(&broker->group);
    else
        shard_group_free(&broker->group);
    config_free(&broker->config);
    for (size_t i = 0; i < world->wires_count; i++)
        xy_assert(world->wires[i]->broker_closed);
    free(broker);
    world->broker = NULL;
}

void sim_broker_crash(struct sim_world *world)
{
    sim_trace(world, "crash");
    world->crashes++;
    sim_disk_die(world->disk);
    for (size_t i = 0; i < world->wires_count; i++)
        sim_wire_broker_died(world->wires[i]);
    take_apart(world, true);
}

static bool all_quiet(struct sim_broker *broker)
{
    for (unsigned i = 0; i < broker->shards; i++) {
        struct shard *shard = sim_broker_shard(broker, i);
        if (!sessions_quiet(shard) || store_committed(shard->store) < store_ticket(shard->store))
            return false;
    }
    return true;
}

void sim_broker_stop(struct sim_world *world)
{
    struct sim_broker *broker = world->broker;
    sim_trace(world, "stop");
    world->restarts++;
    world->disk->die_in = world->disk->break_in = 0;
    for (unsigned i = 0; i < broker->shards; i++) {
        pubsub_quiesce(sim_broker_shard(broker, i));
        sessions_quiesce(sim_broker_shard(broker, i));
    }
    for (unsigned i = 0; i < STOP_TRIES_MAX; i++) {
        turns_until_quiet(broker);
        if (all_quiet(broker))
            break;
        world->now_us += STOP_POLL_US;
    }
    if (!all_quiet(broker))
        sim_violation(world->model, "a stopping broker does not come to rest");
    for (unsigned i = 0; i < broker->shards; i++)
        sessions_shutdown(sim_broker_shard(broker, i));
    turns_until_quiet(broker);
    take_apart(world, false);
}
