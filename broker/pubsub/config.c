/* The table of node options and the table of subscription options: every name, default and choice users can set.
 * XEP-0060 16.4.2 and 16.4.4; names in Clark notation are specified in docs/protocol.md. */
#include "broker/pubsub/config.h"

#include <stdio.h>

#include "broker/pubsub/claim/backoff.h"

#include "core/namespaces.h"
#include "core/time.h"

static const char *const access_models[] = { "open", "whitelist", NULL };
static const char *const publish_models[] = { "publishers", "subscribers", "open", NULL };
static const char *const send_lasts[] = { "never", "on_sub", "on_sub_and_presence", NULL };
static const char *const notification_types[] = { "headline", "normal", NULL };
static const char *const node_types[] = { "leaf", NULL };
static const char *const node_fulls[] = { "retract-oldest", "discard-oldest", "reject", NULL };
static const char *const item_replies[] = { "publisher", "owner", NULL };
static const char *const durabilities[] = { "sync", "async", "memory", NULL };
static const char *const overflows[] = { "drop-oldest", "reject", NULL };

static const char *const priorities[] = { "low", "medium", "high", NULL };

#define NODE(member)  offsetof(struct node_config, member)
#define XYLEM(option) "{" NS_XYLEM_NODE "}" option

const struct option node_options[] = {
    { "pubsub#title", OPTION_TEXT, NODE(title), "", "A friendly name for the node", NULL },
    { "pubsub#description", OPTION_TEXT, NODE(description), "", "A description of the node", NULL },
    { "pubsub#type", OPTION_TEXT, NODE(type), "", "The namespace every payload must have", NULL },
    { "pubsub#language", OPTION_TEXT, NODE(language), "", "The default language of the node", NULL },
    { "pubsub#contact", OPTION_MULTI, NODE(contact), "", "The JIDs of those to contact with questions",
      NULL },
    { "pubsub#body_xslt", OPTION_TEXT, NODE(body_xslt), "", "XSL transformation for bodies (kept, not used)",
      NULL },
    { "pubsub#dataform_xslt", OPTION_TEXT, NODE(dataform_xslt), "",
      "XSL transformation for forms (kept, not used)", NULL },
    { "pubsub#node_type", OPTION_LIST, NODE(node_type), "leaf", "The kind of node", node_types },
    { "pubsub#access_model", OPTION_LIST, NODE(access_model), "open", "Who may subscribe and retrieve items",
      access_models },
    { "pubsub#publish_model", OPTION_LIST, NODE(publish_model), "publishers", "Who may publish",
      publish_models },
    { "pubsub#subscribe", OPTION_BOOL, NODE(subscribe), "1", "Whether to allow subscriptions", NULL },
    { "pubsub#deliver_notifications", OPTION_BOOL, NODE(deliver_notifications), "1",
      "Whether to deliver event notifications", NULL },
    { "pubsub#deliver_payloads", OPTION_BOOL, NODE(deliver_payloads), "1",
      "Whether to deliver payloads with event notifications", NULL },
    { "pubsub#persist_items", OPTION_BOOL, NODE(persist_items), "1", "Whether to persist items to storage",
      NULL },
    { "pubsub#max_items", OPTION_COUNT, NODE(max_items), "20", "How many items are kept, or `max`", NULL },
    { "pubsub#item_expire", OPTION_COUNT, NODE(item_expire_s), "max", "Seconds an item is kept, or `max`",
      NULL },
    { "pubsub#max_payload_size", OPTION_COUNT, NODE(max_payload_bytes), "max",
      "The largest payload in bytes, or `max` for the service's limit", NULL },
    { "pubsub#publish_node_full", OPTION_LIST, NODE(node_full), "retract-oldest",
      "What to do when the node is full", node_fulls },
    { "pubsub#send_last_published_item", OPTION_LIST, NODE(send_last), "never",
      "When to send the last published item", send_lasts },
    { "pubsub#notification_type", OPTION_LIST, NODE(notification_type), "headline",
      "The type of the messages that carry events", notification_types },
    { "pubsub#notify_config", OPTION_BOOL, NODE(notify_config), "0",
      "Whether to notify subscribers when the configuration changes", NULL },
    { "pubsub#notify_delete", OPTION_BOOL, NODE(notify_delete), "1",
      "Whether to notify subscribers when the node is deleted", NULL },
    { "pubsub#notify_retract", OPTION_BOOL, NODE(notify_retract), "1",
      "Whether to notify subscribers when items are removed", NULL },
    { "pubsub#notify_sub", OPTION_BOOL, NODE(notify_sub), "0", "Whether to notify owners about subscribers",
      NULL },
    { "pubsub#presence_based_delivery", OPTION_BOOL, NODE(presence_based_delivery), "0",
      "Whether to deliver to available users only (always so unless at-least-once)", NULL },
    { "pubsub#itemreply", OPTION_LIST, NODE(itemreply), "publisher", "Whom replies to items should go to",
      item_replies },
    { "pubsub#tempsub", OPTION_OFF, NODE(tempsub), "0",
      "Whether subscriptions end with presence (not supported)", NULL },
    { "pubsub#purge_offline", OPTION_OFF, NODE(purge_offline), "0",
      "Whether to purge when the publisher goes offline (not supported)", NULL },
    { XYLEM("durability"), OPTION_LIST, NODE(durability), "sync", "When a publish is acknowledged",
      durabilities },
    { XYLEM("max_bytes"), OPTION_COUNT, NODE(max_bytes), "max", "Bytes of items kept, or `max`", NULL },
    { XYLEM("overflow"), OPTION_LIST, NODE(overflow), "drop-oldest", "What to do when it is full",
      overflows },
    { XYLEM("dedup_window"), OPTION_COUNT, NODE(dedup_window_s), "0",
      "Seconds in which an item id is not repeated", NULL },
    { XYLEM("multi_subscribe"), OPTION_BOOL, NODE(multi_subscribe), "0",
      "Whether one JID may hold several subscriptions", NULL },
    { XYLEM("queue"), OPTION_BOOL, NODE(queue), "0", "Whether items are work that consumers share (XEP-0254)",
      NULL },
    { XYLEM("lock_timeout"), OPTION_COUNT, NODE(lock_timeout_s), "30",
      "Seconds a consumer of a queue has an item without saying anything", NULL },
    { XYLEM("max_deliver"), OPTION_COUNT, NODE(max_deliver), "max",
      "How often an item of a queue is sent at most", NULL },
    { XYLEM("backoff"), OPTION_TEXT, NODE(backoff), "",
      "Seconds before an item of a queue is sent again: after the first time, the second …", NULL },
    { XYLEM("dead_letter"), OPTION_TEXT, NODE(dead_letter), "",
      "The node that gets items of a queue that are given up", NULL },
    { XYLEM("priority"), OPTION_LIST, NODE(priority), "medium",
      "Priority of items of a queue without an Urgency", priorities },
    { NULL, OPTION_BOOL, 0, NULL, NULL, NULL },
};

static const char *const subscription_types[] = { "items", NULL };
static const char *const depths[] = { "1", NULL };
static const char *const modes[] = { "at-most-once", "at-least-once", NULL };
static const char *const on_unavailables[] = { "keep", "unsubscribe", NULL };
static const char *const acks[] = { "stream", "receipt", "explicit", NULL };

#define SUB(member)      offsetof(struct subscription_options, member)
#define DELIVERY(option) "{" NS_XYLEM_DELIVERY "}" option

const struct option subscription_options[] = {
    { "pubsub#deliver", OPTION_BOOL, SUB(deliver), "1", "Whether to receive notifications", NULL },
    { "pubsub#digest", OPTION_OFF, SUB(digest), "0", "Whether to receive digests (not supported)", NULL },
    { "pubsub#include_body", OPTION_OFF, SUB(include_body), "0",
      "Whether to add a message body (not supported)", NULL },
    { "pubsub#subscription_type", OPTION_LIST, SUB(subscription_type), "items", "What to be notified of",
      subscription_types },
    { "pubsub#subscription_depth", OPTION_LIST, SUB(subscription_depth), "1", "How deep", depths },
    { DELIVERY("mode"), OPTION_LIST, SUB(mode), "at-most-once", "Delivery guarantee", modes },
    { DELIVERY("ack"), OPTION_LIST, SUB(ack), "stream", "What acknowledges a delivery", acks },
    { DELIVERY("start"), OPTION_TEXT, SUB(start), "new", "new, all, last, seq:N or time:ISO8601", NULL },
    { DELIVERY("max_inflight"), OPTION_COUNT, SUB(max_inflight), "1000",
      "Items that may be out without an acknowledgement, or `max`", NULL },
    { DELIVERY("ack_wait"), OPTION_COUNT, SUB(ack_wait_s), "30",
      "Seconds until an item that is not acknowledged comes again", NULL },
    { DELIVERY("max_deliver"), OPTION_COUNT, SUB(max_deliver), "max", "How often an item is sent, or `max`",
      NULL },
    { DELIVERY("backoff"), OPTION_TEXT, SUB(backoff), "",
      "Seconds to wait before an item comes again, by how often it was sent", NULL },
    { DELIVERY("dead_letter"), OPTION_TEXT, SUB(dead_letter), "",
      "The node that gets what is not sent any more", NULL },
    { DELIVERY("max_backlog_bytes"), OPTION_COUNT, SUB(max_backlog_bytes), "1073741824",
      "Bytes that may be owed, or `max`", NULL },
    { DELIVERY("max_backlog_age"), OPTION_COUNT, SUB(max_backlog_age_s), "604800",
      "Seconds an item may be owed, or `max`", NULL },
    { "pubsub#queue_requests", OPTION_COUNT, SUB(queue_requests), "0",
      "How many items of a queue are processed at a time", NULL },
    { DELIVERY("on_unavailable"), OPTION_LIST, SUB(on_unavailable), "keep",
      "What becomes of a consumer of a queue that is not there", on_unavailables },
    { NULL, OPTION_BOOL, 0, NULL, NULL, NULL },
};

static bool differs(const struct subscription_options *options, const char *name)
{
    const struct option *option = option_find(subscription_options, xy_str(name));
    return !option_is(option, options, xy_str(option->fallback));
}

/* What only means something where items are acknowledged one by one. */
static const char *const one_by_one[] = { "ack_wait", "max_deliver", "backoff", "dead_letter", NULL };

const char *delivery_options_wrong(const struct subscription_options *options, struct xy_str node,
                                   struct xy_str *which)
{
    struct backoff backoff;
    if (options->max_inflight == 0) {
        *which = XY_STR("max_inflight");
        return "at least 1, or nothing would ever be sent";
    }
    if (options->max_backlog_bytes == 0 || options->max_backlog_age_s == 0) {
        *which = options->max_backlog_bytes == 0 ? XY_STR("max_backlog_bytes") : XY_STR("max_backlog_age");
        return "at least 1, or `max`: with 0 everything would be skipped";
    }
    if (options->ack_wait_s == 0 || options->ack_wait_s > ACK_WAIT_S_MAX) {
        *which = XY_STR("ack_wait");
        return "seconds, from 1 to 604800";
    }
    if (options->max_deliver == 0) {
        *which = XY_STR("max_deliver");
        return "at least 1, or `max`";
    }
    if (!backoff_parse(options->backoff, &backoff)) {
        *which = XY_STR("backoff");
        return "up to 16 numbers of seconds divided by commas, each at most 604800";
    }
    if (options->dead_letter.len > 1023 || xy_str_eq(options->dead_letter, node)) {
        *which = XY_STR("dead_letter");
        return "the name of another node";
    }
    for (size_t i = 0; options->ack == ACK_STREAM && one_by_one[i] != NULL; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), DELIVERY("%s"), one_by_one[i]);
        if (differs(options, name)) {
            *which = xy_str(one_by_one[i]);
            return "needs items that are acknowledged one by one: ack=receipt or ack=explicit";
        }
    }
    return NULL;
}

bool start_parse(struct xy_str text, struct start *out)
{
    static const struct {
        const char *word;
        enum start_kind kind;
    } words[] = { { "new", START_NEW }, { "all", START_ALL }, { "last", START_LAST } };
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        if (xy_str_is(text, words[i].word)) {
            *out = (struct start){ .kind = words[i].kind };
            return true;
        }
    }
    struct xy_str seq = XY_STR("seq:"), time = XY_STR("time:");
    if (xy_str_starts(text, seq)) {
        out->kind = START_SEQ;
        return xy_str_u64(xy_str_n(text.data + seq.len, text.len - seq.len), &out->value) && out->value > 0;
    }
    if (xy_str_starts(text, time)) {
        out->kind = START_TIME;
        return xy_time_parse(xy_str_n(text.data + time.len, text.len - time.len), &out->value);
    }
    return false;
}
