/* libxylem in a libuv loop: the loop watches the client's one descriptor and its timeout. */
#pragma once

#include <uv.h>
#include <xylem/xylem.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Once per client, before or after start. The loop then does what xylem_client_process would; do not call that as
 * well. Handles are closed when the client is freed: run the loop until it is empty before it is closed. A client that
 * is stopped does not keep the loop alive. */
XYLEM_API enum xylem_status xylem_uv_attach(struct xylem_client *client, uv_loop_t *loop);

#ifdef __cplusplus
}
#endif
