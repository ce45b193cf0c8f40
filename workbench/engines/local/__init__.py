"""AWQ and dense models in this process.

Importing this package sets ``GOMP_SPINCOUNT=10000`` unless that or ``OMP_WAIT_POLICY`` is set: torch's threads then spin for
some microseconds while they wait for each other, and sleep after that. By default they spin for milliseconds, and on a machine
that does anything else besides, decoding took up to ten times as long; sleeping at once costs a third of the speed of a quiet
machine (``docs/performance.md``). It acts only if torch was not imported before.
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
