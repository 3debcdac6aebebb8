/* Arenas: alignment, growth, reset, latched failure; pools keep what they may and no more. */
#include "tests/unit/unit.h"

#include "core/base/arena.h"
#include "core/base/limits.h"

static void allocations_are_aligned_and_apart(void **state)
{
    (void)state;
    struct xy_arena *arena = xy_arena_new();
    unsigned char *blocks[200];
    for (size_t i = 0; i < 200; i++) {
        blocks[i] = xy_arena_alloc(arena, i + 1);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % _Alignof(max_align_t), 0);
        memset(blocks[i], (int)i, i + 1);
    }
    for (size_t i = 0; i < 200; i++) {
        for (size_t k = 0; k <= i; k++)
            assert_int_equal(blocks[i][k], i);
    }
    assert_true(xy_arena_used(arena) >= 200 * 201 / 2);
    xy_arena_free(&arena);
    assert_null(arena);
    xy_arena_free(&arena);
}

static void reset_hands_out_the_same_memory(void **state)
{
    (void)state;
    struct xy_arena *arena = xy_arena_new();
    void *first = xy_arena_alloc(arena, 16);
    for (int i = 0; i < 100; i++)
        assert_non_null(xy_arena_alloc(arena, 1000));
    xy_arena_reset(arena);
    assert_int_equal(xy_arena_used(arena), 0);
    assert_ptr_equal(xy_arena_alloc(arena, 16), first);
    for (int i = 0; i < 100; i++)
        memset(xy_arena_alloc(arena, 1000), i, 1000);
    xy_arena_free(&arena);
}

static void zalloc_clears_used_memory(void **state)
{
    (void)state;
    struct xy_arena *arena = xy_arena_new();
    memset(xy_arena_alloc(arena, 100), 0xaa, 100);
    xy_arena_reset(arena);
    const unsigned char *zero = xy_arena_zalloc(arena, 100);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(zero[i], 0);
    xy_arena_free(&arena);
}

static void large_allocations_and_the_limit(void **state)
{
    (void)state;
    struct xy_arena *arena = xy_arena_new();
    char *large = xy_arena_alloc(arena, XY_ARENA_ALLOCATION_MAX);
    assert_non_null(large);
    large[XY_ARENA_ALLOCATION_MAX - 1] = 1;
    assert_false(xy_arena_failed(arena));
    assert_null(xy_arena_alloc(arena, XY_ARENA_ALLOCATION_MAX + 1));
    assert_true(xy_arena_failed(arena));
    assert_non_null(xy_arena_alloc(arena, 1));
    assert_true(xy_arena_failed(arena));
    xy_arena_reset(arena);
    assert_false(xy_arena_failed(arena));
    assert_null(xy_arena_alloc(arena, SIZE_MAX));
    assert_absent(xy_arena_str(arena, xy_str_n("x", SIZE_MAX)));
    assert_true(xy_arena_failed(arena));
    xy_arena_free(&arena);
}

static void strings(void **state)
{
    (void)state;
    struct xy_arena *arena = xy_arena_new();
    char text[] = "hello";
    struct xy_str copy = xy_arena_str(arena, xy_str(text));
    text[0] = 'j';
    assert_str(copy, "hello");
    assert_int_equal(copy.data[5], 0);
    assert_absent(xy_arena_str(arena, XY_STR_NONE));
    assert_str(xy_arena_str(arena, xy_str("")), "");
    assert_str(xy_arena_printf(arena, "%d-%s", 42, "x"), "42-x");
    assert_false(xy_arena_failed(arena));
    xy_arena_free(&arena);
}

static void pool_reuses_and_bounds(void **state)
{
    (void)state;
    struct xy_arena_pool *pool = xy_arena_pool_new(1);
    struct xy_arena *a = xy_arena_pool_take(pool), *b = xy_arena_pool_take(pool);
    struct xy_arena *former = a;
    assert_ptr_not_equal(a, b);
    assert_null(xy_arena_alloc(a, SIZE_MAX));
    xy_arena_pool_give(pool, &a);
    assert_null(a);
    xy_arena_pool_give(pool, &b); /* above keep_max: freed */
    xy_arena_pool_give(pool, &b);
    a = xy_arena_pool_take(pool);
    assert_ptr_equal(a, former);
    assert_false(xy_arena_failed(a));
    b = xy_arena_pool_take(pool);
    assert_ptr_not_equal(a, b);
    xy_arena_pool_give(pool, &a);
    xy_arena_free(&b);
    xy_arena_pool_free(&pool);
    assert_null(pool);
    xy_arena_pool_free(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_aligned_and_apart),
        cmocka_unit_test(reset_hands_out_the_same_memory),
        cmocka_unit_test(zalloc_clears_used_memory),
        cmocka_unit_test(large_allocations_and_the_limit),
        cmocka_unit_test(strings),
        cmocka_unit_test(pool_reuses_and_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
