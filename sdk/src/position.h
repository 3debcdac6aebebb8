/* What of each durable subscription was handled by the application, as an epoch and sequence numbers, and the messages
 * that the application still has. In memory, and in a file when there is a state_dir.
 * subscribe.c calls it; this file knows nothing of XMPP. */
#pragma once

#include "core/base/list.h"
#include "core/base/table.h"
#include "sdk/spool/position_log.h"

struct xy_position {
    struct xy_list dirty;   /* linked: its `handled` is not on disk yet */
    struct xy_list pending; /* messages shown and not handled, by seq */
    struct xy_ranges handled;
    bool given; /* what the application kept of it was taken in */
    char epoch[XY_POSITION_EPOCH_MAX + 1];
    size_t key_len;
    char key[];
};

struct xy_positions;

/* folder NULL: memory only. NULL result: `error` says why. */
struct xy_positions *xy_positions_open(const char *folder, uint64_t seed, char *error, size_t error_size);
void xy_positions_close(struct xy_positions **positions);

/* Made when it is new; NULL when memory is short or the key is too long. */
struct xy_position *xy_position_get(struct xy_positions *positions, struct xy_str key);
void xy_position_moved(struct xy_positions *positions, struct xy_position *position);
/* As if never heard of. */
void xy_position_forget(struct xy_positions *positions, struct xy_position *position);
/* Everything that moved is on disk when this returns true. */
bool xy_positions_sync(struct xy_positions *positions);
struct xy_position *xy_position_next(struct xy_positions *positions, size_t *at);
