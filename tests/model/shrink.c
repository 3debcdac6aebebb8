/* Removes ever smaller pieces as long as what is left still fails, then makes the numbers small (delta debugging). */
#include "tests/model/shrink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/assert.h"

#define SECONDS_MAX 20 /* of one trial: what hangs has failed */

bool shrink_try(const struct check_options *options, const struct op *ops, unsigned count,
                struct check_result *result)
{
    struct check_result *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;
    xy_assert(shared != MAP_FAILED);
    fflush(NULL);
    pid_t child = fork();
    xy_assert(child >= 0);
    if (child == 0) {
        if (!options->trace && freopen("/dev/null", "w", stderr) == NULL)
            _exit(1);
        alarm(SECONDS_MAX);
        check_run(options, ops, count, shared);
        fflush(NULL);
        _exit(0);
    }
    pid_t ended = waitpid(child, &status, 0);
    xy_assert(ended == child);
    *result = *shared;
    munmap(shared, sizeof(*shared));
    if (status != 0 && !result->failed) {
        result->failed = true;
        snprintf(result->verdict, sizeof(result->verdict), "the process died (status %d) in operation %u",
                 status, ++result->done);
    }
    return result->failed;
}

/* The same complaint, whatever its numbers: another one is another failure. */
static bool same_complaint(const char *a, const char *b)
{
    while (*a != '\0' && *b != '\0') {
        a += strspn(a, "0123456789");
        b += strspn(b, "0123456789");
        if (*a != *b)
            return false;
        a += *a != '\0';
        b += *b != '\0';
    }
    return *a == *b;
}

static bool still_fails(const struct check_options *options, const struct op *ops, unsigned count,
                        struct check_result *result)
{
    struct check_result r;
    if (!shrink_try(options, ops, count, &r) || !same_complaint(r.verdict, result->verdict))
        return false;
    *result = r;
    return true;
}

static unsigned without(const struct op *ops, unsigned count, unsigned from, unsigned size, struct op *out)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < count; i++)
        if (i < from || i >= from + size)
            out[kept++] = ops[i];
    return kept;
}

static unsigned remove_pieces(const struct check_options *options, struct op *ops, unsigned count,
                              struct op *spare, struct check_result *result)
{
    for (unsigned size = count / 2 > 0 ? count / 2 : 1; size > 0; size /= 2) {
        for (unsigned from = count; from > 0;) {
            from = from > size ? from - size : 0;
            unsigned kept = without(ops, count, from, size, spare);
            if (kept == count || !still_fails(options, spare, kept, result))
                continue;
            count = kept;
            memcpy(ops, spare, count * sizeof(*ops));
        }
    }
    return count;
}

static bool make_small(const struct check_options *options, struct op *ops, unsigned count,
                       struct check_result *result)
{
    bool any = false;
    for (unsigned i = 0; i < count; i++) {
        if (ops[i].lost) {
            ops[i].lost = false;
            ops[i].lost = !still_fails(options, ops, count, result);
        }
        for (unsigned arg = 0; op_shapes[ops[i].kind].args[arg] != NULL; arg++) {
            int *value = &ops[i].args[arg], was = *value;
            for (int small = 0; small < was && small < 3; small++) {
                *value = small;
                if (still_fails(options, ops, count, result))
                    break;
                *value = was;
            }
            any |= *value != was;
        }
    }
    return any;
}

unsigned shrink(struct check_options *options, struct op *ops, unsigned count, struct check_result *result)
{
    struct op *spare = calloc(count + 1, sizeof(*spare));
    unsigned before;
    xy_assert(spare != NULL);
    if (result->done > 0 && result->done < count &&
        still_fails(options, ops, result->done, result)) /* what came behind it does not matter */
        count = result->done;
    for (unsigned shards = 1, was = options->shards; shards < was; shards++) {
        options->shards = shards;
        if (still_fails(options, ops, count, result))
            break;
        options->shards = was;
    }
    do {
        before = count;
        count = remove_pieces(options, ops, count, spare, result);
    } while (count < before);
    if (make_small(options, ops, count, result))
        count = remove_pieces(options, ops, count, spare, result);
    free(spare);
    return count;
}
