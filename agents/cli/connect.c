/* How every subcommand reaches the broker, asks it something, and takes its leave. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agents/cli/cli.h"
#include "sdk/src/fragment.h"

#define PASSWORD_MAX    1024
#define STOP_DRAIN_MS   5000u
#define STOP_TIMEOUT_MS 7000

static volatile sig_atomic_t signalled;

static void on_signal(int number)
{
    (void)number;
    signalled = 1;
}

void cli_error(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fprintf(stderr, "xylem: ");
    vfprintf(stderr, format, list);
    fprintf(stderr, "\n");
    va_end(list);
}

const char *cli_host_name(void)
{
    static char name[256];
    if (gethostname(name, sizeof name - 1) != 0 || !name[0])
        snprintf(name, sizeof name, "localhost");
    return name;
}

int cli_exit_of(enum xylem_status status)
{
    return status == XYLEM_OK ? CLI_DONE : CLI_FAILED;
}

static void on_state(struct xylem_client *client, enum xylem_state state, enum xylem_status why, void *ctx)
{
    struct cli *cli = ctx;
    (void)client;
    if (state == XYLEM_STATE_STOPPED) {
        cli->over = true;
        cli->why = why;
    } else {
        cli->over = false;
    }
}

static void on_spooled(struct xylem_client *client, const struct xylem_item *item,
                       const struct xylem_result *result, void *ctx)
{
    (void)client;
    (void)ctx;
    if (result->status != XYLEM_OK)
        cli_error("an item kept for %s was refused: %s", item->node, result->text);
}

/* The first line of the file, or XYLEM_PASSWORD. */
static bool read_password(const struct cli *cli, char out[PASSWORD_MAX])
{
    const char *file = cli->option[OPT_PASSWORD_FILE];
    const char *variable = getenv("XYLEM_PASSWORD");
    out[0] = '\0';
    if (!file) {
        if (variable)
            snprintf(out, PASSWORD_MAX, "%s", variable);
        else
            cli_error("no password for --jid: give --password-file FILE or set XYLEM_PASSWORD");
        return variable != NULL;
    }
    FILE *in = fopen(file, "re");
    bool ok = in && fgets(out, PASSWORD_MAX, in);
    if (!ok)
        cli_error("no password in %s: %s", file, in ? "it is empty" : strerror(errno));
    out[strcspn(out, "\r\n")] = '\0';
    if (in)
        fclose(in);
    return ok;
}

static const char *socket_path(const struct cli *cli)
{
    const char *variable = getenv("XYLEM_SOCKET");
    if (cli->option[OPT_SOCKET])
        return cli->option[OPT_SOCKET];
    return variable && *variable ? variable : CLI_SOCKET;
}

static const char *tls_library(const struct cli *cli)
{
    const char *variable = getenv("XYLEM_TLS_LIBRARY");
    if (cli->option[OPT_TLS_LIBRARY])
        return cli->option[OPT_TLS_LIBRARY];
    return variable && *variable ? variable : NULL;
}

static bool network_options(struct cli *cli, struct xylem_options *o, char *password)
{
    uint64_t port = 0;
    if (!cli_number(cli, OPT_PORT, UINT16_MAX, &port) || !read_password(cli, password))
        return false;
    o->jid = cli->option[OPT_JID];
    o->password = password;
    o->host = cli->option[OPT_HOST];
    o->port = (uint16_t)port;
    o->ca_file = cli->option[OPT_CA];
    o->insecure = cli->option[OPT_INSECURE] != NULL;
    o->tls = cli->option[OPT_DIRECT_TLS] ? XYLEM_TLS_DIRECT : XYLEM_TLS_REQUIRED;
    o->tls_library = tls_library(cli);
    if (cli->option[OPT_NO_TLS]) {
        o->tls = XYLEM_TLS_NONE;
        o->plain_allowed = true;
    }
    return true;
}

int cli_client(struct cli *cli, const char *resource, enum xylem_retry retry, const char *state_dir)
{
    struct xylem_options o = XYLEM_OPTIONS;
    char password[PASSWORD_MAX] = "", error[600];
    if (cli->option[OPT_HOST] && !cli->option[OPT_JID]) {
        cli_error("--host needs --jid: who shall log in there?");
        return CLI_USAGE;
    }
    if (cli->option[OPT_JID]) {
        if (!network_options(cli, &o, password))
            return CLI_USAGE;
    } else {
        o.socket_path = socket_path(cli);
        o.as = cli->option[OPT_AS];
    }
    o.resource = resource;
    o.retry = retry;
    o.state_dir = state_dir;
    o.spool_dir = cli->option[OPT_SPOOL];
    uint64_t inflight = 0;
    if (!cli_number(cli, OPT_MAX_INFLIGHT, CLI_INFLIGHT_MAX, &inflight))
        return CLI_USAGE;
    o.max_inflight = (uint32_t)inflight;
    o.no_presence = cli->only_asks;
    o.on_state = on_state;
    o.on_spooled = on_spooled;
    o.ctx = cli;
    enum xylem_status status = xylem_client_new(&cli->client, &o, error, sizeof error);
    memset(password, 0, sizeof password);
    if (status == XYLEM_OK) {
        struct sigaction action = { .sa_handler = on_signal };
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
        return CLI_DONE;
    }
    cli_error("%s", error);
    return status == XYLEM_INVALID ? CLI_USAGE : CLI_FAILED;
}

static void say_over(const struct cli *cli)
{
    const char *error = xylem_client_error(cli->client);
    cli_error("%s", *error ? error : xylem_status_text(cli->why));
    if (cli->why == XYLEM_UNREACHABLE && !cli->option[OPT_JID])
        cli_error("is xylemd running, and is this its socket? --socket PATH or XYLEM_SOCKET names another");
    if (cli->why == XYLEM_AUTH && !cli->option[OPT_JID])
        cli_error(
            "the local socket is for root, the broker's own user and auth.local_users of its configuration");
    if (cli->why == XYLEM_UNTRUSTED)
        cli_error("--ca FILE names the certificates to trust");
}

int cli_turn_or_read(struct cli *cli, int timeout_ms, int fd, bool *readable)
{
    int own = xylem_client_timeout_ms(cli->client);
    if (own >= 0 && (timeout_ms < 0 || own < timeout_ms))
        timeout_ms = own;
    struct pollfd ready[] = { { .fd = xylem_client_fd(cli->client), .events = POLLIN },
                              { .fd = fd, .events = POLLIN } };
    *readable = !signalled && poll(ready, 2, timeout_ms) > 0 && ready[1].revents != 0;
    return cli_turn(cli, 0);
}

int cli_turn(struct cli *cli, int timeout_ms)
{
    if (!signalled)
        xylem_client_run(cli->client, timeout_ms);
    cli->interrupted = signalled != 0;
    if (cli->interrupted)
        return CLI_FAILED;
    if (!cli->over)
        return CLI_DONE;
    if (cli->why == XYLEM_OK)
        return CLI_FAILED;
    say_over(cli);
    return CLI_FAILED;
}

int cli_connect(struct cli *cli, const char *resource)
{
    cli->only_asks = true;
    int status = cli_client(cli, resource, XYLEM_RETRY_NEVER, NULL);
    if (status != CLI_DONE)
        return status;
    xylem_client_start(cli->client);
    while (status == CLI_DONE && xylem_client_state(cli->client) != XYLEM_STATE_ONLINE)
        status = cli_turn(cli, -1);
    return status;
}

void cli_close(struct cli *cli)
{
    if (!cli->client || cli->over)
        return;
    xylem_client_stop(cli->client, STOP_DRAIN_MS);
    for (int waited = 0; !cli->over && waited < STOP_TIMEOUT_MS; waited += 100)
        if (xylem_client_run(cli->client, 100) != XYLEM_OK)
            break;
}

/* --- asking --- */

struct call {
    bool done, quiet;
    enum xylem_status status;
    struct xy_arena **arena;
    struct xy_elem **answer;
};

static void on_answer(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    (void)client;
    struct call *call = ctx;
    call->done = true;
    call->status = result->status;
    if (result->status != XYLEM_OK && !call->quiet)
        cli_error("%s", result->text);
    if (result->xml && call->answer)
        *call->answer = xy_fragment_parse(xy_str(result->xml), call->arena);
}

enum xylem_status cli_ask(struct cli *cli, const char *to, bool set, const struct xy_buf *payload,
                          struct xy_arena **arena, struct xy_elem **answer, bool quiet)
{
    struct call call = { .quiet = quiet, .arena = arena, .answer = answer };
    if (answer) {
        *answer = NULL;
        *arena = NULL;
    }
    enum xylem_status status =
        xylem_request(cli->client, to, set, payload->data, payload->len, 0, on_answer, &call);
    if (status != XYLEM_OK) {
        cli_error("%s", xylem_client_error(cli->client));
        return status;
    }
    while (!call.done && cli_turn(cli, -1) == CLI_DONE)
        continue;
    if (!call.done)
        cli_close(cli); /* interrupted: the answer ends while `call` stands */
    return call.done ? call.status : XYLEM_DISCONNECTED;
}

const char *cli_domain(struct cli *cli)
{
    static char domain[1100];
    const char *jid = xylem_client_jid(cli->client);
    const char *at = strchr(jid, '@');
    snprintf(domain, sizeof domain, "%s", at ? at + 1 : jid);
    domain[strcspn(domain, "/")] = '\0';
    return domain;
}
