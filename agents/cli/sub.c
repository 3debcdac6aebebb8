/* xylem sub: prints items as they come. An item is acknowledged when it was printed, never before, so that with --durable
 * a pipe that breaks or a --count that is reached loses nothing. */
#include <stdio.h>
#include <string.h>

#include "agents/cli/cli.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/drivers/system.h"

struct watching {
    struct cli *cli;
    uint64_t count, wanted;
    bool failed;
};

static void on_message(struct xylem_sub *sub, struct xylem_msg *msg, void *ctx)
{
    (void)sub;
    struct watching *w = ctx;
    if (w->failed || (w->wanted && w->count >= w->wanted))
        return; /* not acknowledged: it stays at the broker */
    struct xylem_msg_view view;
    xylem_msg_view(msg, &view);
    cli_print_message(&view, w->cli->option[OPT_JSON] != NULL, w->cli->argument_count > 1);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cli_error("standard output cannot be written");
        w->failed = true;
        return;
    }
    w->count++;
    xylem_ack(&msg);
}

static void on_subscribed(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    (void)client;
    struct watching *w = ctx;
    if (result->status == XYLEM_OK || xylem_status_retriable(result->status))
        return;
    cli_error("%s", result->text);
    if (result->status == XYLEM_NOT_FOUND)
        cli_error("create the node first: xylem node create NODE");
    w->failed = true;
}

static uint64_t seconds(void)
{
    return xy_now_us(xy_env_system()) / 1000000;
}

static int watch(struct watching *w, uint64_t timeout_s)
{
    uint64_t end = timeout_s ? seconds() + timeout_s : UINT64_MAX;
    while (!w->failed && !(w->wanted && w->count >= w->wanted)) {
        uint64_t now = seconds();
        if (now >= end)
            return w->wanted ? CLI_TIMED_OUT : CLI_DONE;
        int wait_ms = end == UINT64_MAX ? -1 : 1000;
        if (cli_turn(w->cli, wait_ms) != CLI_DONE)
            return w->cli->interrupted ? CLI_DONE : CLI_FAILED;
    }
    return w->failed ? CLI_FAILED : CLI_DONE;
}

static const char *durable_name(const struct cli *cli)
{
    const char *name = cli->option[OPT_DURABLE];
    return name && *name ? name : cli_host_name();
}

static int forget(struct cli *cli)
{
    int status = cli_connect(cli, durable_name(cli));
    for (int i = 0; status == CLI_DONE && i < cli->argument_count; i++) {
        struct xy_buf payload = { 0 };
        xy_buf_lit(&payload, "<pubsub xmlns='" NS_PUBSUB "'><unsubscribe");
        xy_xml_attr(&payload, "node", xy_str(cli->argument[i]));
        xy_xml_attr(&payload, "jid", xy_str(xylem_client_jid(cli->client)));
        xy_buf_lit(&payload, "/></pubsub>");
        status =
            cli_exit_of(cli_ask(cli, xylem_client_service(cli->client), true, &payload, NULL, NULL, false));
        xy_buf_free(&payload);
    }
    return status;
}

int cli_sub(struct cli *cli)
{
    struct watching w = { .cli = cli };
    uint64_t timeout_s = 0;
    bool durable = cli->option[OPT_DURABLE] != NULL;
    if (!cli_number(cli, OPT_COUNT, UINT64_MAX, &w.wanted) ||
        !cli_number(cli, OPT_TIMEOUT, 1u << 30, &timeout_s))
        return CLI_USAGE;
    if (cli->option[OPT_FORGET])
        return forget(cli);
    int status =
        cli_client(cli, durable ? durable_name(cli) : NULL, XYLEM_RETRY_ONCE_ONLINE, cli->option[OPT_STATE]);
    if (status != CLI_DONE)
        return status;
    struct xylem_sub_options o = XYLEM_SUB_OPTIONS;
    o.durable = durable;
    o.manual_ack = true;
    o.start = cli->option[OPT_START];
    o.on_message = on_message;
    o.on_subscribed = on_subscribed;
    o.ctx = &w;
    struct xylem_sub *subs[CLI_ARGUMENTS_MAX] = { NULL };
    for (int i = 0; i < cli->argument_count; i++)
        xylem_subscribe(cli->client, cli->argument[i], &o, &subs[i]);
    xylem_client_start(cli->client);
    status = watch(&w, timeout_s);
    for (int i = 0; i < cli->argument_count && !durable && !cli->over; i++)
        xylem_sub_cancel(&subs[i], true, NULL, NULL);
    cli_close(cli); /* while `w` stands: items may still come */
    return status;
}
