/* Dead letters: an item that is given up is in the node of dead letters, once, before it ends; nothing is lost on the way
 * (docs/protocol.md 1.8). app_ack.c reports what its client says of an item, app_dead.c what comes. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/world.h"

#define ACCOUNT "a%u@" SIM_DOMAIN

enum { SAID_ACK = 1, SAID_TERM = 2 };

/* What clients said of items; some before they heard of the subscription's confirmation. */
struct said {
    unsigned node;
    char subid[64];
    uint64_t seq;
    uint8_t what;
};

static bool was_said(const struct sim_model *model, const struct sim_subscription *s, uint64_t seq,
                     uint8_t what)
{
    for (size_t at = 0; at < model->said.len; at += sizeof(struct said)) {
        struct said said;
        memcpy(&said, model->said.data + at, sizeof(said));
        if (said.what == what && said.seq == seq && said.node == s->node && strcmp(said.subid, s->subid) == 0)
            return true;
    }
    return false;
}

static void say(struct sim_model *model, unsigned node, struct xy_str subid, uint64_t seq, uint8_t what)
{
    struct said said = { .node = node, .seq = seq, .what = what };
    snprintf(said.subid, sizeof(said.subid), "%.*s", XY_ARG(subid));
    xy_buf_add(&model->said, &said, sizeof(said));
}

void sim_letter_acked(struct sim_model *model, unsigned node, struct xy_str subid, uint64_t seq,
                      bool cumulative)
{
    for (uint64_t at = cumulative ? 1 : seq; at <= seq; at++)
        say(model, node, subid, at, SAID_ACK);
}

void sim_letter_termed(struct sim_model *model, unsigned node, struct xy_str subid, uint64_t seq)
{
    say(model, node, subid, seq, SAID_TERM);
}

/* --- what comes --------------------------------------------------------------------------------------------------- */

void sim_letter_ordered(struct sim_model *model, const struct sim_delivery *d, uint64_t *last)
{
    if (d->seq > *last + 1)
        sim_violation(model, "client %u got dead letter %" PRIu64 " after dead letter %" PRIu64, d->client,
                      d->seq, *last);
    if (d->seq <= *last && !d->marked)
        sim_violation(model, "client %u got dead letter %" PRIu64 " again, unmarked", d->client, d->seq);
    if (d->seq <= *last && model->quiet)
        sim_violation(model, "client %u got dead letter %" PRIu64 " after everything had been acknowledged",
                      d->client, d->seq);
    if (d->seq > *last)
        *last = d->seq;
}

static bool is_named(struct xy_str value, const char *format, unsigned number)
{
    char text[48];
    int len = snprintf(text, sizeof(text), format, number); // NOLINT(clang-diagnostic-format-nonliteral)
    return xy_str_eq(value, xy_str_n(text, (size_t)len));
}

/* NULL: all of its headers are right. */
static const char *wrong_header(const struct sim_model *model, const struct sim_subscription *s,
                                const struct sim_delivery *d, const struct sim_letter *letter)
{
    const struct sim_token *token = &model->tokens[d->token];
    bool term = xy_str_is(letter->reason, "term");
    unsigned max_deliver = model->max_deliver[d->client];
    if (!is_named(letter->by, ACCOUNT, model->account_of[d->client]))
        return "publisher";
    if (!term && !xy_str_is(letter->reason, "max-deliver"))
        return "Xylem-Dead-Reason";
    if (term && !was_said(model, s, letter->seq, SAID_TERM))
        return "Xylem-Dead-Reason: nobody terminated it";
    if (letter->attempts == 0 || letter->attempts > max_deliver || (!term && letter->attempts < max_deliver))
        return "Xylem-Dead-Attempts";
    if (s->epoch != 0 && letter->epoch != s->epoch)
        return "Xylem-Dead-Epoch";
    if (letter->seq == 0 || (token->seq != 0 && letter->seq != token->seq))
        return "Xylem-Dead-Seq";
    if (!is_named(letter->id, "i%u", d->token))
        return "Xylem-Dead-Id";
    if (!is_named(letter->publisher, ACCOUNT, model->account_of[token->from]))
        return "Xylem-Dead-Publisher";
    if (letter->wall_us == 0 || letter->wall_us == UINT64_MAX)
        return "Xylem-Dead-Time";
    return NULL;
}

static void check_once(struct sim_model *model, struct sim_subscription *s, const struct sim_delivery *d,
                       uint64_t seq)
{
    uint64_t before = sim_number_get(&s->buried, seq);
    if (before != 0 && before != d->seq)
        sim_violation(model,
                      "item %u is in the dead letters of client %u twice, as number %" PRIu64 " and %" PRIu64,
                      d->token, d->client, before, d->seq);
    sim_number_put(&s->buried, seq, d->seq);
}

void sim_letter_delivered(struct sim_model *model, const struct sim_delivery *d,
                          const struct sim_letter *letter)
{
    struct sim_token *token = &model->tokens[d->token];
    model->deliveries++;
    model->letters++;
    model->redeliveries += d->marked;
    sim_model_must_be_durable(model, d->token, d->left_moment, "buried");
    sim_letter_ordered(model, d, &model->letters_last[d->client]);
    if (token->kind != SIM_ITEM || !is_named(letter->node, "n%u", token->to)) {
        sim_violation(model, "client %u got a dead letter of what is no item of that node", d->client);
        return;
    }
    struct sim_subscription *s = sim_subscription_find(model, token->to, letter->subid);
    if (s == NULL || s->ended || model->deleted[token->to] != 0) /* or its confirmation was lost */
        return;
    const char *wrong = wrong_header(model, s, d, letter);
    if (wrong != NULL) {
        sim_violation(model, "the dead letter of item %u, which client %u got, has a wrong %s", d->token,
                      d->client, wrong);
        return;
    }
    uint64_t settled_us = sim_number_get(&s->settled_us, letter->seq);
    if (settled_us != 0 && letter->wall_us > settled_us)
        sim_violation(model, "item %u went to the dead letters of client %u, who had been told it was done",
                      d->token, d->client);
    check_once(model, s, d, letter->seq);
    token->seq = letter->seq;
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

bool sim_letter_ended(const struct sim_model *model, const struct sim_subscription *s, unsigned number)
{
    uint64_t seq = model->tokens[number].seq;
    return seq != 0 && (was_said(model, s, seq, SAID_ACK) || sim_number_get(&s->buried, seq) != 0);
}
