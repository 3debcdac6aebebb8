/* Checksums of rows: any flipped bit of a value is noticed; what somebody stored is then told and quarantined, what holds
 * the store together makes it fail; rows written before there were seals get theirs, wherever that is interrupted. */
#include "fixture.h"

#include "broker/store/check.h"
#include "broker/store/key.h"
#include "broker/store/seal.h"

struct told {
    unsigned damaged, failed;
    enum store_table table;
    char key[STORE_KEY_MAX];
    size_t key_len;
};

static void on_damaged(void *ctx, enum store_table table, struct xy_str key)
{
    struct told *told = ctx;
    told->damaged++;
    told->table = table;
    told->key_len = key.len;
    memcpy(told->key, key.data, key.len);
}

static void on_failed(void *ctx, const char *why)
{
    struct told *told = ctx;
    assert_non_null(strstr(why, "damaged"));
    told->failed++;
}

struct files {
    struct store_log *log;
    struct store_tables *tables;
};

static struct files open_files(const struct store_options *options)
{
    struct files files;
    struct xy_buf error = { 0 };
    assert_true(options->backend->open(options->backend, NULL, &files.log, &files.tables, &error));
    return files;
}

static void close_files(struct files *files)
{
    assert_int_equal(files->tables->ops->commit(files->tables), STORE_IO_OK);
    files->log->ops->close(&files->log);
    files->tables->ops->close(&files->tables);
}

/* What is stored under a key, seal included. */
static size_t raw(const struct store_options *options, enum store_table table, struct xy_str key, char *out)
{
    struct files files = open_files(options);
    struct store_reader *reader = files.tables->ops->reader(files.tables);
    struct xy_str value;
    assert_int_equal(reader->ops->begin(reader), STORE_IO_OK);
    assert_true(reader->ops->get(reader, table, key, &value));
    assert_true(value.len < 512);
    memcpy(out, value.data, value.len);
    reader->ops->end(reader);
    reader->ops->close(&reader);
    close_files(&files);
    return value.len;
}

static void put_raw(const struct store_options *options, enum store_table table, struct xy_str key,
                    struct xy_str value)
{
    struct files files = open_files(options);
    assert_int_equal(files.tables->ops->put(files.tables, table, key, value), STORE_IO_OK);
    close_files(&files);
}

static void flip(const struct store_options *options, enum store_table table, struct xy_str key, size_t bit)
{
    char value[512];
    size_t len = raw(options, table, key, value);
    value[bit / 8 % len] = (char)(value[bit / 8 % len] ^ (1 << bit % 8));
    put_raw(options, table, key, xy_str_n(value, len));
}

static void expect(struct store *store, enum store_table table, struct xy_str key, struct xy_str expected)
{
    struct xy_arena *arena = xy_arena_new();
    struct xy_str value;
    assert_true(store_get(store_shard(store, 0), table, key, arena, &value));
    assert_true(xy_str_eq(value, expected));
    xy_arena_free(&arena);
}

static void ignore(void *ctx, const char *line)
{
    (void)ctx, (void)line;
}

static void test_every_bit(void **state)
{
    (void)state;
    char key_room[16], value[512];
    struct told told = { 0 };
    struct store_memory *memory = store_memory_new();
    struct store_options options = options_for(NULL, store_memory_backend(memory), 1, false);
    options.damaged = on_damaged;
    options.failed = on_failed;
    options.ctx = &told;
    struct store *store = must_open(&options);
    append_item(store_shard(store, 0), 1, 1, XY_STR("<item/>"));
    append_item(store_shard(store, 0), 1, 2, XY_STR("<item/>"));
    store_close(&store);
    struct xy_str key = item_key(key_room, 1, 1);
    size_t bits = 8 * raw(&options, STORE_ITEMS, key, value);
    assert_true(bits > 8 * SEAL_BYTES + 80);
    for (size_t bit = 0; bit < bits; bit++) {
        flip(&options, STORE_ITEMS, key, bit);
        store = must_open(&options);
        expect(store, STORE_ITEMS, key, SEAL_DAMAGED);
        assert_int_equal(told.damaged, bit + 1);
        assert_int_equal(told.table, STORE_ITEMS);
        assert_true(xy_str_eq(xy_str_n(told.key, told.key_len), key));
        assert_int_equal(item_flag(store_shard(store, 0), 1, 2), 'r');
        struct store_stats stats;
        store_stats(store, &stats);
        assert_int_equal(stats.damaged, 1);
        store_close(&store);
        flip(&options, STORE_ITEMS, key, bit); /* it was left as it was */
    }
    store = must_open(&options);
    assert_int_equal(item_flag(store_shard(store, 0), 1, 1), 'r');
    store_close(&store);
    put_raw(&options, STORE_ITEMS, key, XY_STR("r")); /* too short for a seal */
    store = must_open(&options);
    expect(store, STORE_ITEMS, key, SEAL_DAMAGED);
    store_close(&store);
    assert_int_equal(told.failed, 0);
    store_memory_free(&memory);
}

/* A row under another row's key is damage too. */
static void test_key(void **state)
{
    (void)state;
    char first[16], second[16], value[512];
    struct store_memory *memory = store_memory_new();
    struct store_options options = options_for(NULL, store_memory_backend(memory), 1, false);
    struct store *store = must_open(&options);
    append_item(store_shard(store, 0), 1, 1, XY_STR("<item/>"));
    store_close(&store);
    size_t len = raw(&options, STORE_ITEMS, item_key(first, 1, 1), value);
    put_raw(&options, STORE_ITEMS, item_key(second, 1, 9), xy_str_n(value, len));
    store = must_open(&options);
    expect(store, STORE_ITEMS, item_key(second, 1, 9), SEAL_DAMAGED);
    store_close(&store);
    store_memory_free(&memory);
}

static void test_what_others_need(void **state)
{
    (void)state;
    char key[8];
    struct told told = { 0 };
    struct store_memory *memory = store_memory_new();
    struct store_options options = options_for(NULL, store_memory_backend(memory), 1, false);
    options.failed = on_failed;
    options.ctx = &told;
    struct store *store = must_open(&options);
    append_item(store_shard(store, 0), 1, 1, XY_STR("<item/>"));
    store_close(&store);
    be64_put(key, 1);
    flip(&options, STORE_NODE_SEQ, xy_str_n(key, 8), 3);
    struct store_check check = { .say = ignore };
    assert_false(store_check(&options, &check)); /* the check goes on over it */
    assert_true(check.rows >= 2);
    assert_int_equal(told.failed, 0);
    store = must_open(&options);
    assert_int_equal(item_flag(store_shard(store, 0), 1, 1), 'r');
    assert_int_equal(told.failed, 0);
    expect(store, STORE_NODE_SEQ, xy_str_n(key, 8), SEAL_DAMAGED);
    assert_int_equal(told.failed, 1);
    assert_false(store_room(store_shard(store, 0), 1));
    store_close(&store);
    store_memory_free(&memory);
}

/* An item that is no longer retained changes its first byte: also where it is damaged, nothing is made of it. */
static void test_head(void **state)
{
    (void)state;
    char key[16], before[512], after[512];
    uint64_t seq = 1;
    struct store_memory *memory = store_memory_new();
    struct store_options options = options_for(NULL, store_memory_backend(memory), 1, false);
    struct store *store = must_open(&options);
    append_item(store_shard(store, 0), 1, seq, XY_STR("<item/>"));
    store_close(&store);
    flip(&options, STORE_ITEMS, item_key(key, 1, seq), 40);
    size_t len = raw(&options, STORE_ITEMS, item_key(key, 1, seq), before);
    for (int round = 0; round < 2; round++) { /* applied when appended, and when replayed */
        store = must_open(&options);
        Xylem__Store__V1__ItemUnretain unretain = XYLEM__STORE__V1__ITEM_UNRETAIN__INIT;
        unretain.node = 1;
        unretain.n_seq = 1;
        unretain.seq = &seq;
        store_append(store_shard(store, 0), RECORD_ITEM_UNRETAIN, &unretain.base);
        store_flush(store_shard(store, 0));
        assert_true(store_step_commit(store));
        if (round == 0)
            store_crash(&store);
        else
            store_close(&store);
    }
    assert_int_equal(raw(&options, STORE_ITEMS, item_key(key, 1, seq), after), len);
    assert_memory_equal(before, after, len);
    store_memory_free(&memory);
}

/* --- upgrade ------------------------------------------------------------------------------------------------------- */

enum { ROWS = 700 };

/* Takes the seals off one table. */
static void strip(struct files *files, enum store_table table)
{
    static char keys[ROWS][32], values[ROWS][256];
    static size_t key_lens[ROWS], value_lens[ROWS];
    struct store_reader *reader = files->tables->ops->reader(files->tables);
    struct xy_str key, value;
    size_t count = 0;
    assert_int_equal(reader->ops->begin(reader), STORE_IO_OK);
    bool there = reader->ops->seek(reader, table, XY_STR_NONE, &key, &value);
    for (; there; there = reader->ops->next(reader, &key, &value), count++) {
        assert_true(count < ROWS && key.len <= 32 && value.len <= 256 && value.len > SEAL_BYTES);
        memcpy(keys[count], key.data, key_lens[count] = key.len);
        memcpy(values[count], value.data, value_lens[count] = value.len - SEAL_BYTES);
    }
    reader->ops->end(reader);
    reader->ops->close(&reader);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(files->tables->ops->put(files->tables, table, xy_str_n(keys[i], key_lens[i]),
                                                 xy_str_n(values[i], value_lens[i])),
                         STORE_IO_OK);
}

static struct store_options old_store(struct store_memory **memory)
{
    char format[8];
    *memory = store_memory_new();
    struct store_options options = options_for(NULL, store_memory_backend(*memory), 1, false);
    struct store *store = must_open(&options);
    for (uint64_t seq = 1; seq <= ROWS; seq++)
        append_item(store_shard(store, 0), 1, seq, XY_STR("<item/>"));
    append_account(store_shard(store, 0), "a@x");
    store_close(&store);
    struct files files = open_files(&options);
    strip(&files, STORE_ITEMS);
    strip(&files, STORE_NODE_SEQ);
    strip(&files, STORE_ACCOUNTS);
    be64_put(format, 1);
    assert_int_equal(files.tables->ops->put(files.tables, STORE_META, XY_STR("format"), xy_str_n(format, 8)),
                     STORE_IO_OK);
    close_files(&files);
    return options;
}

static enum store_io fails_at(void *ctx, enum store_fault point, uint64_t count)
{
    const uint64_t *at = ctx;
    return point == FAULT_TABLES_COMMIT && count == *at ? STORE_IO_FAILED : STORE_IO_OK;
}

static void check_all(struct store *store)
{
    char number[8];
    be64_put(number, 1);
    for (uint64_t seq = 1; seq <= ROWS; seq++)
        assert_int_equal(item_flag(store_shard(store, 0), 1, seq), 'r');
    assert_int_equal(get_u64(store_shard(store, 0), STORE_NODE_SEQ, xy_str_n(number, 8)), ROWS);
    assert_int_equal(get_u64(store_shard(store, 0), STORE_META, XY_STR("format")), STORE_FORMAT);
    struct store_stats stats;
    store_stats(store, &stats);
    assert_int_equal(stats.damaged, 0);
}

/* Interrupted before each of its commits, and gone on with: no row is left without a seal, none gets two. */
static void test_upgrade(void **state)
{
    (void)state;
    unsigned refused = 0;
    for (uint64_t at = 1; at <= 12; at++) {
        struct told told = { 0 };
        char text[512];
        struct store_memory *memory;
        struct store_options options = old_store(&memory);
        struct store_faulty *faulty = store_faulty_new(options.backend, fails_at, &at);
        const struct store_backend *sound = options.backend;
        struct xy_buf error = { 0 };
        options.damaged = on_damaged;
        options.ctx = &told;
        options.backend = store_faulty_backend(faulty);
        struct store *store = store_open(&options, &error);
        if (store == NULL)
            refused++;
        (void)snprintf(text, sizeof(text), "%.*s", XY_ARG(xy_buf_view(&error)));
        if (at <= 4)
            assert_non_null(strstr(text, "cannot upgrade the store"));
        store_crash(&store);
        xy_buf_free(&error);
        options.backend = sound;
        store = must_open(&options);
        check_all(store);
        store_crash(&store);
        store = must_open(&options);
        check_all(store);
        store_close(&store);
        assert_int_equal(told.damaged, 0);
        store_faulty_free(&faulty);
        store_memory_free(&memory);
    }
    assert_int_equal(refused, 7); /* accounts, node_seq, three pages of items, the format, recovery's own */
}

/* A check of an old store reads it as it is. */
static void test_check_of_an_old_store(void **state)
{
    (void)state;
    struct told told = { 0 };
    struct store_memory *memory;
    struct store_options options = old_store(&memory);
    struct store_check check = { .say = ignore };
    options.damaged = on_damaged;
    options.ctx = &told;
    (void)store_check(&options, &check);
    assert_true(check.rows > ROWS);
    assert_int_equal(told.damaged, 0);
    struct store *store = must_open(&options);
    check_all(store);
    store_close(&store);
    store_memory_free(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_bit),        cmocka_unit_test(test_key),
        cmocka_unit_test(test_what_others_need), cmocka_unit_test(test_head),
        cmocka_unit_test(test_upgrade),          cmocka_unit_test(test_check_of_an_old_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
