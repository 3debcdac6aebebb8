/* Nodes coming into memory and leaving it. See resident.h; called by node_get, pubsub.c and routes.c. */
#include "broker/pubsub/node/resident.h"

#include <stdlib.h>

#include "broker/config.h"
#include "broker/log.h"
#include "broker/pubsub/node/expiry.h"
#include "broker/pubsub/node/load.h"
#include "broker/pubsub/queue/queue.h"
#include "broker/pubsub/claim/sent.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

/* A large node on its way. */
struct loading {
    struct xy_list link;
    struct load *load;
    struct request **waiting;
    size_t count, cap;
    struct xy_buf noted; /* of struct note */
    struct xy_str name;
    char text[];
};

struct note {
    struct claim_key key;
    uint64_t seq;
};

/* --- what a node takes ---------------------------------------------------------------------------------------------- */

/* Of the entries of a table, each with the free room behind it. */
static uint64_t table_memory(uint64_t entries, size_t size)
{
    return entries * (size + 2 * XY_TABLE_ENTRY_BYTES);
}

static uint64_t items_memory(const struct node *node)
{
    const struct item_index *items = &node->items;
    uint64_t queue = node->queue != NULL ? queue_entries(node->queue->engine) : 0;
    return items->entries_bytes + items->cap * sizeof(struct item_slot) +
           table_memory(items->retained_count, 0) +
           table_memory(queue, sizeof(struct queue_entry) + 4 * sizeof(void *)); /* and in two heaps */
}

static uint64_t node_memory(const struct node *node)
{
    return sizeof(*node) + node->name.len + items_memory(node) +
           table_memory(node->subscriptions_count, sizeof(struct subscription)) +
           table_memory(node->subscriptions_count, sizeof(struct subscriber)) +
           table_memory(xy_table_count(node->affiliations), sizeof(struct affiliated)) +
           (node->dedup != NULL ? dedup_count(node->dedup) * DEDUP_KEY_BYTES : 0);
}

static void count(struct node *node)
{
    struct pubsub *pubsub = node->pubsub;
    uint64_t bytes = node_memory(node);
    pubsub->stats.node_bytes += bytes - node->counted_bytes;
    node->counted_bytes = bytes;
}

/* More than there may be, even if all of it is used? */
static bool far_too_much(const struct pubsub *pubsub, uint64_t factor)
{
    const struct shard *shard = pubsub->shard;
    uint64_t share = shard->config->limits.node_memory / shard_count(shard);
    return shard_memory_is_short(shard) || pubsub->stats.node_bytes / factor > share;
}

static bool too_much(const struct pubsub *pubsub)
{
    return far_too_much(pubsub, 1);
}

void resident_touch(struct node *node)
{
    struct pubsub *pubsub = node->pubsub;
    count(node);
    node->used_us = xy_now_us(pubsub->shard->env);
    xy_list_remove(&node->used_link);
    xy_list_append(&pubsub->used, &node->used_link);
    if (too_much(pubsub))
        resident_trim(pubsub);
}

void resident_forget(struct node *node)
{
    node->pubsub->stats.node_bytes -= node->counted_bytes;
    node->counted_bytes = 0;
    xy_list_remove(&node->used_link);
}

/* --- leaving -------------------------------------------------------------------------------------------------------- */

static bool claims_idle(const struct node *node)
{
    size_t position = 0;
    for (const struct subscription *s; (s = node_next_subscription(node, &position)) != NULL;) {
        const struct claim *claim = &s->claim;
        if (s->asked != NULL || !s->active || claim->state != CLAIM_DETACHED)
            return false;
        if (claim->ops != NULL && (claim->ops->idle == NULL || !claim->ops->idle(s)))
            return false;
    }
    return true;
}

static bool queue_idle(const struct node *node)
{
    return node->queue == NULL || (node->items.live == 0 && node->subscriptions_count == 0 &&
                                   xy_list_empty(&node->queue->dirty) && node->queue->ended.len == 0);
}

/* Everything about it is on disk and nobody is there for whom it would do something. */
static bool idle(const struct node *node)
{
    return node->waiting == 0 && node->present_count == 0 && !xy_list_linked(&node->dirty_link) &&
           store_committed(node->pubsub->shard->store) >= node->ticket &&
           !(node_is_memory(node) && node->items.live > 0) &&
           node->ids_until_us <= xy_now_us(node->pubsub->shard->env) && !queue_is_moving(node) &&
           queue_idle(node) && claims_idle(node) && !backlog_waits(node);
}

static void leave(struct node *node)
{
    struct pubsub *pubsub = node->pubsub;
    size_t position = 0;
    for (const struct subscription *s; (s = node_next_subscription(node, &position)) != NULL;)
        sent_remember(s);
    stat_add(pubsub->shard, nodes_unloaded, 1);
    pubsub->stats.subscriptions -= node->subscriptions_count;
    node_unlist(node);
    node_free(&node);
}

/* From the top of the loop, so that nobody holds a node that leaves. */
static void trim(struct pubsub *pubsub)
{
    uint64_t now_us = xy_now_us(pubsub->shard->env);
    for (unsigned looks = 0; looks < RESIDENT_LOOKS && too_much(pubsub) && !xy_list_empty(&pubsub->used);
         looks++) {
        struct node *node = xy_container_of(pubsub->used.next, struct node, used_link);
        if (node->used_us + RESIDENT_STAY_US > now_us && !far_too_much(pubsub, RESIDENT_STAY_FACTOR))
            return; /* a large one that is used now and then would be read again and again */
        xy_list_remove(&node->used_link);
        xy_list_append(&pubsub->used, &node->used_link);
        if (idle(node))
            leave(node);
    }
}

static void on_trim(struct shard *shard, void *payload)
{
    struct pubsub *pubsub = shard->pubsub;
    (void)payload;
    if (pubsub == NULL)
        return;
    pubsub->trim_queued = false;
    trim(pubsub);
}

void resident_trim(struct pubsub *pubsub)
{
    if (pubsub->trim_queued)
        return;
    pubsub->trim_queued = true;
    shard_mail(pubsub->shard, pubsub->shard->index, on_trim, NULL, 0);
}

/* --- coming ---------------------------------------------------------------------------------------------------------- */

static void load_soon(struct pubsub *pubsub)
{
    struct shard *shard = pubsub->shard;
    if (!shard_timer_is_set(&pubsub->load_timer))
        shard_timer_set(shard, &pubsub->load_timer, xy_now_us(shard->env) + RESIDENT_PAUSE_US);
}

/* The whole node joins the others. NULL: memory is short. */
static struct node *join(struct pubsub *pubsub, struct load **load)
{
    struct node *node = load_end(load);
    if (node != NULL && !node_list(node)) {
        pubsub->stats.subscriptions -= node->subscriptions_count;
        xy_list_remove(&node->dirty_link);
        node_free(&node);
    }
    if (node == NULL)
        return NULL;
    stat_add(pubsub->shard, nodes_loaded, 1);
    expiry_look(node);
    return node;
}

static enum load_status steps(struct load *load, unsigned pages)
{
    enum load_status status = LOAD_MORE;
    while (status == LOAD_MORE && pages-- > 0)
        status = load_step(load);
    return status;
}

static bool go_on_later(struct pubsub *pubsub, struct xy_str name, struct load *load)
{
    struct loading *loading = calloc(1, sizeof(*loading) + name.len);
    if (loading == NULL)
        return false;
    memcpy(loading->text, name.data, name.len);
    loading->name = xy_str_n(loading->text, name.len);
    loading->load = load;
    if (!xy_table_put(pubsub->loading, loading->name, loading, NULL)) {
        free(loading);
        return false;
    }
    xy_list_append(&pubsub->loads, &loading->link);
    load_soon(pubsub);
    return true;
}

enum resident resident_find(struct pubsub *pubsub, struct xy_str name, struct node **out)
{
    struct load *load = NULL;
    *out = xy_table_get(pubsub->nodes, name);
    if (*out != NULL) {
        resident_touch(*out);
        return RESIDENT_HERE;
    }
    if (xy_table_get(pubsub->loading, name) != NULL)
        return RESIDENT_LOADING;
    enum load_status status = load_begin(pubsub, name, &load);
    if (status == LOAD_ABSENT)
        return RESIDENT_ABSENT;
    if (status == LOAD_MORE)
        status = steps(load, RESIDENT_PAGES_NOW);
    if (status == LOAD_MORE && go_on_later(pubsub, name, load))
        return RESIDENT_LOADING;
    if (status == LOAD_DONE)
        *out = join(pubsub, &load);
    else if (load != NULL)
        load_abandon(&load);
    return *out != NULL ? RESIDENT_HERE : RESIDENT_FAILED;
}

void resident_wait(struct call *call)
{
    struct loading *loading = xy_table_get(call->pubsub->loading, call->name);
    xy_assert(loading != NULL);
    if (loading->count == loading->cap) {
        size_t cap = loading->cap ? loading->cap * 2 : 8;
        struct request **grown =
            cap <= RESIDENT_WAITING_MAX ? realloc(loading->waiting, cap * sizeof(*grown)) : NULL;
        if (grown == NULL) {
            call_no_room(call);
            return;
        }
        loading->waiting = grown;
        loading->cap = cap;
    }
    loading->waiting[loading->count++] = *call->request;
    *call->request = NULL;
}

static void loading_end(struct pubsub *pubsub, struct loading *loading)
{
    void *removed = xy_table_remove(pubsub->loading, loading->name);
    xy_assert(removed == loading);
    xy_list_remove(&loading->link);
}

void resident_note(struct pubsub *pubsub, struct xy_str name, struct claim_key key, uint64_t seq)
{
    struct loading *loading = xy_table_get(pubsub->loading, name);
    struct note note = { key, seq };
    if (loading != NULL && loading->noted.len < RESIDENT_WAITING_MAX * sizeof(note))
        xy_buf_add(&loading->noted, &note, sizeof(note));
}

/* Before anybody is sent anything. */
static void tell_noted(struct shard *shard, const struct loading *loading)
{
    for (size_t at = 0; at < loading->noted.len && !xy_buf_failed(&loading->noted);
         at += sizeof(struct note)) {
        struct note note;
        memcpy(&note, loading->noted.data + at, sizeof(note));
        claim_owner.acked(shard, note.key, SESSION_NONE, note.seq);
    }
}

static void loading_free(struct loading *loading)
{
    xy_buf_free(&loading->noted);
    free(loading->waiting);
    free(loading);
}

/* Those who waited, in their order. */
static void answer(struct shard *shard, struct loading *loading, bool loaded)
{
    for (size_t i = 0; i < loading->count; i++) {
        if (loaded)
            call_dispatch(shard, &loading->waiting[i]);
        else
            request_fail_with(shard, &loading->waiting[i], XY_RESOURCE_CONSTRAINT,
                              "the node cannot be read now; try again later");
    }
    loading_free(loading);
}

/* One node at a time, each a slice. */
static void on_load(struct shard *shard, struct shard_timer *timer)
{
    struct pubsub *pubsub = shard->pubsub;
    struct loading *loading = xy_container_of(pubsub->loads.next, struct loading, link);
    (void)timer;
    xy_assert(!xy_list_empty(&pubsub->loads));
    enum load_status status = steps(loading->load, RESIDENT_PAGES_TURN);
    xy_list_remove(&loading->link);
    xy_list_append(&pubsub->loads, &loading->link);
    if (status != LOAD_MORE) {
        loading_end(pubsub, loading);
        bool loaded = status == LOAD_DONE && join(pubsub, &loading->load) != NULL;
        if (loading->load != NULL)
            load_abandon(&loading->load);
        if (loaded)
            tell_noted(shard, loading);
        answer(shard, loading, loaded);
    }
    if (!xy_list_empty(&pubsub->loads))
        load_soon(pubsub);
}

void resident_init(struct pubsub *pubsub)
{
    pubsub->load_timer.fn = on_load;
}

void resident_free(struct pubsub *pubsub)
{
    shard_timer_cancel(pubsub->shard, &pubsub->load_timer);
    xy_list_each (link, &pubsub->loads) {
        struct loading *loading = xy_container_of(link, struct loading, link);
        loading_end(pubsub, loading);
        load_abandon(&loading->load);
        for (size_t i = 0; i < loading->count; i++) {
            struct xy_arena *arena = loading->waiting[i]->stanza.arena;
            xy_arena_pool_give(pubsub->shard->arenas, &arena);
        }
        loading_free(loading);
    }
    xy_table_free(&pubsub->loading);
}
