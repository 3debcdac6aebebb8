/* Listing accounts: every shard finds the next page of those it owns, the asking shard merges.
 *
 * The accounts table holds those of all shards, but only its owner knows whether an account was changed since the last
 * checkpoint; so each shard reports its own. Long tables are walked one store page per turn. */
#include <stdlib.h>

#include "broker/router/accounts_internal.h"

#define SCAN_PAGE 128u

/* Walks one shard's accounts. Owned by the mail that carries it. */
struct list_walk {
    struct list_gather *gather;
    unsigned home;
    size_t count_max;
    bool count_all;
    bool more;
    uint64_t total;
    struct xy_buf from;  /* key to go on from; empty: the first */
    struct xy_buf names; /* found, each followed by a NUL */
    size_t count;
};

/* Lives on the asking shard until every walk came home. */
struct list_gather {
    accounts_page_fn *fn;
    void *ctx;
    size_t count_max;
    unsigned waiting;
    bool more;
    bool failed;
    uint64_t total;
    struct xy_buf names;
    size_t count;
};

static int by_bytes(const void *a, const void *b)
{
    return xy_str_cmp(*(const struct xy_str *)a, *(const struct xy_str *)b);
}

static void gather_finish(struct shard *shard, struct list_gather *gather)
{
    struct xy_str *jids = calloc(gather->count + 1, sizeof(*jids));
    const char *at = gather->names.data;
    for (size_t i = 0; jids && i < gather->count; i++) {
        jids[i] = xy_str(at);
        at += jids[i].len + 1;
    }
    struct accounts_page page = { .jids = jids, .total = gather->total, .more = gather->more };
    if (jids && !gather->failed) {
        qsort(jids, gather->count, sizeof(*jids), by_bytes);
        page.count = gather->count < gather->count_max ? gather->count : gather->count_max;
        page.more = gather->more || gather->count > gather->count_max;
    }
    gather->fn(shard, gather->ctx, &page);
    free(jids);
    xy_buf_free(&gather->names);
    free(gather);
}

static void walk_home(struct shard *shard, void *payload)
{
    struct list_walk *walk = *(struct list_walk **)payload;
    struct list_gather *gather = walk->gather;
    xy_buf_str(&gather->names, xy_buf_view(&walk->names));
    gather->count += walk->count;
    gather->total += walk->total;
    gather->more |= walk->more;
    gather->failed |=
        xy_buf_failed(&walk->names) || xy_buf_failed(&walk->from) || xy_buf_failed(&gather->names);
    xy_buf_free(&walk->from);
    xy_buf_free(&walk->names);
    free(walk);
    if (--gather->waiting == 0)
        gather_finish(shard, gather);
}

static void walk_take(struct shard *shard, struct list_walk *walk, struct xy_str value)
{
    Xylem__Store__V1__AccountPut *put =
        xylem__store__v1__account_put__unpack(NULL, value.len, (const uint8_t *)value.data);
    if (put && shard_owner(shard, xy_str(put->jid)) == shard->index) {
        walk->total++;
        if (walk->count < walk->count_max) {
            xy_buf_add(&walk->names, put->jid, strlen(put->jid) + 1);
            walk->count++;
        } else {
            walk->more = true;
        }
    }
    account_record_free(put);
}

static void walk_step(struct shard *shard, void *payload)
{
    struct list_walk *walk = *(struct list_walk **)payload;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    struct store_entry *entries = arena ? xy_arena_alloc(arena, SCAN_PAGE * sizeof(*entries)) : NULL;
    bool more = false;
    if (entries) {
        size_t count = store_scan(shard->store, STORE_ACCOUNTS, XY_STR(""), xy_buf_view(&walk->from), arena,
                                  entries, SCAN_PAGE, &more);
        for (size_t i = 0; i < count; i++)
            walk_take(shard, walk, entries[i].value);
        if (count > 0) {
            xy_buf_reset(&walk->from);
            xy_buf_str(&walk->from, entries[count - 1].key);
            xy_buf_char(&walk->from, '\0');
        }
    }
    if (arena)
        xy_arena_pool_give(shard->arenas, &arena);
    bool satisfied = walk->more && !walk->count_all;
    if (more && !satisfied && !xy_buf_failed(&walk->from))
        shard_mail(shard, shard->index, walk_step, &walk, sizeof(struct list_walk *));
    else
        shard_mail(shard, walk->home, walk_home, &walk, sizeof(struct list_walk *));
}

static struct list_walk *walk_new(struct shard *shard, struct list_gather *gather, struct xy_str after)
{
    struct list_walk *walk = calloc(1, sizeof(*walk));
    if (!walk)
        return NULL;
    walk->gather = gather;
    walk->home = shard->index;
    walk->count_max = gather->count_max;
    walk->count_all = !xy_str_present(after);
    if (after.len > 0) {
        xy_buf_str(&walk->from, after);
        xy_buf_char(&walk->from, '\0');
    }
    return walk;
}

void accounts_list(struct shard *shard, struct xy_str after, size_t count_max, accounts_page_fn *fn,
                   void *ctx)
{
    struct list_gather *gather = calloc(1, sizeof(*gather));
    if (!gather) {
        fn(shard, ctx, &(struct accounts_page){ 0 });
        return;
    }
    gather->fn = fn;
    gather->ctx = ctx;
    gather->count_max = count_max < ACCOUNTS_PAGE_MAX ? count_max : ACCOUNTS_PAGE_MAX;
    gather->waiting = 1; /* this call itself */
    for (unsigned i = 0; i < shard_count(shard); i++) {
        struct list_walk *walk = walk_new(shard, gather, after);
        if (!walk) {
            gather->failed = true;
            continue;
        }
        gather->waiting++;
        shard_mail(shard, i, walk_step, &walk, sizeof(struct list_walk *));
    }
    if (--gather->waiting == 0)
        gather_finish(shard, gather);
}
