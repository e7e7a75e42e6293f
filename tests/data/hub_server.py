"""A stand-in for the Hugging Face Hub, with the few addresses that our commands use; it keeps what is uploaded.

`python -m tests.data.hub_server --port 8011` runs one to try pushing and pulling without an account.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StandInHub:
    """Serves `files` ({repo: {path: bytes}}) as datasets or models; `uploads` holds what clients commit."""

    def __init__(self, files: dict[str, dict[str, bytes]], licence: str | None = None, port: int = 0) -> None:
        self.files = files
        self.licence = licence
        self.uploads: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}  # of those made here, as asked
        self.requests: list[str] = []
        self.lie_about_sizes = False
        self.cut_first_download = False
        self.refuse_commits = 0  # so many are answered with a fault of the server
        self.lfs: dict[str, bytes] = {}
        self.messages: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"hub": self}))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        pass

    def do_HEAD(self) -> None:
        self.route("HEAD")

    def do_GET(self) -> None:
        self.route("GET")

    def do_POST(self) -> None:
        self.route("POST")

    def do_PUT(self) -> None:
        self.route("PUT")

    def route(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{method} {path}")
        if match := re.fullmatch(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(method, match[1], match[3])
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.lfs_batch(json.loads(body))
        if match := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            return self.lfs_object(method, match[1], body)
        if path == "/api/repos/create":
            name = json.loads(body)
            repo = f"{name.get('organization') or 'me'}/{name['name']}"
            self.hub.uploads.setdefault(repo, {})
            self.hub.private[repo] = name.get(
                "private", name.get("visibility") == "private"
            )  # as older and newer clients ask
            return self.answer({"url": f"{self.hub.url}/datasets/{repo}", "name": repo, "id": repo})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if path == "/api/whoami-v2":
            return self.answer({"name": "me", "orgs": [], "auth": {"accessToken": {"role": "write"}}})
        if match := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)(?:/(.*))?", path):
            return self.dataset(match[1], match[2] or "", body)
        return self.answer({"error": f"no such address: {path}"}, 404)

    def dataset(self, repo: str, rest: str, body: bytes) -> None:
        kept = self.hub.files.get(repo)
        if rest.startswith("preupload/"):
            asked = json.loads(body)["files"]
            # The Hub keeps large and binary files, those of .gitattributes, outside git.
            modes = {f["path"]: "lfs" if f["path"].endswith((".safetensors", ".png")) else "regular" for f in asked}
            ready = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
            return self.answer({"files": ready})
        if rest.startswith("commit/"):
            if self.hub.refuse_commits:
                self.hub.refuse_commits -= 1
                return self.answer({"error": "the Hub is tired"}, 500)
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "header":
                    self.hub.messages.append(entry["value"]["summary"])
                elif entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.hub.uploads[repo][entry["value"]["path"]] = content
                elif entry["key"] == "deletedFile":
                    del self.hub.uploads[repo][entry["value"]["path"]]
                elif entry["key"] == "lfsFile":
                    if entry["value"]["oid"] not in self.hub.lfs:
                        return self.answer({"error": "an LFS file of the commit was never uploaded"}, 400)
                    self.hub.uploads[repo][entry["value"]["path"]] = self.hub.lfs[entry["value"]["oid"]]
            return self.answer({"success": True, "commitOid": COMMIT, "commitUrl": f"{self.hub.url}/datasets/{repo}"})
        if kept is None and repo in self.hub.uploads:
            kept = self.hub.uploads[repo]
        if kept is None:
            return self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if rest.startswith("paths-info/"):
            asked = self.paths_of(body)
            return self.answer([self.info(kept, path) for path in asked if path in kept])
        if rest.startswith("tree/"):
            return self.answer([self.info(kept, path) for path in kept])
        if rest and not rest.startswith(("revision/", "revision")):
            return self.answer({"error": f"no such address: {rest}"}, 404)
        card = {"license": self.hub.licence} if self.hub.licence else None
        siblings = [{"rfilename": path} for path in kept]
        return self.answer(
            {"id": repo, "sha": COMMIT, "private": False, "siblings": siblings, "cardData": card, "tags": []}
        )

    def lfs_batch(self, asked: dict) -> None:
        """Git LFS: where to put each object, and where to say that it is there."""
        answers = []
        for entry in asked["objects"]:
            href = f"{self.hub.url}/lfs/{entry['oid']}"
            answer = {"oid": entry["oid"], "size": entry["size"]}
            if entry["oid"] not in self.hub.lfs:  # what is there already is not asked for again
                answer["actions"] = {"upload": {"href": href}, "verify": {"href": href}}
            answers.append(answer)
        return self.answer({"transfer": "basic", "objects": answers})

    def lfs_object(self, method: str, oid: str, body: bytes) -> None:
        if method == "PUT":
            if hashlib.sha256(body).hexdigest() != oid:
                return self.answer({"error": "the content is not what its name says"}, 400)
            self.hub.lfs[oid] = body
        return self.answer({}, 200 if oid in self.hub.lfs else 404)

    @staticmethod
    def paths_of(body: bytes) -> list[str]:
        try:
            return json.loads(body)["paths"]
        except ValueError:
            from urllib.parse import parse_qs

            return parse_qs(body.decode())["paths"]

    def info(self, kept: dict[str, bytes], path: str) -> dict:
        size = len(kept[path]) + (7 if self.hub.lie_about_sizes else 0)
        return {"type": "file", "path": path, "size": size, "oid": hashlib.sha1(kept[path]).hexdigest()}

    def resolve(self, method: str, repo: str, path: str) -> None:
        content = self.hub.files.get(repo, self.hub.uploads.get(repo, {})).get(path)
        if content is None:
            return self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        start = 0
        status = 200
        if match := re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range") or ""):
            start, status = int(match[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if method == "HEAD":
            return None
        if self.hub.cut_first_download:
            self.hub.cut_first_download = False
            self.wfile.write(content[start : start + (len(content) - start) // 2])
            self.wfile.flush()
            self.close_connection = True
            return self.connection.close()
        return self.wfile.write(content[start:]) and None

    def answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def main(argv: list[str] | None = None) -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.data.hub_server", description=main.__doc__)
    parser.add_argument("--port", type=int, default=8011)
    hub = StandInHub({}, port=parser.parse_args(argv).port)
    print(f"export HF_ENDPOINT={hub.url} HF_TOKEN=hf_local HF_HUB_DISABLE_XET=1", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
