/* How a request ends: what is answered, when, and what becomes of its arena. Answers are serialised before they wait
 * for a commit, so a waiting answer holds its bytes and no tree. */
#include "broker/router/request.h"

#include "broker/delivery/sessions.h"
#include "broker/router/router.h"
#include "broker/shard/stats.h"
#include "broker/store/store.h"
#include "core/base/assert.h"
#include "core/base/table.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "xylem/store/v1/records.pb-c.h"

struct request *request_new(struct xy_stanza stanza, struct session_ref origin,
                            struct session_inbound inbound)
{
    struct request *request = xy_arena_zalloc(stanza.arena, sizeof(*request));
    if (request == NULL)
        return NULL;
    request->stanza = stanza;
    request->origin = origin;
    request->inbound = inbound;
    request->assured = inbound.number != 0;
    return request;
}

/* --- what is known of it after a crash ----------------------------------------------------------------------------- */

uint32_t request_digest(const struct xy_stanza *stanza)
{
    struct xy_str to = xy_jid_present(stanza->to) ? xy_jid_full(stanza->to) : XY_STR_NONE;
    uint64_t seed = (uint64_t)stanza->kind << 32 | (uint64_t)stanza->type;
    uint64_t digest = xy_hash(to, xy_hash(stanza->id, seed));
    return (uint32_t)(digest ^ digest >> 32);
}

static uint64_t record(struct shard *shard, struct request *request, const struct xy_bytes *answer)
{
    Xylem__Store__V1__SessionIn in = XYLEM__STORE__V1__SESSION_IN__INIT;
    in.id = (ProtobufCBinaryData){ SESSION_ID_BYTES, request->session };
    in.number = request->inbound.number;
    in.what = request->inbound.what;
    if (answer)
        in.answer = (ProtobufCBinaryData){ answer->len, (uint8_t *)(uintptr_t)answer->data };
    request->inbound.recorded = true;
    return store_append(shard->store, RECORD_SESSION_IN, &in.base);
}

static bool is_recordable(const struct request *request)
{
    return request->kept && request->inbound.number != 0 && !request->inbound.recorded;
}

void request_record(struct shard *shard, struct request *request)
{
    if (is_recordable(request))
        (void)record(shard, request, NULL);
}

static struct xy_elem *result_of(struct request *request, struct xy_elem *result)
{
    if (result == NULL)
        result = xy_stanza_result(request->stanza.arena, &request->stanza);
    return result != NULL && request->wrap != NULL ? request->wrap(request, result) : result;
}

void request_record_answer(struct shard *shard, struct request *request, struct xy_elem *answer)
{
    if (!is_recordable(request))
        return;
    struct xy_elem *result = result_of(request, answer);
    struct xy_bytes *bytes = result ? xy_xml_bytes(result, XY_STR(NS_CLIENT)) : NULL;
    if (bytes)
        (void)record(shard, request, bytes);
    xy_bytes_unref(&bytes);
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

struct ending {
    struct session_ref origin;
    struct xy_bytes *answer; /* NULL: none */
    struct session_inbound inbound;
};

/* The answer first, then the count: a session that learns h has its answer in the queue. */
static void ending_run(struct shard *shard, void *payload)
{
    struct ending *ending = payload;
    if (ending->answer)
        session_answer(shard, ending->origin, &ending->answer, ending->inbound);
    else
        session_handled(shard, ending->origin, ending->inbound);
}

static void on_arena(struct shard *shard, void *payload)
{
    xy_arena_pool_give(shard->arenas, payload);
}

/* Arenas go back to the shard of the sender, who will take the next from there: with senders here and owners there, one
 * pool would overflow and the other run dry. */
static void arena_return(struct shard *shard, struct session_ref origin, struct xy_arena *arena)
{
    if (session_ref_present(origin) && origin.shard != shard->index)
        shard_mail(shard, origin.shard, on_arena, &arena, sizeof(struct xy_arena *));
    else
        xy_arena_pool_give(shard->arenas, &arena);
}

struct telling {
    struct request_told told;
    enum xy_condition condition;
};

static void telling_run(struct shard *shard, void *payload)
{
    const struct telling *telling = payload;
    telling->told.fn(shard, telling->told.ctx, telling->condition);
}

static void request_tell(struct shard *shard, struct request **request, enum xy_condition condition,
                         uint64_t ticket)
{
    struct telling telling = { (*request)->told, condition };
    struct xy_arena *arena = (*request)->stanza.arena;
    *request = NULL;
    shard_when_committed(shard, ticket, telling_run, &telling, sizeof(telling));
    xy_arena_pool_give(shard->arenas, &arena);
}

enum outcome {
    OUTCOME_NOTHING, /* it changed nothing: it may be handled once more after a crash */
    OUTCOME_DONE,    /* what it asked for, with the records of `ticket` if these were appended just now */
    OUTCOME_FINAL,   /* refused once and for all */
};

static void request_finish(struct shard *shard, struct request **request_pointer,
                           const struct xy_elem *answer, uint64_t ticket, enum outcome outcome)
{
    struct request *request = *request_pointer;
    xy_assert(request != NULL);
    *request_pointer = NULL;
    struct ending ending = { .origin = request->origin };
    if (answer && session_ref_present(request->origin))
        ending.answer = xy_xml_bytes(answer, XY_STR(NS_CLIENT));
    else if (answer && xy_jid_present(request->stanza.from))
        router_send(shard, request->stanza.from, answer, ticket);
    bool joins = outcome == OUTCOME_DONE && ticket != 0 && store_joins(shard->store, ticket);
    if ((joins || outcome == OUTCOME_FINAL) && is_recordable(request))
        ticket = record(shard, request, ending.answer);
    ending.inbound = request->inbound;
    shard_when_committed(shard, ticket, ending_run, &ending, sizeof(ending));
    arena_return(shard, request->origin, request->stanza.arena); /* the request itself lives in it */
}

void request_reply(struct shard *shard, struct request **request, struct xy_elem *result, uint64_t ticket)
{
    const struct xy_stanza *stanza = &(*request)->stanza;
    if ((*request)->told.fn != NULL) {
        request_tell(shard, request, XY_NO_ERROR, ticket);
        return;
    }
    bool answered = stanza->kind == XY_IQ && (stanza->type == XY_GET || stanza->type == XY_SET);
    if (answered)
        result = result_of(*request, result);
    bool changed = stanza->kind != XY_IQ || stanza->type == XY_SET;
    request_finish(shard, request, answered ? result : NULL, ticket,
                   changed ? OUTCOME_DONE : OUTCOME_NOTHING);
}

static void refuse(struct shard *shard, struct request **request, const struct xy_error *error,
                   uint64_t ticket, enum outcome outcome)
{
    const struct xy_stanza *stanza = &(*request)->stanza;
    if ((*request)->told.fn != NULL) {
        request_tell(shard, request, error->condition, ticket);
        return;
    }
    struct xy_elem *answer = xy_error_reply(stanza->arena, stanza, error);
    if (answer)
        stat_add(shard, stanzas_refused, 1);
    request_finish(shard, request, answer, ticket, outcome);
}

void request_fail_after(struct shard *shard, struct request **request, const struct xy_error *error,
                        uint64_t ticket)
{
    refuse(shard, request, error, ticket, OUTCOME_NOTHING);
}

void request_fail_finally(struct shard *shard, struct request **request, const struct xy_error *error,
                          uint64_t ticket)
{
    refuse(shard, request, error, ticket, OUTCOME_FINAL);
}

void request_fail(struct shard *shard, struct request **request, const struct xy_error *error)
{
    request_fail_after(shard, request, error, 0);
}

void request_fail_with(struct shard *shard, struct request **request, enum xy_condition condition,
                       const char *text)
{
    struct xy_error error = xy_error_make(condition, text);
    request_fail_after(shard, request, &error, 0);
}

void request_end(struct shard *shard, struct request **request, uint64_t ticket)
{
    request_finish(shard, request, NULL, ticket, OUTCOME_DONE);
}

void request_forward(struct shard *shard, unsigned to, shard_fn *fn, struct request **request)
{
    shard_mail(shard, to, fn, request, sizeof(struct request *));
    *request = NULL;
}
