/* Consumers of queues: which session each is (docs/protocol.md 1.3, 9.3), and who may speak for it. */
#include "tests/model/model.h"

unsigned model_worker_held(const struct model_queue *queue, unsigned worker)
{
    unsigned count = 0;
    for (unsigned i = 0; i < queue->jobs_count; i++)
        count += queue->jobs[i].state == JOB_LOCKED && queue->jobs[i].worker == worker;
    return count;
}

static bool has_room(const struct model_queue *queue, unsigned index)
{
    const struct model_worker *worker = &queue->workers[index];
    return worker->there && worker->holder >= 0 && !worker->leaving &&
           model_worker_held(queue, index) < worker->capacity;
}

bool model_worker_may_take(const struct model *model, const struct model_queue *queue, unsigned worker)
{
    return has_room(queue, worker) && model->sessions[queue->workers[worker].holder].state == SESSION_ON;
}

static bool is_bare(unsigned worker)
{
    return worker < MODEL_ACCOUNTS;
}

bool model_workers_in_order(const struct model *model, const struct model_queue *queue)
{
    for (unsigned i = 0; i < MODEL_WORKERS; i++) {
        const struct model_worker *worker = &queue->workers[i];
        bool moves = is_bare(i) && worker->there && worker->holder >= 0 && worker->moved_us == model->now_us;
        bool tried = has_room(queue, i) && model->sessions[worker->holder].state == SESSION_DETACHED;
        if (moves || tried)
            return false;
    }
    return true;
}

unsigned model_worker_by_subid(const struct model_queue *queue, uint64_t subid)
{
    unsigned worker = 0;
    while (worker < MODEL_WORKERS && (!queue->workers[worker].there || queue->workers[worker].subid != subid))
        worker++;
    return worker;
}

bool model_worker_speaks(unsigned worker, unsigned slot)
{
    return is_bare(worker) ? worker == model_account(slot) : worker == model_sub_index(slot, false);
}

static bool is_of_account(const struct model_queue *queue, unsigned worker, unsigned slot)
{
    return queue->workers[worker].there && worker % MODEL_ACCOUNTS == model_account(slot);
}

unsigned model_worker_of(const struct model_queue *queue, unsigned slot, const struct model_job *job)
{
    unsigned own = model_sub_index(slot, false), bare = model_sub_index(slot, true);
    if (job->state == JOB_LOCKED && is_of_account(queue, job->worker, slot))
        return job->worker;
    return queue->workers[own].there ? own : queue->workers[bare].there ? bare : MODEL_WORKERS;
}

/* --- sessions ------------------------------------------------------------------------------------------------------ */

void model_worker_lose(struct model *model, unsigned number, unsigned worker)
{
    struct model_queue *queue = &model->queues.queue[number];
    for (unsigned i = 0; i < queue->jobs_count; i++)
        if (queue->jobs[i].state == JOB_LOCKED && queue->jobs[i].worker == worker)
            model_queue_give_back(model, number, &queue->jobs[i], 0);
}

static bool still_there(const struct model *model, const struct model_worker *worker, bool bare)
{
    const struct model_session *session = &model->sessions[worker->holder];
    return session->state != SESSION_OFF && session->available && (!bare || session->priority >= 0) &&
           session->since == worker->since;
}

static void move(struct model *model, unsigned number, unsigned index)
{
    struct model_worker *worker = &model->queues.queue[number].workers[index];
    model_worker_lose(model, number, index);
    worker->holder = model_best(model, index, true);
    worker->since = worker->holder >= 0 ? model->sessions[worker->holder].since : 0;
    worker->leaving = false;
    worker->moved_us = model->now_us;
}

/* The better session ended. What it had is given back, and may go to others, before the broker hears of its end here. */
static void stay(const struct model *model, struct model_worker *worker)
{
    if (worker->leaving)
        worker->moved_us = model->now_us;
    worker->leaving = false;
}

static void recheck(struct model *model, unsigned number, unsigned index)
{
    struct model_queue *queue = &model->queues.queue[number];
    struct model_worker *worker = &queue->workers[index];
    int wanted = model_best(model, index, true);
    if (worker->holder < 0 || !still_there(model, worker, is_bare(index))) {
        move(model, number, index);
    } else if (wanted == worker->holder) {
        stay(model, worker);
    } else if (model_worker_held(queue, index) == 0 ||
               (worker->leaving && worker->leaving_us <= model->now_us)) {
        move(model, number, index);
    } else if (!worker->leaving) {
        worker->leaving = true;
        worker->leaving_us = model->now_us + MODEL_LEAVING_US;
    }
}

void model_workers_recheck(struct model *model, unsigned number)
{
    struct model_queue *queue = &model->queues.queue[number];
    bool anybody = false;
    for (unsigned worker = 0; worker < MODEL_WORKERS; worker++) {
        if (!queue->workers[worker].there)
            continue;
        recheck(model, number, worker);
        anybody |= queue->workers[worker].holder >= 0;
    }
    for (unsigned i = 0; !anybody && i < queue->jobs_count; i++)
        queue->jobs[i].vague = true;
}

uint64_t model_workers_due(const struct model_queue *queue)
{
    uint64_t due_us = UINT64_MAX;
    for (unsigned i = 0; i < MODEL_WORKERS; i++) {
        const struct model_worker *worker = &queue->workers[i];
        if (worker->there && worker->leaving && worker->leaving_us < due_us)
            due_us = worker->leaving_us;
    }
    return due_us;
}
