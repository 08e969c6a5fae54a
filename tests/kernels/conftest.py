"""Kernel tests that take `interpret` run in the interpreter and in the simulator."""

from tests.kernels import simulator

interpret, no_race = simulator.interpret, simulator.no_race
