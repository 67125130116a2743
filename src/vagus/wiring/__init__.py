"""The only package that constructs: it makes an installation's parts and operations and does nothing else."""

from vagus.wiring.installation import Installation
from vagus.wiring.parts import RealClock, real_entropy

__all__ = ["Installation", "RealClock", "real_entropy"]
