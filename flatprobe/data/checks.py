"""Type check of data arguments."""

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
            "loader that does not shuffle"
        )
        raise TypeError(msg)
    return data
