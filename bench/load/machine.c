/* What the machine says of processes: how much processor time those took that have no part in the run, and how much memory
 * the server has. Read when a mark is set (figures.c) and around what should take memory. */
#include "bench/load/load.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t ticks_to_us(unsigned long long ticks)
{
    return ticks * 1000000u / (uint64_t)sysconf(_SC_CLK_TCK);
}

/* What the process took, and its children that have ended: whoever begins and ends during a run is in here, too. */
static unsigned long long process_ticks(const char *pid)
{
    char path[64], text[1024];
    unsigned long long v[4] = { 0 };
    (void)snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0; /* it has just ended */
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    (void)fclose(file);
    const char *name_end = strrchr(text, ')'); /* the name may have anything in it */
    if (name_end == NULL ||
        sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %llu %llu", &v[0], &v[1],
               &v[2], &v[3]) != 4)
        return 0;
    return v[0] + v[1] + v[2] + v[3];
}

/* Taken by other virtual machines, as far as this one is told. */
static unsigned long long stolen_ticks(void)
{
    unsigned long long stolen = 0;
    FILE *file = fopen("/proc/stat", "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "cpu %*u %*u %*u %*u %*u %*u %*u %llu", &stolen) != 1)
        stolen = 0;
    (void)fclose(file);
    return stolen;
}

/* The sum over the others, kernel threads among them, and not what /proc/stat has for the machine: many kernels count that
 * by looking, at each tick, at who runs. Work that comes at fixed times keeps step with the ticks, and then all of it is
 * seen, or nothing. */
uint64_t others_cpu_us(const struct load *load)
{
    unsigned long long ticks = stolen_ticks();
    DIR *folder = opendir("/proc");
    if (folder == NULL)
        return 0;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        long pid = isdigit((unsigned char)entry->d_name[0]) ? strtol(entry->d_name, NULL, 10) : 0;
        if (pid > 0 && pid != load->pid && pid != getpid())
            ticks += process_ticks(entry->d_name);
    }
    (void)closedir(folder);
    return ticks_to_us(ticks);
}

uint64_t server_private_kb(const struct load *load)
{
    char path[64];
    unsigned long long size, resident = 0, mapped = 0;
    (void)snprintf(path, sizeof(path), "/proc/%ld/statm", load->pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%llu %llu %llu", &size, &resident, &mapped) != 3)
        resident = mapped = 0;
    (void)fclose(file);
    return (resident - mapped) * (uint64_t)sysconf(_SC_PAGESIZE) / 1024;
}
