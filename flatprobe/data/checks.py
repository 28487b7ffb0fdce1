"""The check of what is given as data."""

from flatprobe.data.labelled import LabelledData


def checked_data(data: object) -> LabelledData:
    """The data, if they are `LabelledData`.

    Raises:
        TypeError: for anything else, such as a loader, with how to make it labelled data.
    """
    if not isinstance(data, LabelledData):
        msg = (
            f"the data are a {type(data).__name__}; expected LabelledData, which is ordered and repeatable: "
            "fp.LabelledData(inputs, labels) of tensors, or fp.LabelledData.from_dataset(dataset) of a data set or a "
            "loader that does not shuffle"
        )
        raise TypeError(msg)
    return data
