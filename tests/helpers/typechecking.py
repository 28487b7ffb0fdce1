"""How strictly the annotations of the package are checked while the tests run."""

import beartype
import numpy as np

# Where a float is asked for an int passes (PEP 484's numeric tower), and NumPy's scalars pass for Python's: a grid of
# settings is often an array's.
checked = beartype.beartype(
    conf=beartype.BeartypeConf(
        hint_overrides=beartype.FrozenDict(
            {int: int | np.integer, float: float | int | np.floating | np.integer},
        )
    )
)
