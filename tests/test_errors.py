"""The words that all refusals share."""

from __future__ import annotations

from reblur_plugin.errors import did_you_mean


class TestDidYouMean:
    def test_one_or_two_near_names_are_suggested(self) -> None:
        assert did_you_mean("SNR", ["SRN", "DHN", "ResUNet"]) == "; did you mean SRN?"
        assert did_you_mean("optim", ["optim_r", "optim_g", "amp"]) == "; did you mean optim_r or optim_g?"

    def test_else_all_names_are_listed_in_order(self) -> None:
        assert did_you_mean("zzz", {"b", "c", "a"}) == "; expected one of a, b, c"
