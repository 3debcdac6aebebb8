/* Acknowledging items one by one (docs/protocol.md 1.5): done, not done, not yet, never, or nothing at all until the time
 * is over; asked and answered, or said in a message, which may be a receipt. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/namespaces.h"
#include "tests/sim/app.h"

struct out { /* an item that this client has */
    unsigned node;
    uint64_t seq;
    char epoch[20], subid[20];
    char id[64]; /* of the message, for a receipt */
};

struct said { /* an acknowledgement in a message */
    unsigned node;
    uint64_t seq, moment;
    char subid[20];
};

static size_t outs_count(const struct sim_client *client)
{
    return client->outs.len / sizeof(struct out);
}

static struct out out_at(const struct sim_client *client, size_t which)
{
    struct out out;
    memcpy(&out, client->outs.data + which * sizeof(out), sizeof(out));
    return out;
}

static void out_remove(struct sim_client *client, size_t which)
{
    struct out last = out_at(client, outs_count(client) - 1);
    memcpy(client->outs.data + which * sizeof(last), &last, sizeof(last));
    client->outs.len -= sizeof(last);
}

/* --- saying ------------------------------------------------------------------------------------------------------- */

static void write_verdict(struct xy_buf *out, const char *verb, unsigned node, const char *epoch,
                          uint64_t seq, const char *subid, const char *more)
{
    xy_buf_printf(out,
                  "<%s xmlns='" NS_XYLEM_DELIVERY "' node='n%u' epoch='%s' seq='%" PRIu64 "' subid='%s'%s/>",
                  verb, node, epoch, seq, subid, more);
}

static void is_done(struct sim_client *client, unsigned node, const char *subid, uint64_t seq,
                    bool cumulative)
{
    sim_letter_acked(client->world->model, node, xy_str(subid), seq, cumulative);
    sim_replay_acked(client->world->model, node, xy_str(subid), seq, cumulative);
}

static void write_ack(struct sim_client *client, const struct sim_pending *p, struct xy_buf *out)
{
    is_done(client, p->node, p->subid, p->seq, false);
    write_verdict(out, "ack", p->node, p->epoch, p->seq, p->subid, "");
}

static void write_term(struct sim_client *client, const struct sim_pending *p, struct xy_buf *out)
{
    sim_letter_termed(client->world->model, p->node, xy_str(p->subid), p->seq);
    write_verdict(out, "term", p->node, p->epoch, p->seq, p->subid, "");
}

static void on_acked(struct sim_client *client, const struct sim_pending *p, const struct xy_stanza *iq)
{
    struct sim_model *model = client->world->model;
    enum xy_condition condition = iq->type == XY_ERROR ? xy_error_read(iq).condition : XY_NO_ERROR;
    if (condition == XY_NO_ERROR)
        sim_model_settled(model, p->node, xy_str(p->subid), p->seq, p->asked_moment, client->left_moment,
                          xy_wall_us(&client->world->env));
    else if (condition != XY_ITEM_NOT_FOUND && !sim_app_no_room(client, iq))
        sim_violation(model, "client %u could not acknowledge number %" PRIu64 " of node %u", client->index,
                      p->seq, p->node);
}

static void on_termed(struct sim_client *client, const struct sim_pending *p, const struct xy_stanza *iq)
{
    if (iq->type == XY_ERROR && xy_error_read(iq).condition != XY_ITEM_NOT_FOUND &&
        !sim_app_no_room(client, iq))
        sim_violation(client->world->model, "client %u could not give up number %" PRIu64 " of node %u",
                      client->index, p->seq, p->node);
}

static const struct sim_request ack = { .bare = true, .write = write_ack, .answered = on_acked };
static const struct sim_request term = { .bare = true, .write = write_term, .answered = on_termed };

static bool ask(struct sim_client *client, const struct sim_request *request, const struct out *out)
{
    struct sim_pending *p = sim_app_pending(client, request, out->node);
    if (p == NULL)
        return false;
    p->seq = out->seq;
    snprintf(p->epoch, sizeof(p->epoch), "%s", out->epoch);
    snprintf(p->subid, sizeof(p->subid), "%s", out->subid);
    sim_app_say(client, p);
    return true;
}

bool sim_app_by_receipt(const struct sim_client *client)
{
    return client->one_by_one && client->world->mood.receipts && client->index != 3;
}

/* The claim by which the message is found again when h covers it. */
static unsigned note(struct sim_client *client, const struct out *out)
{
    struct said said = { .node = out->node, .seq = out->seq, .moment = client->world->model->moment };
    unsigned which = (unsigned)(client->said.len / sizeof(said));
    memcpy(said.subid, out->subid, sizeof(said.subid));
    xy_buf_add(&client->said, &said, sizeof(said));
    return SIM_CLAIM_SAID + which;
}

void sim_app_counted(struct sim_client *client, size_t which)
{
    struct said said;
    memcpy(&said, client->said.data + which * sizeof(said), sizeof(said));
    sim_model_settled(client->world->model, said.node, xy_str(said.subid), said.seq, said.moment,
                      client->left_moment, xy_wall_us(&client->world->env));
}

static void say_received(struct sim_client *client, const struct out *out)
{
    struct xy_buf text = { 0 };
    bool planted = client->world->options.fault == SIM_FAULT_LOST_RECEIPT;
    xy_buf_printf(&text,
                  "<message to='" SIM_SERVICE "'><received xmlns='" NS_RECEIPTS "' id='%s%s'/></message>",
                  planted ? "x" : "", out->id);
    is_done(client, out->node, out->subid, out->seq, false);
    sim_client_push(client, xy_buf_view(&text), note(client, out));
    xy_buf_free(&text);
}

static void say(struct sim_client *client, const struct out *out, const char *verb, const char *more)
{
    struct sim_model *model = client->world->model;
    if (verb[0] == 'a')
        is_done(client, out->node, out->subid, out->seq, more[0] != '\0');
    else if (verb[0] == 't')
        sim_letter_termed(model, out->node, xy_str(out->subid), out->seq);
    struct xy_buf text = { 0 };
    xy_buf_lit(&text, "<message to='" SIM_SERVICE "'>");
    write_verdict(&text, verb, out->node, out->epoch, out->seq, out->subid, more);
    xy_buf_lit(&text, "</message>");
    sim_client_push(client, xy_buf_view(&text), verb[0] == 'a' ? note(client, out) : 0);
    xy_buf_free(&text);
}

/* --- of its own will ---------------------------------------------------------------------------------------------- */

static void act(struct sim_client *client)
{
    struct sim_random *random = &client->world->random;
    if (outs_count(client) == 0)
        return;
    size_t which = sim_below(random, (uint32_t)outs_count(client));
    struct out out = out_at(client, which);
    uint32_t how = sim_below(random, client->world->mood.deaths ? 15 : 12);
    if (how > 0 && how < 8 && sim_app_by_receipt(client)) {
        say_received(client, &out);
    } else if (how < 6 || how == 12) {
        if (!ask(client, how == 12 ? &term : &ack, &out))
            return;
    } else if (how < 8) {
        say(client, &out, "ack", "");
    } else if (how == 8) {
        say(client, &out, "ack", " cumulative='true'");
    } else if (how == 9) {
        say(client, &out, "nack", sim_once_in(random, 2) ? " delay='1'" : "");
    } else if (how == 10) {
        say(client, &out, "working", "");
        return;
    } else if (how == 13) {
        say(client, &out, "term", "");
    }
    out_remove(client, which); /* at 11 and 14 it is forgotten, and comes again */
}

static void drain(struct sim_client *client)
{
    struct out out;
    if (outs_count(client) == 0)
        return;
    out = out_at(client, 0);
    if (ask(client, &ack, &out))
        out_remove(client, 0);
}

static bool satisfied(const struct sim_client *client)
{
    return client->outs.len == 0;
}

static void session_new(struct sim_client *client)
{
    xy_buf_reset(&client->outs);
}

void sim_app_has(struct sim_client *client, unsigned node, const struct xy_stanza *stanza)
{
    const struct xy_elem *delivery = xy_elem_child(stanza->elem, "delivery", NS_XYLEM_DELIVERY);
    bool asks = xy_elem_child(stanza->elem, "request", NS_RECEIPTS) != NULL;
    struct out out = { .node = node };
    xy_str_u64(xy_elem_attr(delivery, "seq"), &out.seq);
    snprintf(out.epoch, sizeof(out.epoch), "%.*s", XY_ARG(xy_elem_attr(delivery, "epoch")));
    snprintf(out.subid, sizeof(out.subid), "%.*s", XY_ARG(xy_elem_attr(delivery, "subid")));
    snprintf(out.id, sizeof(out.id), "%.*s", XY_ARG(stanza->id));
    xy_buf_add(&client->outs, &out, sizeof(out));
    if (asks != sim_app_by_receipt(client))
        sim_violation(client->world->model, "client %u got number %" PRIu64 " of node %u %s", client->index,
                      out.seq, node,
                      asks ? "and was asked for a receipt" : "and was not asked for a receipt");
}

const struct sim_activity sim_acknowledging = {
    .weight = 6, .act = act, .session_new = session_new, .drain = drain, .satisfied = satisfied
};
