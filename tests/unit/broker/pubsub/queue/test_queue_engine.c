/* Who gets which item next: the rules one by one, then random work against a model that looks at every item each time. */
#include "tests/unit/unit.h"

#include "broker/pubsub/queue/queue_engine.h"

#define ITEMS     400
#define CONSUMERS 4
#define GROUPS    5

/* --- a source of plain items ---------------------------------------------------------------------------------------- */

struct items {
    struct queue_engine *engine;
    bool there[ITEMS + 1];
    uint64_t newest;
    size_t looked;
};

static uint64_t next_plain(void *ctx, uint64_t *cursor)
{
    struct items *items = ctx;
    while (*cursor < items->newest) {
        uint64_t seq = *cursor + 1;
        items->looked++;
        if (items->there[seq] && queue_find(items->engine, seq) == NULL)
            return seq;
        *cursor = seq;
    }
    return 0;
}

static struct queue_engine *engine_of(struct items *items)
{
    memset(items, 0, sizeof(*items));
    items->engine = queue_engine_new(1, (struct queue_source){ next_plain, items });
    assert_non_null(items->engine);
    return items->engine;
}

static uint64_t plain(struct items *items)
{
    items->there[++items->newest] = true;
    return items->newest;
}

static struct queue_entry *special(struct items *items, struct queue_traits traits, uint64_t now)
{
    traits.expires_us = traits.expires_us ? traits.expires_us : QUEUE_NEVER;
    struct queue_entry *entry = queue_add(items->engine, plain(items), &traits);
    assert_non_null(entry);
    queue_commit(items->engine, entry, now);
    return entry;
}

static void settle(struct items *items, uint64_t seq, uint64_t now)
{
    items->there[seq] = false;
    queue_remove(items->engine, seq, now);
}

static struct queue_entry *next(struct queue_engine *engine)
{
    bool short_of_memory;
    struct queue_entry *entry = queue_next(engine, QUEUE_NEVER, &short_of_memory);
    assert_false(short_of_memory);
    return entry;
}

static uint64_t next_seq(struct queue_engine *engine)
{
    struct queue_entry *entry = next(engine);
    return entry != NULL ? entry->seq : 0;
}

static void join(struct queue_engine *engine, struct queue_consumer *consumer, uint32_t number,
                 uint32_t capacity)
{
    assert_true(queue_consumer_begin(engine, consumer, number, capacity));
    queue_consumer_set(engine, consumer, capacity, true);
}

static void leave(struct queue_engine *engine, struct queue_consumer *consumer, uint64_t now)
{
    queue_consumer_set(engine, consumer, consumer->capacity, false);
    for (struct queue_entry *entry; (entry = queue_consumer_first(consumer)) != NULL;)
        queue_return(engine, entry, 0, now);
    queue_consumer_end(engine, consumer);
}

/* --- the rules ------------------------------------------------------------------------------------------------------ */

static void plain_items_go_in_order_and_cost_nothing(void **state)
{
    (void)state;
    struct items items;
    struct queue_consumer worker;
    struct queue_engine *engine = engine_of(&items);
    for (int i = 0; i < 100; i++)
        plain(&items);
    items.there[2] = false; /* retracted */
    assert_int_equal(queue_entries(engine), 0);
    assert_null(next(engine)); /* nobody is there */
    join(engine, &worker, 1, 3);
    assert_int_equal(next_seq(engine), 1);
    assert_int_equal(next_seq(engine), 3);
    assert_int_equal(next_seq(engine), 4);
    assert_int_equal(next_seq(engine), 0); /* no room */
    assert_int_equal(queue_entries(engine), 3);
    settle(&items, 3, 0);
    assert_int_equal(next_seq(engine), 5);
    for (uint64_t seq = 6; seq <= 100; seq++) {
        settle(&items, seq - 1, 0);
        assert_int_equal(next_seq(engine), seq);
    }
    assert_int_equal(next_seq(engine), 0);
    assert_true(items.looked < 300); /* it never walks twice */
    leave(engine, &worker, 0);
    queue_engine_free(&engine);
}

static void priorities_and_what_came_back_go_first(void **state)
{
    (void)state;
    struct items items;
    struct queue_consumer worker;
    struct queue_engine *engine = engine_of(&items);
    plain(&items);                                                       /* 1 */
    special(&items, (struct queue_traits){ .priority = QUEUE_LOW }, 0);  /* 2 */
    special(&items, (struct queue_traits){ .priority = QUEUE_HIGH }, 0); /* 3 */
    plain(&items);                                                       /* 4 */
    special(&items, (struct queue_traits){ .priority = QUEUE_HIGH }, 0); /* 5 */
    join(engine, &worker, 1, 2);
    struct queue_entry *third = next(engine);
    assert_int_equal(third->seq, 3);
    assert_int_equal(next_seq(engine), 5);
    queue_return(engine, third, 0, 0); /* before 1: of higher priority */
    assert_int_equal(next_seq(engine), 3);
    assert_int_equal(third->attempts, 2);
    settle(&items, 3, 0);
    settle(&items, 5, 0);
    assert_int_equal(next_seq(engine), 1);
    struct queue_entry *fourth = next(engine);
    assert_int_equal(fourth->seq, 4);
    queue_return(engine, fourth, 0, 0);
    queue_return(engine, queue_find(engine, 1), 0, 0);
    plain(&items); /* 6 */
    assert_int_equal(next_seq(engine), 1);
    assert_int_equal(next_seq(engine), 4);
    settle(&items, 1, 0);
    settle(&items, 4, 0);
    assert_int_equal(next_seq(engine), 6);
    assert_int_equal(next_seq(engine), 2);
    leave(engine, &worker, 0);
    queue_engine_free(&engine);
}

static void plain_items_have_the_priority_of_the_queue(void **state)
{
    (void)state;
    struct items items;
    struct queue_consumer worker;
    struct queue_engine *engine = engine_of(&items);
    queue_set_plain_priority(engine, QUEUE_LOW);
    plain(&items);
    special(&items, (struct queue_traits){ .priority = QUEUE_MEDIUM }, 0);
    special(&items, (struct queue_traits){ .priority = QUEUE_LOW }, 0);
    join(engine, &worker, 1, 9);
    assert_int_equal(next_seq(engine), 2);
    assert_int_equal(next_seq(engine), 1);
    assert_int_equal(next_seq(engine), 3);
    leave(engine, &worker, 0);
    queue_engine_free(&engine);
}

static void the_least_loaded_consumer_is_served(void **state)
{
    (void)state;
    struct items items;
    struct queue_consumer worker[3];
    struct queue_engine *engine = engine_of(&items);
    for (int i = 0; i < 30; i++)
        plain(&items);
    for (uint32_t i = 0; i < 3; i++)
        join(engine, &worker[i], i + 1, i == 0 ? 1 : 4);
    for (int i = 0; i < 9; i++)
        assert_non_null(next(engine));
    assert_null(next(engine));
    assert_int_equal(worker[0].held_count, 1);
    assert_int_equal(worker[1].held_count, 4);
    assert_int_equal(worker[2].held_count, 4);
    struct queue_entry *of_third = queue_consumer_last(&worker[2]);
    settle(&items, of_third->seq, 0);
    assert_ptr_equal(next(engine)->consumer, &worker[2]); /* the only one with room */
    for (int i = 0; i < 3; i++)
        settle(&items, queue_consumer_first(&worker[2])->seq, 0);
    settle(&items, queue_consumer_first(&worker[1])->seq, 0);
    assert_ptr_equal(next(engine)->consumer, &worker[2]); /* 1 against 3 and a full one */
    settle(&items, queue_consumer_first(&worker[0])->seq, 0);
    assert_ptr_equal(next(engine)->consumer, &worker[0]);
    for (int i = 0; i < 3; i++)
        leave(engine, &worker[i], 0);
    queue_engine_free(&engine);
}

static void turns_are_taken_among_equals(void **state)
{
    (void)state;
    struct items items;
    struct queue_consumer worker[3];
    struct queue_engine *engine = engine_of(&items);
    uint32_t last[3];
    for (uint32_t i = 0; i < 3; i++)
        join(engine, &worker[i], i + 1, 10);
    for (int i = 0; i < 30; i++) {
        uint64_t seq = plain(&items);
        uint32_t got = next(engine)->consumer->number;
        settle(&items, seq, 0); /* always idle: only the turn decides */
        if (i >= 3)
            assert_int_equal(got, last[i % 3]);
        last[i % 3] = got;
    }
    for (int i = 0; i < 3; i++)
        leave(engine, &worker[i], 0);
    queue_engine_free(&engine);
}

static void a_group_is_one_at_a_time_and_in_order(void **state)
{
    (void)state;
    struct items items;
    struct queue_consumer worker[2];
    struct queue_engine *engine = engine_of(&items);
    struct queue_traits a = { .priority = QUEUE_MEDIUM, .group = XY_STR("a") };
    struct queue_traits b = { .priority = QUEUE_MEDIUM, .group = XY_STR("b") };
    struct queue_entry *first = special(&items, a, 0); /* 1 */
    special(&items, a, 0);                             /* 2 */
    special(&items, b, 0);                             /* 3 */
    struct queue_entry *fourth = special(&items, a, 0);
    for (uint32_t i = 0; i < 2; i++)
        join(engine, &worker[i], i + 1, 5);
    assert_int_equal(next_seq(engine), 1);
    assert_int_equal(next_seq(engine), 3);
    assert_null(next(engine));
    assert_int_equal(queue_count(engine, QUEUE_BLOCKED), 2);
    queue_return(engine, first, 0, 0);
    assert_int_equal(next_seq(engine), 1); /* again, before 2 */
    queue_return(engine, first, 500, 0);   /* a pause of the first is one of the group */
    assert_null(next(engine));
    struct queue_entry *entry;
    assert_int_equal(queue_due(engine, 499, &entry), QUEUE_NOTHING);
    assert_null(next(engine));
    assert_int_equal(queue_due(engine, 500, &entry), QUEUE_NOTHING);
    assert_int_equal(next_seq(engine), 1);
    queue_park(engine, first, 500); /* the group goes on */
    assert_int_equal(next_seq(engine), 2);
    settle(&items, 4, 500); /* not the first: nothing changes */
    assert_null(next(engine));
    queue_redrive(engine, first, 500); /* last of its group now */
    assert_null(next(engine));
    assert_int_equal(first->attempts, 0);
    settle(&items, 2, 500);
    assert_int_equal(next_seq(engine), 1);
    (void)fourth;
    for (int i = 0; i < 2; i++)
        leave(engine, &worker[i], 500);
    queue_park(engine, first, 500);
    settle(&items, 1, 500); /* the last that names the group, parked */
    settle(&items, 3, 500);
    assert_int_equal(queue_entries(engine), 0);
    queue_engine_free(&engine);
}

static void time_brings_what_is_due(void **state)
{
    (void)state;
    struct items items;
    struct queue_consumer worker;
    struct queue_engine *engine = engine_of(&items);
    struct queue_entry *entry;
    bool none;
    join(engine, &worker, 1, 5);
    special(&items, (struct queue_traits){ .priority = QUEUE_MEDIUM, .not_before_us = 100 }, 0); /* 1 */
    special(&items, (struct queue_traits){ .priority = QUEUE_MEDIUM, .expires_us = 50 }, 0);     /* 2 */
    special(&items, (struct queue_traits){ .not_before_us = 100, .expires_us = 60 }, 0);         /* 3 */
    assert_int_equal(queue_next_due_us(engine), 50);
    assert_int_equal(queue_next(engine, 40, &none)->seq, 2);
    assert_null(next(engine));
    assert_int_equal(queue_next_due_us(engine), 40);
    assert_int_equal(queue_due(engine, 45, &entry), QUEUE_LOCK_OVER);
    assert_int_equal(entry->seq, 2);
    assert_int_equal(entry->holder, 1);
    queue_return(engine, entry, 0, 45);
    assert_int_equal(queue_due(engine, 45, &entry), QUEUE_NOTHING);
    assert_int_equal(queue_due(engine, 70, &entry), QUEUE_EXPIRED);
    assert_int_equal(entry->seq, 2);
    settle(&items, 2, 70);
    assert_int_equal(queue_due(engine, 70, &entry), QUEUE_EXPIRED);
    assert_int_equal(entry->seq, 3); /* while it still waited */
    settle(&items, 3, 70);
    assert_int_equal(queue_due(engine, 70, &entry), QUEUE_NOTHING);
    assert_int_equal(queue_next_due_us(engine), 100);
    assert_int_equal(queue_due(engine, 100, &entry), QUEUE_NOTHING);
    entry = queue_next(engine, 130, &none);
    assert_int_equal(entry->seq, 1);
    queue_extend(engine, entry, 200);
    assert_int_equal(queue_due(engine, 199, &entry), QUEUE_NOTHING);
    assert_int_equal(queue_due(engine, 200, &entry), QUEUE_LOCK_OVER);
    leave(engine, &worker, 200);
    queue_engine_free(&engine);
}

static void what_was_never_taken_was_not_sent(void **state)
{
    (void)state;
    struct items items;
    struct queue_consumer worker;
    struct queue_engine *engine = engine_of(&items);
    plain(&items);
    join(engine, &worker, 7, 5);
    struct queue_entry *entry = next(engine);
    assert_int_equal(entry->attempts, 1);
    queue_consumer_set(engine, &worker, 5, false);
    queue_unsend(engine, entry, 0);
    assert_int_equal(entry->attempts, 0);
    assert_int_equal(entry->holder, 0);
    assert_null(next(engine));
    queue_consumer_set(engine, &worker, 5, true);
    entry = next(engine);
    assert_int_equal(entry->attempts, 1);
    queue_return(engine, entry, 0, 0);
    entry = next(engine);
    queue_unsend(engine, entry, 0);
    assert_int_equal(entry->attempts, 1);
    assert_true(entry->returned);
    leave(engine, &worker, 0);
    queue_engine_free(&engine);
}

/* --- random work against a model ------------------------------------------------------------------------------------ */

struct model_item {
    bool there, entered, returned;
    enum queue_state state; /* READY stands for READY, BLOCKED and DELAYED: `may_go` tells them apart */
    int priority, group;
    size_t order; /* within its group */
    uint64_t not_before, expires, lock;
    uint32_t attempts, holder;
};

struct world {
    struct items items;
    struct model_item item[ITEMS + 1];
    struct queue_consumer consumer[CONSUMERS];
    bool present[CONSUMERS], able[CONSUMERS];
    uint32_t capacity[CONSUMERS];
    uint64_t served[CONSUMERS];
    uint64_t stamp, now, seed;
    size_t order;
};

static bool group_allows(const struct world *world, uint64_t seq)
{
    const struct model_item *it = &world->item[seq];
    for (uint64_t i = 1; it->group >= 0 && i <= world->items.newest; i++) {
        const struct model_item *other = &world->item[i];
        if (i != seq && other->there && other->group == it->group && other->state != QUEUE_PARKED &&
            other->order < it->order)
            return false;
    }
    return true;
}

static bool may_go(const struct world *world, uint64_t seq)
{
    const struct model_item *it = &world->item[seq];
    return it->there && it->state == QUEUE_READY && it->not_before <= world->now && group_allows(world, seq);
}

static uint64_t model_next(const struct world *world)
{
    uint64_t best = 0;
    for (uint64_t seq = 1; seq <= world->items.newest; seq++) {
        if (!may_go(world, seq))
            continue;
        const struct model_item *a = &world->item[seq], *b = &world->item[best];
        if (best == 0 || a->priority > b->priority ||
            (a->priority == b->priority && a->returned && !b->returned))
            best = seq;
    }
    return best;
}

static uint32_t held(const struct world *world, size_t consumer)
{
    uint32_t count = 0;
    for (uint64_t seq = 1; seq <= world->items.newest; seq++)
        count += world->item[seq].there && world->item[seq].state == QUEUE_LOCKED &&
                 world->item[seq].holder == consumer + 1;
    return count;
}

static size_t model_consumer(const struct world *world)
{
    size_t best = CONSUMERS;
    uint32_t best_held = 0;
    for (size_t i = 0; i < CONSUMERS; i++) {
        uint32_t has = world->present[i] ? held(world, i) : 0;
        if (!world->present[i] || !world->able[i] || has >= world->capacity[i])
            continue;
        if (best == CONSUMERS || has < best_held ||
            (has == best_held && world->served[i] < world->served[best])) {
            best = i;
            best_held = has;
        }
    }
    return best;
}

static void give_back(struct world *world, uint64_t seq, uint64_t not_before)
{
    struct model_item *it = &world->item[seq];
    it->state = QUEUE_READY;
    it->returned = true;
    it->not_before = not_before;
    queue_return(world->items.engine, queue_find(world->items.engine, seq), not_before, world->now);
}

static void take_away(struct world *world, uint64_t seq)
{
    world->item[seq].there = false;
    settle(&world->items, seq, world->now);
}

static void run_due(struct world *world)
{
    struct queue_entry *entry;
    for (enum queue_due what; (what = queue_due(world->items.engine, world->now, &entry)) != QUEUE_NOTHING;) {
        const struct model_item *it = &world->item[entry->seq];
        assert_true(it->there);
        if (what == QUEUE_LOCK_OVER) {
            assert_int_equal(it->state, QUEUE_LOCKED);
            assert_true(it->lock <= world->now);
            give_back(world, entry->seq, unit_below(&world->seed, 3) == 0 ? world->now + 40 : 0);
        } else {
            assert_true(it->state == QUEUE_READY && it->expires <= world->now);
            take_away(world, entry->seq);
        }
    }
    for (uint64_t seq = 1; seq <= world->items.newest; seq++) {
        const struct model_item *it = &world->item[seq];
        assert_false(it->there && it->state == QUEUE_LOCKED && it->lock <= world->now);
        assert_false(it->there && it->state == QUEUE_READY && it->expires <= world->now);
    }
}

static void publish(struct world *world)
{
    if (world->items.newest == ITEMS)
        return;
    struct model_item *it = &world->item[world->items.newest + 1];
    *it = (struct model_item){ .there = true,
                               .state = QUEUE_READY,
                               .priority = QUEUE_MEDIUM,
                               .group = -1,
                               .order = ++world->order,
                               .expires = QUEUE_NEVER };
    if (unit_below(&world->seed, 2) == 0) {
        plain(&world->items);
        return;
    }
    char key[2] = { 0 };
    it->priority = (int)unit_below(&world->seed, 3);
    if (unit_below(&world->seed, 2) == 0)
        it->group = (int)unit_below(&world->seed, GROUPS);
    if (unit_below(&world->seed, 4) == 0)
        it->not_before = world->now + unit_below(&world->seed, 100);
    if (unit_below(&world->seed, 4) == 0)
        it->expires = world->now + 1 + unit_below(&world->seed, 200);
    key[0] = (char)('a' + it->group);
    struct queue_traits traits = { .priority = (enum queue_priority)it->priority,
                                   .group = it->group >= 0 ? xy_str(key) : XY_STR_NONE,
                                   .not_before_us = it->not_before,
                                   .expires_us = it->expires };
    special(&world->items, traits, world->now);
}

static void dispatch(struct world *world)
{
    bool none;
    uint64_t lock = world->now + 1 + unit_below(&world->seed, 100);
    uint64_t seq = model_next(world);
    size_t consumer = model_consumer(world);
    struct queue_entry *entry = queue_next(world->items.engine, lock, &none);
    assert_false(none);
    if (seq == 0 || consumer == CONSUMERS) {
        assert_null(entry);
        return;
    }
    assert_non_null(entry);
    assert_int_equal(entry->seq, seq);
    assert_ptr_equal(entry->consumer, &world->consumer[consumer]);
    struct model_item *it = &world->item[seq];
    it->state = QUEUE_LOCKED;
    it->lock = lock;
    it->holder = (uint32_t)consumer + 1;
    it->attempts++;
    world->served[consumer] = ++world->stamp;
    assert_int_equal(entry->attempts, it->attempts);
}

static uint64_t some(struct world *world, enum queue_state state)
{
    uint64_t seq = world->items.newest > 0 ? 1 + unit_below(&world->seed, world->items.newest) : 0;
    for (uint64_t i = 0; i < world->items.newest; i++, seq = seq % world->items.newest + 1)
        if (world->item[seq].there && world->item[seq].state == state)
            return seq;
    return 0;
}

static void handle(struct world *world)
{
    uint64_t seq = some(world, QUEUE_LOCKED);
    struct queue_entry *entry = seq != 0 ? queue_find(world->items.engine, seq) : NULL;
    if (entry == NULL)
        return;
    switch (unit_below(&world->seed, 6)) {
    case 0:
        give_back(world, seq,
                  unit_below(&world->seed, 2) == 0 ? world->now + unit_below(&world->seed, 50) : 0);
        break;
    case 1:
        world->item[seq].lock = world->now + 1 + unit_below(&world->seed, 300);
        queue_extend(world->items.engine, entry, world->item[seq].lock);
        break;
    case 2:
        world->item[seq].state = QUEUE_PARKED;
        queue_park(world->items.engine, entry, world->now);
        break;
    default:
        take_away(world, seq);
        break;
    }
}

static void redrive(struct world *world)
{
    uint64_t seq = some(world, QUEUE_PARKED);
    if (seq == 0) {
        assert_null(queue_parked(world->items.engine));
        return;
    }
    struct model_item *it = &world->item[seq];
    it->state = QUEUE_READY;
    it->returned = true;
    it->attempts = 0;
    it->not_before = 0;
    it->expires = QUEUE_NEVER;
    it->order = ++world->order;
    queue_redrive(world->items.engine, queue_find(world->items.engine, seq), world->now);
}

static void come_or_go(struct world *world)
{
    size_t i = unit_below(&world->seed, CONSUMERS);
    struct queue_engine *engine = world->items.engine;
    if (!world->present[i]) {
        world->capacity[i] = 1 + (uint32_t)unit_below(&world->seed, 6);
        world->present[i] = world->able[i] = true;
        world->served[i] = 0;
        join(engine, &world->consumer[i], (uint32_t)i + 1, world->capacity[i]);
    } else if (unit_below(&world->seed, 3) == 0) {
        world->able[i] = !world->able[i];
        world->capacity[i] = 1 + (uint32_t)unit_below(&world->seed, 6);
        queue_consumer_set(engine, &world->consumer[i], world->capacity[i], world->able[i]);
    } else if (unit_below(&world->seed, 3) == 0) {
        queue_consumer_set(engine, &world->consumer[i], world->capacity[i], false);
        for (struct queue_entry *entry; (entry = queue_consumer_first(&world->consumer[i])) != NULL;)
            give_back(world, entry->seq, 0);
        queue_consumer_end(engine, &world->consumer[i]);
        world->present[i] = false;
    }
}

static void check_counts(const struct world *world)
{
    size_t locked = 0, parked = 0;
    for (uint64_t seq = 1; seq <= world->items.newest; seq++) {
        locked += world->item[seq].there && world->item[seq].state == QUEUE_LOCKED;
        parked += world->item[seq].there && world->item[seq].state == QUEUE_PARKED;
    }
    assert_int_equal(queue_count(world->items.engine, QUEUE_LOCKED), locked);
    assert_int_equal(queue_count(world->items.engine, QUEUE_PARKED), parked);
    assert_int_equal(queue_count(world->items.engine, QUEUE_PENDING), 0);
    for (size_t i = 0; i < CONSUMERS; i++)
        if (world->present[i])
            assert_int_equal(world->consumer[i].held_count, held(world, i));
}

static void play(uint64_t seed)
{
    static struct world world;
    memset(&world, 0, sizeof(world));
    (void)engine_of(&world.items);
    world.seed = seed;
    for (int step = 0; step < 6000; step++) {
        world.now += unit_below(&world.seed, 4);
        run_due(&world);
        switch (unit_below(&world.seed, 12)) {
        case 0:
            publish(&world);
            break;
        case 1:
            come_or_go(&world);
            break;
        case 2:
            redrive(&world);
            break;
        case 3: {
            uint64_t seq = some(&world, QUEUE_READY); /* retracted */
            if (seq != 0 && unit_below(&world.seed, 5) == 0)
                take_away(&world, seq);
            break;
        }
        case 4:
        case 5:
        case 6:
            handle(&world);
            break;
        default:
            dispatch(&world);
            break;
        }
        if (step % 16 == 0)
            check_counts(&world);
    }
    queue_engine_free(&world.items.engine);
}

static void agrees_with_a_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++)
        play(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_items_go_in_order_and_cost_nothing),
        cmocka_unit_test(priorities_and_what_came_back_go_first),
        cmocka_unit_test(plain_items_have_the_priority_of_the_queue),
        cmocka_unit_test(the_least_loaded_consumer_is_served),
        cmocka_unit_test(turns_are_taken_among_equals),
        cmocka_unit_test(a_group_is_one_at_a_time_and_in_order),
        cmocka_unit_test(time_brings_what_is_due),
        cmocka_unit_test(what_was_never_taken_was_not_sent),
        cmocka_unit_test(agrees_with_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
