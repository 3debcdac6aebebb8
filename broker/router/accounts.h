/* Accounts: who may log in, and the operations on them.
 *
 * An account is one AccountPut record, kept by the shard that owns its bare JID; every function here may be called on
 * any shard, mails itself there and answers by calling `fn` on the shard it was called on, in a later turn. What is
 * derived from passwords is computed by the worker pool (shard->workers), never on a loop.
 *
 * Failed logins are throttled per account and per peer address (limits.auth_failures_per_minute): once there were that
 * many within a minute, answers are delayed, up to ACCOUNTS_DELAY_MAX_US. The right password always gets in in the end,
 * so nobody can lock out somebody else. RFC 6120 6.4.4, XEP-0205. */
#pragma once

#include "broker/shard/ref.h"
#include "broker/shard/shard.h"
#include "core/jid.h"
#include "core/sasl/sasl.h"

#define ACCOUNTS_DELAY_STEP_US (250u * 1000) /* per failure above the limit */
#define ACCOUNTS_DELAY_MAX_US  (5u * 1000 * 1000)
#define ACCOUNTS_REMEMBER_US                                                                                 \
    (600ull * 1000 * 1000)            /* a good PLAIN password needs no derivation for so long */
#define ACCOUNTS_PAGE_MAX      256u   /* JIDs per page of accounts_list */
#define ACCOUNTS_THROTTLED_MAX 65536u /* addresses and accounts with failures kept per shard */

bool accounts_init(struct shard *shard);
void accounts_free(struct shard *shard);

/* The reserved account of local administrators, admin@<first domain>: needs no record to be bound. */
bool accounts_is_reserved(const struct shard *shard, struct xy_str bare);

/* --- for sessions -------------------------------------------------------------------------------------------------
 * `asker` says which shard to answer on and is handed through; it need not be a session that still exists by then.
 * `peer` is the address of the connection without its port (absent: the local socket, not throttled). Strings are
 * copied. */

/* SCRAM: the keys of `bare` for `hash`; NULL: none. Lives until `fn` returns. Report a failed proof below. */
typedef void accounts_keys_fn(struct shard *shard, struct session_ref asker,
                              const struct xy_scram_keys *keys);
void accounts_keys(struct shard *shard, struct session_ref asker, struct xy_str bare, enum xy_scram_hash hash,
                   struct xy_str peer, accounts_keys_fn *fn);
/* A proof was wrong: counts for the throttle. accounts_check_password counts by itself. */
void accounts_login_failed(struct shard *shard, struct xy_str bare, struct xy_str peer);

/* PLAIN. Unknown accounts take as long as others. Verdict: NO_FAILURE, NOT_AUTHORIZED, or TEMPORARY_AUTH_FAILURE when
 * the workers' queue is full. `bare` may be absent (the user's name is no localpart): then it fails in the same time. */
typedef void accounts_verdict_fn(struct shard *shard, struct session_ref asker,
                                 enum xy_sasl_condition verdict);
void accounts_check_password(struct shard *shard, struct session_ref asker, struct xy_str bare,
                             struct xy_str password, struct xy_str peer, accounts_verdict_fn *fn);

/* EXTERNAL: may somebody be `bare` at all? NO_FAILURE if the account exists or is reserved, else NOT_AUTHORIZED. */
void accounts_check_exists(struct shard *shard, struct session_ref asker, struct xy_str bare,
                           accounts_verdict_fn *fn);

/* --- administration ----------------------------------------------------------------------------------------------- */

enum account_result {
    ACCOUNT_OK,
    ACCOUNT_UNKNOWN,      /* there is no such account */
    ACCOUNT_EXISTS,       /* there is one already */
    ACCOUNT_BAD_PASSWORD, /* empty, too long or not allowed by SASLprep */
    ACCOUNT_BUSY,         /* too much derivation queued: try again */
    ACCOUNT_NO_ROOM,      /* the store is full, or memory is short */
};

/* Who asks for a change: `fn` is told, on the asker's shard, once it is on disk or refused. `appended`, if any, runs on the
 * account's shard in the turn in which its record is appended, so that what it appends is durable together with it; until
 * `fn` nobody else may touch what it needs. */
struct accounts_asker {
    void (*fn)(struct shard *shard, void *ctx, enum account_result result);
    void (*appended)(struct shard *shard, void *ctx);
    void *ctx;
};

/* `bare` is a canonical bare JID of a local domain. */
void accounts_create(struct shard *shard, struct xy_str bare, struct xy_str password,
                     const struct accounts_asker *asker);
void accounts_set_password(struct shard *shard, struct xy_str bare, struct xy_str password,
                           const struct accounts_asker *asker);
/* Its sessions end with <not-authorized/>, its mailbox goes with it. */
void accounts_remove(struct shard *shard, struct xy_str bare, const struct accounts_asker *asker);

/* A page of bare JIDs in byte order, those above `after` (absent: from the first), `count_max` <= ACCOUNTS_PAGE_MAX.
 * `total` counts all accounts when `after` is absent, else it is 0. They live until `fn` returns. */
struct accounts_page {
    const struct xy_str *jids;
    size_t count;
    bool more;
    uint64_t total;
};
typedef void accounts_page_fn(struct shard *shard, void *ctx, const struct accounts_page *page);
void accounts_list(struct shard *shard, struct xy_str after, size_t count_max, accounts_page_fn *fn,
                   void *ctx);

/* --- on the shard that owns `bare` -------------------------------------------------------------------------------- */

bool accounts_exists(struct shard *shard, struct xy_str bare); /* reserved or stored, at once */
