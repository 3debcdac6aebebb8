/* One entry per subscription that is owed something nobody was sent. See sent.h. */
#include "broker/pubsub/claim/sent.h"

#include <stdlib.h>

#include "broker/pubsub/node/node.h"

struct sent {
    struct sent_key {
        uint64_t node, number;
    } key;
    uint64_t sent_max;
};

static struct xy_str view(const struct sent_key *key)
{
    return xy_str_n((const char *)key, sizeof(*key));
}

static struct sent_key key_of(const struct subscription *subscription)
{
    return (struct sent_key){ subscription->subscriber->node->number, subscription->number };
}

bool sent_init(struct pubsub *pubsub)
{
    pubsub->sent = xy_table_new(pubsub->hash_seed);
    return pubsub->sent != NULL;
}

void sent_free(struct pubsub *pubsub)
{
    size_t position = 0;
    void *value;
    while (pubsub->sent != NULL && (value = xy_table_next(pubsub->sent, &position, NULL)) != NULL)
        free(value);
    xy_table_free(&pubsub->sent);
}

void sent_remember(const struct subscription *subscription)
{
    const struct node *node = subscription->subscriber->node;
    struct pubsub *pubsub = node->pubsub;
    const struct claim *claim = &subscription->claim;
    if (claim->ops == NULL || index_after(&node->items, claim->sent_max) == NULL ||
        xy_table_count(pubsub->sent) >= SENT_REMEMBERED_MAX)
        return;
    struct sent *sent = malloc(sizeof(*sent));
    if (sent == NULL)
        return;
    *sent = (struct sent){ key_of(subscription), claim->sent_max };
    if (!xy_table_put(pubsub->sent, view(&sent->key), sent, NULL))
        free(sent);
}

bool sent_recall(const struct subscription *subscription, uint64_t *sent_max)
{
    struct sent_key key = key_of(subscription);
    struct sent *sent = xy_table_remove(subscription->subscriber->node->pubsub->sent, view(&key));
    if (sent == NULL)
        return false;
    *sent_max = sent->sent_max;
    free(sent);
    return true;
}
