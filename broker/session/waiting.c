/* What waits in front of a session's outbox: IQs whose senders are braked while it is full, and presence, of which only
 * the newest of each sender counts, while it is full or its client inactive (XEP-0352).
 *
 * Made when something has to wait, gone when nothing does, so that other sessions do not pay. Called by the calls of
 * session.c, by the outbox when there is room again, and by resume.c and session.c when connections and sessions end. */
#include <stdlib.h>

#include "broker/config.h"
#include "broker/session/session_internal.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"
#include "core/base/table.h"

struct offer {
    struct xy_list link;
    struct xy_bytes *bytes;
    session_offer_fn *done;
    void *ctx;
    uint64_t due_us;
};

struct latest { /* presence of one sender */
    struct xy_list link;
    struct xy_bytes *bytes;
    struct xy_str from; /* in `bytes`, as written there */
};

struct waiting {
    struct session *session;
    struct xy_list offers; /* oldest first */
    size_t offers_count, offers_bytes;
    struct shard_timer patience; /* of the oldest offer */
    struct xy_list presence;     /* oldest first */
    struct xy_table *senders;    /* by latest.from */
};

static void on_patience(struct shard *shard, struct shard_timer *timer);

static struct waiting *waiting_of(struct session *session)
{
    struct waiting *waiting = session->waiting;
    if (waiting)
        return waiting;
    waiting = calloc(1, sizeof(*waiting));
    if (!waiting)
        return NULL;
    waiting->session = session;
    waiting->patience.fn = on_patience;
    xy_list_init(&waiting->offers);
    xy_list_init(&waiting->presence);
    session->waiting = waiting;
    return waiting;
}

static void free_if_empty(struct session *session)
{
    struct waiting *waiting = session->waiting;
    if (!waiting || !xy_list_empty(&waiting->offers) || !xy_list_empty(&waiting->presence))
        return;
    session->waiting = NULL;
    shard_timer_cancel(session->shard, &waiting->patience);
    xy_table_free(&waiting->senders);
    free(waiting);
}

/* --- IQs ------------------------------------------------------------------------------------------------------------- */

bool waiting_brakes(const struct session *session)
{
    return session->waiting && session->waiting->offers_count > 0;
}

static void watch_oldest(struct waiting *waiting)
{
    struct shard *shard = waiting->session->shard;
    const struct offer *oldest = xy_container_of(waiting->offers.next, struct offer, link);
    if (xy_list_empty(&waiting->offers))
        shard_timer_cancel(shard, &waiting->patience);
    else /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what is freed has left its list */
        shard_timer_set(shard, &waiting->patience, oldest->due_us);
}

static void offer_end(struct waiting *waiting, struct offer *offer, enum session_verdict verdict)
{
    xy_list_remove(&offer->link);
    waiting->offers_count--;
    waiting->offers_bytes -= offer->bytes ? offer->bytes->len : 0;
    xy_bytes_unref(&offer->bytes);
    offer->done(waiting->session->shard, verdict, offer->ctx);
    free(offer);
}

bool waiting_offer(struct session *session, struct xy_bytes **bytes, session_offer_fn *done, void *ctx)
{
    struct shard *shard = session->shard;
    struct waiting *waiting = waiting_of(session);
    bool room = waiting && waiting->offers_count < SESSION_OFFERS_MAX &&
                waiting->offers_bytes + (*bytes)->len <= SESSION_OFFERS_BYTES_MAX;
    struct offer *offer = room ? calloc(1, sizeof(*offer)) : NULL;
    if (!offer) {
        free_if_empty(session);
        return false;
    }
    stat_add(shard, offers_waited, 1);
    *offer = (struct offer){ .bytes = *bytes, .done = done, .ctx = ctx };
    offer->due_us = xy_now_us(shard->env) + SESSION_PATIENCE_US;
    *bytes = NULL;
    waiting->offers_count++;
    waiting->offers_bytes += offer->bytes->len;
    xy_list_append(&waiting->offers, &offer->link);
    watch_oldest(waiting);
    return true;
}

static void on_patience(struct shard *shard, struct shard_timer *timer)
{
    struct waiting *waiting = xy_container_of(timer, struct waiting, patience);
    uint64_t now_us = xy_now_us(shard->env);
    xy_list_each (link, &waiting->offers) {
        struct offer *offer = xy_container_of(link, struct offer, link);
        if (offer->due_us > now_us)
            break;
        stat_add(shard, outbox_full, 1);
        offer_end(waiting, offer, SESSION_FULL);
    }
    watch_oldest(waiting);
    free_if_empty(waiting->session);
}

static void offers_go_on(struct waiting *waiting)
{
    struct session *session = waiting->session;
    xy_list_each (link, &waiting->offers) {
        struct offer *offer = xy_container_of(link, struct offer, link);
        size_t len = offer->bytes->len;
        if (outbox_full(session) || !outbox_push(session, &offer->bytes, ENTRY_STANZA, ENTRY_NO_CLAIM, 0))
            break;
        waiting->offers_bytes -= len;
        offer_end(waiting, offer, SESSION_TOOK);
    }
    watch_oldest(waiting);
}

/* --- presence ---------------------------------------------------------------------------------------------------------- */

/* The value of `from` as the writer put it: escaped, so without quotes and `>`. */
static struct xy_str sender_of(const struct xy_bytes *presence)
{
    static const char name[] = " from='";
    const char *end = memchr(presence->data, '>', presence->len);
    size_t len = end ? (size_t)(end - presence->data) : 0;
    const char *at = len > 0 ? memmem(presence->data, len, name, sizeof(name) - 1) : NULL;
    const char *from = at ? at + sizeof(name) - 1 : NULL;
    const char *quote = from ? memchr(from, '\'', len - (size_t)(from - presence->data)) : NULL;
    return quote ? xy_str_n(from, (size_t)(quote - from)) : XY_STR_NONE;
}

static void latest_free(struct waiting *waiting, struct latest *latest)
{
    xy_table_remove(waiting->senders, latest->from);
    xy_list_remove(&latest->link);
    xy_bytes_unref(&latest->bytes);
    free(latest);
}

static void presence_go(struct waiting *waiting)
{
    xy_list_each (link, &waiting->presence) {
        struct latest *latest = xy_container_of(link, struct latest, link);
        struct xy_bytes *bytes = xy_bytes_ref(latest->bytes);
        outbox_push(waiting->session, &bytes, ENTRY_STANZA, ENTRY_NO_CLAIM, 0);
        xy_bytes_unref(&bytes);
        latest_free(waiting, latest);
    }
}

/* More senders than are kept: an inactive client gets what there is, one that does not read loses the oldest. */
static void presence_make_room(struct waiting *waiting)
{
    if (xy_table_count(waiting->senders) < SESSION_PRESENCE_MAX)
        return;
    if (!outbox_full(waiting->session)) {
        presence_go(waiting);
        return;
    }
    stat_add(waiting->session->shard, presence_dropped, 1);
    latest_free(waiting, xy_container_of(waiting->presence.next, struct latest, link));
}

bool waiting_presence(struct session *session, struct xy_bytes **bytes)
{
    struct xy_str from = sender_of(*bytes);
    struct waiting *waiting = from.data ? waiting_of(session) : NULL;
    if (!waiting)
        return false;
    if (!waiting->senders)
        waiting->senders = xy_table_new((uint64_t)(uintptr_t)session ^ session->last_input_us);
    struct latest *latest = waiting->senders ? calloc(1, sizeof(*latest)) : NULL;
    struct latest *old = latest ? xy_table_get(waiting->senders, from) : NULL;
    if (latest) {
        *latest = (struct latest){ .bytes = *bytes, .from = from };
        if (old)
            latest_free(waiting, old);
        else
            presence_make_room(waiting);
    }
    if (!latest || !xy_table_put(waiting->senders, latest->from, latest, NULL)) {
        free(latest);
        free_if_empty(session);
        return false;
    }
    xy_list_append(&waiting->presence, &latest->link);
    *bytes = NULL;
    return true;
}

void waiting_presence_first(struct session *session)
{
    presence_go(session->waiting);
    free_if_empty(session);
}

/* --- both --------------------------------------------------------------------------------------------------------------- */

void waiting_room(struct session *session)
{
    if (session->state == SESSION_ENDED || outbox_full(session))
        return;
    if (!session->inactive)
        presence_go(session->waiting);
    offers_go_on(session->waiting);
    free_if_empty(session);
}

static void offers_end(struct waiting *waiting, enum session_verdict verdict)
{
    xy_list_each (link, &waiting->offers)
        offer_end(waiting, xy_container_of(link, struct offer, link), verdict);
    shard_timer_cancel(waiting->session->shard, &waiting->patience);
}

void waiting_give_up(struct session *session)
{
    offers_end(session->waiting, SESSION_FULL);
    free_if_empty(session);
}

void waiting_end(struct session *session)
{
    struct waiting *waiting = session->waiting;
    offers_end(waiting, SESSION_GONE);
    xy_list_each (link, &waiting->presence)
        latest_free(waiting, xy_container_of(link, struct latest, link));
    free_if_empty(session);
    xy_assert(session->waiting == NULL);
}
