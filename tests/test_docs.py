"""What the prose promises is there: links, commands, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [p for p in (*ROOT.glob("*.md"), *ROOT.glob("*/*.md")) if ".venv" not in p.parts and "runs" not in p.parts]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), target


def test_verbs_in_the_prose_exist():
    from tuning.cli import app

    verbs = {c.name for c in app.registered_commands} | {g.name for g in app.registered_groups}
    named = {v for page in PAGES for v in re.findall(r"(?:^|`|\s)skeltune ([a-z]+)\b", page.read_text())}
    assert named <= verbs | {"is", "finds", "needs"}, named - verbs


def test_every_verb_has_help_with_an_example():
    from typer.testing import CliRunner

    from tuning.cli import app

    for command in app.registered_commands:
        shown = CliRunner().invoke(app, [command.name, "--help"])
        assert shown.exit_code == 0
        assert "Example" in shown.output, command.name


def test_no_page_names_somebodys_folder():
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(home|root|Users|mnt|opt)/", page.read_text()), page
