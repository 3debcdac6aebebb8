/* Items and queue entries on their way out of memory, slice by slice. See remains.h; called by node.c and manage.c. */
#include "broker/pubsub/node/remains.h"

#include <stdlib.h>

#include "broker/pubsub/queue/queue_engine.h"
#include "core/base/assert.h"

struct remains {
    struct xy_list link;
    struct pubsub *pubsub;
    struct item_index items;
    struct queue_engine *engine; /* NULL: none, or freed */
    size_t position;             /* in it */
};

static void on_released(void *ctx, struct item *item)
{
    struct remains *remains = ctx;
    node_item_released(remains->pubsub, item);
}

/* false: there is more. */
static bool free_some(struct remains *remains, size_t max)
{
    if (remains->engine == NULL)
        return index_free_some(&remains->items, max);
    queue_engine_free_some(&remains->engine, &remains->position, max);
    return false;
}

static void end(struct remains *remains)
{
    xy_list_remove(&remains->link);
    free(remains);
}

static void free_soon(struct pubsub *pubsub)
{
    struct shard *shard = pubsub->shard;
    if (!xy_list_empty(&pubsub->remains) && !shard_timer_is_set(&pubsub->remains_timer))
        shard_timer_set(shard, &pubsub->remains_timer, xy_now_us(shard->env) + REMAINS_PAUSE_US);
}

static void on_timer(struct shard *shard, struct shard_timer *timer)
{
    struct pubsub *pubsub = shard->pubsub;
    struct remains *remains = xy_container_of(pubsub->remains.next, struct remains, link);
    (void)timer;
    xy_assert(!xy_list_empty(&pubsub->remains));
    if (free_some(remains, REMAINS_SLICE))
        end(remains);
    free_soon(pubsub);
}

void remains_init(struct pubsub *pubsub)
{
    xy_list_init(&pubsub->remains);
    pubsub->remains_timer.fn = on_timer;
}

void remains_leave(struct pubsub *pubsub, struct item_index *items, struct queue_engine **engine)
{
    size_t entries = engine != NULL && *engine != NULL ? queue_entries(*engine) : 0;
    struct remains *remains = items->live + entries > REMAINS_SLICE ? calloc(1, sizeof(*remains)) : NULL;
    if (remains == NULL) { /* it is little, or memory is short and this gives some back */
        if (engine != NULL)
            queue_engine_free(engine);
        index_free(items);
        return;
    }
    remains->pubsub = pubsub;
    index_move(&remains->items, items);
    remains->items.released = on_released;
    remains->items.changed = NULL;
    remains->items.ctx = remains;
    if (engine != NULL) {
        remains->engine = *engine;
        *engine = NULL;
    }
    xy_list_append(&pubsub->remains, &remains->link);
    free_soon(pubsub);
}

void remains_free(struct pubsub *pubsub)
{
    shard_timer_cancel(pubsub->shard, &pubsub->remains_timer);
    xy_list_each (link, &pubsub->remains) {
        struct remains *remains = xy_container_of(link, struct remains, link);
        queue_engine_free(&remains->engine);
        index_free(&remains->items);
        end(remains);
    }
}
