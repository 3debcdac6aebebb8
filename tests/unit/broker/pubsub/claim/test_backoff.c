/* Lists of pauses as users write them. */
#include "tests/unit/unit.h"

#include "broker/pubsub/claim/backoff.h"

static void the_last_pause_repeats(void **state)
{
    (void)state;
    struct backoff backoff;
    assert_true(backoff_parse(XY_STR("1 5,30"), &backoff));
    assert_int_equal(backoff.count, 3);
    assert_int_equal(backoff_s(&backoff, 1), 1);
    assert_int_equal(backoff_s(&backoff, 2), 5);
    assert_int_equal(backoff_s(&backoff, 3), 30);
    assert_int_equal(backoff_s(&backoff, 4), 30);
    assert_int_equal(backoff_s(&backoff, UINT32_MAX), 30);
    assert_int_equal(backoff_s(&backoff, 0), 0);
}

static void nothing_is_no_pause(void **state)
{
    (void)state;
    struct backoff backoff;
    assert_true(backoff_parse(XY_STR(""), &backoff));
    assert_int_equal(backoff_s(&backoff, 1), 0);
    assert_true(backoff_parse(XY_STR("  , "), &backoff));
    assert_int_equal(backoff_s(&backoff, 7), 0);
}

static void other_texts_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = { "1 x", "-1", "1.5", "604801", "1;2", "99999999999" };
    struct backoff backoff;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_false(backoff_parse(xy_str(bad[i]), &backoff));
        assert_int_equal(backoff.count, 0);
    }
    assert_true(backoff_parse(XY_STR("1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 604800"), &backoff));
    assert_false(backoff_parse(XY_STR("1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"), &backoff));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_pause_repeats),
        cmocka_unit_test(nothing_is_no_pause),
        cmocka_unit_test(other_texts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
