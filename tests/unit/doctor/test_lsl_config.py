import pytest

from neuroloop.config import LslSettings
from neuroloop.doctor.lsl_config import LslConfig, lsl_config
from neuroloop.errors import ConfigError


def read(folder, text):
    file = folder / "lsl_api.cfg"
    file.write_text(text)
    return lsl_config(LslSettings(), {"LSLAPICFG": str(file)})


def test_the_servers_own_settings_replace_liblsls_file(tmp_path):
    (tmp_path / "lsl_api.cfg").write_text("[lab]\nSessionID = other\n")
    found = lsl_config(
        LslSettings(session_id="mine", known_peers=["a", "b"]), {"LSLAPICFG": str(tmp_path / "lsl_api.cfg")}
    )
    assert (found.session_id, found.peers) == ("mine", ("a", "b"))


def test_without_any_file_liblsls_defaults_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert lsl_config(LslSettings(), {"HOME": str(tmp_path)}) == LslConfig()


def test_session_peers_and_ports_are_read_from_liblsls_file(tmp_path):
    text = "[ports]\nMulticastPort = 5\nBasePort = 20\nPortRange = 4\nAllowRandomPorts = false\n"
    found = read(tmp_path, text + "[lab]\nKnownPeers = {one, 192.0.2.1}\nSessionID = lab-2\n")
    assert (found.session_id, found.peers, found.multicast_port) == ("lab-2", ("one", "192.0.2.1"), 5)
    assert (found.ports, found.random_ports) == (range(20, 24), False)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("ResolveScope = machine", ("127.0.0.1",)),
        ("ResolveScope = link\nLinkAddresses = {224.0.0.9, ff02::1}", ("127.0.0.1", "224.0.0.9")),
        ("AddressesOverride = {224.0.0.7}", ("224.0.0.7",)),
    ],
)
def test_the_addresses_asked_are_those_of_the_scope(tmp_path, text, addresses):
    assert read(tmp_path, f"[multicast]\n{text}\n").addresses == addresses


@pytest.mark.parametrize("text", ["[ports]\nBasePort = many\n", "no section\n", "[multicast]\nResolveScope = moon\n"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text):
    with pytest.raises(ConfigError, match=r"lsl_api\.cfg: liblsl's configuration cannot be read"):
        read(tmp_path, text)
