"""The image, built once for all tests, and hosts in network namespaces of their own."""

import configparser
import os
import shutil
import subprocess
import uuid

import pytest
from tests.e2e import image as images


@pytest.fixture(scope="session")
def image():
    if why := images.missing():
        pytest.skip(f"no image can be built here: {why}")
    images.FOLDER.mkdir(parents=True, exist_ok=True)
    images.build()
    container, built = images.unpack()
    yield built
    images.buildah("umount", container)
    images.buildah("rm", container)


@pytest.fixture(scope="session")
def lsl_session_id():
    """Of the streams of these tests."""
    config = configparser.ConfigParser()
    config.read(os.environ["LSLAPICFG"])
    return config["lab"]["SessionID"]


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Hosts:
    """Two hosts, `left` and `right`, with a router between them that passes no multicast and no broadcast on."""

    def __init__(self):
        name = uuid.uuid4().hex[:6]
        self.left, self.right, self.router = (f"neuroloop-{name}-{side}" for side in ("left", "right", "router"))
        self.left_address, self.right_address = "198.18.1.2", "198.18.2.2"

    def make(self):
        for namespace in (self.left, self.right, self.router):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        for number, host in enumerate((self.left, self.right), 1):
            ip("link", "add", "veth0", "netns", host, "type", "veth", "peer", f"veth{number}", "netns", self.router)
            for namespace, link, last in ((host, "veth0", 2), (self.router, f"veth{number}", 1)):
                self.run(namespace, "sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{link}/disable_ipv6")
                ip("-n", namespace, "address", "add", f"198.18.{number}.{last}/24", "dev", link)
                ip("-n", namespace, "link", "set", link, "up")
            ip("-n", host, "route", "add", "default", "via", f"198.18.{number}.1")
        self.run(self.router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def run(self, namespace, *command, **options):
        """Run a command on one of them, to its end."""
        options = {"check": True, "stdout": subprocess.PIPE, "text": True} | options
        return subprocess.run(["ip", "netns", "exec", namespace, *command], **options)

    def remove(self):
        for namespace in (self.left, self.right, self.router):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


@pytest.fixture
def hosts():
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and ip (iproute2)")
    made = Hosts()
    try:
        made.make()
    except subprocess.CalledProcessError as error:
        made.remove()
        pytest.skip(f"no network namespaces here: {error.stderr!r}")
    yield made
    made.remove()
