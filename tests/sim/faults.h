/* Faults planted in the broker's own calls between rooms, to show that the model finds them. Those of the disk are in
 * disk.c, that of the wire in wire.c. */
#pragma once

#include "broker/shard/shard.h"
#include "tests/sim/world.h"

struct sim_planted;

/* After the rooms of the shard are made: replaces entries of its tables of calls, if the run's options ask for it. */
struct sim_planted *sim_faults_plant(struct sim_world *world, struct shard *shard);
void sim_faults_turn(struct sim_planted *planted, struct shard *shard); /* before each turn of the shard */
void sim_faults_free(struct sim_planted **planted);                     /* NULL ok */
