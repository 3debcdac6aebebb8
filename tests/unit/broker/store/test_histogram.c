/* Quantiles of a histogram against sorted values, its edges, and how it forgets. */
#include "fixture.h"

#include "broker/store/histogram.h"

static struct histogram h;

static void clear(void)
{
    memset(&h, 0, sizeof(h));
}

static int ascending(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Not below the true quantile, and above it by a quarter at most. */
static void test_quantiles(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    static uint64_t values[COUNT];
    static const unsigned permilles[] = { 1, 250, 500, 900, 990, 999, 1000 };
    uint64_t seed = 42;
    for (unsigned bits = 1; bits <= 42; bits += 3) {
        clear();
        for (unsigned i = 0; i < COUNT; i++) {
            values[i] = next_random(&seed) >> (64 - bits);
            histogram_add(&h, values[i], 1);
        }
        qsort(values, COUNT, sizeof(values[0]), ascending);
        for (size_t i = 0; i < sizeof(permilles) / sizeof(permilles[0]); i++) {
            uint64_t exact = values[(COUNT * permilles[i] + 999) / 1000 - 1];
            uint64_t told = histogram_quantile(&h, permilles[i]);
            assert_true(told >= exact);
            assert_true(told <= exact + exact / 4 + 1);
        }
    }
}

static void test_edges(void **state)
{
    (void)state;
    clear();
    assert_int_equal(histogram_quantile(&h, 500), 0);
    for (uint64_t value = 0; value < 5; value++) {
        clear();
        histogram_add(&h, value, 1);
        assert_int_equal(histogram_quantile(&h, 500), value);
        assert_int_equal(histogram_quantile(&h, 0), value);
        assert_int_equal(histogram_quantile(&h, 1000), value);
    }
    clear();
    histogram_add(&h, UINT64_MAX, 1);
    assert_true(histogram_quantile(&h, 1000) >= (1ull << 42) - 1);
}

/* A value counts for its period and the next one, and is gone with the one after that. */
static void test_forgets(void **state)
{
    (void)state;
    clear();
    histogram_add(&h, 1000, 1);
    histogram_add(&h, 1, HISTOGRAM_PERIOD_US);
    assert_true(histogram_quantile(&h, 1000) >= 1000);
    histogram_add(&h, 1, HISTOGRAM_PERIOD_US + 1);
    assert_true(histogram_quantile(&h, 1000) >= 1000);
    histogram_add(&h, 1, 2 * HISTOGRAM_PERIOD_US + 1);
    assert_int_equal(histogram_quantile(&h, 1000), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
