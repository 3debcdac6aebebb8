/* What kept.c, dormant.c, restore.c and expired.c share: records of sessions that may be resumed, the directory of those
 * that a restart interrupted, what is remembered of those nobody resumed. Private to broker/router; everything on the shard that owns the account. See resumable.h. */
#pragma once

#include "broker/router/address_internal.h"
#include "broker/router/resumable.h"
#include "xylem/store/v1/records.pb-c.h"

_Static_assert(SESSION_ID_BYTES == STORE_SESSION_ID_BYTES, "an id is a key");

#define KEPT_OVERHEAD    256u  /* bytes of a record without its texts, about */
#define KEPT_EXPIRED_MAX 1024u /* sessions of a shard whose time is over that are remembered */
#define KEPT_EXPIRED_US  (UINT64_C(24) * 60 * 60 * 1000 * 1000)
#define KEPT_EXPIRED_ANSWERS_MAX                                                                             \
    256u /* numbers that say which answers one may have missed; with more it is forgotten */

/* --- kept.c ------------------------------------------------------------------------------------------------------- */
/* Records what a resource is now; 0: it is not kept, or from now on no longer. `awaited`: somebody waits for the ticket. */
uint64_t kept_put(struct address *address, struct resource *resource, bool awaited);
uint64_t kept_remove(struct shard *shard, const uint8_t id[SESSION_ID_BYTES]); /* when it is gone */
/* NULL: not a sound record. Free with xylem__store__v1__session_put__free_unpacked. */
Xylem__Store__V1__SessionPut *kept_unpack(struct xy_str value);
/* A resource made of its record, unless its time is over; bound to nobody and in no list; free it with resource_free. NULL: no such record. */
struct resource *kept_read(struct address *address, const uint8_t id[SESSION_ID_BYTES]);

/* --- dormant.c ---------------------------------------------------------------------------------------------------- */
struct dormant;
bool dormants_init(struct shard *shard); /* reads the rows of the accounts of this shard */
void dormants_free(struct shard *shard);
/* The session of that id, if it belongs to `address`; NULL: none waits. */
struct dormant *dormant_find(struct address *address, const uint8_t id[SESSION_ID_BYTES]);
bool dormant_has(const struct address *address, struct xy_str resource);
void dormant_add(struct address *address, const struct resource *resource);
void dormant_drop(struct shard *shard, struct dormant **dormant); /* from the directory only */
/* It is over: who knew of it is told, its record goes. */
void dormant_end_resource(struct address *address, struct xy_str resource); /* none of that name: fine */
void dormant_end_account(struct shard *shard, struct xy_str bare);          /* all of them */

/* --- expired.c ---------------------------------------------------------------------------------------------------- */
/* Remembers it, or forgets it where that cannot be. Returns the ticket after which it cannot be resumed any more. */
uint64_t expired_put(struct address *address, const struct resource *resource,
                     const struct session_expiry *expiry);
/* So many of its stanzas were handled, and their outcome is known to a client that received `client_h` of ours. false: not
 * one of this account, or not remembered. */
bool expired_h(struct address *address, const uint8_t id[SESSION_ID_BYTES], uint32_t client_h, uint32_t *h);
void expired_load(struct shard *shard, const Xylem__Store__V1__SessionPut *put); /* a row, at the start */
void expired_free(struct shard *shard);

/* --- restore.c ---------------------------------------------------------------------------------------------------- */
/* How far a session got that waited in vain, from its rows. false: that is not known. */
bool restore_expiry(struct address *address, const struct resource *resource, struct session_expiry *out);
