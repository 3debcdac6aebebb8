/* Runs to numbers and back; see outmap.h. */
#include "broker/delivery/outmap.h"

#define KIND_BITS 3u
#define ERA_SHIFT 32u

static const unsigned char arguments[OUT_KINDS] = {
    [OUT_NOTHING] = 0, [OUT_MAILBOX] = 1, [OUT_EVENT] = 3, [OUT_ANSWER] = 1
};

static bool continues(const struct out_run *run, const struct out_run *claim)
{
    if (run->count == 0 || run->kind != claim->kind)
        return false;
    return run->kind == OUT_NOTHING || (run->node == claim->node && run->number == claim->number &&
                                        run->era == claim->era && run->first + run->count == claim->first);
}

static void put(struct xy_buf *runs, uint64_t value)
{
    xy_buf_add(runs, &value, sizeof(value));
}

void outmap_end(struct xy_buf *runs, struct out_run *last)
{
    if (last->count == 0)
        return;
    put(runs, last->count << KIND_BITS | (uint64_t)last->kind);
    if (last->kind == OUT_EVENT) {
        put(runs, last->node);
        put(runs, (uint64_t)last->era << ERA_SHIFT | last->number);
    }
    if (last->kind != OUT_NOTHING)
        put(runs, last->first);
    *last = (struct out_run){ .kind = OUT_NOTHING };
}

void outmap_add(struct xy_buf *runs, struct out_run *last, const struct out_run *claim)
{
    if (continues(last, claim)) {
        last->count++;
        return;
    }
    outmap_end(runs, last);
    *last = *claim;
    last->count = 1;
}

bool outmap_next(const uint64_t **runs, size_t *count, struct out_run *out)
{
    if (*count == 0)
        return false;
    uint64_t head = **runs, kind = head & ((1u << KIND_BITS) - 1);
    if (kind >= OUT_KINDS || *count < 1u + arguments[kind])
        return false;
    const uint64_t *argument = *runs + 1;
    *out = (struct out_run){ .kind = (enum out_kind)kind, .count = head >> KIND_BITS };
    if (kind == OUT_EVENT) {
        out->node = *argument++;
        out->number = (uint32_t)*argument;
        out->era = (uint32_t)(*argument++ >> ERA_SHIFT);
    }
    if (kind != OUT_NOTHING)
        out->first = *argument;
    *runs += 1u + arguments[kind];
    *count -= 1u + arguments[kind];
    return true;
}
