/* Protobuf payloads (protobuf-c) as items of type XYLEM_TYPED. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <xylem/xylem.h>

#ifdef __cplusplus
extern "C" {
#endif

/* As xylem_publish; the payload's type is the message's full name. */
XYLEM_API enum xylem_status xylem_publish_proto(struct xylem_client *client, const char *node,
                                                const char *item_id, const ProtobufCMessage *message,
                                                xylem_done_fn *done, void *ctx);

#ifdef __cplusplus
}
#endif
