/* XEP-0082 times and the delay stamp. Own calendar arithmetic (days from a date and back, proleptic Gregorian), since
 * the library's depends on time zones and on 32-bit traps of its own. */
#include "core/time.h"

#include <stdio.h>

#include "core/base/assert.h"
#include "core/namespaces.h"

#define DAY_S     86400u
#define SECOND_US 1000000u

struct date {
    unsigned year, month, day;
};

/* Days since 1970-01-01. The year is counted from March, so that the leap day is its last. */
static int64_t days_of(struct date d)
{
    int64_t year = (int64_t)d.year - (d.month <= 2);
    int64_t month = (d.month + 9) % 12;
    int64_t day_of_year = (153 * month + 2) / 5 + d.day - 1;
    return year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719468;
}

static bool is_leap(unsigned year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static unsigned days_in(unsigned year, unsigned month)
{
    static const unsigned char days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    return month == 2 && is_leap(year) ? 29 : days[month - 1];
}

static struct date date_of(uint64_t days)
{
    struct date d = { .year = 1970, .month = 1 };
    const uint64_t days_400_years = 146097;
    d.year += (unsigned)(days / days_400_years * 400);
    days %= days_400_years;
    for (; days >= (is_leap(d.year) ? 366u : 365u); d.year++)
        days -= is_leap(d.year) ? 366 : 365;
    for (; days >= days_in(d.year, d.month); d.month++)
        days -= days_in(d.year, d.month);
    d.day = (unsigned)days + 1;
    return d;
}

void xy_time_format(uint64_t wall_us, char out[XY_TIME_LEN])
{
    const uint64_t last_us = 253402300799999999u; /* the end of the year 9999: the format has four digits */
    if (wall_us > last_us)
        wall_us = last_us;
    uint64_t seconds = wall_us / SECOND_US;
    struct date d = date_of(seconds / DAY_S);
    unsigned time = (unsigned)(seconds % DAY_S);
    int len =
        snprintf(out, XY_TIME_LEN, "%04u-%02u-%02uT%02u:%02u:%02u.%06uZ", d.year % 10000, d.month % 100,
                 d.day % 100, time / 3600 % 100, time / 60 % 60, time % 60, (unsigned)(wall_us % SECOND_US));
    xy_assert(len == XY_TIME_LEN - 1);
}

/* Takes exactly `digits` digits off the front. */
static bool take_number(struct xy_str *s, size_t digits, unsigned *out)
{
    uint32_t value;
    if (s->len < digits || !xy_str_u32(xy_str_n(s->data, digits), &value))
        return false;
    *out = value;
    *s = xy_str_n(s->data + digits, s->len - digits);
    return true;
}

static bool take_char(struct xy_str *s, char c)
{
    if (s->len == 0 || s->data[0] != c)
        return false;
    *s = xy_str_n(s->data + 1, s->len - 1);
    return true;
}

/* Microseconds of an optional fraction; digits beyond the sixth are read and dropped. */
static bool take_fraction(struct xy_str *s, unsigned *us)
{
    unsigned digits = 0, digit;
    *us = 0;
    if (!take_char(s, '.'))
        return true;
    for (unsigned unit = SECOND_US / 10; take_number(s, 1, &digit); unit /= 10, digits++)
        *us += digit * unit;
    return digits > 0;
}

static bool take_offset(struct xy_str *s, int64_t *seconds)
{
    unsigned hours, minutes;
    *seconds = 0;
    if (take_char(s, 'Z'))
        return true;
    int64_t sign = take_char(s, '-') ? -1 : 1;
    if (sign > 0 && !take_char(s, '+'))
        return false;
    if (!take_number(s, 2, &hours) || !take_char(s, ':') || !take_number(s, 2, &minutes) || hours > 23 ||
        minutes > 59)
        return false;
    *seconds = sign * (int64_t)(hours * 3600 + minutes * 60);
    return true;
}

bool xy_time_parse(struct xy_str text, uint64_t *wall_us)
{
    struct date d;
    unsigned hour, minute, second, us;
    int64_t offset;
    bool ok = take_number(&text, 4, &d.year) && take_char(&text, '-') && take_number(&text, 2, &d.month) &&
              take_char(&text, '-') && take_number(&text, 2, &d.day) && take_char(&text, 'T') &&
              take_number(&text, 2, &hour) && take_char(&text, ':') && take_number(&text, 2, &minute) &&
              take_char(&text, ':') && take_number(&text, 2, &second) && take_fraction(&text, &us) &&
              take_offset(&text, &offset) && text.len == 0;
    /* 60: a leap second, taken as the second after */
    if (!ok || d.month < 1 || d.month > 12 || d.day < 1 || d.day > days_in(d.year, d.month) || hour > 23 ||
        minute > 59 || second > 60)
        return false;
    int64_t seconds = days_of(d) * (int64_t)DAY_S + hour * 3600 + minute * 60 + second - offset;
    if (seconds < 0)
        return false;
    *wall_us = (uint64_t)seconds * SECOND_US + us;
    return true;
}

struct xy_elem *xy_delay_add(struct xy_arena *arena, struct xy_elem *parent, struct xy_str from,
                             uint64_t wall_us)
{
    char stamp[XY_TIME_LEN];
    xy_time_format(wall_us, stamp);
    struct xy_elem *delay = xy_elem_add(arena, parent, "delay", NS_DELAY);
    xy_elem_set(arena, delay, "from", from);
    xy_elem_set(arena, delay, "stamp", xy_arena_str(arena, xy_str(stamp)));
    return delay;
}
