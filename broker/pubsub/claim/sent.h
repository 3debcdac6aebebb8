/* How far at-least-once subscriptions have been sent whose nodes have left memory. Without it everything that is owed
 * would be marked as a redelivery when the node is read again, as after a restart. In memory only, and bounded: what is
 * forgotten is marked. Called by resident.c and claim.c. Private to broker/pubsub. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SENT_REMEMBERED_MAX 65536u /* per shard */

struct pubsub;
struct subscription;

bool sent_init(struct pubsub *pubsub);
void sent_free(struct pubsub *pubsub);
void sent_remember(const struct subscription *subscription); /* its node is about to leave */
/* Forgets it, too. false: not known. */
bool sent_recall(const struct subscription *subscription, uint64_t *sent_max);
