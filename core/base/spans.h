/* Memory that is wanted only while its owner is busy, in spans of whole pages: one span holds what belongs to one owner
 * and nothing else, so that the system gets it back when the owner goes idle, whatever others keep.
 *
 * Core takes them from whoever runs the process (broker/shard/spans.h); where it is given none it uses malloc. */
#pragma once

#include <stddef.h>

struct xy_spans {
    void *(*take)(void *ctx);            /* aligned to a page, contents undefined; NULL: memory is short */
    void (*give)(void *ctx, void *span); /* on any thread; what was in it is lost */
    void *ctx;
    size_t span_bytes;
};
