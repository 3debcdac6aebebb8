/* Each fault stands in the place of a call from one room to another. See plant.h. */
#include "tests/model/plant.h"

#include <string.h>

#include "broker/delivery/delivery.h"
#include "broker/delivery/sessions.h"

#define EVERY 3u

const char *const plant_names[] = { "lost-ack", "early-ack", "no-release", "lost-notice",
                                    "lost-job", "no-group",  "lost-gap",   "lost-before",
                                    "no-ttl",   "no-bare",   "short-move", NULL };

static const struct delivery_owner *owner_true;
static struct delivery_owner owner;
static const struct session_calls *calls_true;
static struct session_calls calls;
static unsigned count;

/* An acknowledgement is not noted. */
static void ack_lost(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t seq)
{
    if (++count % EVERY != 0)
        owner_true->acked(shard, key, session, seq);
}

/* One covers the next item too. */
static void ack_early(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t seq)
{
    owner_true->acked(shard, key, session, seq);
    if (++count % EVERY == 0)
        owner_true->acked(shard, key, session, seq + 1);
}

/* What a session that ends did not acknowledge counts as acknowledged. */
static void release_all(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t acked)
{
    owner_true->acked(shard, key, session, acked + 1);
    owner_true->released(shard, key, session, acked + 1);
}

/* Now and then a live event does not reach the sessions of a shard. */
static void publish_lost(struct shard *shard, struct event *event, struct routes *routes)
{
    if (++count % EVERY != 0)
        calls_true->publish(shard, event, routes);
}

/* What was received before a restart is not noted. */
static void before_lost(struct shard *shard, struct xy_str node, struct claim_key key, uint64_t seq)
{
    (void)shard, (void)node, (void)key, (void)seq;
}

/* A session is not told of a gap. */
static void one_lost(struct shard *shard, struct session_ref session, uint32_t claim, uint16_t run,
                     struct event *event, uint32_t attempt, bool page_end)
{
    if (!xy_str_starts(event_body(event), XY_STR("<gap")))
        calls_true->one(shard, session, claim, run, event, attempt, page_end);
}

void plant(struct shard *shard, const char *name)
{
    count = 0; /* the same sequence again is the same */
    if (shard->delivery_owner != &owner) {
        owner_true = shard->delivery_owner;
        owner = *owner_true;
    }
    if (shard->session_calls != &calls) {
        calls_true = shard->session_calls;
        calls = *calls_true;
    }
    if (strcmp(name, "lost-ack") == 0)
        owner.acked = ack_lost;
    else if (strcmp(name, "early-ack") == 0)
        owner.acked = ack_early;
    else if (strcmp(name, "no-release") == 0)
        owner.released = release_all;
    else if (strcmp(name, "lost-notice") == 0)
        calls.publish = publish_lost;
    else if (strcmp(name, "lost-gap") == 0)
        calls.one = one_lost;
    else if (strcmp(name, "lost-before") == 0)
        owner.received_before = before_lost;
    shard->delivery_owner = &owner;
    shard->session_calls = &calls;
}
