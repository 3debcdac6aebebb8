/* An operation that is a request, as the stanza a client sends. Called by check.c. */
#pragma once

#include "tests/model/op.h"
#include "tests/model/peer.h"

void say_settle(struct peer *peer, const struct op *op, uint64_t epoch, uint64_t seq, uint64_t subid);
void say_request(struct peer *peer, const struct op *op);
