/* Publishing: the path every item takes. Checks, duplicates, the record, what it pushes out, the event, the answer.
 * XEP-0060 7.1; publish-id: docs/protocol.md. Nothing here depends on the number of subscribers.
 *
 * Order of effects: the record is appended, and when it is on disk the publisher gets the result and subscribers get the
 * event. An item that nobody needs kept (persist_items off, no at-least-once subscription) writes nothing and goes out at
 * once, unless earlier events of the node still wait. */
#include "broker/pubsub/publish.h"

#include "broker/shard/stats.h"
#include "core/base/assert.h"
#include "core/base/encoding.h"
#include "core/xml/writer.h"

#define RECORD_OVERHEAD 512u
#define EVICTED_MAX     256u /* items one publish pushes out; more go with the following ones */

/* --- ids ----------------------------------------------------------------------------------------------------------- */

/* Ids that were left out: random, or, so that a repeated request means the same item, made from the publish-id. */
static void complete_ids(struct call *call, struct publication *publication)
{
    for (size_t i = 0; i < publication->count; i++) {
        struct xy_elem *item = publication->items[i];
        struct xy_str id = xy_elem_attr(item, "id");
        if (id.len > 0)
            continue;
        char random[XY_ID_LEN + 1];
        if (publication->publish_id.len > 0) {
            uint64_t publisher = xy_hash(call->who, 0), request = xy_hash(publication->publish_id, i);
            id = xy_arena_printf(call->arena, "%016llx%016llx", (unsigned long long)publisher,
                                 (unsigned long long)request);
        } else {
            xy_random_id(call->shard->env, random);
            id = xy_arena_str(call->arena, xy_str(random));
        }
        xy_elem_set(call->arena, item, "id", id);
    }
}

/* --- duplicates ---------------------------------------------------------------------------------------------------- */

/* What the store knows of a key that memory does not: it was written before the restart, or forgotten since. */
static enum dedup_verdict check_stored(struct call *call, const struct store_dedup *id, uint64_t now_us)
{
    struct node *node = call->node;
    uint64_t newest;
    struct xy_str seen;
    bool whole = id->number == STORE_DEDUP_WHOLE;
    if (whole && node->born_here)
        return DEDUP_NEW; /* all that were seen recently are in memory */
    if (!node_read_dedup(node, call->who, id->prefix, &newest, &seen) ||
        (newest == STORE_DEDUP_WHOLE) != whole)
        return DEDUP_NEW;
    if (!dedup_load(node->dedup, call->who, id->prefix, newest, seen, now_us))
        return DEDUP_NEW;
    return dedup_check(node->dedup, call->who, id->prefix, id->number);
}

static enum dedup_verdict seen_before(struct call *call, const struct publication *publication)
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

/* --- what leaves ----------------------------------------------------------------------------------------------------- */

struct evicted {
    uint64_t removed[EVICTED_MAX], unretained[EVICTED_MAX];
    size_t removed_count, unretained_count;
};

static bool evict(struct node *node, struct item *item, struct evicted *evicted)
{
    if (evicted->removed_count == EVICTED_MAX || evicted->unretained_count == EVICTED_MAX)
        return false;
    uint64_t seq = item->seq;
    if (index_unretain(&node->items, item))
        evicted->removed[evicted->removed_count++] = seq;
    else
        evicted->unretained[evicted->unretained_count++] = seq;
    return true;
}

static bool over(const struct node *node, size_t coming, uint64_t coming_bytes)
{
    const struct node_config *config = &node->config;
    return node->items.retained_count + coming > config->max_items ||
           (config->max_bytes != OPTION_COUNT_MAX &&
            node->items.retained_bytes + coming_bytes > config->max_bytes);
}

void node_retention(struct node *node, uint64_t **removed, size_t *removed_count, uint64_t **unretained,
                    size_t *unretained_count, struct xy_arena *arena)
{
    size_t most = node->items.retained_count;
    *removed_count = *unretained_count = 0;
    *removed = xy_arena_alloc(arena, (most + 1) * sizeof(uint64_t));
    *unretained = xy_arena_alloc(arena, (most + 1) * sizeof(uint64_t));
    if (*removed == NULL || *unretained == NULL)
        return;
    while (node->items.retained_count > 0 && (!node->config.persist_items || over(node, 0, 0))) {
        struct item *oldest = index_oldest(&node->items);
        uint64_t seq = oldest->seq;
        if (index_unretain(&node->items, oldest))
            (*removed)[(*removed_count)++] = seq;
        else
            (*unretained)[(*unretained_count)++] = seq;
    }
}

/* --- storing and sending --------------------------------------------------------------------------------------------- */

/* The item as subscribers will see it, at the end of pubsub->scratch's event. */
struct serialised {
    struct event *event;
    struct xy_str item; /* inside the event, or in `whole` */
};

static struct xy_str serialise_item(struct call *call, const struct xy_elem *item)
{
    struct xy_buf *out = &call->pubsub->scratch;
    xy_buf_reset(out);
    xy_buf_lit(out, "<item");
    xy_xml_attr(out, "id", xy_elem_attr(item, "id"));
    xy_xml_attr(out, "publisher", call->who);
    const struct xy_elem *payload = xy_elem_first(item);
    if (payload == NULL) {
        xy_buf_lit(out, "/>");
    } else {
        xy_buf_char(out, '>');
        xy_xml_write(out, payload, XY_STR(NS_PUBSUB_EVENT));
        xy_buf_lit(out, "</item>");
    }
    if (xy_buf_failed(out))
        return XY_STR_NONE;
    return xy_arena_str(call->arena, xy_buf_view(out));
}

static uint64_t append(struct call *call, const struct publication *publication, const struct item *item,
                       struct xy_str bytes, struct evicted *evicted, bool first)
{
    struct node *node = call->node;
    Xylem__Store__V1__ItemPut put = XYLEM__STORE__V1__ITEM_PUT__INIT;
    put.node = node->number;
    put.seq = item->seq;
    put.id = (char *)(uintptr_t)item->id.data;
    put.publisher = (char *)(uintptr_t)item->publisher.data;
    put.time_us = item->time_us;
    put.item.data = (uint8_t *)(uintptr_t)bytes.data;
    put.item.len = bytes.len;
    const struct store_dedup *id = &publication->dedup;
    struct dedup_state state;
    struct xy_str publish_id = XY_STR_NONE;
    if (first && publication->publish_id.len > 0 && node->dedup != NULL)
        publish_id = xy_arena_str(call->arena, publication->publish_id);
    if (publish_id.data != NULL) {
        dedup_after(node->dedup, call->who, id->prefix, id->number, &state);
        put.publish_id = (char *)(uintptr_t)publish_id.data;
        put.publish_newest = id->number != STORE_DEDUP_WHOLE ? state.newest : 0;
        put.publish_seen.data = state.seen;
        put.publish_seen.len = id->number != STORE_DEDUP_WHOLE ? sizeof(state.seen) : 0;
    }
    put.n_removed = evicted->removed_count;
    put.removed = evicted->removed;
    put.retained = item->retained;
    node->ticket = store_append(call->shard->store, RECORD_ITEM_PUT, &put.base);
    record_items_unretained(node, evicted->unretained, evicted->unretained_count);
    return node->ticket;
}

/* An item that somebody needs kept. */
static bool publish_kept(struct call *call, const struct publication *publication, const struct xy_elem *elem,
                         bool first)
{
    struct node *node = call->node;
    bool retained = node->config.persist_items && node->config.max_items > 0;
    struct evicted evicted;
    evicted.removed_count = evicted.unretained_count = 0;
    struct xy_str id = xy_elem_attr(elem, "id"), bytes = serialise_item(call, elem);
    if (bytes.data == NULL)
        return false;
    struct item *same = retained ? index_find_id(&node->items, id) : NULL;
    if (same != NULL)
        (void)evict(node, same, &evicted);
    while (retained && node->items.retained_count > 0 && over(node, 1, bytes.len))
        if (!evict(node, index_oldest(&node->items), &evicted))
            break;
    struct item *item = node_add_item(node, node->next_seq, id, call->who, (uint32_t)bytes.len,
                                      publication->now_us, retained, node->durable_count);
    struct event *event = node->config.deliver_payloads ? event_for_item(node, node->next_seq, bytes)
                                                        : event_for_id(node, node->next_seq, id, call->who);
    if (item == NULL || event == NULL) {
        if (item != NULL)
            index_remove(&node->items, item);
        event_unref(&event);
        record_items_removed(node, evicted.removed, evicted.removed_count);
        record_items_unretained(node, evicted.unretained, evicted.unretained_count);
        return false;
    }
    node->next_seq++;
    node_remember_event(node, item, event);
    append(call, publication, item, bytes, &evicted, first);
    routes_deliver_after(node, &event, node->next_seq - 1);
    return true;
}

/* One that nobody does: seen by who is there now. */
static bool publish_passing(struct call *call, const struct xy_elem *elem)
{
    struct node *node = call->node;
    struct event *event;
    if (elem != NULL && node->config.deliver_payloads) {
        struct xy_str bytes = serialise_item(call, elem);
        event = bytes.data != NULL ? event_for_item(node, 0, bytes) : NULL;
    } else {
        event = event_for_id(node, 0, elem != NULL ? xy_elem_attr(elem, "id") : XY_STR_NONE, call->who);
    }
    if (event == NULL)
        return false;
    if (node->waiting > 0)
        routes_deliver_after(node, &event, 0);
    else
        routes_deliver(node, &event, 0);
    return true;
}

static bool publish_all(struct call *call, const struct publication *publication)
{
    const struct node *node = call->node;
    bool kept = (node->config.persist_items && node->config.max_items > 0) || node->durable_count > 0;
    bool done = true;
    if (publication->count == 0)
        return publish_passing(call, NULL);
    for (size_t i = 0; done && i < publication->count; i++) {
        done = kept ? publish_kept(call, publication, publication->items[i], i == 0)
                    : publish_passing(call, publication->items[i]);
        call->pubsub->stats.published += done;
    }
    return done;
}

static void answer(struct call *call, const struct publication *publication)
{
    struct xy_elem *pubsub;
    struct xy_elem *result = call_result(call, NS_PUBSUB, &pubsub);
    struct xy_elem *published = xy_elem_add(call->arena, pubsub, "publish", NS_PUBSUB);
    xy_elem_set(call->arena, published, "node", call->name);
    for (size_t i = 0; i < publication->count; i++) {
        struct xy_elem *item = xy_elem_add(call->arena, published, "item", NS_PUBSUB);
        xy_elem_set(call->arena, item, "id", xy_elem_attr(publication->items[i], "id"));
    }
    call_reply(call, result);
}

/* --- the request ----------------------------------------------------------------------------------------------------- */

/* The node was made for an item that turned out to be bad. */
static void uncreate(struct call *call)
{
    struct node *node = call->node;
    record_node_remove(node);
    call->pubsub->deleted_ticket = node->ticket;
    node_unlist(node);
    node_free(&node);
}

void publish_items(struct call *call)
{
    struct publication publication = { .now_us = xy_wall_us(call->shard->env) };
    bool existed = call->node != NULL;
    if (!call_room(call, RECORD_OVERHEAD + 2 * (*call->request)->stanza.bytes))
        return;
    if (!publication_check(call, &publication)) {
        if (!existed && call->node != NULL)
            uncreate(call);
        return;
    }
    complete_ids(call, &publication);
    enum dedup_verdict verdict = seen_before(call, &publication);
    if (verdict == DEDUP_SEEN) {
        stat_add(call->shard, publishes_duplicate, 1);
        answer(call, &publication);
        return;
    }
    if (verdict == DEDUP_OLD) {
        call_fail(call, XY_NOT_ACCEPTABLE, NULL,
                  "this publish-id is too far behind the newest of its stream to tell whether it was stored; "
                  "use a new "
                  "one");
        return;
    }
    if (publication_overflows(call, &publication))
        return;
    if (xy_arena_failed(call->arena) || !publish_all(call, &publication)) {
        call_no_room(call);
        return;
    }
    if (publication.publish_id.len > 0 && call->node->dedup != NULL)
        (void)dedup_add(call->node->dedup, call->who, publication.dedup.prefix, publication.dedup.number,
                        xy_now_us(call->shard->env));
    stat_add(call->shard, publishes, publication.count);
    answer(call, &publication);
}
