/* The spool on disk: order, marks that survive, files that go away, torn tails cut, damage refused, full disks. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdk/spool/spool.h"
#include "tests/unit/unit.h"

#define OWNER XY_STR("alice@example.org\n")

struct fixture {
    char folder[64];
    char error[300];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->folder, sizeof f->folder, "/tmp/xylem-spool-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    *state = f;
    return 0;
}

/* The nth segment file by name; the number of them. */
static size_t segments(const struct fixture *f, size_t nth, char *path, size_t size)
{
    struct dirent **list;
    int count = scandir(f->folder, &list, NULL, alphasort);
    size_t found = 0;
    for (int i = 0; i < count; i++) {
        if (strstr(list[i]->d_name, ".spool") && !strstr(list[i]->d_name, "lock")) {
            if (found == nth && path)
                snprintf(path, size, "%s/%s", f->folder, list[i]->d_name);
            found++;
        }
        free(list[i]);
    }
    free(list);
    return found;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char path[400];
    while (segments(f, 0, path, sizeof path))
        unlink(path);
    snprintf(path, sizeof path, "%s/spool.lock", f->folder);
    unlink(path);
    rmdir(f->folder);
    free(f);
    return 0;
}

static struct xy_spool *open_as(struct fixture *f, struct xy_str owner, uint64_t bytes_max,
                                uint64_t segment_bytes)
{
    struct xy_spool_options o = {
        .folder = f->folder, .owner = owner, .bytes_max = bytes_max, .segment_bytes = segment_bytes
    };
    return xy_spool_open(&o, f->error, sizeof f->error);
}

static struct xy_spool *open_spool(struct fixture *f, uint64_t segment_bytes)
{
    struct xy_spool *s = open_as(f, OWNER, 1u << 20, segment_bytes);
    if (!s)
        print_error("%s\n", f->error);
    assert_non_null(s);
    return s;
}

static uint64_t add(struct xy_spool *s, const char *text)
{
    uint64_t number = 0;
    assert_int_equal(xy_spool_add(s, xy_str(text), NULL, &number), XY_SPOOL_OK);
    return number;
}

static void expect(struct xy_spool *s, uint64_t number, const char *text)
{
    struct xy_buf out = { 0 };
    assert_true(xy_spool_read(s, number, &out));
    assert_str(xy_buf_view(&out), text);
    xy_buf_free(&out);
}

static void test_records_come_back_in_order_without_the_done_ones(void **state)
{
    struct fixture *f = *state;
    struct xy_spool *s = open_spool(f, 0);
    uint64_t one = add(s, "one"), two = add(s, "two"), three = add(s, "three");
    assert_int_equal(two, one + 1);
    assert_int_equal(three, two + 1);
    xy_spool_done(s, two);
    assert_int_equal(xy_spool_first(s), one);
    assert_int_equal(xy_spool_pending(s), 2);
    xy_spool_close(&s); /* as a process that is killed: nothing was synced */
    s = open_spool(f, 0);
    assert_int_equal(xy_spool_pending(s), 2);
    assert_int_equal(xy_spool_bytes(s), strlen("one") + strlen("three") + 2 * XY_SPOOL_OVERHEAD);
    assert_true(xy_spool_is_done(s, two));
    expect(s, one, "one");
    expect(s, three, "three");
    assert_null(xy_spool_tag(s, one));
    assert_int_equal(add(s, "four"), three + 1);
    xy_spool_close(&s);
}

static void test_floor_moves_with_sync_only(void **state)
{
    struct fixture *f = *state;
    struct xy_spool *s = open_spool(f, 0);
    uint64_t one = add(s, "one");
    assert_true(xy_spool_sync(s));
    assert_int_equal(xy_spool_unsynced(s), 0);
    xy_spool_done(s, one);
    assert_int_equal(xy_spool_first(s), one + 1);
    assert_int_equal(xy_spool_floor(s), one);
    assert_int_equal(xy_spool_unsynced(s), 1);
    assert_true(xy_spool_sync(s));
    assert_int_equal(xy_spool_floor(s), one + 1);
    xy_spool_close(&s);
}

static void test_files_go_away_in_order(void **state)
{
    struct fixture *f = *state;
    struct xy_spool *s = open_spool(f, 200);
    uint64_t numbers[40];
    for (size_t i = 0; i < 40; i++)
        numbers[i] = add(s, "some bytes that fill a file soon");
    size_t many = segments(f, 0, NULL, 0);
    assert_true(many > 8);
    for (size_t i = 20; i < 40; i++)
        xy_spool_done(s, numbers[i]);
    assert_int_equal(segments(f, 0, NULL, 0), many); /* the oldest is still owed */
    for (size_t i = 0; i < 20; i++) {
        expect(s, numbers[i], "some bytes that fill a file soon");
        xy_spool_done(s, numbers[i]);
    }
    assert_int_equal(segments(f, 0, NULL, 0), 1);
    assert_int_equal(xy_spool_pending(s), 0);
    assert_int_equal(xy_spool_first(s), xy_spool_end(s));
    xy_spool_close(&s);
    s = open_spool(f, 200);
    assert_int_equal(xy_spool_pending(s), 0);
    assert_int_equal(add(s, "next"), numbers[39] + 1);
    xy_spool_close(&s);
}

static void test_bounded_in_bytes(void **state)
{
    struct fixture *f = *state;
    struct xy_spool *s = open_as(f, OWNER, 2 * (10 + XY_SPOOL_OVERHEAD), 0);
    uint64_t number, first = add(s, "0123456789");
    add(s, "0123456789");
    assert_int_equal(xy_spool_add(s, XY_STR("x"), NULL, &number), XY_SPOOL_FULL);
    xy_spool_done(s, first);
    assert_int_equal(xy_spool_add(s, XY_STR("0123456789x"), NULL, &number), XY_SPOOL_FULL);
    assert_int_equal(xy_spool_add(s, XY_STR("0123456789"), NULL, &number), XY_SPOOL_OK);
    xy_spool_close(&s);
    s = open_as(f, OWNER, 5, 0); /* a smaller limit keeps what is there */
    assert_int_equal(xy_spool_pending(s), 2);
    assert_int_equal(xy_spool_add(s, XY_STR("x"), NULL, &number), XY_SPOOL_FULL);
    xy_spool_done(s, xy_spool_first(s));
    xy_spool_done(s, xy_spool_first(s));
    assert_int_equal(xy_spool_add(s, XY_STR("alone"), NULL, &number), XY_SPOOL_OK);
    xy_spool_close(&s);
}

static off_t size_of(const char *path)
{
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    return info.st_size;
}

static void test_torn_tail_of_any_length_is_cut(void **state)
{
    struct fixture *f = *state;
    char path[400];
    struct xy_spool *s = open_spool(f, 0);
    uint64_t one = add(s, "one");
    assert_true(xy_spool_sync(s));
    segments(f, 0, path, sizeof path);
    off_t whole = size_of(path);
    xy_spool_close(&s);
    for (off_t cut = 1; cut < 28; cut++) {
        s = open_spool(f, 0);
        add(s, "two"); /* never synced */
        xy_spool_close(&s);
        assert_int_equal(truncate(path, whole + cut), 0);
        s = open_spool(f, 0);
        assert_int_equal(xy_spool_pending(s), 1);
        expect(s, one, "one");
        assert_int_equal(size_of(path), whole);
        xy_spool_close(&s);
    }
}

static void overwrite(const char *path, off_t at, const char *text)
{
    int file = open(path, O_WRONLY);
    assert_int_equal(pwrite(file, text, strlen(text), at), (ssize_t)strlen(text));
    close(file);
}

/* A disk may write a later page of an unsynced batch and not the earlier: that is torn as well. */
static void test_hole_in_an_unsynced_batch_is_cut(void **state)
{
    struct fixture *f = *state;
    char path[400];
    struct xy_spool *s = open_spool(f, 0);
    uint64_t one = add(s, "one");
    assert_true(xy_spool_sync(s));
    segments(f, 0, path, sizeof path);
    off_t whole = size_of(path);
    add(s, "two");
    add(s, "three");
    xy_spool_close(&s);
    overwrite(path, whole + 2, "????");
    s = open_spool(f, 0);
    assert_int_equal(xy_spool_pending(s), 1);
    assert_int_equal(xy_spool_end(s), one + 1);
    xy_spool_close(&s);
}

static void test_damage_of_what_was_taken_is_refused(void **state)
{
    struct fixture *f = *state;
    char path[400];
    struct xy_spool *s = open_spool(f, 0);
    segments(f, 0, path, sizeof path);
    off_t before = size_of(path);
    add(s, "one");
    assert_true(xy_spool_sync(s));
    add(s, "two"); /* saw the first on disk */
    xy_spool_close(&s);
    overwrite(path, before + 26, "X");
    assert_null(open_as(f, OWNER, 1u << 20, 0));
    assert_non_null(strstr(f->error, "damaged"));
    assert_non_null(strstr(f->error, strrchr(path, '/') + 1));
    assert_int_equal(unlink(path), 0); /* as the message says */
    s = open_spool(f, 0);
    assert_int_equal(xy_spool_pending(s), 0);
    xy_spool_close(&s);
}

static void test_a_file_moved_away_leaves_the_others(void **state)
{
    struct fixture *f = *state;
    char path[400];
    struct xy_spool *s = open_spool(f, 100);
    for (size_t i = 0; i < 12; i++)
        add(s, "some bytes that fill a file soon");
    xy_spool_close(&s);
    assert_true(segments(f, 2, path, sizeof path) > 3);
    overwrite(path, 60, "damage");
    assert_null(
        open_as(f, OWNER, 1u << 20, 100)); /* an older file was synced whole before the next was begun */
    assert_non_null(strstr(f->error, "damaged"));
    assert_int_equal(unlink(path), 0);
    s = open_spool(f, 100);
    assert_true(xy_spool_pending(s) >= 8 && xy_spool_pending(s) < 12);
    assert_int_equal(xy_spool_end(s), xy_spool_first(s) + 12);
    xy_spool_close(&s);
}

static void test_file_that_was_only_begun_goes(void **state)
{
    struct fixture *f = *state;
    char path[400];
    struct xy_spool *s = open_spool(f, 0);
    uint64_t one = add(s, "one");
    xy_spool_close(&s);
    for (size_t len = 0; len < 20; len += 5) {
        snprintf(path, sizeof path, "%s/%016llx.spool", f->folder, (unsigned long long)one + 1);
        int file = open(path, O_WRONLY | O_CREAT, 0600);
        assert_int_equal(write(file, "xylem spool 1\n????????", len), (ssize_t)len);
        close(file);
        s = open_spool(f, 0);
        assert_int_equal(xy_spool_pending(s), 1);
        assert_int_equal(segments(f, 0, NULL, 0), 1);
        xy_spool_close(&s);
    }
}

static void test_one_process_and_one_owner(void **state)
{
    struct fixture *f = *state;
    struct xy_spool *s = open_spool(f, 0);
    assert_null(open_as(f, OWNER, 1, 0));
    assert_non_null(strstr(f->error, "in use"));
    xy_spool_close(&s);
    assert_null(open_as(f, XY_STR("bob@example.org\n"), 1, 0));
    assert_non_null(strstr(f->error, "another account"));
    struct xy_spool_options nowhere = { .folder = "/nonexistent/folder", .owner = OWNER };
    assert_null(xy_spool_open(&nowhere, f->error, sizeof f->error));
    assert_non_null(strstr(f->error, "/nonexistent/folder"));
}

/* A file that may not grow stands for a full disk: nothing is taken, marks still count, and it goes on afterwards. */
static void test_full_disk(void **state)
{
    struct fixture *f = *state;
    struct rlimit old, small;
    uint64_t number;
    char path[400];
    signal(SIGXFSZ, SIG_IGN);
    struct xy_spool *s = open_spool(f, 0);
    uint64_t one = add(s, "one"), two = add(s, "two");
    segments(f, 0, path, sizeof path);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = (rlim_t)size_of(path) + 10;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(xy_spool_add(s, XY_STR("three"), NULL, &number), XY_SPOOL_FULL);
    xy_spool_done(s, one);
    assert_true(xy_spool_sync(s));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    add(s, "three");
    xy_spool_close(&s);
    s = open_spool(f, 0);
    assert_int_equal(xy_spool_pending(s), 2);
    expect(s, two, "two");
    expect(s, two + 1, "three");
    xy_spool_close(&s);
}

/* Against a naive model: adding, done in any order within a window, reopening, over small files. */
static void test_random_against_a_model(void **state)
{
    struct fixture *f = *state;
    uint64_t seed = 0x9e3779b97f4a7c15u, base = 1;
    bool done[4000] = { false };
    size_t count = 0, low = 0;
    struct xy_spool *s = open_spool(f, 700);
    for (size_t step = 0; step < 5500; step++) {
        size_t what = unit_below(&seed, 100);
        if (what < 50 && count < 4000) {
            char text[120];
            snprintf(text, sizeof text, "%zu %.*s", count, (int)unit_below(&seed, 100),
                     "......................................................................................."
                     ".............");
            assert_int_equal(add(s, text), base + count);
            count++;
        } else if (what < 95 && low < count) {
            size_t at = low + unit_below(&seed, count - low < 50 ? count - low : 50);
            while (done[at] && at > low)
                at--;
            if (!done[at])
                xy_spool_done(s, base + at);
            done[at] = true;
            while (low < count && done[low])
                low++;
        } else if (what >= 98) {
            xy_spool_close(&s);
            s = open_spool(f, 700);
        }
        assert_int_equal(xy_spool_first(s), base + low);
        assert_int_equal(xy_spool_end(s), base + count);
        if (low < count) {
            struct xy_buf out = { 0 };
            assert_true(xy_spool_read(s, base + low, &out));
            assert_int_equal(strtoul(out.data, NULL, 10), low);
            xy_buf_free(&out);
        }
    }
    assert_true(count > 2000 && low > 1500);
    xy_spool_close(&s);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_records_come_back_in_order_without_the_done_ones),
        TEST(test_floor_moves_with_sync_only),
        TEST(test_files_go_away_in_order),
        TEST(test_bounded_in_bytes),
        TEST(test_torn_tail_of_any_length_is_cut),
        TEST(test_hole_in_an_unsynced_batch_is_cut),
        TEST(test_damage_of_what_was_taken_is_refused),
        TEST(test_a_file_moved_away_leaves_the_others),
        TEST(test_file_that_was_only_begun_goes),
        TEST(test_one_process_and_one_owner),
        TEST(test_full_disk),
        TEST(test_random_against_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
