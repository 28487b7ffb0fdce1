"""Checks of data arguments."""

from flatprobe.data.labelled import LabelledData


def check_data(data: object) -> LabelledData:
    """The data, checked to be `LabelledData`.

    Raises:
        TypeError: for anything else, such as a loader.
    """
    if not isinstance(data, LabelledData):
        msg = (
            f"the data are a {type(data).__name__}; expected LabelledData, which is ordered and repeatable: "
            "fp.LabelledData(inputs, labels) takes tensors, fp.LabelledData.from_dataset(dataset) a data set or a "
            "loader that does not shuffle, and fp.load_data(...) these and arrays"
        )
        raise TypeError(msg)
    return data


def check_classes(data: object) -> LabelledData:
    """The data, checked to be `LabelledData` whose labels are class indices; 0.0 and 1.0 become 0 and 1.

    Raises:
        TypeError: for anything but `LabelledData`.
        ValueError: for other targets, such as those of a regression, with the fix.
    """
    return check_data(data).as_classes()
