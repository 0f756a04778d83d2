"""Eq. 9 for samplers whose state can't be reached: through x0_hat, without its echo in the sampler's history.

UniPC and SA-Solver build each state from several past x0_hat. A shift of x0_hat meant for the next state comes back in
the steps after it, with the other sign. The dry run (see `probe`) tells how much of it: `effects[j][k]` is how far the
state after step k moves, beyond what it inherits from the state before it, when x0_hat of step j moves by 1.
"""

from __future__ import annotations

from torch import Tensor

MEMORY = 5  # steps that a sampler looks back; the known ones look back 3
LIMIT = 5.0  # a shift is at most this many times the displacement that it is meant to cause


class HistoryShift:
    """Turns wanted displacements of the next state into shifts of x0_hat, one step after the other."""

    def __init__(self, effects: list[list[float]]):
        self.effects = effects
        self._given: dict[int, Tensor] = {}

    def shift(self, k: int, displacement: Tensor | None) -> Tensor | None:
        """What to add to x0_hat of step k so that the next state moves by `displacement` (None: by nothing), or None.

        Has to be called for every step, also for those that are not guided: their history may hold earlier shifts.
        """
        wanted = displacement
        for j in [j for j in self._given if k - j > MEMORY]:
            del self._given[j]
        for j, given in self._given.items():
            if self.effects[j][k]:
                echo = self.effects[j][k] * given
                wanted = -echo if wanted is None else wanted - echo
        if wanted is None:
            return None
        own = self.effects[k][k]
        if abs(own) < 1 / LIMIT:
            if displacement is None:
                return None
            own = -1 / LIMIT if own < 0 else 1 / LIMIT
        self._given[k] = wanted / own
        return self._given[k]
