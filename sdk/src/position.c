/* Positions of durable subscriptions; see position.h. */
#include "sdk/src/position.h"

#include <stdlib.h>

#include "core/base/assert.h"

struct xy_positions {
    struct xy_table *by_key;
    struct xy_position_log *log; /* NULL: memory only */
    struct xy_list dirty;
    bool failed; /* while loading */
};

static void loaded(struct xy_str key, struct xy_str epoch, const struct xy_ranges *handled, void *ctx)
{
    struct xy_positions *positions = ctx;
    struct xy_position *position = xy_position_get(positions, key);
    if (!position || !xy_ranges_reserve(&position->handled, handled->count)) {
        positions->failed = true;
        return;
    }
    memcpy(position->epoch, epoch.data, epoch.len);
    position->epoch[epoch.len] = '\0';
    if (handled->count > 0)
        memcpy(position->handled.list, handled->list, handled->count * sizeof *handled->list);
    position->handled.count = handled->count;
}

static void record(struct xy_positions *positions, const struct xy_position *position)
{
    xy_position_log_add(positions->log, xy_str_n(position->key, position->key_len), xy_str(position->epoch),
                        &position->handled);
}

static bool compact(struct xy_positions *positions)
{
    size_t at = 0;
    const struct xy_position *position;
    while ((position = xy_position_next(positions, &at)))
        if (position->epoch[0])
            record(positions, position);
    return xy_position_log_compact(positions->log);
}

struct xy_positions *xy_positions_open(const char *folder, uint64_t seed, char *error, size_t error_size)
{
    struct xy_positions *positions = calloc(1, sizeof *positions);
    if (!positions)
        return NULL;
    xy_list_init(&positions->dirty);
    positions->by_key = xy_table_new(seed);
    if (positions->by_key && folder)
        positions->log = xy_position_log_open(folder, loaded, positions, error, error_size);
    bool ok = positions->by_key && (!folder || positions->log) && !positions->failed;
    if (ok && positions->log && xy_position_log_outdated(positions->log))
        ok = compact(positions);
    if (!ok)
        xy_positions_close(&positions);
    return positions;
}

struct xy_position *xy_position_next(struct xy_positions *positions, size_t *at)
{
    return xy_table_next(positions->by_key, at, NULL);
}

void xy_positions_close(struct xy_positions **positions)
{
    struct xy_positions *p = *positions;
    if (!p)
        return;
    size_t at = 0;
    struct xy_position *position;
    while (p->by_key && (position = xy_position_next(p, &at))) {
        xy_ranges_free(&position->handled);
        free(position);
    }
    xy_table_free(&p->by_key);
    xy_position_log_close(&p->log);
    free(p);
    *positions = NULL;
}

struct xy_position *xy_position_get(struct xy_positions *positions, struct xy_str key)
{
    struct xy_position *position = xy_table_get(positions->by_key, key);
    if (position || key.len > XY_POSITION_KEY_MAX)
        return position;
    position = calloc(1, sizeof *position + key.len + 1);
    if (!position)
        return NULL;
    memcpy(position->key, key.data, key.len);
    position->key_len = key.len;
    xy_list_init(&position->dirty);
    xy_list_init(&position->pending);
    if (!xy_ranges_reserve(&position->handled, 1) ||
        !xy_table_put(positions->by_key, xy_str_n(position->key, key.len), position, NULL)) {
        xy_ranges_free(&position->handled);
        free(position);
        return NULL;
    }
    return position;
}

void xy_position_moved(struct xy_positions *positions, struct xy_position *position)
{
    if (!xy_list_linked(&position->dirty))
        xy_list_append(&positions->dirty, &position->dirty);
}

void xy_position_forget(struct xy_positions *positions, struct xy_position *position)
{
    position->epoch[0] = '\0';
    xy_ranges_clear(&position->handled);
    xy_position_moved(positions, position);
}

bool xy_positions_sync(struct xy_positions *positions)
{
    if (xy_list_empty(&positions->dirty))
        return true;
    xy_list_each (entry, &positions->dirty) {
        const struct xy_position *position = xy_container_of(entry, struct xy_position, dirty);
        if (positions->log)
            record(positions, position);
        xy_list_remove(entry);
    }
    if (!positions->log)
        return true;
    if (!xy_position_log_sync(positions->log))
        return false;
    size_t live = xy_table_count(positions->by_key);
    return !xy_position_log_wants_compaction(positions->log, live) || compact(positions);
}
