/* An older format is upgraded in place when the store opens: a committed data directory of format 1
 * (tests/data/store/format1, see its README) gives all it held, also what was only in its log, and is of the present
 * format from then on. */
#include "fixture.h"

enum { FORMAT_OLD = 1 };

static void copy_file(const char *from, const char *to)
{
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    char bytes[4096];
    size_t len;
    assert_true(in != NULL && out != NULL);
    while ((len = fread(bytes, 1, sizeof(bytes), in)) > 0)
        assert_int_equal(fwrite(bytes, 1, len, out), len);
    assert_int_equal(fclose(in) + fclose(out), 0);
}

static void copy_image(char directory[64])
{
    static const char *const files[] = { "log.mdb", "tables.mdb" };
    make_directory(directory);
    for (int i = 0; i < 2; i++) {
        char from[128], to[128];
        (void)snprintf(from, sizeof(from), "tests/data/store/format1/%s", files[i]);
        (void)snprintf(to, sizeof(to), "%s/%s", directory, files[i]);
        copy_file(from, to);
    }
}

static uint64_t format_of(struct store *store)
{
    return get_u64(store_shard(store, 0), STORE_META, XY_STR("format"));
}

static size_t count_all(struct store *store, enum store_table table)
{
    return count_below(store_shard(store, 0), table, XY_STR_NONE);
}

/* Every row of the image by table; bob's cursor at 3 and the stream of publish-ids at 41 among them. */
static void check_content(struct store *store)
{
    static const struct {
        enum store_table table;
        size_t rows;
    } expected[] = { { STORE_ACCOUNTS, 2 },      { STORE_MAILBOX, 2 },     { STORE_MAILBOX_SEQ, 1 },
                     { STORE_NODES, 2 },         { STORE_NODE_SEQ, 2 },    { STORE_ITEMS, 6 },
                     { STORE_SUBSCRIPTIONS, 2 }, { STORE_SUBS_BY_JID, 2 }, { STORE_DEDUP, 1 } };
    struct store_shard *shard = store_shard(store, 0);
    struct store_entry page[2];
    struct xy_arena *arena = xy_arena_new();
    struct xy_str seen;
    uint64_t number, time_us;
    bool more;
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
        assert_int_equal(count_all(store, expected[i].table), expected[i].rows);
    assert_int_equal(get_u64(shard, STORE_MAILBOX_SEQ, XY_STR("bob@example.org")), 2);
    assert_int_equal(store_scan(shard, STORE_CURSORS, XY_STR_NONE, XY_STR_NONE, arena, page, 2, &more), 1);
    assert_int_equal(be64_get(page[0].value.data), 3);
    assert_int_equal(store_scan(shard, STORE_DEDUP, XY_STR_NONE, XY_STR_NONE, arena, page, 2, &more), 1);
    assert_true(store_dedup_value(page[0].value, &number, &time_us, &seen));
    assert_int_equal(number, 41);
    xy_arena_free(&arena);
}

static void test_upgrade(void **state)
{
    (void)state;
    char directory[64];
    copy_image(directory);
    struct store_options options = options_for(directory, NULL, 1, false);
    struct store *store = must_open(&options);
    assert_true(STORE_FORMAT > FORMAT_OLD);
    assert_int_equal(format_of(store), STORE_FORMAT);
    check_content(store);
    store_crash(&store);
    store = must_open(&options); /* once is enough, and a crash right after it harmless */
    assert_int_equal(format_of(store), STORE_FORMAT);
    check_content(store);
    for (enum store_table table = STORE_SESSIONS; table < STORE_TABLE_COUNT; table++)
        assert_int_equal(count_all(store, table), 0);
    append_account(store_shard(store, 0), "new@example.org");
    store_close(&store);
    store = must_open(&options);
    assert_int_equal(count_all(store, STORE_ACCOUNTS), 3);
    store_close(&store);
    remove_directory(directory);
}

/* A crash within the upgrade leaves either format, and both open. */
struct crash {
    uint64_t at;
};

static enum store_io crash_at(void *ctx, enum store_fault point, uint64_t count)
{
    const struct crash *crash = ctx;
    return point == FAULT_TABLES_COMMIT && count == crash->at ? STORE_IO_FAILED : STORE_IO_OK;
}

static void test_interrupted(void **state)
{
    (void)state;
    char directory[64];
    copy_image(directory);
    struct crash crash = { .at = 1 };
    struct store_faulty *faulty = store_faulty_new(&store_backend_lmdb, crash_at, &crash);
    struct store_options options = options_for(directory, store_faulty_backend(faulty), 1, false);
    char text[512];
    must_refuse(&options, text, sizeof(text));
    store_faulty_free(&faulty);
    options.backend = NULL;
    struct store *store = must_open(&options);
    assert_int_equal(format_of(store), STORE_FORMAT);
    check_content(store);
    store_close(&store);
    remove_directory(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_upgrade),
        cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
