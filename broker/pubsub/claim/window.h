/* The items of one subscription that were sent and are acknowledged one by one: what is out, what comes again and when,
 * what is parked, and which of it the store has to know. A data structure without I/O and without a clock of its own, used
 * by acked.c; it knows items by their sequence number only.
 *
 * Everything up to `sent` was sent at least once; what of it is not settled has an entry. What lies above was never sent,
 * or not since the restart, and has none. On disk is a cursor, and one row per entry at or below it (STORE_CLAIMS):
 *
 *     settled  row settled row settled | fresh settled fresh | not sent yet
 *                                      ^ cursor              ^ sent
 *
 * The cursor stands in front of the first *fresh* entry, one that has no row. Acknowledgements in order move it and write
 * no row; one out of order lets it pass, and every fresh entry below gets a row, once. Times are microseconds of the
 * caller's monotonic clock. O(log n) each; changes of state never need memory, room is made when an entry is. */
#pragma once

#include "core/base/heap.h"
#include "core/base/list.h"
#include "core/base/table.h"

#define WINDOW_ENTRIES_MAX  65536u /* of one subscription; then nothing new is sent until some are settled */
#define WINDOW_ENTRIES_KEEP 1024u  /* freed entries kept for reuse */
#define WINDOW_NEVER        UINT64_MAX

enum window_state {
    WINDOW_FLIGHT,  /* sent; acknowledged until due, or it comes again */
    WINDOW_READY,   /* to be sent again */
    WINDOW_DELAYED, /* the same from due on */
    WINDOW_PARKED,  /* not sent again unless asked for; looked at when due */
    WINDOW_ENDING,  /* on its way to the dead letters */
    WINDOW_SETTLED, /* gone but for the row */
};
#define WINDOW_STATES 6

struct window_entry {
    uint64_t seq;
    uint64_t due_us;       /* WINDOW_NEVER: none */
    uint64_t sending;      /* WINDOW_FLIGHT: which of all sendings it was */
    struct xy_list flight; /* WINDOW_FLIGHT: in the order of sending */
    struct xy_list fresh;  /* in the order of seq */
    struct xy_list dirty;  /* its row is to be written or deleted */
    uint32_t attempts;     /* how often it was sent */
    uint32_t in_due, in_ready, in_all;
    uint8_t state;
    uint8_t reason; /* the caller's: why it ends */
    bool stored;    /* it has a row, or gets one with the next record */
};

struct window {
    struct xy_table *by_seq;
    struct xy_heap due;   /* by time */
    struct xy_heap ready; /* WINDOW_READY, by seq */
    struct xy_heap all;   /* by seq */
    struct xy_list flight, fresh, dirty;
    struct xy_list spare;
    uint32_t spare_count;
    uint32_t count[WINDOW_STATES];
    uint32_t total; /* entries that are not settled */
    uint64_t sent;
    uint64_t sendings; /* since the window was made */
};

bool window_init(struct window *window, uint64_t hash_seed, uint64_t cursor); /* false: memory is short */
void window_free(struct window *window);                                      /* harmless when zeroed */

static inline uint64_t window_cursor(const struct window *window)
{
    return xy_list_empty(&window->fresh)
               ? window->sent
               : xy_container_of(window->fresh.next, const struct window_entry, fresh)->seq - 1;
}

struct window_entry *window_find(const struct window *window, uint64_t seq);
struct window_entry *window_oldest(const struct window *window); /* of all; NULL: none */
struct window_entry *window_next(const struct window *window);   /* READY, the first by seq; NULL: none */
/* Each of all, in no order, from position 0 on; NULL: that was the last. It may be put or settled meanwhile. */
struct window_entry *window_walk(const struct window *window, size_t *position);
/* The next whose time has come; NULL: none. Give it another state or time before asking again. */
struct window_entry *window_due(const struct window *window, uint64_t now_us);
uint64_t window_due_us(const struct window *window); /* WINDOW_NEVER: nothing is due */

/* A new entry above all that was sent, in state FLIGHT (attempts 1) or READY. NULL: memory is short, or it is full. */
struct window_entry *window_add(struct window *window, uint64_t seq, enum window_state state,
                                uint64_t due_us);
/* One that the store knew, at or below the cursor. */
struct window_entry *window_restore(struct window *window, uint64_t seq, enum window_state state,
                                    uint64_t due_us, uint32_t attempts);
void window_resend(struct window *window, struct window_entry *entry, uint64_t due_us); /* READY -> FLIGHT */
void window_extend(struct window *window, struct window_entry *entry, uint64_t due_us); /* another time */
/* To READY, DELAYED, PARKED or ENDING; its row is to be written. */
void window_put(struct window *window, struct window_entry *entry, enum window_state state, uint64_t due_us);
/* The session took nothing from `seq` on: what was sent since then is READY and was not sent. false: not known here. */
bool window_untake(struct window *window, uint64_t seq);
/* The same for what was sent behind the first `sendings`. */
void window_untake_since(struct window *window, uint64_t sendings);
void window_settle(struct window *window, struct window_entry *entry); /* it may be freed */
/* What lies above `sent` and up to seq is settled without having been sent. */
void window_pass(struct window *window, uint64_t seq);
/* Everything above `seq` counts as not sent: its entries go without being settled. */
void window_rewind(struct window *window, uint64_t seq);
/* The rows of all that is dirty have been recorded. */
void window_recorded(struct window *window);
