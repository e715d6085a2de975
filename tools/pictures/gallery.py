"""Writes every picture of the documentation into docs/explanation/pictures."""

from pathlib import Path

from pictures import runs, structure

FOLDER = Path(__file__).resolve().parent.parent.parent / "docs" / "explanation" / "pictures"
PICTURES = {
    "overview": structure.overview,
    "layers": structure.layers,
    "calls": structure.calls,
    "life-of-a-run": runs.life,
    "lost-answer-guarded": runs.lost_answer,
    "lost-answer-plain": runs.lost_answer_plain,
    "void": runs.void_at_the_pivot,
}


def main() -> None:
    """Write the pictures to their files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg())
