"""The entry point: errors of the parser, warnings and interruptions, each on one line."""

import warnings

import pytest

import flatprobe.cli as cli


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("report a b", "'b' must not follow, since the command takes no further words. Run: flatprobe report --help"),
        ("prob x", 'Unknown command "prob". Did you mean "probe"?'),
        ("train --data digits --network mlp --out x --outt y", "Unknown option: --outt. Did you mean --out?"),
        ("train --data digits --network mlp --out y --limit abc", "Invalid value for --limit"),
        ("compare --probes scores runs/a.pt", "Checkpoints must come before the options"),
        ("train", "requires an argument. Run: flatprobe train --help"),
    ],
)
def test_errors_of_the_parser_are_one_line_with_the_help_to_look_at(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words.split())
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.startswith("flatprobe: ")
    assert captured.err.count("\n") == 1


def test_warnings_are_one_line_without_the_place_in_the_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(*_: object, **__: object) -> None:
        warnings.simplefilter("always")
        warnings.warn("look here", UserWarning, stacklevel=1)

    before = warnings.showwarning
    monkeypatch.setattr(cli, "app", warn)
    cli.main([])
    assert capsys.readouterr().err == "warning: look here\n"
    assert warnings.showwarning is before


def test_an_interruption_says_what_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    error = KeyboardInterrupt()

    def interrupted(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", interrupted)
    for message in ("interrupted, before anything was finished", "interrupted; 3 records are kept"):
        with pytest.raises(SystemExit) as caught:
            cli.main([])
        assert caught.value.code == 130
        assert capsys.readouterr().err == f"flatprobe: {message}\n"
        error.add_note("3 records are kept")
