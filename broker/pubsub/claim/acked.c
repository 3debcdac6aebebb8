/* Sending and settling items that are acknowledged one by one; see acked.h, and window.h for what is remembered.
 *
 * First deliveries come in the order of publishing. What comes again goes before what was never sent, the oldest first.
 * An acknowledgement counts whoever of the account it comes from and whether or not a session holds the claim. */
#include "broker/pubsub/claim/acked.h"

#include <stdlib.h>

#include "broker/log.h"
#include "broker/pubsub/claim/deadletter.h"
#include "broker/pubsub/node/node.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

#define DUE_MAX       256u                  /* items looked at in one run of the timer */
#define DEAD_RETRY_US (60ull * 1000 * 1000) /* dead letters that were refused */
#define DEAD_BUSY_US  (1000ull * 1000)      /* those that could not be sent off */

static struct node *node_of(const struct subscription *subscription)
{
    return subscription->subscriber->node;
}

static struct shard *shard_of(const struct subscription *subscription)
{
    return node_of(subscription)->pubsub->shard;
}

static struct window *window_of(const struct subscription *subscription)
{
    return &subscription->claim.acked->window;
}

static uint64_t now_us(const struct subscription *subscription)
{
    return xy_now_us(shard_of(subscription)->env);
}

uint64_t acked_deadline_us(const struct subscription *subscription)
{
    uint64_t wait_s = subscription->options.ack_wait_s;
    if (subscription->claim.ops != &acked_ops || wait_s > ACK_WAIT_S_MAX)
        return WINDOW_NEVER;
    return now_us(subscription) + wait_s * 1000000;
}

uint64_t acked_pause_us(const struct subscription *subscription, uint32_t attempts)
{
    return (uint64_t)backoff_s(&subscription->claim.acked->backoff, attempts) * 1000000;
}

static uint64_t next_due_us(const struct subscription *subscription)
{
    uint64_t items = window_due_us(window_of(subscription)), gap = gap_due_us(subscription);
    return items < gap ? items : gap;
}

/* After every change of the window: the cursor others see, the timer, and the record to come. */
static void changed(struct subscription *subscription)
{
    struct acked *acked = subscription->claim.acked;
    uint64_t due_us = next_due_us(subscription);
    subscription->claim.cursor = window_cursor(&acked->window);
    subscription->claim.sent = acked->window.sent;
    if (due_us == WINDOW_NEVER)
        shard_timer_cancel(shard_of(subscription), &acked->timer);
    else if (!shard_timer_is_set(&acked->timer) || acked->timer.due_us != due_us)
        shard_timer_set(shard_of(subscription), &acked->timer, due_us);
}

/* The same when the store has to know, some time soon. */
static void settled_some(struct subscription *subscription)
{
    changed(subscription);
    if (!node_of(subscription)->gone)
        record_cursor_moved(node_of(subscription), subscription);
}

/* --- memory ---------------------------------------------------------------------------------------------------------- */

static void on_due(struct shard *shard, struct shard_timer *timer);

struct acked *acked_new(struct subscription *subscription, uint64_t hash_seed)
{
    struct acked *acked = calloc(1, sizeof(*acked));
    if (acked == NULL)
        return NULL;
    acked->subscription = subscription;
    acked->timer.fn = on_due;
    if (window_init(&acked->window, hash_seed, 0))
        return acked;
    free(acked);
    return NULL;
}

void acked_free(struct acked **acked)
{
    if (*acked == NULL)
        return;
    shard_timer_cancel(shard_of((*acked)->subscription), &(*acked)->timer);
    window_free(&(*acked)->window);
    free(*acked);
    *acked = NULL;
}

/* --- items that are not sent again ----------------------------------------------------------------------------------- */

/* Its item was retracted or purged: nothing is owed. */
static void forget_entry(struct subscription *subscription, struct window_entry *entry)
{
    window_settle(window_of(subscription), entry);
    settled_some(subscription);
}

static void settle_entry(struct subscription *subscription, struct window_entry *entry)
{
    struct node *node = node_of(subscription);
    index_pass(&node->items, entry->seq - 1, entry->seq, subscription->born, record_item_freed, node);
    forget_entry(subscription, entry);
}

static void on_moved(struct node *node, uint32_t number, uint64_t seq, bool moved);

static bool send_letter(struct subscription *subscription, struct item *item,
                        const struct window_entry *entry, enum dead_reason reason)
{
    struct dead_letter letter = { .to = subscription->options.dead_letter,
                                  .account = xy_jid_canonical(subscription->subscriber->bare),
                                  .subid = xy_str(subscription->subid),
                                  .subscription = subscription->number,
                                  .attempts = entry->attempts,
                                  .reason = reason,
                                  .done = on_moved };
    return deadletter_send(node_of(subscription), item, &letter);
}

static void bury(struct subscription *subscription, struct window_entry *entry, enum dead_reason reason)
{
    struct window *window = window_of(subscription);
    struct item *item = index_find(&node_of(subscription)->items, entry->seq);
    if (item == NULL) {
        forget_entry(subscription, entry);
        return;
    }
    entry->reason = (uint8_t)reason;
    if (subscription->options.dead_letter.len == 0)
        window_put(window, entry, WINDOW_PARKED, WINDOW_NEVER);
    else if (send_letter(subscription, item, entry, reason))
        window_put(window, entry, WINDOW_ENDING, WINDOW_NEVER);
    else
        window_put(window, entry, WINDOW_PARKED, now_us(subscription) + DEAD_BUSY_US);
    settled_some(subscription);
}

/* The dead letters have it, or it could not be put there now. */
static void on_moved(struct node *node, uint32_t number, uint64_t seq, bool moved)
{
    struct subscription *subscription = node_subscription(node, number);
    bool ours = subscription != NULL && subscription->claim.ops == &acked_ops;
    struct window_entry *entry = ours ? window_find(window_of(subscription), seq) : NULL;
    if (entry == NULL || entry->state != WINDOW_ENDING)
        return; /* acknowledged, or rewound, meanwhile */
    if (moved) {
        subscription->claim.acked->dead_lettered++;
        settle_entry(subscription, entry);
    } else {
        window_put(window_of(subscription), entry, WINDOW_PARKED, now_us(subscription) + DEAD_RETRY_US);
        settled_some(subscription);
    }
    claim_settled(subscription);
}

/* It goes out as a gap: there is nothing to bury. */
static bool is_damaged(const struct subscription *subscription, const struct window_entry *entry)
{
    const struct item *item = index_find(&node_of(subscription)->items, entry->seq);
    return item != NULL && item->damaged;
}

/* It was sent and comes again, after `delay_us`, unless that was the last time. */
static void come_again(struct subscription *subscription, struct window_entry *entry, uint64_t delay_us)
{
    if (entry->attempts >= subscription->options.max_deliver && !is_damaged(subscription, entry)) {
        bury(subscription, entry, DEAD_MAX_DELIVER);
        return;
    }
    if (delay_us > 0)
        window_put(window_of(subscription), entry, WINDOW_DELAYED, now_us(subscription) + delay_us);
    else
        window_put(window_of(subscription), entry, WINDOW_READY, WINDOW_NEVER);
    settled_some(subscription);
}

/* --- time ------------------------------------------------------------------------------------------------------------ */

static void on_due(struct shard *shard, struct shard_timer *timer)
{
    struct acked *acked = xy_container_of(timer, struct acked, timer);
    struct subscription *subscription = acked->subscription;
    struct window_entry *entry;
    if (node_of(subscription)->gone)
        return;
    uint64_t until_us = xy_now_us(shard->env);
    for (unsigned n = 0; n < DUE_MAX && (entry = window_due(&acked->window, until_us)) != NULL; n++) {
        if (entry->state == WINDOW_FLIGHT)
            come_again(subscription, entry, acked_pause_us(subscription, entry->attempts));
        else if (entry->state == WINDOW_DELAYED)
            window_put(&acked->window, entry, WINDOW_READY, WINDOW_NEVER);
        else
            bury(subscription, entry, (enum dead_reason)entry->reason);
    }
    gap_come_due(subscription, until_us);
    settled_some(subscription);
    claim_settled(subscription);
}

/* --- sending --------------------------------------------------------------------------------------------------------- */

static uint32_t attempt_of(const struct subscription *subscription, uint64_t seq, uint32_t attempts)
{
    return attempts < 2 && seq <= subscription->claim.sent_max ? 2 : attempts;
}

/* The next item and, if it was sent before, its entry. NULL: there is none, or no more may be out. */
static struct item *next_item(struct subscription *subscription, struct window_entry **entry)
{
    struct node *node = node_of(subscription);
    struct window *window = window_of(subscription);
    if (window->count[WINDOW_FLIGHT] >= subscription->options.max_inflight)
        return NULL;
    while ((*entry = window_next(window)) != NULL) {
        struct item *item = index_find(&node->items, (*entry)->seq);
        if (item != NULL)
            return item;
        forget_entry(subscription, *entry);
    }
    struct item *item = index_owed(&node->items, window->sent, subscription->born);
    return item != NULL && item->seq <= node->delivered_seq ? item : NULL;
}

static bool send_one(struct subscription *subscription, struct item *item, struct window_entry *entry,
                     bool page_end)
{
    struct node *node = node_of(subscription);
    struct claim *claim = &subscription->claim;
    struct window *window = window_of(subscription);
    uint32_t attempts = entry != NULL ? entry->attempts + 1 : 1;
    uint32_t attempt = attempt_of(subscription, item->seq, attempts);
    struct event *event = claim_event(subscription, item, attempt > 1);
    if (event == NULL)
        return false;
    if (entry != NULL)
        window_resend(window, entry, acked_deadline_us(subscription));
    else
        entry = window_add(window, item->seq, WINDOW_FLIGHT, acked_deadline_us(subscription));
    if (entry == NULL) {
        event_unref(&event);
        return false;
    }
    node->pubsub->stats.redelivered += attempt > 1;
    claim->redelivered += attempt > 1;
    delivery_one(shard_of(subscription), claim->session, claim->index, claim->run, event, attempt, page_end);
    return true;
}

/* Full of items that are delayed or parked: those in flight do not count, they will make room. */
static bool is_full(struct subscription *subscription)
{
    if (window_of(subscription)->total < WINDOW_ENTRIES_MAX)
        return false;
    stat_add(shard_of(subscription), windows_full, 1);
    return true;
}

static bool wants_more(const struct subscription *subscription)
{
    const struct window *window = window_of(subscription);
    return window->count[WINDOW_FLIGHT] < subscription->options.max_inflight &&
           window->total < WINDOW_ENTRIES_MAX;
}

static void acked_send(struct subscription *subscription)
{
    size_t bytes = 0;
    struct window_entry *entry;
    enum claim_state state = CLAIM_OPEN;
    for (size_t count = 1; state == CLAIM_OPEN && !node_of(subscription)->pubsub->quiescing; count++) {
        struct item *item = next_item(subscription, &entry);
        if (item == NULL || (entry == NULL && is_full(subscription)))
            break;
        bytes += item->bytes;
        bool page_end = count == PAGE_ITEMS_MAX || bytes >= PAGE_BYTES_MAX;
        if (!send_one(subscription, item, entry, page_end))
            state = CLAIM_BLOCKED;
        else if (page_end)
            state = CLAIM_WAITING;
    }
    if (xy_list_empty(&window_of(subscription)->dirty))
        changed(subscription);
    else
        settled_some(subscription); /* how often an item was sent */
    if (state == CLAIM_BLOCKED)
        claim_block(subscription);
    else
        claim_set_state(subscription, state);
    if (!wants_more(subscription) && xy_list_linked(&subscription->claim.open))
        xy_list_remove(&subscription->claim.open); /* publishing need not ask until something is settled */
}

/* --- what the session does ------------------------------------------------------------------------------------------- */

static void acked_attached(struct subscription *subscription)
{
    xy_assert(window_of(subscription)->count[WINDOW_FLIGHT] == 0);
}

static void acked_lost(struct subscription *subscription)
{
    struct window *window = window_of(subscription);
    while (!xy_list_empty(&window->flight))
        come_again(subscription, xy_container_of(window->flight.next, struct window_entry, flight), 0);
    changed(subscription);
}

/* From a gap on, what was sent behind it: the session may have had other items already. An item that was acknowledged
 * late is known no more, though the session means it: then what was sent behind it comes again when its time is over. */
static void acked_stalled(struct subscription *subscription, uint64_t unsent)
{
    struct window *window = window_of(subscription);
    if (!window_untake(window, unsent) && unsent == subscription->claim.gap.told.last)
        window_untake_since(window, subscription->claim.gap.behind);
    settled_some(subscription);
}

static void acked_received(struct subscription *subscription, uint64_t seq)
{
    (void)subscription, (void)seq; /* it has it, which is not the same as being done with it */
}

static bool acked_in_flight(const struct subscription *subscription)
{
    return window_of(subscription)->count[WINDOW_FLIGHT] > 0;
}

/* --- acknowledgements ------------------------------------------------------------------------------------------------ */

static bool is_owed_above(const struct subscription *subscription, uint64_t seq)
{
    const struct item *item = index_find(&node_of(subscription)->items, seq);
    return item != NULL && item_concerns(item, subscription->born);
}

/* What may have been sent before a restart is known by no entry: make those up to seq. */
static enum claim_verdict remember(struct subscription *subscription, uint64_t seq)
{
    struct node *node = node_of(subscription);
    struct window *window = window_of(subscription);
    if (seq <= window->sent || seq > subscription->claim.sent_max || !is_owed_above(subscription, seq))
        return CLAIM_UNKNOWN;
    for (const struct item *item;
         (item = index_owed(&node->items, window->sent, subscription->born)) != NULL && item->seq <= seq;)
        if (window_add(window, item->seq, WINDOW_READY, WINDOW_NEVER) == NULL)
            return CLAIM_NO_ROOM;
    return CLAIM_DONE;
}

/* Its item was retracted or purged, and nobody has it in hand. The node may leave memory then, and comes back without it:
 * so whoever asks is not told of it before either. */
static bool is_over(const struct subscription *subscription, const struct window_entry *entry)
{
    return entry->state != WINDOW_FLIGHT && index_find(&node_of(subscription)->items, entry->seq) == NULL;
}

static enum claim_verdict find(struct subscription *subscription, uint64_t seq, struct window_entry **entry)
{
    enum claim_verdict verdict = CLAIM_DONE;
    *entry = window_find(window_of(subscription), seq);
    if (*entry != NULL && is_over(subscription, *entry)) {
        forget_entry(subscription, *entry);
        return CLAIM_UNKNOWN;
    }
    if (*entry == NULL)
        verdict = remember(subscription, seq);
    if (*entry == NULL)
        *entry = window_find(window_of(subscription), seq);
    return *entry != NULL ? CLAIM_DONE : verdict == CLAIM_NO_ROOM ? CLAIM_NO_ROOM : CLAIM_UNKNOWN;
}

static void settle_up_to(struct subscription *subscription, uint64_t seq)
{
    struct node *node = node_of(subscription);
    struct window *window = window_of(subscription);
    for (struct window_entry *entry; (entry = window_oldest(window)) != NULL && entry->seq <= seq;)
        settle_entry(subscription, entry);
    if (seq <= window->sent)
        return;
    index_pass(&node->items, window->sent, seq, subscription->born, record_item_freed, node);
    window_pass(window, seq);
    settled_some(subscription);
}

/* Entries below `first` are owed and not part of what the subscriber is told to be without. */
static void acked_skip(struct subscription *subscription, uint64_t first, uint64_t last)
{
    struct node *node = node_of(subscription);
    struct window *window = window_of(subscription);
    uint64_t sent = window->sent;
    const struct item *item = index_after(&node->items, first - 1);
    while (item != NULL && item->seq <= last && item->seq <= sent) {
        uint64_t seq = item->seq;
        struct window_entry *entry = window_find(window, seq);
        if (entry != NULL)
            settle_entry(subscription, entry);
        item = index_after(&node->items, seq);
    }
    if (last <= sent)
        return;
    index_pass(&node->items, sent, last, subscription->born, record_item_freed, node);
    window_pass(window, last);
    settled_some(subscription);
}

static enum claim_verdict acked_ack(struct subscription *subscription, uint64_t seq, bool cumulative)
{
    struct window_entry *entry;
    const struct claim *claim = &subscription->claim;
    struct window *window = window_of(subscription);
    if (!cumulative) {
        enum claim_verdict verdict = find(subscription, seq, &entry);
        if (verdict == CLAIM_DONE)
            settle_entry(subscription, entry);
        return verdict;
    }
    while ((entry = window_oldest(window)) != NULL && is_over(subscription, entry))
        forget_entry(subscription, entry);
    bool known = seq <= window->sent || seq <= claim->sent_max;
    bool owes = (entry != NULL && entry->seq <= seq) || seq > window->sent;
    if (!known || !owes)
        return CLAIM_UNKNOWN;
    settle_up_to(subscription, seq);
    return CLAIM_DONE;
}

static enum claim_verdict acked_nack(struct subscription *subscription, uint64_t seq,
                                     const uint64_t *delay_us)
{
    struct window_entry *entry = window_find(window_of(subscription), seq);
    if (entry == NULL || entry->state != WINDOW_FLIGHT)
        return CLAIM_UNKNOWN;
    come_again(subscription, entry,
               delay_us != NULL ? *delay_us : acked_pause_us(subscription, entry->attempts));
    return CLAIM_DONE;
}

static enum claim_verdict acked_term(struct subscription *subscription, uint64_t seq)
{
    struct window_entry *entry;
    enum claim_verdict verdict = find(subscription, seq, &entry);
    if (verdict == CLAIM_DONE && is_damaged(subscription, entry))
        settle_entry(subscription, entry);
    else if (verdict == CLAIM_DONE && entry->state != WINDOW_ENDING)
        bury(subscription, entry, DEAD_TERM);
    return verdict;
}

static enum claim_verdict acked_working(struct subscription *subscription, uint64_t seq)
{
    struct window_entry *entry = window_find(window_of(subscription), seq);
    if (entry == NULL || entry->state != WINDOW_FLIGHT)
        return CLAIM_UNKNOWN;
    window_extend(window_of(subscription), entry, acked_deadline_us(subscription));
    changed(subscription);
    return CLAIM_DONE;
}

/* By id: the newest item of that name, or of those that are out the one that has it. */
static uint64_t acked_seq_of(const struct subscription *subscription, struct xy_str id)
{
    const struct node *node = node_of(subscription);
    const struct window *window = window_of(subscription);
    const struct item *item = index_find_id(&node->items, id);
    if (item != NULL && (window_find(window, item->seq) != NULL || item->seq > window->sent))
        return item->seq;
    for (const struct xy_list *link = window->flight.prev; link != &window->flight; link = link->prev) {
        const struct window_entry *entry = xy_container_of(link, const struct window_entry, flight);
        item = index_find(&node->items, entry->seq);
        if (item != NULL && xy_str_eq(item_id(item), id))
            return entry->seq;
    }
    return 0;
}

/* --- beginning and end ------------------------------------------------------------------------------------------------ */

/* What waits to be sent again was sent as often as it may be now. */
static void give_up_spent(struct subscription *subscription)
{
    struct window *window = window_of(subscription);
    size_t position = 0;
    if (window->count[WINDOW_READY] + window->count[WINDOW_DELAYED] == 0)
        return;
    for (struct window_entry *entry; (entry = window_walk(window, &position)) != NULL;)
        if ((entry->state == WINDOW_READY || entry->state == WINDOW_DELAYED) &&
            entry->attempts >= subscription->options.max_deliver && !is_damaged(subscription, entry))
            bury(subscription, entry, DEAD_MAX_DELIVER);
}

static void acked_configured(struct subscription *subscription)
{
    (void)backoff_parse(subscription->options.backoff, &subscription->claim.acked->backoff);
    give_up_spent(subscription);
}

static void acked_begin(struct subscription *subscription)
{
    struct window *window = window_of(subscription);
    xy_assert(window->total == 0);
    window->sent = subscription->claim.acked->recorded = subscription->claim.cursor;
    subscription->claim.acked->recorded_gap =
        (struct gap_range){ subscription->claim.gap.first, subscription->claim.gap.last };
    acked_configured(subscription);
}

bool acked_restore(struct subscription *subscription, uint64_t seq, const struct store_claim *row)
{
    struct window *window = window_of(subscription);
    if (seq > window->sent)
        return true; /* nothing was ever published under that number */
    uint64_t wall_us = xy_wall_us(shard_of(subscription)->env), due_us = WINDOW_NEVER;
    const struct item *item = index_find(&node_of(subscription)->items, seq);
    bool damaged = item != NULL && item->damaged;
    /* The session that it was sent to the last time is over, as in come_again. */
    bool spent = row->attempts >= subscription->options.max_deliver && !damaged;
    enum window_state state = WINDOW_READY;
    if (row->parked || (spent && row->not_before_us <= wall_us)) {
        state = WINDOW_PARKED;
        if (subscription->options.dead_letter.len > 0)
            due_us = now_us(subscription);
    } else if (row->not_before_us > wall_us) {
        state = WINDOW_DELAYED;
        due_us = now_us(subscription) + row->not_before_us - wall_us;
    }
    struct window_entry *entry = window_restore(window, seq, state, due_us, row->attempts);
    if (entry == NULL)
        return false;
    entry->reason = row->attempts >= subscription->options.max_deliver ? DEAD_MAX_DELIVER : DEAD_TERM;
    if (item == NULL)
        forget_entry(subscription, entry);
    changed(subscription);
    return true;
}

static void acked_forget(struct subscription *subscription)
{
    struct node *node = node_of(subscription);
    struct window *window = window_of(subscription);
    for (struct window_entry *entry; (entry = window_oldest(window)) != NULL;) {
        index_pass(&node->items, entry->seq - 1, entry->seq, subscription->born, record_item_freed, node);
        window_settle(window, entry);
    }
    index_pass(&node->items, window->sent, UINT64_MAX, subscription->born, record_item_freed, node);
    changed(subscription);
}

/* Everything above seq is owed again, also what was settled. */
static void acked_rewind(struct subscription *subscription, uint64_t seq)
{
    struct node *node = node_of(subscription);
    struct window *window = window_of(subscription);
    for (struct item *item = index_owed(&node->items, seq, subscription->born);
         item != NULL && item->seq <= window->sent;
         item = index_owed(&node->items, item->seq, subscription->born))
        item->pending += window_find(window, item->seq) == NULL;
    window_rewind(window, seq);
    settled_some(subscription);
}

static bool acked_owes(const struct subscription *subscription, uint64_t seq)
{
    return window_find(window_of(subscription), seq) != NULL;
}

static uint64_t acked_floor(const struct subscription *subscription)
{
    const struct window *window = window_of(subscription);
    const struct window_entry *oldest = window_oldest(window);
    return oldest != NULL ? oldest->seq - 1 : window->sent;
}

/* --- what is recorded -------------------------------------------------------------------------------------------------- */

static uint64_t not_before_us(const struct subscription *subscription, const struct window_entry *entry)
{
    const struct xy_env *env = shard_of(subscription)->env;
    uint64_t now = xy_now_us(env);
    if (entry->state != WINDOW_DELAYED || entry->due_us <= now)
        return 0;
    return xy_wall_us(env) + entry->due_us - now;
}

static bool gap_is_recorded(const struct claim *claim)
{
    return claim->gap.first == claim->acked->recorded_gap.first &&
           claim->gap.last == claim->acked->recorded_gap.last;
}

static void describe(const struct subscription *subscription, const struct window_entry *entry,
                     Xylem__Store__V1__ClaimState *record)
{
    xy_assert(record->seq != NULL && record->settled != NULL);
    if (entry->state != WINDOW_SETTLED) {
        record->seq[record->n_seq++] = entry->seq;
        record->attempts[record->n_attempts++] = entry->attempts;
        record->not_before_us[record->n_not_before_us++] = not_before_us(subscription, entry);
        record->parked[record->n_parked++] = entry->state == WINDOW_PARKED || entry->state == WINDOW_ENDING;
        return;
    }
    const struct window_entry *anew = window_find(window_of(subscription), entry->seq);
    if (anew == NULL || !anew->stored)
        record->settled[record->n_settled++] = entry->seq;
}

static bool acked_record(struct subscription *subscription, bool lazy)
{
    struct node *node = node_of(subscription);
    struct window *window = window_of(subscription);
    const struct claim *claim = &subscription->claim;
    struct xy_arena *arena = node->pubsub->arena;
    Xylem__Store__V1__ClaimState record = XYLEM__STORE__V1__CLAIM_STATE__INIT;
    size_t count = 0;
    xy_list_each (link, &window->dirty)
        count++;
    if (count == 0 && window_cursor(window) == claim->acked->recorded && gap_is_recorded(claim))
        return true;
    record.node = node->number;
    record.number = subscription->number;
    record.cursor = window_cursor(window);
    record.gap_first = claim->gap.first;
    record.gap_last = claim->gap.last;
    record.gap_reason = claim->gap.reason;
    if (count > 0) {
        xy_arena_reset(arena);
        record.seq = xy_arena_alloc(arena, count * sizeof(*record.seq));
        record.attempts = xy_arena_alloc(arena, count * sizeof(*record.attempts));
        record.not_before_us = xy_arena_alloc(arena, count * sizeof(*record.not_before_us));
        record.parked = xy_arena_alloc(arena, count * sizeof(*record.parked));
        record.settled = xy_arena_alloc(arena, count * sizeof(*record.settled));
        if (xy_arena_failed(arena))
            return false;
    }
    xy_list_each (link, &window->dirty)
        describe(subscription, xy_container_of(link, struct window_entry, dirty), &record);
    record_claim_state(node, &record, lazy);
    claim->acked->recorded = record.cursor;
    claim->acked->recorded_gap = (struct gap_range){ claim->gap.first, claim->gap.last };
    window_recorded(window);
    return true;
}

static void acked_figures(const struct subscription *subscription, struct claim_figures *out)
{
    const struct acked *acked = subscription->claim.acked;
    const struct window *window = &acked->window;
    out->above = window->sent;
    out->below = window->total;
    out->in_flight = window->count[WINDOW_FLIGHT];
    out->delayed = window->count[WINDOW_DELAYED];
    out->parked = window->count[WINDOW_PARKED] + window->count[WINDOW_ENDING];
    out->dead_lettered = acked->dead_lettered;
}

/* Nothing is due, and what the store does not know yet is nothing. */
static bool acked_idle(const struct subscription *subscription)
{
    const struct claim *claim = &subscription->claim;
    const struct window *window = &claim->acked->window;
    return xy_list_empty(&window->dirty) && xy_list_empty(&window->fresh) &&
           window_due_us(window) == WINDOW_NEVER && window->count[WINDOW_FLIGHT] == 0 &&
           window->count[WINDOW_ENDING] == 0 && window_cursor(window) == claim->acked->recorded &&
           gap_is_recorded(claim);
}

const struct claim_ops acked_ops = {
    .notices = true,
    .flags = CLAIM_EXPLICIT, /* or CLAIM_RECEIPTS, claim.c knows */
    .begin = acked_begin,
    .configured = acked_configured,
    .lost = acked_lost,
    .attached = acked_attached,
    .send = acked_send,
    .stalled = acked_stalled,
    .received = acked_received,
    .in_flight = acked_in_flight,
    .idle = acked_idle,
    .skip = acked_skip,
    .forget = acked_forget,
    .rewind = acked_rewind,
    .owes = acked_owes,
    .floor = acked_floor,
    .record = acked_record,
    .figures = acked_figures,
    .seq_of = acked_seq_of,
    .ack = acked_ack,
    .nack = acked_nack,
    .term = acked_term,
    .working = acked_working,
};
