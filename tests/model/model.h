/* What the delivery contract (docs/architecture.md, docs/protocol.md) says must be, without any of the broker's means:
 * nodes as lists of items, subscriptions as cursors, sessions as who is there. Nothing here is fast, durable or
 * concurrent; it is meant to be read. check.c puts the same operations to the broker and to this, and compares answers,
 * events, order, numbers and what is owed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "tests/model/op.h"
#include "tests/model/queue.h"

#define MODEL_NODES    3u
#define MODEL_SESSIONS 8u /* slots; slot s is resource r<s> of account s % MODEL_ACCOUNTS */
#define MODEL_ACCOUNTS 4u
#define MODEL_IDS      5u
#define MODEL_MORE     2u                                /* items of one publish behind the first */
#define MODEL_ITEMS    640u                              /* of one life of a node */
#define MODEL_SUBS     (MODEL_ACCOUNTS + MODEL_SESSIONS) /* bare ones first, then full ones by slot */
#define MODEL_EXPECTED 1024u
#define MODEL_LOG      4096u
#define MODEL_ONCE     1024u

#define MODEL_UNAVAILABLE 9
#define MODEL_LEAVING_US  (10ull * 1000 * 1000)
#define MODEL_WAIT_S      20u  /* ack_wait */
#define MODEL_BACKLOG     250u /* max_backlog_bytes: three items */
#define MODEL_BACKLOG_S   15u  /* max_backlog_age */
#define MODEL_SM_US       (40ull * 1000 * 1000)

enum {
    MODEL_FIELD_MAX,
    MODEL_FIELD_ACCESS,
    MODEL_FIELD_PUBLISH,
    MODEL_FIELD_PERSIST,
    MODEL_FIELD_BYTES,
    MODEL_FIELD_OVERFLOW, /* 1: reject */
    MODEL_FIELD_FULL,     /* 1: reject */
    MODEL_FIELD_DURABILITY,
    MODEL_FIELD_WINDOW, /* seconds */
    MODEL_FIELDS
};
enum { MODEL_START_NEW, MODEL_START_ALL, MODEL_START_LAST, MODEL_START_SEQ, MODEL_STARTS };
enum { MODEL_SYNC, MODEL_ASYNC, MODEL_MEMORY };
enum { PUBLISH_PUBLISHERS, PUBLISH_SUBSCRIBERS, PUBLISH_OPEN };
enum model_affiliation {
    MODEL_NONE,
    MODEL_OUTCAST,
    MODEL_MEMBER,
    MODEL_PUBLISH_ONLY,
    MODEL_PUBLISHER,
    MODEL_OWNER,
    MODEL_AFFILIATIONS
};

struct model_item {
    uint64_t seq;
    uint64_t time_us;
    unsigned id, token, publisher, bytes;
    bool retained; /* <items/> returns it */
    bool gone;     /* retracted, purged, or nobody needs it any more */
};

enum model_one_state { ONE_FRESH, ONE_FLIGHT, ONE_READY, ONE_DELAYED, ONE_PARKED, ONE_SETTLED };
enum { VERB_ACK, VERB_NACK, VERB_TERM, VERB_WORKING, VERB_CUMULATIVE, VERBS };

struct model_one { /* an item of a subscription that acknowledges one by one */
    uint8_t state;
    uint8_t attempts;
    bool vague;      /* a restart may have forgotten some of them: no limit can be judged then */
    uint64_t due_us; /* FLIGHT: comes again; DELAYED: may be sent */
};

struct model_range {
    uint64_t first, last; /* last 0: nothing */
};

struct model_gap {
    struct model_range all;   /* what was given up and the subscriber does not know of */
    struct model_range told;  /* of it, what the holder was told */
    struct model_range since; /* and what was given up after that */
    bool age;                 /* why */
    bool was_told;            /* under this number, in this life of the broker */
    bool vague;               /* a restart, or the node's leaving memory, may count as telling */
};

struct model_sub {
    bool there, durable;
    bool one_by_one; /* `one`, by index of the item, says what is owed behind `cursor`, which stays */
    bool stalled;    /* its session waits for its resumption and was offered something */
    int ack;         /* as OP_SUBSCRIBE has it */
    unsigned max_inflight, max_deliver; /* 0: no limit */
    uint64_t wait_us, backoff_us;
    unsigned max_bytes; /* of what is owed; 0: no bound */
    uint64_t max_age_us;
    unsigned missing_bytes; /* published between what was owed when it began, and not owed */
    struct model_gap gap;
    uint64_t taken; /* newest number that was offered to a session */
    struct model_one one[MODEL_ITEMS];
    uint64_t born;           /* next number of the node when it began … */
    bool never[MODEL_ITEMS]; /* … and the items that were there for others only then: it is not owed these */
    uint64_t subid;
    uint64_t cursor;     /* acknowledged up to here */
    uint64_t sent;       /* to the session that holds it now */
    uint64_t ever_sent;  /* in this life of the broker: again means marked */
    uint64_t maybe_sent; /* in a former life: may be marked */
    unsigned first_hold; /* those of before it was owed items anew are not among its own */
    int holder;          /* slot; -1: none */
    unsigned hold;       /* which holding it is */
    bool leaving;
    uint64_t leaving_us; /* then it moves */
};

struct model_once { /* a publish-id that was seen */
    unsigned publisher;
    bool whole;
    bool stored; /* else a restart forgets it: nobody needed the item kept */
    uint64_t number;
};

struct model_node {
    bool there;
    unsigned max_items, max_bytes; /* 0: no limit */
    bool whitelist, persist, rejects, full_rejects;
    int publish_model, durability;
    unsigned window_s;               /* in which an item id is not published again */
    uint64_t id_until_us[MODEL_IDS]; /* when that of an id ends */
    uint64_t stored_seq;             /* newest one on disk */
    bool vague; /* what a node in memory had stored before is not known by it, but may be again */
    int affiliation[MODEL_ACCOUNTS];
    uint64_t next_seq;
    unsigned life;              /* how often it was created */
    uint64_t epoch, last_epoch; /* 0: not seen yet; of the life before */
    struct model_item items[MODEL_ITEMS];
    unsigned items_count;
    struct model_sub subs[MODEL_SUBS];
    struct model_once once[MODEL_ONCE];
    unsigned once_count;
};

enum model_mark { MARK_FRESH, MARK_AGAIN, MARK_EITHER };

/* What a session is to hear, in this order among those of the same node and subscription. */
struct model_expected {
    bool notice, claimed, gap;
    char what;      /* notice */
    uint64_t first; /* gap: of what is missing; seq is the last */
    bool age;
    unsigned node, sub;
    uint64_t subid, seq;
    unsigned id, token, publisher;
    enum model_mark mark;
    unsigned hold, life;
};

enum model_presence { SESSION_OFF, SESSION_ON, SESSION_DETACHED };

/* A session that a restart interrupted (docs/protocol.md 7.4): it is off, and may come back. */
struct model_dormant {
    bool there, available;
    bool detached; /* it had lost its connection before: its time ran on */
    int priority;
    uint64_t expires_us;
};

struct model_session {
    enum model_presence state;
    bool sm, available;
    int priority;
    unsigned since;      /* of becoming available */
    uint64_t expires_us; /* DETACHED */
    struct model_dormant dormant;
    struct model_expected expected[MODEL_EXPECTED];
    unsigned expected_count;
    struct model_expected log[MODEL_LOG]; /* by number: what each stanza was, once it came */
    uint32_t acked;
};

struct model {
    uint64_t now_us;
    unsigned holds, sinces;
    uint64_t seq;   /* of the item that is to be settled */
    uint64_t subid; /* what the answer to a subscribe request said: a new subscription has it */
    bool full;      /* some array is: the sequence ends here, without a verdict */
    struct model_node nodes[MODEL_NODES];
    struct model_session sessions[MODEL_SESSIONS];
    struct model_queues queues;
};

/* What the answer to a request must be. */
struct model_answer {
    bool result;
    enum xy_condition condition;
    bool records; /* it changed something that is stored: nothing may be heard of it before its commit */
    bool kept;    /* an item of the request is stored */
    bool early;   /* but the answer may come before: durability async */
    const struct model_item *items[MODEL_ITEMS];
    unsigned items_count;
    struct model_sub *sub; /* the answer names its subid */
};

void model_init(struct model *model);
static inline unsigned model_account(unsigned slot)
{
    return slot % MODEL_ACCOUNTS;
}
static inline unsigned model_sub_index(unsigned slot, bool bare)
{
    return bare ? model_account(slot) : MODEL_ACCOUNTS + slot;
}

/* Of the k-th item of a publish. */
static inline unsigned model_item_id(const int *args, unsigned k)
{
    return ((unsigned)args[2] + k) % MODEL_IDS;
}
static inline unsigned model_item_token(const int *args, unsigned k)
{
    return (unsigned)args[3] * (MODEL_MORE + 1) + k;
}

/* node.c: one request of a session that is online */
void model_request(struct model *model, const struct op *op, struct model_answer *answer);
void model_collect(struct model_node *node); /* what nobody needs any more is gone */

/* claim.c: who gets what */
/* Which session serves a subscription; -1: none. */
int model_best(const struct model *model, unsigned sub, bool one_by_one);
void model_sub_begin(struct model_node *node, struct model_sub *sub, int start, uint64_t number);
void model_sub_end(struct model *model, struct model_node *node, unsigned sub);
void model_published(struct model *model, unsigned node, unsigned item, bool kept); /* the newest item */
void model_notice(struct model *model, unsigned node, char what, unsigned id);      /* to all who listen */
void model_told(struct model *model, unsigned slot, unsigned node, char what);      /* to one */
void model_recheck(struct model *model); /* sessions came, went or changed; everybody gets what is due */
void model_acked(struct model *model, unsigned slot, uint32_t h);
void model_acked_before(struct model *model, unsigned slot, uint32_t h); /* a restart ago */

bool model_owes(const struct model_node *node, const struct model_sub *sub, unsigned item);
void model_expect_item(struct model *model, unsigned node, unsigned sub, unsigned item, enum model_mark mark);
/* Items of it were settled, given back or changed: it moves if it waited for that, or goes on. */
void model_settled(struct model *model, unsigned node, unsigned sub);

void model_expect_gap(struct model *model, unsigned node, unsigned sub, enum model_mark mark);
void model_attach(struct model *model, unsigned node, unsigned sub); /* to whoever is best, anew */

/* gap.c */
bool model_backlog_refuses(struct model *model, const struct model_node *node, unsigned bytes);
bool model_backlog_is_over(struct model *model, unsigned node, unsigned sub);
void model_backlog_began(const struct model_node *node, struct model_sub *sub);
void model_backlog_skip(struct model *model, unsigned node, unsigned sub);
/* When the holder is told, if nothing is acknowledged until then; UINT64_MAX: nobody is. */
uint64_t model_backlog_due(const struct model_node *node, const struct model_sub *sub);
void model_gap_tell(struct model *model, unsigned node, unsigned sub); /* to a new holder */
void model_gap_lost(struct model_sub *sub);
bool model_gap_waits(const struct model_sub *sub); /* what is owed waits until one is acknowledged */
/* true: another one was given up meanwhile, and its holder begins anew. */
bool model_gap_acked(struct model *model, unsigned node, unsigned sub, uint64_t seq);

/* onebyone.c */
bool model_one_flies(const struct model_node *node, const struct model_sub *sub);
/* It may have another max_deliver: what waits to be sent again was sent often enough. */
void model_one_configured(struct model *model, const struct model_node *node, struct model_sub *sub);
void model_one_lost(struct model *model, const struct model_node *node, struct model_sub *sub);
void model_one_pump(struct model *model, unsigned node, unsigned sub);
uint64_t model_one_due(const struct model_node *node, const struct model_sub *sub);
void model_one_pass(struct model *model, const struct model_node *node, struct model_sub *sub);
uint64_t model_one_number(const struct model_node *node, const struct model_sub *sub, unsigned k);
/* false: nothing is out under that number. */
bool model_one_say(struct model *model, struct model_node *node, struct model_sub *sub, int verb,
                   uint64_t seq, int delay);
void model_one_restarted(struct model *model, const struct model_node *node, struct model_sub *sub);

/* session.c */
void model_connected(struct model *model, unsigned slot, bool sm); /* a former session of the slot is over */
void model_presence(struct model *model, unsigned slot, int priority);
void model_dropped(struct model *model, unsigned slot);
void model_resumed(struct model *model, unsigned slot);
void model_ended(struct model *model, unsigned slot);
bool model_may_restore(const struct model *model, unsigned slot);
void model_restored(struct model *model, unsigned slot, uint32_t h); /* resumed after a restart */
uint64_t model_deadline_us(const struct model *model);               /* of sessions and subscriptions */
void model_pass(struct model *model, uint64_t us);
void model_restarted(struct model *model);
