"""Runs the image that `tests/container/run` has built, with runc, as Docker and Kubernetes would: SDK in, event out.

Every check is a sentence that is printed when it holds; the first one that does not ends the run with what was logged.
"""

import argparse
import contextlib
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from segment.analytics.client import Client

PATIENCE_S = 60
WRITE_KEY = "container_write_key"

CONFIG = """
[sources.app]
write_keys = ["{key}"]

[destinations.crm]
url   = "http://127.0.0.1:{port}/{path}"
retry = {{ first = "20ms", delay_max = "200ms" }}
body  = {{ event = "{{{{ event }}}}" }}
"""


class Broken(Exception):
    """A sentence that is not so."""


def holds(sentence, is_so, *particulars):
    if not is_so:
        raise Broken(": ".join([sentence, *map(str, particulars)]))
    print(f"ok  {sentence}", flush=True)


def eventually(what, is_so):
    end = time.monotonic() + PATIENCE_S
    while not (found := is_so()):
        if time.monotonic() > end:
            raise Broken(f"never happened: {what}")
        time.sleep(0.02)
    return found


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


# === the image


def command(*words):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class Image:
    """A built image: what it says of itself, and its files."""

    def __init__(self, name):
        self.container = command("buildah", "from", name)
        self.root = pathlib.Path(command("buildah", "mount", self.container))
        self.config = json.loads(command("buildah", "inspect", "--type", "image", name))["Docker"]["config"]

    def files(self):
        return {f"/{path.relative_to(self.root)}": path for path in self.root.rglob("*") if path.is_file()}

    def size_bytes(self):
        return sum(path.stat().st_size for path in self.files().values())

    def close(self):
        command("buildah", "rm", self.container)


# === containers


class Container:
    """The image as it runs: with a volume, on a root that nobody may write to, with no rights at all."""

    def __init__(self, image, folder, name, volume, variables=(), mounts=()):
        self.name, self.runc = name, ["runc", "--root", f"{folder}/runc"]
        bundle = folder / name
        bundle.mkdir()
        subprocess.run([*self.runc, "spec"], cwd=bundle, check=True)
        spec = json.loads((bundle / "config.json").read_text())
        user, group = map(int, image.config["User"].split(":"))
        variables = [*image.config["Env"], *(f"{name}={value}" for name, value in dict(variables).items())]
        spec["process"] |= {
            "terminal": False,
            "user": {"uid": user, "gid": group},
            "args": image.config["Entrypoint"] + image.config["Cmd"],
            "env": variables,
            "cwd": image.config["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
        }
        # Its limits may be above those of this machine.
        spec["process"].pop("rlimits", None)
        spec["root"] = {"path": str(image.root), "readonly": True}
        binds = [("/data", volume, "rw"), *((place, source, "ro") for place, source in dict(mounts).items())]
        for place, source, mode in binds:
            spec["mounts"].append(
                {"destination": place, "type": "bind", "source": str(source), "options": ["rbind", mode]}
            )
        # It is reached, and reaches the fake, at this machine's own addresses.
        spec["linux"]["namespaces"] = [each for each in spec["linux"]["namespaces"] if each["type"] != "network"]
        spec["linux"].pop("resources", None)
        (bundle / "config.json").write_text(json.dumps(spec))
        self.bundle, self.log_path = bundle, bundle / "log"
        self.port = int(dict(variable.split("=", 1) for variable in variables).get("PORT", 8080))
        self.start()

    def start(self):
        log = self.log_path.open("w")
        words = [*self.runc, "run", "--bundle", self.bundle, self.name]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually("it listens", lambda: self.process.poll() is not None or "listening on" in self.log())
        if self.process.poll() is not None:
            raise Broken(f"it did not start:\n{self.log()}")

    def log(self):
        return self.log_path.read_text()

    def healthcheck(self, image, *options):
        """What the image's own health check says, as the engine would ask."""
        words = [*self.runc, "exec", *options, self.name, *image.config["Healthcheck"]["Test"][1:]]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout

    def run(self, *words):
        """What one of the image's commands says, beside the service."""
        return subprocess.run([*self.runc, "exec", self.name, *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    def ready(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=10) as answer:
            return json.load(answer)

    def books(self):
        return self.ready()["destinations"]["crm"]

    def process_of_it(self):
        state = json.loads(command(*self.runc, "state", self.name))
        return pathlib.Path("/proc") / str(state["pid"])

    def kill(self, signal):
        subprocess.run([*self.runc, "kill", self.name, signal], check=True)

    def ended(self):
        code = self.process.wait(PATIENCE_S)
        # One that was killed leaves its state behind.
        subprocess.run([*self.runc, "delete", "--force", self.name], stderr=subprocess.DEVNULL)
        return code

    def close(self):
        subprocess.run([*self.runc, "delete", "--force", self.name], stderr=subprocess.DEVNULL)


def volume(image, folder, name):
    """An empty volume, with the owner that an engine gives it: that of the image's folder."""
    path, model = folder / name, (image.root / "data").stat()
    path.mkdir()
    os.chown(path, model.st_uid, model.st_gid)
    return path


# === the destination


class Destination:
    """A service that keeps what it is sent, and is down or slow when it is told so."""

    def __init__(self):
        self.events, self.paths, self.is_down = [], set(), False
        # Answers wait for `hold`, if there is one; `held` says that one does.
        self.hold, self.held = None, threading.Event()
        destination = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if destination.hold:
                    destination.held.set()
                    destination.hold.wait(PATIENCE_S)
                status = 503 if destination.is_down else 200
                if status == 200:
                    destination.events.append(body["event"])
                    destination.paths.add(self.path)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def has(self, names):
        return eventually(f"{len(names)} events arrive", lambda: names <= set(self.events))


# === the SDK


def track(container, names):
    """Sends with Segment's own SDK. Returns when it has heard that everything was taken."""
    errors = []
    host = f"http://127.0.0.1:{container.port}"
    client = Client(WRITE_KEY, host=host, on_error=lambda error, _: errors.append(error))
    for name in names:
        client.track("user-1", name)
    client.shutdown()
    if errors:
        raise Broken(f"the SDK could not send: {errors}")
    return set(names)


# === what is so


def of_the_image(image, size_mb_max):
    user, group = image.config["User"].split(":")
    holds("the image's user is a number and not root", user.isdecimal() and group.isdecimal() and int(user) > 0)
    expected = {"/bin/libroseg", "/etc/libroseg/libroseg.toml", "/etc/ssl/certs/ca-certificates.crt"}
    holds("it holds the program, its file, the root certificates and nothing else", set(image.files()) == expected, set(image.files()))
    size_mb = image.size_bytes() / 1e6
    holds(f"it has no more than {size_mb_max} MB", size_mb <= size_mb_max, f"{size_mb:.1f} MB")
    headers = command("readelf", "--program-headers", str(image.files()["/bin/libroseg"]))
    holds("its program needs no other file to run", "INTERP" not in headers)


def as_it_is_shipped(image, folder):
    data = volume(image, folder, "shipped-data")
    port = free_port()
    container = Container(image, folder, "shipped", data, {"PORT": port, "LIBROSEG_WRITE_KEY": WRITE_KEY})
    with contextlib.closing(container):
        try:
            track(container, ["Shipped"])
            written = eventually("an event is in the archive", lambda: list(data.glob("events-*.ndjson")))
            eventually("it is written", lambda: '"Shipped"' in written[0].read_text())
            holds("an image without a file or an option of its own takes an event in and writes it to the volume", True)

            code, line = container.healthcheck(image)
            holds("the health check says that it serves", code == 0 and line == f"http://127.0.0.1:{port}/health: 200 OK\n", code, line)
            code, line = container.healthcheck(image, "--env", "PORT=1")
            holds("the health check says so when nothing serves", code == 1 and "Connection refused" in line, code, line)

            status = (container.process_of_it() / "status").read_text().split()
            value = lambda name: status[status.index(name) + 1]
            ids = {value("Uid:"), value("Gid:")}
            holds("it runs as that user, with no rights of root's", ids == {"65532"} and int(value("CapEff:"), 16) == 0, ids)
            root = (container.process_of_it() / "mountinfo").read_text().splitlines()[0].split()
            holds("nothing but the volume can be written to", root[4] == "/" and root[5].split(",")[0] == "ro", root)
            inspected = container.run("libroseg", "queue", "inspect")
            holds("commands are run in the container by their name", "archive" in inspected, inspected)
        finally:
            container.kill("TERM")
            code = container.ended()
        holds("SIGTERM ends it with exit code 0", code == 0, code, container.log())


def as_a_pod(image, folder):
    """With a volume, and its file put there as a ConfigMap is: behind a link that is swapped."""
    destination = Destination()
    data, config = volume(image, folder, "data"), folder / "config"
    config.mkdir()
    put_config(config, "1", CONFIG.format(key=WRITE_KEY, port=destination.port, path="old"))
    (config / "libroseg.toml").symlink_to("..data/libroseg.toml")
    container = Container(image, folder, "pod", data, {"PORT": free_port()}, {"/etc/libroseg": config})
    with contextlib.closing(container):
        try:
            outlives_a_crash(container, destination)
            drains(container, destination)
            follows_its_config_map(container, destination, config)
        except BaseException:
            print(container.log(), file=sys.stderr)
            raise
        container.kill("TERM")
        container.ended()


def outlives_a_crash(container, destination):
    destination.is_down = True
    sent = track(container, [f"before the crash {number}" for number in range(200)])
    eventually("all wait", lambda: container.books()["waiting"] == len(sent))
    container.kill("KILL")
    holds("kill -9 ends it", container.ended() != 0)
    holds("nothing was delivered before the crash", not destination.events)

    destination.is_down = False
    container.start()
    destination.has(sent)
    holds("every event that was answered 200 before the crash arrives after it", True)
    holds("and none arrives twice", len(destination.events) == len(sent), len(destination.events))
    eventually("all are settled", lambda: container.books()["waiting"] == 0)


def drains(container, destination):
    before = len(destination.events)
    destination.hold = threading.Event()
    sent = track(container, ["on its way"])
    eventually("the request is out", destination.held.is_set)
    container.kill("TERM")
    eventually("it shuts down", lambda: "shutting down" in container.log())
    time.sleep(0.3)
    holds("SIGTERM waits for the request that is on its way", container.process.poll() is None)
    destination.hold.set()
    holds("then it ends with exit code 0", container.ended() == 0, container.log())

    container.start()
    books = container.books()
    holds("what was delivered while it shut down is not sent again", books["waiting"] == 0, books)
    holds("and was delivered", sent <= set(destination.events) and len(destination.events) == before + 1)


def follows_its_config_map(container, destination, config):
    text = (config / "libroseg.toml").read_text()
    put_config(config, "2", text.replace("/old", "/new"))
    eventually("the new file is in force", lambda: "reloaded" in container.log())
    destination.has(track(container, ["after the swap"]))
    holds("a ConfigMap that changes takes effect without a restart", destination.paths == {"/old", "/new"}, destination.paths)


def put_config(folder, version, text):
    """As the kubelet does: a new folder, and one link that is replaced."""
    (folder / version).mkdir()
    (folder / version / "libroseg.toml").write_text(text)
    link = folder / "..data_tmp"
    link.symlink_to(version)
    link.rename(folder / "..data")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("--size-mb-max", type=float, required=True)
    options = parser.parse_args()
    image = Image(options.image)
    with contextlib.closing(image), tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        # The container's user walks through it.
        folder.chmod(0o755)
        try:
            of_the_image(image, options.size_mb_max)
            as_it_is_shipped(image, folder)
            as_a_pod(image, folder)
        except Broken as broken:
            sys.exit(f"FAILED  {broken}")


if __name__ == "__main__":
    main()
