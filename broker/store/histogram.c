/* See histogram.h. Two periods take turns: when one is over, the older one is emptied and becomes the present, so that
 * quantiles follow what happens now and never stand on a handful of values. */
#include "broker/store/histogram.h"

#include "core/base/assert.h"

/* Values below 4 have buckets of their own; above, each power of two has four. */
static unsigned bucket_of(uint64_t value)
{
    if (value < 4)
        return (unsigned)value;
    unsigned exponent = 63 - (unsigned)__builtin_clzll(value);
    unsigned bucket = 4 * (exponent - 1) + (unsigned)(value >> (exponent - 2) & 3);
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

/* The largest value of a bucket. */
static uint64_t bucket_value(unsigned bucket)
{
    if (bucket < 4)
        return bucket;
    unsigned exponent = bucket / 4 + 1;
    return ((4 + (uint64_t)(bucket % 4) + 1) << (exponent - 2)) - 1;
}

static void turn(struct histogram *h, uint64_t now_us)
{
    uint32_t next = 1 - atomic_load_explicit(&h->now, memory_order_relaxed);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        atomic_store_explicit(&h->bucket[next][i], 0, memory_order_relaxed);
    atomic_store_explicit(&h->now, next, memory_order_relaxed);
    h->since_us = now_us;
}

void histogram_add(struct histogram *h, uint64_t value, uint64_t now_us)
{
    if (h->since_us == 0)
        h->since_us = now_us;
    else if (now_us - h->since_us >= HISTOGRAM_PERIOD_US)
        turn(h, now_us);
    _Atomic uint32_t *bucket =
        &h->bucket[atomic_load_explicit(&h->now, memory_order_relaxed)][bucket_of(value)];
    atomic_fetch_add_explicit(bucket, 1, memory_order_relaxed);
}

uint64_t histogram_quantile(const struct histogram *h, unsigned permille)
{
    uint64_t counts[HISTOGRAM_BUCKETS], total = 0, seen = 0;
    xy_assert(permille <= 1000);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        counts[i] = (uint64_t)atomic_load_explicit(&h->bucket[0][i], memory_order_relaxed) +
                    atomic_load_explicit(&h->bucket[1][i], memory_order_relaxed);
        total += counts[i];
    }
    uint64_t rank = (total * permille + 999) / 1000;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && total > 0; i++) {
        seen += counts[i];
        if (counts[i] > 0 && seen >= rank)
            return bucket_value(i);
    }
    return 0;
}
