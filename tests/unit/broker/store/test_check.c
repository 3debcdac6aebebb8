/* The check of a store: silent about a sound one, whatever of it is still only in the log, and in plain words about each
 * kind of damage: a flipped bit of the log, rows that are missing, too many, or under the wrong key. */
#include "fixture.h"

#include "broker/store/check.h"
#include "broker/store/key.h"
#include "broker/store/seal.h"

enum { NODE = 7, SUBSCRIPTION = 1 };

struct said {
    struct xy_buf text;
    unsigned lines;
};

static void note(void *ctx, const char *line)
{
    struct said *said = ctx;
    xy_buf_printf(&said->text, "%s\n", line);
    said->lines++;
}

/* NULL in `expected`: sound. */
static void expect(const struct store_options *options, const char *expected)
{
    struct said said = { .lines = 0 };
    struct store_check check = { .say = note, .ctx = &said };
    bool sound = store_check(options, &check);
    xy_buf_char(&said.text, '\0');
    if (sound != (expected == NULL) || (expected != NULL && strstr(said.text.data, expected) == NULL))
        fail_msg("expected '%s', the check said:\n%s", expected != NULL ? expected : "sound", said.text.data);
    assert_int_equal(sound, check.problems == 0);
    xy_buf_free(&said.text);
}

/* --- a store with a row in every table ---------------------------------------------------------------------------- */

static void append_rest(struct store_shard *shard)
{
    Xylem__Store__V1__NodePut node = XYLEM__STORE__V1__NODE_PUT__INIT;
    Xylem__Store__V1__SubscriptionPut sub = XYLEM__STORE__V1__SUBSCRIPTION_PUT__INIT;
    Xylem__Store__V1__AffiliationPut affiliation = XYLEM__STORE__V1__AFFILIATION_PUT__INIT;
    Xylem__Store__V1__MailboxAdd mail = XYLEM__STORE__V1__MAILBOX_ADD__INIT;
    node.node = NODE;
    node.name = (char[]){ "lamps" };
    node.creator = (char[]){ "alice@x" };
    node.epoch = 1;
    sub.node = affiliation.node = NODE;
    sub.number = SUBSCRIPTION;
    sub.node_name = node.name;
    sub.jid = (char[]){ "bob@x/r" };
    affiliation.jid = (char[]){ "bob@x" };
    affiliation.affiliation = (char[]){ "member" };
    mail.jid = affiliation.jid;
    mail.seq = 3;
    mail.stanza.data = (uint8_t[]){ "<message><body>hello</body></message>" };
    mail.stanza.len = strlen((char *)mail.stanza.data);
    store_append(shard, RECORD_NODE_PUT, &node.base);
    store_append(shard, RECORD_SUBSCRIPTION_PUT, &sub.base);
    store_append(shard, RECORD_AFFILIATION_PUT, &affiliation.base);
    store_append(shard, RECORD_MAILBOX_ADD, &mail.base);
}

static void append_published(struct store_shard *shard, uint64_t seq, const char *xml)
{
    Xylem__Store__V1__ItemPut item = XYLEM__STORE__V1__ITEM_PUT__INIT;
    item.node = NODE;
    item.seq = seq;
    item.id = (char[]){ "id" };
    item.publisher = (char[]){ "alice@x" };
    item.publish_id = (char[]){ "agent:4" };
    item.item.data = (uint8_t *)(uintptr_t)xml;
    item.item.len = strlen(xml);
    item.retained = true;
    store_append(shard, RECORD_ITEM_PUT, &item.base);
}

static void fill(struct store *store)
{
    struct store_shard *shard = store_shard(store, 0);
    append_account(shard, "alice@x");
    append_account(shard, "bob@x");
    append_rest(shard);
    for (uint64_t seq = 1; seq <= 5; seq++)
        append_published(shard, seq, "<item id='i'><a xmlns='urn:a'>b</a></item>");
    append_cursor(shard, NODE, SUBSCRIPTION, 2);
    append_item_remove(shard, NODE, 1);
}

static struct store_options filled(struct store_memory **memory)
{
    *memory = store_memory_new();
    struct store_options options = options_for(NULL, store_memory_backend(*memory), 1, false);
    struct store *store = must_open(&options);
    fill(store);
    store_close(&store);
    return options;
}

static void test_sound(void **state)
{
    (void)state;
    struct store_memory *memory;
    struct store_options options = filled(&memory);
    expect(&options, NULL);
    /* more of it, only in the log */
    struct store *store = must_open(&options);
    append_published(store_shard(store, 0), 6, "<item/>");
    append_item_remove(store_shard(store, 0), NODE, 2);
    store_flush(store_shard(store, 0));
    assert_true(store_step_commit(store));
    store_crash(&store);
    expect(&options, NULL);
    expect(&options, NULL); /* looking changed nothing */
    store = must_open(&options);
    assert_int_equal(item_flag(store_shard(store, 0), NODE, 6), 'r');
    store_close(&store);
    store_memory_free(&memory);
}

static void test_no_store(void **state)
{
    (void)state;
    char directory[64];
    make_directory(directory);
    struct store_options options = options_for(directory, NULL, 1, false);
    expect(&options, "there is no store in");
    struct store *store = must_open(&options);
    fill(store);
    expect(&options, "is in use by process");
    store_close(&store);
    expect(&options, NULL);
    remove_directory(directory);
}

/* --- damage -------------------------------------------------------------------------------------------------------- */

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
    assert_int_equal(files->log->ops->commit(files->log), STORE_IO_OK);
    assert_int_equal(files->tables->ops->commit(files->tables), STORE_IO_OK);
    files->log->ops->close(&files->log);
    files->tables->ops->close(&files->tables);
}

/* A crash may come between the end of a queue's item and that of its state. */
static void test_left_of_a_queue(void **state)
{
    (void)state;
    char item[16];
    struct xy_str value;
    struct xy_arena *arena = xy_arena_new();
    struct store_memory *memory;
    struct store_options options = filled(&memory);
    struct store *store = must_open(&options);
    Xylem__Store__V1__QueueState sent = XYLEM__STORE__V1__QUEUE_STATE__INIT;
    sent.node = NODE;
    sent.n_seq = sent.n_attempts = sent.n_not_before_us = sent.n_parked = 1;
    sent.seq = sent.not_before_us = (uint64_t[]){ 2 };
    sent.attempts = (uint32_t[]){ 1 };
    sent.parked = (protobuf_c_boolean[]){ false };
    store_append(store_shard(store, 0), RECORD_QUEUE_STATE, &sent.base);
    append_item_remove(store_shard(store, 0), NODE, 2);
    store_flush(store_shard(store, 0));
    assert_true(store_step_commit(store));
    store_crash(&store);
    expect(&options, NULL);
    store = must_open(&options);
    assert_true(store_get(store_shard(store, 0), STORE_QUEUE, item_key(item, NODE, 2), arena, &value));
    xy_arena_free(&arena);
    store_close(&store); /* into the tables */
    expect(&options, NULL);
    store_memory_free(&memory);
}

static void put_row(struct files *files, enum store_table table, struct xy_str key, struct xy_str value)
{
    struct xy_buf room = { 0 };
    assert_int_equal(seal_put(files->tables, &room, table, key, value), STORE_IO_OK);
    xy_buf_free(&room);
}

static struct xy_str subscription_key(struct key *key)
{
    key->len = 0;
    key_u64(key, NODE);
    key_u32(key, SUBSCRIPTION);
    return key_view(key);
}

static struct xy_str node_number(struct key *key)
{
    key->len = 0;
    key_u64(key, NODE);
    return key_view(key);
}

static void test_missing_rows(void **state)
{
    (void)state;
    struct key number, subscription, by_jid = { .len = 0 };
    key_name(&by_jid, XY_STR("bob@x"), STORE_NAME_KEY_MAX);
    key_byte(&by_jid, 0);
    key_u64(&by_jid, NODE);
    key_u32(&by_jid, SUBSCRIPTION);
    const struct {
        enum store_table table;
        struct xy_str key;
        const char *expected;
    } cases[] = {
        { STORE_NODES, XY_STR("lamps"), "items: item 2 of node 7: there is no such node" },
        { STORE_NODES, XY_STR("lamps"), "subscriptions: number 1 of node 7: there is no such node" },
        { STORE_NODES, XY_STR("lamps"), "affiliations: 'bob@x': there is no node with the number 7" },
        { STORE_NODES, XY_STR("lamps"), "dedup: there is no node with the number 7" },
        { STORE_NODES, XY_STR("lamps"), "node_seq: there is no node with the number 7" },
        { STORE_NODE_SEQ, node_number(&number), "item 5 of node 7: its number is above the last one" },
        { STORE_ACCOUNTS, XY_STR("bob@x"), "mailbox: message 3 of 'bob@x': there is no such account" },
        { STORE_ACCOUNTS, XY_STR("bob@x"), "mailbox_seq: 'bob@x': there is no such account" },
        { STORE_MAILBOX_SEQ, XY_STR("bob@x"), "message 3 of 'bob@x': its number is above the last" },
        { STORE_SUBSCRIPTIONS, subscription_key(&subscription),
          "subs_by_jid: 'bob@x' has no subscription 1" },
        { STORE_SUBSCRIPTIONS, subscription_key(&subscription), "cursors: node 7 has no subscription" },
        { STORE_SUBS_BY_JID, key_view(&by_jid), "number 1 of node 7: it is not listed under its subscriber" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct store_memory *memory;
        struct store_options options = filled(&memory);
        struct files files = open_files(&options);
        assert_int_equal(files.tables->ops->del(files.tables, cases[i].table, cases[i].key), STORE_IO_OK);
        close_files(&files);
        expect(&options, cases[i].expected);
        store_memory_free(&memory);
    }
}

static void test_wrong_rows(void **state)
{
    (void)state;
    char item[16], other[16], third[16];
    struct key known = { .len = 0 }, claim = { .len = 0 };
    key_u64(&known, NODE);
    key_u32(&known, SUBSCRIPTION);
    struct key ahead = known;
    key_u64(&ahead, 6);
    key_u64(&claim, NODE);
    key_u32(&claim, SUBSCRIPTION + 1);
    struct key settled = claim;
    key_u64(&settled, 1);
    const struct {
        enum store_table table;
        struct xy_str key, value;
        const char *expected;
    } cases[] = {
        { STORE_ITEMS, item_key(item, NODE, 3), XY_STR("r\xff"),
          "item 3 of node 7: its record cannot be read" },
        { STORE_ITEMS, item_key(item, NODE, 3), XY_STR("x"), "items: a row of 16 and 1 bytes is none" },
        { STORE_ITEMS, XY_STR("short"), XY_STR("r"), "items: a row of 5 and 1 bytes is none" },
        { STORE_ITEMS, item_key(item, NODE, 3), XY_STR("r\x08\x07\x10\x04"),
          "item 3 of node 7: its record belongs under another key" },
        { STORE_NODES, XY_STR("other"), XY_STR("\x08\x07\x12\x05other"), "two nodes have the number 7" },
        { STORE_NODES, XY_STR("lamp\nx"), XY_STR("\x08\x09\x12\x05other"),
          "nodes: 'lamp?x': its record belongs under another key" },
        { STORE_CURSORS, xy_str_n(claim.data, claim.len), XY_STR("\0\0\0\0\0\0\0\1"),
          "cursors: node 7 has no subscription with the number 2" },
        { STORE_CURSORS, XY_STR("x"), XY_STR("y"), "cursors: a value of 1 bytes is none" },
        { STORE_CURSORS, xy_str_n(known.data, known.len), XY_STR("\0\0\0\0\0\0\0\6"),
          "cursors: subscription 1 is at item 6 of node 7, which has had 5" },
        { STORE_CURSORS, xy_str_n(known.data, known.len),
          XY_STR("\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0\4\0"), "the gap ends before it begins" },
        { STORE_CURSORS, xy_str_n(known.data, known.len),
          XY_STR("\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\7\0"),
          "cursors: subscription 1 is at item 7 of node 7, which has had 5" },
        { STORE_CLAIMS, xy_str_n(ahead.data, ahead.len), XY_STR("\0\0\0\1\0\0\0\0\0\0\0\0\0"),
          "claims: subscription 1 is at item 6 of node 7, which has had 5" },
        { STORE_CLAIMS, xy_str_n(settled.data, settled.len), XY_STR("\0\0\0\1\0\0\0\0\0\0\0\0\0"),
          "claims: node 7 has no subscription with the number 2" },
        { STORE_CLAIMS, xy_str_n(settled.data, settled.len), XY_STR("?"),
          "claims: a row of 20 and 1 bytes is none" },
        { STORE_QUEUE, item_key(other, NODE, 99), xy_str_n((char[13]){ 0 }, 13),
          "queue: node 7 never had an item 99" },
        { STORE_QUEUE, item_key(third, NODE + 1, 1), xy_str_n((char[13]){ 0 }, 13),
          "queue: there is no node with the number 8" },
        { STORE_QUEUE, item_key(item, NODE, 3), XY_STR("?"), "queue: a row of 16 and 1 bytes is none" },
        { STORE_SESSIONS, XY_STR("0123456789abcdef"), XY_STR("\xff\xff"),
          "sessions: one of them: its record cannot" },
        { STORE_SESSIONS, XY_STR("0123456789abcdef"), XY_STR(""), "its record belongs under another key" },
        { STORE_SESSION_IN, XY_STR("0123456789abcdef"), XY_STR(""), "session_in: a row of 16 and 0 bytes" },
        { STORE_SESSION_IN, XY_STR("0123456789abcdef\xff\xff\xff\xff\xff\xff\xff\xff"), XY_STR("\xff\xff"),
          "session_in: what was sent: its record cannot be read" },
        { STORE_EXPIRY, XY_STR("\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\7"), XY_STR("lamp"),
          "expiry: node 7 has one of its two rows only" },
        { STORE_EXPIRY, XY_STR("\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\7"),
          XY_STR("\0\0\0\0\0\0\0\1"), "expiry: node 7 has one of its two rows only" },
        { STORE_EXPIRY, XY_STR("\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\x09"), XY_STR("lamp"),
          "expiry: there is no node with the number 9" },
        { STORE_AFFILIATIONS, XY_STR("\0\0\0\0\0\0\0\7c@x"), XY_STR("king"), "'king' is none" },
        { STORE_MAILBOX_SEQ, XY_STR("bob@x"), XY_STR("7"), "mailbox_seq: 'bob@x': it is no number" },
        { STORE_META, XY_STR("numbers"), XY_STR("7"), "meta: 'numbers' is no number" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct store_memory *memory;
        struct store_options options = filled(&memory);
        struct files files = open_files(&options);
        put_row(&files, cases[i].table, cases[i].key, cases[i].value);
        close_files(&files);
        expect(&options, cases[i].expected);
        store_memory_free(&memory);
    }
}

/* What the rows hold must be one element each: items and messages. */
static void test_xml(void **state)
{
    (void)state;
    static const char *const wrong[] = { "",          "<item>",       "<item/><item/>",
                                         "<other/>",  "<item></item", "<item>&x;</item>",
                                         "</stream>", "text" };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct store_memory *memory;
        struct store_options options = filled(&memory);
        struct store *store = must_open(&options);
        append_published(store_shard(store, 0), 6, wrong[i]);
        append_published(store_shard(store, 0), 7, "<item/>"); /* what comes after it is not blamed */
        store_close(&store);
        expect(&options, "item 6 of node 7: what it holds is not one <item/>\n1 entries");
        store_memory_free(&memory);
    }
}

/* Twenty lines for one table, the rest as a number. */
static void test_many(void **state)
{
    (void)state;
    char key[16];
    struct store_memory *memory;
    struct store_options options = filled(&memory);
    struct files files = open_files(&options);
    for (uint64_t seq = 100; seq < 200; seq++)
        put_row(&files, STORE_ITEMS, item_key(key, NODE, seq), XY_STR("x"));
    close_files(&files);
    struct said said = { .lines = 0 };
    struct store_check check = { .say = note, .ctx = &said };
    assert_false(store_check(&options, &check));
    assert_int_equal(check.problems, 100);
    assert_int_equal(said.lines, STORE_CHECK_LINES_MAX + 2);
    xy_buf_char(&said.text, '\0');
    assert_non_null(strstr(said.text.data, "items: and 80 more like these"));
    xy_buf_free(&said.text);
    store_memory_free(&memory);
}

struct copy {
    char bytes[4096];
    size_t len;
};

static bool copy_entry(void *ctx, uint64_t position, struct xy_str entry)
{
    struct copy *copy = ctx;
    (void)position;
    assert_true(entry.len <= sizeof(copy->bytes));
    memcpy(copy->bytes, entry.data, entry.len);
    copy->len = entry.len;
    return false;
}

/* The log is read from its beginning, also what the tables already have: a flipped bit is found, and named. */
static void test_log(void **state)
{
    (void)state;
    struct copy copy = { .len = 0 };
    struct store_memory *memory;
    struct store_options options = filled(&memory);
    struct files files = open_files(&options);
    assert_int_equal(files.log->ops->read(files.log, 0, copy_entry, &copy), STORE_IO_OK);
    close_files(&files);
    store_memory_free(&memory);
    assert_true(copy.len > 100);
    for (size_t byte = 0; byte < copy.len; byte += 3) {
        options = filled(&memory);
        files = open_files(&options);
        unsigned removed;
        assert_int_equal(files.log->ops->cut(files.log, 1, 1, &removed), STORE_IO_OK);
        assert_int_equal(files.log->ops->commit(files.log), STORE_IO_OK);
        copy.bytes[byte] = (char)(copy.bytes[byte] ^ 4);
        assert_int_equal(files.log->ops->append(files.log, 1, xy_str_n(copy.bytes, copy.len)), STORE_IO_OK);
        copy.bytes[byte] = (char)(copy.bytes[byte] ^ 4);
        close_files(&files);
        expect(&options, "log: entry 1, record at byte");
        store_memory_free(&memory);
    }
}

static void test_log_and_tables_apart(void **state)
{
    (void)state;
    char position[8];
    struct store_memory *memory;
    struct store_options options = filled(&memory);
    struct files files = open_files(&options);
    be64_put(position, 1000);
    assert_int_equal(
        files.tables->ops->put(files.tables, STORE_META, XY_STR("complete"), xy_str_n(position, 8)),
        STORE_IO_OK);
    close_files(&files);
    expect(&options, "the log is older than tables.mdb");
    files = open_files(&options);
    be64_put(position, 0);
    assert_int_equal(
        files.tables->ops->put(files.tables, STORE_META, XY_STR("complete"), xy_str_n(position, 8)),
        STORE_IO_OK);
    assert_int_equal(files.log->ops->append(files.log, 9, XY_STR("")), STORE_IO_OK);
    close_files(&files);
    expect(&options, "are missing");
    store_memory_free(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_left_of_a_queue),
        cmocka_unit_test(test_no_store),
        cmocka_unit_test(test_missing_rows),
        cmocka_unit_test(test_wrong_rows),
        cmocka_unit_test(test_xml),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_log_and_tables_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
