/* Queues as docs/protocol.md 9 has them: a list of items, each waiting, handed to one consumer, or parked. Which consumer
 * gets an item may be the broker's choice, so what came to the sessions is an input here: queue.c says which items are due
 * next, looks who got them, and whether that was allowed. check_queue.c asks and compares. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

#define MODEL_QUEUES    2u
#define MODEL_JOBS      640u
#define MODEL_WORKERS   12u /* as MODEL_SUBS: of bare JIDs by account, then of full ones by slot */
#define MODEL_GOT       1024u
#define MODEL_LOCK_S    20u
#define MODEL_RECORD_US (1100ull * 1000) /* how often items were sent is on disk then */

enum { DONE_RETRACT, DONE_UNLOCK, DONE_ACK, DONE_NACK, DONE_TERM, DONE_WORKING, DONE_VERBS };
enum model_job_state { JOB_WAITS, JOB_LOCKED, JOB_PARKED, JOB_GONE };

struct model;

struct model_traits { /* what the headers of an item say */
    unsigned token;
    int priority, group; /* group 0: none */
    unsigned delay_s, ttl_s;
};

struct model_job {
    struct model_traits traits;
    uint64_t seq;
    uint64_t turn;          /* in its group */
    unsigned id, publisher; /* of a letter that was moved back: UINT32_MAX */
    uint64_t not_before_us; /* WAITS: until then */
    uint64_t expires_us;    /* WAITS: then it leaves */
    uint64_t due_us;        /* LOCKED: until then */
    enum model_job_state state;
    unsigned attempts, worker;
    bool returned;
    unsigned had; /* number of the consumer that had it last; 0: none */
    bool vague;   /* nobody was there, or the broker began anew: what is only in memory may be forgotten */
};

struct model_worker {
    bool there;
    unsigned number, capacity;
    uint64_t subid;
    int holder;     /* slot; -1: no session */
    unsigned since; /* which one of that slot */
    bool leaving;
    uint64_t leaving_us; /* then it moves */
    uint64_t moved_us; /* at this moment, or it stays after all; what others get meanwhile is not its turn */
};

struct model_got { /* an item of a queue that came to a session */
    bool taken;    /* looked at */
    unsigned queue, slot, id, token, publisher, attempt;
    bool delayed;
    uint64_t subid, seq, epoch, at_us;
    unsigned worker;
};

struct model_queue {
    bool there;
    unsigned maker; /* account */
    uint64_t next_seq, turns, epoch;
    unsigned numbers; /* of consumers, given out */
    struct model_job jobs[MODEL_JOBS];
    unsigned jobs_count;
    struct model_worker workers[MODEL_WORKERS];
    struct model_traits letters[MODEL_JOBS];
    unsigned letters_count;
    bool letters_made; /* there is a node for them */
};

struct model_queues {
    struct model_queue queue[MODEL_QUEUES];
    struct model_got got[MODEL_GOT];
    unsigned got_count;
    unsigned changes;  /* of what the store knows a second later */
    char verdict[256]; /* what broke first; empty: nothing */
};

struct model_figures {
    unsigned depth, ready, in_flight, delayed, blocked, parked;
};

/* Requests of a session: the answer's condition, XY_NO_ERROR for a result; `other`: what it may be instead. */
void model_queue_join(struct model *model, unsigned queue, unsigned worker, unsigned capacity,
                      uint64_t subid);
bool model_queue_leave(struct model *model, unsigned queue, unsigned worker); /* false: it was none */
bool model_queue_put(struct model *model, unsigned queue, unsigned slot, unsigned id,
                     const struct model_traits *traits);
/* `worker`: in whose name, for verbs that name a subscription. */
enum xy_condition model_queue_done(struct model *model, unsigned queue, unsigned slot, unsigned worker,
                                   int verb, unsigned job, int delay, enum xy_condition *other);
unsigned model_queue_redrive(struct model *model, unsigned queue);             /* how many */
unsigned model_queue_move(struct model *model, unsigned queue, unsigned slot); /* letters back; how many */
/* consumer.c: the consumers */
bool model_worker_may_take(const struct model *model, const struct model_queue *queue, unsigned worker);
/* false: a session that waits for its resumption may be tried, or a consumer moves to another session, or no longer wants
 * to: what it was to get goes to others then, in whatever order. */
bool model_workers_in_order(const struct model *model, const struct model_queue *queue);
unsigned model_worker_held(const struct model_queue *queue, unsigned worker);
unsigned model_worker_by_subid(const struct model_queue *queue, uint64_t subid); /* MODEL_WORKERS: none */
bool model_worker_speaks(unsigned worker, unsigned slot);                        /* a session for it */
/* In whose name a session says something about an item: of who has it, if of its account; MODEL_WORKERS: nobody's. */
unsigned model_worker_of(const struct model_queue *queue, unsigned slot, const struct model_job *job);
void model_worker_lose(struct model *model, unsigned queue, unsigned worker);
void model_workers_recheck(struct model *model, unsigned queue); /* sessions came, went or changed */
uint64_t model_workers_due(const struct model_queue *queue);     /* UINT64_MAX: nothing is */
/* Not done: it goes back, or where items go that were sent often enough. */
void model_queue_give_back(struct model *model, unsigned queue, struct model_job *job, uint64_t delay_s);

/* The k-th item that this session may speak for and has, or (-1) of all that have not left, those that somebody has first. jobs_count: there
 * is none. */
unsigned model_queue_job(const struct model_queue *queue, unsigned k, int slot);
void model_queue_figures(const struct model *model, unsigned queue, struct model_figures *out);

/* Sessions or items changed, or time has come: what is due has come to somebody. */
void model_queues_settle(struct model *model);
uint64_t model_queues_due(const struct model *model); /* UINT64_MAX: nothing is */
void model_queues_restarted(struct model *model);
/* Everything that came was due. */
void model_queues_end(struct model *model);
