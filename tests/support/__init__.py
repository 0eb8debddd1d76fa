"""Doubles of the outside world, shared by the tests."""
