"""What a release and the workflows say: one version, and the commands that developers use."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lca_fused

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path: Path):
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(path.read_text())


def steps(workflow: str) -> list[str]:
    jobs = read(ROOT / ".github" / "workflows" / workflow)["jobs"].values()
    return [step["run"].strip() for job in jobs for step in job["steps"] if "run" in step]


def test_citation_and_changelog_are_of_this_version():
    cited = read(ROOT / "CITATION.cff")
    released = re.search(r"^## (\d\S*) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released is not None
    assert released.groups() == (cited["version"], str(cited["date-released"]))
    assert cited["version"] == lca_fused.__version__


def test_ci_runs_what_developers_run():
    assert steps("ci.yml") == ["bash .ci/run"]


def test_the_weekly_run_is_the_tests_of_contributing():
    *_, install, test = steps("weekly.yml")
    told = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    assert test in told
    assert "uv pip install --resolution lowest-direct" in told
    assert install.endswith('--resolution ${{ matrix.resolution }} -e ".[dev]"')


@pytest.mark.parametrize("schema", ["github-workflows", "github-workflows-require-timeout"])
def test_workflows_are_of_the_form_that_github_reads(schema):
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *WORKFLOWS]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda form: form.stem
)
def test_an_issue_form_is_of_the_form_that_github_reads(form):
    content = read(form)
    assert {"name", "description", "body"} <= content.keys()
    for element in content["body"]:
        assert element["type"] in ("textarea", "input", "checkboxes")
        assert element["attributes"]["label"]
    names = [element["id"] for element in content["body"]]
    assert len(names) == len(set(names))
