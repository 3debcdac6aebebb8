/* Retracting items: gone for everybody, also for those who are still owed them. XEP-0060 7.2; called through the table
 * of pubsub.c. Several items of one request go together or not at all. */
#include "broker/pubsub/call.h"

/* Owners may retract anything, publishers what is their own. */
static bool may_retract(const struct call *call, const struct item *item)
{
    switch (call_affiliation(call)) {
    case AFFILIATION_OWNER:
        return true;
    case AFFILIATION_OUTCAST:
        return false;
    case AFFILIATION_NONE:
    case AFFILIATION_MEMBER:
    case AFFILIATION_PUBLISH_ONLY:
    case AFFILIATION_PUBLISHER:
        break;
    }
    return xy_str_eq(item_publisher(item), call->who);
}

static bool find_items(struct call *call, struct item **items, size_t *count)
{
    for (const struct xy_elem *e = xy_elem_first(call->action); e != NULL; e = xy_elem_next(e)) {
        struct xy_str id = xy_elem_is(e, "item", NS_PUBSUB) ? xy_elem_attr(e, "id") : XY_STR_NONE;
        if (id.len == 0 || *count == PUBLISH_ITEMS_MAX)
            break;
        struct item *item = index_find_id(&call->node->items, id);
        if (item == NULL) {
            call_fail(call, XY_ITEM_NOT_FOUND, NULL, "there is no such item");
            return false;
        }
        if (!may_retract(call, item)) {
            call_fail(call, XY_FORBIDDEN, NULL, "only an owner or the publisher of the item may retract it");
            return false;
        }
        for (size_t i = 0; i < *count; i++) {
            if (items[i] == item) {
                call_fail(call, XY_BAD_REQUEST, NULL, "an item is named twice");
                return false;
            }
        }
        items[(*count)++] = item;
    }
    if (*count > 0)
        return true;
    call_fail(call, XY_BAD_REQUEST, "item-required", "say which item: <item id='…'/>");
    return false;
}

static bool wants_notice(const struct call *call)
{
    bool notify;
    struct xy_str asked = xy_elem_attr(call->action, "notify");
    if (asked.len > 0 && xy_str_bool(xy_str_trim(asked), &notify))
        return notify;
    return call->node->config.notify_retract;
}

void retract_items(struct call *call)
{
    struct node *node = call->node;
    struct item *items[PUBLISH_ITEMS_MAX];
    struct event *events[PUBLISH_ITEMS_MAX];
    uint64_t seqs[PUBLISH_ITEMS_MAX];
    size_t count = 0;
    if (node->queue != NULL) {
        queue_retract(call);
        return;
    }
    if (!node->config.persist_items) {
        call_unsupported(call, "persistent-items", "this node keeps no items (pubsub#persist_items)");
        return;
    }
    if (!find_items(call, items, &count))
        return;
    bool notify = wants_notice(call);
    for (size_t i = 0; i < count; i++) {
        seqs[i] = items[i]->seq;
        events[i] = notify ? event_for_retract(node, item_id(items[i])) : NULL;
        index_remove(&node->items, items[i]);
    }
    record_items_removed(node, seqs, count);
    for (size_t i = 0; i < count; i++)
        if (events[i] != NULL)
            routes_deliver_after(node, &events[i], 0);
    call_reply(call, NULL);
}
