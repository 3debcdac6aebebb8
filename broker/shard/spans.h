/* Spans (core/base/spans.h) from the system and back to it, for all shards of a process.
 *
 * Sessions take one when they wake and give it back when they fall asleep, on any thread. A few are kept as they are, so
 * that the coming and going of some sessions costs no system call; what lies beyond leaves the resident set at once and
 * comes back, as address space, for whoever wakes next. */
#pragma once

#include "core/base/spans.h"

#define SPAN_BYTES      (32u << 10) /* of address space; a parser touches about 12 KiB of it */
#define SPANS_WARM_MAX  32u         /* idle ones that stay resident */
#define SPANS_OF_REGION 128u        /* asked of the system at once */

struct spans;

struct spans *spans_new(void);         /* NULL: memory is short */
void spans_free(struct spans **spans); /* all are given back; NULL ok; nulls the caller's pointer */
const struct xy_spans *spans_view(const struct spans *spans);
size_t spans_bytes(struct spans *spans); /* resident on behalf of their takers, about. Any thread. */
