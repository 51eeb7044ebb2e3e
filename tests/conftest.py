"""What every test starts from: the defaults, not the settings of whoever runs the tests."""

from __future__ import annotations

import os

for variable in [name for name in os.environ if name.startswith("PAPA_")]:
    del os.environ[variable]
