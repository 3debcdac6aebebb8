/* Threads for work that would stop a loop: password derivation (PBKDF2), some ten milliseconds each.
 *
 * A small pool for the whole process with a bounded queue. A job is handed over whole: the worker thread owns it while
 * it runs and then mails it to the shard that asked (shard_post). With no threads the caller runs jobs by hand
 * (workers_step), which is what a simulation does. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "broker/shard/shard.h"

#define WORKERS_QUEUE_MAX                                                                                    \
    256u /* jobs waiting; more are refused, so that a flood of logins stays a flood of refusals */

struct workers;

/* Embedded in what the job is about; nothing is allocated per job. */
struct workers_job {
    void (*run)(struct workers_job *job); /* on a worker thread: nothing of a shard may be touched */
    shard_fn *done;                       /* then on shard `shard`; payload: struct workers_job ** */
    unsigned shard;
    struct workers_job *next; /* private */
};

/* `threads` 0: none, see workers_step. The group outlives the pool. NULL: no memory or threads. */
struct workers *workers_new(struct shard_group *group, unsigned threads);
/* Waits for the jobs that run; those still queued are run too, so that every job's memory finds its owner. Shards must
 * still take mail afterwards to free them. NULL ok; nulls the caller's pointer. */
void workers_free(struct workers **workers);

/* Any thread. false: the queue is full, the job stays the caller's. */
bool workers_submit(struct workers *workers, struct workers_job *job);
/* Runs one queued job on this thread; false: there is none. */
bool workers_step(struct workers *workers);
