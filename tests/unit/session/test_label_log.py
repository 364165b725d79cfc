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
