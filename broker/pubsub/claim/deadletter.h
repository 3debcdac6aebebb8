/* Dead letters: an item that is not sent any more moves to another node (docs/protocol.md 1.8), for subscriptions and for
 * queues. It is published there first, durably and once however often that is tried, and only then its sender is told to
 * end it here. Private to broker/pubsub. */
#pragma once

#include "core/base/str.h"
#include "core/jid.h"

struct item;
struct node;

enum dead_reason { DEAD_MAX_DELIVER, DEAD_TERM, DEAD_EXPIRED, DEAD_OVERFLOW };
struct shard;

#define DEAD_FLIGHT_MAX 256u /* on their way from one shard; the others wait */

struct dead_letter {
    struct xy_str to;      /* the node that gets it; made for the account if it does not exist */
    struct xy_jid account; /* who publishes it there: bare */
    struct xy_str subid;   /* empty: of a queue */
    uint32_t subscription; /* passed to `done`; 0: of a queue */
    uint32_t attempts;
    enum dead_reason reason;
    /* On the node's shard, unless the node is gone by then. `moved`: it is on disk there. */
    void (*done)(struct node *node, uint32_t subscription, uint64_t seq, bool moved);
    /* Instead of `done`: the owner moves a living item (queue_move.c). It keeps its id and its headers, the other node must
     * be there, and this is called in any case, with the number of the node. */
    void (*moved)(struct shard *shard, uint64_t node, uint64_t seq, bool moved);
    bool granted; /* an administrator moves it: whether the account may publish there is not asked */
};

/* false: not now (memory is short, too many are on their way, or the item cannot be read); `done` is not called. */
bool deadletter_send(struct node *node, struct item *item, const struct dead_letter *letter);
