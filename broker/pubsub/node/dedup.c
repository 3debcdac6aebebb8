/* Windows over publish ids, by publisher and prefix, in the order of last use so that expiry looks at the oldest only.
 * Called by publish.c. */
#include "broker/pubsub/node/dedup.h"

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/base/list.h"
#include "core/base/table.h"

#define WORDS (DEDUP_WINDOW / 64)
#define WHOLE UINT64_MAX

struct span {
    uint64_t newest;
    bool any;             /* something was seen */
    uint64_t seen[WORDS]; /* bit i: newest - 1 - i was seen */
};

struct window {
    struct xy_list link; /* by last use */
    uint64_t used_us;
    struct span span;
    struct xy_str key;
    char text[]; /* publisher \0 kind prefix */
};

struct dedup {
    struct xy_table *windows;
    struct xy_list order;
    uint64_t seed;
};

struct dedup *dedup_new(uint64_t hash_seed)
{
    struct dedup *dedup = calloc(1, sizeof(*dedup));
    if (dedup == NULL)
        return NULL;
    xy_list_init(&dedup->order);
    dedup->windows = xy_table_new(hash_seed);
    if (dedup->windows == NULL) {
        free(dedup);
        return NULL;
    }
    return dedup;
}

static void forget(struct dedup *dedup, struct window *window)
{
    void *removed = xy_table_remove(dedup->windows, window->key);
    xy_assert(removed == window);
    xy_list_remove(&window->link);
    free(window);
}

void dedup_free(struct dedup **dedup)
{
    if (*dedup == NULL)
        return;
    xy_list_each (link, &(*dedup)->order)
        forget(*dedup, xy_container_of(link, struct window, link));
    xy_table_free(&(*dedup)->windows);
    free(*dedup);
    *dedup = NULL;
}

size_t dedup_count(const struct dedup *dedup)
{
    return xy_table_count(dedup->windows);
}

/* Names are bounded by the caller (JIDs by their grammar, ids by PUBLISH_ID_MAX). A stream and a whole id of the same
 * text are different keys. */
#define KEY_MAX 8192u
static struct xy_str key_of(char *buffer, struct xy_str publisher, struct xy_str prefix, bool whole)
{
    xy_assert(publisher.len + 2 + prefix.len <= KEY_MAX);
    memcpy(buffer, publisher.data, publisher.len);
    buffer[publisher.len] = '\0';
    buffer[publisher.len + 1] = whole ? 'w' : 'n';
    if (prefix.len > 0)
        memcpy(buffer + publisher.len + 2, prefix.data, prefix.len);
    return xy_str_n(buffer, publisher.len + 2 + prefix.len);
}

static struct window *find(const struct dedup *dedup, struct xy_str publisher, struct xy_str prefix,
                           bool whole)
{
    char buffer[KEY_MAX];
    return xy_table_get(dedup->windows, key_of(buffer, publisher, prefix, whole));
}

/* --- the numbers of one stream -------------------------------------------------------------------------------------- */

static bool bit(const struct span *span, uint64_t back)
{
    xy_assert(back >= 1 && back <= DEDUP_WINDOW);
    return (span->seen[(back - 1) / 64] >> ((back - 1) % 64)) & 1;
}

static void set_bit(struct span *span, uint64_t back)
{
    xy_assert(back >= 1 && back <= DEDUP_WINDOW);
    span->seen[(back - 1) / 64] |= (uint64_t)1 << ((back - 1) % 64);
}

static void shift(struct span *span, uint64_t by)
{
    if (by > DEDUP_WINDOW) {
        memset(span->seen, 0, sizeof(span->seen));
        return;
    }
    for (uint64_t step = by; step > 0;) { /* whole words first, then what is left of one */
        unsigned bits = step >= 64 ? 64 : (unsigned)step;
        for (size_t i = WORDS; i-- > 0;) {
            uint64_t low = i > 0 ? span->seen[i - 1] : 0;
            span->seen[i] = bits == 64 ? low : span->seen[i] << bits | low >> (64 - bits);
        }
        step -= bits;
    }
}

static void span_add(struct span *span, uint64_t number)
{
    if (!span->any) {
        span->newest = number;
        span->any = true;
    } else if (number > span->newest) {
        uint64_t by = number - span->newest;
        shift(span, by);
        if (by <= DEDUP_WINDOW)
            set_bit(span, by);
        span->newest = number;
    } else if (number < span->newest && span->newest - number <= DEDUP_WINDOW) {
        set_bit(span, span->newest - number);
    }
}

static enum dedup_verdict span_check(const struct span *span, uint64_t number)
{
    if (!span->any || number > span->newest)
        return DEDUP_NEW;
    uint64_t back = span->newest - number;
    if (back > DEDUP_WINDOW)
        return DEDUP_OLD;
    return back == 0 || bit(span, back) ? DEDUP_SEEN : DEDUP_NEW;
}

/* --- windows ---------------------------------------------------------------------------------------------------------- */

enum dedup_verdict dedup_check(const struct dedup *dedup, struct xy_str publisher, struct xy_str prefix,
                               uint64_t number)
{
    const struct window *window = find(dedup, publisher, prefix, number == WHOLE);
    if (window == NULL)
        return DEDUP_UNKNOWN;
    return span_check(&window->span, number);
}

static struct window *make(struct dedup *dedup, struct xy_str publisher, struct xy_str prefix, bool whole)
{
    if (xy_table_count(dedup->windows) >= DEDUP_KEYS_MAX)
        forget(dedup, xy_container_of(dedup->order.next, struct window, link));
    struct window *window = malloc(sizeof(*window) + publisher.len + 2 + prefix.len);
    if (window == NULL)
        return NULL;
    memset(window, 0, sizeof(*window));
    window->key = key_of(window->text, publisher, prefix, whole);
    if (!xy_table_put(dedup->windows, window->key, window, NULL)) {
        free(window);
        return NULL;
    }
    xy_list_append(&dedup->order, &window->link);
    return window;
}

static struct window *touch(struct dedup *dedup, struct xy_str publisher, struct xy_str prefix, bool whole,
                            uint64_t now_us)
{
    struct window *window = find(dedup, publisher, prefix, whole);
    if (window == NULL)
        window = make(dedup, publisher, prefix, whole);
    if (window == NULL)
        return NULL;
    window->used_us = now_us;
    xy_list_remove(&window->link);
    xy_list_append(&dedup->order, &window->link);
    return window;
}

bool dedup_load(struct dedup *dedup, struct xy_str publisher, struct xy_str prefix, uint64_t newest,
                struct xy_str seen, uint64_t now_us)
{
    struct window *window = touch(dedup, publisher, prefix, newest == WHOLE, now_us);
    if (window == NULL)
        return false;
    struct span *span = &window->span;
    *span = (struct span){ .newest = newest, .any = true };
    memset(span->seen, seen.len == DEDUP_WINDOW / 8 ? 0 : 0xff, sizeof(span->seen));
    for (size_t i = 0; i < seen.len && seen.len == DEDUP_WINDOW / 8; i++)
        span->seen[i / 8] |= (uint64_t)(unsigned char)seen.data[i] << (i % 8 * 8);
    return true;
}

bool dedup_add(struct dedup *dedup, struct xy_str publisher, struct xy_str prefix, uint64_t number,
               uint64_t now_us)
{
    struct window *window = touch(dedup, publisher, prefix, number == WHOLE, now_us);
    if (window == NULL)
        return false;
    span_add(&window->span, number);
    return true;
}

void dedup_after(const struct dedup *dedup, struct xy_str publisher, struct xy_str prefix, uint64_t number,
                 struct dedup_state *out)
{
    const struct window *window = find(dedup, publisher, prefix, number == WHOLE);
    struct span span = window != NULL ? window->span : (struct span){ 0 };
    span_add(&span, number);
    out->newest = span.newest;
    for (size_t i = 0; i < sizeof(out->seen); i++)
        out->seen[i] = (unsigned char)(span.seen[i / 8] >> (i % 8 * 8));
}

void dedup_expire(struct dedup *dedup, uint64_t now_us)
{
    while (!xy_list_empty(&dedup->order)) {
        struct window *oldest = xy_container_of(dedup->order.next, struct window, link);
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what is freed has left its list */
        if (now_us - oldest->used_us < DEDUP_KEEP_US)
            return;
        forget(dedup, oldest);
    }
}
