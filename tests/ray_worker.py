"""Runs a worker of Ray in a fork of a process that has imported torch; see forks.py.

Ray runs this in place of its script that sets up a worker and then starts Python once more.
"""

import runpy
import sys

# Options of Ray's script, for environments that no test uses.
SETUP = ("--language=", "--serialized-runtime-env-context=")

if __name__ == "__main__":
    sys.argv = [each for each in sys.argv[1:] if not each.startswith(SETUP)]
    runpy.run_path(sys.argv[0], run_name="__main__")
