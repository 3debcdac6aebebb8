/* Record envelopes and table keys: what is packed comes back, what is damaged or hostile does not, and names that LMDB
 * could not take are folded without meeting each other. */
#include "fixture.h"

#include "broker/store/apply.h"
#include "broker/store/key.h"
#include "broker/store/record.h"

static void pack_account(struct xy_buf *buf, size_t name_len)
{
    Xylem__Store__V1__AccountPut account = XYLEM__STORE__V1__ACCOUNT_PUT__INIT;
    struct xy_str payload;
    char *name = malloc(name_len + 1);
    assert_non_null(name);
    memset(name, 'a', name_len);
    name[name_len] = '\0';
    account.jid = name;
    assert_true(record_pack(buf, RECORD_ACCOUNT_PUT, &account.base, &payload));
    free(name);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const size_t lens[] = { 0, 1, 100, STORE_ENTRY_BYTES, 3 * STORE_ENTRY_BYTES };
    struct xy_buf buf = { 0 };
    struct xy_arena *arena = xy_arena_new();
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
        pack_account(&buf, lens[i]);
    struct xy_str rest = xy_buf_view(&buf);
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        struct record_view record;
        assert_int_equal(record_parse(&rest, &record), RECORD_OK);
        assert_int_equal(record.type, RECORD_ACCOUNT_PUT);
        Xylem__Store__V1__AccountPut *account =
            (void *)record_unpack(apply_descriptor(RECORD_ACCOUNT_PUT), record.payload, arena);
        assert_non_null(account);
        assert_int_equal(strlen(account->jid), lens[i]);
    }
    assert_int_equal(rest.len, 0);
    xy_arena_free(&arena);
    xy_buf_free(&buf);
}

/* Any truncation is short, and the view stays where it was. */
static void test_truncated(void **state)
{
    (void)state;
    struct xy_buf buf = { 0 };
    pack_account(&buf, 50);
    for (size_t len = 1; len < buf.len; len++) {
        struct xy_str rest = xy_str_n(buf.data, len);
        struct record_view record;
        assert_int_equal(record_parse(&rest, &record), RECORD_SHORT);
        assert_ptr_equal(rest.data, buf.data);
    }
    xy_buf_free(&buf);
}

/* Thousands of empty submessages cost more memory than they are worth: the budget says no. */
static void test_amplification(void **state)
{
    (void)state;
    enum { COUNT = 200000 };
    char *bytes = malloc(COUNT * 2);
    struct xy_arena *arena = xy_arena_new();
    assert_non_null(bytes);
    for (size_t i = 0; i < COUNT; i++) {
        bytes[2 * i] = 0x12; /* field 2 (keys), length 0 */
        bytes[2 * i + 1] = 0;
    }
    assert_null(record_unpack(apply_descriptor(RECORD_ACCOUNT_PUT), xy_str_n(bytes, COUNT * 2), arena));
    assert_non_null(record_unpack(apply_descriptor(RECORD_ACCOUNT_PUT), xy_str_n(bytes, 10), arena));
    assert_null(record_unpack(apply_descriptor(RECORD_ACCOUNT_PUT), XY_STR("\x0a\xff"), arena));
    xy_arena_free(&arena);
    free(bytes);
}

static void test_fold(void **state)
{
    (void)state;
    char name[1200];
    struct key a, b, c;
    memset(name, 'x', sizeof(name));
    /* The longest name that stays, and the first that does not. */
    struct xy_str kept = key_fold(STORE_ACCOUNTS, xy_str_n(name, STORE_NAME_KEY_MAX), &a);
    assert_true(xy_str_eq(kept, xy_str_n(name, STORE_NAME_KEY_MAX)));
    struct xy_str folded = key_fold(STORE_ACCOUNTS, xy_str_n(name, STORE_NAME_KEY_MAX + 1), &a);
    assert_int_equal(folded.len, STORE_NAME_KEY_MAX);
    assert_true(xy_str_eq(folded, key_fold(STORE_ACCOUNTS, folded, &b)));
    struct xy_str other = key_fold(STORE_ACCOUNTS, xy_str_n(name, STORE_NAME_KEY_MAX + 2), &b);
    assert_false(xy_str_eq(folded, other));

    /* The prefix of a mailbox and a key in it fold alike, and the sequence stays in front of nothing. */
    char mail[1200];
    memset(mail, 'x', 1000);
    mail[1000] = 0;
    be64_put(mail + 1001, 7);
    struct xy_str prefix = key_fold(STORE_MAILBOX, xy_str_n(mail, 1001), &a);
    struct xy_str key = key_fold(STORE_MAILBOX, xy_str_n(mail, 1009), &b);
    assert_true(xy_str_starts(key, prefix));
    assert_int_equal(key.len, prefix.len + 8);
    assert_memory_equal(key.data + prefix.len, mail + 1001, 8);

    /* The longest dedup key fits, and the successor of a key does not fold again. */
    char dedup[1300];
    memset(dedup, 'y', sizeof(dedup));
    dedup[600] = 0;
    key = key_fold(STORE_DEDUP, xy_str_n(dedup, 1200), &a);
    assert_true(key.len <= STORE_KEY_MAX);
    char successor[STORE_KEY_MAX + 1];
    memcpy(successor, key.data, key.len);
    successor[key.len] = 0;
    struct xy_str again = key_fold(STORE_DEDUP, xy_str_n(successor, key.len + 1), &c);
    assert_true(xy_str_eq(again, xy_str_n(successor, key.len + 1)));

    static const char numbers[600];
    assert_int_equal(key_fold(STORE_ITEMS, xy_str_n(numbers, 16), &a).len, 16);
}

/* Long names through the whole store: found by their full name, listed by prefix, in order of sequence. */
static void test_long_names(void **state)
{
    (void)state;
    char jid[1001], prefix[1002];
    memset(jid, 'j', 1000);
    jid[1000] = '\0';
    struct store_memory *memory = store_memory_new();
    struct store_options options = options_for(NULL, store_memory_backend(memory), 1, false);
    struct store *store = must_open(&options);
    for (int round = 0; round < 2; round++) {
        struct store_shard *shard = store_shard(store, 0);
        for (uint64_t seq = 1; seq <= 300; seq++) {
            Xylem__Store__V1__MailboxAdd add = XYLEM__STORE__V1__MAILBOX_ADD__INIT;
            add.jid = jid;
            add.seq = seq + (uint64_t)round * 300;
            store_append(shard, RECORD_MAILBOX_ADD, &add.base);
        }
        memcpy(prefix, jid, 1001);
        assert_int_equal(count_below(shard, STORE_MAILBOX, xy_str_n(prefix, 1001)),
                         300 * (size_t)(round + 1));
        assert_int_equal(get_u64(shard, STORE_MAILBOX_SEQ, xy_str_n(jid, 1000)), 300 * (uint64_t)(round + 1));
        assert_int_equal(get_u64(shard, STORE_MAILBOX_SEQ, xy_str_n(jid, 999)), 0);
        store_close(&store);
        store = must_open(&options);
    }
    store_close(&store);
    store_memory_free(&memory);
}

static void test_prefix_end(void **state)
{
    (void)state;
    struct key room;
    assert_true(xy_str_is(key_after_prefix(XY_STR("ab"), &room), "ac"));
    assert_true(xy_str_is(key_after_prefix(XY_STR("a\xff\xff"), &room), "b"));
    assert_int_equal(key_after_prefix(XY_STR("\xff\xff"), &room).len, 0);
    assert_int_equal(key_after_prefix(XY_STR(""), &room).len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_amplification), cmocka_unit_test(test_fold),
        cmocka_unit_test(test_long_names),    cmocka_unit_test(test_prefix_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
