"""The choice of a backend: argument, then variable, then automatic, and said once."""

import logging

import pytest
import torch

from unimo_kernels.dispatch import (
    Request,
    Unsupported,
    announce,
    check_capability,
    choose_backend,
    requested_backend,
)


def test_the_choice_is_argument_then_variable_then_automatic_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def choose(requested: str) -> str:
        return choose_backend(
            "operation", requested, variable="UNIMO_TEST", known=("a", "b", "c"), automatic="c"
        )

    monkeypatch.delenv("UNIMO_TEST", raising=False)
    with caplog.at_level(logging.INFO):
        assert choose("auto") == "c"
        monkeypatch.setenv("UNIMO_TEST", "b")
        assert [choose("auto"), choose("auto"), choose("a")] == ["b", "b", "a"]
        announce("operation", "a", "argument", "another package")
    assert caplog.messages == [
        "operation runs on backend c (auto)",
        "operation runs on backend b (UNIMO_TEST)",
        "operation runs on backend a (argument)",
        "operation runs on backend a through another package (argument)",
    ]


def test_a_request_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def request(requested: str) -> Request:
        return requested_backend("operation", requested, variable="UNIMO_TEST", known=("a", "b"))

    monkeypatch.setenv("UNIMO_TEST", "")
    assert request("auto") == Request("auto", "auto")
    monkeypatch.setenv("UNIMO_TEST", "a")
    assert request("auto") == Request("a", "UNIMO_TEST")
    assert request("b") == Request("b", "argument")
    with pytest.raises(ValueError, match=r"operation: .* 'd' \(argument\), known are auto, a, b"):
        request("d")
    monkeypatch.setenv("UNIMO_TEST", "d")
    with pytest.raises(ValueError, match=r"unknown backend 'd' \(UNIMO_TEST\)"):
        request("auto")


def test_old_devices_are_told_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    check_capability("it", torch.device("cpu"), "b")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    check_capability("it", torch.device("cuda"), "b")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    with pytest.raises(
        Unsupported, match=r"it needs compute capability 8.0, cuda has 7.0: use backend b"
    ):
        check_capability("it", torch.device("cuda"), "b")
