/* Sets of sequence numbers: merging, the floor, the bound, text, and a random test against a bitmap. */
#include "sdk/spool/ranges.h"
#include "tests/unit/unit.h"

static struct xy_ranges make(const char *text)
{
    struct xy_ranges r = { 0 };
    assert_true(xy_ranges_read(&r, xy_str(text)));
    return r;
}

static void expect(struct xy_ranges *r, const char *text)
{
    struct xy_buf out = { 0 };
    xy_ranges_write(r, &out);
    assert_str(xy_str_n(out.data ? out.data : "", out.len), text);
    xy_buf_free(&out);
}

static void test_neighbours_merge(void **state)
{
    (void)state;
    struct xy_ranges r = make("");
    xy_ranges_add(&r, 5, 5);
    xy_ranges_add(&r, 7, 7);
    expect(&r, "5 7");
    xy_ranges_add(&r, 6, 6);
    expect(&r, "5-7");
    xy_ranges_add(&r, 6, 9);
    xy_ranges_add(&r, 12, 14);
    expect(&r, "5-9 12-14");
    xy_ranges_add(&r, 4, 20);
    expect(&r, "4-20");
    xy_ranges_add(&r, UINT64_MAX, UINT64_MAX);
    xy_ranges_add(&r, UINT64_MAX - 1, UINT64_MAX - 1);
    expect(&r, "4-20 18446744073709551614-18446744073709551615");
    xy_ranges_free(&r);
}

static void test_floor(void **state)
{
    (void)state;
    struct xy_ranges r = make("");
    assert_int_equal(xy_ranges_floor(&r), 0);
    xy_ranges_add(&r, 2, 2);
    assert_int_equal(xy_ranges_floor(&r), 0);
    xy_ranges_add(&r, 1, 1);
    assert_int_equal(xy_ranges_floor(&r), 2);
    xy_ranges_add(&r, 9, 10);
    xy_ranges_fill(&r, 8);
    assert_int_equal(xy_ranges_floor(&r), 10);
    xy_ranges_fill(&r, 3); /* less than there is */
    expect(&r, "0-10");
    xy_ranges_fill(&r, 0);
    expect(&r, "0-10");
    xy_ranges_free(&r);
}

static void test_the_lowest_above_the_floor_is_forgotten(void **state)
{
    (void)state;
    struct xy_ranges r = make("0-1");
    for (uint64_t i = 0; i < XY_RANGES_MAX + 10; i++)
        xy_ranges_add(&r, 10 + 2 * i, 10 + 2 * i);
    assert_int_equal(r.count, XY_RANGES_MAX + 1);
    assert_int_equal(xy_ranges_floor(&r), 1);
    assert_false(xy_ranges_has(&r, 10));
    assert_false(xy_ranges_has(&r, 10 + 2 * 9));
    assert_true(xy_ranges_has(&r, 10 + 2 * 10));
    assert_true(xy_ranges_has(&r, 10 + 2 * (XY_RANGES_MAX + 9)));
    xy_ranges_free(&r);
}

static void test_text(void **state)
{
    (void)state;
    struct xy_ranges r = make("0-5 7 9-12");
    expect(&r, "0-5 7 9-12");
    xy_ranges_free(&r);
    static const char *const wrong[] = { "x",    "5-4", "-",   "1-",  "-3",
                                         "1  2", "0",   "0-0", "1,2", "18446744073709551616" };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        r = (struct xy_ranges){ 0 };
        assert_false(xy_ranges_read(&r, xy_str(wrong[i])));
        xy_ranges_free(&r);
    }
}

static void test_random_against_a_bitmap(void **state)
{
    (void)state;
    uint64_t seed = 77;
    for (unsigned round = 0; round < 50; round++) {
        bool in[301] = { false };
        struct xy_ranges r = make("");
        for (unsigned step = 0; step < 120; step++) {
            uint64_t first = 1 + unit_below(&seed, 300), last = first + unit_below(&seed, 4);
            if (last > 300)
                last = 300;
            if (unit_below(&seed, 40) == 0) {
                xy_ranges_fill(&r, first);
                for (uint64_t i = 1; i <= first; i++)
                    in[i] = true;
            } else {
                xy_ranges_add(&r, first, last);
                for (uint64_t i = first; i <= last; i++)
                    in[i] = true;
            }
        }
        uint64_t floor = 0;
        while (floor < 300 && in[floor + 1])
            floor++;
        assert_int_equal(xy_ranges_floor(&r), floor);
        for (uint64_t i = 1; i <= 300; i++)
            assert_int_equal(xy_ranges_has(&r, i), in[i]);
        for (size_t i = 1; i < r.count; i++)
            assert_true(r.list[i].first > r.list[i - 1].last + 1);
        xy_ranges_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_neighbours_merge),
        cmocka_unit_test(test_floor),
        cmocka_unit_test(test_the_lowest_above_the_floor_is_forgotten),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_random_against_a_bitmap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
