"""The image of docker/Dockerfile, built by buildah on a Debian of debootstrap's, and run without a container engine.

NEUROLOOP_IMAGE_FOLDER: where both are kept, build/image by default. NEUROLOOP_IMAGE_BASE: an image to build on instead.
NEUROLOOP_IMAGE_MIRROR: Debian's packages for debootstrap. What pip is set to here (its index, certificates, folders of
wheels) holds in the build too.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("NEUROLOOP_IMAGE_FOLDER", REPOSITORY / "build" / "image")).absolute()
BASE = "localhost/neuroloop-base"
TAG = "localhost/neuroloop-test"
NEEDED = ("buildah", "debootstrap", "unshare", "setpriv", "chroot")
CERTIFICATES = "/etc/pip-certificates.pem"  # inside, of pip's index
OF_PIP = ("cert", "timeout", "index-url", "find-links", "trusted-host", "proxy")


def buildah(*arguments):
    """What buildah prints. Its storage is in the folder, apart from the machine's."""
    command = ["buildah", "--root", str(FOLDER / "storage"), "--runroot", str(FOLDER / "run"), *map(str, arguments)]
    quiet = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "start_new_session": True,
    }  # no terminal to wait for
    return subprocess.run(["nice", "-n", "15", *command], **quiet, check=True, text=True).stdout.strip()


def missing():
    """Why no image can be built here; empty where it can."""
    if os.geteuid() != 0:
        return "needs root"
    return ", ".join(f"needs {program}" for program in NEEDED if shutil.which(program) is None)


def make_base():
    """The name of the image that the Dockerfile starts from."""
    if given := os.environ.get("NEUROLOOP_IMAGE_BASE"):
        return given
    if not buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        root = FOLDER / "root"
        if not (root / "etc" / "debian_version").exists() or (root / "debootstrap").exists():
            mirror = os.environ.get("NEUROLOOP_IMAGE_MIRROR", "http://deb.debian.org/debian")
            shutil.rmtree(root, ignore_errors=True)
            subprocess.run(
                ["debootstrap", "--variant=minbase", "bookworm", root, mirror], check=True, stdout=sys.stderr
            )
        container = buildah("from", "scratch")
        buildah("copy", "--quiet", container, root, "/")
        buildah("commit", "--quiet", "--rm", container, BASE)
    return BASE


def pip_settings():
    """What pip is set to here: name -> value."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, check=True, text=True
    ).stdout
    pairs = (line.partition("=")[::2] for line in sorted(listed.splitlines(), reverse=True))  # :env: comes last
    named = {key.rpartition(".")[2].removeprefix("default-"): ast.literal_eval(value) for key, value in pairs}
    return {key: value for key, value in named.items() if key in OF_PIP}


def build():
    """Build the image, as far as its sources have changed."""
    settings = pip_settings()
    certificates = settings.get("cert")
    if certificates:  # not where it is here: there Debian's own package writes
        settings["cert"] = CERTIFICATES
    conf = FOLDER / "pip.conf"
    conf.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    paths = [word for value in settings.values() for word in value.split() if Path(word).is_absolute()]
    mounts = [f"{conf}:/etc/pip.conf:ro", "/etc/hosts:/etc/hosts:ro"]
    mounts += [f"{path}:{path}:ro" for path in paths if path != CERTIFICATES and Path(path).exists()]
    mounts += [f"{certificates}:{CERTIFICATES}:ro"] if certificates else []
    arguments = [f"BASE={make_base()}"]
    if "find-links" in settings:  # PyTorch's CPU build is one of those
        arguments.append("TORCH_INDEX=")
    buildah(
        *("bud", "--isolation", "chroot", "--format", "docker", "--layers", "--quiet", "--tag", TAG),
        *(part for mount in mounts for part in ("--volume", mount)),
        *(part for argument in arguments for part in ("--build-arg", argument)),
        *("--file", REPOSITORY / "docker" / "Dockerfile", REPOSITORY),
    )


class Image:
    """The image, unpacked. config: what it says of itself. size: of its files, in bytes."""

    def __init__(self, root, config, size):
        self.root = root
        self.config = config
        self.size = size

    def fill(self, folder):
        """Folders for the image's volumes below `folder`, as an engine makes them; returns HOST:PATH of each."""
        pairs = []
        for number, path in enumerate(sorted(self.config["Volumes"])):
            target = folder / f"volume-{number}"
            if not target.exists():
                subprocess.run(["cp", "--archive", f"{self.root}{path}", target], check=True)
            pairs.append(f"{target}:{path}")
        return pairs

    def program(self, folder, *, environment=None, files=None, namespace=None):
        """The command line that runs what follows it in a container of this image, as the same process.

        folder: of its volumes. files: host path -> path inside. namespace: of its network; the caller's by default.
        """
        within = [] if namespace is None else ["ip", "netns", "exec", namespace]
        apart = ["unshare", "--mount", "--ipc", "--uts"]
        named = ["sh", "-c", 'hostname container && exec "$@"', "sh"]
        contained = [Path(__file__).with_name("contain.sh"), self.root, self.config["User"], self.config["WorkingDir"]]
        mounts = [*self.fill(folder), *(f"{host}:{inside}" for host, inside in (files or {}).items())]
        variables = [*self.config["Env"], *(f"{key}={value}" for key, value in (environment or {}).items())]
        return [*within, *apart, *named, *map(str, contained), *mounts, "--", "-i", *variables]

    @property
    def entrypoint(self):
        return self.config["Entrypoint"][0]


def unpack():
    """The image that was built, and the container whose root it is."""
    described = json.loads(buildah("inspect", "--type", "image", TAG))
    container = buildah("from", TAG)
    size = subprocess.run(
        ["du", "--summarize", "--bytes", "--one-file-system", root := buildah("mount", container)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout.split()[0]
    return container, Image(Path(root), described["Docker"]["config"], int(size))
