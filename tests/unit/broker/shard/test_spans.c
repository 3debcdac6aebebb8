/* Spans: whose they are, that idle ones leave the resident set, that threads may share them. */
#include "tests/unit/unit.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/shard/spans.h"

enum { MANY = 2 * SPANS_OF_REGION + 3 };

static void fill(char *span)
{
    memset(span, 0x5a, SPAN_BYTES);
}

static size_t pages_resident(char *span)
{
    unsigned char pages[SPAN_BYTES / 4096];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), count = SPAN_BYTES / page, resident = 0;
    assert_int_equal(mincore(span, SPAN_BYTES, pages), 0);
    for (size_t i = 0; i < count; i++)
        resident += pages[i] & 1;
    return resident;
}

static void idle_ones_leave_the_resident_set(void **state)
{
    (void)state;
    struct spans *pool = spans_new();
    const struct xy_spans *spans = spans_view(pool);
    char *taken[MANY];
    assert_int_equal(spans->span_bytes, SPAN_BYTES);
    assert_int_equal(spans_bytes(pool), 0);
    for (int i = 0; i < MANY; i++) {
        taken[i] = spans->take(spans->ctx);
        assert_non_null(taken[i]);
        assert_int_equal((uintptr_t)taken[i] % (uintptr_t)sysconf(_SC_PAGESIZE), 0);
        assert_int_equal(pages_resident(taken[i]), 0);
        fill(taken[i]);
        taken[i][0] = (char)i;
        assert_true(pages_resident(taken[i]) > 0);
    }
    for (int i = 0; i < MANY; i++)
        assert_int_equal(taken[i][0], (char)i); /* each is one's own */
    assert_true(spans_bytes(pool) >= MANY * 4096u);
    for (int i = 0; i < MANY; i++)
        spans->give(spans->ctx, taken[i]);
    assert_int_equal(spans_bytes(pool), 0);
    unsigned warm = 0;
    for (int i = 0; i < MANY; i++)
        warm += pages_resident(taken[i]) > 0;
    assert_int_equal(warm, SPANS_WARM_MAX);
    spans_free(&pool);
    assert_null(pool);
    spans_free(&pool);
}

/* The coming and going of one session asks nothing of the system: its span stays resident. */
static void one_that_comes_and_goes(void **state)
{
    (void)state;
    struct spans *pool = spans_new();
    const struct xy_spans *spans = spans_view(pool);
    char *first = spans->take(spans->ctx);
    fill(first);
    for (int i = 0; i < 10; i++) {
        spans->give(spans->ctx, first);
        assert_ptr_equal(spans->take(spans->ctx), first);
        assert_true(pages_resident(first) > 0);
    }
    spans->give(spans->ctx, first);
    spans_free(&pool);
}

static void *come_and_go(void *ctx)
{
    const struct xy_spans *spans = ctx;
    char *held[50];
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 50; i++) {
            held[i] = spans->take(spans->ctx);
            memcpy(held[i], &i, sizeof(i));
        }
        for (int i = 0; i < 50; i++) {
            if (memcmp(held[i], &i, sizeof(i)) != 0)
                return held[i];
            spans->give(spans->ctx, held[i]);
        }
    }
    return NULL;
}

static void threads_share_them(void **state)
{
    (void)state;
    struct spans *pool = spans_new();
    pthread_t threads[4];
    void *spoilt;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, (void *)(uintptr_t)spans_view(pool)),
                         0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &spoilt);
        assert_null(spoilt);
    }
    spans_free(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_ones_leave_the_resident_set),
        cmocka_unit_test(one_that_comes_and_goes),
        cmocka_unit_test(threads_share_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
