/* xylem sub: prints items as they come. An item is acknowledged when it was printed, never before, so that with --durable
 * a pipe that breaks or a --count that is reached loses nothing. With --ack manual a program says about each what became
 * of it (manual.c). */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agents/cli/cli.h"
#include "agents/cli/manual.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/drivers/system.h"

struct watching {
    struct cli *cli;
    uint64_t count, wanted;
    bool failed;
    bool by_hand;       /* verdicts come on standard input */
    const char *replay; /* from where; NULL: not, or done */
    int subscribing;    /* answers that are due until then */
    struct xylem_sub *subs[CLI_ARGUMENTS_MAX];
    struct manual manual;
};

static bool is_enough(const struct watching *w)
{
    if (w->by_hand && w->manual.ended)
        return true;
    return w->wanted && (w->by_hand ? w->manual.settled : w->count) >= w->wanted;
}

static void on_message(struct xylem_sub *sub, struct xylem_msg *msg, void *ctx)
{
    (void)sub;
    struct watching *w = ctx;
    struct xylem_msg_view view;
    if (w->failed || is_enough(w))
        return; /* not acknowledged: it stays at the broker */
    xylem_msg_view(msg, &view);
    bool asked = w->by_hand && view.seq > 0; /* about what is not owed there is nothing to say */
    struct cli_print how = { .json = w->by_hand || w->cli->option[OPT_JSON],
                             .several = w->cli->argument_count > 1 };
    how.ref = asked ? manual_take(&w->manual, msg) : 0;
    how.msg = msg;
    cli_print_message(&view, &how);
    if (fflush(stdout) != 0 || ferror(stdout) || (asked && how.ref == 0)) {
        cli_error(how.ref || !asked ? "standard output cannot be written" : "out of memory");
        w->failed = true;
        return;
    }
    if (asked)
        return;
    w->count += w->by_hand ? 0 : 1;
    xylem_ack(&msg);
}

static void on_replayed(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    (void)client;
    struct watching *w = ctx;
    if (result->status == XYLEM_OK)
        return;
    cli_error("%s", result->text);
    w->failed = true;
}

/* Once, when all that was asked for is subscribed. */
static void replay(struct watching *w)
{
    if (--w->subscribing > 0)
        return;
    for (int i = 0; i < w->cli->argument_count && !w->failed; i++) {
        if (xylem_sub_replay(w->subs[i], w->replay, on_replayed, w) != XYLEM_OK) {
            cli_error("%s", xylem_client_error(w->cli->client));
            w->failed = true;
        }
    }
    w->replay = NULL;
}

static void on_subscribed(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    (void)client;
    struct watching *w = ctx;
    if (result->status == XYLEM_OK && w->replay)
        replay(w);
    if (result->status == XYLEM_OK || xylem_status_retriable(result->status))
        return;
    cli_error("%s", result->text);
    if (result->status == XYLEM_NOT_FOUND)
        cli_error("create the node first: xylem node create NODE");
    if (strstr(result->text, "configuration-required"))
        cli_error("it is a queue: say with --queue N how many items to take at a time");
    w->failed = true;
}

static int one_turn(struct watching *w, int wait_ms)
{
    bool readable = false;
    if (!w->by_hand)
        return cli_turn(w->cli, wait_ms);
    int status = cli_turn_or_read(w->cli, wait_ms, STDIN_FILENO, &readable);
    if (status == CLI_DONE && readable)
        manual_read(&w->manual, STDIN_FILENO);
    return status;
}

static int watch(struct watching *w, uint64_t timeout_s)
{
    uint64_t end_us = timeout_s ? xy_now_us(xy_env_system()) + timeout_s * 1000000 : UINT64_MAX;
    while (!w->failed && !is_enough(w)) {
        uint64_t now_us = xy_now_us(xy_env_system());
        if (now_us >= end_us)
            return w->wanted ? CLI_TIMED_OUT : CLI_DONE;
        uint64_t left_ms = (end_us - now_us) / 1000 + 1;
        int wait_ms = end_us == UINT64_MAX ? -1 : (int)(left_ms < 1000 ? left_ms : 1000);
        if (one_turn(w, wait_ms) != CLI_DONE)
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

/* What --ack means: the way of the subscription, and whether a program decides. */
static bool read_ack(const struct cli *cli, struct watching *w, enum xylem_ack_way *way)
{
    static const struct {
        const char *name;
        enum xylem_ack_way way;
    } ways[] = { { "stream", XYLEM_ACK_BY_STREAM },
                 { "receipt", XYLEM_ACK_BY_RECEIPT },
                 { "explicit", XYLEM_ACK_EXPLICITLY },
                 { "manual", XYLEM_ACK_EXPLICITLY } };
    const char *name = cli->option[OPT_ACK];
    *way = XYLEM_ACK_BY_STREAM;
    if (!name)
        return true;
    if (!cli->option[OPT_DURABLE] && !cli->option[OPT_QUEUE]) {
        cli_error("--ack is for what the broker keeps: give --durable, or --queue N for a queue");
        return false;
    }
    w->by_hand = strcmp(name, "manual") == 0;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        if (strcmp(name, ways[i].name) == 0) {
            *way = ways[i].way;
            return true;
        }
    }
    cli_error("--ack %s: it is stream, receipt, explicit or manual", name);
    return false;
}

static bool read_options(struct cli *cli, struct watching *w, struct xylem_sub_options *o)
{
    uint64_t inflight = 0, wait = 0, deliver = 0, queue = 0;
    if (!read_ack(cli, w, &o->ack) || !cli_number(cli, OPT_MAX_INFLIGHT, CLI_INFLIGHT_MAX, &inflight) ||
        !cli_number(cli, OPT_ACK_WAIT, 604800, &wait) ||
        !cli_number(cli, OPT_MAX_DELIVER, UINT32_MAX, &deliver) ||
        !cli_number(cli, OPT_QUEUE, CLI_INFLIGHT_MAX, &queue))
        return false;
    if (queue && (cli->option[OPT_START] || wait || deliver || cli->option[OPT_BACKOFF] ||
                  cli->option[OPT_DEAD_LETTER])) {
        cli_error(
            "a queue itself says when items are sent again and given up: `xylem node config NODE` shows it");
        return false;
    }
    if (cli->option[OPT_REPLAY] && (queue || !cli->option[OPT_DURABLE])) {
        cli_error("--replay is for durable subscriptions: give --durable=NAME");
        return false;
    }
    w->replay = cli->option[OPT_REPLAY];
    w->subscribing = cli->argument_count;
    o->durable = cli->option[OPT_DURABLE] && !queue;
    o->manual_ack = true;
    o->start = cli->option[OPT_START];
    o->max_inflight = (uint32_t)inflight;
    o->ack_wait_s = (uint32_t)wait;
    o->max_deliver = (uint32_t)deliver;
    o->backoff = cli->option[OPT_BACKOFF];
    o->dead_letter = cli->option[OPT_DEAD_LETTER];
    o->queue_requests = (uint32_t)queue;
    o->temporary = !cli->option[OPT_DURABLE]; /* a consumer without a name of its own */
    o->on_message = on_message;
    o->on_subscribed = on_subscribed;
    o->ctx = w;
    return true;
}

static bool subscribe(struct cli *cli, const struct xylem_sub_options *o, struct watching *w)
{
    for (int i = 0; i < cli->argument_count; i++) {
        if (xylem_subscribe(cli->client, cli->argument[i], o, &w->subs[i]) != XYLEM_OK) {
            cli_error("%s", xylem_client_error(cli->client));
            return false;
        }
    }
    return true;
}

int cli_sub(struct cli *cli)
{
    struct watching w = { .cli = cli };
    uint64_t timeout_s = 0;
    struct xylem_sub_options o = XYLEM_SUB_OPTIONS;
    bool keeps = cli->option[OPT_DURABLE] != NULL;
    if (!cli_number(cli, OPT_COUNT, UINT64_MAX, &w.wanted) ||
        !cli_number(cli, OPT_TIMEOUT, 1u << 30, &timeout_s))
        return CLI_USAGE;
    if (cli->option[OPT_FORGET])
        return forget(cli);
    if (!read_options(cli, &w, &o))
        return CLI_USAGE;
    int status =
        cli_client(cli, keeps ? durable_name(cli) : NULL, XYLEM_RETRY_ONCE_ONLINE, cli->option[OPT_STATE]);
    if (status != CLI_DONE)
        return status;
    if (!subscribe(cli, &o, &w))
        return CLI_USAGE;
    xylem_client_start(cli->client);
    status = watch(&w, timeout_s);
    for (int i = 0; i < cli->argument_count && !keeps && !cli->over; i++)
        xylem_sub_cancel(&w.subs[i], true, NULL, NULL);
    cli_close(cli); /* while `w` stands: items may still come */
    manual_free(&w.manual);
    return status;
}
