/* A session that a restart interrupted, made anew: the connection that asked for it becomes it. The owner of the account
 * has settled what the client's h covers and bound its resource to us already (broker/router/restore.c); what is still
 * owed to it comes by the usual ways, marked, once it is available again. Called by resume.c. */
#include <stdlib.h>
#include <string.h>

#include "broker/log.h"
#include "broker/router/resumable.h"
#include "broker/session/session_internal.h"
#include "broker/shard/stats.h"

static struct session_sm *sm_of(struct session_past *past)
{
    struct session_sm *sm = calloc(1, sizeof(*sm));
    if (sm == NULL)
        return NULL;
    xy_sm_init(&sm->counters);
    memcpy(sm->id, past->id, sizeof(sm->id));
    sm->resumable = sm->kept = sm->resuming = sm->restored = true;
    sm->max_us = past->max_us;
    sm->counters.in_h = sm->counters.in_tail = past->handled;
    sm->counters.out_acked = sm->counters.out_sent = past->h;
    sm->proof.proven = sm->proof.recorded = sm->held.told = sm->held.resumed = past->handled;
    sm->proof.seen = past->seen;
    sm->proof.seen_count = past->seen_count;
    past->seen = NULL;
    past->seen_count = 0;
    return sm;
}

/* Answers that may not have arrived, ahead of everything else. A client that has one already knows its id no more. */
static void answer_again(struct session *session, struct session_past *past)
{
    for (size_t i = 0; i < past->answers_count; i++) {
        struct session_late_answer *answer = &past->answers[i];
        if (answer->owed &&
            outbox_push(session, &answer->bytes, ENTRY_ANSWER, ENTRY_NO_CLAIM, answer->number))
            session->sm->proof.answers_pending++;
    }
}

void restore_session(struct session *session, struct session_past *past)
{
    struct shard *shard = session->shard;
    struct xy_str bare = xy_jid_bare(xy_jid_canonical(xy_bytes_view(past->jid)));
    struct session_sm *sm = sm_of(past);
    if (sm != NULL)
        session_set_jid(session, xy_jid_canonical(xy_bytes_view(past->jid)));
    if (sm == NULL || session->to == NULL || !xy_jid_present(session->jid)) {
        proof_free(sm);
        free(sm);
        address_suspend(shard, session->ref, bare);
        if (session->stream != NULL)
            session_fail(session, XY_STREAM_RESOURCE_CONSTRAINT, "memory is short");
        else
            session_end(session);
        return;
    }
    session->state = SESSION_BOUND;
    session->sm = sm;
    xy_sm_queue_keep(&session->queue, true);
    stat_add(shard, sessions, 1);
    stat_add(shard, sessions_restored, 1);
    answer_again(session, past);
    address_restored(shard, session->ref, bare);
    if (session->link == NULL)
        resume_detach(session);
    else
        session_deadline_update(session);
    resume_when_recorded(session, sent_resume(session));
}
