/* The promise of the mailbox under random lives of sessions: whatever was handled is acknowledged by somebody in the
 * end, each session sees rising numbers of what it gets for the first time, and restarts change nothing. */
#include "tests/unit/broker/fixture.h"

#define ALICE        "alice@example.org"
#define BOB          "bob@example.org"
#define SESSIONS_MAX 3
#define STEPS        1500
#define MESSAGES_MAX 1500

/* One of alice's sessions, and what it holds unacknowledged. */
struct life {
    struct session_ref ref;
    bool alive;
    char resource[16];
    uint64_t held[MESSAGES_MAX];
    size_t held_count;
};

struct run {
    struct fixture *f;
    uint64_t random;
    struct session_ref bob;
    struct life lives[SESSIONS_MAX];
    unsigned births, sent;
    bool acknowledged[MESSAGES_MAX];    /* by the number in the body */
    unsigned body_of[MESSAGES_MAX * 2]; /* by mailbox number */
};

static struct life *life_of(struct run *run, struct session_ref ref)
{
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        if (run->lives[i].alive && session_ref_eq(run->lives[i].ref, ref))
            return &run->lives[i];
    return NULL;
}

/* What arrived since the last time. A session that is gone cannot take anything: it comes back. */
static void take_deliveries(struct run *run)
{
    struct fixture *f = run->f;
    for (size_t i = 0; i < f->events_count; i++) {
        struct fixture_event *event = &f->events[i];
        if (event->kind != MESSAGE)
            continue;
        const char *body = strstr(event->text, "<body>");
        assert_non_null(body);
        unsigned number = (unsigned)strtoul(body + 6, NULL, 10);
        assert_true(event->seq > 0 && event->seq < MESSAGES_MAX * 2 && number < MESSAGES_MAX);
        run->body_of[event->seq] = number;
        struct life *life = life_of(run, event->session);
        if (life) {
            assert_true(life->held_count < MESSAGES_MAX);
            /* Newer never before older, unless it has had the newer one already. */
            for (size_t h = 0; h < life->held_count; h++)
                assert_true(life->held[h] != event->seq);
            life->held[life->held_count++] = event->seq;
        }
    }
    fixture_forget(f);
}

static void settle(struct run *run)
{
    fixture_run(run->f);
    take_deliveries(run);
}

static void send_one(struct run *run)
{
    char xml[128];
    if (run->sent == MESSAGES_MAX)
        return;
    (void)snprintf(xml, sizeof(xml), "<message to='" ALICE "' type='chat'><body>%u</body></message>",
                   run->sent++);
    fixture_post(run->f, run->bob, BOB "/x", 1, xml);
}

static void be_born(struct run *run, struct life *life)
{
    char from[64], xml[64];
    *life = (struct life){ .alive = true };
    (void)snprintf(life->resource, sizeof(life->resource), "r%u", run->births++);
    life->ref = fixture_session(run->f);
    address_bind(fixture_home(run->f, life->ref), life->ref, xy_str(ALICE), xy_str(life->resource));
    settle(run);
    (void)snprintf(from, sizeof(from), ALICE "/%s", life->resource);
    (void)snprintf(xml, sizeof(xml), "<presence><priority>%d</priority></presence>",
                   (int)unit_below(&run->random, 4) - 1);
    fixture_post(run->f, life->ref, from, 0, xml);
}

static void acknowledge(struct run *run, struct life *life)
{
    size_t count = unit_below(&run->random, life->held_count + 1);
    for (size_t i = 0; i < count; i++)
        run->acknowledged[run->body_of[life->held[i]]] = true;
    address_acked(fixture_home(run->f, life->ref), XY_STR(ALICE), life->held, count);
    memmove(life->held, life->held + count, (life->held_count - count) * sizeof(*life->held));
    life->held_count -= count;
}

static void give_back_last(struct run *run, struct life *life)
{
    if (life->held_count == 0)
        return;
    uint64_t seq = life->held[--life->held_count];
    address_returned(fixture_home(run->f, life->ref), XY_STR(ALICE), life->ref, seq, NULL);
}

static void die(struct run *run, struct life *life)
{
    for (size_t i = 0; i < life->held_count; i++)
        address_returned(fixture_home(run->f, life->ref), XY_STR(ALICE), life->ref, life->held[i], NULL);
    address_unbind(fixture_home(run->f, life->ref), life->ref, XY_STR(ALICE));
    life->alive = false;
}

static void restart(struct run *run)
{
    settle(run);
    fixture_restart(run->f);
    fixture_forget(run->f);
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        run->lives[i].alive = false;
    run->bob = fixture_bind(run->f, BOB, "x");
}

static void step(struct run *run)
{
    struct life *life = &run->lives[unit_below(&run->random, SESSIONS_MAX)];
    size_t dice = unit_below(&run->random, 100);
    if (dice < 45)
        send_one(run);
    else if (dice < 60 && !life->alive)
        be_born(run, life);
    else if (dice < 80 && life->alive)
        acknowledge(run, life);
    else if (dice < 86 && life->alive)
        give_back_last(run, life);
    else if (dice < 90 && life->alive)
        die(run, life);
    else if (dice < 96)
        run->f->now_us += unit_below(&run->random, 1000000);
    else if (dice == 99 && unit_below(&run->random, 5) == 0)
        restart(run);
    if (unit_below(&run->random, 3) == 0)
        settle(run);
}

/* In the end one session comes and acknowledges everything it gets. */
static void finish(struct run *run)
{
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        if (run->lives[i].alive)
            die(run, &run->lives[i]);
    settle(run);
    struct life *last = &run->lives[0];
    be_born(run, last);
    fixture_post(run->f, last->ref, ALICE "/last", 0, "<presence/>");
    uint64_t newest = 0;
    for (unsigned round = 0; round < MESSAGES_MAX; round++) {
        settle(run);
        if (last->held_count == 0)
            break;
        for (size_t i = 0; i < last->held_count; i++) {
            assert_true(last->held[i] > newest); /* in order, each once */
            newest = last->held[i];
            run->acknowledged[run->body_of[newest]] = true;
        }
        address_acked(fixture_home(run->f, last->ref), XY_STR(ALICE), last->held, last->held_count);
        last->held_count = 0;
    }
    for (unsigned i = 0; i < run->sent; i++)
        if (!run->acknowledged[i])
            fail_msg("message %u of %u was lost", i, run->sent);
}

static void live(unsigned shards, uint64_t seed)
{
    struct run *run = calloc(1, sizeof(*run));
    run->f = fixture_new(shards, "");
    run->random = seed;
    fixture_account(run->f, ALICE);
    fixture_account(run->f, BOB);
    run->bob = fixture_bind(run->f, BOB, "x");
    fixture_forget(run->f);
    print_message("seed %u, shards %u\n", (unsigned)seed, shards);
    for (unsigned i = 0; i < STEPS; i++)
        step(run);
    finish(run);
    fixture_free(&run->f);
    free(run);
}

static void test_nothing_is_lost(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++)
        live(seed % 2 ? 1 : 3, seed);
}

int main(void)
{
    static const struct CMUnitTest tests[] = { cmocka_unit_test(test_nothing_is_lost) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
