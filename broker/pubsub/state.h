/* Listing what belongs to a node by its subscriptions, in pages (XEP-0059, forward only): how subscriptions stand (state.c),
 * and how the consumers of a queue do (queue_state.c). Private to broker/pubsub. */
#pragma once

#include "broker/pubsub/call.h"

typedef bool state_belongs(const struct subscription *subscription);
typedef void state_add(struct xy_arena *arena, struct xy_elem *state,
                       const struct subscription *subscription);

/* The page that the <set/> of the request asks for, and a <set/> that says whether there is another one. Without one in the
 * request it is the first. false: refused. */
bool state_add_page(struct call *call, struct xy_elem *state, state_belongs *belongs, state_add *add);
