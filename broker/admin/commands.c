/* Ad-hoc commands (XEP-0050): one protocol for all of them, driven by tables.
 *
 * A command without a form completes at once. One with a form answers `execute` with the form and a session id, and
 * `complete` (or `execute` again) with the result. Nothing is remembered between the two steps: every step carries all
 * it needs and is authorised by itself, so a guessed session id is worth nothing; the id is random all the same. */
#include "broker/admin/admin_internal.h"

static const struct command *const groups[] = { admin_stats_commands, admin_backup_commands,
                                                admin_user_commands };

static const struct command *command_find(struct xy_str node)
{
    for (size_t i = 0; i < sizeof(groups) / sizeof(*groups); i++)
        for (const struct command *c = groups[i]; c->node; c++)
            if (xy_str_is(node, c->node))
                return c;
    return NULL;
}

static struct xy_elem *request_child(const struct request *request)
{
    return xy_elem_first(request->stanza.elem);
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static struct xy_elem *answer_new(struct shard *shard, struct request *request, const char *status,
                                  struct xy_elem **command)
{
    struct xy_arena *arena = request->stanza.arena;
    struct xy_elem *asked = request_child(request);
    struct xy_elem *result = module_result(request, "command", NS_COMMANDS, command);
    struct xy_str session = xy_elem_attr(asked, "sessionid");
    if (session.len == 0) {
        char id[XY_ID_LEN + 1];
        xy_random_id(shard->env, id);
        session = xy_arena_str(arena, xy_str_n(id, XY_ID_LEN));
    }
    xy_elem_set(arena, *command, "node", xy_elem_attr(asked, "node"));
    xy_elem_set(arena, *command, "sessionid", session);
    xy_elem_set(arena, *command, "status", xy_str(status));
    return result;
}

struct xy_elem *command_completed(struct shard *shard, struct request *request, struct xy_elem *form,
                                  const char *note)
{
    struct xy_arena *arena = request->stanza.arena;
    struct xy_elem *command;
    struct xy_elem *result = answer_new(shard, request, "completed", &command);
    if (form)
        xy_elem_append(command, form);
    if (note) {
        struct xy_elem *e = xy_elem_add(arena, command, "note", NS_COMMANDS);
        xy_elem_set(arena, e, "type", XY_STR("info"));
        xy_elem_add_text(arena, e, xy_str(note));
    }
    return result;
}

void command_complete(struct shard *shard, struct request **request, struct xy_elem *form, const char *note)
{
    struct xy_elem *result = command_completed(shard, *request, form, note);
    request_reply(shard, request, result, 0);
}

void command_refuse(struct shard *shard, struct request **request, enum xy_condition condition,
                    const char *text)
{
    request_fail_with(shard, request, condition, text);
}

static void refuse_app(struct shard *shard, struct request **request, const char *app, const char *text)
{
    struct xy_error error = xy_error_make(XY_BAD_REQUEST, text);
    error.app = app;
    error.app_ns = NS_COMMANDS;
    request_fail(shard, request, &error);
}

static void ask(struct shard *shard, struct request **request, const struct command *which)
{
    struct xy_arena *arena = (*request)->stanza.arena;
    struct xy_elem *command;
    struct xy_elem *result = answer_new(shard, *request, "executing", &command);
    struct xy_elem *actions = xy_elem_add(arena, command, "actions", NS_COMMANDS);
    xy_elem_set(arena, actions, "execute", XY_STR("complete"));
    xy_elem_add(arena, actions, "complete", NS_COMMANDS);
    struct xy_elem *form = xy_form_new(arena, "form", NS_ADMIN);
    struct xy_elem *title = xy_elem_add(arena, form, "title", NS_DATA_FORM);
    xy_elem_add_text(arena, title, xy_str(which->name));
    for (const struct command_field *f = which->fields; f->var; f++) {
        struct xy_elem *field = xy_form_add(arena, form, xy_str(f->var), f->type, f->label, XY_STR_NONE);
        if (!f->optional)
            xy_elem_add(arena, field, "required", NS_DATA_FORM);
    }
    xy_elem_append(command, form);
    request_reply(shard, request, result, 0);
}

/* --- one step ----------------------------------------------------------------------------------------------------- */

static bool complete_enough(const struct command *which, const struct xy_form *form)
{
    for (const struct command_field *f = which->fields; f && f->var; f++)
        if (!f->optional && xy_form_value(form, f->var).len == 0)
            return false;
    return true;
}

static void submitted(struct shard *shard, struct request **request, const struct command *which,
                      struct xy_elem *x)
{
    struct xy_form form;
    if (!which->fields && !x)
        which->run(shard, request, NULL);
    else if (!xy_form_read((*request)->stanza.arena, x, &form) || !xy_str_is(form.type, "submit"))
        refuse_app(shard, request, "bad-payload", "a submitted data form is expected");
    else if (xy_str_present(form.form_type) && !xy_str_is(form.form_type, NS_ADMIN))
        refuse_app(shard, request, "bad-payload", "the form is of another FORM_TYPE");
    else if (!complete_enough(which, &form))
        refuse_app(shard, request, "bad-payload", "a required field is missing");
    else
        which->run(shard, request, &form);
}

static void canceled(struct shard *shard, struct request **request)
{
    struct xy_elem *command;
    struct xy_elem *result = answer_new(shard, *request, "canceled", &command);
    request_reply(shard, request, result, 0);
}

static void on_command(struct shard *shard, struct request **request)
{
    struct xy_elem *asked = request_child(*request);
    struct xy_str action = xy_elem_attr(asked, "action");
    const struct command *which = command_find(xy_elem_attr(asked, "node"));
    struct xy_elem *x = xy_elem_child(asked, "x", NS_DATA_FORM);
    if (!router_is_admin(shard, (*request)->stanza.from))
        request_fail_with(shard, request, XY_FORBIDDEN, "commands of the broker are for its administrators");
    else if (!which)
        request_fail_with(shard, request, XY_ITEM_NOT_FOUND, "there is no such command");
    else if (xy_str_is(action, "cancel"))
        canceled(shard, request);
    else if (xy_str_is(action, "prev") || xy_str_is(action, "next"))
        refuse_app(shard, request, "bad-action", "the command has one step: execute or complete it");
    else if (action.len && !xy_str_is(action, "execute") && !xy_str_is(action, "complete"))
        refuse_app(shard, request, "malformed-action", "no such action");
    else if (x || !which->fields)
        submitted(shard, request, which, x);
    else if (xy_str_is(action, "complete"))
        refuse_app(shard, request, "bad-payload", "a submitted data form is expected");
    else
        ask(shard, request, which);
}

/* --- disco -------------------------------------------------------------------------------------------------------- */

static struct xy_elem *query_result(struct request *request, const char *ns, struct xy_elem **query)
{
    struct xy_elem *result = module_result(request, "query", ns, query);
    xy_elem_set(request->stanza.arena, *query, "node", xy_elem_attr(request_child(request), "node"));
    return result;
}

static bool disco_info(struct shard *shard, struct request **request)
{
    struct xy_str node = xy_elem_attr(request_child(*request), "node");
    const struct command *which = command_find(node);
    bool list = xy_str_is(node, NS_COMMANDS);
    if (!list && (!which || !router_is_admin(shard, (*request)->stanza.from)))
        return false;
    struct xy_arena *arena = (*request)->stanza.arena;
    struct xy_elem *query;
    struct xy_elem *result = query_result(*request, NS_DISCO_INFO, &query);
    struct xy_elem *identity = xy_elem_add(arena, query, "identity", NS_DISCO_INFO);
    xy_elem_set(arena, identity, "category", XY_STR("automation"));
    xy_elem_set(arena, identity, "type", list ? XY_STR("command-list") : XY_STR("command-node"));
    xy_elem_set(arena, identity, "name", list ? XY_STR("Commands") : xy_str(which->name));
    xy_elem_set(arena, xy_elem_add(arena, query, "feature", NS_DISCO_INFO), "var", XY_STR(NS_COMMANDS));
    if (!list && which->fields)
        xy_elem_set(arena, xy_elem_add(arena, query, "feature", NS_DISCO_INFO), "var", XY_STR(NS_DATA_FORM));
    request_reply(shard, request, result, 0);
    return true;
}

/* XEP-0050 2.2: the list holds what the requester may run, which for others is nothing. */
static bool disco_items(struct shard *shard, struct request **request)
{
    struct xy_str node = xy_elem_attr(request_child(*request), "node");
    bool list = xy_str_is(node, NS_COMMANDS);
    if (!list && !(command_find(node) && router_is_admin(shard, (*request)->stanza.from)))
        return false;
    struct xy_arena *arena = (*request)->stanza.arena;
    struct xy_elem *query;
    struct xy_elem *result = query_result(*request, NS_DISCO_ITEMS, &query);
    bool may = list && router_is_admin(shard, (*request)->stanza.from);
    for (size_t i = 0; may && i < sizeof(groups) / sizeof(*groups); i++) {
        for (const struct command *c = groups[i]; c->node; c++) {
            struct xy_elem *item = xy_elem_add(arena, query, "item", NS_DISCO_ITEMS);
            xy_elem_set(arena, item, "jid", router_domain(shard));
            xy_elem_set(arena, item, "node", xy_str(c->node));
            xy_elem_set(arena, item, "name", xy_str(c->name));
        }
    }
    request_reply(shard, request, result, 0);
    return true;
}

static const char *const features[] = { NS_COMMANDS, NULL };
static const struct module_iq iq[] = {
    { XY_SET, "command", NS_COMMANDS, MODULE_SERVER, on_command, false },
    { XY_TYPE_NONE, NULL, NULL, 0, NULL, false },
};
const struct module module_commands = {
    .name = "commands",
    .features = features,
    .iq = iq,
    .disco_info = disco_info,
    .disco_items = disco_items,
};
