/* The segment log by itself: what a crash may leave at its end and what is damage, files that are used again, cuts, readers
 * beside the writer, a data directory that has the other log. What every log must do is tested with XYLEM_TEST_LOG. */
#include "fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mount.h>

#include "broker/store/check.h"
#include "broker/store/backend_disk.h"
#include "broker/store/segment.h"
#include "core/base/encoding.h"

enum { FIRST_FRAME = SEGMENT_HEADER_BYTES, PATH = 160 };

/* Segments of the smallest size, 64 KiB. */
static struct store_log *must_open_log(const char *directory)
{
    struct store_backend_options options = { .data_dir = directory };
    struct store_log *log;
    struct xy_buf error = { 0 };
    if (!segments_open(&options, &log, &error))
        fail_msg("segments_open: %.*s", XY_ARG(xy_buf_view(&error)));
    xy_buf_free(&error);
    return log;
}

/* An entry says its position, so that a reader can tell what it got. */
static void append(struct store_log *log, uint64_t position, size_t len)
{
    static char text[256 << 10];
    assert_true(len >= 8 && len <= sizeof(text));
    memset(text, (int)('a' + position % 26), len);
    be64_put(text, position);
    assert_int_equal(log->ops->append(log, position, xy_str_n(text, len)), STORE_IO_OK);
}

static void commit(struct store_log *log)
{
    assert_int_equal(log->ops->commit(log), STORE_IO_OK);
}

struct found {
    uint64_t count, first, last, stop_at;
    bool wrong;
};

static bool note(void *ctx, uint64_t position, struct xy_str entry)
{
    struct found *found = ctx;
    if (found->count++ == 0)
        found->first = position;
    else
        found->wrong |= position != found->last + 1;
    found->last = position;
    found->wrong |= entry.len < 8 || be64_get(entry.data) != position ||
                    (entry.len > 8 && entry.data[entry.len - 1] != (char)('a' + position % 26));
    return position != found->stop_at;
}

static enum store_io read_from(struct store_log *log, uint64_t from, struct found *found)
{
    *found = (struct found){ .stop_at = UINT64_MAX };
    return log->ops->read(log, from, note, found);
}

static void must_read(struct store_log *log, uint64_t from, uint64_t first, uint64_t last)
{
    struct found found;
    assert_int_equal(read_from(log, from, &found), STORE_IO_OK);
    assert_false(found.wrong);
    assert_int_equal(found.count, last - first + 1);
    assert_int_equal(found.first, first);
    assert_int_equal(found.last, last);
}

static const char *path_of(char path[PATH], const char *directory, uint64_t first)
{
    (void)snprintf(path, PATH, "%.63s/log-%020llu.seg", directory, (unsigned long long)first);
    return path;
}

static unsigned count_files(const char *directory, const char *prefix)
{
    unsigned count = 0;
    DIR *dir = opendir(directory);
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL)
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    (void)closedir(dir);
    return count;
}

/* --- reading, cutting, several lives ------------------------------------------------------------------------------- */

static void test_many_segments(void **state)
{
    (void)state;
    char directory[64];
    uint64_t position = 0;
    make_directory(directory);
    for (int life = 0; life < 3; life++) {
        struct store_log *log = must_open_log(directory);
        for (int i = 0; i < 60; i++) {
            for (int n = 0; n <= i % 3; n++)
                position++, append(log, position, 8 + (size_t)(position * 977 % 9000));
            struct found found; /* what is not committed is not there */
            assert_int_equal(read_from(log, position, &found), STORE_IO_OK);
            assert_int_equal(found.count, 0);
            commit(log);
        }
        assert_true(count_files(directory, "log-0") > 3);
        must_read(log, 0, 1, position);
        for (uint64_t from = 1; from <= position; from += 7)
            must_read(log, from, from, position);
        log->ops->close(&log);
    }
    assert_int_equal(count_files(directory, "log-spare"), 0);
    struct store_log *log = must_open_log(directory);
    struct found found = { .stop_at = 50 };
    assert_int_equal(log->ops->read(log, 40, note, &found), STORE_IO_OK);
    assert_int_equal(found.count, 11);
    must_read(log, 51, 51, position); /* goes on where that stopped */
    must_read(log, 45, 45, position);
    log->ops->close(&log);
    remove_directory(directory);
}

/* A commit is written whole, however large, and none of it is there before. */
static void test_large_commit(void **state)
{
    (void)state;
    char directory[64];
    make_directory(directory);
    struct store_log *log = must_open_log(directory);
    append(log, 1, 100);
    commit(log);
    for (uint64_t position = 2; position <= 6; position++)
        append(log, position, 200 << 10);
    commit(log);
    append(log, 7, 100);
    log->ops->abort(log);
    append(log, 7, 300);
    commit(log);
    must_read(log, 1, 1, 7);
    log->ops->close(&log);
    log = must_open_log(directory);
    must_read(log, 3, 3, 7);
    log->ops->close(&log);
    remove_directory(directory);
}

/* The first commit of a process may be a large one, while the thread that makes spares begins. */
static void test_large_commit_first(void **state)
{
    (void)state;
    char directory[64];
    make_directory(directory);
    for (uint64_t life = 0; life < 200; life++) {
        struct store_log *log = must_open_log(directory);
        assert_true(log->ops->room(log) > 0);
        append(log, life + 1, 100 << 10);
        commit(log);
        log->ops->close(&log);
    }
    struct store_log *log = must_open_log(directory);
    must_read(log, 1, 1, 200);
    log->ops->close(&log);
    remove_directory(directory);
}

static void test_cut(void **state)
{
    (void)state;
    char directory[64];
    unsigned removed;
    make_directory(directory);
    struct store_log *log = must_open_log(directory);
    for (uint64_t position = 1; position <= 1000; position++) {
        append(log, position, 1000);
        commit(log);
        if (position % 100 != 0)
            continue;
        assert_int_equal(log->ops->cut(log, position, 16, &removed), STORE_IO_OK);
        commit(log);
        assert_int_equal(log->ops->bytes(log), 0);
    }
    for (int i = 0; i < 2000 && count_files(directory, "log-0") > 1; i++)
        usleep(1000); /* another thread takes them away */
    assert_int_equal(count_files(directory, "log-0"), 1);
    assert_true(count_files(directory, "log-spare") > 1); /* used again */
    assert_true(files_bytes(directory, "log") <= 6 * (64 << 10));
    append(log, 1001, 1000);
    commit(log);
    must_read(log, 1001, 1001, 1001);
    log->ops->close(&log);
    remove_directory(directory);
}

/* --- what a crash leaves ------------------------------------------------------------------------------------------- */

/* Three commits; *at: where each frame begins, and the end. */
static void make_three(const char *directory, uint64_t at[4])
{
    struct store_log *log = must_open_log(directory);
    at[0] = FIRST_FRAME;
    for (uint64_t i = 0; i < 3; i++) {
        append(log, 2 * i + 1, 60);
        append(log, 2 * i + 2, 100);
        commit(log);
        at[i + 1] = log->ops->bytes(log);
    }
    log->ops->close(&log);
}

static void flip(const char *path, uint64_t at)
{
    char byte;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte = (char)(byte ^ 0x10);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    (void)close(fd);
}

/* However the last commit is torn, all of it is gone, all before it is there, and the next one follows. */
static void test_torn_tail(void **state)
{
    (void)state;
    char directory[64], path[PATH];
    uint64_t at[4];
    for (int cut_short = 0; cut_short < 2; cut_short++) {
        make_directory(directory);
        make_three(directory, at);
        path_of(path, directory, 1);
        for (uint64_t byte = at[3] - 1; byte >= at[2]; byte--) {
            if (cut_short == 1)
                assert_int_equal(truncate(path, (off_t)byte), 0);
            else
                flip(path, byte);
            struct store_log *log = must_open_log(directory);
            /* Four bytes of the frame mean nothing, and zeros are put behind it. */
            bool same = cut_short == 0 && byte - at[2] >= 36 && byte - at[2] < 40;
            must_read(log, 1, 1, same ? 6 : 4);
            log->ops->close(&log);
            if (cut_short == 0)
                flip(path, byte);
        }
        struct store_log *log = must_open_log(directory);
        uint64_t next = cut_short == 1 ? 5 : 7;
        append(log, next, 50);
        commit(log);
        must_read(log, 1, 1, next);
        log->ops->close(&log);
        log = must_open_log(directory);
        must_read(log, 1, 1, next);
        log->ops->close(&log);
        remove_directory(directory);
    }
}

/* A bad frame with good ones behind it was on disk once: that is no tail. It is refused where it is needed. */
static void test_damage(void **state)
{
    (void)state;
    char directory[64], path[PATH], expected[64];
    uint64_t at[4];
    make_directory(directory);
    make_three(directory, at);
    path_of(path, directory, 1);
    for (uint64_t byte = at[0]; byte < at[2]; byte++) {
        uint64_t frame = byte < at[1] ? 0 : 1;
        if (byte - at[frame] >= 36 && byte - at[frame] < 40)
            continue; /* means nothing */
        flip(path, byte);
        struct found found;
        struct store_log *log = must_open_log(directory);
        assert_int_equal(read_from(log, 1, &found), STORE_IO_FAILED);
        assert_int_equal(found.count, 2 * frame);
        (void)snprintf(expected, sizeof(expected), "is damaged at byte %llu.", (unsigned long long)at[frame]);
        assert_non_null(strstr(log->ops->error(log), expected));
        log->ops->close(&log);
        flip(path, byte);
    }
    for (uint64_t byte = 0; byte < 36; byte++) { /* and in the file's own header */
        struct found found;
        flip(path, byte);
        struct store_log *log = must_open_log(directory);
        assert_int_equal(read_from(log, 1, &found), STORE_IO_FAILED);
        log->ops->close(&log);
        flip(path, byte);
    }
    struct store_log *log = must_open_log(directory);
    must_read(log, 1, 1, 6);
    log->ops->close(&log);
    remove_directory(directory);
}

/* A segment that is used again has frames of before behind the new ones, of the same size at the same place. */
static void test_used_again(void **state)
{
    (void)state;
    enum { PER_SEGMENT = 50 };
    char directory[64];
    unsigned removed;
    uint64_t position = 0;
    make_directory(directory);
    struct store_log *log = must_open_log(directory);
    while (position < 20 * PER_SEGMENT) {
        append(log, ++position, 1100);
        if (position % (2 * PER_SEGMENT) == 0)
            assert_int_equal(log->ops->cut(log, position, 16, &removed), STORE_IO_OK);
        commit(log);
        for (int i = 0; position % (2 * PER_SEGMENT) == 0 && count_files(directory, "log-0") > 1; i++) {
            assert_true(i < 5000);
            usleep(1000);
        }
        /* As a start after a crash at this moment would find it. */
        struct store_log *after = must_open_log(directory);
        struct found found;
        assert_int_equal(read_from(after, position, &found), STORE_IO_OK);
        assert_false(found.wrong);
        assert_int_equal(found.count, 1);
        after->ops->close(&after);
    }
    log->ops->close(&log);
    remove_directory(directory);
}

static void test_newer(void **state)
{
    (void)state;
    char directory[64], path[PATH], header[SEGMENT_HEADER_BYTES];
    uint64_t at[4];
    struct xy_buf error = { 0 };
    make_directory(directory);
    make_three(directory, at);
    int fd = open(path_of(path, directory, 1), O_RDWR);
    assert_int_equal(pread(fd, header, sizeof(header), 0), sizeof(header));
    be32_put(header + 8, SEGMENT_VERSION + 1);
    be32_put(header + 32, xy_crc32c(0, header, 32));
    assert_int_equal(pwrite(fd, header, sizeof(header), 0), sizeof(header));
    (void)close(fd);
    struct store_backend_options options = { .data_dir = directory };
    struct store_log *log = NULL;
    assert_false(segments_open(&options, &log, &error));
    assert_null(log);
    xy_buf_char(&error, '\0');
    assert_non_null(strstr(error.data, "Start the newer program again"));
    xy_buf_free(&error);
    remove_directory(directory);
}

static void touch(const char *directory, const char *name)
{
    char path[PATH];
    (void)snprintf(path, sizeof(path), "%.63s/%s", directory, name);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
}

/* Who only looks changes nothing; who writes removes what a crash left half made. */
static void test_leftovers(void **state)
{
    (void)state;
    char directory[64];
    make_directory(directory);
    touch(directory, "log-spare-3.seg");
    touch(directory, "log-new.seg");
    struct store_log *log = must_open_log(directory);
    struct found found;
    assert_int_equal(read_from(log, 1, &found), STORE_IO_OK);
    assert_int_equal(found.count, 0);
    log->ops->close(&log);
    assert_int_equal(count_files(directory, "log-"), 2);
    log = must_open_log(directory);
    append(log, 1, 10);
    commit(log);
    log->ops->close(&log);
    assert_int_equal(count_files(directory, "log-"), 1);
    remove_directory(directory);
}

/* --- readers beside the writer ------------------------------------------------------------------------------------- */

struct pace {
    struct store_log *log;
    _Atomic uint64_t committed, read;
    atomic_bool done;
    uint64_t last;
    bool wrong;
};

/* Follows the writer as a backup does, a few entries at a time, and says how far it is. */
static void *follow(void *ctx)
{
    struct pace *pace = ctx;
    while (!pace->wrong && !(atomic_load(&pace->done) && atomic_load(&pace->read) == pace->last)) {
        uint64_t committed = atomic_load(&pace->committed), read = atomic_load(&pace->read);
        struct found found = { .stop_at = read + 20 };
        bool ok = pace->log->ops->read(pace->log, read + 1, note, &found) == STORE_IO_OK && !found.wrong;
        bool came = found.count > 0 && found.first == read + 1;
        pace->wrong = !ok || (found.count > 0 && !came) || (!came && committed > read);
        if (came)
            atomic_store(&pace->read, found.last);
    }
    return NULL;
}

static void test_reader_beside(void **state)
{
    (void)state;
    enum { LAST = 6000, AHEAD = 400 };
    char directory[64];
    unsigned removed;
    pthread_t thread;
    make_directory(directory);
    struct pace pace = { .log = must_open_log(directory), .last = LAST };
    uint64_t seed = 11, position = 0;
    assert_int_equal(pthread_create(&thread, NULL, follow, &pace), 0);
    while (position < LAST) {
        for (uint64_t n = next_random(&seed) % 8 + 1; n > 0 && position < LAST; n--)
            append(pace.log, ++position, 8 + next_random(&seed) % 2000);
        uint64_t read = atomic_load(&pace.read);
        if (read > 0)
            assert_int_equal(pace.log->ops->cut(pace.log, read, 16, &removed), STORE_IO_OK);
        commit(pace.log);
        atomic_store(&pace.committed, position);
        for (int i = 0; i < 10000 && position - atomic_load(&pace.read) > AHEAD; i++)
            usleep(1000);
    }
    atomic_store(&pace.done, true);
    pthread_join(thread, NULL);
    assert_false(pace.wrong);
    assert_int_equal(atomic_load(&pace.read), LAST);
    pace.log->ops->close(&pace.log);
    remove_directory(directory);
}

/* Cutting leaves holes before a reader. */
static bool note_any(void *ctx, uint64_t position, struct xy_str entry)
{
    struct found *found = ctx;
    found->last = position - 1;
    return note(ctx, position, entry);
}

/* What is cut under a reader's hands and used again never looks like damage, or like something else, to it. */
static void *reread(void *ctx)
{
    struct pace *pace = ctx;
    while (!atomic_load(&pace->done)) {
        struct found found = { .stop_at = UINT64_MAX };
        if (pace->log->ops->read(pace->log, 0, note_any, &found) != STORE_IO_OK || found.wrong)
            pace->wrong = true;
        atomic_fetch_add(&pace->read, 1);
    }
    return NULL;
}

static void test_cut_beside_a_reader(void **state)
{
    (void)state;
    char directory[64];
    unsigned removed;
    pthread_t thread;
    make_directory(directory);
    struct pace pace = { .log = must_open_log(directory) };
    assert_int_equal(pthread_create(&thread, NULL, reread, &pace), 0);
    for (uint64_t position = 1; position <= 3000; position++) {
        append(pace.log, position, 3000);
        if (position % 40 == 0)
            assert_int_equal(pace.log->ops->cut(pace.log, position - 20, 16, &removed), STORE_IO_OK);
        commit(pace.log);
    }
    atomic_store(&pace.done, true);
    pthread_join(thread, NULL);
    assert_false(pace.wrong);
    assert_true(atomic_load(&pace.read) > 0);
    pace.log->ops->close(&pace.log);
    remove_directory(directory);
}

/* --- room ---------------------------------------------------------------------------------------------------------- */

/* Room is what is there and what whole segments the disk still takes; when somebody else takes the disk, the segments
 * at hand are enough for what may be under way. */
static void test_room(void **state)
{
    (void)state;
    char directory[64], path[PATH];
    static char block[64 << 10];
    make_directory(directory);
    if (mount("tmpfs", directory, "tmpfs", 0, "size=1m") != 0) {
        remove_directory(directory);
        skip();
    }
    struct store_log *log = must_open_log(directory);
    uint64_t position = 0, room = log->ops->room(log);
    assert_true(room > (512 << 10) && room < (1 << 20));
    append(log, ++position, 100);
    commit(log);
    for (int i = 0; i < 2000 && count_files(directory, "log-spare") == 0; i++)
        usleep(1000);
    (void)snprintf(path, sizeof(path), "%.63s/other", directory);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    while (write(fd, block, sizeof(block)) > 0)
        ;
    usleep(10000);
    room = log->ops->room(log);
    assert_true(room > 0);
    for (uint64_t used = 0; used < room; used += 1000 + 100) {
        append(log, ++position, 1000);
        commit(log);
    }
    while (log->ops->room(log) > 0) {
        append(log, ++position, 1000);
        commit(log);
    }
    for (int i = 0; i < 20; i++) { /* what nobody asks room for */
        append(log, ++position, 1000);
        commit(log);
    }
    must_read(log, 1, 1, position);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_true(log->ops->room(log) > (256 << 10));
    append(log, ++position, 60000);
    commit(log);
    (void)close(fd);
    log->ops->close(&log);
    assert_int_equal(umount(directory), 0);
    remove_directory(directory);
}

/* --- stores -------------------------------------------------------------------------------------------------------- */

static void must_say(void *ctx, const char *line)
{
    bool *said = ctx;
    *said |= strstr(line, "is damaged at byte") != NULL;
}

/* Damage that a start needs is refused, and a check tells it; damage in what the tables have is only told. */
static void test_store_refuses_damage(void **state)
{
    (void)state;
    char directory[64], path[PATH], text[512];
    make_directory(directory);
    struct store_options options = options_for(directory, &store_backend_segments, 1, false);
    struct store *store = must_open(&options);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        append_item(store_shard(store, 0), 1, seq, XY_STR("payload"));
        store_flush(store_shard(store, 0));
        assert_true(store_step_commit(store));
    }
    store_crash(&store);
    flip(path_of(path, directory, 1), FIRST_FRAME + 50);
    must_refuse(&options, text, sizeof(text));
    assert_non_null(strstr(text, "log-00000000000000000001.seg is damaged at byte 4096. Restore"));
    bool said = false;
    struct store_check check = { .say = must_say, .ctx = &said };
    assert_false(store_check(&options, &check));
    assert_true(said);
    flip(path, FIRST_FRAME + 50);
    store = must_open(&options); /* brings everything to the tables */
    assert_int_equal(item_flag(store_shard(store, 0), 1, 3), 'r');
    store_crash(&store);
    flip(path, FIRST_FRAME + 50);
    store = must_open(&options);
    assert_int_equal(item_flag(store_shard(store, 0), 1, 3), 'r');
    store_close(&store);
    remove_directory(directory);
}

static void test_missing_segment(void **state)
{
    (void)state;
    char directory[64], path[PATH], text[512];
    make_directory(directory);
    for (uint64_t position = 1; position <= 3; position++) {
        struct store_log *log = must_open_log(directory);
        append(log, position, 20);
        commit(log);
        log->ops->close(&log);
    }
    assert_int_equal(unlink(path_of(path, directory, 1)), 0);
    struct store_options options = options_for(directory, &store_backend_segments, 1, false);
    must_refuse(&options, text, sizeof(text));
    assert_non_null(strstr(text, "log entries 1 to 1 are missing"));
    remove_directory(directory);
}

static uint64_t format_of(struct store *store)
{
    return get_u64(store_shard(store, 0), STORE_META, XY_STR("format"));
}

/* The log changes its kind with the option, after crashes and stops, and everything stays. */
static void test_kind_changes(void **state)
{
    (void)state;
    char directory[64];
    make_directory(directory);
    touch(directory, "log-00000000000000000007.seg"); /* nobody's, with log.mdb beside it */
    for (uint64_t life = 0; life < 12; life++) {
        struct store_options options = options_for(directory, NULL, 1, false);
        bool segments = life / 2 % 2 == 1;
        options.log = segments ? STORE_LOG_SEGMENTS : STORE_LOG_LMDB;
        struct store *store = must_open(&options);
        assert_int_equal(store_log_changed(store), life > 0 && life % 2 == 0);
        assert_int_equal(format_of(store) == STORE_FORMAT_SEGMENTS, segments || (life > 0 && life % 4 == 0));
        assert_int_equal(get_u64(store_shard(store, 0), STORE_NODE_SEQ, XY_STR("\0\0\0\0\0\0\0\1")), life);
        append_item(store_shard(store, 0), 1, life + 1, XY_STR("x"));
        store_flush(store_shard(store, 0));
        assert_true(store_step_commit(store));
        assert_int_equal(count_files(directory, "log.mdb") > 0, !segments);
        if (life > 1)
            assert_int_equal(count_files(directory, "log-0") > 0, segments);
        if (life % 3 == 0)
            store_close(&store);
        else
            store_crash(&store);
    }
    remove_directory(directory);
}

/* A format that a program without segments knows is not found where there are any: not at the change either. */
static void test_older_programs_refuse(void **state)
{
    (void)state;
    char directory[64];
    make_directory(directory);
    struct store_options options = options_for(directory, NULL, 1, false);
    options.log = STORE_LOG_LMDB;
    struct store *store = must_open(&options);
    assert_int_equal(format_of(store), STORE_FORMAT);
    store_crash(&store);
    options.log = STORE_LOG_SEGMENTS;
    store = must_open(&options);
    assert_int_equal(format_of(store), STORE_FORMAT_SEGMENTS);
    store_crash(&store);
    remove_directory(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_segments),
        cmocka_unit_test(test_large_commit),
        cmocka_unit_test(test_large_commit_first),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_torn_tail),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_used_again),
        cmocka_unit_test(test_newer),
        cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_reader_beside),
        cmocka_unit_test(test_cut_beside_a_reader),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_store_refuses_damage),
        cmocka_unit_test(test_missing_segment),
        cmocka_unit_test(test_kind_changes),
        cmocka_unit_test(test_older_programs_refuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
