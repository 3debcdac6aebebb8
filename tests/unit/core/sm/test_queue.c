/* The outbox: order, keeping and settling, entries that do not count, rewinding, and a model under random use. */
#include "tests/unit/unit.h"

#include "core/sm/queue.h"

static struct xy_sm_pool pool = { .spare_max = 2 };

static bool push(struct xy_sm_queue *queue, uint64_t claim, uint64_t aux)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%llu", (unsigned long long)claim);
    return xy_sm_push(queue, (struct xy_sm_entry){ xy_bytes_new(xy_str_n(text, (size_t)len)), claim, aux });
}

/* What a callback was called with, in order. */
struct seen {
    uint64_t claims[4096];
    bool sent[4096];
    size_t count;
};

static void note(struct xy_sm_entry *entry, bool sent, void *ctx)
{
    struct seen *seen = ctx;
    assert_true(seen->count < 4096);
    seen->sent[seen->count] = sent;
    seen->claims[seen->count++] = entry->claim;
}

static uint64_t send_one(struct xy_sm_queue *queue, struct xy_sm *sm)
{
    struct xy_sm_entry entry;
    const struct xy_sm_entry *peeked = xy_sm_peek_unsent(queue);
    assert_non_null(peeked);
    uint64_t claim = peeked->claim;
    assert_true(xy_sm_next_unsent(queue, sm, &entry));
    assert_int_equal(entry.claim, claim);
    xy_bytes_unref(&entry.bytes);
    return claim;
}

static void test_entry_size(void **state)
{
    (void)state;
    assert_int_equal(sizeof(struct xy_sm_entry), 24);
}

static void test_without_management(void **state)
{
    (void)state;
    struct xy_sm_queue queue;
    struct xy_sm sm = { 0 };
    struct xy_sm_entry entry;
    xy_sm_queue_init(&queue, &pool);
    assert_true(xy_sm_queue_empty(&queue));
    assert_null(xy_sm_peek_unsent(&queue));
    assert_false(xy_sm_next_unsent(&queue, &sm, &entry));
    for (uint64_t i = 0; i < 200; i++)
        assert_true(push(&queue, i, 0));
    for (uint64_t i = 0; i < 200; i++)
        assert_int_equal(send_one(&queue, &sm), i);
    assert_true(xy_sm_queue_empty(&queue));
    assert_null(queue.head);
    assert_int_equal(queue.bytes_unsent, 0);
    assert_int_equal(sm.out_sent, 0);
    assert_int_equal(pool.spare_count, 2);
}

static void test_ack_settles(void **state)
{
    (void)state;
    struct xy_sm_queue queue;
    struct xy_sm sm = { 0 };
    struct seen seen = { 0 };
    xy_sm_queue_init(&queue, &pool);
    xy_sm_queue_keep(&queue, true);
    for (uint64_t i = 10; i < 15; i++)
        push(&queue, i, 0);
    assert_int_equal(queue.bytes_unsent, 10);
    for (int i = 0; i < 4; i++)
        send_one(&queue, &sm);
    assert_int_equal(queue.bytes_kept, 8);
    assert_int_equal(xy_sm_queue_ack(&queue, &sm, 5, note, &seen), XY_SM_ACK_TOO_HIGH);
    assert_int_equal(seen.count, 0);
    assert_int_equal(xy_sm_queue_ack(&queue, &sm, 3, note, &seen), XY_SM_ACK_NEW);
    assert_int_equal(seen.count, 3);
    assert_int_equal(seen.claims[2], 12);
    assert_int_equal(xy_sm_queue_ack(&queue, &sm, 1, note, &seen), XY_SM_ACK_OLD);
    assert_int_equal(seen.count, 3);
    assert_int_equal(queue.bytes_kept, 2);
    seen.count = 0;
    xy_sm_queue_drain(&queue, note, &seen);
    assert_int_equal(seen.count, 2);
    assert_true(seen.sent[0]);
    assert_false(seen.sent[1]);
    assert_int_equal(seen.claims[1], 14);
    assert_null(queue.head);
}

static void test_uncounted(void **state)
{
    (void)state;
    struct xy_sm_queue queue;
    struct xy_sm sm = { 0 };
    struct seen seen = { 0 };
    xy_sm_queue_init(&queue, &pool);
    xy_sm_queue_keep(&queue, true);
    push(&queue, 1, XY_SM_UNCOUNTED);
    push(&queue, 2, 0);
    push(&queue, 3, XY_SM_UNCOUNTED);
    push(&queue, 4, 0);
    push(&queue, 5, 0);
    for (uint64_t i = 1; i <= 4; i++)
        assert_int_equal(send_one(&queue, &sm), i);
    assert_int_equal(sm.out_sent, 2);
    /* the lost stream: 2 was handled, 4 must go again, 3 must not */
    assert_int_equal(xy_sm_queue_ack(&queue, &sm, 1, note, &seen), XY_SM_ACK_NEW);
    assert_int_equal(seen.claims[0], 2);
    xy_sm_queue_rewind(&queue, &sm);
    assert_int_equal(queue.bytes_unsent, 2);
    assert_int_equal(send_one(&queue, &sm), 4);
    assert_int_equal(send_one(&queue, &sm), 5);
    assert_null(xy_sm_peek_unsent(&queue));
    assert_int_equal(xy_sm_queue_ack(&queue, &sm, 3, note, &seen), XY_SM_ACK_NEW);
    assert_int_equal(seen.count, 3);
    assert_true(xy_sm_queue_empty(&queue));
}

static void push_more(struct xy_sm_entry *entry, bool sent, void *ctx)
{
    (void)sent;
    assert_true(push(ctx, entry->claim + 100, 0));
}

/* Settling one entry makes room for the next: it is pushed from inside the callback. */
static void test_push_while_settling(void **state)
{
    (void)state;
    struct xy_sm_queue queue;
    struct xy_sm sm = { 0 };
    xy_sm_queue_init(&queue, &pool);
    xy_sm_queue_keep(&queue, true);
    push(&queue, 1, 0);
    send_one(&queue, &sm);
    xy_sm_queue_ack(&queue, &sm, 1, push_more, &queue);
    assert_int_equal(send_one(&queue, &sm), 101);
    assert_int_equal(xy_sm_queue_ack(&queue, &sm, 2, NULL, NULL), XY_SM_ACK_NEW);
    assert_true(xy_sm_queue_empty(&queue));
    push(&queue, 3, 0);
    xy_sm_queue_drain(&queue, NULL, NULL);
    assert_true(xy_sm_queue_empty(&queue));
}

static void take_bytes(struct xy_sm_entry *entry, bool sent, void *ctx)
{
    (void)sent;
    *(struct xy_bytes **)ctx = entry->bytes;
    entry->bytes = NULL;
}

static void test_callback_takes_bytes(void **state)
{
    (void)state;
    struct xy_sm_queue queue;
    struct xy_bytes *taken = NULL;
    xy_sm_queue_init(&queue, &pool);
    push(&queue, 77, 0);
    xy_sm_queue_drain(&queue, take_bytes, &taken);
    assert_str(xy_bytes_view(taken), "77");
    xy_bytes_unref(&taken);
}

/* A plain array as the model. */
struct model {
    uint64_t claims[100000];
    bool counted[100000];
    size_t acked, sent, tail;
};

static void model_send(struct model *m, struct xy_sm_queue *queue, struct xy_sm *sm)
{
    while (m->sent < m->tail && m->claims[m->sent] == 0)
        m->sent++;
    if (m->sent == m->tail) {
        assert_null(xy_sm_peek_unsent(queue));
        return;
    }
    assert_int_equal(send_one(queue, sm), m->claims[m->sent]);
    if (!m->counted[m->sent])
        m->claims[m->sent] = 0;
    m->sent++;
}

static void model_ack(struct model *m, struct xy_sm_queue *queue, struct xy_sm *sm, uint64_t *seed)
{
    struct seen *seen = calloc(1, sizeof *seen);
    uint32_t count = (uint32_t)unit_below(seed, xy_sm_unacked(sm) + 1);
    assert_int_equal(xy_sm_queue_ack(queue, sm, (uint32_t)sm->out_acked + count, note, seen), XY_SM_ACK_NEW);
    assert_int_equal(seen->count, count);
    for (size_t i = 0; i < count; m->acked++)
        if (m->claims[m->acked] != 0)
            assert_int_equal(seen->claims[i++], m->claims[m->acked]);
    free(seen);
}

static void test_model(void **state)
{
    (void)state;
    static struct model m;
    uint64_t seed = 99;
    struct xy_sm_queue queue;
    struct xy_sm sm = { 0 };
    xy_sm_queue_init(&queue, &pool);
    xy_sm_queue_keep(&queue, true);
    while (m.tail < 90000) {
        size_t what = unit_below(&seed, 1000);
        if (what < 480) {
            m.counted[m.tail] = unit_below(&seed, 4) != 0;
            m.claims[m.tail] = m.tail + 1;
            assert_true(push(&queue, m.tail + 1, m.counted[m.tail] ? 0 : XY_SM_UNCOUNTED));
            m.tail++;
        } else if (what < 980) {
            model_send(&m, &queue, &sm);
        } else if (what < 999) {
            model_ack(&m, &queue, &sm, &seed);
        } else {
            xy_sm_queue_rewind(&queue, &sm);
            m.sent = m.acked;
        }
    }
    struct seen *seen = calloc(1, sizeof *seen);
    xy_sm_queue_each(&queue, note, seen);
    size_t each = seen->count;
    seen->count = 0;
    xy_sm_queue_drain(&queue, note, seen);
    assert_int_equal(seen->count, each);
    size_t i = 0;
    for (; m.acked < m.tail; m.acked++)
        if (m.claims[m.acked] != 0)
            assert_int_equal(seen->claims[i++], m.claims[m.acked]);
    assert_int_equal(i, each);
    assert_int_equal(queue.bytes_unsent + queue.bytes_kept, 0);
    free(seen);
}

static int end(void **state)
{
    (void)state;
    xy_sm_pool_free(&pool);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entry_size),
        cmocka_unit_test(test_without_management),
        cmocka_unit_test(test_ack_settles),
        cmocka_unit_test(test_uncounted),
        cmocka_unit_test(test_push_while_settling),
        cmocka_unit_test(test_callback_takes_bytes),
        cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
