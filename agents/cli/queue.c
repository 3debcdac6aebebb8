/* xylem queue: how queues and at-least-once subscriptions stand, and what an owner can do about it. Every figure the service
 * tells is shown under its own name (docs/protocol.md, subscription-state and queue-state), so that new ones need nothing
 * here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/cli/cli.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/src/view.h"

#define PAGE         "200"
#define PEEK_DEFAULT 20u
#define PEEK_MAX     1000000u
#define QUEUES_PAGE  "500"

static const char *const states[] = { "queue-state", "subscription-state" };

/* --- asking ------------------------------------------------------------------------------------------------------- */

static void write_rsm(struct xy_buf *out, const struct xy_buf *after, const char *max)
{
    xy_buf_printf(out, "<set xmlns='" NS_RSM "'><max>%s</max>", max);
    if (after->len > 0) {
        xy_buf_lit(out, "<after>");
        xy_xml_escape(out, xy_buf_view(after));
        xy_buf_lit(out, "</after>");
    }
    xy_buf_lit(out, "</set>");
}

/* Where the next page begins replaces *after; false: that was the last one. */
static bool next_page(struct xy_arena *arena, const struct xy_elem *e, struct xy_buf *after)
{
    const struct xy_elem *set = xy_elem_child(e, "set", NS_RSM);
    struct xy_str last = set ? xy_elem_child_text(set, "last", arena) : XY_STR_NONE;
    bool more = last.len > 0 && !xy_str_eq(last, xy_buf_view(after));
    xy_buf_reset(after);
    xy_buf_str(after, last);
    return more;
}

/* One page of `name`; *state is inside *arena. */
static enum xylem_status ask_state(struct cli *cli, const char *name, const char *node,
                                   const struct xy_buf *after, bool quiet, struct xy_arena **arena,
                                   const struct xy_elem **state)
{
    struct xy_buf payload = { 0 };
    struct xy_elem *answer;
    xy_buf_printf(&payload, "<%s xmlns='" NS_XYLEM_DELIVERY "'", name);
    xy_xml_attr(&payload, "node", xy_str(node));
    xy_buf_char(&payload, '>');
    write_rsm(&payload, after, PAGE);
    xy_buf_printf(&payload, "</%s>", name);
    enum xylem_status status =
        cli_ask(cli, xylem_client_service(cli->client), false, &payload, arena, &answer, quiet);
    xy_buf_free(&payload);
    *state = answer ? xy_elem_child(answer, name, NS_XYLEM_DELIVERY) : NULL;
    if (status == XYLEM_OK && !*state) {
        cli_error("the service answered without figures");
        status = XYLEM_REFUSED;
    }
    return status;
}

/* --- showing ------------------------------------------------------------------------------------------------------ */

/* Names stay strings, whatever they look like: a subid or a node may be all digits. */
static bool is_name(struct xy_str attribute)
{
    static const char *const names[] = { "node", "epoch", "jid", "subid", "session" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (xy_str_is(attribute, names[i]))
            return true;
    return false;
}

static void write_json_attrs(struct xy_buf *out, const struct xy_elem *e)
{
    const char *comma = "";
    for (const struct xy_attr *a = e->attrs; a; a = a->next) {
        xy_buf_str(out, xy_str(comma));
        cli_json_string(out, a->name);
        xy_buf_char(out, ':');
        if (is_name(a->name))
            cli_json_string(out, a->value);
        else
            cli_json_value(out, a->value);
        comma = ",";
    }
}

static bool is_row(const struct xy_elem *e)
{
    return xy_str_is(e->ns, NS_XYLEM_DELIVERY);
}

/* "consumer" or "subscription" and so on: whose figures these are. */
static void write_json(struct xy_buf *out, const struct xy_elem *state, bool first_page)
{
    if (first_page) {
        xy_buf_char(out, '{');
        write_json_attrs(out, state);
        xy_buf_str(out,
                   xy_str(xy_str_is(state->name, states[0]) ? ",\"consumer\":[" : ",\"subscription\":["));
    }
    for (const struct xy_elem *e = xy_elem_first(state); e; e = xy_elem_next(e)) {
        if (!is_row(e))
            continue;
        if (out->len > 0 && out->data[out->len - 1] == '}')
            xy_buf_char(out, ',');
        xy_buf_char(out, '{');
        write_json_attrs(out, e);
        xy_buf_char(out, '}');
    }
}

static void write_text(struct xy_buf *out, const struct xy_elem *state, bool first_page)
{
    for (const struct xy_attr *a = first_page ? state->attrs : NULL; a; a = a->next)
        xy_buf_printf(out, "%-24.*s%.*s\n", XY_ARG(a->name), XY_ARG(a->value));
    for (const struct xy_elem *e = xy_elem_first(state); e; e = xy_elem_next(e)) {
        if (!is_row(e))
            continue;
        xy_buf_printf(out, "%.*s", XY_ARG(e->name));
        for (const struct xy_attr *a = e->attrs; a; a = a->next)
            xy_buf_printf(out, " %.*s=%.*s", XY_ARG(a->name), XY_ARG(a->value));
        xy_buf_char(out, '\n');
    }
}

/* All pages of one kind of state. */
static enum xylem_status show_state(struct cli *cli, const char *name, const char *node, bool quiet)
{
    struct xy_buf after = { 0 }, out = { 0 };
    bool json = cli->option[OPT_JSON] != NULL, more = true, first = true;
    enum xylem_status status = XYLEM_OK;
    while (more && status == XYLEM_OK) {
        struct xy_arena *arena;
        const struct xy_elem *state;
        status = ask_state(cli, name, node, &after, quiet, &arena, &state);
        more = state && next_page(arena, state, &after);
        if (status == XYLEM_OK && json)
            write_json(&out, state, first);
        else if (status == XYLEM_OK)
            write_text(&out, state, first);
        first = false;
        xy_arena_free(&arena);
    }
    if (status == XYLEM_OK && json)
        xy_buf_lit(&out, "]}\n");
    if (status == XYLEM_OK)
        fwrite(out.data, 1, out.len, stdout);
    xy_buf_free(&out);
    xy_buf_free(&after);
    return status;
}

/* A queue has consumers; any other node has subscriptions, and whoever may not see them all may see his own. */
static enum xylem_status show_node(struct cli *cli, const char *node)
{
    char why[512];
    enum xylem_status status = show_state(cli, states[0], node, true);
    if (status == XYLEM_OK || status == XYLEM_NOT_FOUND)
        return status;
    snprintf(why, sizeof why, "%s", xylem_client_error(cli->client));
    enum xylem_status other = show_state(cli, states[1], node, true);
    if (other == XYLEM_OK)
        return other;
    cli_error("%s", status == XYLEM_FORBIDDEN ? why : xylem_client_error(cli->client));
    return status == XYLEM_FORBIDDEN ? status : other;
}

int cli_queue_info(struct cli *cli)
{
    int status = cli_connect(cli, NULL);
    if (status != CLI_DONE)
        return status;
    enum xylem_status answer = show_node(cli, cli->argument[0]);
    if (answer == XYLEM_NOT_FOUND)
        cli_error("there is no node '%s'; `xylem node list` shows them", cli->argument[0]);
    return cli_exit_of(answer);
}

/* --- list --------------------------------------------------------------------------------------------------------- */

/* One that is gone since it was listed is passed over. */
static void list_queue(struct cli *cli, const char *node)
{
    struct xy_buf none = { 0 }, out = { 0 };
    struct xy_arena *arena;
    const struct xy_elem *state;
    if (ask_state(cli, states[0], node, &none, true, &arena, &state) == XYLEM_OK) {
        if (cli->option[OPT_JSON]) {
            xy_buf_char(&out, '{');
            write_json_attrs(&out, state);
            xy_buf_lit(&out, "}\n");
        } else {
            xy_buf_str(&out, xy_str(node));
            for (const struct xy_attr *a = state->attrs; a; a = a->next)
                if (!xy_str_is(a->name, "node"))
                    xy_buf_printf(&out, " %.*s=%.*s", XY_ARG(a->name), XY_ARG(a->value));
            xy_buf_char(&out, '\n');
        }
        fwrite(out.data, 1, out.len, stdout);
    }
    xy_arena_free(&arena);
    xy_buf_free(&out);
}

static bool list_page(struct cli *cli, struct xy_buf *after, enum xylem_status *status)
{
    struct xy_buf payload = { 0 };
    struct xy_arena *arena;
    struct xy_elem *answer;
    xy_buf_lit(&payload, "<queues xmlns='" NS_XYLEM_DELIVERY "'>");
    write_rsm(&payload, after, QUEUES_PAGE);
    xy_buf_lit(&payload, "</queues>");
    *status = cli_ask(cli, xylem_client_service(cli->client), false, &payload, &arena, &answer, false);
    xy_buf_free(&payload);
    const struct xy_elem *queues = answer ? xy_elem_child(answer, "queues", NS_XYLEM_DELIVERY) : NULL;
    for (const struct xy_elem *e = queues ? xy_elem_first(queues) : NULL; e && !cli->over;
         e = xy_elem_next(e)) {
        struct xy_str node = xy_elem_attr(e, "node");
        if (xy_elem_is(e, "queue", NS_XYLEM_DELIVERY) && node.len > 0)
            list_queue(cli, xy_arena_str(arena, node).data);
    }
    bool more = queues && *status == XYLEM_OK && next_page(arena, queues, after);
    xy_arena_free(&arena);
    return more;
}

int cli_queue_list(struct cli *cli)
{
    struct xy_buf after = { 0 };
    enum xylem_status answer = XYLEM_OK;
    int status = cli_connect(cli, NULL);
    while (status == CLI_DONE && list_page(cli, &after, &answer) && !cli->over)
        continue;
    xy_buf_free(&after);
    return status != CLI_DONE ? status : cli_exit_of(answer);
}

/* --- peek --------------------------------------------------------------------------------------------------------- */

static bool peek_page(struct cli *cli, struct xy_buf *after, uint64_t *left, enum xylem_status *status)
{
    struct xy_buf payload = { 0 };
    struct xy_arena *arena;
    struct xy_elem *answer;
    xy_buf_lit(&payload, "<pubsub xmlns='" NS_PUBSUB "'><items");
    xy_xml_attr(&payload, "node", xy_str(cli->argument[0]));
    xy_buf_lit(&payload, "/>");
    write_rsm(&payload, after, PAGE);
    xy_buf_lit(&payload, "</pubsub>");
    *status = cli_ask(cli, xylem_client_service(cli->client), false, &payload, &arena, &answer, false);
    xy_buf_free(&payload);
    const struct xy_elem *pubsub = answer ? xy_elem_child(answer, "pubsub", NS_PUBSUB) : NULL;
    const struct xy_elem *items = pubsub ? xy_elem_child(pubsub, "items", NS_PUBSUB) : NULL;
    struct cli_print how = { .json = cli->option[OPT_JSON] != NULL };
    for (const struct xy_elem *e = items ? xy_elem_first(items) : NULL; e && *left > 0; e = xy_elem_next(e)) {
        struct xylem_msg_view view = { .event = XYLEM_EVENT_ITEM, .node = cli->argument[0] };
        xy_view_item(arena, e, &view);
        how.item = e;
        how.arena = arena;
        cli_print_message(&view, &how);
        --*left;
    }
    bool more = pubsub && *left > 0 && next_page(arena, pubsub, after);
    xy_arena_free(&arena);
    return more;
}

int cli_queue_peek(struct cli *cli)
{
    struct xy_buf after = { 0 };
    uint64_t left = PEEK_DEFAULT;
    enum xylem_status answer = XYLEM_OK;
    if (!cli_number(cli, OPT_COUNT, PEEK_MAX, &left))
        return CLI_USAGE;
    int status = cli_connect(cli, NULL);
    while (status == CLI_DONE && peek_page(cli, &after, &left, &answer))
        continue;
    xy_buf_free(&after);
    return status != CLI_DONE ? status : cli_exit_of(answer);
}

/* --- tidying up --------------------------------------------------------------------------------------------------- */

int cli_queue_purge(struct cli *cli)
{
    struct xy_buf payload = { 0 };
    xy_buf_lit(&payload, "<pubsub xmlns='" NS_PUBSUB_OWNER "'><purge");
    xy_xml_attr(&payload, "node", xy_str(cli->argument[0]));
    xy_buf_lit(&payload, "/></pubsub>");
    int status = cli_connect(cli, NULL);
    if (status == CLI_DONE)
        status =
            cli_exit_of(cli_ask(cli, xylem_client_service(cli->client), true, &payload, NULL, NULL, false));
    xy_buf_free(&payload);
    return status;
}

/* <move/> or <redrive/>, and how many items it were. */
static int drive(struct cli *cli, const char *name, const char *to)
{
    struct xy_buf payload = { 0 };
    struct xy_arena *arena = NULL;
    struct xy_elem *answer = NULL;
    uint64_t max = 0;
    if (!cli_number(cli, OPT_COUNT, UINT64_MAX, &max))
        return CLI_USAGE;
    xy_buf_printf(&payload, "<%s xmlns='" NS_XYLEM_DELIVERY "'", name);
    xy_xml_attr(&payload, "node", xy_str(cli->argument[0]));
    xy_xml_attr(&payload, "to", to ? xy_str(to) : XY_STR_NONE);
    if (max)
        xy_buf_printf(&payload, " max='%llu'", (unsigned long long)max);
    xy_buf_lit(&payload, "/>");
    int status = cli_connect(cli, NULL);
    if (status == CLI_DONE)
        status = cli_exit_of(
            cli_ask(cli, xylem_client_service(cli->client), true, &payload, &arena, &answer, false));
    const struct xy_elem *e = answer ? xy_elem_child(answer, name, NS_XYLEM_DELIVERY) : NULL;
    struct xy_str count = e ? xy_elem_attr(e, "count") : XY_STR_NONE;
    if (status == CLI_DONE)
        printf("%.*s\n", XY_ARG(count.len ? count : XY_STR("0")));
    xy_arena_free(&arena);
    xy_buf_free(&payload);
    return status;
}

int cli_queue_move(struct cli *cli)
{
    return drive(cli, "move", cli->argument[1]);
}

int cli_queue_redrive(struct cli *cli)
{
    return drive(cli, "redrive", NULL);
}
