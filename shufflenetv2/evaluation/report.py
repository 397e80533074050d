"""``report.html``, its figures and ``report.json``: how good the answers are, and which of two networks is better.

The page is one file that needs no network and no script. Whatever comes from labels and file names is escaped in it.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from ..description import Category
from ..errors import DatasetError
from ..files import shown, write_whole
from ..inference.classifier import Classifier
from ..naming import Weights
from ..package import PACKAGE, require
from ..photos.decode import open_photo
from .counting import mcnemar, paired_interval, scores
from .judging import Answers, confusion, coverage, per_class, reliability

SHOWN = 24  # of the surest mistakes, and of the photos on which two differ, that are shown as pictures
PAIRS = 30  # of the most confused classes
SIDE = 256  # pixels of a picture
Two = tuple[Classifier, Answers]  # a network, and what it says


def title(source: Weights) -> str:
    return shown(", ".join(source.reference))


def numbers(folder: str, answers: Answers, second: Answers | None = None) -> dict[str, Any]:
    """All that the page says, and the answers that it follows from, as JSON holds it."""
    labels, probabilities = answers.source.labels, answers.probabilities
    surest, said, right = probabilities.max(1).values.tolist(), answers.answers.tolist(), answers.right
    _, bins = reliability(probabilities, right)
    matrix = confusion(answers)
    pairs = [[row, column, int(matrix[row, column])] for row, column in matrix.nonzero().tolist()]
    wrong = sorted((index for index in range(len(said)) if not right[index]), key=lambda index: -surest[index])
    rows = [
        {"photo": str(path), "label": labels[label], "answer": labels[answer], "probability": probability}
        for path, label, answer, probability in zip(answers.paths, answers.labels.tolist(), said, surest, strict=True)
    ]
    content: dict[str, Any] = {
        "weights": title(answers.source),
        "folder": folder,
        **scores(answers.counts),
        **answers.calibration,
        "reliability": bins,
        "coverage": coverage(surest, right.tolist()),
        "classes": per_class(answers),
        "confusion": pairs,
        "confused": sorted((pair for pair in pairs if pair[0] != pair[1]), key=lambda pair: -pair[2])[:PAIRS],
        "mistakes": wrong[:SHOWN],
        "answers": rows,
    }
    if second:
        content["against"] = compared(answers, second)
    return content


def compared(one: Answers, two: Answers) -> dict[str, Any]:
    """What is to say of the second: how it does beside the first, on the photos that both could use.

    Raises:
        DatasetError: these are not the same ones.
    """
    if one.paths != two.paths or not one.paths:
        raise DatasetError("the two could not use the same photos, of which there must be one at least")
    alone, other = int((one.right & ~two.right).sum()), int((two.right & ~one.right).sum())
    photos, names, others = len(one.paths), one.source.classes, two.source.classes
    said = zip(one.paths, one.labels.tolist(), one.answers.tolist(), two.answers.tolist(), strict=True)
    differing = [
        {"label": names[label].label, "first": names[first].label, "second": others[second].label, "photo": str(path)}
        for path, label, first, second in said
        if not _same(names[first], others[second])
    ]
    return {
        "weights": title(two.source),
        **scores(two.counts),
        "only_first": alone,  # photos that the first alone has right
        "only_second": other,
        "difference": 100 * (other - alone) / photos,  # of the second's accuracy to the first's, in points
        "interval": paired_interval(alone, other, photos),
        "p": mcnemar(alone, other),
        "differing": differing,
    }


def _same(one: Category, two: Category) -> bool:
    """Whether they are one class: a network may know by its label what another calls by its WordNet id."""
    if one.wordnet_id and two.wordnet_id:
        return one.wordnet_id == two.wordnet_id  # two of ImageNet's classes are called crane
    return bool({one.label, one.wordnet_id} & {two.label, two.wordnet_id} - {None})


def verdict(against: dict[str, Any]) -> list[str]:
    """A comparison in words, a line each."""
    low, high = against["interval"]
    if low <= 0 <= high or against["p"] >= 0.05:  # with few photos the exact test doubts what the interval shows
        better = "neither is shown to be better"
    else:
        better = "the second is better" if low > 0 else "the first is better"
    alone = f"the first {against['only_first']}, the second {against['only_second']}"
    return [
        f"difference {against['difference']:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}: {better}",
        f"right where the other is wrong: {alone}; McNemar's exact test: p = {against['p']:.3g}",
        f"they answer differently on {len(against['differing'])} of {against['photos']} photos",
    ]


def write_report(folder: Path, content: dict[str, Any], one: Two, two: Two | None = None) -> Path:
    """Write ``report.html``, ``report.json`` and the figures into ``folder``, which is made if need be.

    Args:
        folder: files of these names in it are replaced.
        content: what ``numbers`` gave.
        one, two: the networks, for the heatmaps.

    Raises:
        ImportError: a package is missing; the message has the pip line.
        OSError: something cannot be written.
    """
    check_packages()
    import jinja2

    from .figures import NAMES, draw_all

    folder.mkdir(parents=True, exist_ok=True)
    figures = draw_all(content)
    for name, data in figures.items():
        write_whole(folder / f"{name}.png", data)
    for name in NAMES - figures.keys():  # of an earlier report, of fewer classes
        (folder / f"{name}.png").unlink(missing_ok=True)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"data": _data, "shown": shown}
    template = environment.from_string((PACKAGE / "evaluation" / "report.html").read_text(encoding="utf-8"))
    labels = {row["index"]: row["label"] for row in content["classes"]}
    against = content.get("against")
    page = template.render(
        {"against": None, **content},
        title=f"{content['weights']} on {shown(content['folder'])}",
        figures=figures,
        confused_names=[(labels[row], labels[column], count) for row, column, count in content["confused"]],
        pictures=_pictures(content, one, two),
        verdict=verdict(against) if against else [],
    )
    write_whole(folder / "report.json", (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    write_whole(folder / "report.html", page.encode())
    return folder / "report.html"


def check_packages() -> None:
    require("a report", "matplotlib>=3.9", "jinja2>=3.1")


def _pictures(content: dict[str, Any], one: Two, two: Two | None) -> dict[str, list[dict[str, Any]]]:
    """The rows that are shown as pictures, with these."""
    found: dict[str, list[dict[str, Any]]] = {"mistakes": [], "differing": []}
    for index in content["mistakes"]:
        found["mistakes"].append({"row": content["answers"][index], "pictures": _photo_and_overlay(one, index)})
    if two:
        places = {row["photo"]: index for index, row in enumerate(content["answers"])}
        for row in content["against"]["differing"][:SHOWN]:
            pictures = [_photo_and_overlay(each, places[row["photo"]])[1] for each in (one, two)]
            found["differing"].append({"row": row, "pictures": pictures})
    return found


def _photo_and_overlay(side: Two, index: int) -> list[bytes]:
    """The photo, and where the network saw its answer; the photo twice for an exported file, which does not say."""
    classifier, answers = side
    if classifier.weights.exported or classifier.runtime != "torch":
        photo = open_photo(answers.paths[index], max_pixels=classifier.transform.max_pixels)
        return [_fitted(photo)] * 2
    explanation = classifier.explain(answers.paths[index], int(answers.answers[index]))
    return [_fitted(explanation.photo), _fitted(explanation.overlay(SIDE))]


def _fitted(image: Image.Image) -> bytes:
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    file = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def _data(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
