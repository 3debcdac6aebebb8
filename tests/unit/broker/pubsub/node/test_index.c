/* The item index against a model that does everything the slow way: items in an array, owed counts by walking over all
 * cursors. */
#include "tests/unit/unit.h"

#include "broker/pubsub/node/index.h"

#define ITEMS   3000
#define CURSORS 5

struct model {
    bool there[ITEMS + 1], retained[ITEMS + 1];
    int id[ITEMS + 1];
    uint64_t cursor[CURSORS];
    bool active[CURSORS];
    uint64_t newest;
};

static uint32_t owed(const struct model *model, uint64_t seq)
{
    uint32_t count = 0;
    for (int i = 0; i < CURSORS; i++)
        count += model->active[i] && model->cursor[i] < seq;
    return count;
}

static void settle(struct model *model)
{
    for (uint64_t seq = 1; seq <= model->newest; seq++)
        if (model->there[seq] && !model->retained[seq] && owed(model, seq) == 0)
            model->there[seq] = false;
}

static void compare(const struct item_index *index, const struct model *model)
{
    size_t live = 0, retained = 0;
    uint64_t oldest = 0, before = 0;
    for (uint64_t seq = 1; seq <= model->newest; seq++) {
        const struct item *item = index_find(index, seq);
        assert_int_equal(item != NULL, model->there[seq]);
        if (item == NULL)
            continue;
        live++;
        assert_int_equal(item->seq, seq);
        assert_int_equal(item->retained, model->retained[seq]);
        assert_int_equal(item->pending, owed(model, seq));
        assert_ptr_equal(index_after(index, before), item);
        before = seq;
        if (item->retained) {
            assert_int_equal(index_rank(index, item), retained);
            retained++;
            oldest = oldest ? oldest : seq;
            assert_ptr_equal(index_find_id(index, item_id(item)), item);
        }
    }
    assert_null(index_after(index, before));
    assert_int_equal(index->live, live);
    assert_int_equal(index->retained_count, retained);
    assert_int_equal(index_oldest(index) != NULL ? index_oldest(index)->seq : 0, oldest);
}

static void count_freed(void *ctx, uint64_t seq)
{
    (void)seq;
    (*(size_t *)ctx)++;
}

static void publish(struct item_index *index, struct model *model, uint64_t *random, size_t max_items)
{
    char id[64];
    uint64_t seq = ++model->newest;
    bool retained = unit_below(random, 10) != 0;
    uint32_t pending = owed(model, seq);
    if (!retained && pending == 0)
        return; /* a hole from the start */
    model->id[seq] = (int)unit_below(random, 40);
    /* some ids are longer than the usual entry takes */
    (void)snprintf(id, sizeof(id), model->id[seq] % 7 == 0 ? "id-%050d" : "%d", model->id[seq]);
    struct item *same = retained ? index_find_id(index, xy_str(id)) : NULL;
    if (same != NULL) {
        model->retained[same->seq] = false;
        (void)index_unretain(index, same);
    }
    while (retained && index->retained_count >= max_items) {
        model->retained[index_oldest(index)->seq] = false;
        (void)index_unretain(index, index_oldest(index));
    }
    model->there[seq] = true;
    model->retained[seq] = retained;
    const struct item *item =
        index_add(index, seq, xy_str(id), XY_STR("a-publisher@example.org"), 10, seq, retained, pending);
    assert_non_null(item);
    assert_str(item_id(item), id);
    assert_str(item_publisher(item), "a-publisher@example.org");
}

static void step(struct item_index *index, struct model *model, uint64_t *random)
{
    size_t which = unit_below(random, CURSORS), freed = 0;
    uint64_t *cursor = &model->cursor[which];
    switch (unit_below(random, 12)) {
    case 0: /* a subscription begins or ends */
        if (model->active[which]) {
            index_pass(index, *cursor, UINT64_MAX, 0, count_freed, &freed);
        } else {
            *cursor = unit_below(random, (size_t)model->newest + 1);
            index_owe(index, *cursor, UINT64_MAX, 0);
        }
        model->active[which] = !model->active[which];
        break;
    case 1:
    case 2:
        if (model->active[which] && *cursor < model->newest) {
            uint64_t to = *cursor + 1 + unit_below(random, (size_t)(model->newest - *cursor));
            index_pass(index, *cursor, to, 0, count_freed, &freed);
            *cursor = to;
        }
        break;
    case 3: { /* retract */
        struct item *item = index_after(index, unit_below(random, (size_t)model->newest + 1));
        if (item != NULL) {
            model->there[item->seq] = model->retained[item->seq] = false;
            index_remove(index, item);
        }
        break;
    }
    default:
        if (model->newest < ITEMS)
            publish(index, model, random, 25);
    }
    settle(model);
}

static void behaves_as_the_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        uint64_t random = seed * 0x9e3779b97f4a7c15u;
        struct model *model = calloc(1, sizeof(*model));
        struct item_index index;
        assert_non_null(model);
        assert_true(index_init(&index, seed));
        for (int i = 0; i < 3500; i++) {
            step(&index, model, &random);
            if (i % 37 == 0)
                compare(&index, model);
            uint64_t time_us = 1 + unit_below(&random, ITEMS); /* in the model it is the number */
            assert_ptr_equal(index_since(&index, time_us), index_after(&index, time_us - 1));
        }
        compare(&index, model);
        index_free(&index);
        free(model);
    }
}

/* One old value under heavy churn: the array must not grow with what passed. */
static void holes_are_closed(void **state)
{
    (void)state;
    struct item_index index;
    char id[32];
    assert_true(index_init(&index, 1));
    assert_non_null(index_add(&index, 1, XY_STR("old"), XY_STR("p"), 1, 0, true, 0));
    for (uint64_t seq = 2; seq < 100000; seq++) {
        struct item *same = index_find_id(&index, XY_STR("churn"));
        if (same != NULL)
            assert_true(index_unretain(&index, same));
        (void)snprintf(id, sizeof(id), "churn");
        assert_non_null(index_add(&index, seq, xy_str(id), XY_STR("p"), 1, 0, true, 0));
    }
    assert_int_equal(index.live, 2);
    assert_true(index.cap <= 64);
    assert_int_equal(index_find_id(&index, XY_STR("old"))->seq, 1);
    index_free(&index);
}

/* The clock was set back: nothing published at that time or later is passed over. */
static void found_by_time(void **state)
{
    (void)state;
    static const uint64_t times[] = { 10, 20, 30, 5, 15, 25 };
    struct item_index index;
    char id[8];
    assert_true(index_init(&index, 1));
    assert_null(index_since(&index, 0));
    for (uint64_t seq = 1; seq <= 6; seq++) {
        (void)snprintf(id, sizeof(id), "%u", (unsigned)seq);
        assert_non_null(index_add(&index, seq, xy_str(id), XY_STR("p"), 1, times[seq - 1], true, 0));
        if (seq == 3)
            assert_int_equal(index_since(&index, 11)->seq, 2);
    }
    assert_int_equal(index_since(&index, 25)->seq, 3);
    assert_int_equal(index_since(&index, 12)->seq, 2);
    assert_null(index_since(&index, 31));
    index_free(&index);
}

/* Millions of items must fit: what one costs, the array and the table at their emptiest included. */
static void an_item_costs_little(void **state)
{
    (void)state;
    const uint64_t count = 200000;
    struct item_index index;
    char id[48];
    assert_true(index_init(&index, 1));
    for (uint64_t seq = 1; seq <= count; seq++) {
        (void)snprintf(id, sizeof(id), "%032lx", (unsigned long)seq);
        assert_non_null(index_add(&index, seq, xy_str(id), XY_STR("producer@example.org"), 1, 0, true, 0));
    }
    uint64_t bytes =
        index.entries_bytes + index.cap * sizeof(struct item_slot) + count * XY_TABLE_ENTRY_BYTES * 8 / 3;
    assert_true(bytes / count <= 250);
    for (uint64_t seq = 1; seq <= count; seq++)
        index_remove(&index, index_find(&index, seq));
    assert_int_equal(index.cap, 0);
    assert_true(index.entries_bytes <= ITEM_SPARES_MAX * 256); /* nor is it kept for ever */
    index_free(&index);
}

/* Names of every length, so that entries of all sizes and of none are made, given back and used again. */
static void names_of_all_lengths(void **state)
{
    (void)state;
    struct item_index index;
    static char id[1024];
    memset(id, 'i', sizeof(id));
    assert_true(index_init(&index, 1));
    for (uint64_t seq = 1; seq <= 3 * 1023; seq++) {
        struct xy_str name = xy_str_n(id, 1 + seq * 7 % 1023);
        struct item *same = index_find_id(&index, name);
        if (same != NULL)
            index_remove(&index, same);
        const struct item *item = index_add(&index, seq, name, XY_STR("p@example.org"), 1, 0, true, 0);
        assert_non_null(item);
        assert_true(xy_str_eq(item_id(item), name));
        assert_str(item_publisher(item), "p@example.org");
        assert_int_equal(item_publisher(item).data[item->publisher_len], '\0');
    }
    index_free(&index);
}

/* Another index goes on where one was left, which is freed bit by bit. */
static void left_and_freed_bit_by_bit(void **state)
{
    (void)state;
    struct item_index index, left, fresh;
    char id[16];
    assert_true(index_init(&index, 1) && index_init(&fresh, 1));
    for (uint64_t seq = 1; seq <= 1000; seq++) {
        (void)snprintf(id, sizeof(id), "%lu", (unsigned long)seq);
        assert_non_null(index_add(&index, seq, xy_str(id), XY_STR("p"), 10, 5, true, 0));
    }
    index_continue(&fresh, &index);
    index_move(&left, &index);
    index_move(&index, &fresh);
    assert_null(index_oldest(&index));
    assert_int_equal(index_oldest(&left)->seq, 1);
    assert_int_equal(index_newest(&left)->seq, 1000);
    const struct item *next = index_add(&index, 1001, XY_STR("1"), XY_STR("p"), 10, 6, true, 0);
    assert_int_equal(next->before_bytes, 10000);
    unsigned steps = 1;
    while (!index_free_some(&left, 100))
        steps++;
    assert_in_range(steps, 10, 11);
    index_free(&index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(behaves_as_the_model), cmocka_unit_test(holes_are_closed),
        cmocka_unit_test(found_by_time),        cmocka_unit_test(an_item_costs_little),
        cmocka_unit_test(names_of_all_lengths), cmocka_unit_test(left_and_freed_bit_by_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
