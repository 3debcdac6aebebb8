/* Idle spans in two stacks, warm and cold, under one lock: it is taken when a session wakes or falls asleep, not per
 * stanza. Which spans are idle is noted outside of them, because a note inside would keep its page. */
#include "broker/shard/spans.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/base/assert.h"

#define SPAN_TOUCHED_ABOUT (12u << 10)
#define REGION_BYTES       ((size_t)SPANS_OF_REGION * SPAN_BYTES)

struct spans {
    struct xy_spans view;
    pthread_mutex_t lock;
    char **regions;
    size_t regions_count;
    char **cold; /* not resident; room for every span there is */
    size_t cold_count;
    char *warm[SPANS_WARM_MAX];
    size_t warm_count;
    size_t taken;
};

/* --- regions ------------------------------------------------------------------------------------------------------- */

/* Address space only: pages come when they are touched. Huge ones would not leave again one span at a time. */
static char *region_map(void)
{
    void *region =
        mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED)
        return NULL;
#ifdef MADV_NOHUGEPAGE
    (void)madvise(region, REGION_BYTES, MADV_NOHUGEPAGE);
#endif
    return region;
}

/* Called with the lock held and nothing idle. */
static bool region_add(struct spans *spans)
{
    size_t count = spans->regions_count + 1;
    char **regions = realloc(spans->regions, count * sizeof(char *));
    spans->regions = regions != NULL ? regions : spans->regions;
    char **cold = realloc(spans->cold, count * SPANS_OF_REGION * sizeof(char *));
    spans->cold = cold != NULL ? cold : spans->cold;
    char *region = regions != NULL && cold != NULL ? region_map() : NULL;
    if (region == NULL)
        return false;
    spans->regions[spans->regions_count++] = region;
    for (size_t i = SPANS_OF_REGION; i > 0; i--)
        spans->cold[spans->cold_count++] = region + (i - 1) * SPAN_BYTES;
    return true;
}

/* --- take and give ------------------------------------------------------------------------------------------------- */

static void *take(void *ctx)
{
    struct spans *spans = ctx;
    char *span = NULL;
    pthread_mutex_lock(&spans->lock);
    if (spans->warm_count > 0)
        span = spans->warm[--spans->warm_count];
    else if (spans->cold_count > 0 || region_add(spans))
        span = spans->cold[--spans->cold_count];
    spans->taken += span != NULL;
    pthread_mutex_unlock(&spans->lock);
    return span;
}

static bool keep_warm(struct spans *spans, char *span)
{
    pthread_mutex_lock(&spans->lock);
    xy_assert(spans->taken > 0);
    bool keep = spans->warm_count < SPANS_WARM_MAX;
    if (keep) {
        spans->warm[spans->warm_count++] = span;
        spans->taken--;
    }
    pthread_mutex_unlock(&spans->lock);
    return keep;
}

/* The system call is made before anybody else can have the span, and without the lock. */
static void give(void *ctx, void *span)
{
    struct spans *spans = ctx;
    if (keep_warm(spans, span))
        return;
    (void)madvise(span, SPAN_BYTES, MADV_DONTNEED);
    pthread_mutex_lock(&spans->lock);
    xy_assert(spans->taken > 0 && spans->cold_count < spans->regions_count * SPANS_OF_REGION);
    spans->cold[spans->cold_count++] = span;
    spans->taken--;
    pthread_mutex_unlock(&spans->lock);
}

/* --- the pool ------------------------------------------------------------------------------------------------------ */

struct spans *spans_new(void)
{
    struct spans *spans = calloc(1, sizeof(*spans));
    if (spans == NULL)
        return NULL;
    spans->view = (struct xy_spans){ .take = take, .give = give, .ctx = spans, .span_bytes = SPAN_BYTES };
    pthread_mutex_init(&spans->lock, NULL);
    return spans;
}

void spans_free(struct spans **spans_pointer)
{
    struct spans *spans = *spans_pointer;
    if (spans == NULL)
        return;
    *spans_pointer = NULL;
    xy_assert(spans->taken == 0);
    for (size_t i = 0; i < spans->regions_count; i++)
        munmap(spans->regions[i], REGION_BYTES);
    pthread_mutex_destroy(&spans->lock);
    free(spans->regions);
    free(spans->cold);
    free(spans);
}

const struct xy_spans *spans_view(const struct spans *spans)
{
    return &spans->view;
}

size_t spans_bytes(struct spans *spans)
{
    pthread_mutex_lock(&spans->lock);
    size_t bytes = spans->taken * SPAN_TOUCHED_ABOUT;
    pthread_mutex_unlock(&spans->lock);
    return bytes;
}
