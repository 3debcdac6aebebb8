/* The position file: what is added is there after reopening, a torn or corrupt tail is cut off, old records go away. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdk/src/position.h"
#include "tests/unit/unit.h"

struct fixture {
    char folder[64], file[96], lock[96];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->folder, sizeof f->folder, "/tmp/xylem-positions-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->file, sizeof f->file, "%s/positions", f->folder);
    snprintf(f->lock, sizeof f->lock, "%s/lock", f->folder);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    unlink(f->file);
    unlink(f->lock);
    rmdir(f->folder);
    free(f);
    return 0;
}

static struct xy_positions *open_positions(const struct fixture *f)
{
    char error[300] = "";
    struct xy_positions *p = xy_positions_open(f->folder, 7, error, sizeof error);
    if (!p)
        print_error("%s\n", error);
    assert_non_null(p);
    return p;
}

static void put(struct xy_positions *p, const char *key, const char *epoch, uint64_t seq)
{
    struct xy_position *position = xy_position_get(p, xy_str(key));
    snprintf(position->epoch, sizeof position->epoch, "%s", epoch);
    xy_ranges_fill(&position->handled, seq);
    xy_position_moved(p, position);
    assert_true(xy_positions_sync(p));
}

static void expect(struct xy_positions *p, const char *key, const char *epoch, uint64_t seq)
{
    struct xy_position *position = xy_position_get(p, xy_str(key));
    assert_string_equal(position->epoch, epoch);
    assert_int_equal(xy_ranges_floor(&position->handled), seq);
}

static off_t size_of(const struct fixture *f)
{
    struct stat info;
    assert_int_equal(stat(f->file, &info), 0);
    return info.st_size;
}

static void test_the_newest_record_counts(void **state)
{
    struct fixture *f = *state;
    struct xy_positions *p = open_positions(f);
    put(p, "a", "e1", 1);
    put(p, "b", "e1", 7);
    put(p, "a", "e1", 2);
    xy_positions_close(&p);
    p = open_positions(f);
    expect(p, "a", "e1", 2);
    expect(p, "b", "e1", 7);
    expect(p, "never", "", 0);
    xy_position_forget(p, xy_position_get(p, XY_STR("a")));
    assert_true(xy_positions_sync(p));
    xy_positions_close(&p);
    p = open_positions(f);
    expect(p, "a", "", 0);
    xy_positions_close(&p);
}

static void test_every_torn_tail_is_cut_off(void **state)
{
    struct fixture *f = *state;
    struct xy_positions *p = open_positions(f);
    put(p, "key", "epoch", 1);
    off_t whole = size_of(f);
    put(p, "key", "epoch", 2);
    off_t longer = size_of(f);
    xy_positions_close(&p);
    for (off_t cut = longer - 1; cut >= whole; cut--) {
        assert_int_equal(truncate(f->file, cut), 0);
        p = open_positions(f);
        expect(p, "key", "epoch", 1);
        assert_int_equal(size_of(f), whole);
        put(p, "key", "epoch", 2); /* and goes on from there */
        xy_positions_close(&p);
        p = open_positions(f);
        expect(p, "key", "epoch", 2);
        xy_positions_close(&p);
    }
}

static void test_every_flipped_byte_is_noticed(void **state)
{
    struct fixture *f = *state;
    struct xy_positions *p = open_positions(f);
    put(p, "key", "epoch", 1);
    off_t whole = size_of(f);
    put(p, "key", "epoch", 2);
    off_t longer = size_of(f);
    xy_positions_close(&p);
    char data[512];
    int file = open(f->file, O_RDWR);
    assert_int_equal(pread(file, data, sizeof data, 0), longer);
    for (off_t at = whole; at < longer; at++) {
        char wrong = (char)(data[at] ^ 0x40);
        assert_int_equal(pwrite(file, data, (size_t)longer, 0), longer);
        assert_int_equal(pwrite(file, &wrong, 1, at), 1);
        p = open_positions(f);
        expect(p, "key", "epoch", 1);
        xy_positions_close(&p);
    }
    char magic = 'X';
    assert_int_equal(pwrite(file, &magic, 1, 0), 1);
    close(file);
    char error[300] = "";
    assert_null(xy_positions_open(f->folder, 7, error, sizeof error)); /* another file, not ours to cut */
    assert_non_null(strstr(error, f->folder));
}

static void test_one_process_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct xy_positions *p = open_positions(f);
    char error[300] = "";
    assert_null(xy_positions_open(f->folder, 7, error, sizeof error));
    assert_non_null(strstr(error, "in use"));
    xy_positions_close(&p);
    p = open_positions(f);
    xy_positions_close(&p);
}

static void test_the_file_is_rewritten_when_it_holds_mostly_old_records(void **state)
{
    struct fixture *f = *state;
    struct xy_positions *p = open_positions(f);
    char key[2000];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    put(p, "other", "e", 5);
    off_t largest = 0;
    for (uint64_t seq = 1; seq <= 400; seq++) {
        put(p, key, "e", seq);
        largest = size_of(f) > largest ? size_of(f) : largest;
    }
    assert_true(largest <= XY_POSITION_COMPACT_MIN + 4096);
    xy_positions_close(&p);
    p = open_positions(f);
    expect(p, key, "e", 400);
    expect(p, "other", "e", 5);
    xy_positions_close(&p);
}

static void test_keys_have_a_bound(void **state)
{
    (void)state;
    struct xy_positions *p = xy_positions_open(NULL, 7, NULL, 0);
    static char key[XY_POSITION_KEY_MAX + 1];
    memset(key, 'k', sizeof key);
    assert_non_null(xy_position_get(p, xy_str_n(key, XY_POSITION_KEY_MAX)));
    assert_null(xy_position_get(p, xy_str_n(key, XY_POSITION_KEY_MAX + 1)));
    xy_positions_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_newest_record_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_torn_tail_is_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_flipped_byte_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_process_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_file_is_rewritten_when_it_holds_mostly_old_records, setup,
                                        teardown),
        cmocka_unit_test(test_keys_have_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
