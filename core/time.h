/* XEP-0082 date and time, and the <delay/> stamp of XEP-0203. */
#pragma once

#include "core/xml/elem.h"

#define XY_TIME_LEN 28 /* 2026-01-02T03:04:05.678901Z and a NUL */

void xy_time_format(uint64_t wall_us, char out[XY_TIME_LEN]);
bool xy_time_parse(struct xy_str text, uint64_t *wall_us); /* any offset, fraction optional */
struct xy_elem *xy_delay_add(struct xy_arena *arena, struct xy_elem *parent, struct xy_str from,
                             uint64_t wall_us);
