/* The link's functions and the network's doings. See wire.h. */
#include "tests/sim/wire.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/assert.h"
#include "tests/sim/broker.h"

#define DELIVER_BYTES_MAX 16384u

/* --- pipes -------------------------------------------------------------------------------------------------------- */

static void pipe_add(struct sim_pipe *pipe, struct xy_str bytes, uint64_t ready_us, uint64_t moment,
                     bool counted)
{
    struct sim_segment *segment = malloc(sizeof(*segment) + bytes.len);
    xy_assert(segment != NULL);
    *segment = (struct sim_segment){
        .ready_us = ready_us, .left_moment = moment, .counted = counted, .len = bytes.len
    };
    memcpy(segment->data, bytes.data, bytes.len);
    if (pipe->last) { /* bytes do not overtake each other */
        pipe->last->next = segment;
        if (segment->ready_us < pipe->last->ready_us)
            segment->ready_us = pipe->last->ready_us;
    } else {
        pipe->first = segment;
    }
    pipe->last = segment;
    pipe->bytes += bytes.len;
}

static size_t pipe_take(struct sim_pipe *pipe, uint64_t now_us, char *out, size_t len_max, uint64_t *moment)
{
    struct sim_segment *segment = pipe->first;
    if (segment == NULL || segment->ready_us > now_us)
        return 0;
    size_t len = segment->len - segment->taken;
    if (len > len_max)
        len = len_max;
    memcpy(out, segment->data + segment->taken, len);
    segment->taken += len;
    pipe->bytes -= len;
    if (moment)
        *moment = segment->left_moment;
    if (segment->taken == segment->len) {
        pipe->first = segment->next;
        if (pipe->first == NULL)
            pipe->last = NULL;
        free(segment);
    }
    return len;
}

static void pipe_drop(struct sim_pipe *pipe)
{
    while (pipe->first) {
        struct sim_segment *segment = pipe->first;
        pipe->first = segment->next;
        free(segment);
    }
    *pipe = (struct sim_pipe){ 0 };
}

/* A recipient that does not count, or not yet, loses what was under way to it: documented, and not held against the
 * broker. */
static void excuse(struct sim_wire *wire, struct xy_str bytes)
{
    size_t at = 0;
    unsigned token;
    while (sim_token_find(wire->world->model, bytes, &at, &token))
        sim_model_excuse(wire->world->model, token);
}

static void excuse_dropped(struct sim_wire *wire)
{
    for (struct sim_segment *s = wire->down.first; s; s = s->next)
        if (!s->counted)
            excuse(wire, xy_str_n(s->data, s->len));
}

/* Where `what` begins, at or after `from`; the length: nowhere. */
static size_t find(struct xy_str bytes, size_t from, struct xy_str what)
{
    for (size_t i = from; i + what.len <= bytes.len; i++)
        if (memcmp(bytes.data + i, what.data, what.len) == 0)
            return i;
    return bytes.len;
}

static bool contains(struct xy_str bytes, struct xy_str what)
{
    return find(bytes, 0, what) < bytes.len;
}

static void pipes_drop(struct sim_wire *wire)
{
    excuse_dropped(wire);
    pipe_drop(&wire->down);
    pipe_drop(&wire->up);
}

static uint64_t arrival(struct sim_wire *wire)
{
    struct sim_world *world = wire->world;
    uint64_t delay_us = wire->delay_us + sim_below(&world->random, (uint32_t)wire->delay_us + 1);
    if (!world->draining && sim_once_in(&world->random, 50))
        delay_us += sim_below(&world->random, 300000);
    return world->now_us + delay_us;
}

/* --- what the broker calls ---------------------------------------------------------------------------------------- */

static struct sim_wire *wire_of(struct link *link)
{
    return xy_container_of(link, struct sim_wire, link);
}

/* Planted: says that everything is handled, and more. */
static void forge_h(struct xy_buf *bytes)
{
    for (size_t i = 0; i + 5 < bytes->len; i++)
        if (memcmp(bytes->data + i, " h='1", 5) == 0)
            bytes->data[i + 4] = '9';
}

/* Planted: the first two messages behind <resumed/> change places. */
static void swap_messages(struct xy_buf *bytes)
{
    struct xy_str all = xy_buf_view(bytes), end = XY_STR("</message>");
    size_t resumed = find(all, 0, XY_STR("<resumed ")), first = find(all, resumed, XY_STR("<message"));
    size_t second = find(all, first, end) + end.len, behind = find(all, second, end) + end.len;
    if (behind > all.len || memcmp(all.data + second, "<message", 8) != 0)
        return;
    struct xy_buf swapped = { 0 };
    xy_buf_str(&swapped, xy_str_n(all.data, first));
    xy_buf_str(&swapped, xy_str_n(all.data + second, behind - second));
    xy_buf_str(&swapped, xy_str_n(all.data + first, second - first));
    xy_buf_str(&swapped, xy_str_n(all.data + behind, all.len - behind));
    xy_buf_free(bytes);
    *bytes = swapped;
}

/* Planted: the number of the item that a dead letter was. */
static void forge_letter(struct xy_buf *bytes)
{
    struct xy_str all = xy_buf_view(bytes), name = XY_STR("Xylem-Dead-Seq");
    size_t at = find(all, 0, name) + name.len + 2; /* behind '> */
    if (at < bytes->len)
        bytes->data[at] = bytes->data[at] == '9' ? '8' : (char)(bytes->data[at] + 1);
}

/* Planted: nobody asks for a receipt. */
static void forge_request(struct xy_buf *bytes)
{
    struct xy_str all = xy_buf_view(bytes), name = XY_STR("urn:xmpp:receipts");
    size_t at = find(all, 0, name);
    if (at < bytes->len)
        bytes->data[at + name.len - 1] = '?';
}

/* Planted: what the client gives up is said to be done. */
static void forge_term(struct xy_buf *bytes)
{
    struct xy_str all = xy_buf_view(bytes), term = XY_STR("<term ");
    size_t at = find(all, 0, term);
    if (at < bytes->len)
        memcpy(bytes->data + at, "<ack  ", term.len);
}

static bool wire_write(struct link *link, struct xy_str bytes)
{
    struct sim_wire *wire = wire_of(link);
    struct sim_world *world = wire->world;
    xy_assert(!wire->broker_closed && !wire->in_transit && bytes.len > 0);
    xy_assert(!wire->kept); /* nothing more before `writable` */
    sim_trace_bytes(world, "down", wire->number, bytes);
    if (!wire->counts)
        wire->counts = contains(bytes, XY_STR("<enabled ")) || contains(bytes, XY_STR("<resumed "));
    if (wire->severed) {
        if (!wire->counts)
            excuse(wire, bytes);
        return true;
    }
    struct xy_buf copy = { 0 };
    xy_buf_str(&copy, bytes);
    if (world->options.fault == SIM_FAULT_WRONG_H)
        forge_h(&copy);
    if (world->options.fault == SIM_FAULT_RESUME_ORDER)
        swap_messages(&copy);
    if (world->options.fault == SIM_FAULT_WRONG_LETTER)
        forge_letter(&copy);
    if (world->options.fault == SIM_FAULT_NO_REQUEST)
        forge_request(&copy);
    pipe_add(&wire->down, xy_buf_view(&copy), arrival(wire), world->model->moment, wire->counts);
    xy_buf_free(&copy);
    wire->kept = wire->down.bytes > wire->capacity;
    return !wire->kept;
}

static void wire_read_pause(struct link *link, bool paused)
{
    wire_of(link)->paused = paused;
}

static void wire_start_tls(struct link *link)
{
    (void)link;
    xy_assert(false); /* no simulated client asks for it */
}

static void wire_close(struct link *link)
{
    struct sim_wire *wire = wire_of(link);
    xy_assert(!wire->broker_closed);
    wire->broker_closed = true;
    wire->kept = false;
    link->owner = NULL;
}

static void wire_sleep(struct link *link)
{
    (void)link;
}

static void wire_detach(struct link *link)
{
    struct sim_wire *wire = wire_of(link);
    xy_assert(!wire->kept && !wire->broker_closed);
    wire->in_transit = true;
    link->shard = NULL;
    link->owner = NULL;
}

static bool wire_attach(struct link *link, struct shard *shard, void *owner)
{
    struct sim_wire *wire = wire_of(link);
    xy_assert(wire->in_transit);
    wire->in_transit = false;
    wire->paused = false;
    link->shard = shard;
    link->owner = owner;
    return true;
}

static const struct link_calls wire_calls = {
    .write = wire_write,
    .read_pause = wire_read_pause,
    .start_tls = wire_start_tls,
    .close = wire_close,
    .sleep = wire_sleep,
    .detach = wire_detach,
    .attach = wire_attach,
};

/* --- the client's end --------------------------------------------------------------------------------------------- */

struct sim_wire *sim_wire_open(struct sim_world *world, unsigned client, unsigned shard, enum link_kind kind)
{
    static unsigned const capacities[] = { 2000, 16000, 200000, 200000 };
    struct sim_wire *wire = calloc(1, sizeof(*wire));
    xy_assert(wire != NULL && world->wires_count < SIM_WIRES_MAX);
    wire->world = world;
    wire->client = client;
    wire->number = (unsigned)(world->model->moment & 0xffffff);
    wire->capacity = capacities[sim_below(&world->random, 4)];
    wire->delay_us = 50 + sim_below(&world->random, 5000);
    wire->gone_us = wire->client_gone_us = UINT64_MAX;
    wire->link = (struct link){
        .calls = &wire_calls, .shard = sim_broker_shard(world->broker, shard), .kind = kind, .loopback = true
    };
    if (kind != LINK_LOCAL)
        snprintf(wire->link.peer, sizeof(wire->link.peer), "127.0.0.%u", client + 1);
    world->wires[world->wires_count++] = wire;
    wire->link.shard->link_events->opened(&wire->link);
    sim_broker_wake(world->broker, shard);
    return wire;
}

void sim_wire_send(struct sim_wire *wire, struct xy_str bytes)
{
    sim_trace_bytes(wire->world, "up", wire->number, bytes);
    struct xy_buf copy = { 0 };
    if (wire->severed || bytes.len == 0)
        return;
    xy_buf_str(&copy, bytes);
    if (wire->world->options.fault == SIM_FAULT_LOST_LETTER)
        forge_term(&copy);
    pipe_add(&wire->up, xy_buf_view(&copy), arrival(wire), wire->world->model->moment, true);
    xy_buf_free(&copy);
}

size_t sim_wire_receive(struct sim_wire *wire, char *out, size_t len_max, uint64_t *left_moment)
{
    return pipe_take(&wire->down, wire->world->now_us, out, len_max, left_moment);
}

bool sim_wire_ended(const struct sim_wire *wire)
{
    if (wire->severed && wire->client_gone_us <= wire->world->now_us)
        return wire->down.first == NULL || wire->down.first->ready_us > wire->world->now_us;
    return wire->broker_closed && wire->down.first == NULL;
}

void sim_wire_hang_up(struct sim_wire *wire)
{
    struct sim_world *world = wire->world;
    wire->client_closed = true;
    excuse_dropped(wire);
    pipe_drop(&wire->down);
    if (wire->severed)
        return;
    wire->severed = true; /* what is on its way up still arrives */
    wire->gone_us = wire->up.last ? wire->up.last->ready_us : world->now_us;
}

void sim_wire_cut(struct sim_wire *wire)
{
    struct sim_world *world = wire->world;
    if (wire->severed)
        return;
    world->cuts++;
    wire->severed = true;
    pipes_drop(wire);
    wire->gone_us = wire->client_gone_us = world->now_us + sim_below(&world->random, 200000);
    if (sim_once_in(&world->random, 3)) /* silently: the broker is not told */
        wire->gone_us = UINT64_MAX;
    else if (sim_once_in(&world->random, 3))
        wire->client_gone_us = world->now_us + 2000000;
}

/* The kernel may have sent on what it took, or not. */
void sim_wire_broker_died(struct sim_wire *wire)
{
    struct sim_world *world = wire->world;
    if (!wire->severed && sim_once_in(&world->random, 2))
        pipe_drop(&wire->up);
    else
        pipes_drop(wire);
    wire->severed = true;
    wire->gone_us = UINT64_MAX;
    if (wire->client_gone_us == UINT64_MAX)
        wire->client_gone_us = world->now_us + sim_below(&world->random, 100000);
}

/* --- the broker's end --------------------------------------------------------------------------------------------- */

static bool broker_listens(const struct sim_wire *wire)
{
    return !wire->broker_closed && !wire->in_transit && wire->link.owner != NULL;
}

static bool writable_due(const struct sim_wire *wire)
{
    return wire->kept && wire->down.bytes <= wire->capacity;
}

bool sim_wire_gone_due(const struct sim_wire *wire)
{
    return broker_listens(wire) && !wire->gone_told && wire->severed &&
           wire->gone_us <= wire->world->now_us && (wire->up.first == NULL || wire->paused);
}

static bool bytes_due(const struct sim_wire *wire)
{
    return broker_listens(wire) && !wire->paused && !wire->gone_told && wire->up.first != NULL &&
           wire->up.first->ready_us <= wire->world->now_us;
}

bool sim_wire_input_ready(const struct sim_wire *wire)
{
    return bytes_due(wire) || (broker_listens(wire) && !wire->severed && writable_due(wire)) ||
           sim_wire_gone_due(wire);
}

void sim_wire_deliver(struct sim_wire *wire)
{
    struct sim_world *world = wire->world;
    struct shard *shard = wire->link.shard;
    char bytes[DELIVER_BYTES_MAX];
    if (sim_wire_gone_due(wire)) {
        sim_trace(world, "gone %u", wire->number);
        wire->gone_told = true;
        shard->link_events->gone(&wire->link);
    } else if (!wire->severed && writable_due(wire)) {
        sim_trace(world, "writable %u", wire->number);
        wire->kept = false;
        shard->link_events->writable(&wire->link);
    } else {
        size_t max = sim_once_in(&world->random, 4) ? 1 + sim_below(&world->random, 40) : sizeof(bytes);
        size_t len = pipe_take(&wire->up, world->now_us, bytes, max, NULL);
        sim_trace(world, "input %u: %zu bytes to shard %u", wire->number, len, shard->index);
        if (len > 0)
            shard->link_events->input(&wire->link, bytes, len);
    }
    sim_broker_wake(world->broker, shard->index);
}

/* --- its end ------------------------------------------------------------------------------------------------------ */

bool sim_wire_finished(const struct sim_wire *wire)
{
    return wire->broker_closed && wire->client_closed;
}

uint64_t sim_wire_due(const struct sim_wire *wire)
{
    uint64_t due_us = UINT64_MAX;
    if (broker_listens(wire) && wire->up.first && !wire->paused && !wire->gone_told)
        due_us = wire->up.first->ready_us;
    if (!wire->client_closed && wire->down.first && wire->down.first->ready_us < due_us)
        due_us = wire->down.first->ready_us;
    if (broker_listens(wire) && wire->severed && !wire->gone_told && wire->gone_us < due_us)
        due_us = wire->gone_us;
    if (!wire->client_closed && wire->severed && wire->client_gone_us < due_us)
        due_us = wire->client_gone_us;
    return due_us;
}

void sim_wire_free(struct sim_wire **wire)
{
    pipe_drop(&(*wire)->up);
    pipe_drop(&(*wire)->down);
    free(*wire);
    *wire = NULL;
}
