/* One simulated world: a broker of a few shards on a simulated disk, clients, the wires between them, and a clock that
 * only the world moves. Everything runs in one thread, one small step after the other, each chosen by a generator; the
 * same seed makes the same world. main.c and test_sim_faults use sim_run; the rest is shared by the files of this folder.
 *
 *   random.h  choices           model.h   what was promised, and the verdict
 *   disk.h    what is synced    wire.h    links of the broker with loss, delay, back-pressure
 *   broker.h  start, turns, crash of the real broker's rooms        client.h   behaviour of clients */
#pragma once

#include "core/base/env.h"
#include "core/sasl/sasl.h"
#include "tests/sim/model.h"
#include "tests/sim/random.h"

struct sim_broker;
struct sim_client;
struct sim_disk;
struct sim_wire;

#define SIM_DOMAIN     "example.org"
#define SIM_PASSWORD   "r0m30"
#define SIM_SHARDS_MAX 4u
#define SIM_WIRES_MAX  256u

/* Faults planted on purpose: the model must find every one. */
enum sim_fault {
    SIM_FAULT_NONE,
    SIM_FAULT_LYING_DISK,  /* the disk says synced before it is */
    SIM_FAULT_LOST_RECORD, /* the disk drops an entry of the log now and then */
    SIM_FAULT_LOST_CLAIM,  /* a mailbox entry is settled without having been sent */
    SIM_FAULT_SWAP,        /* two messages change their order */
    SIM_FAULT_TWICE,       /* a message is delivered twice */
    SIM_FAULT_WRONG_H,     /* an <a/> covers more than was received */
    SIM_FAULT_FORGOTTEN_CLAIM, /* when a session ends, an event that it did not acknowledge counts as acknowledged */
    SIM_FAULT_LOST_CURSOR,  /* the acknowledgement of an event is not noted */
    SIM_FAULT_EARLY_CURSOR, /* the acknowledgement of an event covers the next one too */
    SIM_FAULT_EARLY_COMMIT, /* a shard takes what it handed to the store for committed */
    SIM_FAULT_RESUME_ORDER, /* a resumed session is sent two stanzas in the wrong order */
    SIM_FAULT_NO_REFUSAL,   /* a full disk says nothing and keeps nothing */
    SIM_FAULT_LOST_LETTER,  /* what should go to the dead letters is settled */
    SIM_FAULT_WRONG_LETTER, /* a dead letter says that it is another item */
    SIM_FAULT_LATE_EXPIRY,  /* items are kept longer than their node says */
    SIM_FAULT_LOST_REPLAY,  /* a replay is granted and nothing comes */
    SIM_FAULT_LOST_RECEIPT, /* a receipt is counted in h and not noted */
    SIM_FAULT_NO_DELAY,     /* a job that is to wait does not */
    SIM_FAULT_NO_REQUEST,   /* an item does not ask for the receipt that is waited for */
    SIM_FAULT_LOST_BURIAL,  /* a job that is given up is done instead */
    SIM_FAULT_SMALL_QUEUE,  /* a queue is full before it should be */
    SIM_FAULT_SMALL_QUOTA,  /* an account has as many items as it may before it has */
    SIM_FAULT_LARGE_QUOTA,  /* … or long after that */
    SIM_FAULT_NO_REJECTION, /* items are given up where a publish should be refused */
    SIM_FAULT_OLD_ERA,      /* what was received before a replay ends what it owes */
    SIM_FAULT_COUNT
};
extern const char *const sim_fault_names[SIM_FAULT_COUNT];

struct sim_options {
    uint64_t seed;
    unsigned steps;
    unsigned clients;
    unsigned accounts;
    bool pubsub;
    bool trace; /* print every step */
    bool
        plain; /* nothing of what struct sim_mood has below `plain`: a seed is the world that it was before that */
    enum sim_fault fault;
    const struct xy_scram_keys *keys; /* of SIM_PASSWORD, for every account: derived once, it takes long */
    size_t keys_count;
};

struct sim_result {
    bool failed;
    char verdict[512];
    unsigned step; /* where it failed, or how many there were */
    uint64_t hash; /* of everything that happened */
    unsigned crashes, restarts, cuts, resumed, rebound, broken_disks, full_disks;
    uint64_t refused, stalls;
    uint64_t tokens, promises, deliveries, items, jobs, skips, copies, letters, seen, replays, redeliveries,
        virtual_us;
};

/* Runs one seed to its end. */
void sim_run(const struct sim_options *options, struct sim_result *result);

/* --- shared by the files of this folder ---------------------------------------------------------------------------- */

/* What kind of world a seed makes: chosen once, so that each run goes to some extreme. */
struct sim_mood {
    uint32_t padding_in;  /* one of so many stanzas is long */
    uint32_t busy_us_max; /* clients do not read for so long */
    uint32_t offline_in;  /* one of so many actions of a client is to leave */
    uint32_t outbox_kib, queue_max;
    uint32_t sm_seconds; /* how long a detached session lives */
    uint32_t stalled_seconds;
    bool disk_fills, disk_breaks; /* then stanzas may be refused */
    bool moody;                   /* clients are unavailable, or of negative priority, at times */
    bool retracts;
    bool deletes; /* nodes */
    bool queues;
    bool acks;  /* some subscriptions acknowledge one by one */
    bool skips; /* some subscriptions may be owed little only */
    /* Chosen by a generator of their own, and absent in a plain world: */
    bool deaths;   /* items that are acknowledged one by one go to the dead letters */
    bool expires;  /* items of some nodes, and clients look at what is there */
    bool replays;  /* subscribers ask for items once more */
    bool delays;   /* some jobs are to wait before anybody gets them */
    bool receipts; /* of those who acknowledge one by one, some do it by XEP-0184 */
    bool burials;  /* queues give up jobs, which go to the dead letters */
    bool narrow;   /* a queue takes a few jobs only */
    bool quotas;   /* an account may have few items */
    bool rejects;  /* a node refuses what would be given up for a subscriber */
};

struct sim_world {
    struct sim_options options;
    struct sim_mood mood;
    struct sim_random random;  /* the world's choices */
    struct sim_random entropy; /* what the broker and the clients get from env */
    struct xy_env env;
    uint64_t now_us;
    unsigned step;
    bool draining; /* no more faults and no new work: what was promised has to arrive now */
    bool arrived;  /* it has: nobody asks for more, so that what is acknowledged gets to the disk */
    uint64_t hash;
    struct sim_model *model;
    struct sim_disk *disk;
    uint64_t disk_full_until_us;
    struct sim_broker *broker; /* NULL: down */
    unsigned dies_at_step;     /* its store failed: when the process is gone */
    uint64_t up_at_us;         /* while it is down: when it starts again */
    struct sim_client **clients;
    struct sim_wire *wires[SIM_WIRES_MAX]; /* in order of their making */
    size_t wires_count;
    unsigned crashes, restarts, cuts, resumed, rebound, fills;
    uint64_t stalls; /* full outboxes that the broker met */
};

/* Into the hash of the run, and printed if asked. */
void sim_trace(struct sim_world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_trace_bytes(struct sim_world *world, const char *what, unsigned who, struct xy_str bytes);
struct xy_str sim_account_name(unsigned account, char out[32]); /* its bare JID */
