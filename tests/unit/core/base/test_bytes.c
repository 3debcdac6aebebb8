/* Shared bytes: contents, counting, several threads; leaks and double frees show under AddressSanitizer. */
#include "tests/unit/unit.h"

#include <pthread.h>

#include "core/base/bytes.h"

static void counting(void **state)
{
    (void)state;
    struct xy_bytes *a = xy_bytes_new(xy_str("body"));
    assert_str(xy_bytes_view(a), "body");
    struct xy_bytes *b = xy_bytes_ref(a);
    assert_ptr_equal(a, b);
    xy_bytes_ref_n(a, 3);
    assert_int_equal(atomic_load(&a->refs), 5);
    for (int i = 0; i < 3; i++) {
        struct xy_bytes *more = a;
        xy_bytes_unref(&more);
        assert_null(more);
    }
    xy_bytes_unref(&a);
    assert_int_equal(atomic_load(&b->refs), 1);
    assert_str(xy_bytes_view(b), "body");
    xy_bytes_unref(&b);
    xy_bytes_unref(&b);
}

static void sizes(void **state)
{
    (void)state;
    struct xy_bytes *empty = xy_bytes_new(XY_STR_NONE);
    assert_int_equal(xy_bytes_view(empty).len, 0);
    xy_bytes_unref(&empty);
    assert_null(xy_bytes_alloc((size_t)UINT32_MAX + 1));
    struct xy_bytes *some = xy_bytes_alloc(10);
    memset(some->data, 'x', 10);
    assert_int_equal(some->len, 10);
    xy_bytes_unref(&some);
}

static void *hold_and_drop(void *shared)
{
    for (int i = 0; i < 20000; i++) {
        struct xy_bytes *mine = xy_bytes_ref(shared);
        xy_bytes_unref(&mine);
    }
    struct xy_bytes *last = shared;
    xy_bytes_unref(&last);
    return NULL;
}

static void threads(void **state)
{
    (void)state;
    struct xy_bytes *shared = xy_bytes_new(xy_str("shared"));
    xy_bytes_ref_n(shared, 2);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hold_and_drop, shared), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&shared->refs), 1);
    xy_bytes_unref(&shared);
}

static void in_place(void **state)
{
    (void)state;
    static const size_t lengths[] = { 0, 1, 200, 248, 249, 300, 1000, 100000 };
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct xy_buf buf = { 0 };
        xy_bytes_begin(&buf);
        for (size_t j = 0; j < lengths[i]; j++)
            xy_buf_char(&buf, (char)('a' + j % 26));
        struct xy_bytes *bytes = xy_bytes_end(&buf);
        assert_non_null(bytes);
        assert_null(buf.data);
        assert_int_equal(bytes->len, lengths[i]);
        assert_int_equal(atomic_load(&bytes->refs), 1);
        for (size_t j = 0; j < lengths[i]; j++)
            assert_int_equal(bytes->data[j], 'a' + j % 26);
        xy_bytes_unref(&bytes);
    }
}

static void in_place_without_memory(void **state)
{
    (void)state;
    struct xy_buf buf = { 0 };
    xy_bytes_begin(&buf);
    assert_null(xy_buf_reserve(&buf, SIZE_MAX / 2)); /* fails, and the buffer remembers */
    assert_null(xy_bytes_end(&buf));
    assert_null(buf.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(counting), cmocka_unit_test(sizes),
                                        cmocka_unit_test(threads), cmocka_unit_test(in_place),
                                        cmocka_unit_test(in_place_without_memory) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
