/* Replaying: a subscriber asks for items that it has acknowledged already, as far as the node still has them
 * (docs/protocol.md 1.10). Called through the table of pubsub.c. */
#include "broker/pubsub/call.h"

#define RECORD_OVERHEAD 512u

/* Which subscription; NULL: refused. */
static struct subscription *asked(struct call *call)
{
    bool several;
    struct xy_str subid = xy_elem_attr(call->action, "subid");
    struct subscription *subscription =
        subscription_of(call->node, (*call->request)->stanza.from, subid, &several);
    if (several)
        call_fail(call, XY_BAD_REQUEST, "subid-required", "there are several: say which by subid='…'");
    else if (subscription == NULL)
        call_fail(call, XY_ITEM_NOT_FOUND, "not-subscribed", "you have no such subscription at this node");
    else if (subscription->claim.ops == NULL || subscription->claim.ops->rewind == NULL)
        call_fail(call, XY_UNEXPECTED_REQUEST, NULL,
                  "only what is at-least-once, and no queue, can be replayed");
    else
        return subscription;
    return NULL;
}

/* What was never this subscription's and is not retained belongs to others. */
static uint64_t replay_seq(const struct subscription *subscription, const struct start *start)
{
    const struct node *node = subscription->subscriber->node;
    uint64_t seq = claim_start_seq(node, start), retained = claim_first_seq(node, start);
    uint64_t own = subscription->start_seq < retained ? subscription->start_seq : retained;
    return seq > own ? seq : own;
}

void replay(struct call *call)
{
    struct start start;
    struct subscription *subscription = asked(call);
    if (subscription == NULL)
        return;
    if (!start_parse(xy_elem_attr(call->action, "start"), &start) || start.kind == START_NEW) {
        call_fail(call, XY_BAD_REQUEST, NULL, "say from where: start='all', last, seq:N or time:ISO8601");
        return;
    }
    if (!call_room(call,
                   RECORD_OVERHEAD + call->name.len + subscription->jid.len + (*call->request)->stanza.bytes))
        return;
    uint64_t seq = replay_seq(subscription, &start);
    if (claim_rewind(subscription, seq)) {
        if (!claim_record(subscription, false)) {
            claim_sessions_changed(subscription);
            call_no_room(call);
            return;
        }
        record_subscription(call->node, subscription); /* its era */
        subscription_activate(subscription);
    }
    call_reply(call, NULL);
}
