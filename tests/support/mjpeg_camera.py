"""A network camera in a process of its own: sends the picture in FOLDER/now.jpg over HTTP, 25 times a second.

While FOLDER/hang exists it keeps the connection and sends nothing. With a second argument it wants that login.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PERIOD_S = 0.04
BOUNDARY = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: "


class Camera:
    """Starts and ends the process; what it sees is what ``show`` was given last."""

    def __init__(self, folder: Path, login: str = "") -> None:
        self._folder = folder
        self._login = login
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def show(self, jpeg: bytes) -> None:
        part = self._folder / "part"
        part.write_bytes(jpeg)
        part.replace(self._folder / "now.jpg")

    def hang(self) -> None:
        (self._folder / "hang").touch()

    def start(self) -> str:
        command = [sys.executable, __file__, str(self._folder), self._login]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return f"http://127.0.0.1:{self.port}/live.mjpg"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


class _Handler(BaseHTTPRequestHandler):
    folder: Path
    login: str

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        if self.login and base64.b64decode(given).decode() != self.login:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            while True:
                if not (self.folder / "hang").exists():
                    picture = (self.folder / "now.jpg").read_bytes()
                    self.wfile.write(BOUNDARY + str(len(picture)).encode() + b"\r\n\r\n" + picture + b"\r\n")
                time.sleep(PERIOD_S)
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    _Handler.folder, _Handler.login = Path(sys.argv[1]), sys.argv[2]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
