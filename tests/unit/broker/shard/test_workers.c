/* The worker pool: jobs run elsewhere and come home, in bounded number. */
#include "tests/unit/broker/fixture.h"

struct job {
    struct workers_job work;
    unsigned ran, came_home;
};

static void run(struct workers_job *work)
{
    ((struct job *)work)->ran++;
}

static void done(struct shard *shard, void *payload)
{
    struct job *job = (struct job *)*(struct workers_job **)payload;
    assert_int_equal(shard->index, job->work.shard);
    job->came_home++;
}

static void test_by_hand(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(2, "");
    struct job job = { .work = { .run = run, .done = done, .shard = 1 } };
    assert_false(workers_step(f->workers));
    assert_true(workers_submit(f->workers, &job.work));
    assert_int_equal(job.ran, 0);
    assert_true(workers_step(f->workers));
    assert_int_equal(job.ran, 1);
    assert_int_equal(job.came_home, 0);
    fixture_run(f);
    assert_int_equal(job.came_home, 1);
    fixture_free(&f);
}

static void test_the_queue_is_bounded(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(1, "");
    struct job *jobs = calloc(WORKERS_QUEUE_MAX + 1, sizeof(*jobs));
    for (unsigned i = 0; i <= WORKERS_QUEUE_MAX; i++) {
        jobs[i].work = (struct workers_job){ .run = run, .done = done };
        assert_int_equal(workers_submit(f->workers, &jobs[i].work), i < WORKERS_QUEUE_MAX);
    }
    assert_true(workers_step(f->workers));
    assert_true(workers_submit(f->workers, &jobs[WORKERS_QUEUE_MAX].work));
    fixture_run(f);
    for (unsigned i = 0; i <= WORKERS_QUEUE_MAX; i++)
        assert_int_equal(jobs[i].came_home, 1);
    fixture_free(&f);
    free(jobs);
}

static void test_threads(void **state)
{
    (void)state;
    enum { JOBS = 200 };
    struct fixture *f = fixture_new(1, "");
    struct workers *workers = workers_new(f->group, 3);
    struct job jobs[JOBS] = { 0 };
    assert_non_null(workers);
    for (unsigned i = 0; i < JOBS; i++) {
        jobs[i].work = (struct workers_job){ .run = run, .done = done };
        assert_true(workers_submit(workers, &jobs[i].work));
    }
    workers_free(&workers); /* runs what is queued */
    assert_null(workers);
    fixture_run(f);
    for (unsigned i = 0; i < JOBS; i++)
        assert_true(jobs[i].ran == 1 && jobs[i].came_home == 1);
    workers_free(&workers);
    fixture_free(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_the_queue_is_bounded),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
