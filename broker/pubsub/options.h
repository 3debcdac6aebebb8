/* Options that users see as fields of data forms: a table of (name, type, default, place in a struct).
 *
 * Node configuration and subscription options are two such tables (config.c, suboptions.c); reading a submitted form,
 * writing one, storing what differs from the defaults and reading it back are the same code for both. A new option is a
 * member of the struct and a line of its table. XEP-0060 16.4, XEP-0068. */
#pragma once

#include "core/base/buf.h"
#include "core/dataform.h"
#include "xylem/store/v1/records.pb-c.h"

#define OPTION_TEXT_MAX   4096u      /* bytes of a text option, all values together */
#define OPTION_COUNT_MAX  UINT64_MAX /* what the word `max` means */
#define OPTIONS_TABLE_MAX 48u

enum option_type {
    OPTION_BOOL,
    OPTION_OFF,   /* a boolean of the standard that can only be false here */
    OPTION_COUNT, /* a number, or `max` */
    OPTION_LIST,  /* one of choices; stored as its index */
    OPTION_TEXT,
    OPTION_MULTI, /* several lines, joined by line feeds */
};

struct option {
    const char *name; /* NULL ends the table */
    enum option_type type;
    size_t offset; /* bool, uint64_t, uint8_t (LIST) or struct xy_str (owned) */
    const char *fallback;
    const char *label;
    const char *const *choices; /* NULL-terminated */
};

enum option_verdict { OPTION_ACCEPTED, OPTION_UNKNOWN, OPTION_INVALID, OPTION_NO_MEMORY };

const struct option *option_find(const struct option *table, struct xy_str name); /* NULL: there is none */

/* `target` holds nothing yet / is released. false: memory is short (target is released then). */
bool options_init(const struct option *table, void *target);
void options_free(const struct option *table, void *target);
bool options_copy(const struct option *table, void *to, const void *from);

enum option_verdict option_set(const struct option *option, void *target, const struct xy_str *values,
                               size_t count);
/* The value as text; OPTION_MULTI: lines. */
void option_get(const struct option *option, const void *target, struct xy_buf *out);
bool option_is(const struct option *option, const void *target, struct xy_str value);

/* Every field of a submitted form. On a refusal *culprit is the field. */
enum option_verdict options_read(const struct option *table, void *target, const struct xy_form *form,
                                 struct xy_str *culprit);
/* <x type='form' or 'result'> with every option as it is. */
struct xy_elem *options_form(struct xy_arena *arena, const struct option *table, const void *target,
                             const char *type, const char *form_type);

/* What differs from the defaults, as records keep it; pointers live in `arena`. */
size_t options_pack(const struct option *table, const void *target, struct xy_arena *arena,
                    Xylem__Store__V1__Option ***out);
/* Back again. Options that are unknown or no longer accepted are left at their defaults. */
void options_unpack(const struct option *table, void *target, Xylem__Store__V1__Option *const *options,
                    size_t count);
