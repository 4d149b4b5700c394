"""Decoders are processes: what becomes of images and of the service when one crashes, spins or is killed."""

import base64
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from hostile_files import noise, png, saved, scan_bomb, sound
from live_service import Running, image_file, metric, running, spawned, until_it_serves, wait_until
from processes import children_of, is_running, parent_of

from encoders.errors import ImageTooLarge
from encoders.images import Preprocessing
from service.decoding.fork_server import Worker, WorkerLost
from service.decoding.images import ImageLimits, decode_whole_image
from service.decoding.protocol import FRAME, TAKEN, Job

JPEG = {"content-type": "image/jpeg"}
LIMITS = ImageLimits(64_000_000, 2)
ENDLESS = scan_bomb(100_000)  # five minutes


@pytest.fixture
def service(releases, settings_for) -> Iterator[Running]:
    with running(settings_for(releases, decode_workers=1)) as started:
        yield started


def embed(service: Running, data: bytes) -> httpx.Response:
    return service.client.post("/embed/image", content=data, headers=JPEG)


def decoder(service: Running) -> int:
    """The one process, once it is there."""
    wait_until(lambda: len(service.serving.decoders.process_ids()) == 1)
    return service.serving.decoders.process_ids()[0]


def processor_ticks(process_id: int) -> int:
    return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[11])


@contextmanager
def endless_image_in_hand(service: Running) -> Iterator[tuple[int, "Future[httpx.Response]"]]:
    """The decoder that computes on it, and the answer to come."""
    process_id = decoder(service)
    before = processor_ticks(process_id)
    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(embed, service, ENDLESS)
        wait_until(lambda: processor_ticks(process_id) > before + 10)
        yield process_id, answer


def test_a_crash_costs_the_image_in_hand_and_no_other(service):
    with endless_image_in_hand(service) as (process_id, answer), ThreadPoolExecutor(1) as another:
        behind = another.submit(embed, service, image_file(1))
        os.kill(process_id, signal.SIGSEGV)
        error = answer.result().json()["error"]
        assert (answer.result().status_code, error["code"]) == (400, "undecodable_image")
        assert "the decoder crashed on it (killed by SIGSEGV)" in error["message"]
        assert behind.result().status_code == 200
    assert decoder(service) != process_id
    assert metric(service, "twinlens_decoder_ends_total", cause="crashed") == 1
    assert service.client.get("/readyz").status_code == 200


def test_a_decoder_that_is_killed_over_an_image_says_nothing_against_the_image(service):
    with endless_image_in_hand(service) as (process_id, answer):
        os.kill(process_id, signal.SIGKILL)
        assert (answer.result().status_code, answer.result().headers["retry-after"]) == (503, "1")
        assert "the decoder was killed" in answer.result().json()["error"]["message"]
    assert embed(service, image_file(1)).status_code == 200
    assert metric(service, "twinlens_decoder_ends_total", cause="killed") == 1


def test_an_image_that_takes_too_long_is_given_up(releases, settings_for):
    with running(settings_for(releases, decode_workers=1, decode_seconds=0.4)) as service:
        error = embed(service, ENDLESS).json()["error"]
        assert error["code"] == "undecodable_image"
        assert "takes more than 0.4 s of computing" in error["message"]
        assert embed(service, image_file(1)).status_code == 200
        assert metric(service, "twinlens_decoder_ends_total", cause="too_slow") == 1


def test_an_image_that_takes_too_much_memory_is_too_large(releases, settings_for):
    with running(settings_for(releases, decode_workers=1, decode_memory_mebibytes=256)) as service:
        answer = embed(service, png(6000, 6000, rows=bytes(18_001 * 6000)))
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "image_too_large")
        assert "256 MiB of memory" in answer.json()["error"]["message"]
        with pytest.raises(ImageTooLarge, match="256 MiB of memory"):  # which cannot even be received
            service.serving.decoders.pixels(bytes(300 << 20), Preprocessing())
        assert embed(service, image_file(1)).status_code == 200


def test_a_decoder_that_a_large_image_has_swollen_is_replaced(service):
    before = decoder(service)
    assert embed(service, png(8000, 8000, rows=bytes(24_001 * 8000))).status_code == 200
    assert embed(service, image_file(1)).status_code == 200
    assert decoder(service) != before
    assert metric(service, "twinlens_decoder_ends_total", cause="retired") == 1


def test_a_decoder_killed_between_images_costs_none(service):
    for _ in range(3):
        os.kill(decoder(service), signal.SIGKILL)
        assert embed(service, image_file(1)).status_code == 200
    assert metric(service, "twinlens_decoder_ends_total", cause="idle") == 3
    assert service.client.get("/readyz").status_code == 200


def test_a_killed_fork_server_costs_no_image_and_is_replaced(service):
    fork_server = parent_of(decoder(service))
    os.kill(fork_server, signal.SIGKILL)
    assert embed(service, image_file(1)).status_code == 200
    assert parent_of(decoder(service)) != fork_server


def test_decoders_that_die_again_and_again_turn_readiness_red_until_they_stop(service, monkeypatch):
    monkeypatch.setattr("service.decoding.worker_pool.LOOP_SECONDS", 4.0)
    monkeypatch.setattr("service.decoding.worker_pool.CHECK_SECONDS", 0.02)
    for _ in range(5):
        process_id = decoder(service)
        os.kill(process_id, signal.SIGKILL)
        wait_until(lambda gone=process_id: gone not in service.serving.decoders.process_ids())
    red = service.client.get("/readyz")
    assert red.status_code == 503
    assert "5 decoders died" in red.json()["error"]["message"]
    assert "killed by SIGKILL" in red.json()["error"]["message"]
    wait_until(lambda: service.client.get("/readyz").status_code == 200)


def test_a_decoder_that_does_not_answer_is_replaced_and_the_image_may_be_sent_again(releases, settings_for):
    with running(settings_for(releases, decode_workers=1, decode_seconds=0.2)) as service:
        process_id = decoder(service)
        os.kill(process_id, signal.SIGSTOP)
        answer = embed(service, image_file(1))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "did not come back" in answer.json()["error"]["message"]
        assert decoder(service) != process_id
        assert embed(service, image_file(1)).status_code == 200


def test_a_decoder_has_one_socket_no_secret_and_narrow_limits(releases, settings_for, monkeypatch):
    monkeypatch.setenv("TWINLENS_SECRET_OF_OURS", "do not pass on")
    with running(settings_for(releases, decode_workers=1)) as service:
        process = Path(f"/proc/{decoder(service)}")
        assert embed(service, image_file(1)).status_code == 200
        held = [str(link.readlink()) for link in (process / "fd").iterdir()]
        assert sorted(held)[:3] == ["/dev/null"] * 3
        assert [name.partition(":")[0] for name in sorted(held)[3:]] == ["socket"]
        assert b"TWINLENS" not in (process / "environ").read_bytes()
        limits = (process / "limits").read_text()
        for name in ("core file size", "file size", "processes", "open files"):
            assert re.search(rf"Max {name} +0 +0 ", limits), limits
        assert int((process / "stat").read_text().rpartition(")")[2].split()[16]) >= 1  # nice
        assert int((process / "oom_score_adj").read_text()) == 1000


def test_a_decoder_imports_neither_torch_nor_the_server():
    heavy = {"torch", "torchvision", "fastapi", "uvicorn", "faiss", "pyarrow", "prometheus_client"}
    code = f"import sys, service.decoding.worker; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_stopping_the_service_ends_its_decoders_even_at_work(releases, settings_for):
    with running(settings_for(releases, decode_workers=2)) as service:
        wait_until(lambda: len(service.serving.decoders.process_ids()) == 2)
        processes = service.serving.decoders.process_ids()
        processes += (parent_of(processes[0]),)
        service.serving.decoders.submit(service.serving.decoders.pixels, ENDLESS, Preprocessing())
    assert not any(is_running(process_id) for process_id in processes)


def test_killing_the_service_ends_its_decoders(releases):
    with spawned("--port", "0", "--device", "cpu", TWINLENS_RELEASES=str(releases)) as process:
        url, _ = until_it_serves(process)
        (fork_server,) = children_of(process.pid)
        decoders = children_of(fork_server)
        assert decoders
        with ThreadPoolExecutor(1) as caller:
            answer = caller.submit(
                httpx.post, f"{url}/embed/image", content=ENDLESS, headers=JPEG, trust_env=False
            )
            wait_until(lambda: max(map(processor_ticks, decoders)) > 30)
            process.send_signal(signal.SIGKILL)
            with pytest.raises(httpx.TransportError):
                answer.result()
        wait_until(lambda: not any(map(is_running, [fork_server, *decoders])))


def test_what_a_gallery_keeps_of_an_image_is_the_same_from_a_decoder(service):
    spec = Preprocessing(height=32, width=48, resize="letterbox")
    for data in (*sound().values(), saved(noise(900, 700), "JPEG")):
        there = service.serving.decoders.image(base64.b64encode(data).decode(), spec)
        here = decode_whole_image(data, spec, limits=LIMITS)
        np.testing.assert_array_equal(there.pixels, here.pixels)
        for field in ("width_pixels", "height_pixels", "digest", "thumbnail"):
            assert getattr(there, field) == getattr(here, field)


def test_without_workers_threads_decode(releases, settings_for):
    with running(settings_for(releases, decode_workers=0)) as service:
        assert service.serving.decoders.process_ids() == ()
        assert embed(service, image_file(1)).status_code == 200
        assert embed(service, b"no image").json()["error"]["code"] == "undecodable_image"


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (b"", False),
        (TAKEN, True),
        (TAKEN + FRAME.pack(2**31, 0), True),
        (TAKEN + FRAME.pack(2, 2**31) + b"{}", True),
        (TAKEN + FRAME.pack(2, 0) + b"{}", True),
        (TAKEN + FRAME.pack(4, 0) + b"null", True),
        (TAKEN + FRAME.pack(30_000, 0) + b"[" * 30_000, True),
        (TAKEN + FRAME.pack(46, 0) + b'{"error": "Exit", "message": "", "retire": false}'[:46], True),
    ],
)
def test_an_answer_that_is_none_is_a_decoder_lost(said, taken):
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        worker = Worker(0, ours, fork_server_id=0, wall_seconds=5.0)
        with pytest.raises(WorkerLost) as lost:
            worker.ask(Job("pixels", b"x", Preprocessing(), LIMITS))
        worker.close()
    assert (lost.value.taken, lost.value.stalled) == (taken, False)
