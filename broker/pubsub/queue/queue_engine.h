/* Who gets which item of a queue node next: a data structure without I/O and without a clock of its own (every call that
 * needs the time is told it). Used by queue.c for each node that is a queue; docs/protocol.md 4 says what users see.
 *
 * Most items of a long queue are *plain*: medium priority, no group, no delay, no time to live, never sent. They cost
 * nothing here: a cursor walks over them in the order of publishing, with the caller's help. Everything else, and every
 * plain item once it is sent, has an entry:
 *
 *     PENDING -> READY -> LOCKED -> (removed: acknowledged)
 *        |         ^        |-----> READY, in front of those never sent
 *        |         |        |-----> DELAYED until not_before
 *        |      DELAYED     `-----> PARKED until redriven
 *        `-----> BLOCKED behind another item of its group
 *
 * Rules. The highest priority goes first; within it what was returned before what was never sent, then by sequence. Of a
 * group at most one item is out at a time and the first one goes first. The consumer with the fewest items goes first,
 * among equals the one served longest ago. O(log n) each. Changes of state never need memory: room for them is made when
 * the entry is. Times are microseconds of one monotonic clock; QUEUE_NEVER is none. */
#pragma once

#include "core/base/heap.h"
#include "core/base/list.h"
#include "core/base/str.h"

#define QUEUE_NEVER        UINT64_MAX
#define QUEUE_ENTRIES_KEEP 1024u /* freed entries kept for reuse, per queue */

enum queue_priority { QUEUE_LOW, QUEUE_MEDIUM, QUEUE_HIGH };

enum queue_state { QUEUE_PENDING, QUEUE_READY, QUEUE_BLOCKED, QUEUE_DELAYED, QUEUE_LOCKED, QUEUE_PARKED };
#define QUEUE_STATES 6

struct queue_group;
struct queue_engine;

struct queue_consumer {
    struct xy_list held; /* its locked entries, in the order they were sent */
    uint32_t held_count;
    uint32_t capacity; /* how many it may hold */
    uint32_t number;   /* the caller's name for it, not 0 */
    uint32_t place;    /* in the heap */
    uint64_t served;   /* stamp of its last item */
    bool able;         /* it can be sent something now */
};

struct queue_entry {
    uint64_t seq;
    uint64_t not_before_us; /* 0: at once */
    uint64_t expires_us;
    uint64_t due_us; /* when something happens to it in its state */
    struct queue_group *group;
    struct queue_consumer *consumer; /* who has it locked */
    struct xy_list group_link;
    struct xy_list held_link;  /* of the consumer, or of all that are parked */
    struct xy_list dirty_link; /* the caller's */
    uint32_t holder;           /* number of the consumer that had it last; 0: none */
    uint32_t attempts;         /* how often it was sent */
    uint32_t ready_place, due_place;
    uint8_t state, priority;
    bool returned;
    bool timeless;  /* its TTL counts no more: somebody asked for it after it was given up */
    bool stored;    /* the caller's, as this: */
    bool reviving;  /* it is moved to another node, and goes on if it is refused there */
    uint8_t reason; /* why it was given up, plus one; 0: it was not, or before a restart */
};

/* What makes an item more than plain. */
struct queue_traits {
    enum queue_priority priority;
    struct xy_str group;    /* absent or empty: none */
    uint64_t not_before_us; /* 0: at once */
    uint64_t expires_us;    /* QUEUE_NEVER */
    uint32_t attempts;      /* before a restart */
};

struct queue_source {
    /* The first plain item above *cursor that may be sent, 0: none. Moves *cursor up to it, or over all it looked at. An
     * item that has an entry (queue_find) is not plain. */
    uint64_t (*next)(void *ctx, uint64_t *cursor);
    void *ctx;
};

struct queue_engine *queue_engine_new(uint64_t hash_seed, struct queue_source source); /* NULL: no memory */
void queue_engine_free(struct queue_engine **engine); /* consumers are the caller's */
/* The same, but at most `max` entries; from *position = 0 until *engine is NULL. */
void queue_engine_free_some(struct queue_engine **engine, size_t *position, size_t max);
/* *fresh is new and empty. What `engine` is now, consumers included, it takes over, but for the entries, of which none is
 * locked: these stay in `engine`, which can only be freed. */
void queue_engine_succeed(struct queue_engine *fresh, struct queue_engine *engine);
/* The priority that plain items have; MEDIUM at first. */
void queue_set_plain_priority(struct queue_engine *engine, enum queue_priority priority);

/* --- items --------------------------------------------------------------------------------------------------------- */

/* An item that is not plain, PENDING until queue_commit; items of one group in order. NULL: no memory. */
struct queue_entry *queue_add(struct queue_engine *engine, uint64_t seq, const struct queue_traits *traits);
void queue_commit(struct queue_engine *engine, struct queue_entry *entry, uint64_t now_us);
void queue_commit_all(struct queue_engine *engine,
                      uint64_t now_us); /* every PENDING one: a queue was loaded */
struct queue_entry *queue_find(const struct queue_engine *engine,
                               uint64_t seq); /* NULL: plain, or not there */
/* Gone: acknowledged, retracted, expired. Plain items too. */
void queue_remove(struct queue_engine *engine, uint64_t seq, uint64_t now_us);

/* --- sending ------------------------------------------------------------------------------------------------------- */

/* The next item, locked until `lock_us` for the consumer that gets it (entry->consumer). NULL: nothing is ready, or
 * nobody has room, or memory is short (*short_of_memory). */
struct queue_entry *queue_next(struct queue_engine *engine, uint64_t lock_us, bool *short_of_memory);
void queue_extend(struct queue_engine *engine, struct queue_entry *entry, uint64_t lock_us);
/* A locked one goes back, READY at not_before_us (0: now). */
void queue_return(struct queue_engine *engine, struct queue_entry *entry, uint64_t not_before_us,
                  uint64_t now_us);
/* The same for one that the consumer never took: it was not sent. */
void queue_unsend(struct queue_engine *engine, struct queue_entry *entry, uint64_t now_us);
/* Out of the way until redriven; its group goes on. Any state but PENDING; behind all that are parked already. */
void queue_park(struct queue_engine *engine, struct queue_entry *entry, uint64_t now_us);
/* A parked one is on its way elsewhere: queue_parked passes over it until it is parked again. */
void queue_hide(struct queue_engine *engine, struct queue_entry *entry);
/* A parked one goes on as it was, last of its group. */
void queue_revive(struct queue_engine *engine, struct queue_entry *entry, uint64_t now_us);
/* A parked one begins anew: READY, no attempts, last of its group. */
void queue_redrive(struct queue_engine *engine, struct queue_entry *entry, uint64_t now_us);
struct queue_entry *queue_parked(const struct queue_engine *engine); /* the one parked longest; NULL: none */

/* What time brought, one after the other until QUEUE_NOTHING. Delays that are over are dealt with inside. */
enum queue_due {
    QUEUE_NOTHING,
    QUEUE_LOCK_OVER, /* still LOCKED: return it, park it or remove it */
    QUEUE_EXPIRED,   /* remove it */
};
enum queue_due queue_due(struct queue_engine *engine, uint64_t now_us, struct queue_entry **entry);
uint64_t queue_next_due_us(const struct queue_engine *engine); /* QUEUE_NEVER: nothing */

/* --- consumers ----------------------------------------------------------------------------------------------------- */

/* false: no memory. Not able at first. */
bool queue_consumer_begin(struct queue_engine *engine, struct queue_consumer *consumer, uint32_t number,
                          uint32_t capacity);
/* It holds nothing any more. */
void queue_consumer_end(struct queue_engine *engine, struct queue_consumer *consumer);
void queue_consumer_set(struct queue_engine *engine, struct queue_consumer *consumer, uint32_t capacity,
                        bool able);
struct queue_entry *
queue_consumer_first(const struct queue_consumer *consumer); /* sent first; NULL: holds none */
struct queue_entry *queue_consumer_last(const struct queue_consumer *consumer);

/* --- figures ------------------------------------------------------------------------------------------------------- */
size_t queue_count(const struct queue_engine *engine, enum queue_state state); /* of entries */
size_t queue_entries(const struct queue_engine *engine);
