/* The whole broker of the model test, without threads, sockets and network: real shards, sessions, router, pubsub and
 * store (in memory) on a virtual clock. Whoever drives it says when commits happen and when time passes; restarts keep
 * what was committed. check.c drives it, peer.c connects to it. */
#pragma once

#include "broker/net/link.h"
#include "tests/sim/random.h"

#define RIG_DOMAIN     "example.org"
#define RIG_SERVICE    "pubsub." RIG_DOMAIN
#define RIG_SHARDS_MAX 4u
#define RIG_ACCOUNTS   4u
#define RIG_SM_SECONDS 40u /* how long a detached session lives */

struct rig {
    struct xy_env env;
    uint64_t now_us;
    struct sim_random entropy;
    struct config *config;
    struct sim_model *judge; /* of what the disk sees; knows nothing here */
    struct sim_disk *disk;
    struct store *store;
    struct shard_group *group;
    struct workers *workers;
    unsigned shards;
    bool failed; /* the store said so */
    /* Hands out what links have written; true: something moved. */
    bool (*pump)(void *ctx);
    void *ctx;
};

void rig_open(struct rig *rig, uint64_t seed, unsigned shards); /* accounts a0 .. a3 are there */
void rig_close(struct rig *rig);
/* The process ends and another begins, with that many shards. `crash`: as a power failure, else as by SIGTERM. Links have
 * been closed afterwards. */
void rig_restart(struct rig *rig, bool crash, unsigned shards);

struct shard *rig_shard(struct rig *rig, unsigned shard);
void rig_turns(struct rig *rig);             /* everything that needs neither a commit nor time */
void rig_settle(struct rig *rig);            /* the same with commits */
void rig_pass(struct rig *rig, uint64_t us); /* time passes, timers run, everything settles */
void rig_checkpoint(struct rig *rig);
