/* Entries of items that are acknowledged one by one; see window.h for the idea. */
#include "broker/pubsub/claim/window.h"

#include <stdlib.h>

#include "core/base/assert.h"

static bool by_due(const void *left, const void *right)
{
    const struct window_entry *a = left, *b = right;
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->seq < b->seq;
}

static bool by_seq(const void *left, const void *right)
{
    return ((const struct window_entry *)left)->seq < ((const struct window_entry *)right)->seq;
}

static struct xy_str key(const uint64_t *seq)
{
    return xy_str_n((const char *)seq, sizeof(*seq));
}

bool window_init(struct window *window, uint64_t hash_seed, uint64_t cursor)
{
    *window = (struct window){ .sent = cursor };
    window->by_seq = xy_table_new(hash_seed);
    window->due = XY_HEAP(struct window_entry, in_due, by_due);
    window->ready = XY_HEAP(struct window_entry, in_ready, by_seq);
    window->all = XY_HEAP(struct window_entry, in_all, by_seq);
    xy_list_init(&window->flight);
    xy_list_init(&window->fresh);
    xy_list_init(&window->dirty);
    xy_list_init(&window->spare);
    return window->by_seq != NULL;
}

/* Settled entries are in no heap, only among the dirty. */
void window_free(struct window *window)
{
    if (window->by_seq == NULL)
        return;
    for (uint32_t i = 0; i < window->all.count; i++) {
        struct window_entry *entry = window->all.at[i];
        xy_list_remove(&entry->dirty);
        free(entry);
    }
    xy_list_each (link, &window->dirty)
        free(xy_container_of(link, struct window_entry, dirty));
    xy_list_each (link, &window->spare)
        free(xy_container_of(link, struct window_entry, fresh));
    xy_table_free(&window->by_seq);
    xy_heap_free(&window->due);
    xy_heap_free(&window->ready);
    xy_heap_free(&window->all);
    *window = (struct window){ 0 };
}

/* --- finding ------------------------------------------------------------------------------------------------------- */

struct window_entry *window_find(const struct window *window, uint64_t seq)
{
    return xy_table_get(window->by_seq, key(&seq));
}

struct window_entry *window_oldest(const struct window *window)
{
    return xy_heap_least(&window->all);
}

struct window_entry *window_next(const struct window *window)
{
    return xy_heap_least(&window->ready);
}

struct window_entry *window_walk(const struct window *window, size_t *position)
{
    return xy_table_next(window->by_seq, position, NULL);
}

uint64_t window_due_us(const struct window *window)
{
    const struct window_entry *first = xy_heap_least(&window->due);
    return first != NULL ? first->due_us : WINDOW_NEVER;
}

struct window_entry *window_due(const struct window *window, uint64_t now_us)
{
    return window_due_us(window) <= now_us ? xy_heap_least(&window->due) : NULL;
}

/* --- states -------------------------------------------------------------------------------------------------------- */

static void push(struct xy_heap *heap, struct window_entry *entry)
{
    bool pushed = xy_heap_push(heap, entry);
    xy_assert(pushed); /* room was reserved with the entry */
}

static void leave(struct window *window, struct window_entry *entry)
{
    xy_heap_remove(&window->due, entry);
    xy_heap_remove(&window->ready, entry);
    xy_list_remove(&entry->flight);
    xy_assert(window->count[entry->state] > 0);
    window->count[entry->state]--;
}

static void enter(struct window *window, struct window_entry *entry, enum window_state state, uint64_t due_us)
{
    entry->state = (uint8_t)state;
    entry->due_us = due_us;
    window->count[state]++;
    if (due_us != WINDOW_NEVER)
        push(&window->due, entry);
    if (state == WINDOW_READY)
        push(&window->ready, entry);
    if (state != WINDOW_FLIGHT)
        return;
    entry->sending = ++window->sendings;
    xy_list_append(&window->flight, &entry->flight);
}

static void mark(struct window *window, struct window_entry *entry)
{
    entry->stored = true;
    if (!xy_list_linked(&entry->dirty))
        xy_list_append(&window->dirty, &entry->dirty);
}

/* The cursor passes everything up to seq. */
static void cover(struct window *window, uint64_t seq)
{
    xy_list_each (link, &window->fresh) {
        struct window_entry *entry = xy_container_of(link, struct window_entry, fresh);
        if (entry->seq > seq)
            return;
        xy_list_remove(&entry->fresh);
        mark(window, entry);
    }
}

/* --- beginning and end of an entry ----------------------------------------------------------------------------------- */

static struct window_entry *take(struct window *window)
{
    if (window->spare_count == 0)
        return malloc(sizeof(struct window_entry));
    struct window_entry *entry = xy_container_of(window->spare.next, struct window_entry, fresh);
    xy_list_remove(&entry->fresh);
    window->spare_count--;
    return entry;
}

static void give(struct window *window, struct window_entry *entry)
{
    if (window->spare_count == WINDOW_ENTRIES_KEEP) {
        free(entry);
        return;
    }
    xy_list_append(&window->spare, &entry->fresh);
    window->spare_count++;
}

static struct window_entry *make(struct window *window, uint64_t seq)
{
    size_t room = (size_t)window->total + 1;
    if (room > WINDOW_ENTRIES_MAX || !xy_heap_reserve(&window->due, room) ||
        !xy_heap_reserve(&window->ready, room) || !xy_heap_reserve(&window->all, room))
        return NULL;
    struct window_entry *entry = take(window);
    if (entry == NULL)
        return NULL;
    *entry = (struct window_entry){ .seq = seq };
    xy_list_init(&entry->flight);
    xy_list_init(&entry->fresh);
    xy_list_init(&entry->dirty);
    if (!xy_table_put(window->by_seq, key(&entry->seq), entry, NULL)) {
        give(window, entry);
        return NULL;
    }
    push(&window->all, entry);
    window->total++;
    return entry;
}

struct window_entry *window_add(struct window *window, uint64_t seq, enum window_state state, uint64_t due_us)
{
    xy_assert(seq > window->sent && (state == WINDOW_FLIGHT || state == WINDOW_READY));
    struct window_entry *entry = make(window, seq);
    if (entry == NULL)
        return NULL;
    entry->attempts = 1;
    xy_list_append(&window->fresh, &entry->fresh);
    enter(window, entry, state, due_us);
    window->sent = seq;
    return entry;
}

struct window_entry *window_restore(struct window *window, uint64_t seq, enum window_state state,
                                    uint64_t due_us, uint32_t attempts)
{
    xy_assert(seq <= window->sent && xy_list_empty(&window->fresh));
    struct window_entry *entry = make(window, seq);
    if (entry == NULL)
        return NULL;
    entry->attempts = attempts;
    entry->stored = true;
    enter(window, entry, state, due_us);
    return entry;
}

static void drop(struct window *window, struct window_entry *entry)
{
    leave(window, entry);
    xy_heap_remove(&window->all, entry);
    xy_table_remove(window->by_seq, key(&entry->seq));
    xy_list_remove(&entry->fresh);
    window->total--;
    if (entry->stored) {
        entry->state = WINDOW_SETTLED;
        mark(window, entry);
    } else {
        give(window, entry);
    }
}

void window_settle(struct window *window, struct window_entry *entry)
{
    if (!entry->stored)
        cover(window, entry->seq - 1);
    drop(window, entry);
}

/* --- changes ------------------------------------------------------------------------------------------------------- */

void window_resend(struct window *window, struct window_entry *entry, uint64_t due_us)
{
    xy_assert(entry->state == WINDOW_READY);
    leave(window, entry);
    if (entry->attempts < UINT32_MAX)
        entry->attempts++;
    if (entry->stored)
        mark(window, entry);
    enter(window, entry, WINDOW_FLIGHT, due_us);
}

void window_extend(struct window *window, struct window_entry *entry, uint64_t due_us)
{
    xy_heap_remove(&window->due, entry);
    entry->due_us = due_us;
    if (due_us != WINDOW_NEVER)
        push(&window->due, entry);
}

void window_put(struct window *window, struct window_entry *entry, enum window_state state, uint64_t due_us)
{
    xy_assert(state != WINDOW_FLIGHT && state != WINDOW_SETTLED);
    leave(window, entry);
    enter(window, entry, state, due_us);
    if (entry->stored)
        mark(window, entry);
    else
        cover(window, entry->seq);
}

void window_untake_since(struct window *window, uint64_t sendings)
{
    while (!xy_list_empty(&window->flight)) {
        struct window_entry *entry = xy_container_of(window->flight.prev, struct window_entry, flight);
        if (entry->sending <= sendings)
            return;
        leave(window, entry);
        xy_assert(entry->attempts > 0);
        entry->attempts--;
        if (entry->stored)
            mark(window, entry);
        enter(window, entry, WINDOW_READY, WINDOW_NEVER);
    }
}

bool window_untake(struct window *window, uint64_t seq)
{
    const struct window_entry *first = window_find(window, seq);
    if (first == NULL || first->state != WINDOW_FLIGHT)
        return false;
    window_untake_since(window, first->sending - 1);
    return true;
}

void window_pass(struct window *window, uint64_t seq)
{
    if (seq > window->sent)
        window->sent = seq;
}

void window_rewind(struct window *window, uint64_t seq)
{
    size_t position = 0;
    for (struct window_entry *entry; (entry = xy_table_next(window->by_seq, &position, NULL)) != NULL;)
        if (entry->seq > seq)
            drop(window, entry);
    if (seq < window->sent)
        window->sent = seq;
}

void window_recorded(struct window *window)
{
    xy_list_each (link, &window->dirty) {
        struct window_entry *entry = xy_container_of(link, struct window_entry, dirty);
        xy_list_remove(&entry->dirty);
        if (entry->state == WINDOW_SETTLED)
            give(window, entry);
    }
}
