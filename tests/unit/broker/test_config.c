/* Configuration: defaults, every type with its limits, and that every mistake is reported with its line. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/config.h"
#include "broker/config_keys.h"

static struct config *parse(const char *text)
{
    struct config *config = NULL;
    struct xy_buf errors = { 0 };
    bool ok = config_parse("x.conf", xy_str(text), &config, &errors);
    if (!ok)
        print_error("%.*s", XY_ARG(xy_buf_view(&errors)));
    assert_true(ok);
    assert_int_equal(errors.len, 0);
    xy_buf_free(&errors);
    return config;
}

/* The file is refused, and the messages are exactly `expected`. */
static void refuse(struct xy_str text, const char *expected)
{
    struct config *config = (struct config *)(void *)&config;
    struct xy_buf errors = { 0 };
    assert_false(config_parse("x.conf", text, &config, &errors));
    assert_null(config);
    xy_buf_char(&errors, '\0');
    assert_string_equal(errors.data, expected);
    xy_buf_free(&errors);
}

static void assert_str(struct xy_str s, const char *expected)
{
    assert_int_equal(s.len, strlen(expected));
    assert_memory_equal(s.data, expected, s.len);
}

/* A core is left to the disk and the kernel where there are three or more. */
static void test_shards_follow_the_cores_of_the_process(void **state)
{
    cpu_set_t all, some;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    CPU_ZERO(&some);
    for (unsigned cpu = 0, cores = 0; cpu < CPU_SETSIZE && cores < 4; cpu++) {
        if (!CPU_ISSET(cpu, &all))
            continue;
        CPU_SET(cpu, &some);
        cores++;
        assert_int_equal(sched_setaffinity(0, sizeof(some), &some), 0);
        struct config *config = parse("");
        assert_int_equal(config->shards, cores <= 2 ? 1 : cores - 1);
        config_free(&config);
    }
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

static void test_defaults(void **state)
{
    (void)state;
    struct config *config = parse("");
    assert_int_equal(config->domains.count, 1);
    assert_str(config->domains.items[0], "localhost");
    assert_str(config->data_dir, "/var/lib/xylem");
    assert_true(config->shards >= 1 && config->shards <= CONFIG_SHARDS_MAX);
    assert_int_equal(config->log.level, LOG_LEVEL_INFO);
    assert_int_equal(config->log.format, LOG_FORMAT_TEXT);
    assert_false(xy_str_present(config->tls.certificate));
    assert_str(config->listen.c2s.items[0], "[::]:5222");
    assert_str(config->listen.c2s_tls.items[0], "[::]:5223");
    assert_str(config->listen.local, "/run/xylem/control.sock");
    assert_false(config->auth.allow_plaintext);
    assert_int_equal(config->auth.local_users_count, 0);
    assert_int_equal(config->admins.count, 0);
    assert_str(config->pubsub.service, "pubsub.localhost");
    assert_int_equal(config->limits.stanza_size, 256 * 1024);
    assert_int_equal(config->limits.unauthenticated_timeout_ms, 10000);
    assert_int_equal(config->limits.outbox, 4 << 20);
    assert_true(config->limits.memory >= 16u << 20);
    assert_true(config->limits.items_per_node == CONFIG_UNLIMITED);
    assert_int_equal(config->sm.max_ms, 300000);
    assert_int_equal(config->store.log, 0);
    assert_int_equal(config->store.log_max, 1 << 30);
    config_free(&config);
    assert_null(config);
    config_free(&config);
}

/* What load tests and kits rely on without configuring it. */
static void test_defaults_are_generous(void **state)
{
    (void)state;
    struct config *config = parse("");
    assert_true(config->limits.sessions >= 5000);
    assert_true(config->limits.connections_per_address >= 5000);
    assert_true(config->limits.nodes_per_account >= 160);
    assert_true(config->limits.subscriptions_per_node >= 100000);
    assert_true(config->limits.items_per_account == CONFIG_UNLIMITED);
    assert_true(config->limits.bytes_per_account == CONFIG_UNLIMITED);
    assert_true(config->limits.subscriptions_per_account == CONFIG_UNLIMITED);
    config_free(&config);
}

static void test_every_key_of_the_documented_example(void **state)
{
    (void)state;
    struct config *config =
        parse("domain   = \"example.org\";            # or domains = [\"a\", \"b\"]\n"
              "data_dir = \"/srv/xylem\";\n"
              "shards   = 4;\n"
              "log      { level = debug; format = json; }\n"
              "tls      { certificate = \"c.pem\"; key = \"k.pem\"; client_ca = \"ca.pem\"; }\n"
              "listen   { c2s = [\"127.0.0.1:5222\", \"[::1]:0\"]; c2s_tls = []; local = \"\"; }\n"
              "auth     { allow_plaintext = true; registration = yes;\n"
              "           local_users = { \"1000\" = \"vmhost@example.org\" } }\n"
              "admins   = [\"ops@example.org\"];\n"
              "pubsub   { service = \"events.example.org\"; }\n"
              "limits   { stanza_size = 64kb; unauthenticated_timeout = 2s; }\n"
              "sm { max = 1min }\n");
    assert_str(config->domains.items[0], "example.org");
    assert_int_equal(config->shards, 4);
    assert_int_equal(config->log.level, LOG_LEVEL_DEBUG);
    assert_int_equal(config->log.format, LOG_FORMAT_JSON);
    assert_str(config->tls.client_ca, "ca.pem");
    assert_int_equal(config->listen.c2s.count, 2);
    assert_str(config->listen.c2s.items[1], "[::1]:0");
    assert_int_equal(config->listen.c2s_tls.count, 0);
    assert_int_equal(config->listen.local.len, 0);
    assert_true(config->auth.allow_plaintext);
    assert_true(config->auth.registration);
    assert_int_equal(config->auth.local_users_count, 1);
    assert_int_equal(config->auth.local_users[0].uid, 1000);
    assert_str(config->auth.local_users[0].jid, "vmhost@example.org");
    assert_str(config->admins.items[0], "ops@example.org");
    assert_str(config->pubsub.service, "events.example.org");
    assert_int_equal(config->limits.stanza_size, 64 * 1024);
    assert_int_equal(config->limits.unauthenticated_timeout_ms, 2000);
    assert_int_equal(config->sm.max_ms, 60000);
    config_free(&config);
}

static void test_json_is_a_configuration(void **state)
{
    (void)state;
    struct config *config =
        parse("{ \"domains\": [\"a.org\", \"b.org\"],\n \"limits\": { \"outbox\": 65536 } }\n");
    assert_int_equal(config->domains.count, 2);
    assert_str(config->pubsub.service, "pubsub.a.org");
    assert_int_equal(config->limits.outbox, 65536);
    config_free(&config);
}

static void test_numbers_and_suffixes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t outbox;
    } sizes[] = {
        { "65536", 65536 },
        { "65536b", 65536 },
        { "100k", 100000 },
        { "100kb", 102400 },
        { "1m", 1000000 },
        { "1MB", 1 << 20 },
        { "1g", UINT64_C(1000000000) },
        { "1gb", 1 << 30 },
    };
    char text[128];
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        (void)snprintf(text, sizeof text, "limits { outbox = %s }", sizes[i].text);
        struct config *config = parse(text);
        assert_int_equal(config->limits.outbox, sizes[i].outbox);
        config_free(&config);
    }
    static const struct {
        const char *text;
        uint64_t ms;
    } times[] = { { "7", 7000 },     { "250ms", 250 },   { "5s", 5000 },     { "2min", 120000 },
                  { "1h", 3600000 }, { "1d", 86400000 }, { "1w", 604800000 } };
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        (void)snprintf(text, sizeof text, "sm { max = %s }", times[i].text);
        struct config *config = parse(text);
        assert_int_equal(config->sm.max_ms, times[i].ms);
        config_free(&config);
    }
    struct config *config = parse("limits { sessions = unlimited; memory = auto }");
    assert_true(config->limits.sessions == CONFIG_UNLIMITED);
    config_free(&config);
}

static void test_ranges(void **state)
{
    (void)state;
    char text[128];
    /* each limit: just inside is taken, just outside refused, for every numeric key of the table */
    for (size_t i = 0; i < config_keys_count; i++) {
        const struct config_key *key = &config_keys[i];
        if (key->type != CONFIG_COUNT && key->type != CONFIG_SIZE && key->type != CONFIG_TIME)
            continue;
        const char *unit = key->type == CONFIG_TIME ? "ms" : "";
        for (int step = -1; step <= 2; step++) {
            uint64_t number =
                step < 1 ? key->min + (uint64_t)(int64_t)step : key->max + (uint64_t)(int64_t)(step - 1);
            if ((step < 0 && key->min == 0) || (step > 0 && key->max == UINT64_MAX))
                continue;
            struct config *config;
            struct xy_buf errors = { 0 };
            (void)snprintf(text, sizeof text, "%s = %llu%s", key->path, (unsigned long long)number, unit);
            bool ok = config_parse("x", xy_str(text), &config, &errors);
            bool inside = step == 0 || step == 1;
            if (ok != inside)
                print_error("%s\n", text);
            assert_int_equal(ok, inside);
            if (ok)
                assert_true(*(uint64_t *)(void *)((char *)config + key->offset) == number);
            config_free(&config);
            xy_buf_free(&errors);
        }
    }
}

static void test_unknown_keys_name_the_nearest(void **state)
{
    (void)state;
    refuse(XY_STR("domain = a.org\nlisten {\n  c2x = \"[::]:1\"\n}\n"),
           "x.conf:3: unknown key \"listen.c2x\"; the nearest is \"listen.c2s\"\n");
    refuse(XY_STR("limts { stanza_size = 1mb }"),
           "x.conf:1: unknown key \"limts\"; the nearest is \"limits\"\n"
           "x.conf:1: unknown key \"limts.stanza_size\"; the nearest is \"limits.stanza_size\"\n");
    refuse(XY_STR("\n\nlevel = debug"), "x.conf:3: unknown key \"level\"; the nearest is \"log.level\"\n");
}

static void test_tls_libraries(void **state)
{
    (void)state;
    const struct xy_tls_library *library;
    char text[64], present[64] = "", refusal[160];
    struct config *config = parse("");
    assert_ptr_equal(config->tls.library, xy_tls_library_at(0));
    config_free(&config);
    for (size_t i = 0; (library = xy_tls_library_at(i)) != NULL; i++) {
        (void)snprintf(text, sizeof text, "tls { library = %s }", xy_tls_library_name(library));
        config = parse(text);
        assert_ptr_equal(config->tls.library, library);
        config_free(&config);
        (void)snprintf(present + strlen(present), sizeof present - strlen(present), "%s%s", i > 0 ? ", " : "",
                       xy_tls_library_name(library));
    }
    (void)snprintf(refusal, sizeof refusal,
                   "x.conf:1: tls.library = \"gnutls\": must be one of those that this build has: %s\n",
                   present);
    refuse(XY_STR("tls { library = gnutls }"), refusal);
}

static void test_wrong_types(void **state)
{
    (void)state;
    refuse(XY_STR("data_dir = [\"a\", \"b\"]"), "x.conf:1: data_dir: must be a single value, not an array\n");
    refuse(XY_STR("data_dir { }"), "x.conf:1: data_dir: must be a single value, not an object\n");
    refuse(XY_STR("domains { }"),
           "x.conf:1: domains: must be a string or an array of strings, not an object\n");
    refuse(XY_STR("limits = 5"), "x.conf:1: limits: must be an object, as in limits { … }\n");
    refuse(XY_STR("auth { local_users = 5 }"),
           "x.conf:1: auth.local_users: must be an object of uid = account, not a value\n");
    refuse(XY_STR("log { level = loud }"),
           "x.conf:1: log.level = \"loud\": must be one of error, warning, info, debug\n");
    refuse(XY_STR("auth { registration = maybe }"),
           "x.conf:1: auth.registration = \"maybe\": must be true or false\n");
    refuse(XY_STR("shards = 65"), "x.conf:1: shards = \"65\": must be a number, from 1 to 64, or auto\n");
    refuse(XY_STR("shards = 0"), "x.conf:1: shards = \"0\": must be a number, from 1 to 64, or auto\n");
    refuse(XY_STR("limits { outbox = 1kb }"),
           "x.conf:1: limits.outbox = \"1kb\": must be a size such as 256kb, from 64kb to 1gb\n");
    refuse(XY_STR("limits { sessions = 0 }"),
           "x.conf:1: limits.sessions = \"0\": must be a number, from 1 up, or unlimited\n");
    refuse(XY_STR("sm { max = 10m }"),
           "x.conf:1: sm.max = \"10m\": must be a time such as 10s, 250ms or 5min, from 0 to 7d\n");
    refuse(XY_STR("sm { max = 99999999999999999999s }"),
           "x.conf:1: sm.max = \"99999999999999999999s\": must be a time such as 10s, 250ms or 5min, from 0 "
           "to 7d\n");
    refuse(XY_STR("store { log_max = 18446744073709551615tb }"),
           "x.conf:1: store.log_max = \"18446744073709551615tb\": must be a size such as 256kb, from 64mb to "
           "1024gb\n");
}

static void test_addresses_and_accounts(void **state)
{
    (void)state;
    static const char *const wrong[] = { "5222",
                                         "127.0.0.1",
                                         "127.0.0.1:",
                                         "127.0.0.1:65536",
                                         "::1:5222",
                                         "[::1]",
                                         "[127.0.0.1]:1",
                                         "example.org:5222",
                                         "[]:1",
                                         ":1",
                                         "" };
    char text[128], expected[256];
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        (void)snprintf(text, sizeof text, "listen { c2s = \"%s\" }", wrong[i]);
        (void)snprintf(expected, sizeof expected,
                       "x.conf:1: listen.c2s = \"%s\": must be ADDRESS:PORT, such as \"127.0.0.1:5222\" or "
                       "\"[::]:5222\"\n",
                       wrong[i]);
        refuse(xy_str(text), expected);
    }
    static const char *const strangers[] = { "ops", "@example.org", "ops@", "ops@example.org/desk" };
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++) {
        (void)snprintf(text, sizeof text, "admins = [\"%s\"]", strangers[i]);
        (void)snprintf(expected, sizeof expected,
                       "x.conf:1: admins = \"%s\": must be an account such as \"ops@example.org\"\n",
                       strangers[i]);
        refuse(xy_str(text), expected);
    }
    refuse(XY_STR("auth { local_users { root = \"a@b\" } }"),
           "x.conf:1: auth.local_users: \"root\" is not a numeric user id\n");
    refuse(XY_STR("auth { local_users { 1 = b } }"),
           "x.conf:1: auth.local_users.1: must be an account such as \"ops@example.org\"\n");
    refuse(XY_STR("auth { local_users { 1 = \"a@b\"\n1 = \"c@d\" } }"),
           "x.conf:2: auth.local_users.1 is set twice\n");
}

static void test_duplicates_and_contradictions(void **state)
{
    (void)state;
    refuse(XY_STR("shards = 1\nshards = 2\n"), "x.conf:2: shards is set twice, first on line 1\n");
    refuse(XY_STR("domain = a.org\ndomains = [b.org]\n"),
           "x.conf:2: domains cannot stand beside domain on line 1\n");
    refuse(XY_STR("domains = []"), "x.conf:1: at least one domain is needed\n");
    refuse(XY_STR("domain = \"\""), "x.conf:1: domain = \"\": must be a domain such as \"example.org\"\n");
    refuse(XY_STR("\ndomains = [\"a.org\", \"b@c\"]"),
           "x.conf:2: domains = \"b@c\": must be a domain such as \"example.org\"\n");
    refuse(XY_STR("\npubsub { service = \"a/b\" }"),
           "x.conf:2: pubsub.service = \"a/b\": must be a domain such as \"pubsub.example.org\"\n");
    refuse(XY_STR("domain = a.org\npubsub { service = \"a.org\" }"),
           "x.conf:2: pubsub.service = \"a.org\": is one of the domains; it needs a name of its own\n");
    refuse(XY_STR("data_dir = \"\""), "x.conf:1: data_dir must not be empty\n");
    refuse(XY_STR("\ntls { certificate = c.pem }"),
           "x.conf:2: tls.certificate and tls.key are needed together\n");
    struct config *config = parse("log { level = debug }\nlog { format = json }\n"); /* sections merge */
    assert_int_equal(config->log.level, LOG_LEVEL_DEBUG);
    assert_int_equal(config->log.format, LOG_FORMAT_JSON);
    config_free(&config);
}

static void test_all_faults_are_reported_at_once(void **state)
{
    (void)state;
    refuse(XY_STR("shards = many\nlog { level = loud\n levels = red }\n"),
           "x.conf:1: shards = \"many\": must be a number, from 1 to 64, or auto\n"
           "x.conf:2: log.level = \"loud\": must be one of error, warning, info, debug\n"
           "x.conf:3: unknown key \"log.levels\"; the nearest is \"log.level\"\n");
}

static void test_files(void **state)
{
    (void)state;
    char path[] = "/tmp/xylem-config-XXXXXX";
    struct config *config = NULL;
    struct xy_buf errors = { 0 };
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "domain = a.org\nshards = x\n", 26), 26);
    assert_false(config_load(path, &config, &errors));
    xy_buf_char(&errors, '\0');
    assert_non_null(strstr(errors.data, ":2: shards"));
    assert_memory_equal(errors.data, path, strlen(path));

    assert_int_equal(ftruncate(fd, 15), 0);
    xy_buf_reset(&errors);
    assert_true(config_load(path, &config, &errors));
    assert_str(config->domains.items[0], "a.org");
    config_free(&config);

    /* exactly the largest file, and one byte more */
    assert_int_equal(ftruncate(fd, 0), 0);
    char *blank = malloc(CONFIG_FILE_MAX + 1);
    assert_non_null(blank);
    memset(blank, ' ', CONFIG_FILE_MAX + 1);
    assert_int_equal(pwrite(fd, blank, CONFIG_FILE_MAX, 0), CONFIG_FILE_MAX);
    assert_true(config_load(path, &config, &errors));
    config_free(&config);
    assert_int_equal(pwrite(fd, blank, CONFIG_FILE_MAX + 1, 0), CONFIG_FILE_MAX + 1);
    assert_false(config_load(path, &config, &errors));
    free(blank);
    close(fd);
    assert_int_equal(unlink(path), 0);

    xy_buf_reset(&errors);
    assert_false(config_load(path, &config, &errors));
    xy_buf_char(&errors, '\0');
    assert_non_null(strstr(errors.data, "cannot be read: No such file"));
    xy_buf_reset(&errors);
    assert_false(config_load("/tmp", &config, &errors));
    xy_buf_char(&errors, '\0');
    assert_string_equal(errors.data, "/tmp: cannot be read: Is a directory\n");
    xy_buf_free(&errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_shards_follow_the_cores_of_the_process),
        cmocka_unit_test(test_defaults_are_generous),
        cmocka_unit_test(test_every_key_of_the_documented_example),
        cmocka_unit_test(test_json_is_a_configuration),
        cmocka_unit_test(test_numbers_and_suffixes),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_unknown_keys_name_the_nearest),
        cmocka_unit_test(test_tls_libraries),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_addresses_and_accounts),
        cmocka_unit_test(test_duplicates_and_contradictions),
        cmocka_unit_test(test_all_faults_are_reported_at_once),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
