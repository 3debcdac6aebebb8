/* What the store costs: records per second and processor time per record at several batch sizes, and how long recovery
 * takes, with LMDB's log and with the segment log in turn, on one disk at one time. Run by hand:
 *   store_bench [DIRECTORY] [SECONDS]
 * With BATCH in the environment only that batch size, with LOG only that log (lmdb, segments): under callgrind to count
 * instructions per record. */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "broker/store/backend.h"
#include "xylem/store/v1/records.pb-c.h"

enum { NODES = 1000, PAYLOAD_BYTES = 256, KEEP = 20, ROUNDS = 4, LOGS = 2 };

static double clock_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t now_us(void *ctx)
{
    (void)ctx;
    return (uint64_t)(clock_seconds(CLOCK_MONOTONIC) * 1e6);
}

static void no_random(void *ctx, void *out, size_t len)
{
    (void)ctx;
    memset(out, 7, len);
}

static const struct xy_env env = { now_us, now_us, no_random, NULL };

static void stop(void *ctx, const char *why)
{
    (void)ctx;
    (void)fprintf(stderr, "store_bench: %s\n", why);
    exit(1);
}

static sem_t committed;

static void wake(void *ctx, unsigned shard)
{
    (void)ctx, (void)shard;
    (void)sem_post(&committed);
}

/* One store and what was done with it. */
struct subject {
    const struct store_backend *backend;
    char directory[256];
    struct store *store;
    uint64_t sequence[NODES];
    uint64_t records, commits;
    double took, cpu, shard_cpu;
};

static struct subject subjects[LOGS] = { { .backend = &store_backend_lmdb },
                                         { .backend = &store_backend_segments } };

static void must_open(struct subject *subject)
{
    struct store_options options = { .data_dir = subject->directory,
                                     .backend = subject->backend,
                                     .shards = 1,
                                     .env = &env,
                                     .threads = true,
                                     .committed = wake,
                                     .failed = stop };
    struct xy_buf error = { 0 };
    subject->store = store_open(&options, &error);
    if (subject->store != NULL)
        return;
    (void)fprintf(stderr, "store_bench: %.*s\n", XY_ARG(xy_buf_view(&error)));
    exit(1);
}

/* One publish: the item, its publish id, and the item that falls out of the node's window. */
static uint64_t publish(struct subject *subject, uint64_t number)
{
    static uint8_t payload[PAYLOAD_BYTES];
    char publish_id[32], id[24];
    uint64_t node = number % NODES, seq = ++subject->sequence[node], removed = seq > KEEP ? seq - KEEP : 0;
    (void)snprintf(publish_id, sizeof(publish_id), "bench:%llu", (unsigned long long)number);
    (void)snprintf(id, sizeof(id), "%llu", (unsigned long long)seq);
    Xylem__Store__V1__ItemPut item = XYLEM__STORE__V1__ITEM_PUT__INIT;
    item.node = node + 1;
    item.seq = seq;
    item.id = id;
    item.publisher = (char[]){ "publisher@example.org" };
    item.time_us = 1;
    item.item.data = payload;
    item.item.len = sizeof(payload);
    item.publish_id = publish_id;
    item.retained = true;
    item.removed = &removed;
    item.n_removed = removed > 0;
    return store_append(store_shard(subject->store, 0), RECORD_ITEM_PUT, &item.base);
}

static void wait_for(struct store_shard *shard, uint64_t ticket)
{
    while (store_committed(shard) < ticket)
        (void)sem_wait(&committed);
}

static void run(struct subject *subject, unsigned batch, double seconds)
{
    struct store_shard *shard = store_shard(subject->store, 0);
    struct store_stats before, after;
    store_stats(subject->store, &before);
    double start = clock_seconds(CLOCK_MONOTONIC), cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
    double shard_cpu = clock_seconds(CLOCK_THREAD_CPUTIME_ID);
    while (clock_seconds(CLOCK_MONOTONIC) - start < seconds) {
        uint64_t ticket = 0;
        for (unsigned i = 0; i < batch; i++)
            ticket = publish(subject, subject->records++);
        store_flush(shard);
        wait_for(shard, ticket);
    }
    subject->took += clock_seconds(CLOCK_MONOTONIC) - start;
    subject->cpu += clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    subject->shard_cpu += clock_seconds(CLOCK_THREAD_CPUTIME_ID) - shard_cpu;
    store_stats(subject->store, &after);
    subject->commits += after.commits - before.commits;
}

static double rate(const struct subject *subject)
{
    return subject->took > 0 ? (double)subject->records / subject->took : 0;
}

static void tell(struct subject *subject, unsigned batch)
{
    struct store_stats stats;
    double count = (double)subject->records;
    store_stats(subject->store, &stats);
    printf("%-8s  batch %5u  %9.0f records/s  %7.0f commits/s  cpu/record: shard %6.2f us, all %6.2f us  "
           "commit p99 %.1f ms, slowest so far %.1f ms\n",
           subject->backend->name, batch, rate(subject), (double)subject->commits / subject->took,
           subject->shard_cpu / count * 1e6, subject->cpu / count * 1e6, (double)stats.commit_us.p99 / 1e3,
           (double)stats.commit_us_max / 1e3);
}

/* In turns, so that a disk that others use at times slows both. */
static void compare(unsigned batch, double seconds, const char *log)
{
    for (int i = 0; i < LOGS; i++) {
        subjects[i].records = subjects[i].commits = 0;
        subjects[i].took = subjects[i].cpu = subjects[i].shard_cpu = 0;
        memset(subjects[i].sequence, 0, sizeof(subjects[i].sequence));
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < LOGS; i++)
            if (log == NULL || strcmp(log, subjects[i].backend->name) == 0)
                run(&subjects[i], batch, seconds / ROUNDS);
    for (int i = 0; i < LOGS; i++)
        if (subjects[i].records > 0)
            tell(&subjects[i], batch);
    if (subjects[0].records > 0 && subjects[1].records > 0)
        printf("segments / lmdb at batch %u: %.2f\n", batch, rate(&subjects[1]) / rate(&subjects[0]));
}

static void recovery(struct subject *subject)
{
    enum { RECORDS = 200000 };
    must_open(subject);
    struct store_shard *shard = store_shard(subject->store, 0);
    /* Just below the trigger, so that no checkpoint comes between. */
    for (uint64_t i = 0; i < RECORDS - 1; i++) {
        publish(subject, i);
        if (i % 100 == 99)
            store_flush(shard);
    }
    store_flush(shard);
    wait_for(shard, store_ticket(shard));
    store_crash(&subject->store);
    double start = clock_seconds(CLOCK_MONOTONIC), cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
    must_open(subject);
    printf("%-8s  recovery of %d records: %.3f s, %.3f s of it processor\n", subject->backend->name, RECORDS,
           clock_seconds(CLOCK_MONOTONIC) - start, clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    start = clock_seconds(CLOCK_MONOTONIC);
    store_close(&subject->store);
    printf("%-8s  close: %.3f s\n", subject->backend->name, clock_seconds(CLOCK_MONOTONIC) - start);
}

int main(int argc, char **argv)
{
    static const unsigned batches[] = { 1, 10, 100, 1000 };
    char made[] = "/tmp/store-bench-XXXXXX";
    const char *directory = argc > 1 ? argv[1] : mkdtemp(made);
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 3;
    const char *only = getenv("BATCH"), *log = getenv("LOG");
    (void)sem_init(&committed, 0, 0);
    (void)mkdir(directory, 0700);
    for (int i = 0; i < LOGS; i++) {
        (void)snprintf(subjects[i].directory, sizeof(subjects[i].directory), "%.200s/%s", directory,
                       subjects[i].backend->name);
        must_open(&subjects[i]);
    }
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++)
        if (only == NULL || strtoul(only, NULL, 10) == batches[i])
            compare(batches[i], seconds, log);
    for (int i = 0; i < LOGS; i++)
        store_close(&subjects[i].store);
    for (int i = 0; i < LOGS && only == NULL; i++)
        if (log == NULL || strcmp(log, subjects[i].backend->name) == 0)
            recovery(&subjects[i]);
    printf("data in %s\n", directory);
    return 0;
}
