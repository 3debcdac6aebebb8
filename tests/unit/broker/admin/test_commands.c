/* Ad-hoc commands: who may, the steps of XEP-0050, figures, and accounts by XEP-0133. */
#include "tests/unit/broker/fixture.h"

#define ALICE "alice@example.org"
#define BOSS  "boss@example.org"
#define ADMIN "http://jabber.org/protocol/admin"

static unsigned shards = 1;
static struct session_ref alice, boss;

static struct fixture *start(void)
{
    struct fixture *f = fixture_new(shards, "admins = [\"boss@example.org\"];");
    fixture_account(f, ALICE);
    fixture_account(f, BOSS);
    alice = fixture_bind(f, ALICE, "a");
    boss = fixture_bind(f, BOSS, "b");
    fixture_forget(f);
    return f;
}

static const char *ask_as(struct fixture *f, struct session_ref who, const char *from, const char *type,
                          const char *child)
{
    char xml[4096];
    (void)snprintf(xml, sizeof(xml), "<iq id='q' type='%s' to='example.org'>%s</iq>", type, child);
    fixture_say(f, who, from, 0, xml);
    struct fixture_event *event = fixture_event_of(f, who, SENT);
    if (!event)
        fail_msg("no answer to %s", xml);
    return event->text;
}

static const char *command(struct fixture *f, const char *node, const char *attributes, const char *form)
{
    char child[3072];
    (void)snprintf(child, sizeof(child),
                   "<command xmlns='http://jabber.org/protocol/commands' node='%s' %s>%s</command>", node,
                   attributes, form);
    return ask_as(f, boss, BOSS "/b", "set", child);
}

#define FORM(fields)                                                                                         \
    "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>" ADMIN "</value></field>" fields  \
    "</x>"
#define FIELD(var, value) "<field var='" var "'><value>" value "</value></field>"

/* --- who and how -------------------------------------------------------------------------------------------------------- */

static void test_commands_are_for_administrators(void **state)
{
    (void)state;
    struct fixture *f = start();
    static const char stats[] =
        "<command xmlns='http://jabber.org/protocol/commands' node='urn:xylem:admin:stats'/>";
    static const char list[] = "<query xmlns='http://jabber.org/protocol/disco#items' "
                               "node='http://jabber.org/protocol/commands'/>";
    assert_contains(ask_as(f, alice, ALICE "/a", "set", stats), "forbidden");
    assert_null(strstr(ask_as(f, alice, ALICE "/a", "get", list), "<item"));
    assert_contains(ask_as(f, boss, BOSS "/b", "get", list), "node='urn:xylem:admin:stats'");
    assert_contains(
        ask_as(f, alice, ALICE "/a", "get",
               "<query xmlns='http://jabber.org/protocol/disco#info' node='urn:xylem:admin:stats'/>"),
        "item-not-found");
    /* The reserved account is one of them. */
    struct session_ref admin = fixture_bind(f, "admin@example.org", "x");
    assert_contains(ask_as(f, admin, "admin@example.org/x", "set", stats), "completed");
    fixture_free(&f);
}

static void test_disco_of_commands(void **state)
{
    (void)state;
    struct fixture *f = start();
    const char *info =
        ask_as(f, boss, BOSS "/b", "get",
               "<query xmlns='http://jabber.org/protocol/disco#info' node='" ADMIN "#add-user'/>");
    assert_contains(info, "<identity category='automation' type='command-node' name='Add User'/>");
    assert_contains(info,
                    "<feature var='http://jabber.org/protocol/commands'/><feature var='jabber:x:data'/>");
    info = ask_as(f, boss, BOSS "/b", "get",
                  "<query xmlns='http://jabber.org/protocol/disco#info' "
                  "node='http://jabber.org/protocol/commands'/>");
    assert_contains(info, "type='command-list'");
    fixture_free(&f);
}

static void test_steps(void **state)
{
    (void)state;
    struct fixture *f = start();
    assert_contains(command(f, "urn:none", "", ""), "item-not-found");
    const char *form = command(f, ADMIN "#add-user", "", "");
    assert_contains(form, "status='executing'");
    assert_contains(form, "<actions execute='complete'><complete/></actions>");
    assert_contains(form, "var='accountjid'");
    const char *id = strstr(form, "sessionid='");
    assert_non_null(id);
    assert_int_equal(strcspn(id + 11, "'"), XY_ID_LEN);
    assert_contains(command(f, ADMIN "#add-user", "sessionid='s1' action='cancel'", ""), "status='canceled'");
    assert_contains(command(f, ADMIN "#add-user", "action='prev'", ""), "bad-action");
    assert_contains(command(f, ADMIN "#add-user", "action='dance'", ""), "malformed-action");
    assert_contains(command(f, ADMIN "#add-user", "action='complete'", ""), "bad-payload");
    assert_contains(command(f, ADMIN "#add-user", "", FORM(FIELD("accountjid", "x@example.org"))),
                    "bad-payload");
    assert_contains(
        command(f, ADMIN "#add-user", "",
                "<x xmlns='jabber:x:data' type='form'>" FIELD("accountjid", "x@example.org") "</x>"),
        "bad-payload");
    assert_contains(command(f, ADMIN "#add-user", "sessionid='s1'",
                            FORM(FIELD("accountjid", "x@example.org") FIELD("password", "p"))),
                    "sessionid='s1'");
    fixture_free(&f);
}

/* --- figures -------------------------------------------------------------------------------------------------------------- */

static void test_stats(void **state)
{
    (void)state;
    struct fixture *f = start();
    shard_group_get(f->group, f->count - 1)->stats->logins = 7;
    fixture_sleep(f, 5u * 1000000u);
    const char *answer = command(f, "urn:xylem:admin:stats", "action='execute'", "");
    assert_contains(answer, "status='completed'");
    assert_contains(answer, "<field var='logins' type='text-single'><value>7</value></field>");
    assert_contains(answer, "<field var='uptime_seconds' type='text-single'><value>5</value></field>");
    static const char *const names[] = { "version", "shards", "store_commits", "pubsub_nodes",
                                         "outbox_full" };
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        char var[64];
        (void)snprintf(var, sizeof(var), "var='%s'", names[i]);
        assert_contains(answer, var);
    }
    fixture_free(&f);
}

/* --- accounts ------------------------------------------------------------------------------------------------------------- */

static void test_accounts(void **state)
{
    (void)state;
    static const char add[] = FORM(FIELD("accountjid", "Carol@Example.org") FIELD("password", "p"));
    struct fixture *f = start();
    assert_contains(command(f, ADMIN "#add-user", "", add), "completed");
    assert_contains(command(f, ADMIN "#add-user", "", add), "conflict");
    assert_contains(command(f, ADMIN "#get-registered-users-num", "", ""), "<value>3</value>");
    assert_contains(command(f, ADMIN "#change-user-password", "",
                            FORM(FIELD("accountjid", "carol@example.org") FIELD("password", "q"))),
                    "completed");
    assert_contains(command(f, ADMIN "#change-user-password", "",
                            FORM(FIELD("accountjid", "no@example.org") FIELD("password", "q"))),
                    "item-not-found");
    assert_contains(command(f, ADMIN "#delete-user", "", FORM(FIELD("accountjids", "carol@example.org"))),
                    "completed");
    assert_contains(command(f, ADMIN "#delete-user", "", FORM(FIELD("accountjids", "carol@example.org"))),
                    "item-not-found");
    fixture_free(&f);
}

static void test_bad_accounts(void **state)
{
    (void)state;
    static const struct {
        const char *form;
        const char *condition;
    } cases[] = {
        { FORM(FIELD("accountjid", "@example.org") FIELD("password", "p")), "jid-malformed" },
        { FORM(FIELD("accountjid", "example.org") FIELD("password", "p")), "bad-request" },
        { FORM(FIELD("accountjid", "x@example.org/r") FIELD("password", "p")), "bad-request" },
        { FORM(FIELD("accountjid", "x@other.org") FIELD("password", "p")), "item-not-found" },
        { FORM(FIELD("accountjid", "x@example.org") FIELD("password", "p") FIELD("password-verify", "q")),
          "bad-request" },
    };
    struct fixture *f = start();
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_contains(command(f, ADMIN "#add-user", "", cases[i].form), cases[i].condition);
    fixture_free(&f);
}

static void test_lists(void **state)
{
    (void)state;
    struct fixture *f = start();
    const char *answer = command(f, ADMIN "#get-registered-users-list", "", "");
    assert_contains(answer, "<value>" ALICE "</value><value>" BOSS "</value>");
    assert_null(strstr(answer, "}more"));
    answer = command(f, ADMIN "#get-registered-users-list", "", FORM(FIELD("max_items", "1")));
    assert_contains(answer, "<value>" ALICE "</value></field>");
    assert_contains(answer, "{urn:xylem:admin:0}more");
    answer =
        command(f, ADMIN "#get-registered-users-list", "", FORM(FIELD("{urn:xylem:admin:0}after", ALICE)));
    assert_null(strstr(answer, ALICE));
    assert_contains(answer, "<value>" BOSS "</value>");
    char bare[64];
    for (unsigned i = 0; i < 600; i++) {
        (void)snprintf(bare, sizeof(bare), "u%03u@example.org", i);
        fixture_account(f, bare);
    }
    answer = command(f, ADMIN "#get-registered-users-list", "", "");
    unsigned values = 0;
    for (const char *at = answer; (at = strstr(at, "@example.org</value>")) != NULL; at++)
        values++;
    assert_int_equal(values, 602);
    fixture_free(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands_are_for_administrators),
        cmocka_unit_test(test_disco_of_commands),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_accounts),
        cmocka_unit_test(test_bad_accounts),
        cmocka_unit_test(test_lists),
    };
    int failed = cmocka_run_group_tests_name("commands, one shard", tests, NULL, NULL);
    shards = 3;
    return failed + cmocka_run_group_tests_name("commands, three shards", tests, NULL, NULL);
}
