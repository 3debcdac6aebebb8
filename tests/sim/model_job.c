/* Items of a queue: each goes to one consumer at a time, stays until a consumer says that it is done, and never comes
 * again after that (docs/protocol.md 9). app_queue.c reports what consumers see and say. */
#include <inttypes.h>

#include "tests/sim/model.h"

void sim_job_delivered(struct sim_model *model, const struct sim_delivery *d, uint64_t now_us)
{
    struct sim_token *token = &model->tokens[d->token];
    model->deliveries++;
    model->jobs++;
    model->redeliveries += d->marked;
    token->all[d->client]++;
    sim_model_must_be_durable(model, d->token, d->left_moment, "delivered");
    if (token->done_moment != 0 && token->done_moment < d->bound_moment)
        sim_violation(model,
                      "job %u came to client %u in a session that began at %" PRIu64
                      ", after it was told to be done at %" PRIu64,
                      d->token, d->client, d->bound_moment, token->done_moment);
    if (token->gone_moment != 0 && token->gone_moment < d->bound_moment)
        sim_violation(model, "job %u came to client %u in a session that began after it was given up",
                      d->token, d->client);
    if (!d->marked && ++token->firsts > 1)
        sim_violation(model, "job %u came to client %u as a first attempt, and to somebody before", d->token,
                      d->client);
    if (token->seq != 0 && token->seq != d->seq)
        sim_violation(model, "job %u came as number %" PRIu64 " and as number %" PRIu64, d->token, token->seq,
                      d->seq);
    token->seq = d->seq;
    if (now_us < token->not_before_us)
        sim_violation(model, "job %u came to client %u %" PRIu64 " us too early", d->token, d->client,
                      token->not_before_us - now_us);
    bool waited_for =
        token->told ||
        token->done_moment != 0; /* nobody waited for one that was refused at first, and may be there */
    if (model->quiet && waited_for)
        sim_violation(model, "job %u came to client %u after everything was done", d->token, d->client);
}

void sim_job_asked(struct sim_model *model, unsigned number)
{
    model->tokens[number].done_asked++;
}

void sim_job_done(struct sim_model *model, unsigned number, uint64_t left_moment, uint64_t wall_us)
{
    struct sim_token *token = &model->tokens[number];
    if (token->done_moment == 0 || left_moment < token->done_moment)
        token->done_moment = left_moment;
    if (token->done_us == 0)
        token->done_us = wall_us;
}

void sim_job_gone(struct sim_model *model, unsigned number, unsigned client, uint64_t left_moment,
                  uint64_t wall_us)
{
    struct sim_token *token = &model->tokens[number];
    if (model->queue_buries[token->to]) { /* else it has to be among the dead letters */
        token->vague = token->done_asked > 1;
        return;
    }
    if (token->done_asked < 2)
        sim_violation(model,
                      "job %u is gone, says the answer to client %u, and nobody else said that it was done",
                      number, client);
    sim_job_done(model, number, left_moment, wall_us);
}

bool sim_job_was_there(const struct sim_token *token, uint64_t moment)
{
    return !token->refused && (token->done_moment == 0 || token->done_moment >= moment) &&
           (token->burial == 0 || token->burial_moment >= moment);
}

bool sim_job_complete(struct sim_model *model, unsigned number, bool explain)
{
    const struct sim_token *token = &model->tokens[number];
    if (!token->told || token->done_moment != 0 || token->burial != 0 || token->vague)
        return true;
    if (explain)
        sim_violation(model, "job %u of queue %u was acknowledged to client %u and is not done%s", number,
                      token->to, token->from,
                      model->queue_buries[token->to] ? ", nor among the dead letters" : "");
    return false;
}
