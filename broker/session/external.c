/* SASL EXTERNAL over TLS (XEP-0178 2): whom a client's certificate lets it be.
 *
 * The link carries the certificate only when it is trusted. Its xmppAddr names (RFC 6120 13.7.1.4) count, each a literal
 * bare address of a domain served here; the subject is never looked at. login.c asks, once for the features and once per
 * attempt; nothing is kept between. */
#include "broker/router/accounts.h"
#include "broker/router/router.h"
#include "broker/session/session_internal.h"
#include "core/base/assert.h"
#include "core/tls/names.h"

#define EXTERNAL_NAMES_MAX 32u /* xmppAddr names of one certificate; one with more has none */

struct named {
    struct xy_jid users[EXTERNAL_NAMES_MAX]; /* bare, prepared, no two the same */
    size_t count;
};

static bool named_has(const struct named *named, struct xy_jid jid)
{
    for (size_t i = 0; i < named->count; i++) {
        if (xy_jid_eq(named->users[i], jid))
            return true;
    }
    return false;
}

static bool is_user_here(const struct shard *shard, struct xy_jid jid)
{
    xy_assert(xy_jid_present(jid));
    return jid.local_len > 0 && xy_jid_is_bare(jid) && router_is_local_domain(shard, xy_jid_domain(jid));
}

static void named_read(const struct session *session, struct xy_arena *arena, struct named *named)
{
    struct xy_tls_names names;
    struct xy_tls_name name;
    struct xy_jid jid;
    size_t seen = 0;
    named->count = 0;
    if (!xy_tls_names_open(&names, session->link->certificate))
        return;
    while (xy_tls_names_next(&names, &name)) {
        if (name.kind != XY_TLS_NAME_XMPP)
            continue;
        if (++seen > EXTERNAL_NAMES_MAX) {
            named->count = 0;
            return;
        }
        if (xy_jid_parse(arena, name.value, &jid) && is_user_here(session->shard, jid) &&
            !named_has(named, jid))
            named->users[named->count++] = jid;
    }
    xy_assert(named->count <= seen);
}

bool external_offered(const struct session *session)
{
    if (!xy_str_present(session->link->certificate))
        return false;
    struct xy_arena *arena = xy_arena_pool_take(session->shard->arenas);
    if (arena == NULL)
        return false;
    struct named named;
    bool found = false;
    named_read(session, arena, &named);
    for (size_t i = 0; i < named.count; i++)
        found = found || xy_str_eq(xy_jid_domain(named.users[i]), session->domain);
    xy_arena_pool_give(session->shard->arenas, &arena);
    return found;
}

/* The reserved administrator is let in by the kernel's word or its own password, never by what a certificate says. */
enum xy_sasl_condition external_identity(const struct session *session, struct xy_arena *arena,
                                         struct xy_str authzid, struct xy_str *bare)
{
    struct named named;
    struct xy_jid jid;
    named_read(session, arena, &named);
    if (xy_str_present(authzid)) {
        if (!xy_jid_parse(arena, authzid, &jid) || !named_has(&named, jid))
            return XY_SASL_INVALID_AUTHZID;
    } else {
        if (named.count == 0)
            return XY_SASL_NOT_AUTHORIZED;
        if (named.count > 1)
            return XY_SASL_INVALID_AUTHZID; /* it must say which (XEP-0178 2, 11) */
        jid = named.users[0];
    }
    if (!xy_str_eq(xy_jid_domain(jid), session->domain) ||
        accounts_is_reserved(session->shard, xy_jid_bare(jid)))
        return XY_SASL_NOT_AUTHORIZED;
    *bare = xy_jid_bare(jid);
    return XY_SASL_NO_FAILURE;
}
