/* Dispatch of a queue: two heaps of entries (what is ready, what is due), one of consumers, a table of groups, a cursor
 * over plain items. Called by queue.c. */
#include "broker/pubsub/queue/queue_engine.h"

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/base/table.h"

struct queue_group {
    struct xy_list
        entries;  /* all of it but the parked ones; the first is READY, DELAYED, LOCKED or PENDING */
    size_t named; /* by how many entries, parked ones too */
    struct xy_str key;
    char text[];
};

struct queue_engine {
    struct queue_source source;
    struct xy_table *entries; /* by seq (its bytes) */
    struct xy_table *groups;
    struct xy_heap ready, due, consumers;
    struct xy_list parked;
    struct queue_entry *spare; /* linked by consumer */
    size_t spare_count;
    size_t consumers_count;
    size_t counts[QUEUE_STATES];
    uint64_t cursor; /* plain items up to here were sent, or never existed */
    uint64_t stamp;
    uint8_t plain_priority;
};

/* --- order --------------------------------------------------------------------------------------------------------- */

static bool goes_first(const void *left, const void *right)
{
    const struct queue_entry *a = left, *b = right;
    if (a->priority != b->priority)
        return a->priority > b->priority;
    if (a->returned != b->returned)
        return a->returned;
    return a->seq < b->seq;
}

static bool is_due_first(const void *left, const void *right)
{
    const struct queue_entry *a = left, *b = right;
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->seq < b->seq;
}

static bool is_served_first(const void *left, const void *right)
{
    const struct queue_consumer *a = left, *b = right;
    if (a->held_count != b->held_count)
        return a->held_count < b->held_count;
    return a->served != b->served ? a->served < b->served : a->number < b->number;
}

/* --- beginning and end --------------------------------------------------------------------------------------------- */

struct queue_engine *queue_engine_new(uint64_t hash_seed, struct queue_source source)
{
    struct queue_engine *engine = calloc(1, sizeof(*engine));
    if (engine == NULL)
        return NULL;
    engine->source = source;
    engine->entries = xy_table_new(hash_seed);
    engine->groups = xy_table_new(hash_seed);
    engine->ready = XY_HEAP(struct queue_entry, ready_place, goes_first);
    engine->due = XY_HEAP(struct queue_entry, due_place, is_due_first);
    engine->consumers = XY_HEAP(struct queue_consumer, place, is_served_first);
    engine->plain_priority = QUEUE_MEDIUM;
    xy_list_init(&engine->parked);
    if (engine->entries == NULL || engine->groups == NULL)
        queue_engine_free(&engine);
    return engine;
}

static void free_all_but_entries(struct queue_engine *engine)
{
    while (engine->spare != NULL) {
        struct queue_entry *next = (struct queue_entry *)(void *)engine->spare->consumer;
        free(engine->spare);
        engine->spare = next;
    }
    xy_table_free(&engine->entries);
    xy_table_free(&engine->groups);
    xy_heap_free(&engine->ready);
    xy_heap_free(&engine->due);
    xy_heap_free(&engine->consumers);
    free(engine);
}

void queue_engine_free_some(struct queue_engine **engine, size_t *position, size_t max)
{
    struct queue_entry *entry = NULL;
    for (; max > 0 && (*engine)->entries != NULL; max--) {
        entry = xy_table_next((*engine)->entries, position, NULL);
        if (entry == NULL)
            break;
        if (entry->group != NULL && --entry->group->named == 0)
            free(entry->group);
        free(entry);
    }
    if (entry != NULL)
        return;
    free_all_but_entries(*engine);
    *engine = NULL;
}

void queue_engine_free(struct queue_engine **engine)
{
    size_t position = 0;
    if (*engine != NULL)
        queue_engine_free_some(engine, &position, SIZE_MAX);
    xy_assert(*engine == NULL);
}

void queue_engine_succeed(struct queue_engine *fresh, struct queue_engine *engine)
{
    xy_assert(xy_table_count(fresh->entries) == 0 && engine->counts[QUEUE_LOCKED] == 0);
    fresh->consumers = engine->consumers;
    fresh->consumers_count = engine->consumers_count;
    fresh->stamp = engine->stamp;
    fresh->cursor = engine->cursor;
    fresh->plain_priority = engine->plain_priority;
    engine->consumers = (struct xy_heap){ 0 };
}

void queue_set_plain_priority(struct queue_engine *engine, enum queue_priority priority)
{
    engine->plain_priority = (uint8_t)priority;
}

/* --- states -------------------------------------------------------------------------------------------------------- */

static struct xy_str key_of(const struct queue_entry *entry)
{
    return xy_str_n((const char *)&entry->seq, sizeof(entry->seq));
}

static uint64_t due_in(const struct queue_entry *entry, enum queue_state state)
{
    switch (state) {
    case QUEUE_READY:
    case QUEUE_BLOCKED:
        return entry->expires_us;
    case QUEUE_DELAYED:
        return entry->not_before_us < entry->expires_us ? entry->not_before_us : entry->expires_us;
    case QUEUE_LOCKED:
        return entry->due_us; /* set by who locks it */
    case QUEUE_PENDING:
    case QUEUE_PARKED:
        break;
    }
    return QUEUE_NEVER;
}

/* Every change of state goes through here. */
static void enter(struct queue_engine *engine, struct queue_entry *entry, enum queue_state state)
{
    xy_heap_remove(&engine->ready, entry);
    xy_heap_remove(&engine->due, entry);
    engine->counts[entry->state]--;
    engine->counts[state]++;
    entry->state = (uint8_t)state;
    entry->due_us = due_in(entry, state);
    bool pushed = true;
    if (state == QUEUE_READY)
        pushed = xy_heap_push(&engine->ready, entry);
    if (pushed && entry->due_us != QUEUE_NEVER)
        pushed = xy_heap_push(&engine->due, entry);
    xy_assert(pushed); /* room was made when the entry was */
}

static bool is_first(const struct queue_entry *entry)
{
    return entry->group == NULL || entry->group->entries.next == &entry->group_link;
}

/* Into the state it has when nobody holds it. */
static void settle(struct queue_engine *engine, struct queue_entry *entry, uint64_t now_us)
{
    if (!is_first(entry))
        enter(engine, entry, QUEUE_BLOCKED);
    else
        enter(engine, entry, entry->not_before_us > now_us ? QUEUE_DELAYED : QUEUE_READY);
}

static void release(struct queue_engine *engine, struct queue_entry *entry)
{
    struct queue_consumer *consumer = entry->consumer;
    xy_assert(entry->state == QUEUE_LOCKED && consumer->held_count > 0);
    xy_list_remove(&entry->held_link);
    entry->consumer = NULL;
    consumer->held_count--;
    if (consumer->place != 0) {
        xy_heap_moved(&engine->consumers, consumer);
    } else if (consumer->able && consumer->held_count < consumer->capacity) {
        bool pushed = xy_heap_push(&engine->consumers, consumer);
        xy_assert(pushed);
    }
}

/* Out of its group, whose next item may go now. */
static void leave_group(struct queue_engine *engine, struct queue_entry *entry, uint64_t now_us)
{
    struct queue_group *group = entry->group;
    if (group == NULL || !xy_list_linked(&entry->group_link))
        return;
    bool first = is_first(entry);
    xy_list_remove(&entry->group_link);
    if (xy_list_empty(&group->entries) || !first)
        return;
    struct queue_entry *next = xy_container_of(group->entries.next, struct queue_entry, group_link);
    if (next->state == QUEUE_BLOCKED)
        settle(engine, next, now_us);
}

/* --- entries ------------------------------------------------------------------------------------------------------- */

static struct queue_entry *take(struct queue_engine *engine)
{
    struct queue_entry *entry = engine->spare;
    if (entry == NULL)
        return malloc(sizeof(*entry));
    engine->spare = (struct queue_entry *)(void *)entry->consumer;
    engine->spare_count--;
    return entry;
}

static void give_back(struct queue_engine *engine, struct queue_entry *entry)
{
    if (engine->spare_count == QUEUE_ENTRIES_KEEP) {
        free(entry);
        return;
    }
    entry->consumer = (struct queue_consumer *)(void *)engine->spare;
    engine->spare = entry;
    engine->spare_count++;
}

static struct queue_entry *make(struct queue_engine *engine, uint64_t seq)
{
    size_t count = xy_table_count(engine->entries) + 1;
    if (!xy_heap_reserve(&engine->ready, count) || !xy_heap_reserve(&engine->due, count))
        return NULL;
    struct queue_entry *entry = take(engine);
    if (entry == NULL)
        return NULL;
    *entry = (struct queue_entry){ .seq = seq,
                                   .expires_us = QUEUE_NEVER,
                                   .due_us = QUEUE_NEVER,
                                   .state = QUEUE_PENDING,
                                   .priority = engine->plain_priority };
    xy_list_init(&entry->group_link);
    xy_list_init(&entry->held_link);
    xy_list_init(&entry->dirty_link);
    xy_assert(xy_table_get(engine->entries, key_of(entry)) == NULL);
    if (!xy_table_put(engine->entries, key_of(entry), entry, NULL)) {
        give_back(engine, entry);
        return NULL;
    }
    engine->counts[QUEUE_PENDING]++;
    return entry;
}

static bool join_group(struct queue_engine *engine, struct queue_entry *entry, struct xy_str key)
{
    struct queue_group *group = xy_table_get(engine->groups, key);
    if (group == NULL) {
        group = malloc(sizeof(*group) + key.len);
        if (group == NULL)
            return false;
        memcpy(group->text, key.data, key.len);
        group->key = xy_str_n(group->text, key.len);
        group->named = 0;
        xy_list_init(&group->entries);
        if (!xy_table_put(engine->groups, group->key, group, NULL)) {
            free(group);
            return false;
        }
    }
    group->named++;
    entry->group = group;
    xy_list_append(&group->entries, &entry->group_link);
    return true;
}

static void forget_group(struct queue_engine *engine, struct queue_group *group)
{
    if (group == NULL || --group->named > 0)
        return;
    xy_assert(xy_list_empty(&group->entries));
    xy_table_remove(engine->groups, group->key);
    free(group);
}

static void drop(struct queue_engine *engine, struct queue_entry *entry)
{
    xy_table_remove(engine->entries, key_of(entry));
    engine->counts[entry->state]--;
    give_back(engine, entry);
}

struct queue_entry *queue_add(struct queue_engine *engine, uint64_t seq, const struct queue_traits *traits)
{
    struct queue_entry *entry = make(engine, seq);
    if (entry == NULL)
        return NULL;
    entry->priority = (uint8_t)traits->priority;
    entry->not_before_us = traits->not_before_us;
    entry->expires_us = traits->expires_us;
    entry->attempts = traits->attempts;
    entry->returned = traits->attempts > 0;
    if (traits->group.len == 0 || join_group(engine, entry, traits->group))
        return entry;
    drop(engine, entry);
    return NULL;
}

void queue_commit(struct queue_engine *engine, struct queue_entry *entry, uint64_t now_us)
{
    xy_assert(entry->state == QUEUE_PENDING);
    settle(engine, entry, now_us);
}

void queue_commit_all(struct queue_engine *engine, uint64_t now_us)
{
    size_t position = 0;
    for (struct queue_entry *entry; (entry = xy_table_next(engine->entries, &position, NULL)) != NULL;)
        if (entry->state == QUEUE_PENDING)
            settle(engine, entry, now_us);
}

struct queue_entry *queue_find(const struct queue_engine *engine, uint64_t seq)
{
    return xy_table_get(engine->entries, xy_str_n((const char *)&seq, sizeof(seq)));
}

void queue_remove(struct queue_engine *engine, uint64_t seq, uint64_t now_us)
{
    struct queue_entry *entry = queue_find(engine, seq);
    if (entry == NULL)
        return;
    if (entry->state == QUEUE_LOCKED)
        release(engine, entry);
    xy_heap_remove(&engine->ready, entry);
    xy_heap_remove(&engine->due, entry);
    xy_list_remove(&entry->held_link);
    xy_list_remove(&entry->dirty_link);
    leave_group(engine, entry, now_us);
    forget_group(engine, entry->group);
    drop(engine, entry);
}

/* --- sending ------------------------------------------------------------------------------------------------------- */

/* The plain item whose turn it is, if it goes before the first of the ready ones; 0: none does. Not yet taken: the
 * cursor stands before it. */
static uint64_t plain_turn(struct queue_engine *engine)
{
    const struct queue_entry *first = xy_heap_least(&engine->ready);
    if (first != NULL && (first->priority > engine->plain_priority ||
                          (first->priority == engine->plain_priority && first->returned)))
        return 0;
    uint64_t seq = engine->source.next(engine->source.ctx, &engine->cursor);
    bool behind = first != NULL && first->priority == engine->plain_priority && first->seq < seq;
    return behind ? 0 : seq;
}

static void lock(struct queue_engine *engine, struct queue_entry *entry, struct queue_consumer *consumer,
                 uint64_t lock_us)
{
    enter(engine, entry, QUEUE_LOCKED);
    queue_extend(engine, entry, lock_us);
    entry->consumer = consumer;
    entry->holder = consumer->number;
    entry->attempts += entry->attempts < UINT32_MAX;
    xy_list_append(&consumer->held, &entry->held_link);
    consumer->held_count++;
    consumer->served = ++engine->stamp;
    if (consumer->held_count == consumer->capacity)
        xy_heap_remove(&engine->consumers, consumer);
    else
        xy_heap_moved(&engine->consumers, consumer);
}

struct queue_entry *queue_next(struct queue_engine *engine, uint64_t lock_us, bool *short_of_memory)
{
    struct queue_consumer *consumer = xy_heap_least(&engine->consumers);
    *short_of_memory = false;
    if (consumer == NULL)
        return NULL;
    uint64_t seq = plain_turn(engine);
    struct queue_entry *entry = seq != 0 ? make(engine, seq) : xy_heap_least(&engine->ready);
    if (entry == NULL) {
        *short_of_memory = seq != 0;
        return NULL;
    }
    if (seq != 0)
        engine->cursor = seq;
    lock(engine, entry, consumer, lock_us);
    return entry;
}

void queue_extend(struct queue_engine *engine, struct queue_entry *entry, uint64_t lock_us)
{
    xy_assert(entry->state == QUEUE_LOCKED);
    xy_heap_remove(&engine->due, entry);
    entry->due_us = lock_us;
    if (lock_us != QUEUE_NEVER) {
        bool pushed = xy_heap_push(&engine->due, entry);
        xy_assert(pushed);
    }
}

void queue_return(struct queue_engine *engine, struct queue_entry *entry, uint64_t not_before_us,
                  uint64_t now_us)
{
    release(engine, entry);
    entry->not_before_us = not_before_us;
    entry->returned = true;
    settle(engine, entry, now_us);
}

void queue_unsend(struct queue_engine *engine, struct queue_entry *entry, uint64_t now_us)
{
    xy_assert(entry->attempts > 0);
    entry->attempts--;
    queue_return(engine, entry, 0, now_us);
    if (entry->attempts > 0)
        return;
    entry->holder = 0;
    entry->returned = false;
    if (entry->ready_place != 0)
        xy_heap_moved(&engine->ready, entry);
}

void queue_park(struct queue_engine *engine, struct queue_entry *entry, uint64_t now_us)
{
    if (entry->state == QUEUE_LOCKED)
        release(engine, entry);
    enter(engine, entry, QUEUE_PARKED);
    leave_group(engine, entry, now_us);
    xy_list_remove(&entry->held_link);
    xy_list_append(&engine->parked, &entry->held_link);
}

void queue_hide(struct queue_engine *engine, struct queue_entry *entry)
{
    (void)engine;
    xy_assert(entry->state == QUEUE_PARKED);
    xy_list_remove(&entry->held_link);
}

void queue_revive(struct queue_engine *engine, struct queue_entry *entry, uint64_t now_us)
{
    xy_assert(entry->state == QUEUE_PARKED);
    xy_list_remove(&entry->held_link);
    if (entry->group != NULL)
        xy_list_append(&entry->group->entries, &entry->group_link);
    settle(engine, entry, now_us);
}

void queue_redrive(struct queue_engine *engine, struct queue_entry *entry, uint64_t now_us)
{
    entry->attempts = 0;
    entry->reason = 0;
    entry->holder = 0;
    entry->not_before_us = 0;
    entry->expires_us = QUEUE_NEVER;
    entry->timeless = true;
    entry->returned = true;
    queue_revive(engine, entry, now_us);
}

struct queue_entry *queue_parked(const struct queue_engine *engine)
{
    return xy_list_empty(&engine->parked)
               ? NULL
               : xy_container_of(engine->parked.next, struct queue_entry, held_link);
}

enum queue_due queue_due(struct queue_engine *engine, uint64_t now_us, struct queue_entry **entry)
{
    struct queue_entry *first;
    while ((first = xy_heap_least(&engine->due)) != NULL && first->due_us <= now_us) {
        *entry = first;
        if (first->state == QUEUE_LOCKED)
            return QUEUE_LOCK_OVER;
        if (first->expires_us <= now_us)
            return QUEUE_EXPIRED;
        xy_assert(first->state == QUEUE_DELAYED);
        settle(engine, first, now_us);
    }
    return QUEUE_NOTHING;
}

uint64_t queue_next_due_us(const struct queue_engine *engine)
{
    const struct queue_entry *first = xy_heap_least(&engine->due);
    return first != NULL ? first->due_us : QUEUE_NEVER;
}

/* --- consumers ----------------------------------------------------------------------------------------------------- */

bool queue_consumer_begin(struct queue_engine *engine, struct queue_consumer *consumer, uint32_t number,
                          uint32_t capacity)
{
    if (!xy_heap_reserve(&engine->consumers, engine->consumers_count + 1))
        return false;
    *consumer = (struct queue_consumer){ .number = number, .capacity = capacity };
    xy_list_init(&consumer->held);
    engine->consumers_count++;
    return true;
}

void queue_consumer_end(struct queue_engine *engine, struct queue_consumer *consumer)
{
    xy_assert(consumer->held_count == 0 && engine->consumers_count > 0);
    xy_heap_remove(&engine->consumers, consumer);
    engine->consumers_count--;
}

void queue_consumer_set(struct queue_engine *engine, struct queue_consumer *consumer, uint32_t capacity,
                        bool able)
{
    consumer->capacity = capacity;
    consumer->able = able;
    xy_heap_remove(&engine->consumers, consumer);
    if (able && consumer->held_count < capacity) {
        bool pushed = xy_heap_push(&engine->consumers, consumer);
        xy_assert(pushed);
    }
}

struct queue_entry *queue_consumer_first(const struct queue_consumer *consumer)
{
    return xy_list_empty(&consumer->held)
               ? NULL
               : xy_container_of(consumer->held.next, struct queue_entry, held_link);
}

struct queue_entry *queue_consumer_last(const struct queue_consumer *consumer)
{
    return xy_list_empty(&consumer->held)
               ? NULL
               : xy_container_of(consumer->held.prev, struct queue_entry, held_link);
}

/* --- figures ------------------------------------------------------------------------------------------------------- */

size_t queue_count(const struct queue_engine *engine, enum queue_state state)
{
    return engine->counts[state];
}

size_t queue_entries(const struct queue_engine *engine)
{
    return xy_table_count(engine->entries);
}
