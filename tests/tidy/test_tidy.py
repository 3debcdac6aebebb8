"""Every rule of tidy.py can fail, and does not fail where it should not: small trees, one fault each."""

import os

import pytest

import tidy

OPENING = "/* What this file is for, in a sentence.\n * Who calls it. */\n"


def breaches(tmp_path, files):
    for path, text in files.items():
        full = tmp_path / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text)
    found, _ = tidy.check(str(tmp_path))
    return [(path, line, rule) for path, line, rule, _ in found]


def function(lines):
    return "int f(void)\n{\n" + "    g();\n" * (lines - 2) + "}\n"


@pytest.mark.parametrize(
    "path, text, line, rule",
    [
        ("core/a.c", OPENING + "\n" * 999, 1001, "size"),
        ("core/a.c", OPENING + function(101), 4, "size"),
        ("core/a.c", "#include <stdio.h>\n", 1, "opening"),
        ("core/a.c", "/* Too short. */\n", 1, "opening"),
        ("core/a.c", OPENING + "#if 0\n#endif\n", 3, "leftover"),
        ("core/a.c", OPENING + "/* TODO */\n", 3, "leftover"),
        ("core/a.c", OPENING + "int x = atoi(y);\n", 3, "banned"),
        ("core/a.c", OPENING + "x = time(NULL);\n", 3, "world"),
        ("broker/pubsub/a.c", OPENING + "uv_run(loop);\n", 3, "world"),
        ("broker/router/a.c", OPENING + "mdb_get(a);\n", 3, "world"),
        ("sdk/src/a.c", OPENING + "getrandom(a);\n", 3, "world"),
        ("agents/host/cpu.c", OPENING + "clock_gettime(a);\n", 3, "world"),
        ("core/a.c", OPENING + '#include "broker/log.h"\n', 3, "arrow"),
        ("sdk/src/a.c", OPENING + '#include "broker/log.h"\n', 3, "arrow"),
        ("agents/cli/a.c", OPENING + '#include "broker/log.h"\n', 3, "arrow"),
        ("examples/a.c", OPENING + '#include "core/jid.h"\n', 3, "arrow"),
        ("broker/shard/a.c", OPENING + '#include "broker/net/link.h"\n', 3, "arrow"),
        ("broker/router/a.c", OPENING + '#include "broker/net/link.h"\n', 3, "arrow"),
        ("broker/store/a.c", OPENING + '#include "broker/shard/shard.h"\n', 3, "arrow"),
        ("broker/store/a.c", OPENING + '#include "broker/router/router.h"\n', 3, "arrow"),
        ("broker/delivery/a.c", OPENING + '#include "broker/pubsub/pubsub.h"\n', 3, "arrow"),
        ("broker/modules/a.c", OPENING + '#include "broker/pubsub/pubsub.h"\n', 3, "arrow"),
        ("broker/pubsub/a.c", OPENING + '#include "broker/server.h"\n', 3, "arrow"),
        ("broker/router/a.c", OPENING + '#include "broker/store/log_internal.h"\n', 3, "private"),
        ("schemas/a.proto", "message A {\n  B b = 1;\n}\nmessage B { repeated A a = 1; }\n", 1, "recursion"),
        ("schemas/a.proto", "message A {\n  oneof x {\n    A a = 1;\n  }\n}\n", 1, "recursion"),
    ],
)
def test_breach_is_found(tmp_path, path, text, line, rule):
    assert (path, line, rule) in breaches(tmp_path, {path: text})


@pytest.mark.parametrize(
    "path, text",
    [
        ("core/a.c", OPENING + "\n" * 998),
        ("core/a.c", OPENING + function(100)),
        ("core/a.c", OPENING + 'x = "atoi(1)"; /* strcpy() */ run_time(NULL); y->time(z);\n'),
        ("core/a.h", "/* One line of a dozen words is enough for a header that is small. */\n"),
        ("broker/net/a.c", OPENING + "uv_run(loop);\n"),
        ("broker/store/a.c", OPENING + "mdb_get(a); clock_gettime(a);\n"),
        ("sdk/drivers/a.c", OPENING + "uv_now(loop);\n"),
        ("agents/host/main.c", OPENING + "clock_gettime(a);\n"),
        ("broker/main.c", OPENING + '#include "broker/pubsub/pubsub.h"\n'),
        ("broker/pubsub/a.c", OPENING + '#include "broker/router/router.h"\n#include "broker/log.h"\n'),
        ("broker/router/a.c", OPENING + '#include "broker/delivery/delivery.h"\n#include "core/jid.h"\n'),
        ("broker/store/a.c", OPENING + '#include "broker/store/log_internal.h"\n'),
        ("schemas/a.proto", "message A {\n  B b = 1;\n  enum E { X = 0; }\n}\nmessage B { string a = 1; }\n"),
    ],
)
def test_clean_file_passes(tmp_path, path, text):
    assert breaches(tmp_path, {path: text}) == []


def test_manual_with_a_fault(tmp_path):
    if not tidy.shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    assert ("docs/man/x.1", "manual") in [
        (path, rule) for path, _, rule in breaches(tmp_path, {os.path.join("docs", "man", "x.1"): ".Sh NAME\n.Xx\n"})
    ]


@pytest.mark.parametrize("manual, expected", [(".It Ic log.level Pq word\n", []), ("", [("broker/config_keys.c", 3, "manual")])])
def test_keys_are_in_the_manual(tmp_path, manual, expected):
    files = {
        "broker/config_keys.c": OPENING + '    WORD("log.level", "info", log.level, levels),\n',
        "docs/man/xylemd.conf.5": manual,
    }
    assert [b for b in breaches(tmp_path, files) if b[0].startswith("broker")] == expected


@pytest.mark.parametrize("manual, expected", [("| `logins` | … |\n| `store_bytes` | … |\n", []), ("logins", [3, 3])])
def test_figures_are_explained(tmp_path, manual, expected):
    files = {
        "broker/shard/stats.h": OPENING + "#define SHARD_STATS(X) X(logins)\n#define X(name) name\n",
        "broker/admin/stats.c": OPENING + '    { "store_bytes", s.bytes },\n',
        "docs/operations.md": manual,
    }
    found = sorted(line for path, line, rule in breaches(tmp_path, files) if rule == "manual")
    assert found == expected
