/* Reading and applying lists of pauses; see backoff.h. */
#include "broker/pubsub/claim/backoff.h"

static bool is_divider(char c)
{
    return c == ' ' || c == ',' || c == '\t' || c == '\n' || c == '\r';
}

bool backoff_parse(struct xy_str text, struct backoff *out)
{
    *out = (struct backoff){ .count = 0 };
    for (size_t at = 0; at < text.len;) {
        size_t end = at;
        while (end < text.len && !is_divider(text.data[end]))
            end++;
        uint32_t seconds;
        if (end > at &&
            (out->count == BACKOFF_STEPS_MAX || !xy_str_u32(xy_str_n(text.data + at, end - at), &seconds) ||
             seconds > BACKOFF_S_MAX)) {
            out->count = 0;
            return false;
        }
        if (end > at)
            out->step_s[out->count++] = seconds;
        at = end + 1;
    }
    return true;
}

uint32_t backoff_s(const struct backoff *backoff, uint32_t attempts)
{
    if (backoff->count == 0 || attempts == 0)
        return 0;
    return backoff->step_s[attempts < backoff->count ? attempts - 1 : backoff->count - 1];
}
