/* XMPP addresses: splitting, preparation of the parts, joining. Each part is prepared into a buffer on the stack and the
 * whole is copied into the arena once.
 *
 * Parts in ASCII, nearly all there are, need a table lookup per byte. Others go through libidn: Nodeprep and Nameprep
 * without unassigned code points, since accounts and hosts are identities; Resourceprep with them, since RFC 7622 allows
 * in resources what Unicode added later (emoji). */
#include "core/jid.h"

#include <arpa/inet.h>
#include <idna.h>
#include <stdio.h>
#include <stdlib.h>
#include <stringprep.h>
#include <strings.h>

#include "core/base/assert.h"
#include "core/base/limits.h"

#define LABEL_MAX 63 /* RFC 1035 2.3.4 */

struct part {
    char data[XY_JID_PART_MAX + 1];
    size_t len;
};

static bool is_ascii(struct xy_str s)
{
    unsigned char all = 0;
    for (size_t i = 0; i < s.len; i++)
        all = (unsigned char)(all | (unsigned char)s.data[i]);
    return all < 0x80;
}

static bool prep_with_library(struct xy_str in, struct part *out, Stringprep_profile_flags flags,
                              const Stringprep_profile *profile)
{
    if (in.len > XY_JID_PART_MAX || !xy_str_utf8(in))
        return false;
    memcpy(out->data, in.data, in.len);
    out->data[in.len] = '\0';
    if (stringprep(out->data, sizeof(out->data), flags, profile) != STRINGPREP_OK)
        return false;
    out->len = strlen(out->data);
    return out->len > 0 && out->len <= XY_JID_PART_MAX;
}

/* --- localpart ---------------------------------------------------------------------------------------------------- */

/* Nodeprep in ASCII (RFC 6122 A): what the byte becomes, 0 where it is prohibited. */
static char local_char(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    if (c <= ' ' || c == 0x7f || strchr("\"&'/:<>@", c) != NULL)
        return 0;
    return c;
}

static bool prep_local(struct xy_str in, struct part *out)
{
    if (in.len == 0 || in.len > XY_JID_PART_MAX)
        return false;
    if (!is_ascii(in))
        return prep_with_library(in, out, STRINGPREP_NO_UNASSIGNED, stringprep_xmpp_nodeprep);
    for (size_t i = 0; i < in.len; i++) {
        out->data[i] = local_char(in.data[i]);
        if (out->data[i] == 0)
            return false;
    }
    out->len = in.len;
    return true;
}

/* --- domainpart --------------------------------------------------------------------------------------------------- */

static bool prep_ipv6(struct xy_str in, struct part *out)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (in.len < 4 || in.len - 2 >= sizeof(text) || in.data[in.len - 1] != ']')
        return false;
    memcpy(text, in.data + 1, in.len - 2);
    text[in.len - 2] = '\0';
    if (inet_pton(AF_INET6, text, &address) != 1 || inet_ntop(AF_INET6, &address, text, sizeof(text)) == NULL)
        return false;
    out->len = (size_t)snprintf(out->data, sizeof(out->data), "[%s]", text);
    return true;
}

/* Letters, digits and hyphens in labels of 1 to 63 bytes with no hyphen at their ends (RFC 952, 1123; "STD3"). */
static bool prep_host(struct xy_str in, struct part *out)
{
    size_t label = 0;
    for (size_t i = 0; i <= in.len; i++) {
        char c = i < in.len ? in.data[i] : '.';
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (c == '.') {
            if (label == 0 || label > LABEL_MAX || in.data[i - 1] == '-')
                return false;
            label = 0;
        } else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c == '-' && label > 0)) {
            label++;
        } else {
            return false;
        }
        if (i < in.len)
            out->data[i] = c;
    }
    out->len = in.len;
    return true;
}

static bool has_alabel(struct xy_str in)
{
    for (size_t i = 0; i + 4 <= in.len; i++) {
        if ((i == 0 || in.data[i - 1] == '.') && strncasecmp(in.data + i, "xn--", 4) == 0)
            return true;
    }
    return false;
}

/* Other scripts: A-labels become U-labels (RFC 7622 3.2), Nameprep, and ToASCII has to accept the result. An "xn--" that
 * is left encodes nothing and would only look like another domain. */
static bool prep_idn(struct xy_str in, struct part *out)
{
    char text[XY_JID_PART_MAX + 1];
    char *unicode = NULL, *ascii = NULL;
    if (!xy_str_utf8(in))
        return false;
    memcpy(text, in.data, in.len);
    text[in.len] = '\0';
    bool ok = idna_to_unicode_8z8z(text, &unicode, 0) == IDNA_SUCCESS &&
              prep_with_library(xy_str(unicode), out, STRINGPREP_NO_UNASSIGNED, stringprep_nameprep);
    if (ok && out->data[out->len - 1] == '.')
        out->data[--out->len] = '\0';
    ok = ok && out->len > 0 && !has_alabel(xy_str_n(out->data, out->len)) &&
         idna_to_ascii_8z(out->data, &ascii, IDNA_USE_STD3_ASCII_RULES) == IDNA_SUCCESS;
    struct part checked;
    ok = ok && strlen(ascii) <= XY_JID_PART_MAX && prep_host(xy_str(ascii), &checked);
    free(unicode);
    free(ascii);
    return ok;
}

static bool prep_domain(struct xy_str in, struct part *out)
{
    if (in.len > 1 && in.data[in.len - 1] == '.')
        in.len--;
    if (in.len == 0 || in.len > XY_JID_PART_MAX)
        return false;
    if (in.data[0] == '[')
        return prep_ipv6(in, out);
    return is_ascii(in) && !has_alabel(in) ? prep_host(in, out) : prep_idn(in, out);
}

/* --- resourcepart ------------------------------------------------------------------------------------------------- */

static bool prep_resource(struct xy_str in, struct part *out)
{
    if (in.len == 0 || in.len > XY_JID_PART_MAX)
        return false;
    if (!is_ascii(in))
        return prep_with_library(in, out, 0, stringprep_xmpp_resourceprep);
    for (size_t i = 0; i < in.len; i++) {
        if (in.data[i] < ' ' || in.data[i] == 0x7f)
            return false;
    }
    memcpy(out->data, in.data, in.len);
    out->len = in.len;
    return true;
}

/* --- the whole ---------------------------------------------------------------------------------------------------- */

static bool join(struct xy_arena *arena, struct xy_str local, struct xy_str domain, struct xy_str resource,
                 struct xy_jid *out)
{
    size_t bare_len = (local.len > 0 ? local.len + 1 : 0) + domain.len;
    size_t len = bare_len + (resource.len > 0 ? resource.len + 1 : 0);
    xy_assert(domain.len > 0 && len <= XY_JID_MAX);
    char *text = xy_arena_alloc(arena, len + 1);
    if (text == NULL)
        return false;
    char *at = text;
    if (local.len > 0) {
        memcpy(at, local.data, local.len);
        at += local.len;
        *at++ = '@';
    }
    memcpy(at, domain.data, domain.len);
    at += domain.len;
    if (resource.len > 0) {
        *at++ = '/';
        memcpy(at, resource.data, resource.len);
        at += resource.len;
    }
    *at = '\0';
    *out = (struct xy_jid){
        .data = text, .len = (uint16_t)len, .bare_len = (uint16_t)bare_len, .local_len = (uint16_t)local.len
    };
    return true;
}

bool xy_jid_make(struct xy_arena *arena, struct xy_str local, struct xy_str domain, struct xy_str resource,
                 struct xy_jid *out)
{
    struct part l, d, r;
    l.len = r.len = 0;
    *out = (struct xy_jid){ 0 };
    return (!xy_str_present(local) || prep_local(local, &l)) && prep_domain(domain, &d) &&
           (!xy_str_present(resource) || prep_resource(resource, &r)) &&
           join(arena, xy_str_n(l.data, l.len), xy_str_n(d.data, d.len), xy_str_n(r.data, r.len), out);
}

/* Where the parts are (RFC 7622 3.2): the resource follows the first slash, the local part ends at the first @ before. */
static void split(struct xy_str text, struct xy_str *local, struct xy_str *domain, struct xy_str *resource)
{
    *local = *resource = XY_STR_NONE;
    *domain = text;
    const char *slash = text.len > 0 ? memchr(text.data, '/', text.len) : NULL;
    if (slash != NULL) {
        domain->len = (size_t)(slash - text.data);
        *resource = xy_str_n(slash + 1, text.len - domain->len - 1);
    }
    const char *at = domain->len > 0 ? memchr(domain->data, '@', domain->len) : NULL;
    if (at != NULL) {
        *local = xy_str_n(text.data, (size_t)(at - text.data));
        *domain = xy_str_n(at + 1, domain->len - local->len - 1);
    }
}

bool xy_jid_parse(struct xy_arena *arena, struct xy_str text, struct xy_jid *out)
{
    struct xy_str local, domain, resource;
    split(text, &local, &domain, &resource);
    return xy_jid_make(arena, local, domain, resource, out);
}

struct xy_jid xy_jid_canonical(struct xy_str canonical)
{
    struct xy_str local, domain, resource;
    if (!xy_str_present(canonical))
        return (struct xy_jid){ 0 };
    xy_assert(canonical.len <= XY_JID_MAX);
    split(canonical, &local, &domain, &resource);
    return (struct xy_jid){ .data = canonical.data,
                            .len = (uint16_t)canonical.len,
                            .bare_len = (uint16_t)((size_t)(domain.data - canonical.data) + domain.len),
                            .local_len = (uint16_t)local.len };
}

bool xy_jid_with_resource(struct xy_arena *arena, struct xy_jid jid, struct xy_str resource,
                          struct xy_jid *out)
{
    struct part r;
    r.len = 0;
    *out = (struct xy_jid){ 0 };
    if (!xy_jid_present(jid) || (xy_str_present(resource) && !prep_resource(resource, &r)))
        return false;
    return join(arena, xy_jid_local(jid), xy_jid_domain(jid), xy_str_n(r.data, r.len), out);
}

static bool prepared(struct xy_arena *arena, bool ok, const struct part *part, struct xy_str *out)
{
    *out = ok ? xy_arena_str(arena, xy_str_n(part->data, part->len)) : XY_STR_NONE;
    return xy_str_present(*out);
}

bool xy_jid_prep_local(struct xy_arena *arena, struct xy_str in, struct xy_str *out)
{
    struct part part;
    return prepared(arena, prep_local(in, &part), &part, out);
}

bool xy_jid_prep_domain(struct xy_arena *arena, struct xy_str in, struct xy_str *out)
{
    struct part part;
    return prepared(arena, prep_domain(in, &part), &part, out);
}

bool xy_jid_prep_resource(struct xy_arena *arena, struct xy_str in, struct xy_str *out)
{
    struct part part;
    return prepared(arena, prep_resource(in, &part), &part, out);
}
