/* Reads the libucl subset our configuration uses, and says on which line everything stood.
 *
 * Objects `name { … }`, values `key = value;` (also `key: value` and `key value`, ended by `;`, `,` or the
 * line), arrays
 * `[a, b]`, strings in double quotes with JSON escapes or in single quotes, bare words, comments after `#`
 * and between slash-star and star-slash, which nest. Any JSON object is a valid file. Called by config.c
 * only. libucl itself is not packaged in Debian, and it forgets line numbers, which are the point of a good
 * message. */
#pragma once

#include "core/base/arena.h"
#include "core/base/buf.h"

#define CONFIG_DEPTH_MAX  8u
#define CONFIG_VALUES_MAX 1024u /* elements of one array */

enum config_kind { CONFIG_SCALAR, CONFIG_ARRAY, CONFIG_OBJECT };

struct config_value {
    struct xy_str text; /* unescaped */
    unsigned line;
    bool quoted;
};

/* One assignment. `path` has dots between the names of the enclosing objects and the key. */
struct config_entry {
    struct xy_str path;
    unsigned line;
    enum config_kind kind;
    const struct config_value *values; /* one for a scalar, none for an object */
    size_t count;
};

struct config_reader {
    const char *name; /* of the file, for messages */
    struct xy_arena *arena;
    struct xy_buf *errors;
    void (*entry)(void *ctx,
                  const struct config_entry *entry); /* for every object when it opens, and every value */
    void *ctx;
};

/* false: a syntax error, already in `errors`; entries before it were given. Entries point into the arena. */
bool config_read(const struct config_reader *reader, struct xy_str text);
