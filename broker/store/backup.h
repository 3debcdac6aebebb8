/* A copy of the whole store while the broker works: consistent, and without a reader that stays open.
 *
 * The tables are copied page by page while they change, then the log from where the tables were complete when that began
 * to where it is when that ends. Such a copy recovers as a crashed store does: every row is as old as the beginning or
 * newer, and the log, whose records state absolute outcomes, brings all of them to its end (checkpoint.c relies on the
 * same). No read transaction outlasts a page, and the log is kept only as far as the copy has not caught up with it.
 *
 * The copy is made as DIRECTORY.partial and gets its name when all of it is on disk. In it lies a file called `restored`:
 * whoever opens a store finds it, gives every node a new epoch, forgets sessions that could be resumed, and removes it
 * (restore.c). Called by broker/admin. */
#pragma once

#include "broker/store/store.h"

#define STORE_BACKUP_PATH_MAX  1024u
#define STORE_BACKUP_ERROR_MAX 512u

enum store_backup_state { STORE_BACKUP_NONE, STORE_BACKUP_RUNNING, STORE_BACKUP_DONE, STORE_BACKUP_FAILED };

struct store_backup {
    enum store_backup_state state; /* of the newest one since the start */
    uint64_t number;               /* of it, counted from 1 */
    uint64_t bytes;                /* copied of the tables */
    uint64_t log_bytes;            /* and of the log */
    uint64_t took_us;
    char directory[STORE_BACKUP_PATH_MAX];
    char error[STORE_BACKUP_ERROR_MAX]; /* prose, if it failed */
};

/* Begins one, on a thread of its own. `directory` is an absolute path of a directory that does not exist or is empty; its
 * parent exists. `rate`: bytes of the tables per second, 0: as fast as it goes. false: prose in *error, nothing begun.
 * Any thread, but not while store_close runs. */
bool store_backup_start(struct store *store, struct xy_str directory, uint64_t rate, struct xy_buf *error);
void store_backup_look(struct store *store, struct store_backup *out); /* any thread */
