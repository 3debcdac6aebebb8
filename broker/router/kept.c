/* The record of a session that may be resumed: written when it enables that, and when what it says changes. Called on the
 * shard that owns the account; see resumable.h. */
#include <stdlib.h>

#include "broker/router/kept.h"

/* --- writing ------------------------------------------------------------------------------------------------------ */

static bool fill_directed(Xylem__Store__V1__SessionPut *put, const struct resource *resource,
                          struct xy_arena *arena, size_t *bytes)
{
    put->directed = xy_arena_alloc(arena, (resource->directed_count + 1) * sizeof(char *));
    if (!put->directed)
        return false;
    xy_list_each (link, &resource->directed) {
        const struct directed *directed = xy_container_of(link, struct directed, link);
        put->directed[put->n_directed++] = (char *)(uintptr_t)xy_arena_str(arena, directed->to).data;
        *bytes += directed->to.len;
    }
    return !xy_arena_failed(arena);
}

static uint64_t put_in(struct address *address, const struct resource *resource, struct xy_arena *arena,
                       bool awaited)
{
    struct store_shard *store = address->shard->store;
    Xylem__Store__V1__SessionPut put = XYLEM__STORE__V1__SESSION_PUT__INIT;
    struct xy_str jid = xy_arena_printf(arena, "%.*s/%.*s", XY_ARG(address->bare), XY_ARG(resource->name));
    size_t bytes = KEPT_OVERHEAD + jid.len;
    put.id = (ProtobufCBinaryData){ SESSION_ID_BYTES, (uint8_t *)(uintptr_t)resource->kept.id };
    put.jid = (char *)(uintptr_t)jid.data;
    put.max_us = resource->kept.max_us;
    put.detached_us = resource->kept.detached_us;
    put.carbons = resource->carbons || resource->carbons_wanted;
    if (resource->presence) {
        put.presence.data = (uint8_t *)(uintptr_t)resource->presence->data;
        put.presence.len = resource->presence->len;
        put.priority = (int32_t)resource->priority;
        bytes += resource->presence->len;
    }
    if (!jid.data || !fill_directed(&put, resource, arena, &bytes) || !store_room(store, bytes))
        return 0;
    return awaited ? store_append(store, RECORD_SESSION_PUT, &put.base)
                   : store_append_lazy(store, RECORD_SESSION_PUT, &put.base);
}

uint64_t kept_remove(struct shard *shard, const uint8_t id[SESSION_ID_BYTES])
{
    Xylem__Store__V1__SessionRemove gone = XYLEM__STORE__V1__SESSION_REMOVE__INIT;
    gone.id = (ProtobufCBinaryData){ SESSION_ID_BYTES, (uint8_t *)(uintptr_t)id };
    return store_append(shard->store, RECORD_SESSION_REMOVE,
                        &gone.base); /* soon: it must not be had any more */
}

static void on_unkept(struct shard *shard, void *payload)
{
    session_kept(shard, *(struct session_ref *)payload, false);
}

/* The session is told when the record is gone: what it tells its client then, a restart must not contradict. */
static void unkeep(struct shard *shard, struct resource *resource)
{
    Xylem__Store__V1__SessionRemove gone = XYLEM__STORE__V1__SESSION_REMOVE__INIT;
    gone.id = (ProtobufCBinaryData){ SESSION_ID_BYTES, resource->kept.id };
    resource->kept.recorded = false;
    stat_add(shard, sessions_unkept, 1);
    uint64_t ticket = store_append(shard->store, RECORD_SESSION_REMOVE, &gone.base);
    shard_when_committed(shard, ticket, on_unkept, &resource->session, sizeof(resource->session));
}

/* A record that says what is no longer so is worse than none: without room for a new one the session does not outlive a
 * restart from here on. */
uint64_t kept_put(struct address *address, struct resource *resource, bool awaited)
{
    struct shard *shard = address->shard;
    if (!resource->kept.recorded)
        return 0;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    uint64_t ticket = arena ? put_in(address, resource, arena, awaited) : 0;
    if (arena)
        xy_arena_pool_give(shard->arenas, &arena);
    if (ticket == 0)
        unkeep(shard, resource);
    return ticket;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

Xylem__Store__V1__SessionPut *kept_unpack(struct xy_str value)
{
    Xylem__Store__V1__SessionPut *put =
        xylem__store__v1__session_put__unpack(NULL, value.len, (const uint8_t *)value.data);
    bool sound = put && put->id.len == SESSION_ID_BYTES && strchr(put->jid, '/') != NULL;
    if (put && !sound) {
        xylem__store__v1__session_put__free_unpacked(put, NULL);
        put = NULL;
    }
    return put;
}

struct resource *kept_read(struct address *address, const uint8_t id[SESSION_ID_BYTES])
{
    struct xy_arena *arena = xy_arena_pool_take(address->shard->arenas);
    struct xy_str value, key = xy_str_n((const char *)id, SESSION_ID_BYTES);
    Xylem__Store__V1__SessionPut *put = NULL;
    struct resource *resource = NULL;
    if (arena && store_get(address->shard->store, STORE_SESSIONS, key, arena, &value))
        put = kept_unpack(value);
    if (put && put->ended_us == 0)
        resource = resource_new(xy_jid_resource(xy_jid_canonical(xy_str(put->jid))));
    if (resource) {
        memcpy(resource->kept.id, id, SESSION_ID_BYTES);
        resource->kept.max_us = put->max_us;
        resource->kept.detached_us = put->detached_us;
        resource->kept.recorded = true;
        resource->priority = (int8_t)put->priority;
        resource->carbons_wanted = put->carbons;
        if (put->presence.len > 0)
            resource->presence = xy_bytes_new(xy_str_n((const char *)put->presence.data, put->presence.len));
        for (size_t i = 0; i < put->n_directed && i < ADDRESS_DIRECTED_MAX; i++)
            presence_directed_add(resource, xy_str(put->directed[i]));
    }
    if (put)
        xylem__store__v1__session_put__free_unpacked(put, NULL);
    if (arena)
        xy_arena_pool_give(address->shard->arenas, &arena);
    return resource;
}

/* --- what sessions say of themselves ------------------------------------------------------------------------------- */

struct keep_mail {
    struct session_ref session;
    uint64_t max_us;
    uint8_t id[SESSION_ID_BYTES];
    struct mail_str bare;
};

static void on_recorded(struct shard *shard, void *payload)
{
    session_kept(shard, *(struct session_ref *)payload, true);
}

static void keep_at_owner(struct shard *shard, void *payload)
{
    struct keep_mail *mail = payload;
    struct address *address = address_find(shard, mail_str_view(&mail->bare));
    struct resource *resource = address ? address_resource_of(address, mail->session) : NULL;
    mail_str_free(&mail->bare);
    if (!resource) {
        session_kept(shard, mail->session, false); /* it ends anyway */
        return;
    }
    memcpy(resource->kept.id, mail->id, SESSION_ID_BYTES);
    resource->kept.max_us = mail->max_us;
    resource->kept.resumable = resource->kept.recorded = true;
    uint64_t ticket = kept_put(address, resource, true);
    if (ticket != 0)
        shard_when_committed(shard, ticket, on_recorded, &mail->session, sizeof(mail->session));
}

void address_keep(struct shard *shard, struct session_ref session, struct xy_str bare,
                  const uint8_t id[SESSION_ID_BYTES], uint64_t max_us)
{
    struct keep_mail mail = { .session = session, .max_us = max_us };
    memcpy(mail.id, id, SESSION_ID_BYTES);
    if (mail_str_set(&mail.bare, bare))
        shard_mail(shard, shard_owner(shard, bare), keep_at_owner, &mail, mail_str_size(&mail, &mail.bare));
    else
        session_kept(shard, session, false);
}

static void note_detached(struct shard *shard, struct address *address, struct resource *resource,
                          bool detached)
{
    resource->kept.detached_us = detached ? xy_wall_us(shard->env) : 0;
    (void)kept_put(address, resource, false);
}

void address_set_detached(struct shard *shard, struct session_ref session, struct xy_str bare, bool detached)
{
    address_note(shard, note_detached, session, bare, detached);
}
