/* The directory of a backup: made under another name, filled, synced, renamed. Also what else lies in a data directory
 * (the broker's secret, a certificate of its own): small files that a restored broker should find again. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/store/backup_internal.h"
#include "broker/store/backend_disk.h"

enum { PATH_BYTES = STORE_BACKUP_PATH_MAX + 300, DIRECTORY_MODE = 0700, FILE_MODE = 0600 };

static const char *reason(int code)
{
    const char *text = strerrordesc_np(code);
    return text != NULL ? text : "unknown error";
}

static void explain(struct xy_buf *error, const char *what, const char *path)
{
    xy_buf_printf(error, "cannot %s %s: %s", what, path, reason(errno));
}

/* Of the store itself, or left by one that was open: a backup makes or leaves out these by itself. */
static bool is_own(const char *name)
{
    static const char *const own[] = { "log.mdb",         "log.mdb-lock", "tables.mdb",
                                       "tables.mdb-lock", "lock",         RESTORED_FILE };
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        if (strcmp(name, own[i]) == 0)
            return true;
    return segments_own(name);
}

bool backup_make_directory(const char *path, struct xy_buf *error)
{
    if (mkdir(path, DIRECTORY_MODE) == 0)
        return true;
    if (errno == EEXIST)
        xy_buf_printf(
            error, "%s exists: another backup is at work there, or one did not finish; then remove it", path);
    else
        explain(error, "make", path);
    return false;
}

/* Only files, and only in a directory that this backup made. */
void backup_remove_directory(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    while (directory != NULL && (entry = readdir(directory)) != NULL)
        (void)unlinkat(dirfd(directory), entry->d_name, 0);
    if (directory != NULL)
        (void)closedir(directory);
    (void)rmdir(path);
}

bool backup_sync_directory(const char *path, struct xy_buf *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (!ok)
        explain(error, "sync", path);
    if (fd >= 0)
        (void)close(fd);
    return ok;
}

bool backup_write_file(const char *directory, const char *name, struct xy_str text, struct xy_buf *error)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
    bool ok = fd >= 0;
    for (size_t done = 0; ok && done < text.len;) {
        ssize_t len = write(fd, text.data + done, text.len - done);
        ok = len > 0;
        done += ok ? (size_t)len : 0;
    }
    ok = ok && fsync(fd) == 0;
    if (!ok)
        explain(error, "write", path);
    if (fd >= 0)
        (void)close(fd);
    return ok;
}

static bool copy_file(int from_directory, const char *name, const char *to, struct xy_buf *error)
{
    struct stat info;
    struct xy_buf text = { 0 };
    int fd = openat(from_directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool wanted =
        fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size <= STORE_BACKUP_FILE_MAX;
    bool ok = true;
    if (wanted) {
        size_t size = (size_t)info.st_size;
        char *room = size > 0 ? xy_buf_reserve(&text, size) : NULL;
        ssize_t len = room != NULL ? read(fd, room, size) : 0;
        text.len = len > 0 ? (size_t)len : 0;
        ok = text.len == size;
        if (!ok)
            xy_buf_printf(error, "cannot read %s in the data directory", name);
        ok = ok && backup_write_file(to, name, xy_buf_view(&text), error);
    }
    if (fd >= 0)
        (void)close(fd);
    xy_buf_free(&text);
    return ok;
}

bool backup_copy_files(const char *from, const char *to, struct xy_buf *error)
{
    DIR *directory = opendir(from);
    struct dirent *entry;
    bool ok = directory != NULL;
    if (!ok)
        explain(error, "read", from);
    while (ok && (entry = readdir(directory)) != NULL)
        if (!is_own(entry->d_name))
            ok = copy_file(dirfd(directory), entry->d_name, to, error);
    if (directory != NULL)
        (void)closedir(directory);
    return ok;
}

bool backup_rename(const char *from, const char *to, struct xy_buf *error)
{
    char parent[PATH_BYTES];
    (void)snprintf(parent, sizeof(parent), "%s", to);
    char *slash = strrchr(parent, '/');
    if (slash != NULL)
        slash[slash == parent ? 1 : 0] = '\0';
    if (rename(from, to) != 0) {
        explain(error, "make", to);
        return false;
    }
    return backup_sync_directory(parent, error);
}
