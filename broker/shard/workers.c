/* The worker pool: a bounded FIFO under one lock. Jobs take milliseconds, so a lock costs nothing here. */
#include "broker/shard/workers.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "core/base/assert.h"

#define WORKERS_THREADS_MAX 64u

struct workers {
    struct shard_group *group;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct workers_job *head, *tail;
    unsigned queued;
    bool stopping;
    unsigned threads_count;
    pthread_t threads[WORKERS_THREADS_MAX];
};

/* Called with the lock held. */
static struct workers_job *take(struct workers *workers)
{
    struct workers_job *job = workers->head;
    if (!job)
        return NULL;
    workers->head = job->next;
    if (!workers->head)
        workers->tail = NULL;
    job->next = NULL;
    workers->queued--;
    return job;
}

static void run(struct workers *workers, struct workers_job *job)
{
    job->run(job);
    shard_post(workers->group, job->shard, job->done, &job, sizeof(job));
}

static void *thread_main(void *arg)
{
    struct workers *workers = arg;
    pthread_mutex_lock(&workers->lock);
    for (;;) {
        struct workers_job *job = take(workers);
        if (!job && workers->stopping)
            break;
        if (!job) {
            pthread_cond_wait(&workers->wake, &workers->lock);
            continue;
        }
        pthread_mutex_unlock(&workers->lock);
        run(workers, job);
        pthread_mutex_lock(&workers->lock);
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

struct workers *workers_new(struct shard_group *group, unsigned threads)
{
    struct workers *workers = calloc(1, sizeof(*workers));
    if (!workers)
        return NULL;
    workers->group = group;
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->wake, NULL);
    if (threads > WORKERS_THREADS_MAX)
        threads = WORKERS_THREADS_MAX;
    /* Signals belong to the main loop. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    while (workers->threads_count < threads &&
           pthread_create(&workers->threads[workers->threads_count], NULL, thread_main, workers) == 0)
        workers->threads_count++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (threads > 0 && workers->threads_count == 0)
        workers_free(&workers);
    return workers;
}

void workers_free(struct workers **workers)
{
    struct workers *w = *workers;
    if (!w)
        return;
    *workers = NULL;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < w->threads_count; i++)
        pthread_join(w->threads[i], NULL);
    while (workers_step(w))
        ;
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

bool workers_submit(struct workers *workers, struct workers_job *job)
{
    xy_assert(job->run && job->done);
    pthread_mutex_lock(&workers->lock);
    bool taken = workers->queued < WORKERS_QUEUE_MAX && !workers->stopping;
    if (taken) {
        job->next = NULL;
        if (workers->tail)
            workers->tail->next = job;
        else
            workers->head = job;
        workers->tail = job;
        workers->queued++;
        pthread_cond_signal(&workers->wake);
    }
    pthread_mutex_unlock(&workers->lock);
    return taken;
}

bool workers_step(struct workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    struct workers_job *job = take(workers);
    pthread_mutex_unlock(&workers->lock);
    if (!job)
        return false;
    run(workers, job);
    return true;
}
