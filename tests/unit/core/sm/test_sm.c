/* XEP-0198 counters: order of completion, the window, verdicts on h, the wrap at 2^32. */
#include "tests/unit/unit.h"

#include "core/sm/sm.h"

static void test_in_order(void **state)
{
    (void)state;
    struct xy_sm sm;
    xy_sm_init(&sm);
    assert_int_equal(xy_sm_h(&sm), 0);
    for (uint64_t i = 0; i < 3000; i++) {
        uint64_t number = xy_sm_in_begin(&sm);
        assert_int_equal(xy_sm_h(&sm), i);
        assert_true(xy_sm_in_done(&sm, number));
        assert_int_equal(xy_sm_h(&sm), i + 1);
    }
}

static void test_out_of_order(void **state)
{
    (void)state;
    struct xy_sm sm;
    xy_sm_init(&sm);
    uint64_t a = xy_sm_in_begin(&sm), b = xy_sm_in_begin(&sm), c = xy_sm_in_begin(&sm);
    assert_false(xy_sm_in_done(&sm, b));
    assert_int_equal(xy_sm_h(&sm), 0);
    assert_true(xy_sm_in_done(&sm, a));
    assert_int_equal(xy_sm_h(&sm), 2);
    assert_true(xy_sm_in_done(&sm, c));
    assert_int_equal(xy_sm_h(&sm), 3);
}

static void test_window(void **state)
{
    (void)state;
    struct xy_sm sm;
    xy_sm_init(&sm);
    for (uint64_t i = 0; i < XY_SM_WINDOW; i++) {
        assert_false(xy_sm_in_full(&sm));
        xy_sm_in_begin(&sm);
    }
    assert_true(xy_sm_in_full(&sm));
    for (uint64_t i = XY_SM_WINDOW - 1; i > 0; i--)
        assert_false(xy_sm_in_done(&sm, i));
    assert_true(xy_sm_in_done(&sm, 0));
    assert_int_equal(xy_sm_h(&sm), XY_SM_WINDOW);
    assert_false(xy_sm_in_full(&sm));
}

/* Against a model that knows of every stanza whether it is done. */
static void test_random_completion(void **state)
{
    (void)state;
    uint64_t seed = 42;
    static bool done[200000];
    struct xy_sm sm;
    xy_sm_init(&sm);
    uint64_t open[XY_SM_WINDOW], begun = 0, h = 0;
    size_t open_count = 0;
    while (begun < 190000) {
        if (unit_below(&seed, 2) && !xy_sm_in_full(&sm)) {
            open[open_count++] = xy_sm_in_begin(&sm);
            begun++;
        } else if (open_count > 0) {
            size_t i = unit_below(&seed, open_count);
            uint64_t number = open[i], before = h;
            open[i] = open[--open_count];
            done[number] = true;
            while (done[h])
                h++;
            assert_int_equal(xy_sm_in_done(&sm, number), h > before);
            assert_int_equal(xy_sm_h(&sm), h);
        }
    }
}

static void test_ack(void **state)
{
    (void)state;
    struct xy_sm sm;
    uint32_t newly = 99;
    xy_sm_init(&sm);
    assert_int_equal(xy_sm_ack(&sm, 0, &newly), XY_SM_ACK_NEW);
    assert_int_equal(newly, 0);
    assert_int_equal(xy_sm_ack(&sm, 1, &newly), XY_SM_ACK_TOO_HIGH);
    for (int i = 0; i < 10; i++)
        xy_sm_out(&sm);
    assert_int_equal(xy_sm_ack(&sm, 11, &newly), XY_SM_ACK_TOO_HIGH);
    assert_int_equal(xy_sm_ack(&sm, UINT32_MAX, &newly), XY_SM_ACK_TOO_HIGH);
    assert_int_equal(newly, 0);
    assert_int_equal(xy_sm_ack(&sm, 7, &newly), XY_SM_ACK_NEW);
    assert_int_equal(newly, 7);
    assert_int_equal(xy_sm_unacked(&sm), 3);
    assert_int_equal(xy_sm_ack(&sm, 7, &newly), XY_SM_ACK_NEW);
    assert_int_equal(newly, 0);
    assert_int_equal(xy_sm_ack(&sm, 6, &newly), XY_SM_ACK_OLD);
    assert_int_equal(xy_sm_ack(&sm, 0, &newly), XY_SM_ACK_OLD);
    assert_int_equal(newly, 0);
    assert_int_equal(xy_sm_ack(&sm, UINT32_MAX, &newly), XY_SM_ACK_TOO_HIGH);
    assert_int_equal(xy_sm_ack(&sm, 10, &newly), XY_SM_ACK_NEW);
    assert_int_equal(newly, 3);
}

static void test_wrap(void **state)
{
    (void)state;
    struct xy_sm sm;
    uint32_t newly;
    xy_sm_init(&sm);
    sm.out_acked = UINT32_MAX - 1;
    sm.out_sent = (uint64_t)UINT32_MAX + 3;
    assert_int_equal(xy_sm_send_count(&sm), 2);
    assert_int_equal(xy_sm_ack(&sm, 3, &newly), XY_SM_ACK_TOO_HIGH);
    assert_int_equal(xy_sm_ack(&sm, UINT32_MAX - 2, &newly), XY_SM_ACK_OLD);
    assert_int_equal(xy_sm_ack(&sm, 1, &newly), XY_SM_ACK_NEW);
    assert_int_equal(newly, 3);
    assert_int_equal(xy_sm_ack(&sm, UINT32_MAX, &newly), XY_SM_ACK_OLD);
    assert_int_equal(xy_sm_ack(&sm, 2, &newly), XY_SM_ACK_NEW);
    assert_int_equal(newly, 1);
    sm.in_h = sm.in_tail = UINT32_MAX;
    assert_true(xy_sm_in_done(&sm, xy_sm_in_begin(&sm)));
    assert_int_equal(xy_sm_h(&sm), 0);
}

static void test_rewind(void **state)
{
    (void)state;
    struct xy_sm sm;
    uint32_t newly;
    xy_sm_init(&sm);
    for (int i = 0; i < 5; i++)
        xy_sm_out(&sm);
    xy_sm_ack(&sm, 2, &newly);
    xy_sm_rewind(&sm);
    assert_int_equal(xy_sm_unacked(&sm), 0);
    assert_int_equal(xy_sm_ack(&sm, 3, &newly), XY_SM_ACK_TOO_HIGH);
    xy_sm_out(&sm);
    assert_int_equal(xy_sm_ack(&sm, 3, &newly), XY_SM_ACK_NEW);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order), cmocka_unit_test(test_out_of_order),
        cmocka_unit_test(test_window),   cmocka_unit_test(test_random_completion),
        cmocka_unit_test(test_ack),      cmocka_unit_test(test_wrap),
        cmocka_unit_test(test_rewind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
