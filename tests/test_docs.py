"""The pages name what is there: tables and columns, folders, and each other."""

import re
from pathlib import Path

import pytest
import yaml
from kedro.io import CatalogConfigResolver
from pandera.pandas import DataFrameSchema

import mrt_pipeline
from mrt_pipeline import schemas
from mrt_pipeline.pipeline_registry import register_pipelines

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
CATALOG = yaml.safe_load((ROOT / "conf/base/catalog.yml").read_text().replace("${data:}", "data"))
TABLES = (ROOT / "docs/tables.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n?)*)", TABLES, re.MULTILINE))
SCHEMAS = {
    name: schema
    for name, schema in vars(schemas).items()
    if isinstance(schema, DataFrameSchema) and not name.startswith("_")
}
ABBREVIATED = {  # schemas that are not called as their table
    "ANYTIME": "base_anytime",
    "VOTES": "base_votes",
}


def quoted(text):
    return set(re.findall(r"`([^`]+)`", text))


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_is_described_in_the_section_of_its_table(name):
    table = ABBREVIATED.get(name, name.lower())
    (section,) = (text for heading, text in SECTIONS.items() if table in heading.split(", "))
    intervals = quoted(SECTIONS["regret, accuracy"])  # "These five columns mean the same in all tables of a run"
    shared = {"ci_low", "ci_high", "difference", "difference_low", "difference_high"} & intervals
    assert set(SCHEMAS[name].columns) - quoted(section) - shared == set()


def test_every_table_of_the_catalog_is_listed_with_its_folder():
    listed = {}
    for line in TABLES[: TABLES.index("\n## ")].splitlines():
        if line.startswith("| `"):
            names, _, files = line.strip("| ").split(" | ")
            listed |= {name: {file.split("/")[0] for file in quoted(files)} for name in quoted(names)}
    entries = {name: entry for name, entry in CATALOG.items() if not name.startswith("_")}
    catalog = CatalogConfigResolver(entries, default_runtime_patterns={"{default}": {"type": "MemoryDataset"}})
    made = {name for pipeline in register_pipelines().values() for name in pipeline.all_outputs()}
    paths = {name: catalog.resolve_pattern(name).get("filepath", "") for name in made}
    tables = {name: path for name, path in paths.items() if path.endswith(".parquet")}
    assert listed.keys() == tables.keys()
    for name, path in tables.items():
        assert any(f"/{folder}/" in path for folder in listed[name]), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" in link:
            continue
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings], link


def test_the_tree_lists_the_folders_as_they_are():
    block = (ROOT / "CONTRIBUTING.md").read_text().split("## What is where")[1].split("```")[1]
    top = set(re.findall(r"^(\w+)/", block, re.MULTILINE))
    rooms = set(re.findall(r"^  ([\w.]+)", block, re.MULTILINE))  # the line of dashes is none
    package = ROOT / "src/mrt_pipeline"
    assert {path.parent.name for path in package.glob("*/__init__.py")} == {r for r in rooms if "." not in r}
    assert all((package / room).exists() for room in rooms)
    assert all((ROOT / folder).is_dir() for folder in top)
    pipelines = re.search(r"pipelines/ .*?the DAG: ([^;]*); (\w+); (\w+);", block)
    stages = {*pipelines[1].split(", "), *pipelines.groups()[1:]}
    assert stages == {path.parent.name for path in package.glob("pipelines/*/__init__.py")}


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name != "reports"], ids=lambda page: page.name)
def test_lines_have_at_most_120_characters(page):
    """Tables, and commands that cannot be broken, may be longer."""
    lines = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL).splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


def test_every_public_name_is_in_the_reference():
    shown = {line.rpartition(".")[2] for line in (ROOT / "docs/api.md").read_text().splitlines() if line[:3] == ":::"}
    assert shown == {*mrt_pipeline.__all__} - {"__version__"}


def test_every_page_is_in_the_navigation():
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)) == pages
