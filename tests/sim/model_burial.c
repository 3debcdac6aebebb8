/* Jobs that a queue gives up, or has no place for (docs/protocol.md 9.1, 9.8): they are among its dead letters, once, and
 * say why; a queue that refuses is full. app_burial.c reports what comes, app_queue.c what is asked and answered. */
#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/world.h"

void sim_job_termed(struct sim_model *model, unsigned number)
{
    model->tokens[number].termed = true;
}

/* As many as it may hold may have been in it. */
void sim_job_full(struct sim_model *model, unsigned number, uint64_t asked_moment)
{
    struct sim_token *refused = &model->tokens[number];
    unsigned others = 0, max = model->queue_items[refused->to];
    for (size_t i = 0; i < model->tokens_count; i++) {
        const struct sim_token *token = &model->tokens[i];
        others += token != refused && token->kind == SIM_JOB && token->to == refused->to &&
                  sim_job_was_there(token, asked_moment);
    }
    refused->refused = true;
    model->refused++;
    if (max == 0 || others < max)
        sim_violation(model, "job %u was refused by queue %u, which had %u at most", number, refused->to,
                      others);
}

static bool is_named(struct xy_str value, const char *format, unsigned number)
{
    char text[48];
    int len = snprintf(text, sizeof(text), format, number); // NOLINT(clang-diagnostic-format-nonliteral)
    return xy_str_eq(value, xy_str_n(text, (size_t)len));
}

static const char *wrong_reason(const struct sim_model *model, const struct sim_token *token,
                                const struct sim_letter *letter)
{
    unsigned max_deliver = model->queue_deliver[token->to];
    bool often = max_deliver > 0 && letter->attempts >= max_deliver;
    if (xy_str_is(letter->reason, "max-deliver"))
        return often ? NULL : "Xylem-Dead-Attempts";
    if (xy_str_is(letter->reason, "overflow"))
        return model->queue_items[token->to] > 0 ? NULL : "Xylem-Dead-Reason: the queue is never full";
    if (!xy_str_is(letter->reason, "term"))
        return "Xylem-Dead-Reason";
    return token->termed ? NULL : "Xylem-Dead-Reason: nobody terminated it";
}

/* NULL: all of its headers are right. */
static const char *wrong_header(const struct sim_model *model, const struct sim_delivery *d,
                                const struct sim_letter *letter)
{
    const struct sim_token *token = &model->tokens[d->token];
    const char *wrong = wrong_reason(model, token, letter);
    if (wrong != NULL)
        return wrong;
    if (letter->seq == 0 || (token->seq != 0 && letter->seq != token->seq))
        return "Xylem-Dead-Seq";
    if (!is_named(letter->id, "j%u", d->token))
        return "Xylem-Dead-Id";
    if (!is_named(letter->publisher, "a%u@" SIM_DOMAIN, model->account_of[token->from]))
        return "Xylem-Dead-Publisher";
    if (letter->wall_us == 0 || letter->wall_us == UINT64_MAX)
        return "Xylem-Dead-Time";
    return NULL;
}

void sim_job_buried(struct sim_model *model, const struct sim_delivery *d, const struct sim_letter *letter)
{
    struct sim_token *token = &model->tokens[d->token];
    model->deliveries++;
    model->letters++;
    model->redeliveries += d->marked;
    sim_model_must_be_durable(model, d->token, d->left_moment, "buried");
    sim_letter_ordered(model, d, &model->burials_last[d->client]);
    if (token->kind != SIM_JOB || !is_named(letter->node, "q%u", token->to)) {
        sim_violation(model, "client %u got a dead letter of what is no job of that queue", d->client);
        return;
    }
    const char *wrong = wrong_header(model, d, letter);
    if (wrong != NULL)
        sim_violation(model, "the dead letter of job %u, which client %u got, has a wrong %s", d->token,
                      d->client, wrong);
    if (token->done_us != 0 && letter->wall_us > token->done_us)
        sim_violation(model, "job %u went to the dead letters, after it was told to be done", d->token);
    if (token->burial != 0 && token->burial != d->seq)
        sim_violation(model, "job %u is in the dead letters twice, as number %" PRIu64 " and %" PRIu64,
                      d->token, token->burial, d->seq);
    if (token->burial == 0)
        token->burial_moment = d->left_moment;
    token->burial = d->seq;
    token->seq = letter->seq;
}
