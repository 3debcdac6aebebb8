/* Which PLAIN passwords were right a moment ago, so that a device that reconnects costs no key derivation.
 *
 * Kept is an HMAC under a random key of this process, for ten minutes, never the password; a change of the account
 * forgets it. Called by accounts_login.c on the shard that owns the account. */
#include <mbedtls/md.h>
#include <stdlib.h>

#include "broker/router/accounts_internal.h"

#define DIGEST      32u
#define ENTRIES_MAX 65536u /* then nothing more is remembered until some are old */

struct entry {
    uint8_t digest[DIGEST];
    uint64_t until_us;
    struct xy_str bare;
    char text[];
};

struct accounts_memory {
    struct xy_table *entries;
    uint8_t key[DIGEST];
    uint64_t swept_us;
};

struct accounts_memory *accounts_memory_new(const struct xy_env *env, uint64_t seed)
{
    struct accounts_memory *memory = calloc(1, sizeof(*memory));
    if (!memory)
        return NULL;
    xy_random(env, memory->key, sizeof(memory->key));
    memory->entries = xy_table_new(seed);
    if (!memory->entries)
        accounts_memory_free(&memory);
    return memory;
}

static void entry_drop(struct accounts_memory *memory, struct entry *entry)
{
    xy_table_remove(memory->entries, entry->bare);
    explicit_bzero(entry->digest, sizeof(entry->digest));
    free(entry);
}

static void sweep(struct accounts_memory *memory, uint64_t now_us)
{
    size_t position = 0;
    struct entry *entry;
    while ((entry = xy_table_next(memory->entries, &position, NULL)) != NULL)
        if (entry->until_us <= now_us)
            entry_drop(memory, entry);
    memory->swept_us = now_us;
}

void accounts_memory_free(struct accounts_memory **memory)
{
    if (!*memory)
        return;
    if ((*memory)->entries)
        sweep(*memory, UINT64_MAX);
    xy_table_free(&(*memory)->entries);
    explicit_bzero((*memory)->key, sizeof((*memory)->key));
    free(*memory);
    *memory = NULL;
}

/* The name is part of what is signed: equal passwords of two accounts look different. */
static bool digest(const struct accounts_memory *memory, struct xy_str bare, struct xy_str password,
                   uint8_t out[DIGEST])
{
    static const unsigned char separator = 0;
    const mbedtls_md_info_t *sha256 = mbedtls_md_info_from_type(MBEDTLS_MD_SHA256);
    mbedtls_md_context_t md;
    mbedtls_md_init(&md);
    bool ok = mbedtls_md_setup(&md, sha256, 1) == 0 &&
              mbedtls_md_hmac_starts(&md, memory->key, sizeof(memory->key)) == 0 &&
              mbedtls_md_hmac_update(&md, (const unsigned char *)bare.data, bare.len) == 0 &&
              mbedtls_md_hmac_update(&md, &separator, 1) == 0 &&
              mbedtls_md_hmac_update(&md, (const unsigned char *)password.data, password.len) == 0 &&
              mbedtls_md_hmac_finish(&md, out) == 0;
    mbedtls_md_free(&md);
    return ok;
}

bool accounts_memory_knows(struct accounts_memory *memory, struct xy_str bare, struct xy_str password,
                           uint64_t now_us)
{
    struct entry *entry = xy_table_get(memory->entries, bare);
    if (!entry)
        return false;
    if (entry->until_us <= now_us) {
        entry_drop(memory, entry);
        return false;
    }
    uint8_t made[DIGEST];
    return digest(memory, bare, password, made) &&
           xy_str_eq_secret(xy_str_n((const char *)made, DIGEST),
                            xy_str_n((const char *)entry->digest, DIGEST));
}

void accounts_memory_keep(struct accounts_memory *memory, struct xy_str bare, struct xy_str password,
                          uint64_t now_us)
{
    struct entry *entry = xy_table_get(memory->entries, bare);
    if (!entry && xy_table_count(memory->entries) >= ENTRIES_MAX && now_us > memory->swept_us + 1000000)
        sweep(memory, now_us);
    if (!entry && xy_table_count(memory->entries) >= ENTRIES_MAX)
        return;
    if (!entry) {
        entry = calloc(1, sizeof(*entry) + bare.len + 1);
        if (!entry)
            return;
        memcpy(entry->text, bare.data, bare.len);
        entry->bare = xy_str_n(entry->text, bare.len);
        if (!xy_table_put(memory->entries, entry->bare, entry, NULL)) {
            free(entry);
            return;
        }
    }
    entry->until_us = now_us + ACCOUNTS_REMEMBER_US;
    if (!digest(memory, bare, password, entry->digest))
        entry_drop(memory, entry);
}

void accounts_memory_forget(struct accounts_memory *memory, struct xy_str bare)
{
    struct entry *entry = xy_table_get(memory->entries, bare);
    if (entry)
        entry_drop(memory, entry);
}
