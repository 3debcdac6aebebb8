/* The real broker in a simulated process: the rooms that broker/server.c puts together, without threads and sockets.
 *
 * Shards take their turns, and the store and the workers their steps, when the world says so. A crash takes all of it
 * apart after the disk has died and the wires are cut, so that nothing of what happens on the way out is kept or seen,
 * and no memory is leaked. */
#pragma once

#include "broker/shard/shard.h"
#include "broker/store/store.h"
#include "tests/sim/world.h"

struct sim_planted;

struct sim_broker {
    struct sim_world *world;
    struct config *config;
    struct store *store;
    struct shard_group *group;
    struct workers *workers;
    unsigned shards;
    bool woken[SIM_SHARDS_MAX];
    uint64_t due_us[SIM_SHARDS_MAX];
    bool failed;                                 /* the store said so */
    struct sim_planted *planted[SIM_SHARDS_MAX]; /* NULL: none */
};

/* Writes the accounts, as a broker of another life would have. */
void sim_broker_prepare(struct sim_world *world);

void sim_broker_start(struct sim_world *world, unsigned shards); /* sets world->broker */
void sim_broker_crash(struct sim_world *world);                  /* the power fails */
void sim_broker_stop(struct sim_world *world);                   /* as by SIGTERM: nothing is lost */

struct shard *sim_broker_shard(struct sim_broker *broker, unsigned shard);
void sim_broker_wake(struct sim_broker *broker, unsigned shard);
bool sim_broker_turn(struct sim_broker *broker, unsigned shard); /* false: it sleeps */
uint64_t sim_broker_due(const struct sim_broker *broker);        /* of the next timer */
/* The sum over shards of a counter of struct shard_stats, by its offset there. */
uint64_t sim_broker_stat(struct sim_broker *broker, size_t offset);
bool sim_broker_awake(const struct sim_broker *broker);
