"""The policy tree of RFC 5280 sections 6.1.2 to 6.1.5, word by word: what the policy graph must agree with.

It grows without bound on crafted chains, which is why the verifier has another one (RFC 9618).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

ANY = "any"


@dataclass(frozen=True, slots=True)
class Facts:
    """What one certificate says of policies. `policies` None: the extension is absent."""

    policies: tuple[str, ...] | None
    mappings: tuple[tuple[str, str], ...] = ()
    require: int | None = None
    inhibit_mapping: int | None = None
    inhibit_any: int | None = None
    is_self_issued: bool = False


@dataclass(slots=True, eq=False)
class _Node:
    policy: str
    expected: set[str]
    parent: _Node | None
    children: list[_Node] = field(default_factory=list)

    def grow(self, policy: str, expected: Iterable[str]) -> None:
        self.children.append(_Node(policy, set(expected), self))


class Tree:
    """The state of the algorithm over a path of `length` certificates."""

    def __init__(self, length: int, acceptable: frozenset[str], *, require: bool, no_map: bool, no_any: bool) -> None:
        self.root: _Node | None = _Node(ANY, {ANY}, None)
        self.acceptable = acceptable or frozenset({ANY})
        self.explicit = 0 if require else length + 1
        self.any = 0 if no_any else length + 1
        self.mapping = 0 if no_map else length + 1

    def at_depth(self, depth: int) -> list[_Node]:
        """The nodes of one depth."""
        level = [self.root] if self.root is not None else []
        for _ in range(depth):
            level = [child for node in level for child in node.children]
        return level

    def prune(self, depth: int) -> None:
        """Childless nodes above `depth` go, from below upwards."""
        for each in range(depth - 1, -1, -1):
            for node in self.at_depth(each):
                if not node.children:
                    self.drop(node)

    def drop(self, node: _Node) -> None:
        """Take a node out."""
        if node.parent is None:
            self.root = None
        else:
            node.parent.children.remove(node)

    def enter(self, depth: int, facts: Facts, *, is_final: bool) -> bool:
        """6.1.3 (d) to (f)."""
        if facts.policies is not None and self.root is not None:
            above = self.at_depth(depth - 1)
            for policy in facts.policies:
                if policy == ANY:
                    continue
                fitting = [node for node in above if policy in node.expected]  # (d)(1)(i)
                for node in fitting or [node for node in above if node.policy == ANY]:  # (ii)
                    node.grow(policy, {policy})
            may_be_any = self.any > 0 or (not is_final and facts.is_self_issued)
            if ANY in facts.policies and may_be_any:  # (d)(2)
                for node in above:
                    for policy in node.expected - {child.policy for child in node.children}:
                        node.grow(policy, {policy})
            self.prune(depth)  # (d)(3)
        if facts.policies is None:
            self.root = None  # (e)
        return self.explicit > 0 or self.root is not None  # (f)

    def leave(self, depth: int, facts: Facts) -> None:
        """6.1.4 (b), (h), (i), (j)."""
        for policy in {one for one, _ in facts.mappings}:
            targets = {other for one, other in facts.mappings if one == policy}
            same = [node for node in self.at_depth(depth) if node.policy == policy]
            if self.mapping > 0:
                for node in same:
                    node.expected = set(targets)
                if not same:
                    for node in self.at_depth(depth):
                        if node.policy == ANY and node.parent is not None:
                            node.parent.grow(policy, targets)
            else:
                for node in same:
                    self.drop(node)
                self.prune(depth)
        if not facts.is_self_issued:
            self.explicit, self.mapping, self.any = (max(0, n - 1) for n in (self.explicit, self.mapping, self.any))
        if facts.require is not None:
            self.explicit = min(self.explicit, facts.require)
        if facts.inhibit_mapping is not None:
            self.mapping = min(self.mapping, facts.inhibit_mapping)
        if facts.inhibit_any is not None:
            self.any = min(self.any, facts.inhibit_any)

    def finish(self, depth: int, facts: Facts) -> bool:
        """6.1.5 (a), (b), (g)."""
        self.explicit = max(0, self.explicit - 1)
        if facts.require == 0:
            self.explicit = 0
        if self.root is not None and ANY not in self.acceptable:
            self.keep_acceptable(depth)
        return self.explicit > 0 or self.root is not None

    def keep_acceptable(self, depth: int) -> None:
        """(g)(iii)."""
        nodes = [node for level in range(1, depth + 1) for node in self.at_depth(level)]
        authority = [node for node in nodes if node.parent is not None and node.parent.policy == ANY]  # step 1
        for node in authority:
            if node.policy not in self.acceptable and node.policy != ANY:  # step 2
                self.drop(node)
        for node in [node for node in self.at_depth(depth) if node.policy == ANY]:  # step 3
            assert node.parent is not None
            for policy in self.acceptable - {one.policy for one in authority}:
                node.parent.grow(policy, {policy})
            self.drop(node)
        self.prune(depth)  # step 4


def holds(
    path: Sequence[Facts],
    acceptable: frozenset[str] = frozenset(),
    *,
    require: bool = False,
    no_map: bool = False,
    no_any: bool = False,
) -> bool:
    """Whether the policies of a path, from below the anchor to the leaf, satisfy the caller."""
    tree = Tree(len(path), acceptable, require=require, no_map=no_map, no_any=no_any)
    for depth, facts in enumerate(path[:-1], start=1):
        if not tree.enter(depth, facts, is_final=False):
            return False
        tree.leave(depth, facts)
    return tree.enter(len(path), path[-1], is_final=True) and tree.finish(len(path), path[-1])
