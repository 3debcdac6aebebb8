/* xylem node: create, delete, list, describe and configure nodes (XEP-0060, XEP-0030). */
#include <stdio.h>
#include <string.h>

#include "agents/cli/cli.h"
#include "agents/cli/form.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"

#define LIST_PAGE "500"

/* NAME=VALUE; a name in Clark notation may hold '=' only after its brace. */
static bool write_setting(struct xy_buf *out, const char *text)
{
    const char *from = text[0] == '{' ? strchr(text, '}') : text;
    const char *equals = from ? strchr(from, '=') : NULL;
    if (!equals || equals == text) {
        cli_error("'%s' is not NAME=VALUE", text);
        return false;
    }
    cli_form_field(out, xy_str_n(text, (size_t)(equals - text)), xy_str(equals + 1));
    return true;
}

static int ask_service(struct cli *cli, bool set, struct xy_buf *payload)
{
    int status = cli_connect(cli, NULL);
    if (status == CLI_DONE)
        status =
            cli_exit_of(cli_ask(cli, xylem_client_service(cli->client), set, payload, NULL, NULL, false));
    xy_buf_free(payload);
    return status;
}

int cli_node_create(struct cli *cli)
{
    struct xy_buf payload = { 0 };
    xy_buf_lit(&payload, "<pubsub xmlns='" NS_PUBSUB "'><create");
    xy_xml_attr(&payload, "node", xy_str(cli->argument[0]));
    xy_buf_lit(&payload, "/>");
    if (cli->option[OPT_SET]) {
        xy_buf_lit(&payload, "<configure>");
        cli_form_begin(&payload, NS_PUBSUB_NODE_CONFIG);
        const char *setting;
        int at = 0;
        while ((setting = cli_each(cli, OPT_SET, &at))) {
            if (!write_setting(&payload, setting)) {
                xy_buf_free(&payload);
                return CLI_USAGE;
            }
        }
        cli_form_end(&payload);
        xy_buf_lit(&payload, "</configure>");
    }
    xy_buf_lit(&payload, "</pubsub>");
    return ask_service(cli, true, &payload);
}

int cli_node_delete(struct cli *cli)
{
    struct xy_buf payload = { 0 };
    xy_buf_lit(&payload, "<pubsub xmlns='" NS_PUBSUB_OWNER "'><delete");
    xy_xml_attr(&payload, "node", xy_str(cli->argument[0]));
    xy_buf_lit(&payload, "/></pubsub>");
    return ask_service(cli, true, &payload);
}

static void print_item(const struct xy_elem *item, bool json)
{
    struct xy_buf out = { 0 };
    struct xy_str node = xy_elem_attr(item, "node");
    if (json) {
        xy_buf_lit(&out, "{\"node\":");
        cli_json_string(&out, node);
        xy_buf_lit(&out, "}");
    } else {
        xy_buf_str(&out, node);
    }
    printf("%.*s\n", (int)out.len, out.data ? out.data : "");
    xy_buf_free(&out);
}

/* One page (XEP-0059); `after` is the last of the former page, replaced by the last of this one. false: no more. */
static bool list_page(struct cli *cli, struct xy_buf *after, int *status)
{
    struct xy_buf payload = { 0 };
    xy_buf_lit(&payload,
               "<query xmlns='" NS_DISCO_ITEMS "'><set xmlns='" NS_RSM "'><max>" LIST_PAGE "</max>");
    if (after->len > 0) {
        xy_buf_lit(&payload, "<after>");
        xy_xml_escape(&payload, xy_buf_view(after));
        xy_buf_lit(&payload, "</after>");
    }
    xy_buf_lit(&payload, "</set></query>");
    struct xy_arena *arena;
    struct xy_elem *answer;
    *status =
        cli_exit_of(cli_ask(cli, xylem_client_service(cli->client), false, &payload, &arena, &answer, false));
    xy_buf_free(&payload);
    const struct xy_elem *query = answer ? xy_elem_child(answer, "query", NS_DISCO_ITEMS) : NULL;
    size_t count = 0;
    for (const struct xy_elem *e = query ? xy_elem_first(query) : NULL; e; e = xy_elem_next(e))
        if (xy_elem_is(e, "item", NS_DISCO_ITEMS)) {
            print_item(e, cli->option[OPT_JSON] != NULL);
            count++;
        }
    const struct xy_elem *set = query ? xy_elem_child(query, "set", NS_RSM) : NULL;
    struct xy_str last = set ? xy_elem_child_text(set, "last", arena) : XY_STR_NONE;
    bool more = *status == CLI_DONE && count > 0 && last.len > 0 && !xy_str_eq(last, xy_buf_view(after));
    xy_buf_reset(after);
    xy_buf_str(after, last);
    xy_arena_free(&arena);
    return more;
}

int cli_node_list(struct cli *cli)
{
    struct xy_buf after = { 0 };
    int status = cli_connect(cli, NULL);
    if (status == CLI_DONE)
        while (list_page(cli, &after, &status))
            continue;
    xy_buf_free(&after);
    return status;
}

int cli_node_info(struct cli *cli)
{
    int status = cli_connect(cli, NULL);
    if (status != CLI_DONE)
        return status;
    struct xy_buf payload = { 0 };
    xy_buf_lit(&payload, "<query xmlns='" NS_DISCO_INFO "'");
    xy_xml_attr(&payload, "node", xy_str(cli->argument[0]));
    xy_buf_lit(&payload, "/>");
    struct xy_arena *arena;
    struct xy_elem *answer;
    struct xy_form form;
    status =
        cli_exit_of(cli_ask(cli, xylem_client_service(cli->client), false, &payload, &arena, &answer, false));
    xy_buf_free(&payload);
    if (status == CLI_DONE && cli_form_find(arena, answer, &form))
        cli_form_print(&form, cli->option[OPT_JSON] != NULL);
    else if (status == CLI_DONE)
        printf("node %s\n", cli->argument[0]);
    xy_arena_free(&arena);
    return status;
}

static int show_config(struct cli *cli)
{
    struct xy_buf payload = { 0 };
    xy_buf_lit(&payload, "<pubsub xmlns='" NS_PUBSUB_OWNER "'><configure");
    xy_xml_attr(&payload, "node", xy_str(cli->argument[0]));
    xy_buf_lit(&payload, "/></pubsub>");
    struct xy_arena *arena;
    struct xy_elem *answer;
    struct xy_form form;
    int status =
        cli_exit_of(cli_ask(cli, xylem_client_service(cli->client), false, &payload, &arena, &answer, false));
    xy_buf_free(&payload);
    if (status == CLI_DONE && cli_form_find(arena, answer, &form))
        cli_form_print(&form, cli->option[OPT_JSON] != NULL);
    xy_arena_free(&arena);
    return status;
}

int cli_node_config(struct cli *cli)
{
    struct xy_buf payload = { 0 };
    xy_buf_lit(&payload, "<pubsub xmlns='" NS_PUBSUB_OWNER "'><configure");
    xy_xml_attr(&payload, "node", xy_str(cli->argument[0]));
    xy_buf_char(&payload, '>');
    cli_form_begin(&payload, NS_PUBSUB_NODE_CONFIG);
    bool good = true;
    for (int i = 1; good && i < cli->argument_count; i++)
        good = write_setting(&payload, cli->argument[i]);
    cli_form_end(&payload);
    xy_buf_lit(&payload, "</configure></pubsub>");
    int status = good ? CLI_DONE : CLI_USAGE;
    if (good && cli->argument_count > 1) {
        status = ask_service(cli, true, &payload);
    } else if (good) {
        status = cli_connect(cli, NULL);
        if (status == CLI_DONE)
            status = show_config(cli);
    }
    xy_buf_free(&payload);
    return status;
}
