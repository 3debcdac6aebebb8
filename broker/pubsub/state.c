/* How at-least-once subscriptions of a node stand: what is owed, what is out, and why nothing flows (docs/protocol.md 1.9).
 * Subscribers see their own, owners all, in pages. Called through the table of pubsub.c. */
#include "broker/pubsub/state.h"

#include "broker/pubsub/claim/acked.h"
#include "core/time.h"

#define PAGE_MAX      200u
#define LOOKS_MAX     20000u /* numbers looked up for one page: many subscriptions may have come and gone */
#define ENTRIES_EXACT 16384u /* of one window, whose bytes are added up one by one */

/* --- one subscription ------------------------------------------------------------------------------------------------ */

static void set_number(struct xy_arena *arena, struct xy_elem *elem, const char *name, uint64_t value)
{
    xy_elem_set(arena, elem, name, xy_arena_printf(arena, "%llu", (unsigned long long)value));
}

static const struct reached *holder(const struct subscription *subscription)
{
    const struct subscriber *subscriber = subscription->subscriber;
    const struct claim *claim = &subscription->claim;
    for (size_t i = 0; claim->state != CLAIM_DETACHED && i < subscriber->reached_count; i++)
        if (session_ref_eq(subscriber->reached[i].session, claim->session))
            return &subscriber->reached[i];
    return NULL;
}

/* Nobody holds it: because nobody is there, or because who is there may not? */
static const char *why_absent(const struct subscription *subscription)
{
    const struct subscriber *subscriber = subscription->subscriber;
    for (size_t i = 0; subscription->claim.ops->sm_only && i < subscriber->reached_count; i++)
        if (subscription_reaches(subscription, &subscriber->reached[i]) && !subscriber->reached[i].sm)
            return "no-stream-management";
    return "absent";
}

static bool is_full(const struct subscription *subscription, const struct claim_figures *figures)
{
    return subscription->claim.ops == &acked_ops &&
           (figures->in_flight >= subscription->options.max_inflight || figures->below >= WINDOW_ENTRIES_MAX);
}

static const char *state_of(const struct subscription *subscription, const struct claim_figures *figures)
{
    if (!subscription->options.deliver)
        return "paused";
    switch (subscription->claim.state) {
    case CLAIM_DETACHED:
        return why_absent(subscription);
    case CLAIM_STALLED:
        return "stalled";
    case CLAIM_BLOCKED:
        return "blocked";
    case CLAIM_LEAVING:
        return "moving";
    case CLAIM_ATTACHING:
    case CLAIM_WAITING:
    case CLAIM_LIVE:
    case CLAIM_OPEN:
        break;
    }
    return is_full(subscription, figures) ? "full" : "receiving";
}

/* Bytes of what is owed above, and of the entries below as far as they are few. */
static uint64_t bytes_of(const struct subscription *subscription, const struct claim_figures *figures)
{
    const struct item_index *items = &subscription->subscriber->node->items;
    const struct item *first = index_owed(items, figures->above, subscription->born);
    uint64_t bytes = first != NULL ? items->added_bytes - first->before_bytes : 0;
    if (subscription->claim.ops != &acked_ops)
        return bytes;
    const struct xy_heap *all = &subscription->claim.acked->window.all;
    for (uint32_t i = 0; i < all->count && i < ENTRIES_EXACT; i++) {
        const struct item *item = index_find(items, ((const struct window_entry *)all->at[i])->seq);
        bytes += item != NULL ? item->bytes : 0;
    }
    return bytes;
}

static void add_oldest(struct xy_arena *arena, struct xy_elem *elem, const struct subscription *subscription)
{
    const struct node *node = subscription->subscriber->node;
    uint64_t floor = subscription->claim.ops->floor(subscription);
    const struct item *oldest = index_owed(&node->items, floor, subscription->born);
    uint64_t now_us = xy_wall_us(node->pubsub->shard->env);
    char stamp[XY_TIME_LEN];
    set_number(arena, elem, "acknowledged", floor);
    if (oldest == NULL)
        return;
    xy_time_format(oldest->time_us, stamp);
    xy_elem_set(arena, elem, "oldest", xy_arena_str(arena, xy_str(stamp)));
    set_number(arena, elem, "oldest-age",
               now_us > oldest->time_us ? (now_us - oldest->time_us) / 1000000 : 0);
}

static void add_figures(struct xy_arena *arena, struct xy_elem *elem, const struct subscription *subscription)
{
    const struct node *node = subscription->subscriber->node;
    const struct claim *claim = &subscription->claim;
    struct claim_figures figures = { 0 };
    claim->ops->figures(subscription, &figures);
    xy_elem_set(arena, elem, "state", xy_str(state_of(subscription, &figures)));
    set_number(arena, elem, "depth",
               figures.below +
                   index_count(&node->items, figures.above, node->delivered_seq, subscription->born));
    set_number(arena, elem, "bytes", bytes_of(subscription, &figures));
    set_number(arena, elem, "in-flight", figures.in_flight);
    set_number(arena, elem, "delayed", figures.delayed);
    set_number(arena, elem, "parked", figures.parked);
    set_number(arena, elem, "redeliveries", claim->redelivered);
    set_number(arena, elem, "dead-lettered", figures.dead_lettered);
    set_number(arena, elem, "skipped", claim->skipped);
    if (claim->gap.last != 0) {
        set_number(arena, elem, "gap-first", claim->gap.first);
        set_number(arena, elem, "gap-last", claim->gap.last);
    }
    add_oldest(arena, elem, subscription);
}

static void add_subscription(struct xy_arena *arena, struct xy_elem *parent,
                             const struct subscription *subscription)
{
    static const char *const acks[] = {
        [ACK_STREAM] = "stream", [ACK_RECEIPT] = "receipt", [ACK_EXPLICIT] = "explicit"
    };
    struct xy_elem *elem = xy_elem_add(arena, parent, "subscription", NULL);
    const struct reached *session = holder(subscription);
    xy_elem_set(arena, elem, "jid", xy_arena_str(arena, subscription->jid));
    xy_elem_set(arena, elem, "subid", xy_arena_str(arena, xy_str(subscription->subid)));
    xy_elem_set(arena, elem, "ack", xy_str(acks[subscription->options.ack]));
    if (session != NULL)
        xy_elem_set(arena, elem, "session",
                    xy_arena_printf(arena, "%.*s/%.*s", XY_ARG(subscription->subscriber->bare),
                                    XY_ARG(session->resource)));
    add_figures(arena, elem, subscription);
}

/* --- which ----------------------------------------------------------------------------------------------------------- */

static bool owes(const struct subscription *subscription)
{
    return subscription->claim.ops != NULL && subscription->claim.ops->figures != NULL;
}

static void add_own(struct call *call, struct xy_elem *state, struct xy_str subid)
{
    const struct subscriber *subscriber = node_subscriber(call->node, call->who);
    for (const struct subscription *s = subscriber != NULL ? subscriber->subscriptions : NULL; s != NULL;
         s = s->next)
        if (owes(s) && (subid.len == 0 || xy_str_is(subid, s->subid)))
            add_subscription(call->arena, state, s);
}

/* Of XEP-0059: forward only. false: refused. */
static bool read_page(struct call *call, uint64_t *max, uint64_t *after)
{
    const struct xy_elem *set = xy_elem_child(call->action, "set", NS_RSM);
    struct xy_str max_text = set != NULL ? xy_elem_child_text(set, "max", call->arena) : XY_STR_NONE;
    struct xy_str after_text = set != NULL ? xy_elem_child_text(set, "after", call->arena) : XY_STR_NONE;
    *max = PAGE_MAX;
    *after = 0;
    if ((max_text.len > 0 && !xy_str_u64(xy_str_trim(max_text), max)) ||
        (after_text.len > 0 && !xy_str_u64(xy_str_trim(after_text), after))) {
        call_fail(call, XY_BAD_REQUEST, NULL, "<max/> is a number, <after/> the <last/> of the page before");
        return false;
    }
    *max = *max < PAGE_MAX ? *max : PAGE_MAX;
    return true;
}

/* In the order of their numbers, which are also what pages are told apart by. */
bool state_add_page(struct call *call, struct xy_elem *state, state_belongs *belongs, state_add *add)
{
    uint64_t max, number, found = 0;
    if (!read_page(call, &max, &number))
        return false;
    uint64_t last = number;
    for (unsigned looks = 0; looks < LOOKS_MAX && found < max && number + 1 < call->node->next_number;
         looks++) {
        const struct subscription *s = node_subscription(call->node, (uint32_t)++number);
        last = number;
        if (s == NULL || !belongs(s))
            continue;
        add(call->arena, state, s);
        found++;
    }
    struct xy_elem *set = xy_elem_add(call->arena, state, "set", NS_RSM);
    if (last + 1 < call->node->next_number)
        xy_elem_add_text(call->arena, xy_elem_add(call->arena, set, "last", NS_RSM),
                         xy_arena_printf(call->arena, "%llu", (unsigned long long)last));
    return true;
}

void subscription_state_get(struct call *call)
{
    const struct node *node = call->node;
    struct xy_str subid = xy_elem_attr(call->action, "subid");
    struct xy_elem *result = xy_stanza_result(call->arena, &(*call->request)->stanza);
    struct xy_elem *state = xy_elem_add(call->arena, result, "subscription-state", NS_XYLEM_DELIVERY);
    bool admin = router_is_admin(call->shard, (*call->request)->stanza.from);
    bool all = (admin || call_is_owner(call)) && subid.len == 0;
    xy_elem_set(call->arena, state, "node", call->name);
    xy_elem_set(call->arena, state, "epoch",
                xy_arena_printf(call->arena, "%016llx", (unsigned long long)node->epoch));
    set_number(call->arena, state, "newest", node->delivered_seq);
    if (all && !state_add_page(call, state, owes, add_subscription))
        return;
    if (!all)
        add_own(call, state, subid);
    if (!all && xy_elem_first(state) == NULL)
        call_fail(call, XY_ITEM_NOT_FOUND, NULL, "you have no such at-least-once subscription at this node");
    else if (xy_arena_failed(call->arena))
        call_no_room(call);
    else
        call_reply(call, result);
}
