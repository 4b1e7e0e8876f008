"""README.md tells the truth: its Python runs, its files exist."""

import re
import subprocess
import sys

from checkout import ROOT, needs_checkout

README = ROOT / "README.md"

pytestmark = needs_checkout


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_python_of_the_readme_builds_and_runs_in_an_empty_project(tmp_path):
    code = "\n".join(block for block in _blocks("python") if "Predictor" not in block)
    check = 'assert outputs[0]["instances"].image_size == (480, 640)'
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{code}\n{check}"],
        cwd=tmp_path,
        env={"HOME": str(tmp_path)},
        check=True,
    )


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    local = [link for link in links if "://" not in link]
    assert local
    for link in local:
        assert (ROOT / link).exists(), link


def test_every_config_that_the_readme_names_exists():
    names = set(re.findall(r"configs/(\w+\.yaml)", README.read_text()))
    names |= {
        f"{name}.yaml" for name in re.findall(r"`(\w+_resne[s]?t50_fpn)`", README.read_text())
    }
    assert len(names) >= 8
    for name in names:
        assert (ROOT / "configs" / name).is_file(), name


def test_the_table_of_the_readme_is_what_the_benchmark_wrote():
    written = (ROOT / "docs" / "benchmark" / "backbone" / "benchmark.md").read_text()
    assert written.partition("\n\n")[0] in README.read_text()
