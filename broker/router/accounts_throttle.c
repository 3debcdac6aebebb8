/* How often logins failed lately, by name: what delays the answers to those who guess.
 *
 * One entry per account or peer address that failed within the last minute. The table is bounded; when it is full and
 * nothing in it is old, new names go uncounted rather than memory be spent. Called by accounts_login.c. */
#include "broker/router/accounts_internal.h"

#include <stdlib.h>

#define WINDOW_US (60ull * 1000 * 1000)

struct entry {
    uint64_t since_us;
    uint64_t count;
    struct xy_str name;
    char text[];
};

struct accounts_throttle {
    struct xy_table *entries;
    uint64_t swept_us;
};

struct accounts_throttle *accounts_throttle_new(uint64_t seed)
{
    struct accounts_throttle *throttle = calloc(1, sizeof(*throttle));
    if (throttle)
        throttle->entries = xy_table_new(seed);
    if (throttle && !throttle->entries)
        accounts_throttle_free(&throttle);
    return throttle;
}

static void sweep(struct accounts_throttle *throttle, uint64_t before_us)
{
    size_t position = 0;
    struct entry *entry;
    while ((entry = xy_table_next(throttle->entries, &position, NULL)) != NULL) {
        if (entry->since_us > before_us)
            continue;
        xy_table_remove(throttle->entries, entry->name);
        free(entry);
    }
}

void accounts_throttle_free(struct accounts_throttle **throttle)
{
    if (!*throttle)
        return;
    if ((*throttle)->entries)
        sweep(*throttle, UINT64_MAX);
    xy_table_free(&(*throttle)->entries);
    free(*throttle);
    *throttle = NULL;
}

static struct entry *entry_add(struct accounts_throttle *throttle, struct xy_str name, uint64_t now_us)
{
    if (xy_table_count(throttle->entries) >= ACCOUNTS_THROTTLED_MAX)
        return NULL;
    struct entry *entry = calloc(1, sizeof(*entry) + name.len + 1);
    if (!entry)
        return NULL;
    memcpy(entry->text, name.data, name.len);
    entry->name = xy_str_n(entry->text, name.len);
    entry->since_us = now_us;
    if (!xy_table_put(throttle->entries, entry->name, entry, NULL)) {
        free(entry);
        return NULL;
    }
    return entry;
}

void accounts_throttle_count(struct accounts_throttle *throttle, struct xy_str name, uint64_t now_us)
{
    if (!xy_str_present(name) || name.len == 0)
        return;
    /* Old entries go once a minute, so the cost is spread over the failures that made them. */
    if (now_us > throttle->swept_us + WINDOW_US) {
        sweep(throttle, now_us > WINDOW_US ? now_us - WINDOW_US : 0);
        throttle->swept_us = now_us;
    }
    struct entry *entry = xy_table_get(throttle->entries, name);
    if (!entry)
        entry = entry_add(throttle, name, now_us);
    if (!entry)
        return;
    if (now_us - entry->since_us > WINDOW_US) {
        entry->since_us = now_us;
        entry->count = 0;
    }
    entry->count++;
}

uint64_t accounts_throttle_delay(struct accounts_throttle *throttle, struct xy_str name, uint64_t per_minute,
                                 uint64_t now_us)
{
    struct entry *entry = xy_str_present(name) ? xy_table_get(throttle->entries, name) : NULL;
    if (!entry || now_us - entry->since_us > WINDOW_US || entry->count < per_minute)
        return 0;
    uint64_t excess = entry->count - per_minute + 1;
    if (excess > ACCOUNTS_DELAY_MAX_US / ACCOUNTS_DELAY_STEP_US)
        return ACCOUNTS_DELAY_MAX_US;
    return excess * ACCOUNTS_DELAY_STEP_US;
}
