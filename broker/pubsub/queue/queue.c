/* A queue node: its engine, items that come and go, and handing out what is ready. Called by publish, manage, load and,
 * through the index of items, whenever an item goes. Acknowledging is queue_consumer.c's. */
#include "broker/pubsub/queue/queue.h"

#include <stdlib.h>

#include "broker/log.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"
#include "core/namespaces.h"

uint64_t queue_now_us(const struct queue *queue)
{
    return xy_now_us(queue->node->pubsub->shard->env);
}

/* Stored times are wall times, the engine's are not: a clock that is set moves what waits, but locks nothing for ever. */
uint64_t queue_engine_time(const struct queue *queue, uint64_t wall_us)
{
    uint64_t now_wall_us = xy_wall_us(queue->node->pubsub->shard->env);
    return wall_us > now_wall_us ? queue_now_us(queue) + (wall_us - now_wall_us) : queue_now_us(queue);
}

/* --- beginning and end --------------------------------------------------------------------------------------------- */

/* The engine's plain items: those of the node that are committed and have no entry. */
static uint64_t next_plain(void *ctx, uint64_t *cursor)
{
    const struct queue *queue = ctx;
    const struct node *node = queue->node;
    for (const struct item *item;
         (item = index_after(&node->items, *cursor)) != NULL && item->seq <= node->delivered_seq;) {
        if (queue_find(queue->engine, item->seq) == NULL) {
            *cursor = item->seq - 1;
            return item->seq;
        }
        *cursor = item->seq;
    }
    if (*cursor < node->delivered_seq)
        *cursor = node->delivered_seq;
    return 0;
}

static void on_timer(struct shard *shard, struct shard_timer *timer);

bool queue_make(struct node *node)
{
    struct queue *queue = calloc(1, sizeof(*queue));
    if (queue == NULL)
        return false;
    queue->node = node;
    queue->record_us = queue->bury_us = QUEUE_NEVER;
    queue->timer.fn = on_timer;
    xy_list_init(&queue->dirty);
    queue->engine = queue_engine_new(node->pubsub->hash_seed, (struct queue_source){ next_plain, queue });
    if (queue->engine == NULL) {
        free(queue);
        return false;
    }
    node->queue = queue;
    xy_list_append(&node->pubsub->queues, &queue->link);
    queue_configured(queue);
    return true;
}

void queue_free(struct queue **queue_pointer, struct queue_engine **engine)
{
    struct queue *queue = *queue_pointer;
    *queue_pointer = NULL;
    if (queue == NULL)
        return;
    queue_stop(queue);
    *engine = queue->engine;
    xy_buf_free(&queue->ended);
    xy_buf_free(&queue->taken);
    xy_buf_free(&queue->parked);
    free(queue);
}

void queue_stop(struct queue *queue)
{
    if (queue == NULL)
        return;
    xy_list_remove(&queue->link);
    shard_timer_cancel(queue->node->pubsub->shard, &queue->timer);
}

void queue_configured(struct queue *queue)
{
    const struct node_config *config = &queue->node->config;
    (void)backoff_parse(config->backoff, &queue->backoff); /* checked when it was set */
    queue_set_plain_priority(queue->engine, (enum queue_priority)config->priority);
    if (queue_parked(queue->engine) != NULL)
        queue->bury_us = queue_now_us(queue); /* there may be a node for them now */
    queue_touch(queue);
}

static bool mentions(const struct xy_form *form, const char *name)
{
    for (const struct xy_form_field *field = form->fields; field != NULL; field = field->next)
        if (xy_str_is(field->var, name))
            return true;
    return false;
}

#define XYLEM(option) "{" NS_XYLEM_NODE "}" option

const char *queue_config_check(const struct node *node, struct node_config *config,
                               const struct xy_form *form, struct xy_str *field)
{
    struct backoff backoff;
    bool was = node != NULL && node->queue != NULL;
    *field = XY_STR(XYLEM("queue"));
    if (was != config->queue && node != NULL && (node->items.live > 0 || node->subscriptions_count > 0))
        return "can be changed only while the node has neither items nor subscriptions";
    *field = XY_STR(XYLEM("lock_timeout"));
    if (config->lock_timeout_s == 0 || config->lock_timeout_s > QUEUE_LOCK_S_MAX)
        return "from 1 to 604800 seconds";
    *field = XY_STR(XYLEM("max_deliver"));
    if (config->max_deliver == 0)
        return "at least 1, or `max`";
    *field = XY_STR(XYLEM("backoff"));
    if (!backoff_parse(config->backoff, &backoff))
        return "up to 16 numbers of seconds, 604800 at most, divided by commas";
    *field = XY_STR(XYLEM("dead_letter"));
    if (config->dead_letter.len > NODE_NAME_MAX ||
        (node != NULL && xy_str_eq(config->dead_letter, node->name)))
        return "the name of another node";
    if (!config->queue)
        return NULL;
    *field = XY_STR("pubsub#persist_items");
    if (!config->persist_items)
        return "a queue keeps its items";
    *field = XY_STR(XYLEM("durability"));
    if (config->durability == DURABILITY_MEMORY)
        return "a queue keeps its items on disk";
    *field = XY_STR("pubsub#item_expire");
    if (config->item_expire_s != OPTION_COUNT_MAX)
        return "items of a queue expire by their own header TTL";
    if (!was && !mentions(form, XYLEM("overflow")))
        config->overflow = OVERFLOW_REJECT;
    config->node_full = config->overflow == OVERFLOW_REJECT ? FULL_REJECT : FULL_RETRACT_OLDEST;
    config->send_last = SEND_LAST_NEVER;
    if (!was && !mentions(form, "pubsub#max_items"))
        config->max_items = OPTION_COUNT_MAX;
    return NULL;
}

/* --- items --------------------------------------------------------------------------------------------------------- */

bool queue_item_added(struct queue *queue, const struct item *item, const struct item_traits *traits)
{
    if (item_traits_plain(traits))
        return true;
    enum queue_priority usual = (enum queue_priority)queue->node->config.priority;
    struct queue_traits engine_traits = {
        .priority = traits->urgency >= 0 ? (enum queue_priority)traits->urgency : usual,
        .group = traits->group,
        .not_before_us = traits->not_before_us != 0 ? queue_engine_time(queue, traits->not_before_us) : 0,
        .expires_us = traits->expires_us != 0 ? queue_engine_time(queue, traits->expires_us) : QUEUE_NEVER,
    };
    return queue_add(queue->engine, item->seq, &engine_traits) != NULL;
}

void queue_item_gone(struct queue *queue, const struct item *item)
{
    uint64_t seq = item->seq;
    const struct queue_entry *entry = queue_find(queue->engine, seq);
    if (entry == NULL)
        return;
    queue_leaves_no_more(queue, entry, item);
    if (entry->stored) {
        xy_buf_add(&queue->ended, &seq, sizeof(seq));
        queue_record_soon(queue);
    }
    queue_remove(queue->engine, seq, queue_now_us(queue));
    queue_touch(queue);
}

bool queue_forget_items(struct queue *queue, struct queue_engine **engine)
{
    struct node *node = queue->node;
    size_t position = 0;
    struct queue_engine *fresh =
        queue_engine_new(node->pubsub->hash_seed, (struct queue_source){ next_plain, queue });
    if (fresh == NULL)
        return false;
    for (const struct subscription *s; (s = node_next_subscription(node, &position)) != NULL;)
        for (struct queue_entry *entry;
             s->worker != NULL && (entry = queue_consumer_first(&s->worker->consumer)) != NULL;)
            queue_remove(queue->engine, entry->seq, queue_now_us(queue));
    queue_engine_succeed(fresh, queue->engine);
    *engine = queue->engine;
    queue->engine = fresh;
    xy_list_init(&queue->dirty);
    xy_buf_reset(&queue->ended);
    queue->leaving = (struct queue_leaving){ 0 };
    queue_touch(queue);
    return true;
}

struct queue_entry *queue_entry_of(struct queue *queue, uint64_t seq)
{
    struct queue_entry *entry = queue_find(queue->engine, seq);
    if (entry != NULL)
        return entry;
    struct queue_traits traits = { .priority = (enum queue_priority)queue->node->config.priority,
                                   .expires_us = QUEUE_NEVER };
    entry = queue_add(queue->engine, seq, &traits);
    if (entry != NULL)
        queue_commit(queue->engine, entry, queue_now_us(queue));
    return entry;
}

void queue_item_committed(struct queue *queue, uint64_t seq)
{
    struct queue_entry *entry = queue_find(queue->engine, seq);
    if (entry != NULL && entry->state == QUEUE_PENDING)
        queue_commit(queue->engine, entry, queue_now_us(queue));
    queue_touch(queue);
}

/* --- handing out --------------------------------------------------------------------------------------------------- */

/* It cannot be read any more: nothing will bring it back, and nobody can handle it. */
static void set_aside(struct queue *queue, struct queue_entry *entry, struct item *item)
{
    struct node *node = queue->node;
    log_error(node->pubsub->shard->log, "item of a queue is damaged and parked", LOG_STR("node", node->name),
              LOG_NUM("seq", entry->seq));
    node->pubsub->stats.damaged += !item->damaged;
    item->damaged = true;
    queue_park(queue->engine, entry, queue_now_us(queue));
    queue_dirty(queue, entry);
}

/* false: memory is short, it was not sent. */
static bool send(struct queue *queue, struct queue_entry *entry)
{
    struct node *node = queue->node;
    const struct claim *claim = &queue_holder(entry)->claim;
    struct item *item = index_find(&node->items, entry->seq);
    struct event *event;
    xy_assert(item != NULL);
    uint32_t attempt = entry->attempts == 1 && entry->seq <= queue->restored_seq ? 2 : entry->attempts;
    enum item_read verdict = event_of_entry(node, item, attempt > 1 || item->event == NULL, &event);
    if (verdict == ITEM_READ_DAMAGED) {
        set_aside(queue, entry, item);
        return true;
    }
    if (event == NULL) {
        queue_unsend(queue->engine, entry, queue_now_us(queue));
        return false;
    }
    queue->figures.redelivered += attempt > 1;
    node->pubsub->stats.redelivered += attempt > 1;
    delivery_one(node->pubsub->shard, claim->session, claim->index, claim->run, event, attempt, false);
    stat_add(node->pubsub->shard, queue_sent, 1);
    queue_dirty(queue, entry);
    return true;
}

/* claim.c moves consumers between sessions: only one that is waiting for items gets some. */
static bool receives(const struct queue_entry *entry)
{
    const struct subscription *consumer = queue_holder(entry);
    return consumer->claim.state == CLAIM_WAITING && consumer->options.deliver;
}

/* true: there may be more. */
static bool hand_out(struct queue *queue, bool *short_of_memory)
{
    uint64_t lock_us = queue_now_us(queue) + queue->node->config.lock_timeout_s * 1000000u;
    for (unsigned i = 0; i < QUEUE_RUN_MAX && !*short_of_memory; i++) {
        struct queue_entry *entry = queue_next(queue->engine, lock_us, short_of_memory);
        if (entry == NULL)
            return false;
        if (receives(entry)) {
            *short_of_memory = !send(queue, entry);
            continue;
        }
        struct queue_consumer *consumer = entry->consumer;
        queue_unsend(queue->engine, entry, queue_now_us(queue));
        queue_consumer_set(queue->engine, consumer, consumer->capacity, false);
    }
    return !*short_of_memory;
}

static void expire(struct queue *queue, struct queue_entry *entry)
{
    struct node *node = queue->node;
    struct item *item = index_find(&node->items, entry->seq);
    uint64_t seq = entry->seq;
    queue->figures.expired++;
    stat_add(node->pubsub->shard, queue_expired, 1);
    if (node->config.dead_letter.len > 0) {
        queue_bury(queue, entry, DEAD_EXPIRED);
        return;
    }
    index_remove(&node->items, item);
    record_items_removed(node, &seq, 1);
}

static void timed_out(struct queue *queue, struct queue_entry *entry)
{
    struct item *item = index_find(&queue->node->items, entry->seq);
    struct event *event = event_for_unlock(queue->node, item_id(item));
    struct subscription *holder = queue_holder(entry);
    queue->figures.timed_out++;
    stat_add(queue->node->pubsub->shard, queue_timed_out, 1);
    queue_tell(queue, holder, &event);
    queue_give_back(queue, entry, QUEUE_BACK_TIMEOUT, QUEUE_DELAY_DEFAULT);
    claim_settled(holder);
}

/* true: there may be more. */
static bool pass_time(struct queue *queue)
{
    struct queue_entry *entry;
    for (unsigned i = 0; i < QUEUE_RUN_MAX; i++) {
        switch (queue_due(queue->engine, queue_now_us(queue), &entry)) {
        case QUEUE_LOCK_OVER:
            timed_out(queue, entry);
            break;
        case QUEUE_EXPIRED:
            expire(queue, entry);
            break;
        case QUEUE_NOTHING:
            return false;
        }
    }
    return true;
}

static void set_timer(struct queue *queue, uint64_t at_us)
{
    struct shard *shard = queue->node->pubsub->shard;
    uint64_t due_us = queue_next_due_us(queue->engine);
    due_us = due_us < at_us ? due_us : at_us;
    due_us = due_us < queue->record_us ? due_us : queue->record_us;
    due_us = due_us < queue->bury_us ? due_us : queue->bury_us;
    if (due_us == QUEUE_NEVER)
        shard_timer_cancel(shard, &queue->timer);
    else
        shard_timer_set(shard, &queue->timer, due_us);
}

static void run(struct queue *queue)
{
    if (queue->node->gone)
        return;
    bool short_of_memory = false;
    bool more = pass_time(queue);
    if (!more && !queue->node->pubsub->quiescing)
        more = hand_out(queue, &short_of_memory);
    if (queue->record_us <= queue_now_us(queue))
        queue_record(queue, true);
    if (queue->bury_us <= queue_now_us(queue))
        queue_bury_parked(queue);
    more |= queue_trim(queue);
    if (more)
        queue_touch(queue);
    set_timer(queue, short_of_memory ? queue_now_us(queue) + QUEUE_RETRY_US : QUEUE_NEVER);
}

static void on_timer(struct shard *shard, struct shard_timer *timer)
{
    (void)shard;
    run(xy_container_of(timer, struct queue, timer));
}

static void on_run(struct shard *shard, void *payload)
{
    uint64_t number;
    memcpy(&number, payload, sizeof(number));
    struct node *node = shard->pubsub != NULL ? node_by_number(shard->pubsub, number) : NULL;
    if (node == NULL || node->queue == NULL)
        return; /* it went, or is no queue any more */
    node->queue->run_queued = false;
    run(node->queue);
}

/* Mail to oneself comes behind what is being handled, so one run does for all of it. */
void queue_touch(struct queue *queue)
{
    struct node *node = queue->node;
    struct shard *shard = node->pubsub->shard;
    if (queue->run_queued || node_by_number(node->pubsub, node->number) != node)
        return; /* one that is not listed yet is touched when it is */
    queue->run_queued = true;
    shard_mail(shard, shard->index, on_run, &node->number, sizeof(node->number));
}
