"""Knowing processes for sure, and ending them."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.clusters import left_behind

from headway.cli.cluster.files import Files, Record
from headway.cli.cluster.processes import (
    CLUSTER_ID,
    Identity,
    alive,
    boot_id,
    family,
    identify,
    marked,
    send,
    wait_gone,
)
from headway.cli.cluster.teardown import clean_up_after, running, take_down

SLEEP = [sys.executable, "-c", "print(flush=True); import time; time.sleep(600)"]


@contextmanager
def sleeping(**environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing until it is ended, at the latest by the end of the test."""
    everything = {**os.environ, **environment}
    with subprocess.Popen(SLEEP, env=everything, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            # While it starts its environment cannot be read yet.
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_identity_is_more_than_a_number() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert alive(me)
    assert not alive(Identity(me.pid, me.started + 1))
    assert identify(2**22 + 1) is None


def test_a_zombie_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    identity = identify(process.pid)
    assert identity is None or wait_gone([identity], 20) == []
    process.wait()


def test_a_number_that_was_used_again_is_not_signalled() -> None:
    with sleeping() as process:
        real = identify(process.pid)
        assert real is not None
        send([Identity(real.pid, real.started - 5)], signal.SIGKILL)
        time.sleep(0.2)
        assert process.poll() is None
        send([real], signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL


def test_marked_processes_are_found_whoever_their_parent_is() -> None:
    mark = uuid.uuid4().hex
    with sleeping(**{CLUSTER_ID: mark}) as process:
        assert [found.pid for found in marked(mark)] == [process.pid]
        assert marked(mark[:-1]) == []
        assert process.pid in [member.pid for member in family(os.getpid())]


def test_a_child_is_tied_to_its_parent() -> None:
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'headway.cli.cluster.tether', str(os.getpid()), 'http.server',"
        " '0', '--bind', '127.0.0.1'], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = identify(int(parent.stdout.readline()))
        assert child is not None
        parent.kill()
        assert wait_gone([child], 20) == []


def record(temp_dir: Path | str, supervisor: Identity, *processes: Identity, boot: str = "") -> Record:
    return Record(
        cluster_id=uuid.uuid4().hex,
        boot_id=boot or boot_id(),
        supervisor=supervisor,
        processes=list(processes),
        temp_dir=str(temp_dir),
    )


def test_what_a_killed_supervisor_left_is_cleaned_up(tmp_path: Path) -> None:
    files = Files(tmp_path / "home")
    files.make()
    folder = tmp_path / "headway-left"
    (folder / "session").mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    dead = identify(gone.pid) or Identity(gone.pid, 1)
    gone.wait()
    with sleeping() as left, sleeping() as stranger:
        mine, other = identify(left.pid), identify(stranger.pid)
        assert mine is not None
        assert other is not None
        files.write(files.record, record(folder, dead, mine, Identity(other.pid, other.started - 1)))
        assert running(files) is None
        assert take_down(files) is True
        assert left.wait(20) == -signal.SIGKILL
        assert stranger.poll() is None
    assert not folder.exists()
    assert files.read_record() is None
    assert take_down(files) is False


def test_after_a_reboot_no_process_is_ours(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.make()
    with sleeping() as stranger:
        same = identify(stranger.pid)
        assert same is not None
        files.write(files.record, record("", same, same, boot="another"))
        assert running(files) is None
        assert clean_up_after(files) is True
        assert left_behind([stranger.pid]) != []


def test_only_directories_of_ours_are_removed(tmp_path: Path) -> None:
    files = Files(tmp_path / "home")
    files.make()
    precious = tmp_path / "precious"
    precious.mkdir()
    files.write(files.record, record(precious, Identity(2**22 + 1, 1)))
    clean_up_after(files)
    assert precious.exists()


def test_one_holds_the_lock(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.make()
    with files.locked() as first, files.locked() as second:
        assert (first, second) == (True, False)
    with files.locked() as again:
        assert again
