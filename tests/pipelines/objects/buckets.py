"""What is in a bucket, by another client than ours: plain HTTP."""

import http.client
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

CANARY = "canary-Zq8h2Vx0"
"""In every credential."""
_HEADERS = {"Content-Type": "application/octet-stream", "x-amz-acl": "public-read"}
"""Anybody may read, so that tests without credentials can."""


@dataclass(frozen=True)
class Bucket:
    name: str
    port: int

    @staticmethod
    def made(name: str, port: int) -> "Bucket":
        bucket = Bucket(name, port)
        bucket.make()
        return bucket

    def make(self) -> None:
        assert self._asked("PUT", "")[0] == 200

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def put(self, key: str, data: bytes) -> None:
        answer = self._asked("PUT", key, data)
        assert answer[0] == 200, answer

    def get(self, key: str) -> bytes:
        status, data = self._asked("GET", key)
        assert status == 200, (key, status)
        return data

    def remove(self, key: str) -> None:
        answer = self._asked("DELETE", key)
        assert answer[0] == 204, answer

    def all_keys(self, prefix: str = "") -> list[str]:
        _, data = self._asked("GET", f"?list-type=2&max-keys=1000&prefix={quote(prefix)}")
        return [found.text or "" for found in ElementTree.fromstring(data).iterfind(".//{*}Contents/{*}Key")]

    def upload(self, folder: Path, key: str) -> str:
        """A file, or all files of a folder; the address."""
        files = [folder] if folder.is_file() else [path for path in folder.rglob("*") if path.is_file()]
        for file in files:
            inside = "" if folder.is_file() else f"/{file.relative_to(folder).as_posix()}"
            self.put(key + inside, file.read_bytes())
        return self.url(key)

    def download(self, key: str, folder: Path) -> Path:
        for found in self.all_keys(f"{key}/"):
            path = folder / found.removeprefix(f"{key}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(found))
        return folder

    def _asked(self, method: str, key: str, data: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            path = key if key.startswith("?") else f"/{quote(key)}"
            connection.request(method, f"/{self.name}{path}", data, _HEADERS)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
