/* XMPP addresses (RFC 7622 with the stringprep profiles of RFC 3920/6122: Nodeprep, Nameprep, Resourceprep).
 *
 * A struct xy_jid is a view of one canonical string local@domain/resource; like struct xy_str it owns nothing. Two JIDs
 * are equal when their bytes are. ASCII takes a fast path; other scripts go through libidn. */
#pragma once

#include "core/base/arena.h"

struct xy_jid {
    const char *data;   /* NULL: absent */
    uint16_t len;       /* of the whole */
    uint16_t bare_len;  /* of local@domain */
    uint16_t local_len; /* 0: no localpart */
};

/* Parses and prepares. The canonical form is put into `arena` and followed by a NUL. false: malformed, or memory is short
 * (xy_arena_failed tells); `*out` is absent then. */
bool xy_jid_parse(struct xy_arena *arena, struct xy_str text, struct xy_jid *out);

/* From a canonical string that this module made earlier: no preparation, only splitting. */
struct xy_jid xy_jid_canonical(struct xy_str canonical);

/* Joins prepared-on-the-way parts; an absent local or resource is left out. */
bool xy_jid_make(struct xy_arena *arena, struct xy_str local, struct xy_str domain, struct xy_str resource,
                 struct xy_jid *out);
/* The same bare JID with another resource. */
bool xy_jid_with_resource(struct xy_arena *arena, struct xy_jid jid, struct xy_str resource,
                          struct xy_jid *out);

/* Preparation of single parts; false: not allowed there. */
bool xy_jid_prep_local(struct xy_arena *arena, struct xy_str in, struct xy_str *out);
bool xy_jid_prep_domain(struct xy_arena *arena, struct xy_str in, struct xy_str *out);
bool xy_jid_prep_resource(struct xy_arena *arena, struct xy_str in, struct xy_str *out);

static inline bool xy_jid_present(struct xy_jid j)
{
    return j.data != NULL;
}

static inline struct xy_str xy_jid_full(struct xy_jid j)
{
    return xy_str_n(j.data, j.len);
}

static inline struct xy_str xy_jid_bare(struct xy_jid j)
{
    return xy_str_n(j.data, j.bare_len);
}

static inline struct xy_str xy_jid_local(struct xy_jid j)
{
    return j.local_len ? xy_str_n(j.data, j.local_len) : XY_STR_NONE;
}

static inline struct xy_str xy_jid_domain(struct xy_jid j)
{
    size_t start = j.local_len ? (size_t)j.local_len + 1 : 0;
    return j.data ? xy_str_n(j.data + start, j.bare_len - start) : XY_STR_NONE;
}

static inline bool xy_jid_is_bare(struct xy_jid j)
{
    return j.len == j.bare_len;
}

static inline struct xy_str xy_jid_resource(struct xy_jid j)
{
    return xy_jid_is_bare(j) ? XY_STR_NONE
                             : xy_str_n(j.data + j.bare_len + 1, (size_t)(j.len - j.bare_len - 1));
}

static inline struct xy_jid xy_jid_to_bare(struct xy_jid j)
{
    return (
        struct xy_jid){ .data = j.data, .len = j.bare_len, .bare_len = j.bare_len, .local_len = j.local_len };
}

static inline bool xy_jid_eq(struct xy_jid a, struct xy_jid b)
{
    return xy_str_eq(xy_jid_full(a), xy_jid_full(b));
}

static inline bool xy_jid_same_bare(struct xy_jid a, struct xy_jid b)
{
    return xy_str_eq(xy_jid_bare(a), xy_jid_bare(b));
}
