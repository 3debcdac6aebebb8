/* Files and folders of the spool; see file.h. */
#include "sdk/spool/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

bool xy_file_write(int file, const char *data, size_t len, uint64_t at)
{
    while (len > 0) {
        ssize_t n = pwrite(file, data, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return true;
}

bool xy_file_read(int file, char *data, size_t len, uint64_t at)
{
    while (len > 0) {
        ssize_t n = pread(file, data, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return true;
}

bool xy_folder_open(const char *folder, const char *lock, int *folder_fd, int *lock_fd, const char **what)
{
    *what = "cannot be opened";
    *lock_fd = -1;
    (void)mkdir(folder, 0700); /* that it is there is what the next step checks */
    *folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*folder_fd < 0)
        return false;
    *what = "cannot be written";
    *lock_fd = openat(*folder_fd, lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*lock_fd < 0)
        return false;
    *what = "is in use by another process";
    return flock(*lock_fd, LOCK_EX | LOCK_NB) == 0;
}
