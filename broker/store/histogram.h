/* How a figure is spread: counts in buckets a quarter of a power of two wide, over the last one to two minutes. One
 * thread adds, without a lock or an allocation; anybody reads. The commit thread keeps what a commit costs and holds in
 * these. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_BUCKETS   168u /* values up to 2^42, larger ones count as that */
#define HISTOGRAM_PERIOD_US (60ull * 1000000)

struct histogram {
    _Atomic uint32_t bucket[2][HISTOGRAM_BUCKETS]; /* of this period and of the one before */
    _Atomic uint32_t now;                          /* which of the two is this period's */
    uint64_t since_us;                             /* of the thread that adds; 0: nothing was added yet */
};

void histogram_add(struct histogram *h, uint64_t value, uint64_t now_us);
/* The value that `permille` of 1000 are not above, rounded up by at most a quarter; 0: there are none. */
uint64_t histogram_quantile(const struct histogram *h, unsigned permille);
