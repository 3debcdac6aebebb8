#!/usr/bin/python3
"""The project's own rules about its sources, checked by machine.

Sizes of files and functions, which folder may include which, where clocks, randomness, libuv and LMDB may be called,
banned functions, leftovers, opening comments, recursive protobuf messages and the man pages' syntax. Prints what breaks
a rule as FILE:LINE: RULE: MESSAGE, then the sizes as a trend. Run by CTest as `tidy` and by scripts/lint;
test_tidy.py shows that every rule can fail.

usage: tidy.py [ROOT]
"""

import os
import re
import shutil
import statistics
import subprocess
import sys

FILE_LINES_MAX = 1000
FUNCTION_LINES_MAX = 100
OPENING_WORDS_MIN = 6

C_FOLDERS = ("core", "broker", "sdk", "agents", "examples", "bench", "tests")
PRODUCT_FOLDERS = ("core", "broker", "sdk", "agents")

# Which rooms of the broker a room may look into, besides itself and core. shard knows no sockets: net brings the loop and
# the links to it, and only session and server see net.
BROKER_ARROWS = {
    "store": set(),
    "shard": {"store"},
    "net": {"shard"},
    "router": {"delivery", "shard", "store"},
    "delivery": {"shard"},
    "session": {"router", "delivery", "net", "shard", "store"},
    "modules": {"router", "delivery", "shard", "store"},
    "pubsub": {"router", "delivery", "shard", "store"},
    "admin": {"pubsub", "router", "delivery", "shard", "store"},  # it reports everybody's figures
}
BROKER_BASE = {"config.h", "log.h"}  # the only headers of broker/ itself that its folders see

# What the world outside is reached with, and who may reach for it.
WORLD_CALLS = re.compile(
    r"(?<![\w.>])(uv_\w+|mdb_\w+|clock_gettime|gettimeofday|timespec_get|time|getrandom|getentropy|rand|random|srand"
    r"|rand_r|arc4random\w*)\s*\("
)
WORLD_FOLDERS = ("broker/net/", "broker/shard/", "broker/store/", "sdk/drivers/", "sdk/include/")
WORLD_FILES = re.compile(r"^(agents/[\w-]+/(main|[\w-]*loop)\.c|broker/main\.c|examples/.*|bench/.*|tests/.*)$")

BANNED_CALLS = re.compile(
    r"(?<![\w.>])(strcpy|strcat|sprintf|vsprintf|strncpy|strncat|atoi|atol|atoll|atof|strtok|strtok_r|gets|alloca"
    r"|mktemp|tmpnam|system|popen)\s*\("
)
LEFTOVERS = re.compile(r"^\s*#\s*if\s+0\b|\bTODO\b|\bFIXME\b|\bXXX\b")
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^">]+)[">]')
PRIVATE_HEADER = re.compile(r"_(internal|private)\.h$")


def source_files(root, suffixes, folders):
    """Paths relative to `root`, sorted; build trees and hidden folders are left out."""
    found = []
    for folder in folders:
        for path, dirs, names in os.walk(os.path.join(root, folder)):
            dirs[:] = sorted(d for d in dirs if not d.startswith((".", "build", "__pycache__")))
            found += [os.path.relpath(os.path.join(path, n), root) for n in sorted(names) if n.endswith(suffixes)]
    return found


def without_comments(text):
    """Comments, strings and character constants blanked; lines keep their numbers."""

    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))

    pattern = r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
    return re.sub(pattern, blank, text, flags=re.S)


class Source:
    """One C file: its text, its text without comments, its functions and its includes."""

    def __init__(self, root, path):
        self.path = path
        with open(os.path.join(root, path), encoding="utf-8") as file:
            self.text = file.read()
        self.lines = self.text.split("\n")
        if self.lines and self.lines[-1] == "":
            self.lines.pop()
        self.code = without_comments(self.text).split("\n")
        self.functions = list(self._functions())
        self.includes = [(n, m.group(1)) for n, line in enumerate(self.lines, 1) if (m := INCLUDE.match(line))]

    def _functions(self):
        """(name, first line, number of lines): a body opens and closes in column 0, as clang-format leaves it."""
        start = None
        for number, line in enumerate(self.code, 1):
            if line.startswith("{") and start is None:
                start = number
            elif line.startswith("}") and start is not None:
                yield self._name_before(start), start, number - start + 1
                start = None

    def _name_before(self, line):
        head = " ".join(self.code[max(0, line - 6) : line - 1])
        names = re.findall(r"(\w+)\s*\(", head)
        return names[-1] if names else "?"


# --- rules: each yields (line, rule, message) ---------------------------------------------------------------------


def check_sizes(source):
    if len(source.lines) > FILE_LINES_MAX:
        yield len(source.lines), "size", f"{len(source.lines)} lines, at most {FILE_LINES_MAX}"
    for name, line, length in source.functions:
        if length > FUNCTION_LINES_MAX:
            yield line, "size", f"function {name} has {length} lines, at most {FUNCTION_LINES_MAX}"


def check_opening(source):
    """Two or three sentences that say what the file is; a header too small for two lines says it in half a dozen words."""
    match = re.match(r"\s*/\*(.*?)\*/", source.text, flags=re.S)
    comment = match.group(1).strip() if match else ""
    if "\n" not in comment and len(comment.split()) < OPENING_WORDS_MIN:
        yield 1, "opening", "a file opens with a comment that says what it is, why it exists and who calls it"


def check_leftovers(source):
    for number, line in enumerate(source.lines, 1):
        if LEFTOVERS.search(line):
            yield number, "leftover", line.strip()


def check_banned(source):
    for number, line in enumerate(source.code, 1):
        for match in BANNED_CALLS.finditer(line):
            yield number, "banned", f"{match.group(1)}()"


def check_world(source):
    if source.path.startswith(WORLD_FOLDERS) or WORLD_FILES.match(source.path):
        return
    for number, line in enumerate(source.code, 1):
        for match in WORLD_CALLS.finditer(line):
            yield number, "world", f"{match.group(1)}() belongs behind struct xy_env or into {WORLD_FOLDERS[:4]}"


def broker_room(path):
    """'' for files of broker/ itself, else the name of the folder below."""
    parts = path.split("/")
    return parts[1] if len(parts) > 2 else ""


def broker_may_include(room, target):
    other = broker_room(target)
    if room == "":
        return True  # main and server put everything together
    if other == "":
        return os.path.basename(target) in BROKER_BASE
    return other == room or other in BROKER_ARROWS.get(room, set())


def top_may_include(path, target):
    """The arrows between top-level folders: agents -> sdk -> core, broker -> core. Tests and benchmarks see all."""
    top, other = path.split("/")[0], target.split("/")[0]
    allowed = {
        "core": {"core"},
        "broker": {"broker", "core"},
        "sdk": {"sdk", "core"},
        "agents": {"agents", "sdk", "core"},
        "examples": set(),
    }
    return other not in PRODUCT_FOLDERS or top not in allowed or other in allowed[top]


def check_arrows(source):
    for line, target in source.includes:
        if not top_may_include(source.path, target):
            yield line, "arrow", f"{source.path.split('/')[0]} must not include {target}"
        elif source.path.startswith("broker/") and target.startswith("broker/"):
            if not broker_may_include(broker_room(source.path), target):
                yield line, "arrow", f"broker/{broker_room(source.path)} must not include {target}"
        elif target.startswith("xylem/store/") and not source.path.startswith(("broker/", "tests/", "bench/")):
            yield line, "arrow", f"the broker's records are the broker's: {target}"
        if PRIVATE_HEADER.search(target) and not source.path.startswith("tests/"):
            folder = os.path.dirname(target)
            if folder and folder != os.path.dirname(source.path):
                yield line, "private", f"{target} is private to {folder}"


SOURCE_RULES = [check_sizes, check_opening, check_leftovers, check_banned, check_world, check_arrows]


def check_protobuf(root):
    """Recursive message types: a peer's ten thousand levels would overflow the unpacker's stack."""
    uses, where = {}, {}
    for path in source_files(root, (".proto",), ("schemas",)):
        with open(os.path.join(root, path), encoding="utf-8") as file:
            text = without_comments(file.read())
        stack = []
        for number, line in enumerate(text.split("\n"), 1):
            for token in re.finditer(r"\bmessage\s+(\w+)\s*\{|\b\w+\s*\{|\}|([\w.]+)(?:\s*>)?\s+\w+\s*=\s*\d+", line):
                if token.group(1):
                    stack.append(token.group(1))
                    uses.setdefault(token.group(1), set())
                    where[token.group(1)] = (path, number)
                elif token.group(0) == "}":
                    if stack:
                        stack.pop()
                elif token.group(2):
                    owner = next((name for name in reversed(stack) if name), None)
                    if owner:
                        uses[owner].add(token.group(2).split(".")[-1])
                else:
                    stack.append(None)  # enum, oneof
    for name in uses:
        seen, todo = set(), list(uses[name])
        while todo:
            used = todo.pop()
            if used == name:
                yield where[name][0], where[name][1], "recursion", f"message {name} contains itself"
                break
            if used not in seen:
                seen.add(used)
                todo += uses.get(used, ())


def check_manuals(root):
    if not shutil.which("mandoc"):
        return
    for path in source_files(root, (".1", ".3", ".5", ".7", ".8"), ("docs",)):
        run = subprocess.run(
            ["mandoc", "-T", "lint", "-W", "warning", os.path.join(root, path)], capture_output=True, text=True, check=False
        )
        for line in run.stdout.splitlines():
            match = re.search(r":(\d+):\d+: (.*)", line)
            yield path, int(match.group(1)) if match else 1, "manual", match.group(2) if match else line


def check_keys(root):
    """Every key of the configuration is in the manual."""
    table, manual = os.path.join(root, "broker/config_keys.c"), os.path.join(root, "docs/man/xylemd.conf.5")
    if not os.path.exists(table):
        return
    text = ""
    if os.path.exists(manual):
        with open(manual, encoding="utf-8") as file:
            text = file.read()
    with open(table, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            match = re.match(r'\s*(?:[A-Z]+\(|\{ )"([a-z0-9_.]+)",', line)
            if match and f".It Ic {match.group(1)} " not in text:
                yield "broker/config_keys.c", number, "manual", f"{match.group(1)} is not in docs/man/xylemd.conf.5"


FIGURES = {
    "broker/shard/stats.h": r"\bX\((\w+)\)",
    "broker/admin/stats.c": r'(?:add\(arena, form, |\{ |XY_STR\()"([a-z0-9_]+)"',
}


def check_figures(root):
    """Every figure of `xylem admin stats` is explained."""
    manual, text = os.path.join(root, "docs/operations.md"), ""
    if os.path.exists(manual):
        with open(manual, encoding="utf-8") as file:
            text = file.read()
    for path, pattern in FIGURES.items():
        if not os.path.exists(os.path.join(root, path)):
            continue
        with open(os.path.join(root, path), encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                for name in re.findall(pattern, line):
                    if name != "name" and f"`{name}`" not in text:
                        yield path, number, "manual", f"{name} is not in docs/operations.md"


# --- the trend ----------------------------------------------------------------------------------------------------


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0


def print_trend(sources):
    product = [s for s in sources if s.path.startswith(PRODUCT_FOLDERS)]
    tests = [s for s in sources if s.path.startswith("tests/")]
    if not product:
        return
    sizes = [len(s.lines) for s in product]
    functions = [length for s in product for _, _, length in s.functions]
    largest = max(product, key=lambda s: len(s.lines))
    code_lines = sum(len(s.lines) for s in product if s.path.endswith(".c")) or 1
    asserts = sum(line.count("xy_assert(") for s in product if s.path.endswith(".c") for line in s.code)
    print(
        f"files {len(product)}, lines {sum(sizes)}: median {statistics.median(sizes):.0f}, p90 {percentile(sizes, 0.9)}, "
        f"largest {len(largest.lines)} ({largest.path})"
    )
    print(
        f"functions {len(functions)}: p90 {percentile(functions, 0.9)}, p99 {percentile(functions, 0.99)}, "
        f"longest {max(functions, default=0)}; asserts {1000 * asserts / code_lines:.1f} per 1000 lines; "
        f"test lines {sum(len(s.lines) for s in tests)}"
    )


def check(root):
    """Every breach as (path, line, rule, message), and the sources they were looked for in."""
    sources = [Source(root, path) for path in source_files(root, (".c", ".h"), C_FOLDERS)]
    breaches = [(s.path, *breach) for s in sources for rule in SOURCE_RULES for breach in rule(s)]
    return breaches + list(check_protobuf(root)) + list(check_manuals(root)) + list(check_keys(root)) + list(check_figures(root)), sources


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    breaches, sources = check(root)
    for path, line, rule, message in breaches:
        print(f"{path}:{line}: {rule}: {message}")
    print_trend(sources)
    print(f"tidy: {len(breaches)} breaches in {len(sources)} files" if breaches else "tidy: clean")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
