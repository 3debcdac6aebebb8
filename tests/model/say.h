/* An operation that is a request, as the stanza a client sends. Called by check.c. */
#pragma once

#include "tests/model/op.h"
#include "tests/model/peer.h"

void say_request(struct peer *peer, const struct op *op);
