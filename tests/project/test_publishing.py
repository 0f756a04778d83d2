"""What a publication needs: the metadata agree with the code, and the packed zip holds what the nodes need, no more.

The zip is what `comfy node pack` makes: the files git knows, less .comfyignore. `host/nodes/test_packed.py` runs it.
"""

import ast
import re
from pathlib import Path

import pytest
from packing import ROOT, packed_files, python_files
from PIL import Image

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

LARGEST_FILE, LARGEST_PACK = 8_000_000, 12_000_000  # bytes; the bundled model is 6.9 million
NEEDED = (
    "__init__.py",
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "pyproject.toml",
    "requirements.txt",
    "gradpaint/models/landscapes64.safetensors",
    "example_workflows/gradpaint_quickstart.json",
    "example_workflows/gradpaint_quickstart.jpg",
    "web/docs/GradPaintKSampler.md",
    "nodes/__init__.py",
)
NOT_PACKED = (
    "tests",
    "docs",
    "benchmarks",
    "training",
    "scripts",
    "assets",
    ".ci",
    ".github",
    ".gitattributes",
    ".pre-commit-config.yaml",
)
COMMAND = ("gradpaint/cli/", "gradpaint/evaluation/", "gradpaint/__main__.py")  # which no node imports

# What comfy-test's level "syntax" refuses in .py files (its own names for them differ).
UNCOMFY = re.compile(
    r"""
    \.cuda\s*\( | \.to\s*\(\s*(?:torch\.device\s*\(\s*)?["']cuda
    | torch\.(?:cuda\.)?(?:amp\.)?autocast\s*\(
    | (?<![\w.])(?:torch\.)?nn\.(?:Linear|Conv[123]d|ConvTranspose[12]d|LayerNorm|GroupNorm|Embedding)\s*\(
    """,
    re.VERBOSE,
)


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def packed() -> list[str]:
    return packed_files()


def test_registry_metadata(project):
    comfy = project["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9-]*", project["project"]["name"]) and "comfy" not in project["project"]["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["project"]["version"])
    assert comfy["PublisherId"] and comfy["DisplayName"] == "GradPaint"
    for name in ("Icon", "Banner"):  # addresses or nothing: the registry shows them
        assert comfy[name] == "" or comfy[name].startswith("https://")


def test_the_floor_is_the_one_the_code_checks(project):
    text = (ROOT / "nodes" / "host" / "version.py").read_text()
    minimum = ".".join(re.search(r"MINIMUM = \((.*?)\)", text)[1].split(", "))
    assert project["tool"]["comfy"]["requires-comfyui"] == f">={minimum}"
    assert f"ComfyUI {minimum} or newer" in (ROOT / "README.md").read_text()


def test_the_changelog_begins_with_this_version(project):
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == project["project"]["version"]


def test_both_lists_of_requirements_agree(project):
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert sorted(project["project"]["dependencies"]) == sorted(line for line in lines if not line.startswith("#"))
    assert not any(re.match(r"torch\b", line) for line in lines)  # never replace the host's build


def test_exec_eval_and_joined_statements_stay_errors(project):
    lint = project["tool"]["ruff"]["lint"]
    assert {"S102", "S307", "E702"} <= set(lint["select"])
    assert not {"S102", "S307", "E702", "S", "E", "E7"} & set(lint.get("ignore", [])) and "per-file-ignores" not in lint
    excuse = re.compile(r"#\s*noqa\s*$|#\s*noqa:.*\b(?:S102|S307|E702)\b", re.MULTILINE)
    excused = [path for path in python_files() if path != Path(__file__) and excuse.search(path.read_text())]
    assert excused == []


def test_what_comfy_test_refuses_is_nowhere():
    for path in python_files():
        text = path.read_text(encoding="ascii")
        for line in text.splitlines():
            if not line.lstrip().startswith("#"):
                assert not UNCOMFY.search(line), f"{path.relative_to(ROOT)}: {line.strip()}"


def test_the_pack_holds_what_it_needs(packed):
    assert [name for name in NEEDED if name not in packed] == []
    for folder, suffix in (("nodes", ".py"), ("gradpaint", ".py"), ("web/docs", ".md"), ("example_workflows", ".json")):
        files = (path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob(f"*{suffix}"))
        wanted = {name for name in files if not name.startswith(COMMAND)}
        assert wanted and wanted <= set(packed), f"not packed: {sorted(wanted - set(packed))}; git add them"


def test_the_pack_holds_nothing_heavy(packed, capsys):
    sizes = {name: (ROOT / name).stat().st_size for name in packed}
    with capsys.disabled():
        print(f"\npacked: {len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB before compression")
    assert not [name for name in packed if name.split("/")[0] in NOT_PACKED or name.startswith(COMMAND)]
    assert [name for name, size in sizes.items() if size > LARGEST_FILE] == []
    assert sum(sizes.values()) < LARGEST_PACK


def test_the_pack_imports_nothing_that_is_not_packed(packed):
    """Relative imports only, as the nodes are loaded under a name of the host's choice."""
    for name in (name for name in packed if name.endswith(".py")):
        package = name.split("/")[:-1]
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            origin = "/".join([*package[: len(package) - node.level + 1], *(node.module or "").split(".")])
            targets = [origin, *(f"{origin}/{alias.name}" for alias in node.names)]
            assert not [t for t in targets if f"{t}/".startswith(COMMAND) or f"{t}.py" in COMMAND], (name, node.lineno)


def test_the_pack_outside_a_git_checkout(tmp_path):
    wanted = ("__init__.py", "nodes/a.py", "web/docs/a.md", "rebuild/a.py")
    ignored = (
        "build/lib/gradpaint/a.py",
        "gradpaint.egg-info/PKG-INFO",
        ".venv/a.py",
        "nodes/__pycache__/a.pyc",
        "demo/a.png",
        "docs/a.md",
        "tests/a.py",
    )
    for name in wanted + ignored:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in (".gitignore", ".comfyignore"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    assert packed_files(tmp_path) == sorted(wanted)


def test_icon_and_banner():
    with Image.open(ROOT / "assets" / "icon.png") as icon, Image.open(ROOT / "assets" / "banner.png") as banner:
        assert icon.size == (400, 400) and banner.width * 9 == banner.height * 21


def test_publishing_workflow():
    text = (ROOT / ".github" / "workflows" / "publish.yml").read_text()
    assert "Comfy-Org/publish-node-action@" in text and "${{ secrets.REGISTRY_ACCESS_TOKEN }}" in text
