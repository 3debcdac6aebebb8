/* The environment is only passed through; ids are hex of its randomness. */
#include "tests/unit/unit.h"

#include "core/base/env.h"

static uint64_t fixed_now(void *ctx)
{
    return *(uint64_t *)ctx;
}

static uint64_t fixed_wall(void *ctx)
{
    return *(uint64_t *)ctx * 2;
}

static void counting_random(void *ctx, void *out, size_t len)
{
    (void)ctx;
    for (size_t i = 0; i < len; i++)
        ((unsigned char *)out)[i] = (unsigned char)(i + 0xf8);
}

static void passes_through(void **state)
{
    (void)state;
    uint64_t time = 21;
    struct xy_env env = {
        .now_us = fixed_now, .wall_us = fixed_wall, .random = counting_random, .ctx = &time
    };
    assert_int_equal(xy_now_us(&env), 21);
    assert_int_equal(xy_wall_us(&env), 42);
    char id[XY_ID_LEN + 1];
    memset(id, 'x', sizeof(id));
    xy_random_id(&env, id);
    assert_string_equal(id, "f8f9fafbfcfdfeff0001020304050607");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(passes_through) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
