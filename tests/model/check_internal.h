/* What the files check*.c share: the broker, the model and the clients of one sequence. */
#pragma once

#include "tests/model/check.h"
#include "tests/model/peer.h"

#define SENT_US 700000u /* what sessions were sent is on disk then */
#define LAZY_US 60000u  /* acknowledgements are on disk then, which nobody waits for */

struct check {
    const struct check_options *options;
    struct check_result *result;
    struct rig rig;
    struct model *model;
    struct peer peers[MODEL_SESSIONS];
    size_t looked[MODEL_SESSIONS]; /* entries of the log that were compared … */
    size_t sorted[MODEL_SESSIONS]; /* … and that were looked at for items of queues */
};

/* check.c: latches the first one */
void check_complain(struct check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));

void check_pass(struct check *check, uint64_t us); /* time, for both */

/* check_gap.c */
void check_backlogs(struct check *check); /* what is too much is given up before anything else happens */

/* check_queue.c */
bool check_queue_op(struct check *check, const struct op *op); /* false: it says nothing */
void check_queues_gather(struct check *check);                 /* what came, before the model goes on */
void check_queues_settle(struct check *check);                 /* what is due now has come */
void check_queues_end(struct check *check);                    /* and nothing else has */
