"""The reproduction table of Frappe by the BARS protocol: `python -m tools.reproduce_frappe`; see tools/reproduce.py."""

from tools.reproduce import main
from tools.reproduce_models import FRAPPE

if __name__ == "__main__":
    main(FRAPPE)
