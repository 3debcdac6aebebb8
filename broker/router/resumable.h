/* Sessions that may be resumed (XEP-0198 5), as the owner of their account sees them.
 *
 * Their record (SessionPut, STORE_SESSIONS) holds what a restart may not forget: id, full JID, presence, carbons. A
 * session that lives is a bound resource. One that a restart interrupted is a row and an entry of a directory that each
 * shard makes of the rows of its accounts when it starts (dormant.c): nobody's session, unavailable, its claims with their
 * owners, until somebody resumes it, binds its resource, or its time is over.
 *
 * Both are asked for at the owner of the account, so that one connection wins, whatever the number of shards was:
 *
 *     new connection's shard              account's owner                     session's shard
 *     address_resume  --------------->    a resource has that id: live
 *       <------------- resumption.live
 *     link and stream  --------------------------------------------------->   goes on
 *
 *     address_resume  --------------->    a row has that id: settles what the client's h covers,
 *       <------------- resumption.past    binds its resource to the asker
 *     the session is made anew
 *     address_restored  ------------->    its presence is back, what is owed flows again
 *
 * The functions may be called on any shard, and mail. */
#pragma once

#include "broker/delivery/sessions.h"

/* A bound session may be resumed from now on, for `max_us` after it loses its connection. Answered by session_kept. */
void address_keep(struct shard *shard, struct session_ref session, struct xy_str bare,
                  const uint8_t id[SESSION_ID_BYTES], uint64_t max_us);
/* It lost its connection, or has one again. */
void address_set_detached(struct shard *shard, struct session_ref session, struct xy_str bare, bool detached);
/* Who asks is authenticated as `bare`; `h` is what the client has. Answered by session_resumption. */
void address_resume(struct shard *shard, struct session_ref asker, struct xy_str bare,
                    const uint8_t id[SESSION_ID_BYTES], uint32_t h);
void address_restored(struct shard *shard, struct session_ref session, struct xy_str bare);
/* The session is about to end because nobody resumed it in time: who asks for it hears how many stanzas were handled. A
 * session that goes on to live is told nothing new by it. */
struct session_expiry {
    uint64_t handled;      /* stanzas of the client */
    uint64_t acked;        /* stanzas it had acknowledged */
    uint64_t resumed;      /* the h that the newest <resumed/> told */
    struct xy_buf answers; /* which of those after that are answers: runs of outmap.h; moves to the callee */
};
void address_expire(struct shard *shard, struct session_ref session, struct xy_str bare,
                    struct session_expiry *expiry);
/* The session ends, but what is kept of it stays: the broker stops, or it never came to be. Nobody is told. */
void address_suspend(struct shard *shard, struct session_ref session, struct xy_str bare);
