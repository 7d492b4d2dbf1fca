"""A project that has the plugin and asks for nothing of it pays nothing; and ``--iop-list``."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from conftest import Project, all_output
