/* The life of a backup: one at a time, on a thread of its own, into a directory that gets its name at the end. See
 * backup.h for the promise, backup_copy.c for the copying. */
#include "broker/store/backup.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/store/backup_internal.h"
#include "core/base/assert.h"
#include "core/time.h"

void backup_init(struct store *store)
{
    pthread_condattr_t monotonic;
    pthread_mutex_init(&store->backup.lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&store->backup.wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

bool copier_go_on(struct copier *c, uint64_t wait_us)
{
    struct backup *backup = &c->store->backup;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + wait_us * 1000;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    pthread_mutex_lock(&backup->lock);
    backup->status.bytes = c->table_bytes;
    backup->status.log_bytes = c->log_bytes;
    while (wait_us > 0 && !backup->stop && pthread_cond_timedwait(&backup->wake, &backup->lock, &until) == 0)
        ;
    bool stop = backup->stop;
    pthread_mutex_unlock(&backup->lock);
    if (stop)
        copier_fail(c, "the broker stopped");
    return !stop;
}

/* --- the thread --------------------------------------------------------------------------------------------------- */

/* An empty directory gives way. */
static void make_way(struct copier *c, const char *directory)
{
    struct stat info;
    if (lstat(directory, &info) == 0 && (!S_ISDIR(info.st_mode) || rmdir(directory) != 0))
        copier_fail(c, "%s exists and is not an empty directory", directory);
}

/* What whoever finds the directory should know; the file's presence is what counts. */
static void mark(struct copier *c, const char *directory)
{
    char time[XY_TIME_LEN + 1];
    struct xy_buf text = { 0 };
    xy_time_format(xy_wall_us(c->store->options.env), time);
    xy_buf_printf(
        &text,
        "This directory is a backup of a xylemd, made at %s. When a broker starts on it, or on a copy\n"
        "of it, every node begins a new epoch, so that clients notice that they may have seen items\n"
        "which are gone; sessions of before cannot be resumed. Then the broker removes this file.\n",
        time);
    if (xy_buf_failed(&text))
        copier_fail(c, "memory is short");
    else
        (void)backup_write_file(directory, RESTORED_FILE, xy_buf_view(&text), &c->error);
    xy_buf_free(&text);
}

/* LMDB's lock files say nothing in a copy. */
static void drop_lock_files(const char *directory)
{
    static const char *const names[] = { "log.mdb-lock", "tables.mdb-lock" };
    char path[STORE_BACKUP_PATH_MAX + 32];
    for (int i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        (void)unlink(path);
    }
}

static void fill(struct copier *c, const char *partial, uint64_t rate)
{
    struct store *store = c->store;
    struct store_backend_options options = { .data_dir = partial,
                                             .log_bytes_max = store->options.log_bytes_max,
                                             .map_bytes = store->options.map_bytes,
                                             .reserve_bytes = 2 * store->options.reserve_bytes,
                                             .readers_max = STORE_READERS_SPARE };
    const struct store_backend *backend = store_wanted_backend(store);
    if (!backend->open(backend, &options, &c->log, &c->tables, &c->error))
        return;
    copier_run(c, rate);
    c->log->ops->close(&c->log);
    c->tables->ops->close(&c->tables);
    drop_lock_files(partial);
    if (!copier_failed(c) && store->data_dir != NULL)
        (void)backup_copy_files(store->data_dir, partial, &c->error);
    if (!copier_failed(c))
        mark(c, partial);
    if (!copier_failed(c))
        (void)backup_sync_directory(partial, &c->error);
}

static void outcome(struct copier *c)
{
    struct backup *backup = &c->store->backup;
    struct store_backup *status = &backup->status;
    pthread_mutex_lock(&backup->lock);
    status->state = copier_failed(c) ? STORE_BACKUP_FAILED : STORE_BACKUP_DONE;
    status->bytes = c->table_bytes;
    status->log_bytes = c->log_bytes;
    status->took_us = xy_now_us(c->store->options.env) - c->start_us;
    (void)snprintf(status->error, sizeof(status->error), "%.*s",
                   XY_ARG(xy_buf_failed(&c->error) ? XY_STR("memory is short") : xy_buf_view(&c->error)));
    pthread_mutex_unlock(&backup->lock);
}

static void *backup_main(void *ctx)
{
    struct store *store = ctx;
    struct copier c = { .store = store, .start_us = xy_now_us(store->options.env) };
    char partial[STORE_BACKUP_PATH_MAX + 16];
    const char *directory = store->backup.status.directory; /* fixed while it runs */
    (void)snprintf(partial, sizeof(partial), "%s.partial", directory);
    make_way(&c, directory);
    if (!copier_failed(&c) && backup_make_directory(partial, &c.error)) {
        fill(&c, partial, store->backup.rate);
        if (!copier_failed(&c))
            (void)backup_rename(partial, directory, &c.error);
        if (copier_failed(&c))
            backup_remove_directory(partial);
    }
    outcome(&c);
    xy_buf_free(&c.error);
    return NULL;
}

/* --- beginning and ending ----------------------------------------------------------------------------------------- */

/* Mistakes that can be told without asking the disk, which may let a shard wait. The path is without a slash at its end
 * then. */
static bool usable(struct xy_str directory, char path[STORE_BACKUP_PATH_MAX], struct xy_buf *error)
{
    while (directory.len > 1 && directory.data[directory.len - 1] == '/')
        directory.len--;
    if (directory.len < 2 || directory.data[0] != '/' || memchr(directory.data, 0, directory.len) != NULL) {
        xy_buf_lit(error, "the directory must be an absolute path");
        return false;
    }
    if (directory.len >= STORE_BACKUP_PATH_MAX) {
        xy_buf_lit(error, "the path of the directory is too long");
        return false;
    }
    memcpy(path, directory.data, directory.len);
    path[directory.len] = '\0';
    return true;
}

bool store_backup_start(struct store *store, struct xy_str directory, uint64_t rate, struct xy_buf *error)
{
    struct backup *backup = &store->backup;
    char path[STORE_BACKUP_PATH_MAX];
    bool begun = false;
    pthread_mutex_lock(&backup->lock);
    if (backup->status.state == STORE_BACKUP_RUNNING) {
        xy_buf_printf(error, "a backup to %s is running", backup->status.directory);
    } else if (usable(directory, path, error)) {
        if (backup->begun)
            pthread_join(backup->thread, NULL); /* it has told its outcome: nothing is left to wait for */
        backup->rate = rate;
        backup->status =
            (struct store_backup){ .state = STORE_BACKUP_RUNNING, .number = backup->status.number + 1 };
        memcpy(backup->status.directory, path, sizeof(path));
        begun = backup->begun = pthread_create(&backup->thread, NULL, backup_main, store) == 0;
        if (!begun) {
            xy_buf_lit(error, "a thread cannot be started");
            backup->status.state = STORE_BACKUP_NONE;
        }
    }
    pthread_mutex_unlock(&backup->lock);
    return begun;
}

void store_backup_look(struct store *store, struct store_backup *out)
{
    pthread_mutex_lock(&store->backup.lock);
    *out = store->backup.status;
    pthread_mutex_unlock(&store->backup.lock);
}

void backup_stats(struct store *store, struct store_stats *out)
{
    pthread_mutex_lock(&store->backup.lock);
    out->backups = store->backup.status.number;
    out->backup_running = store->backup.status.state == STORE_BACKUP_RUNNING;
    pthread_mutex_unlock(&store->backup.lock);
}

void backup_stop(struct store *store)
{
    struct backup *backup = &store->backup;
    pthread_mutex_lock(&backup->lock);
    backup->stop = true;
    pthread_cond_broadcast(&backup->wake);
    pthread_mutex_unlock(&backup->lock);
    if (backup->begun)
        pthread_join(backup->thread, NULL);
    backup->begun = false;
}
