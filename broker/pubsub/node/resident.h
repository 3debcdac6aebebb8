/* Which nodes are in memory. A node is loaded when it is first asked for: a small one at once, a large one in pages over
 * several turns, while requests for it wait. Nodes that nobody needs at the moment leave again when all together take
 * more than limits.node_memory, the least recently used first. Private to broker/pubsub. */
#pragma once

#include "broker/pubsub/call.h"

#define RESIDENT_PAGES_NOW   8u    /* loaded within the request; a larger node takes several turns */
#define RESIDENT_PAGES_TURN  8u    /* of a node that is being loaded, per turn; then others have … */
#define RESIDENT_PAUSE_US    1000u /* … this long */
#define RESIDENT_WAITING_MAX 1024u /* requests that wait for one node */
#define RESIDENT_LOOKS       16u   /* nodes looked at in one turn for one to leave */
#define RESIDENT_STAY_US     (10ull * 1000 * 1000) /* what was used so lately stays, up to … */
#define RESIDENT_STAY_FACTOR 4u                    /* … so many times limits.node_memory */

enum resident {
    RESIDENT_HERE,
    RESIDENT_ABSENT,
    RESIDENT_LOADING, /* not yet: resident_wait, or ask again later */
    RESIDENT_FAILED,  /* memory is short, or what is stored cannot be read */
};

enum resident resident_find(struct pubsub *pubsub, struct xy_str name, struct node **node);
/* The request comes back through call_dispatch when the node is there, or is refused. */
void resident_wait(struct call *call);
/* Something was received of a node that is being loaded: its owner is told when it is there. Memory short: it comes again. */
void resident_note(struct pubsub *pubsub, struct xy_str name, struct claim_key key, uint64_t seq);
void resident_touch(struct node *node);  /* it is used */
void resident_forget(struct node *node); /* it is no longer listed */
/* Someone became short of memory, or a node grew: nodes may have to leave, soon. */
void resident_trim(struct pubsub *pubsub);
void resident_init(struct pubsub *pubsub);
void resident_free(struct pubsub *pubsub);
