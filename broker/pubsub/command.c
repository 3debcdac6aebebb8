/* A command is another way to say a request of urn:xylem:delivery:0 or XEP-0060: its form becomes that request, and the answer
 * to it becomes a form. So who may do it, on which shard and in which steps, is decided in one place for both. Nothing is
 * remembered between the steps of a command: each carries all it needs and is authorised by itself. See command.h. */
#include "broker/pubsub/command.h"

#include "core/base/assert.h"
#include "core/dataform.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"

#define FORM_TYPE "urn:xylem:queue:0"

/* OF_PAGE: optional, and an element of the request's <set/> (XEP-0059) instead of an attribute. */
enum field_kind { REQUIRED, OPTIONAL, OF_PAGE };

struct field {
    const char *var, *label;
    enum field_kind kind;
};

static const struct command {
    const char *node, *name;
    enum xy_stanza_type type;
    const char *request, *ns; /* an element of this name, its attributes being the fields … */
    bool inside_pubsub;       /* … inside <pubsub/> of the same namespace, its <set/> beside it */
    const char *page;         /* so many rows unless the form says; NULL: as the request does */
    struct field fields[4];   /* ended by var NULL */
} commands[] = {
    { "urn:xylem:queue:list",
      "The queues that are yours to look after",
      XY_GET,
      "queues",
      NS_XYLEM_DELIVERY,
      false,
      "1000",
      { { "max", "At most so many rows", OF_PAGE }, { "after", "`last` of the page before", OF_PAGE } } },
    { "urn:xylem:queue:info",
      "How a queue and its consumers stand",
      XY_GET,
      "queue-state",
      NS_XYLEM_DELIVERY,
      false,
      NULL,
      { { "node", "Queue", REQUIRED },
        { "max", "At most so many rows", OF_PAGE },
        { "after", "`last` of the page before", OF_PAGE } } },
    { "urn:xylem:subscription:info",
      "How the subscriptions of a node stand",
      XY_GET,
      "subscription-state",
      NS_XYLEM_DELIVERY,
      false,
      NULL,
      { { "node", "Node", REQUIRED },
        { "max", "At most so many rows", OF_PAGE },
        { "after", "`last` of the page before", OF_PAGE } } },
    { "urn:xylem:queue:redrive",
      "Make parked items ready again",
      XY_SET,
      "redrive",
      NS_XYLEM_DELIVERY,
      false,
      NULL,
      { { "node", "Queue", REQUIRED }, { "max", "At most so many items", OPTIONAL } } },
    { "urn:xylem:queue:move",
      "Move items to another node",
      XY_SET,
      "move",
      NS_XYLEM_DELIVERY,
      false,
      NULL,
      { { "node", "Node", REQUIRED },
        { "to", "Other node", REQUIRED },
        { "max", "At most so many items", OPTIONAL } } },
    { "urn:xylem:queue:peek",
      "Look at the items of a node, the oldest first",
      XY_GET,
      "items",
      NS_PUBSUB,
      true,
      "20",
      { { "node", "Node", REQUIRED },
        { "max", "At most so many rows", OF_PAGE },
        { "after", "`last` of the page before", OF_PAGE } } },
    { "urn:xylem:queue:purge",
      "Delete all items of a node",
      XY_SET,
      "purge",
      NS_PUBSUB_OWNER,
      true,
      NULL,
      { { "node", "Node", REQUIRED } } },
};
#define COMMANDS (sizeof(commands) / sizeof(*commands))

static const struct command *find(struct xy_str node)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (xy_str_is(node, commands[i].node))
            return &commands[i];
    return NULL;
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static struct xy_elem *answer_new(struct request *request, struct xy_str node, struct xy_str session,
                                  const char *status, struct xy_elem **command)
{
    struct xy_arena *arena = request->stanza.arena;
    struct xy_elem *result = xy_stanza_result(arena, &request->stanza);
    *command = xy_elem_add(arena, result, "command", NS_COMMANDS);
    xy_elem_set(arena, *command, "node", node);
    xy_elem_set(arena, *command, "sessionid", session);
    xy_elem_set(arena, *command, "status", xy_str(status));
    return result;
}

static void add_fields(struct xy_arena *arena, struct xy_elem *x, const struct xy_elem *e)
{
    for (const struct xy_attr *a = e->attrs; a != NULL; a = a->next)
        (void)xy_form_add(arena, x, a->name, "text-single", NULL, a->value);
}

static void add_name(struct xy_arena *arena, struct xy_elem *reported, struct xy_str name)
{
    xy_elem_set(arena, xy_elem_add(arena, reported, "field", NS_DATA_FORM), "var", name);
}

static void add_value(struct xy_arena *arena, struct xy_elem *row, struct xy_str name, struct xy_str value)
{
    struct xy_elem *field = xy_elem_add(arena, row, "field", NS_DATA_FORM);
    xy_elem_set(arena, field, "var", name);
    xy_elem_add_text(arena, xy_elem_add(arena, field, "value", NS_DATA_FORM), value);
}

static struct xy_str content_of(struct xy_arena *arena, const struct xy_elem *item)
{
    struct xy_buf xml = { 0 };
    xy_xml_write_children(&xml, item);
    struct xy_str copy = xy_arena_str(arena, xml.data != NULL ? xy_buf_view(&xml) : XY_STR(""));
    xy_buf_free(&xml);
    return copy;
}

/* One <item/> per consumer, subscription, queue or item (XEP-0004 3.4), its attributes being the fields and of items also
 * what is in them; <reported/> names what the first of them has. */
static void add_rows(struct xy_arena *arena, struct xy_elem *x, const struct xy_elem *list)
{
    bool reported = false, items = xy_str_is(list->ns, NS_PUBSUB);
    for (const struct xy_elem *e = xy_elem_first(list); e != NULL; e = xy_elem_next(e)) {
        if (!xy_str_eq(e->ns, list->ns))
            continue;
        struct xy_elem *names = reported ? NULL : xy_elem_add(arena, x, "reported", NS_DATA_FORM);
        struct xy_elem *row = xy_elem_add(arena, x, "item", NS_DATA_FORM);
        for (const struct xy_attr *a = e->attrs; a != NULL; a = a->next) {
            if (names != NULL)
                add_name(arena, names, a->name);
            add_value(arena, row, a->name, a->value);
        }
        if (items && names != NULL)
            add_name(arena, names, XY_STR("content"));
        if (items)
            add_value(arena, row, XY_STR("content"), content_of(arena, e));
        reported = true;
    }
}

/* Where the next page begins, and how many rows there are on all of them where that is known. */
static void add_page(struct xy_arena *arena, struct xy_elem *x, const struct xy_elem *set)
{
    static const char *const names[] = { "last", "count" };
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        struct xy_str value = xy_elem_child_text(set, names[i], arena);
        if (value.len > 0)
            (void)xy_form_add(arena, x, xy_str(names[i]), "text-single", NULL, value);
    }
}

static void add_form(struct xy_arena *arena, struct xy_elem *command, const struct xy_elem *answer)
{
    bool items = xy_elem_is(answer, "pubsub", NS_PUBSUB);
    const struct xy_elem *list = items ? xy_elem_child(answer, "items", NS_PUBSUB) : answer;
    const struct xy_elem *set = xy_elem_child(answer, "set", NS_RSM);
    struct xy_elem *x = xy_form_new(arena, "result", FORM_TYPE);
    add_fields(arena, x, list);
    if (set != NULL)
        add_page(arena, x, set);
    add_rows(arena, x, list);
    xy_elem_append(command, x);
}

/* What the request answered becomes what the command answers. */
static struct xy_elem *wrap(struct request *request, struct xy_elem *result)
{
    struct xy_arena *arena = request->stanza.arena;
    const struct xy_elem *told = xy_elem_first(result);
    struct xy_str session = xy_elem_attr(request->wrapped, "sessionid");
    struct xy_elem *command;
    struct xy_elem *answer =
        answer_new(request, xy_elem_attr(request->wrapped, "node"), session, "completed", &command);
    if (told != NULL && (xy_str_is(told->ns, NS_XYLEM_DELIVERY) || xy_str_is(told->ns, NS_PUBSUB))) {
        add_form(arena, command, told);
    } else {
        struct xy_elem *note = xy_elem_add(arena, command, "note", NS_COMMANDS);
        xy_elem_set(arena, note, "type", XY_STR("info"));
        xy_elem_add_text(arena, note, XY_STR("done"));
    }
    if (!xy_arena_failed(arena))
        return answer;
    struct xy_error error = xy_error_make(XY_RESOURCE_CONSTRAINT, "memory is short");
    return xy_error_reply(arena, &request->stanza, &error);
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

static bool refuse(struct shard *shard, struct request **request, enum xy_condition condition,
                   const char *app, const char *text)
{
    struct xy_error error = xy_error_make(condition, text);
    error.app = app;
    error.app_ns = app != NULL ? NS_COMMANDS : NULL;
    request_fail(shard, request, &error);
    return false;
}

static bool ask(struct shard *shard, struct request **request, const struct command *which)
{
    struct xy_arena *arena = (*request)->stanza.arena;
    char id[XY_ID_LEN + 1];
    xy_random_id(shard->env, id);
    struct xy_elem *command;
    struct xy_elem *result =
        answer_new(*request, xy_str(which->node), xy_arena_str(arena, xy_str(id)), "executing", &command);
    struct xy_elem *actions = xy_elem_add(arena, command, "actions", NS_COMMANDS);
    xy_elem_set(arena, actions, "execute", XY_STR("complete"));
    xy_elem_add(arena, actions, "complete", NS_COMMANDS);
    struct xy_elem *x = xy_form_new(arena, "form", FORM_TYPE);
    xy_elem_add_text(arena, xy_elem_add(arena, x, "title", NS_DATA_FORM), xy_str(which->name));
    for (const struct field *f = which->fields; f->var != NULL; f++) {
        struct xy_elem *field = xy_form_add(arena, x, xy_str(f->var), "text-single", f->label, XY_STR_NONE);
        if (f->kind == REQUIRED)
            xy_elem_add(arena, field, "required", NS_DATA_FORM);
    }
    xy_elem_append(command, x);
    request_reply(shard, request, result, 0);
    return false;
}

static bool cancel(struct shard *shard, struct request **request, const struct xy_elem *asked)
{
    struct xy_elem *command;
    struct xy_elem *result = answer_new(*request, xy_elem_attr(asked, "node"),
                                        xy_elem_attr(asked, "sessionid"), "canceled", &command);
    request_reply(shard, request, result, 0);
    return false;
}

/* The form's fields as attributes of `e`, those of pages as elements of a <set/> in `around`. */
static void add_request(struct xy_arena *arena, struct xy_elem *e, struct xy_elem *around,
                        const struct command *which, const struct xy_form *form)
{
    struct xy_elem *set = NULL;
    for (const struct field *f = which->fields; f->var != NULL; f++) {
        struct xy_str value = xy_form_value(form, f->var);
        if (value.len == 0 && f->kind == OF_PAGE && strcmp(f->var, "max") == 0)
            value = xy_str(which->page);
        if (value.len > 0 && f->kind != OF_PAGE) {
            xy_elem_set(arena, e, f->var, value);
        } else if (value.len > 0) {
            set = set != NULL ? set : xy_elem_add(arena, around, "set", NS_RSM);
            xy_elem_add_text(arena, xy_elem_add(arena, set, f->var, NS_RSM), value);
        }
    }
}

/* The request takes the command's place in the stanza. */
static bool translate(struct shard *shard, struct request **request, const struct command *which,
                      struct xy_elem *asked, const struct xy_form *form)
{
    struct xy_stanza *stanza = &(*request)->stanza;
    struct xy_arena *arena = stanza->arena;
    xy_elem_remove(asked);
    struct xy_elem *parent = stanza->elem;
    if (which->inside_pubsub)
        parent = xy_elem_add(arena, parent, "pubsub", which->ns);
    struct xy_elem *e = parent != NULL ? xy_elem_add(arena, parent, which->request, which->ns) : NULL;
    if (e != NULL)
        add_request(arena, e, which->inside_pubsub ? parent : e, which, form);
    if (xy_arena_failed(arena))
        return refuse(shard, request, XY_RESOURCE_CONSTRAINT, NULL, "memory is short");
    stanza->type = which->type;
    (*request)->wrap = wrap;
    (*request)->wrapped = asked;
    return true;
}

static bool submitted(struct shard *shard, struct request **request, const struct command *which,
                      struct xy_elem *asked, const struct xy_elem *x)
{
    struct xy_form form;
    if (!xy_form_read((*request)->stanza.arena, x, &form) || !xy_str_is(form.type, "submit"))
        return refuse(shard, request, XY_BAD_REQUEST, "bad-payload", "a submitted data form is expected");
    if (xy_str_present(form.form_type) && !xy_str_is(form.form_type, FORM_TYPE))
        return refuse(shard, request, XY_BAD_REQUEST, "bad-payload", "the form is of another FORM_TYPE");
    for (const struct field *f = which->fields; f->var != NULL; f++)
        if (f->kind == REQUIRED && xy_form_value(&form, f->var).len == 0)
            return refuse(shard, request, XY_BAD_REQUEST, "bad-payload", "a required field is missing");
    return translate(shard, request, which, asked, &form);
}

bool command_translate(struct shard *shard, struct request **request)
{
    struct xy_elem *asked = xy_elem_first((*request)->stanza.elem);
    const struct command *which = find(xy_elem_attr(asked, "node"));
    const struct xy_elem *x = xy_elem_child(asked, "x", NS_DATA_FORM);
    struct xy_str action = xy_elem_attr(asked, "action");
    bool complete = xy_str_is(action, "complete");
    if ((*request)->stanza.type != XY_SET)
        return refuse(shard, request, XY_BAD_REQUEST, NULL, "commands are IQs of type set");
    if (which == NULL)
        return refuse(shard, request, XY_ITEM_NOT_FOUND, NULL, "there is no such command");
    if (xy_str_is(action, "cancel"))
        return cancel(shard, request, asked);
    if (xy_str_is(action, "prev") || xy_str_is(action, "next"))
        return refuse(shard, request, XY_BAD_REQUEST, "bad-action",
                      "the command has one step: execute or complete it");
    if (action.len > 0 && !complete && !xy_str_is(action, "execute"))
        return refuse(shard, request, XY_BAD_REQUEST, "malformed-action", "no such action");
    if (x != NULL)
        return submitted(shard, request, which, asked, x);
    if (complete)
        return refuse(shard, request, XY_BAD_REQUEST, "bad-payload", "a submitted data form is expected");
    return ask(shard, request, which);
}

/* --- disco -------------------------------------------------------------------------------------------------------- */

static void describe(struct xy_arena *arena, struct xy_elem *query, const struct command *which)
{
    struct xy_elem *identity = xy_elem_add(arena, query, "identity", NS_DISCO_INFO);
    xy_elem_set(arena, identity, "category", XY_STR("automation"));
    xy_elem_set(arena, identity, "type", which != NULL ? XY_STR("command-node") : XY_STR("command-list"));
    xy_elem_set(arena, identity, "name", which != NULL ? xy_str(which->name) : XY_STR("Commands"));
    xy_elem_set(arena, xy_elem_add(arena, query, "feature", NS_DISCO_INFO), "var", XY_STR(NS_COMMANDS));
    if (which != NULL)
        xy_elem_set(arena, xy_elem_add(arena, query, "feature", NS_DISCO_INFO), "var", XY_STR(NS_DATA_FORM));
}

static void list(struct xy_arena *arena, struct xy_elem *query, struct xy_str service)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        struct xy_elem *item = xy_elem_add(arena, query, "item", NS_DISCO_ITEMS);
        xy_elem_set(arena, item, "jid", service);
        xy_elem_set(arena, item, "node", xy_str(commands[i].node));
        xy_elem_set(arena, item, "name", xy_str(commands[i].name));
    }
}

bool command_disco(struct shard *shard, struct request **request)
{
    struct xy_arena *arena = (*request)->stanza.arena;
    const struct xy_elem *asked = xy_elem_first((*request)->stanza.elem);
    struct xy_str node = xy_elem_attr(asked, "node");
    const struct command *which = find(node);
    bool all = xy_str_is(node, NS_COMMANDS);
    if (!xy_str_is(asked->name, "query") || (which == NULL && !all) || (*request)->stanza.type != XY_GET)
        return false;
    struct xy_elem *result = xy_stanza_result(arena, &(*request)->stanza);
    bool info = xy_str_is(asked->ns, NS_DISCO_INFO);
    struct xy_elem *query = xy_elem_add(arena, result, "query", info ? NS_DISCO_INFO : NS_DISCO_ITEMS);
    xy_elem_set(arena, query, "node", node);
    if (info)
        describe(arena, query, which);
    else if (all)
        list(arena, query, xy_jid_full((*request)->stanza.to));
    request_reply(shard, request, result, 0);
    return true;
}
