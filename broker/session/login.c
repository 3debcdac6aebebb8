/* From the stream header to a bound resource: who may log in how on which link, and what the accounts say. */
#include <string.h>
#include <unistd.h>

#include "broker/config.h"
#include "broker/log.h"
#include "broker/router/accounts.h"
#include "broker/router/address.h"
#include "broker/router/router.h"
#include "broker/session/session_internal.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

/* --- the header --------------------------------------------------------------------------------------------------- */

void login_on_opened(struct session *session, const struct xy_stream_event *event)
{
    struct shard *shard = session->shard;
    const struct link *link = session->link;
    struct xy_stream_offer offer = { .sm = true };
    if (link->kind == LINK_LOCAL && !xy_str_present(event->to)) {
        session->domain =
            router_domain(shard); /* whoever comes through the door of the machine need not know it */
    } else if (!router_local_domain(shard, event->to, &session->domain)) {
        xy_stream_fail(session->stream, XY_STREAM_HOST_UNKNOWN, "this broker does not serve that domain");
        outbox_flush(session);
        session_end(session);
        return;
    }
    bool in_clear = link->loopback && shard->config->auth.allow_plaintext;
    offer.domain = session->domain;
    if (link->kind == LINK_LOCAL)
        offer.mechanisms = XY_SASL_EXTERNAL;
    else
        offer.mechanisms =
            XY_SASL_SCRAM_ALL | XY_SASL_PLAIN | (external_offered(session) ? XY_SASL_EXTERNAL : 0u);
    offer.starttls = link->kind == LINK_C2S && !link->secure;
    offer.starttls_required = offer.starttls && !in_clear;
    xy_stream_accept(session->stream, &offer);
}

/* --- passwords ---------------------------------------------------------------------------------------------------- */

/* user@domain; absent when the user's name cannot be a localpart. Lives in `arena`. */
static struct xy_str login_bare(const struct session *session, struct xy_arena *arena, struct xy_str user)
{
    struct xy_jid jid;
    if (!xy_str_present(user) || !xy_jid_make(arena, user, session->domain, XY_STR_NONE, &jid))
        return XY_STR_NONE;
    return xy_jid_bare(jid);
}

static struct xy_str login_peer(const struct session *session)
{
    return session->link->peer[0] ? xy_str(session->link->peer) : XY_STR_NONE;
}

static void on_keys(struct shard *shard, struct session_ref asker, const struct xy_scram_keys *keys)
{
    struct session *session = session_find(shard, asker);
    if (session == NULL || session->state != SESSION_OPENING)
        return;
    xy_stream_sasl_keys(session->stream, keys);
    session_pump(session);
}

void login_on_keys(struct session *session, const struct xy_stream_event *event)
{
    struct shard *shard = session->shard;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    struct xy_str bare = arena ? login_bare(session, arena, event->user) : XY_STR_NONE;
    if (xy_str_present(bare))
        accounts_keys(shard, session->ref, bare, event->hash, login_peer(session), on_keys);
    else
        xy_stream_sasl_keys(session->stream, NULL);
    if (arena)
        xy_arena_pool_give(shard->arenas, &arena);
}

static void on_verdict(struct shard *shard, struct session_ref asker, enum xy_sasl_condition verdict)
{
    struct session *session = session_find(shard, asker);
    if (session == NULL || session->state != SESSION_OPENING)
        return;
    xy_stream_sasl_verdict(session->stream, verdict);
    session_pump(session);
}

void login_on_password(struct session *session, const struct xy_stream_event *event)
{
    struct shard *shard = session->shard;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    if (arena == NULL) {
        xy_stream_sasl_verdict(session->stream, XY_SASL_TEMPORARY_AUTH_FAILURE);
        return;
    }
    accounts_check_password(shard, session->ref, login_bare(session, arena, event->user), event->password,
                            login_peer(session), on_verdict);
    xy_arena_pool_give(shard->arenas, &arena);
}

void login_on_failed(struct session *session, const struct xy_stream_event *event)
{
    struct shard *shard = session->shard;
    stat_add(shard, login_failures, 1);
    log_info(shard->log, "login failed", LOG_STR("user", event->user), LOG_Z("peer", session->link->peer),
             LOG_Z("mechanism", xy_sasl_mechanism_name(event->mechanism)),
             LOG_Z("condition", xy_sasl_condition_name(event->sasl)), LOG_STR("why", event->text));
    bool scram = (event->mechanism & XY_SASL_SCRAM_ALL) != 0;
    struct xy_arena *arena = scram ? xy_arena_pool_take(shard->arenas) : NULL;
    if (arena == NULL)
        return;
    struct xy_str bare = login_bare(session, arena, event->user);
    if (xy_str_present(bare))
        accounts_login_failed(shard, bare, login_peer(session));
    xy_arena_pool_give(shard->arenas, &arena);
}

/* --- the local socket --------------------------------------------------------------------------------------------- */

static const struct config_local_user *local_user(const struct config *config, uid_t uid)
{
    for (size_t i = 0; i < config->auth.local_users_count; i++) {
        if (config->auth.local_users[i].uid == uid)
            return &config->auth.local_users[i];
    }
    return NULL;
}

/* Root and the broker's own uid may be anybody here, by default the reserved administrator; other users are who the
 * configuration says. Absent: nobody. */
static struct xy_str local_identity(const struct session *session, struct xy_arena *arena,
                                    struct xy_str authzid)
{
    struct shard *shard = session->shard;
    uid_t uid = session->link->uid;
    bool trusted = uid == 0 || uid == geteuid();
    struct xy_str wanted = authzid;
    if (!xy_str_present(wanted) && trusted)
        return xy_arena_printf(arena, "admin@%.*s", XY_ARG(router_domain(shard)));
    const struct config_local_user *mapped = local_user(shard->config, uid);
    if (!trusted && mapped == NULL)
        return XY_STR_NONE;
    struct xy_jid jid, allowed;
    if (!xy_jid_parse(arena, xy_str_present(wanted) ? wanted : mapped->jid, &jid))
        return XY_STR_NONE;
    if (!trusted && (!xy_jid_parse(arena, mapped->jid, &allowed) || !xy_jid_same_bare(jid, allowed)))
        return XY_STR_NONE;
    return xy_jid_bare(jid);
}

static void on_external(struct shard *shard, struct session_ref asker, enum xy_sasl_condition verdict)
{
    struct session *session = session_find(shard, asker);
    if (session == NULL || session->state != SESSION_OPENING)
        return;
    struct xy_jid jid = verdict == XY_SASL_NO_FAILURE ? session->jid : (struct xy_jid){ 0 };
    xy_stream_sasl_external(session->stream, jid);
    session_pump(session);
}

void login_on_external(struct session *session, const struct xy_stream_event *event)
{
    struct shard *shard = session->shard;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    struct xy_str bare = XY_STR_NONE;
    enum xy_sasl_condition refused = XY_SASL_NO_FAILURE;
    if (arena && session->link->kind == LINK_LOCAL)
        bare = local_identity(session, arena, event->authzid);
    else if (arena)
        refused = external_identity(session, arena, event->authzid, &bare);
    if (xy_str_present(bare)) {
        session_set_jid(session, xy_jid_canonical(bare));
        accounts_check_exists(shard, session->ref, bare, on_external);
    } else if (refused != XY_SASL_NO_FAILURE) {
        xy_stream_sasl_verdict(session->stream, refused);
    } else {
        xy_stream_sasl_external(session->stream, (struct xy_jid){ 0 });
    }
    if (arena)
        xy_arena_pool_give(shard->arenas, &arena);
}

/* --- in ----------------------------------------------------------------------------------------------------------- */

void login_on_authenticated(struct session *session, const struct xy_stream_event *event)
{
    stat_add(session->shard, logins, 1);
    session->state = SESSION_UNBOUND;
    session->mechanism = event->mechanism;
    session_set_jid(session, event->jid);
    if (!xy_jid_present(session->jid))
        session_fail(session, XY_STREAM_RESOURCE_CONSTRAINT, "memory is short");
}

static bool too_many_sessions(struct shard *shard)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < shard_count(shard); i++)
        count +=
            atomic_load_explicit(&shard_group_get(shard->group, i)->stats->sessions, memory_order_relaxed);
    return count >= shard->config->limits.sessions;
}

void login_on_bind(struct session *session, const struct xy_stream_event *event)
{
    if (too_many_sessions(session->shard)) {
        struct xy_error error =
            xy_error_make(XY_RESOURCE_CONSTRAINT, "the broker has as many sessions as it may have");
        xy_stream_bind_failed(session->stream, &error);
        return;
    }
    address_bind(session->shard, session->ref, xy_jid_bare(session->jid), event->resource);
}

void login_bound(struct session *session, struct xy_jid jid, const struct xy_error *error)
{
    struct shard *shard = session->shard;
    if (!xy_jid_present(jid)) {
        xy_stream_bind_failed(session->stream, error);
        session_pump(session);
        return;
    }
    session_set_jid(session, jid);
    session->state = SESSION_BOUND;
    stat_add(shard, sessions, 1);
    if (session->to == NULL || !xy_jid_present(session->jid)) {
        session_fail(session, XY_STREAM_RESOURCE_CONSTRAINT, "memory is short");
        return;
    }
    xy_stream_bound(session->stream, session->jid);
    log_info(shard->log, "session opened", LOG_STR("jid", xy_jid_full(session->jid)),
             LOG_Z("peer", session->link->peer),
             LOG_Z("mechanism", xy_sasl_mechanism_name(session->mechanism)));
    session_deadline_update(session);
    session_pump(session);
}
