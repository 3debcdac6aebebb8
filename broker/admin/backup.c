/* The commands urn:xylem:admin:backup and urn:xylem:admin:backup-status: copy the store while the broker works
 * (broker/store/backup.h), and how far the newest copy is. The first one answers at once: a copy takes its time, and
 * whoever asked may go away meanwhile. `xylem admin backup` uses both. */
#include "broker/admin/admin_internal.h"
#include "broker/store/backup.h"
#include "broker/store/store.h"

#define VAR_DIRECTORY "{" NS_XYLEM_ADMIN "}directory"
#define VAR_RATE      "{" NS_XYLEM_ADMIN "}rate"
#define RATE_DEFAULT  (50u << 20) /* bytes per second */

static void add(struct xy_arena *arena, struct xy_elem *form, const char *name, struct xy_str value)
{
    xy_form_add(arena, form, xy_str(name), "text-single", NULL, value);
}

static void add_number(struct xy_arena *arena, struct xy_elem *form, const char *name, uint64_t value)
{
    add(arena, form, name, xy_arena_printf(arena, "%llu", (unsigned long long)value));
}

static void answer(struct shard *shard, struct request **request, struct store *store)
{
    static const char *const states[] = { [STORE_BACKUP_NONE] = "none",
                                          [STORE_BACKUP_RUNNING] = "running",
                                          [STORE_BACKUP_DONE] = "done",
                                          [STORE_BACKUP_FAILED] = "failed" };
    struct xy_arena *arena = (*request)->stanza.arena;
    struct xy_elem *form = xy_form_new(arena, "result", NS_XYLEM_ADMIN);
    struct store_backup *backup = xy_arena_zalloc(arena, sizeof(*backup));
    if (!backup) {
        command_refuse(shard, request, XY_RESOURCE_CONSTRAINT, "the broker is short of memory");
        return;
    }
    store_backup_look(store, backup);
    add(arena, form, "state", xy_str(states[backup->state]));
    if (backup->state != STORE_BACKUP_NONE) {
        add_number(arena, form, "number", backup->number);
        add(arena, form, "directory", xy_str(backup->directory));
        add_number(arena, form, "bytes", backup->bytes);
        add_number(arena, form, "log_bytes", backup->log_bytes);
    }
    if (backup->state == STORE_BACKUP_DONE || backup->state == STORE_BACKUP_FAILED)
        add_number(arena, form, "milliseconds", backup->took_us / 1000);
    if (backup->state == STORE_BACKUP_FAILED)
        add(arena, form, "error", xy_str(backup->error));
    command_complete(shard, request, form, NULL);
}

static void run_status(struct shard *shard, struct request **request, const struct xy_form *form)
{
    (void)form;
    answer(shard, request, shard_group_store(shard->group));
}

static void run_backup(struct shard *shard, struct request **request, const struct xy_form *form)
{
    struct store *store = shard_group_store(shard->group);
    struct xy_arena *arena = (*request)->stanza.arena;
    struct xy_str rate_text = xy_form_value(form, VAR_RATE);
    struct xy_buf error = { 0 };
    uint64_t rate = RATE_DEFAULT;
    if (rate_text.len > 0 && !xy_str_u64(rate_text, &rate)) {
        command_refuse(shard, request, XY_BAD_REQUEST,
                       "the rate is a number of bytes per second, or 0: unlimited");
        return;
    }
    if (store_backup_start(store, xy_form_value(form, VAR_DIRECTORY), rate, &error)) {
        answer(shard, request, store);
    } else {
        struct xy_str why = xy_arena_str(arena, xy_buf_view(&error));
        command_refuse(shard, request, XY_NOT_ACCEPTABLE,
                       why.data ? why.data : "the broker is short of memory");
    }
    xy_buf_free(&error);
}

static const struct command_field fields[] = {
    { VAR_DIRECTORY, "text-single", "A new directory on the broker's machine, as an absolute path", false },
    { VAR_RATE, "text-single", "Bytes per second; 0: unlimited", true },
    { NULL, NULL, NULL, false },
};

const struct command admin_backup_commands[] = {
    { "urn:xylem:admin:backup", "Back up the store", fields, run_backup },
    { "urn:xylem:admin:backup-status", "How far the newest backup is", NULL, run_status },
    { NULL, NULL, NULL, NULL },
};
