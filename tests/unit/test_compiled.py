import subprocess
import sys
import textwrap


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
