/* What the files of a backup share: backup.c is its life (thread, directory, outcome), backup_copy.c copies tables and
 * log, backup_files.c the directory and the small files in it. */
#pragma once

#include "broker/store/internal.h"

/* One copy under way; belongs to the backup's thread. */
struct copier {
    struct store *store;
    struct store_log *log;       /* of the copy */
    struct store_tables *tables; /* of the copy */
    uint64_t complete;           /* where the store's tables were complete when the copy began */
    uint64_t copied;             /* entries of the log up to here are in the copy */
    uint64_t table_bytes, log_bytes;
    uint64_t tables_open, log_open; /* bytes in the copy's open transactions */
    uint64_t start_us;
    struct xy_buf error; /* prose; the first failure ends everything */
};

bool copier_failed(const struct copier *c);
void copier_fail(struct copier *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Tells how far it is. false: the copy shall end. Waits up to `wait_us` for that to happen. */
bool copier_go_on(struct copier *c, uint64_t wait_us);

/* backup_copy.c: everything; on failure c->error says why. */
void copier_run(struct copier *c, uint64_t rate);

/* backup_files.c: paths are absolute and without a slash at the end. */
bool backup_make_directory(const char *path, struct xy_buf *error);
void backup_remove_directory(const char *path); /* and the files that a backup puts there */
/* The small files beside the store's own, and the one that marks a copy. */
bool backup_copy_files(const char *from, const char *to, struct xy_buf *error);
bool backup_write_file(const char *directory, const char *name, struct xy_str text, struct xy_buf *error);
/* `from` becomes `to`, which does not exist or is empty, durably. */
bool backup_rename(const char *from, const char *to, struct xy_buf *error);
bool backup_sync_directory(const char *path, struct xy_buf *error);
