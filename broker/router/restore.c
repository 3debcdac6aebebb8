/* Who resumes a session gets it here, on the shard that owns the account: one that lives from its shard, one that a
 * restart interrupted from its rows. Those rows say also how far one got that nobody resumed in time (expired.c). See
 * resumable.h; called by sessions. */
#include <stdlib.h>

#include "broker/delivery/delivery.h"
#include "broker/delivery/outmap.h"
#include "broker/log.h"
#include "broker/router/kept.h"

#define RESTORE_PAGE     128u
#define RESTORE_ROWS_MAX 65536u /* per session; one that sent far more than it was told of has no more */
#define H_BEHIND_MAX     (UINT32_C(1) << 31)

/* --- what it had sent ---------------------------------------------------------------------------------------------- */

struct restore {
    struct address *address;
    struct session_past *past;
    struct session_expiry *expiry; /* it is over, and only how far it got is wanted; NULL: it goes on */
    struct xy_arena *arena;
    uint64_t answered; /* answers to requests up to this one arrived */
    size_t seen_cap, answers_cap;
    bool failed; /* memory is short */
};

static bool grow(struct restore *restore, void **array, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return true;
    size_t more = *cap ? *cap * 2 : 16;
    void *grown = more <= RESTORE_ROWS_MAX ? realloc(*array, more * size) : NULL;
    if (!grown) {
        restore->failed = true;
        return false;
    }
    *array = grown;
    *cap = more;
    return true;
}

/* Rows come by number: those that follow on each other are handled, the first gap ends that. */
static void take_row(struct restore *restore, const struct store_session_in *row)
{
    struct session_past *past = restore->past;
    if (row->number == 0) {
        past->handled = row->handled;
        restore->answered = row->answered;
        return;
    }
    if (row->number == past->handled + 1) {
        past->handled++;
    } else if (row->number > past->handled && grow(restore, (void **)&past->seen, past->seen_count,
                                                   &restore->seen_cap, sizeof(*past->seen))) {
        past->seen[past->seen_count++] = (struct session_seen){ row->number, row->what };
    }
    if (row->answer.len == 0 || row->number <= restore->answered ||
        !grow(restore, (void **)&past->answers, past->answers_count, &restore->answers_cap,
              sizeof(*past->answers)))
        return;
    struct xy_bytes *bytes = xy_bytes_new(row->answer);
    if (bytes)
        past->answers[past->answers_count++] = (struct session_late_answer){ row->number, bytes, true };
    restore->failed = restore->failed || !bytes;
}

/* --- what it was sent ---------------------------------------------------------------------------------------------- */

static int by_number(const void *key, const void *element)
{
    uint64_t number = *(const uint64_t *)key;
    const struct session_late_answer *answer = element;
    return number < answer->number ? -1 : number > answer->number;
}

static struct session_late_answer *answer_find(const struct session_past *past, uint64_t number)
{
    if (past->answers_count == 0)
        return NULL;
    return bsearch(&number, past->answers, past->answers_count, sizeof(*past->answers), by_number);
}

/* Of a run of answers the first `taken` arrived, the others did not. */
static void answers_settle(struct session_past *past, const struct out_run *run, uint64_t taken)
{
    for (uint64_t i = 0; i < run->count; i++) {
        struct session_late_answer *answer = answer_find(past, run->first + i);
        if (answer)
            answer->owed = i >= taken;
    }
}

/* The subscription says how its node is called, and the name whose it is now. */
static void event_arrived(struct restore *restore, const struct out_run *run, uint64_t seq)
{
    struct shard *shard = restore->address->shard;
    char key[12];
    struct store_entry entry;
    bool more;
    for (unsigned i = 0; i < 8; i++)
        key[i] = (char)(run->node >> (8 * (7 - i)) & 0xff);
    for (unsigned i = 0; i < 4; i++)
        key[8 + i] = (char)(run->number >> (8 * (3 - i)) & 0xff);
    struct xy_str prefix = xy_str_n(key, sizeof(key));
    if (store_scan_tables(shard_group_store(shard->group), STORE_SUBSCRIPTIONS, prefix, prefix,
                          restore->arena, &entry, 1, &more) == 0)
        return;
    Xylem__Store__V1__SubscriptionPut *put =
        xylem__store__v1__subscription_put__unpack(NULL, entry.value.len, (const uint8_t *)entry.value.data);
    if (!put)
        return;
    struct claim_key claim = { .node = run->node, .subscription = run->number, .era = run->era };
    delivery_received_before(shard, xy_str(put->node_name), claim, seq);
    xylem__store__v1__subscription_put__free_unpacked(put, NULL);
}

static void settle_run(struct restore *restore, const struct out_run *run, uint64_t taken)
{
    if (run->kind == OUT_ANSWER)
        answers_settle(restore->past, run, taken);
    else if (run->kind == OUT_MAILBOX && taken > 0)
        mailbox_received_before(restore->address, run->first, taken);
    else if (run->kind == OUT_EVENT && taken > 0)
        event_arrived(restore, run, run->first + taken - 1);
}

/* Settles what the client's h covers, as its acknowledgements would have. */
static void settle(struct restore *restore, const Xylem__Store__V1__SessionOut *out)
{
    struct session_past *past = restore->past;
    uint32_t covered = past->h - (uint32_t)out->acked;
    const uint64_t *runs = out->runs;
    size_t count = out->n_runs;
    struct out_run run;
    if (covered >= H_BEHIND_MAX) /* it had told us more before */
        covered = 0;
    for (size_t i = 0; out->complete && i < past->answers_count; i++)
        past->answers[i].owed = false; /* but for those that follow */
    while (outmap_next(&runs, &count, &run)) {
        uint64_t taken = run.count < covered ? run.count : covered;
        covered -= (uint32_t)taken;
        settle_run(restore, &run, taken);
    }
}

/* Which answers were sent, for those it may have missed. Of one that this map does not know nobody can say whether it
 * arrived. */
static void note_answers(struct restore *restore, const Xylem__Store__V1__SessionOut *out)
{
    struct session_expiry *expiry = restore->expiry;
    const uint64_t *runs = out->runs;
    size_t count = out->n_runs;
    struct out_run run, last = { .kind = OUT_NOTHING };
    expiry->acked = out->acked;
    expiry->resumed = out->resumed;
    for (size_t i = 0; out->complete && i < restore->past->answers_count; i++)
        restore->past->answers[i].owed = false;
    while (outmap_next(&runs, &count, &run)) {
        bool answers = run.kind == OUT_ANSWER;
        if (answers)
            answers_settle(restore->past, &run, run.count);
        for (uint64_t i = 0; i < run.count && !xy_buf_failed(&expiry->answers); i++) {
            struct out_run one = { .kind = answers ? OUT_ANSWER : OUT_NOTHING, .first = run.first + i };
            outmap_add(&expiry->answers, &last, &one);
        }
    }
    outmap_end(&expiry->answers, &last);
}

static bool answers_known(const struct session_past *past)
{
    for (size_t i = 0; i < past->answers_count; i++)
        if (past->answers[i].owed && past->answers[i].number <= past->handled)
            return false;
    return true;
}

/* --- rows ---------------------------------------------------------------------------------------------------------- */

/* The map comes last: its number is the largest. */
static void take_entry(struct restore *restore, const struct store_entry *entry)
{
    struct store_session_in row;
    if (store_session_in(entry->key, entry->value, &row)) {
        take_row(restore, &row);
        return;
    }
    Xylem__Store__V1__SessionOut *out =
        xylem__store__v1__session_out__unpack(NULL, entry->value.len, (const uint8_t *)entry->value.data);
    if (out) {
        if (restore->expiry)
            note_answers(restore, out);
        else
            settle(restore, out);
        xylem__store__v1__session_out__free_unpacked(out, NULL);
    }
}

static void read_rows(struct restore *restore)
{
    struct store *store = shard_group_store(restore->address->shard->group);
    struct xy_str id = xy_str_n((const char *)restore->past->id, SESSION_ID_BYTES);
    struct xy_buf from = { 0 };
    struct store_entry entries[RESTORE_PAGE];
    bool more = true;
    xy_buf_str(&from, id);
    while (more && !xy_buf_failed(&from) && !restore->failed) {
        xy_arena_reset(restore->arena);
        size_t count = store_scan_tables(store, STORE_SESSION_IN, id, xy_buf_view(&from), restore->arena,
                                         entries, RESTORE_PAGE, &more);
        for (size_t i = 0; i < count; i++)
            take_entry(restore, &entries[i]);
        if (count == 0)
            break;
        xy_buf_reset(&from);
        xy_buf_str(&from, entries[count - 1].key);
        xy_buf_char(&from, '\0');
    }
    restore->failed = restore->failed || xy_buf_failed(&from);
    xy_buf_free(&from);
}

/* --- from the directory -------------------------------------------------------------------------------------------- */

static struct session_past *past_read(struct address *address, const struct resource *resource, uint32_t h,
                                      struct session_expiry *expiry)
{
    struct session_past *past = calloc(1, sizeof(*past));
    struct restore restore = { .address = address, .past = past, .expiry = expiry };
    restore.arena = xy_arena_pool_take(address->shard->arenas);
    restore.failed = !past || !restore.arena;
    if (!restore.failed) {
        memcpy(past->id, resource->kept.id, SESSION_ID_BYTES);
        past->max_us = resource->kept.max_us;
        past->h = h;
        struct xy_str jid =
            xy_arena_printf(restore.arena, "%.*s/%.*s", XY_ARG(address->bare), XY_ARG(resource->name));
        past->jid = jid.data ? xy_bytes_new(jid) : NULL;
        restore.failed = !past->jid;
    }
    if (!restore.failed)
        read_rows(&restore);
    if (restore.failed)
        session_past_free(&past);
    if (restore.arena)
        xy_arena_pool_give(address->shard->arenas, &restore.arena);
    return past;
}

bool restore_expiry(struct address *address, const struct resource *resource, struct session_expiry *out)
{
    struct session_past *past = past_read(address, resource, 0, out);
    bool known = past && answers_known(past);
    if (known)
        out->handled = past->handled;
    session_past_free(&past);
    return known;
}

/* The asker becomes the session: it is bound from here on, and available when it says that it is ready. false: memory is
 * short, and the session waits on. */
static bool restore(struct address *address, struct dormant *dormant, struct session_ref asker, uint32_t h,
                    const uint8_t id[SESSION_ID_BYTES])
{
    struct shard *shard = address->shard;
    struct resource *resource = kept_read(address, id);
    struct session_resumption resumption = { .live = SESSION_NONE };
    if (resource)
        resumption.past = past_read(address, resource, h, NULL);
    if (!resumption.past || !resource_list(address, resource, asker)) {
        session_past_free(&resumption.past);
        resource_free(resource);
        return false;
    }
    log_info(shard->log, "session restored", LOG_STR("jid", xy_bytes_view(resumption.past->jid)));
    resource->sm = resource->kept.resumable = true;
    resource->kept.detached_us = 0;
    dormant_drop(shard, &dormant);
    session_resumption(shard, asker, &resumption);
    (void)kept_put(address, resource, false);
    carbons_bound(address, resource);
    return true;
}

/* --- asked for ----------------------------------------------------------------------------------------------------- */

struct resume_mail {
    struct session_ref asker;
    uint32_t h;
    uint8_t id[SESSION_ID_BYTES];
    struct mail_str bare;
};

static bool same_id(const uint8_t a[SESSION_ID_BYTES], const uint8_t b[SESSION_ID_BYTES])
{
    return xy_str_eq_secret(xy_str_n((const char *)a, SESSION_ID_BYTES),
                            xy_str_n((const char *)b, SESSION_ID_BYTES));
}

static const struct resource *live(const struct address *address, const uint8_t id[SESSION_ID_BYTES])
{
    for (size_t i = 0; i < address->resources_count; i++) {
        const struct resource *r = address->resources[i];
        if (r->kept.resumable && same_id(r->kept.id, id))
            return r;
    }
    return NULL;
}

static void resume_at_owner(struct shard *shard, void *payload)
{
    struct resume_mail *mail = payload;
    struct address *address = address_touch(shard, mail_str_view(&mail->bare));
    const struct resource *resource = address ? live(address, mail->id) : NULL;
    struct dormant *dormant = address && !resource ? dormant_find(address, mail->id) : NULL;
    struct session_resumption resumption = { .live = resource ? resource->session : SESSION_NONE };
    if (address && !resource && !dormant)
        resumption.expired = expired_h(address, mail->id, mail->h, &resumption.h);
    mail_str_free(&mail->bare);
    if (!dormant || !restore(address, dormant, mail->asker, mail->h, mail->id))
        session_resumption(shard, mail->asker, &resumption);
}

void address_resume(struct shard *shard, struct session_ref asker, struct xy_str bare,
                    const uint8_t id[SESSION_ID_BYTES], uint32_t h)
{
    struct resume_mail mail = { .asker = asker, .h = h };
    struct session_resumption none = { .live = SESSION_NONE };
    memcpy(mail.id, id, SESSION_ID_BYTES);
    if (mail_str_set(&mail.bare, bare))
        shard_mail(shard, shard_owner(shard, bare), resume_at_owner, &mail, mail_str_size(&mail, &mail.bare));
    else
        session_resumption(shard, asker, &none);
}

/* --- ready --------------------------------------------------------------------------------------------------------- */

static void on_restored(struct shard *shard, struct address *address, struct resource *resource, bool on)
{
    (void)on;
    bool carbons = resource->carbons_wanted;
    resource->carbons_wanted = false;
    if (carbons)
        address_set_carbons(shard, resource->session, address->bare, true);
    presence_restore(address, resource);
}

void address_restored(struct shard *shard, struct session_ref session, struct xy_str bare)
{
    address_note(shard, on_restored, session, bare, true);
}
