"""Ports, the folder of the page's own, and what the command says of what it can't do."""

import os
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from whatwhere import cli
from whatwhere.commands import serve as serve_command
from whatwhere.serve import server
from whatwhere.serve.server import free_port, own_folder


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_a_port_that_was_asked_for_is_not_replaced(taken):
    with pytest.raises(ValueError, match=f"127.0.0.1:{taken} can't be had: .*, or none to have"):
        free_port("127.0.0.1", taken)


def test_without_one_the_next_free_port_is_taken(taken, monkeypatch):
    monkeypatch.setattr(server, "PORT", taken)
    found = free_port("127.0.0.1", None)
    assert taken < found < taken + server.TRIED
    monkeypatch.setattr(server, "TRIED", 1)
    with pytest.raises(
        ValueError, match=f"{taken} to {taken} can't be had: .*pass another --port$"
    ):
        free_port("127.0.0.1", None)


def test_the_environment_does_not_open_the_page_and_is_put_back(monkeypatch):
    monkeypatch.setenv("GRADIO_SHARE", "True")
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/")
    before, elsewhere = dict(os.environ), tempfile.gettempdir()
    with own_folder() as folder:
        assert {name for name in os.environ if name.startswith("GRADIO_")} == {
            "GRADIO_ANALYTICS_ENABLED",
            "GRADIO_TEMP_DIR",
        }
        assert Path(tempfile.gettempdir()) == folder
        (folder / "upload").mkdir()
    assert not folder.exists()
    assert dict(os.environ) == before
    assert tempfile.gettempdir() == elsewhere


def test_without_gradio_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        serve_command, "find_spec", lambda name: None if name == "gradio" else find_spec(name)
    )
    monkeypatch.setattr("sys.argv", ["whatwhere", "serve", str(tmp_path)])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err
    assert 'expected gradio, which is not installed: pip install "whatwhere[serve]"' in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "expected a checkpoint or a study's folder, nowhere does not exist"),
        (["{taken}"], "can't be had"),
        (["{text}"], "expected a safetensors file at"),
    ],
    ids=["nothing there", "port taken", "no checkpoint"],
)
def test_what_can_not_be_served_is_one_line(
    arguments, message, taken, tmp_path, monkeypatch, capsys
):
    text = tmp_path / "a.safetensors"
    text.write_text("no tensors")
    if arguments == ["{taken}"]:
        arguments = [str(text), "--port", str(taken)]
    arguments = [str(text) if each == "{text}" else each for each in arguments]
    monkeypatch.setattr("sys.argv", ["whatwhere", "serve", *arguments])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
