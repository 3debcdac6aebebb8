/* The store as the broker sees it: open, append, flush, commit, read, reopen; on memory and on LMDB, with threads and by
 * hand. */
#include "fixture.h"

struct world {
    char directory[64];
    struct store_memory *memory;
    struct store_options options;
};

static void world_make(struct world *world, bool lmdb, bool threads, unsigned shards)
{
    *world = (struct world){ 0 };
    make_directory(world->directory);
    if (!lmdb)
        world->memory = store_memory_new();
    world->options =
        options_for(world->directory, lmdb ? NULL : store_memory_backend(world->memory), shards, threads);
}

static void world_free(struct world *world)
{
    store_memory_free(&world->memory);
    remove_directory(world->directory);
}

static void commit(struct store *store, struct store_shard *shard)
{
    store_flush(shard);
    (void)store;
    wait_committed(shard, store_ticket(shard));
}

static void read_back(const struct world *world)
{
    struct store *store = must_open(&world->options);
    struct store_shard *shard = store_shard(store, 0);
    assert_int_equal(store_ticket(shard), 0);
    for (uint64_t seq = 1; seq <= 600; seq++)
        append_item(shard, 7, seq, XY_STR("<item/>"));
    append_item_remove(shard, 7, 5);
    append_account(shard, "a@x");
    assert_int_equal(item_flag(shard, 7, 6), 'r'); /* visible before it is committed */
    if (world->options.threads) {
        commit(store, shard);
    } else {
        store_flush(shard);
        assert_int_equal(store_committed(shard), 0);
        assert_true(store_step_commit(store));
        assert_int_equal(store_committed(shard), store_ticket(shard));
        assert_false(store_step_commit(store));
    }
    char key[8];
    be64_put(key, 7);
    assert_int_equal(count_below(shard, STORE_ITEMS, xy_str_n(key, 8)), 599);
    store_close(&store);
    assert_null(store);

    store = must_open(&world->options);
    shard = store_shard(store, 0);
    assert_int_equal(count_below(shard, STORE_ITEMS, xy_str_n(key, 8)), 599);
    assert_int_equal(get_u64(shard, STORE_NODE_SEQ, xy_str_n(key, 8)), 600);
    assert_int_equal(item_flag(shard, 7, 5), 0);
    assert_int_equal(count_below(shard, STORE_ACCOUNTS, XY_STR("")), 1);
    store_close(&store);
}

static void test_read_back(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        struct world world;
        world_make(&world, variant & 1, variant & 2, 1);
        read_back(&world);
        world_free(&world);
    }
}

/* The commit thread looks for work for a moment where it came quickly; then it sleeps, and takes no processor. */
static void test_idle_after_quick_work(void **state)
{
    (void)state;
    struct world world;
    struct timespec before, after, pause = { .tv_nsec = 300000000 };
    world_make(&world, false, true, 1);
    struct store *store = must_open(&world.options);
    struct store_shard *shard = store_shard(store, 0);
    for (uint64_t seq = 1; seq <= 2000; seq++) {
        append_item(shard, 1, seq, XY_STR("x"));
        commit(store, shard);
    }
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before), 0);
    assert_int_equal(nanosleep(&pause, NULL), 0);
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after), 0);
    int64_t took_us = (after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000;
    assert_true(took_us < 100000);
    store_close(&store);
    world_free(&world);
}

/* --- lazy records ---------------------------------------------------------------------------------------------------- */

static uint64_t clock_us;

static uint64_t virtual_now(void *ctx)
{
    (void)ctx;
    return clock_us;
}

static const struct xy_env virtual_env = { virtual_now, virtual_now, fixture_random, NULL };

static struct store *open_virtual(struct world *world)
{
    world_make(world, false, false, 1);
    world->options.env = &virtual_env;
    return must_open(&world->options);
}

/* Alone they wait for fifty milliseconds, to the microsecond; in company they ride along. */
static void test_lazy(void **state)
{
    (void)state;
    struct world world;
    clock_us = 1000;
    struct store *store = open_virtual(&world);
    struct store_shard *shard = store_shard(store, 0);
    assert_true(store_flush(shard) == UINT64_MAX);
    uint64_t ticket = append_cursor(shard, 1, 1, 5);
    assert_int_equal(store_flush(shard), STORE_LAZY_US);
    assert_false(store_step_commit(store));
    clock_us += STORE_LAZY_US - 1;
    append_cursor(shard, 1, 1, 6);
    assert_int_equal(store_flush(shard), 1);
    assert_false(store_step_commit(store));
    clock_us++;
    assert_true(store_flush(shard) == UINT64_MAX);
    assert_true(store_step_commit(store));
    assert_int_equal(store_committed(shard), ticket);

    assert_true(append_cursor(shard, 1, 1, 7) > ticket);
    uint64_t urgent = append_item(shard, 1, 1, XY_STR("x"));
    assert_true(store_flush(shard) == UINT64_MAX);
    assert_true(store_step_commit(store));
    assert_int_equal(store_committed(shard), urgent);
    append_cursor(shard, 1, 1, 8); /* closing takes them along too */
    store_close(&store);
    store = must_open(&world.options);
    assert_int_equal(get_u64(store_shard(store, 0), STORE_CURSORS, xy_str_n("\0\0\0\0\0\0\0\1\0\0\0\1", 12)),
                     8);
    store_close(&store);
    world_free(&world);
}

/* --- pages ------------------------------------------------------------------------------------------------------------ */

static void test_pages(void **state)
{
    (void)state;
    struct world world;
    struct store_entry page[STORE_PAGE_RECORDS_MAX + 1];
    struct xy_arena *arena = xy_arena_new();
    bool more;
    char node[8];
    static char large[300 << 10];
    world_make(&world, true, false, 1);
    struct store *store = must_open(&world.options);
    struct store_shard *shard = store_shard(store, 0);
    be64_put(node, 5);
    for (uint64_t seq = 1; seq <= STORE_PAGE_RECORDS_MAX; seq++)
        append_item(shard, 5, seq, XY_STR("x"));
    struct xy_str prefix = xy_str_n(node, 8);
    assert_int_equal(store_scan(shard, STORE_ITEMS, prefix, prefix, arena, page, 1000, &more),
                     STORE_PAGE_RECORDS_MAX);
    assert_false(more);
    append_item(shard, 5, STORE_PAGE_RECORDS_MAX + 1, XY_STR("x"));
    assert_int_equal(store_scan(shard, STORE_ITEMS, prefix, prefix, arena, page, 1000, &more),
                     STORE_PAGE_RECORDS_MAX);
    assert_true(more);
    assert_int_equal(store_scan(shard, STORE_ITEMS, prefix, prefix, arena, page, 0, &more), 0);
    assert_true(more);
    assert_int_equal(store_scan(shard, STORE_ITEMS, XY_STR("none"), XY_STR(""), arena, page, 9, &more), 0);
    assert_false(more);

    /* Nothing in the tables before a checkpoint, everything after. */
    assert_int_equal(store_scan_tables(store, STORE_ITEMS, prefix, prefix, arena, page, 9, &more), 0);
    assert_true(store_step_checkpoint(store));
    assert_int_equal(store_scan_tables(store, STORE_ITEMS, prefix, prefix, arena, page, 9, &more), 9);
    assert_true(more);

    /* Large values end a page early, but one always fits. */
    be64_put(node, 6);
    for (uint64_t seq = 1; seq <= 5; seq++)
        append_item(shard, 6, seq, xy_str_n(large, sizeof(large)));
    assert_int_equal(store_scan(shard, STORE_ITEMS, prefix, prefix, arena, page, 9, &more), 3);
    assert_true(more);
    be64_put(node, 7);
    char *huge = calloc(1, 2 << 20);
    assert_non_null(huge);
    append_item(shard, 7, 1, xy_str_n(huge, 2 << 20)); /* above the size of a log entry, too */
    free(huge);
    xy_arena_reset(arena);
    assert_int_equal(store_scan(shard, STORE_ITEMS, prefix, prefix, arena, page, 9, &more), 1);
    assert_false(more);
    store_flush(shard);
    assert_true(store_step_commit(store));
    store_crash(&store);
    store = must_open(&world.options);
    assert_int_equal(item_flag(store_shard(store, 0), 7, 1), 'r');
    store_close(&store);
    xy_arena_free(&arena);
    world_free(&world);
}

/* --- publish ids ------------------------------------------------------------------------------------------------------ */

static void publish_with_id(struct store_shard *shard, uint64_t seq, const char *id)
{
    Xylem__Store__V1__ItemPut item = XYLEM__STORE__V1__ITEM_PUT__INIT;
    item.node = 3;
    item.seq = seq;
    item.publisher = (char[]){ "p@x" };
    item.publish_id = (char *)(uintptr_t)id;
    item.time_us = clock_us;
    store_append(shard, RECORD_ITEM_PUT, &item.base);
}

/* Ids are kept as long as promised, and not for ever. */
static void test_publish_ids_age(void **state)
{
    (void)state;
    struct world world;
    char id[32], node[8];
    clock_us = 1000;
    struct store *store = open_virtual(&world);
    struct store_shard *shard = store_shard(store, 0);
    be64_put(node, 3);
    for (uint64_t seq = 1; seq <= 500; seq++) {
        (void)snprintf(id, sizeof(id), "whole-%llu-", (unsigned long long)seq);
        publish_with_id(shard, seq, id);
    }
    publish_with_id(shard, 501, "stream:9");
    assert_true(store_step_checkpoint(store));
    clock_us += STORE_DEDUP_KEEP_US;
    for (int round = 0; round < 5; round++) {
        append_account(shard, "a@x");
        assert_true(store_step_checkpoint(store));
    }
    assert_int_equal(count_below(shard, STORE_DEDUP, xy_str_n(node, 8)), 501);
    clock_us += 1;
    publish_with_id(shard, 502, "whole-7-"); /* published anew: stays */
    for (int round = 0; round < 5; round++) {
        append_account(shard, "a@x");
        assert_true(store_step_checkpoint(store));
    }
    assert_int_equal(count_below(shard, STORE_DEDUP, xy_str_n(node, 8)), 2);
    store_close(&store);
    world_free(&world);
}

/* --- what goes wrong while writing ------------------------------------------------------------------------------------ */

static enum store_io fail_third_append(void *ctx, enum store_fault point, uint64_t count)
{
    (void)ctx;
    return point == FAULT_LOG_APPEND && count >= 3 ? STORE_IO_FULL : STORE_IO_OK;
}

static void remember_failure(void *ctx, const char *why)
{
    assert_non_null(strstr(why, "cannot commit the log"));
    ++*(int *)ctx;
}

static void test_failed_append(void **state)
{
    (void)state;
    struct store_memory *memory = store_memory_new();
    struct store_faulty *faulty = store_faulty_new(store_memory_backend(memory), fail_third_append, NULL);
    struct store_options options = options_for(NULL, store_faulty_backend(faulty), 1, false);
    int failures = 0;
    options.failed = remember_failure;
    options.ctx = &failures;
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    for (uint64_t seq = 1; seq <= 4; seq++) {
        append_item(shard, 1, seq, XY_STR("x"));
        store_flush(shard);
        assert_true(store_step_commit(store) == (seq <= 2));
    }
    assert_int_equal(failures, 1);
    assert_int_equal(store_committed(shard), 2);
    assert_false(store_step_checkpoint(store));
    store_close(&store);
    options.backend = store_memory_backend(memory);
    store = must_open(&options);
    assert_int_equal(item_flag(store_shard(store, 0), 1, 2), 'r');
    assert_int_equal(item_flag(store_shard(store, 0), 1, 3), 0);
    store_close(&store);
    store_faulty_free(&faulty);
    store_memory_free(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_back),     cmocka_unit_test(test_lazy),
        cmocka_unit_test(test_pages),         cmocka_unit_test(test_publish_ids_age),
        cmocka_unit_test(test_failed_append), cmocka_unit_test(test_idle_after_quick_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
