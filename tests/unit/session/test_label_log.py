import threading

from neuroloop.session.label_log import LabelLog, read


def written(log):
    done = threading.Event()
    log.when_written(done.set)
    assert done.wait(10)


def test_records_are_there_when_that_is_said_and_a_checkpoint_takes_those_that_it_has(tmp_path):
    path = tmp_path / "log"
    log = LabelLog(path, 7)
    for label in ("left", "right"):
        log.put({"label": label})
    written(log)
    assert read(path, 0) == [{"number": 8, "label": "left"}, {"number": 9, "label": "right"}]
    assert read(path, 8) == [{"number": 9, "label": "right"}]
    log.drop(8)
    written(log)
    assert len(read(path, 0)) == 2
    log.drop(9)
    written(log)
    assert read(path, 0) == []
    log.put({"label": "left"})
    log.end(10)
    assert read(path, 0) == [{"number": 10, "label": "left"}]


def test_a_record_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "log"
    log = LabelLog(path, 0)
    log.put({"rates": bytes(100)})
    log.put({"rates": bytes(100)})
    log.end(10)
    path.write_bytes(path.read_bytes()[:-5])
    assert [record["number"] for record in read(path, 0)] == [1]
    assert read(tmp_path / "none", 0) == []


def test_a_log_that_is_gone_on_with_has_the_records_that_are_needed_and_nothing_that_was_cut_off(tmp_path):
    path = tmp_path / "log"
    log = LabelLog(path, 0)
    for _ in range(3):
        log.put({"rates": bytes(100)})
    log.end(10)
    path.write_bytes(path.read_bytes()[:-5])
    log = LabelLog(path, 2, read(path, 1))
    log.put({"label": "left"})
    log.end(10)
    assert [record["number"] for record in read(path, 0)] == [2, 3]


def test_a_log_of_labels_that_never_cease_does_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("neuroloop.session.label_log.LONG_BYTES", 1000)
    path = tmp_path / "log"
    log = LabelLog(path, 0)
    for number in range(1, 101):
        log.put({"rates": bytes(100)})
        log.drop(number - 1)
    log.end(10)
    assert read(path, 0)[-1]["number"] == 100
    assert path.stat().st_size < 2000
