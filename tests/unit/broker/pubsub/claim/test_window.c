/* The window of items that are acknowledged one by one, against a naive model: what is owed, in which order it comes, and
 * that cursor and rows, as they would stand in the store, tell all of it after a crash. */
#include "tests/unit/unit.h"

#include <string.h>

#include "broker/pubsub/claim/window.h"

#define SEQS 400u

/* What the window says to the store: the cursor and a row per entry. */
struct stored {
    uint64_t cursor;
    bool row[SEQS + 1];
    uint32_t attempts[SEQS + 1];
};

struct model {
    uint64_t sent;
    bool open[SEQS + 1]; /* sent and not settled */
    uint32_t attempts[SEQS + 1];
};

struct run {
    struct window window;
    struct model model;
    struct stored stored;
    struct model at_record; /* as it was when the store was told */
    uint64_t random, now_us;
};

static void record(struct run *run)
{
    struct window *window = &run->window;
    run->stored.cursor = window_cursor(window);
    xy_list_each (link, &window->dirty) {
        const struct window_entry *entry = xy_container_of(link, struct window_entry, dirty);
        const struct window_entry *now = window_find(window, entry->seq);
        if (entry->state == WINDOW_SETTLED && now != NULL && now->stored)
            continue; /* it is there anew */
        run->stored.row[entry->seq] = entry->state != WINDOW_SETTLED;
        run->stored.attempts[entry->seq] = entry->attempts;
    }
    window_recorded(window);
    run->at_record = run->model;
}

static void compare(struct run *run)
{
    struct window *window = &run->window;
    uint32_t open = 0;
    uint64_t oldest = 0;
    assert_int_equal(window->sent, run->model.sent);
    for (uint64_t seq = 1; seq <= SEQS; seq++) {
        const struct window_entry *entry = window_find(window, seq);
        assert_int_equal(entry != NULL, run->model.open[seq]);
        if (entry == NULL)
            continue;
        open++;
        oldest = oldest != 0 ? oldest : seq;
        assert_int_equal(entry->attempts, run->model.attempts[seq]);
        assert_int_equal(entry->stored, seq <= window_cursor(window));
    }
    assert_int_equal(window->total, open);
    uint32_t counted = 0;
    for (unsigned i = 0; i < WINDOW_SETTLED; i++)
        counted += window->count[i];
    assert_int_equal(counted, open);
    const struct window_entry *first = window_oldest(window);
    assert_int_equal(first != NULL ? first->seq : 0, oldest);
}

static struct window_entry *any(struct run *run)
{
    const struct window *window = &run->window;
    if (window->all.count == 0)
        return NULL;
    return window->all.at[unit_below(&run->random, window->all.count)];
}

static void send(struct run *run)
{
    struct window *window = &run->window;
    struct window_entry *entry = window_next(window);
    uint64_t due_us = run->now_us + 1 + unit_below(&run->random, 50);
    if (entry != NULL) {
        for (uint64_t seq = 1; seq < entry->seq; seq++) { /* the lowest number goes first */
            const struct window_entry *other = window_find(window, seq);
            assert_true(other == NULL || other->state != WINDOW_READY);
        }
        window_resend(window, entry, due_us);
        run->model.attempts[entry->seq]++;
        return;
    }
    uint64_t seq = window->sent + 1 + unit_below(&run->random, 3); /* some were retracted */
    if (seq > SEQS)
        return;
    assert_non_null(window_add(window, seq, WINDOW_FLIGHT, due_us));
    run->model.sent = seq;
    run->model.open[seq] = true;
    run->model.attempts[seq] = 1;
}

static void settle(struct run *run, struct window_entry *entry)
{
    run->model.open[entry->seq] = false;
    window_settle(&run->window, entry);
}

static void come_again(struct run *run, struct window_entry *entry)
{
    static const enum window_state states[] = { WINDOW_READY, WINDOW_DELAYED, WINDOW_PARKED, WINDOW_ENDING };
    enum window_state state = states[unit_below(&run->random, 4)];
    window_put(&run->window, entry, state,
               state == WINDOW_DELAYED ? run->now_us + unit_below(&run->random, 30) : WINDOW_NEVER);
}

static void time_passes(struct run *run)
{
    struct window_entry *entry;
    uint64_t last = 0;
    run->now_us += unit_below(&run->random, 40);
    while ((entry = window_due(&run->window, run->now_us)) != NULL) {
        assert_true(entry->due_us >= last);
        last = entry->due_us;
        window_put(&run->window, entry, WINDOW_READY, WINDOW_NEVER);
    }
    assert_true(window_due_us(&run->window) > run->now_us);
}

static void untake(struct run *run)
{
    struct window *window = &run->window;
    size_t flight = 0, at = 0;
    xy_list_each (link, &window->flight)
        flight++;
    if (flight == 0) {
        assert_false(window_untake(window, 1));
        return;
    }
    size_t from = unit_below(&run->random, flight);
    uint64_t seq = 0;
    xy_list_each (link, &window->flight) {
        const struct window_entry *entry = xy_container_of(link, struct window_entry, flight);
        if (at == from)
            seq = entry->seq;
        if (at++ >= from)
            run->model.attempts[entry->seq]--;
    }
    assert_true(window_untake(window, seq));
    assert_int_equal(window->count[WINDOW_FLIGHT], from);
}

static void rewind_some(struct run *run)
{
    uint64_t to = unit_below(&run->random, (size_t)run->model.sent + 1);
    window_rewind(&run->window, to);
    for (uint64_t seq = to + 1; seq <= SEQS; seq++)
        run->model.open[seq] = false;
    run->model.sent = to;
}

/* What the store was told last is what there is. */
static void crash(struct run *run)
{
    window_free(&run->window);
    assert_true(window_init(&run->window, 7, run->stored.cursor));
    run->model = run->at_record;
    for (uint64_t seq = 1; seq <= SEQS; seq++) {
        if (run->stored.row[seq]) {
            assert_true(seq <= run->stored.cursor);
            assert_true(run->model.open[seq]); /* nothing settled comes back */
            assert_int_equal(run->stored.attempts[seq], run->model.attempts[seq]);
            assert_non_null(
                window_restore(&run->window, seq, WINDOW_READY, WINDOW_NEVER, run->stored.attempts[seq]));
        } else if (seq <= run->stored.cursor) {
            assert_false(run->model.open[seq]); /* nothing open is lost */
        }
        if (seq > run->stored.cursor)
            run->model.open[seq] = false; /* sent again as if it were new */
    }
    run->model.sent = run->stored.cursor;
}

static void step(struct run *run)
{
    struct window_entry *entry = any(run);
    switch (unit_below(&run->random, 16)) {
    case 0:
    case 1:
    case 2:
    case 3:
        send(run);
        break;
    case 4:
    case 5:
    case 6:
    case 7:
        if (entry != NULL)
            settle(run, entry);
        break;
    case 8:
    case 9:
        if (entry != NULL)
            come_again(run, entry);
        break;
    case 10:
        time_passes(run);
        break;
    case 11:
        untake(run);
        break;
    case 12:
        if (unit_below(&run->random, 8) == 0)
            rewind_some(run);
        break;
    case 13:
        if (unit_below(&run->random, 4) == 0)
            crash(run);
        break;
    case 14:
        if (entry != NULL && entry->state == WINDOW_FLIGHT)
            window_extend(&run->window, entry, run->now_us + 100);
        break;
    default:
        record(run);
    }
    compare(run);
}

static void random_runs(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct run run = { .random = seed * 7919 };
        assert_true(window_init(&run.window, 7, 0));
        for (unsigned i = 0; i < 1500; i++)
            step(&run);
        window_free(&run.window);
    }
}

/* In order there is nothing to remember but the cursor. */
static void acknowledged_in_order_writes_no_rows(void **state)
{
    (void)state;
    struct window window;
    assert_true(window_init(&window, 7, 10));
    for (uint64_t seq = 11; seq <= 20; seq++)
        assert_non_null(window_add(&window, seq, WINDOW_FLIGHT, seq));
    assert_int_equal(window_cursor(&window), 10);
    for (uint64_t seq = 11; seq <= 20; seq++) {
        window_settle(&window, window_find(&window, seq));
        assert_int_equal(window_cursor(&window), seq);
        assert_true(xy_list_empty(&window.dirty));
    }
    window_free(&window);
}

/* Each item gets a row once at most, however wildly they are acknowledged. */
static void out_of_order_writes_few_rows(void **state)
{
    (void)state;
    struct window window;
    size_t rows = 0;
    assert_true(window_init(&window, 7, 0));
    for (uint64_t seq = 1; seq <= 100; seq++)
        assert_non_null(window_add(&window, seq, WINDOW_FLIGHT, seq));
    for (uint64_t seq = 100; seq >= 1; seq--) {
        window_settle(&window, window_find(&window, seq));
        xy_list_each (link, &window.dirty)
            rows++;
        window_recorded(&window);
    }
    assert_int_equal(window_cursor(&window), 100);
    assert_int_equal(rows, 2 * 99); /* written and deleted, but for the last */
    window_free(&window);
}

/* What was sent before the gap was sent, and stays so. */
static void untake_since_a_gap(void **state)
{
    (void)state;
    struct window window;
    assert_true(window_init(&window, 7, 0));
    for (uint64_t seq = 1; seq <= 4; seq++)
        assert_non_null(window_add(&window, seq, WINDOW_FLIGHT, WINDOW_NEVER));
    window_put(&window, window_find(&window, 1), WINDOW_READY, WINDOW_NEVER);
    uint64_t sendings = window.sendings;
    assert_non_null(window_add(&window, 5, WINDOW_FLIGHT, WINDOW_NEVER));
    window_resend(&window, window_find(&window, 1), WINDOW_NEVER);
    window_untake_since(&window, sendings);
    assert_int_equal(window.count[WINDOW_FLIGHT], 3);
    assert_int_equal(window_find(&window, 1)->attempts, 1);
    assert_int_equal(window_find(&window, 2)->attempts, 1);
    assert_int_equal(window_find(&window, 5)->attempts, 0);
    window_untake_since(&window, window.sendings);
    assert_int_equal(window.count[WINDOW_FLIGHT], 3);
    window_free(&window);
}

static void full_at_its_limit(void **state)
{
    (void)state;
    struct window window;
    assert_true(window_init(&window, 7, 0));
    for (uint64_t seq = 1; seq <= WINDOW_ENTRIES_MAX; seq++)
        assert_non_null(window_add(&window, seq, WINDOW_FLIGHT, WINDOW_NEVER));
    assert_null(window_add(&window, WINDOW_ENTRIES_MAX + 1, WINDOW_FLIGHT, WINDOW_NEVER));
    assert_int_equal(window.sent, WINDOW_ENTRIES_MAX);
    window_settle(&window, window_find(&window, 77));
    assert_non_null(window_add(&window, WINDOW_ENTRIES_MAX + 1, WINDOW_FLIGHT, WINDOW_NEVER));
    window_free(&window);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_runs),
        cmocka_unit_test(acknowledged_in_order_writes_no_rows),
        cmocka_unit_test(out_of_order_writes_few_rows),
        cmocka_unit_test(untake_since_a_gap),
        cmocka_unit_test(full_at_its_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
