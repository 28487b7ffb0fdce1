"""Landscapes and slices to turn, zoom and read by the pointer, by plotly; needs `flatprobe[interactive]`."""

import hashlib
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from flatprobe.plotting.names import colours, name_results
from flatprobe.plotting.scale import Scale, finite
from flatprobe.plotting.triangle import places, triangles
from flatprobe.probes.interpolation import Interpolation
from flatprobe.probes.slices import RandomSlice
from flatprobe.utils.results import Result

if TYPE_CHECKING:
    import plotly.graph_objects

_HEIGHT = 420  # pixels
_PALETTES = {"loss": "Viridis_r", "accuracy": "Viridis"}


def figure(results: Result | Mapping[str, Result], *, quantity: str = "loss") -> "plotly.graph_objects.Figure":
    """A surface per result over a triangle or a plane, two in a row, or all lines in one picture.

    Surfaces share scale and colours. A loss is on a logarithmic scale. Points whose loss is not finite are left out.

    Args:
        results: one `Interpolation` of two or three endpoints or `RandomSlice`, or several of one class by name.
        quantity: `"loss"` or `"accuracy"`.

    Returns:
        The figure.

    Raises:
        ImportError: if plotly is missing.
        TypeError: for results of another class.
        ValueError: for no results, lines among surfaces, more than three endpoints, or if no point is finite.
    """
    try:
        from plotly.subplots import make_subplots
    except ImportError as error:
        msg = "plotly must be installed for interactive pictures. Run pip install 'flatprobe[interactive]'"
        raise ImportError(msg) from error
    named = name_results(results, Interpolation, RandomSlice)
    found: dict[str, Any] = {escape(name): result for name, result in named.items()}  # plotly reads tags in words
    scale = Scale.over(found.values(), quantity)
    kinds = {_dimensions(result) for result in found.values()}
    if kinds not in ({1}, {2}):
        msg = "results must be all lines, or all over triangles or planes. Draw them apart"
        raise ValueError(msg)
    spaces = kinds == {2}
    columns = min(len(found), 2) if spaces else 1
    rows = -(-len(found) // columns) if spaces else 1
    picture = make_subplots(
        rows, columns, specs=[[{"type": "scene"}] * columns] * rows if spaces else None,
        subplot_titles=list(found) if spaces and list(found) != [""] else None,
    )  # fmt: skip
    shades = colours(list(found))
    for place, (name, result) in enumerate(found.items()):
        if spaces:
            cell = {"row": place // columns + 1, "col": place % columns + 1}
            picture.add_trace(_surface(result, scale, bar=place == 0), **cell)
            if isinstance(result, Interpolation):
                picture.add_trace(_corners(scale), **cell)
        else:
            picture.add_trace(_line(name, result, scale, shades[name]))
    ends = [float(end) for end in (np.log10 if scale.logarithmic else np.asarray)((scale.low, scale.high))]
    axis = {"title": f"training {quantity}", "type": "log" if scale.logarithmic else "linear"}
    triangle = isinstance(next(iter(found.values())), Interpolation)
    sides: list[dict[str, Any]] = [
        {"title": "" if triangle else name, "showticklabels": not triangle} for name in ("a", "b")
    ]
    picture.update_layout(
        height=_HEIGHT * rows, margin={"l": 10, "r": 10, "t": 40 if list(found) != [""] else 10, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font_color="#808080",
    )  # fmt: skip
    if spaces:
        camera = {"eye": {"x": 1.7, "y": -2.1, "z": 1.0}}
        wall = {"showbackground": False, "gridcolor": "#a0a0a0", "linecolor": "#a0a0a0", "showline": True}
        sides = [side | wall for side in sides]
        picture.update_scenes(xaxis=sides[0], yaxis=sides[1], zaxis=axis | wall | {"range": ends}, camera=camera)
    else:
        picture.update_yaxes(axis)
        picture.update_xaxes(title="position along the line")
    return picture


def html(results: Result | Mapping[str, Result], *, quantity: str = "loss") -> str:
    """`figure` as a fragment of HTML, for a page that holds plotly's script once.

    Args:
        results: as in `figure`.
        quantity: `"loss"` or `"accuracy"`.
    """
    picture = figure(results, quantity=quantity)
    own = hashlib.sha256(picture.to_json().encode()).hexdigest()[:12]  # plotly would take another name each time
    text: str = picture.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"landscape-{own}",
        config={"displaylogo": False, "responsive": True},
    )  # fmt: skip
    return text


def script() -> str:
    """Plotly's script, for a page with fragments of `html`; about 4.6 MB.

    Raises:
        ImportError: if plotly is missing.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        msg = "plotly must be installed for interactive pictures. Run pip install 'flatprobe[interactive]'"
        raise ImportError(msg) from error
    text: str = get_plotlyjs()
    return text


def _dimensions(result: Interpolation | RandomSlice) -> int:
    return result.loss.ndim if isinstance(result, RandomSlice) else result.coefficients.shape[1] - 1


def _line(name: str, result: Interpolation | RandomSlice, scale: Scale, shade: str) -> Any:
    import plotly.graph_objects as go

    t = result.coefficients[:, 0 if isinstance(result, RandomSlice) else 1].numpy()
    order, y = np.argsort(t), np.where(finite(result), scale.values(result), np.nan)
    return go.Scatter(x=t[order], y=y[order], mode="lines+markers", name=name, line_color=shade, showlegend=name != "")


def _corners(scale: Scale) -> Any:
    import plotly.graph_objects as go

    words = ["w1", "w2", "w3"]
    return go.Scatter3d(
        x=[0.5, 0, 1],
        y=[3**0.5 / 2, 0, 0],
        z=[scale.low] * 3,
        text=words,
        mode="text",
        hoverinfo="skip",
        showlegend=False,
    )


def _surface(result: Interpolation | RandomSlice, scale: Scale, *, bar: bool) -> Any:
    import plotly.graph_objects as go

    values = np.where(finite(result), scale.values(result), np.nan)
    height = np.log10 if scale.logarithmic else np.asarray
    shared = {
        "colorscale": _PALETTES[scale.quantity], "cmin": float(height(scale.low)), "cmax": float(height(scale.high)),
        "showscale": bar, "colorbar": {"title": f"{'log10 of ' * scale.logarithmic}{scale.quantity}"},
    }  # fmt: skip
    if isinstance(result, RandomSlice):
        a, b = (own.numpy() for own in result.coefficients.unbind(-1))
        words = f"a %{{x:.3g}}, b %{{y:.3g}}<br>{scale.quantity} %{{z:.4g}}<extra></extra>"
        return go.Surface(x=a, y=b, z=values, surfacecolor=height(values), hovertemplate=words, **shared)
    x, y = places(result)
    corners = triangles(result).get_masked_triangles()
    words = (
        "w1 %{customdata[0]:.2f}, w2 %{customdata[1]:.2f}, w3 %{customdata[2]:.2f}"
        f"<br>{scale.quantity} %{{z:.4g}}<extra></extra>"
    )
    return go.Mesh3d(
        x=x, y=y, z=values, i=corners[:, 0], j=corners[:, 1], k=corners[:, 2], intensity=height(values),
        customdata=result.coefficients.numpy(), hovertemplate=words, **shared,
    )  # fmt: skip
