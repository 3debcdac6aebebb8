/* Names of the tables, building and folding of their keys; see key.h. A folded name is its beginning followed by 128 bits of its SHA-256 in
 * hexadecimal: still unique against anybody who chooses names to collide, and free of the NUL that ends a name. */
#include "broker/store/key.h"

#include <mbedtls/md.h>

#include "broker/store/bigendian.h"
#include "core/base/assert.h"
#include "core/base/encoding.h"

enum { DIGEST_BYTES = 16 };

static void add(struct key *key, const void *data, size_t len)
{
    xy_assert(len <= sizeof(key->data) - key->len);
    if (len > 0)
        memcpy(key->data + key->len, data, len);
    key->len += len;
}

void key_u64(struct key *key, uint64_t value)
{
    char bytes[8];
    be64_put(bytes, value);
    add(key, bytes, sizeof(bytes));
}

void key_u32(struct key *key, uint32_t value)
{
    char bytes[4];
    be32_put(bytes, value);
    add(key, bytes, sizeof(bytes));
}

void key_byte(struct key *key, char byte)
{
    add(key, &byte, 1);
}

void key_name(struct key *key, struct xy_str name, size_t len_max)
{
    if (name.len <= len_max) {
        add(key, name.data, name.len);
        return;
    }
    unsigned char digest[32];
    int failed = mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), (const unsigned char *)name.data,
                            name.len, digest);
    xy_assert(failed == 0);
    add(key, name.data, len_max - 2 * DIGEST_BYTES);
    xy_assert(sizeof(key->data) - key->len >= 2 * DIGEST_BYTES);
    xy_hex_encode(key->data + key->len, digest, DIGEST_BYTES);
    key->len += 2 * DIGEST_BYTES;
}

/* How the keys of each table are made up: bytes of numbers in front, then a name up to NUL or the end, then perhaps
 * NUL and a second name; whatever follows stays as it is. */
static const struct layout {
    unsigned char number_bytes;
    bool name, second_name;
} layouts[STORE_TABLE_COUNT] = {
    [STORE_ACCOUNTS] = { 0, true, false },    [STORE_MAILBOX] = { 0, true, false },
    [STORE_MAILBOX_SEQ] = { 0, true, false }, [STORE_NODES] = { 0, true, false },
    [STORE_SUBS_BY_JID] = { 0, true, false }, [STORE_AFFILIATIONS] = { 8, true, false },
    [STORE_DEDUP] = { 8, true, true },
};

static const char *const table_names[STORE_TABLE_COUNT] = {
    [STORE_META] = "meta",
    [STORE_ACCOUNTS] = "accounts",
    [STORE_MAILBOX] = "mailbox",
    [STORE_MAILBOX_SEQ] = "mailbox_seq",
    [STORE_NODES] = "nodes",
    [STORE_NODE_SEQ] = "node_seq",
    [STORE_ITEMS] = "items",
    [STORE_SUBSCRIPTIONS] = "subscriptions",
    [STORE_SUBS_BY_JID] = "subs_by_jid",
    [STORE_CURSORS] = "cursors",
    [STORE_AFFILIATIONS] = "affiliations",
    [STORE_DEDUP] = "dedup",
    [STORE_SESSIONS] = "sessions",
    [STORE_SESSION_IN] = "session_in",
    [STORE_CLAIMS] = "claims",
    [STORE_QUEUE] = "queue",
    [STORE_EXPIRY] = "expiry",
};

const char *store_table_name(enum store_table table)
{
    return table_names[table];
}

struct xy_str key_fold(enum store_table table, struct xy_str key, struct key *room)
{
    const struct layout *layout = &layouts[table];
    if (key.len <= STORE_PUBLISH_ID_KEY_MAX || !layout->name || key.len <= layout->number_bytes)
        return key;
    const char *name = key.data + layout->number_bytes, *end = key.data + key.len;
    const char *nul = memchr(name, 0, (size_t)(end - name));
    const char *name_end = nul != NULL ? nul : end;
    room->len = 0;
    add(room, key.data, layout->number_bytes);
    key_name(room, xy_str_n(name, (size_t)(name_end - name)), STORE_NAME_KEY_MAX);
    if (nul == NULL)
        return key_view(room);
    key_byte(room, 0);
    struct xy_str rest = xy_str_n(nul + 1, (size_t)(end - nul) - 1);
    /* NUL ends no publish id: here it is the successor of a key that a scan returned, and stays. */
    if (layout->second_name && !(rest.len > 0 && rest.data[rest.len - 1] == 0))
        key_name(room, rest, STORE_PUBLISH_ID_KEY_MAX);
    else
        add(room, rest.data, rest.len <= STORE_PUBLISH_ID_KEY_MAX ? rest.len : STORE_PUBLISH_ID_KEY_MAX + 1);
    return key_view(room);
}

int store_key_compare(enum store_table table, struct xy_str key, struct xy_str scanned)
{
    struct key room;
    return xy_str_cmp(key_fold(table, key, &room), scanned);
}

struct xy_str key_after_prefix(struct xy_str prefix, struct key *room)
{
    xy_assert(prefix.len <= STORE_KEY_MAX);
    room->len = 0;
    add(room, prefix.data, prefix.len);
    while (room->len > 0 && (unsigned char)room->data[room->len - 1] == 0xff)
        room->len--;
    if (room->len > 0)
        room->data[room->len - 1]++;
    return key_view(room);
}
