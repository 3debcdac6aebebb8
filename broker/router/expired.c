/* What is remembered of sessions that nobody resumed in time: how many stanzas of the client were handled, which it is told
 * when it comes too late (XEP-0198 5), so that it need not send again what was handled.
 *
 * As with <resumed/>, an h does not cover what the client does not know the outcome of: it ends before the oldest answer
 * that did not arrive. Which of them did says the client's own h. Their rows are those of the sessions; the newest
 * KEPT_EXPIRED_MAX of a shard stay for KEPT_EXPIRED_US. See resumable.h; called by dormant.c and restore.c. */
#include <stdlib.h>

#include "broker/delivery/outmap.h"
#include "broker/router/kept.h"

#define H_BEHIND_MAX (UINT32_C(1) << 31)

/* In addresses->expired, the oldest first. */
struct expired {
    struct xy_list link;
    uint64_t ended_us;
    uint8_t id[SESSION_ID_BYTES];
};

/* --- the list ------------------------------------------------------------------------------------------------------ */

static void forget_first(struct shard *shard)
{
    struct addresses *addresses = shard->router->addresses;
    struct expired *first = xy_container_of(addresses->expired.next, struct expired, link);
    (void)kept_remove(shard, first->id);
    xy_list_remove(&first->link);
    addresses->expired_count--;
    free(first);
}

static bool too_old(const struct shard *shard, uint64_t ended_us)
{
    return ended_us + KEPT_EXPIRED_US < xy_wall_us(shard->env);
}

static bool first_is_too_old(const struct shard *shard)
{
    const struct xy_list *list = &shard->router->addresses->expired;
    return !xy_list_empty(list) &&
           too_old(shard, xy_container_of(list->next, struct expired, link)->ended_us);
}

static void forget(struct shard *shard)
{
    while (shard->router->addresses->expired_count > KEPT_EXPIRED_MAX || first_is_too_old(shard))
        forget_first(shard);
}

/* Behind those that ended before it: when the shard starts they come in any order. */
static bool list(struct shard *shard, const uint8_t id[SESSION_ID_BYTES], uint64_t ended_us)
{
    struct addresses *addresses = shard->router->addresses;
    struct expired *expired = calloc(1, sizeof(*expired));
    struct xy_list *before = addresses->expired.prev;
    if (!expired)
        return false;
    expired->ended_us = ended_us;
    memcpy(expired->id, id, SESSION_ID_BYTES);
    while (before != &addresses->expired &&
           xy_container_of(before, struct expired, link)->ended_us > ended_us)
        before = before->prev;
    xy_list_append(before->next, &expired->link);
    addresses->expired_count++;
    return true;
}

void expired_load(struct shard *shard, const Xylem__Store__V1__SessionPut *put)
{
    (void)list(shard, put->id.data, put->ended_us); /* else it stays on disk until the next start */
}

void expired_free(struct shard *shard)
{
    struct addresses *addresses = shard->router->addresses;
    xy_list_each (link, &addresses->expired) {
        xy_list_remove(link);
        free(xy_container_of(link, struct expired, link));
    }
}

/* --- remembering ---------------------------------------------------------------------------------------------------- */

static uint64_t put(struct address *address, const struct resource *resource,
                    const struct session_expiry *expiry, uint64_t now_us)
{
    struct store_shard *store = address->shard->store;
    struct xy_arena *arena = xy_arena_pool_take(address->shard->arenas);
    Xylem__Store__V1__SessionPut put = XYLEM__STORE__V1__SESSION_PUT__INIT;
    uint64_t ticket = 0;
    if (!arena)
        return 0;
    struct xy_str jid = xy_arena_printf(arena, "%.*s/%.*s", XY_ARG(address->bare), XY_ARG(resource->name));
    put.id = (ProtobufCBinaryData){ SESSION_ID_BYTES, (uint8_t *)(uintptr_t)resource->kept.id };
    put.jid = (char *)(uintptr_t)jid.data;
    put.ended_us = now_us;
    put.handled = expiry->handled;
    put.acked = expiry->acked;
    put.resumed = expiry->resumed;
    put.answers = (uint64_t *)(void *)expiry->answers.data;
    put.n_answers = expiry->answers.len / sizeof(uint64_t);
    if (jid.data && store_room(store, KEPT_OVERHEAD + jid.len + expiry->answers.len))
        ticket = store_append(store, RECORD_SESSION_PUT, &put.base);
    xy_arena_pool_give(address->shard->arenas, &arena);
    return ticket;
}

uint64_t expired_put(struct address *address, const struct resource *resource,
                     const struct session_expiry *expiry)
{
    struct shard *shard = address->shard;
    uint64_t now_us = xy_wall_us(shard->env), ticket = 0;
    if (!xy_buf_failed(&expiry->answers) &&
        expiry->answers.len <= KEPT_EXPIRED_ANSWERS_MAX * sizeof(uint64_t) &&
        list(shard, resource->kept.id, now_us))
        ticket = put(address, resource, expiry, now_us);
    forget(shard);
    return ticket != 0 ? ticket : kept_remove(shard, resource->kept.id);
}

struct expiry_mail {
    struct session_ref session;
    struct session_expiry expiry;
    struct mail_str bare;
};

static void expire_at_owner(struct shard *shard, void *payload)
{
    struct expiry_mail *mail = payload;
    struct address *address = address_find(shard, mail_str_view(&mail->bare));
    struct resource *resource = address ? address_resource_of(address, mail->session) : NULL;
    if (resource && resource->kept.recorded) {
        address->ended = expired_put(address, resource, &mail->expiry);
        resource->kept.recorded = resource->kept.resumable = false;
    }
    xy_buf_free(&mail->expiry.answers);
    mail_str_free(&mail->bare);
}

void address_expire(struct shard *shard, struct session_ref session, struct xy_str bare,
                    struct session_expiry *expiry)
{
    struct expiry_mail mail = { .session = session, .expiry = *expiry };
    expiry->answers = (struct xy_buf){ 0 };
    if (mail_str_set(&mail.bare, bare))
        shard_mail(shard, shard_owner(shard, bare), expire_at_owner, &mail, mail_str_size(&mail, &mail.bare));
    else
        xy_buf_free(&mail.expiry.answers);
}

/* --- asked for ----------------------------------------------------------------------------------------------------- */

/* Not less than a <resumed/> told: what that covers the client does not send again, so its answers are gone. */
static uint64_t known_outcome(const Xylem__Store__V1__SessionPut *put, uint32_t h)
{
    const uint64_t *runs = put->answers;
    size_t count = put->n_answers;
    uint64_t known = put->handled;
    uint32_t arrived = h - (uint32_t)put->acked;
    struct out_run run;
    if (arrived >= H_BEHIND_MAX) /* it had told us more before */
        arrived = 0;
    while (outmap_next(&runs, &count, &run)) {
        uint64_t taken = run.count < arrived ? run.count : arrived;
        arrived -= (uint32_t)taken;
        if (run.kind == OUT_ANSWER && taken < run.count && run.first + taken - 1 < known)
            known = run.first + taken - 1;
    }
    return known > put->resumed ? known : put->resumed;
}

bool expired_h(struct address *address, const uint8_t id[SESSION_ID_BYTES], uint32_t client_h, uint32_t *h)
{
    struct xy_arena *arena = xy_arena_pool_take(address->shard->arenas);
    struct xy_str value, key = xy_str_n((const char *)id, SESSION_ID_BYTES);
    Xylem__Store__V1__SessionPut *put = NULL;
    if (arena && store_get(address->shard->store, STORE_SESSIONS, key, arena, &value))
        put = kept_unpack(value);
    bool own = put && put->ended_us != 0 && !too_old(address->shard, put->ended_us) &&
               xy_str_eq(xy_jid_bare(xy_jid_canonical(xy_str(put->jid))), address->bare);
    if (own)
        *h = (uint32_t)known_outcome(put, client_h);
    if (put)
        xylem__store__v1__session_put__free_unpacked(put, NULL);
    if (arena)
        xy_arena_pool_give(address->shard->arenas, &arena);
    return own;
}
