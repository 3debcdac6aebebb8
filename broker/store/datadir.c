/* The data directory: made on first use, owned by one broker at a time. store_open calls this before anything opens a
 * file there; the lock is an flock, so it ends with the process however that ends. */
#include "broker/store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, DIRECTORY_MODE = 0700, FILE_MODE = 0600 };

static void in_use(int fd, const char *data_dir, struct xy_buf *error)
{
    char pid[32];
    ssize_t len = pread(fd, pid, sizeof(pid), 0);
    uint64_t number;
    if (len > 0 && xy_str_u64(xy_str_trim(xy_str_n(pid, (size_t)len)), &number))
        xy_buf_printf(error, "data directory %s is in use by process %llu", data_dir,
                      (unsigned long long)number);
    else
        xy_buf_printf(error, "data directory %s is in use by another process", data_dir);
}

static bool write_pid(int fd)
{
    char pid[32];
    int len = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    return ftruncate(fd, 0) == 0 && pwrite(fd, pid, (size_t)len, 0) == len;
}

static void explain(struct xy_buf *error, const char *what, const char *data_dir, int code)
{
    const char *advice = code == EACCES || code == EPERM || code == EROFS ? ": this user may not write there"
                         : code == ENOENT                   ? ": its parent directory does not exist"
                         : code == ENOTDIR                  ? ": it is not a directory"
                         : code == ENOSPC || code == EDQUOT ? ": the disk is full"
                                                            : "";
    char text[128] = "";
    if (advice[0] == '\0')
        (void)snprintf(text, sizeof(text), ": %s",
                       strerrordesc_np(code) ? strerrordesc_np(code) : "unknown error");
    xy_buf_printf(error, "cannot %s data directory %s%s%s", what, data_dir, advice, text);
}

int datadir_lock(const char *data_dir, struct xy_buf *error)
{
    char path[PATH_BYTES];
    if (snprintf(path, sizeof(path), "%s/lock", data_dir) >= (int)sizeof(path)) {
        xy_buf_lit(error, "the path of the data directory is too long");
        return -1;
    }
    if (mkdir(data_dir, DIRECTORY_MODE) != 0 && errno != EEXIST) {
        explain(error, "make", data_dir, errno);
        return -1;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
    if (fd < 0) {
        explain(error, "use", data_dir, errno);
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            in_use(fd, data_dir, error);
        else
            explain(error, "lock", data_dir, errno);
        close(fd);
        return -1;
    }
    if (!write_pid(fd)) {
        explain(error, "write to", data_dir, errno);
        close(fd);
        return -1;
    }
    return fd;
}

void datadir_unlock(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}
