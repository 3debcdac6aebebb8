/* States of queue items to the store and back: how often an item was sent, until when it waits, whether it is parked.
 * Nobody waits for them but who gives an item back by a request; an item that is acknowledged within the second it was
 * sent never has one. */
#include "broker/pubsub/queue/queue.h"

#include "broker/pubsub/queue/queue_engine.h"
#include "core/base/assert.h"

void queue_record_soon(struct queue *queue)
{
    if (queue->record_us != QUEUE_NEVER)
        return;
    queue->record_us = queue_now_us(queue) + QUEUE_RECORD_US;
    queue_touch(queue); /* the timer is set there */
}

void queue_dirty(struct queue *queue, struct queue_entry *entry)
{
    if (!xy_list_linked(&entry->dirty_link))
        xy_list_append(&queue->dirty, &entry->dirty_link);
    queue_record_soon(queue);
}

static void append(struct queue *queue, const Xylem__Store__V1__QueueState *state, bool lazily)
{
    struct node *node = queue->node;
    struct store_shard *store = node->pubsub->shard->store;
    if (lazily)
        (void)store_append_lazy(store, RECORD_QUEUE_STATE, &state->base);
    else
        node->ticket = store_append(store, RECORD_QUEUE_STATE, &state->base);
}

static uint64_t wall_time(const struct queue *queue, uint64_t engine_us)
{
    uint64_t now_us = queue_now_us(queue);
    return engine_us > now_us ? xy_wall_us(queue->node->pubsub->shard->env) + (engine_us - now_us) : 0;
}

/* false: memory is short; tried again. */
static bool record_states(struct queue *queue, bool lazily)
{
    struct xy_arena *arena = queue->node->pubsub->arena;
    xy_arena_reset(arena);
    Xylem__Store__V1__QueueState state = XYLEM__STORE__V1__QUEUE_STATE__INIT;
    state.node = queue->node->number;
    state.seq = xy_arena_alloc(arena, QUEUE_STATES_MAX * sizeof(*state.seq));
    state.attempts = xy_arena_alloc(arena, QUEUE_STATES_MAX * sizeof(*state.attempts));
    state.not_before_us = xy_arena_alloc(arena, QUEUE_STATES_MAX * sizeof(*state.not_before_us));
    state.parked = xy_arena_alloc(arena, QUEUE_STATES_MAX * sizeof(*state.parked));
    state.timeless = xy_arena_alloc(arena, QUEUE_STATES_MAX * sizeof(*state.timeless));
    bool any_timeless = false;
    if (xy_arena_failed(arena))
        return false;
    while (!xy_list_empty(&queue->dirty) && state.n_seq < QUEUE_STATES_MAX) {
        struct queue_entry *entry = xy_container_of(queue->dirty.next, struct queue_entry, dirty_link);
        xy_list_remove(&entry->dirty_link);
        state.seq[state.n_seq] = entry->seq;
        state.attempts[state.n_seq] = entry->attempts;
        state.not_before_us[state.n_seq] = wall_time(queue, entry->not_before_us);
        state.timeless[state.n_seq] = entry->timeless;
        any_timeless |= entry->timeless;
        state.parked[state.n_seq++] = entry->state == QUEUE_PARKED;
        entry->stored = true;
    }
    state.n_attempts = state.n_not_before_us = state.n_parked = state.n_seq;
    state.n_timeless = any_timeless ? state.n_seq : 0;
    if (state.n_seq > 0)
        append(queue, &state, lazily);
    return true;
}

static void record_ended(struct queue *queue, bool lazily)
{
    Xylem__Store__V1__QueueState state = XYLEM__STORE__V1__QUEUE_STATE__INIT;
    uint64_t *ended = (uint64_t *)(void *)queue->ended.data;
    size_t count = queue->ended.len / sizeof(*ended);
    state.node = queue->node->number;
    for (size_t from = 0; from < count; from += state.n_ended) {
        state.n_ended = count - from < QUEUE_STATES_MAX ? count - from : QUEUE_STATES_MAX;
        state.ended = ended + from;
        append(queue, &state, lazily);
    }
    if (queue->ended.cap > QUEUE_STATES_MAX * sizeof(*ended))
        xy_buf_free(&queue->ended);
    else
        xy_buf_reset(&queue->ended);
}

void queue_record(struct queue *queue, bool lazily)
{
    bool done = true;
    while (done && !xy_list_empty(&queue->dirty))
        done = record_states(queue, lazily);
    record_ended(queue, lazily);
    queue->record_us = QUEUE_NEVER;
    if (!done)
        queue_record_soon(queue);
}

void queue_record_taken(struct queue *queue, bool lazily)
{
    struct node *node = queue->node;
    uint64_t *seqs = (uint64_t *)(void *)queue->taken.data;
    size_t count = queue->taken.len / sizeof(*seqs);
    if (!lazily) {
        record_items_removed(node, seqs, count);
        if (!xy_list_empty(&queue->dirty))
            queue_record(queue, false);
    }
    for (size_t i = 0; lazily && i < count; i++)
        record_item_freed(node, seqs[i]);
    if (queue->taken.cap > QUEUE_STATES_MAX * sizeof(*seqs))
        xy_buf_free(&queue->taken);
    else
        xy_buf_reset(&queue->taken);
}

/* --- back ---------------------------------------------------------------------------------------------------------- */

void queue_restore_state(struct queue *queue, uint64_t seq, struct xy_str value)
{
    static const struct queue_traits plain = { .priority = QUEUE_MEDIUM, .expires_us = QUEUE_NEVER };
    uint64_t not_before_us;
    uint32_t attempts;
    bool parked;
    if (!store_queue_value(value, &attempts, &parked, &not_before_us))
        return;
    struct queue_entry *entry = queue_find(queue->engine, seq);
    if (entry == NULL && index_find(&queue->node->items, seq) == NULL) {
        xy_buf_add(&queue->ended, &seq, sizeof(seq)); /* its end beat that of its state */
        queue_record_soon(queue);
        return;
    }
    if (entry == NULL) {
        struct queue_traits traits = plain;
        traits.priority = (enum queue_priority)queue->node->config.priority;
        entry = queue_add(queue->engine, seq, &traits);
    }
    if (entry == NULL)
        return;
    entry->attempts = attempts;
    entry->returned = attempts > 0;
    entry->stored = true;
    entry->timeless = store_queue_timeless(value);
    if (entry->timeless)
        entry->expires_us = QUEUE_NEVER;
    if (not_before_us != 0)
        entry->not_before_us = queue_engine_time(queue, not_before_us);
    if (parked ||
        attempts >= queue->node->config.max_deliver) /* whoever had it last did not say that it is done */
        xy_buf_add(&queue->parked, &seq, sizeof(seq));
}

void queue_restored(struct queue *queue)
{
    uint64_t now_us = queue_now_us(queue);
    queue->restored_seq = queue->node->next_seq - 1;
    queue_commit_all(queue->engine, now_us);
    for (size_t i = 0; i < queue->parked.len; i += sizeof(uint64_t)) {
        uint64_t seq;
        memcpy(&seq, queue->parked.data + i, sizeof(seq));
        queue_park(queue->engine, queue_find(queue->engine, seq), now_us);
    }
    xy_buf_free(&queue->parked);
    if (queue_parked(queue->engine) != NULL)
        queue->bury_us = now_us;
    queue_touch(queue);
}
