/* Statuses in words, and how stanza errors become statuses. Called by applications and by every completion. */
#include "sdk/src/client.h"

#define XYLEM_VERSION_TEXT "0.1.0"

static const struct {
    enum xylem_status status;
    const char *text;
} status_texts[] = {
    { XYLEM_OK, "done" },
    { XYLEM_FULL, "the publish queue or the spool is full: wait for on_room" },
    { XYLEM_TIMEOUT, "no answer in time" },
    { XYLEM_BUSY, "the broker is short of resources: try again later" },
    { XYLEM_DISCONNECTED, "the connection was lost before the answer came" },
    { XYLEM_UNREACHABLE, "the broker could not be reached" },
    { XYLEM_REFUSED, "refused by the broker" },
    { XYLEM_NOT_FOUND, "not found" },
    { XYLEM_FORBIDDEN, "not allowed" },
    { XYLEM_CONFLICT, "it exists already" },
    { XYLEM_UNAVAILABLE, "the recipient is not available" },
    { XYLEM_UNSUPPORTED, "the other side does not support this" },
    { XYLEM_INVALID, "invalid argument" },
    { XYLEM_WRONG_STATE, "not possible now" },
    { XYLEM_UNCLAIMED, "items of a durable subscription came that this client did not subscribe to" },
    { XYLEM_NO_MEMORY, "out of memory" },
    { XYLEM_AUTH, "login refused" },
    { XYLEM_UNTRUSTED, "the server is not trusted" },
    { XYLEM_REPLACED, "another client took this resource" },
    { XYLEM_STORAGE, "the folder for state or spool cannot be used" },
    { XYLEM_STOPPED, "the client is stopped" },
};

const char *xylem_version(void)
{
    return XYLEM_VERSION_TEXT;
}

const char *xylem_status_text(enum xylem_status status)
{
    for (size_t i = 0; i < sizeof status_texts / sizeof status_texts[0]; i++)
        if (status_texts[i].status == status)
            return status_texts[i].text;
    return "unknown status";
}

bool xylem_status_retriable(enum xylem_status status)
{
    enum xylem_class class = xylem_status_class(status);
    return class == XYLEM_CLASS_RETRY || class == XYLEM_CLASS_LOST;
}

static const struct {
    enum xy_condition condition;
    enum xylem_status status;
} condition_statuses[] = {
    { XY_ITEM_NOT_FOUND, XYLEM_NOT_FOUND },
    { XY_FORBIDDEN, XYLEM_FORBIDDEN },
    { XY_NOT_ALLOWED, XYLEM_FORBIDDEN },
    { XY_NOT_AUTHORIZED, XYLEM_FORBIDDEN },
    { XY_CONFLICT, XYLEM_CONFLICT },
    { XY_RECIPIENT_UNAVAILABLE, XYLEM_UNAVAILABLE },
    { XY_SERVICE_UNAVAILABLE, XYLEM_UNAVAILABLE },
    { XY_REMOTE_SERVER_NOT_FOUND, XYLEM_UNAVAILABLE },
    { XY_REMOTE_SERVER_TIMEOUT, XYLEM_UNAVAILABLE },
    { XY_FEATURE_NOT_IMPLEMENTED, XYLEM_UNSUPPORTED },
};

enum xylem_status xy_status_of_error(const struct xy_error *error)
{
    if (error->condition == XY_RESOURCE_CONSTRAINT || error->type == XY_ERROR_WAIT)
        return XYLEM_BUSY;
    for (size_t i = 0; i < sizeof condition_statuses / sizeof condition_statuses[0]; i++)
        if (condition_statuses[i].condition == error->condition)
            return condition_statuses[i].status;
    return XYLEM_REFUSED;
}
