/* The heap of timers against a model that looks at all of them. */
#include "tests/unit/unit.h"

#include <string.h>

#include "broker/shard/shard.h"
#include "broker/shard/shard_internal.h"

#define TIMERS 200

static struct shard_timer timers[TIMERS];
static uint64_t last_due_us;
static unsigned ran;

static void on_timer(struct shard *shard, struct shard_timer *timer)
{
    (void)shard;
    assert_false(shard_timer_is_set(timer));
    assert_true(timer->due_us >= last_due_us);
    last_due_us = timer->due_us;
    ran++;
}

static uint64_t model_due(const bool *set)
{
    uint64_t due_us = UINT64_MAX;
    for (unsigned i = 0; i < TIMERS; i++)
        if (set[i] && timers[i].due_us < due_us)
            due_us = timers[i].due_us;
    return due_us;
}

static void test_against_a_model(void **state)
{
    (void)state;
    struct shard shard = { 0 };
    uint64_t seed = 77, now_us = 0;
    bool set[TIMERS] = { 0 };
    memset(timers, 0, sizeof(timers));
    for (unsigned i = 0; i < TIMERS; i++)
        timers[i].fn = on_timer;
    for (unsigned step = 0; step < 50000; step++) {
        size_t i = unit_below(&seed, TIMERS);
        size_t action = unit_below(&seed, 10);
        if (action < 6) { /* sets, or moves either way */
            shard_timer_set(&shard, &timers[i], now_us + unit_below(&seed, 1000));
            set[i] = true;
        } else if (action < 8) {
            shard_timer_cancel(&shard, &timers[i]);
            set[i] = false;
        } else {
            now_us += unit_below(&seed, 60);
            unsigned due = 0;
            for (unsigned j = 0; j < TIMERS; j++) {
                bool runs = set[j] && timers[j].due_us <= now_us;
                due += runs;
                set[j] = set[j] && !runs;
            }
            last_due_us = ran = 0;
            assert_int_equal(shard_timers_run(&shard, now_us), due > 0);
            assert_int_equal(ran, due);
        }
        assert_int_equal(shard_timers_due(&shard.timers), model_due(set));
        assert_int_equal(shard_timer_is_set(&timers[i]), set[i]);
    }
    shard_timers_free(&shard.timers);
}

static void test_boundary(void **state)
{
    (void)state;
    struct shard shard = { 0 };
    struct shard_timer timer = { .fn = on_timer };
    shard_timer_cancel(&shard, &timer); /* harmless */
    assert_int_equal(shard_timers_due(&shard.timers), UINT64_MAX);
    shard_timer_set(&shard, &timer, 100);
    last_due_us = ran = 0;
    assert_false(shard_timers_run(&shard, 99));
    assert_true(shard_timers_run(&shard, 100));
    assert_int_equal(ran, 1);
    assert_false(shard_timers_run(&shard, 101));
    shard_timers_free(&shard.timers);
}

static struct shard_timer other;

static void cancel_other(struct shard *shard, struct shard_timer *timer)
{
    (void)timer;
    shard_timer_cancel(shard, &other);
    ran++;
}

static void set_later(struct shard *shard, struct shard_timer *timer)
{
    if (++ran < 3)
        shard_timer_set(shard, timer, timer->due_us + 10);
}

/* What is done from within a timer holds at once. */
static void test_from_within(void **state)
{
    (void)state;
    struct shard shard = { 0 };
    struct shard_timer first = { .fn = cancel_other }, renewed = { .fn = set_later };
    other = (struct shard_timer){ .fn = on_timer };
    ran = 0;
    shard_timer_set(&shard, &other, 20);
    shard_timer_set(&shard, &first, 10);
    assert_true(shard_timers_run(&shard, 100));
    assert_int_equal(ran, 1);
    ran = 0;
    shard_timer_set(&shard, &renewed, 100);
    assert_true(shard_timers_run(&shard, 110)); /* 100, 110; 120 is not due */
    assert_int_equal(ran, 2);
    assert_int_equal(shard_timers_due(&shard.timers), 120);
    shard_timers_free(&shard.timers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_a_model),
        cmocka_unit_test(test_boundary),
        cmocka_unit_test(test_from_within),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
