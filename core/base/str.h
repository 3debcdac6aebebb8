/* The one string of this tree: borrowed bytes with their length.
 *
 * A struct xy_str never owns what it points at; the arena, buffer or literal behind it does. It need not end in NUL,
 * and NUL-terminated strings appear only at library borders. `data == NULL` means absent, `len == 0` with data means
 * present and empty. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct xy_str {
    const char *data;
    size_t len;
};

#define XY_STR(literal) ((struct xy_str){ .data = (literal), .len = sizeof(literal) - 1 })
/* the same where C wants a constant: in the initialisers of tables */
#define XY_STR_INIT(literal)                                                                                 \
    {                                                                                                        \
        .data = (literal), .len = sizeof(literal) - 1                                                        \
    }
#define XY_STR_NONE ((struct xy_str){ .data = NULL, .len = 0 })

/* for printf("%.*s", XY_ARG(s)) */
#define XY_ARG(s) (int)(s).len, (s).data ? (s).data : ""

static inline struct xy_str xy_str(const char *z)
{
    return (struct xy_str){ .data = z, .len = z ? strlen(z) : 0 };
}

static inline struct xy_str xy_str_n(const char *data, size_t len)
{
    return (struct xy_str){ .data = data, .len = len };
}

static inline bool xy_str_present(struct xy_str s)
{
    return s.data != NULL;
}

static inline bool xy_str_eq(struct xy_str a, struct xy_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* equal to a NUL-terminated literal */
static inline bool xy_str_is(struct xy_str a, const char *z)
{
    return a.len == strlen(z) && (a.len == 0 || memcmp(a.data, z, a.len) == 0);
}

/* order by bytes, shorter first on a common prefix: as LMDB orders keys */
static inline int xy_str_cmp(struct xy_str a, struct xy_str b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int order = n ? memcmp(a.data, b.data, n) : 0;
    if (order != 0)
        return order;
    return (a.len > b.len) - (a.len < b.len);
}

static inline bool xy_str_starts(struct xy_str s, struct xy_str prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.data, prefix.data, prefix.len) == 0);
}

/* Constant time in the contents (not in the lengths): for secrets and proofs. */
bool xy_str_eq_secret(struct xy_str a, struct xy_str b);

/* Decimal digits only, no sign, no space, no overflow: false otherwise. `*out` is untouched on failure. */
bool xy_str_u64(struct xy_str s, uint64_t *out);
bool xy_str_u32(struct xy_str s, uint32_t *out);

/* XML booleans: "true", "1" -> true; "false", "0" -> false; else returns false and leaves *out. */
bool xy_str_bool(struct xy_str s, bool *out);

/* Valid UTF-8 as XML 1.0 and XMPP accept it: no surrogates, no overlong forms, no NUL. */
bool xy_str_utf8(struct xy_str s);

/* Without leading and trailing XML white space. */
struct xy_str xy_str_trim(struct xy_str s);
