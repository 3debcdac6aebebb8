/* Creating, changing and removing accounts: check at the owner, derive keys on a worker, append, answer once it is on
 * disk. Called by administration. */
#include "broker/router/accounts_internal.h"

static struct account_job *job_of(void *payload)
{
    return *(struct account_job **)payload;
}

static void at_home(struct shard *shard, void *payload)
{
    struct account_job *job = job_of(payload);
    job->change.fn(shard, job->change.ctx, job->result);
    account_job_free(job);
}

static void answer(struct shard *shard, struct account_job *job, enum account_result result)
{
    job->result = result;
    account_job_mail(shard, job->asker_shard, at_home, job);
}

static void committed(struct shard *shard, void *payload)
{
    answer(shard, job_of(payload), ACCOUNT_OK);
}

static void answer_when_committed(struct shard *shard, struct account_job *job, uint64_t ticket)
{
    if (job->change.appended)
        job->change.appended(shard, job->change.ctx);
    shard_when_committed(shard, ticket, committed, &job, sizeof(struct account_job *));
}

/* The reserved account may be created (given a password) like any other. */
static bool fits(struct shard *shard, struct account_job *job, uint64_t *created_us)
{
    Xylem__Store__V1__AccountPut *put = account_record(shard, job->bare);
    bool exists = put != NULL;
    *created_us = put ? put->created_us : 0;
    account_record_free(put);
    if (exists == job->must_exist)
        return true;
    answer(shard, job, exists ? ACCOUNT_EXISTS : ACCOUNT_UNKNOWN);
    return false;
}

/* Worker thread. The salts wait where the keys will be. */
static void derive_run(struct workers_job *work)
{
    struct account_job *job = (struct account_job *)work;
    uint8_t salts[ACCOUNTS_KEYS][XY_SCRAM_SALT_DEFAULT];
    for (unsigned i = 0; i < ACCOUNTS_KEYS; i++)
        memcpy(salts[i], job->keys[i].salt, sizeof(salts[i]));
    job->matched = account_keys_derive(job->password, salts, job->keys);
}

static void derive_done(struct shard *shard, void *payload)
{
    struct account_job *job = (struct account_job *)*(struct workers_job **)payload;
    uint64_t created_us;
    if (!job->matched) {
        answer(shard, job, ACCOUNT_BAD_PASSWORD);
        return;
    }
    if (!fits(shard, job, &created_us)) /* somebody else was faster */
        return;
    uint64_t ticket = account_put(shard, job->bare, job->keys, ACCOUNTS_KEYS, created_us);
    accounts_memory_forget(shard->router->accounts->memory, job->bare);
    address_account_changed(shard, job->bare, true);
    answer_when_committed(shard, job, ticket);
}

static void change_at_owner(struct shard *shard, void *payload)
{
    struct account_job *job = job_of(payload);
    uint64_t created_us;
    if (!fits(shard, job, &created_us))
        return;
    if (!store_room(shard->store, sizeof(job->keys) + job->bare.len)) {
        answer(shard, job, ACCOUNT_NO_ROOM);
        return;
    }
    for (unsigned i = 0; i < ACCOUNTS_KEYS; i++)
        xy_random(shard->env, job->keys[i].salt, XY_SCRAM_SALT_DEFAULT);
    job->work = (struct workers_job){ .run = derive_run, .done = derive_done, .shard = shard->index };
    if (!shard->workers || !workers_submit(shard->workers, &job->work))
        answer(shard, job, ACCOUNT_BUSY);
}

static void change(struct shard *shard, struct xy_str bare, struct xy_str password, bool must_exist,
                   const struct accounts_asker *asker)
{
    struct account_job *job = account_job_new(shard, bare, XY_STR_NONE, password);
    if (!job) {
        asker->fn(shard, asker->ctx, ACCOUNT_NO_ROOM);
        return;
    }
    job->must_exist = must_exist;
    job->change = *asker;
    account_job_mail(shard, shard_owner(shard, bare), change_at_owner, job);
}

void accounts_create(struct shard *shard, struct xy_str bare, struct xy_str password,
                     const struct accounts_asker *asker)
{
    change(shard, bare, password, false, asker);
}

void accounts_set_password(struct shard *shard, struct xy_str bare, struct xy_str password,
                           const struct accounts_asker *asker)
{
    change(shard, bare, password, true, asker);
}

static void remove_at_owner(struct shard *shard, void *payload)
{
    struct account_job *job = job_of(payload);
    uint64_t created_us;
    if (!fits(shard, job, &created_us))
        return;
    Xylem__Store__V1__AccountRemove record = XYLEM__STORE__V1__ACCOUNT_REMOVE__INIT;
    record.jid = (char *)(uintptr_t)job->bare.data;
    uint64_t ticket = store_append(shard->store, RECORD_ACCOUNT_REMOVE, &record.base);
    accounts_memory_forget(shard->router->accounts->memory, job->bare);
    address_account_changed(shard, job->bare, false);
    answer_when_committed(shard, job, ticket);
}

void accounts_remove(struct shard *shard, struct xy_str bare, const struct accounts_asker *asker)
{
    struct account_job *job = account_job_new(shard, bare, XY_STR_NONE, XY_STR_NONE);
    if (!job) {
        asker->fn(shard, asker->ctx, ACCOUNT_NO_ROOM);
        return;
    }
    job->must_exist = true;
    job->change = *asker;
    account_job_mail(shard, shard_owner(shard, bare), remove_at_owner, job);
}
