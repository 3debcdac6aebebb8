"""Administration without a password on the machine itself: users, statistics, configuration check, by the command line."""

import json
import os
import subprocess

import pytest

import harness
import raw
from harness import DOMAIN


def run(broker, *arguments, stdin="", ok=True):
    result = broker.xylem(*arguments, stdin=stdin)
    assert (result.returncode == 0) == ok, result.stderr
    return result


def can_log_in(broker, connect, user, password):
    client = connect(broker)
    client.open()
    return raw.local_name(client.plain(user, password)) == "success"


def test_users_of_a_running_broker(broker, connect):
    run(broker, "user", "add", f"erin@{DOMAIN}", "--password-stdin", stdin="first secret\n")
    assert can_log_in(broker, connect, "erin", "first secret")
    assert f"erin@{DOMAIN}" in run(broker, "user", "list").stdout.split()
    run(broker, "user", "passwd", f"erin@{DOMAIN}", "--password-stdin", stdin="second secret\n")
    assert not can_log_in(broker, connect, "erin", "first secret")
    assert can_log_in(broker, connect, "erin", "second secret")
    run(broker, "user", "remove", f"erin@{DOMAIN}")
    assert not can_log_in(broker, connect, "erin", "second secret")


def test_mistakes_are_explained(broker):
    again = run(broker, "user", "add", f"alice@{DOMAIN}", "--password-stdin", stdin="x\n", ok=False)
    assert "alice" in again.stderr and "exist" in again.stderr
    assert run(broker, "user", "remove", f"nobody@{DOMAIN}", ok=False).stderr
    assert run(broker, "user", "add", "not a jid", "--password-stdin", stdin="x\n", ok=False).stderr


def test_removing_a_user_ends_the_sessions(broker, connect):
    client = connect(broker, "bob", "x")
    run(broker, "user", "remove", f"bob@{DOMAIN}")
    client.wait_closed()


def test_import(broker, connect, tmp_path):
    accounts = tmp_path / "accounts"
    accounts.write_text("frank:pass:with:colons\ngrace:  spaces stay \n")
    run(broker, "user", "import", str(accounts))
    assert can_log_in(broker, connect, "frank", "pass:with:colons")
    assert can_log_in(broker, connect, "grace", "  spaces stay ")


def test_added_users_survive_a_crash(broker, connect):
    run(broker, "user", "add", f"erin@{DOMAIN}", "--password-stdin", stdin="s3cret\n")
    broker.restart()
    assert can_log_in(broker, connect, "erin", "s3cret")


def test_offline_needs_a_stopped_broker(broker):
    result = broker.xylem("user", "list", "--config", broker.config_file, "--offline")
    assert result.returncode != 0 and result.stderr
    broker.stop()
    result = broker.xylem("user", "list", "--config", broker.config_file, "--offline")
    assert result.returncode == 0 and f"alice@{DOMAIN}" in result.stdout.split()


def test_stats(broker, connect):
    connect(broker, "alice", "x")
    stats = json.loads(run(broker, "admin", "stats", "--json").stdout)

    def numbers(value):
        if isinstance(value, dict):
            return [n for v in value.values() for n in numbers(v)]
        return [value] if isinstance(value, (int, float)) else []

    assert numbers(stats)
    assert run(broker, "admin", "stats").stdout


def test_no_password_in_the_store_or_the_log(broker, connect):
    assert can_log_in(broker, connect, "alice", harness.USERS["alice"])
    broker.stop()
    secret = harness.USERS["alice"].encode()
    for folder, _, names in os.walk(broker.data_dir):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                assert secret not in file.read(), name
    assert secret.decode() not in broker.log(100000)


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_xylemd_explains_itself(argument):
    result = subprocess.run([harness.program("xylemd"), argument], capture_output=True, text=True, check=True)
    assert "xylem" in result.stdout.lower()


def test_check_config(make_broker):
    broker = make_broker()
    command = [harness.program("xylemd"), "--config", broker.config_file, "--check-config"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    with open(broker.config_file, "a", encoding="utf-8") as file:
        file.write("limits { stanza_sise = 1mb }\n")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "stanza_sise" in result.stderr and "limits.stanza_size" in result.stderr


@pytest.mark.parametrize("arguments", [(), ("--config", "/nonexistent.conf"), ("--no-such-option",)])
def test_wrong_usage_is_status_2(arguments):
    if not arguments and os.path.exists("/etc/xylem/xylemd.conf"):
        pytest.skip("this machine has a configuration")
    result = subprocess.run([harness.program("xylemd"), *arguments], capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 2 and result.stderr
