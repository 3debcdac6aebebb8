/* The files hold what lives, not what passed: whatever is published, retracted and acknowledged, with readers all the time,
 * they level off. With XYLEM_TEST_LONG in the environment the same at the size of a day's work. */
#include "fixture.h"

enum { PAYLOAD = 2000, KEEP = 50, BATCH = 200 };
#define MIB (1ull << 20)

static char payload[PAYLOAD];

static bool is_long(void)
{
    return getenv("XYLEM_TEST_LONG") != NULL;
}

static void commit(struct store *store)
{
    (void)store_flush(store_shard(store, 0));
    assert_true(store_step_commit(store));
}

/* One owed item and one last value at the head, 100 MB of churn behind them, a reader all the time. */
static void test_churn_is_bounded(void **state)
{
    (void)state;
    enum { BATCHES = 250 };
    char directory[64], node[8];
    make_directory(directory);
    struct store_options options = options_for(directory, NULL, 1, false);
    options.log_bytes_max = 64 * MIB; /* a segment is a part of that */
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    append_item(shard, 1, 1, XY_STR("owed"));
    be64_put(node, 2);
    for (uint64_t seq = 1; seq <= BATCH * BATCHES; seq++) {
        append_item(shard, 2, seq, xy_str_n(payload, sizeof(payload)));
        if (seq > KEEP)
            append_item_remove(shard, 2, seq - KEEP);
        if (seq % BATCH != 0)
            continue;
        commit(store);
        assert_int_equal(count_below(shard, STORE_ITEMS, xy_str_n(node, 8)), KEEP);
        if (seq % (BATCH * 10) == 0)
            assert_true(store_step_checkpoint(store));
    }
    assert_int_equal(item_flag(shard, 1, 1), 'r');
    print_message("files: %llu KiB after %d MB\n", (unsigned long long)files_bytes(directory, "") / 1024,
                  BATCH * BATCHES * 2 / 1000);
    assert_true(files_bytes(directory, "") < 25 * MIB);
    struct store_stats stats;
    store_stats(store, &stats);
    assert_true(stats.tables_bytes < 4 * MIB);
    assert_true(stats.log_bytes < 1 * MIB);
    store_close(&store);
    remove_directory(directory);
}

/* A page of the backlog, as a subscriber asks for it when the one before is acknowledged. Returns the last seq of it. */
static uint64_t read_page(struct store_shard *shard, uint64_t node, uint64_t after)
{
    struct store_entry page[STORE_PAGE_RECORDS_MAX];
    struct xy_arena *arena = xy_arena_new();
    char prefix[8], from[16];
    bool more;
    be64_put(prefix, node);
    size_t count = store_scan(shard, STORE_ITEMS, xy_str_n(prefix, 8), item_key(from, node, after + 1), arena,
                              page, 10, &more);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(be64_get(page[i].key.data + 8), after + 1 + i);
    after += count;
    xy_arena_free(&arena);
    return after;
}

static uint64_t slow_us;

static uint64_t slow_clock(void *ctx)
{
    (void)ctx;
    return slow_us += 3000;
}

/* A page is 256 rows or 1 MiB, and where rows come slowly it ends after 10 ms with what there is. */
static void test_pages_are_bounded(void **state)
{
    (void)state;
    static struct store_entry page[2 * STORE_PAGE_RECORDS_MAX];
    static const struct xy_env slow = { slow_clock, fixture_wall_us, fixture_random, NULL };
    for (int kind = 0; kind < 3; kind++) {
        size_t size = kind == 1 ? 64 << 10 : 10, expected[] = { STORE_PAGE_RECORDS_MAX, 15, 64 };
        static char large[64 << 10];
        struct store_memory *memory = store_memory_new();
        struct store_options options = options_for(NULL, store_memory_backend(memory), 1, false);
        if (kind == 2)
            options.env = &slow;
        struct store *store = must_open(&options);
        for (uint64_t seq = 1; seq <= 300; seq++)
            append_item(store_shard(store, 0), 1, seq, xy_str_n(large, size));
        struct xy_arena *arena = xy_arena_new();
        bool more = false;
        size_t count = store_scan(store_shard(store, 0), STORE_ITEMS, XY_STR_NONE, XY_STR_NONE, arena, page,
                                  2 * STORE_PAGE_RECORDS_MAX, &more);
        assert_int_equal(count, expected[kind]);
        assert_true(more);
        xy_arena_free(&arena);
        store_close(&store);
        store_memory_free(&memory);
    }
}

/* A subscriber that takes its time over a backlog of 4,000 items, while ten times as much passes by elsewhere: the files
 * grow no further than they do without it. */
static void test_slow_reader(void **state)
{
    (void)state;
    enum { BACKLOG = 4000 };
    uint64_t bytes[2];
    for (int reading = 0; reading < 2; reading++) {
        char directory[64];
        make_directory(directory);
        struct store_options options = options_for(directory, NULL, 1, false);
        struct store *store = must_open(&options);
        struct store_shard *shard = store_shard(store, 0);
        for (uint64_t seq = 1; seq <= BACKLOG; seq++)
            append_item(shard, 1, seq, xy_str_n(payload, sizeof(payload)));
        commit(store);
        assert_true(store_step_checkpoint(store));
        uint64_t read = 0, seq = 0;
        for (unsigned page = 0; page < BACKLOG / 10; page++) {
            for (unsigned i = 0; i < 100; i++) {
                append_item(shard, 2, ++seq, xy_str_n(payload, sizeof(payload)));
                if (seq > KEEP)
                    append_item_remove(shard, 2, seq - KEEP);
            }
            commit(store);
            if (reading == 1)
                read = read_page(shard, 1, read);
            if (page % 10 == 9)
                assert_true(store_step_checkpoint(store));
        }
        assert_int_equal(read, reading == 1 ? BACKLOG : 0);
        bytes[reading] = files_bytes(directory, "");
        store_close(&store);
        remove_directory(directory);
    }
    print_message("files: %llu KiB without a reader, %llu KiB with one\n",
                  (unsigned long long)bytes[0] / 1024, (unsigned long long)bytes[1] / 1024);
    assert_true(bytes[1] <= bytes[0] + bytes[0] / 20);
}

/* Publishing, retracting and acknowledging on a hundred nodes, on the store's own threads with a small log: what the files
 * need at most in the first fifth of it is about what they ever need. At one moment it may be much less: after a cut. */
static void test_levels_off(void **state)
{
    (void)state;
    enum { NODES = 100, STEPS = 10 };
    uint64_t per_step = is_long() ? 400000 : 20000, last[NODES] = { 0 }, seed = 7, fifth = 0, most = 0;
    char directory[64];
    make_directory(directory);
    struct store_options options = options_for(directory, NULL, 1, true);
    options.log_bytes_max = 16 * MIB;
    options.map_bytes = 4ull << 30;
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    for (unsigned step = 1; step <= STEPS; step++) {
        for (uint64_t i = 0; i < per_step; i++) {
            uint64_t node = next_random(&seed) % NODES, seq = ++last[node];
            while (!store_room(shard, 2 * PAYLOAD)) {
                store_flush(shard);
                usleep(500);
            }
            append_item(shard, node + 1, seq, xy_str_n(payload, 100 + next_random(&seed) % (PAYLOAD - 100)));
            if (seq > KEEP)
                append_item_remove(shard, node + 1, seq - KEEP);
            append_cursor(shard, node + 1, (uint32_t)(i % 10), seq);
            if (i % BATCH == 0)
                store_flush(shard);
            if (i % (BATCH * 20) != 0)
                continue;
            wait_committed(shard, store_ticket(shard));
            uint64_t bytes = files_bytes(directory, "");
            most = bytes > most ? bytes : most;
        }
        if (step == STEPS / 5)
            fifth = most;
    }
    store_flush(shard);
    wait_committed(shard, store_ticket(shard));
    struct store_stats stats;
    store_stats(store, &stats);
    print_message("files: up to %llu KiB in a fifth, up to %llu KiB in %llu MiB of records\n",
                  (unsigned long long)fifth / 1024, (unsigned long long)most / 1024,
                  (unsigned long long)(stats.bytes / MIB));
    assert_true(stats.checkpoints > 5);
    assert_true(most <= fifth + fifth / 2);
    assert_true(most < 4 * options.log_bytes_max);
    store_close(&store);
    remove_directory(directory);
}

/* One owed item and one last value at the head and 10 GiB of churn behind them, with the default log: neither holds the
 * log, and the files stay below twice its size. In short, everything is a thirtieth of that. */
static void test_head_does_not_hold_the_log(void **state)
{
    (void)state;
    uint64_t part = is_long() ? 1 : 30, churn_bytes = (10ull << 30) / part, passed = 0, seq = 0;
    static char large[10000];
    char directory[64];
    make_directory(directory);
    struct store_options options = options_for(directory, NULL, 1, true);
    options.log_bytes_max = STORE_LOG_BYTES_MAX / part;
    options.map_bytes = 64ull << 30;
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    append_item(shard, 1, 1, XY_STR("owed"));
    append_item(shard, 2, 1, XY_STR("last value"));
    for (; passed < churn_bytes; passed += sizeof(large)) {
        while (!store_room(shard, 2 * sizeof(large))) {
            store_flush(shard);
            usleep(500);
        }
        append_item(shard, 3, ++seq, xy_str_n(large, sizeof(large)));
        if (seq > KEEP)
            append_item_remove(shard, 3, seq - KEEP);
        if (seq % 20 == 0)
            store_flush(shard);
    }
    store_flush(shard);
    wait_committed(shard, store_ticket(shard));
    assert_int_equal(item_flag(shard, 1, 1), 'r');
    assert_int_equal(item_flag(shard, 2, 1), 'r');
    uint64_t bytes = files_bytes(directory, "");
    print_message("files: %llu MiB after %llu MiB\n", (unsigned long long)(bytes / MIB),
                  (unsigned long long)(churn_bytes / MIB));
    assert_true(bytes < 2 * options.log_bytes_max);
    store_close(&store);
    remove_directory(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_churn_is_bounded),
        cmocka_unit_test(test_pages_are_bounded),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_levels_off),
        cmocka_unit_test(test_head_does_not_hold_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
