/* Any text as an address: what is accepted is canonical (accepted again, unchanged), within the limits, and splits at the
 * same places whether parsed or taken as canonical. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/base/limits.h"
#include "core/jid.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xy_arena *arena = xy_arena_new();
    struct xy_jid jid, again;
    if (arena == NULL)
        abort();
    if (xy_jid_parse(arena, xy_str_n((const char *)data, size), &jid)) {
        xy_assert(jid.len > 0 && jid.len <= XY_JID_MAX && jid.bare_len <= jid.len &&
                  jid.local_len < jid.bare_len);
        xy_assert(xy_str_utf8(xy_jid_full(jid)));
        xy_assert(xy_jid_parse(arena, xy_jid_full(jid), &again));
        xy_assert(xy_jid_eq(jid, again));
        struct xy_jid split = xy_jid_canonical(xy_jid_full(jid));
        xy_assert(split.bare_len == jid.bare_len && split.local_len == jid.local_len);
        xy_assert(again.bare_len == jid.bare_len && again.local_len == jid.local_len);
        xy_assert(xy_jid_make(arena, xy_jid_local(jid), xy_jid_domain(jid), xy_jid_resource(jid), &again));
        xy_assert(xy_jid_eq(jid, again));
    } else {
        xy_assert(!xy_jid_present(jid));
    }
    xy_arena_free(&arena);
    return 0;
}
