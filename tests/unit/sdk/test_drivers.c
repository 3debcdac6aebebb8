/* The drivers: what an application sees of a broker that is not there, posting from another thread, freeing in callbacks,
 * and a libuv loop that ends when it should. */
#include <pthread.h>
#include <xylem/uv.h>

#include "tests/unit/unit.h"

struct seen {
    unsigned waiting, stopped, posted;
    enum xylem_status why;
    unsigned free_after; /* this many attempts */
    uv_loop_t *loop;
    bool freed;
};

static void on_state(struct xylem_client *c, enum xylem_state state, enum xylem_status why, void *ctx)
{
    struct seen *s = ctx;
    s->why = why;
    s->stopped += state == XYLEM_STATE_STOPPED;
    s->waiting += state == XYLEM_STATE_WAITING;
    if (s->free_after && s->waiting == s->free_after) {
        s->freed = true;
        xylem_client_free(c);
    }
}

static struct xylem_client *client(struct seen *s, enum xylem_retry retry, const char *path)
{
    struct xylem_options o = XYLEM_OPTIONS;
    o.socket_path = path;
    o.retry = retry;
    o.backoff_min_ms = 5;
    o.backoff_max_ms = 10;
    o.on_state = on_state;
    o.ctx = s;
    struct xylem_client *c;
    char error[200] = "";
    assert_int_equal(xylem_client_new(&c, &o, error, sizeof error), XYLEM_OK);
    return c;
}

static void test_nobody_at_the_socket(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct xylem_client *c = client(&s, XYLEM_RETRY_NEVER, "/nonexistent/xylem.sock");
    assert_int_equal(xylem_client_run(c, -1), XYLEM_STOPPED); /* not started: nothing to wait for */
    assert_int_equal(s.stopped, 0);
    xylem_client_start(c);
    while (xylem_client_run(c, 1000) == XYLEM_OK)
        continue;
    assert_int_equal(s.stopped, 1);
    assert_int_equal(s.why, XYLEM_UNREACHABLE);
    assert_non_null(strstr(xylem_client_error(c), "/nonexistent/xylem.sock"));
    assert_non_null(strstr(xylem_client_error(c), "No such file"));
    xylem_client_free(c);
}

static void test_a_path_that_is_too_long(void **state)
{
    (void)state;
    struct seen s = { 0 };
    char path[300];
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    struct xylem_client *c = client(&s, XYLEM_RETRY_NEVER, path);
    xylem_client_start(c);
    while (xylem_client_run(c, 1000) == XYLEM_OK)
        continue;
    assert_int_equal(s.why, XYLEM_UNREACHABLE);
    xylem_client_free(c);
}

static void test_it_tries_again(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct xylem_client *c = client(&s, XYLEM_RETRY_ALWAYS, "/nonexistent/xylem.sock");
    xylem_client_start(c);
    int fd = xylem_client_fd(c);
    assert_true(fd >= 0);
    assert_int_equal(xylem_client_interest(c), XYLEM_READ);
    while (s.waiting < 5)
        assert_int_equal(xylem_client_run(c, 1000), XYLEM_OK);
    assert_int_equal(xylem_client_fd(c), fd);
    xylem_client_stop(c, 0);
    while (xylem_client_run(c, 1000) == XYLEM_OK)
        continue;
    assert_int_equal(s.stopped, 1);
    assert_int_equal(s.why, XYLEM_OK);
    xylem_client_free(c);
}

static void on_post(struct xylem_client *c, void *ctx)
{
    struct seen *s = ctx;
    s->posted++;
    xylem_client_stop(c, 0);
}

static void *poster(void *ctx)
{
    struct xylem_client *c = ((void **)ctx)[0];
    assert_int_equal(xylem_client_post(c, on_post, ((void **)ctx)[1]), XYLEM_OK);
    return NULL;
}

static void test_another_thread_may_post(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct xylem_client *c = client(&s, XYLEM_RETRY_ALWAYS, "/nonexistent/xylem.sock");
    xylem_client_start(c);
    xylem_client_run(c, 0);
    void *both[] = { c, &s };
    pthread_t thread;
    pthread_create(&thread, NULL, poster, both);
    while (xylem_client_run(c, -1) == XYLEM_OK)
        continue;
    pthread_join(thread, NULL);
    assert_int_equal(s.posted, 1);
    xylem_client_free(c);
}

static void test_freed_in_a_callback(void **state)
{
    (void)state;
    struct seen s = { .free_after = 2 };
    struct xylem_client *c = client(&s, XYLEM_RETRY_ALWAYS, "/nonexistent/xylem.sock");
    xylem_client_start(c);
    while (xylem_client_run(c, 1000) == XYLEM_OK)
        continue;
    assert_true(s.freed);
    assert_int_equal(s.waiting, 2);
}

static void test_a_loop_ends_when_its_client_is_stopped(void **state)
{
    (void)state;
    struct seen s = { 0 };
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct xylem_client *c = client(&s, XYLEM_RETRY_NEVER, "/nonexistent/xylem.sock");
    assert_int_equal(xylem_uv_attach(c, &loop), XYLEM_OK);
    assert_int_equal(xylem_uv_attach(c, &loop), XYLEM_WRONG_STATE);
    xylem_client_start(c);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(s.stopped, 1);
    xylem_client_start(c); /* again, in the same loop */
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(s.stopped, 2);
    xylem_client_free(c);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void test_freed_in_a_callback_of_a_loop(void **state)
{
    (void)state;
    struct seen s = { .free_after = 3 };
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct xylem_client *c = client(&s, XYLEM_RETRY_ALWAYS, "/nonexistent/xylem.sock");
    assert_int_equal(xylem_uv_attach(c, &loop), XYLEM_OK);
    xylem_client_start(c);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_true(s.freed);
    assert_int_equal(s.waiting, 3);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_at_the_socket),
        cmocka_unit_test(test_a_path_that_is_too_long),
        cmocka_unit_test(test_it_tries_again),
        cmocka_unit_test(test_another_thread_may_post),
        cmocka_unit_test(test_freed_in_a_callback),
        cmocka_unit_test(test_a_loop_ends_when_its_client_is_stopped),
        cmocka_unit_test(test_freed_in_a_callback_of_a_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
