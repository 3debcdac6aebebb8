/* The items of one node in memory: what is retained, what is still owed to durable subscriptions, by sequence and by id.
 *
 * An entry lives while it is retained or somebody is owed it. `pending` counts those who are owed: it is set when the
 * item is added and falls as their cursors pass, so nothing ever walks over subscribers. Bodies are in the store; the
 * event of a recent item may hang on its entry. Sequence numbers may have holes once entries went. Memory only; the
 * caller writes the records. */
#pragma once

#include "core/base/list.h"
#include "core/base/str.h"
#include "core/base/table.h"

struct event;
struct xy_bytes;

struct item {
    struct xy_list retained_link; /* in order of seq */
    struct xy_list recent_link;   /* those with an event, of the whole shard */
    uint64_t seq;
    uint64_t time_us;
    uint64_t before_bytes; /* of all items added before this one */
    uint64_t superseded;   /* number of the item that took its id; 0: none did */
    struct event *event;   /* NULL: read it from the store */
    struct xy_bytes *body; /* of an item that is in memory only; else NULL */
    uint32_t bytes;
    uint32_t pending;
    uint16_t id_len, publisher_len;
    bool retained;
    bool damaged;   /* its record cannot be read: a gap for those who are owed it */
    uint8_t class_; /* which free list it belongs to; ITEM_CLASSES: none */
    char text[];    /* id, NUL, publisher, NUL */
};

static inline struct xy_str item_id(const struct item *item) /* NUL-terminated */
{
    return xy_str_n(item->text, item->id_len);
}

static inline struct xy_str item_publisher(const struct item *item) /* bare JID, NUL-terminated */
{
    return xy_str_n(item->text + item->id_len + 1, item->publisher_len);
}

/* An entry has one of a few sizes, so that others can use it again, and so that a node with millions of items pays for the
 * names they have, not for the longest. They are what malloc gives for whole steps. */
#define ITEM_CLASSES     8u
#define ITEM_SIZE(class) (120u + 16u * (class))
#define ITEM_SPARES_MAX  256u /* of one index */

struct item_slot {
    uint64_t seq;
    struct item *item; /* NULL: gone */
};

struct item_index {
    struct item_slot *slots; /* by seq; [head, head + count) are in use */
    size_t head, count, cap, live;
    struct xy_table *ids; /* retained items by id */
    struct xy_list retained;
    size_t retained_count;
    uint64_t retained_bytes;
    uint64_t added_bytes;             /* ever */
    uint64_t newest_us;               /* time of the last one added */
    bool time_disordered;             /* some were added with an earlier time than those before them */
    uint64_t entries_bytes;           /* memory of all entries */
    struct item *spare[ITEM_CLASSES]; /* freed entries, linked by retained_link.next */
    uint32_t spares;
    void (*released)(void *ctx, struct item *item); /* about to be freed: let go of its event */
    void (*changed)(void *ctx); /* more or less is retained than before; NULL: nobody asks */
    void *ctx;
};

/* A subscription is born when it begins to be owed items: the next number of the node then. What had been superseded by
 * that time is owed to older ones only. */
static inline bool item_concerns(const struct item *item, uint64_t born)
{
    return item->superseded == 0 || item->superseded >= born;
}

bool index_init(struct item_index *index, uint64_t hash_seed);
void index_free(struct item_index *index);
/* As index_free, but at most so many entries: call it until it is true. Nothing else may be done with it any more. */
bool index_free_some(struct item_index *index, size_t max);
void index_move(struct item_index *to, struct item_index *from); /* *from needs index_init to be used again */
void index_continue(struct item_index *fresh,
                    const struct item_index *former); /* its counters, its callbacks */

/* seq above all that are there. A retained item of the same id must have been unretained before. NULL: no memory. */
struct item *index_add(struct item_index *index, uint64_t seq, struct xy_str id, struct xy_str publisher,
                       uint32_t bytes, uint64_t time_us, bool retained, uint32_t pending);
struct item *index_find(const struct item_index *index, uint64_t seq);        /* NULL: none */
struct item *index_find_id(const struct item_index *index, struct xy_str id); /* retained ones */
struct item *index_after(const struct item_index *index, uint64_t seq);       /* the first above seq */
/* The first above seq that concerns a subscription born then. */
struct item *index_owed(const struct item_index *index, uint64_t seq, uint64_t born);
/* The first published at that wall time or later; NULL: none. Found by halves unless the clock was ever set back. */
struct item *index_since(const struct item_index *index, uint64_t time_us);
struct item *index_oldest(const struct item_index *index); /* retained; NULL: none */
struct item *index_newest(const struct item_index *index);
/* How many retained ones are in front of a retained one. */
size_t index_rank(const struct item_index *index, const struct item *item);
/* The one behind a retained one. */
struct item *index_next_retained(const struct item_index *index, const struct item *item);

/* No longer returned by <items/>. true: nobody is owed it either, so the entry is freed. */
bool index_unretain(struct item_index *index, struct item *item);
/* Gone for all. */
void index_remove(struct item_index *index, struct item *item);

/* The cursor of a subscription born then moved from `from` to `to`: everything in (from, to] that concerns it is owed to
 * one less. Entries that nobody is owed and that are not retained are freed after `freed` was told their seq. */
void index_pass(struct item_index *index, uint64_t from, uint64_t to, uint64_t born,
                void (*freed)(void *ctx, uint64_t seq), void *ctx);
/* Everything in (from, to] that concerns it is owed to one more. */
void index_owe(struct item_index *index, uint64_t from, uint64_t to, uint64_t born);
/* How many items that concern it there are in (from, to], exactly up to INDEX_COUNT_EXACT; above it removed ones may count as well. */
#define INDEX_COUNT_EXACT 16384u
uint64_t index_count(const struct item_index *index, uint64_t from, uint64_t to, uint64_t born);
