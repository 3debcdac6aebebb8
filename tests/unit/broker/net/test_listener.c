/* Listeners: what they say when they cannot open, who is let in, and what happens when descriptors run out. */
#include "tests/unit/broker/net/kit.h"

static bool listen_error(struct kit *kit, const char *address, const char *expected)
{
    struct xy_buf error = { 0 };
    bool ok = net_listen_tcp(kit_shard(kit, 0), xy_str(address), LINK_C2S, &error);
    xy_buf_char(&error, '\0');
    if (!ok && !strstr(error.data, expected))
        fail_msg("\"%s\" is not in \"%s\"", expected, error.data);
    xy_buf_free(&error);
    return !ok;
}

static uint16_t listen_any(struct kit *kit)
{
    struct xy_buf error = { 0 };
    assert_true(net_listen_tcp(kit_shard(kit, 0), XY_STR("127.0.0.1:0"), LINK_C2S, &error));
    net_listen_start(kit_shard(kit, 0));
    return kit_port(kit, 0);
}

static void test_bad_addresses(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "", NULL);
    assert_true(listen_error(kit, "nonsense", "address:port"));
    assert_true(listen_error(kit, "127.0.0.1:", "address:port"));
    assert_true(listen_error(kit, "127.0.0.1:123456789", "address:port"));
    assert_true(listen_error(kit, "", "address:port"));
    assert_true(listen_error(kit, "192.0.2.77:0", "this machine does not have that address"));
    assert_true(listen_error(kit, "no.such.host.invalid:5222", "cannot listen on"));
    kit_free(&kit);
}

static void test_port_in_use(void **state)
{
    (void)state;
    char address[32];
    struct kit *kit = kit_new(1, "", NULL);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", listen_any(kit));
    assert_true(listen_error(kit, address, "another program has that port"));
    kit_free(&kit);
}

static void test_too_many_listeners(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "", NULL);
    for (unsigned i = 0; i < NET_LISTENERS_MAX; i++)
        assert_false(listen_error(kit, "127.0.0.1:0", ""));
    assert_true(listen_error(kit, "127.0.0.1:0", "too many listeners"));
    kit_free(&kit);
}

/* --- the local socket ----------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/xylem-net-XXXXXX";
static char path[64];

static bool listen_local(struct kit *kit, const char *where, const char *expected)
{
    struct xy_buf error = { 0 };
    bool ok = net_listen_local(kit_shard(kit, 0), xy_str(where), &error);
    xy_buf_char(&error, '\0');
    if (!ok && !strstr(error.data, expected))
        fail_msg("\"%s\" is not in \"%s\"", expected, error.data);
    xy_buf_free(&error);
    return ok;
}

static int local_connect(const char *where)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", where);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    close(fd);
    return -1;
}

static void test_local_socket(void **state)
{
    (void)state;
    struct stat there;
    struct kit *kit = kit_new(1, "", NULL), *other;
    assert_true(listen_local(kit, path, ""));
    net_listen_start(kit_shard(kit, 0));
    int fd = local_connect(path);
    kit_until(kit, kit->owners_count == 1);
    assert_int_equal(kit->owners[0].link->kind, LINK_LOCAL);
    assert_int_equal(kit->owners[0].link->uid, geteuid());
    assert_true(kit->owners[0].link->loopback);
    assert_string_equal(kit->owners[0].link->peer, "");
    close(fd);
    other = kit_new(1, "", NULL);
    assert_false(listen_local(other, path, "another broker listens there"));
    kit_free(&other);
    the_kit = kit;
    assert_int_equal(stat(path, &there), 0);
    kit_free(&kit);
    assert_int_not_equal(stat(path, &there), 0); /* taken away at the end */
}

/* After a crash the file is still there. */
static void test_stale_socket_file(void **state)
{
    (void)state;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    struct kit *kit = kit_new(1, "", NULL);
    assert_true(listen_local(kit, path, ""));
    kit_free(&kit);
}

/* Somebody else's file is nobody's to remove. */
static void test_something_else_is_there(void **state)
{
    (void)state;
    char text[4], longer[200];
    struct kit *kit = kit_new(1, "", NULL);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(write(fd, "keep", 4), 4);
    close(fd);
    assert_false(listen_local(kit, path, "File exists"));
    fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, text, 4), 4);
    close(fd);
    unlink(path);
    assert_false(listen_local(kit, "/nowhere/at/all/x.sock", "does its folder exist"));
    memset(longer, 'x', sizeof(longer));
    longer[0] = '/';
    longer[108] = '\0';
    assert_false(listen_local(kit, longer, "107 bytes"));
    kit_free(&kit);
}

/* --- who is let in -------------------------------------------------------------------------------------------------- */

static void test_spread_over_shards(void **state)
{
    (void)state;
    struct kit *kit = kit_new(3, "", NULL);
    uint16_t port = listen_any(kit);
    int fds[6];
    for (unsigned i = 0; i < 6; i++)
        fds[i] = kit_connect(port);
    kit_until(kit, kit->owners_count == 6);
    unsigned on[3] = { 0 };
    for (unsigned i = 0; i < 6; i++) {
        const struct link *link = kit->owners[i].link;
        on[link->shard->index]++;
        assert_string_equal(link->peer, "127.0.0.1");
        assert_true(link->loopback);
        assert_int_equal(link->kind, LINK_C2S);
        close(fds[i]);
    }
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(on[i], 2);
    kit_free(&kit);
}

static void test_mapped_addresses(void **state)
{
    (void)state;
    struct xy_buf error = { 0 };
    struct kit *kit = kit_new(1, "", NULL);
    assert_true(
        net_listen_tcp(kit_shard(kit, 0), XY_STR("[::]:0"), LINK_C2S, &error)); /* 0.0.0.0 without IPv6 */
    net_listen_start(kit_shard(kit, 0));
    int fd = kit_connect(kit_port(kit, 0));
    kit_until(kit, kit->owners_count == 1);
    assert_string_equal(kit->owners[0].link->peer, "127.0.0.1");
    assert_true(kit->owners[0].link->loopback);
    close(fd);
    kit_free(&kit);
}

static void test_connections_per_address(void **state)
{
    (void)state;
    struct kit *kit = kit_new(2, "limits { connections_per_address = 2; }", NULL);
    uint16_t port = listen_any(kit);
    int first = kit_connect(port), second = kit_connect(port);
    kit_until(kit, kit->owners_count == 2);
    int third = kit_connect(port);
    kit_until(kit, kit_is_closed(third));
    assert_int_equal(kit->owners_count, 2);
    close(third);
    close(first);
    kit_until(kit, kit->owners[0].gones + kit->owners[1].gones == 1);
    kit_settle(kit);
    int fourth = kit_connect(port);
    kit_until(kit, kit->owners_count == 3);
    assert_false(kit_is_closed(fourth));
    close(second);
    close(fourth);
    kit_free(&kit);
}

static void test_memory_is_short(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "", NULL);
    uint16_t port = listen_any(kit);
    assert_true(listen_local(kit, path, ""));
    net_listen_stop(kit_shard(kit, 0));
    port = listen_any(kit);
    kit_settle(kit);
    shard_group_set_memory_short(kit->group, true);
    int fd = kit_connect(port);
    kit_until(kit, kit_is_closed(fd));
    assert_int_equal(kit->owners_count, 0);
    close(fd);
    kit->skew_us += 2 * NET_MEMORY_LOOK_US; /* looks again: there is plenty */
    kit_settle(kit);
    assert_false(shard_memory_is_short(kit_shard(kit, 0)));
    fd = kit_connect(port);
    kit_until(kit, kit->owners_count == 1);
    close(fd);
    kit_free(&kit);
}

/* More in use than the limit: seen within a second, and over when it is given back. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static void test_memory_is_measured(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "limits { memory = 64mb; }", NULL);
    size_t bytes = 100u << 20;
    listen_any(kit);
    kit_settle(kit);
    assert_false(shard_memory_is_short(kit_shard(kit, 0)));
    char *much = malloc(bytes);
    for (size_t i = 0; i < bytes; i += 1024)
        ((volatile char *)much)[i] = 1;
    kit->skew_us += 2 * NET_MEMORY_LOOK_US;
    kit_settle(kit);
    assert_true(shard_memory_is_short(kit_shard(kit, 0)));
    free(much);
    kit->skew_us += 2 * NET_MEMORY_LOOK_US;
    kit_settle(kit);
    assert_false(shard_memory_is_short(kit_shard(kit, 0)));
    kit_free(&kit);
}
#endif

/* Hostile input 84: no spinning, others are served, and whoever waited is let in afterwards. */
static void test_out_of_descriptors(void **state)
{
    (void)state;
    struct rlimit before, none;
    struct kit *kit = kit_new(1, "", NULL);
    uint16_t port = listen_any(kit);
    int served = kit_connect(port);
    kit_until(kit, kit->owners_count == 1);
    int waiting = kit_connect(port);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = (rlim_t)waiting + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    kit_until(kit, shard_timer_is_set(&kit_shard(kit, 0)->net->accept_pause));
    uint64_t refused = atomic_load(&kit_shard(kit, 0)->stats->connections_refused);
    kit_settle(kit);
    assert_int_equal(atomic_load(&kit_shard(kit, 0)->stats->connections_refused),
                     refused); /* it does not try on */
    kit_send(served, "still there?", 12);
    kit_until(kit, kit->owners[0].inputs == 1);
    kit->skew_us += NET_ACCEPT_PAUSE_US; /* tries once more, in vain */
    kit_until(kit, atomic_load(&kit_shard(kit, 0)->stats->connections_refused) == refused + 1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    kit->skew_us += NET_ACCEPT_PAUSE_US;
    kit_until(kit, kit->owners_count == 2);
    close(served);
    close(waiting);
    kit_free(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_addresses),
        cmocka_unit_test(test_port_in_use),
        cmocka_unit_test(test_too_many_listeners),
        cmocka_unit_test(test_local_socket),
        cmocka_unit_test(test_stale_socket_file),
        cmocka_unit_test(test_something_else_is_there),
        cmocka_unit_test(test_spread_over_shards),
        cmocka_unit_test(test_mapped_addresses),
        cmocka_unit_test(test_connections_per_address),
        cmocka_unit_test(test_memory_is_short),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(test_memory_is_measured),
#endif
        cmocka_unit_test(test_out_of_descriptors),
    };
    if (!mkdtemp(folder))
        return 1;
    (void)snprintf(path, sizeof(path), "%s/x.sock", folder);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    rmdir(folder);
    return failed;
}
