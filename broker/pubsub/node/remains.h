/* What is left of nodes that were deleted, purged or left memory: their items and the entries of their queues. Freeing
 * millions of them at once would hold up everybody on the shard, so it goes a slice at a time, beside other work. Nobody
 * can find them any more. Private to broker/pubsub. */
#pragma once

#include "broker/pubsub/node/node.h"

struct queue_engine;

#define REMAINS_SLICE    2048u /* items and entries freed in one turn; fewer go at once */
#define REMAINS_PAUSE_US 1000u /* between two slices, for others */

void remains_init(struct pubsub *pubsub);
/* Takes over the index and, unless NULL, the engine, whose consumers are gone. *items needs index_init to be used again. */
void remains_leave(struct pubsub *pubsub, struct item_index *items, struct queue_engine **engine);
void remains_free(struct pubsub *pubsub); /* all of them now */
