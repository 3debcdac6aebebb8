/* What every unit test includes: cmocka with the headers it wants before itself, comparison of struct xy_str,
 * and a small seeded generator so that random tests fail the same way twice. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/str.h"

/* a struct xy_str against a literal */
#define assert_str(actual, expected) unit_assert_str((actual), xy_str(expected), __FILE__, __LINE__)
/* a struct xy_str against another */
#define assert_str_same(actual, expected) unit_assert_str((actual), (expected), __FILE__, __LINE__)
#define assert_absent(actual)             assert_null((actual).data)

static inline void unit_assert_str(struct xy_str actual, struct xy_str expected, const char *file, int line)
{
    if (xy_str_present(actual) == xy_str_present(expected) && xy_str_eq(actual, expected))
        return;
    print_error("\"%.*s\" (%zu) is not \"%.*s\" (%zu)\n", XY_ARG(actual), actual.len, XY_ARG(expected),
                expected.len);
    _fail(file, line);
}

/* xorshift64*: `state` is the seed and not 0. */
static inline uint64_t unit_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

/* 0 .. bound - 1 */
static inline size_t unit_below(uint64_t *state, size_t bound)
{
    return (size_t)((unit_random(state) >> 11) % bound);
}
