/* xylem queue move: items from one node to another. Each is published to the target first, under its own id, and deleted from
 * its node when the broker has it there on disk: whatever ends the command in between, nothing is lost, and at worst one
 * item is in both. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/cli/cli.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"

#define PAGE "50"

static enum xylem_status ask(struct cli *cli, bool set, struct xy_buf *payload, struct xy_arena **arena,
                             struct xy_elem **answer)
{
    enum xylem_status status = xy_buf_failed(payload) ? XYLEM_NO_MEMORY
                                                      : cli_ask(cli, xylem_client_service(cli->client), set,
                                                                payload, arena, answer, false);
    xy_buf_free(payload);
    return status;
}

/* As it is, but for the publisher, who is now the one who moves it. */
static enum xylem_status publish(struct cli *cli, const char *node, const struct xy_elem *item)
{
    struct xy_buf payload = { 0 };
    xy_buf_lit(&payload, "<pubsub xmlns='" NS_PUBSUB "'><publish");
    xy_xml_attr(&payload, "node", xy_str(node));
    xy_buf_lit(&payload, "><item");
    xy_xml_attr(&payload, "id", xy_elem_attr(item, "id"));
    xy_buf_char(&payload, '>');
    for (const struct xy_elem *e = xy_elem_first(item); e; e = xy_elem_next(e))
        xy_xml_write(&payload, e, XY_STR(NS_PUBSUB));
    xy_buf_lit(&payload, "</item></publish></pubsub>");
    return ask(cli, true, &payload, NULL, NULL);
}

static enum xylem_status retract(struct cli *cli, const char *node, const struct xy_elem *item)
{
    struct xy_buf payload = { 0 };
    xy_buf_lit(&payload, "<pubsub xmlns='" NS_PUBSUB "'><retract");
    xy_xml_attr(&payload, "node", xy_str(node));
    xy_buf_lit(&payload, "><item");
    xy_xml_attr(&payload, "id", xy_elem_attr(item, "id"));
    xy_buf_lit(&payload, "/></retract></pubsub>");
    return ask(cli, true, &payload, NULL, NULL);
}

static enum xylem_status move_one(struct cli *cli, const struct xy_elem *item)
{
    const char *from = cli->argument[0], *to = cli->argument[1];
    enum xylem_status status = publish(cli, to, item);
    if (status == XYLEM_CONFLICT)
        cli_error("'%s' has an item '%.*s' already, or is full: retract one of the two, or make room", to,
                  XY_ARG(xy_elem_attr(item, "id")));
    if (status != XYLEM_OK)
        return status;
    status = retract(cli, from, item);
    if (status != XYLEM_OK)
        cli_error("item '%.*s' is in '%s' now, and still in '%s'", XY_ARG(xy_elem_attr(item, "id")), to,
                  from);
    return status;
}

/* The oldest items; what was moved is gone, so each page is the first. false: that was all, or it failed. */
static bool move_page(struct cli *cli, uint64_t max, uint64_t *moved, enum xylem_status *status)
{
    struct xy_buf payload = { 0 };
    struct xy_arena *arena;
    struct xy_elem *answer;
    uint64_t before = *moved;
    xy_buf_lit(&payload, "<pubsub xmlns='" NS_PUBSUB "'><items");
    xy_xml_attr(&payload, "node", xy_str(cli->argument[0]));
    xy_buf_lit(&payload, "/><set xmlns='" NS_RSM "'><max>" PAGE "</max></set></pubsub>");
    *status = ask(cli, false, &payload, &arena, &answer);
    const struct xy_elem *e = answer ? xy_elem_child(answer, "pubsub", NS_PUBSUB) : NULL;
    e = e ? xy_elem_child(e, "items", NS_PUBSUB) : NULL;
    for (e = e ? xy_elem_first(e) : NULL; e && *status == XYLEM_OK && *moved < max; e = xy_elem_next(e)) {
        *status = move_one(cli, e);
        *moved += *status == XYLEM_OK ? 1 : 0;
    }
    xy_arena_free(&arena);
    return *status == XYLEM_OK && *moved > before && *moved < max;
}

int cli_queue_move(struct cli *cli)
{
    uint64_t max = UINT64_MAX, moved = 0;
    enum xylem_status answer = XYLEM_OK;
    if (!cli_number(cli, OPT_COUNT, UINT64_MAX, &max))
        return CLI_USAGE;
    if (strcmp(cli->argument[0], cli->argument[1]) == 0) {
        cli_error("'%s' is where the items are already", cli->argument[0]);
        return CLI_USAGE;
    }
    int status = cli_connect(cli, NULL);
    if (status != CLI_DONE)
        return status;
    while (move_page(cli, max, &moved, &answer))
        continue;
    printf("%llu\n", (unsigned long long)moved);
    return cli_exit_of(answer);
}
