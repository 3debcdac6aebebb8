/* The program: seeds in, verdicts out.
 *
 *   sim [--seeds N] [--first SEED] [--steps M]   run seeds, each twice: the same seed must make the same world
 *       [--seconds T]                            no new seed after so long; SEED `any`: others each time
 *   sim --regressions FILE                       the seeds that once failed: SEED STEPS [plain], and what it was
 *   sim --seed N [--steps M] [--plain] [--trace] one seed, as it failed
 *   sim --fault NAME [--seeds N]                 plant a fault; fails if no seed notices it
 *
 * Exit code 0: all held. A failure prints its seed and the step. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/assert.h"
#include "tests/sim/world.h"

struct arguments {
    struct sim_options options;
    uint64_t first;
    unsigned seeds, seconds;
    bool one;
    const char *regressions;
};

/* An assertion of the broker's own must say which seed it was. */
static volatile uint64_t running_seed;

static void on_abort(int signal_number)
{
    char text[64];
    int len = snprintf(text, sizeof(text), "seed %" PRIu64 ": aborted\n", (uint64_t)running_seed);
    ssize_t written = write(STDERR_FILENO, text, (size_t)len);
    (void)written;
    signal(signal_number, SIG_DFL);
}

static int usage(void)
{
    fprintf(stderr, "usage: sim [--seeds N] [--first SEED] [--seed SEED] [--steps N] [--seconds T]\n"
                    "           [--plain] [--regressions FILE] [--fault NAME] [--trace]\n");
    return 2;
}

static bool fault_find(const char *name, enum sim_fault *fault)
{
    for (unsigned i = 0; i < SIM_FAULT_COUNT; i++) {
        if (strcmp(name, sim_fault_names[i]) == 0) {
            *fault = (enum sim_fault)i;
            return true;
        }
    }
    return false;
}

static bool arguments_read(int argc, char **argv, struct arguments *a)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        bool trace = strcmp(argv[i], "--trace") == 0, plain = strcmp(argv[i], "--plain") == 0;
        a->options.trace |= trace;
        a->options.plain |= plain;
        if (trace || plain)
            continue;
        i++;
        if (strcmp(argv[i - 1], "--seeds") == 0)
            a->seeds = (unsigned)strtoul(value, NULL, 10);
        else if (strcmp(argv[i - 1], "--first") == 0)
            a->first = strcmp(value, "any") == 0 ? (uint64_t)time(NULL) * 1000000 : strtoull(value, NULL, 10);
        else if (strcmp(argv[i - 1], "--seconds") == 0)
            a->seconds = (unsigned)strtoul(value, NULL, 10);
        else if (strcmp(argv[i - 1], "--regressions") == 0)
            a->regressions = value;
        else if (strcmp(argv[i - 1], "--steps") == 0)
            a->options.steps = (unsigned)strtoul(value, NULL, 10);
        else if (strcmp(argv[i - 1], "--seed") == 0) {
            a->one = true;
            a->seeds = 1;
            a->first = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i - 1], "--fault") != 0 || !fault_find(value, &a->options.fault))
            return false;
    }
    return a->seeds > 0 && a->options.steps > 0;
}

static void print_result(uint64_t seed, const struct sim_result *r)
{
    printf("seed %" PRIu64 ": %s%s at step %u\n", seed, r->failed ? "FAILED: " : "held", r->verdict, r->step);
    printf("  %u crashes, %u restarts, %u cuts, %u broken and %u full disks, %u sessions, %u resumptions, "
           "%" PRIu64 " stalls, %" PRIu64 " refusals; %" PRIu64 " tokens, %" PRIu64 " promises, %" PRIu64
           " deliveries (%" PRIu64 " of items, %" PRIu64 " of jobs, %" PRIu64 " gaps, %" PRIu64
           " copies, %" PRIu64 " dead letters, %" PRIu64 " replays, %" PRIu64 " items seen, %" PRIu64
           " marked); %.1f s of virtual time; hash %016" PRIx64 "\n",
           r->crashes, r->restarts, r->cuts, r->broken_disks, r->full_disks, r->rebound, r->resumed,
           r->stalls, r->refused, r->tokens, r->promises, r->deliveries, r->items, r->jobs, r->skips,
           r->copies, r->letters, r->replays, r->seen, r->redeliveries, (double)r->virtual_us / 1e6, r->hash);
}

static void add(struct sim_result *sum, const struct sim_result *r)
{
    sum->step += r->step;
    sum->crashes += r->crashes;
    sum->restarts += r->restarts;
    sum->cuts += r->cuts;
    sum->broken_disks += r->broken_disks;
    sum->full_disks += r->full_disks;
    sum->resumed += r->resumed;
    sum->rebound += r->rebound;
    sum->tokens += r->tokens;
    sum->stalls += r->stalls;
    sum->refused += r->refused;
    sum->items += r->items;
    sum->jobs += r->jobs;
    sum->skips += r->skips;
    sum->copies += r->copies;
    sum->letters += r->letters;
    sum->replays += r->replays;
    sum->seen += r->seen;
    sum->promises += r->promises;
    sum->deliveries += r->deliveries;
    sum->redeliveries += r->redeliveries;
    sum->virtual_us += r->virtual_us;
}

/* Once, and once more unless everything is printed anyway. false: it failed. */
static bool run_twice(const struct sim_options *options, struct sim_result *r)
{
    struct sim_result again;
    running_seed = options->seed;
    sim_run(options, r);
    if (r->failed)
        print_result(options->seed, r);
    if (options->trace)
        return !r->failed;
    sim_run(options, &again);
    if (r->hash == again.hash && r->step == again.step)
        return !r->failed;
    printf("seed %" PRIu64 ": FAILED: two runs differ (hash %016" PRIx64 " and %016" PRIx64 ")\n",
           options->seed, r->hash, again.hash);
    return false;
}

static void print_sum(const struct arguments *a, unsigned seeds, unsigned failed,
                      const struct sim_result *sum)
{
    printf("%u seeds from %" PRIu64
           ", %u failed; %u steps, %u crashes, %u restarts, %u cuts, %u broken and %u full "
           "disks, %u sessions, %u resumptions, %" PRIu64 " stalls, %" PRIu64 " refusals; %" PRIu64
           " promises, %" PRIu64 " deliveries (%" PRIu64 " of items, %" PRIu64 " of jobs, %" PRIu64
           " gaps, %" PRIu64 " copies, %" PRIu64 " dead letters, %" PRIu64 " replays, %" PRIu64
           " items seen, %" PRIu64 " marked); %.0f s of virtual time\n",
           seeds, a->first, failed, sum->step, sum->crashes, sum->restarts, sum->cuts, sum->broken_disks,
           sum->full_disks, sum->rebound, sum->resumed, sum->stalls, sum->refused, sum->promises,
           sum->deliveries, sum->items, sum->jobs, sum->skips, sum->copies, sum->letters, sum->replays,
           sum->seen, sum->redeliveries, (double)sum->virtual_us / 1e6);
}

static int run_all(const struct arguments *a)
{
    struct sim_result sum = { 0 }, r;
    unsigned failed = 0, seeds = 0;
    time_t end = a->seconds > 0 ? time(NULL) + (time_t)a->seconds : 0;
    for (; a->seconds > 0 ? time(NULL) < end : seeds < a->seeds; seeds++) {
        struct sim_options options = a->options;
        options.seed = a->first + seeds;
        failed += !run_twice(&options, &r);
        add(&sum, &r);
    }
    if (a->one && failed == 0)
        print_result(a->first, &r);
    print_sum(a, seeds, failed, &sum);
    return failed > 0 ? 1 : 0;
}

static int run_regressions(const struct arguments *a)
{
    struct sim_result r;
    unsigned failed = 0, count = 0;
    char line[300];
    FILE *file = fopen(a->regressions, "r");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        struct sim_options options = a->options;
        char word[8] = "";
        if (line[0] == '#' || sscanf(line, "%" SCNu64 " %u %7s", &options.seed, &options.steps, word) != 3)
            continue;
        options.plain = strcmp(word, "plain") == 0;
        count++;
        failed += !run_twice(&options, &r);
    }
    if (file != NULL)
        fclose(file);
    printf("%u regressions, %u failed\n", count, failed);
    return count == 0 || failed > 0 ? 1 : 0;
}

/* The fault must be noticed by some seed. */
static int run_fault(const struct arguments *a)
{
    struct sim_result r;
    for (unsigned i = 0; i < a->seeds; i++) {
        struct sim_options options = a->options;
        options.seed = running_seed = a->first + i;
        sim_run(&options, &r);
        if (!r.failed)
            continue;
        printf("%s: noticed by seed %" PRIu64 " at step %u: %s\n", sim_fault_names[options.fault],
               options.seed, r.step, r.verdict);
        return 0;
    }
    printf("%s: not noticed in %u seeds\n", sim_fault_names[a->options.fault], a->seeds);
    return 1;
}

int main(int argc, char **argv)
{
    struct xy_scram_keys keys;
    struct arguments a = {
        .options = { .steps = 3000, .clients = 10, .accounts = 6, .keys = &keys, .keys_count = 1 },
        .first = 1,
        .seeds = 100,
    };
    a.options.pubsub = true;
    if (!arguments_read(argc, argv, &a))
        return usage();
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGABRT, on_abort);
    bool derived = xy_scram_keys_derive(XY_SCRAM_SHA_256, XY_STR(SIM_PASSWORD),
                                        XY_STR("a salt for everybody"), XY_SCRAM_ITERATIONS_MIN, &keys);
    xy_assert(derived);
    if (a.regressions != NULL)
        return run_regressions(&a);
    return a.options.fault == SIM_FAULT_NONE || a.one ? run_all(&a) : run_fault(&a);
}
