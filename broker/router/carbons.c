/* Message carbons (XEP-0280): copies of what an account receives and sends, for those of its sessions that asked.
 *
 * Copies are made by the owner of an address when the original goes out, so never before it is on disk. They are no
 * delivery: nobody waits for their acknowledgement, and they are never stored. The sessions of an account with copies
 * know it (session_set_copied) and mark what they send, so that everybody else's messages cost nothing. */
#include "broker/router/address_internal.h"
#include "broker/router/kept.h"

/* --- which messages (XEP-0280 6.1 and 9) ---------------------------------------------------------------------------- */

static bool is_invitation(const struct xy_elem *message)
{
    const struct xy_elem *x = xy_elem_child(message, "x", NS_MUC_USER);
    return xy_elem_child(message, "x", NS_CONFERENCE) || (x && xy_elem_child(x, "invite", NS_MUC_USER));
}

static bool is_of_chat(const struct xy_elem *message)
{
    for (const struct xy_elem *e = xy_elem_first(message); e; e = xy_elem_next(e))
        if (xy_str_is(e->ns, NS_RECEIPTS) || xy_str_is(e->ns, NS_CHATSTATES) ||
            xy_str_is(e->ns, NS_CHAT_MARKERS))
            return true;
    return xy_elem_child(message, "body", NS_CLIENT) != NULL;
}

static bool is_eligible(const struct xy_stanza *message)
{
    const struct xy_elem *m = message->elem;
    if (message->type == XY_GROUPCHAT || message->type == XY_HEADLINE || message->type == XY_ERROR)
        return false;
    if (xy_elem_child(m, "private", NS_CARBONS) || xy_elem_child(m, "no-copy", NS_HINTS) ||
        xy_elem_child(m, "received", NS_CARBONS) || xy_elem_child(m, "sent", NS_CARBONS))
        return false;
    if (is_invitation(m))
        return true;
    if (xy_elem_child(m, "x", NS_MUC_USER))
        return false; /* a private message out of a room: the room copies it */
    return message->type == XY_CHAT || is_of_chat(m);
}

/* --- the copies ----------------------------------------------------------------------------------------------------- */

enum direction { RECEIVED, SENT };

/* What one original becomes, but for the address of who gets the copy. */
struct carbon {
    struct xy_bytes *original; /* serialised as a child of <forwarded/> */
    enum direction direction;
    bool chat;
};

static void carbon_send(const struct address *address, const struct resource *to, const struct carbon *carbon)
{
    static const char *const names[] = { [RECEIVED] = "received", [SENT] = "sent" };
    const char *name = names[carbon->direction];
    struct xy_buf buf = { 0 };
    xy_buf_lit(&buf, "<message");
    xy_xml_attr(&buf, "from", address->bare);
    xy_buf_lit(&buf, " to='");
    xy_xml_escape(&buf, address->bare);
    xy_buf_char(&buf, '/');
    xy_xml_escape(&buf, to->name);
    xy_buf_char(&buf, '\'');
    if (carbon->chat)
        xy_xml_attr(&buf, "type", XY_STR("chat"));
    xy_buf_lit(&buf, "><");
    xy_buf_str(&buf, xy_str(name));
    xy_buf_lit(&buf, " xmlns='" NS_CARBONS "'><forwarded xmlns='" NS_FORWARD "'>");
    xy_buf_str(&buf, xy_bytes_view(carbon->original));
    xy_buf_lit(&buf, "</forwarded></");
    xy_buf_str(&buf, xy_str(name));
    xy_buf_lit(&buf, "></message>");
    struct xy_bytes *bytes = xy_buf_failed(&buf) ? NULL : xy_bytes_new(xy_buf_view(&buf));
    xy_buf_free(&buf);
    if (bytes) {
        stat_add(address->shard, carbons, 1);
        session_send(address->shard, to->session, &bytes);
    }
}

/* The original is theirs: the session it is addressed to, else the available ones of highest priority. */
static bool gets_original(const struct address *address, const struct resource *resource,
                          const struct resource *exact)
{
    const struct resource *best = exact ? NULL : address_best(address);
    if (exact)
        return resource == exact;
    return best && resource->available && resource->priority == best->priority;
}

/* --- sent: at the sender's own address ------------------------------------------------------------------------------ */

struct sent_mail {
    struct session_ref sender;
    struct carbon carbon;
    struct mail_str bare;
};

static void sent_at_owner(struct shard *shard, void *payload)
{
    struct sent_mail *mail = payload;
    struct address *address = address_find(shard, mail_str_view(&mail->bare));
    for (size_t i = 0; address && i < address->resources_count; i++) {
        const struct resource *r = address->resources[i];
        if (r->carbons && r->available && !session_ref_eq(r->session, mail->sender))
            carbon_send(address, r, &mail->carbon);
    }
    xy_bytes_unref(&mail->carbon.original);
    mail_str_free(&mail->bare);
}

static void copy_sent(const struct address *address, const struct request *request,
                      const struct carbon *carbon)
{
    struct sent_mail mail = { .sender = request->origin, .carbon = *carbon };
    struct xy_str bare = xy_jid_bare(request->stanza.from);
    if (!mail_str_set(&mail.bare, bare))
        return;
    mail.carbon.direction = SENT;
    mail.carbon.original = xy_bytes_ref(carbon->original);
    shard_mail(address->shard, shard_owner(address->shard, bare), sent_at_owner, &mail,
               mail_str_size(&mail, &mail.bare));
}

/* --- received, and the way in --------------------------------------------------------------------------------------- */

static void copy_received(const struct address *address, const struct request *request,
                          const struct carbon *carbon)
{
    const struct xy_stanza *message = &request->stanza;
    const struct resource *exact = NULL;
    if (xy_jid_present(message->to) && !xy_jid_is_bare(message->to))
        exact = address_resource(address, xy_jid_resource(message->to));
    for (size_t i = 0; i < address->resources_count; i++) {
        const struct resource *r = address->resources[i];
        if (r->carbons && r->available && !gets_original(address, r, exact) &&
            !session_ref_eq(r->session, request->origin))
            carbon_send(address, r, carbon);
    }
}

void carbons_copy(const struct address *address, const struct request *request)
{
    const struct xy_stanza *message = &request->stanza;
    if ((address->carbons_count == 0 && !request->copied) || !is_eligible(message))
        return;
    struct carbon carbon = { .direction = RECEIVED, .chat = message->type == XY_CHAT };
    carbon.original = xy_xml_bytes(message->elem, XY_STR(NS_FORWARD));
    if (!carbon.original)
        return; /* memory is short; the original is what matters */
    if (address->carbons_count > 0)
        copy_received(address, request, &carbon);
    /* Between sessions of one account a third one gets one copy, that above. */
    if (request->copied && !xy_str_eq(xy_jid_bare(message->from), address->bare))
        copy_sent(address, request, &carbon);
    xy_bytes_unref(&carbon.original);
}

/* --- who wants copies ------------------------------------------------------------------------------------------------ */

/* The answer to <enable/> waits until every session of the account knows, so that nothing sent after it goes uncopied. */
struct telling {
    struct request *request;
    uint64_t ticket; /* that it wants them is on disk */
    unsigned owner;
    unsigned waiting; /* sessions not told yet, and one for the teller; owner's shard only */
};

static void told(struct telling *telling, struct shard *shard)
{
    xy_assert(telling->waiting > 0);
    if (--telling->waiting > 0)
        return;
    if (telling->request)
        request_reply(shard, &telling->request, NULL, telling->ticket);
    free(telling);
}

static void on_told(struct shard *shard, void *payload)
{
    told(*(struct telling **)payload, shard);
}

static void session_knows(struct shard *shard, void *ctx)
{
    struct telling *telling = ctx;
    shard_mail(shard, telling->owner, on_told, &telling, sizeof(struct telling *));
}

static bool is_copied(const struct address *address, const struct resource *sender)
{
    return address->carbons_count > (sender->carbons ? 1u : 0u);
}

void carbons_bound(const struct address *address, const struct resource *resource)
{
    if (is_copied(address, resource))
        session_set_copied(address->shard, resource->session, true, NULL, NULL);
}

static void tell_all(const struct address *address, struct telling *telling)
{
    for (size_t i = 0; i < address->resources_count; i++) {
        const struct resource *r = address->resources[i];
        if (telling)
            telling->waiting++;
        session_set_copied(address->shard, r->session, is_copied(address, r), telling ? session_knows : NULL,
                           telling);
    }
}

static bool resource_set(struct address *address, struct resource *resource, bool on)
{
    if (resource->carbons == on)
        return false;
    resource->carbons = on;
    address->carbons_count += on ? 1u : UINT_MAX;
    return true;
}

void carbons_gone(struct address *address, struct resource *resource)
{
    if (resource_set(address, resource, false))
        tell_all(address, NULL);
}

void address_carbons(struct shard *shard, struct request **request, bool on)
{
    struct address *address = address_find(shard, xy_jid_bare((*request)->stanza.from));
    struct resource *resource = address ? address_resource_of(address, (*request)->origin) : NULL;
    struct telling *telling = calloc(1, sizeof(*telling));
    if (!resource || !telling) {
        free(telling);
        request_fail_with(shard, request, XY_RESOURCE_CONSTRAINT, "the broker is short of memory");
        return;
    }
    *telling = (struct telling){ .request = *request, .owner = shard->index, .waiting = 1 };
    *request = NULL;
    if (resource_set(address, resource, on)) {
        telling->ticket = kept_put(address, resource, true);
        tell_all(address, telling);
    }
    told(telling, shard);
}

static void set_at_owner(struct shard *shard, struct address *address, struct resource *resource, bool on)
{
    (void)shard;
    if (resource_set(address, resource, on))
        tell_all(address, NULL);
}

void address_set_carbons(struct shard *shard, struct session_ref session, struct xy_str bare, bool on)
{
    address_note(shard, set_at_owner, session, bare, on);
}
