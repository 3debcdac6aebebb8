/* The accounts of a stopped broker: every verb, every complaint, and the time an import takes. */
#include "tests/unit/unit.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "broker/router/users.h"
#include "broker/store/store.h"
#include "core/base/env.h"

static uint64_t clock_us(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t now_us(void *ctx)
{
    (void)ctx;
    return clock_us(CLOCK_MONOTONIC);
}

static uint64_t wall_us(void *ctx)
{
    (void)ctx;
    return clock_us(CLOCK_REALTIME);
}

static void random_bytes(void *ctx, void *out, size_t len)
{
    static uint64_t seed = 99;
    (void)ctx;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)out)[i] = (uint8_t)unit_below(&seed, 256);
}

static const struct xy_env env = { now_us, wall_us, random_bytes, NULL };

struct place {
    char directory[64];
    struct config *config;
    char out[65536], err[65536];
};

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));
    struct xy_buf errors = { 0 };
    char text[256];
    (void)snprintf(place->directory, sizeof(place->directory), "/tmp/xylem-users-XXXXXX");
    assert_non_null(mkdtemp(place->directory));
    (void)snprintf(text, sizeof(text),
                   "domains = [\"example.org\", \"second.org\"]; data_dir = \"%s\"; "
                   "store { map_size = 256mb; }",
                   place->directory);
    if (!config_parse("test", xy_str(text), &place->config, &errors))
        fail_msg("%.*s", XY_ARG(xy_buf_view(&errors)));
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    static const char *const files[] = { "log.mdb", "log.mdb-lock", "tables.mdb", "tables.mdb-lock", "lock" };
    struct place *place = *state;
    char name[128];
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        (void)snprintf(name, sizeof(name), "%s/%s", place->directory, files[i]);
        (void)unlink(name);
    }
    (void)rmdir(place->directory);
    config_free(&place->config);
    free(place);
    return 0;
}

/* `verb` and one argument (or NULL), with `input` to read. */
static int run(struct place *place, const char *verb, const char *argument, const char *input)
{
    char *argv[] = { (char *)(uintptr_t)verb, (char *)(uintptr_t)argument, NULL };
    FILE *in = fmemopen((void *)(uintptr_t)(input[0] ? input : "\n"), input[0] ? strlen(input) : 1, "r");
    FILE *out = fmemopen(place->out, sizeof(place->out), "w");
    FILE *err = fmemopen(place->err, sizeof(place->err), "w");
    int code = users_command(place->config, &env, argument ? 2 : 1, argv, in, out, err);
    (void)fclose(in);
    (void)fclose(out);
    (void)fclose(err);
    return code;
}

#define assert_says(text, what)                                                                              \
    do {                                                                                                     \
        if (!strstr((text), (what)))                                                                         \
            fail_msg("\"%s\" is not in \"%s\"", (what), (text));                                             \
    } while (0)

static void test_add_list_passwd_remove(void **state)
{
    struct place *place = *state;
    assert_int_equal(run(place, "add", "Alice", "secret\n"), 0);
    assert_int_equal(run(place, "add", "bob@second.org", "secret"), 0);
    assert_int_equal(run(place, "list", NULL, ""), 0);
    assert_string_equal(place->out, "alice@example.org\nbob@second.org\n");
    assert_int_equal(run(place, "add", "alice", "secret\n"), 1);
    assert_says(place->err, "alice@example.org: the account exists already");
    assert_int_equal(run(place, "passwd", "alice", "new\n"), 0);
    assert_int_equal(run(place, "passwd", "carol", "new\n"), 1);
    assert_says(place->err, "there is no such account");
    assert_int_equal(run(place, "remove", "alice", ""), 0);
    assert_int_equal(run(place, "remove", "alice", ""), 1);
    assert_int_equal(run(place, "list", NULL, ""), 0);
    assert_string_equal(place->out, "bob@second.org\n");
}

static void test_bad_names_and_passwords(void **state)
{
    struct place *place = *state;
    static const char *const names[] = { "a b", "@example.org", "x@other.org", "x@example.org/r", "" };
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        assert_int_equal(run(place, "add", names[i], "p\n"), 1);
    assert_int_equal(run(place, "add", "alice", "\n"), 1);
    assert_says(place->err, "password");
    assert_int_equal(run(place, "list", NULL, ""), 0);
    assert_string_equal(place->out, "");
}

static void test_import_is_all_or_nothing(void **state)
{
    struct place *place = *state;
    assert_int_equal(run(place, "import", NULL, "a:1\n\nb:with:colon\r\nc: space \n"), 0);
    assert_says(place->out, "imported 3 users");
    assert_int_equal(run(place, "import", NULL, "d:1\nno colon\nb:2\ne f:1\nd:3\n"), 1);
    assert_says(place->err, "line 2: malformed: NAME:PASSWORD is expected");
    assert_says(place->err, "line 3: b@example.org: the account exists already");
    assert_says(place->err, "line 4: e f: not a user's name");
    assert_says(place->err, "line 5: d@example.org: twice in this file");
    assert_says(place->err, "nothing was imported");
    assert_int_equal(run(place, "import", NULL, "d:1\ne:\n"), 1);
    assert_says(place->err, "line 2: e@example.org: the password is empty");
    assert_int_equal(run(place, "import", "/nowhere/file", ""), 1);
    assert_says(place->err, "/nowhere/file: No such file");
    assert_int_equal(run(place, "list", NULL, ""), 0);
    assert_string_equal(place->out, "a@example.org\nb@example.org\nc@example.org\n");
}

static void test_usage(void **state)
{
    struct place *place = *state;
    static const char *const verbs[] = { "dance", "add", "passwd", "remove" };
    for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++) {
        assert_int_equal(run(place, verbs[i], NULL, ""), 2);
        assert_says(place->err, "usage: ");
    }
    assert_int_equal(run(place, "list", "extra", ""), 2);
}

static void ignore(void *ctx, unsigned shard)
{
    (void)ctx;
    (void)shard;
}

static void ignore_failure(void *ctx, const char *why)
{
    (void)ctx;
    (void)why;
}

static void test_a_running_broker_is_not_disturbed(void **state)
{
    struct place *place = *state;
    struct xy_buf error = { 0 };
    char pid[32];
    struct store_options options = {
        .data_dir = place->directory,
        .shards = 1,
        .env = &env,
        .map_bytes = 1u << 28,
        .committed = ignore,
        .failed = ignore_failure,
    };
    struct store *store = store_open(&options, &error);
    assert_non_null(store);
    assert_int_equal(run(place, "add", "alice", "p\n"), 1);
    (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
    assert_says(place->err, pid);
    store_close(&store);
    xy_buf_free(&error);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    static const struct CMUnitTest tests[] = {
        TEST(test_add_list_passwd_remove),
        TEST(test_bad_names_and_passwords),
        TEST(test_import_is_all_or_nothing),
        TEST(test_usage),
        TEST(test_a_running_broker_is_not_disturbed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
