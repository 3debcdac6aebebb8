/* Runs one micro-benchmark:  micro CASE [--slow].  Run under callgrind by check.py, which counts what happens inside
 * `measured`; --slow plants a slow-down there, with which check.py is tested. */
#include "bench/micro/micro.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static const struct micro_case *const cases[] = { &micro_parse,   &micro_write,   &micro_store,
                                                  &micro_message, &micro_publish, &micro_fan_out };

enum { CASES = sizeof(cases) / sizeof(cases[0]) };

/* Stand in for the system's: expat salts its hash tables with one of them, and then each run would count differently. */
void arc4random_buf(void *out, size_t len);
void arc4random_buf(void *out, size_t len)
{
    memset(out, 7, len);
}

ssize_t getrandom(void *out, size_t len, unsigned flags)
{
    (void)flags;
    memset(out, 7, len);
    return (ssize_t)len;
}

/* Named in check.py. */
void measured(const struct micro_case *micro, void *state, unsigned operations);
__attribute__((noinline)) void measured(const struct micro_case *micro, void *state, unsigned operations)
{
    micro->run(state, operations);
}

static int usage(void)
{
    (void)fprintf(stderr, "usage: micro CASE [--slow]\ncases, and how many operations each does:\n");
    for (size_t i = 0; i < CASES; i++)
        printf("%s %u\n", cases[i]->name, cases[i]->operations);
    return 2;
}

int main(int argc, char **argv)
{
    bool slow = argc == 3 && strcmp(argv[2], "--slow") == 0;
    for (size_t i = 0; i < CASES && (argc == 2 || slow); i++) {
        if (strcmp(argv[1], cases[i]->name) != 0)
            continue;
        void *state = cases[i]->prepare();
        cases[i]->run(state, cases[i]->operations); /* everything is warm, what grows has grown */
        measured(cases[i], state, slow ? cases[i]->operations * 6 / 5 : cases[i]->operations);
        return 0;
    }
    return usage();
}
