/* The two backends on disk, put together from their parts; see backend_disk.h. The tables are LMDB's either way. The files say
 * which log a data directory has: log.mdb is there from the first moment on if it is LMDB's, and tables.mdb alone means
 * segments, of which there may be none at times. */
#include "broker/store/backend_disk.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/store/disk.h"
#include "core/base/buf.h"

static bool is_there(const char *data_dir, const char *file)
{
    char path[DISK_PATH_BYTES];
    int len = snprintf(path, sizeof(path), "%s/%s", data_dir, file);
    return len < (int)sizeof(path) && access(path, F_OK) == 0;
}

const struct store_backend *store_backend_found(const char *data_dir, const struct store_backend *wanted)
{
    if (is_there(data_dir, "log.mdb"))
        return &store_backend_lmdb;
    return is_there(data_dir, "tables.mdb") ? &store_backend_segments : wanted;
}

/* The oldest first: what a crash leaves of them has no hole. */
static bool remove_segments(const char *data_dir, struct xy_buf *error)
{
    struct dirent **entries = NULL;
    char path[DISK_PATH_BYTES + NAME_MAX];
    int count = scandir(data_dir, &entries, NULL, alphasort);
    bool ok = count >= 0;
    for (int i = 0; i < count; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", data_dir, entries[i]->d_name);
        if (segments_own(entries[i]->d_name))
            ok = unlink(path) == 0 && ok;
        free(entries[i]);
    }
    free(entries);
    if (!ok)
        xy_buf_printf(error, "cannot remove the segments of the log in %s: errno %d", data_dir, errno);
    return ok;
}

static bool remove_lmdb(const char *data_dir, struct xy_buf *error)
{
    static const char *const names[] = { "log.mdb-lock", "log.mdb" };
    char path[DISK_PATH_BYTES + 16];
    for (int i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", data_dir, names[i]);
        if (unlink(path) == 0 || errno == ENOENT)
            continue;
        xy_buf_printf(error, "cannot remove %s: errno %d", path, errno);
        return false;
    }
    return true;
}

bool disk_change_log(const struct store_backend *to, const struct store_backend_options *options,
                     struct store_log **log, struct xy_buf *error)
{
    bool lmdb = to == &store_backend_lmdb;
    (*log)->ops->close(log);
    return remove_segments(options->data_dir, error) && (lmdb || remove_lmdb(options->data_dir, error)) &&
           disk_sync_directory(options->data_dir, error) &&
           (lmdb ? lmdb_log_open(options, log, error) : segments_open(options, log, error)) &&
           disk_sync_directory(options->data_dir, error);
}

static bool disk_open(const struct store_backend *backend, const struct store_backend_options *options,
                      struct store_log **log, struct store_tables **tables, struct xy_buf *error)
{
    bool lmdb = backend == &store_backend_lmdb;
    *log = NULL;
    *tables = NULL;
    if ((lmdb ? lmdb_log_open(options, log, error) : segments_open(options, log, error)) &&
        lmdb_tables_open(options, tables, error) && disk_sync_directory(options->data_dir, error))
        return true;
    if (*log != NULL)
        (*log)->ops->close(log);
    if (*tables != NULL)
        (*tables)->ops->close(tables);
    return false;
}

const struct store_backend store_backend_lmdb = { .name = "lmdb", .on_disk = true, .open = disk_open };
const struct store_backend store_backend_segments = { .name = "segments",
                                                      .on_disk = true,
                                                      .open = disk_open };
