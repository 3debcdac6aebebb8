/* Keys of the tables: how they are built, and how names that LMDB could not take are folded. apply.c builds keys here;
 * reads pass the caller's keys through key_fold, so both meet. */
#pragma once

#include "broker/store/limits.h"
#include "broker/store/store.h"

/* A key under construction: a few hundred bytes on the stack. */
struct key {
    size_t len;
    char data[STORE_KEY_MAX + 1];
};

void key_u64(struct key *key, uint64_t value);
void key_u32(struct key *key, uint32_t value);
void key_byte(struct key *key, char byte);
void key_name(struct key *key, struct xy_str name, size_t len_max); /* folded above len_max */

static inline struct xy_str key_view(const struct key *key)
{
    return xy_str_n(key->data, key->len);
}

/* The key as it is stored: `key` itself when its names are short, else its folded form in *room. Folding a folded key
 * changes nothing. */
struct xy_str key_fold(enum store_table table, struct xy_str key, struct key *room);

/* The first key after all that start with `prefix`; an empty result: there is none, the range is open. */
struct xy_str key_after_prefix(struct xy_str prefix, struct key *room);
