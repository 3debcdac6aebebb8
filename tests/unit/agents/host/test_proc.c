/* The parsers of /proc on committed samples, and on texts that are cut short or say nonsense. */
#include "tests/unit/unit.h"

#include "agents/host/proc.h"

static char text_data[8192];

static struct xy_str sample(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "tests/data/proc/%s", name);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    size_t len = fread(text_data, 1, sizeof text_data, file);
    fclose(file);
    assert_in_range(len, 1, sizeof text_data - 1);
    return xy_str_n(text_data, len);
}

static int setup(void **state)
{
    *state = xy_arena_new();
    return *state == NULL;
}

static int teardown(void **state)
{
    struct xy_arena *arena = *state;
    xy_arena_free(&arena);
    return 0;
}

static void test_stat(void **state)
{
    struct host_cpus cpus;
    assert_true(host_parse_stat(*state, sample("first/stat"), &cpus));
    assert_int_equal(cpus.total.user, 10000);
    assert_int_equal(cpus.total.steal, 200);
    assert_int_equal(cpus.core_count, 2);
    assert_int_equal(cpus.cores[0].core, 0);
    assert_int_equal(cpus.cores[1].core, 2); /* core 1 is offline */
    assert_int_equal(cpus.cores[1].idle, 40000);
    assert_int_equal(cpus.cores[1].softirq, 20);
    assert_true(host_parse_stat(*state, XY_STR("cpu 1 2 3 4\n"), &cpus)); /* as old kernels say it */
    assert_int_equal(cpus.total.idle, 4);
    assert_int_equal(cpus.total.iowait, 0);
    assert_int_equal(cpus.core_count, 0);
    assert_false(host_parse_stat(*state, XY_STR(""), &cpus));
    assert_false(host_parse_stat(*state, XY_STR("cpu0 1 2 3 4\n"), &cpus));
    assert_false(host_parse_stat(*state, XY_STR("cpu 1 2 3\n"), &cpus));
    assert_false(host_parse_stat(*state, XY_STR("cpu 1 2 x 4\n"), &cpus));
}

static void test_number_of_cores_is_bounded(void **state)
{
    struct host_cpus cpus;
    size_t size = 32 * (HOST_CORES_MAX + 3), len = 0;
    char *text = malloc(size);
    len += (size_t)snprintf(text, size, "cpu 1 1 1 1\n");
    for (unsigned i = 0; i < HOST_CORES_MAX + 1; i++)
        len += (size_t)snprintf(text + len, size - len, "cpu%u 1 1 1 1\n", i);
    assert_true(host_parse_stat(*state, xy_str_n(text, len), &cpus));
    assert_int_equal(cpus.core_count, HOST_CORES_MAX);
    free(text);
}

static void test_usage(void **state)
{
    (void)state;
    struct host_cpu before = { .user = 100, .idle = 100, .iowait = 100 };
    struct host_cpu after = {
        .user = 150, .nice = 10, .system = 20, .idle = 190, .iowait = 110, .irq = 5, .softirq = 5, .steal = 10
    };
    struct host_cpu_usage usage = host_cpu_usage(&before, &after);
    assert_int_equal(usage.user, 300);
    assert_int_equal(usage.system, 150);
    assert_int_equal(usage.steal, 50);
    assert_int_equal(usage.iowait, 50);
    assert_int_equal(usage.busy, 500);
    usage = host_cpu_usage(&after, &after);
    assert_int_equal(usage.busy, 0);
    after.iowait = 50; /* backwards */
    usage = host_cpu_usage(&before, &after);
    assert_int_equal(usage.iowait, 0);
}

static void test_meminfo(void **state)
{
    (void)state;
    struct host_memory memory;
    assert_true(host_parse_meminfo(sample("first/meminfo"), &memory));
    assert_int_equal(memory.total_bytes, 8127836ull * 1024);
    assert_int_equal(memory.free_bytes, 1024000ull * 1024);
    assert_int_equal(memory.available_bytes, 4096000ull * 1024);
    assert_int_equal(memory.cached_bytes, 2100000ull * 1024);
    assert_int_equal(memory.swap_total_bytes, 2097148ull * 1024);
    assert_int_equal(memory.swap_free_bytes, 2000000ull * 1024);
    assert_false(host_parse_meminfo(XY_STR("MemFree: 12 kB\n"), &memory));
    assert_false(host_parse_meminfo(XY_STR("MemTotal: many kB\n"), &memory));
    assert_false(host_parse_meminfo(XY_STR_NONE, &memory));
}

static void test_loadavg_and_uptime(void **state)
{
    (void)state;
    struct host_load load;
    uint64_t uptime_ms = 1;
    assert_true(host_parse_loadavg(sample("first/loadavg"), &load));
    assert_int_equal(load.one_minute_milli, 200);
    assert_int_equal(load.five_minutes_milli, 1180);
    assert_int_equal(load.fifteen_minutes_milli, 12050);
    assert_false(host_parse_loadavg(XY_STR("0.20 0.10"), &load));
    assert_false(host_parse_loadavg(XY_STR("0.20 0.x0 0.1"), &load));
    assert_false(host_parse_loadavg(XY_STR("0.20 0.10 99999999.0"), &load));
    assert_true(host_parse_uptime(sample("first/uptime"), &uptime_ms));
    assert_int_equal(uptime_ms, 350735470);
    assert_true(host_parse_uptime(XY_STR("7"), &uptime_ms));
    assert_int_equal(uptime_ms, 7000);
    assert_true(host_parse_uptime(XY_STR("7.12345678"), &uptime_ms));
    assert_int_equal(uptime_ms, 7123);
    assert_false(host_parse_uptime(XY_STR(""), &uptime_ms));
    assert_false(host_parse_uptime(XY_STR("18446744073709551615.9"), &uptime_ms));
}

static void test_diskstats(void **state)
{
    struct host_disk *disks;
    size_t count;
    assert_true(host_parse_diskstats(*state, sample("first/diskstats"), &disks, &count));
    assert_int_equal(count, 4);
    assert_str(disks[0].name, "nvme0n1");
    assert_int_equal(disks[0].read_ops, 1000);
    assert_int_equal(disks[0].read_bytes, 80000 * 512);
    assert_int_equal(disks[0].write_ops, 2000);
    assert_int_equal(disks[0].written_bytes, 160000 * 512);
    assert_int_equal(disks[0].busy_ms, 1500);
    assert_str(disks[1].name, "sda");
    assert_str(disks[2].name, "sdaa"); /* a disk of its own, no partition of sda */
    assert_str(disks[3].name, "dm-0");
    assert_true(host_parse_diskstats(*state, XY_STR_NONE, &disks, &count));
    assert_int_equal(count, 0);
    assert_true(host_parse_diskstats(*state, XY_STR("8 0 sda 1 2 3\n8 0"), &disks, &count));
    assert_int_equal(count, 0);
}

static void test_net_dev(void **state)
{
    struct host_interface *interfaces;
    size_t count;
    assert_true(host_parse_net_dev(*state, sample("first/net/dev"), &interfaces, &count));
    assert_int_equal(count, 2);
    assert_str(interfaces[0].name, "eth0"); /* the number touches the colon */
    assert_int_equal(interfaces[0].received_bytes, 123456789012);
    assert_int_equal(interfaces[0].received_packets, 1000);
    assert_int_equal(interfaces[0].receive_errors, 1);
    assert_int_equal(interfaces[0].receive_drops, 2);
    assert_int_equal(interfaces[0].sent_bytes, 2000000);
    assert_int_equal(interfaces[0].sent_packets, 3000);
    assert_int_equal(interfaces[0].send_errors, 4);
    assert_int_equal(interfaces[0].send_drops, 5);
    assert_str(interfaces[1].name, "wlan0.10");
    assert_true(host_parse_net_dev(*state, XY_STR("eth0: 1 2 3\n"), &interfaces, &count));
    assert_int_equal(count, 0);
}

static void test_mounts(void **state)
{
    struct host_mount *mounts;
    size_t count;
    assert_true(host_parse_mounts(*state, sample("first/self/mounts"), &mounts, &count));
    assert_int_equal(count, 4);
    assert_str(mounts[0].mount_point, "/");
    assert_str(mounts[0].type, "ext4");
    assert_str(mounts[1].mount_point, "/mnt/with space\\and\ttab");
    assert_str(mounts[2].mount_point, "/a");
    assert_str(mounts[3].mount_point, "/b");
    assert_true(host_parse_mounts(*state, XY_STR("/dev/a /x\\04 ext4\n/dev/b /y\\999 ext4\n/dev/c"), &mounts,
                                  &count));
    assert_int_equal(count, 2);
    assert_str(mounts[0].mount_point, "/x\\04");
    assert_str(mounts[1].mount_point, "/y\\999");
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_stat),
        test(test_number_of_cores_is_bounded),
        test(test_usage),
        test(test_meminfo),
        test(test_loadavg_and_uptime),
        test(test_diskstats),
        test(test_net_dev),
        test(test_mounts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
