/* Appending items to the store and committing them, a hundred at a time, with the memory twin in the place of the disk. */
#include "bench/micro/micro.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/store/backend.h"
#include "core/base/assert.h"
#include "xylem/store/v1/records.pb-c.h"

enum { BATCH = 100, NODES = 100, KEEP = 10 };

static uint64_t now_us(void *ctx)
{
    (void)ctx;
    return 1000000;
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
    (void)fprintf(stderr, "micro: the store failed: %s\n", why);
    exit(1);
}

struct numbers {
    struct store *store;
    uint64_t items;
};

static void *prepare(void)
{
    struct numbers *numbers = calloc(1, sizeof(*numbers));
    struct xy_buf error = { 0 };
    struct store_options options = {
        .backend = store_memory_backend(store_memory_new()), .shards = 1, .env = &env, .failed = stop
    };
    numbers->store = store_open(&options, &error);
    xy_assert(numbers->store != NULL);
    return numbers;
}

/* The item, its publish id, and the item that falls out of what the node retains. */
static void append(struct store_shard *shard, uint64_t number)
{
    static uint8_t payload[MICRO_PAYLOAD_BYTES];
    char publish_id[32], id[24];
    uint64_t seq = number / NODES + 1, removed = seq > KEEP ? seq - KEEP : 0;
    (void)snprintf(publish_id, sizeof(publish_id), "micro:%llu", (unsigned long long)number);
    (void)snprintf(id, sizeof(id), "%llu", (unsigned long long)seq);
    Xylem__Store__V1__ItemPut item = XYLEM__STORE__V1__ITEM_PUT__INIT;
    item.node = number % NODES + 1;
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
    (void)store_append(shard, RECORD_ITEM_PUT, &item.base);
}

static void append_and_commit(void *state, unsigned operations)
{
    struct numbers *numbers = state;
    struct store_shard *shard = store_shard(numbers->store, 0);
    for (unsigned i = 0; i < operations; i++) {
        append(shard, numbers->items++);
        if (numbers->items % BATCH != 0)
            continue;
        (void)store_flush(shard);
        bool committed = store_step_commit(numbers->store);
        xy_assert(committed && store_committed(shard) == store_ticket(shard));
    }
}

const struct micro_case micro_store = { "store", 5000, prepare, append_and_commit };
