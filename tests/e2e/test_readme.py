"""The README's commands, block by block: what a newcomer copies must work as it stands.

Only the paths, the port and the build are changed: the tests run what is already built, in a folder and on a port of
their own, so that nothing else on the machine is in the way.
"""

import os
import re
import subprocess
import tempfile

import harness

BUILD = re.compile(r"^(scripts/setup build|cmake --preset release .*|export PATH=.*)\n", re.M)


def blocks_of(*headings):
    """[(language, code)] of the fenced blocks between each of these headings and the next one."""
    with open(os.path.join(harness.ROOT, "README.md"), encoding="utf-8") as file:
        text = file.read()
    sections = [text.split(f"\n## {heading}\n")[1].split("\n## ")[0] for heading in headings]
    return [block for section in sections for block in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.M | re.S)]


def test_quick_start():
    blocks = blocks_of("Quick start", "Nothing spilled")
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
        script += f"echo '== received'\ncat {folder}/received\n"
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
    received = run.stdout.split("== received\n")[1].splitlines()
    assert received == ["rain", "order 1", "order 2", "job 1", "job 2", "job 3"]
    assert "depth=2" in run.stdout and "acknowledged            3" in run.stdout
