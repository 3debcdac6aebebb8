/* The table of configuration keys: for each its path, type, range, default and place in struct config.
 *
 * config.c walks it to set defaults, to check what a file says and to find the key that was probably meant.
 */
#pragma once

#include "broker/config.h"

enum config_type {
    CONFIG_STRING,
    CONFIG_DOMAINS,   /* an array, or a single string; as all lists */
    CONFIG_ADDRESSES, /* strings of the form ADDRESS:PORT */
    CONFIG_JIDS,      /* strings of the form local@domain */
    CONFIG_BOOL,
    CONFIG_COUNT,
    CONFIG_SIZE,        /* bytes: 256kb = 256 * 1024, 256k = 256 * 1000 */
    CONFIG_TIME,        /* milliseconds: 250ms, 10s, 5min, 1h, 7d; a plain number is seconds */
    CONFIG_WORD,        /* one of `words` */
    CONFIG_TLS_LIBRARY, /* one that this build has; the default is the first of them */
    CONFIG_LOCAL_USERS, /* an object of uid = JID */
};

struct config_key {
    const char *path;
    enum config_type type;
    const char *fallback; /* as a file would say it; NULL: absent, or derived */
    size_t offset;
    uint64_t min, max; /* of COUNT, SIZE, TIME */
    const char *const
        *words; /* WORD: ends with NULL, index is the value. COUNT, SIZE: special words, see `special` */
    uint64_t special; /* what the first special word sets */
};

extern const struct config_key config_keys[];
extern const size_t config_keys_count;
