"""The reproduction table of the Criteo sample: `python -m tools.reproduce_criteo`; see tools/reproduce.py."""

from tools.reproduce import main
from tools.reproduce_models import CRITEO

if __name__ == "__main__":
    main(CRITEO)
