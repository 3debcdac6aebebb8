/* What LMDB's files and the segment log ask of the disk they are on; see disk.h. */
#include "broker/store/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

uint64_t disk_room(const char *data_dir, uint64_t reserve_bytes)
{
    struct statvfs fs;
    if (statvfs(data_dir, &fs) != 0)
        return 0;
    uint64_t available = (uint64_t)fs.f_bavail * fs.f_frsize;
    return available > reserve_bytes ? available - reserve_bytes : 0;
}

bool disk_sync_directory(const char *data_dir, struct xy_buf *error)
{
    int fd = open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (!ok)
        xy_buf_printf(error, "cannot sync the data directory %s: errno %d", data_dir, errno);
    if (fd >= 0)
        close(fd);
    return ok;
}
