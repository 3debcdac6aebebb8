/* Publishing: the path every item takes. Checks, duplicates, the record, what it pushes out, the event, the answer.
 * XEP-0060 7.1. Nothing here depends on the number of subscribers.
 *
 * Order of effects: the record is appended, and when it is on disk the publisher gets the result and subscribers get the
 * event. An item that nobody needs kept (persist_items off, no at-least-once subscription) writes nothing and goes out at
 * once, unless earlier events of the node still wait. */
#include "broker/pubsub/publish.h"

#include "broker/pubsub/node/expiry.h"
#include "broker/pubsub/node/headers.h"
#include "broker/pubsub/queue/queue.h"
#include "broker/pubsub/node/retention.h"
#include "broker/pubsub/quota/quota.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"
#include "core/base/encoding.h"
#include "core/xml/writer.h"

#define RECORD_OVERHEAD 512u

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

/* --- storing and sending --------------------------------------------------------------------------------------------- */

static struct xy_str serialise_item(struct call *call, const struct xy_elem *item)
{
    struct xy_buf *out = &call->pubsub->scratch;
    xy_buf_reset(out);
    xy_buf_lit(out, "<item");
    xy_xml_attr(out, "id", xy_elem_attr(item, "id"));
    xy_xml_attr(out, "publisher", call->who);
    const struct xy_elem *payload, *headers;
    (void)item_parts(item, &payload, &headers); /* checked */
    if (payload == NULL) {
        xy_buf_lit(out, "/>");
    } else {
        xy_buf_char(out, '>');
        xy_xml_write(out, payload, XY_STR(NS_PUBSUB_EVENT));
        if (headers != NULL)
            xy_xml_write(out, headers, XY_STR(NS_PUBSUB_EVENT));
        xy_buf_lit(out, "</item>");
    }
    if (xy_buf_failed(out))
        return XY_STR_NONE;
    return xy_arena_str(call->arena, xy_buf_view(out));
}

/* All of them before anything changes: a refusal needs their sizes. */
static bool serialise_all(struct call *call, struct publication *publication)
{
    publication->bytes = xy_arena_alloc(call->arena, (publication->count + 1) * sizeof(*publication->bytes));
    for (size_t i = 0; publication->bytes != NULL && i < publication->count; i++) {
        publication->bytes[i] = serialise_item(call, publication->items[i]);
        if (publication->bytes[i].data == NULL)
            return false;
    }
    return publication->bytes != NULL;
}

static void put_traits(Xylem__Store__V1__ItemPut *put, const struct item_traits *traits,
                       struct xy_arena *arena)
{
    put->queue_urgency = (uint32_t)(traits->urgency + 1);
    put->queue_not_before_us = traits->not_before_us;
    put->queue_expires_us = traits->expires_us;
    struct xy_str group = traits->group.len > 0 ? xy_arena_str(arena, traits->group) : XY_STR_NONE;
    if (group.data != NULL)
        put->queue_group = (char *)(uintptr_t)group.data;
}

static void append(struct call *call, const struct publication *publication, const struct item *item,
                   struct xy_str bytes, struct evicted *evicted, size_t nth)
{
    bool first = nth == 0;
    struct node *node = call->node;
    Xylem__Store__V1__ItemPut put = XYLEM__STORE__V1__ITEM_PUT__INIT;
    put.node = node->number;
    put.seq = item->seq;
    put.id = (char *)(uintptr_t)item_id(item).data;
    put.publisher = (char *)(uintptr_t)item_publisher(item).data;
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
    if (publication->traits != NULL)
        put_traits(&put, &publication->traits[nth], call->arena);
    put.n_removed = evicted->removed_count;
    put.removed = evicted->removed;
    put.retained = item->retained;
    evicted->removed_count = 0;
    record_publish(node, RECORD_ITEM_PUT, &put.base);
    record_evicted(node, evicted);
}

/* An item that somebody needs kept. */
static bool publish_kept(struct call *call, const struct publication *publication, size_t nth)
{
    struct node *node = call->node;
    bool retained = node_retains(node);
    struct evicted evicted;
    evicted.removed_count = evicted.unretained_count = 0;
    struct xy_str id = xy_elem_attr(publication->items[nth], "id"), bytes = publication->bytes[nth];
    struct item *same = retained ? index_find_id(&node->items, id) : NULL;
    if (same != NULL) {
        same->superseded = node->next_seq;
        (void)retention_evict(node, same, &evicted);
    }
    if (node->queue != NULL && queue_drops(node->queue))
        queue_make_room(node->queue, 1, bytes.len, &evicted);
    else if (retained)
        retention_make_room(node, bytes.len, &evicted);
    struct item *item = node_add_item(node, node->next_seq, id, call->who, (uint32_t)bytes.len,
                                      publication->now_us, retained, node->durable_count);
    struct event *event = node->config.deliver_payloads ? event_for_item(node, node->next_seq, bytes)
                                                        : event_for_id(node, node->next_seq, id, call->who);
    bool memory = node_is_memory(node), kept = item != NULL && (!memory || node_keep_body(node, item, bytes));
    if (kept && node->queue != NULL)
        kept = queue_item_added(node->queue, item, &publication->traits[nth]);
    if (!kept || event == NULL) {
        if (item != NULL)
            index_remove(&node->items, item);
        event_unref(&event);
        record_evicted(node, &evicted);
        return false;
    }
    node->next_seq++;
    backlog_published(node);
    node_remember_event(node, item, event);
    if (!memory)
        append(call, publication, item, bytes, &evicted, nth);
    expiry_published(node);
    routes_deliver_after(node, &event, node->next_seq - 1);
    return true;
}

/* One that nobody does: seen by who is there now. */
static bool publish_passing(struct call *call, const struct xy_elem *elem, struct xy_str bytes)
{
    struct node *node = call->node;
    struct event *event =
        elem != NULL && node->config.deliver_payloads
            ? event_for_item(node, 0, bytes)
            : event_for_id(node, 0, elem != NULL ? xy_elem_attr(elem, "id") : XY_STR_NONE, call->who);
    if (event == NULL)
        return false;
    if (node->waiting > 0 || node->config.dedup_window_s > 0)
        routes_deliver_after(node, &event, 0);
    else
        routes_deliver(node, &event, 0);
    return true;
}

static bool publish_all(struct call *call, const struct publication *publication)
{
    const struct node *node = call->node;
    bool kept = node_retains(node) || node->durable_count > 0;
    bool done = true;
    if (publication->count == 0)
        return publish_passing(call, NULL, XY_STR_NONE);
    for (size_t i = 0; done && i < publication->count; i++)
        done = kept ? publish_kept(call, publication, i)
                    : publish_passing(call, publication->items[i], publication->bytes[i]);
    return done;
}

/* Names all items of the request, also those that were there already. */
static void answer(struct call *call, uint64_t ticket)
{
    struct xy_elem *pubsub;
    struct xy_elem *result = call_result(call, NS_PUBSUB, &pubsub);
    struct xy_elem *published = xy_elem_add(call->arena, pubsub, "publish", NS_PUBSUB);
    xy_elem_set(call->arena, published, "node", call->name);
    for (const struct xy_elem *e = xy_elem_first(call->action); e != NULL; e = xy_elem_next(e)) {
        struct xy_elem *item = xy_elem_add(call->arena, published, "item", NS_PUBSUB);
        xy_elem_set(call->arena, item, "id", xy_elem_attr(e, "id"));
    }
    request_reply(call->shard, call->request, result, ticket);
}

static void answer_again(struct call *call)
{
    stat_add(call->shard, publishes_duplicate, 1);
    answer(call, call->node->ticket);
}

/* --- the request ----------------------------------------------------------------------------------------------------- */

/* The node was made for an item that is refused. */
static void uncreate(struct call *call)
{
    struct node *node = call->node;
    record_node_remove(node);
    call->pubsub->deleted_ticket = node->ticket;
    quota_drop_node(node);
    node_unlist(node);
    node_free(&node);
}

/* Are there records of its items? What goes on to who is there now, or stays in memory, has none. */
static bool keeps(const struct node *node)
{
    return !node_is_memory(node) && (node_retains(node) || node->durable_count > 0);
}

/* Does a publish need the disk? */
static bool writes(const struct node *node)
{
    return node == NULL || node->config.dedup_window_s > 0 || keeps(node); /* NULL: it has to be made */
}

/* Does the node take it as it is now? false: refused. */
static bool publication_fits(struct call *call, struct publication *publication)
{
    if (!publication_traits(call, publication))
        return false;
    if (xy_arena_failed(call->arena) || !serialise_all(call, publication)) {
        call_no_room(call);
        return false;
    }
    return !publication_collides(call, publication) && !publication_overflows(call, publication) &&
           !publication_exceeds(call, publication);
}

static void publish_new(struct call *call, const struct publication *publication)
{
    struct node *node = call->node;
    publication_record_ids(call, publication, true);
    bool done = publish_all(call, publication);
    quota_settle(node);
    if (!done) {
        publication_record_ids(call, publication, false); /* it may come again */
        call_no_room(call);
        return;
    }
    publication_remember(call, publication, keeps(node));
    stat_add(call->shard, publishes, publication->count);
    /* async: what it depends on is on disk, itself it will be soon */
    answer(call, node->config.durability == DURABILITY_ASYNC ? node->firm_ticket : node->ticket);
}

void publish_items(struct call *call)
{
    struct publication publication = { .now_us = xy_wall_us(call->shard->env) };
    bool existed = call->node != NULL;
    if (writes(call->node) && !call_room(call, RECORD_OVERHEAD + 2 * (*call->request)->stanza.bytes))
        return;
    if (!publication_check(call, &publication)) {
        if (!existed && call->node != NULL)
            uncreate(call);
        return;
    }
    complete_ids(call, &publication);
    size_t asked = publication.count;
    enum dedup_verdict verdict = publication_seen(call, &publication);
    if (verdict == DEDUP_OLD) {
        call_fail(call, XY_NOT_ACCEPTABLE, NULL,
                  "this publish-id is too far behind the newest of its stream to tell whether it was stored; "
                  "use a new "
                  "one");
        return;
    }
    if (verdict == DEDUP_NEW && !publication_drop_seen(call, &publication)) {
        call_no_room(call);
        return;
    }
    if (verdict == DEDUP_SEEN || (asked > 0 && publication.count == 0)) {
        answer_again(call);
        return;
    }
    if (publication_fits(call, &publication))
        publish_new(call, &publication);
    else if (!existed)
        uncreate(call);
}
