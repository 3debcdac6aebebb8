/* xylem admin backup: has the broker copy its store, and waits for the end. The copying is the broker's; who interrupts
 * this command does not stop it. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agents/cli/cli.h"
#include "agents/cli/form.h"
#include "core/namespaces.h"

enum { POLL_MS = 200 };

/* Bytes with an optional unit, as in the configuration. */
static bool size_parse(const char *text, uint64_t *out)
{
    static const struct {
        const char *unit;
        uint64_t bytes;
    } units[] = { { "", 1 },
                  { "k", 1000 },
                  { "m", 1000000 },
                  { "g", 1000000000 },
                  { "kb", UINT64_C(1) << 10 },
                  { "mb", UINT64_C(1) << 20 },
                  { "gb", UINT64_C(1) << 30 } };
    size_t digits = strspn(text, "0123456789");
    uint64_t number;
    if (!xy_str_u64(xy_str_n(text, digits), &number))
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strcmp(text + digits, units[i].unit) == 0 && number <= UINT64_MAX / units[i].bytes) {
            *out = number * units[i].bytes;
            return true;
        }
    return false;
}

/* A path is the broker's; a relative one is taken from where the user stands, on the same machine as a rule. */
static bool absolute(const char *path, struct xy_buf *out)
{
    if (path[0] != '/') {
        char *here = getcwd(NULL, 0);
        if (!here)
            return false;
        xy_buf_printf(out, "%s/", here);
        free(here);
    }
    xy_buf_str(out, xy_str(path));
    return !xy_buf_failed(out);
}

static void command(struct xy_buf *out, const char *node)
{
    xy_buf_printf(out, "<command xmlns='" NS_COMMANDS "' node='%s' action='execute'>", node);
}

/* One request; *state is what the answer says, with its form. CLI_DONE or an exit status. */
static int ask(struct cli *cli, struct xy_buf *payload, struct xy_arena **arena, struct xy_form *form,
               struct xy_str *state)
{
    struct xy_elem *answer;
    xy_buf_lit(payload, "</command>");
    int status = cli_exit_of(cli_ask(cli, cli_domain(cli), true, payload, arena, &answer, false));
    xy_buf_free(payload);
    if (status != CLI_DONE)
        return status;
    *state = cli_form_find(*arena, answer, form) ? xy_form_value(form, "state") : XY_STR_NONE;
    if (xy_str_present(*state))
        return CLI_DONE;
    cli_error("the broker answered without saying how the backup does");
    return CLI_FAILED;
}

static int start(struct cli *cli, struct xy_str directory, const char *rate, struct xy_arena **arena,
                 struct xy_form *form, struct xy_str *state)
{
    struct xy_buf payload = { 0 };
    command(&payload, "urn:xylem:admin:backup");
    cli_form_begin(&payload, "http://jabber.org/protocol/admin");
    cli_form_field(&payload, XY_STR("{" NS_XYLEM_ADMIN "}directory"), directory);
    if (rate)
        cli_form_field(&payload, XY_STR("{" NS_XYLEM_ADMIN "}rate"), xy_str(rate));
    cli_form_end(&payload);
    return ask(cli, &payload, arena, form, state);
}

/* Until it is no longer the same backup that runs. */
static int follow(struct cli *cli, struct xy_arena **arena, struct xy_form *form, struct xy_str *state)
{
    int status = CLI_DONE;
    while (status == CLI_DONE && xy_str_is(*state, "running")) {
        status = cli_turn(cli, POLL_MS);
        if (status != CLI_DONE)
            break;
        struct xy_buf payload = { 0 };
        xy_arena_free(arena);
        command(&payload, "urn:xylem:admin:backup-status");
        status = ask(cli, &payload, arena, form, state);
    }
    return status;
}

static int outcome(const struct xy_form *form, struct xy_str state, struct xy_str directory)
{
    uint64_t tables = 0, log = 0, milliseconds = 0;
    if (!xy_str_is(state, "done")) {
        struct xy_str error = xy_form_value(form, "error");
        cli_error("no backup was made: %.*s", XY_ARG(error.len ? error : XY_STR("it ended unseen")));
        return CLI_FAILED;
    }
    (void)xy_str_u64(xy_form_value(form, "bytes"), &tables);
    (void)xy_str_u64(xy_form_value(form, "log_bytes"), &log);
    (void)xy_str_u64(xy_form_value(form, "milliseconds"), &milliseconds);
    printf("%.*s: %llu bytes of tables, %llu of log, %.1f s\n", XY_ARG(directory), (unsigned long long)tables,
           (unsigned long long)log, (double)milliseconds / 1e3);
    return CLI_DONE;
}

int cli_admin_backup(struct cli *cli)
{
    struct xy_buf directory = { 0 };
    struct xy_arena *arena = NULL;
    struct xy_form form;
    struct xy_str state;
    char rate[24];
    uint64_t bytes = 0;
    if (cli->option[OPT_RATE] && !size_parse(cli->option[OPT_RATE], &bytes)) {
        cli_error("--rate is bytes per second, such as 20mb; 0 is unlimited");
        return CLI_USAGE;
    }
    (void)snprintf(rate, sizeof(rate), "%llu", (unsigned long long)bytes);
    if (!absolute(cli->argument[0], &directory)) {
        cli_error("the current directory cannot be found out; give an absolute path");
        xy_buf_free(&directory);
        return CLI_USAGE;
    }
    int status = cli_connect(cli, NULL);
    if (status == CLI_DONE)
        status =
            start(cli, xy_buf_view(&directory), cli->option[OPT_RATE] ? rate : NULL, &arena, &form, &state);
    if (status == CLI_DONE)
        status = follow(cli, &arena, &form, &state);
    if (status == CLI_DONE)
        status = outcome(&form, state, xy_buf_view(&directory));
    xy_arena_free(&arena);
    xy_buf_free(&directory);
    return status;
}
