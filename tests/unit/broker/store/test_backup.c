/* Hot backup and restore: a copy made while the store is written, checkpointed and cut is one state that the store went
 * through, recovers, and begins new epochs; what cannot be copied says why and leaves nothing behind; the store it is
 * made of neither grows nor waits. */
#include "fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>

#include "broker/store/check.h"
#include "broker/store/internal.h"

enum { NODE = 1, STILL = 2, STILL_COUNT = 2000, KEEP = 50, PATH = 160 };

static struct xy_str path_of(char path[PATH], const char *directory, const char *name)
{
    int len = snprintf(path, PATH, "%s/%s", directory, name);
    assert_in_range(len, 1, PATH - 1);
    return xy_str_n(path, (size_t)len);
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static void remove_tree(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    while (directory != NULL && (entry = readdir(directory)) != NULL)
        (void)unlinkat(dirfd(directory), entry->d_name, 0);
    if (directory != NULL)
        closedir(directory);
    assert_int_equal(rmdir(path), 0);
}

static void append_node(struct store_shard *shard, uint64_t number, const char *name)
{
    Xylem__Store__V1__NodePut node = XYLEM__STORE__V1__NODE_PUT__INIT;
    node.node = number;
    node.name = (char *)(uintptr_t)name;
    node.creator = (char[]){ "alice@x" };
    node.epoch = 7;
    store_append(shard, RECORD_NODE_PUT, &node.base);
}

static uint64_t epoch_of(struct store *store, const char *name)
{
    struct xy_arena *arena = xy_arena_new();
    struct xy_str value;
    uint64_t epoch = 0;
    if (store_get(store_shard(store, 0), STORE_NODES, xy_str(name), arena, &value)) {
        Xylem__Store__V1__NodePut *node =
            xylem__store__v1__node_put__unpack(NULL, value.len, (const uint8_t *)value.data);
        assert_non_null(node);
        epoch = node->epoch;
        xylem__store__v1__node_put__free_unpacked(node, NULL);
    }
    xy_arena_free(&arena);
    return epoch;
}

/* One step of churn, all in one batch: an item comes, the one KEEP before it goes. */
static void churn(struct store_shard *shard, uint64_t seq, size_t bytes)
{
    static char xml[8192];
    int len =
        snprintf(xml, sizeof(xml), "<item id='%llu'>%0*d</item>", (unsigned long long)seq, (int)bytes, 0);
    append_item(shard, NODE, seq, xy_str_n(xml, (size_t)len));
    if (seq > KEEP)
        append_item_remove(shard, NODE, seq - KEEP);
    store_flush(shard);
}

static struct store_backup wait_backup(struct store *store)
{
    struct store_backup backup;
    for (int i = 0; i < 20000; i++) {
        store_backup_look(store, &backup);
        if (backup.state != STORE_BACKUP_RUNNING)
            break;
        usleep(1000);
    }
    return backup;
}

static void must_start(struct store *store, const char *path, uint64_t rate)
{
    struct xy_buf error = { 0 };
    if (!store_backup_start(store, xy_str(path), rate, &error))
        fail_msg("store_backup_start: %.*s", XY_ARG(xy_buf_view(&error)));
    xy_buf_free(&error);
}

static void say(void *ctx, const char *line)
{
    (void)ctx;
    print_message("%s\n", line);
}

static void must_be_sound(const char *directory)
{
    struct store_options options = options_for(directory, NULL, 1, false);
    struct store_check check = { .say = say };
    assert_true(store_check(&options, &check));
}

static uint64_t last_seq(struct store *store)
{
    char key[8];
    be64_put(key, NODE);
    return get_u64(store_shard(store, 0), STORE_NODE_SEQ, xy_str_n(key, 8));
}

/* Exactly the items that one moment had: the last KEEP ones up to the node's last number. */
static void must_be_one_moment(struct store *store, uint64_t at_least)
{
    char node[8];
    uint64_t last = last_seq(store);
    be64_put(node, NODE);
    assert_true(last >= at_least);
    for (uint64_t seq = last - KEEP + 1; seq <= last; seq++)
        assert_int_equal(item_flag(store_shard(store, 0), NODE, seq), 'r');
    assert_int_equal(count_below(store_shard(store, 0), STORE_ITEMS, xy_str_n(node, 8)), KEEP);
    be64_put(node, STILL);
    assert_int_equal(count_below(store_shard(store, 0), STORE_ITEMS, xy_str_n(node, 8)), STILL_COUNT);
}

/* --- the copy ------------------------------------------------------------------------------------------------------ */

/* The items of another node lie still behind those that change, so that the copy has pages to walk meanwhile. */
static void test_under_load(void **state)
{
    (void)state;
    char directory[64], path[PATH];
    make_directory(directory);
    struct store_options options = options_for(path_of(path, directory, "data").data, NULL, 1, true);
    options.checkpoint_records = 300;
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    uint64_t seq = 0;
    append_node(shard, NODE, "n");
    append_node(shard, STILL, "still");
    for (uint64_t still = 1; still <= STILL_COUNT; still++)
        append_item(shard, STILL, still, XY_STR("<item/>"));
    for (int round = 0; round < 6; round++) {
        char copy[PATH];
        path_of(copy, directory, "copy");
        while (seq < 200 * (uint64_t)(round + 1))
            churn(shard, ++seq, 100);
        wait_committed(shard, store_ticket(shard));
        uint64_t before = seq;
        struct store_backup backup = { .state = STORE_BACKUP_RUNNING };
        must_start(store, copy, round % 2 == 0 ? 0 : 3000000);
        while (backup.state == STORE_BACKUP_RUNNING) {
            churn(shard, ++seq, 100);
            if (seq % 20 == 0)
                wait_committed(shard, store_ticket(shard));
            store_backup_look(store, &backup);
        }
        if (backup.state != STORE_BACKUP_DONE)
            fail_msg("%s", backup.error);
        print_message("%llu steps meanwhile, %llu us\n", (unsigned long long)(seq - before),
                      (unsigned long long)backup.took_us);
        assert_int_equal(backup.number, round + 1);
        must_be_sound(copy);
        struct store_options restored = options_for(copy, NULL, 3, false);
        struct store *other = must_open(&restored);
        assert_true(store_was_restored(other));
        must_be_one_moment(other, before);
        store_close(&other);
        remove_tree(copy);
    }
    struct store_stats stats;
    store_stats(store, &stats);
    assert_true(stats.checkpoints > 5);
    store_close(&store);
    must_be_sound(path);
    remove_tree(path);
    remove_directory(directory);
}

/* --- the store it is made of --------------------------------------------------------------------------------------- */

/* Everything appended is committed. A writer that leaves the copy this far behind makes it give up, as it should; whether
 * it does depends on who else uses the disk. */
static void wait_copied(struct store *store)
{
    enum { BEHIND_MAX = 32 }; /* entries of the log, 64 KiB each */
    for (int i = 0; i < 20000; i++) {
        pthread_mutex_lock(&store->lock);
        bool behind = store->held_from < store->position && store->position - store->held_from > BEHIND_MAX;
        pthread_mutex_unlock(&store->lock);
        if (!behind)
            return;
        usleep(1000);
    }
    fail_msg("the copy stands still");
}

/* A copy that takes its time over 100 MB of churn: neither file grows beyond what it would without. */
static void test_source_stays_small(void **state)
{
    (void)state;
    char directory[64], data[PATH], copy[PATH];
    struct store_backup backup;
    make_directory(directory);
    (void)path_of(copy, directory, "copy");
    struct store_options options = options_for(path_of(data, directory, "data").data, NULL, 1, true);
    options.log_bytes_max = 16 << 20;
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    append_node(shard, NODE, "n");
    append_node(shard, STILL, "still");
    static char xml[2000];
    (void)snprintf(xml, sizeof(xml), "<item>%01980d</item>", 0);
    for (uint64_t still = 1; still <= STILL_COUNT; still++)
        append_item(shard, STILL, still, xy_str(xml));
    store_close(&store); /* into the tables */
    store = must_open(&options);
    shard = store_shard(store, 0);
    must_start(store, copy, 1 << 20); /* four seconds for the still ones */
    uint64_t seq = 0;
    do {
        churn(shard, ++seq, 4000);
        if (seq % 50 == 0) {
            wait_committed(shard, store_ticket(shard));
            wait_copied(store);
        }
        for (int i = 0; i < 20000 && !store_room(shard, 5000); i++) { /* a slow disk: until a checkpoint */
            store_flush(shard);
            usleep(1000);
        }
        assert_true(store_room(shard, 5000));
        store_backup_look(store, &backup);
    } while (seq < 25000 || backup.state == STORE_BACKUP_RUNNING);
    if (backup.state != STORE_BACKUP_DONE)
        fail_msg("%s", backup.error);
    print_message(
        "after %llu MB in %llu ms of copying: log %llu KiB, tables %llu KiB, copied %llu KiB and %llu of "
        "the log\n",
        (unsigned long long)seq * 4 / 1000, (unsigned long long)backup.took_us / 1000,
        (unsigned long long)files_bytes(data, "log") / 1024,
        (unsigned long long)files_bytes(data, "tables") / 1024, (unsigned long long)backup.bytes / 1024,
        (unsigned long long)backup.log_bytes / 1024);
    assert_true(files_bytes(data, "log") < 2 * options.log_bytes_max);
    assert_true(files_bytes(data, "tables") < 32 << 20);
    store_close(&store);
    must_be_sound(copy);
    remove_tree(copy);
    remove_tree(data);
    remove_directory(directory);
}

/* A copy that stands still while half of the log fills has lost: the log is cut, and who publishes does not notice. */
static void test_hold_breaks(void **state)
{
    (void)state;
    struct store_memory *memory = store_memory_new();
    struct store_options options = options_for(NULL, store_memory_backend(memory), 1, false);
    options.log_bytes_max = 1 << 20;
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    store->held_from = 0; /* as a copy that read nothing yet */
    uint64_t seq = 0;
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < 20; i++)
            churn(shard, ++seq, 4000);
        while (store_step_commit(store))
            ;
        assert_true(store_step_checkpoint(store));
        assert_true(store_room(shard, 10000));
        struct store_stats stats;
        store_stats(store, &stats);
        assert_true(stats.log_bytes < options.log_bytes_max * 3 / 4);
        if (round < 4)
            assert_false(store->hold_broken);
    }
    assert_true(store->hold_broken);
    store_close(&store);
    store_memory_free(&memory);
}

/* The copy learns that it has lost, says why, and leaves nothing. */
static void test_lost(void **state)
{
    (void)state;
    char directory[64], data[PATH], copy[PATH], partial[PATH];
    make_directory(directory);
    (void)path_of(copy, directory, "copy");
    (void)path_of(partial, directory, "copy.partial");
    struct store_options options = options_for(path_of(data, directory, "data").data, NULL, 1, true);
    struct store *store = must_open(&options);
    for (uint64_t seq = 1; seq <= STILL_COUNT; seq++)
        append_item(store_shard(store, 0), STILL, seq, XY_STR("<item/>"));
    store_close(&store);
    store = must_open(&options);
    must_start(store, copy, 1);
    struct store_backup backup = { .bytes = 0 };
    for (int i = 0; i < 5000 && backup.bytes == 0; i++) {
        usleep(1000);
        store_backup_look(store, &backup);
    }
    pthread_mutex_lock(&store->lock);
    store->hold_broken = true;
    store->held_from = UINT64_MAX;
    pthread_mutex_unlock(&store->lock);
    backup = wait_backup(store);
    assert_int_equal(backup.state, STORE_BACKUP_FAILED);
    assert_non_null(strstr(backup.error, "too slow for what is written"));
    assert_false(exists(copy) || exists(partial));
    must_start(store, copy, 0);
    assert_int_equal(wait_backup(store).state, STORE_BACKUP_DONE);
    store_close(&store);
    remove_tree(copy);
    remove_tree(data);
    remove_directory(directory);
}

/* --- what goes wrong ----------------------------------------------------------------------------------------------- */

static void must_not_start(struct store *store, const char *path, const char *why)
{
    struct xy_buf error = { 0 };
    assert_false(store_backup_start(store, xy_str(path), 0, &error));
    xy_buf_char(&error, '\0');
    assert_non_null(strstr(error.data, why));
    xy_buf_free(&error);
}

static void test_refused(void **state)
{
    (void)state;
    char directory[64], data[PATH], copy[PATH], other[PATH];
    make_directory(directory);
    (void)path_of(copy, directory, "copy");
    (void)path_of(other, directory, "none/copy");
    struct store_options options = options_for(path_of(data, directory, "data").data, NULL, 1, true);
    struct store *store = must_open(&options);
    must_not_start(store, "copy", "must be an absolute path");
    must_not_start(store, "/", "must be an absolute path");
    must_not_start(store, "", "must be an absolute path");
    must_start(store, data, 0);
    struct store_backup backup = wait_backup(store);
    assert_int_equal(backup.state, STORE_BACKUP_FAILED);
    assert_non_null(strstr(backup.error, "exists and is not an empty directory"));
    must_start(store, other, 0);
    backup = wait_backup(store);
    assert_int_equal(backup.state, STORE_BACKUP_FAILED);
    assert_non_null(strstr(backup.error, "No such file or directory"));

    struct store_shard *shard = store_shard(store, 0);
    append_node(shard, NODE, "n");
    for (uint64_t seq = 1; seq < 2000; seq++)
        churn(shard, seq, 10);
    wait_committed(shard, store_ticket(shard));
    store_close(&store);
    store = must_open(&options);
    must_start(store, copy, 1);
    must_not_start(store, other, "a backup to");
    for (int i = 0; i < 5000 && backup.bytes == 0; i++) {
        usleep(1000);
        store_backup_look(store, &backup);
    }
    assert_int_equal(backup.state, STORE_BACKUP_RUNNING);
    store_close(&store); /* ends it, and takes away what was begun */
    assert_false(exists(copy));
    (void)path_of(other, directory, "copy.partial");
    assert_false(exists(other));

    store = must_open(&options);
    assert_int_equal(mkdir(other, 0700), 0);
    must_start(store, copy, 0);
    backup = wait_backup(store);
    assert_non_null(strstr(backup.error, "one did not finish"));
    assert_true(exists(other)); /* not ours to remove */
    assert_int_equal(rmdir(other), 0);
    assert_int_equal(mkdir(copy, 0700), 0); /* an empty directory may be there */
    must_start(store, copy, 0);
    backup = wait_backup(store);
    assert_int_equal(backup.state, STORE_BACKUP_DONE);
    store_close(&store);
    remove_tree(copy);
    remove_tree(data);
    remove_directory(directory);
}

static void test_full(void **state)
{
    (void)state;
    char directory[64], data[PATH], disk[PATH], copy[PATH];
    make_directory(directory);
    (void)path_of(disk, directory, "disk");
    (void)path_of(copy, disk, "copy");
    assert_int_equal(mkdir(disk, 0700), 0);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=4m") != 0) {
        rmdir(disk);
        remove_directory(directory);
        skip();
    }
    struct store_options options = options_for(path_of(data, directory, "data").data, NULL, 1, true);
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    for (uint64_t seq = 1; seq <= 4000; seq++) {
        static char payload[4000];
        append_item(shard, STILL, seq, xy_str_n(payload, sizeof(payload)));
        store_flush(shard);
    }
    wait_committed(shard, store_ticket(shard));
    store_close(&store);
    store = must_open(&options);
    must_start(store, copy, 0);
    struct store_backup backup = wait_backup(store);
    assert_int_equal(backup.state, STORE_BACKUP_FAILED);
    print_message("%s\n", backup.error);
    assert_non_null(strstr(backup.error, "the disk would be full"));
    assert_false(exists(copy));
    append_item(store_shard(store, 0), STILL, 4001, XY_STR("x")); /* the store did not notice */
    store_flush(store_shard(store, 0));
    wait_committed(store_shard(store, 0), store_ticket(store_shard(store, 0)));
    store_close(&store);
    assert_int_equal(umount(disk), 0);
    assert_int_equal(rmdir(disk), 0);
    remove_tree(data);
    remove_directory(directory);
}

/* --- restore ------------------------------------------------------------------------------------------------------- */

static void make_file(const char *directory, const char *name, const char *text)
{
    char path[PATH];
    FILE *file = fopen(path_of(path, directory, name).data, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void append_session(struct store_shard *shard)
{
    Xylem__Store__V1__SessionPut session = XYLEM__STORE__V1__SESSION_PUT__INIT;
    session.id.data = (uint8_t[STORE_SESSION_ID_BYTES]){ 1 };
    session.id.len = STORE_SESSION_ID_BYTES;
    session.jid = (char[]){ "bob@x/r" };
    store_append(shard, RECORD_SESSION_PUT, &session.base);
}

static void test_new_epochs(void **state)
{
    (void)state;
    enum { NODES = 600 };
    char directory[64], data[PATH], copy[PATH], marker[PATH], secret[PATH], name[32];
    make_directory(directory);
    (void)path_of(copy, directory, "copy");
    (void)path_of(marker, copy, "restored");
    (void)path_of(secret, copy, "secret");
    struct store_options options = options_for(path_of(data, directory, "data").data, NULL, 1, true);
    struct store *store = must_open(&options);
    assert_false(store_was_restored(store));
    struct store_shard *shard = store_shard(store, 0);
    for (uint64_t number = 1; number <= NODES; number++) {
        (void)snprintf(name, sizeof(name), "node-%llu", (unsigned long long)number);
        append_node(shard, number, name);
    }
    append_session(shard);
    store_flush(shard);
    wait_committed(shard, store_ticket(shard));
    make_file(data, "secret", "kept");
    must_start(store, copy, 0);
    assert_int_equal(wait_backup(store).state, STORE_BACKUP_DONE);
    assert_int_equal(epoch_of(store, "node-1"), 7); /* the original goes on with its own */
    store_close(&store);
    assert_true(exists(marker) && exists(secret));

    options.data_dir = copy;
    options.threads = false;
    store = must_open(&options);
    assert_true(store_was_restored(store));
    assert_false(exists(marker));
    uint64_t epochs[NODES + 1] = { 0 };
    for (uint64_t number = 1; number <= NODES; number++) {
        (void)snprintf(name, sizeof(name), "node-%llu", (unsigned long long)number);
        epochs[number] = epoch_of(store, name);
        assert_true(epochs[number] != 7 && epochs[number] != epochs[number - 1]);
    }
    assert_int_equal(count_below(store_shard(store, 0), STORE_SESSIONS, XY_STR_NONE), 0);
    store_crash(&store);
    store = must_open(&options);
    assert_false(store_was_restored(store));
    assert_int_equal(epoch_of(store, "node-9"), epochs[9]);
    store_close(&store);
    remove_tree(copy);
    remove_tree(data);
    remove_directory(directory);
}

static enum store_io commit_fails(void *ctx, enum store_fault point, uint64_t count)
{
    const uint64_t *at = ctx;
    return point == FAULT_TABLES_COMMIT && count >= *at ? STORE_IO_FAILED : STORE_IO_OK;
}

/* Also by hand: a file called `restored` in any data directory, as after copying a disk's snapshot. */
static void test_interrupted(void **state)
{
    (void)state;
    char directory[64], name[32];
    make_directory(directory);
    struct store_options options = options_for(directory, NULL, 1, false);
    struct store *store = must_open(&options);
    for (uint64_t number = 1; number <= 600; number++) {
        (void)snprintf(name, sizeof(name), "node-%llu", (unsigned long long)number);
        append_node(store_shard(store, 0), number, name);
    }
    store_close(&store);
    make_file(directory, "restored", "");
    unsigned refused = 0;
    for (uint64_t at = 1; at <= 20; at++) {
        struct store_faulty *faulty = store_faulty_new(disk_backend(), commit_fails, &at);
        struct xy_buf error = { 0 };
        options.backend = store_faulty_backend(faulty);
        store = store_open(&options, &error);
        if (store == NULL)
            refused++;
        store_crash(&store);
        xy_buf_free(&error);
        store_faulty_free(&faulty);
        if (refused < at)
            break;
    }
    assert_int_equal(refused, 6); /* recovery, three pages of nodes, two tables of sessions */
    options.backend = NULL;
    store = must_open(&options);
    for (uint64_t number = 1; number <= 600; number++) {
        (void)snprintf(name, sizeof(name), "node-%llu", (unsigned long long)number);
        assert_true(epoch_of(store, name) != 7);
    }
    store_close(&store);
    remove_tree(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_under_load),  cmocka_unit_test(test_source_stays_small),
        cmocka_unit_test(test_hold_breaks), cmocka_unit_test(test_lost),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_full),
        cmocka_unit_test(test_new_epochs),  cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
