/* Who may have which item, and what becomes of it. See queue.h. */
#include "tests/model/queue.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "tests/model/model.h"

static const unsigned max_deliver[MODEL_QUEUES] = { 3, 2 };
static const bool has_letters[MODEL_QUEUES] = { false, true };

static void complain(struct model *model, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void complain(struct model *model, const char *format, ...)
{
    va_list args;
    if (model->queues.verdict[0] != '\0')
        return;
    va_start(args, format);
    vsnprintf(model->queues.verdict, sizeof(model->queues.verdict), format, args);
    va_end(args);
}

/* --- items --------------------------------------------------------------------------------------------------------- */

static bool is_here(const struct model_job *job)
{
    return job->state == JOB_WAITS || job->state == JOB_LOCKED;
}

/* Another item of its group, published earlier, has not left. */
static bool is_blocked(const struct model_queue *queue, const struct model_job *job)
{
    for (unsigned i = 0; job->traits.group != 0 && i < queue->jobs_count; i++) {
        const struct model_job *other = &queue->jobs[i];
        if (other->traits.group == job->traits.group && is_here(other) && other->turn < job->turn)
            return true;
    }
    return false;
}

static bool may_go(const struct model *model, const struct model_queue *queue, const struct model_job *job)
{
    return job->state == JOB_WAITS && job->not_before_us <= model->now_us && !is_blocked(queue, job);
}

static bool goes_before(const struct model_job *a, const struct model_job *b)
{
    if (a->traits.priority != b->traits.priority)
        return a->traits.priority > b->traits.priority;
    if (a->returned != b->returned)
        return a->returned;
    return a->seq < b->seq;
}

static struct model_job *next_job(const struct model *model, struct model_queue *queue)
{
    struct model_job *best = NULL;
    for (unsigned i = 0; i < queue->jobs_count; i++) {
        struct model_job *job = &queue->jobs[i];
        if (may_go(model, queue, job) && (best == NULL || goes_before(job, best)))
            best = job;
    }
    return best;
}

static void bury(struct model_queue *queue, struct model_job *job, bool letters)
{
    job->state = letters ? JOB_GONE : JOB_PARKED;
    queue->letters_made |= letters;
    if (letters)
        queue->letters[queue->letters_count++] = job->traits;
}

void model_queue_give_back(struct model *model, unsigned number, struct model_job *job, uint64_t delay_s)
{
    model->queues.changes++;
    if (job->attempts >= max_deliver[number]) {
        bury(&model->queues.queue[number], job, has_letters[number]);
        return;
    }
    job->state = JOB_WAITS;
    job->returned = true;
    job->not_before_us = delay_s > 0 ? model->now_us + delay_s * UINT64_C(1000000) : 0;
}

static uint64_t backoff_s(unsigned number, const struct model_job *job)
{
    return number == 0 && job->attempts > 1 ? 3 : 0;
}

/* --- handing out --------------------------------------------------------------------------------------------------- */

static struct model_got *first_got(struct model *model, unsigned number, unsigned slot)
{
    for (unsigned i = 0; i < model->queues.got_count; i++) {
        struct model_got *got = &model->queues.got[i];
        if (!got->taken && got->queue == number && got->slot == slot)
            return got;
    }
    return NULL;
}

static struct model_got *got_of(struct model *model, unsigned number, uint64_t seq)
{
    struct model_got *first = NULL;
    for (unsigned i = 0; i < model->queues.got_count; i++) {
        struct model_got *got = &model->queues.got[i];
        if (!got->taken && got->queue == number && got->seq == seq && got->at_us <= model->now_us &&
            (first == NULL || got->at_us < first->at_us))
            first = got;
    }
    return first;
}

/* Of those that came, one that might go although it is not the first. */
static struct model_job *any_job(struct model *model, unsigned number)
{
    struct model_queue *queue = &model->queues.queue[number];
    for (unsigned i = 0; i < queue->jobs_count; i++)
        if (may_go(model, queue, &queue->jobs[i]) && got_of(model, number, queue->jobs[i].seq) != NULL)
            return &queue->jobs[i];
    return NULL;
}

static void check_job(struct model *model, struct model_queue *queue, const struct model_job *job,
                      const struct model_got *got)
{
    unsigned attempt = job->attempts + 1;
    if (got->id != job->id || got->token != job->traits.token || got->publisher != job->publisher)
        complain(model, "number %" PRIu64 " of queue %u came as token %u, not %u", job->seq, got->queue,
                 got->token, job->traits.token);
    if (got->attempt != attempt && !(attempt == 1 && job->vague && got->attempt == 2))
        complain(model, "number %" PRIu64 " of queue %u came as attempt %u, not %u", job->seq, got->queue,
                 got->attempt, attempt);
    if (got->delayed != (got->attempt > 1))
        complain(model, "number %" PRIu64 " of queue %u came as attempt %u and %s <delay/>", job->seq,
                 got->queue, got->attempt, got->delayed ? "with" : "without");
    if (got->epoch == 0 || (queue->epoch != 0 && queue->epoch != got->epoch))
        complain(model, "queue %u changed its epoch", got->queue);
    queue->epoch = got->epoch;
}

/* The consumer that has the fewest goes first. */
static void check_choice(struct model *model, struct model_queue *queue, const struct model_got *got)
{
    unsigned has = model_worker_held(queue, got->worker);
    for (unsigned worker = 0; worker < MODEL_WORKERS; worker++)
        if (model_worker_may_take(model, queue, worker) && model_worker_held(queue, worker) < has)
            complain(model,
                     "number %" PRIu64 " of queue %u went to consumer %u, who has %u, not to %u, who has %u",
                     got->seq, got->queue, got->worker, has, worker, model_worker_held(queue, worker));
}

static void hand_out_one(struct model *model, unsigned number, struct model_job *job, bool in_order)
{
    struct model_queue *queue = &model->queues.queue[number];
    struct model_got *got = got_of(model, number, job->seq);
    if (got == NULL) {
        complain(model, "number %" PRIu64 " (token %u) of queue %u is due and did not come", job->seq,
                 job->traits.token, number);
        return;
    }
    got->worker = model_worker_by_subid(queue, got->subid);
    if (got->worker == MODEL_WORKERS || !model_worker_may_take(model, queue, got->worker) ||
        queue->workers[got->worker].holder != (int)got->slot) {
        complain(model, "number %" PRIu64 " of queue %u came to session %u, which has no room for it",
                 job->seq, number, got->slot);
        return;
    }
    if (in_order && first_got(model, number, got->slot) != got)
        complain(model, "number %" PRIu64 " of queue %u came to session %u behind number %" PRIu64, job->seq,
                 number, got->slot, first_got(model, number, got->slot)->seq);
    if (in_order)
        check_choice(model, queue, got);
    check_job(model, queue, job, got);
    if (got->at_us != model->now_us)
        complain(model, "number %" PRIu64 " of queue %u came late", job->seq, number);
    got->taken = true;
    model->queues.changes++;
    job->state = JOB_LOCKED;
    job->attempts++;
    job->worker = got->worker;
    job->had = queue->workers[got->worker].number;
    job->due_us = model->now_us + MODEL_LOCK_S * UINT64_C(1000000);
}

static bool somebody_can(const struct model *model, const struct model_queue *queue)
{
    for (unsigned worker = 0; worker < MODEL_WORKERS; worker++)
        if (model_worker_may_take(model, queue, worker))
            return true;
    return false;
}

static void hand_out(struct model *model, unsigned number)
{
    struct model_queue *queue = &model->queues.queue[number];
    bool in_order = model_workers_in_order(model, queue);
    while (model->queues.verdict[0] == '\0' && somebody_can(model, queue)) {
        struct model_job *came = in_order ? NULL : any_job(model, number);
        struct model_job *job = came != NULL ? came : next_job(model, queue);
        if (job == NULL)
            return;
        hand_out_one(model, number, job, in_order);
    }
}

/* Nobody has it, and nobody handled it in time. */
static void expire(struct model_queue *queue, uint64_t now_us, bool letters)
{
    for (unsigned i = 0; i < queue->jobs_count; i++) {
        struct model_job *job = &queue->jobs[i];
        if (job->state != JOB_WAITS || job->expires_us > now_us)
            continue;
        if (letters)
            bury(queue, job, true);
        job->state = JOB_GONE;
    }
}

void model_queues_settle(struct model *model)
{
    for (unsigned number = 0; number < MODEL_QUEUES; number++) {
        struct model_queue *queue = &model->queues.queue[number];
        if (!queue->there)
            continue;
        model_workers_recheck(model, number);
        for (unsigned i = 0; i < queue->jobs_count; i++)
            if (queue->jobs[i].state == JOB_LOCKED && queue->jobs[i].due_us <= model->now_us)
                model_queue_give_back(model, number, &queue->jobs[i], backoff_s(number, &queue->jobs[i]));
        model_workers_recheck(model, number); /* who waited for what it had moves now */
        expire(queue, model->now_us, has_letters[number]);
        hand_out(model, number);
    }
}

static uint64_t job_due(const struct model_job *job, uint64_t now_us, uint64_t due_us)
{
    uint64_t locked_us = job->state == JOB_LOCKED ? job->due_us : UINT64_MAX;
    uint64_t waits_us = job->state == JOB_WAITS ? job->not_before_us : UINT64_MAX;
    uint64_t expires_us = job->state == JOB_WAITS ? job->expires_us : UINT64_MAX;
    due_us = locked_us > now_us && locked_us < due_us ? locked_us : due_us;
    due_us = waits_us > now_us && waits_us < due_us ? waits_us : due_us;
    return expires_us > now_us && expires_us < due_us ? expires_us : due_us;
}

uint64_t model_queues_due(const struct model *model)
{
    uint64_t due_us = UINT64_MAX;
    for (unsigned number = 0; number < MODEL_QUEUES; number++) {
        const struct model_queue *queue = &model->queues.queue[number];
        due_us = model_workers_due(queue) < due_us ? model_workers_due(queue) : due_us;
        for (unsigned i = 0; i < queue->jobs_count; i++)
            due_us = job_due(&queue->jobs[i], model->now_us, due_us);
    }
    return due_us;
}

void model_queues_restarted(struct model *model)
{
    for (unsigned number = 0; number < MODEL_QUEUES; number++) {
        struct model_queue *queue = &model->queues.queue[number];
        for (unsigned slot = 0; slot < MODEL_WORKERS; slot++) {
            model_worker_lose(model, number, slot);
            queue->workers[slot].holder = -1;
            queue->workers[slot].leaving = false;
        }
        for (unsigned i = 0; i < queue->jobs_count; i++) {
            struct model_job *job = &queue->jobs[i];
            job->vague = true;
            job->turn = job->seq;
            job->returned &= job->attempts > 0;
        }
    }
    model->queues.got_count = 0;
}

void model_queues_end(struct model *model)
{
    for (unsigned i = 0; i < model->queues.got_count; i++) {
        const struct model_got *got = &model->queues.got[i];
        if (!got->taken)
            complain(model, "session %u: number %" PRIu64 " (token %u) of queue %u came, and was not due",
                     got->slot, got->seq, got->token, got->queue);
    }
    model->queues.got_count = 0;
}

/* --- requests ------------------------------------------------------------------------------------------------------ */

void model_queue_join(struct model *model, unsigned number, unsigned index, unsigned capacity, uint64_t subid)
{
    struct model_queue *queue = &model->queues.queue[number];
    struct model_worker *worker = &queue->workers[index];
    if (!worker->there)
        *worker =
            (struct model_worker){ .there = true, .number = ++queue->numbers, .subid = subid, .holder = -1 };
    else if (worker->subid != subid)
        complain(model, "the consumer %u of queue %u changed its subid", index, number);
    worker->capacity = capacity;
}

bool model_queue_leave(struct model *model, unsigned number, unsigned index)
{
    struct model_worker *worker = &model->queues.queue[number].workers[index];
    if (!worker->there)
        return false;
    model_worker_lose(model, number, index);
    *worker = (struct model_worker){ .holder = -1 };
    return true;
}

static bool is_named(const struct model_queue *queue, unsigned id)
{
    for (unsigned i = 0; id != UINT32_MAX && i < queue->jobs_count; i++)
        if (queue->jobs[i].id == id && queue->jobs[i].state != JOB_GONE)
            return true;
    return false;
}

bool model_queue_put(struct model *model, unsigned number, unsigned slot, unsigned id,
                     const struct model_traits *traits)
{
    struct model_queue *queue = &model->queues.queue[number];
    if (is_named(queue, id))
        return false;
    if (queue->jobs_count == MODEL_JOBS) {
        model->full = true;
        return true;
    }
    struct model_job *job = &queue->jobs[queue->jobs_count++];
    *job = (struct model_job){ .traits = *traits, .id = id, .publisher = model_account(slot) };
    job->seq = ++queue->next_seq;
    job->turn = ++queue->turns;
    job->not_before_us = traits->delay_s > 0 ? model->now_us + traits->delay_s * UINT64_C(1000000) : 0;
    job->expires_us = traits->ttl_s > 0 ? model->now_us + traits->ttl_s * UINT64_C(1000000) : UINT64_MAX;
    return true;
}

/* --- what was given up --------------------------------------------------------------------------------------------- */

/* As if they were new: the last of their group. */
unsigned model_queue_redrive(struct model *model, unsigned number)
{
    struct model_queue *queue = &model->queues.queue[number];
    unsigned count = 0;
    for (unsigned i = 0; i < queue->jobs_count; i++) {
        struct model_job *job = &queue->jobs[i];
        if (job->state != JOB_PARKED)
            continue;
        job->state = JOB_WAITS;
        job->attempts = job->had = 0;
        job->not_before_us = 0;
        job->expires_us = UINT64_MAX;
        job->returned = true;
        job->turn = ++queue->turns;
        count++;
    }
    model->queues.changes++;
    return count;
}

unsigned model_queue_move(struct model *model, unsigned number, unsigned slot)
{
    struct model_queue *queue = &model->queues.queue[number];
    unsigned count = queue->letters_count;
    for (unsigned i = 0; i < count; i++)
        (void)model_queue_put(model, number, slot, UINT32_MAX, &queue->letters[i]);
    queue->letters_count = 0;
    return count;
}

/* --- what consumers say -------------------------------------------------------------------------------------------- */

static bool competes(const struct model_queue *queue, unsigned account)
{
    for (unsigned worker = 0; worker < MODEL_WORKERS; worker++)
        if (queue->workers[worker].there && worker % MODEL_ACCOUNTS == account)
            return true;
    return false;
}

static bool had(const struct model_queue *queue, unsigned slot, const struct model_job *job)
{
    for (unsigned worker = 0; worker < MODEL_WORKERS; worker++)
        if (queue->workers[worker].there && queue->workers[worker].number == job->had &&
            model_worker_speaks(worker, slot))
            return true;
    return false;
}

/* What the consumer that has or had an item, and everybody else, is told. */
static enum xy_condition judge(const struct model_queue *queue, unsigned slot, const struct model_job *job,
                               bool removing, enum xy_condition *other)
{
    bool locked = job->state == JOB_LOCKED, has = locked && model_worker_speaks(job->worker, slot);
    bool owns = queue->maker == model_account(slot) || job->publisher == model_account(slot);
    if (has || (removing && owns && (!locked || !competes(queue, model_account(slot)))))
        return XY_NO_ERROR;
    if (locked)
        return XY_CONFLICT;
    if (!had(queue, slot, job))
        return XY_FORBIDDEN;
    if (job->vague)
        *other = XY_FORBIDDEN; /* who had it is only in memory */
    return XY_UNEXPECTED_REQUEST;
}

enum xy_condition model_queue_done(struct model *model, unsigned number, unsigned slot, unsigned worker,
                                   int verb, unsigned which, int delay, enum xy_condition *other)
{
    struct model_queue *queue = &model->queues.queue[number];
    struct model_job *job = &queue->jobs[which];
    *other = XY_NO_ERROR;
    if (which >= queue->jobs_count)
        return XY_ITEM_NOT_FOUND;
    bool has = job->state == JOB_LOCKED && job->worker == worker;
    enum xy_condition condition = verb <= DONE_UNLOCK ? judge(queue, slot, job, verb == DONE_RETRACT, other)
                                  : has               ? XY_NO_ERROR
                                                      : XY_ITEM_NOT_FOUND;
    if (condition != XY_NO_ERROR)
        return condition;
    if (verb == DONE_RETRACT || verb == DONE_ACK)
        job->state = JOB_GONE;
    else if (verb == DONE_TERM)
        bury(queue, job, has_letters[number]);
    else if (verb == DONE_WORKING)
        job->due_us = model->now_us + MODEL_LOCK_S * UINT64_C(1000000);
    else
        model_queue_give_back(model, number, job, delay < 0 ? backoff_s(number, job) : (uint64_t)delay);
    return XY_NO_ERROR;
}

unsigned model_queue_job(const struct model_queue *queue, unsigned k, int slot)
{
    static const enum model_job_state order[] = { JOB_LOCKED, JOB_WAITS, JOB_PARKED };
    for (unsigned o = 0; o < (slot < 0 ? 3 : 1); o++)
        for (unsigned i = 0; i < queue->jobs_count; i++)
            if (queue->jobs[i].state == order[o] &&
                (slot < 0 || model_worker_speaks(queue->jobs[i].worker, (unsigned)slot)) && k-- == 0)
                return i;
    return queue->jobs_count;
}

void model_queue_figures(const struct model *model, unsigned number, struct model_figures *out)
{
    const struct model_queue *queue = &model->queues.queue[number];
    *out = (struct model_figures){ 0 };
    for (unsigned i = 0; i < queue->jobs_count; i++) {
        const struct model_job *job = &queue->jobs[i];
        bool waits = job->state == JOB_WAITS, blocked = waits && is_blocked(queue, job);
        bool delayed = waits && !blocked && job->not_before_us > model->now_us;
        out->depth += job->state != JOB_GONE;
        out->in_flight += job->state == JOB_LOCKED;
        out->parked += job->state == JOB_PARKED;
        out->blocked += blocked;
        out->delayed += delayed;
        out->ready += waits && !blocked && !delayed;
    }
}
