/* Rows of resumable sessions: what their records put where, which rows reach the tables at a checkpoint, and which are
 * swept from there later. On memory and on LMDB. */
#include "fixture.h"

static char id_a[] = "aaaaaaaaaaaaaaaa", id_b[] = "bbbbbbbbbbbbbbbb";

static ProtobufCBinaryData id_of(char *id)
{
    return (ProtobufCBinaryData){ STORE_SESSION_ID_BYTES, (uint8_t *)id };
}

static void put_session(struct store_shard *shard, char *id)
{
    Xylem__Store__V1__SessionPut put = XYLEM__STORE__V1__SESSION_PUT__INIT;
    put.id = id_of(id);
    put.jid = (char[]){ "juliet@example.org/balcony" };
    store_append(shard, RECORD_SESSION_PUT, &put.base);
}

/* Its time is over, and only how far it got is remembered. */
static void end_session(struct store_shard *shard, char *id)
{
    Xylem__Store__V1__SessionPut put = XYLEM__STORE__V1__SESSION_PUT__INIT;
    put.id = id_of(id);
    put.jid = (char[]){ "juliet@example.org/balcony" };
    put.ended_us = 1;
    store_append(shard, RECORD_SESSION_PUT, &put.base);
}

static void remove_session(struct store_shard *shard, char *id)
{
    Xylem__Store__V1__SessionRemove gone = XYLEM__STORE__V1__SESSION_REMOVE__INIT;
    gone.id = id_of(id);
    store_append(shard, RECORD_SESSION_REMOVE, &gone.base);
}

static void put_row(struct store_shard *shard, char *id, uint64_t number, const char *answer)
{
    Xylem__Store__V1__SessionIn in = XYLEM__STORE__V1__SESSION_IN__INIT;
    in.id = id_of(id);
    in.number = number;
    in.what = 0xfffe0000u + (uint32_t)number;
    in.answer = (ProtobufCBinaryData){ strlen(answer), (uint8_t *)(uintptr_t)answer };
    store_append(shard, RECORD_SESSION_IN, &in.base);
}

static void put_handled(struct store_shard *shard, char *id, uint64_t handled, uint64_t answered)
{
    Xylem__Store__V1__SessionIn in = XYLEM__STORE__V1__SESSION_IN__INIT;
    in.id = id_of(id);
    in.handled = handled;
    in.answered = answered;
    store_append(shard, RECORD_SESSION_IN, &in.base);
}

static void put_out(struct store_shard *shard, char *id)
{
    Xylem__Store__V1__SessionOut out = XYLEM__STORE__V1__SESSION_OUT__INIT;
    out.id = id_of(id);
    out.acked = 9;
    store_append(shard, RECORD_SESSION_OUT, &out.base);
}

/* Numbers of the rows in the tables, as text. */
static const char *rows_of(struct store *store, const char *id)
{
    static char text[512];
    struct xy_arena *arena = xy_arena_new();
    struct store_entry entries[64];
    bool more;
    struct xy_str prefix = xy_str_n(id, STORE_SESSION_ID_BYTES);
    size_t count = store_scan_tables(store, STORE_SESSION_IN, prefix, prefix, arena, entries, 64, &more);
    text[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        struct store_session_in row;
        size_t used = strlen(text);
        if (!store_session_in(entries[i].key, entries[i].value, &row)) {
            (void)snprintf(text + used, sizeof(text) - used, "out ");
            continue;
        }
        (void)snprintf(text + used, sizeof(text) - used, "%llu%s ", (unsigned long long)row.number,
                       row.answer.len > 0 ? "!" : "");
        assert_int_equal(row.what, row.number == 0 ? 0 : 0xfffe0000u + (uint32_t)row.number);
    }
    xy_arena_free(&arena);
    return text;
}

typedef void body_fn(struct store *store, struct store_options *options);

static void on_both(body_fn *body, struct store **store_out)
{
    for (int lmdb = 0; lmdb < 2; lmdb++) {
        char directory[64];
        struct store_memory *memory = store_memory_new();
        make_directory(directory);
        struct store_options options =
            options_for(directory, lmdb ? disk_backend() : store_memory_backend(memory), 2, false);
        struct store *store = must_open(&options);
        *store_out = store;
        body(store, &options);
        store_close(store_out);
        store_memory_free(&memory);
        remove_directory(directory);
    }
}

static struct store *the_store;

static void covered_rows(struct store *store, struct store_options *options)
{
    (void)options;
    struct store_shard *one = store_shard(store, 0), *other = store_shard(store, 1);
    put_session(one, id_a);
    for (uint64_t number = 1; number <= 6; number++)
        put_row(number % 2 ? one : other, id_a, number, number % 3 == 0 ? "<iq/>" : "");
    put_out(other, id_a);
    put_handled(other, id_a, 5, 3);
    assert_true(store_step_checkpoint(store));
    assert_string_equal(rows_of(store, id_a), "0 6! out "); /* 3 was answered and that acknowledged */
    put_handled(other, id_a, 6, 5);
    put_row(one, id_a, 7, "");
    assert_true(store_step_checkpoint(store));
    assert_string_equal(rows_of(store, id_a), "0 6! 7 out "); /* its answer is still owed */
    put_handled(other, id_a, 8, 8);
    assert_true(store_step_checkpoint(store));
    assert_string_equal(rows_of(store, id_a), "0 out ");
}

static void test_covered_rows(void **state)
{
    (void)state;
    on_both(covered_rows, &the_store);
}

static void ended_sessions(struct store *store, struct store_options *options)
{
    (void)options;
    struct store_shard *one = store_shard(store, 0), *other = store_shard(store, 1);
    put_session(one, id_a);
    put_session(one, id_b);
    put_row(other, id_a, 1, "");
    put_row(other, id_b, 1, "");
    put_out(other, id_b);
    remove_session(one, id_b);
    assert_true(store_step_checkpoint(store));
    assert_string_equal(rows_of(store, id_a), "1 ");
    assert_string_equal(rows_of(store, id_b), ""); /* it began and ended since the last one */
    remove_session(one, id_a);
    put_row(other, id_a, 2, "");
    assert_true(store_step_checkpoint(store));
    assert_string_equal(rows_of(store, id_a), "");
    /* Rows whose session's record is not in sight stay for one checkpoint: it may be in memory that is not frozen yet. */
    put_row(other, id_b, 3, "");
    assert_true(store_step_checkpoint(store));
    assert_string_equal(rows_of(store, id_b), "3 ");
    put_session(one, id_a);
    assert_true(store_step_checkpoint(store));
    assert_string_equal(rows_of(store, id_b), "");
}

static void test_ended_sessions(void **state)
{
    (void)state;
    on_both(ended_sessions, &the_store);
}

/* Neither those written now nor those of before. */
static void rows_of_expired_sessions(struct store *store, struct store_options *options)
{
    (void)options;
    struct store_shard *one = store_shard(store, 0), *other = store_shard(store, 1);
    put_session(one, id_a);
    put_row(other, id_a, 1, "<iq/>");
    put_out(other, id_a);
    assert_true(store_step_checkpoint(store));
    assert_string_equal(rows_of(store, id_a), "1! out ");
    put_row(other, id_a, 2, "<iq/>");
    end_session(one, id_a);
    end_session(one, id_b);
    put_row(other, id_b, 1, "<iq/>");
    assert_true(store_step_checkpoint(store));
    assert_string_equal(rows_of(store, id_a), "");
    assert_string_equal(rows_of(store, id_b), "");
}

static void test_expired_sessions(void **state)
{
    (void)state;
    on_both(rows_of_expired_sessions, &the_store);
}

/* A crash gives back exactly what was committed, whatever was left out of the tables before. */
static void after_a_crash(struct store *store, struct store_options *options)
{
    struct store_shard *one = store_shard(store, 0), *other = store_shard(store, 1);
    put_session(one, id_a);
    put_row(other, id_a, 1, "");
    put_handled(one, id_a, 1, 0);
    assert_true(store_step_checkpoint(store));
    put_row(other, id_a, 2, "");
    put_row(other, id_a, 3, "<iq/>");
    put_out(one, id_a);
    (void)store_flush(one);
    (void)store_flush(other);
    while (store_step_commit(store))
        ;
    put_row(other, id_a, 4, "");
    store_crash(&store);
    options->shards = 3;
    store = must_open(options);
    assert_string_equal(rows_of(store, id_a), "0 2 3! out ");
    the_store = store;
}

static void test_after_a_crash(void **state)
{
    (void)state;
    on_both(after_a_crash, &the_store);
}

/* What is appended in one turn of a shard is committed together or not at all. */
static void test_joins(void **state)
{
    (void)state;
    struct store_memory *memory = store_memory_new();
    struct store_options options = options_for("", store_memory_backend(memory), 1, false);
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    assert_false(store_joins(shard, 0));
    uint64_t ticket = append_item(shard, 1, 1, XY_STR("<x/>"));
    assert_true(store_joins(shard, ticket));
    (void)store_flush(shard);
    assert_false(store_joins(shard, ticket));
    uint64_t next = append_item(shard, 1, 2, XY_STR("<x/>"));
    assert_true(store_joins(shard, next));
    assert_false(store_joins(shard, ticket));
    store_close(&store);
    store_memory_free(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_covered_rows),
        cmocka_unit_test(test_ended_sessions),
        cmocka_unit_test(test_expired_sessions),
        cmocka_unit_test(test_after_a_crash),
        cmocka_unit_test(test_joins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
