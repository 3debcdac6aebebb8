/* xylem pub: one item from a file or standard input, published when the broker has it on disk, or with --spool kept on this
 * machine's disk until then. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agents/cli/cli.h"
#include "sdk/drivers/system.h"
#include "sdk/src/fragment.h"

#define ITEM_BYTES_MAX (16u << 20)

struct headers {
    struct xylem_header list[CLI_ARGUMENTS_MAX];
    char names[CLI_ARGUMENTS_MAX][128];
    size_t count;
};

struct publishing {
    bool done;
    enum xylem_status status;
};

static bool read_all(const char *name, struct xy_buf *out)
{
    FILE *in = strcmp(name, "-") == 0 ? stdin : fopen(name, "re");
    if (!in) {
        cli_error("%s: %s", name, strerror(errno));
        return false;
    }
    char *room;
    size_t n = 0;
    while (out->len <= ITEM_BYTES_MAX && (room = xy_buf_reserve(out, 65536)) &&
           (n = fread(room, 1, 65536, in)) > 0)
        out->len += n;
    bool ok = !ferror(in) && !xy_buf_failed(out) && out->len <= ITEM_BYTES_MAX;
    if (!ok)
        cli_error("%s: %s", name,
                  out->len > ITEM_BYTES_MAX ? "too big for an item: `xylem send` moves files"
                                            : "cannot be read");
    if (in != stdin)
        fclose(in);
    return ok;
}

static void on_done(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    (void)client;
    struct publishing *p = ctx;
    p->done = true;
    p->status = result->status;
    if (result->status == XYLEM_OK && result->item_id)
        fprintf(stderr, "published as %s\n", result->item_id);
    else if (result->status != XYLEM_OK)
        cli_error("%s", result->text);
}

static enum xylem_payload payload_kind(const char *type, struct xy_str data)
{
    if (type)
        return strcmp(type, "xml") == 0 ? XYLEM_XML : XYLEM_TEXT;
    struct xy_arena *arena = NULL;
    bool xml = xy_fragment_parse(data, &arena) != NULL;
    xy_arena_free(&arena);
    return xml ? XYLEM_XML : XYLEM_TEXT;
}

static void on_created(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    (void)client;
    (void)ctx;
    if (result->status != XYLEM_OK && result->status != XYLEM_CONFLICT)
        cli_error("%s", result->text);
}

/* NAME=VALUE, several. false: one is not, said so. */
static bool read_headers(const struct cli *cli, struct headers *out)
{
    const char *text;
    int at = 0;
    while ((text = cli_each(cli, OPT_HEADER, &at))) {
        const char *equals = strchr(text, '=');
        size_t name_len = equals ? (size_t)(equals - text) : 0;
        if (name_len == 0 || name_len >= sizeof out->names[0]) {
            cli_error("'%s' is not NAME=VALUE", text);
            return false;
        }
        snprintf(out->names[out->count], sizeof out->names[0], "%.*s", (int)name_len, text);
        out->list[out->count].name = out->names[out->count];
        out->list[out->count].value = equals + 1;
        out->count++;
    }
    return true;
}

static int offer(struct cli *cli, const struct xy_buf *data, struct publishing *p)
{
    const char *node = cli->argument[0], *type = cli->option[OPT_TYPE];
    struct headers headers = { .count = 0 };
    struct xylem_item item = {
        .node = node, .id = cli->option[OPT_ID], .data = data->data ? data->data : "", .len = data->len
    };
    if (!read_headers(cli, &headers))
        return CLI_USAGE;
    item.headers = headers.list;
    item.headers_count = headers.count;
    item.payload = payload_kind(type, xy_buf_view(data));
    item.type = item.payload == XYLEM_TEXT ? type : NULL;
    if (cli->option[OPT_CREATE])
        xylem_node_create(cli->client, node, on_created, NULL);
    enum xylem_status status = xylem_publish(cli->client, &item, on_done, p);
    if (status == XYLEM_OK)
        return CLI_DONE;
    cli_error("%s", xylem_client_error(cli->client));
    return status == XYLEM_INVALID ? CLI_USAGE : CLI_FAILED;
}

static int publish(struct cli *cli, const struct xy_buf *data)
{
    struct publishing p = { 0 };
    int status = offer(cli, data, &p);
    if (status != CLI_DONE)
        return status;
    xylem_client_start(cli->client);
    while (!p.done) {
        if (cli_turn(cli, -1) != CLI_DONE) {
            cli_close(cli); /* ends the publish while `p` stands */
            return CLI_FAILED;
        }
    }
    if (p.status == XYLEM_NOT_FOUND)
        cli_error("create the node first: xylem node create %s, or publish with --create", cli->argument[0]);
    return cli_exit_of(p.status);
}

static uint64_t in_spool(const struct cli *cli)
{
    struct xylem_stats stats = { .size = sizeof stats };
    xylem_client_stats(cli->client, &stats);
    return stats.queued;
}

/* The item is safe before anything is sent, so that it is no failure when the broker cannot be reached. */
static int publish_spooled(struct cli *cli, const struct xy_buf *data)
{
    struct publishing p = { 0 };
    uint64_t timeout_s = 0, end_us = UINT64_MAX, left;
    bool sends_only = cli->argument_count == 0;
    if (!cli_number(cli, OPT_TIMEOUT, 1u << 30, &timeout_s))
        return CLI_USAGE;
    int status = sends_only ? CLI_DONE : offer(cli, data, &p);
    if (status != CLI_DONE)
        return status;
    if (timeout_s)
        end_us = xy_now_us(xy_env_system()) + timeout_s * 1000000;
    if (in_spool(cli) > 0)
        xylem_client_start(cli->client);
    while (in_spool(cli) > 0 && xy_now_us(xy_env_system()) < end_us)
        if (cli_turn(cli, timeout_s ? 200 : -1) != CLI_DONE)
            break;
    cli_close(cli);
    left = in_spool(cli);
    if (left > 0)
        cli_error("%llu kept in %s; sent by: xylem pub --spool %s", (unsigned long long)left,
                  cli->option[OPT_SPOOL], cli->option[OPT_SPOOL]);
    if (p.done)
        return cli_exit_of(p.status);
    return sends_only && left > 0 ? CLI_FAILED : CLI_DONE;
}

int cli_pub(struct cli *cli)
{
    struct xy_buf data = { 0 };
    int status = CLI_FAILED;
    const char *spool = cli->option[OPT_SPOOL];
    if (cli->argument_count == 0 && !spool) {
        cli_error("too few arguments: xylem pub NODE [FILE|-]");
        return CLI_USAGE;
    }
    cli->only_asks = true;
    if (cli->argument_count == 0 || read_all(cli->argument_count > 1 ? cli->argument[1] : "-", &data))
        status = cli_client(cli, NULL, XYLEM_RETRY_ONCE_ONLINE, NULL);
    if (cli->client)
        status = spool ? publish_spooled(cli, &data) : publish(cli, &data);
    xy_buf_free(&data);
    return status;
}
