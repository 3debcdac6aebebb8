/* Claims: the at-least-once subscriptions that a session holds for the owners of their nodes (broker/delivery).
 *
 * Fan-outs walk the routes of this shard here: one array access to the session, one push to its outbox, per subscriber.
 * A claim whose session has no room stops taking deliveries until the owner, told so, begins a new run. */
#include <stdlib.h>
#include <string.h>

#include "broker/config.h"
#include "broker/session/session_internal.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

/* --- deliveries --------------------------------------------------------------------------------------------------- */

/* Does this delivery belong to the run that goes on, or begin the next? Runs are compared modulo 2^16. */
static bool run_accept(struct claim *claim, uint16_t run)
{
    if (claim->begun && run == claim->run)
        return !claim->stopped;
    if (claim->begun && (uint16_t)(run - claim->run) > UINT16_MAX / 2)
        return false;
    claim->begun = true;
    claim->run = run;
    claim->stopped = false;
    return true;
}

static void claim_stall(struct session *session, struct claim *claim, uint64_t unsent)
{
    claim->stopped = true;
    if (!claim->wants_ready)
        session->claims_waiting++;
    claim->wants_ready = true;
    outbox_touch(session); /* flushing looks whether there is room */
    stat_add(session->shard, events_stalled, 1);
    delivery_stalled(session->shard, claim->key, session->ref, claim->run, unsent);
}

static bool event_push(struct session *session, struct event *event, uint32_t claim, uint32_t attempt)
{
    struct xy_bytes *bytes = xy_bytes_ref(event_bytes(event));
    uint64_t tag = (uint64_t)attempt << 32 | claim;
    if (outbox_push(session, &bytes, ENTRY_EVENT, tag, event->seq))
        return true;
    xy_bytes_unref(&bytes);
    return false;
}

static bool claim_deliver(struct session *session, uint32_t index, uint16_t run, struct event *event,
                          uint32_t attempt)
{
    struct claim *claim = index < session->claims_count ? &session->claims[index] : NULL;
    if (claim == NULL || !claim->used || !run_accept(claim, run))
        return false; /* of a run that is over: the owner sends it again */
    bool absent = claim->flags != 0 && session->link == NULL;
    if (absent || outbox_full(session) || !event_push(session, event, index, attempt)) {
        claim_stall(session, claim, event->seq);
        return false;
    }
    claim->entries++;
    return true;
}

static bool deliver_live(struct session *session, const struct route *route, struct event *event)
{
    if ((route->flags & ROUTE_NOTICES) && event->seq != 0)
        return false;
    if (route->claim != DELIVERY_NO_CLAIM && event->seq != 0) /* notices without an item are owed to nobody */
        return claim_deliver(session, route->claim, route->run, event, 1);
    if (!outbox_full(session) && !shard_memory_is_short(session->shard) &&
        event_push(session, event, DELIVERY_NO_CLAIM, 1))
        return true;
    stat_add(session->shard, events_dropped, 1);
    return false;
}

void claims_publish(struct shard *shard, struct event *event, struct routes *routes)
{
    const struct sessions *sessions = shard->sessions;
    uint32_t delivered = 0;
    for (uint32_t i = 0; i < routes->count; i++) {
        const struct route *route = &routes->route[i];
        if (route->session >= sessions->slots_count)
            continue;
        const struct slot *slot = &sessions->slots[route->session];
        if (slot->generation != route->generation || slot->session->state < SESSION_BOUND)
            continue; /* gone: its address says so to the node's owner */
        delivered += deliver_live(slot->session, route, event);
    }
    stat_add(shard, events_delivered, delivered);
}

void claims_notify(struct shard *shard, struct session_ref ref, struct event *event)
{
    struct session *session = session_find(shard, ref);
    if (session == NULL || session->state < SESSION_BOUND)
        return;
    if (outbox_full(session) || shard_memory_is_short(shard) ||
        !event_push(session, event, DELIVERY_NO_CLAIM, 1))
        stat_add(shard, events_dropped, 1);
}

void claims_one(struct shard *shard, struct session_ref ref, uint32_t index, uint16_t run,
                struct event *event, uint32_t attempt, bool page_end)
{
    struct session *session = session_find(shard, ref);
    if (session == NULL || !claim_deliver(session, index, run, event, attempt))
        return; /* a session's end is told by `released`, a full outbox by `stalled` */
    stat_add(shard, events_delivered, 1);
    if (!page_end || session->claims[index].wants_ready)
        return;
    session->claims[index].wants_ready = true;
    session->claims_waiting++;
    claims_room(session);
}

/* --- acknowledgements --------------------------------------------------------------------------------------------- */

void claims_acked(struct session *session, uint32_t index, uint64_t seq)
{
    xy_assert(index < session->claims_count);
    struct claim *claim = &session->claims[index];
    xy_assert(claim->entries > 0);
    claim->entries--;
    if (!claim->used && claim->entries == 0 && index < session->claims_free)
        session->claims_free = index; /* it may be used again */
    if (!claim->used || claim->flags != 0 || seq <= claim->acked)
        return;
    claim->acked = seq;
    if (claim->dirty)
        return;
    claim->dirty = true;
    claim->next_dirty = session->claims_dirty;
    session->claims_dirty = index + 1;
}

void claims_dropped(struct session *session, uint32_t index)
{
    xy_assert(index < session->claims_count && session->claims[index].entries > 0);
    session->claims[index].entries--;
}

void claims_tell(struct session *session)
{
    while (session->claims_dirty != 0) {
        struct claim *claim = &session->claims[session->claims_dirty - 1];
        session->claims_dirty = claim->next_dirty;
        claim->dirty = false;
        if (claim->used)
            delivery_acked(session->shard, claim->key, session->ref, claim->acked);
    }
}

static bool outbox_below_half(const struct session *session)
{
    const struct config *config = session->shard->config;
    return session->queue.bytes_unsent + session->queue.bytes_kept <= config->limits.outbox / 2 &&
           session->queue.tail - session->queue.acked <= config->sm.queue / 2;
}

void claims_room(struct session *session)
{
    if (session->claims_waiting == 0 || !outbox_below_half(session))
        return;
    for (uint32_t i = 0; i < session->claims_count && session->claims_waiting > 0; i++) {
        struct claim *claim = &session->claims[i];
        if (!claim->used || !claim->wants_ready || (claim->flags != 0 && session->link == NULL))
            continue;
        claim->wants_ready = false;
        session->claims_waiting--;
        delivery_ready(session->shard, claim->key, session->ref, claim->run);
    }
}

/* --- attaching and letting go ------------------------------------------------------------------------------------- */

/* A slot is free when nothing names it any more: entries in the queue are still rendered with its subid, and their
 * acknowledgement must not count for somebody else. */
static struct claim *claim_new(struct session *session)
{
    for (uint32_t i = session->claims_free; i < session->claims_count; i++) {
        const struct claim *claim = &session->claims[i];
        if (claim->used || claim->dirty || claim->entries > 0)
            continue;
        session->claims_free = i + 1;
        return &session->claims[i];
    }
    if (session->claims_count >= SESSION_CLAIMS_MAX)
        return NULL;
    if (session->claims_count == session->claims_cap) {
        uint32_t cap = session->claims_cap ? 2 * session->claims_cap : 4;
        struct claim *claims = realloc(session->claims, cap * sizeof(struct claim));
        if (claims == NULL)
            return NULL;
        session->claims = claims;
        session->claims_cap = cap;
    }
    session->claims_free = session->claims_count + 1;
    return &session->claims[session->claims_count++];
}

void claims_attach(struct shard *shard, struct session_ref ref, const struct claim_key *key, unsigned flags,
                   struct xy_str subid)
{
    struct session *session = session_find(shard, ref);
    bool able = session && session->state >= SESSION_BOUND && (session->sm || flags != 0) &&
                subid.len <= SESSION_SUBID_MAX;
    struct claim *claim = able ? claim_new(session) : NULL;
    if (claim == NULL) {
        delivery_released(shard, *key, ref, 0);
        return;
    }
    *claim =
        (struct claim){ .key = *key, .used = true, .flags = (uint8_t)flags, .subid_len = (uint8_t)subid.len };
    memcpy(claim->subid, subid.data, subid.len);
    delivery_attached(shard, *key, ref, (uint32_t)(claim - session->claims));
}

void claims_detach(struct shard *shard, struct session_ref ref, uint32_t index)
{
    struct session *session = session_find(shard, ref);
    if (session == NULL || index >= session->claims_count || !session->claims[index].used)
        return;
    struct claim *claim = &session->claims[index];
    if (claim->wants_ready)
        session->claims_waiting--;
    claim->wants_ready = false;
    claim->used = false;
    if (index < session->claims_free)
        session->claims_free = index;
}

void claims_release(struct session *session)
{
    for (uint32_t i = 0; i < session->claims_count; i++) {
        struct claim *claim = &session->claims[i];
        if (claim->used)
            delivery_released(session->shard, claim->key, session->ref, claim->acked);
        claim->used = false;
    }
    session->claims_waiting = 0;
}
