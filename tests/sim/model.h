/* What was promised to whom, seen from outside: the judge of a simulation.
 *
 * Everything that matters carries a token, a number written as ~000123~ into the body of a message or the payload of an
 * item, so that it can be recognised wherever it appears: in bytes that reach the disk, in bytes on the wire, at a
 * recipient. Disk and clients report what they see; the model knows the rules of docs/architecture.md ("What h means")
 * and says which one was broken. Time is the world's moment: it grows with every step, so "before" is exact. */
#pragma once

#include <stdarg.h>

#include "core/base/buf.h"

#define SIM_CLIENTS_MAX       16u
#define SIM_ACCOUNTS_MAX      8u
#define SIM_NODES_MAX         4u
#define SIM_QUEUES            2u
#define SIM_MAX_ITEMS(node)   (1 + 3 * (node)) /* of its configuration */
#define SIM_SESSIONS_MAX      4096u            /* of one run */
#define SIM_SUBSCRIPTIONS_MAX 1024u

enum sim_kind { SIM_MESSAGE, SIM_ITEM, SIM_JOB };

struct sim_token {
    enum sim_kind kind;
    unsigned from;  /* client */
    unsigned to;    /* account, or node */
    bool assured;   /* its sender counts: told means kept, and it leaves after its commit only */
    bool told;      /* the sender was told that it is kept */
    bool refused;   /* answered with an error, the last time it was sent */
    bool covered;   /* by h while it was not on disk: right only if it was refused, which is said later */
    bool retracted; /* item: somebody asked for its end */
    bool excused;   /* may be lost: handed to a socket of a recipient that does not count */
    uint64_t durable_moment; /* 0: not on disk yet */
    uint64_t first_moment;   /* when it was sent first */
    uint64_t told_us;        /* item: when the publisher was told that it is there */
    uint64_t gone_moment;    /* when the answer left that it is retracted, or a job given up; 0: not yet */
    uint32_t sends;
    uint32_t fresh[SIM_CLIENTS_MAX]; /* deliveries without a mark, per client */
    uint32_t all[SIM_CLIENTS_MAX];
    uint64_t seq;                /* item, job: its number in the node; 0: not seen yet */
    uint64_t not_before_us;      /* job: it comes to nobody before */
    uint64_t done_moment;        /* job: when the answer left that it is done; 0: not yet … */
    uint64_t done_us;            /* … and when that came, by the wall clock */
    uint64_t burial;             /* job: its number among the dead letters; 0: not seen there … */
    uint64_t burial_moment;      /* … and when that left first */
    bool termed, vague;          /* job: somebody gave it up; it is done or buried, and nobody knows which */
    uint32_t done_asked, firsts; /* job: how often a consumer said so; deliveries as a first attempt */
};

struct sim_gap {
    uint64_t first, last;
};

/* An at-least-once subscription that was confirmed. */
struct sim_subscription {
    unsigned client, node;
    bool bare; /* of the account, not of this resource */
    char subid[64];
    uint64_t confirmed_moment;
    uint64_t epoch, last_seq; /* newest that came */
    bool ended;               /* somebody asked for its end */
    struct xy_buf fresh;      /* a byte per number: how often it came unmarked */
    struct xy_buf settled;    /* uint64_t each: by number, when the answer left that it is; 0: not yet */
    struct xy_buf settled_us; /* … and when that came, by the wall clock */
    struct xy_buf skipped;    /* struct sim_gap each: what it was told it will not get */
    uint64_t replayed_moment; /* everything that was settled before came again; UINT64_MAX: it may soon */
    struct xy_buf came;       /* uint64_t each: by number, when it left for its client last */
    struct xy_buf buried;     /* uint64_t each: its number in the node of dead letters; 0: not there */
};

struct sim_last { /* unmarked message of a sender's session that came to a client */
    uint32_t serial;
    uint64_t left_moment;
};

struct sim_crossing {
    unsigned session;
    uint64_t moment;
};

struct sim_model {
    uint64_t moment;
    struct sim_token *tokens;
    size_t tokens_count, tokens_cap;
    unsigned clients_count;
    unsigned account_of[SIM_CLIENTS_MAX];
    unsigned max_deliver[SIM_CLIENTS_MAX];              /* 0: nothing of it becomes a dead letter */
    unsigned expire_s[SIM_NODES_MAX];                   /* 0: items do not expire */
    struct xy_buf due;                                  /* of model_items.c: what comes again */
    unsigned account_items;                             /* limit over all nodes of an account; 0: none */
    bool steady[SIM_NODES_MAX];                         /* nothing leaves it but for what is newer */
    bool rejects[SIM_NODES_MAX];                        /* rather than give up what somebody is owed */
    unsigned node_of[SIM_NODES_MAX + SIM_QUEUES];       /* account that made it, plus one; 0: not known */
    uint64_t letters_last[SIM_CLIENTS_MAX];             /* the newest dead letter that came to it … */
    uint64_t burials_last[SIM_CLIENTS_MAX];             /* … and the newest one of a queue */
    unsigned queue_deliver[SIM_QUEUES];                 /* max_deliver of a queue; 0: without end */
    unsigned queue_items[SIM_QUEUES];                   /* max_items of a queue; 0: without end */
    bool queue_buries[SIM_QUEUES];                      /* it has a node of dead letters */
    unsigned sessions;                                  /* of senders, given out */
    unsigned crossings[SIM_CLIENTS_MAX], crossings_all; /* see sim_model_crossed */
    bool refusals;                                      /* stanzas may be refused for want of room */
    bool quiet;            /* everything was acknowledged and is on disk: nothing of it may come again */
    struct xy_buf crossed; /* struct sim_crossing each */
    struct xy_buf said;    /* of model_dead.c: what clients said of items */
    struct sim_last (*last)[SIM_SESSIONS_MAX]; /* per client and sender's session: the newest */
    struct sim_subscription subscriptions[SIM_SUBSCRIPTIONS_MAX];
    size_t subscriptions_count;
    uint64_t
        deleted[SIM_NODES_MAX]; /* last moment at which it may have been; then numbers and epoch began anew */
    bool gaps[SIM_NODES_MAX];   /* items of the node were retracted */
    uint64_t refused;
    uint64_t deliveries, items, jobs, redeliveries, promises; /* items, jobs: of the deliveries */
    uint64_t copies;                                          /* carbons */
    uint64_t skips;                                           /* gaps told */
    uint64_t seen, replays;                                   /* items in answers; granted */
    uint64_t letters;                                         /* dead ones */
    struct xy_buf verdict;                                    /* the first rule broken; empty: none */
};

struct sim_model *sim_model_new(void);
void sim_model_free(struct sim_model **model);

/* Latches the first one. */
void sim_violation(struct sim_model *model, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline bool sim_violated(const struct sim_model *model)
{
    return model->verdict.len > 0;
}

unsigned sim_token_new(struct sim_model *model, enum sim_kind kind, unsigned from, unsigned to, bool assured);
void sim_token_write(struct xy_buf *out, unsigned token);
/* Finds the next token at or after *at and moves *at behind it. */
bool sim_token_find(const struct sim_model *model, struct xy_str text, size_t *at, unsigned *token);

void sim_model_sent(struct sim_model *model, unsigned token);
/* In the same stanza, over a resumption: the broker did not remember that it had it. */
void sim_model_sent_again(struct sim_model *model, unsigned token);
void sim_model_durable(struct sim_model *model, unsigned token);
/* The sender was told by bytes that left the broker at `left_moment`. */
void sim_model_told(struct sim_model *model, unsigned token, uint64_t left_moment);
void sim_model_refused(struct sim_model *model, unsigned token);
void sim_model_retracted(struct sim_model *model, unsigned token);
void sim_model_purged(struct sim_model *model, unsigned node);
void sim_model_deleted(struct sim_model *model, unsigned node);
void sim_model_unsubscribed(struct sim_model *model, unsigned node, struct xy_str subid);
/* The client resumed a session that a crash had interrupted. It sends again what it was not told was handled: what of that
 * is not stored, or was refused, is handled a second time and comes behind what was sent after it. */
void sim_model_crossed(struct sim_model *model, unsigned client, unsigned session);
void sim_model_excuse(struct sim_model *model, unsigned token);

struct sim_delivery {
    unsigned token, client;
    unsigned session, serial; /* of the sender; messages only */
    bool marked;              /* <delay/>, or attempt above 1 */
    uint64_t left_moment;
    uint64_t bound_moment; /* when the recipient's session began: older than that is nothing in its outbox */
    bool one_by_one;       /* of a subscription whose items its client acknowledges, if it does */
    bool claimed;          /* with <delivery/>: */
    uint64_t epoch, seq;
    struct xy_str subid;
};
void sim_model_delivered(struct sim_model *model, const struct sim_delivery *delivery);
/* The recipient asked first at `asked_moment` and was answered, by bytes that left then and came at `wall_us`, that this
 * one is done with. */
void sim_model_settled(struct sim_model *model, unsigned node, struct xy_str subid, uint64_t seq,
                       uint64_t asked_moment, uint64_t left_moment, uint64_t wall_us);
/* Instead of an item: the subscription was told that it will not get these. */
void sim_model_skipped(struct sim_model *model, unsigned node, const struct sim_delivery *delivery,
                       struct sim_gap gap);

/* A table of numbers by number, 0 where none was put; for the files model*.c. */
uint64_t sim_number_get(const struct xy_buf *numbers, uint64_t at);
void sim_number_put(struct xy_buf *numbers, uint64_t at, uint64_t number);
struct sim_subscription *sim_subscription_find(struct sim_model *model, unsigned node, struct xy_str subid);
/* It was on disk when bytes that say so left; for the files model*.c. */
void sim_model_must_be_durable(struct sim_model *model, unsigned token, uint64_t left_moment,
                               const char *what);

/* model_job.c: items of queues */
void sim_job_delivered(struct sim_model *model, const struct sim_delivery *delivery, uint64_t now_us);
void sim_job_asked(struct sim_model *model, unsigned token); /* a consumer says that it is done */
void sim_job_done(struct sim_model *model, unsigned token, uint64_t left_moment, uint64_t wall_us);
/* The answer was that there is no such job. */
void sim_job_gone(struct sim_model *model, unsigned token, unsigned client, uint64_t left_moment,
                  uint64_t wall_us);
bool sim_job_complete(struct sim_model *model, unsigned token, bool explain);

/* model_items.c: what a node retains */
struct sim_look { /* a request for it */
    unsigned client, node;
    uint64_t asked_moment, asked_us, left_moment;
};
void sim_items_published(struct sim_model *model, unsigned token, uint64_t now_us); /* says the answer */
void sim_items_retracted(struct sim_model *model, unsigned token, uint64_t left_moment);
void sim_items_seen(struct sim_model *model, const struct sim_look *look, unsigned token);
void sim_replay_asked(struct sim_model *model, unsigned node, struct xy_str subid); /* each time */
void sim_replay_answered(struct sim_model *model, unsigned node, struct xy_str subid, bool granted);
void sim_replay_came(struct sim_model *model, const struct sim_subscription *subscription,
                     const struct sim_delivery *delivery);
/* A client is about to say so, and may mean what came before. */
void sim_replay_acked(struct sim_model *model, unsigned node, struct xy_str subid, uint64_t seq,
                      bool cumulative);
bool sim_replays_complete(struct sim_model *model, bool explain);

/* model_dead.c: items that are not sent any more */
struct sim_letter {
    struct xy_str by; /* who published it there */
    struct xy_str reason, node, id, publisher, subid;
    uint64_t epoch, seq, attempts;
    uint64_t wall_us; /* 0: not said; UINT64_MAX: no time */
};
void sim_letter_acked(struct sim_model *model, unsigned node, struct xy_str subid, uint64_t seq,
                      bool cumulative); /* the client is about to say so */
void sim_letter_termed(struct sim_model *model, unsigned node, struct xy_str subid, uint64_t seq);
/* `delivery` numbers it in the node of dead letters; the token is that of the item. */
void sim_letter_delivered(struct sim_model *model, const struct sim_delivery *delivery,
                          const struct sim_letter *letter);
/* The reader's own subscription is an ordinary one: in order, nothing missing, a repetition is marked. */
void sim_letter_ordered(struct sim_model *model, const struct sim_delivery *delivery, uint64_t *last);
/* The item is done with, or in the dead letters. */
bool sim_letter_ended(const struct sim_model *model, const struct sim_subscription *subscription,
                      unsigned token);

/* It may have been in its queue at that moment, or after it. */
bool sim_job_was_there(const struct sim_token *token, uint64_t moment);

/* model_burial.c: queues that give jobs up, or are full */
void sim_job_termed(struct sim_model *model, unsigned token); /* a consumer is about to say so */
/* Refused, because the queue was full at some moment since that. */
void sim_job_full(struct sim_model *model, unsigned token, uint64_t asked_moment);
/* `delivery` numbers it in the node of dead letters; the token is that of the job. */
void sim_job_buried(struct sim_model *model, const struct sim_delivery *delivery,
                    const struct sim_letter *letter);

/* model_limits.c: what an account, or somebody who is owed items, has room for */
void sim_limits_created(struct sim_model *model, enum sim_kind kind, unsigned node, unsigned account);
void sim_limits_kept(struct sim_model *model); /* a publish was answered */
void sim_limits_refused(struct sim_model *model, unsigned token, uint64_t asked_moment);

/* The broker confirmed it; a second time (the first answer was lost) changes nothing. */
void sim_model_subscribed(struct sim_model *model, unsigned client, unsigned node, bool bare,
                          struct xy_str subid, uint64_t asked_moment);

/* Everything promised has arrived. `explain`: the first that has not is a violation. */
bool sim_model_complete(struct sim_model *model, bool explain);
