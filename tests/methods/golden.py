"""Reference values of a method that selects tokens, as `tests/golden/<method>/README.md` describes them."""

import json
from pathlib import Path

from safetensors.torch import load_file


class Golden:
    """Inputs and values have a leading axis of tiles; where a case has one, the files leave it out."""

    def __init__(self, method):
        folder = Path(__file__).parents[1] / "golden" / method
        self.choices = json.loads((folder / "expected.json").read_text())
        self.cases = self.choices["cases"]
        self.inputs = load_file(folder / "inputs.safetensors")
        self.values = load_file(folder / "expected.safetensors")

    @property
    def settings(self):
        """(case, setting) of each choice."""
        return [(case, setting) for case, settings in self.cases.items() for setting in settings]

    def input(self, case, name):
        return self._tiled(case, self.inputs[f"{case}.{name}"])

    def value(self, case, name):
        return self._tiled(case, self.values[f"{case}.{name}"])

    def choice(self, case, setting):
        """Numbers as they are, lists [tiles][...]."""
        chosen = self.cases[case][setting]
        if case.startswith("tiles"):
            return chosen
        return {name: [value] if isinstance(value, list) else value for name, value in chosen.items()}

    @staticmethod
    def _tiled(case, tensor):
        return tensor if case.startswith("tiles") else tensor[None]
