/* Sets of sequence numbers; see ranges.h. Few ranges, so a sorted array: found by bisection, changed by moving its tail. */
#include "sdk/spool/ranges.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/base/assert.h"

void xy_ranges_free(struct xy_ranges *r)
{
    free(r->list);
    *r = (struct xy_ranges){ 0 };
}

void xy_ranges_clear(struct xy_ranges *r)
{
    r->count = 0;
}

bool xy_ranges_reserve(struct xy_ranges *r, size_t count)
{
    if (count <= r->cap)
        return true;
    struct xy_range *grown = realloc(r->list, count * sizeof *grown);
    if (!grown)
        return false;
    r->list = grown;
    r->cap = count;
    return true;
}

/* The first range that ends at or behind `number`. */
static size_t find(const struct xy_ranges *r, uint64_t number)
{
    size_t low = 0, high = r->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->list[middle].last < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool xy_ranges_has(const struct xy_ranges *r, uint64_t number)
{
    size_t at = find(r, number);
    return at < r->count && r->list[at].first <= number;
}

static void remove_at(struct xy_ranges *r, size_t at, size_t count)
{
    memmove(r->list + at, r->list + at + count, (r->count - at - count) * sizeof *r->list);
    r->count -= count;
}

static void put(struct xy_ranges *r, uint64_t first, uint64_t last)
{
    size_t from = find(r, first > 0 ? first - 1 : 0), to = from;
    for (; to < r->count && (last == UINT64_MAX || r->list[to].first <= last + 1); to++) {
        first = r->list[to].first < first ? r->list[to].first : first;
        last = r->list[to].last > last ? r->list[to].last : last;
    }
    if (to > from) {
        remove_at(r, from, to - from - 1);
    } else {
        xy_assert(r->count < r->cap);
        memmove(r->list + from + 1, r->list + from, (r->count - from) * sizeof *r->list);
        r->count++;
    }
    r->list[from] = (struct xy_range){ .first = first, .last = last };
}

void xy_ranges_add(struct xy_ranges *r, uint64_t first, uint64_t last)
{
    xy_assert(first > 0 && first <= last);
    put(r, first == 1 ? 0 : first, last);
    size_t above = xy_ranges_floor(r) > 0 ? 1 : 0;
    if (r->count - above > XY_RANGES_MAX)
        remove_at(r, above, 1);
}

void xy_ranges_fill(struct xy_ranges *r, uint64_t last)
{
    if (last > 0)
        put(r, 0, last);
}

uint64_t xy_ranges_floor(const struct xy_ranges *r)
{
    return r->count > 0 && r->list[0].first == 0 ? r->list[0].last : 0;
}

void xy_ranges_write(const struct xy_ranges *r, struct xy_buf *out)
{
    for (size_t i = 0; i < r->count; i++) {
        xy_buf_printf(out, "%s%" PRIu64, i ? " " : "", r->list[i].first);
        if (r->list[i].last != r->list[i].first)
            xy_buf_printf(out, "-%" PRIu64, r->list[i].last);
    }
}

static bool read_one(struct xy_ranges *r, struct xy_str text)
{
    uint64_t first, last;
    const char *dash = text.len ? memchr(text.data, '-', text.len) : NULL;
    size_t len = dash ? (size_t)(dash - text.data) : text.len;
    if (!xy_str_u64(xy_str_n(text.data, len), &first))
        return false;
    last = first;
    if (dash && !xy_str_u64(xy_str_n(dash + 1, text.len - len - 1), &last))
        return false;
    if (first > last || last == 0)
        return false;
    if (first == 0)
        xy_ranges_fill(r, last);
    else
        xy_ranges_add(r, first, last);
    return true;
}

bool xy_ranges_read(struct xy_ranges *r, struct xy_str text)
{
    xy_ranges_clear(r);
    if (!xy_ranges_reserve(r, XY_RANGES_MAX + 2))
        return false;
    while (text.len > 0) {
        const char *space = memchr(text.data, ' ', text.len);
        size_t len = space ? (size_t)(space - text.data) : text.len;
        if (!read_one(r, xy_str_n(text.data, len)))
            return false;
        len += space ? 1 : 0;
        text = xy_str_n(text.data + len, text.len - len);
    }
    return true;
}
