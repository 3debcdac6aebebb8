/* The durable mailbox of an account: messages it is owed until a session acknowledged them.
 *
 * Entries are numbered. Those up to `cursor` are in flight (some session holds them) or gone; those above wait in the
 * store and are read in pages as there is room, oldest first, so memory is bounded and order is kept. An entry that
 * comes back goes out again before anything newer. Called by address*.c on the shard that owns the account. */
#include <stdlib.h>

#include "broker/router/mailbox_internal.h"
#include "core/base/assert.h"
#include "xylem/store/v1/records.pb-c.h"

#define KEY_SEQ_BYTES 8u

/* --- keys and values ---------------------------------------------------------------------------------------------- */

static struct xy_str mailbox_prefix(struct xy_arena *arena, struct xy_str bare)
{
    char *key = xy_arena_alloc(arena, bare.len + 1);
    if (!key)
        return XY_STR_NONE;
    memcpy(key, bare.data, bare.len);
    key[bare.len] = '\0';
    return xy_str_n(key, bare.len + 1);
}

struct xy_str mailbox_key(struct xy_arena *arena, struct xy_str bare, uint64_t seq)
{
    char *key = xy_arena_alloc(arena, bare.len + 1 + KEY_SEQ_BYTES);
    if (!key)
        return XY_STR_NONE;
    memcpy(key, bare.data, bare.len);
    key[bare.len] = '\0';
    for (unsigned i = 0; i < KEY_SEQ_BYTES; i++)
        key[bare.len + 1 + i] = (char)(seq >> (8 * (KEY_SEQ_BYTES - 1 - i)) & 0xff);
    return xy_str_n(key, bare.len + 1 + KEY_SEQ_BYTES);
}

static uint64_t big_endian(struct xy_str s)
{
    uint64_t value = 0;
    for (size_t i = 0; i < s.len && i < 8; i++)
        value = value << 8 | (unsigned char)s.data[i];
    return value;
}

/* The end of a key is the entry's number, also where the entry cannot be read. */
static uint64_t key_seq(struct xy_str key)
{
    xy_assert(key.len > 8);
    return big_endian(xy_str_n(key.data + key.len - 8, 8));
}

static Xylem__Store__V1__MailboxAdd *entry_unpack(struct xy_str value)
{
    return xylem__store__v1__mailbox_add__unpack(NULL, value.len, (const uint8_t *)value.data);
}

static void entry_free(Xylem__Store__V1__MailboxAdd *entry)
{
    if (entry)
        xylem__store__v1__mailbox_add__free_unpacked(entry, NULL);
}

static size_t scan(struct address *address, struct xy_arena *arena, uint64_t from, struct store_entry *out,
                   size_t max, bool *more)
{
    struct xy_str prefix = mailbox_prefix(arena, address->bare);
    struct xy_str key = mailbox_key(arena, address->bare, from);
    *more = false;
    if (!prefix.data || !key.data)
        return 0;
    return store_scan(address->shard->store, STORE_MAILBOX, prefix, key, arena, out, max, more);
}

/* --- loading ------------------------------------------------------------------------------------------------------ */

/* Counts one page of what is there. false: that was the last. */
static bool count_page(struct address *address, struct xy_arena *arena)
{
    struct mailbox *mailbox = &address->mailbox;
    struct store_entry entries[MAILBOX_PAGE];
    bool more;
    size_t count = scan(address, arena, mailbox->counted + 1, entries, MAILBOX_PAGE, &more);
    for (size_t i = 0; i < count; i++) {
        uint64_t seq = key_seq(entries[i].key);
        Xylem__Store__V1__MailboxAdd *entry = entry_unpack(entries[i].value);
        if (mailbox->count == 0 && mailbox->counted == 0)
            mailbox->cursor = seq - 1;
        mailbox->counted = seq;
        if (!entry) /* damaged: it stays, and is nobody's */
            continue;
        mailbox->count++;
        mailbox->bytes += entry->stanza.len;
        entry_free(entry);
    }
    return more && count > 0;
}

static void count_step(struct shard *shard, void *payload)
{
    struct address *address = *(struct address **)payload;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    bool more = arena && address->mailbox.loaded && count_page(address, arena);
    if (arena)
        xy_arena_pool_give(shard->arenas, &arena);
    if (more) {
        shard_mail(shard, shard->index, count_step, &address, sizeof(struct address *));
        return;
    }
    address->mailbox.counting = false;
    address_unpin(address);
}

/* The first page at once, which for most mailboxes is all; long ones go on in later turns. */
bool mailbox_load(struct address *address)
{
    struct mailbox *mailbox = &address->mailbox;
    struct shard *shard = address->shard;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    if (!arena)
        return false;
    struct xy_str value;
    if (store_get(shard->store, STORE_MAILBOX_SEQ, address->bare, arena, &value))
        mailbox->last_seq = big_endian(value);
    mailbox->cursor = mailbox->durable_seq = mailbox->last_seq;
    mailbox->loaded = true;
    if (count_page(address, arena)) {
        mailbox->counting = true;
        address_pin(address);
        shard_mail(shard, shard->index, count_step, &address, sizeof(struct address *));
    }
    xy_arena_pool_give(shard->arenas, &arena);
    return true;
}

void mailbox_free(struct address *address)
{
    struct mailbox *mailbox = &address->mailbox;
    shard_timer_cancel(address->shard, &mailbox->retry);
    free(mailbox->flights);
    bool counting = mailbox->counting; /* its mail is still under way */
    *mailbox = (struct mailbox){ .counting = counting };
}

bool mailbox_idle(const struct address *address)
{
    const struct mailbox *mailbox = &address->mailbox;
    return mailbox->flights_count == 0 && !mailbox->counting && !shard_timer_is_set(&mailbox->retry);
}

/* --- adding ------------------------------------------------------------------------------------------------------- */

uint64_t mailbox_append(struct address *address, const struct xy_bytes *stanza)
{
    struct mailbox *mailbox = &address->mailbox;
    struct shard *shard = address->shard;
    Xylem__Store__V1__MailboxAdd record = XYLEM__STORE__V1__MAILBOX_ADD__INIT;
    record.jid = (char *)(uintptr_t)address->bare.data;
    record.seq = ++mailbox->last_seq;
    record.time_us = xy_wall_us(shard->env);
    record.stanza = (ProtobufCBinaryData){ stanza->len, (uint8_t *)(uintptr_t)stanza->data };
    address_depend(address, store_append(shard->store, RECORD_MAILBOX_ADD, &record.base));
    if (!mailbox->counting) { /* else the count will come to it */
        mailbox->count++;
        mailbox->bytes += stanza->len;
    }
    stat_add(shard, messages_stored, 1);
    return record.seq;
}

enum mailbox_verdict mailbox_add(struct address *address, const struct xy_bytes *stanza, uint64_t *seq)
{
    const struct mailbox *mailbox = &address->mailbox;
    const struct config_limits *limits = &address->shard->config->limits;
    if (mailbox->count >= limits->offline_messages || mailbox->bytes + stanza->len > limits->offline_bytes)
        return MAILBOX_QUOTA;
    if (shard_memory_is_short(address->shard)) /* until a checkpoint it is there too */
        return MAILBOX_NO_MEMORY;
    if (!mailbox->loaded || !store_room(address->shard->store, stanza->len + address->bare.len))
        return MAILBOX_NO_ROOM;
    *seq = mailbox_append(address, stanza);
    return MAILBOX_STORED;
}

/* --- handing over ------------------------------------------------------------------------------------------------- */

static void give(struct address *address, struct flight *flight, struct resource *to, struct xy_bytes *stanza)
{
    if (flight->holders_count == MAILBOX_HOLDERS_MAX)
        return;
    struct xy_bytes *copy = xy_bytes_ref(stanza);
    flight->holders[flight->holders_count++] = to->session;
    stat_add(address->shard, messages_delivered, 1);
    session_send_message(address->shard, to->session, address->bare_bytes, &copy, flight->seq);
}

/* To the session it is addressed to; else to the available ones of highest priority, the most recent first. */
static void give_all(struct address *address, struct flight *flight, struct resource *exact,
                     struct xy_bytes *stanza)
{
    struct resource *best = exact ? exact : address_best(address);
    xy_assert(best != NULL && flight->holders_count == 0);
    give(address, flight, best, stanza);
    for (size_t i = 0; !exact && i < address->resources_count; i++) {
        struct resource *r = address->resources[i];
        if (r != best && r->available && r->priority == best->priority)
            give(address, flight, r, stanza);
    }
}

static bool in_order(const struct mailbox *mailbox, uint64_t seq)
{
    return mailbox->cursor + 1 >= seq && !flight_waiting(mailbox);
}

bool mailbox_behind(const struct address *address)
{
    const struct mailbox *mailbox = &address->mailbox;
    return address_best(address) && (mailbox->cursor < mailbox->durable_seq || flight_waiting(mailbox));
}

void mailbox_added(struct address *address, struct xy_bytes *stanza, uint64_t seq, struct xy_str resource)
{
    struct mailbox *mailbox = &address->mailbox;
    if (!mailbox->loaded || seq > mailbox->last_seq) /* the account was removed meanwhile */
        return;
    bool next = in_order(mailbox, seq);
    mailbox->durable_seq = seq;
    struct resource *exact = resource.data ? address_resource(address, resource) : NULL;
    bool somebody = exact || address_best(address);
    /* Older ones that nobody takes (only sessions of negative priority) do not stop what is for one session. */
    bool stuck = exact && !address_best(address);
    if (!somebody || !(next || stuck) || !flight_room(mailbox)) {
        mailbox_pump(address);
        return;
    }
    struct flight *flight = flight_insert(mailbox, seq, stanza->len);
    if (!flight)
        return;
    if (next)
        mailbox->cursor = seq;
    give_all(address, flight, exact, stanza);
}

/* --- what waits in the store --------------------------------------------------------------------------------------- */

/* false: nobody takes it now. */
static bool entry_give(struct address *address, struct flight *flight,
                       const Xylem__Store__V1__MailboxAdd *entry)
{
    struct xy_str text = xy_str_n((const char *)entry->stanza.data, entry->stanza.len);
    struct xy_buf buf = { 0 };
    struct xy_str resource = message_text_resource(text, &buf);
    struct resource *exact = resource.data ? address_resource(address, resource) : NULL;
    if (exact && !exact->available) /* it was not asked for by name this time */
        exact = NULL;
    struct xy_bytes *bytes = NULL;
    if (exact || address_best(address))
        bytes = message_text_delayed(text, router_domain(address->shard), entry->time_us);
    if (bytes && !flight)
        flight = flight_insert(&address->mailbox, entry->seq, text.len);
    bool given = bytes && flight;
    if (given)
        give_all(address, flight, exact, bytes);
    xy_bytes_unref(&bytes);
    xy_buf_free(&buf);
    return given;
}

/* Those that came back, oldest first. false: somebody is missing for one of them. */
static bool pump_returned(struct address *address, struct xy_arena *arena)
{
    struct mailbox *mailbox = &address->mailbox;
    bool all = true;
    for (size_t i = 0; all && i < mailbox->flights_count; i++) {
        struct flight *flight = &mailbox->flights[i];
        if (flight->holders_count > 0 || flight->settled)
            continue;
        struct xy_str value;
        struct xy_str key = mailbox_key(arena, address->bare, flight->seq);
        bool found = key.data && store_get(address->shard->store, STORE_MAILBOX, key, arena, &value);
        Xylem__Store__V1__MailboxAdd *entry = found ? entry_unpack(value) : NULL;
        if (entry)
            all = entry_give(address, flight, entry);
        else
            flight->settled = true;
        entry_free(entry);
    }
    flights_compact(mailbox);
    mailbox->returned = flight_waiting(mailbox);
    return all;
}

/* One page of those never handed over. false: there is nobody for one of them, or no room. */
static bool pump_page(struct address *address, struct xy_arena *arena)
{
    struct mailbox *mailbox = &address->mailbox;
    struct store_entry entries[MAILBOX_PAGE];
    bool more;
    size_t count = scan(address, arena, mailbox->cursor + 1, entries, MAILBOX_PAGE, &more);
    if (count == 0) {
        mailbox->cursor = mailbox->durable_seq;
        return false;
    }
    bool going = true;
    for (size_t i = 0; going && i < count; i++) {
        Xylem__Store__V1__MailboxAdd *entry = entry_unpack(entries[i].value);
        if (!entry) {
            mailbox->cursor = key_seq(entries[i].key);
            continue;
        }
        bool durable = entry->seq <= mailbox->durable_seq;
        bool there = flight_find(mailbox, entry->seq) != NULL;
        going = durable && (there || (flight_room(mailbox) && entry_give(address, NULL, entry)));
        if (going)
            mailbox->cursor = entry->seq;
        entry_free(entry);
    }
    return going;
}

/* Small pages would cost a scan per acknowledgement. */
static bool page_fits(const struct mailbox *mailbox)
{
    return mailbox->flights_count == 0 ||
           (flight_room(mailbox) && mailbox->flights_count + MAILBOX_PAGE <= MAILBOX_FLIGHT_MAX);
}

void mailbox_pump(struct address *address)
{
    struct mailbox *mailbox = &address->mailbox;
    struct shard *shard = address->shard;
    bool needed = mailbox->loaded && address->exists && address->resources_count > 0 &&
                  (mailbox->cursor < mailbox->durable_seq || flight_waiting(mailbox));
    if (!needed || shard_timer_is_set(&mailbox->retry))
        return;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    if (!arena)
        return;
    bool going = pump_returned(address, arena);
    while (going && mailbox->cursor < mailbox->durable_seq && page_fits(mailbox)) {
        xy_arena_reset(arena);
        going = pump_page(address, arena);
    }
    xy_arena_pool_give(shard->arenas, &arena);
}

void mailbox_session_available(struct address *address)
{
    mailbox_pump(address);
}
