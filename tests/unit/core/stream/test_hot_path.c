/* A stanza on a bound stream costs no allocation once everything is warm: counted by standing in for malloc. Left out
 * under sanitizers, which stand in for it themselves. */
#include "tests/unit/core/stream/kit.h"

#include "tests/unit/allocations.h"

#if !ALLOCATIONS_COUNTED
int main(void)
{
    return 0;
}
#else

static const char message[] =
    "<message to='romeo@example.org/orchard' type='chat' id='m1'><body>It is the east</body>"
    "<active xmlns='http://jabber.org/protocol/chatstates'/></message>";

static size_t stanzas_taken(struct xy_stream *stream, struct xy_arena_pool *pool)
{
    struct xy_stream_event event;
    size_t count = 0;
    for (; xy_stream_next(stream, &event); count++) {
        assert_int_equal(event.kind, XY_STREAM_EVENT_STANZA);
        xy_arena_pool_give(pool, &event.stanza.arena);
    }
    return count;
}

static void test_no_allocation_per_stanza(void **state)
{
    (void)state;
    struct xy_stream_options options = KIT_OPTIONS;
    struct kit_server server = { .offer = { .mechanisms = XY_SASL_PLAIN } };
    options.arenas = xy_arena_pool_new(16);
    kit_server_start(&server, &options);
    kit_server_feed(&server, XY_STR(KIT_HEADER KIT_AUTH KIT_HEADER KIT_BIND));
    assert_true(xy_stream_is_bound(server.stream));
    size_t before = 0, warm = 200, count = 5000;
    for (size_t i = 0; i < count; i++) {
        if (i == warm)
            before = allocations;
        xy_stream_feed(server.stream, message, sizeof message - 1);
        assert_int_equal(stanzas_taken(server.stream, options.arenas), 1);
        xy_stream_send_ack(server.stream, (uint32_t)i);
        xy_stream_sent(server.stream, xy_stream_output(server.stream).len);
    }
    size_t made = allocations - before;
    if (made > (count - warm) / 10) /* the parser is renewed now and then: some, but none per stanza */
        fail_msg("%zu allocations for %zu stanzas", made, count - warm);
    kit_server_end(&server);
    xy_arena_pool_free(&options.arenas);
}

/* Reads of many stanzas at once, as a busy socket gives them: not even the input is copied. */
static void test_no_allocation_per_read(void **state)
{
    (void)state;
    struct xy_stream_options options = KIT_OPTIONS;
    struct kit_server server = { .offer = { .mechanisms = XY_SASL_PLAIN } };
    options.arenas = xy_arena_pool_new(16);
    kit_server_start(&server, &options);
    kit_server_feed(&server, XY_STR(KIT_HEADER KIT_AUTH KIT_HEADER KIT_BIND));
    enum { STANZAS = 100 };
    static char read[STANZAS * (sizeof message - 1)];
    for (size_t i = 0; i < STANZAS; i++)
        memcpy(read + i * (sizeof message - 1), message, sizeof message - 1);
    size_t before = 0, warm = 20, count = 200;
    for (size_t i = 0; i < count; i++) {
        if (i == warm)
            before = allocations;
        xy_stream_lend(server.stream, read, sizeof read);
        assert_int_equal(stanzas_taken(server.stream, options.arenas), STANZAS);
        xy_stream_keep(server.stream);
    }
    size_t made = allocations - before; /* the parser is renewed now and then */
    if (made > (count - warm) * STANZAS /
                   60) /* renewing takes about one per hundred stanzas; a copy, some per read */
        fail_msg("%zu allocations for %zu reads", made, count - warm);
    kit_server_end(&server);
    xy_arena_pool_free(&options.arenas);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_allocation_per_stanza),
        cmocka_unit_test(test_no_allocation_per_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
