/* Accounts by ad-hoc command (XEP-0133): add, delete, change password, count, list. `xylem user` uses these over the
 * local socket; the work is done by broker/router/accounts.h. */
#include <stdlib.h>

#include "broker/admin/admin_internal.h"

#define LIST_MAX_DEFAULT 1000u /* JIDs per answer, so that it fits into a stanza; go on with `after` */
#define DELETE_MAX       256u  /* accounts per command */
#define VAR_AFTER        "{" NS_XYLEM_ADMIN "}after"
#define VAR_MORE         "{" NS_XYLEM_ADMIN "}more"

/* --- answers ------------------------------------------------------------------------------------------------------ */

/* A change that is under way; lives in its request's arena. Of several accounts the last waits for the others, and with it
 * goes to disk what will be answered: who sends the request again after a crash hears that, and it is not done twice. */
struct change {
    struct request *request;
    unsigned waiting;           /* accounts not yet changed */
    struct change_step *last;   /* the one that waits; NULL: none does */
    struct xy_elem *answer;     /* that is on disk; NULL: none is */
    enum account_result result; /* the last that was not ACCOUNT_OK */
    struct xy_str bare;         /* whose that was */
};

static const struct {
    enum xy_condition condition;
    const char *text;
} refusals[] = {
    [ACCOUNT_UNKNOWN] = { XY_ITEM_NOT_FOUND, "there is no such account" },
    [ACCOUNT_EXISTS] = { XY_CONFLICT, "the account exists already" },
    [ACCOUNT_BAD_PASSWORD] = { XY_NOT_ACCEPTABLE,
                               "the password is empty, too long or has characters not allowed" },
    [ACCOUNT_BUSY] = { XY_RESOURCE_CONSTRAINT, "many passwords are being processed; try again in a moment" },
    [ACCOUNT_NO_ROOM] = { XY_RESOURCE_CONSTRAINT,
                          "the broker has no room for it; free disk space and try again" },
};

static struct xy_error refusal(const struct change *change)
{
    enum account_result result = change->result;
    struct xy_str text = xy_arena_printf(change->request->stanza.arena, "%.*s: %s", XY_ARG(change->bare),
                                         refusals[result].text);
    return xy_error_make(refusals[result].condition, text.data);
}

static void answer(struct shard *shard, struct change *change)
{
    struct request *request = change->request;
    if (change->result != ACCOUNT_OK) {
        struct xy_error error = refusal(change);
        request_fail(shard, &request, &error);
    } else if (change->answer) {
        request_reply(shard, &request, change->answer, 0);
    } else {
        command_complete(shard, &request, NULL, NULL);
    }
}

/* One account of a change. */
struct change_step {
    struct change *change;
    struct xy_str bare;
};

static void delete_last(struct shard *shard, struct change *change);

static void on_changed(struct shard *shard, void *ctx, enum account_result result)
{
    struct change_step *step = ctx;
    struct change *change = step->change;
    if (result != ACCOUNT_OK) {
        change->result = result;
        change->bare = step->bare;
    }
    if (--change->waiting == 0)
        answer(shard, change);
    else if (change->waiting == 1 && change->last)
        delete_last(shard, change);
}

/* On the shard of the only account that is not changed yet: nobody else looks at the request now. */
static void on_appended(struct shard *shard, void *ctx)
{
    struct change *change = ((struct change_step *)ctx)->change;
    struct request *request = change->request;
    xy_assert(change->waiting == 1);
    if (change->result == ACCOUNT_OK) {
        change->answer = command_completed(shard, request, NULL, NULL);
    } else {
        struct xy_error error = refusal(change);
        change->answer = xy_error_reply(request->stanza.arena, &request->stanza, &error);
    }
    if (change->answer)
        request_record_answer(shard, request, change->answer);
}

static struct accounts_asker asker_of(struct change_step *step, bool last)
{
    return (struct accounts_asker){ on_changed, last ? on_appended : NULL, step };
}

static void delete_last(struct shard *shard, struct change *change)
{
    struct change_step *step = change->last;
    struct accounts_asker asker = asker_of(step, true);
    change->last = NULL;
    accounts_remove(shard, step->bare, &asker);
}

/* Takes the request; `count` steps in its arena, one per JID. NULL: refused. */
static struct change_step *change_begin(struct shard *shard, struct request **request,
                                        const struct xy_jid *jids, size_t count)
{
    struct xy_arena *arena = (*request)->stanza.arena;
    struct change *change = xy_arena_zalloc(arena, sizeof(*change));
    struct change_step *steps = xy_arena_zalloc(arena, count * sizeof(*steps));
    if (!change || !steps) {
        command_refuse(shard, request, XY_RESOURCE_CONSTRAINT, "the broker is short of memory");
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        steps[i] = (struct change_step){ change, xy_jid_bare(jids[i]) };
    change->request = *request;
    change->waiting = (unsigned)count;
    *request = NULL;
    return steps;
}

/* A bare JID of a local domain; refuses the request otherwise. */
static bool local_account(struct shard *shard, struct request **request, struct xy_str text,
                          struct xy_jid *out)
{
    if (!xy_jid_parse((*request)->stanza.arena, text, out))
        command_refuse(shard, request, XY_JID_MALFORMED, "that is no JID");
    else if (!xy_jid_is_bare(*out) || out->local_len == 0)
        command_refuse(shard, request, XY_BAD_REQUEST, "an account is named NAME@DOMAIN");
    else if (!router_is_local_domain(shard, xy_jid_domain(*out)))
        command_refuse(shard, request, XY_ITEM_NOT_FOUND, "this broker does not serve that domain");
    else
        return true;
    return false;
}

/* --- add, change password, delete --------------------------------------------------------------------------------- */

static void run_add(struct shard *shard, struct request **request, const struct xy_form *form)
{
    struct xy_jid jid;
    struct xy_str password = xy_form_value(form, "password");
    struct xy_str again = xy_form_value(form, "password-verify");
    if (!local_account(shard, request, xy_form_value(form, "accountjid"), &jid))
        return;
    if (xy_str_present(again) && !xy_str_eq(password, again)) {
        command_refuse(shard, request, XY_BAD_REQUEST, "the passwords differ");
        return;
    }
    struct change_step *step = change_begin(shard, request, &jid, 1);
    if (!step)
        return;
    struct accounts_asker asker = asker_of(step, true);
    accounts_create(shard, step->bare, password, &asker);
}

static void run_password(struct shard *shard, struct request **request, const struct xy_form *form)
{
    struct xy_jid jid;
    struct xy_str password = xy_form_value(form, "password");
    if (!local_account(shard, request, xy_form_value(form, "accountjid"), &jid))
        return;
    struct change_step *step = change_begin(shard, request, &jid, 1);
    if (!step)
        return;
    struct accounts_asker asker = asker_of(step, true);
    accounts_set_password(shard, step->bare, password, &asker);
}

/* Several at once; answered when all are done. */
static void run_delete(struct shard *shard, struct request **request, const struct xy_form *form)
{
    const struct xy_form_field *field = xy_form_field(form, "accountjids");
    struct xy_jid jids[DELETE_MAX];
    size_t count = field->values_count;
    if (count > DELETE_MAX) {
        command_refuse(shard, request, XY_NOT_ACCEPTABLE, "too many accounts for one command");
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (!local_account(shard, request, field->values[i], &jids[i]))
            return;
    struct change_step *steps = change_begin(shard, request, jids, count);
    if (!steps)
        return;
    /* The request ends with the last of them, so it lives as long as this loop. */
    struct change *change = steps->change;
    change->last = &steps[count - 1];
    for (size_t i = 0; i + 1 < count; i++) {
        struct accounts_asker asker = asker_of(&steps[i], false);
        accounts_remove(shard, steps[i].bare, &asker);
    }
    if (count == 1)
        delete_last(shard, change);
}

/* --- number and list ------------------------------------------------------------------------------------------------ */

static void on_number(struct shard *shard, void *ctx, const struct accounts_page *page)
{
    struct request *request = ctx;
    struct xy_arena *arena = request->stanza.arena;
    struct xy_elem *form = xy_form_new(arena, "result", NS_ADMIN);
    xy_form_add(arena, form, XY_STR("registeredusersnum"), "text-single", "The number of registered users",
                xy_arena_printf(arena, "%llu", (unsigned long long)page->total));
    command_complete(shard, &request, form, NULL);
}

static void run_number(struct shard *shard, struct request **request, const struct xy_form *form)
{
    struct request *moved = *request;
    (void)form;
    *request = NULL;
    accounts_list(shard, XY_STR_NONE, 0, on_number, moved);
}

struct listing {
    struct request *request;
    struct xy_elem *form, *field;
    size_t left;
};

static void listing_end(struct shard *shard, struct listing *listing, bool more)
{
    struct xy_arena *arena = listing->request->stanza.arena;
    if (more)
        xy_form_add(arena, listing->form, XY_STR(VAR_MORE), "boolean", NULL, XY_STR("true"));
    struct request *request = listing->request;
    struct xy_elem *form = listing->form;
    free(listing);
    command_complete(shard, &request, form, more ? "There are more: go on after the last one." : NULL);
}

static void on_page(struct shard *shard, void *ctx, const struct accounts_page *page)
{
    struct listing *listing = ctx;
    struct xy_arena *arena = listing->request->stanza.arena;
    struct xy_str last = XY_STR_NONE;
    for (size_t i = 0; i < page->count; i++) {
        last = xy_arena_str(arena, page->jids[i]);
        xy_form_add_value(arena, listing->field, last);
        listing->left--;
    }
    if (page->more && listing->left > 0 && last.len > 0)
        accounts_list(shard, last, listing->left < ACCOUNTS_PAGE_MAX ? listing->left : ACCOUNTS_PAGE_MAX,
                      on_page, listing);
    else
        listing_end(shard, listing, page->more);
}

static void run_list(struct shard *shard, struct request **request, const struct xy_form *form)
{
    uint64_t max = LIST_MAX_DEFAULT, wanted;
    struct xy_str after = form ? xy_form_value(form, VAR_AFTER) : XY_STR_NONE;
    if (form && xy_str_u64(xy_form_value(form, "max_items"), &wanted) && wanted > 0 && wanted < max)
        max = wanted;
    struct listing *listing = calloc(1, sizeof(*listing));
    if (!listing) {
        command_refuse(shard, request, XY_RESOURCE_CONSTRAINT, "the broker is short of memory");
        return;
    }
    struct xy_arena *arena = (*request)->stanza.arena;
    listing->request = *request;
    *request = NULL;
    listing->left = (size_t)max;
    listing->form = xy_form_new(arena, "result", NS_ADMIN);
    listing->field = xy_form_add(arena, listing->form, XY_STR("registereduserjids"), "jid-multi",
                                 "The list of all users", XY_STR_NONE);
    /* present and empty: from the first, without counting all */
    accounts_list(shard, after.len ? after : XY_STR(""),
                  max < ACCOUNTS_PAGE_MAX ? (size_t)max : ACCOUNTS_PAGE_MAX, on_page, listing);
}

/* --- table ---------------------------------------------------------------------------------------------------------- */

static const struct command_field add_fields[] = {
    { "accountjid", "jid-single", "The Jabber ID for the account to be added", false },
    { "password", "text-private", "The password for this account", false },
    { "password-verify", "text-private", "Retype password", true },
    { NULL, NULL, NULL, false },
};
static const struct command_field delete_fields[] = {
    { "accountjids", "jid-multi", "The Jabber ID(s) to delete", false },
    { NULL, NULL, NULL, false },
};
static const struct command_field password_fields[] = {
    { "accountjid", "jid-single", "The Jabber ID for this account", false },
    { "password", "text-private", "The password for this account", false },
    { NULL, NULL, NULL, false },
};

const struct command admin_user_commands[] = {
    { NS_ADMIN "#add-user", "Add User", add_fields, run_add },
    { NS_ADMIN "#delete-user", "Delete User", delete_fields, run_delete },
    { NS_ADMIN "#change-user-password", "Change User Password", password_fields, run_password },
    { NS_ADMIN "#get-registered-users-num", "Get Number of Registered Users", NULL, run_number },
    { NS_ADMIN "#get-registered-users-list", "Get List of Registered Users", NULL, run_list },
    { NULL, NULL, NULL, NULL },
};
