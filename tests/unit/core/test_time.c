/* Times: known instants, every kind of offset and fraction, refusals, and the calendar against itself. */
#include "tests/unit/unit.h"

#include "core/time.h"
#include "core/xml/writer.h"

#define SECOND 1000000u

static void known_instants(void **state)
{
    (void)state;
    static const struct {
        uint64_t us;
        const char *text;
    } cases[] = {
        { 0, "1970-01-01T00:00:00.000000Z" },
        { 951782400u * (uint64_t)SECOND, "2000-02-29T00:00:00.000000Z" },
        { 951868799u * (uint64_t)SECOND + 999999, "2000-02-29T23:59:59.999999Z" },
        { 1767323045u * (uint64_t)SECOND + 678901, "2026-01-02T03:04:05.678901Z" },
        { 4107542400u * (uint64_t)SECOND, "2100-03-01T00:00:00.000000Z" }, /* 2100 is no leap year */
        { 253402300799u * (uint64_t)SECOND, "9999-12-31T23:59:59.000000Z" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char text[XY_TIME_LEN];
        uint64_t us = 1;
        xy_time_format(cases[i].us, text);
        assert_string_equal(text, cases[i].text);
        assert_true(xy_time_parse(xy_str(text), &us));
        assert_int_equal(us, cases[i].us);
    }
    char text[XY_TIME_LEN];
    xy_time_format(UINT64_MAX, text);
    assert_string_equal(text, "9999-12-31T23:59:59.999999Z");
}

static void other_spellings(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t us;
    } cases[] = {
        { "1970-01-01T00:00:01Z", SECOND },
        { "1970-01-01T00:00:01.5Z", SECOND + 500000 },
        { "1970-01-01T00:00:01.1234567899Z", SECOND + 123456 },
        { "1970-01-01T02:30:00+02:30", 0 },
        { "1969-12-31T18:00:00-06:00", 0 },
        { "1970-01-01T00:00:60Z", 60 * SECOND },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint64_t us = 7;
        assert_true(xy_time_parse(xy_str(cases[i].text), &us));
        assert_int_equal(us, cases[i].us);
    }
}

static void refusals(void **state)
{
    (void)state;
    const char *bad[] = { "",
                          "1970-01-01",
                          "1970-01-01T00:00:00",
                          "1970-01-01 00:00:00Z",
                          "1970-13-01T00:00:00Z",
                          "1970-00-01T00:00:00Z",
                          "1970-01-00T00:00:00Z",
                          "1970-02-29T00:00:00Z",
                          "2100-02-29T00:00:00Z",
                          "1970-04-31T00:00:00Z",
                          "1970-01-01T24:00:00Z",
                          "1970-01-01T00:60:00Z",
                          "1970-01-01T00:00:61Z",
                          "1970-01-01T00:00:00.Z",
                          "1970-01-01T00:00:00z",
                          "1970-01-01T00:00:00Zx",
                          "1970-01-01T00:00:00+2:00",
                          "1970-01-01T00:00:00+0200",
                          "1970-01-01T00:00:00+24:00",
                          "1970-01-01T00:00:00+01:60",
                          "1969-12-31T23:59:59Z",
                          "1970-01-01T00:00:00+00:01",
                          "70-01-01T00:00:00Z",
                          "1970-1-1T00:00:00Z",
                          "+970-01-01T00:00:00Z",
                          "19700101T00:00:00",
                          "0000-01-01T00:00:00Z" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        uint64_t us = 7;
        if (xy_time_parse(xy_str(bad[i]), &us))
            print_error("accepted: %s\n", bad[i]);
        assert_int_equal(us, 7);
    }
}

static void every_day(void **state)
{
    (void)state;
    char former[XY_TIME_LEN] = "", text[XY_TIME_LEN];
    for (uint64_t day = 0; day < 366 * 600; day++) {
        uint64_t us = day * 86400 * SECOND + day, back;
        xy_time_format(us, text);
        assert_true(strcmp(former, text) < 0);
        assert_true(xy_time_parse(xy_str(text), &back));
        assert_int_equal(back, us);
        memcpy(former, text, sizeof(text));
    }
}

static void delay(void **state)
{
    (void)state;
    struct xy_arena *arena = xy_arena_new();
    struct xy_elem *m = xy_elem_new(arena, XY_STR("message"), XY_STR("jabber:client"));
    struct xy_buf out = { 0 };
    xy_delay_add(arena, m, XY_STR("example.org"), 1);
    xy_delay_add(arena, m, XY_STR_NONE, 0);
    xy_xml_write_children(&out, m);
    assert_str(xy_buf_view(&out),
               "<delay xmlns='urn:xmpp:delay' from='example.org' stamp='1970-01-01T00:00:00.000001Z'/>"
               "<delay xmlns='urn:xmpp:delay' stamp='1970-01-01T00:00:00.000000Z'/>");
    xy_buf_free(&out);
    xy_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(known_instants), cmocka_unit_test(other_spellings),
                                        cmocka_unit_test(refusals), cmocka_unit_test(every_day),
                                        cmocka_unit_test(delay) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
