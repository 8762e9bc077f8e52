"""Processes that work side by side, and what is said when one of them ends badly."""

import os
import signal
import time

import pytest

from data_prep.workers import num_workers, workers


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    raise OSError("the disk is full")


def note(path):
    time.sleep(0.3)
    path.touch()


def leave_mark(path):
    (path / str(os.getpid())).touch()


@pytest.mark.parametrize(("processes", "jobs", "count"), [(3, 8, 3), (3, 2, 2), (0, 1, 1), (0, 10**6, os.cpu_count())])
def test_there_are_no_more_workers_than_asked_for_or_jobs(processes, jobs, count):
    assert num_workers(processes, jobs) == count


def test_every_worker_starts_as_it_is_told(tmp_path):
    with workers(2, leave_mark, tmp_path) as pool:
        made = {job.result() for job in [pool.submit(os.getpid) for _ in range(20)]}
    assert made <= {int(path.name) for path in tmp_path.iterdir()}


def test_a_worker_that_is_killed_is_said_in_a_sentence():
    with pytest.raises(ValueError, match=r"a worker was killed.* fewer processes="), workers(1) as pool:
        pool.submit(die).result()


def run_all(jobs):
    with workers(1) as pool:
        for future in [pool.submit(*job) for job in jobs]:
            future.result()


def test_after_a_failure_no_job_begins(tmp_path):
    with pytest.raises(OSError, match="the disk is full"):
        run_all([(fail,), *((note, tmp_path / f"{number}") for number in range(20))])
    assert len(list(tmp_path.iterdir())) < 5  # those that a worker had at hand already
