/* What a publish would leave the creator of the node with (limits.items_per_account, limits.bytes_per_account). Items that
 * take the place of others, or push the oldest out because the node is full, make room for themselves. Called by publish.c,
 * before anything is changed. */
#include "broker/pubsub/publish.h"

#include "broker/pubsub/node/retention.h"
#include "broker/pubsub/queue/queue.h"
#include "broker/pubsub/quota/quota.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

#define DROPPED_MAX (EVICTED_MAX - 1) /* of one item: one more may leave because of its id */

/* The node while the items of a publish are added in thought. */
struct forecast {
    const struct call *call;
    const struct publication *publication;
    const struct item *oldest; /* retained; NULL: all that were there went */
    uint64_t items, bytes;
    struct queue_leaving leaving; /* of them, what does not count towards the bounds of the node */
};

static struct xy_str id_of(const struct publication *publication, size_t nth)
{
    return xy_elem_attr(publication->items[nth], "id");
}

/* Position of the last item of that id in front of the nth; `nth`: there is none. */
static size_t same_before(const struct publication *publication, size_t nth, struct xy_str id)
{
    for (size_t i = nth; i > 0; i--)
        if (xy_str_eq(id_of(publication, i - 1), id))
            return i - 1;
    return nth;
}

static void leave(struct forecast *forecast, uint64_t bytes)
{
    xy_assert(forecast->items > 0 && forecast->bytes >= bytes);
    forecast->items--;
    forecast->bytes -= bytes;
}

static void leave_by_id(struct forecast *forecast, size_t nth)
{
    const struct publication *publication = forecast->publication;
    struct xy_str id = id_of(publication, nth);
    size_t before = same_before(publication, nth, id);
    const struct item *same = index_find_id(&forecast->call->node->items, id);
    if (before < nth)
        leave(forecast, publication->bytes[before].len);
    else if (same != NULL && forecast->oldest != NULL && same->seq >= forecast->oldest->seq)
        leave(forecast, same->bytes);
}

static bool over(const struct forecast *forecast, uint64_t bytes)
{
    const struct node *node = forecast->call->node;
    uint64_t bytes_max = retention_bytes_max(node);
    return forecast->items - forecast->leaving.items + 1 > retention_items_max(node) ||
           (bytes_max != OPTION_COUNT_MAX && forecast->bytes - forecast->leaving.bytes + bytes > bytes_max);
}

/* Dead letters take their room until they are on disk elsewhere. */
static bool leaves_at_once(const struct node *node, const struct item *item)
{
    return node->queue == NULL || (node->config.dead_letter.len == 0 && queue_may_drop(node->queue, item));
}

/* As retention_make_room, but for items of this publish, which stay: the forecast is never too low. */
static void leave_oldest(struct forecast *forecast, size_t nth)
{
    const struct node *node = forecast->call->node;
    const struct publication *publication = forecast->publication;
    size_t dropped = 0;
    while (forecast->oldest != NULL && dropped < DROPPED_MAX && over(forecast, publication->bytes[nth].len)) {
        const struct item *item = forecast->oldest;
        if (same_before(publication, nth + 1, item_id(item)) > nth && leaves_at_once(node, item)) {
            leave(forecast, item->bytes);
            dropped++;
        }
        forecast->oldest = index_next_retained(&node->items, item);
    }
}

bool publication_exceeds(struct call *call, const struct publication *publication)
{
    struct node *node = call->node;
    if (node->charge.account == NULL || !node_retains(node))
        return false;
    struct forecast forecast = {
        call, publication, index_oldest(&node->items), node->items.retained_count, node->items.retained_bytes,
        { 0 }
    };
    if (node->queue != NULL)
        forecast.leaving = node->queue->leaving;
    for (size_t i = 0; i < publication->count; i++) {
        leave_by_id(&forecast, i);
        leave_oldest(&forecast, i);
        forecast.items++;
        forecast.bytes += publication->bytes[i].len;
    }
    if (quota_reserve(node, forecast.items, forecast.bytes))
        return false;
    stat_add(call->shard, publishes_refused_account, 1);
    call_fail_type(
        call, XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT, NULL,
        "the account that created this node holds as much as it may over all its nodes (items or bytes); "
        "retract items or delete nodes first");
    return true;
}
