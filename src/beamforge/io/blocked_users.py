"""Counts users without a channel, for the notes on a file."""

from __future__ import annotations

from beamforge.core.network import Network


class BlockedUsers:
    """Counts the users that no stream can reach."""

    def __init__(self) -> None:
        self.users = self.count = 0
        self.first = ""

    def add(self, network: Network, first: int) -> None:
        """Count the blocked users of a batch [B]; `first` is the number of its first instance in the file."""
        found = ~network.reachable
        self.users += found.numel()
        self.count += int(found.sum())
        if found.any() and not self.first:
            instance, user = found.nonzero()[0].tolist()
            self.first = f"user {user} of instance {first + instance}"

    def notes(self, *, gains: bool) -> list[str]:
        """Notes for the user on the blocked users; none if there are none."""
        if gains and self.count == self.users:
            return ["no link has a direct gain: the diagonal of G is zero"]
        if self.count:
            has = "user has" if self.count == 1 else f"of {self.users} users have"
            return [f"{self.count} {has} no channel, the first is {self.first}"]
        return []
