/* The machine's state as a message: from samples, from this machine, and packed and unpacked again. */
#include "tests/unit/unit.h"

#include "agents/host/state.h"

static uint64_t now_us = 5000000;

static uint64_t clock_now(void *ctx)
{
    (void)ctx;
    return now_us;
}

static const struct xy_env env = { .now_us = clock_now, .wall_us = clock_now };

static void test_samples(void **state)
{
    (void)state;
    char proc_dir[64] = "tests/data/proc/first";
    struct xy_arena *arena = xy_arena_new();
    struct host_reader *reader = host_reader_new(&env, proc_dir);
    Xylem__V1__HostState host;
    assert_true(host_reader_read(reader, arena, &host));
    assert_string_equal(host.hostname, "edge-17");
    assert_string_equal(host.boot_id, "11111111-2222-4333-8444-555555555555");
    assert_int_equal(host.time_us, 5000000);
    assert_int_equal(host.uptime_ms, 350735470);
    assert_int_equal(host.interval_ms, 0); /* since boot */
    assert_int_equal(host.n_cores, 2);
    assert_int_equal(host.cpu->busy, 143); /* 13500 of 94000 ticks */
    assert_int_equal(host.load->fifteen_minutes_milli, 12050);
    assert_int_equal(host.memory->swap_free_bytes, 2000000ull * 1024);
    assert_int_equal(host.n_disks, 4);
    assert_int_equal(host.n_interfaces, 2);
    assert_string_equal(host.interfaces[0]->name, "eth0");

    /* Two seconds later, on a machine that tells only its processor times. */
    now_us += 2000000;
    snprintf(proc_dir, sizeof proc_dir, "tests/data/proc/later");
    assert_true(host_reader_read(reader, arena, &host));
    assert_int_equal(host.interval_ms, 2000);
    assert_int_equal(host.cpu->busy, 150); /* 150 of 1000 ticks */
    assert_int_equal(host.cpu->user, 100);
    assert_int_equal(host.cpu->system, 50);
    assert_int_equal(host.cpu->iowait, 50);
    assert_int_equal(host.cores[0]->busy, 0);
    assert_int_equal(host.cores[1]->core, 2);
    assert_int_equal(host.cores[1]->busy, 800);
    assert_int_equal(host.cores[1]->steal, 100);
    assert_null(host.load);
    assert_null(host.memory);
    assert_int_equal(host.n_disks, 0);
    assert_string_equal(host.hostname, "");

    snprintf(proc_dir, sizeof proc_dir, "tests/data/proc/nowhere");
    assert_false(host_reader_read(reader, arena, &host));
    host_reader_free(&reader);
    assert_null(reader);
    xy_arena_free(&arena);
}

static void test_this_machine_survives_packing(void **state)
{
    (void)state;
    struct xy_arena *arena = xy_arena_new();
    struct host_reader *reader = host_reader_new(&env, "/proc");
    Xylem__V1__HostState host;
    assert_true(host_reader_read(reader, arena, &host));
    size_t len = xylem__v1__host_state__get_packed_size(&host);
    uint8_t *packed = malloc(len);
    assert_int_equal(xylem__v1__host_state__pack(&host, packed), len);
    Xylem__V1__HostState *again = xylem__v1__host_state__unpack(NULL, len, packed);
    assert_non_null(again);
    assert_string_not_equal(again->hostname, "");
    assert_int_equal(again->n_cores, host.n_cores);
    assert_in_range(again->n_cores, 1, 4096);
    assert_in_range(again->cpu->busy, 0, 1000);
    assert_int_equal(again->memory->total_bytes, host.memory->total_bytes);
    assert_int_equal(again->n_file_systems, host.n_file_systems);
    for (size_t i = 0; i < again->n_file_systems; i++)
        assert_in_range(again->file_systems[i]->used_bytes, 0, again->file_systems[i]->total_bytes);
    xylem__v1__host_state__free_unpacked(again, NULL);
    free(packed);
    host_reader_free(&reader);
    xy_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_samples),
                                        cmocka_unit_test(test_this_machine_survives_packing) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
