/* Logins: keys for SCRAM, checks for PLAIN and EXTERNAL.
 *
 * A job visits the shard that counts failures of the peer's address, then the shard that owns the account, waits at each
 * as long as the throttle says, and goes home with the answer. Sessions call this; nobody waits in a loop. */
#include "broker/router/accounts_internal.h"

static struct account_job *job_of(void *payload)
{
    return *(struct account_job **)payload;
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

static void delay_over(struct shard *shard, struct shard_timer *timer)
{
    struct account_job *job = xy_container_of(timer, struct account_job, timer);
    job->after_delay(shard, job);
}

static void delayed(struct shard *shard, struct account_job *job, struct xy_str name,
                    void (*then)(struct shard *shard, struct account_job *job))
{
    uint64_t now_us = xy_now_us(shard->env);
    uint64_t delay_us = accounts_throttle_delay(shard->router->accounts->throttle, name,
                                                shard->config->limits.auth_failures_per_minute, now_us);
    if (delay_us == 0) {
        then(shard, job);
        return;
    }
    stat_add(shard, logins_throttled, 1);
    job->after_delay = then;
    job->timer.fn = delay_over;
    shard_timer_set(shard, &job->timer, now_us + delay_us);
}

/* --- the way there ------------------------------------------------------------------------------------------------ */

static void at_account(struct shard *shard, void *payload);
static void login_answer(struct shard *shard, struct account_job *job);

static void peer_passed(struct shard *shard, struct account_job *job)
{
    account_job_mail(shard, shard_owner(shard, job->bare), at_account, job);
}

static void at_peer(struct shard *shard, void *payload)
{
    struct account_job *job = job_of(payload);
    delayed(shard, job, job->peer, peer_passed);
}

static void login_start(struct shard *shard, struct account_job *job)
{
    bool throttled = xy_str_present(job->peer) && job->peer.len > 0;
    if (throttled)
        account_job_mail(shard, shard_owner(shard, job->peer), at_peer, job);
    else
        account_job_mail(shard, shard_owner(shard, job->bare), at_account, job);
}

/* --- at the account ----------------------------------------------------------------------------------------------- */

static void read_keys(struct shard *shard, struct account_job *job)
{
    Xylem__Store__V1__AccountPut *put = job->bare.len ? account_record(shard, job->bare) : NULL;
    for (size_t i = 0; put && i < put->n_keys && job->keys_count < ACCOUNTS_KEYS; i++)
        if (account_keys_read(put->keys[i], &job->keys[job->keys_count]))
            job->keys_count++;
    job->known = put != NULL;
    account_record_free(put);
}

static const struct xy_scram_keys *keys_of(const struct account_job *job, enum xy_scram_hash hash)
{
    for (unsigned i = 0; i < job->keys_count; i++)
        if (job->keys[i].hash == hash)
            return &job->keys[i];
    return NULL;
}

/* Worker thread. */
static void check_run(struct workers_job *work)
{
    struct account_job *job = (struct account_job *)work;
    job->matched = xy_scram_check_password(&job->keys[0], job->password) && job->known;
}

static void count_failure(struct shard *shard, struct account_job *job);

static void check_done(struct shard *shard, void *payload)
{
    struct account_job *job = (struct account_job *)*(struct workers_job **)payload;
    uint64_t now_us = xy_now_us(shard->env);
    if (job->matched) {
        accounts_memory_keep(shard->router->accounts->memory, job->bare, job->password, now_us);
        job->verdict = XY_SASL_NO_FAILURE;
    } else {
        job->verdict = XY_SASL_NOT_AUTHORIZED;
        count_failure(shard, job);
    }
    login_answer(shard, job);
}

static void check_password(struct shard *shard, struct account_job *job)
{
    struct accounts *accounts = shard->router->accounts;
    read_keys(shard, job);
    if (job->known &&
        accounts_memory_knows(accounts->memory, job->bare, job->password, xy_now_us(shard->env))) {
        job->verdict = XY_SASL_NO_FAILURE;
        login_answer(shard, job);
        return;
    }
    /* The strongest keys there are; for unknown accounts keys that fit nothing, so that both take the same time. */
    const struct xy_scram_keys *keys = keys_of(job, XY_SCRAM_SHA_256);
    if (!keys && job->keys_count > 0)
        keys = &job->keys[0];
    if (keys)
        job->keys[0] = *keys;
    else
        xy_scram_keys_fake(shard->secret, XY_SCRAM_SHA_256, job->bare, &job->keys[0]);
    job->known = keys != NULL;
    job->work = (struct workers_job){ .run = check_run, .done = check_done, .shard = shard->index };
    if (shard->workers && workers_submit(shard->workers, &job->work))
        return;
    job->verdict = XY_SASL_TEMPORARY_AUTH_FAILURE;
    login_answer(shard, job);
}

static void account_passed(struct shard *shard, struct account_job *job)
{
    if (job->password.data) {
        check_password(shard, job);
        return;
    }
    if (job->keys_fn) {
        read_keys(shard, job);
    } else {
        bool exists = job->bare.len > 0 && accounts_exists(shard, job->bare);
        job->verdict = exists ? XY_SASL_NO_FAILURE : XY_SASL_NOT_AUTHORIZED;
    }
    login_answer(shard, job);
}

static void at_account(struct shard *shard, void *payload)
{
    struct account_job *job = job_of(payload);
    /* The local socket proves who it is; nobody guesses there. */
    delayed(shard, job, job->peer.len ? job->bare : XY_STR_NONE, account_passed);
}

/* --- the way home ------------------------------------------------------------------------------------------------- */

static void at_home(struct shard *shard, void *payload)
{
    struct account_job *job = job_of(payload);
    if (job->keys_fn)
        job->keys_fn(shard, job->asker, keys_of(job, job->hash));
    else
        job->verdict_fn(shard, job->asker, job->verdict);
    account_job_free(job);
}

static void login_answer(struct shard *shard, struct account_job *job)
{
    account_job_mail(shard, job->asker_shard, at_home, job);
}

/* --- failures ----------------------------------------------------------------------------------------------------- */

static void failed_at_peer(struct shard *shard, void *payload)
{
    struct account_job *job = job_of(payload);
    accounts_throttle_count(shard->router->accounts->throttle, job->peer, xy_now_us(shard->env));
    account_job_free(job);
}

static void failed_at_account(struct shard *shard, void *payload)
{
    struct account_job *job = job_of(payload);
    accounts_throttle_count(shard->router->accounts->throttle, job->bare, xy_now_us(shard->env));
    account_job_mail(shard, shard_owner(shard, job->peer), failed_at_peer, job);
}

/* Owner's shard, which counts for the account itself. */
static void count_failure(struct shard *shard, struct account_job *job)
{
    if (job->peer.len == 0)
        return;
    accounts_throttle_count(shard->router->accounts->throttle, job->bare, xy_now_us(shard->env));
    struct account_job *note = account_job_new(shard, job->bare, job->peer, XY_STR_NONE);
    if (note)
        account_job_mail(shard, shard_owner(shard, job->peer), failed_at_peer, note);
}

void accounts_login_failed(struct shard *shard, struct xy_str bare, struct xy_str peer)
{
    if (peer.len == 0)
        return;
    struct account_job *job = account_job_new(shard, bare, peer, XY_STR_NONE);
    if (job)
        account_job_mail(shard, shard_owner(shard, bare), failed_at_account, job);
}

/* --- calls -------------------------------------------------------------------------------------------------------- */

void accounts_keys(struct shard *shard, struct session_ref asker, struct xy_str bare, enum xy_scram_hash hash,
                   struct xy_str peer, accounts_keys_fn *fn)
{
    struct account_job *job = account_job_new(shard, bare, peer, XY_STR_NONE);
    if (!job) {
        fn(shard, asker, NULL);
        return;
    }
    job->asker = asker;
    job->hash = hash;
    job->keys_fn = fn;
    login_start(shard, job);
}

void accounts_check_password(struct shard *shard, struct session_ref asker, struct xy_str bare,
                             struct xy_str password, struct xy_str peer, accounts_verdict_fn *fn)
{
    struct xy_str given = xy_str_present(password) ? password : XY_STR("");
    struct account_job *job = account_job_new(shard, bare, peer, given);
    if (!job) {
        fn(shard, asker, XY_SASL_TEMPORARY_AUTH_FAILURE);
        return;
    }
    job->asker = asker;
    job->verdict_fn = fn;
    login_start(shard, job);
}

void accounts_check_exists(struct shard *shard, struct session_ref asker, struct xy_str bare,
                           accounts_verdict_fn *fn)
{
    struct account_job *job = account_job_new(shard, bare, XY_STR_NONE, XY_STR_NONE);
    if (!job) {
        fn(shard, asker, XY_SASL_TEMPORARY_AUTH_FAILURE);
        return;
    }
    job->asker = asker;
    job->verdict_fn = fn;
    login_start(shard, job);
}
