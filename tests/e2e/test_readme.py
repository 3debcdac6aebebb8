"""The README's quick start, block by block: what a newcomer copies must work as it stands.

Only the paths, the port and the build are changed: the tests run what is already built, in a folder and on a port of
their own, so that nothing else on the machine is in the way.
"""

import os
import re
import subprocess
import tempfile

import harness

BUILD = re.compile(r"^(scripts/setup build|cmake --preset release .*|export PATH=.*)\n", re.M)


def quick_start():
    """[(language, code)] of the fenced blocks between "Quick start" and the next heading."""
    with open(os.path.join(harness.ROOT, "README.md"), encoding="utf-8") as file:
        section = file.read().split("\n## Quick start\n")[1].split("\n## ")[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, re.M | re.S)


def test_quick_start():
    blocks = quick_start()
    assert [language for language, _ in blocks].count("python") == 1
    with tempfile.TemporaryDirectory(prefix="xylem-readme-") as folder:
        (port,) = harness.free_ports(1)
        script = "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n"
        for number, (language, code) in enumerate(blocks):
            code = BUILD.sub("", code).replace("/tmp/xylem", folder).replace("5222", str(port))
            if language == "python":
                path = os.path.join(folder, f"block{number}.py")
                with open(path, "w", encoding="utf-8") as file:
                    file.write(code)
                code = f"timeout 60 /usr/bin/python3 {path}\n"
            script += f"echo '== block {number}'\n" + code
        run = subprocess.run(
            ["bash", "-c", script],
            capture_output=True,
            text=True,
            timeout=180,
            cwd=harness.ROOT,
            env={**os.environ, "PATH": harness.BIN + os.pathsep + os.environ["PATH"]},
            check=False,
        )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "rain" in run.stdout and "high" in run.stdout
