/* Nodes, affiliations, subscribers and subscriptions in memory: making, finding and freeing them. Records are written by
 * record.c, what is stored is read by load.c. Called by every handler. */
#include "broker/pubsub/node/expiry.h"
#include "broker/pubsub/node/remains.h"
#include "broker/pubsub/node/resident.h"
#include "broker/pubsub/queue/queue.h"

#include <stdlib.h>

#include "core/base/assert.h"

/* --- nodes --------------------------------------------------------------------------------------------------------- */

struct node *node_by_number(struct pubsub *pubsub, uint64_t number)
{
    char key[8];
    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (char)(unsigned char)(number >> (8 * (7 - i)));
    return xy_table_get(pubsub->by_number, xy_str_n(key, sizeof(key)));
}

struct node *node_get(struct pubsub *pubsub, struct xy_str name)
{
    struct node *node;
    (void)resident_find(pubsub, name, &node);
    return node;
}

static struct xy_str put_text(char *at, struct xy_str text)
{
    if (text.len > 0)
        memcpy(at, text.data, text.len);
    at[text.len] = '\0';
    return xy_str_n(at, text.len);
}

static void forget_event(struct pubsub *pubsub, struct item *item)
{
    if (item->event == NULL)
        return;
    xy_list_remove(&item->recent_link);
    pubsub->recent_bytes -= item->event->body_len;
    event_unref(&item->event);
}

void node_item_released(struct pubsub *pubsub, struct item *item)
{
    forget_event(pubsub, item);
    if (item->body != NULL)
        pubsub->stats.memory_bytes -= item->body->len;
    xy_bytes_unref(&item->body);
    pubsub->stats.items--;
}

static void on_item_gone(void *ctx, struct item *item)
{
    struct node *node = ctx;
    node_item_released(node->pubsub, item);
    if (node->queue != NULL)
        queue_item_gone(node->queue, item);
}

struct item *node_add_item(struct node *node, uint64_t seq, struct xy_str id, struct xy_str publisher,
                           uint32_t bytes, uint64_t time_us, bool retained, uint32_t pending)
{
    struct item *item = index_add(&node->items, seq, id, publisher, bytes, time_us, retained, pending);
    node->pubsub->stats.items += item != NULL;
    return item;
}

void node_remember_event(struct node *node, struct item *item, struct event *event)
{
    struct pubsub *pubsub = node->pubsub;
    xy_assert(item->event == NULL);
    item->event = event_ref(event);
    xy_list_append(&pubsub->recent, &item->recent_link);
    pubsub->recent_bytes += event->body_len;
    while (pubsub->recent_bytes > RECENT_BYTES_MAX)
        forget_event(pubsub, xy_container_of(pubsub->recent.next, struct item, recent_link));
}

bool node_keep_body(struct node *node, struct item *item, struct xy_str body)
{
    item->body = xy_bytes_new(body);
    if (item->body == NULL)
        return false;
    node->pubsub->stats.memory_bytes += item->body->len;
    return true;
}

bool node_forget_items(struct node *node)
{
    struct item_index fresh;
    struct queue_engine *engine = NULL;
    if (!index_init(&fresh, node->pubsub->hash_seed))
        return false;
    if (node->queue != NULL && !queue_forget_items(node->queue, &engine)) {
        index_free(&fresh);
        return false;
    }
    index_continue(&fresh, &node->items);
    remains_leave(node->pubsub, &node->items, &engine);
    index_move(&node->items, &fresh);
    if (node->items.changed != NULL)
        node->items.changed(node->items.ctx);
    return true;
}

struct node *node_make(struct pubsub *pubsub, struct xy_str name, uint64_t number, struct xy_str creator)
{
    struct node *node = calloc(1, sizeof(*node) + name.len + creator.len + 2);
    if (node == NULL)
        return NULL;
    node->pubsub = pubsub;
    node->number = number;
    node->name = put_text(node->text, name);
    node->creator = put_text(node->text + name.len + 1, creator);
    node->next_seq = 1;
    node->next_number = 1;
    node->routes_stale = UINT64_MAX;
    xy_list_init(&node->dirty_link);
    xy_list_init(&node->open);
    xy_list_init(&node->used_link);
    backlog_init(node);
    expiry_init(node);
    for (size_t i = 0; i < sizeof(node->key); i++)
        node->key[i] = (unsigned char)(number >> (8 * (7 - i)));
    node->affiliations = xy_table_new(pubsub->hash_seed);
    node->subscribers = xy_table_new(pubsub->hash_seed);
    node->numbers = xy_table_new(pubsub->hash_seed);
    node->routes = calloc(shard_count(pubsub->shard), sizeof(struct routes *));
    bool made = index_init(&node->items, pubsub->hash_seed) && node->affiliations != NULL &&
                node->subscribers != NULL && node->numbers != NULL && node->routes != NULL &&
                options_init(node_options, &node->config);
    node->items.released = on_item_gone;
    node->items.ctx = node;
    if (!made)
        node_free(&node);
    return node;
}

bool node_list(struct node *node)
{
    struct pubsub *pubsub = node->pubsub;
    struct xy_str key = xy_str_n((const char *)node->key, sizeof(node->key));
    if (!xy_table_put(pubsub->by_number, key, node, NULL))
        return false;
    if (!xy_table_put(pubsub->nodes, node->name, node, NULL)) {
        xy_table_remove(pubsub->by_number, key);
        return false;
    }
    pubsub->stats.nodes++;
    resident_touch(node);
    if (node->queue != NULL)
        queue_touch(node->queue);
    return true;
}

struct node *node_new(struct pubsub *pubsub, struct xy_str name, uint64_t number, struct xy_str creator)
{
    struct node *node = node_make(pubsub, name, number, creator);
    if (node != NULL && !node_list(node))
        node_free(&node);
    return node;
}

void node_unlist(struct node *node)
{
    struct pubsub *pubsub = node->pubsub;
    if (xy_table_get(pubsub->nodes, node->name) == node) {
        xy_table_remove(pubsub->nodes, node->name);
        pubsub->stats.nodes--;
    }
    xy_table_remove(pubsub->by_number, xy_str_n((const char *)node->key, sizeof(node->key)));
    xy_list_remove(&node->dirty_link);
    resident_forget(node);
    backlog_stop(node);
    shard_timer_cancel(pubsub->shard, &node->expiry);
    queue_stop(node->queue);
    node->moved = NULL;
    node->gone = true;
}

static void subscriber_free(struct subscriber *subscriber)
{
    for (size_t i = 0; i < subscriber->reached_count; i++)
        free((void *)(uintptr_t)subscriber->reached[i].resource.data);
    free(subscriber->reached);
    free(subscriber);
}

/* Waits for the newest record of the node, as every answer does. */
void subscription_answer(struct subscription *subscription)
{
    const struct node *node = subscription->subscriber->node;
    if (subscription->asked != NULL)
        request_reply(node->pubsub->shard, &subscription->asked, subscription->answer, node->ticket);
    subscription->answer = NULL;
}

static void subscription_free(struct subscription *subscription)
{
    subscription_answer(subscription);
    claim_free(subscription);
    options_free(subscription_options, &subscription->options);
    free(subscription->worker);
    free(subscription);
}

void node_free(struct node **node_pointer)
{
    struct node *node = *node_pointer;
    *node_pointer = NULL;
    struct queue_engine *engine = NULL;
    queue_free(&node->queue, &engine); /* before its consumers and items */
    size_t position = 0;
    void *value;
    while (node->affiliations != NULL && (value = xy_table_next(node->affiliations, &position, NULL)) != NULL)
        free(value);
    position = 0;
    while (node->numbers != NULL && (value = xy_table_next(node->numbers, &position, NULL)) != NULL)
        subscription_free(value);
    position = 0;
    while (node->subscribers != NULL && (value = xy_table_next(node->subscribers, &position, NULL)) != NULL)
        subscriber_free(value);
    for (unsigned i = 0; node->routes != NULL && i < shard_count(node->pubsub->shard); i++)
        if (node->routes[i] != NULL)
            routes_unref(&node->routes[i]);
    free(node->routes);
    xy_table_free(&node->numbers);
    xy_table_free(&node->affiliations);
    xy_table_free(&node->subscribers);
    if (node->items.ids != NULL)
        remains_leave(node->pubsub, &node->items, &engine);
    backlog_free(node);
    shard_timer_cancel(node->pubsub->shard, &node->expiry);
    dedup_free(&node->dedup);
    xy_buf_free(&node->freed);
    options_free(node_options, &node->config);
    free(node);
}

/* --- affiliations -------------------------------------------------------------------------------------------------- */

static const char *const affiliation_names[] = {
    [AFFILIATION_NONE] = "none",           [AFFILIATION_OUTCAST] = "outcast",
    [AFFILIATION_MEMBER] = "member",       [AFFILIATION_PUBLISH_ONLY] = "publish-only",
    [AFFILIATION_PUBLISHER] = "publisher", [AFFILIATION_OWNER] = "owner",
};

const char *affiliation_name(enum affiliation affiliation)
{
    return affiliation_names[affiliation];
}

bool affiliation_parse(struct xy_str text, enum affiliation *out)
{
    for (size_t i = 0; i < sizeof(affiliation_names) / sizeof(*affiliation_names); i++) {
        if (xy_str_is(text, affiliation_names[i])) {
            *out = (enum affiliation)i;
            return true;
        }
    }
    return false;
}

enum affiliation node_affiliation(const struct node *node, struct xy_str bare)
{
    const struct affiliated *affiliated = xy_table_get(node->affiliations, bare);
    return affiliated != NULL ? affiliated->affiliation : AFFILIATION_NONE;
}

bool node_set_affiliation(struct node *node, struct xy_str bare, enum affiliation affiliation)
{
    struct affiliated *affiliated = xy_table_get(node->affiliations, bare);
    if (affiliation == AFFILIATION_NONE) {
        if (affiliated != NULL)
            xy_table_remove(node->affiliations, bare);
        free(affiliated);
        return true;
    }
    if (affiliated != NULL) {
        affiliated->affiliation = affiliation;
        return true;
    }
    affiliated = malloc(sizeof(*affiliated) + bare.len + 1);
    if (affiliated == NULL)
        return false;
    affiliated->affiliation = affiliation;
    affiliated->jid = put_text(affiliated->text, bare);
    if (xy_table_put(node->affiliations, affiliated->jid, affiliated, NULL))
        return true;
    free(affiliated);
    return false;
}

size_t node_owners(const struct node *node)
{
    size_t owners = 0, position = 0;
    for (const struct affiliated *a; (a = xy_table_next(node->affiliations, &position, NULL)) != NULL;)
        owners += a->affiliation == AFFILIATION_OWNER;
    return owners;
}

bool node_may_read(const struct node *node, enum affiliation affiliation)
{
    if (affiliation == AFFILIATION_OUTCAST || affiliation == AFFILIATION_PUBLISH_ONLY)
        return false;
    return node->config.access_model == ACCESS_OPEN || affiliation != AFFILIATION_NONE;
}

bool node_is_memory(const struct node *node)
{
    return node->config.durability == DURABILITY_MEMORY;
}

bool node_retains(const struct node *node)
{
    return node->config.persist_items && node->config.max_items > 0;
}

/* --- subscriptions ------------------------------------------------------------------------------------------------- */

bool subscription_durable(const struct subscription *subscription)
{
    return subscription->options.mode == MODE_AT_LEAST_ONCE && !subscription->subscriber->node->config.queue;
}

bool subscription_claims(const struct subscription *subscription)
{
    return subscription_durable(subscription) || subscription->subscriber->node->config.queue;
}

/* A bare JID stands for every session that is not of negative priority, a full one for its own, of whatever priority (as in
 * RFC 6121 8.5.3.1): so a program gets its items and none of the messages to its account. */
bool subscription_reaches(const struct subscription *subscription, const struct reached *reached)
{
    size_t bare_len = subscription->subscriber->bare.len;
    if (subscription->jid.len == bare_len)
        return reached->priority >= 0;
    struct xy_str resource =
        xy_str_n(subscription->jid.data + bare_len + 1, subscription->jid.len - bare_len - 1);
    return xy_str_eq(resource, reached->resource);
}

struct subscriber *node_subscriber(const struct node *node, struct xy_str bare)
{
    return xy_table_get(node->subscribers, bare);
}

struct subscription *node_subscription(const struct node *node, uint32_t number)
{
    return xy_table_get(node->numbers, xy_str_n((const char *)&number, sizeof(number)));
}

struct subscription *node_next_subscription(const struct node *node, size_t *position)
{
    return xy_table_next(node->numbers, position, NULL);
}

static struct xy_str number_key(const struct subscription *subscription)
{
    return xy_str_n((const char *)&subscription->number, sizeof(subscription->number));
}

static struct subscriber *subscriber_make(struct node *node, struct xy_str bare)
{
    struct subscriber *subscriber = node_subscriber(node, bare);
    if (subscriber != NULL)
        return subscriber;
    subscriber = calloc(1, sizeof(*subscriber) + bare.len + 1);
    if (subscriber == NULL)
        return NULL;
    subscriber->node = node;
    subscriber->bare = put_text(subscriber->text, bare);
    if (xy_table_put(node->subscribers, subscriber->bare, subscriber, NULL))
        return subscriber;
    free(subscriber);
    return NULL;
}

static void subscriber_drop(struct subscriber *subscriber)
{
    xy_table_remove(subscriber->node->subscribers, subscriber->bare);
    subscriber->node->present_count -= subscriber->reached_count > 0;
    subscriber_free(subscriber);
}

struct subscription *node_add_subscription(struct node *node, struct xy_jid jid, uint32_t number,
                                           struct subscription_options *options)
{
    struct xy_str full = xy_jid_full(jid);
    struct subscription *subscription = backlog_reserve(node, node->subscriptions_count + 1)
                                            ? calloc(1, sizeof(*subscription) + full.len + 1)
                                            : NULL;
    if (subscription == NULL)
        return NULL;
    subscription->number = number != 0 ? number : node->next_number;
    xy_assert(xy_table_get(node->numbers, number_key(subscription)) == NULL);
    struct subscriber *subscriber = subscriber_make(node, xy_jid_bare(jid));
    subscription->subscriber = subscriber;
    if (subscriber == NULL || !claim_prepare(subscription, options) ||
        !xy_table_put(node->numbers, number_key(subscription), subscription, NULL)) {
        if (subscriber != NULL)
            claim_free(subscription);
        if (subscriber != NULL && subscriber->subscriptions == NULL)
            subscriber_drop(subscriber);
        free(subscription);
        return NULL;
    }
    if (subscription->number >= node->next_number)
        node->next_number = subscription->number + 1;
    subscription->jid = put_text(subscription->text, full);
    subscription->options = *options;
    memset(options, 0, sizeof(*options));
    subscription->next = subscriber->subscriptions;
    subscriber->subscriptions = subscription;
    subscriber->subscriptions_count++;
    node->subscriptions_count++;
    node->pubsub->stats.subscriptions++;
    return subscription;
}

void node_drop_subscription(struct node *node, struct subscription *subscription)
{
    struct subscriber *subscriber = subscription->subscriber;
    xy_assert(subscription->claim.state == CLAIM_DETACHED);
    void *removed = xy_table_remove(node->numbers, number_key(subscription));
    xy_assert(removed == subscription);
    for (struct subscription **at = &subscriber->subscriptions; *at != NULL; at = &(*at)->next) {
        if (*at == subscription) {
            *at = subscription->next;
            break;
        }
    }
    for (struct subscription **at = &node->moved; *at != NULL; at = &(*at)->moved_next) {
        if (*at == subscription) {
            *at = subscription->moved_next;
            break;
        }
    }
    xy_assert(subscription->backlog.in_time == 0);
    subscription_free(subscription);
    subscriber->subscriptions_count--;
    node->subscriptions_count--;
    node->pubsub->stats.subscriptions--;
    if (subscriber->subscriptions != NULL)
        return;
    address_unwatch(node->pubsub->shard, subscriber->bare, node->name);
    subscriber_drop(subscriber);
}
