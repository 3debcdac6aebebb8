/* What survives. A child process publishes and reports over a pipe what the store said is durable; it is killed at a
 * random moment, or ends itself between two steps of commit, checkpoint or cut. Everything reported is there when the
 * store opens again. And before that: the store says "durable" only after the sync returned. */
#include "fixture.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { SHARDS = 2, WINDOW = 10 };

/* --- no acknowledgement before the sync ---------------------------------------------------------------------------- */

struct gate {
    enum store_fault at;
    enum store_io answer;
    atomic_bool closed;
    atomic_uint waiting, failures;
};

static enum store_io gate_hook(void *ctx, enum store_fault point, uint64_t count)
{
    struct gate *gate = ctx;
    (void)count;
    if (point != gate->at || !atomic_load(&gate->closed))
        return STORE_IO_OK;
    atomic_fetch_add(&gate->waiting, 1);
    while (atomic_load(&gate->closed))
        usleep(500);
    return gate->answer;
}

static void gate_failed(void *ctx, const char *why)
{
    struct gate *gate = ctx;
    assert_non_null(strstr(why, "injected"));
    atomic_fetch_add(&gate->failures, 1);
}

static void wait_for(atomic_uint *counter)
{
    for (int i = 0; i < 10000 && atomic_load(counter) == 0; i++)
        usleep(1000);
    assert_true(atomic_load(counter) > 0);
}

static void ack_after_sync(const struct store_backend *inner, const char *directory, enum store_fault at,
                           enum store_io answer)
{
    struct gate gate = { .at = at, .answer = answer };
    struct store_faulty *faulty = store_faulty_new(inner, gate_hook, &gate);
    struct store_options options = options_for(directory, store_faulty_backend(faulty), 1, true);
    options.failed = gate_failed;
    options.ctx = &gate;
    struct store *store = must_open(&options);
    struct store_shard *shard = store_shard(store, 0);
    uint64_t before = append_item(shard, 1, 1, XY_STR("x"));
    store_flush(shard);
    wait_committed(shard, before);

    atomic_store(&gate.closed, true);
    uint64_t ticket = append_item(shard, 1, 2, XY_STR("x"));
    assert_true(ticket > before);
    store_flush(shard);
    wait_for(&gate.waiting);
    usleep(20000);
    assert_int_equal(store_committed(shard), before);
    atomic_store(&gate.closed, false);

    if (answer == STORE_IO_OK) {
        wait_committed(shard, ticket);
        store_close(&store);
    } else {
        wait_for(&gate.failures);
        assert_int_equal(store_committed(shard), before);
        assert_false(store_room(shard, 1));
        append_item(shard, 1, 3, XY_STR("x"));
        store_flush(shard);
        usleep(5000);
        assert_int_equal(store_committed(shard), before);
        assert_int_equal(atomic_load(&gate.failures), 1);
        store_close(&store);
        assert_int_equal(atomic_load(&gate.failures), 1);
    }
    store_faulty_free(&faulty);
}

static void test_ack_after_sync(void **state)
{
    (void)state;
    static const enum store_fault points[] = { FAULT_LOG_APPEND, FAULT_LOG_COMMIT, FAULT_LOG_COMMITTED };
    for (size_t i = 0; i < 3; i++) {
        for (int answer = STORE_IO_OK; answer <= STORE_IO_FAILED; answer++) {
            struct store_memory *memory = store_memory_new();
            char directory[64];
            ack_after_sync(store_memory_backend(memory), NULL, points[i], (enum store_io)answer);
            store_memory_free(&memory);
            make_directory(directory);
            ack_after_sync(disk_backend(), directory, points[i], (enum store_io)answer);
            remove_directory(directory);
        }
    }
}

/* --- killed processes ---------------------------------------------------------------------------------------------- */

struct report {
    unsigned shard;
    uint64_t seq;
};

struct exit_point {
    enum store_fault at;
    uint64_t count; /* 0: never */
};

static enum store_io exit_hook(void *ctx, enum store_fault point, uint64_t count)
{
    const struct exit_point *exit_point = ctx;
    if (exit_point->count != 0 && point == exit_point->at && count >= exit_point->count)
        _exit(7);
    return STORE_IO_OK;
}

static void publish(struct store_shard *shard, uint64_t node, uint64_t seq, uint64_t *seed)
{
    static uint8_t body[3000];
    uint64_t removed = seq > WINDOW ? seq - WINDOW : 0;
    Xylem__Store__V1__ItemPut item = XYLEM__STORE__V1__ITEM_PUT__INIT;
    item.node = node;
    item.seq = seq;
    item.id = item.publisher = (char[]){ "p" };
    item.item.data = body;
    item.item.len = next_random(seed) % 50 == 0 ? sizeof(body) : 100;
    item.retained = true;
    item.removed = &removed;
    item.n_removed = removed > 0;
    store_append(shard, RECORD_ITEM_PUT, &item.base);
}

static struct store_options child_options(const char *directory, const struct store_backend *backend)
{
    struct store_options options = options_for(directory, backend, SHARDS, true);
    options.checkpoint_records = 400;
    return options;
}

/* Publishes until it dies: batches of random size on both shards, reporting every ticket that became durable. */
static _Noreturn void child(const char *directory, int out, uint64_t seed, struct exit_point exit_point,
                            const uint64_t first[SHARDS])
{
    struct store_faulty *faulty = store_faulty_new(disk_backend(), exit_hook, &exit_point);
    struct store_options options = child_options(directory, store_faulty_backend(faulty));
    struct xy_buf error = { 0 };
    struct store *store = store_open(&options, &error);
    uint64_t seq[SHARDS] = { first[0], first[1] };
    if (store == NULL)
        _exit(1);
    for (;;) {
        uint64_t ticket[SHARDS] = { 0 };
        for (unsigned i = 0; i < SHARDS; i++) {
            struct store_shard *shard = store_shard(store, i);
            for (uint64_t n = 1 + next_random(&seed) % 30; n > 0; n--)
                publish(shard, i + 1, ++seq[i], &seed);
            ticket[i] = store_ticket(shard);
            /* One shard flushes late now and then: the other's marker is older than its own. */
            if (i == 0 || next_random(&seed) % 4 > 0)
                store_flush(shard);
        }
        for (unsigned i = 0; i < SHARDS; i++) {
            struct store_shard *shard = store_shard(store, i);
            store_flush(shard);
            while (store_committed(shard) < ticket[i])
                usleep(50);
            struct report report = { i, seq[i] };
            if (write(out, &report, sizeof(report)) != sizeof(report))
                _exit(1);
        }
    }
}

/* Runs a child until it dies or `kill_after_us` passed; what it reported goes to reported[]. */
static void run_child(const char *directory, uint64_t seed, struct exit_point exit_point,
                      unsigned kill_after_us, uint64_t reported[SHARDS])
{
    int fds[2];
    uint64_t first[SHARDS] = { reported[0], reported[1] };
    assert_int_equal(pipe(fds), 0);
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        child(directory, fds[1], seed, exit_point, first);
    }
    close(fds[1]);
    if (kill_after_us > 0) {
        usleep(kill_after_us);
        kill(pid, SIGKILL);
    }
    struct report report;
    while (read(fds[0], &report, sizeof(report)) == sizeof(report))
        reported[report.shard] = report.seq;
    close(fds[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 7);
}

/* All that was reported is there, in whole: the window of each node ends at or after the last report. */
static void check_survivors(const char *directory, uint64_t reported[SHARDS])
{
    struct store_options options = child_options(directory, NULL);
    struct store *store = must_open(&options);
    for (unsigned i = 0; i < SHARDS; i++) {
        struct store_shard *shard = store_shard(store, i);
        char node[8];
        be64_put(node, i + 1);
        uint64_t seq = get_u64(shard, STORE_NODE_SEQ, xy_str_n(node, 8));
        assert_true(seq >= reported[i]);
        uint64_t kept = seq < WINDOW ? seq : WINDOW;
        assert_int_equal(count_below(shard, STORE_ITEMS, xy_str_n(node, 8)), kept);
        for (uint64_t n = 0; n < kept; n++)
            assert_int_equal(item_flag(shard, i + 1, seq - n), 'r');
        reported[i] = seq;
    }
    /* Half of the time the next round begins with a log to replay. */
    if (reported[0] % 2 == 0)
        store_close(&store);
    else
        store_crash(&store);
}

static void test_kill(void **state)
{
    (void)state;
    char directory[64];
    uint64_t reported[SHARDS] = { 0 }, seed = (uint64_t)getpid() * 2654435761u + 1;
    make_directory(directory);
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int round = 0; round < 20; round++) {
        unsigned after_us = 5000 + (unsigned)(next_random(&seed) % 80000);
        run_child(directory, next_random(&seed), (struct exit_point){ 0 }, after_us, reported);
        check_survivors(directory, reported);
    }
    print_message("20 rounds, %llu records, lost 0\n", (unsigned long long)(reported[0] + reported[1]));
    assert_true(reported[0] > 0);
    remove_directory(directory);
}

static void test_between_steps(void **state)
{
    (void)state;
    static const uint64_t counts[] = { 1, 2, 5 };
    char directory[64];
    uint64_t reported[SHARDS] = { 0 }, seed = 20011;
    make_directory(directory);
    for (int point = 0; point < FAULT_COUNT; point++) {
        for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
            struct exit_point exit_point = { (enum store_fault)point, counts[i] };
            run_child(directory, next_random(&seed), exit_point, point == FAULT_TABLES_DEL ? 300000 : 0,
                      reported);
            check_survivors(directory, reported);
        }
    }
    remove_directory(directory);
}

/* --- several shards, one commit ------------------------------------------------------------------------------------ */

struct worker {
    struct store_shard *shard;
    uint64_t node, ticket;
};

static void *work(void *ctx)
{
    struct worker *worker = ctx;
    uint64_t seed = worker->node * 7919;
    for (uint64_t seq = 1; seq <= 3000; seq++) {
        publish(worker->shard, worker->node, seq, &seed);
        if (seq % 7 == 0)
            store_flush(worker->shard);
        if (seq % 100 == 0 && item_flag(worker->shard, worker->node, seq) != 'r')
            return NULL;
        if (seq % 500 == 0)
            while (store_committed(worker->shard) < store_ticket(worker->shard)) {
                store_flush(worker->shard);
                usleep(100);
            }
    }
    store_flush(worker->shard);
    worker->ticket = store_ticket(worker->shard);
    /* Go on turning until the last checkpoint has what it asked for. */
    for (int i = 0; i < 50 || store_committed(worker->shard) < worker->ticket; i++) {
        store_flush(worker->shard);
        usleep(1000);
    }
    return NULL;
}

static void test_group_commit(void **state)
{
    (void)state;
    enum { WORKERS = 4 };
    char directory[64];
    struct worker workers[WORKERS];
    pthread_t threads[WORKERS];
    struct store_stats stats;
    make_directory(directory);
    struct store_options options = options_for(directory, NULL, WORKERS, true);
    options.checkpoint_records = 1500;
    struct store *store = must_open(&options);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){ .shard = store_shard(store, i), .node = i + 1 };
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(workers[i].ticket > 0);
        assert_true(store_committed(workers[i].shard) >= workers[i].ticket);
    }
    store_stats(store, &stats);
    assert_int_equal(stats.records, WORKERS * 3000);
    assert_int_equal(stats.queue_bytes, 0);
    assert_true(stats.checkpoints > 0);
    assert_true(stats.commits < WORKERS * (3000 / 7 + 100));
    store_close(&store);
    options.shards = 1;
    store = must_open(&options);
    for (unsigned i = 0; i < WORKERS; i++) {
        char node[8];
        be64_put(node, i + 1);
        assert_int_equal(get_u64(store_shard(store, 0), STORE_NODE_SEQ, xy_str_n(node, 8)), 3000);
        assert_int_equal(count_below(store_shard(store, 0), STORE_ITEMS, xy_str_n(node, 8)), WINDOW);
    }
    store_close(&store);
    remove_directory(directory);
}

/* --- the smallest marker decides ----------------------------------------------------------------------------------- */

static void wait_checkpoints(struct store *store, struct store_shard *shards[SHARDS], uint64_t count)
{
    struct store_stats stats = { 0 };
    for (int i = 0; i < 10000 && stats.checkpoints < count; i++) {
        for (unsigned n = 0; n < SHARDS; n++)
            store_flush(shards[n]);
        usleep(1000);
        store_stats(store, &stats);
    }
    assert_true(stats.checkpoints >= count);
}

/* One shard freezes, goes on writing, and only then the other freezes: what the first wrote in between is in no frozen
 * table, so the log must keep it. */
static void test_late_marker(void **state)
{
    (void)state;
    char directory[64], node[8];
    make_directory(directory);
    struct store_options options = options_for(directory, NULL, SHARDS, true);
    options.checkpoint_records = 10;
    struct store *store = must_open(&options);
    struct store_shard *shards[SHARDS] = { store_shard(store, 0), store_shard(store, 1) };
    struct store_stats stats = { 0 };
    uint64_t seq = 0, seed = 5;
    for (; seq < 10; seq++)
        publish(shards[0], 1, seq + 1, &seed);
    store_flush(shards[0]);
    /* The checkpoint asks soon; shard 0 answers at one of these turns, shard 1 does not turn at all. */
    for (; seq < 300; seq++) {
        publish(shards[0], 1, seq + 1, &seed);
        store_flush(shards[0]);
        usleep(200);
    }
    wait_committed(shards[0], store_ticket(shards[0]));
    store_stats(store, &stats);
    assert_int_equal(stats.checkpoints, 0);
    publish(shards[1], 2, 1, &seed);
    store_flush(shards[1]);
    for (int i = 0; i < 10000 && stats.checkpoints == 0; i++) {
        usleep(1000);
        store_stats(store, &stats);
    }
    assert_int_equal(stats.checkpoints, 1);
    usleep(20000); /* time to cut */
    store_crash(&store);
    store = must_open(&options);
    be64_put(node, 1);
    assert_int_equal(get_u64(store_shard(store, 0), STORE_NODE_SEQ, xy_str_n(node, 8)), seq);
    assert_int_equal(count_below(store_shard(store, 0), STORE_ITEMS, xy_str_n(node, 8)), WINDOW);
    store_close(&store);
    remove_directory(directory);
}

static enum store_io full_tables(void *ctx, enum store_fault point, uint64_t count)
{
    (void)count;
    return point == FAULT_TABLES_COMMIT && atomic_load((atomic_bool *)ctx) ? STORE_IO_FULL : STORE_IO_OK;
}

/* Closing in the middle of a checkpoint that finds no room: the log keeps what the tables could not take. */
static void test_close_while_full(void **state)
{
    (void)state;
    struct store_memory *memory = store_memory_new();
    atomic_bool full = false;
    struct store_faulty *faulty = store_faulty_new(store_memory_backend(memory), full_tables, &full);
    struct store_options options = options_for(NULL, store_faulty_backend(faulty), SHARDS, true);
    options.checkpoint_records = 10;
    char node[8];
    uint64_t seed = 9, seq = 0;
    be64_put(node, 1);
    for (int round = 0; round < 4; round++) {
        struct store *store = must_open(&options);
        struct store_shard *shards[SHARDS] = { store_shard(store, 0), store_shard(store, 1) };
        assert_int_equal(get_u64(shards[0], STORE_NODE_SEQ, xy_str_n(node, 8)), seq);
        atomic_store(&full, round % 2 == 0);
        for (int i = 0; i < 40; i++) {
            publish(shards[0], 1, ++seq, &seed);
            store_flush(shards[0]);
            store_flush(shards[1]);
            usleep(500);
        }
        if (round % 2 == 1)
            wait_checkpoints(store, shards, 1);
        publish(shards[0], 1, ++seq, &seed); /* in the open batch still */
        store_close(&store);
        atomic_store(&full, false);
    }
    store_faulty_free(&faulty);
    store_memory_free(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ack_after_sync), cmocka_unit_test(test_kill),
        cmocka_unit_test(test_between_steps),  cmocka_unit_test(test_group_commit),
        cmocka_unit_test(test_late_marker),    cmocka_unit_test(test_close_while_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
