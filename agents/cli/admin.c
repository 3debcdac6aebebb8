/* xylem ping and xylem admin: is it there, and how does it do. */
#include <stdio.h>

#include "agents/cli/cli.h"
#include "agents/cli/form.h"
#include "core/namespaces.h"
#include "sdk/drivers/system.h"

static double milliseconds(void)
{
    return (double)xy_now_us(xy_env_system()) / 1e3;
}

int cli_ping(struct cli *cli)
{
    uint64_t count = 1;
    if (!cli_number(cli, OPT_COUNT, 1000000, &count))
        return CLI_USAGE;
    int status = cli_connect(cli, NULL);
    if (status != CLI_DONE)
        return status;
    const char *to = cli->argument_count ? cli->argument[0] : cli_domain(cli);
    struct xy_buf payload = { 0 };
    xy_buf_lit(&payload, "<ping xmlns='" NS_PING "'/>");
    for (uint64_t i = 0; i < count && status == CLI_DONE; i++) {
        double before = milliseconds();
        enum xylem_status answer = cli_ask(cli, to, false, &payload, NULL, NULL, false);
        status = cli_exit_of(answer);
        if (status == CLI_DONE)
            printf("%s answers in %.2f ms\n", to, milliseconds() - before);
        else if (answer == XYLEM_UNAVAILABLE && cli->argument_count)
            cli_error("a bare address has no client that answers; give the resource too: %s/RESOURCE", to);
    }
    xy_buf_free(&payload);
    return status;
}

int cli_admin_stats(struct cli *cli)
{
    int status = cli_connect(cli, NULL);
    if (status != CLI_DONE)
        return status;
    struct xy_buf payload = { 0 };
    struct xy_arena *arena;
    struct xy_elem *answer;
    struct xy_form form;
    xy_buf_lit(&payload, "<command xmlns='" NS_COMMANDS "' node='urn:xylem:admin:stats' action='execute'/>");
    status = cli_exit_of(cli_ask(cli, cli_domain(cli), true, &payload, &arena, &answer, false));
    xy_buf_free(&payload);
    if (status == CLI_DONE && cli_form_find(arena, answer, &form)) {
        cli_form_print(&form, cli->option[OPT_JSON] != NULL);
    } else if (status == CLI_DONE) {
        cli_error("the broker answered without figures");
        status = CLI_FAILED;
    }
    xy_arena_free(&arena);
    return status;
}
