/* The progress bar of xylem send and recv: on a terminal only, a few times per second. */
#include <stdio.h>
#include <unistd.h>

#include "agents/cli/transfer.h"
#include "sdk/drivers/system.h"

#define SHOW_EVERY_US 200000u
#define BAR_WIDTH     30

void transfer_begin(struct transfer_progress *progress, const char *name, uint64_t size)
{
    *progress = (struct transfer_progress){
        .name = name, .size = size, .begun_us = xy_now_us(xy_env_system()), .tty = isatty(STDERR_FILENO)
    };
}

void transfer_show(struct transfer_progress *progress, uint64_t bytes)
{
    uint64_t now = xy_now_us(xy_env_system());
    if (!progress->tty || now - progress->shown_us < SHOW_EVERY_US)
        return;
    progress->shown_us = now;
    double seconds = (double)(now - progress->begun_us) / 1e6;
    double rate = seconds > 0 ? (double)bytes / seconds / 1048576 : 0;
    double part = progress->size ? (double)bytes / (double)progress->size : 0;
    int filled = (int)(part * BAR_WIDTH);
    fprintf(stderr, "\r%.40s [", progress->name);
    for (int i = 0; i < BAR_WIDTH; i++)
        fputc(i < filled ? '#' : '.', stderr);
    fprintf(stderr, "] %3.0f%% %.1f MiB/s ", part * 100, rate);
}

double transfer_end(struct transfer_progress *progress)
{
    if (progress->tty && progress->shown_us)
        fprintf(stderr, "\r\033[K");
    return (double)(xy_now_us(xy_env_system()) - progress->begun_us) / 1e6;
}
