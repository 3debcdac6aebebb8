/* The program: random sequences against broker and model, and what failed as a short script.
 *
 *   model [--operations N] [--seconds T] [--first SEED] [--length L]   until N operations or T seconds are over;
 *                                                                      SEED `any`: others each time
 *   model --seed SEED [--length L] [--trace]                           one sequence again
 *   model --replay FILE [--trace]                                      a script, as it was printed or kept
 *   model --fault NAME                                                 planted: some sequence must notice, and become short
 *
 * Exit code 0: all held. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/assert.h"
#include "tests/model/plant.h"
#include "tests/model/shrink.h"

#define LENGTH_DEFAULT  250u
#define LENGTH_MAX      600u
#define ENDS_MAX        (9u * MODEL_SESSIONS + 2u * MODEL_NODES + 4u) /* head and tail */
#define QUEUES_IN       5u /* of so many sequences one has queues */
#define OPERATIONS      1000000u
#define SEQUENCES_FAULT 2000u
#define SHORT_ENOUGH    30u /* operations that a planted fault may take to show */

struct arguments {
    struct check_options options;
    uint64_t first, operations;
    unsigned length, seconds;
    bool one;
    const char *replay;
};

/* --- sequences ----------------------------------------------------------------------------------------------------- */

/* In the end everybody comes, takes what is owed, and again after a crash: then nothing of it may come. */
static unsigned tail(struct op *ops)
{
    unsigned count = 0;
    for (unsigned round = 0; round < 2; round++) {
        for (int slot = 0; slot < (int)MODEL_SESSIONS; slot++) {
            ops[count++] = (struct op){ .kind = OP_CONNECT, .args = { slot, 1, 0 } };
            ops[count++] = (struct op){ .kind = OP_ACK, .args = { slot, 0 } };
        }
        for (int node = 0; round > 0 && node < (int)MODEL_NODES; node++)
            ops[count++] = (struct op){ .kind = OP_ITEMS, .args = { 0, node, 0 } };
        for (int queue = 0; queue < (int)MODEL_QUEUES; queue++)
            ops[count++] = (struct op){ .kind = OP_QUEUE_LOOK, .args = { queue, queue } };
        if (round == 0)
            ops[count++] = (struct op){ .kind = OP_CRASH, .args = { 2 } };
    }
    return count;
}

static unsigned head_of_queues(struct sim_random *random, struct op *ops)
{
    unsigned count = 0;
    for (int queue = 0; queue < (int)MODEL_QUEUES; queue++)
        ops[count++] = (struct op){ .kind = OP_QUEUE_MAKE, .args = { queue, queue } };
    for (int slot = 0; slot < (int)MODEL_SESSIONS; slot++)
        ops[count++] = (struct op){ .kind = OP_QUEUE_JOIN,
                                    .args = { slot, (int)sim_below(random, MODEL_QUEUES),
                                              1 + (int)sim_below(random, 4) } };
    return count;
}

/* In the beginning most are there, and there is something to do. */
static unsigned head(struct sim_random *random, struct op *ops)
{
    unsigned count = 0;
    for (int slot = 0; slot < (int)MODEL_SESSIONS; slot++)
        ops[count++] = (struct op){ .kind = OP_CONNECT, .args = { slot, !sim_once_in(random, 5), 0 } };
    for (int node = 0; node < (int)MODEL_NODES; node++)
        ops[count++] = (struct op){ .kind = OP_CREATE,
                                    .args = { node, node, (int)sim_below(random, 4), sim_once_in(random, 4),
                                              PUBLISH_OPEN } };
    for (int slot = 0; slot < (int)MODEL_SESSIONS; slot++)
        ops[count++] = (struct op){ .kind = OP_SUBSCRIBE,
                                    .args = { slot, (int)sim_below(random, MODEL_NODES),
                                              (int)sim_below(random, 2), !sim_once_in(random, 4), 0, 1 } };
    return count;
}

static unsigned sequence(uint64_t seed, unsigned length, struct op *ops, struct check_options *options)
{
    struct sim_random random = { .state = seed };
    options->seed = seed;
    options->shards = 1 + sim_below(&random, 3);
    bool queues = seed % QUEUES_IN == 3;
    unsigned count = head(&random, ops);
    if (queues)
        count += head_of_queues(&random, ops + count);
    for (unsigned i = 0; i < length; i++)
        ops[count++] = op_random(&random, (int)i + 1, queues);
    return count + tail(ops + count);
}

static void print_script(const struct check_options *options, const struct op *ops, unsigned count)
{
    char text[160];
    printf("world seed=%" PRIu64 " shards=%u\n", options->seed, options->shards);
    for (unsigned i = 0; i < count; i++) {
        op_print(&ops[i], text, sizeof(text));
        printf("%s\n", text);
    }
}

/* --- searching ----------------------------------------------------------------------------------------------------- */

/* What a process that runs sequences tells the one that started it, which outlives it. */
struct progress {
    uint64_t seed, operations, events, sequences, restarts;
    bool failed;
};

static void search(const struct arguments *a, struct progress *progress)
{
    struct op ops[LENGTH_MAX + ENDS_MAX];
    struct check_result result;
    time_t end = a->seconds > 0 ? time(NULL) + (time_t)a->seconds : 0;
    for (progress->seed = a->first; progress->operations < a->operations; progress->seed++) {
        struct check_options options = a->options;
        unsigned count = sequence(progress->seed, a->length, ops, &options);
        check_run(&options, ops, count, &result);
        progress->operations += result.effective;
        progress->events += result.events;
        progress->restarts += result.restarts;
        progress->sequences++;
        progress->failed = result.failed;
        if (result.failed || (end != 0 && time(NULL) >= end))
            return;
    }
}

static bool search_apart(const struct arguments *a, struct progress *out)
{
    struct progress *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;
    xy_assert(shared != MAP_FAILED);
    fflush(NULL);
    pid_t child = fork();
    xy_assert(child >= 0);
    if (child == 0) {
        search(a, shared);
        _exit(0);
    }
    pid_t ended = waitpid(child, &status, 0);
    xy_assert(ended == child);
    *out = *shared;
    munmap(shared, sizeof(*shared));
    return out->failed || status != 0;
}

static unsigned report(const struct arguments *a, uint64_t seed)
{
    struct op ops[LENGTH_MAX + ENDS_MAX];
    struct check_options options = a->options;
    struct check_result result;
    unsigned count = sequence(seed, a->length, ops, &options);
    if (!shrink_try(&options, ops, count, &result)) {
        printf("seed %" PRIu64 ": FAILED, but not a second time\n", seed);
        return count;
    }
    printf("seed %" PRIu64 ": FAILED at operation %u: %s\n", seed, result.done, result.verdict);
    count = shrink(&options, ops, count, &result);
    printf("%u operations are enough: %s\n", count, result.verdict);
    print_script(&options, ops, count);
    return count;
}

static int run(const struct arguments *a)
{
    struct progress p;
    time_t begun = time(NULL);
    bool failed = search_apart(a, &p);
    printf("%" PRIu64 " sequences from seed %" PRIu64 ": %" PRIu64 " operations, %" PRIu64 " events, %" PRIu64
           " restarts in %ld s\n",
           p.sequences, a->first, p.operations, p.events, p.restarts, (long)(time(NULL) - begun));
    if (!failed)
        return 0;
    (void)report(a, p.seed);
    return 1;
}

static int run_fault(const struct arguments *a)
{
    struct arguments limited = *a;
    struct progress p;
    limited.operations = (uint64_t)SEQUENCES_FAULT * a->length;
    if (!search_apart(&limited, &p)) {
        printf("%s: not noticed in %" PRIu64 " sequences\n", a->options.fault, p.sequences);
        return 1;
    }
    printf("%s: noticed\n", a->options.fault);
    return report(&limited, p.seed) <= SHORT_ENOUGH ? 0 : 1;
}

static int run_one(const struct arguments *a)
{
    struct op ops[LENGTH_MAX + ENDS_MAX];
    struct check_options options = a->options;
    struct check_result result;
    unsigned count = sequence(a->first, a->length, ops, &options);
    check_run(&options, ops, count, &result);
    printf("seed %" PRIu64 ": %s%s after %u operations\n", a->first, result.failed ? "FAILED: " : "held",
           result.verdict, result.done);
    return result.failed;
}

/* --- scripts ------------------------------------------------------------------------------------------------------- */

static int replay(const struct arguments *a)
{
    struct op ops[LENGTH_MAX + ENDS_MAX];
    struct check_options options = a->options;
    struct check_result result;
    unsigned count = 0;
    char line[200];
    FILE *file = fopen(a->replay, "r");
    options.seed = options.shards = 1;
    while (file != NULL && fgets(line, sizeof(line), file) != NULL && count < LENGTH_MAX) {
        if (line[0] == '#' || line[0] == '\n' ||
            sscanf(line, "world seed=%" SCNu64 " shards=%u", &options.seed, &options.shards) == 2)
            continue;
        if (!op_parse(line, &ops[count++])) {
            fprintf(stderr, "%s: not an operation: %s", a->replay, line);
            fclose(file);
            return 2;
        }
    }
    if (file == NULL || count == 0) {
        fprintf(stderr, "%s: no script\n", a->replay);
        if (file != NULL)
            fclose(file);
        return 2;
    }
    fclose(file);
    check_run(&options, ops, count, &result);
    printf("%s: %s%s after %u operations\n", a->replay, result.failed ? "FAILED: " : "held", result.verdict,
           result.done);
    return result.failed;
}

/* --- arguments ----------------------------------------------------------------------------------------------------- */

static bool fault_known(const char *name)
{
    for (size_t i = 0; plant_names[i] != NULL; i++)
        if (strcmp(plant_names[i], name) == 0)
            return true;
    return false;
}

static bool arguments_read(int argc, char **argv, struct arguments *a)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--trace") == 0) {
            a->options.trace = true;
            continue;
        }
        i++;
        if (strcmp(argv[i - 1], "--operations") == 0)
            a->operations = strtoull(value, NULL, 10);
        else if (strcmp(argv[i - 1], "--seconds") == 0) {
            a->seconds = (unsigned)strtoul(value, NULL, 10);
        } else if (strcmp(argv[i - 1], "--first") == 0)
            a->first = strcmp(value, "any") == 0 ? (uint64_t)time(NULL) * 1000000 : strtoull(value, NULL, 10);
        else if (strcmp(argv[i - 1], "--length") == 0)
            a->length = (unsigned)strtoul(value, NULL, 10);
        else if (strcmp(argv[i - 1], "--seed") == 0) {
            a->one = true;
            a->first = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i - 1], "--replay") == 0)
            a->replay = value;
        else if (strcmp(argv[i - 1], "--fault") == 0 && fault_known(value))
            a->options.fault = value;
        else
            return false;
    }
    return a->length > 0 && a->length <= LENGTH_MAX && a->operations > 0;
}

int main(int argc, char **argv)
{
    struct arguments a = { .first = 1, .operations = OPERATIONS, .length = LENGTH_DEFAULT };
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!arguments_read(argc, argv, &a)) {
        fprintf(stderr,
                "usage: model [--operations N] [--seconds T] [--first SEED] [--length L] [--seed SEED]\n"
                "             [--replay FILE] [--fault NAME] [--trace]\n");
        return 2;
    }
    if (a.replay != NULL)
        return replay(&a);
    if (a.one)
        return run_one(&a);
    return a.options.fault != NULL ? run_fault(&a) : run(&a);
}
