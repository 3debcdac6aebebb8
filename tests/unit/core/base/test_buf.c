/* The growable buffer: appends, growth, consumption, and the failure that latches. */
#include "tests/unit/unit.h"

#include "core/base/buf.h"

static void appends(void **state)
{
    (void)state;
    struct xy_buf buf = { 0 };
    assert_int_equal(xy_buf_view(&buf).len, 0);
    xy_buf_add(&buf, NULL, 0);
    xy_buf_str(&buf, XY_STR_NONE);
    xy_buf_str(&buf, xy_str("one "));
    xy_buf_lit(&buf, "two ");
    xy_buf_u64(&buf, 0);
    xy_buf_char(&buf, ' ');
    xy_buf_u64(&buf, UINT64_MAX);
    xy_buf_printf(&buf, " %s %d", "three", -4);
    assert_str(xy_buf_view(&buf), "one two 0 18446744073709551615 three -4");
    xy_buf_free(&buf);
    assert_null(buf.data);
}

static void grows_and_keeps(void **state)
{
    (void)state;
    struct xy_buf buf = { 0 };
    for (size_t i = 0; i < 100000; i++)
        xy_buf_char(&buf, (char)('a' + i % 26));
    assert_int_equal(buf.len, 100000);
    for (size_t i = 0; i < 100000; i++)
        assert_int_equal(buf.data[i], 'a' + i % 26);
    size_t cap = buf.cap;
    xy_buf_reset(&buf);
    assert_int_equal(buf.len, 0);
    assert_int_equal(buf.cap, cap);
    xy_buf_free(&buf);
}

static void consumes(void **state)
{
    (void)state;
    struct xy_buf buf = { 0 };
    xy_buf_consume(&buf, 0);
    xy_buf_lit(&buf, "abcdef");
    xy_buf_consume(&buf, 2);
    assert_str(xy_buf_view(&buf), "cdef");
    xy_buf_consume(&buf, 4);
    assert_int_equal(buf.len, 0);
    xy_buf_free(&buf);
}

static void reserves(void **state)
{
    (void)state;
    struct xy_buf buf = { 0 };
    assert_non_null(xy_buf_reserve(&buf, 0));
    char *at = xy_buf_reserve(&buf, 1000);
    memset(at, 'x', 1000);
    buf.len += 1000;
    assert_int_equal(xy_buf_view(&buf).data[999], 'x');
    xy_buf_free(&buf);
}

static void failure_latches(void **state)
{
    (void)state;
    struct xy_buf buf = { 0 };
    xy_buf_lit(&buf, "kept");
    assert_null(xy_buf_reserve(&buf, SIZE_MAX / 2));
    assert_true(xy_buf_failed(&buf));
    xy_buf_lit(&buf, "ignored");
    xy_buf_printf(&buf, "ignored");
    assert_null(xy_buf_reserve(&buf, 1));
    assert_str(xy_buf_view(&buf), "kept");
    xy_buf_reset(&buf);
    assert_false(xy_buf_failed(&buf));
    xy_buf_lit(&buf, "again");
    assert_str(xy_buf_view(&buf), "again");
    xy_buf_free(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends),  cmocka_unit_test(grows_and_keeps), cmocka_unit_test(consumes),
        cmocka_unit_test(reserves), cmocka_unit_test(failure_latches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
