/* What the store costs: records per second and processor time per record at several batch sizes, and how long recovery
 * takes. Run by hand:  store_bench [DIRECTORY] [SECONDS]; under callgrind with BATCH in the environment to count
 * instructions per record of one batch size. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "broker/store/store.h"
#include "xylem/store/v1/records.pb-c.h"

enum { NODES = 1000, PAYLOAD_BYTES = 256, KEEP = 20 };

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

static struct store *must_open(const char *directory)
{
    struct store_options options = {
        .data_dir = directory, .shards = 1, .env = &env, .threads = true, .failed = stop
    };
    struct xy_buf error = { 0 };
    struct store *store = store_open(&options, &error);
    if (store == NULL) {
        (void)fprintf(stderr, "store_bench: %.*s\n", XY_ARG(xy_buf_view(&error)));
        exit(1);
    }
    return store;
}

static uint64_t sequence[NODES];

/* One publish: the item, its publish id, and the item that falls out of the node's window. */
static uint64_t publish(struct store_shard *shard, uint64_t number)
{
    static uint8_t payload[PAYLOAD_BYTES];
    char publish_id[32], id[24];
    uint64_t node = number % NODES, seq = ++sequence[node], removed = seq > KEEP ? seq - KEEP : 0;
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
    return store_append(shard, RECORD_ITEM_PUT, &item.base);
}

static void run(struct store *store, unsigned batch, double seconds)
{
    struct store_shard *shard = store_shard(store, 0);
    struct store_stats before, after;
    store_stats(store, &before);
    double start = clock_seconds(CLOCK_MONOTONIC), cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
    double shard_cpu = clock_seconds(CLOCK_THREAD_CPUTIME_ID);
    uint64_t records = 0;
    while (clock_seconds(CLOCK_MONOTONIC) - start < seconds) {
        uint64_t ticket = 0;
        for (unsigned i = 0; i < batch; i++)
            ticket = publish(shard, records++);
        store_flush(shard);
        while (store_committed(shard) < ticket)
            usleep(20);
    }
    double took = clock_seconds(CLOCK_MONOTONIC) - start;
    cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    shard_cpu = clock_seconds(CLOCK_THREAD_CPUTIME_ID) - shard_cpu;
    store_stats(store, &after);
    double count = (double)records;
    printf("batch %5u  %9.0f records/s  %7.0f commits/s  cpu/record: shard %6.2f us, all %6.2f us  slowest "
           "commit "
           "%.1f ms\n",
           batch, count / took, (double)(after.commits - before.commits) / took, shard_cpu / count * 1e6,
           cpu / count * 1e6, (double)after.commit_us_max / 1e3);
}

static void recovery(const char *directory)
{
    enum { RECORDS = 200000 };
    struct store *store = must_open(directory);
    struct store_shard *shard = store_shard(store, 0);
    /* Just below the trigger, so that no checkpoint comes between. */
    for (uint64_t i = 0; i < RECORDS - 1; i++) {
        publish(shard, i);
        if (i % 100 == 99)
            store_flush(shard);
    }
    store_flush(shard);
    while (store_committed(shard) < store_ticket(shard))
        usleep(1000);
    store_crash(&store);
    double start = clock_seconds(CLOCK_MONOTONIC), cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
    store = must_open(directory);
    printf("recovery of %d records: %.3f s, %.3f s of it processor\n", RECORDS,
           clock_seconds(CLOCK_MONOTONIC) - start, clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    start = clock_seconds(CLOCK_MONOTONIC);
    store_close(&store);
    printf("close: %.3f s\n", clock_seconds(CLOCK_MONOTONIC) - start);
}

int main(int argc, char **argv)
{
    static const unsigned batches[] = { 1, 10, 100, 1000 };
    char made[] = "/tmp/store-bench-XXXXXX";
    const char *directory = argc > 1 ? argv[1] : mkdtemp(made);
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 3;
    const char *only = getenv("BATCH");
    struct store *store = must_open(directory);
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++)
        if (only == NULL || strtoul(only, NULL, 10) == batches[i])
            run(store, batches[i], seconds);
    store_close(&store);
    if (only == NULL)
        recovery(directory);
    printf("data in %s\n", directory);
    return 0;
}
