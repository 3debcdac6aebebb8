/* Reading headers of items. Which header is read how is one table. Called by publish_check.c. */
#include "broker/pubsub/node/headers.h"

#include "core/namespaces.h"
#include "core/time.h"

#define SECOND_US 1000000ull

bool item_parts(const struct xy_elem *item, const struct xy_elem **payload, const struct xy_elem **headers)
{
    const struct xy_elem *first = xy_elem_first(item), *second = first != NULL ? xy_elem_next(first) : NULL;
    *payload = first;
    *headers = NULL;
    if (second == NULL)
        return true;
    if (!xy_elem_is(second, "headers", NS_SHIM))
        return false;
    *headers = second;
    return xy_elem_next(second) == NULL;
}

bool priority_parse(struct xy_str text, int *out)
{
    static const char *const names[] = {
        [QUEUE_LOW] = "low", [QUEUE_MEDIUM] = "medium", [QUEUE_HIGH] = "high"
    };
    for (int i = 0; i < 3; i++) {
        if (xy_str_is(text, names[i])) {
            *out = i;
            return true;
        }
    }
    return false;
}

static bool read_urgency(struct xy_str value, uint64_t now_us, struct item_traits *out)
{
    (void)now_us;
    return priority_parse(value, &out->urgency);
}

static bool read_group(struct xy_str value, uint64_t now_us, struct item_traits *out)
{
    (void)now_us;
    out->group = value;
    return value.len <= HEADER_GROUP_MAX;
}

static bool read_seconds(struct xy_str value, uint64_t now_us, uint64_t *at_us)
{
    uint32_t seconds;
    if (!xy_str_u32(value, &seconds) || seconds > HEADER_SECONDS_MAX)
        return false;
    *at_us = now_us + seconds * SECOND_US;
    return true;
}

static void not_before(struct item_traits *out, uint64_t now_us, uint64_t at_us)
{
    if (at_us > now_us && at_us > out->not_before_us)
        out->not_before_us = at_us;
}

static bool read_delay(struct xy_str value, uint64_t now_us, struct item_traits *out)
{
    uint64_t at_us;
    if (!read_seconds(value, now_us, &at_us))
        return false;
    not_before(out, now_us, at_us);
    return true;
}

static bool read_deliver_at(struct xy_str value, uint64_t now_us, struct item_traits *out)
{
    uint64_t at_us;
    if (!xy_time_parse(value, &at_us) || at_us > now_us + HEADER_SECONDS_MAX * SECOND_US)
        return false;
    not_before(out, now_us, at_us);
    return true;
}

static bool read_ttl(struct xy_str value, uint64_t now_us, struct item_traits *out)
{
    return read_seconds(value, now_us, &out->expires_us) && out->expires_us > now_us;
}

static const struct {
    const char *name;
    bool (*read)(struct xy_str value, uint64_t now_us, struct item_traits *out);
    const char *why;
} known[] = {
    { "Urgency", read_urgency, "the header Urgency is low, medium or high" },
    { "Group", read_group, "the header Group has 255 bytes at most" },
    { "Delay", read_delay, "the header Delay is a number of seconds, 315360000 at most" },
    { "Deliver-At", read_deliver_at,
      "the header Deliver-At is a time as 2026-01-02T03:04:05Z, within ten years" },
    { "TTL", read_ttl, "the header TTL is a number of seconds, from 1 to 315360000" },
};

bool item_traits_read(const struct xy_elem *headers, struct xy_arena *arena, uint64_t now_us,
                      struct item_traits *out, const char **why)
{
    *out = ITEM_TRAITS_NONE;
    for (const struct xy_elem *e = xy_elem_first(headers); e != NULL; e = xy_elem_next(e)) {
        if (!xy_elem_is(e, "header", NS_SHIM))
            continue;
        struct xy_str name = xy_elem_attr(e, "name"), value = xy_str_trim(xy_elem_text(e, arena));
        for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
            *why = known[i].why;
            if (xy_str_is(name, known[i].name) && !known[i].read(value, now_us, out))
                return false;
        }
    }
    return true;
}
