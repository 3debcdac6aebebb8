/* Runs of claims to numbers and back, and numbers that are none. */
#include "tests/unit/unit.h"

#include "broker/delivery/outmap.h"

static const struct out_run claims[] = {
    { .kind = OUT_NOTHING },
    { .kind = OUT_NOTHING },
    { .kind = OUT_MAILBOX, .first = 7 },
    { .kind = OUT_MAILBOX, .first = 8 },
    { .kind = OUT_MAILBOX, .first = 10 },
    { .kind = OUT_EVENT, .node = 3, .number = 1, .first = 1 },
    { .kind = OUT_EVENT, .node = 3, .number = 1, .first = 2 },
    { .kind = OUT_EVENT, .node = 3, .number = 2, .first = 3 },
    { .kind = OUT_EVENT, .node = 3, .number = 2, .era = 1, .first = 4 },
    { .kind = OUT_EVENT, .node = 3, .number = UINT32_MAX, .era = UINT32_MAX, .first = 5 },
    { .kind = OUT_EVENT, .node = UINT64_MAX, .number = 2, .first = UINT64_MAX },
    { .kind = OUT_ANSWER, .first = 100 },
    { .kind = OUT_ANSWER, .first = 101 },
    { .kind = OUT_NOTHING },
};
enum { CLAIMS = sizeof(claims) / sizeof(claims[0]) };

static void fill(struct xy_buf *runs)
{
    struct out_run last = { .kind = OUT_NOTHING };
    for (size_t i = 0; i < CLAIMS; i++)
        outmap_add(runs, &last, &claims[i]);
    outmap_end(runs, &last);
    outmap_end(runs, &last); /* nothing is left: nothing happens */
}

static void test_there_and_back(void **state)
{
    (void)state;
    struct xy_buf runs = { 0 };
    fill(&runs);
    const uint64_t *numbers = (const uint64_t *)(const void *)runs.data;
    size_t count = runs.len / sizeof(uint64_t), claim = 0, found = 0;
    struct out_run run;
    for (; outmap_next(&numbers, &count, &run); found++) {
        for (uint64_t i = 0; i < run.count; i++, claim++) {
            assert_true(claim < CLAIMS);
            assert_int_equal(run.kind, claims[claim].kind);
            assert_true(run.node == claims[claim].node && run.number == claims[claim].number &&
                        run.era == claims[claim].era);
            assert_true(run.kind == OUT_NOTHING || run.first + i == claims[claim].first);
        }
    }
    assert_int_equal(claim, CLAIMS);
    assert_int_equal(count, 0);
    assert_int_equal(found, 10);
    xy_buf_free(&runs);
}

static void test_damaged(void **state)
{
    (void)state;
    struct xy_buf runs = { 0 };
    struct out_run run;
    fill(&runs);
    for (size_t len = 0; len <= runs.len / sizeof(uint64_t); len++) { /* cut anywhere */
        const uint64_t *numbers = (const uint64_t *)(const void *)runs.data;
        size_t count = len, before = len + 1;
        while (count < before && outmap_next(&numbers, &count, &run))
            before = count + 1;
        assert_true(count < 4);
    }
    const uint64_t unknown[] = { 1u << 3 | 7u, 0, 0, 0 }, *numbers = unknown;
    size_t count = 4;
    assert_false(outmap_next(&numbers, &count, &run));
    xy_buf_free(&runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
