/* A string inside a mail's payload: in place when it is short, in a block of its own when it is not, because JIDs may be
 * 3 KB long and payloads may not. Put it last in the payload and mail only the bytes used (mail_str_size). The receiver
 * frees it. */
#pragma once

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/base/str.h"

#define MAIL_STR_NEAR 256

struct mail_str {
    char *far; /* NULL: near */
    uint32_t len;
    char near[MAIL_STR_NEAR];
};

/* Two strings, one after the other; absent ones are empty. false: no memory; nothing is held then. */
static inline bool mail_str_join(struct mail_str *m, struct xy_str a, struct xy_str b)
{
    size_t len = a.len + b.len;
    m->len = (uint32_t)len;
    m->far = len > MAIL_STR_NEAR ? malloc(len) : NULL;
    if (len > MAIL_STR_NEAR && !m->far)
        return false;
    char *to = m->far ? m->far : m->near;
    if (a.len)
        memcpy(to, a.data, a.len);
    if (b.len)
        memcpy(to + a.len, b.data, b.len);
    return true;
}

static inline bool mail_str_set(struct mail_str *m, struct xy_str s)
{
    return mail_str_join(m, s, XY_STR_NONE);
}

static inline struct xy_str mail_str_view(const struct mail_str *m)
{
    return xy_str_n(m->far ? m->far : m->near, m->len);
}

static inline void mail_str_free(struct mail_str *m)
{
    free(m->far);
    m->far = NULL;
}

/* Bytes of a payload that begins at `payload` and ends with `m`. */
static inline size_t mail_str_size(const void *payload, const struct mail_str *m)
{
    return (size_t)((m->far ? m->near : m->near + m->len) - (const char *)payload);
}
