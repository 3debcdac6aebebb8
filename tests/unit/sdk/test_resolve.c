/* Name lookups against a small DNS server of our own on loopback: SRV records in order, fallback, failure, forgetting. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "sdk/drivers/resolve.h"
#include "sdk/drivers/system.h"
#include "tests/unit/unit.h"

#define TAG      (UINT64_C(1) << 40)
#define TYPE_A   1
#define TYPE_SRV 33

struct srv {
    unsigned priority, weight, port;
    const char *host; /* one label, before ".test" */
};

struct dns {
    int socket, epoll;
    struct xy_resolver *resolver;
    const struct srv *records; /* of the SRV name; NULL: no such name */
    size_t record_count;
    char asked[512]; /* names of SRV queries */
    bool mute;
};

static size_t put16(unsigned char *out, unsigned value)
{
    out[0] = (unsigned char)(value >> 8);
    out[1] = (unsigned char)value;
    return 2;
}

static size_t put_name(unsigned char *out, const char *label)
{
    size_t len = strlen(label);
    if (len == 0) { /* the root: "decidedly not available" */
        out[0] = 0;
        return 1;
    }
    out[0] = (unsigned char)len;
    memcpy(out + 1, label, len);
    memcpy(out + 1 + len, "\4test", 6);
    return len + 7;
}

static size_t answer_head(unsigned char *out, unsigned type, size_t data_len)
{
    size_t n = put16(out, 0xc00c); /* the name of the question */
    n += put16(out + n, type);
    n += put16(out + n, 1);
    n += put16(out + n, 0);
    n += put16(out + n, 60);
    return n + put16(out + n, (unsigned)data_len);
}

/* "hostN.test" has the address 127.0.0.N; everything else has none. */
static unsigned host_number(const unsigned char *question)
{
    return question[0] == 5 && memcmp(question + 1, "host", 4) == 0 ? (unsigned)(question[5] - '0') : 0;
}

static void dns_answer(struct dns *d)
{
    unsigned char q[512], out[1024];
    struct sockaddr_in peer;
    socklen_t peer_len = sizeof peer;
    ssize_t len = recvfrom(d->socket, q, sizeof q, 0, (struct sockaddr *)&peer, &peer_len);
    assert_true(len > 16);
    if (d->mute)
        return;
    size_t end = 12;
    while (q[end])
        end += q[end] + 1u;
    unsigned type = (unsigned)(q[end + 1] << 8 | q[end + 2]), count = 0;
    size_t n = end + 5;
    memcpy(out, q, n);
    if (type == TYPE_SRV) {
        snprintf(d->asked, sizeof d->asked, "%.*s", (int)(end - 12), (const char *)q + 12);
        for (size_t i = 0; i < d->record_count; i++, count++) {
            unsigned char data[64];
            size_t data_len = put16(data, d->records[i].priority);
            data_len += put16(data + data_len, d->records[i].weight);
            data_len += put16(data + data_len, d->records[i].port);
            data_len += put_name(data + data_len, d->records[i].host);
            n += answer_head(out + n, TYPE_SRV, data_len);
            memcpy(out + n, data, data_len);
            n += data_len;
        }
    } else if (type == TYPE_A && host_number(q + 12)) {
        unsigned char address[4] = { 127, 0, 0, (unsigned char)host_number(q + 12) };
        n += answer_head(out + n, TYPE_A, 4);
        memcpy(out + n, address, 4);
        n += 4;
        count = 1;
    }
    bool exists = count > 0 || (type != TYPE_SRV && host_number(q + 12));
    out[2] = 0x84;
    out[3] = (unsigned char)(0x80 | (exists ? 0 : 3));
    put16(out + 6, count);
    put16(out + 8, 0);
    put16(out + 10, 0);
    assert_int_equal(sendto(d->socket, out, n, 0, (struct sockaddr *)&peer, peer_len), (ssize_t)n);
}

static int setup(void **state)
{
    struct dns *d = calloc(1, sizeof *d);
    struct sockaddr_in own = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof own;
    char servers[64];
    d->socket = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(d->socket, (struct sockaddr *)&own, sizeof own), 0);
    getsockname(d->socket, (struct sockaddr *)&own, &len);
    d->epoll = epoll_create1(0);
    d->resolver = xy_resolver_new(d->epoll, TAG, xy_env_system());
    snprintf(servers, sizeof servers, "127.0.0.1:%u", ntohs(own.sin_port));
    assert_true(xy_resolver_set_servers(d->resolver, servers));
    *state = d;
    return 0;
}

static int teardown(void **state)
{
    struct dns *d = *state;
    xy_resolver_free(&d->resolver);
    close(d->socket);
    close(d->epoll);
    free(d);
    return 0;
}

static void one_round(struct dns *d)
{
    struct pollfd ready[] = { { .fd = d->socket, .events = POLLIN }, { .fd = d->epoll, .events = POLLIN } };
    poll(ready, 2, 100);
    if (ready[0].revents)
        dns_answer(d);
    struct epoll_event events[4];
    int count = epoll_wait(d->epoll, events, 4, 0);
    for (int i = 0; i < count; i++) {
        assert_true(events[i].data.u64 & TAG);
        xy_resolver_ready(d->resolver, (int)(uint32_t)events[i].data.u64, events[i].events & EPOLLIN,
                          events[i].events & EPOLLOUT);
    }
    xy_resolver_tick(d->resolver);
}

/* "127.0.0.N:PORT …" */
static const char *resolve(struct dns *d, struct xy_target target)
{
    static char text[512];
    text[0] = '\0';
    assert_true(xy_resolver_start(d->resolver, &target));
    for (unsigned i = 0; i < 200 && !xy_resolver_done(d->resolver); i++)
        one_round(d);
    assert_true(xy_resolver_done(d->resolver));
    assert_int_equal(xy_resolver_deadline_us(d->resolver), UINT64_MAX);
    const struct xy_address *addresses;
    size_t count = xy_resolver_addresses(d->resolver, &addresses);
    for (size_t i = 0; i < count; i++) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&addresses[i].sockaddr;
        size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "%s%s:%u", i ? " " : "", inet_ntoa(in->sin_addr),
                 ntohs(in->sin_port));
    }
    return text;
}

static void test_servers_come_by_priority(void **state)
{
    struct dns *d = *state;
    static const struct srv records[] = { { 20, 0, 2000, "host2" },
                                          { 10, 0, 1000, "host1" },
                                          { 30, 5, 3000, "host3" } };
    d->records = records;
    d->record_count = 3;
    struct xy_target target = { .domain = "host9.test", .port = 5222 };
    assert_string_equal(resolve(d, target), "127.0.0.1:1000 127.0.0.2:2000 127.0.0.3:3000");
    assert_non_null(strstr(d->asked, "_xmpp-client"));
    target.direct_tls = true;
    resolve(d, target);
    assert_non_null(strstr(d->asked, "_xmpps-client"));
}

static void test_weights_share_among_equals(void **state)
{
    struct dns *d = *state;
    static const struct srv records[] = { { 1, 90, 1, "host1" }, { 1, 10, 2, "host2" } };
    d->records = records;
    d->record_count = 2;
    unsigned first = 0;
    for (unsigned i = 0; i < 100; i++)
        first += resolve(d, (struct xy_target){ .domain = "host9.test", .port = 5222 })[8] == '1';
    assert_true(first > 60 && first < 100);
}

static void test_without_records_the_domain_itself(void **state)
{
    struct dns *d = *state;
    struct xy_target target = { .domain = "host4.test", .port = 5222 };
    assert_string_equal(resolve(d, target), "127.0.0.4:5222");
    static const struct srv useless[] = { { 1, 1, 1, "nobody" }, { 1, 1, 1, "" } };
    d->records = useless;
    d->record_count = 2;
    assert_string_equal(resolve(d, target), "127.0.0.4:5222");
}

static void test_a_given_host_needs_no_records(void **state)
{
    struct dns *d = *state;
    struct xy_target target = { .host = "host5.test", .domain = "host4.test", .port = 7 };
    assert_string_equal(resolve(d, target), "127.0.0.5:7");
    assert_string_equal(d->asked, "");
    target.host = "127.0.0.7";
    assert_string_equal(resolve(d, target), "127.0.0.7:7");
}

static void test_no_address_says_why(void **state)
{
    struct dns *d = *state;
    assert_string_equal(resolve(d, (struct xy_target){ .domain = "nobody.test", .port = 1 }), "");
    assert_non_null(strstr(xy_resolver_error(d->resolver), "nobody.test"));
}

static void test_a_forgotten_lookup_is_not_mixed_in(void **state)
{
    struct dns *d = *state;
    d->mute = true;
    struct xy_target slow = { .host = "host1.test", .port = 1 };
    assert_true(xy_resolver_start(d->resolver, &slow));
    one_round(d);
    assert_false(xy_resolver_done(d->resolver));
    assert_true(xy_resolver_deadline_us(d->resolver) != UINT64_MAX);
    d->mute = false;
    assert_string_equal(resolve(d, (struct xy_target){ .host = "host2.test", .port = 2 }), "127.0.0.2:2");
    d->mute = true;
    assert_true(xy_resolver_start(d->resolver, &slow)); /* freed while it waits */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_servers_come_by_priority, setup, teardown),
        cmocka_unit_test_setup_teardown(test_weights_share_among_equals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_records_the_domain_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_given_host_needs_no_records, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_address_says_why, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_forgotten_lookup_is_not_mixed_in, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
