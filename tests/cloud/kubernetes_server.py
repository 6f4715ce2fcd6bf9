"""A stand-in for Kubernetes' API: each job's command runs here, in a directory of its own.

Like a pod, a job starts in an empty directory, with its image's packages, the variables of its
secret and the volumes that it mounts. What it doesn't have is isolation.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

WORKDIR = Path("/workdir")  # of a pod, in the plugin's specification

Answer = dict[str, Any]


class KubernetesServer:
    """The stand-in. submitted: the specification of each container, by the name of its job."""

    def __init__(self, directory: Path, variables: dict[str, str]) -> None:
        """variables: those of the image, which each pod has."""
        self.directory = directory
        self.submitted: dict[str, Answer] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._secrets: dict[str, dict[str, str]] = {}
        self._variables = {**variables, "HOME": str(directory), "PATH": self._image_path()}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def config(self) -> Path:
        """A kubeconfig file, for KUBECONFIG."""
        name = {"name": "here"}
        path = self.directory / "kubeconfig.yaml"
        cluster = {"server": f"http://127.0.0.1:{self._server.server_port}"}
        content = {
            "clusters": [{**name, "cluster": cluster}],
            "users": [{**name, "user": {}}],
            "contexts": [{**name, "context": {"cluster": "here", "user": "here"}}],
            "current-context": "here",
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def printed(self) -> str:
        """What all pods have printed."""
        return "\n".join(path.read_text() for path in sorted(self.directory.glob("*/printed.txt")))

    def end_pods(self) -> None:
        """End all pods' processes at once, as if their nodes were lost."""
        for process in self._processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def close(self) -> None:
        self.end_pods()
        self._server.shutdown()
        self._server.server_close()

    def _image_path(self) -> str:
        """PATH of an image that has the plugins, so that its `pip` has nothing to install."""
        programs = self.directory / "bin"
        programs.mkdir()
        (programs / "pip").write_text("#!/bin/sh\n")
        (programs / "pip").chmod(0o755)
        return os.pathsep.join([str(programs), str(Path(sys.executable).parent), "/usr/bin:/bin"])

    def _start(self, job: Answer) -> None:
        name = job["metadata"]["name"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        self.submitted[name] = container
        pod = self.directory / name
        workdir = pod / "workdir"
        workdir.mkdir(parents=True)
        for mount in container["volumeMounts"]:
            inside = Path(mount["mountPath"])
            if inside != WORKDIR:
                volume = self.directory / mount["name"]
                volume.mkdir(exist_ok=True)
                (workdir / inside.relative_to(WORKDIR)).symlink_to(volume)
        secret = {}
        for variable in container["env"]:
            key = variable["valueFrom"]["secretKeyRef"]
            secret[variable["name"]] = self._secrets[key["name"]][key["key"]]
        with open(pod / "printed.txt", "wb") as output:
            self._processes[name] = subprocess.Popen(
                [*container["command"], *container["args"]],
                cwd=workdir,
                env={**self._variables, **secret},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _status(self, name: str) -> Answer:
        code = self._processes[name].poll()
        return {"succeeded": int(code == 0), "failed": int(code not in (0, None))}

    def _answer(self, method: str, path: list[str], body: Answer) -> Answer:
        match method, path:
            case "POST", [*_, "secrets"]:
                decoded = {k: base64.b64decode(v).decode() for k, v in body["data"].items()}
                self._secrets[body["metadata"]["name"]] = decoded
            case "POST", [*_, "jobs"]:
                self._start(body)
            case "GET", [*_, "jobs", name, "status"]:
                return {"metadata": {"name": name}, "status": self._status(name)}
            case "GET", [*_, "pods"]:
                return {"items": []}
        return body

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else {}
                path = self.path.partition("?")[0].strip("/").split("/")
                text = json.dumps(server._answer(self.command, path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        return Handler
