from datetime import UTC, datetime, timedelta

import pytest

from neuroloop.errors import ConfigError, Conflict, ModelError, NotFound, RegistryError, Unavailable
from neuroloop.models import decoder_files
from neuroloop.registry.blobs import digest_of
from neuroloop.registry.documents import Document
from neuroloop.registry.registry import Registry
from neuroloop.registry.verify import collect, verify

DATA_DIGEST = "sha256:" + "0" * 64


def test_a_version_keeps_all_that_is_said_of_it(registry, make_weights):
    registry.add_version("reach", make_weights(1))
    said = Document(
        parent=1,
        training_data=DATA_DIGEST,
        metrics={"accuracy": 0.9, "confusion": [[3, 1], [0, 4]]},
        metadata={"trials": 40, "where": {"lab": "B2"}},
        description="more trials\n\ud7ff",
    )
    weights = make_weights(2)
    added = registry.add_version("reach", weights, said, created_by="ann")
    assert registry.get("reach", 2) == added
    assert (added.model, added.version, added.kind) == ("reach", 2, "maxrate")
    assert (added.digest, added.size) == (digest_of(weights), len(weights))
    assert (added.classes, added.features, added.channels) == (["left", "right"], 3, ["a", "b", "c"])
    assert added.model_dump(include=set(Document.model_fields) & {*said.model_fields_set}) == said.model_dump(
        include=said.model_fields_set
    )
    assert added.created_by == "ann"
    assert abs(datetime.now(UTC) - added.created) < timedelta(minutes=1)
    assert registry.weights("reach", 2) == weights


def test_versions_are_numbered_from_one_and_a_number_is_never_given_again(registry, make_weights):
    assert [registry.add_version("reach", make_weights(n)).version for n in range(3)] == [1, 2, 3]
    registry.delete_version("reach", 3)
    assert registry.add_version("reach", make_weights(3)).version == 4
    registry.delete_model("reach")
    assert registry.models() == []
    assert registry.add_version("reach", make_weights(4)).version == 5
    assert registry.add_version("grasp", make_weights(4)).version == 1
    assert [(model.name, model.versions) for model in registry.models()] == [("grasp", [1]), ("reach", [5])]


def test_an_alias_points_to_one_version_and_moves(registry, make_weights):
    for n in range(2):
        registry.add_version("reach", make_weights(n))
    assert registry.set_alias("reach", "champion", 1).aliases == ["champion"]
    registry.set_alias("reach", "candidate", 2)
    registry.set_alias("reach", "champion", 2)
    assert registry.resolve("reach", "champion").version == 2
    assert [version.aliases for version in registry.versions("reach")] == [[], ["candidate", "champion"]]
    assert registry.model("reach").aliases == {"candidate": 2, "champion": 2}
    registry.delete_alias("reach", "champion")
    with pytest.raises(NotFound, match="no alias 'champion'; it has: candidate"):
        registry.resolve("reach", "champion")
    assert [registry.resolve("reach", reference).version for reference in (1, "1", "2")] == [1, 1, 2]


def test_what_is_in_use_is_not_deleted(registry, make_weights):
    for n in range(2):
        registry.add_version("reach", make_weights(n))
    registry.set_alias("reach", "champion", 1)
    with pytest.raises(Conflict, match="version 1 of model 'reach' is in use by alias 'champion'"):
        registry.delete_version("reach", 1)
    with pytest.raises(Conflict, match="alias 'champion'"):
        registry.delete_model("reach")
    registry.delete_alias("reach", "champion")

    def used_by(model, number):
        return "session 'demo'" if (model, number) == ("reach", 2) else None

    with pytest.raises(Conflict, match="version 2 of model 'reach' is in use by session 'demo'"):
        registry.delete_version("reach", 2, used_by)
    with pytest.raises(Conflict, match="session 'demo'"):
        registry.delete_model("reach", used_by)
    assert registry.model("reach").versions == [1, 2]
    registry.delete_version("reach", 1, used_by)


def test_versions_of_one_content_share_a_blob_until_the_last_of_them_is_gone(registry, make_weights):
    weights = make_weights()
    registry.add_version("reach", weights)
    registry.add_version("grasp", weights)
    registry.delete_version("reach", 1)
    assert collect(registry, min_age_s=0) == 0
    assert registry.weights("grasp", 1) == weights
    registry.delete_version("grasp", 1)
    assert verify(registry).orphans == [digest_of(weights)]
    assert collect(registry) == 0  # too young: another server may be about to use it
    assert collect(registry, min_age_s=0) == 1
    assert verify(registry).orphans == []


@pytest.mark.parametrize("number", [0, -1, 2, 2**31, 2**63, 2**200])
def test_a_version_that_is_not_there_is_named(registry, make_weights, number):
    registry.add_version("reach", make_weights())
    for call in (registry.get, registry.resolve, registry.weights, registry.delete_version):
        with pytest.raises(NotFound, match=f"model 'reach' has no version {number}; it has: 1"):
            call("reach", number)
    with pytest.raises(NotFound):
        registry.set_alias("reach", "champion", number)


def test_a_model_that_is_not_there_is_named(registry):
    for call in (registry.model, registry.versions, registry.delete_model):
        with pytest.raises(NotFound, match="no model 'reach'"):
            call("reach")
    for reference in (1, "champion"):
        with pytest.raises(NotFound, match="no model 'reach'"):
            registry.resolve("reach", reference)
    with pytest.raises(NotFound, match="no model 'reach'"):
        registry.delete_alias("reach", "champion")


@pytest.mark.parametrize("name", ["", "../reach", "a/b", "a b", ".hidden", "a" * 65, "reach\n", "é"])
def test_a_name_that_could_be_a_path_is_refused(registry, make_weights, name):
    with pytest.raises(ModelError, match="name of a model"):
        registry.add_version(name, make_weights())
    registry.add_version("reach", make_weights())
    with pytest.raises(ModelError, match="alias"):
        registry.set_alias("reach", name, 1)
    assert [model.name for model in registry.models()] == ["reach"]


def test_an_alias_is_never_a_number(registry, make_weights):
    registry.add_version("reach", make_weights())
    with pytest.raises(ModelError, match="alias"):
        registry.set_alias("reach", "1", 1)


def test_a_refused_version_leaves_nothing(registry, make_weights):
    for weights, said, refusal in (
        (b"\x80\x04K\x01.", Document(), ModelError),
        (make_weights(), Document(parent=1), NotFound),
        (make_weights(), Document(digest=DATA_DIGEST), ModelError),
    ):
        with pytest.raises(refusal):
            registry.add_version("reach", weights, said)
    assert registry.models() == []
    assert list(registry.blobs.files()) == []


def test_bare_tensors_are_kept_with_what_their_document_says(registry, make_weights):
    bare = make_weights(1, kind="")
    values = {"missing": 0, "signed": False, "trial_count": 0, "sharpness": 0.0}
    said = Document(kind="maxrate", classes=["left", "right"], features=3, values=values, digest=digest_of(bare))
    added = registry.add_version("reach", bare, said)
    kept = registry.weights("reach", 1)
    assert added.digest == digest_of(kept) != digest_of(bare)
    assert decoder_files.read(kept).about.classes == ["left", "right"]


def test_two_registries_of_one_folder_see_the_same(registry, registry_url, tmp_path, make_weights):
    other = Registry(tmp_path / "registry", registry_url)
    registry.add_version("reach", make_weights(1))
    other.add_version("reach", make_weights(2))
    assert registry.versions("reach") == other.versions("reach")
    assert other.weights("reach", 1) == make_weights(1)
    other.close()


def test_verify_names_every_damage(registry, make_weights):
    added = [registry.add_version("reach", make_weights(n)) for n in range(3)]
    assert verify(registry).faults == []
    registry.blobs.path(added[0].digest).unlink()
    registry.blobs.path(added[1].digest).write_bytes(b"other")
    (registry.blobs.path(added[2].digest).parent / "x.part").write_bytes(b"half")
    report = verify(registry)
    assert report.versions == 3
    assert report.unfinished == 1
    assert ["missing" in report.faults[0], "damaged" in report.faults[1], len(report.faults)] == [True, True, 2]
    with pytest.raises(RegistryError, match="missing"):
        registry.weights("reach", 1)
    assert collect(registry, min_age_s=0) == 1
    assert len(verify(registry).faults) == 2


@pytest.mark.parametrize("url", ["mysql://lab@host/db", "nonsense"])
def test_an_address_that_is_no_database_is_refused(tmp_path, url):
    with pytest.raises(ConfigError, match=r"registry\.url: expected sqlite"):
        Registry(tmp_path, url)


def test_a_database_that_does_not_answer_is_named(tmp_path):
    with pytest.raises(Unavailable, match="the registry's database does not answer"):
        Registry(tmp_path, f"postgresql://lab@/db?host={tmp_path}")


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="can't hold the registry"):
        Registry(tmp_path / "file" / "registry")
