/* Records to operations, without a store: what each record puts and deletes, under which keys, and that applying any
 * suffix of a history again gives the same tables. */
#include "fixture.h"

#include "broker/store/apply.h"
#include "broker/store/memtable.h"
#include "broker/store/record.h"

/* A table set that is the only truth: deleting leaves nothing. */
static void put(void *ctx, enum store_table table, struct xy_str key, struct xy_str head, struct xy_str body,
                bool fresh)
{
    (void)fresh;
    assert_true(key.len <= STORE_KEY_MAX);
    assert_true(memtable_put(ctx, table, key, head, body, false));
}

static void del(void *ctx, enum store_table table, struct xy_str key)
{
    memtable_forget(ctx, table, key);
}

static void del_range(void *ctx, enum store_table table, struct xy_str from, struct xy_str to)
{
    const struct tree_entry *entry = memtable_seek(ctx, table, from);
    while (entry != NULL && (to.len == 0 || xy_str_cmp(memtable_key(entry), to) < 0)) {
        const struct tree_entry *next = memtable_next(entry);
        memtable_forget(ctx, table, memtable_key(entry));
        entry = next;
    }
}

static void head(void *ctx, enum store_table table, struct xy_str key, char byte)
{
    (void)memtable_set_head(ctx, table, key, byte);
}

static struct apply_sink sink_of(struct memtable *mem)
{
    return (struct apply_sink){ .ctx = mem, .put = put, .del = del, .del_range = del_range, .head = head };
}

static void apply(struct memtable *mem, enum store_record type, const ProtobufCMessage *message)
{
    struct xy_buf buf = { 0 };
    struct xy_str packed;
    struct apply_sink sink = sink_of(mem);
    assert_true(record_pack(&buf, type, message, &packed));
    apply_record(type, message, packed, &sink);
    xy_buf_free(&buf);
}

static size_t count(const struct memtable *mem, enum store_table table)
{
    size_t n = 0;
    for (const struct tree_entry *e = memtable_seek(mem, table, XY_STR_NONE); e != NULL; e = memtable_next(e))
        n++;
    return n;
}

static struct xy_str only_key(const struct memtable *mem, enum store_table table)
{
    assert_int_equal(count(mem, table), 1);
    return memtable_key(memtable_seek(mem, table, XY_STR_NONE));
}

static struct xy_str only_value(const struct memtable *mem, enum store_table table)
{
    assert_int_equal(count(mem, table), 1);
    return memtable_value(memtable_seek(mem, table, XY_STR_NONE));
}

/* A position with a gap beside it, and without again. */
static void test_gap(void **state)
{
    (void)state;
    struct memtable *mem = memtable_new();
    Xylem__Store__V1__CursorMove move = XYLEM__STORE__V1__CURSOR_MOVE__INIT;
    uint32_t numbers[] = { 1, 2 }, reasons[] = { 0, 1 };
    uint64_t seqs[] = { 10, 20 }, firsts[] = { 0, 5 }, lasts[] = { 0, 20 };
    move.node = 7;
    move.n_number = move.n_seq = move.n_gap_first = move.n_gap_last = move.n_gap_reason = 2;
    move.number = numbers;
    move.seq = seqs;
    move.gap_first = firsts;
    move.gap_last = lasts;
    move.gap_reason = reasons;
    for (unsigned again = 0; again < 2; again++) {
        apply(mem, RECORD_CURSOR_MOVE, &move.base);
        const struct tree_entry *row = memtable_seek(mem, STORE_CURSORS, XY_STR_NONE);
        assert_int_equal(memtable_value(row).len, 8);
        row = memtable_next(row);
        assert_int_equal(memtable_value(row).len, 8 + STORE_GAP_BYTES);
        assert_memory_equal(memtable_value(row).data,
                            "\0\0\0\0\0\0\0\x14\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x14\1", 25);
    }
    move.n_gap_first = move.n_gap_last = move.n_gap_reason = 0;
    apply(mem, RECORD_CURSOR_MOVE, &move.base);
    assert_int_equal(memtable_value(memtable_next(memtable_seek(mem, STORE_CURSORS, XY_STR_NONE))).len, 8);
    memtable_free(&mem);
}

/* When to look at a node: one row by time, one by node, and both move together however often it is applied. */
static void test_node_look(void **state)
{
    (void)state;
    struct memtable *mem = memtable_new();
    Xylem__Store__V1__NodeLook first = XYLEM__STORE__V1__NODE_LOOK__INIT, next = first, last = first;
    first.node = next.node = last.node = 5;
    first.name = next.name = last.name = (char[]){ "news" };
    first.due_s = next.was_s = 1000;
    next.due_s = last.was_s = 2000;
    apply(mem, RECORD_NODE_LOOK, &first.base);
    for (unsigned again = 0; again < 2; again++) {
        apply(mem, RECORD_NODE_LOOK, &first.base);
        apply(mem, RECORD_NODE_LOOK, &next.base);
        assert_int_equal(count(mem, STORE_EXPIRY), 2);
        const struct tree_entry *row = memtable_seek(mem, STORE_EXPIRY, XY_STR_NONE);
        assert_memory_equal(memtable_key(row).data, "\0\0\0\0\0\0\x07\xd0\0\0\0\0\0\0\0\x05", 16);
        assert_true(xy_str_is(memtable_value(row), "news"));
        row = memtable_next(row);
        assert_memory_equal(memtable_key(row).data, "\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\x05", 16);
        assert_memory_equal(memtable_value(row).data, "\0\0\0\0\0\0\x07\xd0", 8);
    }
    apply(mem, RECORD_NODE_LOOK, &last.base);
    assert_int_equal(count(mem, STORE_EXPIRY), 0);
    memtable_free(&mem);
}

static void test_subscription_keys(void **state)
{
    (void)state;
    struct memtable *mem = memtable_new();
    Xylem__Store__V1__SubscriptionPut sub = XYLEM__STORE__V1__SUBSCRIPTION_PUT__INIT;
    sub.node = 258;
    sub.number = 3;
    sub.node_name = (char[]){ "news" };
    sub.jid = (char[]){ "a@x/res/with/slash" };
    apply(mem, RECORD_SUBSCRIPTION_PUT, &sub.base);
    assert_memory_equal(only_key(mem, STORE_SUBSCRIPTIONS).data, "\0\0\0\0\0\0\1\2\0\0\0\3", 12);
    assert_int_equal(only_key(mem, STORE_SUBS_BY_JID).len, 3 + 1 + 12);
    assert_memory_equal(only_key(mem, STORE_SUBS_BY_JID).data, "a@x\0\0\0\0\0\0\0\1\2\0\0\0\3", 16);
    assert_true(xy_str_is(only_value(mem, STORE_SUBS_BY_JID), "news"));
    assert_int_equal(count(mem, STORE_CURSORS),
                     0); /* a new cursor starts at start_seq; options keep the old one */

    Xylem__Store__V1__CursorMove cursor = XYLEM__STORE__V1__CURSOR_MOVE__INIT;
    uint32_t numbers[] = { 3, 4 };
    uint64_t seqs[] = { 10, 11 };
    cursor.node = 258;
    cursor.number = numbers;
    cursor.seq = seqs;
    cursor.n_number = cursor.n_seq = 2;
    apply(mem, RECORD_CURSOR_MOVE, &cursor.base);
    assert_int_equal(count(mem, STORE_CURSORS), 2);

    Xylem__Store__V1__ClaimState claims = XYLEM__STORE__V1__CLAIM_STATE__INIT;
    uint64_t claimed[] = { 5, 7 }, not_before[] = { 0, 99 }, settled[] = { 5 };
    uint32_t attempts[] = { 1, 3 }, parked[] = { 0, 1 };
    struct store_claim claim;
    claims.node = 258;
    claims.number = 3;
    claims.cursor = 12;
    claims.seq = claimed;
    claims.attempts = attempts;
    claims.not_before_us = not_before;
    claims.parked = parked;
    claims.n_seq = claims.n_attempts = claims.n_not_before_us = claims.n_parked = 2;
    apply(mem, RECORD_CLAIM_STATE, &claims.base);
    apply(mem, RECORD_CLAIM_STATE, &claims.base); /* twice is once */
    assert_int_equal(count(mem, STORE_CURSORS), 2);
    assert_int_equal(count(mem, STORE_CLAIMS), 2);
    claims.n_seq = claims.n_attempts = claims.n_not_before_us = claims.n_parked = 0;
    claims.settled = settled;
    claims.n_settled = 1;
    apply(mem, RECORD_CLAIM_STATE, &claims.base);
    assert_memory_equal(only_key(mem, STORE_CLAIMS).data, "\0\0\0\0\0\0\1\2\0\0\0\3\0\0\0\0\0\0\0\7", 20);
    assert_true(store_claim_value(only_value(mem, STORE_CLAIMS), &claim));
    assert_int_equal(claim.attempts, 3);
    assert_int_equal(claim.not_before_us, 99);
    assert_true(claim.parked);

    Xylem__Store__V1__SubscriptionRemove gone = XYLEM__STORE__V1__SUBSCRIPTION_REMOVE__INIT;
    gone.node = 258;
    gone.number = 3;
    gone.jid = (char[]){ "a@x" }; /* bare or full: the same entry */
    apply(mem, RECORD_SUBSCRIPTION_REMOVE, &gone.base);
    assert_int_equal(count(mem, STORE_SUBSCRIPTIONS), 0);
    assert_int_equal(count(mem, STORE_SUBS_BY_JID), 0);
    assert_int_equal(count(mem, STORE_CURSORS), 1);
    assert_int_equal(count(mem, STORE_CLAIMS), 0);
    memtable_free(&mem);
}

static void item(struct memtable *mem, uint64_t node, uint64_t seq, const char *publish_id, uint64_t removed)
{
    Xylem__Store__V1__ItemPut put_item = XYLEM__STORE__V1__ITEM_PUT__INIT;
    put_item.node = node;
    put_item.seq = seq;
    put_item.publisher = (char[]){ "p@x" };
    put_item.time_us = 77;
    put_item.publish_id = (char *)(uintptr_t)publish_id;
    put_item.retained = true;
    put_item.removed = &removed;
    put_item.n_removed = removed != 0;
    apply(mem, RECORD_ITEM_PUT, &put_item.base);
}

static void test_items(void **state)
{
    (void)state;
    struct memtable *mem = memtable_new();
    uint64_t number, time_us;
    struct xy_str seen;
    item(mem, 1, 1, "s:1", 0);
    item(mem, 1, 2, "s:2", 1);
    assert_int_equal(count(mem, STORE_ITEMS), 1);
    assert_int_equal(only_value(mem, STORE_ITEMS).data[0], 'r');
    assert_int_equal(be64_get(only_value(mem, STORE_NODE_SEQ).data), 2);
    assert_true(store_dedup_value(only_value(mem, STORE_DEDUP), &number, &time_us, &seen));
    assert_int_equal(number, 2);
    assert_int_equal(time_us, 77);
    assert_int_equal(only_key(mem, STORE_DEDUP).len, 8 + 3 + 1 + 1);
    assert_memory_equal(only_key(mem, STORE_DEDUP).data + 8, "p@x\0s", 5);
    item(mem, 1, 3, "whole", 0);
    assert_int_equal(count(mem, STORE_DEDUP), 2);

    uint64_t seqs[] = { 2, 9 };
    Xylem__Store__V1__ItemUnretain keep = XYLEM__STORE__V1__ITEM_UNRETAIN__INIT;
    keep.node = 1;
    keep.n_seq = 2;
    keep.seq = seqs;
    apply(mem, RECORD_ITEM_UNRETAIN, &keep.base);
    assert_int_equal(memtable_value(memtable_seek(mem, STORE_ITEMS, XY_STR_NONE)).data[0], 'o');
    assert_int_equal(count(mem, STORE_ITEMS), 2); /* an item that is not there stays away */

    Xylem__Store__V1__NodePurge purge = XYLEM__STORE__V1__NODE_PURGE__INIT;
    purge.node = 1;
    purge.seq = 2;
    apply(mem, RECORD_NODE_PURGE, &purge.base);
    assert_int_equal(count(mem, STORE_ITEMS), 1);
    item(mem, 2, 1, "", 0);
    item(mem, 0, 1, "", 0);
    purge.seq = UINT64_MAX;
    apply(mem, RECORD_NODE_PURGE, &purge.base);
    assert_int_equal(count(mem, STORE_ITEMS), 2); /* the neighbours */
    memtable_free(&mem);
}

static void test_node_remove(void **state)
{
    (void)state;
    struct memtable *mem = memtable_new();
    for (uint64_t node = 1; node <= 3; node++) {
        char name[] = { 'n', (char)('0' + node), 0 };
        Xylem__Store__V1__NodePut node_put = XYLEM__STORE__V1__NODE_PUT__INIT;
        node_put.node = node;
        node_put.name = name;
        apply(mem, RECORD_NODE_PUT, &node_put.base);
        item(mem, node, 1, "id", 0);
        Xylem__Store__V1__AffiliationPut owner = XYLEM__STORE__V1__AFFILIATION_PUT__INIT;
        owner.node = node;
        owner.jid = (char[]){ "o@x" };
        owner.affiliation = (char[]){ "owner" };
        apply(mem, RECORD_AFFILIATION_PUT, &owner.base);
    }
    Xylem__Store__V1__NodeRemove gone = XYLEM__STORE__V1__NODE_REMOVE__INIT;
    gone.node = 2;
    gone.name = (char[]){ "n2" };
    apply(mem, RECORD_NODE_REMOVE, &gone.base);
    static const enum store_table tables[] = { STORE_NODES, STORE_NODE_SEQ, STORE_ITEMS, STORE_AFFILIATIONS,
                                               STORE_DEDUP };
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
        assert_int_equal(count(mem, tables[i]), 2);

    Xylem__Store__V1__AffiliationPut none = XYLEM__STORE__V1__AFFILIATION_PUT__INIT;
    none.node = 1;
    none.jid = (char[]){ "o@x" };
    none.affiliation = (char[]){ "none" };
    apply(mem, RECORD_AFFILIATION_PUT, &none.base);
    assert_int_equal(count(mem, STORE_AFFILIATIONS), 1);
    memtable_free(&mem);
}

static void test_mailbox(void **state)
{
    (void)state;
    struct memtable *mem = memtable_new();
    static char jids[][8] = { "a@x", "a@x2" };
    for (size_t i = 0; i < 2; i++) {
        for (uint64_t seq = 1; seq <= 2; seq++) {
            Xylem__Store__V1__MailboxAdd add = XYLEM__STORE__V1__MAILBOX_ADD__INIT;
            add.jid = jids[i];
            add.seq = seq;
            apply(mem, RECORD_MAILBOX_ADD, &add.base);
        }
    }
    uint64_t one = 1;
    Xylem__Store__V1__MailboxRemove acked = XYLEM__STORE__V1__MAILBOX_REMOVE__INIT;
    acked.jid = jids[0];
    acked.n_seq = 1;
    acked.seq = &one;
    apply(mem, RECORD_MAILBOX_REMOVE, &acked.base);
    assert_int_equal(count(mem, STORE_MAILBOX), 3);
    assert_int_equal(count(mem, STORE_MAILBOX_SEQ), 2);
    Xylem__Store__V1__AccountRemove gone = XYLEM__STORE__V1__ACCOUNT_REMOVE__INIT;
    gone.jid = jids[0];
    apply(mem, RECORD_ACCOUNT_REMOVE, &gone.base);
    assert_int_equal(count(mem, STORE_MAILBOX), 2); /* a@x2 begins with a@x and keeps its own */
    assert_true(xy_str_is(only_key(mem, STORE_MAILBOX_SEQ), "a@x2"));
    memtable_free(&mem);
}

static void test_publish_ids(void **state)
{
    (void)state;
    static const struct {
        const char *id, *prefix;
        uint64_t number;
    } cases[] = {
        { "a:0", "a", 0 },
        { "a:10", "a", 10 },
        { "a:b:7", "a:b", 7 },
        { "a:18446744073709551614", "a", UINT64_MAX - 1 },
        { "a:18446744073709551615", "a:18446744073709551615", STORE_DEDUP_WHOLE },
        { "a:99999999999999999999", "a:99999999999999999999", STORE_DEDUP_WHOLE },
        { "a:01", "a:01", STORE_DEDUP_WHOLE },
        { "a:", "a:", STORE_DEDUP_WHOLE },
        { ":1", ":1", STORE_DEDUP_WHOLE },
        { "12", "12", STORE_DEDUP_WHOLE },
        { "a1", "a1", STORE_DEDUP_WHOLE },
        { "a:1b", "a:1b", STORE_DEDUP_WHOLE },
        { "", "", STORE_DEDUP_WHOLE },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct store_dedup id = store_dedup_parse(xy_str(cases[i].id));
        assert_true(xy_str_is(id.prefix, cases[i].prefix));
        assert_true(id.number == cases[i].number);
    }
    uint64_t number, time_us;
    struct xy_str seen;
    assert_false(store_dedup_value(XY_STR("short"), &number, &time_us, &seen));
}

/* --- replay -------------------------------------------------------------------------------------------------------- */

/* --- states of queue items ------------------------------------------------------------------------------------------- */

static void queue_state_as(struct memtable *mem, uint64_t node, uint64_t seq, uint32_t attempts, bool parked,
                           bool timeless)
{
    Xylem__Store__V1__QueueState put = XYLEM__STORE__V1__QUEUE_STATE__INIT;
    protobuf_c_boolean is_parked = parked, is_timeless = timeless;
    uint64_t not_before_us = 77;
    put.node = node;
    put.n_seq = put.n_attempts = put.n_not_before_us = put.n_parked = 1;
    put.seq = &seq;
    put.attempts = &attempts;
    put.not_before_us = &not_before_us;
    put.parked = &is_parked;
    put.n_timeless = timeless; /* left out where none is */
    put.timeless = &is_timeless;
    apply(mem, RECORD_QUEUE_STATE, &put.base);
}

static void queue_state(struct memtable *mem, uint64_t node, uint64_t seq, uint32_t attempts, bool parked)
{
    queue_state_as(mem, node, seq, attempts, parked, false);
}

static void queue_ended(struct memtable *mem, uint64_t node, uint64_t seq)
{
    Xylem__Store__V1__QueueState ended = XYLEM__STORE__V1__QUEUE_STATE__INIT;
    ended.node = node;
    ended.n_ended = 1;
    ended.ended = &seq;
    apply(mem, RECORD_QUEUE_STATE, &ended.base);
}

static void test_queue_states(void **state)
{
    (void)state;
    struct memtable *mem = memtable_new();
    uint32_t attempts;
    uint64_t not_before_us;
    bool parked;
    queue_state(mem, 5, 1, 3, false);
    queue_state(mem, 5, 1, 4, true); /* the newest counts */
    assert_true(store_queue_value(only_value(mem, STORE_QUEUE), &attempts, &parked, &not_before_us));
    assert_int_equal(attempts, 4);
    assert_true(parked);
    assert_int_equal(not_before_us, 77);
    assert_false(store_queue_timeless(only_value(mem, STORE_QUEUE)));
    assert_false(store_queue_value(XY_STR("short"), &attempts, &parked, &not_before_us));
    queue_state_as(mem, 5, 1, 0, false, true);
    assert_true(store_queue_value(only_value(mem, STORE_QUEUE), &attempts, &parked, &not_before_us));
    assert_false(parked);
    assert_true(store_queue_timeless(only_value(mem, STORE_QUEUE)));
    queue_ended(mem, 5, 1);
    queue_ended(mem, 5, 1);
    assert_int_equal(count(mem, STORE_QUEUE), 0);
    for (uint64_t seq = 1; seq <= 4; seq++)
        queue_state(mem, 5, seq, 1, false);
    queue_state(mem, 6, 1, 1, false);
    Xylem__Store__V1__NodePurge purge = XYLEM__STORE__V1__NODE_PURGE__INIT;
    purge.node = 5;
    purge.seq = 3;
    apply(mem, RECORD_NODE_PURGE, &purge.base);
    assert_int_equal(count(mem, STORE_QUEUE), 2);
    Xylem__Store__V1__NodeRemove remove = XYLEM__STORE__V1__NODE_REMOVE__INIT;
    remove.node = 5;
    remove.name = (char[]){ "jobs" };
    apply(mem, RECORD_NODE_REMOVE, &remove.base);
    assert_int_equal(count(mem, STORE_QUEUE), 1);
    Xylem__Store__V1__QueueState uneven = XYLEM__STORE__V1__QUEUE_STATE__INIT;
    uint64_t seq = 9;
    uneven.node = 6;
    uneven.n_seq = 1;
    uneven.seq = &seq;
    apply(mem, RECORD_QUEUE_STATE, &uneven.base); /* malformed: nothing */
    assert_int_equal(count(mem, STORE_QUEUE), 1);
    memtable_free(&mem);
}

/* --- again and again -------------------------------------------------------------------------------------------------- */

enum { HISTORY = 400 };

static void random_record(struct memtable *mem, unsigned step)
{
    uint64_t seed = step * 2654435761u + 12345;
    uint64_t a = next_random(&seed) % (step + 1) + 1, b = next_random(&seed) % (step + 1) + 1;
    Xylem__Store__V1__ItemRemove remove = XYLEM__STORE__V1__ITEM_REMOVE__INIT;
    Xylem__Store__V1__ItemUnretain keep = XYLEM__STORE__V1__ITEM_UNRETAIN__INIT;
    Xylem__Store__V1__NodePurge purge = XYLEM__STORE__V1__NODE_PURGE__INIT;
    remove.node = keep.node = purge.node = 1;
    remove.n_seq = keep.n_seq = 1;
    remove.seq = keep.seq = &a;
    purge.seq = a / 2;
    switch (next_random(&seed) % 10) {
    case 8:
        queue_state(mem, 1, a, (uint32_t)b, b % 2 == 0);
        break;
    case 9:
        queue_ended(mem, 1, a);
        break;
    case 0:
        apply(mem, RECORD_ITEM_REMOVE, &remove.base);
        break;
    case 1:
    case 2:
        apply(mem, RECORD_ITEM_UNRETAIN, &keep.base);
        break;
    case 3:
        if (next_random(&seed) % 10 == 0)
            apply(mem, RECORD_NODE_PURGE, &purge.base);
        break;
    default:
        item(mem, 1, step + 1, next_random(&seed) % 2 == 0 ? "s:4" : "", b <= step ? b : 0);
        break;
    }
}

static void check_same(const struct memtable *a, const struct memtable *b)
{
    for (enum store_table table = 0; table < STORE_TABLE_COUNT; table++) {
        const struct tree_entry *left = memtable_seek(a, table, XY_STR_NONE);
        const struct tree_entry *right = memtable_seek(b, table, XY_STR_NONE);
        for (; left != NULL && right != NULL; left = memtable_next(left), right = memtable_next(right)) {
            assert_true(xy_str_eq(memtable_key(left), memtable_key(right)));
            assert_true(xy_str_eq(memtable_value(left), memtable_value(right)));
        }
        assert_true(left == NULL && right == NULL);
    }
}

static void test_any_suffix_again(void **state)
{
    (void)state;
    struct memtable *once = memtable_new();
    for (unsigned step = 0; step < HISTORY; step++)
        random_record(once, step);
    assert_true(count(once, STORE_ITEMS) > 5);
    for (unsigned from = 0; from < HISTORY; from += 7) {
        struct memtable *twice = memtable_new();
        for (unsigned step = 0; step < HISTORY; step++)
            random_record(twice, step);
        for (unsigned step = from; step < HISTORY; step++)
            random_record(twice, step);
        check_same(once, twice);
        memtable_free(&twice);
    }
    memtable_free(&once);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_subscription_keys), cmocka_unit_test(test_items),
        cmocka_unit_test(test_node_remove),       cmocka_unit_test(test_mailbox),
        cmocka_unit_test(test_publish_ids),       cmocka_unit_test(test_queue_states),
        cmocka_unit_test(test_node_look),         cmocka_unit_test(test_gap),
        cmocka_unit_test(test_any_suffix_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
