/* The table of operations, how they are chosen, written and read. See op.h. */
#include "tests/model/op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model.h"

const struct op_shape op_shapes[OP_KIND_COUNT] = {
    [OP_CONNECT] = { "connect", { "session", "sm", "priority", NULL }, false },
    [OP_CLOSE] = { "close", { "session", NULL }, false },
    [OP_DROP] = { "drop", { "session", NULL }, false },
    [OP_RESUME] = { "resume", { "session", "back", NULL }, false },
    [OP_PRESENCE] = { "presence", { "session", "priority", NULL }, false },
    [OP_ACK] = { "ack", { "session", "back", NULL }, false },
    [OP_CREATE] = { "create", { "session", "node", "max_items", "access", "publish", NULL }, true },
    [OP_CONFIGURE] = { "configure", { "session", "node", "field", "value", NULL }, true },
    [OP_DELETE] = { "delete", { "session", "node", NULL }, true },
    [OP_PURGE] = { "purge", { "session", "node", NULL }, true },
    [OP_PUBLISH] = { "publish", { "session", "node", "id", "token", "once", "number", "more", NULL }, true },
    [OP_RETRACT] = { "retract", { "session", "node", "id", "notify", NULL }, true },
    [OP_SUBSCRIBE] = { "subscribe",
                       { "session", "node", "bare", "durable", "start", "number", "ack", "backlog", NULL },
                       true },
    [OP_UNSUBSCRIBE] = { "unsubscribe", { "session", "node", "bare", NULL }, true },
    [OP_AFFILIATE] = { "affiliate", { "session", "node", "account", "affiliation", NULL }, true },
    [OP_SETTLE] = { "settle", { "session", "node", "bare", "verb", "which", "delay", NULL }, true },
    [OP_ITEMS] = { "items", { "session", "node", "max", NULL }, true },
    [OP_TIME] = { "time", { "ms", NULL }, false },
    [OP_CRASH] = { "crash", { "shards", NULL }, false },
    [OP_STOP] = { "stop", { "shards", NULL }, false },
    [OP_CHECKPOINT] = { "checkpoint", { NULL }, false },
    [OP_QUEUE_MAKE] = { "queue-make", { "session", "queue", NULL }, false },
    [OP_QUEUE_JOIN] = { "queue-join", { "session", "queue", "requests", "bare", NULL }, false },
    [OP_QUEUE_LEAVE] = { "queue-leave", { "session", "queue", "bare", NULL }, false },
    [OP_QUEUE_PUT] = { "queue-put",
                       { "session", "queue", "id", "token", "group", "urgency", "delay", "ttl", NULL },
                       false },
    [OP_QUEUE_DONE] = { "queue-done", { "session", "queue", "verb", "own", "which", "delay", NULL }, false },
    [OP_QUEUE_LOOK] = { "queue-look", { "session", "queue", NULL }, false },
    [OP_QUEUE_DRIVE] = { "queue-drive", { "session", "queue", NULL }, false },
    [OP_QUEUE_MOVE] = { "queue-move", { "session", "queue", NULL }, false },
};

/* --- choosing ------------------------------------------------------------------------------------------------------ */

static const struct {
    enum op_kind kind;
    uint32_t weight;
} weights[] = {
    { OP_PUBLISH, 320 },   { OP_ACK, 130 },        { OP_CONNECT, 160 },  { OP_SUBSCRIBE, 100 },
    { OP_RETRACT, 40 },    { OP_ITEMS, 50 },       { OP_SETTLE, 150 },   { OP_RESUME, 80 },
    { OP_DROP, 40 },       { OP_PRESENCE, 40 },    { OP_CREATE, 30 },    { OP_CONFIGURE, 30 },
    { OP_TIME, 25 },       { OP_UNSUBSCRIBE, 15 }, { OP_AFFILIATE, 15 }, { OP_CLOSE, 15 },
    { OP_CHECKPOINT, 10 }, { OP_PURGE, 5 },        { OP_DELETE, 4 },     { OP_CRASH, 3 },
    { OP_STOP, 3 },
};

static enum op_kind kind_random(struct sim_random *random)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < sizeof(weights) / sizeof(*weights); i++)
        sum += weights[i].weight;
    uint32_t choice = sim_below(random, sum);
    size_t i = 0;
    while (choice >= weights[i].weight)
        choice -= weights[i++].weight;
    return weights[i].kind;
}

static int pick(struct sim_random *random, const int *from, uint32_t count)
{
    return from[sim_below(random, count)];
}
#define PICK(random, ...)                                                                                    \
    pick(random, (const int[]){ __VA_ARGS__ }, sizeof((const int[]){ __VA_ARGS__ }) / sizeof(int))

static void more_args(struct op *op, struct sim_random *random, int token)
{
    int *a = op->args;
    switch (op->kind) {
    case OP_CONNECT:
        a[1] = !sim_once_in(random, 4);
        a[2] = PICK(random, 0, 0, 0, 1, 2, -1);
        break;
    case OP_RESUME:
    case OP_ACK:
        a[1] = PICK(random, 0, 0, 0, 1, 2, 5);
        break;
    case OP_PRESENCE:
        a[1] = PICK(random, 0, 1, 2, -1, MODEL_UNAVAILABLE);
        break;
    case OP_CREATE:
        a[2] = PICK(random, 0, 1, 2, 5, 20);
        a[3] = sim_once_in(random, 4);
        a[4] = PICK(random, 0, 1, 2, 2, 2);
        break;
    case OP_CONFIGURE:
        a[2] = (int)sim_below(random, MODEL_FIELDS);
        a[3] = a[2] == MODEL_FIELD_MAX      ? PICK(random, 0, 1, 3, 10)
               : a[2] == MODEL_FIELD_BYTES  ? PICK(random, 0, 50, 150, 500)
               : a[2] == MODEL_FIELD_WINDOW ? PICK(random, 0, 0, 1, 30)
                                            : (int)sim_below(random, 3);
        break;
    case OP_PUBLISH:
        a[2] = (int)sim_below(random, MODEL_IDS);
        a[3] = token;
        a[4] = PICK(random, 0, 0, 0, 1, 1, 2);
        a[5] = a[4] == 1 ? token - PICK(random, 0, 0, 0, 1, 3, 300) : (int)sim_below(random, 8);
        a[5] = a[5] < 0 ? 0 : a[5];
        a[6] = sim_once_in(random, 8) ? 1 + (int)sim_below(random, MODEL_MORE) : 0;
        break;
    case OP_RETRACT:
        a[2] = (int)sim_below(random, MODEL_IDS);
        a[3] = PICK(random, 0, 1, 2);
        break;
    case OP_SUBSCRIBE:
        a[2] = (int)sim_below(random, 2);
        a[3] = !sim_once_in(random, 3);
        a[4] = (int)sim_below(random, MODEL_STARTS);
        a[5] = 1 + (int)sim_below(random, 30);
        a[6] = a[3] ? PICK(random, 0, 0, 1, 1, 2, 3) : 0;
        a[7] = a[3] && a[6] == 0 ? PICK(random, 0, 0, 1, 2) : 0;
        break;
    case OP_SETTLE:
        a[2] = (int)sim_below(random, 2);
        a[3] =
            PICK(random, VERB_ACK, VERB_ACK, VERB_ACK, VERB_NACK, VERB_TERM, VERB_WORKING, VERB_CUMULATIVE);
        a[4] = PICK(random, 0, 0, 0, 1, 2, 5);
        a[5] = PICK(random, -1, -1, 0, 2, 15);
        break;
    case OP_UNSUBSCRIBE:
        a[2] = (int)sim_below(random, 2);
        break;
    case OP_AFFILIATE:
        a[2] = (int)sim_below(random, MODEL_ACCOUNTS);
        a[3] = (int)sim_below(random, MODEL_AFFILIATIONS);
        break;
    case OP_ITEMS:
        a[2] = PICK(random, 0, 0, 1, 3);
        break;
    default:
        break;
    }
}

static enum op_kind queue_kind_random(struct sim_random *random)
{
    static const int kinds[] = { OP_QUEUE_PUT,  OP_QUEUE_PUT,   OP_QUEUE_PUT,  OP_QUEUE_PUT,   OP_QUEUE_PUT,
                                 OP_QUEUE_DONE, OP_QUEUE_DONE,  OP_QUEUE_DONE, OP_QUEUE_DONE,  OP_QUEUE_DONE,
                                 OP_QUEUE_DONE, OP_QUEUE_JOIN,  OP_QUEUE_JOIN, OP_QUEUE_LEAVE, OP_QUEUE_LOOK,
                                 OP_QUEUE_LOOK, OP_QUEUE_DRIVE, OP_QUEUE_MOVE };
    return (enum op_kind)pick(random, kinds, sizeof(kinds) / sizeof(*kinds));
}

static struct op queue_op_random(struct sim_random *random, int token)
{
    struct op op = { .kind = queue_kind_random(random) };
    int *a = op.args;
    a[OP_SESSION] = (int)sim_below(random, MODEL_SESSIONS);
    a[1] = (int)sim_below(random, MODEL_QUEUES);
    if (op.kind == OP_QUEUE_JOIN) {
        a[2] = 1 + (int)sim_below(random, 4);
        a[3] = sim_once_in(random, 3);
    } else if (op.kind == OP_QUEUE_LEAVE) {
        a[2] = sim_once_in(random, 3);
    } else if (op.kind == OP_QUEUE_PUT) {
        a[2] = (int)sim_below(random, 30);
        a[3] = token;
        a[4] = PICK(random, 0, 0, 1, 2);
        a[5] = PICK(random, 0, 0, 0, 1, 2, 3);
        a[6] = PICK(random, 0, 0, 0, 0, 0, 2, 15);
        a[7] = PICK(random, 0, 0, 0, 0, 1, 12);
    } else if (op.kind == OP_QUEUE_DONE) {
        a[2] = (int)sim_below(random, DONE_VERBS);
        a[3] = !sim_once_in(random, 4);
        a[4] = PICK(random, 0, 0, 0, 1, 2, 5);
        a[5] = PICK(random, -1, -1, 0, 2, 15);
    }
    return op;
}

struct op op_random(struct sim_random *random, int token, bool queues)
{
    if (queues && sim_once_in(random, 2))
        return queue_op_random(random, token);
    struct op op = { .kind = kind_random(random) };
    switch (op.kind) {
    case OP_TIME:
        op.args[0] = PICK(random, 23, 1013, 1013, 11027, 31039);
        break;
    case OP_CRASH:
    case OP_STOP:
        op.args[0] = 1 + (int)sim_below(random, 3);
        break;
    case OP_CHECKPOINT:
        break;
    default:
        op.args[OP_SESSION] = (int)sim_below(random, MODEL_SESSIONS);
        if (op_shapes[op.kind].request)
            op.args[OP_NODE] = (int)sim_below(random, MODEL_NODES);
        more_args(&op, random, token);
        op.lost = op_shapes[op.kind].request && sim_once_in(random, 300);
        break;
    }
    return op;
}

/* --- scripts ------------------------------------------------------------------------------------------------------- */

void op_print(const struct op *op, char *out, size_t size)
{
    const struct op_shape *shape = &op_shapes[op->kind];
    size_t at = (size_t)snprintf(out, size, "%s%s", op->lost ? "lost " : "", shape->name);
    for (size_t i = 0; shape->args[i] != NULL && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, " %s=%d", shape->args[i], op->args[i]);
}

/* By name; what a script of former days does not have is 0. */
static bool parse_args(const char *text, const struct op_shape *shape, struct op *op)
{
    for (text += strspn(text, " "); *text != '\0' && *text != '\n'; text += strspn(text, " ")) {
        size_t len = strcspn(text, "="), i = 0;
        char *end;
        while (shape->args[i] != NULL &&
               (strlen(shape->args[i]) != len || strncmp(shape->args[i], text, len) != 0))
            i++;
        if (shape->args[i] == NULL || text[len] != '=')
            return false;
        op->args[i] = (int)strtol(text + len + 1, &end, 10);
        text = end;
    }
    return true;
}

bool op_parse(const char *line, struct op *op)
{
    *op = (struct op){ .lost = strncmp(line, "lost ", 5) == 0 };
    if (op->lost)
        line += 5;
    size_t len = strcspn(line, " \n");
    for (unsigned kind = 0; kind < OP_KIND_COUNT; kind++) {
        const struct op_shape *shape = &op_shapes[kind];
        if (strlen(shape->name) != len || strncmp(shape->name, line, len) != 0)
            continue;
        op->kind = (enum op_kind)kind;
        return parse_args(line + len, shape, op);
    }
    return false;
}
