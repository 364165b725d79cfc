import gc
import weakref

import pytest

from neuroloop import importing


class Ring:
    """An object that only a collection can free."""

    def __init__(self):
        self.itself = self


@pytest.fixture(autouse=True)
def _collecting():
    yield
    gc.enable()


def test_no_collection_runs_while_a_process_imports_and_none_looks_at_what_it_imported():
    with importing.for_good():
        assert not gc.isenabled()
        made = weakref.ref(Ring())
    gc.collect()
    assert made() is not None
    later = weakref.ref(Ring())
    gc.collect()
    assert later() is None


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_before_even_when_an_import_fails(enabled):
    (gc.enable if enabled else gc.disable)()
    with pytest.raises(ImportError), importing.for_good():
        raise ImportError
    assert gc.isenabled() == enabled
