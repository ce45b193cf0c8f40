"""AWQ and dense models in this process.

Importing this package sets ``OMP_WAIT_POLICY=PASSIVE`` unless it is set: torch's threads then sleep while they wait for each
other. With the default they spin, and on a machine that does anything else besides, decoding took up to ten times as long
(``docs/performance.md``). It acts only if torch was not imported before.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
