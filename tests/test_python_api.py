"""What the packages offer to Python: cheap to import, and enough to embed, index, search and measure."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import index
from encoders import DEFAULT_BUNDLE

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.mark.parametrize("package", ["encoders", "index", "training", "service"])
def test_a_package_has_every_name_it_offers_and_loads_no_torch_before(package: str) -> None:
    script = f"""
import sys, {package}
assert "torch" not in sys.modules and "faiss" not in sys.modules
for name in {package}.__all__:
    found = getattr({package}, name)
    assert not type(found).__name__ == "module", name
try:
    {package}.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error)
else:
    raise SystemExit("a name that is not there was found")
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_readmes_lines_search_a_release(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    drawings = sorted((README.parent / "demo/gallery/images").glob("*dog*.webp"))[:6]
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    for drawing in drawings:
        shutil.copy(drawing, gallery)
    index.rebuild(
        index.RebuildSettings(
            gallery=index.open_gallery(str(gallery)), bundle=DEFAULT_BUNDLE, releases=tmp_path / "releases"
        )
    )
    Image.open(drawings[0]).convert("RGB").save(tmp_path / "dog.jpg")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = [line.split() for line in done.stdout.splitlines()]
    assert found[0][1] == drawings[0].name
    assert [float(score) for score, _ in found] == sorted((float(score) for score, _ in found), reverse=True)
