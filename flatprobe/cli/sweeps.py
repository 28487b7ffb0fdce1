"""The command `sweep`. It imports its libraries when it runs, so that --help is quick."""

import json
import sys
from collections import Counter
from pathlib import Path


def sweep(
    file: Path,
    *,
    root: Path = Path("sweep"),
    executor: str = "serial",
    workers: int = 1,
    address: str | None = None,
    slurm: str | None = None,
    device: str | None = None,
    threads: int = 1,
    table: Path | None = None,
) -> None:
    """Train and measure every experiment of a JSON file. The same command continues an interrupted sweep.

    The file holds a base experiment, a grid and measurements: '{"base": {"network": {"name": "mlp"}, "data":
    {"name": "digits"}, "stages": [{"until": "interpolation"}]}, "grid": {"seeds.order": [0, 1]}, "measurements":
    [{"probe": "flatness_radius"}]}'. The exit status is 1 if a measurement failed.

    Parameters
    ----------
    file: Path
        The sweep as a JSON file; the page of fp.sweep has its form.
    root: Path
        Folder of the trained networks, the measurements and the tracebacks of failures.
    executor: str
        serial, processes, dask or slurm. Dask needs flatprobe[dask], Slurm needs flatprobe[slurm].
    workers: int
        Number of processes, or the largest number of Slurm jobs at a time.
    address: str
        Address of a Dask scheduler, such as tcp://10.0.0.1:8786. The default starts the workers on this machine.
    slurm: str
        Parameters of submitit, such as '{"slurm_partition": "gpu", "timeout_min": 600}'.
    device: str
        Device of the networks, such as cuda. The default is the CPU.
    threads: int
        Threads of torch per unit.
    table: Path
        File for the table (parquet), one row per experiment and measurement. The default is table.parquet in the root.
    """
    import flatprobe as fp
    from flatprobe.studies.executors import executor_by_name
    from flatprobe.studies.sweep_file import read_sweep
    from flatprobe.utils.tables import check_place, write_table

    out = table or root / "table.parquet"
    check_place(out)
    experiments, measurements = read_sweep(file)
    make = executor_by_name(executor, workers, root, address, None if slurm is None else json.loads(slurm))
    found = fp.sweep(
        experiments, measurements, root, executor=make, workers=workers, device=device, threads=threads, progress=True
    )
    write_table(found, out, {"kind": "sweep", "file": file.name})
    failed = found[found["state"] == "failed"]
    for (measurement, said), times in Counter(zip(failed["measurement"], failed["failure"], strict=True)).items():
        often = f" {times} times" if times > 1 else ""
        sys.stderr.write(f"flatprobe: {measurement or 'training'} failed{often}: {said}\n")
    print(f"{len(found) - len(failed)} of {len(found)} complete; table: {out}")
    if len(failed):
        print(f"tracebacks: {root / 'failures'}")
        sys.exit(1)
