/* From an element to a stanza and back; see stanza.h. */
#include "core/stanza.h"

#include "core/namespaces.h"

static const char *const kind_names[] = {
    [XY_MESSAGE] = "message", [XY_PRESENCE] = "presence", [XY_IQ] = "iq"
};
#define KINDS (sizeof(kind_names) / sizeof(*kind_names))

#define IN(kind) (1u << (kind))

/* Every type with the kinds of stanza that may have it. */
static const struct {
    const char *name;
    unsigned kinds;
} types[] = {
    [XY_TYPE_NONE] = { NULL, 0 },
    [XY_NORMAL] = { "normal", IN(XY_MESSAGE) },
    [XY_CHAT] = { "chat", IN(XY_MESSAGE) },
    [XY_GROUPCHAT] = { "groupchat", IN(XY_MESSAGE) },
    [XY_HEADLINE] = { "headline", IN(XY_MESSAGE) },
    [XY_UNAVAILABLE] = { "unavailable", IN(XY_PRESENCE) },
    [XY_SUBSCRIBE] = { "subscribe", IN(XY_PRESENCE) },
    [XY_SUBSCRIBED] = { "subscribed", IN(XY_PRESENCE) },
    [XY_UNSUBSCRIBE] = { "unsubscribe", IN(XY_PRESENCE) },
    [XY_UNSUBSCRIBED] = { "unsubscribed", IN(XY_PRESENCE) },
    [XY_PROBE] = { "probe", IN(XY_PRESENCE) },
    [XY_GET] = { "get", IN(XY_IQ) },
    [XY_SET] = { "set", IN(XY_IQ) },
    [XY_RESULT] = { "result", IN(XY_IQ) },
    [XY_ERROR] = { "error", IN(XY_MESSAGE) | IN(XY_PRESENCE) | IN(XY_IQ) },
};
#define TYPES (sizeof(types) / sizeof(*types))

const char *xy_stanza_type_name(enum xy_stanza_type type)
{
    return types[type].name;
}

static bool find_kind(const struct xy_elem *elem, enum xy_stanza_kind *kind)
{
    for (size_t i = 0; i < KINDS; i++) {
        if (xy_elem_is(elem, kind_names[i], NS_CLIENT)) {
            *kind = (enum xy_stanza_kind)i;
            return true;
        }
    }
    return false;
}

/* XY_TYPE_NONE when the name is not a type of this kind. */
static enum xy_stanza_type find_type(enum xy_stanza_kind kind, struct xy_str name)
{
    for (size_t i = 1; i < TYPES; i++) {
        if ((types[i].kinds & IN(kind)) != 0 && xy_str_is(name, types[i].name))
            return (enum xy_stanza_type)i;
    }
    return XY_TYPE_NONE;
}

static bool read_address(struct xy_arena *arena, const struct xy_elem *elem, const char *name,
                         struct xy_jid *out)
{
    struct xy_str text = xy_elem_attr(elem, name);
    *out = (struct xy_jid){ 0 };
    return !xy_str_present(text) || xy_jid_parse(arena, text, out);
}

static bool iq_is_sound(const struct xy_stanza *stanza)
{
    if (stanza->type == XY_TYPE_NONE || !xy_str_present(stanza->id))
        return false;
    if (stanza->type != XY_GET && stanza->type != XY_SET)
        return true;
    const struct xy_elem *payload = xy_elem_first(stanza->elem);
    return payload != NULL && xy_elem_next(payload) == NULL;
}

enum xy_stanza_verdict xy_stanza_read(struct xy_arena *arena, struct xy_elem *elem, struct xy_stanza *out)
{
    *out = (struct xy_stanza){ .arena = arena, .elem = elem, .id = xy_elem_attr(elem, "id") };
    if (!find_kind(elem, &out->kind))
        return XY_STANZA_UNKNOWN;
    struct xy_str type = xy_elem_attr(elem, "type");
    if (xy_str_present(type))
        out->type = find_type(out->kind, type);
    bool type_unknown = xy_str_present(type) && out->type == XY_TYPE_NONE;
    if (type_unknown && out->kind == XY_MESSAGE)
        out->type = XY_NORMAL;
    bool from_is_sound = read_address(arena, elem, "from", &out->from);
    bool to_is_sound = read_address(arena, elem, "to", &out->to);
    if (!from_is_sound)
        return XY_STANZA_BAD_FROM;
    if (!to_is_sound)
        return XY_STANZA_BAD_TO;
    if ((out->kind == XY_IQ && !iq_is_sound(out)) || (out->kind == XY_PRESENCE && type_unknown))
        return XY_STANZA_BAD_IQ;
    return XY_STANZA_OK;
}

/* The tree gets its own copy: it may travel further than whoever lent the address. */
static struct xy_jid set_address(struct xy_stanza *stanza, const char *name, struct xy_jid jid)
{
    struct xy_str text = xy_arena_str(stanza->arena, xy_jid_full(jid));
    xy_elem_set(stanza->arena, stanza->elem, name, text);
    jid.data = text.data;
    return xy_jid_present(jid) ? jid : (struct xy_jid){ 0 };
}

void xy_stanza_set_to(struct xy_stanza *stanza, struct xy_jid to)
{
    stanza->to = set_address(stanza, "to", to);
}

void xy_stanza_set_from(struct xy_stanza *stanza, struct xy_jid from)
{
    stanza->from = set_address(stanza, "from", from);
}

struct xy_elem *xy_stanza_new(struct xy_arena *arena, enum xy_stanza_kind kind, enum xy_stanza_type type)
{
    struct xy_elem *elem = xy_elem_new(arena, xy_str(kind_names[kind]), XY_STR(NS_CLIENT));
    xy_elem_set(arena, elem, "type", xy_str(types[type].name));
    return elem;
}

struct xy_elem *xy_stanza_result(struct xy_arena *arena, const struct xy_stanza *request)
{
    struct xy_elem *result = xy_stanza_new(arena, XY_IQ, XY_RESULT);
    xy_elem_set(arena, result, "from", xy_arena_str(arena, xy_jid_full(request->to)));
    xy_elem_set(arena, result, "to", xy_arena_str(arena, xy_jid_full(request->from)));
    xy_elem_set(arena, result, "id", xy_arena_str(arena, request->id));
    return result;
}
