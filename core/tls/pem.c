/* Certificates and keys as files or as texts in memory, for whichever library reads them: every failure names the file
 * and the reason, and keys do not stay in freed memory. */
#include "core/tls/library.h"

#include <errno.h>
#include <mbedtls/platform_util.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

void tls_pem_free(struct tls_pem *pem)
{
    if (pem->data != NULL)
        mbedtls_platform_zeroize(pem->data, pem->len);
    free(pem->data);
    pem->data = NULL;
}

static bool read_file(FILE *file, struct tls_pem *pem, struct xy_tls_error *error)
{
    struct stat status;
    if (fstat(fileno(file), &status) != 0 || !S_ISREG(status.st_mode)) {
        tls_explain(error, "%s is not a regular file", pem->name);
        return false;
    }
    if (status.st_size > (off_t)XY_TLS_FILE_BYTES_MAX) {
        tls_explain(error, "%s is larger than %u bytes; is it a PEM file?", pem->name, XY_TLS_FILE_BYTES_MAX);
        return false;
    }
    pem->len = (size_t)status.st_size;
    pem->data = calloc(1, pem->len + 1);
    if (pem->data == NULL) {
        tls_explain(error, "no memory to read %s", pem->name);
        return false;
    }
    if (fread(pem->data, 1, pem->len, file) != pem->len) {
        tls_explain(error, "cannot read %s: %s", pem->name,
                    ferror(file) ? strerror(errno) : "it changed meanwhile");
        return false;
    }
    return true;
}

bool tls_pem_load(const char *path, struct xy_str text, const char *what, struct tls_pem *pem,
                  struct xy_tls_error *error)
{
    *pem = (struct tls_pem){ .name = path != NULL ? path : what };
    if (path != NULL) {
        FILE *file = fopen(path, "rbe");
        if (file == NULL) {
            tls_explain(error, "cannot open %s: %s", path, strerror(errno));
            return false;
        }
        bool read = read_file(file, pem, error);
        fclose(file);
        return read;
    }
    if (!xy_str_present(text)) {
        tls_explain(error, "no file and no text given for %s", what);
        return false;
    }
    pem->len = text.len;
    pem->data = calloc(1, text.len + 1);
    if (pem->data == NULL) {
        tls_explain(error, "no memory for %s", what);
        return false;
    }
    memcpy(pem->data, text.data, text.len);
    return true;
}
