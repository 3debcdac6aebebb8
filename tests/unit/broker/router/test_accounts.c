/* Accounts: credentials, PLAIN checks and what they cost, throttling, changes, lists. */
#include "tests/unit/broker/fixture.h"

#define ALICE "alice@example.org"

static unsigned shards = 1;

/* --- answers ---------------------------------------------------------------------------------------------------------- */

static enum account_result changed;
static enum xy_sasl_condition verdict;
static unsigned verdicts;
static bool keys_found;
static struct xy_scram_keys keys_given;

static void on_change(struct shard *shard, void *ctx, enum account_result result)
{
    assert_ptr_equal(shard, ctx);
    changed = result;
}

static void on_verdict(struct shard *shard, struct session_ref asker, enum xy_sasl_condition condition)
{
    assert_int_equal(shard->index, asker.shard);
    verdict = condition;
    verdicts++;
}

static void on_keys(struct shard *shard, struct session_ref asker, const struct xy_scram_keys *keys)
{
    assert_int_equal(shard->index, asker.shard);
    keys_found = keys != NULL;
    if (keys)
        keys_given = *keys;
}

static enum account_result create(struct fixture *f, const char *bare, const char *password)
{
    struct shard *shard = shard_group_get(f->group, f->count - 1);
    changed = (enum account_result)99;
    accounts_create(shard, xy_str(bare), xy_str(password),
                    &(struct accounts_asker){ .fn = on_change, .ctx = shard });
    fixture_run(f);
    return changed;
}

static enum account_result set_password(struct fixture *f, const char *bare, const char *password)
{
    struct shard *shard = shard_group_get(f->group, 0);
    changed = (enum account_result)99;
    accounts_set_password(shard, xy_str(bare), xy_str(password),
                          &(struct accounts_asker){ .fn = on_change, .ctx = shard });
    fixture_run(f);
    return changed;
}

static enum account_result remove_account(struct fixture *f, const char *bare)
{
    struct shard *shard = shard_group_get(f->group, 0);
    changed = (enum account_result)99;
    accounts_remove(shard, xy_str(bare), &(struct accounts_asker){ .fn = on_change, .ctx = shard });
    fixture_run(f);
    return changed;
}

static void ask_password(struct fixture *f, const char *bare, const char *password, const char *peer)
{
    struct session_ref asker = fixture_session(f);
    accounts_check_password(fixture_home(f, asker), asker, bare ? xy_str(bare) : XY_STR_NONE,
                            xy_str(password), peer ? xy_str(peer) : XY_STR_NONE, on_verdict);
}

static enum xy_sasl_condition check(struct fixture *f, const char *bare, const char *password,
                                    const char *peer)
{
    verdict = (enum xy_sasl_condition)99;
    ask_password(f, bare, password, peer);
    fixture_run(f);
    return verdict;
}

static void ask_keys(struct fixture *f, const char *bare, enum xy_scram_hash hash)
{
    struct session_ref asker = fixture_session(f);
    keys_found = false;
    accounts_keys(fixture_home(f, asker), asker, xy_str(bare), hash, XY_STR("192.0.2.1"), on_keys);
    fixture_run(f);
}

/* --- credentials -------------------------------------------------------------------------------------------------------- */

static void test_create_then_log_in(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(shards, "");
    assert_int_equal(create(f, ALICE, "secret"), ACCOUNT_OK);
    assert_int_equal(create(f, ALICE, "other"), ACCOUNT_EXISTS);
    assert_int_equal(create(f, "bob@example.org", ""), ACCOUNT_BAD_PASSWORD);
    fixture_restart(f);
    ask_keys(f, ALICE, XY_SCRAM_SHA_256);
    assert_true(keys_found);
    assert_true(xy_scram_check_password(&keys_given, XY_STR("secret")));
    ask_keys(f, ALICE, XY_SCRAM_SHA_1);
    assert_true(keys_found && keys_given.hash == XY_SCRAM_SHA_1);
    assert_true(xy_scram_check_password(&keys_given, XY_STR("secret")));
    ask_keys(f, "nobody@example.org", XY_SCRAM_SHA_1);
    assert_false(keys_found);
    fixture_free(&f);
}

static void test_answers_wait_for_the_disk(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(shards, "");
    f->hold_commits = true;
    assert_int_equal(create(f, ALICE, "secret"), 99);
    f->hold_commits = false;
    fixture_run(f);
    assert_int_equal(changed, ACCOUNT_OK);
    f->hold_commits = true;
    assert_int_equal(remove_account(f, ALICE), 99);
    f->hold_commits = false;
    fixture_run(f);
    assert_int_equal(changed, ACCOUNT_OK);
    fixture_free(&f);
}

static void test_plain(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(shards, "");
    create(f, ALICE, "secret");
    assert_int_equal(check(f, ALICE, "secret", "192.0.2.1"), XY_SASL_NO_FAILURE);
    assert_int_equal(check(f, ALICE, "wrong", "192.0.2.1"), XY_SASL_NOT_AUTHORIZED);
    assert_int_equal(check(f, ALICE, "", "192.0.2.1"), XY_SASL_NOT_AUTHORIZED);
    assert_int_equal(check(f, "nobody@example.org", "secret", "192.0.2.1"), XY_SASL_NOT_AUTHORIZED);
    assert_int_equal(check(f, NULL, "secret", "192.0.2.1"), XY_SASL_NOT_AUTHORIZED);
    fixture_free(&f);
}

static void test_a_good_password_is_remembered_for_a_while(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(shards, "");
    create(f, ALICE, "secret");
    check(f, ALICE, "secret", NULL);
    /* Without a derivation: no worker is asked. */
    verdicts = 0;
    ask_password(f, ALICE, "secret", NULL);
    for (int i = 0; i < 10; i++)
        for (unsigned s = 0; s < f->count; s++)
            shard_turn(shard_group_get(f->group, s));
    assert_int_equal(verdicts, 1);
    assert_int_equal(check(f, ALICE, "wrong", NULL), XY_SASL_NOT_AUTHORIZED);
    fixture_sleep(f, ACCOUNTS_REMEMBER_US + 1);
    verdicts = 0;
    ask_password(f, ALICE, "secret", NULL);
    for (int i = 0; i < 10; i++)
        for (unsigned s = 0; s < f->count; s++)
            shard_turn(shard_group_get(f->group, s));
    assert_int_equal(verdicts, 0);
    fixture_run(f);
    assert_int_equal(verdict, XY_SASL_NO_FAILURE);
    fixture_free(&f);
}

static void test_a_changed_password_is_not_remembered(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(shards, "");
    create(f, ALICE, "secret");
    check(f, ALICE, "secret", NULL);
    assert_int_equal(set_password(f, ALICE, "new"), ACCOUNT_OK);
    assert_int_equal(check(f, ALICE, "secret", NULL), XY_SASL_NOT_AUTHORIZED);
    assert_int_equal(check(f, ALICE, "new", NULL), XY_SASL_NO_FAILURE);
    assert_int_equal(remove_account(f, ALICE), ACCOUNT_OK);
    assert_int_equal(check(f, ALICE, "new", NULL), XY_SASL_NOT_AUTHORIZED);
    assert_int_equal(set_password(f, ALICE, "x"), ACCOUNT_UNKNOWN);
    assert_int_equal(remove_account(f, ALICE), ACCOUNT_UNKNOWN);
    fixture_free(&f);
}

static void test_a_full_queue_refuses_for_now(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(shards, "");
    create(f, ALICE, "secret");
    f->hold_commits = true; /* and no fixture_run: nobody works */
    for (unsigned i = 0; i < WORKERS_QUEUE_MAX; i++)
        ask_password(f, "nobody@example.org", "x", NULL);
    for (int i = 0; i < 10; i++)
        for (unsigned s = 0; s < f->count; s++)
            shard_turn(shard_group_get(f->group, s));
    verdicts = 0;
    ask_password(f, ALICE, "secret", NULL);
    for (int i = 0; i < 10; i++)
        for (unsigned s = 0; s < f->count; s++)
            shard_turn(shard_group_get(f->group, s));
    assert_int_equal(verdicts, 1);
    assert_int_equal(verdict, XY_SASL_TEMPORARY_AUTH_FAILURE);
    struct shard *shard = shard_group_get(f->group, 0);
    accounts_create(shard, XY_STR("bob@example.org"), XY_STR("x"),
                    &(struct accounts_asker){ .fn = on_change, .ctx = shard });
    for (int i = 0; i < 10; i++)
        for (unsigned s = 0; s < f->count; s++)
            shard_turn(shard_group_get(f->group, s));
    assert_int_equal(changed, ACCOUNT_BUSY);
    /* Not 256 derivations: the jobs are taken back by the pool's end. */
    f->hold_commits = false;
    fixture_free(&f);
}

static void on_exists(struct shard *shard, struct session_ref asker, enum xy_sasl_condition condition)
{
    on_verdict(shard, asker, condition);
}

static void test_external(void **state)
{
    (void)state;
    static const struct {
        const char *bare;
        enum xy_sasl_condition verdict;
    } cases[] = {
        { ALICE, XY_SASL_NO_FAILURE },
        { "admin@example.org", XY_SASL_NO_FAILURE },
        { "nobody@example.org", XY_SASL_NOT_AUTHORIZED },
    };
    struct fixture *f = fixture_new(shards, "");
    fixture_account(f, ALICE);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct session_ref asker = fixture_session(f);
        accounts_check_exists(fixture_home(f, asker), asker, xy_str(cases[i].bare), on_exists);
        fixture_run(f);
        assert_int_equal(verdict, cases[i].verdict);
    }
    fixture_free(&f);
}

/* --- throttle ------------------------------------------------------------------------------------------------------------ */

static void test_guessing_is_slowed_but_locks_nobody_out(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(shards, "limits { auth_failures_per_minute = 3; }");
    create(f, ALICE, "secret");
    for (int i = 0; i < 3; i++) {
        accounts_login_failed(shard_group_get(f->group, 0), XY_STR(ALICE), XY_STR("192.0.2.66"));
        fixture_run(f);
    }
    /* From the guesser's address, about anybody: delayed. */
    verdicts = 0;
    ask_password(f, "other@example.org", "x", "192.0.2.66");
    fixture_run(f);
    assert_int_equal(verdicts, 0);
    fixture_sleep(f, ACCOUNTS_DELAY_STEP_US);
    assert_int_equal(verdicts, 1);
    /* About alice from elsewhere: delayed too, but the right password gets in. */
    verdicts = 0;
    ask_password(f, ALICE, "secret", "198.51.100.1");
    fixture_run(f);
    assert_int_equal(verdicts, 0);
    fixture_sleep(f, ACCOUNTS_DELAY_MAX_US);
    assert_int_equal(verdicts, 1);
    assert_int_equal(verdict, XY_SASL_NO_FAILURE);
    /* Not over the local socket, and not others from elsewhere. */
    assert_int_equal(check(f, ALICE, "secret", NULL), XY_SASL_NO_FAILURE);
    assert_int_equal(check(f, "other@example.org", "x", "198.51.100.1"), XY_SASL_NOT_AUTHORIZED);
    /* And it is forgotten. */
    fixture_sleep(f, 61u * 1000000u);
    assert_int_equal(check(f, ALICE, "secret", "192.0.2.66"), XY_SASL_NO_FAILURE);
    fixture_free(&f);
}

static void test_the_delay_is_bounded(void **state)
{
    (void)state;
    struct fixture *f = fixture_new(shards, "limits { auth_failures_per_minute = 1; }");
    create(f, ALICE, "secret");
    for (int i = 0; i < 1000; i++)
        accounts_login_failed(shard_group_get(f->group, 0), XY_STR(ALICE), XY_STR("192.0.2.66"));
    fixture_run(f);
    verdicts = 0;
    ask_password(f, ALICE, "secret", "198.51.100.1");
    fixture_run(f);
    fixture_sleep(f, ACCOUNTS_DELAY_MAX_US - 1);
    assert_int_equal(verdicts, 0);
    fixture_sleep(f, 1);
    assert_int_equal(verdict, XY_SASL_NO_FAILURE);
    fixture_free(&f);
}

/* --- lists --------------------------------------------------------------------------------------------------------------- */

struct seen {
    unsigned count, pages;
    bool more;
    uint64_t total;
    char last[64];
};

static void on_page(struct shard *shard, void *ctx, const struct accounts_page *page)
{
    struct seen *seen = ctx;
    (void)shard;
    for (size_t i = 0; i < page->count; i++) {
        assert_true(xy_str_cmp(xy_str(seen->last), page->jids[i]) < 0);
        (void)snprintf(seen->last, sizeof(seen->last), "%.*s", XY_ARG(page->jids[i]));
    }
    seen->count += (unsigned)page->count;
    seen->pages++;
    seen->more = page->more;
    if (page->total)
        seen->total = page->total;
}

static void test_lists_come_in_order_and_in_pages(void **state)
{
    (void)state;
    enum { COUNT = 321 };
    struct fixture *f = fixture_new(shards, "");
    char bare[64];
    struct seen seen = { 0 };
    for (unsigned i = 0; i < COUNT; i++) {
        (void)snprintf(bare, sizeof(bare), "u%04u@example.org", (i * 7919) % COUNT);
        fixture_account(f, bare);
    }
    remove_account(f, "u0000@example.org");
    struct shard *shard = shard_group_get(f->group, 0);
    accounts_list(shard, XY_STR_NONE, 0, on_page, &seen);
    fixture_run(f);
    assert_int_equal(seen.total, COUNT - 1);
    assert_int_equal(seen.count, 0);
    seen = (struct seen){ 0 };
    do {
        accounts_list(shard, seen.last[0] ? xy_str(seen.last) : XY_STR_NONE, 100, on_page, &seen);
        fixture_run(f);
    } while (seen.more);
    assert_int_equal(seen.count, COUNT - 1);
    assert_int_equal(seen.pages, 4);
    store_step_checkpoint(f->store);
    seen = (struct seen){ 0 };
    accounts_list(shard, XY_STR("u0300@example.org"), 100, on_page, &seen);
    fixture_run(f);
    assert_int_equal(seen.count, 20);
    assert_false(seen.more);
    fixture_free(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_then_log_in),
        cmocka_unit_test(test_answers_wait_for_the_disk),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_a_good_password_is_remembered_for_a_while),
        cmocka_unit_test(test_a_changed_password_is_not_remembered),
        cmocka_unit_test(test_a_full_queue_refuses_for_now),
        cmocka_unit_test(test_external),
        cmocka_unit_test(test_guessing_is_slowed_but_locks_nobody_out),
        cmocka_unit_test(test_the_delay_is_bounded),
        cmocka_unit_test(test_lists_come_in_order_and_in_pages),
    };
    int failed = cmocka_run_group_tests_name("accounts, one shard", tests, NULL, NULL);
    shards = 3;
    return failed + cmocka_run_group_tests_name("accounts, three shards", tests, NULL, NULL);
}
