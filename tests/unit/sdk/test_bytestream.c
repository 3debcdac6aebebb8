/* Bytestreams of a client against a broker in memory: what waits is bounded, whoever is slow. */
#include <xylem/bytestream.h>

#include "tests/unit/sdk/peer.h"

#define QUEUE_MAX 64000u
#define BLOCK     1000u

struct sending {
    size_t left, taken;
    bool opened, closed;
    enum xylem_status status;
};

static void pump(struct xylem_bytestream *stream, void *ctx)
{
    static const char zeros[4 * BLOCK];
    struct sending *s = ctx;
    s->opened = true;
    while (s->left > 0) {
        size_t taken = xylem_bytestream_write(stream, zeros, s->left < sizeof zeros ? s->left : sizeof zeros);
        if (taken == 0)
            return;
        s->left -= taken;
        s->taken += taken;
    }
    xylem_bytestream_close(stream);
}

static void on_closed(struct xylem_bytestream *stream, const struct xylem_bytestream_end *end, void *ctx)
{
    (void)stream;
    struct sending *s = ctx;
    s->closed = true;
    s->status = end->status;
}

static struct peer *begin(void)
{
    struct peer *p = peer_new();
    struct xylem_options o = XYLEM_OPTIONS;
    o.jid = "alice@example.org/r";
    o.password = "secret";
    o.tls = XYLEM_TLS_NONE;
    o.plain_allowed = true;
    o.queue_bytes_max = QUEUE_MAX;
    char error[200] = "";
    assert_int_equal(xy_client_new(&p->client, &o, &p->env, error, sizeof error), XYLEM_OK);
    assert_int_equal(xylem_client_start(p->client), XYLEM_OK);
    assert_true(peer_run(p));
    return p;
}

static void end(struct peer *p)
{
    xylem_client_free(p->client);
    peer_free(p);
}

static void start(struct peer *p, struct sending *s)
{
    const struct xylem_bytestream_handlers handlers = {
        .size = sizeof handlers, .opened = pump, .writable = pump, .closed = on_closed
    };
    struct xylem_bytestream *stream;
    s->left = 200 * BLOCK;
    xy_client_enter(p->client);
    assert_int_equal(
        xylem_bytestream_open(p->client, "bob@example.org/b", NULL, BLOCK, &handlers, s, &stream), XYLEM_OK);
    assert_true(xy_client_leave(p->client));
}

/* Half of queue_bytes_max, and what the window of the bytestream had taken by then. */
static void assert_bounded(struct peer *p, const struct sending *s)
{
    assert_true(s->opened);
    assert_true(s->taken > QUEUE_MAX / 4 && s->taken < QUEUE_MAX);
    assert_true(p->client->sm_queue.bytes_kept > QUEUE_MAX / 4);
    assert_true(p->client->sm_queue.bytes_kept < QUEUE_MAX);
}

static void test_unacknowledged_blocks_are_bounded(void **state)
{
    (void)state;
    struct sending s = { 0 };
    struct peer *p = begin();
    p->slow_disk = true;
    start(p, &s);
    assert_true(peer_run(p));
    assert_true(
        peer_later(p, 10000)); /* every block confirmed by the peer, none acknowledged by the server */
    assert_bounded(p, &s);
    p->slow_disk = false;
    xy_stream_send_ack(p->stream, xy_sm_h(&p->sm));
    for (unsigned turn = 0; turn < 50 && !s.closed; turn++)
        assert_true(peer_later(p, 200));
    assert_true(s.closed);
    assert_int_equal(s.status, XYLEM_OK);
    assert_int_equal(s.taken, 200 * BLOCK);
    end(p);
}

static void test_streams_end_while_they_wait(void **state)
{
    (void)state;
    struct sending s[2] = { { 0 } };
    struct peer *p = begin();
    p->slow_disk = true;
    start(p, &s[0]);
    start(p, &s[1]);
    assert_true(peer_run(p));
    assert_true(s[0].left > 0 && s[1].left > 0);
    end(p); /* both wait for room */
    assert_true(!s[0].closed && !s[1].closed);
}

static void test_the_next_session_has_room(void **state)
{
    (void)state;
    struct sending s = { 0 };
    struct peer *p = begin();
    p->slow_disk = true;
    start(p, &s);
    assert_true(peer_run(p));
    assert_bounded(p, &s);
    p->slow_disk = p->resumable = false;
    peer_break(p);
    for (unsigned turn = 0; turn < 100 && !s.closed; turn++)
        assert_true(peer_later(p, 1000));
    assert_true(s.closed); /* not stuck: sent to its end, or told that its session is gone */
    end(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unacknowledged_blocks_are_bounded),
        cmocka_unit_test(test_streams_end_while_they_wait),
        cmocka_unit_test(test_the_next_session_has_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
