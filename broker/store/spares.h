/* Files of the segment log that are not in use yet: allocated and written once, so that writing them again changes no
 * metadata; and those that are not in use any more. A thread keeps one ready, and makes up to a few of what was retired,
 * so that no commit waits for either. Owned by a log (log_segments.c).
 *
 *   log-spare-N.seg   a spare; N is its place, for as long as it has that name
 *   log-new.seg       one of a size of its own, on its way to its name */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SEGMENT_NAME_BYTES 40u
#define SPARES_MAX         4u

struct spares;
/* Of `bytes` each, but the first is small, so that a start does not wait for it; in that directory, which stays
 * the caller's. Nothing is written before somebody wants one. NULL: no memory. */
struct spares *spares_new(int directory, uint64_t bytes);
void spares_free(struct spares **spares); /* NULL ok; removes them */
bool spares_own(const char *name);

/* Any thread: somebody means to write. One that could not be made is tried again. Returns the bytes of those
 * that are ready. */
uint64_t spares_want(struct spares *spares);
/* Waits until there is one. Its descriptor, its size and its name, which the caller changes to another one and then says so. If
 * it is below *bytes, one of that size is begun here and now, to be written once. -1: errno says why there is none. */
int spares_take(struct spares *spares, char name[SEGMENT_NAME_BYTES], uint64_t *bytes);
void spares_named(struct spares *spares, const char *name);
/* The file goes, in the order of the calls, each on disk before the next: never a hole between those that are left. */
void spares_retire(struct spares *spares, const char *name, uint64_t bytes);
/* Any thread: what is retired from here on is not written anew, somebody reads. */
void spares_hold(struct spares *spares);
void spares_release(struct spares *spares);
