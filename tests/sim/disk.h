/* The disk of a simulation: the memory backend behind a wrapper that knows what is really synced.
 *
 * It reads the tokens in what is appended to the log and tells the model when the commit that covers them is through,
 * whatever the store believes. At a crash it `dies`: from then on it accepts everything and keeps nothing, so that the
 * dying broker can be taken apart in an orderly way while its effects are those of a power failure. It can be told to
 * die within a later commit, to break within one (the device answers with errors from then on, and whether that last
 * commit is there after the restart is left open, as with a failed fsync), and to lie (planted faults). */
#pragma once

#include "broker/store/backend.h"
#include "tests/sim/model.h"

struct sim_disk {
    struct store_backend backend; /* for store_options */
    struct store_memory *memory;
    const struct store_backend *inner;
    struct sim_model *model;
    struct xy_buf pending; /* unsigned each: tokens appended, not committed */
    bool dead;
    bool full;         /* room() says that nothing more fits */
    bool broken;       /* every write fails */
    bool keeps;        /* the commit that breaks it is done all the same */
    bool swallow;      /* planted: says that there is room when it is full, and keeps nothing */
    unsigned die_in;   /* commits until it dies before doing one; 0: not planned */
    unsigned break_in; /* the same for breaking */
    unsigned lie;      /* planted: of so many commits only one is done, all are reported done */
    unsigned forget;   /* planted: every so many appended entries one is lost */
    unsigned appends, commits;
    unsigned broke; /* times */
};

struct sim_disk *sim_disk_new(struct sim_model *model);
void sim_disk_free(struct sim_disk **disk);
void sim_disk_die(struct sim_disk *disk);
void sim_disk_break_in(struct sim_disk *disk, unsigned commits, bool keeps);
void sim_disk_revive(struct sim_disk *disk); /* the machine is on again, with a disk that works */
