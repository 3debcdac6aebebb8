/* A message, presence or IQ as it travels through the broker or the SDK: a parsed tree with its common attributes
 * taken out. One stanza owns one arena; moving a stanza moves the arena. */
#pragma once

#include "core/base/arena.h"
#include "core/jid.h"
#include "core/xml/elem.h"

enum xy_stanza_kind { XY_MESSAGE, XY_PRESENCE, XY_IQ };

enum xy_stanza_type {
    XY_TYPE_NONE, /* no type attribute: normal message, available presence */
    /* message */
    XY_NORMAL,
    XY_CHAT,
    XY_GROUPCHAT,
    XY_HEADLINE,
    /* presence */
    XY_UNAVAILABLE,
    XY_SUBSCRIBE,
    XY_SUBSCRIBED,
    XY_UNSUBSCRIBE,
    XY_UNSUBSCRIBED,
    XY_PROBE,
    /* iq */
    XY_GET,
    XY_SET,
    XY_RESULT,
    /* any */
    XY_ERROR,
};

struct xy_stanza {
    struct xy_arena *arena;
    struct xy_elem *elem;
    enum xy_stanza_kind kind;
    enum xy_stanza_type type;
    struct xy_jid from; /* absent where the attribute is */
    struct xy_jid to;
    struct xy_str id;
    size_t bytes; /* on the wire, as it came */
};

enum xy_stanza_verdict {
    XY_STANZA_OK,
    XY_STANZA_UNKNOWN,  /* not message, presence, iq in jabber:client: unsupported-stanza-type */
    XY_STANZA_BAD_TO,   /* answer jid-malformed; `to` is absent */
    XY_STANZA_BAD_FROM, /* invalid-from */
    XY_STANZA_BAD_IQ,   /* no id, bad type, or not exactly one child in get/set (or presence of unknown
                              type, RFC 6121 4.7.1): bad-request */
};

/* Fills *out from a parsed element; takes no ownership but keeps `arena` in it. The tree is valid whatever is said,
 * so an error reply can be made of it (RFC 6120 8.1 - 8.3). An unknown message type counts as normal (RFC 6121 5.2.2). */
enum xy_stanza_verdict xy_stanza_read(struct xy_arena *arena, struct xy_elem *elem, struct xy_stanza *out);

/* The address is copied into the stanza's arena; an absent one removes the attribute. */
void xy_stanza_set_to(struct xy_stanza *stanza, struct xy_jid to);
void xy_stanza_set_from(struct xy_stanza *stanza, struct xy_jid from);

/* New stanzas for replies and requests, in an arena the caller chooses. */
struct xy_elem *xy_stanza_new(struct xy_arena *arena, enum xy_stanza_kind kind, enum xy_stanza_type type);
/* result of an IQ: to and id taken from the request, from = the request's to (absent stays absent) */
struct xy_elem *xy_stanza_result(struct xy_arena *arena, const struct xy_stanza *request);
const char *xy_stanza_type_name(enum xy_stanza_type type); /* NULL for XY_TYPE_NONE */
