/* Publishes that wait on disk: the spool hands its records to request.c, a window's worth at a time, and learns from the
 * answers what is done. publish.c forms the records, client.c gives turns, sdk/spool keeps them.
 *
 * A record is the whole payload of the request, publish-id included, so that sending it again says the same. The broker tells
 * doubles only within PUBLISH_WINDOW numbers of a stream: nothing is sent further ahead of the oldest record that a loss of
 * power would bring back. A retract is known as done on disk before anything behind it is sent: sent again later, it would
 * take away a newer item of the same id. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/namespaces.h"
#include "sdk/spool/spool.h"
#include "sdk/src/client.h"

#define MARKS_AFTER_US 100000u /* what is done is on disk this long after the first mark, at the latest */
#define RETRY_MIN_MS   250u    /* after a refusal for a shortage … */
#define RETRY_MAX_MS   30000u
#define RETRACT_START  "<pubsub xmlns='" NS_PUBSUB "'><retract"

/* Of one record, while it is sent or somebody waits for it. */
struct spooled {
    uint64_t number;
    xylem_done_fn *done;
    void *ctx;
    bool sent, former; /* former: of a run before this one */
    char *node, *id;   /* former ones only, for on_spooled */
};

struct xy_spooling {
    struct xy_spool *spool;
    enum xylem_spool_sync sync;
    uint64_t next;       /* the first that was not handed over, or came back */
    uint64_t synced_end; /* records before it are on disk */
    uint64_t former_end; /* records before it are of a former run */
    unsigned on_way;
    uint64_t marks_due_us; /* UINT64_MAX: nothing to sync */
    uint64_t retry_at_us;  /* 0: not waiting */
    struct xy_backoff backoff;
    struct xy_buf record;
};

static struct xy_str owner_text(const struct xylem_client *c, struct xy_buf *out)
{
    const struct xylem_options *o = &c->config.o;
    xy_buf_printf(out, "%.*s\n%s", XY_ARG(xy_jid_bare(c->config.jid)), o->service ? o->service : "");
    return xy_buf_view(out);
}

enum xylem_status xy_spooling_open(struct xylem_client *c, char *error, size_t error_size)
{
    const struct xylem_options *o = &c->config.o;
    char ignored[1];
    if (!o->spool_dir)
        return XYLEM_OK;
    struct xy_spooling *s = calloc(1, sizeof *s);
    struct xy_buf owner = { 0 };
    if (!s)
        return XYLEM_NO_MEMORY;
    struct xy_spool_options options = { .folder = o->spool_dir,
                                        .owner = owner_text(c, &owner),
                                        .bytes_max = o->spool_bytes_max };
    s->spool = xy_spool_open(&options, error ? error : ignored, error ? error_size : sizeof ignored);
    xy_buf_free(&owner);
    if (!s->spool) {
        free(s);
        return XYLEM_STORAGE;
    }
    s->sync = o->spool_sync;
    s->next = xy_spool_first(s->spool);
    s->synced_end = s->former_end = xy_spool_end(s->spool);
    s->marks_due_us = UINT64_MAX;
    xy_backoff_init(&s->backoff, RETRY_MIN_MS, RETRY_MAX_MS);
    c->spooling = s;
    return XYLEM_OK;
}

static void spooled_free(struct spooled *p)
{
    if (p) {
        free(p->node);
        free(p->id);
    }
    free(p);
}

void xy_spooling_free(struct xylem_client *c)
{
    struct xy_spooling *s = c->spooling;
    if (!s)
        return;
    (void)(s->sync != XYLEM_SPOOL_SYNC_NEVER &&
           xy_spool_sync(s->spool)); /* marks; they are not owed to anybody */
    for (uint64_t number = xy_spool_first(s->spool); number < xy_spool_end(s->spool); number++)
        spooled_free(xy_spool_tag(s->spool, number));
    xy_spool_close(&s->spool);
    xy_buf_free(&s->record);
    free(s);
    c->spooling = NULL;
}

uint64_t xy_spooling_pending(const struct xylem_client *c)
{
    return c->spooling ? xy_spool_pending(c->spooling->spool) : 0;
}

uint64_t xy_spooling_bytes(const struct xylem_client *c)
{
    return c->spooling ? xy_spool_bytes(c->spooling->spool) : 0;
}

/* --- to disk --- */

static bool sync_now(struct xy_spooling *s)
{
    s->marks_due_us = UINT64_MAX;
    if (!xy_spool_sync(s->spool))
        return false;
    s->synced_end = xy_spool_end(s->spool);
    return true;
}

static enum xylem_status broken(struct xylem_client *c)
{
    xy_client_error(c, "spool_dir %s cannot be written: nothing more is taken until the client is made anew",
                    c->config.o.spool_dir);
    return XYLEM_STORAGE;
}

enum xylem_status xylem_spool_sync(struct xylem_client *c)
{
    if (!c->spooling) {
        xy_client_error(c, "there is no spool: set spool_dir");
        return XYLEM_WRONG_STATE;
    }
    return sync_now(c->spooling) ? XYLEM_OK : broken(c);
}

bool xy_spooling_has_room(const struct xylem_client *c, size_t bytes)
{
    return xy_spool_has_room(c->spooling->spool, bytes);
}

static enum xylem_status not_taken(struct xylem_client *c, enum xy_spool_status why)
{
    if (why == XY_SPOOL_NO_MEMORY)
        return XYLEM_NO_MEMORY;
    if (why == XY_SPOOL_FAILED)
        return broken(c);
    c->full_said = true;
    xy_client_error(
        c, "the spool is full: wait for on_room, make room on the disk of %s, or raise spool_bytes_max",
        c->config.o.spool_dir);
    return XYLEM_FULL;
}

enum xylem_status xy_spooling_add(struct xylem_client *c, struct xy_str record, xylem_done_fn *done,
                                  void *ctx)
{
    struct xy_spooling *s = c->spooling;
    struct spooled *p = done ? calloc(1, sizeof *p) : NULL;
    uint64_t number;
    if (done && !p)
        return XYLEM_NO_MEMORY;
    enum xy_spool_status added = xy_spool_add(s->spool, record, p, &number);
    if (added != XY_SPOOL_OK) {
        free(p);
        return not_taken(c, added);
    }
    if (s->sync == XYLEM_SPOOL_SYNC_EACH && !sync_now(s)) {
        xy_spool_set_tag(s->spool, number, NULL); /* it is not sent either: synced_end stays before it */
        free(p);
        return broken(c);
    }
    if (p)
        *p = (struct spooled){ .number = number, .done = done, .ctx = ctx };
    if (s->marks_due_us == UINT64_MAX)
        s->marks_due_us = xy_client_now(c) + MARKS_AFTER_US;
    xy_client_wake(c);
    return XYLEM_OK;
}

/* --- answers --- */

static void tell_former(struct xylem_client *c, const struct spooled *p, const struct xylem_result *result)
{
    const struct xylem_options *o = &c->config.o;
    struct xylem_item item = { .node = p->node ? p->node : "", .id = p->id };
    if (o->on_spooled)
        o->on_spooled(c, &item, result, o->ctx);
}

/* The record stays and goes again; `later`: the broker asked to wait. */
static void comes_back(struct xylem_client *c, struct spooled *p, bool later)
{
    struct xy_spooling *s = c->spooling;
    p->sent = false;
    if (p->number < s->next)
        s->next = p->number;
    if (later && s->retry_at_us == 0)
        s->retry_at_us = xy_client_now(c) + xy_backoff_next_us(&s->backoff, c->env);
}

static bool is_over(const struct xy_reply *reply)
{
    return reply->stanza && xylem_status_class(reply->status) != XYLEM_CLASS_RETRY;
}

static void answered(struct xylem_client *c, const struct xy_reply *reply, void *owner)
{
    struct spooled *p = owner;
    struct xy_spooling *s = c->spooling;
    xy_assert(p->sent && s->on_way > 0);
    s->on_way--;
    if (!is_over(reply)) {
        comes_back(c, p, reply->stanza != NULL);
        return;
    }
    if (reply->status == XYLEM_OK)
        c->stats.acknowledged++;
    else
        c->stats.refused++;
    xy_backoff_reset(&s->backoff);
    xy_spool_done(s->spool, p->number);
    if (s->marks_due_us == UINT64_MAX)
        s->marks_due_us = xy_client_now(c) + MARKS_AFTER_US;
    struct xylem_result result = { .status = reply->status,
                                   .text = reply->text,
                                   .condition = reply->condition,
                                   .item_id = xy_publish_item_id(reply->stanza) };
    if (p->done)
        p->done(c, &result, p->ctx);
    else if (p->former)
        tell_former(c, p, &result);
    spooled_free(p);
}

static void retract_answered(struct xylem_client *c, const struct xy_reply *reply, void *owner)
{
    answered(c, reply, owner);
    if (is_over(reply) && c->spooling->sync != XYLEM_SPOOL_SYNC_NEVER)
        sync_now(c->spooling); /* before what waits behind it is sent: see the top of this file */
}

/* --- to the broker --- */

static char *attr_copy(const struct xy_elem *e, const char *name)
{
    struct xy_str value = e ? xy_elem_attr(e, name) : XY_STR_NONE;
    return xy_str_present(value) ? strndup(value.data, value.len) : NULL;
}

/* What a record of a former run was about, for on_spooled. */
static void describe(struct spooled *p, struct xy_str record)
{
    struct xy_arena *arena;
    const struct xy_elem *pubsub = xy_fragment_parse(record, &arena);
    const struct xy_elem *what = pubsub ? xy_elem_first(pubsub) : NULL;
    p->node = attr_copy(what, "node");
    p->id = attr_copy(what ? xy_elem_first(what) : NULL, "id");
    xy_arena_free(&arena);
}

static struct spooled *tag_of(struct xylem_client *c, uint64_t number)
{
    struct xy_spooling *s = c->spooling;
    struct spooled *p = xy_spool_tag(s->spool, number);
    if (p)
        return p;
    p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->number = number;
    p->former = number < s->former_end;
    xy_spool_set_tag(s->spool, number, p);
    return p;
}

static bool hand_over(struct xylem_client *c, uint64_t number)
{
    struct xy_spooling *s = c->spooling;
    struct spooled *p = tag_of(c, number);
    if (!p)
        return false; /* memory is short: in a later turn */
    if (p->sent)
        return true;
    if (!xy_spool_read(s->spool, number, &s->record)) {
        xy_client_error(c, "spool_dir %s: a publish that was stored cannot be read", c->config.o.spool_dir);
        xy_client_give_up(c, XYLEM_STORAGE);
        return false;
    }
    struct xy_str record = xy_buf_view(&s->record);
    bool retract = xy_str_starts(record, XY_STR(RETRACT_START));
    if (p->former && c->config.o.on_spooled && !p->node)
        describe(p, record);
    struct xy_request_spec spec = {
        .flags = XY_REQUEST_SET | XY_REQUEST_SERVICE | XY_REQUEST_PUBLISH | XY_REQUEST_SPOOLED |
                 (retract ? XY_REQUEST_RETRACT : 0) | (p->former ? XY_REQUEST_AGAIN : 0),
        .payload = record,
        .on_reply = retract ? retract_answered : answered,
        .owner = p,
    };
    if (xy_request(c, &spec) != XYLEM_OK)
        return false;
    p->sent = true;
    s->on_way++;
    return true;
}

/* What may be sent now ends here. */
static uint64_t window_end(const struct xylem_client *c)
{
    const struct xy_spooling *s = c->spooling;
    bool never = s->sync == XYLEM_SPOOL_SYNC_NEVER;
    uint64_t floor = never ? xy_spool_first(s->spool) : xy_spool_floor(s->spool);
    uint64_t end = never ? xy_spool_end(s->spool) : s->synced_end;
    uint64_t window = floor + c->config.o.publish_window;
    return window < end ? window : end;
}

void xy_spooling_sync_if_due(struct xylem_client *c)
{
    struct xy_spooling *s = c->spooling;
    if (!s || s->sync == XYLEM_SPOOL_SYNC_NEVER || xy_spool_unsynced(s->spool) == 0)
        return;
    bool added = s->sync == XYLEM_SPOOL_SYNC_TURN && s->synced_end < xy_spool_end(s->spool);
    bool narrow = xy_spool_first(s->spool) - xy_spool_floor(s->spool) >= c->config.o.publish_window / 2;
    if (!(added || narrow || xy_client_now(c) >= s->marks_due_us) || sync_now(s))
        return;
    enum xylem_status why = broken(c);
    if (c->state != XYLEM_STATE_STOPPED)
        xy_client_give_up(c, why);
}

void xy_spooling_pump(struct xylem_client *c)
{
    struct xy_spooling *s = c->spooling;
    if (!s)
        return;
    if (s->retry_at_us && (s->on_way > 0 || xy_client_now(c) < s->retry_at_us))
        return;
    s->retry_at_us = 0;
    if (s->next < xy_spool_first(s->spool))
        s->next = xy_spool_first(s->spool);
    while (c->state != XYLEM_STATE_STOPPED && s->next < window_end(c) &&
           (xy_spool_is_done(s->spool, s->next) || hand_over(c, s->next)))
        s->next++;
}

uint64_t xy_spooling_deadline_us(const struct xylem_client *c)
{
    const struct xy_spooling *s = c->spooling;
    if (!s)
        return UINT64_MAX;
    uint64_t due = s->marks_due_us;
    if (s->sync == XYLEM_SPOOL_SYNC_NEVER)
        due = UINT64_MAX;
    if (s->retry_at_us && s->on_way == 0 && s->retry_at_us < due && c->state == XYLEM_STATE_ONLINE)
        due = s->retry_at_us;
    return due;
}
