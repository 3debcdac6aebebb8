/* The main of a fuzz target outside the fuzz preset: runs every file of a folder, and every prefix of each, through the
 * target, so that what fuzzing once found stays found with any compiler. A broken promise aborts. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX   (1u << 20)
#define PREFIX_BYTES_MAX 4096u

static void run_file(const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(FILE_BYTES_MAX);
    if (file == NULL || data == NULL) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    size_t size = fread(data, 1, FILE_BYTES_MAX, file);
    fclose(file);
    for (size_t len = size < PREFIX_BYTES_MAX ? 0 : size; len <= size; len++) {
        /* exact copies, so that AddressSanitizer sees a byte read too far */
        uint8_t *copy = malloc(len + (len == 0));
        if (copy == NULL)
            exit(1);
        memcpy(copy, data, len);
        LLVMFuzzerTestOneInput(copy, len);
        free(copy);
    }
    free(data);
}

int main(int argc, char **argv)
{
    size_t files = 0;
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    if (folder == NULL) {
        fprintf(stderr, "usage: %s CORPUS_FOLDER\n", argv[0]);
        return 2;
    }
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        run_file(argv[1], entry->d_name);
        files++;
    }
    closedir(folder);
    printf("%zu files\n", files);
    return files > 0 ? 0 : 1;
}
