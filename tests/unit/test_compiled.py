import os
import subprocess
import sys
import textwrap

import pytest


def run(folder):
    program = "import outer; print(outer.twice_inner(3), outer.twice_inner.stats.cache_hits.__len__())"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()


def write(folder, name, text):
    (folder / f"{name}.py").write_text(textwrap.dedent(text))


def test_a_kernel_is_compiled_anew_when_a_file_beside_its_own_has_changed(tmp_path):
    inner = "from neuroloop.compiled import kernel\n@kernel\ndef inner(x):\n    return x + {}\n"
    write(tmp_path, "inner", inner.format(1))
    write(
        tmp_path,
        "outer",
        "from inner import inner\nfrom neuroloop.compiled import kernel\n\n"
        "@kernel\ndef twice_inner(x):\n    return 2 * inner(x)\n",
    )
    assert run(tmp_path) == ["8", "0"]
    assert run(tmp_path) == ["8", "1"]
    write(tmp_path, "inner", inner.format(2))
    assert run(tmp_path) == ["10", "0"]


TWICE = "from neuroloop.compiled import kernel\n@kernel\ndef twice(x):\n    return 2 * x\n"
RUN_TWICE = "import outer; print(outer.twice(3), sum(outer.twice.stats.cache_hits.values()))"


def run_where_nothing_can_be_written(folder):
    """`RUN_TWICE` in this folder, which is read-only for it, as is its home."""
    command = [sys.executable, "-c", RUN_TWICE]
    if os.geteuid() == 0:  # as an owner without the right to overrule modes
        caps = "--bounding-set=-dac_override,-dac_read_search"
        command = ["setpriv", caps, "--inh-caps=-all", *command]
    folders = [path for path in (folder, folder / "__pycache__") if path.is_dir()]
    environment = os.environ | {"HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    for path in folders:
        path.chmod(0o555)
    try:
        return subprocess.run(command, cwd=folder, env=environment, stdout=-1, text=True, check=True).stdout.split()
    finally:
        for path in folders:
            path.chmod(0o755)


def test_kernels_are_taken_from_an_installation_that_cannot_be_written(tmp_path):
    write(tmp_path, "outer", TWICE)
    subprocess.run([sys.executable, "-c", RUN_TWICE], cwd=tmp_path, check=True)
    assert run_where_nothing_can_be_written(tmp_path) == ["6", "1"]


def test_kernels_run_where_nothing_was_compiled_and_nothing_can_be_written(tmp_path):
    write(tmp_path, "outer", TWICE)
    assert run_where_nothing_can_be_written(tmp_path) == ["6", "0"]


@pytest.mark.parametrize(("target", "wide"), [("x86-64-v3", "False"), ("x86-64-v4", "True"), ("generic", "False")])
def test_vectors_are_as_wide_as_those_of_the_processor_that_is_compiled_for(target, wide):
    program = "from neuroloop.compiled import has_avx512; print(has_avx512())"
    environment = os.environ | {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": ""}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == wide
