/* The mail to sessions: every function here packs its arguments for the session's shard, where the table that
 * broker/session registered does the work. */
#include "broker/delivery/sessions.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/limits.h"

void session_set_calls(struct shard *shard, const struct session_calls *calls)
{
    shard->session_calls = calls;
}

struct stanza_mail {
    struct session_ref session;
    struct xy_bytes *bytes;
};

struct message_mail {
    struct session_ref session;
    struct xy_bytes *bare;
    struct xy_bytes *bytes;
    uint64_t mailbox_seq;
};

static void on_send(struct shard *shard, void *payload)
{
    struct stanza_mail *mail = payload;
    shard->session_calls->send(shard, mail->session, &mail->bytes);
    xy_bytes_unref(&mail->bytes);
}

void session_send(struct shard *shard, struct session_ref session, struct xy_bytes **stanza)
{
    struct stanza_mail mail = { session, *stanza };
    *stanza = NULL;
    if (mail.bytes && session_ref_present(session))
        shard_mail(shard, session.shard, on_send, &mail, sizeof(mail));
    else
        xy_bytes_unref(&mail.bytes);
}

static void on_send_message(struct shard *shard, void *payload)
{
    struct message_mail *mail = payload;
    shard->session_calls->send_message(shard, mail->session, xy_bytes_view(mail->bare), &mail->bytes,
                                       mail->mailbox_seq);
    xy_bytes_unref(&mail->bytes);
    xy_bytes_unref(&mail->bare);
}

void session_send_message(struct shard *shard, struct session_ref session, struct xy_bytes *bare,
                          struct xy_bytes **stanza, uint64_t mailbox_seq)
{
    struct message_mail mail = { session, xy_bytes_ref(bare), *stanza, mailbox_seq };
    xy_assert(*stanza != NULL && session_ref_present(session));
    *stanza = NULL;
    shard_mail(shard, session.shard, on_send_message, &mail, sizeof(mail));
}

static void on_send_presence(struct shard *shard, void *payload)
{
    struct stanza_mail *mail = payload;
    shard->session_calls->send_presence(shard, mail->session, &mail->bytes);
    xy_bytes_unref(&mail->bytes);
}

void session_send_presence(struct shard *shard, struct session_ref session, struct xy_bytes **stanza)
{
    struct stanza_mail mail = { session, *stanza };
    xy_assert(*stanza != NULL && session_ref_present(session));
    *stanza = NULL;
    shard_mail(shard, session.shard, on_send_presence, &mail, sizeof(mail));
}

struct offer_mail {
    struct session_ref session;
    struct session_offer offer;
};

static void on_offer(struct shard *shard, void *payload)
{
    struct offer_mail *mail = payload;
    struct session_offer *offer = &mail->offer;
    enum session_verdict verdict = shard->session_calls->offer(shard, mail->session, offer);
    xy_bytes_unref(&offer->stanza);
    if (verdict != SESSION_WAITS)
        offer->done(shard, verdict, offer->ctx);
}

void session_offer(struct shard *shard, struct session_ref session, const struct session_offer *offer)
{
    struct offer_mail mail = { session, *offer };
    xy_assert(offer->stanza != NULL && session_ref_present(session));
    shard_mail(shard, session.shard, on_offer, &mail, sizeof(mail));
}

struct bound_mail {
    struct session_ref session;
    struct xy_error error;
    struct xy_bytes *jid; /* canonical full JID; NULL: refused */
};

static void on_bound(struct shard *shard, void *payload)
{
    struct bound_mail *mail = payload;
    struct xy_jid jid = { 0 };
    if (mail->jid)
        jid = xy_jid_canonical(xy_bytes_view(mail->jid));
    shard->session_calls->bound(shard, mail->session, jid, mail->jid ? NULL : &mail->error);
    xy_bytes_unref(&mail->jid);
}

void session_bound(struct shard *shard, struct session_ref session, struct xy_jid jid,
                   const struct xy_error *error)
{
    struct bound_mail mail = { .session = session };
    if (xy_jid_present(jid))
        mail.jid = xy_bytes_new(xy_jid_full(jid));
    else if (error)
        mail.error = *error;
    if (mail.jid == NULL && mail.error.condition == XY_NO_ERROR)
        mail.error = xy_error_make(XY_INTERNAL_SERVER_ERROR, NULL);
    shard_mail(shard, session.shard, on_bound, &mail, sizeof(mail));
}

struct close_mail {
    struct session_ref session;
    enum xy_stream_error error;
    const char *text; /* a literal */
};

static void on_close(struct shard *shard, void *payload)
{
    struct close_mail *mail = payload;
    shard->session_calls->close(shard, mail->session, mail->error, mail->text);
}

void session_close(struct shard *shard, struct session_ref session, enum xy_stream_error error,
                   const char *text)
{
    struct close_mail mail = { session, error, text };
    shard_mail(shard, session.shard, on_close, &mail, sizeof(mail));
}

struct handled_mail {
    struct session_ref session;
    struct session_inbound inbound;
};

static void on_handled(struct shard *shard, void *payload)
{
    struct handled_mail *mail = payload;
    shard->session_calls->handled(shard, mail->session, mail->inbound);
}

void session_handled(struct shard *shard, struct session_ref session, struct session_inbound inbound)
{
    struct handled_mail mail = { session, inbound };
    if (session_ref_present(session) && (inbound.number != 0 || inbound.bytes != 0))
        shard_mail(shard, session.shard, on_handled, &mail, sizeof(mail));
}

struct answer_mail {
    struct session_ref session;
    struct session_inbound inbound;
    struct xy_bytes *bytes;
};

static void on_answer(struct shard *shard, void *payload)
{
    struct answer_mail *mail = payload;
    shard->session_calls->answer(shard, mail->session, &mail->bytes, mail->inbound);
    xy_bytes_unref(&mail->bytes);
}

void session_answer(struct shard *shard, struct session_ref session, struct xy_bytes **stanza,
                    struct session_inbound inbound)
{
    struct answer_mail mail = { session, inbound, *stanza };
    xy_assert(*stanza != NULL && session_ref_present(session));
    *stanza = NULL;
    shard_mail(shard, session.shard, on_answer, &mail, sizeof(mail));
}

struct copied_mail {
    struct session_ref session;
    bool copied;
    shard_fn *done;
    void *ctx;
};

static void on_copied(struct shard *shard, void *payload)
{
    struct copied_mail *mail = payload;
    shard->session_calls->copied(shard, mail->session, mail->copied);
    if (mail->done)
        mail->done(shard, mail->ctx);
}

void session_set_copied(struct shard *shard, struct session_ref session, bool copied, shard_fn *done,
                        void *ctx)
{
    struct copied_mail mail = { session, copied, done, ctx };
    xy_assert(session_ref_present(session));
    shard_mail(shard, session.shard, on_copied, &mail, sizeof(mail));
}

/* --- resumption ---------------------------------------------------------------------------------------------------- */

void session_past_free(struct session_past **past_pointer)
{
    struct session_past *past = *past_pointer;
    *past_pointer = NULL;
    if (past == NULL)
        return;
    for (size_t i = 0; i < past->answers_count; i++)
        xy_bytes_unref(&past->answers[i].bytes);
    xy_bytes_unref(&past->jid);
    free(past->answers);
    free(past->seen);
    free(past);
}

struct resumption_mail {
    struct session_ref asker;
    struct session_resumption resumption;
};

static void on_resumption(struct shard *shard, void *payload)
{
    struct resumption_mail *mail = payload;
    shard->session_calls->resumption(shard, mail->asker, &mail->resumption);
    session_past_free(&mail->resumption.past);
}

void session_resumption(struct shard *shard, struct session_ref asker, struct session_resumption *resumption)
{
    struct resumption_mail mail = { asker, *resumption };
    resumption->past = NULL;
    shard_mail(shard, asker.shard, on_resumption, &mail, sizeof(mail));
}

struct kept_mail {
    struct session_ref session;
    bool kept;
};

static void on_kept(struct shard *shard, void *payload)
{
    struct kept_mail *mail = payload;
    shard->session_calls->kept(shard, mail->session, mail->kept);
}

void session_kept(struct shard *shard, struct session_ref session, bool kept)
{
    struct kept_mail mail = { session, kept };
    shard_mail(shard, session.shard, on_kept, &mail, sizeof(mail));
}
