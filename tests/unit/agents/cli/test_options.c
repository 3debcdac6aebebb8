/* The command line is parsed: what is taken where, and what is refused. */
#include "agents/cli/cli.h"
#include "tests/unit/unit.h"

#define PARSE(cli, ...) parse(&(cli), (char *[]){ "xylem", __VA_ARGS__, NULL })

static int parse(struct cli *cli, char **argv)
{
    *cli = (struct cli){ 0 };
    int argc = 0;
    while (argv[argc])
        argc++;
    return cli_parse(cli, argc, argv);
}

static void test_options_may_stand_anywhere(void **state)
{
    (void)state;
    struct cli cli;
    assert_int_equal(PARSE(cli, "--socket", "/s", "sub", "--json", "a", "--count=3", "b", "--durable"), -1);
    assert_string_equal(cli.command->name, "sub");
    assert_int_equal(cli.argument_count, 2);
    assert_string_equal(cli.argument[0], "a");
    assert_string_equal(cli.argument[1], "b");
    assert_string_equal(cli.option[OPT_SOCKET], "/s");
    assert_string_equal(cli.option[OPT_COUNT], "3");
    assert_string_equal(cli.option[OPT_DURABLE], ""); /* given, without a name */
    assert_null(cli.option[OPT_TIMEOUT]);
    uint64_t count = 0;
    assert_true(cli_number(&cli, OPT_COUNT, 3, &count));
    assert_int_equal(count, 3);
    assert_false(cli_number(&cli, OPT_COUNT, 2, &count));
    assert_int_equal(PARSE(cli, "user", "import", "f", "--config", "c", "--offline"), -1);
    assert_string_equal(cli.command->sub, "import");
    assert_int_equal(cli.argument_count, 1);
}

static void test_an_optional_value_needs_its_sign(void **state)
{
    (void)state;
    struct cli cli;
    assert_int_equal(PARSE(cli, "sub", "--durable", "node"), -1);
    assert_string_equal(cli.option[OPT_DURABLE], "");
    assert_string_equal(cli.argument[0], "node");
    assert_int_equal(PARSE(cli, "sub", "--durable=name", "node"), -1);
    assert_string_equal(cli.option[OPT_DURABLE], "name");
}

static void test_two_dashes_end_the_options(void **state)
{
    (void)state;
    struct cli cli;
    assert_int_equal(PARSE(cli, "pub", "--", "--odd-node", "-"), -1);
    assert_string_equal(cli.argument[0], "--odd-node");
    assert_string_equal(cli.argument[1], "-");
}

static void test_an_option_given_several_times(void **state)
{
    (void)state;
    struct cli cli;
    int at = 0;
    assert_int_equal(PARSE(cli, "pub", "n", "--header", "a=1", "--id", "i", "--header=b=2"), -1);
    assert_string_equal(cli.option[OPT_HEADER], "b=2");
    assert_string_equal(cli_each(&cli, OPT_HEADER, &at), "a=1");
    assert_string_equal(cli_each(&cli, OPT_HEADER, &at), "b=2");
    assert_null(cli_each(&cli, OPT_HEADER, &at));
}

static void test_wrong_usage(void **state)
{
    (void)state;
    struct cli cli;
    assert_int_equal(PARSE(cli, "nothing"), CLI_USAGE);
    assert_int_equal(PARSE(cli, "node"), CLI_USAGE);
    assert_int_equal(PARSE(cli, "sub"), CLI_USAGE);
    assert_int_equal(PARSE(cli, "pub"), -1); /* whether it has a spool to send is for the command to see */
    assert_int_equal(PARSE(cli, "pub", "a", "b", "c"), CLI_USAGE);
    assert_int_equal(PARSE(cli, "pub", "a", "--json"), CLI_USAGE);
    assert_int_equal(PARSE(cli, "pub", "a", "--js"), CLI_USAGE);
    assert_int_equal(PARSE(cli, "sub", "a", "--count"), CLI_USAGE);
    assert_int_equal(PARSE(cli, "sub", "a", "--json=1"), CLI_USAGE);
    char *many[CLI_ARGUMENTS_MAX + 3] = { "xylem" };
    for (int i = 1; i <= CLI_ARGUMENTS_MAX + 1; i++)
        many[i] = i == 1 ? "sub" : "n";
    assert_int_equal(parse(&cli, many), CLI_USAGE);
    many[CLI_ARGUMENTS_MAX + 1] = NULL;
    assert_int_equal(parse(&cli, many), -1);
}

static void test_every_command_is_complete(void **state)
{
    (void)state;
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        assert_non_null(c->run);
        assert_non_null(c->help);
        assert_non_null(c->arguments);
        assert_true(c->arguments_max < 0 || c->arguments_max >= c->arguments_min);
        for (const struct cli_command *other = cli_commands; other != c; other++)
            assert_false(strcmp(c->name, other->name) == 0 && (!c->sub || strcmp(c->sub, other->sub) == 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_may_stand_anywhere),
        cmocka_unit_test(test_an_optional_value_needs_its_sign),
        cmocka_unit_test(test_two_dashes_end_the_options),
        cmocka_unit_test(test_an_option_given_several_times),
        cmocka_unit_test(test_wrong_usage),
        cmocka_unit_test(test_every_command_is_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
