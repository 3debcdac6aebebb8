/* The log: one line per event in both formats, nothing a peer sends can forge a line, storms are bounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/log.h"

struct fixture {
    struct log *log;
    int fd;
    uint64_t now_us;
    struct xy_env env;
    char text[1 << 20];
};

static uint64_t now(void *ctx)
{
    return ((struct fixture *)ctx)->now_us;
}

static uint64_t wall(void *ctx)
{
    (void)ctx;
    return UINT64_C(1700000000123456); /* 2023-11-14T22:13:20.123456Z */
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    char path[] = "/tmp/xylem-log-XXXXXX";
    if (!fixture)
        return -1;
    fixture->fd = mkstemp(path);
    fixture->env = (struct xy_env){ .now_us = now, .wall_us = wall, .ctx = fixture };
    fixture->log = log_new(&fixture->env, fixture->fd);
    *state = fixture;
    return unlink(path);
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    log_free(&fixture->log);
    log_free(&fixture->log);
    close(fixture->fd);
    free(fixture);
    return 0;
}

static const char *written(struct fixture *fixture)
{
    ssize_t got = pread(fixture->fd, fixture->text, sizeof fixture->text - 1, 0);
    assert_true(got >= 0);
    fixture->text[got] = '\0';
    assert_int_equal(ftruncate(fixture->fd, 0), 0);
    assert_int_equal(lseek(fixture->fd, 0, SEEK_SET), 0);
    return fixture->text;
}

static void test_text(void **state)
{
    struct fixture *f = *state;
    log_info(f->log, "started");
    assert_string_equal(written(f), "2023-11-14T22:13:20.123Z info    started\n");
    log_warning(f->log, "session closed", LOG_STR("jid", XY_STR("a@b/c")), LOG_NUM("bytes", 42),
                LOG_Z("why", "too slow"));
    assert_string_equal(
        written(f), "2023-11-14T22:13:20.123Z warning session closed jid=a@b/c bytes=42 why=\"too slow\"\n");
    log_error(f->log, "x", LOG_STR("absent", XY_STR_NONE), LOG_NUM("most", UINT64_MAX));
    assert_string_equal(written(f),
                        "2023-11-14T22:13:20.123Z error   x absent=\"\" most=18446744073709551615\n");
}

static void test_json(void **state)
{
    struct fixture *f = *state;
    log_configure(f->log, LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    log_info(f->log, "session opened", LOG_STR("jid", XY_STR("a@b")), LOG_NUM("shard", 2));
    assert_string_equal(written(f),
                        "{\"time\":\"2023-11-14T22:13:20.123Z\",\"level\":\"info\",\"event\":\"session "
                        "opened\",\"jid\":\"a@b\",\"shard\":2}\n");
}

static void test_values_cannot_forge_lines(void **state)
{
    struct fixture *f = *state;
    log_info(f->log, "x", LOG_STR("v", XY_STR("a\n2023 error \"b\"\\ k=v\x7F")));
    assert_string_equal(
        written(f), "2023-11-14T22:13:20.123Z info    x v=\"a\\u000a2023 error \\\"b\\\"\\\\ k=v\\u007f\"\n");
    log_info(f->log, "x", LOG_STR("v", XY_STR("\xC3\x28")));
    assert_string_equal(written(f), "2023-11-14T22:13:20.123Z info    x v=\"(not UTF-8)\"\n");
}

static void test_long_values_and_lines_are_cut(void **state)
{
    struct fixture *f = *state;
    char value[LOG_VALUE_MAX + 2];
    for (size_t len = LOG_VALUE_MAX - 1; len <= LOG_VALUE_MAX + 1; len++) {
        memset(value, 'v', len);
        log_info(f->log, "x", LOG_STR("v", xy_str_n(value, len)));
        size_t expected =
            strlen("2023-11-14T22:13:20.123Z info    x v=\n") + (len > LOG_VALUE_MAX ? LOG_VALUE_MAX : len);
        assert_int_equal(strlen(written(f)), expected);
    }
    /* a cut never splits a character: the last of these would */
    memset(value, 'v', LOG_VALUE_MAX - 1);
    memcpy(value + LOG_VALUE_MAX - 1, "\xC3\xA4", 2);
    log_info(f->log, "x", LOG_STR("v", xy_str_n(value, LOG_VALUE_MAX + 1)));
    assert_null(strstr(written(f), "\xC3"));

    struct xy_str long_value = xy_str_n(value, LOG_VALUE_MAX - 1);
    log_configure(f->log, LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    log_info(f->log, "x", LOG_STR("a", long_value), LOG_STR("b", long_value), LOG_STR("c", long_value),
             LOG_STR("d", long_value), LOG_NUM("e", 1));
    const char *line = written(f);
    assert_true(strlen(line) <= LOG_LINE_MAX);
    assert_string_equal(line + strlen(line) - 3, "\"}\n");
}

static void test_levels(void **state)
{
    struct fixture *f = *state;
    assert_false(log_enabled(f->log, LOG_LEVEL_DEBUG));
    log_debug(f->log, "hidden");
    assert_string_equal(written(f), "");
    log_configure(f->log, LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    log_warning(f->log, "hidden");
    assert_string_equal(written(f), "");
    log_error(f->log, "seen");
    assert_non_null(strstr(written(f), "seen"));
    log_configure(f->log, LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
    log_debug(f->log, "seen");
    assert_non_null(strstr(written(f), "debug   seen"));
    log_info(NULL, "nowhere", LOG_NUM("n", 1));
    log_configure(NULL, LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
}

static size_t lines(const char *text)
{
    size_t count = 0;
    for (; *text; text++)
        count += *text == '\n';
    return count;
}

static void test_storms_are_bounded(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < LOG_EVENTS_PER_SECOND + 7; i++)
        log_info(f->log, "bad stanza");
    log_info(f->log, "something else");
    const char *text = written(f);
    assert_int_equal(lines(text), LOG_EVENTS_PER_SECOND + 1);
    assert_non_null(strstr(text, "something else\n"));
    f->now_us += 1000000;
    log_info(f->log, "bad stanza");
    assert_string_equal(written(f), "2023-11-14T22:13:20.123Z info    bad stanza suppressed=7\n");
    log_info(f->log, "bad stanza");
    assert_string_equal(written(f), "2023-11-14T22:13:20.123Z info    bad stanza\n");
}

static void *write_many(void *ctx)
{
    struct fixture *f = ctx;
    for (int i = 0; i < 100; i++)
        log_info(f->log, i % 2 ? "one" : "two", LOG_NUM("i", i));
    return NULL;
}

static void test_threads(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, f), 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(lines(written(f)), 2 * LOG_EVENTS_PER_SECOND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_json, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values_cannot_forge_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_values_and_lines_are_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_levels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_storms_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
