/* What `xylem sub` prints: text, JSON, events, and protobuf messages decoded by their descriptor. */
#include <unistd.h>

#include "agents/cli/cli.h"
#include "tests/unit/unit.h"
#include "xylem/v1/host.pb-c.h"

static char printed[4096];

static const char *print(const struct xylem_msg_view *view, bool json, bool several)
{
    fflush(stdout);
    FILE *file = tmpfile();
    int saved = dup(STDOUT_FILENO);
    dup2(fileno(file), STDOUT_FILENO);
    const struct cli_print how = { .json = json, .several = several };
    cli_print_message(view, &how);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    rewind(file);
    printed[fread(printed, 1, sizeof printed - 1, file)] = '\0';
    fclose(file);
    return printed;
}

static struct xylem_msg_view text_view(const char *text, size_t len)
{
    return (struct xylem_msg_view){ .node = "n", .id = "i", .type = "text/plain", .data = text, .len = len };
}

static void test_text(void **state)
{
    (void)state;
    struct xylem_msg_view view = text_view("rain", 4);
    assert_string_equal(print(&view, false, false), "rain\n");
    assert_string_equal(print(&view, false, true), "n: rain\n");
    view = text_view("line\n", 5);
    assert_string_equal(print(&view, false, false), "line\n");
    view = text_view("", 0);
    assert_string_equal(print(&view, false, false), "\n");
}

static void test_json(void **state)
{
    (void)state;
    struct xylem_msg_view view = text_view("a\"b\\\n\t", 6);
    assert_string_equal(
        print(&view, true, false),
        "{\"node\":\"n\",\"id\":\"i\",\"type\":\"text/plain\",\"data\":\"a\\\"b\\\\\\n\\u0009\"}\n");
    view = text_view("\xff\x00", 2);
    view.seq = 7;
    view.attempt = 2;
    view.epoch = "e";
    view.delay_us = 5;
    assert_string_equal(print(&view, true, false),
                        "{\"node\":\"n\",\"id\":\"i\",\"seq\":7,\"attempt\":2,\"epoch\":\"e\",\"delay_us\":5,"
                        "\"type\":\"text/plain\",\"data\":\"/wA=\"}\n");
}

static void test_json_values(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "0", "0" },           { "1207", "1207" },
        { "007", "\"007\"" },   { "", "\"\"" },
        { "12e4", "\"12e4\"" }, { "-1", "\"-1\"" },
        { "true", "\"true\"" }, { "99999999999999999999", "\"99999999999999999999\"" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct xy_buf out = { 0 };
        cli_json_value(&out, xy_str(cases[i][0]));
        assert_str(xy_buf_view(&out), cases[i][1]);
        xy_buf_free(&out);
    }
}

static void test_events(void **state)
{
    (void)state;
    struct xylem_msg_view view = { .event = XYLEM_EVENT_RETRACT, .node = "n", .id = "i" };
    assert_string_equal(print(&view, false, false), "n: retract i\n");
    assert_string_equal(print(&view, true, false), "{\"node\":\"n\",\"event\":\"retract\",\"id\":\"i\"}\n");
    view = (struct xylem_msg_view){ .event = XYLEM_EVENT_DELETE, .node = "n" };
    assert_string_equal(print(&view, false, false), "n: delete\n");
}

static void test_messages_are_decoded(void **state)
{
    (void)state;
    Xylem__V1__HostState host = XYLEM__V1__HOST_STATE__INIT;
    Xylem__V1__CpuUsage cpu = XYLEM__V1__CPU_USAGE__INIT, *cores[] = { &cpu, &cpu };
    host.hostname = "web\"1";
    cpu.busy = 12;
    host.cpu = &cpu;
    host.cores = cores;
    host.n_cores = 2;
    uint8_t packed[512];
    struct xylem_msg_view view = {
        .node = "n", .payload = XYLEM_TYPED, .type = "xylem.v1.HostState", .data = packed
    };
    view.len = xylem__v1__host_state__pack(&host, packed);
    view.seq = 3;
    view.epoch = "e";
    const char *json = print(&view, true, false);
    assert_non_null(strstr(json, "\"hostname\":\"web\\\"1\""));
    assert_non_null(strstr(json, "\"cores\":[{\"core\":0,\"busy\":12"));
    const char *text = print(&view, false, false);
    assert_non_null(strstr(text, "n: #3 "));
    assert_non_null(strstr(text, "cpu={core=0 busy=12"));
    assert_non_null(strstr(text, "cores=[2]"));
    view.type = "somebody.else.Type";
    assert_non_null(strstr(print(&view, false, false), "somebody.else.Type "));
    view.type = "xylem.v1.HostState";
    packed[0] = 0xff; /* not what it says it is */
    assert_non_null(strstr(print(&view, true, false), "\"data\":\""));
}

static void test_gap(void **state)
{
    (void)state;
    struct xylem_msg_view view = { .event = XYLEM_EVENT_GAP,
                                   .node = "n",
                                   .seq = 9,
                                   .gap_first = 7,
                                   .gap_reason = "overflow",
                                   .attempt = 1,
                                   .epoch = "e" };
    assert_string_equal(print(&view, false, false), "n: gap 7-9 overflow\n");
    assert_string_equal(print(&view, true, false),
                        "{\"node\":\"n\",\"event\":\"gap\",\"seq\":9,\"attempt\":1,\"epoch\":\"e\","
                        "\"first\":7,\"reason\":\"overflow\"}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),   cmocka_unit_test(test_gap),
        cmocka_unit_test(test_json),   cmocka_unit_test(test_json_values),
        cmocka_unit_test(test_events), cmocka_unit_test(test_messages_are_decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
