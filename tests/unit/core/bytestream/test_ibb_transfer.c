/* Two entities and a way between them that loses nothing but may refuse: whole transfers arrive byte for byte, in both
 * directions, over more blocks than seq can count, past slow receivers, and in constant memory. */
#include "tests/unit/unit.h"

#include <malloc.h>

#include "core/base/limits.h"
#include "core/base/list.h"
#include "core/bytestream/ibb.h"
#include "core/bytestream/sha256.h"
#include "core/namespaces.h"

struct party;

/* An IQ on its way. `to` gets a request, or the answer to its ticket. */
struct stanza_on_the_way {
    struct xy_list link;
    struct party *to;
    bool is_request;
    uint64_t ticket;
    bool is_error;
    struct xy_error error;
    struct xy_arena *arena;
    struct xy_elem *iq;
    char id[32];
};

struct way {
    struct xy_env env;
    uint64_t now_us;
    struct xy_list stanzas;
    uint64_t seed;
    size_t on_the_way, on_the_way_max, blocks;
    unsigned refuse_one_in; /* blocks; a refused block takes what is behind it along, as a full queue does */
    unsigned refusing;
};

struct party {
    struct way *way;
    struct party *other;
    struct xy_jid jid;
    struct xy_ibb *ibb;
    struct xy_ibb_session *session;
    struct xy_sha256 received;
    size_t received_bytes, to_send, sent;
    unsigned hold_one_in;
    bool held, closed;
    struct xy_ibb_end end;
};

static uint64_t way_now(void *ctx)
{
    return ((struct way *)ctx)->now_us;
}

static void way_random(void *ctx, void *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((unsigned char *)out)[i] = (unsigned char)unit_random(&((struct way *)ctx)->seed);
}

static struct stanza_on_the_way *put(struct way *way, struct party *to)
{
    struct stanza_on_the_way *stanza = calloc(1, sizeof *stanza);
    assert_non_null(stanza);
    stanza->to = to;
    xy_list_append(&way->stanzas, &stanza->link);
    way->on_the_way++;
    if (way->on_the_way > way->on_the_way_max)
        way->on_the_way_max = way->on_the_way;
    return stanza;
}

/* Should the way itself refuse this block? */
static bool refused_on_the_way(struct way *way, const struct xy_elem *payload)
{
    if (way->refuse_one_in == 0 || !xy_str_is(payload->name, "data"))
        return false;
    way->blocks++;
    if (way->refusing == 0 && unit_below(&way->seed, way->refuse_one_in) == 0)
        way->refusing = 64; /* longer than any window */
    return way->refusing > 0;
}

static void on_send(void *ctx, struct xy_jid peer, const struct xy_elem *payload, uint64_t ticket)
{
    struct party *party = ctx;
    assert_true(xy_jid_eq(peer, party->other->jid));
    if (refused_on_the_way(party->way, payload)) {
        struct stanza_on_the_way *answer = put(party->way, party);
        answer->ticket = ticket;
        answer->is_error = true;
        answer->error = xy_error_make(XY_RESOURCE_CONSTRAINT, NULL);
        return;
    }
    struct stanza_on_the_way *stanza = put(party->way, party->other);
    stanza->is_request = true;
    stanza->ticket = ticket;
    stanza->arena = xy_arena_new();
    stanza->iq = xy_elem_new(stanza->arena, XY_STR("iq"), XY_STR(NS_CLIENT));
    xy_elem_append(stanza->iq, xy_elem_copy(stanza->arena, payload));
    snprintf(stanza->id, sizeof stanza->id, "%llx", (unsigned long long)ticket);
}

static void on_reply(void *ctx, struct xy_jid peer, struct xy_str id, const struct xy_error *error)
{
    struct party *party = ctx;
    char text[32];
    assert_true(xy_jid_eq(peer, party->other->jid));
    struct stanza_on_the_way *answer = put(party->way, party->other);
    snprintf(text, sizeof text, "%.*s", XY_ARG(id));
    answer->ticket = strtoull(text, NULL, 16);
    answer->is_error = error != NULL;
    if (error != NULL)
        answer->error = *error;
}

static enum xy_condition on_incoming(void *ctx, struct xy_ibb_session *session)
{
    ((struct party *)ctx)->session = session;
    return XY_NO_ERROR;
}

static unsigned char byte_at(size_t i)
{
    return (unsigned char)(i * 7 + (i >> 9));
}

static void send_more(struct party *party)
{
    unsigned char piece[3000];
    while (party->sent < party->to_send) {
        size_t n = party->to_send - party->sent < sizeof piece ? party->to_send - party->sent : sizeof piece;
        for (size_t i = 0; i < n; i++)
            piece[i] = byte_at(party->sent + i);
        size_t accepted = xy_ibb_write(party->session, piece, n);
        party->sent += accepted;
        if (accepted < n)
            return;
    }
}

static void on_ready(void *ctx, struct xy_ibb_session *session)
{
    struct party *party = ctx;
    party->session = session;
    send_more(party);
}

static enum xy_ibb_take on_data(void *ctx, struct xy_ibb_session *session, struct xy_str bytes)
{
    struct party *party = ctx;
    assert_ptr_equal(session, party->session);
    xy_sha256_add(&party->received, bytes.data, bytes.len);
    party->received_bytes += bytes.len;
    if (party->hold_one_in == 0 || unit_below(&party->way->seed, party->hold_one_in) != 0)
        return XY_IBB_TAKEN;
    party->held = true;
    return XY_IBB_HOLD;
}

static void on_closed(void *ctx, struct xy_ibb_session *session, const struct xy_ibb_end *end)
{
    struct party *party = ctx;
    assert_ptr_equal(session, party->session);
    party->closed = true;
    party->end = *end;
}

static const struct xy_ibb_handlers handlers = { .send = on_send,
                                                 .reply = on_reply,
                                                 .incoming = on_incoming,
                                                 .opened = on_ready,
                                                 .data = on_data,
                                                 .writable = on_ready,
                                                 .closed = on_closed };

static void deliver(struct way *way)
{
    struct stanza_on_the_way *stanza = xy_container_of(way->stanzas.next, struct stanza_on_the_way, link);
    struct party *to = stanza->to;
    xy_list_remove(&stanza->link);
    way->on_the_way--;
    if (stanza->is_request) {
        struct xy_stanza iq = { .arena = stanza->arena,
                                .elem = stanza->iq,
                                .kind = XY_IQ,
                                .type = XY_SET,
                                .from = to->other->jid,
                                .id = xy_str(stanza->id) };
        assert_true(xy_ibb_request(to->ibb, &iq));
    } else {
        xy_ibb_answer(to->ibb, stanza->ticket, stanza->is_error ? &stanza->error : NULL);
    }
    xy_arena_free(&stanza->arena);
    free(stanza);
}

/* One thing happens: a stanza arrives, or a slow receiver has room again, or time passes. false: nothing can. */
static bool step(struct way *way, struct party *parties)
{
    if (!xy_list_empty(&way->stanzas)) {
        deliver(way);
        return true;
    }
    for (size_t i = 0; i < 2; i++) {
        if (parties[i].held && !parties[i].closed) {
            parties[i].held = false;
            xy_ibb_release(parties[i].session);
            return true;
        }
    }
    uint64_t deadline_us = UINT64_MAX;
    for (size_t i = 0; i < 2; i++)
        if (xy_ibb_deadline_us(parties[i].ibb) < deadline_us)
            deadline_us = xy_ibb_deadline_us(parties[i].ibb);
    if (deadline_us == UINT64_MAX)
        return false;
    way->now_us = deadline_us;
    way->refusing = 0;
    for (size_t i = 0; i < 2; i++)
        xy_ibb_tick(parties[i].ibb);
    return true;
}

struct transfer {
    struct way way;
    struct party parties[2]; /* 0 opens */
};

static void transfer_open(struct transfer *t, size_t forth, size_t back, uint32_t block_max)
{
    t->way.env = (struct xy_env){ .now_us = way_now, .random = way_random, .ctx = &t->way };
    t->way.seed = 99;
    t->way.now_us = 1;
    xy_list_init(&t->way.stanzas);
    for (size_t i = 0; i < 2; i++) {
        struct party *party = &t->parties[i];
        struct xy_ibb_options options = {
            .env = &t->way.env, .handlers = &handlers, .ctx = party, .block_max = block_max
        };
        party->way = &t->way;
        party->other = &t->parties[1 - i];
        party->jid = xy_jid_canonical(i == 0 ? XY_STR("romeo@example.net/orchard")
                                             : XY_STR("juliet@example.com/balcony"));
        party->ibb = xy_ibb_new(&options);
        assert_non_null(party->ibb);
        xy_sha256_start(&party->received);
    }
    t->parties[0].to_send = forth;
    t->parties[1].to_send = back;
}

static void expect_received(struct party *party, size_t len)
{
    unsigned char got[XY_SHA256_BYTES], expected[XY_SHA256_BYTES];
    struct xy_sha256 hash;
    assert_int_equal(party->received_bytes, len);
    xy_sha256_start(&hash);
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = byte_at(i);
        xy_sha256_add(&hash, &byte, 1);
    }
    xy_sha256_end(&hash, expected);
    xy_sha256_end(&party->received, got);
    assert_memory_equal(got, expected, sizeof got);
}

/* Runs until all bytes are there and confirmed, then closes, and checks both ends. */
static void transfer_run(struct transfer *t, uint32_t block_size)
{
    struct party *romeo = &t->parties[0], *juliet = &t->parties[1];
    romeo->session = xy_ibb_open(romeo->ibb, juliet->jid, XY_STR_NONE, block_size, NULL);
    assert_non_null(romeo->session);
    while (juliet->session == NULL)
        assert_true(step(&t->way, t->parties));
    send_more(juliet);
    while (romeo->sent < romeo->to_send || juliet->received_bytes < romeo->to_send ||
           romeo->received_bytes < juliet->to_send)
        if (!step(&t->way, t->parties))
            fail_msg("stuck at %zu and %zu bytes", juliet->received_bytes, romeo->received_bytes);
    xy_ibb_close(romeo->session);
    while (!romeo->closed || !juliet->closed)
        assert_true(step(&t->way, t->parties));
    assert_int_equal(romeo->end.reason, XY_IBB_CLOSED);
    assert_int_equal(romeo->end.unconfirmed_bytes, 0);
    assert_int_equal(juliet->end.reason, XY_IBB_CLOSED_BY_PEER);
    expect_received(juliet, romeo->to_send);
    expect_received(romeo, juliet->to_send);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(xy_ibb_count(t->parties[i].ibb), 0);
        xy_ibb_free(&t->parties[i].ibb);
    }
    assert_true(xy_list_empty(&t->way.stanzas));
}

static void test_file(void **state)
{
    (void)state;
    struct transfer t = { 0 };
    transfer_open(&t, 1000003, 0, 0);
    transfer_run(&t, 4096);
    assert_in_range(t.way.on_the_way_max, 2, XY_IBB_WINDOW_DEFAULT + 1);
}

static void test_both_directions_and_smaller_blocks(void **state)
{
    (void)state;
    struct transfer t = { 0 };
    transfer_open(&t, 200000, 300001, 1000);
    transfer_run(&t, 16384); /* halved to 1024 and, below it, to 512 */
}

static void test_largest_blocks(void **state)
{
    (void)state;
    struct transfer t = { 0 };
    transfer_open(&t, 3 * XY_IBB_BLOCK_MAX + 1, 0, 0);
    transfer_run(&t, XY_IBB_BLOCK_MAX);
}

static size_t heap_in_use(void)
{
    return mallinfo2().uordblks;
}

/* seq wraps to 0 after 65535, twice, and the memory after the first thousand blocks is the memory after all. */
static void test_more_blocks_than_seq_counts(void **state)
{
    (void)state;
    struct transfer t = { 0 };
    transfer_open(&t, 140000, 0, 0);
    struct party *romeo = &t.parties[0], *juliet = &t.parties[1];
    romeo->session = xy_ibb_open(romeo->ibb, juliet->jid, XY_STR_NONE, 1, NULL);
    while (juliet->received_bytes < 1000)
        assert_true(step(&t.way, t.parties));
    size_t before = heap_in_use();
    while (juliet->received_bytes < 139000)
        assert_true(step(&t.way, t.parties));
    size_t after = heap_in_use();
    assert_in_range(after, 0, before + 65536); /* what is on the way differs a little */
    xy_ibb_close(romeo->session);
    while (!romeo->closed)
        assert_true(step(&t.way, t.parties));
    assert_int_equal(romeo->end.reason, XY_IBB_CLOSED);
    expect_received(juliet, romeo->sent);
    assert_in_range(romeo->sent, 139000, 140000);
    for (size_t i = 0; i < 2; i++)
        xy_ibb_free(&t.parties[i].ibb);
    while (!xy_list_empty(&t.way.stanzas)) {
        struct xy_list *first = t.way.stanzas.next;
        xy_list_remove(first);
        free(xy_container_of(first, struct stanza_on_the_way, link));
    }
}

static void test_a_way_that_refuses(void **state)
{
    (void)state;
    struct transfer t = { 0 };
    transfer_open(&t, 500000, 0, 0);
    t.way.refuse_one_in = 20;
    transfer_run(&t, 512);
    assert_in_range(t.way.blocks, 500000 / 512 + 20, 500000 / 512 * 10); /* some were sent again */
}

static void test_slow_receiver(void **state)
{
    (void)state;
    struct transfer t = { 0 };
    transfer_open(&t, 300000, 300000, 0);
    t.parties[0].hold_one_in = 3;
    t.parties[1].hold_one_in = 5;
    transfer_run(&t, 700);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_both_directions_and_smaller_blocks),
        cmocka_unit_test(test_largest_blocks),
        cmocka_unit_test(test_more_blocks_than_seq_counts),
        cmocka_unit_test(test_a_way_that_refuses),
        cmocka_unit_test(test_slow_receiver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
