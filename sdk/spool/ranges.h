/* A set of sequence numbers as few disjoint ranges: what of a subscription was handled, the floor (everything from the
 * start) and what was handled out of order above it. sdk/src/position.c keeps one per
 * subscription, position_log.c keeps them on disk. */
#pragma once

#include "core/base/buf.h"

/* Ranges above the floor. Beyond, the lowest is forgotten: at worst an item of it, if its acknowledgement was lost, is shown
 * once more; never is one left out. */
#define XY_RANGES_MAX 256u

struct xy_range {
    uint64_t first, last;
};

struct xy_ranges {
    struct xy_range *list; /* ascending, disjoint, not adjacent */
    size_t count, cap;
};

void xy_ranges_free(struct xy_ranges *ranges);
void xy_ranges_clear(struct xy_ranges *ranges);
/* Room, so that nothing below can fail for lack of memory: 1 for xy_ranges_fill alone, XY_RANGES_MAX + 2 otherwise. */
bool xy_ranges_reserve(struct xy_ranges *ranges, size_t count);
bool xy_ranges_has(const struct xy_ranges *ranges, uint64_t number);
void xy_ranges_add(struct xy_ranges *ranges, uint64_t first, uint64_t last); /* 1 <= first <= last */
void xy_ranges_fill(struct xy_ranges *ranges, uint64_t last);                /* everything up to it */
uint64_t xy_ranges_floor(const struct xy_ranges *ranges); /* everything up to it is in; 0: not even 1 is */

/* "0-1207 1209-1215 1217", for people's hands and databases. */
void xy_ranges_write(const struct xy_ranges *ranges, struct xy_buf *out);
bool xy_ranges_read(struct xy_ranges *ranges, struct xy_str text); /* false: not that, or memory is short */
