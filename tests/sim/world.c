/* The order of things: which step is next, when faults happen, when the run is over. */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/shard/stats.h"
#include "broker/shard/workers.h"
#include "core/base/assert.h"
#include "tests/sim/app.h"
#include "tests/sim/broker.h"
#include "tests/sim/disk.h"
#include "tests/sim/wire.h"

#define WALL_BASE_US    UINT64_C(1700000000000000)
#define DRAIN_STEPS_MAX 400000u
#define DRAIN_US_MAX    (600ull * 1000 * 1000)
#define SETTLE_US       1000000u /* until acknowledgements are on disk, which nobody waits for */
#define DOWN_US_MAX     500000u
#define STORE_BYTES_MAX (64ull << 20)
#define EXTRAS          UINT64_C(0x5851f42d4c957f2d)

/* --- clock, entropy, trace ---------------------------------------------------------------------------------------- */

static uint64_t env_now(void *ctx)
{
    return ((struct sim_world *)ctx)->now_us;
}

static uint64_t env_wall(void *ctx)
{
    return WALL_BASE_US + ((struct sim_world *)ctx)->now_us;
}

static void env_random(void *ctx, void *out, size_t len)
{
    struct sim_world *world = ctx;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)out)[i] = (uint8_t)(sim_random_next(&world->entropy) >> 32);
}

static void hash_bytes(struct sim_world *world, const char *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        world->hash = (world->hash ^ (unsigned char)data[i]) * UINT64_C(0x100000001b3);
}

void sim_trace(struct sim_world *world, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    hash_bytes(world, text, (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1);
    if (world->options.trace)
        printf("%u/%" PRIu64 " %10" PRIu64 " %s\n", world->step, world->model->moment, world->now_us, text);
}

void sim_trace_bytes(struct sim_world *world, const char *what, unsigned who, struct xy_str bytes)
{
    hash_bytes(world, bytes.data, bytes.len);
    sim_trace(world, "%s %u: %zu bytes", what, who, bytes.len);
    if (world->options.trace)
        printf("    %.*s\n", XY_ARG(bytes));
}

struct xy_str sim_account_name(unsigned account, char out[32])
{
    int len = snprintf(out, 32, "a%u@" SIM_DOMAIN, account);
    return xy_str_n(out, (size_t)len);
}

/* --- kinds of steps: each returns false if there was nothing to do ------------------------------------------------- */

typedef bool step_fn(struct sim_world *world);

static bool step_turn(struct sim_world *world)
{
    if (world->broker == NULL)
        return false;
    unsigned first = sim_below(&world->random, world->broker->shards);
    for (unsigned i = 0; i < world->broker->shards; i++)
        if (sim_broker_turn(world->broker, (first + i) % world->broker->shards))
            return true;
    return false;
}

static bool step_deliver(struct sim_world *world)
{
    if (world->broker == NULL || world->wires_count == 0)
        return false;
    size_t first = sim_below(&world->random, (uint32_t)world->wires_count);
    for (size_t i = 0; i < world->wires_count; i++) {
        struct sim_wire *wire = world->wires[(first + i) % world->wires_count];
        if (!sim_wire_input_ready(wire))
            continue;
        sim_wire_deliver(wire);
        return true;
    }
    return false;
}

static bool step_receive(struct sim_world *world)
{
    unsigned first = sim_below(&world->random, world->options.clients);
    for (unsigned i = 0; i < world->options.clients; i++)
        if (sim_client_receive(world->clients[(first + i) % world->options.clients]))
            return true;
    return false;
}

static bool step_act(struct sim_world *world)
{
    sim_client_act(world->clients[sim_below(&world->random, world->options.clients)]);
    return true;
}

static bool step_commit(struct sim_world *world)
{
    if (world->broker == NULL || !store_step_commit(world->broker->store))
        return false;
    sim_trace(world, "commit");
    return true;
}

static bool step_checkpoint(struct sim_world *world)
{
    if (world->broker == NULL)
        return false;
    bool done = store_step_checkpoint(world->broker->store);
    sim_trace(world, "checkpoint: %s", done ? "done" : "not done");
    return true;
}

static bool step_work(struct sim_world *world)
{
    return world->broker && workers_step(world->broker->workers);
}

static void crash(struct sim_world *world)
{
    sim_broker_crash(world);
    world->up_at_us = world->now_us + sim_below(&world->random, DOWN_US_MAX);
}

static void disk_fills(struct sim_world *world)
{
    if (!world->mood.disk_fills)
        return;
    sim_trace(world, "the disk is full");
    world->disk->full = true;
    world->fills++;
    world->disk_full_until_us = world->now_us + sim_below(&world->random, DOWN_US_MAX);
}

static bool step_fault(struct sim_world *world)
{
    struct sim_random *random = &world->random;
    if (world->draining || world->broker == NULL)
        return false;
    uint32_t what = sim_below(random, 105);
    if (what >= 100) {
        if (world->mood.disk_breaks)
            sim_disk_break_in(world->disk, 1 + sim_below(random, 4), sim_once_in(random, 2));
    } else if (what < 70) {
        if (world->wires_count > 0)
            sim_wire_cut(world->wires[sim_below(random, (uint32_t)world->wires_count)]);
    } else if (what < 82) {
        crash(world);
    } else if (what < 92) {
        world->disk->die_in = 1 + sim_below(random, 4);
    } else if (what < 96) {
        disk_fills(world);
    } else if (!world->broker->failed) {
        sim_broker_stop(world);
        world->up_at_us = world->now_us + sim_below(random, DOWN_US_MAX);
    }
    return true;
}

static bool step_time(struct sim_world *world)
{
    world->now_us += 1 + sim_below(&world->random, 2000);
    return true;
}

/* --- time ---------------------------------------------------------------------------------------------------------- */

static uint64_t next_due(const struct sim_world *world)
{
    uint64_t due_us = world->broker ? sim_broker_due(world->broker) : world->up_at_us;
    for (size_t i = 0; i < world->wires_count; i++) {
        uint64_t wire_us = sim_wire_due(world->wires[i]);
        due_us = wire_us < due_us ? wire_us : due_us;
    }
    for (unsigned i = 0; i < world->options.clients; i++) {
        uint64_t client_us = sim_client_due(world->clients[i]);
        due_us = client_us < due_us ? client_us : due_us;
    }
    return due_us;
}

/* Nothing else can happen now: to the moment of the next thing, but not far at once, because clients also act unasked. */
static void pass_time(struct sim_world *world, uint64_t max_us)
{
    uint64_t due_us = next_due(world);
    uint64_t limit_us = world->now_us + max_us;
    world->now_us = due_us > world->now_us && due_us < limit_us ? due_us : limit_us;
}

/* --- one step ----------------------------------------------------------------------------------------------------- */

static void wires_collect(struct sim_world *world)
{
    size_t kept = 0;
    for (size_t i = 0; i < world->wires_count; i++) {
        if (sim_wire_finished(world->wires[i]))
            sim_wire_free(&world->wires[i]);
        else
            world->wires[kept++] = world->wires[i];
    }
    world->wires_count = kept;
}

static void step_run(struct sim_world *world)
{
    static const struct {
        uint32_t weight;
        step_fn *fn;
    } kinds[] = {
        { 260, step_turn }, { 200, step_deliver },  { 200, step_receive },
        { 220, step_act },  { 60, step_commit },    { 20, step_work },
        { 30, step_time },  { 3, step_checkpoint }, { 4, step_fault },
    };
    uint32_t choice = sim_below(&world->random, 997);
    size_t kind = 0;
    while (choice >= kinds[kind].weight)
        choice -= kinds[kind++].weight;
    world->model->moment++;
    world->step++;
    if (world->broker == NULL && world->up_at_us <= world->now_us)
        sim_broker_start(world, 1 + sim_below(&world->random, 3));
    if (world->disk->full && world->disk_full_until_us <= world->now_us)
        world->disk->full = false;
    if (!kinds[kind].fn(world))
        pass_time(world, 5000);
    bool failed = world->broker && world->broker->failed && world->step >= world->dies_at_step;
    if (world->disk->dead || failed) /* dead within a commit: nothing of this step may be seen */
        crash(world);
    wires_collect(world);
}

/* --- the end: everything promised arrives -------------------------------------------------------------------------- */

static bool all_satisfied(struct sim_world *world)
{
    for (unsigned i = 0; i < world->options.clients; i++)
        if (!sim_client_satisfied(world->clients[i]))
            return false;
    return true;
}

/* A full round of everything; time passes only when nothing else happened. */
static void drain_round(struct sim_world *world)
{
    bool any = false;
    world->model->moment++;
    world->step++;
    if (world->broker == NULL && world->up_at_us <= world->now_us)
        sim_broker_start(world, 1 + sim_below(&world->random, 3));
    for (unsigned i = 0; i < world->options.clients; i++)
        sim_client_act(world->clients[i]);
    any |= step_deliver(world);
    world->model->moment++;
    any |= step_turn(world);
    world->model->moment++;
    any |= step_commit(world);
    any |= step_work(world);
    world->model->moment++;
    while (step_receive(world))
        any = true;
    if (!any)
        pass_time(world, 100000);
    wires_collect(world);
}

static void drain(struct sim_world *world)
{
    world->draining = true;
    if (world->broker && world->broker->failed)
        crash(world);
    world->disk->die_in = world->disk->break_in = 0;
    world->disk->full = false;
    uint64_t end_us = world->now_us + DRAIN_US_MAX;
    for (unsigned i = 0; i < DRAIN_STEPS_MAX && world->now_us < end_us && !sim_violated(world->model); i++) {
        if (all_satisfied(world) && sim_model_complete(world->model, false))
            return;
        drain_round(world);
    }
    sim_model_complete(world->model, true);
    for (unsigned i = 0; i < world->options.clients; i++)
        if (!sim_client_satisfied(world->clients[i]))
            sim_violation(world->model, "client %u is not done: the broker owes it an answer", i);
}

/* What was acknowledged and is on disk does not come again, not after a crash either. */
static void check_repetition(struct sim_world *world)
{
    uint64_t end_us = world->now_us + SETTLE_US;
    world->arrived = true;
    while (world->now_us < end_us && !sim_violated(world->model))
        drain_round(world);
    if (sim_violated(world->model))
        return;
    crash(world);
    world->model->quiet = true;
    drain(world);
}

/* Everybody is there and nothing is under way: what the broker holds is bounded by that. */
static void check_leftovers(struct sim_world *world)
{
    uint64_t end_us =
        world->now_us + (world->mood.sm_seconds + 2) * 1000000; /* detached sessions are gone then */
    while (world->now_us < end_us && !sim_violated(world->model))
        drain_round(world);
    struct sim_broker *broker = world->broker;
    if (broker == NULL || sim_violated(world->model))
        return;
    uint64_t sessions = sim_broker_stat(broker, offsetof(struct shard_stats, sessions));
    uint64_t detached = sim_broker_stat(broker, offsetof(struct shard_stats, sessions_detached));
    if (sessions != world->options.clients || detached != 0)
        sim_violation(world->model,
                      "%u clients are online, but the broker holds %" PRIu64 " sessions, %" PRIu64
                      " of them detached",
                      world->options.clients, sessions, detached);
    struct store_stats stats;
    store_stats(broker->store, &stats);
    if (stats.memory_bytes + stats.log_bytes + stats.queue_bytes > STORE_BYTES_MAX)
        sim_violation(world->model, "the store holds %" PRIu64 " bytes in memory", stats.memory_bytes);
}

/* --- a run -------------------------------------------------------------------------------------------------------- */

static void mood_choose(struct sim_world *world)
{
    struct sim_random *random = &world->random;
    bool heavy = sim_once_in(random, 4);
    world->mood = (struct sim_mood){
        .padding_in = heavy ? 1 : 6,
        .busy_us_max = heavy ? 8000000 : 3000000,
        .offline_in = sim_once_in(random, 3) ? 40 : 150,
        .outbox_kib = heavy ? 64 : 4096,
        .queue_max = heavy ? 100 : 10000,
        .sm_seconds = 1 + sim_below(random, 30),
        .stalled_seconds = 1 + sim_below(random, 10),
        .disk_fills = sim_once_in(random, 4),
        .disk_breaks = sim_once_in(random, 3),
        .moody = sim_once_in(random, 2),
        .retracts = sim_once_in(random, 3),
        .deletes = sim_once_in(random, 6),
        .queues = !sim_once_in(random, 3),
        .skips = sim_once_in(random, 3),
        .acks = sim_once_in(random, 2),
    };
    world->model->refusals = world->mood.disk_fills || world->mood.disk_breaks;
}

/* What came later. Older seeds mean the same world without it. */
static void mood_extend(struct sim_world *world)
{
    struct sim_random random = { world->options.seed ^ EXTRAS };
    struct sim_mood *mood = &world->mood;
    if (world->options.plain)
        return;
    mood->deaths = mood->acks && sim_below(&random, 3) > 0;
    mood->expires = sim_once_in(&random, 3);
    mood->replays = sim_once_in(&random, 3);
    mood->receipts = mood->acks && sim_once_in(&random, 2);
    mood->delays = mood->queues && sim_once_in(&random, 2);
    mood->burials = mood->queues && sim_once_in(&random, 2);
    mood->narrow = mood->queues && sim_once_in(&random, 3);
    mood->quotas =
        !mood->deaths && !mood->burials && sim_once_in(&random, 3); /* dead letters have no bound */
    mood->rejects = sim_once_in(&random, 3);
}

static void world_begin(struct sim_world *world, const struct sim_options *options)
{
    world->options = *options;
    world->random.state = options->seed;
    world->entropy.state = ~options->seed;
    world->env =
        (struct xy_env){ .now_us = env_now, .wall_us = env_wall, .random = env_random, .ctx = world };
    world->now_us = 1000000;
    world->hash = UINT64_C(0xcbf29ce484222325);
    world->model = sim_model_new();
    world->model->clients_count = options->clients;
    mood_choose(world);
    mood_extend(world);
    for (unsigned node = 0; node < SIM_NODES_MAX; node++)
        world->model->expire_s[node] = sim_app_expire_s(world, node);
    sim_app_limits(world);
    sim_app_queue_bounds(world);
    world->disk = sim_disk_new(world->model);
    world->clients = calloc(options->clients, sizeof(struct sim_client *));
    xy_assert(world->clients != NULL && options->clients <= SIM_CLIENTS_MAX &&
              options->accounts <= SIM_ACCOUNTS_MAX);
    for (unsigned i = 0; i < options->clients; i++)
        world->clients[i] = sim_client_new(world, i, i % options->accounts);
    sim_broker_prepare(world);
    world->disk->lie = options->fault == SIM_FAULT_LYING_DISK ? 3 : 0;
    world->disk->swallow = options->fault == SIM_FAULT_NO_REFUSAL;
    world->disk->forget = options->fault == SIM_FAULT_LOST_RECORD ? 20 : 0;
}

static void world_end(struct sim_world *world)
{
    for (unsigned i = 0; i < world->options.clients; i++)
        sim_client_free(&world->clients[i]);
    for (size_t i = 0; i < world->wires_count; i++)
        sim_wire_free(&world->wires[i]);
    free(world->clients);
    sim_disk_free(&world->disk);
    sim_model_free(&world->model);
}

void sim_run(const struct sim_options *options, struct sim_result *result)
{
    struct sim_world *world = calloc(1, sizeof(*world));
    xy_assert(world != NULL);
    world_begin(world, options);
    while (world->step < options->steps && !sim_violated(world->model))
        step_run(world);
    if (!sim_violated(world->model))
        drain(world);
    if (!sim_violated(world->model))
        check_repetition(world);
    if (!sim_violated(world->model))
        check_leftovers(world);
    const struct sim_model *model = world->model;
    if (world->broker)
        sim_broker_crash(world);
    *result = (struct sim_result){ .failed = sim_violated(model),
                                   .step = world->step,
                                   .hash = world->hash,
                                   .crashes = world->crashes,
                                   .restarts = world->restarts,
                                   .cuts = world->cuts,
                                   .broken_disks = world->disk->broke,
                                   .full_disks = world->fills,
                                   .resumed = world->resumed,
                                   .rebound = world->rebound,
                                   .refused = model->refused,
                                   .stalls = world->stalls,
                                   .tokens = model->tokens_count,
                                   .promises = model->promises,
                                   .deliveries = model->deliveries,
                                   .items = model->items,
                                   .jobs = model->jobs,
                                   .skips = model->skips,
                                   .copies = model->copies,
                                   .letters = model->letters,
                                   .seen = model->seen,
                                   .replays = model->replays,
                                   .redeliveries = model->redeliveries,
                                   .virtual_us = world->now_us };
    snprintf(result->verdict, sizeof(result->verdict), "%s", result->failed ? model->verdict.data : "");
    world_end(world);
    free(world);
}
