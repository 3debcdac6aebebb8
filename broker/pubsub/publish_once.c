/* Has this been published already? By publish-id (docs/protocol.md 2.1) and, where a node has a dedup_window, by item id
 * (2.2). Called by publish.c.
 *
 * publish-ids of late are in memory (dedup.h), older ones in the store. Item ids are in the store alone: its memory table
 * holds what is new, so nothing grows here however long the window is. */
#include "broker/pubsub/publish.h"

#include "core/base/assert.h"

/* What the store knows of a key that memory does not: it was written before the restart, or forgotten since. */
static enum dedup_verdict check_stored(struct call *call, const struct store_dedup *id, uint64_t now_us)
{
    struct node *node = call->node;
    uint64_t newest, time_us;
    struct xy_str seen;
    bool whole = id->number == STORE_DEDUP_WHOLE;
    if ((whole && node->born_here) || node_is_memory(node))
        return DEDUP_NEW; /* all that were seen recently are in memory */
    if (!node_read_dedup(node, call->who, id->prefix, &newest, &time_us, &seen) ||
        (newest == STORE_DEDUP_WHOLE) != whole)
        return DEDUP_NEW;
    if (!dedup_load(node->dedup, call->who, id->prefix, newest, seen, now_us))
        return DEDUP_NEW;
    return dedup_check(node->dedup, call->who, id->prefix, id->number);
}

enum dedup_verdict publication_seen(struct call *call, const struct publication *publication)
{
    struct node *node = call->node;
    if (publication->publish_id.len == 0)
        return DEDUP_NEW;
    if (node->dedup == NULL)
        node->dedup = dedup_new(call->pubsub->hash_seed);
    if (node->dedup == NULL)
        return DEDUP_NEW;
    uint64_t now_us = xy_now_us(call->shard->env);
    const struct store_dedup *id = &publication->dedup;
    dedup_expire(node->dedup, now_us);
    enum dedup_verdict verdict = dedup_check(node->dedup, call->who, id->prefix, id->number);
    if (verdict == DEDUP_UNKNOWN)
        verdict = check_stored(call, id, now_us);
    return verdict;
}

void publication_remember(struct call *call, const struct publication *publication, bool stored)
{
    struct node *node = call->node;
    uint64_t now_us = xy_now_us(call->shard->env);
    if (publication->publish_id.len == 0 || node->dedup == NULL)
        return;
    (void)dedup_add(node->dedup, call->who, publication->dedup.prefix, publication->dedup.number, now_us);
    if (!stored)
        node->ids_until_us = now_us + DEDUP_KEEP_US;
}

/* --- item ids -------------------------------------------------------------------------------------------------------- */

static bool id_seen(struct call *call, struct xy_str id, uint64_t now_us)
{
    uint64_t number, time_us;
    struct xy_str seen;
    return node_read_dedup(call->node, XY_STR(""), id, &number, &time_us, &seen) &&
           time_us + STORE_DEDUP_KEEP_US > now_us;
}

static bool id_repeated(const struct publication *publication, size_t nth)
{
    struct xy_str id = xy_elem_attr(publication->items[nth], "id");
    for (size_t i = 0; i < nth; i++)
        if (xy_str_eq(xy_elem_attr(publication->items[i], "id"), id))
            return true;
    return false;
}

bool publication_drop_seen(struct call *call, struct publication *publication)
{
    size_t kept = 0;
    if (call->node->config.dedup_window_s == 0 || publication->count == 0)
        return true;
    struct xy_elem **fresh = xy_arena_alloc(call->arena, publication->count * sizeof(struct xy_elem *));
    struct xy_str *ids = xy_arena_alloc(call->arena, publication->count * sizeof(*ids));
    for (size_t i = 0; fresh != NULL && ids != NULL && i < publication->count; i++) {
        struct xy_str id = xy_elem_attr(publication->items[i], "id");
        if (id_repeated(publication, i) || id_seen(call, id, publication->now_us))
            continue;
        ids[kept] = xy_arena_str(call->arena, id); /* with a NUL, for the record */
        fresh[kept++] = publication->items[i];
    }
    publication->items = fresh;
    publication->ids = ids;
    publication->count = kept;
    return !xy_arena_failed(call->arena);
}

/* When the window of an id published now ends. */
static uint64_t window_end_us(const struct publication *publication, uint64_t window_s)
{
    if (window_s > (UINT64_MAX - publication->now_us) / 1000000)
        return UINT64_MAX;
    return publication->now_us + window_s * 1000000;
}

void publication_record_ids(struct call *call, const struct publication *publication, bool seen)
{
    struct node *node = call->node;
    uint64_t window_s = node->config.dedup_window_s;
    Xylem__Store__V1__ItemSeen record = XYLEM__STORE__V1__ITEM_SEEN__INIT;
    char *ids[PUBLISH_ITEMS_MAX];
    if (window_s == 0 || publication->count == 0)
        return;
    xy_assert(publication->count <= PUBLISH_ITEMS_MAX);
    for (size_t i = 0; i < publication->count; i++)
        ids[record.n_id++] = (char *)(uintptr_t)publication->ids[i].data;
    record.node = node->number;
    record.id = ids;
    record.until_us = seen ? window_end_us(publication, window_s) : 0;
    record_publish(node, RECORD_ITEM_SEEN, &record.base);
}
