/* What was sent and is not acknowledged, recorded for a restart: with it the h of a client that resumes says what it had
 * received, and that does not come again (broker/delivery/outmap.h).
 *
 * Recorded a moment after it changed, large records less often, and completely when the broker stops. What is missing
 * comes again after a crash, marked: such a record is an improvement, no promise. Not so the h that a <resumed/> tells, which
 * stands in the same record: it waits for that (resume.c). Called by outbox.c, resume.c and session.c. */
#include "broker/delivery/outmap.h"
#include "broker/session/session_internal.h"
#include "broker/store/store.h"
#include "core/base/assert.h"
#include "xylem/store/v1/records.pb-c.h"

struct gathering {
    const struct session *session;
    struct xy_buf *runs;
    struct out_run last;
    uint64_t left; /* runs that may still be added */
    bool claims;   /* something would be settled */
};

static struct out_run run_of(const struct session *session, const struct xy_sm_entry *entry)
{
    uint32_t index = (uint32_t)entry->claim;
    switch (entry_kind(entry)) {
    case ENTRY_MAILBOX:
        return (struct out_run){ .kind = OUT_MAILBOX, .first = entry_seq(entry) };
    case ENTRY_ANSWER:
        return (struct out_run){ .kind = OUT_ANSWER, .first = entry_seq(entry) };
    case ENTRY_EVENT:
        if (index == ENTRY_NO_CLAIM)
            break;
        xy_assert(index < session->claims_count);
        return (struct out_run){ .kind = OUT_EVENT,
                                 .node = session->claims[index].key.node,
                                 .number = session->claims[index].key.subscription,
                                 .era = session->claims[index].key.era,
                                 .first = entry_seq(entry) };
    default:
        break;
    }
    return (struct out_run){ .kind = OUT_NOTHING };
}

static void gather(struct xy_sm_entry *entry, bool sent, void *ctx)
{
    struct gathering *gathering = ctx;
    (void)sent;
    if ((entry->aux & XY_SM_UNCOUNTED) || gathering->left == 0)
        return;
    struct out_run run = run_of(gathering->session, entry);
    size_t before = gathering->runs->len;
    outmap_add(gathering->runs, &gathering->last, &run);
    gathering->left -= gathering->runs->len != before;
    gathering->claims = gathering->claims || run.kind != OUT_NOTHING;
}

/* false: nothing in the queue would be settled, or memory is short; the record is one without runs then. */
static bool fill(Xylem__Store__V1__SessionOut *out, struct session *session, bool complete)
{
    struct session_sm *sm = session->sm;
    struct xy_buf *runs = &session->shard->sessions->runs;
    struct gathering gathering = { .session = session, .runs = runs };
    gathering.left = complete ? UINT64_MAX : SESSION_SENT_RUNS_MAX;
    sm->sent_due_us = 0;
    sm->sent_recorded = sm->counters.out_sent;
    xy_buf_reset(runs);
    xy_sm_queue_each(&session->queue, gather, &gathering);
    outmap_end(runs, &gathering.last);
    xylem__store__v1__session_out__init(out);
    out->id = (ProtobufCBinaryData){ SESSION_ID_BYTES, sm->id };
    out->acked = sm->counters.out_acked;
    out->resumed = sm->held.resumed;
    if ((!gathering.claims && !complete) || xy_buf_failed(runs))
        return false;
    out->runs = (uint64_t *)(void *)runs->data;
    out->n_runs = runs->len / sizeof(uint64_t);
    out->complete = complete;
    if (!complete)
        sm->sent_runs = (uint32_t)(SESSION_SENT_RUNS_MAX - gathering.left);
    return true;
}

void sent_record(struct session *session, bool complete)
{
    Xylem__Store__V1__SessionOut out;
    if (fill(&out, session, complete)) /* else what was recorded before stays true */
        store_append_lazy(session->shard->store, RECORD_SESSION_OUT, &out.base);
}

/* Of a restored session this takes the place of what its former life recorded, whose numbers mean other stanzas now. */
uint64_t sent_resume(struct session *session)
{
    Xylem__Store__V1__SessionOut out;
    (void)fill(&out, session, false); /* without runs nobody knows whether an answer arrived */
    if (session->sm->telling > out.resumed)
        out.resumed = session->sm->telling;
    return store_append(session->shard->store, RECORD_SESSION_OUT, &out.base);
}

struct answering {
    struct xy_buf *runs;
    struct out_run last;
};

static void gather_answer(struct xy_sm_entry *entry, bool sent, void *ctx)
{
    struct answering *answering = ctx;
    bool answer = entry_kind(entry) == ENTRY_ANSWER || entry_kind(entry) == ENTRY_HELD;
    struct out_run run = { .kind = answer ? OUT_ANSWER : OUT_NOTHING,
                           .first = answer ? entry_seq(entry) : 0 };
    (void)sent;
    if (!(entry->aux & XY_SM_UNCOUNTED))
        outmap_add(answering->runs, &answering->last, &run);
}

void sent_answers(struct session *session, struct xy_buf *runs)
{
    struct answering answering = { .runs = runs };
    xy_sm_queue_each(&session->queue, gather_answer, &answering);
    outmap_end(runs, &answering.last);
}

void sent_changed(struct session *session)
{
    struct session_sm *sm = session->sm;
    if (!sm->kept || sm->sent_due_us != 0 || sm->counters.out_sent == sm->sent_recorded)
        return;
    sm->sent_due_us = xy_now_us(session->shard->env) + SESSION_SENT_US + sm->sent_runs * SESSION_SENT_RUN_US;
    outbox_pace_by(session, sm->sent_due_us);
}

void sent_pace(struct session *session, uint64_t now_us)
{
    struct session_sm *sm = session->sm;
    if (sm->sent_due_us == 0)
        return;
    if (now_us >= sm->sent_due_us)
        sent_record(session, false);
    else
        outbox_pace_by(session, sm->sent_due_us);
}
