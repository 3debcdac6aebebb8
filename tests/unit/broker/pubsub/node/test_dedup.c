/* Windows over publish ids: streams that count up, with numbers overtaken, and ids kept whole. */
#include "tests/unit/unit.h"

#include "broker/pubsub/node/dedup.h"

#define P     XY_STR("alice@example.org")
#define X     XY_STR("x")
#define WHOLE UINT64_MAX

static int start(void **state)
{
    *state = dedup_new(1);
    return *state == NULL;
}

static int stop(void **state)
{
    dedup_free((struct dedup **)state);
    return 0;
}

static void counts_up(void **state)
{
    struct dedup *d = *state;
    assert_int_equal(dedup_check(d, P, X, 5), DEDUP_UNKNOWN);
    assert_true(dedup_add(d, P, X, 5, 0));
    assert_int_equal(dedup_check(d, P, X, 5), DEDUP_SEEN);
    assert_int_equal(dedup_check(d, P, X, 6), DEDUP_NEW);
    assert_int_equal(dedup_check(d, XY_STR("bob@example.org"), X, 5), DEDUP_UNKNOWN);
    assert_int_equal(dedup_check(d, P, XY_STR("y"), 5), DEDUP_UNKNOWN);
    assert_int_equal(dedup_check(d, P, X, WHOLE), DEDUP_UNKNOWN); /* the same text as an id of its own */
}

static void number_zero_counts(void **state)
{
    struct dedup *d = *state;
    assert_true(dedup_add(d, P, X, 0, 0));
    assert_int_equal(dedup_check(d, P, X, 0), DEDUP_SEEN);
    assert_int_equal(dedup_check(d, P, X, 1), DEDUP_NEW);
}

static void overtaken_numbers_are_new_until_seen(void **state)
{
    struct dedup *d = *state;
    assert_true(dedup_add(d, P, X, 1000, 0));
    assert_int_equal(dedup_check(d, P, X, 1000 - DEDUP_WINDOW), DEDUP_NEW);
    assert_int_equal(dedup_check(d, P, X, 1000 - DEDUP_WINDOW - 1), DEDUP_OLD);
    assert_true(dedup_add(d, P, X, 999, 0));
    assert_int_equal(dedup_check(d, P, X, 999), DEDUP_SEEN);
    assert_int_equal(dedup_check(d, P, X, 998), DEDUP_NEW);
    assert_true(dedup_add(d, P, X, 1001 + DEDUP_WINDOW, 0)); /* everything shifts out */
    assert_int_equal(dedup_check(d, P, X, 1001), DEDUP_NEW);
    assert_int_equal(dedup_check(d, P, X, 1000), DEDUP_OLD);
}

/* Against an array of booleans. */
static void behaves_as_the_model(void **state)
{
    struct dedup *d = *state;
    static bool seen[5000];
    uint64_t random = 42, newest = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t step = unit_below(&random, 12) == 0 ? unit_below(&random, 400) : unit_below(&random, 3);
        uint64_t back = unit_below(&random, 300), number = newest + step;
        if (unit_below(&random, 3) == 0)
            number = newest > back ? newest - back : 0;
        if (number >= 5000)
            break;
        enum dedup_verdict verdict = dedup_check(d, P, X, number);
        if (i > 0) {
            bool old = newest > number && newest - number > DEDUP_WINDOW;
            assert_int_equal(verdict, old ? DEDUP_OLD : seen[number] ? DEDUP_SEEN : DEDUP_NEW);
        }
        if (verdict == DEDUP_SEEN || verdict == DEDUP_OLD)
            continue;
        assert_true(dedup_add(d, P, X, number, (uint64_t)i));
        seen[number] = true;
        newest = number > newest ? number : newest;
    }
    assert_true(newest > 4000);
}

static void loaded_without_a_bitmap_counts_as_seen(void **state)
{
    struct dedup *d = *state;
    assert_true(dedup_load(d, P, X, 500, XY_STR_NONE, 0));
    assert_int_equal(dedup_check(d, P, X, 500), DEDUP_SEEN);
    assert_int_equal(dedup_check(d, P, X, 499), DEDUP_SEEN);
    assert_true(dedup_add(d, P, X, 502, 0));
    assert_int_equal(dedup_check(d, P, X, 501), DEDUP_NEW);
    assert_int_equal(dedup_check(d, P, X, 499), DEDUP_SEEN);
}

/* What a restart must not change: numbers seen and numbers skipped, as dedup_after said they would be. */
static void a_stored_stream_remembers_its_gaps(void **state)
{
    struct dedup *d = *state, *later = dedup_new(1);
    uint64_t random = 7;
    struct dedup_state stored = { 0 };
    for (uint64_t n = 300; n < 900; n++) {
        if (unit_below(&random, 3) == 0)
            continue;
        dedup_after(d, P, X, n, &stored);
        assert_true(dedup_add(d, P, X, n, 0));
    }
    dedup_after(d, P, X, 700, &stored); /* overtaken: the newest stays */
    assert_true(dedup_add(d, P, X, 700, 0));
    struct xy_str seen = xy_str_n((const char *)stored.seen, sizeof(stored.seen));
    assert_true(dedup_load(later, P, X, stored.newest, seen, 0));
    for (uint64_t n = 500; n < 1000; n++)
        assert_int_equal(dedup_check(later, P, X, n), dedup_check(d, P, X, n));
    dedup_free(&later);
}

static void ids_expire_by_last_use(void **state)
{
    struct dedup *d = *state;
    assert_true(dedup_add(d, P, XY_STR("a"), WHOLE, 0));
    assert_true(dedup_add(d, P, XY_STR("b"), WHOLE, 0));
    assert_true(dedup_add(d, P, XY_STR("a"), WHOLE, 1));
    dedup_expire(d, DEDUP_KEEP_US);
    assert_int_equal(dedup_check(d, P, XY_STR("a"), WHOLE), DEDUP_SEEN);
    assert_int_equal(dedup_check(d, P, XY_STR("b"), WHOLE), DEDUP_UNKNOWN);
    dedup_expire(d, DEDUP_KEEP_US + 1);
    assert_int_equal(dedup_count(d), 0);
}

static void memory_is_bounded(void **state)
{
    struct dedup *d = *state;
    char id[32];
    for (unsigned i = 0; i < DEDUP_KEYS_MAX + 10; i++) {
        (void)snprintf(id, sizeof(id), "%u", i);
        assert_true(dedup_add(d, P, xy_str(id), WHOLE, i));
    }
    assert_int_equal(dedup_count(d), DEDUP_KEYS_MAX);
    assert_int_equal(dedup_check(d, P, XY_STR("9"), WHOLE), DEDUP_UNKNOWN);
    assert_int_equal(dedup_check(d, P, XY_STR("10"), WHOLE), DEDUP_SEEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(counts_up, start, stop),
        cmocka_unit_test_setup_teardown(number_zero_counts, start, stop),
        cmocka_unit_test_setup_teardown(overtaken_numbers_are_new_until_seen, start, stop),
        cmocka_unit_test_setup_teardown(behaves_as_the_model, start, stop),
        cmocka_unit_test_setup_teardown(loaded_without_a_bitmap_counts_as_seen, start, stop),
        cmocka_unit_test_setup_teardown(a_stored_stream_remembers_its_gaps, start, stop),
        cmocka_unit_test_setup_teardown(ids_expire_by_last_use, start, stop),
        cmocka_unit_test_setup_teardown(memory_is_bounded, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
