/* Answers to pubsub requests and the checks that several handlers share. XEP-0060 defines for every refusal a stanza
 * error and a condition of its own; the text says what to do. */
#include "broker/pubsub/call.h"

#include "broker/config.h"
#include "broker/pubsub/queue/queue.h"
#include "core/base/assert.h"

static uint64_t ticket_of(const struct call *call)
{
    return call->node != NULL ? call->node->ticket : call->pubsub->deleted_ticket;
}

static struct xy_error make(enum xy_condition condition, const char *app, const char *text)
{
    struct xy_error error = xy_error_make(condition, text);
    error.app = app;
    error.app_ns = app != NULL ? NS_PUBSUB_ERRORS : NULL;
    return error;
}

void call_fail(struct call *call, enum xy_condition condition, const char *app, const char *text)
{
    struct xy_error error = make(condition, app, text);
    request_fail_after(call->shard, call->request, &error, ticket_of(call));
}

void call_fail_type(struct call *call, enum xy_condition condition, enum xy_error_type type, const char *app,
                    const char *text)
{
    struct xy_error error = make(condition, app, text);
    error.type = type;
    request_fail_after(call->shard, call->request, &error, ticket_of(call));
}

void call_fail_finally(struct call *call, enum xy_condition condition, enum xy_error_type type,
                       const char *text)
{
    struct xy_error error = make(condition, NULL, text);
    error.type = type;
    request_fail_finally(call->shard, call->request, &error, ticket_of(call));
}

void call_unsupported(struct call *call, const char *feature, const char *text)
{
    struct xy_error error = make(XY_FEATURE_NOT_IMPLEMENTED, "unsupported", text);
    error.app_feature = feature;
    request_fail_after(call->shard, call->request, &error, ticket_of(call));
}

void call_no_room(struct call *call)
{
    call_fail_type(call, XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT, NULL,
                   "the service has no room for this now; try again later");
}

void call_reply(struct call *call, struct xy_elem *result)
{
    request_reply(call->shard, call->request, result, ticket_of(call));
}

struct xy_elem *call_result(struct call *call, const char *ns, struct xy_elem **pubsub)
{
    struct xy_elem *result = xy_stanza_result(call->arena, &(*call->request)->stanza);
    *pubsub = xy_elem_add(call->arena, result, "pubsub", ns);
    return result;
}

enum affiliation call_affiliation(const struct call *call)
{
    return node_affiliation(call->node, call->who);
}

bool call_is_owner(const struct call *call)
{
    return call_affiliation(call) == AFFILIATION_OWNER;
}

bool call_room(struct call *call, size_t bytes)
{
    if (store_room(call->shard->store, bytes))
        return true;
    call_no_room(call);
    return false;
}

bool call_jid(struct call *call, const struct xy_elem *elem, struct xy_jid *out)
{
    struct xy_str text = xy_elem_attr(elem, "jid");
    *out = (struct xy_jid){ 0 };
    return text.len > 0 && xy_jid_parse(call->arena, text, out);
}

bool call_form(struct call *call, const struct xy_elem *parent, const char *form_type, struct xy_form *out,
               bool *cancelled)
{
    const struct xy_elem *x = xy_elem_child(parent, "x", NS_DATA_FORM);
    *cancelled = false;
    *out = (struct xy_form){ 0 };
    if (x == NULL) {
        *cancelled = true; /* nothing to set */
        return true;
    }
    if (!xy_form_read(call->arena, x, out)) {
        call_fail(call, XY_BAD_REQUEST, NULL, "the data form is malformed or has too many fields");
        return false;
    }
    if (xy_str_is(out->type, "cancel")) {
        *cancelled = true;
        return true;
    }
    if (!xy_str_is(out->type, "submit") ||
        (out->form_type.len > 0 && !xy_str_is(out->form_type, form_type))) {
        call_fail(call, XY_BAD_REQUEST, NULL,
                  "submit a data form of the FORM_TYPE that belongs to this request");
        return false;
    }
    return true;
}

static const char *complain(struct call *call, struct xy_str field, const char *what)
{
    struct xy_str shown = xy_str_n(field.data, field.len < 256 ? field.len : 256);
    struct xy_str text = xy_arena_printf(call->arena, "%.*s: %s", XY_ARG(shown), what);
    return text.data != NULL && xy_str_utf8(text) ? text.data : what;
}

/* The service's own bounds, which no node may exceed. */
static const char *beyond_limits(struct call *call, const struct node_config *config, struct xy_str *field)
{
    const struct config_limits *limits = &call->shard->config->limits;
    if (config->max_items != OPTION_COUNT_MAX && config->max_items > limits->items_per_node) {
        *field = XY_STR("pubsub#max_items");
        return "larger than this service allows";
    }
    if (config->max_bytes != OPTION_COUNT_MAX && config->max_bytes > limits->bytes_per_node) {
        *field = XY_STR("{" NS_XYLEM_NODE "}max_bytes");
        return "larger than this service allows";
    }
    if (config->max_payload_bytes != OPTION_COUNT_MAX && config->max_payload_bytes > limits->payload_size) {
        *field = XY_STR("pubsub#max_payload_size");
        return "larger than this service allows";
    }
    if (config->dedup_window_s != 0 && config->durability == DURABILITY_MEMORY) {
        *field = XY_STR("{" NS_XYLEM_NODE "}dedup_window");
        return "ids cannot be remembered where durability is memory; use publish-id";
    }
    return NULL;
}

bool call_read_config(struct call *call, struct node_config *config, const struct xy_form *form)
{
    struct xy_str field = XY_STR_NONE;
    switch (options_read(node_options, config, form, &field)) {
    case OPTION_UNKNOWN:
        call_fail(call, XY_NOT_ACCEPTABLE, NULL, complain(call, field, "this service has no such option"));
        return false;
    case OPTION_INVALID:
        call_fail(call, XY_NOT_ACCEPTABLE,
                  xy_str_is(field, "pubsub#access_model") ? "unsupported-access-model" : NULL,
                  complain(call, field, "not a value this service supports"));
        return false;
    case OPTION_NO_MEMORY:
        call_no_room(call);
        return false;
    case OPTION_ACCEPTED:
        break;
    }
    const char *beyond = queue_config_check(call->node, config, form, &field);
    if (beyond == NULL)
        beyond = beyond_limits(call, config, &field);
    if (beyond != NULL)
        call_fail(call, XY_NOT_ACCEPTABLE, NULL, complain(call, field, beyond));
    return beyond == NULL;
}
