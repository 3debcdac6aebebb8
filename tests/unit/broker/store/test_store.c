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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
