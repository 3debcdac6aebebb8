/* The data directory and what may be found in it: locks, newer formats, damage, missing entries; full
 * disks; how the log grows. */
#include "fixture.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "broker/store/apply.h"
#include "core/base/encoding.h"

static void make_options(char directory[64], struct store_options *options)
{
    make_directory(directory);
    *options = options_for(directory, NULL, 1, false);
}

/* --- the directory ------------------------------------------------------------------------------------------------- */

static void test_lock(void **state)
{
    (void)state;
    char directory[64], text[512], expected[128];
    struct store_options options;
    make_options(directory, &options);
    struct store *store = must_open(&options);
    (void)snprintf(expected, sizeof(expected), "data directory %s is in use by process %ld", directory,
                   (long)getpid());
    must_refuse(&options, text, sizeof(text));
    assert_string_equal(text, expected);
    store_close(&store);
    store = must_open(&options); /* a lock that is left over does not matter */
    store_close(&store);
    remove_directory(directory);
}

static void test_directory(void **state)
{
    (void)state;
    char directory[64], path[128], text[512];
    struct store_options options;
    struct stat info;
    make_options(directory, &options);
    (void)snprintf(path, sizeof(path), "%s/new", directory);
    options.data_dir = path;
    struct store *store = must_open(&options);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    store_close(&store);
    remove_directory(path);

    (void)snprintf(path, sizeof(path), "%s/none/below", directory);
    must_refuse(&options, text, sizeof(text));
    assert_non_null(strstr(text, "parent directory does not exist"));

    (void)snprintf(path, sizeof(path), "%s/file", directory);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    must_refuse(&options, text, sizeof(text));
    assert_non_null(strstr(text, "not a directory"));
    unlink(path);
    remove_directory(directory);
}

/* As another user, in a child, because root may write everywhere. */
static void test_not_writable(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    char directory[64];
    struct store_options options;
    make_options(directory, &options);
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct xy_buf error = { 0 };
        bool refused = setuid(65534) == 0 && store_open(&options, &error) == NULL;
        xy_buf_char(&error, '\0');
        _exit(refused && strstr(error.data, "this user may not write there") != NULL ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    remove_directory(directory);
}

/* --- what is found ------------------------------------------------------------------------------------------------- */

/* Lets a test write what the store would not, through the backend itself. */
struct files {
    struct store_log *log;
    struct store_tables *tables;
};

static struct files open_files(const struct store_options *options)
{
    struct files files;
    struct xy_buf error = { 0 };
    struct store_backend_options backend = { .data_dir = options->data_dir,
                                             .map_bytes = options->map_bytes,
                                             .readers_max = 8 };
    assert_true(disk_backend()->open(disk_backend(), &backend, &files.log, &files.tables, &error));
    xy_buf_free(&error);
    return files;
}

static void close_files(struct files *files)
{
    files->log->ops->close(&files->log);
    files->tables->ops->close(&files->tables);
}

static void test_newer_format(void **state)
{
    (void)state;
    char directory[64], text[512], version[8];
    struct store_options options;
    make_options(directory, &options);
    struct store *store = must_open(&options);
    store_close(&store);
    struct files files = open_files(&options);
    be64_put(version, STORE_FORMAT_SEGMENTS + 1);
    assert_int_equal(files.tables->ops->put(files.tables, STORE_META, XY_STR("format"), xy_str_n(version, 8)),
                     0);
    assert_int_equal(files.tables->ops->commit(files.tables), STORE_IO_OK);
    close_files(&files);
    must_refuse(&options, text, sizeof(text));
    assert_non_null(strstr(text, "format is version 4"));
    assert_non_null(strstr(text, "newer program"));
    must_refuse(&options, text, sizeof(text)); /* refusing changes nothing */
    remove_directory(directory);
}

struct copy {
    char bytes[4096];
    size_t len;
    uint64_t position;
};

static bool copy_entry(void *ctx, uint64_t position, struct xy_str entry)
{
    struct copy *copy = ctx;
    assert_true(entry.len <= sizeof(copy->bytes));
    memcpy(copy->bytes, entry.data, entry.len);
    copy->len = entry.len;
    copy->position = position;
    return true;
}

/* Every single bit of an entry of three records, flipped, is noticed. */
static void test_damage(void **state)
{
    (void)state;
    char text[512];
    struct store_memory *memory = store_memory_new();
    struct store_options options = options_for(NULL, store_memory_backend(memory), 1, false);
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    for (uint64_t seq = 1; seq <= 3; seq++)
        append_item(shard, 1, seq, XY_STR("payload"));
    store_flush(shard);
    assert_true(store_step_commit(store));
    store_crash(&store);

    struct store_log *log;
    struct store_tables *tables;
    struct copy copy = { .len = 0 };
    struct xy_buf error = { 0 };
    assert_true(options.backend->open(options.backend, NULL, &log, &tables, &error));
    assert_int_equal(log->ops->read(log, 1, copy_entry, &copy), STORE_IO_OK);
    assert_true(copy.len > 0);
    log->ops->close(&log);
    tables->ops->close(&tables);
    store_memory_free(&memory);

    for (size_t bit = 0; bit < copy.len * 8; bit++) {
        memory = store_memory_new();
        options.backend = store_memory_backend(memory);
        assert_true(options.backend->open(options.backend, NULL, &log, &tables, &error));
        copy.bytes[bit / 8] = (char)(copy.bytes[bit / 8] ^ (1 << bit % 8));
        assert_int_equal(log->ops->append(log, copy.position, xy_str_n(copy.bytes, copy.len)), STORE_IO_OK);
        assert_int_equal(log->ops->commit(log), STORE_IO_OK);
        copy.bytes[bit / 8] = (char)(copy.bytes[bit / 8] ^ (1 << bit % 8));
        log->ops->close(&log);
        tables->ops->close(&tables);
        must_refuse(&options, text, sizeof(text));
        assert_non_null(strstr(text, "of log entry 1 cannot be read"));
        store_memory_free(&memory);
    }
    xy_buf_free(&error);
}

/* What a newer program wrote is refused with the advice to start that one, whether the number of the record or the
 * version of its envelope is new, and holes between known numbers are as unknown as numbers above them. */
static void test_unknown_records(void **state)
{
    (void)state;
    static const struct {
        unsigned char version, type;
    } unknown[] = { { STORE_RECORD_VERSION, RECORD_COUNT },
                    { STORE_RECORD_VERSION, 255 },
                    { STORE_RECORD_VERSION, 0 },
                    { STORE_RECORD_VERSION + 1, RECORD_ITEM_PUT } };
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        char text[512], record[12] = { 0, 0, 0, 0, (char)unknown[i].version, (char)unknown[i].type };
        be32_put(record + 8, xy_crc32c(0, record, 8));
        struct store_memory *memory = store_memory_new();
        struct store_options options = options_for(NULL, store_memory_backend(memory), 1, false);
        struct store_log *log;
        struct store_tables *tables;
        struct xy_buf error = { 0 };
        assert_true(options.backend->open(options.backend, NULL, &log, &tables, &error));
        assert_int_equal(log->ops->append(log, 1, xy_str_n(record, sizeof(record))), STORE_IO_OK);
        assert_int_equal(log->ops->commit(log), STORE_IO_OK);
        log->ops->close(&log);
        tables->ops->close(&tables);
        must_refuse(&options, text, sizeof(text));
        assert_non_null(strstr(text, "log entry 1 cannot be read"));
        assert_non_null(strstr(text, "newer"));
        assert_non_null(strstr(text, "Start the newer program again"));
        store_memory_free(&memory);
    }
    for (unsigned type = 0; type < RECORD_COUNT + 300; type++)
        if (apply_descriptor(type) != NULL)
            assert_true(type > 0 && type < RECORD_COUNT);
}

static void test_missing_entry(void **state)
{
    (void)state;
    if (on_segments())
        skip(); /* they do not lose single entries: test_segments.c */
    char directory[64], text[512];
    struct store_options options;
    make_options(directory, &options);
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        append_item(shard, 1, seq, XY_STR("x"));
        store_flush(shard);
        assert_true(store_step_commit(store));
    }
    store_crash(&store);
    struct files files = open_files(&options);
    unsigned removed;
    assert_int_equal(files.log->ops->cut(files.log, 3, 1, &removed), STORE_IO_OK);
    assert_int_equal(removed, 1);
    assert_int_equal(files.log->ops->commit(files.log), STORE_IO_OK);
    close_files(&files);
    must_refuse(&options, text, sizeof(text));
    assert_non_null(strstr(text, "log entries 1 to 1 are missing"));
    remove_directory(directory);
}

static void test_numbers(void **state)
{
    (void)state;
    struct store_memory *memory = store_memory_new();
    struct store_options options = options_for(NULL, store_memory_backend(memory), 2, false);
    uint64_t last = 0;
    for (int round = 0; round < 4; round++) {
        struct store *store = must_open(&options);
        for (int i = 0; i < 10; i++) {
            uint64_t number = store_new_number(store_shard(store, (unsigned)i % 2));
            assert_true(number > last);
            last = number;
        }
        if (round % 2 == 0)
            store_crash(&store);
        else
            store_close(&store);
    }
    store_memory_free(&memory);
}

/* --- room ---------------------------------------------------------------------------------------------------------- */

static enum store_io never(void *ctx, enum store_fault point, uint64_t count)
{
    (void)ctx, (void)point, (void)count;
    return STORE_IO_OK;
}

static void note_full(void *ctx, bool full)
{
    atomic_int *told = ctx;
    assert_int_equal(atomic_load(told), full ? 0 : 1); /* once each, in turn */
    atomic_store(told, full ? 1 : 2);
}

static void test_room(void **state)
{
    (void)state;
    for (int threads = 0; threads < 2; threads++) {
        struct store_memory *memory = store_memory_new();
        struct store_faulty *faulty = store_faulty_new(store_memory_backend(memory), never, NULL);
        struct store_options options = options_for(NULL, store_faulty_backend(faulty), 1, threads == 1);
        atomic_int told = 0;
        options.full = note_full;
        options.ctx = &told;
        store_faulty_set_room(faulty, STORE_ROOM_FACTOR * 1000);
        struct store *store = must_open(&options);
        struct store_shard *shard = store_shard(store, 0);
        assert_true(store_room(shard, 1000 - 12));
        assert_false(store_room(shard, 1001 - 12));
        append_item(shard, 1, 1, XY_STR("xxxxxxxxxxxxxxxx")); /* what is in flight counts */
        assert_false(store_room(shard, 1000 - 12));
        assert_true(store_room(shard, 900));
        store_faulty_set_room(faulty, 0);
        for (int i = 0; i < 1000 && store_room(shard, 1); i++) {
            store_flush(shard);
            if (threads == 0) {
                assert_false(store_room(shard, 1 << 20)); /* looks up again */
            } else {
                append_item(shard, 1, 2, XY_STR("x"));
                usleep(2000);
            }
        }
        assert_false(store_room(shard, 1));
        for (int i = 0; threads == 1 && i < 2000 && atomic_load(&told) != 1; i++)
            usleep(1000);
        store_faulty_set_room(faulty, 2 * STORE_ROOM_FACTOR * STORE_ROOM_TOLD_BYTES);
        for (int i = 0; i < 2000 && !store_room(shard, 1000); i++)
            usleep(1000);
        assert_true(store_room(shard, 1000)); /* without anybody writing */
        struct store_stats stats;
        store_stats(store, &stats);
        assert_true(stats.refused > 0);
        assert_int_equal(atomic_load(&told), threads == 1 ? 2 : 0);
        store_close(&store);
        store_faulty_free(&faulty);
        store_memory_free(&memory);
    }
}

struct full {
    atomic_bool full;
};

static enum store_io tables_full(void *ctx, enum store_fault point, uint64_t count)
{
    struct full *full = ctx;
    (void)count;
    return point == FAULT_TABLES_COMMIT && atomic_load(&full->full) ? STORE_IO_FULL : STORE_IO_OK;
}

/* Tables without room: the checkpoint waits and tries again, the log keeps everything, nothing fails. */
static void test_full_tables(void **state)
{
    (void)state;
    for (int threads = 0; threads < 2; threads++) {
        struct store_memory *memory = store_memory_new();
        struct full full = { .full = false };
        struct store_faulty *faulty = store_faulty_new(store_memory_backend(memory), tables_full, &full);
        struct store_options options = options_for(NULL, store_faulty_backend(faulty), 1, threads == 1);
        options.checkpoint_records = 10;
        struct store *store = must_open(&options);
        struct store_shard *shard = store_shard(store, 0);
        struct store_stats stats = { 0 };
        atomic_store(&full.full, true);
        for (uint64_t seq = 1; seq <= 20; seq++)
            append_item(shard, 1, seq, XY_STR("x"));
        store_flush(shard);
        if (threads == 0)
            assert_false(store_step_checkpoint(store));
        for (int i = 0; i < 50 && threads == 1; i++) {
            store_flush(shard);
            usleep(1000);
        }
        assert_int_equal(item_flag(shard, 1, 20), 'r');
        atomic_store(&full.full, false);
        if (threads == 0)
            assert_true(store_step_checkpoint(store));
        for (int i = 0; i < 5000 && stats.checkpoints == 0; i++) {
            store_flush(shard);
            usleep(1000);
            store_stats(store, &stats);
        }
        assert_true(stats.checkpoints > 0);
        store_crash(&store);
        store = must_open(&options);
        assert_int_equal(item_flag(store_shard(store, 0), 1, 20), 'r');
        store_close(&store);
        store_faulty_free(&faulty);
        store_memory_free(&memory);
    }
}

static atomic_int failures;

static void count_failure(void *ctx, const char *why)
{
    (void)ctx;
    print_message("failed: %s\n", why);
    atomic_fetch_add(&failures, 1);
}

/* A real file system of 24 MiB: new data is refused before it is full, the rest goes on, and room comes back. */
static void test_full_disk(void **state)
{
    (void)state;
    char directory[64], path[128];
    struct store_options options;
    make_options(directory, &options);
    if (mount("tmpfs", directory, "tmpfs", 0, "size=24m") != 0) {
        remove_directory(directory);
        skip();
    }
    (void)snprintf(path, sizeof(path), "%s/data", directory);
    options = options_for(path, NULL, 1, true);
    options.failed = count_failure;
    options.reserve_bytes = 1 << 20;
    static char payload[2000];
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    uint64_t seq = 0;
    while (seq < 100000 && store_room(shard, sizeof(payload) + 100)) {
        append_item(shard, 1, ++seq, xy_str_n(payload, sizeof(payload)));
        store_flush(shard);
        wait_committed(shard, store_ticket(shard));
    }
    assert_true(seq > 100 && seq < 100000);
    append_item_remove(shard, 1, 1); /* what ends claims still goes through */
    store_flush(shard);
    wait_committed(shard, store_ticket(shard));
    assert_int_equal(atomic_load(&failures), 0);
    store_close(&store);
    store = must_open(&options);
    shard = store_shard(store, 0);
    assert_int_equal(item_flag(shard, 1, seq), 'r');
    assert_int_equal(item_flag(shard, 1, 1), 0);

    assert_int_equal(mount("tmpfs", directory, "tmpfs", MS_REMOUNT, "size=64m"), 0);
    for (int i = 0; i < 3000 && !store_room(shard, 2000); i++)
        usleep(1000);
    assert_true(store_room(shard, 2000));
    store_close(&store);
    assert_int_equal(atomic_load(&failures), 0);
    remove_directory(path);
    assert_int_equal(umount(directory), 0);
    remove_directory(directory);
}

/* --- growth -------------------------------------------------------------------------------------------------------- */

static off_t log_size(const char *directory)
{
    char path[128];
    struct stat info;
    (void)snprintf(path, sizeof(path), "%s/log.mdb", directory);
    assert_int_equal(stat(path, &info), 0);
    return info.st_size;
}

/* Bytes that this process gave to write calls so far. */
static unsigned long long bytes_written(void)
{
    unsigned long long bytes = 0;
    char line[128];
    FILE *io = fopen("/proc/self/io", "r");
    assert_non_null(io);
    while (fgets(line, sizeof(line), io) != NULL)
        if (strncmp(line, "wchar: ", 7) == 0)
            bytes = strtoull(line + 7, NULL, 10);
    (void)fclose(io);
    return bytes;
}

static void commit_item(struct store *store, uint64_t seq, size_t len)
{
    static char payload[200000];
    assert_true(len <= sizeof(payload));
    append_item(store_shard(store, 0), 1, seq, xy_str_n(payload, len));
    store_flush(store_shard(store, 0));
    assert_true(store_step_commit(store));
}

/* A flush that has to make the file longer takes the disk much longer than one that writes over what is there. */
static void test_growth(void **state)
{
    enum { SMALL = 300, LARGE = 40 };
    (void)state;
    if (on_segments())
        skip(); /* they do not grow */
    char directory[64];
    struct store_options options;
    make_options(directory, &options);
    struct store *store = must_open(&options);
    off_t size = log_size(directory), begin = size;
    unsigned changes = 0;
    for (uint64_t seq = 1; seq <= SMALL; seq++) {
        commit_item(store, seq, 1000);
        changes += log_size(directory) != size;
        size = log_size(directory);
    }
    assert_true(size - begin > SMALL * 1000);
    assert_true(size - begin < SMALL * 1000 * 2);
    assert_in_range(changes, 1, SMALL / 30);

    unsigned long long written = bytes_written();
    for (uint64_t seq = SMALL + 1; seq <= SMALL + LARGE; seq++)
        commit_item(store, seq, 100000);
    assert_in_range(bytes_written() - written, LARGE * 100000, LARGE * 100000 * 13 / 10);
    store_crash(&store);
    store = must_open(&options);
    for (uint64_t seq = 1; seq <= SMALL + LARGE; seq++)
        assert_int_equal(item_flag(store_shard(store, 0), 1, seq), 'r');
    store_close(&store);
    remove_directory(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lock),          cmocka_unit_test(test_directory),
        cmocka_unit_test(test_not_writable),  cmocka_unit_test(test_newer_format),
        cmocka_unit_test(test_damage),        cmocka_unit_test(test_unknown_records),
        cmocka_unit_test(test_missing_entry), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_room),          cmocka_unit_test(test_full_tables),
        cmocka_unit_test(test_full_disk),     cmocka_unit_test(test_growth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
