/* Mail between shards, what waits for a commit, and turns: driven by hand with the store in memory, then by threads. */
#include "tests/unit/unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "broker/shard/shard.h"
#include "broker/shard/stats.h"
#include "broker/store/backend.h"
#include "broker/store/store.h"
#include "xylem/store/v1/records.pb-c.h"

#define SEEN_MAX 4096

static struct {
    uint64_t now_us;
    struct store_memory *memory;
    struct store *store;
    struct shard_group *group;
    atomic_uint wakes[4];
    unsigned seen[SEEN_MAX];
    unsigned count;
} world;

static uint64_t now_us(void *ctx)
{
    (void)ctx;
    return world.now_us;
}

static void random_bytes(void *ctx, void *out, size_t len)
{
    (void)ctx;
    memset(out, 7, len);
}

static const struct xy_env env = { .now_us = now_us, .wall_us = now_us, .random = random_bytes };

static void on_wake(void *ctx, unsigned shard)
{
    (void)ctx;
    atomic_fetch_add(&world.wakes[shard], 1);
}

static void on_committed(void *ctx, unsigned shard)
{
    (void)ctx;
    (void)shard;
}

static void on_failed(void *ctx, const char *why)
{
    (void)ctx;
    fail_msg("%s", why);
}

static void world_new(unsigned shards, bool store)
{
    memset(&world, 0, sizeof(world));
    world.now_us = 1000;
    if (store) {
        struct xy_buf error = { 0 };
        world.memory = store_memory_new();
        world.store = store_open(&(struct store_options){ .backend = store_memory_backend(world.memory),
                                                          .shards = shards,
                                                          .env = &env,
                                                          .committed = on_committed,
                                                          .failed = on_failed },
                                 &error);
        assert_non_null(world.store);
    }
    world.group = shard_group_new(&(struct shard_group_options){
        .count = shards, .env = &env, .store = world.store, .hash_seed = 3, .wake = on_wake });
}

static void world_free(void)
{
    shard_group_free(&world.group);
    if (world.store) {
        store_close(&world.store);
        store_memory_free(&world.memory);
    }
}

static struct shard *shard_at(unsigned index)
{
    return shard_group_get(world.group, index);
}

static void see(struct shard *shard, void *payload)
{
    (void)shard;
    assert_true(world.count < SEEN_MAX);
    memcpy(&world.seen[world.count++], payload, sizeof(unsigned));
}

static void mail(unsigned from, unsigned to, unsigned number)
{
    shard_mail(shard_at(from), to, see, &number, sizeof(number));
}

static void assert_seen(unsigned count, const unsigned *expected)
{
    assert_int_equal(world.count, count);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(world.seen[i], expected[i]);
}

/* --- mail ----------------------------------------------------------------------------------------------------------- */

/* Enough for several blocks; each sender's letters arrive in the order it wrote them. */
static void test_order_per_sender(void **state)
{
    (void)state;
    world_new(3, false);
    for (unsigned i = 0; i < 1000; i++) {
        mail(0, 2, i);
        mail(1, 2, 100000 + i);
        if (i % 97 == 0)
            shard_turn(shard_at(i % 2));
    }
    shard_turn(shard_at(0));
    shard_turn(shard_at(1));
    assert_int_equal(world.count, 0);
    assert_true(shard_has_mail(shard_at(2)));
    shard_turn(shard_at(2));
    assert_int_equal(world.count, 2000);
    unsigned next[2] = { 0, 100000 };
    for (unsigned i = 0; i < world.count; i++)
        assert_int_equal(world.seen[i], next[world.seen[i] >= 100000]++);
    assert_false(shard_has_mail(shard_at(2)));
    world_free();
}

static void test_leaves_at_the_end_of_the_turn(void **state)
{
    (void)state;
    world_new(2, false);
    mail(0, 1, 1);
    shard_turn(shard_at(1));
    assert_int_equal(world.count, 0);
    shard_turn(shard_at(0));
    assert_int_equal(atomic_load(&world.wakes[1]), 1);
    shard_turn(shard_at(1));
    assert_int_equal(world.count, 1);
    world_free();
}

/* One wake-up for however many senders, until it was heard. */
static void test_wakes_once(void **state)
{
    (void)state;
    world_new(3, false);
    for (unsigned i = 0; i < 10; i++) {
        mail(0, 2, i);
        shard_turn(shard_at(0));
        mail(1, 2, i);
        shard_turn(shard_at(1));
        shard_post(world.group, 2, see, &i, sizeof(i));
    }
    assert_int_equal(atomic_load(&world.wakes[2]), 1);
    shard_turn(shard_at(2));
    assert_int_equal(world.count, 30);
    mail(0, 2, 0);
    shard_turn(shard_at(0));
    assert_int_equal(atomic_load(&world.wakes[2]), 2);
    shard_turn(shard_at(2));
    world_free();
}

static void again(struct shard *shard, void *payload)
{
    unsigned left = *(unsigned *)payload;
    see(shard, payload);
    left--;
    if (left > 0)
        shard_mail(shard, shard->index, again, &left, sizeof(left));
}

/* Mail to itself is handled within the turn, but not for ever: the loop must get to its sockets. */
static void test_self_mail(void **state)
{
    (void)state;
    unsigned left = 5;
    world_new(1, false);
    shard_mail(shard_at(0), 0, again, &left, sizeof(left));
    assert_int_equal(world.count, 0);
    assert_int_equal(shard_turn(shard_at(0)), UINT64_MAX);
    assert_seen(5, (const unsigned[]){ 5, 4, 3, 2, 1 });
    left = 1000;
    world.count = 0;
    shard_mail(shard_at(0), 0, again, &left, sizeof(left));
    assert_int_equal(shard_turn(shard_at(0)), 0);
    assert_true(world.count > 1 && world.count < 100);
    while (shard_turn(shard_at(0)) == 0)
        ;
    assert_int_equal(world.count, 1000);
    world_free();
}

static void big(struct shard *shard, void *payload)
{
    const unsigned char *bytes = payload;
    (void)shard;
    assert_int_equal((uintptr_t)payload % 16, 0);
    for (unsigned i = 0; i < SHARD_MAIL_MAX; i++)
        assert_int_equal(bytes[i], (i * 7) & 0xff);
    world.count++;
}

static void nothing(struct shard *shard, void *payload)
{
    (void)shard;
    (void)payload;
    world.count++;
}

static void test_payload_sizes(void **state)
{
    (void)state;
    unsigned char bytes[SHARD_MAIL_MAX];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (i * 7) & 0xff;
    world_new(2, false);
    for (unsigned i = 0; i < 200; i++) {
        shard_mail(shard_at(0), 1, big, bytes, sizeof(bytes));
        shard_mail(shard_at(0), 1, nothing, NULL, 0);
    }
    shard_turn(shard_at(0));
    shard_turn(shard_at(1));
    assert_int_equal(world.count, 400);
    world_free();
}

static void test_letters_nobody_took_are_freed(void **state)
{
    (void)state;
    world_new(2, true);
    mail(0, 1, 1);
    mail(0, 0, 1);
    unsigned number = 1;
    shard_post(world.group, 0, see, &number, sizeof(number));
    shard_when_committed(shard_at(0), 100, see, &number, sizeof(number));
    shard_turn(shard_at(1));
    world_free(); /* the leak checker looks on */
    assert_int_equal(world.count, 0);
}

/* --- commits -------------------------------------------------------------------------------------------------------- */

static uint64_t append(unsigned shard)
{
    Xylem__Store__V1__AccountPut put = XYLEM__STORE__V1__ACCOUNT_PUT__INIT;
    put.jid = (char *)(uintptr_t) "romeo@example.org";
    put.created_us = 1;
    return store_append(shard_at(shard)->store, RECORD_ACCOUNT_PUT, &put.base);
}

static void when(uint64_t ticket, unsigned number)
{
    shard_when_committed(shard_at(0), ticket, see, &number, sizeof(number));
}

static void test_waits_for_the_commit(void **state)
{
    (void)state;
    world_new(1, true);
    uint64_t ticket = append(0);
    when(ticket, 1);
    when(ticket, 2);
    when(0, 3); /* depends on nothing */
    assert_seen(1, (const unsigned[]){ 3 });
    shard_turn(shard_at(0));
    assert_int_equal(world.count, 1);
    assert_true(store_step_commit(world.store));
    assert_int_equal(world.count, 1);
    shard_turn(shard_at(0));
    assert_seen(3, (const unsigned[]){ 3, 1, 2 });
    when(ticket, 4); /* on disk since the last look: at once */
    assert_seen(4, (const unsigned[]){ 3, 1, 2, 4 });
    world_free();
}

/* 1 and 2 belong to one object, 9 to another. 1 is asked for behind 9 and so waits longer than it must; then 2 must
 * wait as well, although its ticket is on disk already. */
static void test_keeps_the_order_of_an_object(void **state)
{
    (void)state;
    world_new(1, true);
    uint64_t first = append(0);
    shard_turn(shard_at(0)); /* handed to the writer */
    uint64_t second = append(0);
    assert_true(second > first);
    when(second, 9);
    when(first, 1);
    assert_true(store_step_commit(world.store));
    shard_turn(shard_at(0));
    when(first, 2);
    when(0, 7);
    assert_seen(1, (const unsigned[]){ 7 });
    assert_true(store_step_commit(world.store));
    shard_turn(shard_at(0));
    assert_seen(4, (const unsigned[]){ 7, 9, 1, 2 });
    when(first, 3);
    when(second, 4);
    assert_seen(6, (const unsigned[]){ 7, 9, 1, 2, 3, 4 });
    world_free();
}

/* Whatever is asked for when: nothing runs before its ticket is on disk, and objects keep their order. */
static void test_commits_against_a_model(void **state)
{
    (void)state;
    enum { OBJECTS = 5 };
    uint64_t seed = 99, tickets[OBJECTS] = { 0 };
    unsigned asked[OBJECTS] = { 0 }, ran[OBJECTS] = { 0 };
    world_new(1, true);
    for (unsigned step = 0; step < 20000; step++) {
        unsigned object = (unsigned)unit_below(&seed, OBJECTS);
        switch (unit_below(&seed, 5)) {
        case 0:
            tickets[object] = append(0);
            break;
        case 1:
            store_step_commit(world.store);
            break;
        case 2:
            shard_turn(shard_at(0));
            break;
        default:
            when(tickets[object], object * 1000000 + asked[object]++);
        }
        for (unsigned i = 0; i < world.count; i++) {
            object = world.seen[i] / 1000000;
            assert_int_equal(world.seen[i] % 1000000, ran[object]++);
        }
        world.count = 0;
    }
    for (unsigned i = 0; i < 4; i++) {
        shard_turn(shard_at(0));
        store_step_commit(world.store);
    }
    shard_turn(shard_at(0));
    for (unsigned i = 0; i < world.count; i++)
        ran[world.seen[i] / 1000000]++;
    for (unsigned i = 0; i < OBJECTS; i++)
        assert_int_equal(ran[i], asked[i]);
    world_free();
}

/* --- turns ---------------------------------------------------------------------------------------------------------- */

static struct shard_timer timer;

static void on_timer(struct shard *shard, struct shard_timer *t)
{
    unsigned number = 50;
    (void)t;
    see(shard, &number);
}

static void hook(struct shard *shard, void *ctx)
{
    unsigned *left = ctx;
    unsigned number = 60;
    see(shard, &number);
    if (*left > 0) {
        --*left;
        shard_again(shard);
    }
}

static void test_turn_says_how_long_to_wait(void **state)
{
    (void)state;
    world_new(1, false);
    assert_int_equal(shard_turn(shard_at(0)), UINT64_MAX);
    timer = (struct shard_timer){ .fn = on_timer };
    shard_timer_set(shard_at(0), &timer, world.now_us + 30);
    assert_int_equal(shard_turn(shard_at(0)), 30);
    world.now_us += 29;
    assert_int_equal(shard_turn(shard_at(0)), 1);
    assert_int_equal(world.count, 0);
    world.now_us += 1;
    assert_int_equal(shard_turn(shard_at(0)), UINT64_MAX);
    assert_seen(1, (const unsigned[]){ 50 });
    world_free();
}

static void test_hooks_may_ask_for_another_turn(void **state)
{
    (void)state;
    unsigned left = 2;
    world_new(1, false);
    shard_at_turn_end(shard_at(0), hook, &left);
    assert_int_equal(shard_turn(shard_at(0)), 0);
    assert_int_equal(shard_turn(shard_at(0)), 0);
    assert_int_equal(shard_turn(shard_at(0)), UINT64_MAX);
    assert_int_equal(world.count, 3);
    world_free();
}

static void test_owner_is_the_same_everywhere(void **state)
{
    (void)state;
    unsigned owned[4] = { 0 };
    char name[32];
    world_new(4, false);
    for (unsigned i = 0; i < 1000; i++) {
        (void)snprintf(name, sizeof(name), "user%u@example.org", i);
        unsigned owner = shard_owner(shard_at(0), xy_str(name));
        assert_true(owner < 4);
        owned[owner]++;
        for (unsigned j = 1; j < 4; j++)
            assert_int_equal(shard_owner(shard_at(j), xy_str(name)), owner);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_true(owned[i] > 150);
    world_free();
}

/* --- threads -------------------------------------------------------------------------------------------------------- */

#define THREAD_LETTERS 20000u

struct count {
    unsigned from, number;
};

static atomic_uint arrived;
static unsigned expected_next[4][4];

static void count_letter(struct shard *shard, void *payload)
{
    struct count *count = payload;
    assert_int_equal(count->number, expected_next[shard->index][count->from]++);
    atomic_fetch_add(&arrived, 1);
}

/* Each shard's thread writes to the other, in turns, and takes what came. */
static void *shard_thread(void *arg)
{
    struct shard *shard = arg;
    struct count count = { shard->index, 0 };
    while (atomic_load(&arrived) < 4 * THREAD_LETTERS) {
        for (unsigned i = 0; i < 50 && count.number < THREAD_LETTERS; i++, count.number++)
            shard_mail(shard, 1 - shard->index, count_letter, &count, sizeof(count));
        shard_turn(shard);
    }
    return NULL;
}

static void *post_thread(void *arg)
{
    unsigned to = *(unsigned *)arg;
    struct count count = { 2 + to, 0 };
    for (; count.number < THREAD_LETTERS; count.number++)
        shard_post(world.group, to, count_letter, &count, sizeof(count));
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    unsigned to[2] = { 0, 1 };
    world_new(2, false);
    atomic_store(&arrived, 0);
    memset(expected_next, 0, sizeof(expected_next));
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, shard_thread, shard_at(i)), 0);
        assert_int_equal(pthread_create(&threads[2 + i], NULL, post_thread, &to[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(expected_next[i][1 - i], THREAD_LETTERS);
        assert_int_equal(expected_next[i][2 + i], THREAD_LETTERS);
    }
    world_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_per_sender),
        cmocka_unit_test(test_leaves_at_the_end_of_the_turn),
        cmocka_unit_test(test_wakes_once),
        cmocka_unit_test(test_self_mail),
        cmocka_unit_test(test_payload_sizes),
        cmocka_unit_test(test_letters_nobody_took_are_freed),
        cmocka_unit_test(test_waits_for_the_commit),
        cmocka_unit_test(test_keeps_the_order_of_an_object),
        cmocka_unit_test(test_commits_against_a_model),
        cmocka_unit_test(test_turn_says_how_long_to_wait),
        cmocka_unit_test(test_hooks_may_ask_for_another_turn),
        cmocka_unit_test(test_owner_is_the_same_everywhere),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
