/* xylem user: accounts, by the broker's ad-hoc commands (XEP-0133) over the connection, or with --offline by the broker
 * program itself, which alone knows the store. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "agents/cli/cli.h"
#include "agents/cli/form.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"

#define NS_ADMIN_COMMANDS "http://jabber.org/protocol/admin"
#define LINE_MAX_BYTES    4096

/* --- offline: xylemd --config FILE --users … --- */

/* Beside this program first, then in PATH. */
static int run_broker(struct cli *cli, const char *verb)
{
    const char *arguments[CLI_ARGUMENTS_MAX + 8] = { "xylemd", "--config", cli->option[OPT_CONFIG], "--users",
                                                     verb };
    int count = 5;
    for (int i = 0; i < cli->argument_count; i++)
        arguments[count++] = cli->argument[i];
    if (cli->option[OPT_PASSWORD_STDIN])
        arguments[count++] = "--password-stdin";
    char path[4200];
    ssize_t len = readlink("/proc/self/exe", path, 4096);
    char *const *argv = (char *const *)(uintptr_t)arguments;
    if (len > 0) {
        path[len] = '\0';
        char *slash = strrchr(path, '/');
        snprintf(slash + 1, sizeof path - (size_t)(slash + 1 - path), "xylemd");
        execv(path, argv);
    }
    execvp("xylemd", argv);
    cli_error("xylemd was found neither beside this program nor in PATH: %s", strerror(errno));
    return CLI_FAILED;
}

static bool offline(struct cli *cli, const char *verb, int *status)
{
    if (!cli->option[OPT_OFFLINE] && !cli->option[OPT_CONFIG])
        return false;
    *status = CLI_USAGE;
    if (!cli->option[OPT_OFFLINE])
        cli_error("--config goes with --offline; a running broker is reached by its socket: --socket PATH");
    else if (!cli->option[OPT_CONFIG])
        cli_error("--offline needs --config FILE, the configuration of the stopped broker");
    else
        *status = run_broker(cli, verb);
    return true;
}

/* --- passwords --- */

static void strip_line(char *line)
{
    line[strcspn(line, "\r\n")] = '\0';
}

static bool ask_tty(const char *prompt, char *out, size_t size)
{
    struct termios old, quiet;
    fprintf(stderr, "%s: ", prompt);
    bool tty = tcgetattr(STDIN_FILENO, &old) == 0;
    if (tty) {
        quiet = old;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    }
    bool ok = fgets(out, (int)size, stdin) != NULL;
    if (tty)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
    fprintf(stderr, "\n");
    strip_line(out);
    return ok;
}

static bool read_password(struct cli *cli, char *out, size_t size)
{
    char again[1024];
    bool ok;
    if (cli->option[OPT_PASSWORD_STDIN] || !isatty(STDIN_FILENO)) {
        ok = fgets(out, (int)size, stdin) != NULL;
        strip_line(out);
    } else {
        ok = ask_tty("Password", out, size) && ask_tty("Again", again, sizeof again);
        if (ok && strcmp(out, again) != 0) {
            cli_error("the passwords differ");
            return false;
        }
    }
    if (!ok || !*out)
        cli_error("no password given");
    return ok && *out;
}

/* --- online --- */

static void command_begin(struct xy_buf *out, const char *node)
{
    xy_buf_lit(out, "<command xmlns='" NS_COMMANDS "' action='execute'");
    xy_xml_attr(out, "node", xy_str(node));
    xy_buf_char(out, '>');
    cli_form_begin(out, NS_ADMIN_COMMANDS);
}

static enum xylem_status command_run(struct cli *cli, struct xy_buf *payload, struct xy_arena **arena,
                                     struct xy_elem **answer)
{
    cli_form_end(payload);
    xy_buf_lit(payload, "</command>");
    enum xylem_status status = cli_ask(cli, cli_domain(cli), true, payload, arena, answer, false);
    xy_buf_free(payload);
    return status;
}

static enum xylem_status set_account(struct cli *cli, const char *node, struct xy_str jid,
                                     const char *password)
{
    struct xy_buf payload = { 0 };
    command_begin(&payload, node);
    cli_form_field(&payload, XY_STR("accountjid"), jid);
    cli_form_field(&payload, XY_STR("password"), xy_str(password));
    return command_run(cli, &payload, NULL, NULL);
}

static int with_password(struct cli *cli, const char *verb, const char *node)
{
    int status;
    if (offline(cli, verb, &status))
        return status;
    char password[1024];
    if (!read_password(cli, password, sizeof password))
        return CLI_USAGE;
    status = cli_connect(cli, NULL);
    if (status == CLI_DONE)
        status = cli_exit_of(set_account(cli, node, xy_str(cli->argument[0]), password));
    memset(password, 0, sizeof password);
    return status;
}

int cli_user_add(struct cli *cli)
{
    return with_password(cli, "add", NS_ADMIN_COMMANDS "#add-user");
}

int cli_user_passwd(struct cli *cli)
{
    return with_password(cli, "passwd", NS_ADMIN_COMMANDS "#change-user-password");
}

/* Several accounts are on their way at once, because the broker derives their keys on all its cores. */
#define IMPORT_WINDOW 8u

struct import {
    struct cli *cli;
    const char *file;
    unsigned lines, outstanding, failed;
};

struct import_line {
    struct import *import;
    unsigned number;
    char name[LINE_MAX_BYTES];
    char *password; /* in name, behind the colon */
};

static void import_failed(struct import_line *line, const char *why)
{
    cli_error("%s:%u: '%s' was not added: %s", line->import->file, line->number, line->name, why);
    line->import->failed++;
}

static void import_end(struct import_line *line)
{
    memset(line->name, 0, sizeof line->name);
    free(line);
}

static void import_send(struct import_line *line);

static void on_imported(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    (void)client;
    struct import_line *line = ctx;
    line->import->outstanding--;
    if (result->status == XYLEM_BUSY) { /* it has its hands full: this answer made room */
        import_send(line);
        return;
    }
    if (result->status != XYLEM_OK)
        import_failed(line, result->text);
    import_end(line);
}

static void import_send(struct import_line *line)
{
    struct cli *cli = line->import->cli;
    struct xy_buf jid = { 0 }, payload = { 0 };
    xy_buf_printf(&jid, "%s@%s", line->name, cli_domain(cli));
    command_begin(&payload, NS_ADMIN_COMMANDS "#add-user");
    cli_form_field(&payload, XY_STR("accountjid"), xy_buf_view(&jid));
    cli_form_field(&payload, XY_STR("password"), xy_str(line->password));
    cli_form_end(&payload);
    xy_buf_lit(&payload, "</command>");
    enum xylem_status status =
        xylem_request(cli->client, cli_domain(cli), true, payload.data, payload.len, 0, on_imported, line);
    if (status == XYLEM_OK) {
        line->import->outstanding++;
    } else {
        import_failed(line, xylem_client_error(cli->client));
        import_end(line);
    }
    xy_buf_free(&jid);
    xy_buf_free(&payload);
}

/* The names of all accounts are local parts of the first domain. */
static void import_line(struct import *import, const char *text)
{
    struct import_line *line = calloc(1, sizeof *line);
    import->lines++;
    if (!line)
        return;
    line->import = import;
    line->number = import->lines;
    snprintf(line->name, sizeof line->name, "%s", text);
    strip_line(line->name);
    char *colon = strchr(line->name, ':');
    if (!line->name[0]) {
        import_end(line);
    } else if (!colon || colon == line->name || !colon[1]) {
        cli_error("%s:%u: not name:password", import->file, import->lines);
        import->failed++;
        import_end(line);
    } else {
        *colon = '\0';
        line->password = colon + 1;
        import_send(line);
    }
}

static int import_all(struct cli *cli, FILE *in, const char *file)
{
    struct import import = { .cli = cli, .file = file };
    char text[LINE_MAX_BYTES];
    bool more = true;
    while (more || import.outstanding > 0) {
        while (more && import.outstanding < IMPORT_WINDOW && (more = fgets(text, sizeof text, in) != NULL))
            import_line(&import, text);
        if (import.outstanding > 0 && cli_turn(cli, -1) != CLI_DONE) {
            cli_close(cli); /* ends what is outstanding while `import` stands */
            return CLI_FAILED;
        }
    }
    if (import.failed)
        cli_error("%u of %u lines failed", import.failed, import.lines);
    return import.failed ? CLI_FAILED : CLI_DONE;
}

int cli_user_import(struct cli *cli)
{
    int status;
    if (offline(cli, "import", &status))
        return status;
    const char *file = cli->argument[0];
    FILE *in = strcmp(file, "-") == 0 ? stdin : fopen(file, "re");
    if (!in) {
        cli_error("%s: %s", file, strerror(errno));
        return CLI_FAILED;
    }
    status = cli_connect(cli, NULL);
    if (status == CLI_DONE)
        status = import_all(cli, in, file);
    if (in != stdin)
        fclose(in);
    return status;
}

static void print_account(struct xy_str jid, bool json)
{
    struct xy_buf out = { 0 };
    if (json)
        cli_json_string(&out, jid);
    else
        xy_buf_str(&out, jid);
    printf(json ? "{\"jid\":%.*s}\n" : "%.*s\n", (int)out.len, out.data ? out.data : "");
    xy_buf_free(&out);
}

/* false: no more, or failed. */
static bool list_page(struct cli *cli, struct xy_buf *after, int *status)
{
    struct xy_buf payload = { 0 };
    struct xy_arena *arena;
    struct xy_elem *answer;
    struct xy_form form;
    command_begin(&payload, NS_ADMIN_COMMANDS "#get-registered-users-list");
    if (after->len)
        cli_form_field(&payload, XY_STR("{" NS_XYLEM_ADMIN "}after"), xy_buf_view(after));
    *status = cli_exit_of(command_run(cli, &payload, &arena, &answer));
    bool more = false;
    if (*status == CLI_DONE && cli_form_find(arena, answer, &form)) {
        const struct xy_form_field *jids = xy_form_field(&form, "registereduserjids");
        for (size_t i = 0; jids && i < jids->values_count; i++) {
            print_account(jids->values[i], cli->option[OPT_JSON] != NULL);
            xy_buf_reset(after);
            xy_buf_str(after, jids->values[i]);
        }
        bool flag = false;
        more = xy_str_bool(xy_form_value(&form, "{" NS_XYLEM_ADMIN "}more"), &flag) && flag && jids &&
               jids->values_count;
    }
    xy_arena_free(&arena);
    return more;
}

int cli_user_list(struct cli *cli)
{
    int status;
    if (offline(cli, "list", &status))
        return status;
    struct xy_buf after = { 0 };
    status = cli_connect(cli, NULL);
    if (status == CLI_DONE)
        while (list_page(cli, &after, &status))
            continue;
    xy_buf_free(&after);
    return status;
}

int cli_user_remove(struct cli *cli)
{
    int status;
    if (offline(cli, "remove", &status))
        return status;
    status = cli_connect(cli, NULL);
    if (status != CLI_DONE)
        return status;
    struct xy_buf payload = { 0 };
    command_begin(&payload, NS_ADMIN_COMMANDS "#delete-user");
    xy_buf_lit(&payload, "<field var='accountjids'>");
    for (int i = 0; i < cli->argument_count; i++) {
        xy_buf_lit(&payload, "<value>");
        xy_xml_escape(&payload, xy_str(cli->argument[i]));
        xy_buf_lit(&payload, "</value>");
    }
    xy_buf_lit(&payload, "</field>");
    return cli_exit_of(command_run(cli, &payload, NULL, NULL));
}
