/* Randomness of the system: asked for seldom, given away once. */
#include "tests/unit/unit.h"

#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "broker/shard/env_system.h"

enum { IDS = 2000, BYTES = 16 };

static unsigned calls;
static uint32_t counter;

/* Stands in for the system's: no four bytes come twice. */
ssize_t getrandom(void *out, size_t len, unsigned flags)
{
    char *at = out;
    (void)flags;
    calls++;
    if (len > 256)
        len = 256; /* as the system may, when a signal comes */
    for (size_t i = 0; i < len; i += sizeof(counter)) {
        counter++;
        memcpy(at + i, &counter, len - i < sizeof(counter) ? len - i : sizeof(counter));
    }
    return (ssize_t)len;
}

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, BYTES);
}

static void ids_are_cheap_and_differ(void **state)
{
    static char ids[IDS][BYTES];
    (void)state;
    calls = 0;
    for (unsigned i = 0; i < IDS; i++)
        xy_random(&env_system, ids[i], BYTES);
    assert_in_range(calls, 1, IDS / 10);
    qsort(ids, IDS, BYTES, compare);
    for (unsigned i = 1; i < IDS; i++)
        assert_int_not_equal(compare(ids[i - 1], ids[i]), 0);
}

static void any_length_is_filled(void **state)
{
    static char bytes[1200];
    (void)state;
    for (size_t len = 0; len < sizeof(bytes) - 8; len += len < 64 ? 1 : 97) {
        memset(bytes, 0, sizeof(bytes));
        xy_random(&env_system, bytes, len);
        for (size_t at = 0; at + 8 <= len; at += 8)
            assert_memory_not_equal(bytes + at, "\0\0\0\0\0\0\0\0", 8);
        assert_memory_equal(bytes + len, "\0\0\0\0\0\0\0\0", 8);
    }
}

static void *take(void *ctx)
{
    xy_random(&env_system, ctx, BYTES);
    return NULL;
}

static void threads_share_nothing(void **state)
{
    char mine[BYTES], others[BYTES];
    pthread_t thread;
    (void)state;
    take(mine);
    assert_int_equal(pthread_create(&thread, NULL, take, others), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_memory_not_equal(mine, others, BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_cheap_and_differ),
        cmocka_unit_test(any_length_is_filled),
        cmocka_unit_test(threads_share_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
