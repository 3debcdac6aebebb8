/* Connections over real sockets: partial writes, pauses, closing, moving to another shard, TLS. */
#include "tests/unit/broker/net/kit.h"

#include "tests/unit/core/tls/pair.h"

/* Reads what there is; false: nothing, for now. */
static bool drain(int fd, struct xy_buf *into)
{
    static char chunk[64 * 1024];
    ssize_t n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);
    if (n > 0)
        xy_buf_add(into, chunk, (size_t)n);
    return n > 0;
}

static void test_both_ways(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "", NULL);
    struct xy_buf got = { 0 };
    int fd = kit_accept(kit, 0, LINK_C2S, "192.0.2.1");
    struct owner *owner = &kit->owners[0];
    kit_send(fd, "hello", 5);
    kit_until(kit, owner->inputs == 1);
    assert_str(xy_buf_view(&owner->input), "hello");
    assert_true(owner->link->calls->write(owner->link, XY_STR("world")));
    kit_until(kit, drain(fd, &got));
    assert_str(xy_buf_view(&got), "world");
    close(fd);
    kit_until(kit, owner->gones == 1);
    kit_settle(kit);
    assert_true(net_is_empty(kit_shard(kit, 0)));
    xy_buf_free(&got);
    kit_free(&kit);
}

/* A peer that does not read: the rest is kept and sent later, and nothing is said to be writable before. */
static void test_partial_writes(void **state)
{
    (void)state;
    enum { BYTES = 24 << 20 };
    struct kit *kit = kit_new(1, "", NULL);
    struct xy_buf got = { 0 };
    char *text = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i++)
        text[i] = (char)('a' + i % 23);
    int fd = kit_accept(kit, 0, LINK_C2S, "192.0.2.1");
    struct owner *owner = &kit->owners[0];
    assert_false(owner->link->calls->write(owner->link, xy_str_n(text, BYTES)));
    kit_settle(kit);
    assert_int_equal(owner->writables, 0);
    kit_until(kit, (drain(fd, &got), got.len == BYTES));
    assert_memory_equal(got.data, text, BYTES);
    kit_until(kit, owner->writables == 1);
    assert_true(owner->link->calls->write(owner->link, XY_STR("more")));
    xy_buf_reset(&got);
    kit_until(kit, drain(fd, &got));
    assert_str(xy_buf_view(&got), "more");
    kit_settle(kit);
    assert_int_equal(owner->writables, 1);
    close(fd);
    free(text);
    xy_buf_free(&got);
    kit_free(&kit);
}

static void test_pause(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "", NULL);
    int fd = kit_accept(kit, 0, LINK_C2S, "192.0.2.1");
    struct owner *owner = &kit->owners[0];
    owner->link->calls->read_pause(owner->link, true);
    kit_send(fd, "hello", 5);
    kit_settle(kit);
    assert_int_equal(owner->inputs, 0);
    owner->link->calls->read_pause(owner->link, false);
    kit_until(kit, owner->inputs == 1);
    close(fd);
    kit_free(&kit);
}

/* As many bytes as a hundred publishes: no turn gets much more than half of them, for the disk to have these while others are read. */
static void test_much_at_once_takes_turns(void **state)
{
    (void)state;
    enum { BYTES = 44 << 10 };
    static char text[BYTES];
    struct kit *kit = kit_new(1, "", NULL);
    int fd = kit_accept(kit, 0, LINK_C2S, "192.0.2.1");
    struct owner *owner = &kit->owners[0];
    owner->link->calls->read_pause(owner->link, true);
    kit_send(fd, text, BYTES);
    kit_settle(kit);
    owner->link->calls->read_pause(owner->link, false);
    for (size_t before = 0; before < BYTES; before = owner->input.len) {
        kit_until(kit, owner->input.len > before);
        assert_true(owner->input.len - before <= BYTES * 3 / 5);
    }
    close(fd);
    kit_free(&kit);
}

static void test_close_from_within(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "", NULL);
    kit->next.close_on_input = true;
    int fd = kit_accept(kit, 0, LINK_C2S, "192.0.2.1");
    kit_send(fd, "hello", 5);
    kit_until(kit, kit_is_closed(fd));
    kit_send(fd, "what?", 5);
    kit_settle(kit);
    assert_int_equal(kit->owners[0].inputs, 1);
    close(fd);
    kit_until(kit, net_is_empty(kit_shard(kit, 0)));
    assert_int_equal(kit->owners[0].gones, 0); /* nobody is told any more */
    kit_free(&kit);
}

/* Last words arrive although the peer had sent what nobody read, and however late it reads. */
static void test_last_words(void **state)
{
    (void)state;
    enum { BYTES = 8 << 20 };
    struct kit *kit = kit_new(1, "", NULL);
    struct xy_buf got = { 0 };
    char *text = calloc(1, BYTES);
    int fd = kit_accept(kit, 0, LINK_C2S, "192.0.2.1");
    struct owner *owner = &kit->owners[0];
    owner->link->calls->read_pause(owner->link, true);
    kit_send(fd, "nobody reads this", 17);
    kit_settle(kit);
    owner->link->calls->write(owner->link, xy_str_n(text, BYTES));
    owner->link->calls->write(owner->link, XY_STR("good bye"));
    owner_close(owner);
    kit_settle(kit);
    kit_until(kit, (drain(fd, &got), kit_is_closed(fd)));
    assert_int_equal(got.len, BYTES + 8);
    assert_memory_equal(got.data + BYTES, "good bye", 8);
    close(fd);
    kit_until(kit, net_is_empty(kit_shard(kit, 0)));
    xy_buf_free(&got);
    free(text);
    kit_free(&kit);
}

/* Nobody holds a closed connection for ever, be it by not reading or by not closing. */
static void test_lingers_for_a_while(void **state)
{
    (void)state;
    enum { BYTES = 24 << 20 };
    struct kit *kit = kit_new(1, "", NULL);
    char *text = calloc(1, BYTES);
    int deaf = kit_accept(kit, 0, LINK_C2S, "192.0.2.1"), idle = kit_accept(kit, 0, LINK_C2S, "192.0.2.1");
    kit->owners[0].link->calls->write(kit->owners[0].link, xy_str_n(text, BYTES));
    owner_close(&kit->owners[0]);
    owner_close(&kit->owners[1]);
    kit_settle(kit);
    assert_false(net_is_empty(kit_shard(kit, 0)));
    kit->skew_us += 1900 * 1000;
    kit_settle(kit);
    assert_false(net_is_empty(kit_shard(kit, 0)));
    kit->skew_us += 200 * 1000;
    kit_settle(kit);
    assert_true(net_is_empty(kit_shard(kit, 0)));
    close(deaf);
    close(idle);
    free(text);
    kit_free(&kit);
}

/* What was kept goes along, and the new shard's loop hears the socket. */
static void test_moves_to_another_shard(void **state)
{
    (void)state;
    enum { BYTES = 8 << 20 };
    struct kit *kit = kit_new(2, "", NULL);
    struct xy_buf got = { 0 };
    char *text = calloc(1, BYTES);
    int fd = kit_accept(kit, 0, LINK_C2S, "192.0.2.1");
    struct owner *owner = &kit->owners[0];
    struct link *link = owner->link;
    assert_false(link->calls->write(link, xy_str_n(text, BYTES)));
    link->calls->detach(link);
    assert_true(net_is_empty(kit_shard(kit, 0)));
    kit_settle(kit);
    assert_true(link->calls->attach(link, kit_shard(kit, 1), owner));
    assert_ptr_equal(link->shard, kit_shard(kit, 1));
    kit_until(kit, (drain(fd, &got), got.len == BYTES));
    kit_until(kit, owner->writables == 1);
    kit_send(fd, "hello", 5);
    kit_until(kit, owner->inputs == 1);
    close(fd);
    kit_until(kit, owner->gones == 1);
    xy_buf_free(&got);
    free(text);
    kit_free(&kit);
}

/* --- TLS ------------------------------------------------------------------------------------------------------------ */

struct tls_peer {
    int fd;
    struct xy_tls *tls;
    enum xy_tls_status status;
    struct xy_buf plain;
};

static void tls_peer_step(struct tls_peer *peer)
{
    char bytes[16384];
    ssize_t n = recv(peer->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n > 0)
        xy_tls_receive(peer->tls, bytes, (size_t)n);
    if (peer->status != XY_TLS_DONE) {
        peer->status = xy_tls_handshake(peer->tls);
    } else {
        size_t len = 0;
        while (xy_tls_read(peer->tls, bytes, sizeof(bytes), &len) == XY_TLS_DONE && len > 0)
            xy_buf_add(&peer->plain, bytes, len);
    }
    struct xy_str out = xy_tls_output(peer->tls);
    if (out.len > 0 && (n = send(peer->fd, out.data, out.len, MSG_NOSIGNAL | MSG_DONTWAIT)) > 0)
        xy_tls_output_consumed(peer->tls, (size_t)n);
}

static struct made certificate;
static struct xy_tls_config *server_config, *client_config;

static struct tls_peer tls_peer_new(int fd)
{
    return (struct tls_peer){ .fd = fd,
                              .tls = xy_tls_new(client_config, "example.org"),
                              .status = XY_TLS_WANT_MORE };
}

static void tls_peer_free(struct tls_peer *peer)
{
    close(peer->fd);
    xy_tls_free(&peer->tls);
    xy_buf_free(&peer->plain);
}

static void test_direct_tls(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "", server_config);
    struct tls_peer peer = tls_peer_new(kit_accept(kit, 0, LINK_C2S_TLS, "192.0.2.1"));
    struct owner *owner = &kit->owners[0];
    kit_until(kit, (tls_peer_step(&peer), owner->secureds == 1 && peer.status == XY_TLS_DONE));
    assert_true(owner->link->secure);
    xy_tls_write(peer.tls, "hello", 5);
    kit_until(kit, (tls_peer_step(&peer), owner->inputs == 1));
    assert_str(xy_buf_view(&owner->input), "hello");
    assert_true(owner->link->calls->write(owner->link, XY_STR("world")));
    owner->link->calls->sleep(owner->link);
    kit_until(kit, (tls_peer_step(&peer), peer.plain.len == 5));
    owner_close(owner);
    kit_until(kit, kit_is_closed(peer.fd) || (tls_peer_step(&peer), false));
    tls_peer_free(&peer);
    kit_until(kit, net_is_empty(kit_shard(kit, 0)));
    kit_free(&kit);
}

/* <proceed/> is written in clear, then TLS begins; what came in clear after the wish for TLS is nobody's. */
static void test_starttls(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "", server_config);
    kit->next.tls_on_input = true;
    struct tls_peer peer = tls_peer_new(kit_accept(kit, 0, LINK_C2S, "192.0.2.1"));
    struct owner *owner = &kit->owners[0];
    kit_send(peer.fd, "starttls", 8);
    kit_until(kit, owner->inputs == 1);
    kit_until(kit, (tls_peer_step(&peer), owner->secureds == 1 && peer.status == XY_TLS_DONE));
    assert_str(xy_buf_view(&owner->input), "starttls");
    tls_peer_free(&peer);
    kit_until(kit, owner->gones == 1);
    kit_free(&kit);
}

static void test_close_when_secured(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "", server_config);
    kit->next.close_on_secured = true;
    struct tls_peer peer = tls_peer_new(kit_accept(kit, 0, LINK_C2S_TLS, "192.0.2.1"));
    kit_until(kit, (tls_peer_step(&peer), kit_is_closed(peer.fd)));
    tls_peer_free(&peer);
    kit_until(kit, net_is_empty(kit_shard(kit, 0)));
    kit_free(&kit);
}

static void test_no_tls_spoken(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "", server_config);
    int fd = kit_accept(kit, 0, LINK_C2S_TLS, "192.0.2.1");
    kit_send(fd, "GET / HTTP/1.1\r\n\r\n", 18);
    kit_until(kit, kit->owners[0].gones == 1);
    close(fd);
    kit_until(kit, net_is_empty(kit_shard(kit, 0)));
    fd = kit_accept(kit, 0, LINK_C2S_TLS, "192.0.2.1"); /* leaves in the middle */
    kit_send(fd, "\x16\x03\x01", 3);
    kit_settle(kit);
    close(fd);
    kit_until(kit, kit->owners[1].gones == 1);
    kit_free(&kit);
}

/* More at once than there is room for: all get their turn, nobody is refused. */
static void test_a_crowd_waits_its_turn(void **state)
{
    (void)state;
    enum { CROWD = 40 };
    struct kit *kit = kit_new(1, "limits { handshakes = 4; }", server_config);
    struct tls_peer peers[CROWD];
    unsigned done = 0;
    for (unsigned i = 0; i < CROWD; i++)
        peers[i] = tls_peer_new(kit_accept(kit, 0, LINK_C2S_TLS, "192.0.2.1"));
    assert_int_equal(kit_shard(kit, 0)->net->unfinished_count, 4);
    for (unsigned turn = 0; done < CROWD && turn < 20000; turn++) {
        done = 0;
        for (unsigned i = 0; i < CROWD; i++) {
            tls_peer_step(&peers[i]);
            done += peers[i].status == XY_TLS_DONE;
        }
        kit_turn(kit);
        assert_true(kit_shard(kit, 0)->net->unfinished_count <= 4);
    }
    assert_int_equal(done, CROWD);
    for (unsigned i = 0; i < CROWD; i++)
        tls_peer_free(&peers[i]);
    kit_until(kit, net_is_empty(kit_shard(kit, 0)));
    assert_int_equal(kit_shard(kit, 0)->net->unfinished_count, 0);
    kit_free(&kit);
}

/* Hostile input 29: who begins and never finishes keeps others waiting for a moment only, and goes before them. */
static void test_unfinished_ones_make_room(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "limits { handshakes = 4; }", server_config);
    int silent[8];
    for (unsigned i = 0; i < 8; i++)
        silent[i] = kit_accept(kit, 0, LINK_C2S_TLS, "192.0.2.66");
    struct tls_peer peer = tls_peer_new(kit_accept(kit, 0, LINK_C2S_TLS, "192.0.2.1"));
    struct owner *owner = &kit->owners[8];
    for (unsigned i = 0; i < 20; i++) {
        tls_peer_step(&peer);
        kit_turn(kit);
    }
    assert_int_equal(owner->secureds, 0);
    kit->skew_us += NET_HANDSHAKE_PATIENCE_US;
    kit_until(kit, (tls_peer_step(&peer), owner->secureds == 1)); /* before the other four of that address */
    unsigned gone = 0;
    for (unsigned i = 0; i < 8; i++)
        gone += kit->owners[i].gones;
    assert_true(gone >= 1 && gone <= 5);
    for (unsigned i = 0; i < 8; i++)
        close(silent[i]);
    tls_peer_free(&peer);
    kit_until(kit, net_is_empty(kit_shard(kit, 0)));
    kit_free(&kit);
}

/* The owner loses patience while the connection still waits for room. */
static void test_closed_while_it_waits(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "limits { handshakes = 1; }", server_config);
    int first = kit_accept(kit, 0, LINK_C2S_TLS, "192.0.2.1"),
        second = kit_accept(kit, 0, LINK_C2S_TLS, "192.0.2.2");
    owner_close(&kit->owners[1]);
    kit_until(kit, kit_is_closed(second));
    owner_close(&kit->owners[0]);
    assert_int_equal(kit_shard(kit, 0)->net->unfinished_count, 0);
    close(first);
    close(second);
    kit_until(kit, net_is_empty(kit_shard(kit, 0)));
    kit_free(&kit);
}

static void test_no_certificate(void **state)
{
    (void)state;
    struct kit *kit = kit_new(1, "", NULL);
    int fd = kit_accept(kit, 0, LINK_C2S_TLS, "192.0.2.1");
    kit_until(kit, kit_is_closed(fd));
    assert_int_equal(kit->owners[0].gones, 1);
    close(fd);
    kit_free(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_partial_writes),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_much_at_once_takes_turns),
        cmocka_unit_test(test_close_from_within),
        cmocka_unit_test(test_last_words),
        cmocka_unit_test(test_lingers_for_a_while),
        cmocka_unit_test(test_moves_to_another_shard),
        cmocka_unit_test(test_direct_tls),
        cmocka_unit_test(test_starttls),
        cmocka_unit_test(test_close_when_secured),
        cmocka_unit_test(test_no_tls_spoken),
        cmocka_unit_test(test_a_crowd_waits_its_turn),
        cmocka_unit_test(test_unfinished_ones_make_room),
        cmocka_unit_test(test_closed_while_it_waits),
        cmocka_unit_test(test_no_certificate),
    };
    int failed = 0;
    xy_tls_warm_up();
    while (libraries_next()) {
        made_now(&certificate, "example.org");
        server_config = config_server(&certificate);
        client_config = config_client(&certificate);
        failed += cmocka_run_group_tests_name(libraries_name(), tests, NULL, NULL);
        xy_tls_config_unref(&server_config);
        xy_tls_config_unref(&client_config);
        made_free(&certificate);
    }
    return failed;
}
