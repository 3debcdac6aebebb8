/* The sessions of a shard: their slots, the end of its turns, and its start and stop. */
#include "broker/session/session_internal.h"

#include <stdlib.h>

#include "broker/config.h"
#include "core/base/assert.h"

/* --- slots -------------------------------------------------------------------------------------------------------- */

struct session *session_find(struct shard *shard, struct session_ref ref)
{
    const struct sessions *sessions = shard->sessions;
    if (ref.index >= sessions->slots_count || ref.shard != shard->index)
        return NULL;
    const struct slot *slot = &sessions->slots[ref.index];
    return slot->generation == ref.generation ? slot->session : NULL;
}

static bool slots_grow(struct sessions *sessions)
{
    uint32_t cap = sessions->slots_cap ? 2 * sessions->slots_cap : 256;
    struct slot *slots = realloc(sessions->slots, cap * sizeof(struct slot));
    if (slots == NULL)
        return false;
    sessions->slots = slots;
    sessions->slots_cap = cap;
    return true;
}

bool session_slot_take(struct sessions *sessions, struct session *session)
{
    uint32_t index;
    if (sessions->free_first != 0) {
        index = sessions->free_first - 1;
        sessions->free_first = sessions->slots[index].next_free;
    } else {
        if (sessions->slots_count == sessions->slots_cap && !slots_grow(sessions))
            return false;
        index = sessions->slots_count++;
        sessions->slots[index].generation = 1;
    }
    sessions->slots[index].session = session;
    session->ref = (struct session_ref){ index, sessions->slots[index].generation, session->shard->index };
    return true;
}

void session_slot_give(struct sessions *sessions, struct session *session)
{
    struct slot *slot = &sessions->slots[session->ref.index];
    xy_assert(slot->session == session);
    slot->session = NULL;
    slot->generation = slot->generation == UINT32_MAX ? 1 : slot->generation + 1;
    slot->next_free = sessions->free_first;
    sessions->free_first = session->ref.index + 1;
}

/* --- the end of a turn ---------------------------------------------------------------------------------------------- */

static void ended_free(struct shard *shard)
{
    struct sessions *sessions = shard->sessions;
    while (sessions->buried_count > 0)
        xy_stream_free(&sessions->buried[--sessions->buried_count]);
    xy_list_each (entry, &sessions->ended) {
        struct session *session = xy_container_of(entry, struct session, dirty);
        xy_list_remove(entry);
        xy_stream_free(&session->stream);
        xy_bytes_unref(&session->jid_bytes);
        xy_bytes_unref(&session->to);
        free(session->claims);
        proof_free(session->sm);
        free(session->sm);
        free(session->sm_asked);
        free(session);
        sessions->open--;
    }
}

/* Last thing of a turn: everything that gathered for a session leaves in one write. */
static void on_turn_end(struct shard *shard, void *ctx)
{
    struct sessions *sessions = ctx;
    struct xy_list now;
    xy_list_init(&now);
    while (
        !xy_list_empty(&sessions->dirty)) { /* flushing may make others dirty: those are of the next turn */
        struct xy_list *entry = sessions->dirty.next;
        xy_list_remove(entry);
        xy_list_append(&now, entry);
    }
    while (!xy_list_empty(&now)) {
        struct session *session = xy_container_of(now.next, struct session, dirty);
        xy_list_remove(now.next);
        outbox_flush(session);
    }
    if (!xy_list_empty(&sessions->dirty))
        shard_again(shard);
    ended_free(shard);
}

/* --- start and stop ------------------------------------------------------------------------------------------------- */

bool sessions_init(struct shard *shard)
{
    struct sessions *sessions = calloc(1, sizeof(*sessions));
    if (sessions == NULL)
        return false;
    shard->sessions = sessions;
    xy_list_init(&sessions->dirty);
    xy_list_init(&sessions->ended);
    sessions->chunks.spare_max = 1024;
    const struct config *config = shard->config;
    sessions->stream_options = (struct xy_stream_options){
        .env = shard->env,
        .arenas = shard->arenas,
        .spans = shard->spans,
        .stanza_bytes_max = config->limits.stanza_size,
        .idle_seconds = (uint32_t)(config->limits.idle_timeout_ms / 1000),
        .auth_tries_max = (unsigned)config->limits.auth_failures,
        .sasl_secret = shard->secret,
    };
    shard->link_events = &session_link_events;
    session_set_calls(shard, &session_room_calls);
    shard_at_turn_end(shard, on_turn_end, sessions);
    return true;
}

void sessions_reload(struct shard *shard)
{
    const struct config *config = shard->config;
    struct xy_stream_options *options = &shard->sessions->stream_options;
    options->stanza_bytes_max = config->limits.stanza_size;
    options->idle_seconds = (uint32_t)(config->limits.idle_timeout_ms / 1000);
    options->auth_tries_max = (unsigned)config->limits.auth_failures;
}

void sessions_quiesce(struct shard *shard)
{
    struct sessions *sessions = shard->sessions;
    sessions->quiescing = true;
    for (uint32_t i = 0; i < sessions->slots_count; i++) {
        struct session *session = sessions->slots[i].session;
        if (session && session->link)
            session->link->calls->read_pause(session->link, true);
        if (session && session->waiting)
            waiting_give_up(session);
    }
}

bool sessions_quiet(struct shard *shard)
{
    const struct sessions *sessions = shard->sessions;
    bool quiet = true;
    for (uint32_t i = 0; i < sessions->slots_count; i++) {
        struct session *session = sessions->slots[i].session;
        if (session && (session->inflight > 0 || !proof_complete(session)))
            quiet = false;
    }
    return quiet;
}

void sessions_shutdown(struct shard *shard)
{
    struct sessions *sessions = shard->sessions;
    sessions->stopping = true;
    for (uint32_t i = 0; i < sessions->slots_count; i++) {
        if (sessions->slots[i].session)
            session_fail(sessions->slots[i].session, XY_STREAM_SYSTEM_SHUTDOWN, "the broker is stopping");
    }
}

void sessions_end_all(struct shard *shard)
{
    struct sessions *sessions = shard->sessions;
    for (uint32_t i = 0; i < sessions->slots_count; i++) {
        if (sessions->slots[i].session)
            session_end(sessions->slots[i].session);
    }
}

void sessions_free(struct shard *shard)
{
    struct sessions *sessions = shard->sessions;
    if (sessions == NULL)
        return;
    sessions_end_all(shard);
    ended_free(shard);
    xy_assert(sessions->open == 0);
    xy_sm_pool_free(&sessions->chunks);
    xy_buf_free(&sessions->scratch);
    xy_buf_free(&sessions->runs);
    free(sessions->buried);
    free(sessions->slots);
    free(sessions);
    shard->sessions = NULL;
}
