/* How mailbox entries end or come back: acknowledged by a session, returned by one that is full, released by one that
 * ended; and messages that were never stored because somebody was there, until that session failed to take them.
 * Sessions call address_acked and address_returned; the rest is called by address.c. */
#include "broker/log.h"
#include "broker/router/mailbox_internal.h"
#include "broker/shard/stats.h"
#include "xylem/store/v1/records.pb-c.h"

/* --- acknowledged --------------------------------------------------------------------------------------------------- */

#define ACKED_MAX 16u /* per mail */

struct acked_mail {
    uint64_t seq[ACKED_MAX];
    uint32_t count;
    struct mail_str bare;
};

static void settle_figures(struct mailbox *mailbox, const struct flight *flight)
{
    if (mailbox->counting && flight->seq > mailbox->counted)
        return;
    mailbox->count -= mailbox->count > 0;
    mailbox->bytes -= flight->bytes < mailbox->bytes ? flight->bytes : mailbox->bytes;
}

static void settle(struct address *address, struct flight *flight)
{
    flight->settled = true;
    settle_figures(&address->mailbox, flight);
}

static void record_ended(struct address *address, uint64_t *seq, size_t count)
{
    if (count == 0)
        return;
    Xylem__Store__V1__MailboxRemove record = XYLEM__STORE__V1__MAILBOX_REMOVE__INIT;
    record.jid = (char *)(uintptr_t)address->bare.data;
    record.n_seq = count;
    record.seq = seq;
    stat_add(address->shard, messages_settled, count);
    store_append_lazy(address->shard->store, RECORD_MAILBOX_REMOVE, &record.base);
}

static void acked_at_owner(struct shard *shard, void *payload)
{
    struct acked_mail *mail = payload;
    struct address *address = address_find(shard, mail_str_view(&mail->bare));
    mail_str_free(&mail->bare);
    if (!address)
        return;
    uint64_t ended[ACKED_MAX];
    size_t count = 0;
    for (uint32_t i = 0; i < mail->count; i++) {
        struct flight *flight = flight_find(&address->mailbox, mail->seq[i]);
        if (!flight || flight->settled)
            continue;
        settle(address, flight);
        ended[count++] = flight->seq;
    }
    if (count == 0)
        return;
    flights_compact(&address->mailbox);
    record_ended(address, ended, count);
    mailbox_pump(address);
}

void address_acked(struct shard *shard, struct xy_str bare, const uint64_t *seq, size_t count)
{
    for (size_t done = 0; done < count;) {
        struct acked_mail mail = { .count = (uint32_t)(count - done < ACKED_MAX ? count - done : ACKED_MAX) };
        memcpy(mail.seq, seq + done, mail.count * sizeof(*seq));
        done += mail.count;
        if (mail_str_set(&mail.bare, bare))
            shard_mail(shard, shard_owner(shard, bare), acked_at_owner, &mail,
                       mail_str_size(&mail, &mail.bare));
    }
}

/* An entry that no session holds. */
static bool ends_in_store(struct address *address, struct xy_arena *arena, uint64_t seq)
{
    struct mailbox *mailbox = &address->mailbox;
    struct xy_str value, key = mailbox_key(arena, address->bare, seq);
    if (!key.data || !store_get(address->shard->store, STORE_MAILBOX, key, arena, &value))
        return false;
    struct flight gone = { .seq = seq, .bytes = (uint32_t)value.len };
    settle_figures(mailbox, &gone);
    return true;
}

void mailbox_received_before(struct address *address, uint64_t first, uint64_t count)
{
    struct xy_arena *arena = xy_arena_pool_take(address->shard->arenas);
    uint64_t ended[ACKED_MAX];
    size_t ended_count = 0;
    for (uint64_t seq = first; arena && seq < first + count; seq++) {
        struct flight *flight = flight_find(&address->mailbox, seq);
        xy_arena_reset(arena);
        if (flight ? flight->settled : !ends_in_store(address, arena, seq))
            continue;
        if (flight)
            settle(address, flight);
        ended[ended_count++] = seq;
        if (ended_count == ACKED_MAX) {
            record_ended(address, ended, ended_count);
            ended_count = 0;
        }
    }
    record_ended(address, ended, ended_count);
    flights_compact(&address->mailbox);
    if (arena)
        xy_arena_pool_give(address->shard->arenas, &arena);
}

/* --- released and returned ------------------------------------------------------------------------------------------- */

void mailbox_session_gone(struct address *address, struct session_ref session)
{
    struct mailbox *mailbox = &address->mailbox;
    for (size_t i = 0; i < mailbox->flights_count; i++)
        flight_release(&mailbox->flights[i], session);
    mailbox->returned = mailbox->flights_count > 0;
    shard_timer_cancel(address->shard, &mailbox->retry);
}

struct returned_mail {
    struct session_ref session;
    uint64_t seq;
    struct xy_bytes *bytes;
    struct mail_str bare;
};

struct returned_passage {
    struct address *address;
    uint64_t seq;
};

/* From here on it is an entry like others; it is read again when its turn comes. */
static void returned_stored(struct shard *shard, void *payload)
{
    struct returned_passage *passage = payload;
    struct mailbox *mailbox = &passage->address->mailbox;
    (void)shard;
    if (mailbox->loaded && passage->seq > mailbox->durable_seq && passage->seq <= mailbox->last_seq)
        mailbox->durable_seq = passage->seq;
    mailbox_pump(passage->address);
    address_unpin(passage->address);
}

/* It was never stored, and now it has to be. Its sender was told nothing, so the quota does not apply: the message was
 * taken when there was somebody for it. */
static void return_unstored(struct address *address, struct xy_bytes *bytes)
{
    struct shard *shard = address->shard;
    if (!address->mailbox.loaded || !store_room(shard->store, bytes->len + address->bare.len)) {
        log_warning(shard->log, "message dropped", LOG_STR("account", address->bare),
                    LOG_Z("reason", "no room to store it"));
        return;
    }
    struct returned_passage passage = { address, mailbox_append(address, bytes) };
    address_pin(address);
    shard_when_committed(shard, address->ticket, returned_stored, &passage, sizeof(passage));
}

static void retry(struct shard *shard, struct shard_timer *timer)
{
    struct mailbox *mailbox = xy_container_of(timer, struct mailbox, retry);
    (void)shard;
    mailbox_pump(xy_container_of(mailbox, struct address, mailbox));
}

/* By a session that is full: not again at once. One that ended unbinds next, and that releases it for good. */
static void return_entry(struct address *address, struct session_ref session, uint64_t seq)
{
    struct mailbox *mailbox = &address->mailbox;
    struct flight *flight = flight_find(mailbox, seq);
    if (!flight)
        return;
    flight_release(flight, session);
    if (flight->holders_count > 0)
        return; /* another session has it too */
    mailbox->returned = true;
    mailbox->retry.fn = retry;
    if (!shard_timer_is_set(&mailbox->retry))
        shard_timer_set(address->shard, &mailbox->retry, xy_now_us(address->shard->env) + MAILBOX_RETRY_US);
}

static void returned_at_owner(struct shard *shard, void *payload)
{
    struct returned_mail *mail = payload;
    struct address *address = address_touch(shard, mail_str_view(&mail->bare));
    if (address && mail->seq != 0)
        return_entry(address, mail->session, mail->seq);
    else if (address && mail->bytes)
        return_unstored(address, mail->bytes);
    xy_bytes_unref(&mail->bytes);
    mail_str_free(&mail->bare);
}

void address_returned(struct shard *shard, struct xy_str bare, struct session_ref session, uint64_t seq,
                      struct xy_bytes **bytes)
{
    struct returned_mail mail = { .session = session, .seq = seq, .bytes = bytes ? *bytes : NULL };
    if (bytes)
        *bytes = NULL;
    if (!mail_str_set(&mail.bare, bare)) {
        xy_bytes_unref(&mail.bytes);
        return;
    }
    shard_mail(shard, shard_owner(shard, bare), returned_at_owner, &mail, mail_str_size(&mail, &mail.bare));
}
