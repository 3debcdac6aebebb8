/* In-band bytestreams, one side at a time: what an entity says to each well-formed and each wrong stanza of XEP-0047.
 * The peer is the test itself. */
#include "tests/unit/unit.h"

#include "core/base/encoding.h"
#include "core/base/limits.h"
#include "core/bytestream/ibb.h"
#include "core/namespaces.h"

#define SENDS_MAX 4096

struct sent {
    char name[8], seq[8], block_size[8], text[512], sid[64];
    uint64_t ticket;
};

struct replied {
    char id[32];
    enum xy_condition condition;
    enum xy_error_type type;
};

struct side {
    struct xy_env env;
    uint64_t now_us;
    struct xy_ibb *ibb;
    struct xy_ibb_session *session;
    struct sent *sent;
    size_t sent_count;
    struct replied *replied;
    size_t replied_count;
    char data[4096];
    size_t data_len;
    enum xy_ibb_take take;
    enum xy_condition answer; /* to an incoming session */
    size_t opened, writable, closed;
    struct xy_ibb_end end;
    bool abort_on_data, abort_on_incoming;
};

static uint64_t side_now(void *ctx)
{
    return ((struct side *)ctx)->now_us;
}

static void side_random(void *ctx, void *out, size_t len)
{
    uint64_t seed = ++((struct side *)ctx)->now_us * 77;
    for (size_t i = 0; i < len; i++)
        ((unsigned char *)out)[i] = (unsigned char)unit_random(&seed);
}

static void keep(char *out, size_t size, struct xy_str s)
{
    assert_in_range(s.len, 0, size - 1);
    snprintf(out, size, "%.*s", XY_ARG(s));
}

static void on_send(void *ctx, struct xy_jid peer, const struct xy_elem *payload, uint64_t ticket)
{
    struct side *side = ctx;
    assert_true(side->sent_count < SENDS_MAX);
    struct sent *sent = &side->sent[side->sent_count++];
    struct xy_arena *arena = xy_arena_new();
    assert_str(xy_jid_full(peer), "romeo@example.net/orchard");
    assert_str(payload->ns, NS_IBB);
    keep(sent->name, sizeof sent->name, payload->name);
    keep(sent->seq, sizeof sent->seq, xy_elem_attr(payload, "seq"));
    keep(sent->block_size, sizeof sent->block_size, xy_elem_attr(payload, "block-size"));
    keep(sent->sid, sizeof sent->sid, xy_elem_attr(payload, "sid"));
    struct xy_str text = xy_elem_text(payload, arena);
    keep(sent->text, sizeof sent->text, xy_str_n(text.data, text.len < 500 ? text.len : 500));
    sent->ticket = ticket;
    xy_arena_free(&arena);
}

static void on_reply(void *ctx, struct xy_jid peer, struct xy_str id, const struct xy_error *error)
{
    struct side *side = ctx;
    assert_true(side->replied_count < SENDS_MAX);
    struct replied *replied = &side->replied[side->replied_count++];
    assert_true(xy_jid_present(peer));
    keep(replied->id, sizeof replied->id, id);
    replied->condition = error != NULL ? error->condition : XY_NO_ERROR;
    replied->type = error != NULL ? error->type : XY_ERROR_CANCEL;
}

static enum xy_condition on_incoming(void *ctx, struct xy_ibb_session *session)
{
    struct side *side = ctx;
    side->session = session;
    if (side->abort_on_incoming)
        xy_ibb_abort(session);
    return side->answer;
}

static void on_opened(void *ctx, struct xy_ibb_session *session)
{
    (void)session;
    ((struct side *)ctx)->opened++;
}

static enum xy_ibb_take on_data(void *ctx, struct xy_ibb_session *session, struct xy_str bytes)
{
    struct side *side = ctx;
    assert_ptr_equal(session, side->session);
    assert_in_range(bytes.len, 1, xy_ibb_block_size(session));
    for (size_t i = 0; i < bytes.len && side->data_len < sizeof side->data; i++)
        side->data[side->data_len++] = bytes.data[i];
    if (side->abort_on_data)
        xy_ibb_abort(session);
    return side->take;
}

static void on_writable(void *ctx, struct xy_ibb_session *session)
{
    (void)session;
    ((struct side *)ctx)->writable++;
}

static void on_closed(void *ctx, struct xy_ibb_session *session, const struct xy_ibb_end *end)
{
    struct side *side = ctx;
    assert_non_null(session);
    side->closed++;
    side->end = *end;
    side->session = NULL;
}

static const struct xy_ibb_handlers handlers = { .send = on_send,
                                                 .reply = on_reply,
                                                 .incoming = on_incoming,
                                                 .opened = on_opened,
                                                 .data = on_data,
                                                 .writable = on_writable,
                                                 .closed = on_closed };

static struct xy_jid romeo(void)
{
    return xy_jid_canonical(XY_STR("romeo@example.net/orchard"));
}

static int setup(void **state)
{
    struct side *side = calloc(1, sizeof *side);
    side->sent = calloc(SENDS_MAX, sizeof *side->sent);
    side->replied = calloc(SENDS_MAX, sizeof *side->replied);
    side->env = (struct xy_env){ .now_us = side_now, .random = side_random, .ctx = side };
    struct xy_ibb_options options = { .env = &side->env,
                                      .handlers = &handlers,
                                      .ctx = side,
                                      .sessions_max = 3,
                                      .block_max = 4096,
                                      .window = 8 };
    side->ibb = xy_ibb_new(&options);
    side->now_us = 1000000;
    *state = side;
    return side->ibb == NULL;
}

static int teardown(void **state)
{
    struct side *side = *state;
    xy_ibb_free(&side->ibb);
    free(side->sent);
    free(side->replied);
    free(side);
    return 0;
}

/* The peer sends `<name …/>`; attributes as pairs of name and value, ended by NULL. */
static bool request(struct side *side, const char *name, const char *text, const char *const *attributes)
{
    static unsigned count;
    char id[16];
    struct xy_arena *arena = xy_arena_new();
    snprintf(id, sizeof id, "iq%u", ++count);
    struct xy_elem *iq = xy_elem_new(arena, XY_STR("iq"), XY_STR(NS_CLIENT));
    struct xy_elem *payload = xy_elem_add(arena, iq, name, NS_IBB);
    for (; attributes[0] != NULL; attributes += 2)
        xy_elem_set(arena, payload, attributes[0], xy_str(attributes[1]));
    if (text != NULL)
        xy_elem_add_text(arena, payload, xy_str(text));
    struct xy_stanza stanza = {
        .arena = arena, .elem = iq, .kind = XY_IQ, .type = XY_SET, .from = romeo(), .id = xy_str(id)
    };
    bool ours = xy_ibb_request(side->ibb, &stanza);
    xy_arena_free(&arena);
    return ours;
}

#define attributes(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void peer_opens(struct side *side, const char *sid, const char *block_size)
{
    request(side, "open", NULL, attributes("sid", sid, "block-size", block_size, "stanza", "iq"));
}

static void peer_sends(struct side *side, const char *sid, unsigned seq, const char *text)
{
    char number[16];
    snprintf(number, sizeof number, "%u", seq);
    request(side, "data", text, attributes("sid", sid, "seq", number));
}

static void expect_reply(struct side *side, enum xy_condition condition, enum xy_error_type type)
{
    assert_int_equal(side->replied_count, 1);
    assert_int_equal(side->replied[0].condition, condition);
    assert_int_equal(side->replied[0].type, type);
    side->replied_count = 0;
}

#define expect_result(side) expect_reply((side), XY_NO_ERROR, XY_ERROR_CANCEL)

static void expect_sent(struct side *side, const char *name)
{
    assert_int_equal(side->sent_count, 1);
    assert_string_equal(side->sent[0].name, name);
}

/* A session that the peer opened and we accepted. */
static void accepted(struct side *side, const char *block_size)
{
    peer_opens(side, "s1", block_size);
    expect_result(side);
    assert_non_null(side->session);
}

/* A session we opened and the peer accepted. */
static void opened(struct side *side, uint32_t block_size)
{
    side->session = xy_ibb_open(side->ibb, romeo(), XY_STR_NONE, block_size, NULL);
    assert_non_null(side->session);
    expect_sent(side, "open");
    xy_ibb_answer(side->ibb, side->sent[0].ticket, NULL);
    assert_int_equal(side->opened, 1);
    side->sent_count = 0;
}

static void answer(struct side *side, size_t i, enum xy_condition condition, enum xy_error_type type)
{
    struct xy_error error = { .condition = condition, .type = type };
    xy_ibb_answer(side->ibb, side->sent[i].ticket, condition == XY_NO_ERROR ? NULL : &error);
}

/* ---- opening ---- */

static void test_only_iq_sets_of_ours(void **state)
{
    struct side *side = *state;
    struct xy_arena *arena = xy_arena_new();
    struct xy_elem *iq = xy_elem_new(arena, XY_STR("iq"), XY_STR(NS_CLIENT));
    struct xy_stanza stanza = { .arena = arena, .elem = iq, .kind = XY_IQ, .type = XY_SET, .from = romeo() };
    assert_false(xy_ibb_request(side->ibb, &stanza));
    xy_elem_add(arena, iq, "ping", NS_PING);
    assert_false(xy_ibb_request(side->ibb, &stanza));
    xy_elem_remove(xy_elem_first(iq));
    xy_elem_add(arena, iq, "close", NS_IBB);
    stanza.type = XY_GET;
    assert_false(xy_ibb_request(side->ibb, &stanza));
    stanza.type = XY_SET;
    stanza.kind = XY_MESSAGE;
    assert_false(xy_ibb_request(side->ibb, &stanza));
    assert_int_equal(side->replied_count, 0);
    assert_true(request(side, "shut", NULL, attributes("sid", "x")));
    expect_reply(side, XY_BAD_REQUEST, XY_ERROR_MODIFY);
    xy_arena_free(&arena);
}

static void test_incoming_open(void **state)
{
    struct side *side = *state;
    accepted(side, "4096");
    assert_int_equal(xy_ibb_block_size(side->session), 4096);
    assert_str(xy_ibb_sid(side->session), "s1");
    assert_str(xy_jid_full(xy_ibb_peer(side->session)), "romeo@example.net/orchard");
    assert_int_equal(xy_ibb_count(side->ibb), 1);
    assert_int_equal(side->sent_count, 0);

    request(side, "open", NULL, attributes("sid", "s2", "block-size", "1")); /* stanza defaults to iq */
    expect_result(side);
    assert_int_equal(xy_ibb_count(side->ibb), 2);
}

static void test_incoming_open_refused(void **state)
{
    struct side *side = *state;
    request(side, "open", NULL, attributes("sid", "a", "block-size", "4096", "stanza", "message"));
    expect_reply(side, XY_NOT_ACCEPTABLE, XY_ERROR_CANCEL);
    request(side, "open", NULL, attributes("sid", "a", "block-size", "4096", "stanza", "presence"));
    expect_reply(side, XY_BAD_REQUEST, XY_ERROR_MODIFY);
    static const char *const sizes[] = { "0", "65536", "-1", "", "4k", "99999999999999999999" };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        peer_opens(side, "a", sizes[i]);
        expect_reply(side, XY_BAD_REQUEST, XY_ERROR_MODIFY);
    }
    peer_opens(side, "a", "4097"); /* above our limit: smaller, please */
    expect_reply(side, XY_RESOURCE_CONSTRAINT, XY_ERROR_MODIFY);
    request(side, "open", NULL, attributes("block-size", "4096"));
    expect_reply(side, XY_BAD_REQUEST, XY_ERROR_MODIFY);
    request(side, "open", NULL, attributes("sid", "a"));
    expect_reply(side, XY_BAD_REQUEST, XY_ERROR_MODIFY);
    static const char *const sids[] = { "", "a b", "a'b", "<", "\x7f" };
    for (size_t i = 0; i < sizeof sids / sizeof sids[0]; i++) {
        peer_opens(side, sids[i], "4096");
        expect_reply(side, XY_BAD_REQUEST, XY_ERROR_MODIFY);
    }
    side->answer = XY_NOT_ACCEPTABLE;
    peer_opens(side, "a", "4096");
    expect_reply(side, XY_NOT_ACCEPTABLE, xy_error_make(XY_NOT_ACCEPTABLE, NULL).type);
    assert_int_equal(side->closed, 0);
    side->answer = XY_NO_ERROR;
    side->abort_on_incoming = true;
    peer_opens(side, "a", "4096");
    expect_reply(side, XY_NOT_ACCEPTABLE, xy_error_make(XY_NOT_ACCEPTABLE, NULL).type);
    assert_int_equal(side->sent_count, 0);
    assert_int_equal(xy_ibb_count(side->ibb), 0);
}

static void test_sid_length_and_reuse(void **state)
{
    struct side *side = *state;
    char sid[XY_IBB_SID_MAX + 2];
    memset(sid, 'x', sizeof sid);
    sid[XY_IBB_SID_MAX + 1] = '\0';
    peer_opens(side, sid, "4096");
    expect_reply(side, XY_BAD_REQUEST, XY_ERROR_MODIFY);
    sid[XY_IBB_SID_MAX] = '\0';
    peer_opens(side, sid, "4096");
    expect_result(side);
    peer_opens(side, sid, "4096");
    expect_reply(side, XY_NOT_ACCEPTABLE, XY_ERROR_CANCEL);
    sid[XY_IBB_SID_MAX - 1] = '\0';
    peer_opens(side, sid, "4096");
    expect_result(side);
}

static void test_number_of_sessions_is_bounded(void **state)
{
    struct side *side = *state;
    char sid[16];
    for (unsigned i = 0; i < 10000; i++) {
        snprintf(sid, sizeof sid, "s%u", i);
        peer_opens(side, sid, "4096");
        if (i < 3)
            expect_result(side);
        else
            expect_reply(side, XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT);
    }
    assert_int_equal(xy_ibb_count(side->ibb), 3);
    assert_null(xy_ibb_open(side->ibb, romeo(), XY_STR_NONE, 0, NULL));
    request(side, "close", NULL, attributes("sid", "s1"));
    expect_result(side);
    assert_non_null(xy_ibb_open(side->ibb, romeo(), XY_STR_NONE, 0, NULL));
}

static void test_opening(void **state)
{
    struct side *side = *state;
    opened(side, 0);
    assert_int_equal(xy_ibb_block_size(side->session), XY_IBB_BLOCK_DEFAULT);
    assert_int_equal(xy_ibb_sid(side->session).len, 32); /* 128 bits in hex */
    struct xy_ibb_session *other = xy_ibb_open(side->ibb, romeo(), XY_STR_NONE, 0, side);
    assert_false(xy_str_eq(xy_ibb_sid(other), xy_ibb_sid(side->session)));
    assert_ptr_equal(xy_ibb_user(other), side);
    xy_ibb_set_user(other, NULL);
    assert_null(xy_ibb_user(other));
    assert_null(xy_ibb_open(side->ibb, romeo(), xy_ibb_sid(other), 0, NULL));
    assert_null(xy_ibb_open(side->ibb, romeo(), XY_STR("no sid"), 0, NULL));
    assert_null(xy_ibb_open(side->ibb, romeo(), XY_STR("sid"), XY_IBB_BLOCK_MAX + 1, NULL));
    assert_non_null(xy_ibb_open(side->ibb, romeo(), XY_STR("sid"), XY_IBB_BLOCK_MAX, NULL));
    assert_string_equal(side->sent[1].sid, "sid");
    assert_string_equal(side->sent[1].block_size, "65535");
}

static void test_block_size_negotiation(void **state)
{
    struct side *side = *state;
    side->session = xy_ibb_open(side->ibb, romeo(), XY_STR_NONE, 4096, NULL);
    static const char *const sizes[] = { "4096", "2048", "1024", "512" };
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(side->sent_count, i + 1);
        assert_string_equal(side->sent[i].block_size, sizes[i]);
        assert_string_equal(side->sent[i].sid, side->sent[0].sid);
        if (i < 3)
            answer(side, i, XY_RESOURCE_CONSTRAINT, XY_ERROR_MODIFY);
    }
    answer(side, 3, XY_NO_ERROR, XY_ERROR_CANCEL);
    assert_int_equal(side->opened, 1);
    assert_int_equal(xy_ibb_block_size(side->session), 512);
}

static void test_opening_is_refused(void **state)
{
    struct side *side = *state;
    static const struct {
        enum xy_condition condition;
        enum xy_error_type type;
        uint32_t block_size;
    } cases[] = {
        { XY_RESOURCE_CONSTRAINT, XY_ERROR_MODIFY, 1023 }, /* half would be below 512 */
        { XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT, 4096 },
        { XY_NOT_ACCEPTABLE, XY_ERROR_CANCEL, 4096 },
        { XY_SERVICE_UNAVAILABLE, XY_ERROR_CANCEL, 4096 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        side->session = xy_ibb_open(side->ibb, romeo(), XY_STR_NONE, cases[i].block_size, NULL);
        assert_int_equal(xy_ibb_write(side->session, "x", 1), 0);
        expect_sent(side, "open");
        answer(side, 0, cases[i].condition, cases[i].type);
        assert_int_equal(side->closed, i + 1);
        assert_int_equal(side->end.reason, XY_IBB_REFUSED);
        assert_int_equal(side->end.error.condition, cases[i].condition);
        side->sent_count = 0;
    }
    assert_int_equal(xy_ibb_count(side->ibb), 0);
}

/* ---- receiving ---- */

static void test_receiving(void **state)
{
    struct side *side = *state;
    accepted(side, "16");
    peer_sends(side, "s1", 0, "aGVsbG8=");
    expect_result(side);
    peer_sends(side, "s1", 1, "IHdvcmxk");
    expect_result(side);
    peer_sends(side, "s1", 2, ""); /* an empty block is a block, but nothing to deliver */
    expect_result(side);
    peer_sends(side, "s1", 3, "MDEyMzQ1Njc4OWFiY2RlZg=="); /* exactly 16 bytes */
    expect_result(side);
    assert_memory_equal(side->data, "hello world0123456789abcdef", 27);
    assert_int_equal(side->data_len, 27);
    assert_int_equal(side->sent_count, 0);
    request(side, "close", NULL, attributes("sid", "s1"));
    expect_result(side);
    assert_int_equal(side->end.reason, XY_IBB_CLOSED_BY_PEER);
    assert_int_equal(side->sent_count, 0);
    peer_sends(side, "s1", 4, "aGVsbG8="); /* late */
    expect_reply(side, XY_ITEM_NOT_FOUND, XY_ERROR_CANCEL);
    request(side, "close", NULL, attributes("sid", "s1"));
    expect_reply(side, XY_ITEM_NOT_FOUND, XY_ERROR_CANCEL);
    assert_int_equal(side->closed, 1);
}

static void test_unknown_sid(void **state)
{
    struct side *side = *state;
    accepted(side, "16");
    peer_sends(side, "s2", 0, "aGVsbG8=");
    expect_reply(side, XY_ITEM_NOT_FOUND, XY_ERROR_CANCEL);
    request(side, "data", "aGVsbG8=", attributes("seq", "0"));
    expect_reply(side, XY_ITEM_NOT_FOUND, XY_ERROR_CANCEL);
    assert_int_equal(side->closed, 0);
}

/* Every fault of a block: its error, then a <close/>, then nothing more of this session is known. */
static void test_faulty_blocks_end_the_session(void **state)
{
    struct side *side = *state;
    static const struct {
        const char *seq, *text;
        enum xy_condition condition;
    } cases[] = {
        { "2", "aGVsbG8=", XY_UNEXPECTED_REQUEST }, /* one was lost */
        { "0", "aGVsbG8=", XY_UNEXPECTED_REQUEST }, /* seen before */
        { "65535", "aGVsbG8=", XY_UNEXPECTED_REQUEST },
        { "65537", "aGVsbG8=", XY_BAD_REQUEST },
        { "", "aGVsbG8=", XY_BAD_REQUEST },
        { "one", "aGVsbG8=", XY_BAD_REQUEST },
        { "1", "MDEyMzQ1Njc4OWFiY2RlZjA=", XY_BAD_REQUEST }, /* 17 bytes */
        { "1", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3", XY_BAD_REQUEST },
        { "1", "=AAA", XY_BAD_REQUEST },
        { "1", "BBBB=CCC", XY_BAD_REQUEST },
        { "1", "aGVsbG8", XY_BAD_REQUEST },
        { "1", "aGVs bG8=", XY_BAD_REQUEST },
        { "1", "aGVs\nbG8=", XY_BAD_REQUEST },
        { "1", "aGVs*G8=", XY_BAD_REQUEST },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        accepted(side, "16");
        peer_sends(side, "s1", 0, "aGVsbG8=");
        expect_result(side);
        size_t before = side->data_len;
        request(side, "data", cases[i].text, attributes("sid", "s1", "seq", cases[i].seq));
        expect_reply(side, cases[i].condition, XY_ERROR_CANCEL);
        assert_int_equal(side->data_len, before);
        expect_sent(side, "close");
        assert_string_equal(side->sent[0].sid, "s1");
        assert_int_equal(side->closed, i + 1);
        assert_int_equal(side->end.reason, XY_IBB_VIOLATED);
        assert_int_equal(side->end.error.condition, cases[i].condition);
        answer(side, 0, XY_NO_ERROR,
               XY_ERROR_CANCEL); /* to the close of a session that is no more: ignored */
        side->sent_count = 0;
        peer_sends(side, "s1", 1, "aGVsbG8=");
        expect_reply(side, XY_ITEM_NOT_FOUND, XY_ERROR_CANCEL);
    }
}

static void test_hold_delays_acknowledgements(void **state)
{
    struct side *side = *state;
    accepted(side, "16");
    side->take = XY_IBB_HOLD;
    peer_sends(side, "s1", 0, "YQ==");
    side->take = XY_IBB_TAKEN;
    peer_sends(side, "s1", 1, "Yg==");
    assert_int_equal(side->replied_count, 0);
    assert_memory_equal(side->data, "ab", 2);
    xy_ibb_release(side->session);
    assert_int_equal(side->replied_count, 2);
    assert_true(strcmp(side->replied[0].id, side->replied[1].id) < 0 ||
                strlen(side->replied[0].id) < strlen(side->replied[1].id)); /* in order */
    side->replied_count = 0;
    peer_sends(side, "s1", 2, "Yw==");
    expect_result(side);
}

static void test_held_acknowledgements_are_bounded(void **state)
{
    struct side *side = *state;
    accepted(side, "16");
    side->take = XY_IBB_HOLD;
    for (unsigned i = 0; i < XY_IBB_HELD_MAX; i++)
        peer_sends(side, "s1", i, "YQ==");
    assert_int_equal(side->replied_count, 0);
    assert_int_equal(side->data_len, XY_IBB_HELD_MAX);
    peer_sends(side, "s1", XY_IBB_HELD_MAX,
               "Yg=="); /* refused, and so are those behind it, but nothing is lost */
    expect_reply(side, XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT);
    peer_sends(side, "s1", XY_IBB_HELD_MAX + 1, "Yw==");
    expect_reply(side, XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT);
    xy_ibb_release(side->session);
    assert_int_equal(side->replied_count, XY_IBB_HELD_MAX);
    side->replied_count = 0;
    peer_sends(side, "s1", XY_IBB_HELD_MAX + 1, "Yw=="); /* still not its turn */
    expect_reply(side, XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT);
    side->take = XY_IBB_TAKEN;
    peer_sends(side, "s1", XY_IBB_HELD_MAX, "Yg==");
    expect_result(side);
    peer_sends(side, "s1", XY_IBB_HELD_MAX + 1, "Yw==");
    expect_result(side);
    assert_int_equal(side->data_len, XY_IBB_HELD_MAX + 2);
    peer_sends(side, "s1", XY_IBB_HELD_MAX + 3, "Yw=="); /* from now on a gap is a gap */
    expect_reply(side, XY_UNEXPECTED_REQUEST, XY_ERROR_CANCEL);
}

static void test_close_flushes_what_is_held(void **state)
{
    struct side *side = *state;
    accepted(side, "16");
    side->take = XY_IBB_HOLD;
    peer_sends(side, "s1", 0, "YQ==");
    peer_sends(side, "s1", 1, "YQ==");
    request(side, "close", NULL, attributes("sid", "s1"));
    assert_int_equal(side->replied_count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(side->replied[i].condition, XY_NO_ERROR);
    assert_int_equal(side->closed, 1);
}

static void test_abort_while_receiving(void **state)
{
    struct side *side = *state;
    accepted(side, "16");
    side->abort_on_data = true;
    side->take = XY_IBB_HOLD;
    peer_sends(side, "s1", 0, "YQ==");
    expect_result(side);
    expect_sent(side, "close");
    assert_int_equal(side->end.reason, XY_IBB_ABORTED);
    assert_int_equal(xy_ibb_count(side->ibb), 0);
}

/* ---- sending ---- */

static void write_all(struct side *side, size_t len)
{
    char *data = malloc(len);
    for (size_t i = 0; i < len; i++)
        data[i] = (char)('a' + i % 26);
    assert_int_equal(xy_ibb_write(side->session, data, len), len);
    free(data);
}

static void test_window(void **state)
{
    struct side *side = *state;
    char big[512 * 9] = { 0 };
    opened(side, 512);
    assert_int_equal(xy_ibb_write(side->session, big, sizeof big), 512 * 8); /* the window of 8 is full */
    assert_int_equal(side->sent_count, 8);
    assert_int_equal(xy_ibb_unconfirmed(side->session), 512 * 8);
    for (size_t i = 0; i < 8; i++) {
        char seq[8];
        snprintf(seq, sizeof seq, "%zu", i);
        assert_string_equal(side->sent[i].name, "data");
        assert_string_equal(side->sent[i].seq, seq);
    }
    assert_int_equal(xy_ibb_write(side->session, big, 1), 0);
    assert_int_equal(side->writable, 0);
    answer(side, 1, XY_NO_ERROR, XY_ERROR_CANCEL); /* not the oldest: no room yet */
    assert_int_equal(side->writable, 0);
    answer(side, 0, XY_NO_ERROR, XY_ERROR_CANCEL);
    assert_int_equal(side->writable, 1);
    answer(side, 0, XY_NO_ERROR, XY_ERROR_CANCEL); /* an answer twice is none */
    assert_int_equal(xy_ibb_unconfirmed(side->session), 512 * 6);
    assert_int_equal(xy_ibb_write(side->session, big, sizeof big), 512 * 2);
    assert_int_equal(side->sent_count, 10);
}

static void test_small_writes_gather(void **state)
{
    struct side *side = *state;
    opened(side, 512);
    write_all(side, 3); /* nothing on the way: at once */
    expect_sent(side, "data");
    assert_string_equal(side->sent[0].text, "YWJj");
    write_all(side, 3);
    write_all(side, 3);
    assert_int_equal(side->sent_count, 1);
    answer(side, 0, XY_NO_ERROR, XY_ERROR_CANCEL);
    assert_int_equal(side->sent_count, 2);
    assert_string_equal(side->sent[1].text, "YWJjYWJj");
    write_all(side, 512); /* a complete block does not wait */
    assert_int_equal(side->sent_count, 3);
}

static void test_close_waits_for_acknowledgements(void **state)
{
    struct side *side = *state;
    opened(side, 512);
    write_all(side, 1300);
    assert_int_equal(side->sent_count, 2);
    xy_ibb_close(side->session);
    assert_int_equal(side->sent_count, 3); /* the rest, but no close yet */
    assert_int_equal(xy_ibb_write(side->session, "x", 1), 0);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(side->sent_count, 3);
        answer(side, i, XY_NO_ERROR, XY_ERROR_CANCEL);
    }
    assert_int_equal(side->sent_count, 4);
    assert_string_equal(side->sent[3].name, "close");
    assert_int_equal(side->closed, 0);
    answer(side, 3, XY_NO_ERROR, XY_ERROR_CANCEL);
    assert_int_equal(side->closed, 1);
    assert_int_equal(side->end.reason, XY_IBB_CLOSED);
    assert_int_equal(side->end.unconfirmed_bytes, 0);
    assert_int_equal(side->writable, 0);
}

static void test_close_answered_by_an_error_is_closed(void **state)
{
    struct side *side = *state;
    opened(side, 512);
    xy_ibb_close(side->session);
    expect_sent(side, "close");
    answer(side, 0, XY_ITEM_NOT_FOUND, XY_ERROR_CANCEL);
    assert_int_equal(side->end.reason, XY_IBB_CLOSED);
}

static void test_close_before_opened(void **state)
{
    struct side *side = *state;
    side->session = xy_ibb_open(side->ibb, romeo(), XY_STR_NONE, 0, NULL);
    xy_ibb_close(side->session);
    expect_sent(side, "open");
    answer(side, 0, XY_NO_ERROR, XY_ERROR_CANCEL);
    assert_int_equal(side->sent_count, 2);
    assert_string_equal(side->sent[1].name, "close");
}

static void test_closes_that_cross(void **state)
{
    struct side *side = *state;
    side->session = xy_ibb_open(side->ibb, romeo(), XY_STR("cross"), 0, NULL);
    answer(side, 0, XY_NO_ERROR, XY_ERROR_CANCEL);
    xy_ibb_close(side->session);
    peer_sends(side, "cross", 0, "YQ=="); /* until the answer the peer may still send */
    expect_result(side);
    request(side, "close", NULL, attributes("sid", "cross"));
    expect_result(side);
    assert_int_equal(side->end.reason, XY_IBB_CLOSED);
    answer(side, 1, XY_ITEM_NOT_FOUND, XY_ERROR_CANCEL);
    assert_int_equal(side->closed, 1);
}

static void test_peer_closes_in_the_middle(void **state)
{
    struct side *side = *state;
    side->session = xy_ibb_open(side->ibb, romeo(), XY_STR("mid"), 512, NULL);
    answer(side, 0, XY_NO_ERROR, XY_ERROR_CANCEL);
    write_all(side, 1500);
    answer(side, 1, XY_NO_ERROR, XY_ERROR_CANCEL);
    request(side, "close", NULL, attributes("sid", "mid"));
    expect_result(side);
    assert_int_equal(side->end.reason, XY_IBB_CLOSED_BY_PEER);
    assert_int_equal(side->end.unconfirmed_bytes, 988);
    answer(side, 2, XY_NO_ERROR, XY_ERROR_CANCEL); /* late answers find nobody */
}

static void test_errors_about_data_end_the_session(void **state)
{
    struct side *side = *state;
    static const enum xy_condition conditions[] = { XY_ITEM_NOT_FOUND, XY_UNEXPECTED_REQUEST,
                                                    XY_BAD_REQUEST };
    for (size_t i = 0; i < 3; i++) {
        side->opened = 0;
        opened(side, 512);
        write_all(side, 600);
        answer(side, 0, conditions[i], XY_ERROR_CANCEL);
        assert_int_equal(side->sent_count, 2);
        assert_string_equal(side->sent[1].name, "close");
        assert_int_equal(side->closed, i + 1);
        assert_int_equal(side->end.reason, XY_IBB_FAILED);
        assert_int_equal(side->end.error.condition, conditions[i]);
        assert_int_equal(side->end.unconfirmed_bytes, 600);
        side->sent_count = 0;
    }
}

/* The way is short of resources: half the window, from the oldest, in order, after a while. */
static void test_refused_blocks_are_sent_again(void **state)
{
    struct side *side = *state;
    opened(side, 512);
    write_all(side, 512 * 8);
    answer(side, 0, XY_NO_ERROR, XY_ERROR_CANCEL);
    answer(side, 1, XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT);
    for (size_t i = 2; i < 7; i++)
        answer(side, i, XY_RECIPIENT_UNAVAILABLE, XY_ERROR_WAIT);
    assert_int_equal(xy_ibb_deadline_us(side->ibb), UINT64_MAX); /* one answer is missing */
    answer(side, 7, XY_RESOURCE_CONSTRAINT, XY_ERROR_CANCEL);
    assert_int_equal(side->sent_count, 8);
    assert_int_equal(xy_ibb_window(side->session), 4);
    assert_int_equal(xy_ibb_deadline_us(side->ibb), side->now_us + XY_IBB_RETRY_MIN_MS * 1000);
    xy_ibb_tick(side->ibb);
    assert_int_equal(side->sent_count, 8);
    side->now_us += XY_IBB_RETRY_MIN_MS * 1000;
    xy_ibb_tick(side->ibb);
    assert_int_equal(side->sent_count, 12);
    assert_int_equal(xy_ibb_deadline_us(side->ibb), UINT64_MAX);
    for (size_t i = 8; i < 12; i++) {
        assert_string_equal(side->sent[i].seq, side->sent[i - 7].seq);
        assert_string_equal(side->sent[i].text, side->sent[i - 7].text);
    }
    for (size_t i = 8; i < 12; i++)
        answer(side, i, XY_NO_ERROR, XY_ERROR_CANCEL);
    assert_int_equal(xy_ibb_window(side->session), 5); /* grows by one for a window that came through */
    assert_int_equal(side->sent_count, 15);
}

static void test_retries_are_bounded(void **state)
{
    struct side *side = *state;
    opened(side, 512);
    write_all(side, 10);
    for (size_t i = 0; i < XY_IBB_RETRIES_MAX; i++) {
        assert_int_equal(side->sent_count, i + 1);
        answer(side, i, XY_RECIPIENT_UNAVAILABLE, XY_ERROR_WAIT);
        assert_in_range(xy_ibb_deadline_us(side->ibb) - side->now_us, XY_IBB_RETRY_MIN_MS * 1000,
                        XY_IBB_RETRY_MAX_MS * 1000);
        side->now_us = xy_ibb_deadline_us(side->ibb);
        xy_ibb_tick(side->ibb);
        assert_int_equal(xy_ibb_window(side->session), i == 0 ? 4 : i == 1 ? 2 : 1);
    }
    answer(side, XY_IBB_RETRIES_MAX, XY_RECIPIENT_UNAVAILABLE, XY_ERROR_WAIT);
    assert_int_equal(side->closed, 1);
    assert_int_equal(side->end.reason, XY_IBB_FAILED);
    assert_int_equal(side->end.error.condition, XY_RECIPIENT_UNAVAILABLE);
}

/* A peer that confirms a block behind a refused one has lost the order. */
static void test_confirmed_behind_refused_fails(void **state)
{
    struct side *side = *state;
    opened(side, 512);
    write_all(side, 1024);
    answer(side, 0, XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT);
    answer(side, 1, XY_NO_ERROR, XY_ERROR_CANCEL);
    assert_int_equal(side->end.reason, XY_IBB_FAILED);
}

static void test_abort_and_free(void **state)
{
    struct side *side = *state;
    opened(side, 512);
    write_all(side, 10);
    xy_ibb_abort(side->session);
    assert_int_equal(side->sent_count, 2);
    assert_string_equal(side->sent[1].name, "close");
    assert_int_equal(side->end.reason, XY_IBB_ABORTED);
    assert_int_equal(side->end.unconfirmed_bytes, 10);
    accepted(side, "16");
    side->take = XY_IBB_HOLD;
    peer_sends(side, "s1", 0, "YQ==");
    xy_ibb_free(&side->ibb);
    assert_int_equal(side->closed, 2);
    assert_int_equal(side->sent_count, 2); /* nobody is told */
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_only_iq_sets_of_ours),
        test(test_incoming_open),
        test(test_incoming_open_refused),
        test(test_sid_length_and_reuse),
        test(test_number_of_sessions_is_bounded),
        test(test_opening),
        test(test_block_size_negotiation),
        test(test_opening_is_refused),
        test(test_receiving),
        test(test_unknown_sid),
        test(test_faulty_blocks_end_the_session),
        test(test_hold_delays_acknowledgements),
        test(test_held_acknowledgements_are_bounded),
        test(test_close_flushes_what_is_held),
        test(test_abort_while_receiving),
        test(test_window),
        test(test_small_writes_gather),
        test(test_close_waits_for_acknowledgements),
        test(test_close_answered_by_an_error_is_closed),
        test(test_close_before_opened),
        test(test_closes_that_cross),
        test(test_peer_closes_in_the_middle),
        test(test_errors_about_data_end_the_session),
        test(test_refused_blocks_are_sent_again),
        test(test_retries_are_bounded),
        test(test_confirmed_behind_refused_fails),
        test(test_abort_and_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
