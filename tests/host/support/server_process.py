"""A real ComfyUI server in a process of its own, and the few calls that tests make to it."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PACK_ROOT = Path(__file__).resolve().parents[3]
START_SECONDS, RUN_SECONDS = 240, 900


class Server:
    """A ComfyUI in a process of its own, its folders in `base`. pack: the folder that it loads as our pack, if any."""

    def __init__(self, host: Path, base: Path, pack: Path | None = PACK_ROOT):
        (base / "custom_nodes").mkdir(parents=True)
        if pack is not None:
            (base / "custom_nodes" / "gradpaint").symlink_to(pack)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = base / "server.log"
        # Previews as the frontend asks for them; a base directory of its own: no other pack, model or setting.
        command = [
            sys.executable,
            str(host / "main.py"),
            "--cpu",
            "--listen",
            "127.0.0.1",
            "--port",
            str(port),
            "--base-directory",
            str(base),
            "--disable-api-nodes",
            "--disable-auto-launch",
            "--preview-method",
            "latent2rgb",
            "--database-url",
            "sqlite:///:memory:",
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
        self.process = subprocess.Popen(
            command, cwd=base, env=environment, stderr=subprocess.STDOUT, stdout=self.log_path.open("w")
        )

    def wait(self, poll: float = 0.5) -> Server:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                self.get("/system_stats")
                return self
            except OSError:
                time.sleep(poll)
        self.stop()
        pytest.fail(f"ComfyUI did not start; its log ends in:\n{self.log()[-4000:]}")

    def get(self, path: str, **query) -> bytes:
        query = f"?{urllib.parse.urlencode(query)}" if query else ""
        with urllib.request.urlopen(f"{self.url}{path}{query}", timeout=30) as reply:
            return reply.read()

    def post(self, path: str, **data) -> bytes:
        request = urllib.request.Request(
            f"{self.url}{path}", data=json.dumps(data).encode(), headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.read()
        except urllib.error.HTTPError as error:
            pytest.fail(f"the server refused {path}: {error.read().decode()}")

    def run(self, prompt: dict) -> dict:
        """Queue the prompt and wait for it: its entry of /history."""
        prompt_id = json.loads(self.post("/prompt", prompt=prompt))["prompt_id"]
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            history = json.loads(self.get(f"/history/{prompt_id}"))
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.5)
        pytest.fail(f"not done after {RUN_SECONDS} s; the log ends in:\n{self.log()[-4000:]}")

    def picture(self, entry: dict) -> np.ndarray:
        """The PNG behind one entry of a node's `images`, float (H, W, 3) in [0, 255]."""
        return np.asarray(Image.open(io.BytesIO(self.get("/view", **entry))).convert("RGB"), dtype=np.float64)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
