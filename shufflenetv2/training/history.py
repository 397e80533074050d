"""What a run's epochs came to, as files: a table, and its picture."""

import csv
import io


def table(history: list[dict[str, float | int]]) -> str:
    """The history as CSV, one line an epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()


def curves(history: list[dict[str, float | int]]) -> bytes:
    """Loss and accuracy against the epoch, as a PNG."""
    import matplotlib as mpl  # it takes a second, and `train --help` works without it
    from matplotlib.figure import Figure

    with mpl.rc_context({"text.usetex": False}):  # LaTeX may be a user's wish, and is seldom there
        epochs = [row["epoch"] for row in history]
        figure = Figure(figsize=(9, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(epochs, [row["loss"] for row in history], marker=".", label="training")
        left.set(xlabel="epoch", ylabel="loss")
        right.plot(epochs, [100 * row["accuracy"] for row in history], marker=".", label="training")
        if "val_accuracy" in history[0]:
            right.plot(epochs, [100 * row["val_accuracy"] for row in history], marker=".", label="validation")
        right.set(xlabel="epoch", ylabel="top-1 accuracy, %")
        right.legend()
        figure.savefig(image := io.BytesIO(), format="png", dpi=100)
        return image.getvalue()
