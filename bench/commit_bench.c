/* What one commit of LMDB takes on this disk, with nothing around it: a record appended and committed at a time, for so many
 * seconds. What the store adds to that is what scenario pub1 takes more. Run by bench/direct.py:  commit_bench DIRECTORY SECONDS */
#include <lmdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    MAP_BYTES = 1 << 30,
    RECORD_BYTES = 450,
    KEEP = 10000
}; /* about what a publish of 256 bytes becomes */

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must(int rc, const char *what)
{
    if (rc == 0)
        return;
    (void)fprintf(stderr, "commit_bench: cannot %s: %s\n", what, mdb_strerror(rc));
    exit(1);
}

/* The head goes as the end grows, so that the map is large enough. */
static void append(MDB_env *env, MDB_dbi dbi, uint64_t number)
{
    static char record[RECORD_BYTES];
    uint64_t oldest = number - KEEP;
    MDB_txn *txn;
    MDB_val key = { sizeof(number), &number }, old = { sizeof(oldest), &oldest },
            value = { sizeof(record), record };
    must(mdb_txn_begin(env, NULL, 0, &txn), "begin");
    must(mdb_put(txn, dbi, &key, &value, MDB_APPEND), "append");
    if (number >= KEEP)
        must(mdb_del(txn, dbi, &old, NULL), "delete");
    must(mdb_txn_commit(txn), "commit");
}

int main(int argc, char **argv)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    uint64_t count = 0;
    if (argc != 3) {
        (void)fprintf(stderr, "usage: commit_bench DIRECTORY SECONDS\n");
        return 2;
    }
    double seconds = strtod(argv[2], NULL);
    must(mdb_env_create(&env), "create an environment");
    must(mdb_env_set_mapsize(env, MAP_BYTES), "set its size");
    must(mdb_env_open(env, argv[1], 0, 0600), "open the directory");
    must(mdb_txn_begin(env, NULL, 0, &txn), "begin");
    must(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi), "open the database");
    must(mdb_txn_commit(txn), "commit");
    double start = now();
    while (now() - start < seconds)
        append(env, dbi, count++);
    printf("{\"operations\":%llu,\"operations_per_s\":%.1f}\n", (unsigned long long)count,
           (double)count / (now() - start));
    mdb_env_close(env);
    return 0;
}
