/* Every fixed bound of the store, by name. What an operator may change is in struct store_options. */
#pragma once

#define STORE_FORMAT             2u /* of log and tables on disk; 2 brought the tables from STORE_SESSIONS on */
#define STORE_FORMAT_SEGMENTS    3u           /* the same, with the log in segments: only there */
#define STORE_FORMAT_SEALED      2u           /* from this one on rows carry checksums (seal.h) */
#define STORE_RECORD_VERSION     1u           /* of the envelope around each record */
#define STORE_ENTRY_BYTES        (64u << 10)  /* records of one shard gathered into one log entry */
#define STORE_RECORD_BYTES_MAX   (64u << 20)  /* one record; a stanza is far smaller */
#define STORE_COMMIT_BYTES       (64u << 20)  /* gathered into one commit */
#define STORE_QUEUE_BYTES_MAX    (128u << 20) /* handed over and not yet committed */
#define STORE_BATCH_KEEP_BYTES   (1u << 20)   /* a recycled batch buffer above this is given back */
#define STORE_LAZY_US            50000u       /* records that nobody waits for go after this */
#define STORE_LAZY_BYTES         (1u << 20)   /* of records that nobody waits for: then they go at once */
#define STORE_LOOK_US            150u         /* the commit thread looks for work before it sleeps */
#define STORE_LOOK_WAITS         8u           /* the last so many waits say whether it is worth while */
#define STORE_CUT_US             1000u        /* of one commit spent on cutting the log's head */
#define STORE_CUT_ENTRIES        512u         /* per commit, whatever the clock says */
#define STORE_CHECKPOINT_BYTES   (64u << 20)  /* default of options.checkpoint_bytes */
#define STORE_CHECKPOINT_RECORDS 200000u      /* default of options.checkpoint_records */
#define STORE_CHECKPOINT_US      30000000u    /* a checkpoint is made this often if there is anything in it */
#define STORE_TABLES_TXN_BYTES   (4u << 20)   /* of one transaction of a checkpoint */
#define STORE_TABLES_TXN_OPS     16384u
#define STORE_RANGE_SLICE        4096u        /* entries of a range deleted per call */
#define STORE_RETRY_US           1000000u     /* tables without room: tried again after this */
#define STORE_RECOVERY_BYTES     (128u << 20) /* of memory before recovery writes what it has to the tables */
#define STORE_CHECK_LINES_MAX    20u          /* of what is wrong in one table; the rest is counted */
#define STORE_BACKUP_TXN_BYTES   (8u << 20)   /* of one transaction of the copy */
#define STORE_BACKUP_FILE_MAX    (1u << 20) /* of another file in the data directory that a backup takes along */
#define STORE_BACKUP_PAUSE_US    50000u     /* a copy that is ahead of its rate looks at the log this often */
#define STORE_PAGE_US_MAX        10000u     /* of one scan, and of a read of the log for a backup */
#define STORE_PAGE_RECORDS_MAX   256u       /* returned by one scan */
#define STORE_PAGE_BYTES_MAX     (1u << 20)
#define STORE_ROOM_US            100000u    /* free disk is looked up this often */
#define STORE_ROOM_TOLD_BYTES    (1u << 20) /* refusing with less room than this is worth a line in the log */
#define STORE_HOLD_BYTES         (8u << 20) /* of disk kept ahead of the log's last page */
#define STORE_ZERO_BYTES         (64u << 10)  /* of it written in advance at a time */
#define STORE_ROOM_FACTOR        4u           /* bytes of file that a byte of records may need, at worst */
#define STORE_LOG_BYTES_MAX      (1ull << 30) /* default of options.log_bytes_max */
#define STORE_SEGMENTS           64u /* of a segment log of log_bytes_max, within the bounds that follow */
#define STORE_SEGMENT_BYTES_MIN  (64u << 10)
#define STORE_SEGMENT_BYTES_MAX  (16u << 20)
#define STORE_MAP_BYTES          (1ull << 40) /* default of options.map_bytes */
#define STORE_MAP_BYTES_MIN      (4ull << 30) /* less address space is not tried */
#define STORE_NUMBER_BLOCK       (1ull << 32) /* numbers reserved at each start */
#define STORE_SHARDS_MAX         256u
#define STORE_READERS_SPARE      16u  /* reader slots beyond one per shard */
#define STORE_SWEEP_MIN          256u /* publish ids looked at by each checkpoint, at least */
#define STORE_KEY_MAX            511u /* LMDB's own bound */
#define STORE_NAME_KEY_MAX       255u /* bytes of a name within a key; longer ones are folded */
#define STORE_PUBLISH_ID_KEY_MAX 160u
#define STORE_UNPACK_FACTOR      16u   /* memory an unpacked record may take, times its bytes */
#define STORE_UNPACK_BASE        4096u /* and this much more */

_Static_assert(8 + 2 * STORE_NAME_KEY_MAX + 1 > STORE_KEY_MAX, "publish ids need a bound of their own");
_Static_assert(8 + STORE_NAME_KEY_MAX + 1 + STORE_PUBLISH_ID_KEY_MAX < STORE_KEY_MAX,
               "the longest key fits LMDB");
_Static_assert(STORE_COMMIT_BYTES < (512u << 20), "one commit fits LMDB's list of dirty pages");
