"""The figures of a training against the epoch, or of other networks against another number."""

from flatprobe.plotting import trajectory as picture
from flatprobe.plotting.canvas import svg
from flatprobe.report.figures import Figure
from flatprobe.report.section import Panel, inline
from flatprobe.studies.comparison import Comparison
from flatprobe.utils.numbers import three


def trajectory(comparison: Comparison, figures: list[Figure]) -> Panel:
    """The picture of all headline figures against the number."""
    along, name = comparison.along or {}, comparison.along_name or "number"
    known = [figure for figure in figures if figure.measurement != "norm"]
    words = "; ".join(filter(None, (_course(figure, along) for figure in known)))
    return Panel(
        name=f"Figures against {name}",
        caption=f"Every headline figure against the {name}, with its interval",
        picture=inline(svg(picture.draw(comparison))),
        alternative=f"A panel per figure against the {name}. {words}.",
    )


def _course(figure: Figure, along: dict[str, float]) -> str:
    names = sorted((name for name in figure.values if name in along), key=along.__getitem__)
    if not names:
        return ""
    first, last = (three(figure.values[name].scale * figure.values[name].value) for name in (names[0], names[-1]))
    return f"{figure.title} {first} at {along[names[0]]:g}, {last} at {along[names[-1]]:g}"
