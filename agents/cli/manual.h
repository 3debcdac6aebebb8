/* Verdicts on standard input: `xylem sub --ack manual` names each item it prints, a program says what became of it. */
#pragma once

#include <xylem/xylem.h>

#include "core/base/buf.h"

struct manual_item {
    uint64_t ref;
    struct xylem_msg *msg;
};

struct manual {
    struct manual_item *items; /* printed, without a verdict */
    size_t count, cap;
    uint64_t last_ref;
    uint64_t settled;   /* that do not come again: acknowledged or given up */
    struct xy_buf line; /* what came without its end of line yet */
    bool ended;         /* standard input */
};

/* The name for this item; 0: memory is short. */
uint64_t manual_take(struct manual *manual, struct xylem_msg *msg);
/* Reads what there is; wrong lines are said on stderr and skipped. */
void manual_read(struct manual *manual, int fd);
void manual_free(struct manual *manual);
