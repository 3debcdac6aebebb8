/* What the store's tests share: an environment, a fresh directory, a store on any backend, and short ways to append
 * records and look at tables. */
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/store/backend.h"
#include "broker/store/bigendian.h"
#include "broker/store/limits.h"
#include "broker/store/store.h"
#include "core/base/arena.h"
#include "xylem/store/v1/records.pb-c.h"

static inline uint64_t fixture_now_us(void *ctx)
{
    (void)ctx;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static inline uint64_t fixture_wall_us(void *ctx)
{
    (void)ctx;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* xorshift: the same run for the same seed */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline void fixture_random(void *ctx, void *out, size_t len)
{
    (void)ctx;
    static uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < len; i++)
        ((unsigned char *)out)[i] = (unsigned char)next_random(&state);
}

static const struct xy_env fixture_env = { fixture_now_us, fixture_wall_us, fixture_random, NULL };

static inline void make_directory(char path[64])
{
    (void)snprintf(path, 64, "/tmp/xylem-store-XXXXXX");
    assert_non_null(mkdtemp(path));
}

static inline void remove_directory(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    while (directory != NULL && (entry = readdir(directory)) != NULL)
        (void)unlinkat(dirfd(directory), entry->d_name, 0);
    if (directory != NULL)
        (void)closedir(directory);
    (void)rmdir(path);
}

/* Of the files of log and tables, or of those whose names begin with `prefix`. */
static inline uint64_t files_bytes(const char *path, const char *prefix)
{
    uint64_t total = 0;
    DIR *directory = opendir(path);
    struct dirent *entry;
    struct stat info;
    assert_non_null(directory);
    while ((entry = readdir(directory)) != NULL)
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && strstr(entry->d_name, "lock") == NULL &&
            fstatat(dirfd(directory), entry->d_name, &info, 0) == 0 && S_ISREG(info.st_mode))
            total += (uint64_t)info.st_size;
    (void)closedir(directory);
    return total;
}

/* What the tests of stores on disk run on: LMDB's log, or with XYLEM_TEST_LOG=segments in the environment the other. */
static inline bool on_segments(void)
{
    const char *log = getenv("XYLEM_TEST_LOG");
    return log != NULL && strcmp(log, "segments") == 0;
}

static inline const struct store_backend *disk_backend(void)
{
    return on_segments() ? &store_backend_segments : &store_backend_lmdb;
}

static inline struct store_options options_for(const char *directory, const struct store_backend *backend,
                                               unsigned shards, bool threads)
{
    return (struct store_options){ .data_dir = directory,
                                   .backend = backend,
                                   .log = on_segments() ? STORE_LOG_SEGMENTS : STORE_LOG_LMDB,
                                   .shards = shards,
                                   .env = &fixture_env,
                                   .threads = threads,
                                   .map_bytes = 1ull << 30 };
}

static inline struct store *must_open(const struct store_options *options)
{
    struct xy_buf error = { 0 };
    struct store *store = store_open(options, &error);
    if (store == NULL)
        fail_msg("store_open: %.*s", XY_ARG(xy_buf_view(&error)));
    xy_buf_free(&error);
    return store;
}

/* Opening must fail; the prose goes to `text`. */
static inline void must_refuse(const struct store_options *options, char *text, size_t size)
{
    struct xy_buf error = { 0 };
    struct store *store = store_open(options, &error);
    assert_null(store);
    assert_false(xy_buf_failed(&error));
    (void)snprintf(text, size, "%.*s", XY_ARG(xy_buf_view(&error)));
    assert_true(text[0] != '\0');
    xy_buf_free(&error);
}

static inline void wait_committed(struct store_shard *shard, uint64_t ticket)
{
    for (int i = 0; i < 10000 && store_committed(shard) < ticket; i++)
        usleep(1000);
    assert_true(store_committed(shard) >= ticket);
}

/* --- records ----------------------------------------------------------------------------------------------------- */

static inline uint64_t append_item(struct store_shard *shard, uint64_t node, uint64_t seq,
                                   struct xy_str payload)
{
    Xylem__Store__V1__ItemPut item = XYLEM__STORE__V1__ITEM_PUT__INIT;
    item.node = node;
    item.seq = seq;
    item.id = (char[]){ "id" };
    item.publisher = (char[]){ "p@x" };
    item.time_us = 1;
    item.item.data = (uint8_t *)(uintptr_t)payload.data;
    item.item.len = payload.len;
    item.retained = true;
    return store_append(shard, RECORD_ITEM_PUT, &item.base);
}

static inline uint64_t append_item_remove(struct store_shard *shard, uint64_t node, uint64_t seq)
{
    Xylem__Store__V1__ItemRemove item = XYLEM__STORE__V1__ITEM_REMOVE__INIT;
    item.node = node;
    item.n_seq = 1;
    item.seq = &seq;
    return store_append(shard, RECORD_ITEM_REMOVE, &item.base);
}

static inline uint64_t append_cursor(struct store_shard *shard, uint64_t node, uint32_t number, uint64_t seq)
{
    Xylem__Store__V1__CursorMove cursor = XYLEM__STORE__V1__CURSOR_MOVE__INIT;
    cursor.node = node;
    cursor.n_number = cursor.n_seq = 1;
    cursor.number = &number;
    cursor.seq = &seq;
    return store_append_lazy(shard, RECORD_CURSOR_MOVE, &cursor.base);
}

static inline uint64_t append_account(struct store_shard *shard, const char *jid)
{
    Xylem__Store__V1__AccountPut account = XYLEM__STORE__V1__ACCOUNT_PUT__INIT;
    account.jid = (char *)(uintptr_t)jid;
    return store_append(shard, RECORD_ACCOUNT_PUT, &account.base);
}

/* --- looking ----------------------------------------------------------------------------------------------------- */

static inline struct xy_str item_key(char out[16], uint64_t node, uint64_t seq)
{
    be64_put(out, node);
    be64_put(out + 8, seq);
    return xy_str_n(out, 16);
}

/* The first byte of the stored item, 0: there is none. */
static inline char item_flag(struct store_shard *shard, uint64_t node, uint64_t seq)
{
    char key[16];
    struct xy_arena *arena = xy_arena_new();
    struct xy_str value;
    char flag = 0;
    if (store_get(shard, STORE_ITEMS, item_key(key, node, seq), arena, &value)) {
        assert_true(value.len > 1);
        flag = value.data[0];
    }
    xy_arena_free(&arena);
    return flag;
}

static inline uint64_t get_u64(struct store_shard *shard, enum store_table table, struct xy_str key)
{
    struct xy_arena *arena = xy_arena_new();
    struct xy_str value;
    uint64_t number = 0;
    if (store_get(shard, table, key, arena, &value)) {
        assert_int_equal(value.len, 8);
        number = be64_get(value.data);
    }
    xy_arena_free(&arena);
    return number;
}

/* Entries below a prefix, page by page. */
static inline size_t count_below(struct store_shard *shard, enum store_table table, struct xy_str prefix)
{
    struct store_entry page[STORE_PAGE_RECORDS_MAX];
    struct xy_arena *arena = xy_arena_new();
    char from[STORE_KEY_MAX + 1];
    size_t total = 0, from_len = 0;
    bool more = true;
    while (more) {
        xy_arena_reset(arena);
        size_t count = store_scan(shard, table, prefix, xy_str_n(from, from_len), arena, page, 100, &more);
        assert_true(count > 0 || !more);
        total += count;
        if (count > 0) {
            struct xy_str last = page[count - 1].key;
            memcpy(from, last.data, last.len);
            from[last.len] = 0;
            from_len = last.len + 1;
        }
    }
    xy_arena_free(&arena);
    return total;
}
