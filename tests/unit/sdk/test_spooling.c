/* Publishes through a spool, against a broker in memory: what survives the client, is sent again unchanged, waits after a
 * refusal for a shortage, and never runs further ahead than the broker can tell doubles. */
#include <dirent.h>
#include <unistd.h>

#include "tests/unit/sdk/peer.h"

struct app {
    unsigned done, ok, former, room;
    enum xylem_status last, former_last;
    char former_node[64], former_id[64];
    enum xylem_state state;
    enum xylem_status why;
};

struct fixture {
    char folder[64];
    struct xylem_options o;
    uint64_t runs;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->folder, sizeof f->folder, "/tmp/xylem-spooling-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    DIR *dir = opendir(f->folder);
    const struct dirent *entry;
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    rmdir(f->folder);
    free(f);
    return 0;
}

static void on_done(struct xylem_client *c, const struct xylem_result *result, void *ctx)
{
    (void)c;
    struct app *a = ctx;
    a->done++;
    a->ok += result->status == XYLEM_OK;
    a->last = result->status;
}

static void on_spooled(struct xylem_client *c, const struct xylem_item *item,
                       const struct xylem_result *result, void *ctx)
{
    (void)c;
    struct app *a = ctx;
    a->former++;
    a->former_last = result->status;
    snprintf(a->former_node, sizeof a->former_node, "%s", item->node);
    snprintf(a->former_id, sizeof a->former_id, "%s", item->id ? item->id : "");
}

static void on_state(struct xylem_client *c, enum xylem_state state, enum xylem_status why, void *ctx)
{
    (void)c;
    ((struct app *)ctx)->state = state;
    ((struct app *)ctx)->why = why;
}

static void on_room(struct xylem_client *c, void *ctx)
{
    (void)c;
    ((struct app *)ctx)->room++;
}

static void client(struct fixture *f, struct peer *p, struct app *a)
{
    struct xylem_options o = f->o;
    o.size = sizeof o;
    o.jid = "alice@example.org/r";
    o.password = "secret";
    o.tls = XYLEM_TLS_NONE;
    o.plain_allowed = true;
    o.spool_dir = f->folder;
    o.on_spooled = on_spooled;
    o.on_state = on_state;
    o.on_room = on_room;
    o.ctx = a;
    char error[300] = "";
    enum xylem_status status = xy_client_new(&p->client, &o, &p->env, error, sizeof error);
    if (status != XYLEM_OK)
        print_error("%s\n", error);
    assert_int_equal(status, XYLEM_OK);
}

static struct peer *begin(struct fixture *f, struct app *a)
{
    struct peer *p = peer_new();
    p->random += ++f->runs; /* another run, other random ids */
    client(f, p, a);
    assert_int_equal(xylem_client_start(p->client), XYLEM_OK);
    return p;
}

static void end(struct peer *p)
{
    xylem_client_free(p->client);
    peer_free(p);
}

static enum xylem_status publish(struct peer *p, const char *id, struct app *a)
{
    struct xylem_item item = { .node = "n", .id = id, .data = "x", .len = 1 };
    return xylem_publish(p->client, &item, a ? on_done : NULL, a);
}

static uint64_t queued(const struct peer *p)
{
    struct xylem_stats stats = { .size = sizeof stats };
    xylem_client_stats(p->client, &stats);
    return stats.queued;
}

static void publish_id(const struct peer *p, const char *part, size_t nth, char *out, size_t size)
{
    const char *seen = peer_find(p, part, nth);
    assert_non_null(seen);
    const char *id = strstr(seen, "publish-id='") + strlen("publish-id='");
    snprintf(out, size, "%.*s", (int)strcspn(id, "'"), id);
}

static void test_completes_when_the_broker_has_it(void **state)
{
    struct fixture *f = *state;
    struct app a = { 0 };
    struct peer *p = begin(f, &a);
    assert_int_equal(publish(p, "one", &a), XYLEM_OK);
    assert_int_equal(queued(p), 1);
    assert_int_equal(a.done, 0);
    assert_true(peer_run(p));
    assert_int_equal(a.ok, 1);
    assert_int_equal(queued(p), 0);
    end(p);
    p = begin(f, &a); /* nothing comes again */
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<publish "), 0);
    end(p);
}

static void test_survives_the_client_and_keeps_order_and_ids(void **state)
{
    struct fixture *f = *state;
    struct app a = { 0 };
    struct peer *p = begin(f, &a);
    char id[16], first[3][100], again[100];
    p->drop_answers = true; /* the broker has them, the answers are lost */
    for (unsigned i = 0; i < 3; i++) {
        snprintf(id, sizeof id, "id%u", i);
        publish(p, id, &a);
    }
    assert_true(peer_run(p));
    for (unsigned i = 0; i < 3; i++)
        publish_id(p, "<publish ", i, first[i], sizeof first[i]);
    end(p);
    assert_int_equal(a.done, 0);
    p = begin(f, &a);
    publish(p, "later", &a);
    assert_int_equal(queued(p), 4);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<publish "), 4);
    for (unsigned i = 0; i < 3; i++) {
        snprintf(id, sizeof id, "id='id%u'", i);
        assert_non_null(strstr(peer_find(p, "<publish ", i), id));
        publish_id(p, "<publish ", i, again, sizeof again);
        assert_string_equal(again, first[i]);
    }
    publish_id(p, "<publish ", 3, again, sizeof again);
    for (unsigned i = 0; i < 3; i++)
        assert_string_not_equal(again, first[i]);
    assert_int_equal(a.former, 3);
    assert_int_equal(a.former_last, XYLEM_OK);
    assert_string_equal(a.former_node, "n");
    assert_string_equal(a.former_id, "id2");
    assert_int_equal(a.done, 1);
    end(p);
}

static void test_without_a_broker_it_is_taken_and_kept(void **state)
{
    struct fixture *f = *state;
    struct app a = { 0 };
    struct peer *p = peer_new();
    client(f, p, &a); /* never started */
    assert_int_equal(publish(p, "one", NULL), XYLEM_OK);
    end(p);
    p = begin(f, &a);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "id='one'"), 1);
    end(p);
}

static void test_stopped_and_started_again(void **state)
{
    struct fixture *f = *state;
    struct app a = { 0 };
    struct peer *p = begin(f, &a);
    assert_true(peer_run(p));
    p->silent = true;
    publish(p, "one", &a);
    assert_true(peer_run(p));
    xylem_client_stop(p->client, 100);
    assert_true(peer_run(p));
    assert_true(peer_later(p, 150));
    assert_true(peer_later(p, 2000));
    assert_int_equal(a.state, XYLEM_STATE_STOPPED);
    assert_int_equal(a.done, 0); /* not over: it is in the spool */
    p->silent = false;
    assert_int_equal(xylem_client_start(p->client), XYLEM_OK);
    assert_true(peer_run(p));
    assert_int_equal(a.ok, 1);
    end(p);
}

static void test_shortage_is_tried_again_and_a_refusal_is_final(void **state)
{
    struct fixture *f = *state;
    struct app a = { 0 };
    struct peer *p = begin(f, &a);
    snprintf(p->error, sizeof p->error, "resource-constraint");
    publish(p, "one", &a);
    publish(p, "two", &a);
    assert_true(peer_run(p));
    assert_int_equal(a.done, 0);
    size_t sent = peer_count(p, "<publish ");
    assert_int_equal(sent, 2);
    assert_true(peer_later(p, 800)); /* refused again */
    assert_int_equal(a.done, 0);
    assert_int_equal(peer_count(p, "<publish "), 4);
    p->error[0] = '\0';
    publish(p, "three", &a);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<publish "), 4); /* nothing passes while it waits */
    assert_true(peer_later(p, 31000));
    assert_int_equal(a.ok, 3);
    assert_non_null(strstr(peer_find(p, "<publish ", 4), "id='one'"));
    assert_non_null(strstr(peer_find(p, "<publish ", 5), "id='two'"));
    assert_non_null(strstr(peer_find(p, "<publish ", 6), "id='three'"));
    snprintf(p->error, sizeof p->error, "forbidden");
    publish(p, "four", &a);
    assert_true(peer_run(p));
    assert_int_equal(a.done, 4);
    assert_int_equal(a.last, XYLEM_FORBIDDEN);
    assert_int_equal(queued(p), 0);
    end(p);
}

static void test_window_counts_from_the_oldest_that_may_come_again(void **state)
{
    struct fixture *f = *state;
    struct app a = { 0 };
    f->o.publish_window = 8;
    struct peer *p = begin(f, &a);
    assert_true(peer_run(p));
    p->silent = true;
    for (unsigned i = 0; i < 30; i++)
        publish(p, NULL, &a);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<publish "), 8);
    /* All but the first are answered, as from another node that is faster: the window does not move past the first. */
    char answer[400];
    for (unsigned i = 1; i < 8; i++) {
        const char *seen = peer_find(p, "<publish ", i), *id = strstr(seen, "id='") + 4;
        snprintf(answer, sizeof answer, "<iq type='result' from='pubsub.example.org' to='%s' id='%.*s'/>",
                 p->jid, (int)strcspn(id, "'"), id);
        peer_send(p, answer);
    }
    assert_true(peer_run(p));
    assert_int_equal(a.ok, 7);
    assert_int_equal(peer_count(p, "<publish "), 8);
    p->silent = false;
    peer_break(p);
    p->resumable = false;
    assert_true(peer_later(p, 2000));
    assert_int_equal(a.ok, 30);
    assert_int_equal(peer_count(p, "<publish "), 8 + 1 + 22);
    end(p);
}

static void test_full_spool_says_so_then_says_room(void **state)
{
    struct fixture *f = *state;
    struct app a = { 0 };
    f->o.spool_bytes_max = 2000;
    struct peer *p = peer_new();
    client(f, p, &a);
    unsigned taken = 0;
    while (publish(p, "x", &a) == XYLEM_OK)
        taken++;
    assert_true(taken > 2 && taken < 12);
    assert_int_equal(publish(p, "x", &a), XYLEM_FULL);
    assert_non_null(strstr(xylem_client_error(p->client), "spool_bytes_max"));
    xylem_client_start(p->client);
    assert_true(peer_run(p));
    assert_int_equal(a.room, 1);
    assert_int_equal(a.ok, taken);
    assert_int_equal(publish(p, "x", &a), XYLEM_OK);
    end(p);
}

/* publish x, retract x, publish x again: sent twice in part, the retract must not take the second item away. */
static void test_nothing_passes_a_retract(void **state)
{
    struct fixture *f = *state;
    struct app a = { 0 };
    struct peer *p = begin(f, &a);
    assert_true(peer_run(p));
    p->silent = true;
    publish(p, "x", &a);
    assert_int_equal(xylem_retract(p->client, "n", "x", on_done, &a), XYLEM_OK);
    publish(p, "x", &a);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<retract"), 1);
    assert_int_equal(peer_count(p, "<publish "), 1);
    p->silent = false;
    p->resumable = false;
    peer_break(p);
    assert_true(peer_later(p, 2000));
    assert_int_equal(a.ok, 3);
    assert_int_equal(peer_count(p, "<retract"), 2);
    assert_int_equal(peer_count(p, "<publish "), 3);
    end(p);
    p = begin(f, &a);
    assert_true(peer_run(p));
    assert_int_equal(peer_count(p, "<retract"), 0);
    end(p);
}

static void test_sync_policies(void **state)
{
    struct fixture *f = *state;
    struct app a = { 0 };
    const enum xylem_spool_sync policies[] = { XYLEM_SPOOL_SYNC_EACH, XYLEM_SPOOL_SYNC_TURN,
                                               XYLEM_SPOOL_SYNC_NEVER };
    for (size_t i = 0; i < 3; i++) {
        f->o.spool_sync = policies[i];
        f->o.publish_window = 4;
        struct peer *p = begin(f, &a);
        a = (struct app){ 0 };
        for (unsigned n = 0; n < 20; n++)
            assert_int_equal(publish(p, NULL, &a), XYLEM_OK);
        assert_int_equal(xylem_spool_sync(p->client), XYLEM_OK);
        assert_true(peer_run(p));
        assert_true(peer_later(p, 200));
        assert_int_equal(a.ok, 20);
        end(p);
    }
}

static void test_no_spool_has_nothing_to_sync(void **state)
{
    (void)state;
    struct peer *p = peer_new();
    struct xylem_options o = XYLEM_OPTIONS;
    o.jid = "alice@example.org/r";
    o.password = "secret";
    o.tls = XYLEM_TLS_NONE;
    assert_int_equal(xy_client_new(&p->client, &o, &p->env, NULL, 0), XYLEM_OK);
    assert_int_equal(xylem_spool_sync(p->client), XYLEM_WRONG_STATE);
    end(p);
}

static void test_unusable_folder(void **state)
{
    struct fixture *f = *state;
    struct app a = { 0 };
    struct peer *p = begin(f, &a), *other = peer_new();
    struct xylem_options o = XYLEM_OPTIONS;
    char error[300];
    o.jid = "alice@example.org/r";
    o.password = "secret";
    o.tls = XYLEM_TLS_NONE;
    o.spool_dir = f->folder;
    assert_int_equal(xy_client_new(&other->client, &o, &other->env, error, sizeof error), XYLEM_STORAGE);
    assert_non_null(strstr(error, "in use"));
    peer_free(other);
    end(p);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_completes_when_the_broker_has_it),
        TEST(test_survives_the_client_and_keeps_order_and_ids),
        TEST(test_without_a_broker_it_is_taken_and_kept),
        TEST(test_stopped_and_started_again),
        TEST(test_shortage_is_tried_again_and_a_refusal_is_final),
        TEST(test_window_counts_from_the_oldest_that_may_come_again),
        TEST(test_full_spool_says_so_then_says_room),
        TEST(test_nothing_passes_a_retract),
        TEST(test_sync_policies),
        TEST(test_no_spool_has_nothing_to_sync),
        TEST(test_unusable_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
