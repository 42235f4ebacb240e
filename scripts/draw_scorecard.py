"""Draw the first page's figure from the committed records: `make figures`.

Writes into book/figures the figure in a light and in a dark scheme, and scorecard.md, which shows
them with words for readers who see neither. Same records, same matplotlib: same bytes.
"""

from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt

from mutmeta_lib.app.plots.scorecard import INKS
from mutmeta_lib.app.plots.scorecard import scorecard as draw
from mutmeta_lib.records.record import read_record
from mutmeta_lib.reproduction import scorecard

PAGE = """```{{image}} figures/scorecard-{scheme}.svg
:alt: {words}
:class: scorecard only-{scheme}
:width: 560px
```
"""
ROOT = Path(__file__).resolve().parents[1]


def write(folder: Path) -> list[Path]:
    """Write the figure into a folder, once for each colour scheme."""
    records = {
        name: read_record(ROOT / "book" / "records" / "full" / f"{name}.json")
        for name in scorecard.RECORDS
    }
    counted = "{} assays of {} protein families, 95 % intervals".format(
        *(records["transfer"].numbers[name]["value"] for name in ("assays", "clusters"))
    )
    tables = scorecard.ranking(records["transfer"]), scorecard.claims(records)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for scheme in INKS:
        path = folder / f"scorecard-{scheme}.svg"
        figure = draw(*tables, counted=counted, scheme=scheme)
        with plt.rc_context({"svg.hashsalt": "mutmeta", "svg.fonttype": "path"}):
            figure.savefig(path, metadata={"Date": None, "Creator": None})
        plt.close(figure)
        written.append(path)
    words = scorecard.in_words(*tables)
    page = folder / "scorecard.md"
    page.write_text("\n".join(PAGE.format(scheme=scheme, words=words) for scheme in INKS))
    return [*written, page]


if __name__ == "__main__":
    for path in write(ROOT / "book" / "figures"):
        print(path.relative_to(ROOT))
