/* Who gets an event: per shard a vector of live routes, rebuilt at the first event after something changed, and what the
 * owners of subscribers' addresses tell us about their sessions. A publish costs one mail per shard that has routes,
 * whatever their number. Called by publish and by everything that notifies. */
#include "broker/pubsub/node/expiry.h"
#include "broker/pubsub/node/resident.h"
#include "broker/pubsub/queue/queue.h"

#include <stdlib.h>

#include "broker/log.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

void routes_changed(struct node *node, const struct session_ref *session)
{
    xy_assert(session->shard < 64);
    node->routes_stale |= (uint64_t)1 << session->shard;
}

void routes_changed_for(struct node *node, const struct subscriber *subscriber)
{
    for (size_t i = 0; i < subscriber->reached_count; i++)
        routes_changed(node, &subscriber->reached[i].session);
}

/* --- vectors ------------------------------------------------------------------------------------------------------- */

static bool gather(struct pubsub *pubsub, uint32_t *count, struct route route)
{
    if (*count == pubsub->gathered_cap) {
        size_t cap = pubsub->gathered_cap ? pubsub->gathered_cap * 2 : 64;
        struct route *grown = realloc(pubsub->gathered, cap * sizeof(*grown));
        if (grown == NULL)
            return false;
        pubsub->gathered = grown;
        pubsub->gathered_cap = cap;
    }
    pubsub->gathered[(*count)++] = route;
    return true;
}

static struct route route_to(struct session_ref session, uint32_t claim, uint16_t run)
{
    return (struct route){
        .session = session.index, .generation = session.generation, .claim = claim, .run = run
    };
}

/* At most once: one copy per session, however many subscriptions of the account reach it. */
static bool wants_now(const struct subscriber *subscriber, const struct reached *reached)
{
    for (const struct subscription *s = subscriber->subscriptions; s != NULL; s = s->next)
        if (s->active && s->options.deliver && !subscription_claims(s) && subscription_reaches(s, reached))
            return true;
    return false;
}

static bool gather_subscriber(struct pubsub *pubsub, const struct subscriber *subscriber, unsigned shard,
                              uint32_t *count)
{
    if (subscriber->node->config.deliver_notifications) {
        for (size_t i = 0; i < subscriber->reached_count; i++) {
            const struct reached *reached = &subscriber->reached[i];
            if (reached->session.shard == shard && wants_now(subscriber, reached) &&
                !gather(pubsub, count, route_to(reached->session, DELIVERY_NO_CLAIM, 0)))
                return false;
        }
    }
    for (const struct subscription *s = subscriber->subscriptions; s != NULL; s = s->next) {
        const struct claim *claim = &s->claim;
        struct route route = route_to(claim->session, claim->index, claim->run);
        route.flags = claim->state == CLAIM_LIVE ? 0 : ROUTE_NOTICES;
        if (claim_routed(claim) && claim->session.shard == shard && !gather(pubsub, count, route))
            return false;
    }
    return true;
}

static void rebuild(struct node *node, unsigned shard)
{
    struct pubsub *pubsub = node->pubsub;
    uint32_t count = 0;
    size_t position = 0;
    bool complete = true;
    for (const struct subscriber *s;
         complete && (s = xy_table_next(node->subscribers, &position, NULL)) != NULL;)
        complete = gather_subscriber(pubsub, s, shard, &count);
    struct routes *routes = complete && count > 0 ? routes_new(count) : NULL;
    if (!complete || (count > 0 && routes == NULL)) {
        log_error(pubsub->shard->log, "routes not rebuilt: memory is short", LOG_STR("node", node->name));
        claim_unroute(node, shard);
        if (node->routes[shard] != NULL) /* they would bring some claims what comes again */
            routes_unref(&node->routes[shard]);
        return;
    }
    if (routes != NULL)
        memcpy(routes->route, pubsub->gathered, count * sizeof(*pubsub->gathered));
    if (node->routes[shard] != NULL)
        routes_unref(&node->routes[shard]);
    node->routes[shard] = routes;
    node->routes_stale &= ~((uint64_t)1 << shard);
}

/* --- delivering ---------------------------------------------------------------------------------------------------- */

void routes_deliver(struct node *node, struct event **event_pointer, uint64_t seq)
{
    struct event *event = *event_pointer;
    struct shard *shard = node->pubsub->shard;
    unsigned shards = shard_count(shard);
    *event_pointer = NULL;
    for (unsigned i = 0; i < shards; i++) {
        if (node->routes_stale & (uint64_t)1 << i)
            rebuild(node, i);
        struct routes *routes = node->routes[i];
        if (routes == NULL)
            continue;
        atomic_fetch_add_explicit(&routes->refs, 1, memory_order_relaxed);
        node->pubsub->stats.delivered_live += routes->count;
        delivery_publish(shard, i, event_ref(event), routes);
    }
    if (seq != 0) {
        xy_assert(seq > node->delivered_seq);
        node->delivered_seq = seq;
        if (node->queue != NULL)
            queue_item_committed(node->queue, seq);
        claim_published(node);
    }
    event_unref(&event);
}

struct waiting {
    struct node *node; /* stays until everything that waits has run (manage.c) */
    struct event *event;
    uint64_t seq;
};

static void on_committed(struct shard *shard, void *payload)
{
    struct waiting *waiting = payload;
    (void)shard;
    xy_assert(waiting->node->waiting > 0);
    waiting->node->waiting--;
    routes_deliver(waiting->node, &waiting->event, waiting->seq);
}

void routes_deliver_after(struct node *node, struct event **event, uint64_t seq)
{
    struct waiting waiting = { node, *event, seq };
    *event = NULL;
    node->waiting++;
    shard_when_committed(node->pubsub->shard, node->ticket, on_committed, &waiting, sizeof(waiting));
}

/* --- sessions of subscribers --------------------------------------------------------------------------------------- */

void routes_watch(struct subscriber *subscriber)
{
    struct node *node = subscriber->node;
    address_watch(node->pubsub->shard, subscriber->bare, node->name);
}

void routes_send_last(struct node *node, const struct reached *reached)
{
    struct item *item = index_newest(&node->items);
    if (item == NULL || item->seq > node->delivered_seq ||
        expiry_over(node, item, xy_wall_us(node->pubsub->shard->env)))
        return; /* none, or one that is about to be delivered to all */
    struct event *event;
    if (event_of_entry(node, item, true, &event) == ITEM_READ)
        delivery_notify(node->pubsub->shard, reached->session, event);
}

static const struct reached *among(const struct reached *all, size_t count, struct session_ref session)
{
    for (size_t i = 0; i < count; i++)
        if (session_ref_eq(all[i].session, session))
            return &all[i];
    return NULL;
}

/* Sessions that were not there before, and subscriptions whose subscriber asked just now. */
static void send_last(struct subscriber *subscriber, const struct reached *before, size_t before_count)
{
    struct node *node = subscriber->node;
    bool on_presence = node->config.send_last == SEND_LAST_ON_SUB_AND_PRESENCE && subscriber->heard;
    for (size_t i = 0; i < subscriber->reached_count; i++) {
        const struct reached *reached = &subscriber->reached[i];
        bool fresh = on_presence && among(before, before_count, reached->session) == NULL;
        bool wanted = false;
        for (const struct subscription *s = subscriber->subscriptions; s != NULL; s = s->next)
            wanted = wanted || (s->active && s->options.deliver && !subscription_claims(s) &&
                                subscription_reaches(s, reached) && (fresh || s->last_wanted));
        if (wanted)
            routes_send_last(node, reached);
    }
    for (struct subscription *s = subscriber->subscriptions; s != NULL; s = s->next)
        s->last_wanted = s->last_wanted && !s->active;
}

static struct reached *copy_routes(const struct address_routes *routes)
{
    struct reached *copy = calloc(routes->count + 1, sizeof(*copy));
    for (size_t i = 0; copy != NULL && i < routes->count; i++) {
        const struct address_route *from = &routes->routes[i];
        char *resource = malloc(from->resource.len + 1);
        if (resource == NULL) {
            while (i-- > 0)
                free((void *)(uintptr_t)copy[i].resource.data);
            free(copy);
            return NULL;
        }
        if (from->resource.len > 0)
            memcpy(resource, from->resource.data, from->resource.len);
        copy[i] = (struct reached){ from->session, from->priority, from->sm,
                                    xy_str_n(resource, from->resource.len) };
    }
    return copy;
}

void routes_on_watch(struct shard *shard, struct xy_str name, const struct address_routes *routes)
{
    struct pubsub *pubsub = shard->pubsub;
    struct node *node = xy_table_get(pubsub->nodes, name);
    if (node == NULL && routes->count == 0)
        return; /* that nobody is there is no reason to load it */
    enum resident resident = resident_find(pubsub, name, &node);
    if (resident == RESIDENT_LOADING || resident == RESIDENT_FAILED)
        return; /* it asks when it was loaded */
    struct subscriber *subscriber = node != NULL ? node_subscriber(node, routes->bare) : NULL;
    if (subscriber == NULL) {
        address_unwatch(shard, routes->bare, name); /* the subscription ended meanwhile */
        return;
    }
    struct reached *now = copy_routes(routes), *before = subscriber->reached;
    size_t before_count = subscriber->reached_count;
    if (now == NULL)
        return;
    routes_changed_for(node, subscriber);
    subscriber->reached = now;
    subscriber->reached_count = routes->count;
    node->present_count += routes->count > 0;
    node->present_count -= before_count > 0;
    routes_changed_for(node, subscriber);
    send_last(subscriber, before, before_count);
    subscriber->heard = true;
    for (struct subscription *s = subscriber->subscriptions; s != NULL; s = s->next)
        subscription_answer(s);
    for (size_t i = 0; i < before_count; i++)
        free((void *)(uintptr_t)before[i].resource.data);
    free(before);
    for (struct subscription *s = subscriber->subscriptions, *next; s != NULL; s = next) {
        next = s->next;
        claim_sessions_changed(s);
    }
}
