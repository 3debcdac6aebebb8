/* What a record does to the tables. One function per record type, all of them deterministic and absolute: the outcome
 * depends on the record and not on what stood before, so a suffix of the log may be applied again.
 *
 * Called when a record is appended (into the shard's memory table) and when recovery reads it back. The one operation
 * that looks at the present is `head`: an item that is no longer retained changes the byte in front of its value, and
 * nothing happens when the item is gone or has changed already, so it may be repeated too. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "broker/store/store.h"

/* Where the operations go. Keys and values are borrowed for the call. */
struct apply_sink {
    void *ctx;
    /* Value: `head` then `body`. `fresh`: the key was never used before this record. */
    void (*put)(void *ctx, enum store_table table, struct xy_str key, struct xy_str head, struct xy_str body,
                bool fresh);
    void (*del)(void *ctx, enum store_table table, struct xy_str key);
    void (*del_range)(void *ctx, enum store_table table, struct xy_str from,
                      struct xy_str to); /* [from, to) */
    void (*head)(void *ctx, enum store_table table, struct xy_str key, char head);
};

/* `packed` is the message as serialised, it becomes the value where the table keeps the message. */
void apply_record(enum store_record type, const ProtobufCMessage *message, struct xy_str packed,
                  const struct apply_sink *sink);

/* NULL: this program knows no such record. */
const ProtobufCMessageDescriptor *apply_descriptor(unsigned type);
