/* Subscriptions whose items are acknowledged one by one (docs/protocol.md 1.5, 1.8): what is out, comes again, waits or
 * is parked; and what receivers say about it. */
#include <string.h>

#include "core/base/assert.h"
#include "tests/model/model.h"

#define PAGE_MAX 64u /* items sent before the session is asked for more */

static unsigned flying(const struct model_node *node, const struct model_sub *sub)
{
    unsigned count = 0;
    for (unsigned i = 0; i < node->items_count; i++)
        count += sub->one[i].state == ONE_FLIGHT;
    return count;
}

bool model_one_flies(const struct model_node *node, const struct model_sub *sub)
{
    return flying(node, sub) > 0;
}

/* Not sent any more: parked, unless there is nothing to keep. */
static void bury(const struct model_node *node, struct model_sub *sub, unsigned i)
{
    sub->one[i].state = node->items[i].gone ? ONE_SETTLED : ONE_PARKED;
}

static void come_again(struct model *model, const struct model_node *node, struct model_sub *sub, unsigned i,
                       uint64_t delay_us)
{
    struct model_one *one = &sub->one[i];
    model->full |= one->vague && sub->max_deliver > 0;
    if (sub->max_deliver > 0 && one->attempts >= sub->max_deliver) {
        bury(node, sub, i);
        return;
    }
    one->state = delay_us > 0 ? ONE_DELAYED : ONE_READY;
    one->due_us = model->now_us + delay_us;
}

void model_one_configured(struct model *model, const struct model_node *node, struct model_sub *sub)
{
    for (unsigned i = 0; i < node->items_count; i++) {
        const struct model_one *one = &sub->one[i];
        if (sub->max_deliver == 0 || (one->state != ONE_READY && one->state != ONE_DELAYED))
            continue;
        model->full |= one->vague;
        if (one->attempts >= sub->max_deliver)
            bury(node, sub, i);
    }
}

void model_one_lost(struct model *model, const struct model_node *node, struct model_sub *sub)
{
    for (unsigned i = 0; i < node->items_count; i++)
        if (sub->one[i].state == ONE_FLIGHT)
            come_again(model, node, sub, i, 0);
    sub->stalled = false;
}

/* --- sending ------------------------------------------------------------------------------------------------------- */

/* What comes again goes first, the lowest number first; -1: nothing. */
static int next(const struct model_node *node, struct model_sub *sub, unsigned from)
{
    for (unsigned i = from; i < node->items_count; i++) {
        if (sub->one[i].state == ONE_READY && node->items[i].gone)
            sub->one[i].state = ONE_SETTLED;
        if (sub->one[i].state == ONE_READY)
            return (int)i;
    }
    for (unsigned i = 0; i < node->items_count; i++)
        if (sub->one[i].state == ONE_FRESH && !node->items[i].gone && !sub->never[i] &&
            node->items[i].seq > sub->cursor && node->items[i].seq > sub->taken)
            return (int)i;
    return -1;
}

/* It is tried, and the session that waits for its resumption takes none: they count as not sent. */
static void stall(const struct model_node *node, struct model_sub *sub)
{
    unsigned room = sub->max_inflight - flying(node, sub), from = 0;
    for (unsigned n = 0; n < room && n < PAGE_MAX; n++) {
        int i = next(node, sub, from);
        if (i < 0)
            return;
        sub->stalled = true;
        if (sub->one[i].state == ONE_READY) {
            from = (unsigned)i + 1;
            continue;
        }
        sub->taken = node->items[i].seq;
        sub->one[i].state = ONE_READY;
        sub->one[i].attempts = 0;
        from = (unsigned)i + 1;
    }
}

static enum model_mark mark_of(const struct model_sub *sub, uint64_t seq, unsigned attempts)
{
    if (attempts > 1 && seq > sub->maybe_sent)
        return MARK_AGAIN;
    return seq <= sub->maybe_sent ? MARK_EITHER : MARK_FRESH;
}

void model_one_pump(struct model *model, unsigned number, unsigned index)
{
    struct model_node *node = &model->nodes[number];
    struct model_sub *sub = &node->subs[index];
    if (sub->holder < 0 || sub->leaving || sub->stalled)
        return;
    if (model->sessions[sub->holder].state == SESSION_DETACHED) {
        if (flying(node, sub) < sub->max_inflight)
            stall(node, sub);
        return;
    }
    while (flying(node, sub) < sub->max_inflight) {
        int i = next(node, sub, 0);
        if (i < 0)
            return;
        struct model_one *one = &sub->one[i];
        uint64_t seq = node->items[i].seq;
        one->attempts++;
        one->state = ONE_FLIGHT;
        one->due_us = model->now_us + sub->wait_us;
        sub->taken = seq > sub->taken ? seq : sub->taken;
        model_expect_item(model, number, index, (unsigned)i, mark_of(sub, seq, one->attempts));
    }
}

/* --- time ---------------------------------------------------------------------------------------------------------- */

static bool is_timed(const struct model_one *one)
{
    return one->state == ONE_FLIGHT || one->state == ONE_DELAYED;
}

uint64_t model_one_due(const struct model_node *node, const struct model_sub *sub)
{
    uint64_t due_us = UINT64_MAX;
    for (unsigned i = 0; i < node->items_count; i++)
        if (is_timed(&sub->one[i]) && sub->one[i].due_us < due_us)
            due_us = sub->one[i].due_us;
    return due_us;
}

void model_one_pass(struct model *model, const struct model_node *node, struct model_sub *sub)
{
    for (unsigned i = 0; i < node->items_count; i++) {
        struct model_one *one = &sub->one[i];
        if (!is_timed(one) || one->due_us > model->now_us)
            continue;
        if (one->state == ONE_FLIGHT)
            come_again(model, node, sub, i, sub->backoff_us);
        else
            one->state = ONE_READY;
    }
}

/* --- what receivers say -------------------------------------------------------------------------------------------- */

static bool is_out(const struct model_one *one)
{
    return one->state != ONE_FRESH && one->state != ONE_SETTLED;
}

/* The k-th of those that may have been sent; 0: a number that nobody was sent. */
uint64_t model_one_number(const struct model_node *node, const struct model_sub *sub, unsigned k)
{
    for (unsigned i = 0; i < node->items_count; i++)
        if (is_out(&sub->one[i]) && k-- == 0)
            return node->items[i].seq;
    return node->next_seq + 3;
}

/* Of what was retracted or purged meanwhile, only what somebody has in hand. */
static bool may_settle(const struct model_node *node, const struct model_sub *sub, unsigned i)
{
    return is_out(&sub->one[i]) && (!node->items[i].gone || sub->one[i].state == ONE_FLIGHT);
}

static int find(const struct model_node *node, struct model_sub *sub, uint64_t seq)
{
    for (unsigned i = 0; i < node->items_count; i++)
        if (node->items[i].seq == seq && may_settle(node, sub, i))
            return (int)i;
    return -1;
}

static bool settle_up_to(struct model_node *node, struct model_sub *sub, uint64_t seq)
{
    bool owes = seq > sub->taken;
    if (seq > sub->taken && seq > sub->maybe_sent)
        return false;
    for (unsigned i = 0; i < node->items_count; i++)
        owes |= node->items[i].seq <= seq && may_settle(node, sub, i);
    for (unsigned i = 0; owes && i < node->items_count; i++)
        if (node->items[i].seq <= seq)
            sub->one[i].state = ONE_SETTLED;
    if (owes && seq > sub->taken)
        sub->taken = seq;
    return owes;
}

bool model_one_say(struct model *model, struct model_node *node, struct model_sub *sub, int verb,
                   uint64_t seq, int delay)
{
    if (verb == VERB_CUMULATIVE)
        return settle_up_to(node, sub, seq);
    int i = find(node, sub, seq);
    if (i < 0)
        return false;
    struct model_one *one = &sub->one[i];
    if ((verb == VERB_NACK || verb == VERB_WORKING) && one->state != ONE_FLIGHT)
        return false;
    if (verb == VERB_ACK)
        one->state = ONE_SETTLED;
    else if (verb == VERB_TERM)
        bury(node, sub, (unsigned)i);
    else if (verb == VERB_WORKING)
        one->due_us = model->now_us + sub->wait_us;
    else
        come_again(model, node, sub, (unsigned)i, delay < 0 ? sub->backoff_us : (uint64_t)delay * 1000000);
    return true;
}

/* --- restarts ------------------------------------------------------------------------------------------------------ */

/* Who had been sent what is not known any more, and how often not exactly. */
void model_one_restarted(struct model *model, const struct model_node *node, struct model_sub *sub)
{
    sub->stalled = false;
    for (unsigned i = 0; i < node->items_count; i++) {
        struct model_one *one = &sub->one[i];
        if (is_out(one) && node->items[i].gone)
            one->state = ONE_SETTLED;
        if (one->state == ONE_FLIGHT)
            one->state = ONE_READY;
        one->vague = is_out(one);
        model->full |= is_out(one) && one->state != ONE_PARKED && sub->max_deliver > 0;
    }
}
