/* Events and routes on their way: the mail between the owners of nodes and the sessions of subscribers. */
#include "broker/delivery/delivery.h"

#include <stdlib.h>
#include <string.h>

#include "broker/delivery/sessions.h"
#include "broker/shard/mail_str.h"
#include "core/base/assert.h"

_Static_assert(sizeof(struct route) == 16, "a fan-out walks these");

/* --- shared objects ----------------------------------------------------------------------------------------------- */

struct event *event_new(struct xy_str service, struct xy_str body, uint64_t seq, uint64_t epoch)
{
    struct xy_bytes *bytes = xy_bytes_alloc(sizeof(struct event) + service.len + body.len);
    if (bytes == NULL)
        return NULL;
    struct event *event = event_of(bytes);
    *event = (struct event){
        .seq = seq, .epoch = epoch, .service_len = (uint32_t)service.len, .body_len = (uint32_t)body.len
    };
    memcpy(event->text, service.data, service.len);
    memcpy(event->text + service.len, body.data, body.len);
    return event;
}

_Static_assert(offsetof(struct xy_bytes, data) % _Alignof(struct event) == 0,
               "an event fits into shared bytes");

struct event *event_of(struct xy_bytes *bytes)
{
    return (struct event *)(void *)bytes->data;
}

struct xy_bytes *event_bytes(struct event *event)
{
    return xy_container_of(event, struct xy_bytes, data);
}

struct event *event_ref(struct event *event)
{
    xy_bytes_ref(event_bytes(event));
    return event;
}

void event_unref(struct event **event)
{
    if (*event == NULL)
        return;
    struct xy_bytes *bytes = event_bytes(*event);
    *event = NULL;
    xy_bytes_unref(&bytes);
}

struct routes *routes_new(uint32_t count)
{
    struct routes *routes = malloc(sizeof(*routes) + count * sizeof(struct route));
    if (routes == NULL)
        return NULL;
    atomic_init(&routes->refs, 1);
    routes->count = count;
    return routes;
}

void routes_unref(struct routes **routes_pointer)
{
    struct routes *routes = *routes_pointer;
    *routes_pointer = NULL;
    if (routes && atomic_fetch_sub_explicit(&routes->refs, 1, memory_order_acq_rel) == 1)
        free(routes);
}

/* --- owner to session --------------------------------------------------------------------------------------------- */

struct publish_mail {
    struct event *event;
    struct routes *routes;
};

static void on_publish(struct shard *shard, void *payload)
{
    struct publish_mail *mail = payload;
    shard->session_calls->publish(shard, mail->event, mail->routes);
    event_unref(&mail->event);
    routes_unref(&mail->routes);
}

void delivery_publish(struct shard *shard, unsigned to, struct event *event, struct routes *routes)
{
    struct publish_mail mail = { event, routes };
    shard_mail(shard, to, on_publish, &mail, sizeof(mail));
}

struct one_mail {
    struct session_ref session;
    struct event *event;
    uint32_t claim;
    uint32_t attempt;
    uint16_t run;
    bool page_end;
};

static void on_one(struct shard *shard, void *payload)
{
    struct one_mail *mail = payload;
    if (mail->claim == DELIVERY_NO_CLAIM)
        shard->session_calls->notify(shard, mail->session, mail->event);
    else
        shard->session_calls->one(shard, mail->session, mail->claim, mail->run, mail->event, mail->attempt,
                                  mail->page_end);
    event_unref(&mail->event);
}

void delivery_notify(struct shard *shard, struct session_ref session, struct event *event)
{
    struct one_mail mail = { .session = session, .event = event, .claim = DELIVERY_NO_CLAIM };
    shard_mail(shard, session.shard, on_one, &mail, sizeof(mail));
}

void delivery_one(struct shard *shard, struct session_ref session, uint32_t claim, uint16_t run,
                  struct event *event, uint32_t attempt, bool page_end)
{
    xy_assert(claim != DELIVERY_NO_CLAIM && attempt >= 1);
    struct one_mail mail = { session, event, claim, attempt, run, page_end };
    shard_mail(shard, session.shard, on_one, &mail, sizeof(mail));
}

#define SUBID_MAX 64

struct attach_mail {
    struct session_ref session;
    struct claim_key key;
    unsigned flags;
    uint32_t subid_len;
    char subid[SUBID_MAX];
};

static void on_attach(struct shard *shard, void *payload)
{
    struct attach_mail *mail = payload;
    shard->session_calls->attach(shard, mail->session, &mail->key, mail->flags,
                                 xy_str_n(mail->subid, mail->subid_len));
}

void delivery_attach(struct shard *shard, struct session_ref session, struct claim_key key, unsigned flags,
                     struct xy_str subid)
{
    xy_assert(subid.len <= SUBID_MAX);
    struct attach_mail mail = {
        .session = session, .key = key, .flags = flags, .subid_len = (uint32_t)subid.len
    };
    if (subid.len)
        memcpy(mail.subid, subid.data, subid.len);
    shard_mail(shard, session.shard, on_attach, &mail, sizeof(mail));
}

struct detach_mail {
    struct session_ref session;
    uint32_t claim;
};

static void on_detach(struct shard *shard, void *payload)
{
    struct detach_mail *mail = payload;
    shard->session_calls->detach(shard, mail->session, mail->claim);
}

void delivery_detach(struct shard *shard, struct session_ref session, uint32_t claim)
{
    struct detach_mail mail = { session, claim };
    shard_mail(shard, session.shard, on_detach, &mail, sizeof(mail));
}

/* --- session to owner --------------------------------------------------------------------------------------------- */

void delivery_set_owner(struct shard *shard, const struct delivery_owner *owner)
{
    shard->delivery_owner = owner;
}

struct answer_mail {
    struct claim_key key;
    struct session_ref session;
    uint64_t number;
    uint16_t run;
};

static void on_attached(struct shard *shard, void *payload)
{
    struct answer_mail *mail = payload;
    shard->delivery_owner->attached(shard, mail->key, mail->session, (uint32_t)mail->number);
}

static void on_acked(struct shard *shard, void *payload)
{
    struct answer_mail *mail = payload;
    shard->delivery_owner->acked(shard, mail->key, mail->session, mail->number);
}

static void on_stalled(struct shard *shard, void *payload)
{
    struct answer_mail *mail = payload;
    shard->delivery_owner->stalled(shard, mail->key, mail->session, mail->run, mail->number);
}

static void on_ready(struct shard *shard, void *payload)
{
    struct answer_mail *mail = payload;
    shard->delivery_owner->ready(shard, mail->key, mail->session, mail->run);
}

static void on_released(struct shard *shard, void *payload)
{
    struct answer_mail *mail = payload;
    shard->delivery_owner->released(shard, mail->key, mail->session, mail->number);
}

static void answer(struct shard *shard, shard_fn *fn, struct claim_key key, struct session_ref session,
                   uint64_t number, uint16_t run)
{
    struct answer_mail mail = { key, session, number, run };
    shard_mail(shard, key.owner, fn, &mail, sizeof(mail));
}

void delivery_attached(struct shard *shard, struct claim_key key, struct session_ref session, uint32_t claim)
{
    answer(shard, on_attached, key, session, claim, 0);
}

void delivery_acked(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t seq)
{
    answer(shard, on_acked, key, session, seq, 0);
}

void delivery_stalled(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run,
                      uint64_t unsent)
{
    answer(shard, on_stalled, key, session, unsent, run);
}

void delivery_ready(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run)
{
    answer(shard, on_ready, key, session, 0, run);
}

void delivery_released(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t acked)
{
    answer(shard, on_released, key, session, acked, 0);
}

/* --- from before a restart ----------------------------------------------------------------------------------------- */

struct before_mail {
    struct claim_key key;
    uint64_t seq;
    struct mail_str node;
};

static void on_received_before(struct shard *shard, void *payload)
{
    struct before_mail *mail = payload;
    mail->key.owner = shard->index;
    shard->delivery_owner->received_before(shard, mail_str_view(&mail->node), mail->key, mail->seq);
    mail_str_free(&mail->node);
}

void delivery_received_before(struct shard *shard, struct xy_str node, struct claim_key key, uint64_t seq)
{
    struct before_mail mail = { .key = key, .seq = seq };
    if (mail_str_set(&mail.node, node)) /* else they come again, marked */
        shard_mail(shard, shard_owner(shard, node), on_received_before, &mail,
                   mail_str_size(&mail, &mail.node));
}
