/* XEP-0198 counters: 64 bits inside, 32 on the wire, so that a wrap is nothing special and an h from before
 * the start is told from one that was acknowledged long ago. Called by queue.c and by the owners of sessions.
 */
#include "core/sm/sm.h"

#include <string.h>

#include "core/base/assert.h"

/* An h that lags by more than this is taken for one that runs ahead: half of the number space, as in RFC
 * 1982. */
#define H_LAG_MAX (UINT32_C(1) << 31)

void xy_sm_init(struct xy_sm *sm)
{
    *sm = (struct xy_sm){ 0 };
}

static uint64_t *done_word(struct xy_sm *sm, uint64_t number)
{
    return &sm->in_done[number % XY_SM_WINDOW / 64];
}

bool xy_sm_in_full(const struct xy_sm *sm)
{
    return sm->in_tail - sm->in_h >= XY_SM_WINDOW;
}

uint64_t xy_sm_in_begin(struct xy_sm *sm)
{
    xy_assert(!xy_sm_in_full(sm));
    return sm->in_tail++;
}

bool xy_sm_in_done(struct xy_sm *sm, uint64_t number)
{
    uint64_t bit = UINT64_C(1) << (number % 64);
    xy_assert(number >= sm->in_h && number < sm->in_tail);
    xy_assert((*done_word(sm, number) & bit) == 0);
    if (number != sm->in_h) {
        *done_word(sm, number) |= bit;
        return false;
    }
    for (sm->in_h++; sm->in_h < sm->in_tail; sm->in_h++) {
        bit = UINT64_C(1) << (sm->in_h % 64);
        if ((*done_word(sm, sm->in_h) & bit) == 0)
            break;
        *done_word(sm, sm->in_h) &= ~bit;
    }
    return true;
}

void xy_sm_in_forget(struct xy_sm *sm)
{
    sm->in_tail = sm->in_h;
    memset(sm->in_done, 0, sizeof(sm->in_done));
}

enum xy_sm_verdict xy_sm_ack(struct xy_sm *sm, uint32_t h, uint32_t *newly)
{
    xy_assert(sm->out_acked <= sm->out_sent);
    uint32_t ahead = h - (uint32_t)sm->out_acked;
    *newly = 0;
    if (ahead <= sm->out_sent - sm->out_acked) {
        *newly = ahead;
        sm->out_acked += ahead;
        return XY_SM_ACK_NEW;
    }
    uint32_t behind = (uint32_t)sm->out_acked - h;
    return behind < H_LAG_MAX && behind <= sm->out_acked ? XY_SM_ACK_OLD : XY_SM_ACK_TOO_HIGH;
}

void xy_sm_rewind(struct xy_sm *sm)
{
    sm->out_sent = sm->out_acked;
}
