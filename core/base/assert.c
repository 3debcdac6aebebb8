/* The end of the program when an invariant does not hold: say which, then abort so that a core is left. */
#include "core/base/assert.h"

#include <stdio.h>
#include <stdlib.h>

void xy_assert_failed(const char *expression, const char *file, int line)
{
    fprintf(stderr, "xylem: assertion failed: %s (%s:%d)\n", expression, file, line);
    abort();
}
