/* The rules of what was promised, one function each. The disk, the wires and the clients of a simulation call them; what
 * is called when is said in model.h. */
#include "tests/sim/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/assert.h"

struct sim_model *sim_model_new(void)
{
    struct sim_model *model = calloc(1, sizeof(*model));
    xy_assert(model != NULL);
    model->last = calloc(SIM_CLIENTS_MAX, sizeof(*model->last));
    xy_assert(model->last != NULL);
    model->sessions = 1;
    return model;
}

void sim_model_free(struct sim_model **model)
{
    if (*model == NULL)
        return;
    xy_buf_free(&(*model)->verdict);
    for (size_t i = 0; i < (*model)->subscriptions_count; i++) {
        xy_buf_free(&(*model)->subscriptions[i].fresh);
        xy_buf_free(&(*model)->subscriptions[i].skipped);
        xy_buf_free(&(*model)->subscriptions[i].settled);
        xy_buf_free(&(*model)->subscriptions[i].settled_us);
        xy_buf_free(&(*model)->subscriptions[i].buried);
        xy_buf_free(&(*model)->subscriptions[i].came);
    }
    xy_buf_free(&(*model)->crossed);
    xy_buf_free(&(*model)->said);
    xy_buf_free(&(*model)->due);
    free((*model)->last);
    free((*model)->tokens);
    free(*model);
    *model = NULL;
}

void sim_violation(struct sim_model *model, const char *format, ...)
{
    char text[512];
    va_list args;
    if (sim_violated(model))
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    xy_buf_str(&model->verdict, xy_str(text));
    xy_buf_char(&model->verdict, '\0');
}

/* --- tokens ------------------------------------------------------------------------------------------------------- */

unsigned sim_token_new(struct sim_model *model, enum sim_kind kind, unsigned from, unsigned to, bool assured)
{
    if (model->tokens_count == model->tokens_cap) {
        model->tokens_cap = model->tokens_cap ? 2 * model->tokens_cap : 256;
        model->tokens = realloc(model->tokens, model->tokens_cap * sizeof(struct sim_token));
        xy_assert(model->tokens != NULL);
    }
    model->tokens[model->tokens_count] = (struct sim_token){
        .kind = kind, .from = from, .to = to, .assured = assured, .first_moment = model->moment
    };
    return (unsigned)model->tokens_count++;
}

void sim_token_write(struct xy_buf *out, unsigned token)
{
    xy_buf_printf(out, "~%06u~", token);
}

bool sim_token_find(const struct sim_model *model, struct xy_str text, size_t *at, unsigned *token)
{
    enum { LEN = 8 };
    for (size_t i = *at; i + LEN <= text.len; i++) {
        uint32_t number;
        if (text.data[i] != '~' || text.data[i + LEN - 1] != '~' ||
            !xy_str_u32(xy_str_n(text.data + i + 1, LEN - 2), &number) || number >= model->tokens_count)
            continue;
        *token = number;
        *at = i + LEN;
        return true;
    }
    *at = text.len;
    return false;
}

static const char *kind_name(const struct sim_token *token)
{
    return token->kind == SIM_MESSAGE ? "message" : token->kind == SIM_ITEM ? "item" : "job";
}

/* --- what happens to them ----------------------------------------------------------------------------------------- */

void sim_model_sent(struct sim_model *model, unsigned number)
{
    model->tokens[number].sends++;
    model->tokens[number].refused = false;
}

/* Its client was answered that it is refused and does not wait for another answer; this time there may be room. */
void sim_model_sent_again(struct sim_model *model, unsigned number)
{
    if (model->tokens[number].kind != SIM_MESSAGE)
        model->tokens[number].refused = false;
}

void sim_model_durable(struct sim_model *model, unsigned number)
{
    struct sim_token *token = &model->tokens[number];
    if (token->durable_moment == 0)
        token->durable_moment = model->moment;
}

void sim_model_must_be_durable(struct sim_model *model, unsigned number, uint64_t left_moment,
                               const char *what)
{
    const struct sim_token *token = &model->tokens[number];
    if (token->durable_moment == 0 || token->durable_moment > left_moment)
        sim_violation(model,
                      "%s %u was %s before its commit (left at moment %" PRIu64 ", on disk at %" PRIu64 ")",
                      kind_name(token), number, what, left_moment, token->durable_moment);
}

void sim_model_told(struct sim_model *model, unsigned number, uint64_t left_moment)
{
    struct sim_token *token = &model->tokens[number];
    bool durable = token->durable_moment != 0 && token->durable_moment <= left_moment;
    if (token->refused || (model->refusals && token->kind == SIM_MESSAGE && !durable)) {
        token->covered = !token->refused;
        return;
    }
    sim_model_must_be_durable(model, number, left_moment, "acknowledged");
    token->told = true;
    model->promises++;
}

void sim_model_refused(struct sim_model *model, unsigned number)
{
    if (!model->refusals)
        sim_violation(model, "%s %u was refused", kind_name(&model->tokens[number]), number);
    model->tokens[number].refused = true;
    model->refused++;
    model->tokens[number].covered = false;
}

void sim_model_retracted(struct sim_model *model, unsigned number)
{
    struct sim_token *token = &model->tokens[number];
    token->retracted = true;
    model->gaps[token->to] = true;
}

void sim_model_excuse(struct sim_model *model, unsigned number)
{
    model->tokens[number].excused = true;
}

void sim_model_crossed(struct sim_model *model, unsigned client, unsigned session)
{
    model->crossings[client]++;
    model->crossings_all++;
    struct sim_crossing crossing = { session, model->moment };
    xy_buf_add(&model->crossed, &crossing, sizeof(crossing));
}

/* Whatever of the node was sent until now may have been there. */
void sim_model_purged(struct sim_model *model, unsigned node)
{
    for (unsigned i = 0; i < model->tokens_count; i++)
        if (model->tokens[i].kind == SIM_ITEM && model->tokens[i].to == node)
            sim_model_retracted(model, i);
}

/* --- deliveries --------------------------------------------------------------------------------------------------- */

/* What left the broker before the crash may still be on the wire when its sender goes on. */
static bool crossed_between(const struct sim_model *model, unsigned session, uint64_t from, uint64_t to)
{
    for (size_t at = 0; at < model->crossed.len; at += sizeof(struct sim_crossing)) {
        struct sim_crossing crossing;
        memcpy(&crossing, model->crossed.data + at, sizeof(crossing));
        if (crossing.session == session && from < crossing.moment && crossing.moment <= to)
            return true;
    }
    return false;
}

static void check_message(struct sim_model *model, const struct sim_delivery *d, struct sim_token *token)
{
    if (token->to != model->account_of[d->client])
        sim_violation(model, "message %u to account %u came to client %u of account %u", d->token, token->to,
                      d->client, model->account_of[d->client]);
    if (d->marked)
        return;
    uint32_t sends = token->sends + (token->assured ? 0 : model->crossings[token->from]);
    if (token->fresh[d->client] > sends)
        sim_violation(model, "message %u, sent %u times, came to client %u %u times without a mark", d->token,
                      token->sends, d->client, token->fresh[d->client]);
    struct sim_last *last = &model->last[d->client][d->session];
    if (crossed_between(model, d->session, last->left_moment, d->left_moment))
        last->serial = 0; /* what the broker did not know of is sent once more */
    if (d->serial <= last->serial)
        sim_violation(model, "message %u (the %u. of session %u) came to client %u after the %u.", d->token,
                      d->serial, d->session, d->client, last->serial);
    *last = (struct sim_last){ d->serial, d->left_moment };
}

static void check_seq(struct sim_model *model, const struct sim_delivery *d, struct sim_token *token)
{
    if (token->seq != 0 && token->seq != d->seq)
        sim_violation(model, "item %u came as number %" PRIu64 " and as number %" PRIu64, d->token,
                      token->seq, d->seq);
    token->seq = d->seq;
}

/* What was confirmed until now went with it, or may have. */
void sim_model_deleted(struct sim_model *model, unsigned node)
{
    sim_model_purged(model, node);
    model->deleted[node] = model->moment;
    for (size_t i = 0; i < model->subscriptions_count; i++)
        model->subscriptions[i].ended |= model->subscriptions[i].node == node;
}

uint64_t sim_number_get(const struct xy_buf *numbers, uint64_t at)
{
    uint64_t number = 0;
    if ((at + 1) * sizeof(number) <= numbers->len)
        memcpy(&number, numbers->data + at * sizeof(number), sizeof(number));
    return number;
}

void sim_number_put(struct xy_buf *numbers, uint64_t at, uint64_t number)
{
    const uint64_t none = 0;
    while (numbers->len <= at * sizeof(none))
        xy_buf_add(numbers, &none, sizeof(none));
    memcpy(numbers->data + at * sizeof(number), &number, sizeof(number));
}

struct sim_subscription *sim_subscription_find(struct sim_model *model, unsigned node, struct xy_str subid)
{
    for (size_t i = 0; i < model->subscriptions_count; i++) {
        struct sim_subscription *s = &model->subscriptions[i];
        if (s->node == node && xy_str_is(subid, s->subid))
            return s;
    }
    return NULL;
}

void sim_model_subscribed(struct sim_model *model, unsigned client, unsigned node, bool bare,
                          struct xy_str subid, uint64_t asked_moment)
{
    if (sim_subscription_find(model, node, subid))
        return;
    if (subid.len == 0 || subid.len >= sizeof(model->subscriptions[0].subid) ||
        model->subscriptions_count == SIM_SUBSCRIPTIONS_MAX) {
        sim_violation(model, "client %u got a subscription to node %u with a bad subid, or too many", client,
                      node);
        return;
    }
    struct sim_subscription *s = &model->subscriptions[model->subscriptions_count++];
    *s = (struct sim_subscription){
        .client = client,
        .node = node,
        .bare = bare,
        .confirmed_moment = model->moment,
        .ended = asked_moment <= model->deleted[node], /* which of the two came first is not known */
    };
    memcpy(s->subid, subid.data, subid.len);
}

void sim_model_unsubscribed(struct sim_model *model, unsigned node, struct xy_str subid)
{
    struct sim_subscription *s = sim_subscription_find(model, node, subid);
    if (s)
        s->ended = true;
}

/* How often this number came unmarked, this time included. */
static unsigned count_fresh(struct sim_subscription *s, uint64_t seq)
{
    while (s->fresh.len <= seq)
        xy_buf_char(&s->fresh, '\0');
    return (unsigned)(unsigned char)++s->fresh.data[seq];
}

void sim_model_settled(struct sim_model *model, unsigned node, struct xy_str subid, uint64_t seq,
                       uint64_t asked_moment, uint64_t left_moment, uint64_t wall_us)
{
    struct sim_subscription *s = sim_subscription_find(model, node, subid);
    if (s == NULL || s->ended)
        return;
    if (asked_moment <= s->replayed_moment)
        return; /* before or after, who knows */
    sim_number_put(&s->settled, seq, left_moment);
    sim_number_put(&s->settled_us, seq, wall_us);
}

static bool is_skipped(const struct sim_subscription *s, uint64_t seq)
{
    for (size_t at = 0; at < s->skipped.len; at += sizeof(struct sim_gap)) {
        struct sim_gap gap;
        memcpy(&gap, s->skipped.data + at, sizeof(gap));
        if (seq >= gap.first && seq <= gap.last)
            return true;
    }
    return false;
}

/* Between what came last and this one. */
static bool is_missing(const struct sim_subscription *s, uint64_t seq)
{
    for (uint64_t between = s->last_seq + 1; s->last_seq != 0 && between < seq; between++)
        if (!is_skipped(s, between))
            return true;
    return false;
}

/* Repeated only with a mark; to a full JID in order and without a gap. What a bare JID is owed may change hands, and
 * then the clients' own speeds decide who reads first. */
static void check_item(struct sim_model *model, const struct sim_delivery *d, struct sim_token *token)
{
    struct sim_subscription *s = d->claimed ? sim_subscription_find(model, token->to, d->subid) : NULL;
    bool once = !d->claimed && !d->marked && model->deleted[token->to] == 0;
    if (d->claimed && model->deleted[token->to] == 0)
        check_seq(model, d, token);
    if (once && token->fresh[d->client] > 1)
        sim_violation(model, "item %u came to client %u %u times, at most once", d->token, d->client,
                      token->fresh[d->client]);
    if (s == NULL || s->ended) /* or its confirmation was lost */
        return;
    if (s->epoch != 0 && s->epoch != d->epoch)
        sim_violation(model, "node %u changed its epoch", token->to);
    s->epoch = d->epoch;
    sim_replay_came(model, s, d);
    sim_number_put(&s->came, d->seq, d->left_moment);
    uint64_t done_moment = sim_number_get(&s->settled, d->seq);
    if (done_moment != 0 && done_moment < d->bound_moment)
        sim_violation(model,
                      "item %u (number %" PRIu64
                      " of node %u) came to client %u in a session that began after it "
                      "was told to be done",
                      d->token, d->seq, token->to, d->client);
    if (!d->marked && count_fresh(s, d->seq) > 1)
        sim_violation(model, "item %u (number %" PRIu64 " of node %u) came to client %u again, unmarked",
                      d->token, d->seq, token->to, d->client);
    if (!s->bare && !model->gaps[token->to] && is_missing(s, d->seq))
        sim_violation(model, "client %u got number %" PRIu64 " of node %u after number %" PRIu64, d->client,
                      d->seq, token->to, s->last_seq);
    if (!s->bare && !d->marked && d->seq <= s->last_seq)
        sim_violation(model,
                      "client %u got number %" PRIu64 " of node %u for the first time after number %" PRIu64,
                      d->client, d->seq, token->to, s->last_seq);
    if (d->seq > s->last_seq)
        s->last_seq = d->seq;
}

void sim_model_skipped(struct sim_model *model, unsigned node, const struct sim_delivery *d,
                       struct sim_gap gap)
{
    struct sim_subscription *s = sim_subscription_find(model, node, d->subid);
    model->skips++;
    if (s == NULL || s->ended || (s->epoch != 0 && s->epoch != d->epoch))
        return;
    if (gap.first == 0 || gap.first > gap.last || gap.last != d->seq)
        sim_violation(model, "client %u was told of a gap from %" PRIu64 " to %" PRIu64 " as number %" PRIu64,
                      d->client, gap.first, gap.last, d->seq);
    if (!s->bare && !model->gaps[node] && is_missing(s, gap.first))
        sim_violation(model, "client %u was told of a gap from %" PRIu64 " of node %u after number %" PRIu64,
                      d->client, gap.first, node, s->last_seq);
    if (model->rejects[node] &&
        model->deleted[node] == 0) /* else a publish may have made it anew, as nodes are by default */
        sim_violation(model, "client %u was told of a gap of node %u, which refuses instead", d->client,
                      node);
    if (model->quiet && !d->one_by_one)
        sim_violation(model, "client %u was told of a gap after everything had been acknowledged", d->client);
    xy_buf_add(&s->skipped, &gap, sizeof(gap));
    if (gap.last > s->last_seq)
        s->last_seq = gap.last;
}

void sim_model_delivered(struct sim_model *model, const struct sim_delivery *d)
{
    struct sim_token *token = &model->tokens[d->token];
    token->all[d->client]++;
    model->deliveries++;
    model->items += token->kind == SIM_ITEM;
    if (d->marked)
        model->redeliveries++;
    else
        token->fresh[d->client]++;
    if (token->assured)
        sim_model_must_be_durable(model, d->token, d->left_moment, "delivered");
    if (model->quiet && ((d->claimed && !d->one_by_one) || token->kind == SIM_MESSAGE))
        sim_violation(model, "%s %u came to client %u after everything had been acknowledged",
                      kind_name(token), d->token, d->client);
    if (token->kind == SIM_MESSAGE)
        check_message(model, d, token);
    else
        check_item(model, d, token);
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

static bool reached_account(const struct sim_model *model, const struct sim_token *token, unsigned account)
{
    for (unsigned i = 0; i < model->clients_count; i++)
        if (model->account_of[i] == account && token->all[i] > 0)
            return true;
    return false;
}

static bool message_arrived(struct sim_model *model, unsigned number, bool explain)
{
    const struct sim_token *token = &model->tokens[number];
    if (!token->told || token->excused || reached_account(model, token, token->to))
        return true;
    if (explain)
        sim_violation(model, "message %u from client %u to account %u was acknowledged and never came",
                      number, token->from, token->to);
    return false;
}

static bool came(const struct sim_model *model, const struct sim_token *token,
                 const struct sim_subscription *s)
{
    return s->bare ? reached_account(model, token, model->account_of[s->client]) : token->all[s->client] > 0;
}

static bool item_arrived(struct sim_model *model, unsigned number, bool explain)
{
    const struct sim_token *token = &model->tokens[number];
    if (!token->told || token->retracted)
        return true;
    for (size_t i = 0; i < model->subscriptions_count; i++) {
        const struct sim_subscription *s = &model->subscriptions[i];
        if (s->ended || s->node != token->to || s->confirmed_moment >= token->first_moment)
            continue;
        if (s->skipped.len > 0 && (token->seq == 0 || is_skipped(s, token->seq)))
            continue;
        bool dies = model->max_deliver[s->client] > 0 && model->deleted[token->to] == 0;
        if (dies ? sim_letter_ended(model, s, number) : came(model, token, s))
            continue;
        if (explain)
            sim_violation(model, "item %u of node %u was acknowledged to client %u and never %s client %u",
                          number, token->to, token->from,
                          dies ? "acknowledged by, nor came to the dead letters of," : "came to", s->client);
        return false;
    }
    return true;
}

bool sim_model_complete(struct sim_model *model, bool explain)
{
    for (unsigned i = 0; i < model->tokens_count; i++) {
        bool arrived = model->tokens[i].kind == SIM_MESSAGE ? message_arrived(model, i, explain)
                       : model->tokens[i].kind == SIM_ITEM  ? item_arrived(model, i, explain)
                                                            : sim_job_complete(model, i, explain);
        if (!arrived)
            return false;
    }
    return sim_replays_complete(model, explain);
}
