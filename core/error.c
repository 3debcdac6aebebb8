/* Error conditions as tables: names and recommended types (RFC 6120 8.3.3 and 4.9.3), and the elements made of them. */
#include "core/error.h"

#include "core/namespaces.h"

static const struct {
    const char *name;
    enum xy_error_type type;
} conditions[XY_CONDITION_COUNT] = {
    [XY_NO_ERROR] = { NULL, XY_ERROR_CANCEL },
    [XY_BAD_REQUEST] = { "bad-request", XY_ERROR_MODIFY },
    [XY_CONFLICT] = { "conflict", XY_ERROR_CANCEL },
    [XY_FEATURE_NOT_IMPLEMENTED] = { "feature-not-implemented", XY_ERROR_CANCEL },
    [XY_FORBIDDEN] = { "forbidden", XY_ERROR_AUTH },
    [XY_GONE] = { "gone", XY_ERROR_CANCEL },
    [XY_INTERNAL_SERVER_ERROR] = { "internal-server-error", XY_ERROR_CANCEL },
    [XY_ITEM_NOT_FOUND] = { "item-not-found", XY_ERROR_CANCEL },
    [XY_JID_MALFORMED] = { "jid-malformed", XY_ERROR_MODIFY },
    [XY_NOT_ACCEPTABLE] = { "not-acceptable", XY_ERROR_MODIFY },
    [XY_NOT_ALLOWED] = { "not-allowed", XY_ERROR_CANCEL },
    [XY_NOT_AUTHORIZED] = { "not-authorized", XY_ERROR_AUTH },
    [XY_POLICY_VIOLATION] = { "policy-violation", XY_ERROR_MODIFY },
    [XY_RECIPIENT_UNAVAILABLE] = { "recipient-unavailable", XY_ERROR_WAIT },
    [XY_REDIRECT] = { "redirect", XY_ERROR_MODIFY },
    [XY_REGISTRATION_REQUIRED] = { "registration-required", XY_ERROR_AUTH },
    [XY_REMOTE_SERVER_NOT_FOUND] = { "remote-server-not-found", XY_ERROR_CANCEL },
    [XY_REMOTE_SERVER_TIMEOUT] = { "remote-server-timeout", XY_ERROR_WAIT },
    [XY_RESOURCE_CONSTRAINT] = { "resource-constraint", XY_ERROR_WAIT },
    [XY_SERVICE_UNAVAILABLE] = { "service-unavailable", XY_ERROR_CANCEL },
    [XY_SUBSCRIPTION_REQUIRED] = { "subscription-required", XY_ERROR_AUTH },
    [XY_UNDEFINED_CONDITION] = { "undefined-condition", XY_ERROR_CANCEL },
    [XY_UNEXPECTED_REQUEST] = { "unexpected-request", XY_ERROR_WAIT },
};

static const char *const type_names[] = {
    [XY_ERROR_CANCEL] = "cancel", [XY_ERROR_WAIT] = "wait",         [XY_ERROR_MODIFY] = "modify",
    [XY_ERROR_AUTH] = "auth",     [XY_ERROR_CONTINUE] = "continue",
};
#define ERROR_TYPES (sizeof(type_names) / sizeof(*type_names))

static const char *const stream_errors[XY_STREAM_ERROR_COUNT] = {
    [XY_STREAM_BAD_FORMAT] = "bad-format",
    [XY_STREAM_BAD_NAMESPACE_PREFIX] = "bad-namespace-prefix",
    [XY_STREAM_CONFLICT] = "conflict",
    [XY_STREAM_CONNECTION_TIMEOUT] = "connection-timeout",
    [XY_STREAM_HOST_GONE] = "host-gone",
    [XY_STREAM_HOST_UNKNOWN] = "host-unknown",
    [XY_STREAM_IMPROPER_ADDRESSING] = "improper-addressing",
    [XY_STREAM_INTERNAL_SERVER_ERROR] = "internal-server-error",
    [XY_STREAM_INVALID_FROM] = "invalid-from",
    [XY_STREAM_INVALID_NAMESPACE] = "invalid-namespace",
    [XY_STREAM_INVALID_XML] = "invalid-xml",
    [XY_STREAM_NOT_AUTHORIZED] = "not-authorized",
    [XY_STREAM_NOT_WELL_FORMED] = "not-well-formed",
    [XY_STREAM_POLICY_VIOLATION] = "policy-violation",
    [XY_STREAM_REMOTE_CONNECTION_FAILED] = "remote-connection-failed",
    [XY_STREAM_RESET] = "reset",
    [XY_STREAM_RESOURCE_CONSTRAINT] = "resource-constraint",
    [XY_STREAM_RESTRICTED_XML] = "restricted-xml",
    [XY_STREAM_SEE_OTHER_HOST] = "see-other-host",
    [XY_STREAM_SYSTEM_SHUTDOWN] = "system-shutdown",
    [XY_STREAM_UNDEFINED_CONDITION] = "undefined-condition",
    [XY_STREAM_UNSUPPORTED_ENCODING] = "unsupported-encoding",
    [XY_STREAM_UNSUPPORTED_FEATURE] = "unsupported-feature",
    [XY_STREAM_UNSUPPORTED_STANZA_TYPE] = "unsupported-stanza-type",
    [XY_STREAM_UNSUPPORTED_VERSION] = "unsupported-version",
};

struct xy_error xy_error_make(enum xy_condition condition, const char *text)
{
    return (struct xy_error){ .condition = condition, .type = conditions[condition].type, .text = text };
}

const char *xy_condition_name(enum xy_condition condition)
{
    return conditions[condition].name;
}

enum xy_condition xy_condition_find(struct xy_str name)
{
    for (size_t i = 1; i < XY_CONDITION_COUNT; i++) {
        if (xy_str_is(name, conditions[i].name))
            return (enum xy_condition)i;
    }
    return XY_NO_ERROR;
}

const char *xy_stream_error_name(enum xy_stream_error error)
{
    return stream_errors[error];
}

enum xy_stream_error xy_stream_error_find(struct xy_str name)
{
    for (size_t i = 1; i < XY_STREAM_ERROR_COUNT; i++) {
        if (xy_str_is(name, stream_errors[i]))
            return (enum xy_stream_error)i;
    }
    return XY_STREAM_NO_ERROR;
}

static struct xy_str copied(struct xy_arena *arena, const char *z)
{
    return xy_arena_str(arena, xy_str(z));
}

static void add_details(struct xy_arena *arena, struct xy_elem *e, const struct xy_error *error)
{
    xy_elem_add(arena, e, conditions[error->condition].name, NS_STANZA_ERRORS);
    if (error->text != NULL) {
        struct xy_elem *text = xy_elem_add(arena, e, "text", NS_STANZA_ERRORS);
        xy_elem_set_ns(arena, text, "lang", NS_XML, XY_STR("en"));
        xy_elem_add_text(arena, text, copied(arena, error->text));
    }
    if (error->app != NULL && error->app_ns != NULL) {
        struct xy_elem *app = xy_elem_new(arena, copied(arena, error->app), copied(arena, error->app_ns));
        xy_elem_append(e, app);
        xy_elem_set(arena, app, "feature", copied(arena, error->app_feature));
    }
}

struct xy_elem *xy_error_reply(struct xy_arena *arena, const struct xy_stanza *request,
                               const struct xy_error *error)
{
    /* an answer to an answer could go on forever (RFC 6120 8.3.1) */
    if (request->type == XY_ERROR || request->type == XY_RESULT || error->condition == XY_NO_ERROR)
        return NULL;
    struct xy_elem *reply = xy_stanza_new(arena, request->kind, XY_ERROR);
    xy_elem_set(arena, reply, "from", xy_arena_str(arena, xy_jid_full(request->to)));
    xy_elem_set(arena, reply, "to", xy_arena_str(arena, xy_jid_full(request->from)));
    xy_elem_set(arena, reply, "id", xy_arena_str(arena, request->id));
    struct xy_elem *e = xy_elem_add(arena, reply, "error", NULL);
    xy_elem_set(arena, e, "type", xy_str(type_names[error->type]));
    add_details(arena, e, error);
    return reply;
}

/* As a C string of its own; NULL where absent. */
static const char *as_z(struct xy_arena *arena, struct xy_str s)
{
    return xy_arena_str(arena, s).data;
}

static void read_type(struct xy_str name, enum xy_error_type *type)
{
    for (size_t i = 0; i < ERROR_TYPES; i++) {
        if (xy_str_is(name, type_names[i]))
            *type = (enum xy_error_type)i;
    }
}

struct xy_error xy_error_read(const struct xy_stanza *stanza)
{
    const struct xy_elem *e = xy_elem_child(stanza->elem, "error", NULL);
    enum xy_condition condition = XY_UNDEFINED_CONDITION;
    const struct xy_elem *app = NULL;
    for (const struct xy_elem *child = xy_elem_first(e); child != NULL; child = xy_elem_next(child)) {
        if (!xy_str_is(child->ns, NS_STANZA_ERRORS))
            app = app != NULL ? app : child;
        else if (xy_condition_find(child->name) != XY_NO_ERROR)
            condition = xy_condition_find(child->name);
    }
    struct xy_error error = xy_error_make(condition, NULL);
    read_type(xy_elem_attr(e, "type"), &error.type);
    error.text = as_z(stanza->arena, xy_elem_text(xy_elem_child(e, "text", NS_STANZA_ERRORS), stanza->arena));
    if (app != NULL) {
        error.app = as_z(stanza->arena, app->name);
        error.app_ns = as_z(stanza->arena, app->ns);
        error.app_feature = as_z(stanza->arena, xy_elem_attr(app, "feature"));
    }
    return error;
}
