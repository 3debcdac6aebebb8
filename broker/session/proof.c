/* How much of what a client sent a crash would remember, and so how much it may be told is handled.
 *
 * A stanza that changed what is stored has a row on disk that says so, committed together with the change
 * (broker/router/request.h); the others leave nothing. Both are covered by a record of this session, SessionIn, which says
 * how many are handled. So the h that is told is that of the newest committed record, and as many more as have rows in
 * succession: a sender of messages is told without another commit. Sessions that do not outlive a restart are told what
 * is handled. Called by session.c for every stanza that is handled, by input.c for every <r/>. */
#include <stdlib.h>
#include <string.h>

#include "broker/session/session_internal.h"
#include "broker/store/store.h"
#include "core/base/assert.h"
#include "xylem/store/v1/records.pb-c.h"

uint64_t proof_h(const struct session *session)
{
    const struct session_sm *sm = session->sm;
    return sm->kept ? sm->proof.proven : sm->counters.in_h;
}

/* --- rows ---------------------------------------------------------------------------------------------------------- */

/* Of the stanza with that index; the bits of those not in the window are clear. */
static bool row_take(struct session_proof *proof, uint64_t index)
{
    uint64_t *word = &proof->rows[index % XY_SM_WINDOW / 64], bit = UINT64_C(1) << (index % 64);
    bool set = (*word & bit) != 0;
    *word &= ~bit;
    return set;
}

static void row_set(struct session_proof *proof, uint64_t index)
{
    if (index >= proof->proven && index - proof->proven < XY_SM_WINDOW)
        proof->rows[index % XY_SM_WINDOW / 64] |= UINT64_C(1) << (index % 64);
}

static void advance_to(struct session_proof *proof, uint64_t h)
{
    if (h >= proof->proven + XY_SM_WINDOW) {
        memset(proof->rows, 0, sizeof(proof->rows));
        proof->proven = h;
    }
    while (proof->proven < h)
        (void)row_take(proof, proof->proven++);
}

static void advance(struct session *session)
{
    struct session_sm *sm = session->sm;
    struct session_proof *proof = &sm->proof;
    if (proof->lazy_ticket != 0 && proof->lazy_ticket <= store_committed(session->shard->store)) {
        advance_to(proof, proof->lazy_h);
        proof->lazy_ticket = 0;
    }
    while (proof->proven < sm->counters.in_h && row_take(proof, proof->proven))
        proof->proven++;
}

/* --- records ------------------------------------------------------------------------------------------------------- */

/* An answer is pushed before its stanza counts as handled, so of those that are left, the oldest is not much older than
 * the last that arrived. */
static uint64_t answered(const struct session_sm *sm)
{
    if (sm->proof.answers_pending == 0)
        return sm->counters.in_h;
    return sm->proof.answers_acked > XY_SM_WINDOW ? sm->proof.answers_acked - XY_SM_WINDOW : 0;
}

struct proved {
    struct session_ref session;
    uint64_t h;
};

static void on_proved(struct shard *shard, void *payload)
{
    const struct proved *proved = payload;
    struct session *session = session_find(shard, proved->session);
    if (session == NULL || session->sm == NULL)
        return;
    advance_to(&session->sm->proof, proved->h);
    session->sm->proof.waiting = false;
    proof_go_on(session);
    if (session->held)
        session_input_resume(session);
}

void proof_record(struct session *session, bool awaited)
{
    struct session_sm *sm = session->sm;
    struct session_proof *proof = &sm->proof;
    struct shard *shard = session->shard;
    Xylem__Store__V1__SessionIn in = XYLEM__STORE__V1__SESSION_IN__INIT;
    uint64_t h = held_limit(session);
    uint64_t arrived = answered(sm);
    bool news = h > proof->recorded || arrived > proof->recorded_answered;
    if (awaited ? proof->waiting || h <= proof->proven : !news)
        return;
    in.id = (ProtobufCBinaryData){ SESSION_ID_BYTES, sm->id };
    in.handled = h;
    in.answered = arrived;
    proof->recorded = in.handled;
    proof->recorded_answered = arrived;
    if (!awaited) {
        uint64_t ticket = store_append_lazy(shard->store, RECORD_SESSION_IN, &in.base);
        if (proof->lazy_ticket == 0) {
            proof->lazy_ticket = ticket;
            proof->lazy_h = in.handled;
        }
        return;
    }
    struct proved proved = { session->ref, in.handled };
    proof->waiting = true;
    uint64_t ticket = store_append(shard->store, RECORD_SESSION_IN, &in.base);
    shard_when_committed(shard, ticket, on_proved, &proved, sizeof(proved));
}

bool proof_complete(struct session *session)
{
    const struct session_sm *sm = session->sm;
    if (sm == NULL || !sm->kept)
        return true;
    advance(session);
    if (sm->proof.proven < held_limit(session))
        proof_record(session, true);
    return sm->proof.proven >= held_limit(session); /* what is not recorded is sent again and refused again */
}

/* --- telling ------------------------------------------------------------------------------------------------------- */

/* The oldest open <r/> can be answered. A sender that never pauses has asked again by now: the next answer is due when
 * that is reached. */
static void ack_asked(struct session *session)
{
    struct session_sm *sm = session->sm;
    sm->asked = proof_h(session) < sm->asked_last;
    sm->asked_first = sm->asked_last;
    sm->asked_first_us = sm->asked ? sm->asked_last_us : 0;
    sm->ack_due = true;
    if (sm->asked_first_us != 0)
        outbox_pace_by(session, sm->asked_first_us + SESSION_ACK_DELAY_US);
    outbox_touch(session);
}

void proof_go_on(struct session *session)
{
    struct session_sm *sm = session->sm;
    if (sm->kept)
        advance(session);
    if (sm->asked && proof_h(session) >= sm->asked_first)
        ack_asked(session);
    if (sm->kept) {
        bool awaited = (sm->asked && sm->counters.in_h >= sm->asked_first) || sm->resuming ||
                       session->shard->sessions->quiescing;
        if (sm->proof.proven < held_limit(session) && (awaited || sm->proof.lazy_ticket == 0))
            proof_record(session, awaited);
        else if (sm->counters.in_h - sm->proof.recorded >= SESSION_ROWS_MAX)
            proof_record(session, false);
    }
    if (sm->resuming)
        resume_handled(session);
}

void proof_handled(struct session *session, struct session_inbound inbound)
{
    struct session_sm *sm = session->sm;
    if (inbound.recorded && sm->kept)
        row_set(&sm->proof, inbound.number - 1);
    (void)xy_sm_in_done(&sm->counters, inbound.number - 1);
    proof_go_on(session);
}

/* --- what a restart interrupted ------------------------------------------------------------------------------------ */

bool proof_seen(struct session *session, struct session_inbound *inbound)
{
    struct session_proof *proof = session->sm ? &session->sm->proof : NULL;
    if (proof == NULL || inbound->number == 0)
        return false;
    if (held_seen(session, inbound))
        return true;
    while (proof->seen_next < proof->seen_count && proof->seen[proof->seen_next].number < inbound->number)
        proof->seen_next++;
    if (proof->seen_next == proof->seen_count) {
        free(proof->seen);
        proof->seen = NULL;
        proof->seen_next = proof->seen_count = 0;
        return false;
    }
    const struct session_seen *seen = &proof->seen[proof->seen_next];
    if (seen->number != inbound->number || seen->what != inbound->what)
        return false;
    inbound->recorded = true;
    return true;
}

enum entry_kind proof_answer(struct session *session, const struct session_inbound *inbound,
                             const struct xy_bytes *answer)
{
    struct shard *shard = session->shard;
    if (!session->sm || inbound->number == 0)
        return ENTRY_STANZA;
    if (!session->sm->kept)
        return ENTRY_HELD;
    if (inbound->recorded)
        return ENTRY_ANSWER;
    if (answer->len > SESSION_ANSWER_MAX || !store_room(shard->store, answer->len))
        return ENTRY_HELD;
    Xylem__Store__V1__SessionIn in = XYLEM__STORE__V1__SESSION_IN__INIT;
    in.id = (ProtobufCBinaryData){ SESSION_ID_BYTES, session->sm->id };
    in.number = inbound->number;
    in.what = inbound->what;
    in.answer = (ProtobufCBinaryData){ answer->len, (uint8_t *)(uintptr_t)answer->data };
    store_append_lazy(shard->store, RECORD_SESSION_IN, &in.base);
    return ENTRY_ANSWER;
}

void proof_answer_acked(struct session_proof *proof, uint64_t number)
{
    xy_assert(proof->answers_pending > 0);
    proof->answers_pending--;
    if (number > proof->answers_acked)
        proof->answers_acked = number;
}

void proof_end(struct session *session)
{
    session->sm->kept = false;
    held_adopt(session);
    proof_go_on(session);
}

void proof_free(struct session_sm *sm)
{
    if (sm == NULL)
        return;
    free(sm->proof.seen);
    held_free(&sm->held);
}
