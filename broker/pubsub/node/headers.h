/* Headers of an item (SHIM, XEP-0131): <headers/> inside <item/>, behind the payload. Nodes pass them on; queues read
 * those that say how the item is to be treated. docs/protocol.md 9.2. Private to broker/pubsub. */
#pragma once

#include "broker/pubsub/queue/queue_engine.h"
#include "core/xml/elem.h"

#define HEADER_GROUP_MAX   255u
#define HEADER_SECONDS_MAX 315360000u /* ten years, of Delay and TTL */

/* The parts of an item; NULL where there is none. false: it has more than one payload and headers. */
bool item_parts(const struct xy_elem *item, const struct xy_elem **payload, const struct xy_elem **headers);

/* What the headers of an item say about its way through a queue. Times here are wall times, since they are stored. */
struct item_traits {
    int urgency;            /* enum queue_priority; -1: none given */
    struct xy_str group;    /* in the arena; absent: none */
    uint64_t not_before_us; /* 0: at once */
    uint64_t expires_us;    /* 0: never */
};
#define ITEM_TRAITS_NONE ((struct item_traits){ .urgency = -1 })
static inline bool item_traits_plain(const struct item_traits *traits)
{
    return traits->urgency < 0 && traits->group.len == 0 && traits->not_before_us == 0 &&
           traits->expires_us == 0;
}
/* `headers` may be NULL. false: *why says what to do about it. */
bool item_traits_read(const struct xy_elem *headers, struct xy_arena *arena, uint64_t now_us,
                      struct item_traits *out, const char **why);
bool priority_parse(struct xy_str text, int *out); /* low, medium, high */
