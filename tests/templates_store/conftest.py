"""A site, and an unsealed store on it with faces switched on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from templates_store.store import TemplateStore
from tests.templates_store.site import Site, switch_on


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def store(site: Site) -> Iterator[TemplateStore]:
    with site.open() as opened:
        switch_on(opened)
        yield opened
