/* A node's configuration (XEP-0060 16.4.4 and our own options of docs/protocol.md) and a subscription's options. */
#pragma once

#include "broker/pubsub/options.h"

enum access_model { ACCESS_OPEN, ACCESS_WHITELIST };
enum publish_model { PUBLISH_BY_PUBLISHERS, PUBLISH_BY_SUBSCRIBERS, PUBLISH_BY_ALL };
enum send_last { SEND_LAST_NEVER, SEND_LAST_ON_SUB, SEND_LAST_ON_SUB_AND_PRESENCE };
enum durability { DURABILITY_SYNC, DURABILITY_ASYNC, DURABILITY_MEMORY };
enum overflow { OVERFLOW_DROP_OLDEST, OVERFLOW_REJECT };
enum node_full { FULL_RETRACT_OLDEST, FULL_DISCARD_OLDEST, FULL_REJECT };

struct node_config {
    struct xy_str title, description, type, language, contact, body_xslt, dataform_xslt;
    bool deliver_notifications, deliver_payloads, persist_items, subscribe, notify_config, notify_delete,
        notify_retract, notify_sub, presence_based_delivery, multi_subscribe;
    bool tempsub, purge_offline; /* always false */
    uint8_t node_type, access_model, publish_model, send_last, notification_type, node_full, itemreply,
        durability, overflow;
    bool queue;
    uint8_t priority; /* enum queue_priority */
    uint64_t lock_timeout_s, max_deliver;
    struct xy_str backoff, dead_letter;
    uint64_t max_items, item_expire_s, max_payload_bytes, max_bytes, dedup_window_s;
};
extern const struct option node_options[];
#define NODE_NOTIFY_NORMAL 1 /* notification_type */

struct subscription_options {
    bool deliver;
    bool digest, include_body; /* always false */
    uint8_t subscription_type, subscription_depth, mode, ack;
    struct xy_str start, backoff, dead_letter;
    uint64_t max_backlog_bytes, max_backlog_age_s;
    uint64_t max_inflight, ack_wait_s, max_deliver;
    uint64_t queue_requests; /* consumers of a queue: items at a time */
    uint8_t on_unavailable;
};
extern const struct option subscription_options[];
#define BACKLOG_BYTES_USUAL                                                                                  \
    1073741824u /* max_backlog_bytes where nothing is said; the service's bound goes first */
#define MODE_AT_LEAST_ONCE         1
#define ON_UNAVAILABLE_UNSUBSCRIBE 1
enum subscription_ack { ACK_STREAM, ACK_RECEIPT, ACK_EXPLICIT };
#define ACK_WAIT_S_MAX 604800u /* ack_wait, and the delay of a nack */

/* What is wrong with the options of a subscription to `node` taken together: text, and which option. NULL: nothing. */
const char *delivery_options_wrong(const struct subscription_options *options, struct xy_str node,
                                   struct xy_str *which);

/* `start`: where a new at-least-once subscription begins. */
enum start_kind { START_NEW, START_ALL, START_LAST, START_SEQ, START_TIME };
struct start {
    enum start_kind kind;
    uint64_t value; /* seq, or wall time in microseconds */
};
bool start_parse(struct xy_str text, struct start *out);
