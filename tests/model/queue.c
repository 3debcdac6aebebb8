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
    for (const struct model_job *other = queue->jobs; job->group != 0 && other < job; other++)
        if (other->group == job->group && is_here(other))
            return true;
    return false;
}

static bool may_go(const struct model *model, const struct model_queue *queue, const struct model_job *job)
{
    return job->state == JOB_WAITS && job->not_before_us <= model->now_us && !is_blocked(queue, job);
}

static bool goes_before(const struct model_job *a, const struct model_job *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority;
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
    if (letters)
        queue->letters[queue->letters_count++] = job->token;
}

static void give_back(struct model *model, unsigned number, struct model_job *job, uint64_t delay_s)
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

/* --- consumers ----------------------------------------------------------------------------------------------------- */

static unsigned held(const struct model_queue *queue, unsigned slot)
{
    unsigned count = 0;
    for (unsigned i = 0; i < queue->jobs_count; i++)
        count += queue->jobs[i].state == JOB_LOCKED && queue->jobs[i].worker == slot;
    return count;
}

static bool has_room(const struct model_queue *queue, unsigned slot)
{
    const struct model_worker *worker = &queue->workers[slot];
    return worker->there && worker->since != 0 && held(queue, slot) < worker->capacity;
}

static bool can_take(const struct model *model, const struct model_queue *queue, unsigned slot)
{
    return has_room(queue, slot) && model->sessions[slot].state == SESSION_ON;
}

/* A session that waits for its resumption may be tried; what it was to get goes to others then, in whatever order. */
static bool is_tried(const struct model *model, const struct model_queue *queue, unsigned slot)
{
    return has_room(queue, slot) && model->sessions[slot].state == SESSION_DETACHED;
}

static void lose(struct model *model, unsigned number, unsigned slot)
{
    struct model_queue *queue = &model->queues.queue[number];
    for (unsigned i = 0; i < queue->jobs_count; i++)
        if (queue->jobs[i].state == JOB_LOCKED && queue->jobs[i].worker == slot)
            give_back(model, number, &queue->jobs[i], 0);
}

/* Sessions that ended, or began. */
static void recheck(struct model *model, unsigned number)
{
    struct model_queue *queue = &model->queues.queue[number];
    bool anybody = false;
    for (unsigned slot = 0; slot < MODEL_WORKERS; slot++) {
        struct model_worker *worker = &queue->workers[slot];
        const struct model_session *session = &model->sessions[slot];
        bool receives = worker->there && session->state != SESSION_OFF && session->available;
        unsigned since = receives ? session->since : 0;
        if (since != worker->since && worker->since != 0)
            lose(model, number, slot);
        worker->since = since;
        anybody |= since != 0;
    }
    for (unsigned i = 0; !anybody && i < queue->jobs_count; i++)
        queue->jobs[i].vague = true;
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
    if (got->id != job->id || got->token != job->token || got->publisher != job->publisher)
        complain(model, "number %" PRIu64 " of queue %u came as token %u, not %u", job->seq, got->queue,
                 got->token, job->token);
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
    for (unsigned slot = 0; slot < MODEL_WORKERS; slot++)
        if (can_take(model, queue, slot) && held(queue, slot) < held(queue, got->slot))
            complain(model,
                     "number %" PRIu64 " of queue %u went to session %u, who has %u, not to %u, who has %u",
                     got->seq, got->queue, got->slot, held(queue, got->slot), slot, held(queue, slot));
}

static void hand_out_one(struct model *model, unsigned number, struct model_job *job, bool in_order)
{
    struct model_queue *queue = &model->queues.queue[number];
    struct model_got *got = got_of(model, number, job->seq);
    if (got == NULL) {
        complain(model, "number %" PRIu64 " (token %u) of queue %u is due and did not come", job->seq,
                 job->token, number);
        return;
    }
    if (!can_take(model, queue, got->slot))
        complain(model, "number %" PRIu64 " of queue %u came to session %u, which has no room for it",
                 job->seq, number, got->slot);
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
    job->worker = got->slot;
    job->had = queue->workers[got->slot].number;
    job->due_us = model->now_us + MODEL_LOCK_S * UINT64_C(1000000);
}

static bool somebody_can(const struct model *model, const struct model_queue *queue)
{
    for (unsigned slot = 0; slot < MODEL_WORKERS; slot++)
        if (can_take(model, queue, slot))
            return true;
    return false;
}

static void hand_out(struct model *model, unsigned number)
{
    struct model_queue *queue = &model->queues.queue[number];
    bool in_order = true;
    for (unsigned slot = 0; slot < MODEL_WORKERS; slot++)
        in_order &= !is_tried(model, queue, slot);
    while (model->queues.verdict[0] == '\0' && somebody_can(model, queue)) {
        struct model_job *came = in_order ? NULL : any_job(model, number);
        struct model_job *job = came != NULL ? came : next_job(model, queue);
        if (job == NULL)
            return;
        hand_out_one(model, number, job, in_order);
    }
}

void model_queues_settle(struct model *model)
{
    for (unsigned number = 0; number < MODEL_QUEUES; number++) {
        struct model_queue *queue = &model->queues.queue[number];
        if (!queue->there)
            continue;
        recheck(model, number);
        for (unsigned i = 0; i < queue->jobs_count; i++)
            if (queue->jobs[i].state == JOB_LOCKED && queue->jobs[i].due_us <= model->now_us)
                give_back(model, number, &queue->jobs[i], backoff_s(number, &queue->jobs[i]));
        hand_out(model, number);
    }
}

uint64_t model_queues_due(const struct model *model)
{
    uint64_t due_us = UINT64_MAX;
    for (unsigned number = 0; number < MODEL_QUEUES; number++) {
        const struct model_queue *queue = &model->queues.queue[number];
        for (unsigned i = 0; i < queue->jobs_count; i++) {
            const struct model_job *job = &queue->jobs[i];
            uint64_t at_us = job->state == JOB_LOCKED  ? job->due_us
                             : job->state == JOB_WAITS ? job->not_before_us
                                                       : UINT64_MAX;
            if (at_us > model->now_us && at_us < due_us)
                due_us = at_us;
        }
    }
    return due_us;
}

void model_queues_restarted(struct model *model)
{
    for (unsigned number = 0; number < MODEL_QUEUES; number++) {
        struct model_queue *queue = &model->queues.queue[number];
        for (unsigned slot = 0; slot < MODEL_WORKERS; slot++) {
            lose(model, number, slot);
            queue->workers[slot].since = 0;
        }
        for (unsigned i = 0; i < queue->jobs_count; i++)
            queue->jobs[i].vague = true;
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

void model_queue_join(struct model *model, unsigned number, unsigned slot, unsigned capacity, uint64_t subid)
{
    struct model_queue *queue = &model->queues.queue[number];
    struct model_worker *worker = &queue->workers[slot];
    if (!worker->there)
        *worker = (struct model_worker){ .there = true, .number = ++queue->numbers, .subid = subid };
    else if (worker->subid != subid)
        complain(model, "the consumer %u of queue %u changed its subid", slot, number);
    worker->capacity = capacity;
}

bool model_queue_leave(struct model *model, unsigned number, unsigned slot)
{
    struct model_worker *worker = &model->queues.queue[number].workers[slot];
    if (!worker->there)
        return false;
    lose(model, number, slot);
    *worker = (struct model_worker){ 0 };
    return true;
}

bool model_queue_put(struct model *model, unsigned number, unsigned slot, const struct model_job *job)
{
    struct model_queue *queue = &model->queues.queue[number];
    for (unsigned i = 0; i < queue->jobs_count; i++)
        if (queue->jobs[i].id == job->id && queue->jobs[i].state != JOB_GONE)
            return false;
    if (queue->jobs_count == MODEL_JOBS) {
        model->full = true;
        return true;
    }
    struct model_job *added = &queue->jobs[queue->jobs_count++];
    *added = *job;
    added->seq = ++queue->next_seq;
    added->publisher = model_account(slot);
    return true;
}

static bool competes(const struct model_queue *queue, unsigned account)
{
    for (unsigned slot = 0; slot < MODEL_WORKERS; slot++)
        if (queue->workers[slot].there && model_account(slot) == account)
            return true;
    return false;
}

/* What the consumer that has or had an item, and everybody else, is told. */
static enum xy_condition judge(const struct model_queue *queue, unsigned slot, const struct model_job *job,
                               bool removing, enum xy_condition *other)
{
    const struct model_worker *worker = &queue->workers[slot];
    bool locked = job->state == JOB_LOCKED, has = locked && job->worker == slot;
    bool owns = queue->maker == model_account(slot) || job->publisher == model_account(slot);
    if (has || (removing && owns && (!locked || !competes(queue, model_account(slot)))))
        return XY_NO_ERROR;
    if (locked)
        return XY_CONFLICT;
    if (!worker->there || job->had != worker->number)
        return XY_FORBIDDEN;
    if (job->vague)
        *other = XY_FORBIDDEN; /* who had it is only in memory */
    return XY_UNEXPECTED_REQUEST;
}

enum xy_condition model_queue_done(struct model *model, unsigned number, unsigned slot, int verb,
                                   unsigned which, int delay, enum xy_condition *other)
{
    struct model_queue *queue = &model->queues.queue[number];
    struct model_job *job = &queue->jobs[which];
    *other = XY_NO_ERROR;
    if (which >= queue->jobs_count)
        return XY_ITEM_NOT_FOUND;
    bool has = job->state == JOB_LOCKED && job->worker == slot;
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
        give_back(model, number, job, delay < 0 ? backoff_s(number, job) : (uint64_t)delay);
    return XY_NO_ERROR;
}

unsigned model_queue_job(const struct model_queue *queue, unsigned k, int slot)
{
    static const enum model_job_state order[] = { JOB_LOCKED, JOB_WAITS, JOB_PARKED };
    for (unsigned o = 0; o < (slot < 0 ? 3 : 1); o++)
        for (unsigned i = 0; i < queue->jobs_count; i++)
            if (queue->jobs[i].state == order[o] && (slot < 0 || queue->jobs[i].worker == (unsigned)slot) &&
                k-- == 0)
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
