/* xylem pub: one item from a file or standard input, published when the broker has it on disk. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agents/cli/cli.h"
#include "sdk/src/fragment.h"

#define ITEM_BYTES_MAX (16u << 20)

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

static int publish(struct cli *cli, const struct xy_buf *data)
{
    struct publishing p = { 0 };
    const char *node = cli->argument[0], *type = cli->option[OPT_TYPE];
    struct xylem_item item = {
        .node = node, .id = cli->option[OPT_ID], .data = data->data ? data->data : "", .len = data->len
    };
    item.payload = payload_kind(type, xy_buf_view(data));
    item.type = item.payload == XYLEM_TEXT ? type : NULL;
    if (cli->option[OPT_CREATE])
        xylem_node_create(cli->client, node, on_created, NULL);
    enum xylem_status status = xylem_publish(cli->client, &item, on_done, &p);
    if (status != XYLEM_OK) {
        cli_error("%s", xylem_client_error(cli->client));
        return status == XYLEM_INVALID ? CLI_USAGE : CLI_FAILED;
    }
    xylem_client_start(cli->client);
    while (!p.done) {
        if (cli_turn(cli, -1) != CLI_DONE) {
            cli_close(cli); /* ends the publish while `p` stands */
            return CLI_FAILED;
        }
    }
    if (p.status == XYLEM_NOT_FOUND)
        cli_error("create the node first: xylem node create %s, or publish with --create", node);
    return cli_exit_of(p.status);
}

int cli_pub(struct cli *cli)
{
    struct xy_buf data = { 0 };
    int status = CLI_FAILED;
    if (read_all(cli->argument_count > 1 ? cli->argument[1] : "-", &data))
        status = cli_client(cli, NULL, XYLEM_RETRY_ONCE_ONLINE, NULL);
    if (cli->client)
        status = publish(cli, &data);
    xy_buf_free(&data);
    return status;
}
