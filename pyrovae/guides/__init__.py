"""Guides: x to q(z | x), one family a file."""

from pyrovae.guides.diagonal_normal import DiagonalNormal
from pyrovae.guides.guide import Guide

__all__ = ["DiagonalNormal", "Guide"]
