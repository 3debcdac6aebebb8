/* The whole store against a plain model: random records of every kind, random commits, checkpoints, crashes and
 * reopenings with another number of shards, under a seed, on memory and on LMDB. After each event everything that was
 * committed is there and nothing else. */
#include "fixture.h"

enum { GROUPS = 3, SEQ_MAX = 120, SUBS = 3, MAIL_MAX = 120 };

/* What one account and one node of a group look like. A group lives on one shard, so its history has one order. */
struct group {
    uint64_t node; /* 0: none */
    uint64_t node_next;
    uint64_t seq, dedup;
    char items[SEQ_MAX + 1]; /* 0, 'r', 'o' */
    bool subscribed[SUBS];
    uint64_t cursor[SUBS]; /* 0: none */
    bool owner, account;
    uint64_t mail_seq;
    bool mail[MAIL_MAX + 1];
};

struct model {
    struct group groups[GROUPS];
};

struct run {
    struct store_options options;
    struct store *store;
    struct model current, flushed, committed;
    uint64_t seed;
    unsigned shards;
};

static uint64_t virtual_us;

static uint64_t virtual_now(void *ctx)
{
    (void)ctx;
    return virtual_us;
}

static const struct xy_env virtual_env = { virtual_now, virtual_now, fixture_random, NULL };

static struct store_shard *shard_of(struct run *run, unsigned group)
{
    return store_shard(run->store, group % run->shards);
}

static uint64_t pick(struct run *run, uint64_t below)
{
    return next_random(&run->seed) % below;
}

static void name_of(char out[32], const char *what, unsigned group, uint64_t number)
{
    (void)snprintf(out, 32, "%s%u-%llu@x", what, group, (unsigned long long)number);
}

/* --- one function per kind of record: append it and tell the model ------------------------------------------------- */

static void node_create(struct run *run, unsigned g)
{
    struct group *group = &run->current.groups[g];
    char name[32];
    if (group->node != 0)
        return;
    group->node = ++group->node_next * 16 + g + 1;
    group->seq = group->dedup = 0;
    name_of(name, "node", g, group->node);
    Xylem__Store__V1__NodePut node = XYLEM__STORE__V1__NODE_PUT__INIT;
    node.node = group->node;
    node.name = name;
    store_append(shard_of(run, g), RECORD_NODE_PUT, &node.base);
}

static void subscription_remove(struct run *run, unsigned g, uint32_t number)
{
    struct group *group = &run->current.groups[g];
    char jid[32];
    if (!group->subscribed[number])
        return;
    name_of(jid, "sub", g, number);
    Xylem__Store__V1__SubscriptionRemove sub = XYLEM__STORE__V1__SUBSCRIPTION_REMOVE__INIT;
    sub.node = group->node;
    sub.number = number;
    sub.jid = jid;
    store_append(shard_of(run, g), RECORD_SUBSCRIPTION_REMOVE, &sub.base);
    group->subscribed[number] = false;
    group->cursor[number] = 0;
}

static void node_remove(struct run *run, unsigned g)
{
    struct group *group = &run->current.groups[g];
    char name[32];
    if (group->node == 0)
        return;
    for (uint32_t i = 0; i < SUBS; i++)
        subscription_remove(run, g, i);
    name_of(name, "node", g, group->node);
    Xylem__Store__V1__NodeRemove node = XYLEM__STORE__V1__NODE_REMOVE__INIT;
    node.node = group->node;
    node.name = name;
    store_append(shard_of(run, g), RECORD_NODE_REMOVE, &node.base);
    group->node = group->seq = group->dedup = 0;
    memset(group->items, 0, sizeof(group->items));
    group->owner = false;
}

static void item_put(struct run *run, unsigned g)
{
    struct group *group = &run->current.groups[g];
    if (group->node == 0 || group->seq == SEQ_MAX)
        return;
    static char body[5000];
    char publish_id[32];
    uint64_t removed[2];
    Xylem__Store__V1__ItemPut item = XYLEM__STORE__V1__ITEM_PUT__INIT;
    item.node = group->node;
    item.seq = ++group->seq;
    item.id = item.publisher = (char[]){ "p@x" };
    item.item.data = (uint8_t *)body;
    item.item.len = pick(run, 20) == 0 ? sizeof(body) : 40;
    item.retained = pick(run, 3) > 0;
    item.removed = removed;
    for (uint64_t seq = 1; seq < group->seq && item.n_removed < pick(run, 3); seq++) {
        if (group->items[seq] != 0) {
            removed[item.n_removed++] = seq;
            group->items[seq] = 0;
        }
    }
    if (pick(run, 2) == 0) {
        (void)snprintf(publish_id, sizeof(publish_id), "stream:%llu", (unsigned long long)group->seq);
        item.publish_id = publish_id;
        group->dedup = group->seq;
    }
    store_append(shard_of(run, g), RECORD_ITEM_PUT, &item.base);
    group->items[group->seq] = item.retained ? 'r' : 'o';
}

static void items_change(struct run *run, unsigned g)
{
    struct group *group = &run->current.groups[g];
    uint64_t seqs[2] = { 1 + pick(run, SEQ_MAX), 1 + pick(run, SEQ_MAX) };
    if (group->node == 0)
        return;
    bool unretain = pick(run, 2) == 0;
    for (int i = 0; i < 2; i++)
        if (group->items[seqs[i]] != 0)
            group->items[seqs[i]] = unretain ? 'o' : 0;
    Xylem__Store__V1__ItemRemove remove = XYLEM__STORE__V1__ITEM_REMOVE__INIT;
    Xylem__Store__V1__ItemUnretain keep = XYLEM__STORE__V1__ITEM_UNRETAIN__INIT;
    remove.node = keep.node = group->node;
    remove.n_seq = keep.n_seq = 2;
    remove.seq = keep.seq = seqs;
    if (unretain)
        store_append(shard_of(run, g), RECORD_ITEM_UNRETAIN, &keep.base);
    else
        store_append(shard_of(run, g), RECORD_ITEM_REMOVE, &remove.base);
}

static void node_purge(struct run *run, unsigned g)
{
    struct group *group = &run->current.groups[g];
    if (group->node == 0 || pick(run, 4) > 0)
        return;
    Xylem__Store__V1__NodePurge purge = XYLEM__STORE__V1__NODE_PURGE__INIT;
    purge.node = group->node;
    purge.seq = pick(run, group->seq + 1);
    memset(group->items, 0, purge.seq + 1);
    store_append(shard_of(run, g), RECORD_NODE_PURGE, &purge.base);
}

static void subscription_change(struct run *run, unsigned g)
{
    struct group *group = &run->current.groups[g];
    uint32_t number = (uint32_t)pick(run, SUBS);
    char name[32], jid[32], full[48];
    if (group->node == 0)
        return;
    if (pick(run, 3) == 0) {
        subscription_remove(run, g, number);
        return;
    }
    name_of(name, "node", g, group->node);
    name_of(jid, "sub", g, number);
    (void)snprintf(full, sizeof(full), "%s/r/s", jid);
    Xylem__Store__V1__SubscriptionPut sub = XYLEM__STORE__V1__SUBSCRIPTION_PUT__INIT;
    sub.node = group->node;
    sub.number = number;
    sub.node_name = name;
    sub.jid = full;
    store_append(shard_of(run, g), RECORD_SUBSCRIPTION_PUT, &sub.base);
    group->subscribed[number] = true;
}

static void cursor_move(struct run *run, unsigned g)
{
    struct group *group = &run->current.groups[g];
    uint32_t number = (uint32_t)pick(run, SUBS);
    if (group->node == 0 || !group->subscribed[number])
        return;
    group->cursor[number]++;
    append_cursor(shard_of(run, g), group->node, number, group->cursor[number]);
}

static void affiliation_change(struct run *run, unsigned g)
{
    struct group *group = &run->current.groups[g];
    if (group->node == 0)
        return;
    group->owner = !group->owner;
    Xylem__Store__V1__AffiliationPut put = XYLEM__STORE__V1__AFFILIATION_PUT__INIT;
    put.node = group->node;
    put.jid = (char[]){ "o@x" };
    put.affiliation = group->owner ? (char[]){ "owner" } : (char[]){ "none" };
    store_append(shard_of(run, g), RECORD_AFFILIATION_PUT, &put.base);
}

static void account_change(struct run *run, unsigned g)
{
    struct group *group = &run->current.groups[g];
    char jid[32];
    name_of(jid, "user", g, 0);
    if (pick(run, 8) == 0 || group->mail_seq == MAIL_MAX) {
        Xylem__Store__V1__AccountRemove gone = XYLEM__STORE__V1__ACCOUNT_REMOVE__INIT;
        gone.jid = jid;
        store_append(shard_of(run, g), RECORD_ACCOUNT_REMOVE, &gone.base);
        group->account = false;
        group->mail_seq = 0;
        memset(group->mail, 0, sizeof(group->mail));
    } else {
        append_account(shard_of(run, g), jid);
        group->account = true;
    }
}

static void mailbox_change(struct run *run, unsigned g)
{
    struct group *group = &run->current.groups[g];
    char jid[32];
    name_of(jid, "user", g, 0);
    if (!group->account || group->mail_seq == MAIL_MAX)
        return;
    Xylem__Store__V1__MailboxAdd add = XYLEM__STORE__V1__MAILBOX_ADD__INIT;
    add.jid = jid;
    add.seq = ++group->mail_seq;
    store_append(shard_of(run, g), RECORD_MAILBOX_ADD, &add.base);
    group->mail[group->mail_seq] = true;
    uint64_t seq = 1 + pick(run, group->mail_seq);
    Xylem__Store__V1__MailboxRemove remove = XYLEM__STORE__V1__MAILBOX_REMOVE__INIT;
    remove.jid = jid;
    remove.n_seq = 1;
    remove.seq = &seq;
    store_append_lazy(shard_of(run, g), RECORD_MAILBOX_REMOVE, &remove.base);
    group->mail[seq] = false;
}

static void (*const changes[])(struct run *, unsigned) = {
    node_create,    item_put,       item_put,
    item_put,       item_put,       items_change,
    items_change,   node_purge,     subscription_change,
    cursor_move,    cursor_move,    affiliation_change,
    account_change, mailbox_change, mailbox_change,
    node_create,
};

/* --- comparing --------------------------------------------------------------------------------------------------- */

static void check_node(struct run *run, unsigned g)
{
    const struct group *group = &run->current.groups[g];
    struct store_shard *shard = shard_of(run, g);
    char prefix[12], dedup[64];
    size_t items = 0, subs = 0, cursors = 0;
    for (uint64_t seq = 1; seq <= SEQ_MAX; seq++) {
        assert_int_equal(item_flag(shard, group->node, seq), group->items[seq]);
        items += group->items[seq] != 0;
    }
    be64_put(prefix, group->node);
    struct xy_str node = xy_str_n(prefix, 8);
    assert_int_equal(get_u64(shard, STORE_NODE_SEQ, node), group->seq);
    for (uint32_t i = 0; i < SUBS; i++) {
        char jid[40];
        be32_put(prefix + 8, i);
        assert_int_equal(get_u64(shard, STORE_CURSORS, xy_str_n(prefix, 12)), group->cursor[i]);
        name_of(jid, "sub", g, i); /* the NUL behind it ends the prefix */
        assert_int_equal(count_below(shard, STORE_SUBS_BY_JID, xy_str_n(jid, strlen(jid) + 1)),
                         group->subscribed[i]);
        subs += group->subscribed[i];
        cursors += group->cursor[i] != 0;
    }
    assert_int_equal(count_below(shard, STORE_ITEMS, node), items);
    assert_int_equal(count_below(shard, STORE_SUBSCRIPTIONS, node), subs);
    assert_int_equal(count_below(shard, STORE_CURSORS, node), cursors);
    assert_int_equal(count_below(shard, STORE_AFFILIATIONS, node), group->owner);

    struct xy_arena *arena = xy_arena_new();
    struct xy_str value, seen;
    uint64_t number = 0, time_us;
    memcpy(dedup, prefix, 8);
    memcpy(dedup + 8, "p@x\0stream", 10);
    if (store_get(shard, STORE_DEDUP, xy_str_n(dedup, 18), arena, &value))
        assert_true(store_dedup_value(value, &number, &time_us, &seen));
    assert_int_equal(number, group->dedup);
    xy_arena_free(&arena);
}

static void check(struct run *run)
{
    for (unsigned g = 0; g < GROUPS; g++) {
        const struct group *group = &run->current.groups[g];
        struct store_shard *shard = shard_of(run, g);
        char name[40];
        size_t mails = 0;
        name_of(name, "user", g, 0);
        for (unsigned seq = 1; seq <= MAIL_MAX; seq++)
            mails += group->mail[seq];
        assert_int_equal(count_below(shard, STORE_ACCOUNTS, xy_str(name)), group->account);
        assert_int_equal(count_below(shard, STORE_MAILBOX, xy_str_n(name, strlen(name) + 1)), mails);
        assert_int_equal(get_u64(shard, STORE_MAILBOX_SEQ, xy_str(name)), group->mail_seq);
        if (group->node != 0)
            check_node(run, g);
        (void)snprintf(name, sizeof(name), "node%u-", g);
        assert_int_equal(count_below(shard, STORE_NODES, xy_str(name)), group->node != 0);
    }
}

/* --- events ------------------------------------------------------------------------------------------------------ */

static void reopen(struct run *run)
{
    run->shards = 1 + (unsigned)pick(run, 3);
    run->options.shards = run->shards;
    run->store = must_open(&run->options);
}

static void flush_all(struct run *run)
{
    virtual_us += 100000; /* lazy records go too */
    for (unsigned i = 0; i < run->shards; i++)
        store_flush(store_shard(run->store, i));
    run->flushed = run->current;
}

static void event(struct run *run)
{
    switch (pick(run, 12)) {
    case 0:
        store_crash(&run->store);
        run->current = run->flushed = run->committed;
        reopen(run);
        break;
    case 1:
        store_close(&run->store);
        run->committed = run->flushed = run->current;
        reopen(run);
        break;
    case 2:
    case 3:
        assert_true(store_step_checkpoint(run->store));
        run->committed = run->flushed = run->current;
        break;
    case 4:
        flush_all(run);
        break;
    default:
        flush_all(run);
        while (store_step_commit(run->store))
            ;
        run->committed = run->flushed;
        break;
    }
}

static void run_seed(uint64_t seed, struct store_options options, unsigned events)
{
    struct run *run = calloc(1, sizeof(*run));
    assert_non_null(run);
    *run = (struct run){ .options = options, .seed = seed };
    run->options.env = &virtual_env;
    virtual_us = 1;
    reopen(run);
    for (unsigned i = 0; i < events; i++) {
        for (uint64_t n = pick(run, 30); n > 0; n--) {
            unsigned group = (unsigned)pick(run, GROUPS);
            if (pick(run, 60) == 0)
                node_remove(run, group);
            else
                changes[pick(run, sizeof(changes) / sizeof(changes[0]))](run, group);
        }
        event(run);
        check(run);
    }
    store_close(&run->store);
    free(run);
}

static void test_memory(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct store_memory *memory = store_memory_new();
        run_seed(seed * 104729, options_for(NULL, store_memory_backend(memory), 1, false), 150);
        store_memory_free(&memory);
    }
}

static void test_lmdb(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        char directory[64];
        make_directory(directory);
        run_seed(seed * 15485863, options_for(directory, NULL, 1, false), 100);
        remove_directory(directory);
    }
}

/* A checkpoint that dies at any of its operations: the tables keep half of it, the log replays over them. */
struct death {
    enum store_fault at;
    uint64_t count;
};

static enum store_io die_at(void *ctx, enum store_fault point, uint64_t count)
{
    const struct death *death = ctx;
    return point == death->at && count >= death->count ? STORE_IO_FAILED : STORE_IO_OK;
}

static void half_checkpoint(enum store_fault at, uint64_t count)
{
    struct store_memory *memory = store_memory_new();
    struct death death = { at, UINT64_MAX };
    struct store_faulty *faulty = store_faulty_new(store_memory_backend(memory), die_at, &death);
    struct store_options options = options_for(NULL, store_faulty_backend(faulty), 1, false);
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    for (uint64_t seq = 1; seq <= 5; seq++)
        append_item(shard, 9, seq, XY_STR("x"));
    assert_true(store_step_checkpoint(store));
    uint64_t two = 2;
    Xylem__Store__V1__ItemUnretain keep = XYLEM__STORE__V1__ITEM_UNRETAIN__INIT;
    keep.node = 9;
    keep.n_seq = 1;
    keep.seq = &two;
    store_append(shard, RECORD_ITEM_UNRETAIN, &keep.base);
    append_item(shard, 9, 6, XY_STR("x"));
    append_item(shard, 9, 7, XY_STR("x"));
    append_item_remove(shard, 9, 6);
    append_item_remove(shard, 9, 1);
    store_flush(shard);
    assert_true(store_step_commit(store));
    death.count = count;
    (void)store_step_checkpoint(store);
    store_crash(&store);

    death.count = UINT64_MAX;
    store = must_open(&options);
    shard = store_shard(store, 0);
    static const char expected[] = { 0, 0, 'o', 'r', 'r', 'r', 0, 'r' };
    for (uint64_t seq = 1; seq < sizeof(expected); seq++)
        assert_int_equal(item_flag(shard, 9, seq), expected[seq]);
    store_close(&store);
    store_faulty_free(&faulty);
    store_memory_free(&memory);
}

static void test_half_checkpoint(void **state)
{
    (void)state;
    for (uint64_t count = 0; count < 16; count++) {
        half_checkpoint(FAULT_TABLES_PUT, count);
        half_checkpoint(FAULT_TABLES_DEL, count);
        half_checkpoint(FAULT_TABLES_COMMIT, count);
        half_checkpoint(FAULT_TABLES_COMMITTED, count);
        half_checkpoint(FAULT_LOG_CUT, count);
        half_checkpoint(FAULT_LOG_COMMIT, count);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_lmdb),
        cmocka_unit_test(test_half_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
